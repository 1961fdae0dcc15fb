//! From what requests say to what is asked of the server. What cannot be meant is refused here, by
//! the field that says it; what only the server knows to be wrong, it refuses itself.
//!
//! Limits: those of [`limits`] beside the length of the body.

use super::decode::info_hash;
use super::problem::Refusal;
use super::types as said;
use crate::catalog::{self, Status};
use crate::command::{self, AddSource, AddTorrent, Edit, LimitsEdit};
use ::state::{LimitAction, Place, TorrentLimits};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use proto::magnet::Magnet;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

/// What may be said of one torrent.
mod limits {
    /// Its labels.
    pub(super) const LABELS_MAX: usize = 256;
    /// The bytes of a label, a category or a name.
    pub(super) const NAME_BYTES_MAX: usize = 1024;
    /// The bytes of a path.
    pub(super) const PATH_BYTES_MAX: usize = 4096;
    /// Its trackers, in all tiers.
    pub(super) const TRACKERS_MAX: usize = 1024;
    /// The bytes of a URL.
    pub(super) const URL_BYTES_MAX: usize = 4096;
    /// Peers to ask.
    pub(super) const PEERS_MAX: usize = 1000;
    /// The largest number that every reader of JSON can write again.
    pub(super) const NUMBER_MAX: u64 = 1 << 53;
}

type Result<T> = std::result::Result<T, Box<Refusal>>;

/// A torrent to add.
pub(super) fn add(add: said::AddTorrent) -> Result<AddTorrent> {
    let sources = [&add.metainfo, &add.magnet, &add.url, &add.path];
    if sources.iter().filter(|source| source.is_some()).count() != 1 {
        let detail = "say which torrent by one of metainfo, magnet, url and path";
        return Err(Refusal::field("metainfo", detail));
    }
    let source = if let Some(metainfo) = &add.metainfo {
        let bytes = BASE64_STANDARD.decode(metainfo);
        let wrong = |error| Refusal::field("metainfo", format!("metainfo: no base64: {error}"));
        AddSource::Metainfo(bytes.map_err(wrong)?)
    } else if let Some(magnet) = &add.magnet {
        let wrong = |error| Refusal::field("magnet", format!("magnet: {error}"));
        AddSource::Magnet(Box::new(Magnet::parse(magnet).map_err(wrong)?))
    } else if let Some(url) = &add.url {
        AddSource::Url(web_url("url", url, &["http", "https"])?)
    } else {
        let path = add.path.as_deref().unwrap_or_default();
        AddSource::Path(absolute("path", path)?)
    };
    options(add, source)
}

/// A torrent whose .torrent file has come by itself.
pub(super) fn add_metainfo(add: said::AddTorrent, metainfo: Vec<u8>) -> Result<AddTorrent> {
    let sources = [&add.metainfo, &add.magnet, &add.url, &add.path];
    if sources.iter().any(|source| source.is_some()) {
        let detail =
            "the .torrent file says which torrent; leave out metainfo, magnet, url and path";
        return Err(Refusal::field("metainfo", detail));
    }
    options(add, AddSource::Metainfo(metainfo))
}

fn options(add: said::AddTorrent, source: AddSource) -> Result<AddTorrent> {
    let category = add.category.filter(|category| !category.is_empty());
    let save_path = add.save_path.as_deref();
    Ok(AddTorrent {
        source,
        save_path: save_path
            .map(|path| absolute("save_path", path))
            .transpose()?,
        name: add.name.map(|text| name("name", text)).transpose()?,
        category: category.map(|text| name("category", text)).transpose()?,
        labels: labels("labels", add.labels)?,
        paused: add.paused,
        seed_mode: add.seed_mode,
        sequential: add.sequential,
        super_seeding: add.super_seeding,
        priorities: priorities(&add.files)?,
        only_named: add.only_named,
        limits: torrent_limits(&add.limits)?,
        trackers: trackers("trackers", add.trackers)?,
        peers: peers(&add.peers)?,
        first_in_queue: add.first_in_queue,
    })
}

