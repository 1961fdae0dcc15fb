//! From the server's answers to what is said of them.
//!
//! What may hold a passkey is told whole only where it is asked for by somebody who has shown who
//! it is: of URLs their scheme, host and port remain.

use super::types as said;
use crate::announce::{self, TrackerState};
use crate::catalog::{self, Changes, Status};
use crate::command::{self, Described, FileStatus, PeerStatus, Pieces, ServerLimits, SourceStatus};
use ::state::{LimitAction, TorrentLimits};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proto::magnet::Magnet;
use std::time::Duration;

/// A torrent.
pub(super) fn torrent(torrent: &catalog::Torrent) -> said::Torrent {
    let catalog::Torrent {
        summary,
        totals,
        live,
        ..
    } = torrent;
    let hash_v2 = summary.info_hash_v2.map(|hash| hash.to_string());
    let error = summary.last_error.as_ref();
    said::Torrent {
        info_hash: torrent.info_hash.to_string(),
        info_hash_v2: hash_v2,
        name: summary.name.clone(),
        status: status(live.status),
        done_permille: live.done_permille,
        last_error: error.map(|error| said::LastError {
            at_s: error.at_s,
            text: error.text.clone(),
        }),
        private: summary.private,
        total_bytes: summary.total_bytes,
        verified_bytes: torrent.bytes_verified(),
        piece_bytes: summary.piece_bytes,
        pieces: summary.pieces,
        pieces_verified: torrent.pieces_verified,
        files: summary.files,
        save_path: summary.save_path.to_string_lossy().into_owned(),
        category: summary.category.clone(),
        labels: summary.labels.clone(),
        added_at_s: summary.added_at_s,
        completed_at_s: summary.completed_at_s,
        last_active_at_s: Some(totals.last_active_at_s).filter(|at_s| *at_s != 0),
        paused: summary.paused,
        seed_mode: summary.seed_mode,
        sequential: summary.sequential,
        super_seeding: summary.super_seeding,
        limits: torrent_limits(&summary.limits),
        uploaded_bytes: totals.uploaded_bytes,
        downloaded_bytes: totals.downloaded_bytes,
        uploaded_session_bytes: live.uploaded_session,
        downloaded_session_bytes: live.downloaded_session,
        wasted_bytes: totals.wasted_bytes,
        ratio_permille: torrent.ratio_permille(),
        active_s: totals.active_s,
        seeding_s: totals.seeding_s,
        upload_rate: live.upload_rate,
        download_rate: live.download_rate,
        peers: live.peers,
        seeds: live.seeds,
    }
}

fn status(status: Status) -> said::Status {
    match status {
        Status::Paused => said::Status::Paused,
        Status::Queued => said::Status::Queued,
        Status::Metadata => said::Status::Metadata,
        Status::Checking => said::Status::Checking,
        Status::Moving => said::Status::Moving,
        Status::Downloading => said::Status::Downloading,
        Status::Seeding => said::Status::Seeding,
        Status::Offline => said::Status::Offline,
        Status::Failed => said::Status::Failed,
    }
}

fn torrent_limits(limits: &TorrentLimits) -> said::TorrentLimits {
    said::TorrentLimits {
        upload_rate: limits.upload_rate,
        download_rate: limits.download_rate,
        peers_max: limits.peers_max,
        ratio_permille: limits.ratio_permille,
        seeding_time_s: limits.seeding_time_s,
        at_limit: limits.at_limit.map(|action| match action {
            LimitAction::Pause => said::LimitAction::Pause,
            LimitAction::Remove => said::LimitAction::Remove,
            LimitAction::RemoveWithData => said::LimitAction::RemoveWithData,
            LimitAction::SuperSeed => said::LimitAction::SuperSeed,
        }),
    }
}

/// What has changed.
pub(super) fn changes(changes: &Changes<'_>) -> said::Changes {
    let changed = changes.changed.iter();
    let removed = changes.removed.iter();
    said::Changes {
        revision: changes.revision,
        begun: changes.begun,
        begins_anew: changes.begins_anew,
        has_more: changes.has_more,
        changed: changed.map(|changed| torrent(changed)).collect(),
        removed: removed.map(ToString::to_string).collect(),
    }
}

/// What was added.
pub(super) fn added(added: command::Added) -> said::Added {
    said::Added {
        info_hash: added.info_hash.to_string(),
        name: added.name,
        was_there: added.was_there,
    }
}

