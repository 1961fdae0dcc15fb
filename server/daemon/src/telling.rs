//! What the user of `seed` and `serve` sees on stdout: lines for people, or one JSON object per event.

use crate::budget::Budget;
use crate::loading::Refused;
use crate::progress::{counted, print, print_json, shown};
use crate::torrents::Served;
use indicatif::{BinaryBytes, DecimalBytes};
use proto::ids::{InfoHashV1, PeerId};
use proto::metainfo::Metainfo;
use seedring_io::torrent::Fault;
use seedring_metrics::{Counter, Gauge, Registry};
use serde_json::json;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Instant;

/// Where the server is reached.
pub struct Announcement {
    pub peer_id: PeerId,
    pub peer_port: u16,
    pub api: Option<SocketAddr>,
    /// The announce URL of our own tracker.
    pub tracker: Option<String>,
    /// Where our DHT nodes listen.
    pub dht: Vec<SocketAddr>,
}

/// Tells.
pub struct Teller {
    json: bool,
    /// Whether what is told ends in a log: then magnet links name no tracker but our own, because the URL
    /// of another may hold a passkey.
    logged: bool,
    /// Whether stdout is a terminal, where the live line is drawn.
    live: bool,
    /// Whether the cursor stands behind a live line.
    drawn: bool,
    uploaded: u64,
    at: Instant,
}

impl Teller {
    /// Tells in JSON, or to people; to a log if `logged`.
    pub fn new(json: bool, logged: bool) -> Teller {
        let live = !json && std::io::stdout().is_terminal();
        Teller {
            json,
            logged,
            live,
            drawn: false,
            uploaded: 0,
            at: Instant::now(),
        }
    }

    /// What the configuration costs at most.
    pub fn costs(&mut self, budget: &Budget) {
        let Budget {
            connections_max,
            open_files_max,
            descriptors_max,
            memory_bytes_max,
            ..
        } = *budget;
        tracing::info!(
            connections_max,
            open_files_max,
            descriptors_max,
            memory_bytes_max,
            "limits of this configuration: at most {} of memory beside the torrents' metainfo, and \
             {descriptors_max} descriptors",
            BinaryBytes(memory_bytes_max)
        );
    }