/// A change of a torrent.
pub(super) fn edit(edit: said::EditTorrent) -> Result<Edit> {
    let trackers = edit.trackers.map(|tiers| trackers("trackers", tiers));
    Ok(Edit {
        name: edit.name.map(|text| name("name", text)).transpose()?,
        category: edit.category.map(category).transpose()?,
        labels: edit.labels.map(|all| labels("labels", all)).transpose()?,
        labels_added: labels("labels_added", edit.labels_added)?,
        labels_removed: labels("labels_removed", edit.labels_removed)?,
        limits: limits_edit(&edit.limits.unwrap_or_default())?,
        sequential: edit.sequential,
        super_seeding: edit.super_seeding,
        priorities: priorities(&edit.files)?,
        trackers: trackers.transpose()?,
    })
}

/// A change of many torrents.
pub(super) fn bulk_edit(bulk: said::BulkEdit) -> Result<Edit> {
    edit(said::EditTorrent {
        category: bulk.category,
        labels: bulk.labels,
        labels_added: bulk.labels_added,
        labels_removed: bulk.labels_removed,
        limits: bulk.limits,
        ..said::EditTorrent::default()
    })
}

fn category(category: Option<String>) -> Result<Option<String>> {
    let category = category.filter(|category| !category.is_empty());
    category.map(|text| name("category", text)).transpose()
}

/// How much files are wanted.
pub(super) fn priorities(files: &[said::FilePriority]) -> Result<Vec<(u32, Priority)>> {
    let mut named = HashSet::new();
    let mut priorities = Vec::with_capacity(files.len());
    for (place, file) in files.iter().enumerate() {
        let field = || format!("files[{place}]");
        let priority = Priority::new(file.priority).ok_or_else(|| {
            let detail = format!("{}: a priority is 0 to 7", field());
            Refusal::field(format!("{}.priority", field()), detail)
        })?;
        if !named.insert(file.index) {
            let detail = format!("{}: file {} is named twice", field(), file.index);
            return Err(Refusal::field(format!("{}.index", field()), detail));
        }
        priorities.push((file.index, priority));
    }
    Ok(priorities)
}

fn number(field: &str, number: Option<u64>) -> Result<Option<u64>> {
    match number {
        Some(number) if number > limits::NUMBER_MAX => {
            let detail = format!("{field}: at most {}", limits::NUMBER_MAX);
            Err(Refusal::field(field, detail))
        }
        number => Ok(number),
    }
}

fn torrent_limits(limits: &said::TorrentLimits) -> Result<TorrentLimits> {
    Ok(TorrentLimits {
        upload_rate: number("limits.upload_rate", limits.upload_rate)?,
        download_rate: number("limits.download_rate", limits.download_rate)?,
        peers_max: number("limits.peers_max", limits.peers_max)?,
        ratio_permille: number("limits.ratio_permille", limits.ratio_permille)?,
        seeding_time_s: number("limits.seeding_time_s", limits.seeding_time_s)?,
        at_limit: limits.at_limit.map(limit_action),
    })
}

/// A limit that is left as it is, taken away, or a number.
fn edited(field: &str, edited: Option<Option<u64>>) -> Result<Option<Option<u64>>> {
    edited.map(|limit| number(field, limit)).transpose()
}

fn limits_edit(limits: &said::EditLimits) -> Result<LimitsEdit> {
    Ok(LimitsEdit {
        upload_rate: edited("limits.upload_rate", limits.upload_rate)?,
        download_rate: edited("limits.download_rate", limits.download_rate)?,
        peers_max: edited("limits.peers_max", limits.peers_max)?,
        ratio_permille: edited("limits.ratio_permille", limits.ratio_permille)?,
        seeding_time_s: edited("limits.seeding_time_s", limits.seeding_time_s)?,
        at_limit: limits.at_limit.map(|action| action.map(limit_action)),
    })
}

/// Limits of the server.
pub(super) fn server_limits(limits: &said::EditServerLimits) -> Result<command::ServerLimitsEdit> {
    Ok(command::ServerLimitsEdit {
        upload_rate: edited("upload_rate", limits.upload_rate)?,
        download_rate: edited("download_rate", limits.download_rate)?,
    })
}

fn limit_action(action: said::LimitAction) -> LimitAction {
    match action {
        said::LimitAction::Pause => LimitAction::Pause,
        said::LimitAction::Remove => LimitAction::Remove,
        said::LimitAction::RemoveWithData => LimitAction::RemoveWithData,
        said::LimitAction::SuperSeed => LimitAction::SuperSeed,
    }
}