/// All that is known of a torrent.
pub(super) fn details(
    torrent: said::Torrent,
    described: Described,
    with_secrets: bool,
) -> said::TorrentDetails {
    let magnet = match with_secrets {
        true => described.magnet,
        false => open_magnet(&described.magnet),
    };
    let web_seeds = described.web_seeds.into_iter();
    let web_seeds = web_seeds.map(|url| shown(url, with_secrets));
    said::TorrentDetails {
        torrent,
        comment: described.comment,
        created_by: described.created_by,
        created_at_s: described.created_at_s,
        magnet,
        trackers: tiers(described.trackers, with_secrets),
        web_seeds: web_seeds.collect(),
        queue_position: described.queue_position,
        sources: described.sources.into_iter().map(source).collect(),
    }
}

fn source(status: SourceStatus) -> said::SourceStatus {
    said::SourceStatus {
        source: status.source.to_owned(),
        named: status.named,
        connected: status.connected,
    }
}

fn shown(url: String, with_secrets: bool) -> String {
    match with_secrets || is_open(&url) {
        true => url,
        false => announce::redacted(&url),
    }
}

fn tiers(tiers: Vec<Vec<String>>, with_secrets: bool) -> Vec<Vec<String>> {
    let tier = |urls: Vec<String>| {
        let urls = urls.into_iter().map(|url| shown(url, with_secrets));
        urls.collect()
    };
    tiers.into_iter().map(tier).collect()
}

/// Whether a URL has nothing that could be a passkey: nothing follows its host and port but
/// `/announce`.
pub(super) fn is_open(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else {
        return false;
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    host.chars().all(is_host) && (path.is_empty() || path == "announce")
}

/// A magnet link without the URLs that may hold a passkey.
fn open_magnet(link: &str) -> String {
    let Ok(mut magnet) = Magnet::parse(link) else {
        return String::new();
    };
    magnet.trackers.retain(|url| is_open(url));
    magnet.web_seeds.retain(|url| is_open(url));
    magnet.to_string()
}

/// A torrent's trackers.
pub(super) fn trackers(
    described: Described,
    statuses: Vec<announce::TrackerStatus>,
    with_secrets: bool,
) -> said::TrackerList {
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    let tracker = |status: announce::TrackerStatus| said::TrackerStatus {
        tracker: status.tracker,
        tier: status.tier,
        state: match status.state {
            TrackerState::Waiting => said::TrackerState::Waiting,
            TrackerState::Announcing => said::TrackerState::Announcing,
            TrackerState::Working => said::TrackerState::Working,
            TrackerState::Failing => said::TrackerState::Failing,
            TrackerState::Disabled => said::TrackerState::Disabled,
        },
        since_last_s: seconds(status.since_last),
        asking_for_s: seconds(status.asking_for),
        until_next_s: seconds(status.until_next),
        seeders: status.seeders,
        leechers: status.leechers,
        downloaded: status.downloaded,
        peers: status.peers,
        message: status.message,
    };
    said::TrackerList {
        tiers: tiers(described.trackers, with_secrets),
        trackers: statuses.into_iter().map(tracker).collect(),
    }
}

/// A torrent's files.
pub(super) fn files(files: Vec<FileStatus>) -> said::FileList {
    let file = |file: FileStatus| said::FileStatus {
        index: file.index,
        path: file.path.to_string_lossy().into_owned(),
        total_bytes: file.length,
        verified_bytes: file.bytes_verified,
        priority: file.priority.number(),
    };
    said::FileList {
        files: files.into_iter().map(file).collect(),
    }
}

/// A torrent's peers.
pub(super) fn peers(peers: Vec<PeerStatus>) -> said::PeerList {
    let peer = |peer: PeerStatus| said::PeerStatus {
        address: peer.address.to_string(),
        client: peer.client,
        incoming: peer.incoming,
        source: peer.source.to_owned(),
        has_permille: peer.has_permille,
        uploaded_bytes: peer.uploaded,
        downloaded_bytes: peer.downloaded,
        upload_rate: peer.upload_rate,
        download_rate: peer.download_rate,
        am_choking: peer.am_choking,
        am_interested: peer.am_interested,
        peer_choking: peer.peer_choking,
        peer_interested: peer.peer_interested,
    };
    said::PeerList {
        peers: peers.into_iter().map(peer).collect(),
    }
}

/// A torrent's pieces.
pub(super) fn pieces(pieces: &Pieces) -> said::Pieces {
    let verified = pieces.verified.iter();
    said::Pieces {
        count: pieces.count,
        verified_count: verified.map(|byte| byte.count_ones()).sum(),
        verified: BASE64_STANDARD.encode(&pieces.verified),
    }
}

/// The server's limits.
pub(super) fn server_limits(limits: ServerLimits) -> said::ServerLimits {
    said::ServerLimits {
        upload_rate: limits.upload_rate,
        download_rate: limits.download_rate,
    }
}
