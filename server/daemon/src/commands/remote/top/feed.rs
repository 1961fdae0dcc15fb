//! Asks the server for the screen: what changes, what is looked at, and what is to be done.

use super::pieces::PieceMap;
use super::screen::{Event, Part, Request, Tab};
use crate::client::{Client, Error, query};
use crate::commands::remote::act::TOGETHER;
use crate::commands::remote::add;
use crate::progress::counted;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use control::api::types::{
    AddTorrent, Added, Bulk, BulkAction, BulkEdit, BulkResult, Changes, ChangesQuery, EditLimits,
    EditServerLimits, FileList, LogLines, LogQuery, PeerList, Pieces, ServerLimits, ServerStatus,
    TrackerList,
};
use reqwest::Method;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How often the server is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long all answers together may take: a server that hangs is one that does not answer.
const ROUND_MAX: Duration = Duration::from_secs(15);
/// Torrents that are told of at a time.
const CHANGES_MAX: usize = 5000;

/// Lines of the server's log that are shown.
const LOG_LINES_MAX: usize = 200;

/// What is looked at.
pub type Watched = Option<(String, Tab)>;

/// What the server has told.
#[derive(Default)]
struct Told {
    since: u64,
    begun: Option<u64>,
    /// Parts of a telling that begins anew: shown when the last has come, so that what is looked at
    /// or marked does not go in between.
    anew: Option<Changes>,
}

impl Told {
    /// What of it is to be shown now.
    fn take(&mut self, changes: Changes) -> Option<Changes> {
        (self.since, self.begun) = (changes.revision, changes.begun);
        let is_last = !changes.has_more;
        if changes.begins_anew {
            self.anew = Some(changes);
        } else if let Some(anew) = &mut self.anew {
            // What is here is later than what is there.
            let gone: HashSet<&String> = changes.removed.iter().collect();
            anew.changed
                .retain(|torrent| !gone.contains(&torrent.info_hash));
            anew.changed.extend(changes.changed);
        } else {
            return Some(changes);
        }
        self.anew.take_if(|_| is_last)
    }
}

/// Follows what changes until nobody listens.
pub async fn follow(
    client: Client,
    events: SyncSender<Event>,
    mut watched: watch::Receiver<Watched>,
) {
    let mut told = Told::default();
    // What the server has refused to tell is not asked for again and again.
    let mut refused: Watched = None;
    loop {
        let looked_at = watched.borrow_and_update().clone();
        let heard = round(&client, &events, &mut told, looked_at, &mut refused);
        let heard = tokio::time::timeout(ROUND_MAX, heard)
            .await
            .unwrap_or_else(|_| {
                let text = format!("no answer within {} s", ROUND_MAX.as_secs());
                Err(Some(Error::Unreachable(text)))
            });
        let is_open = match heard {
            Ok(true) => continue,
            Ok(false) => true,
            Err(Some(error)) => events.send(Event::Lost(error.to_string())).is_ok(),
            Err(None) => false,
        };
        if !is_open {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            changed = watched.changed() => if changed.is_err() { return },
        }
    }
}

/// Asks once for everything; whether there is more. An error that is none: nobody listens.
async fn round(
    client: &Client,
    events: &SyncSender<Event>,
    told: &mut Told,
    looked_at: Watched,
    refused: &mut Watched,
) -> Result<bool, Option<Error>> {
    let send = |event| events.send(event).map_err(|_| None);
    let asked = query(&ChangesQuery {
        since: told.since,
        begun: told.begun,
        limit: CHANGES_MAX,
    });
    let changes: Changes = client
        .get(&format!("/changes{asked}"))
        .await
        .map_err(Some)?;
    let has_more = changes.has_more;
    if let Some(changes) = told.take(changes) {
        send(Event::Changes(Box::new(changes)))?;
    }
    if has_more {
        return Ok(true);
    }
    let server: ServerStatus = client.get("/server").await.map_err(Some)?;
    send(Event::Server(Box::new(server)))?;
    if looked_at == *refused {
        return Ok(false);
    }
    let Some((hash, tab)) = &looked_at else {
        return Ok(false);
    };
    match part(client, hash, *tab).await {
        Ok(part) => send(Event::Detail(hash.clone(), part))?,
        Err(error @ Error::Unreachable(_)) => return Err(Some(error)),
        // It has just been removed: the next changes say so.
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            send(Event::Failed(error.to_string()))?;
            *refused = looked_at;
        }
    }
    Ok(false)
}