/// A place in the queue.
pub(super) fn place(place: said::Place) -> Result<Place> {
    let other = |text: &str| {
        let detail = "place: another torrent is named by its info-hash: 40 hex digits";
        info_hash(text).ok_or_else(|| Refusal::field("place", detail))
    };
    Ok(match place {
        said::Place::First => Place::First,
        said::Place::Last => Place::Last,
        said::Place::Out => Place::Out,
        said::Place::Before(hash) => Place::Before(other(&hash)?),
        said::Place::After(hash) => Place::After(other(&hash)?),
    })
}

/// A place for a torrent's data.
pub(super) fn movement(movement: &said::MoveTorrent) -> Result<command::Move> {
    Ok(command::Move {
        save_path: absolute("save_path", &movement.save_path)?,
        data_are_there: movement.data_are_there,
    })
}

/// A text of one line that names something.
fn name(field: &str, text: String) -> Result<String> {
    let is_length = (1..=limits::NAME_BYTES_MAX).contains(&text.len());
    if is_length && !text.chars().any(char::is_control) {
        return Ok(text);
    }
    let max = limits::NAME_BYTES_MAX;
    let detail = format!("{field}: 1 to {max} bytes without control characters");
    Err(Refusal::field(field, detail))
}

fn labels(field: &str, labels: Vec<String>) -> Result<Vec<String>> {
    if labels.len() > limits::LABELS_MAX {
        let detail = format!("{field}: at most {}", limits::LABELS_MAX);
        return Err(Refusal::field(field, detail));
    }
    let mut known = HashSet::new();
    let mut kept = Vec::with_capacity(labels.len());
    for (place, label) in labels.into_iter().enumerate() {
        let label = name(&format!("{field}[{place}]"), label)?;
        if known.insert(label.clone()) {
            kept.push(label);
        }
    }
    Ok(kept)
}

fn path_text(field: &str, text: &str) -> Result<()> {
    if text.is_empty() || text.len() > limits::PATH_BYTES_MAX || text.contains('\0') {
        let max = limits::PATH_BYTES_MAX;
        let detail = format!("{field}: a path has 1 to {max} bytes, none of them NUL");
        return Err(Refusal::field(field, detail));
    }
    Ok(())
}

/// An absolute path that goes nowhere back.
fn absolute(field: &str, text: &str) -> Result<PathBuf> {
    path_text(field, text)?;
    let path = Path::new(text);
    let goes_back = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || goes_back {
        let detail = format!("{field}: an absolute path on the server, without \"..\"");
        return Err(Refusal::field(field, detail));
    }
    Ok(path.to_owned())
}

/// A path below a folder.
pub(super) fn relative(field: &str, text: &str) -> Result<PathBuf> {
    path_text(field, text)?;
    let path = Path::new(text);
    let is_below = |part| matches!(part, Component::Normal(_));
    if !path.components().all(is_below) || text.ends_with('/') {
        let detail = format!("{field}: a path below the save path, without \"..\"");
        return Err(Refusal::field(field, detail));
    }
    Ok(path.to_owned())
}

fn web_url(field: &str, url: &str, schemes: &[&str]) -> Result<String> {
    let scheme = url.split_once("://").filter(|(_, rest)| !rest.is_empty());
    let is_known = |known: &&str| scheme.is_some_and(|(said, _)| said.eq_ignore_ascii_case(known));
    let is_plain = !url.chars().any(|c| c.is_control() || c.is_whitespace());
    if schemes.iter().any(is_known) && is_plain && url.len() <= limits::URL_BYTES_MAX {
        return Ok(url.to_owned());
    }
    let max = limits::URL_BYTES_MAX;
    let schemes = schemes.join("://, ");
    let detail = format!("{field}: a URL of at most {max} bytes, without blanks: {schemes}://");
    Err(Refusal::field(field, detail))
}

/// Trackers in their tiers; a tier without any is none.
pub(super) fn trackers(field: &str, tiers: Vec<Vec<String>>) -> Result<Vec<Vec<String>>> {
    let count: usize = tiers.iter().map(Vec::len).sum();
    if count > limits::TRACKERS_MAX {
        let detail = format!("{field}: at most {}", limits::TRACKERS_MAX);
        return Err(Refusal::field(field, detail));
    }
    let mut kept = Vec::new();
    for (tier, urls) in tiers.into_iter().enumerate() {
        let mut checked = Vec::with_capacity(urls.len());
        for (place, url) in urls.iter().enumerate() {
            let field = format!("{field}[{tier}][{place}]");
            checked.push(web_url(&field, url, &["http", "https", "udp"])?);
        }
        if !checked.is_empty() {
            kept.push(checked);
        }
    }
    Ok(kept)
}