    /// Everything is served but what was `refused`.
    pub fn ready<'a>(
        &mut self,
        at: &Announcement,
        budget: &Budget,
        torrents: impl Iterator<Item = Served<'a>>,
        refused: &[Refused],
    ) {
        let api = at.api.map(|address| format!("http://{address}"));
        let own_only = self.logged.then_some(at.tracker.as_deref());
        if self.json {
            let torrents: Vec<_> = torrents
                .map(|served| {
                    json!({
                        "torrent": served.torrent_file.to_string_lossy(),
                        "magnet": link(&served.ready.metainfo, own_only),
                        "info_hash_v1": served.ready.info_hash.to_string(),
                        "name": served.ready.metainfo.name,
                        "data_dir": served.ready.data_dir.to_string_lossy(),
                    })
                })
                .collect();
            print_json(&json!({
                "event": "ready",
                "peer_port": at.peer_port,
                "api": api,
                "tracker": at.tracker,
                "dht": at.dht,
                "memory_bytes_max": budget.memory_bytes_max,
                "descriptors_max": budget.descriptors_max,
                "torrents": torrents,
                "refused": refused.iter().map(refused_json).collect::<Vec<_>>(),
            }));
            return;
        }
        let mut count = 0;
        for served in torrents {
            count += 1;
            let metainfo = &served.ready.metainfo;
            print(&format!(
                "{}  {} in {}\n  torrent  {}\n  magnet   {}\n",
                proto::text::printable(metainfo.name.as_bytes(), 200),
                BinaryBytes(metainfo.total_length),
                counted(file_count(metainfo), "file"),
                shown(served.torrent_file),
                link(metainfo, own_only),
            ));
        }
        let mut line = format!(
            "ready: {}, peers on port {}",
            counted(count, "torrent"),
            at.peer_port
        );
        if let Some(tracker) = &at.tracker {
            line.push_str(&format!(", tracker {tracker}"));
        }
        if let Some(dht) = at.dht.first() {
            line.push_str(&format!(", DHT on UDP port {}", dht.port()));
        }
        if let Some(api) = api {
            line.push_str(&format!(", metrics {api}/metrics"));
        }
        if !refused.is_empty() {
            let sources: Vec<_> = refused.iter().map(|one| shown(&one.source.path)).collect();
            line.push_str(&format!("; not served: {}", sources.join(", ")));
        }
        line.push_str("; Ctrl-C stops\n");
        print(&line);
    }

    /// A torrent's data are in doubt.
    pub fn fault(&mut self, fault: &Fault) {
        let file = fault.file.to_string_lossy();
        tracing::error!(torrent = %fault.info_hash, ?file, cause = %fault.cause,
            "a torrent is not served any more; it comes back when its data are right again");
        if self.json {
            print_json(&json!({
                "event": "torrent-error",
                "info_hash_v1": fault.info_hash.to_string(),
                "file": file,
                "cause": fault.cause.to_string(),
            }));
        }
    }

    /// A torrent's data are right again.
    pub fn recovered(&mut self, info_hash: InfoHashV1) {
        tracing::info!(torrent = %info_hash, "served again: its data were hashed and are right");
        if self.json {
            print_json(&json!({
                "event": "torrent-recovered",
                "info_hash_v1": info_hash.to_string(),
            }));
        }
    }

    /// The live line.
    pub fn line(&mut self, registry: &Registry) {
        if !self.live {
            return;
        }
        let snapshot = registry.snapshot();
        let uploaded = snapshot.counter(Counter::UploadedBytes);
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        let rate = (uploaded - self.uploaded) as f64 / seconds;
        (self.uploaded, self.at) = (uploaded, Instant::now());
        print(&format!(
            "\r\x1b[K{}/s up, {} in all, {} peers, {} unchoked",
            DecimalBytes(rate as u64),
            BinaryBytes(uploaded),
            snapshot.gauge(Gauge::PeersConnected),
            snapshot.gauge(Gauge::PeersUnchoked),
        ));
        self.drawn = true;
    }

    /// The server stops.
    pub fn stopping(&mut self) {
        if self.drawn {
            print("\n");
        }
        if self.json {
            print_json(&json!({ "event": "stopping" }));
        } else {
            print("stopping: telling the trackers, closing connections\n");
        }
    }
}

/// The files of a torrent; padding is none.
fn file_count(metainfo: &Metainfo) -> u64 {
    metainfo.files.iter().filter(|file| !file.pad).count() as u64
}

/// The magnet link of a torrent; of the trackers only our own, if `own_only` says which that is.
fn link(metainfo: &Metainfo, own_only: Option<Option<&str>>) -> String {
    let mut magnet = metainfo.magnet();
    if let Some(own) = own_only {
        magnet.trackers.retain(|url| Some(url.as_str()) == own);
        magnet.web_seeds.clear();
    }
    magnet.to_string()
}

/// A torrent that is not served, and why.
fn refused_json(refused: &Refused) -> serde_json::Value {
    json!({
        "source": refused.source.path.to_string_lossy(),
        "reason": format!("{:#}", refused.error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_gets_no_passkey() {
        let own = "http://192.0.2.2:6969/announce";
        let other = "http://tracker.example/0123456789abcdef/announce";
        let tiers = vec![vec![own.to_owned()], vec![other.to_owned()]];
        let bare =
            b"d4:infod6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
        let torrent = proto::metainfo::with_trackers(bare, &tiers).unwrap();
        let metainfo = Metainfo::parse(&torrent).unwrap();
        assert!(link(&metainfo, None).contains("0123456789abcdef"));
        let logged = link(&metainfo, Some(Some(own)));
        assert!(logged.contains("192.0.2.2") && !logged.contains("tracker.example"));
        assert!(!link(&metainfo, Some(None)).contains("&tr="));
    }
}