async fn part(client: &Client, hash: &str, tab: Tab) -> Result<Part, Error> {
    let path = |rest: &str| format!("/torrents/{hash}{rest}");
    Ok(match tab {
        Tab::Overview => Part::Overview(client.get(&path("")).await?),
        Tab::Log => {
            let asked = query(&LogQuery {
                limit: LOG_LINES_MAX,
                ..LogQuery::default()
            });
            let log: LogLines = client.get(&format!("/log{asked}")).await?;
            Part::Log(log.lines)
        }
        Tab::Files => Part::Files(client.get::<FileList>(&path("/files")).await?.files),
        Tab::Peers => Part::Peers(client.get::<PeerList>(&path("/peers")).await?.peers),
        Tab::Trackers => {
            let list: TrackerList = client.get(&path("/trackers")).await?;
            Part::Trackers(list.trackers)
        }
        Tab::Pieces => {
            let pieces: Pieces = client.get(&path("/pieces")).await?;
            let bits = BASE64_STANDARD.decode(&pieces.verified);
            let odd = |_| Error::Odd("the server tells pieces in no base64".to_owned());
            Part::Pieces(PieceMap {
                count: pieces.count,
                bits: bits.map_err(odd)?,
            })
        }
    })
}

/// Does what is asked, one thing after another, until nobody asks.
pub async fn work(
    client: Client,
    events: SyncSender<Event>,
    mut requests: mpsc::Receiver<Request>,
) {
    while let Some(request) = requests.recv().await {
        let event = match done(&client, request).await {
            Ok(text) => Event::Done(text),
            Err(text) => Event::Failed(text),
        };
        if events.send(event).is_err() {
            return;
        }
    }
}

/// Does one thing; what has become of it.
async fn done(client: &Client, request: Request) -> Result<String, String> {
    match request {
        Request::Add(what) => {
            let request = add::request(&at_home(&what), &[], &AddTorrent::default())?;
            let added: Result<Added, Error> =
                client.send(Method::POST, "/torrents", &request).await;
            let added = added.map_err(|error| error.to_string())?;
            let word = if added.was_there { "is there" } else { "added" };
            Ok(format!("{word}: {}", added.name))
        }
        Request::LimitServer(up, down) => {
            let request = EditServerLimits {
                upload_rate: Some(up),
                download_rate: Some(down),
            };
            let limits: Result<ServerLimits, Error> =
                client.send(Method::PATCH, "/limits", &request).await;
            limits.map_err(|error| error.to_string())?;
            Ok("the server has its new limits".to_owned())
        }
        Request::Limit(torrents, up, down) => {
            let limits = EditLimits {
                upload_rate: Some(up),
                download_rate: Some(down),
                ..EditLimits::default()
            };
            let edit = BulkEdit {
                limits: Some(limits),
                ..BulkEdit::default()
            };
            bulk(client, BulkAction::Edit, torrents, false, Some(edit)).await
        }
        Request::Act {
            action,
            torrents,
            with_data,
        } => bulk(client, action, torrents, with_data, None).await,
    }
}

async fn bulk(
    client: &Client,
    action: BulkAction,
    torrents: Vec<String>,
    with_data: bool,
    edit: Option<BulkEdit>,
) -> Result<String, String> {
    let mut result = BulkResult::default();
    for together in torrents.chunks(TOGETHER) {
        let request = Bulk {
            action,
            torrents: Some(together.to_vec()),
            filter: None,
            with_data,
            edit: edit.clone(),
        };
        let part: Result<BulkResult, Error> = client
            .send(Method::POST, "/torrents/actions", &request)
            .await;
        let part = part.map_err(|error| error.to_string())?;
        result.done += part.done;
        result.failed_total += part.failed_total;
        result.failed.extend(part.failed);
    }
    let verb = match action {
        BulkAction::Pause => "paused",
        BulkAction::Resume => "resumed",
        BulkAction::Remove => "removed",
        BulkAction::Recheck => "rechecking",
        BulkAction::Announce => "announcing",
        BulkAction::Edit => "changed",
    };
    let done = format!("{verb} {}", counted(result.done as u64, "torrent"));
    match result.failed.first() {
        None => Ok(done),
        Some(first) => {
            let failed = counted(result.failed_total as u64, "failure");
            Err(format!("{done}, {failed}: {}", first.problem.detail))
        }
    }
}

/// A path with the user's home in place of the `~` that shells know.
fn at_home(what: &str) -> String {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    match (what.strip_prefix("~/"), home) {
        (Some(below), Some(home)) => home.join(below).to_string_lossy().into_owned(),
        _ => what.to_owned(),
    }
}

#[cfg(test)]
mod tests;