/// Peers to ask.
pub(super) fn peers(peers: &[String]) -> Result<Vec<SocketAddr>> {
    if peers.len() > limits::PEERS_MAX {
        let detail = format!("peers: at most {}", limits::PEERS_MAX);
        return Err(Refusal::field("peers", detail));
    }
    let read = |(place, text): (usize, &String)| {
        let address = text.parse::<SocketAddr>().ok();
        address
            .filter(|address| address.port() != 0)
            .ok_or_else(|| {
                let field = format!("peers[{place}]");
                let detail = format!("{field}: an address with a port, \"192.0.2.1:6881\"");
                Refusal::field(field, detail)
            })
    };
    peers.iter().enumerate().map(read).collect()
}

/// What a list of info-hashes names, each once.
pub(super) fn info_hashes(field: &str, texts: &[String]) -> Result<Vec<InfoHashV1>> {
    let mut known = HashSet::new();
    let mut hashes = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        let hash = info_hash(text).ok_or_else(|| {
            let field = format!("{field}[{place}]");
            let detail = format!("{field}: an info-hash has 40 hex digits");
            Refusal::field(field, detail)
        })?;
        if known.insert(hash) {
            hashes.push(hash);
        }
    }
    Ok(hashes)
}

/// Which torrents.
pub(super) fn filter(filter: said::Filter) -> catalog::Filter {
    catalog::Filter {
        status: filter.status.into_iter().map(status_meant).collect(),
        label: filter.label,
        category: filter.category,
        text: filter.q.filter(|text| !text.is_empty()),
    }
}

/// A question for a page.
pub(super) fn list_query(query: &said::ListQuery) -> Result<catalog::Query> {
    let mut statuses = Vec::new();
    for word in parts(query.status.as_deref()) {
        let status = serde_json::from_value(serde_json::Value::from(word));
        let status: said::Status = status.map_err(|error| {
            let detail = format!("in the query, status: {error}");
            Refusal::field("status", detail)
        })?;
        statuses.push(status);
    }
    Ok(catalog::Query {
        filter: filter(said::Filter {
            status: statuses,
            label: query.label.clone(),
            category: query.category.clone(),
            q: query.q.clone(),
        }),
        sort: sort_key(query.sort),
        descending: query.order == said::Order::Desc,
        offset: query.offset,
        limit: query.limit,
    })
}

/// The parts of a list that commas part.
pub(super) fn parts(text: Option<&str>) -> impl Iterator<Item = &str> {
    let parts = text.unwrap_or_default().split(',').map(str::trim);
    parts.filter(|part| !part.is_empty())
}

fn sort_key(key: said::SortKey) -> catalog::SortKey {
    use catalog::SortKey as Meant;
    match key {
        said::SortKey::Added => Meant::Added,
        said::SortKey::Name => Meant::Name,
        said::SortKey::Size => Meant::Size,
        said::SortKey::Progress => Meant::Progress,
        said::SortKey::Status => Meant::Status,
        said::SortKey::UploadRate => Meant::UploadRate,
        said::SortKey::DownloadRate => Meant::DownloadRate,
        said::SortKey::Uploaded => Meant::Uploaded,
        said::SortKey::Downloaded => Meant::Downloaded,
        said::SortKey::Ratio => Meant::Ratio,
        said::SortKey::Peers => Meant::Peers,
        said::SortKey::Completed => Meant::Completed,
        said::SortKey::Active => Meant::Active,
    }
}

fn status_meant(status: said::Status) -> Status {
    match status {
        said::Status::Paused => Status::Paused,
        said::Status::Queued => Status::Queued,
        said::Status::Metadata => Status::Metadata,
        said::Status::Checking => Status::Checking,
        said::Status::Moving => Status::Moving,
        said::Status::Downloading => Status::Downloading,
        said::Status::Seeding => Status::Seeding,
        said::Status::Offline => Status::Offline,
        said::Status::Failed => Status::Failed,
    }
}
