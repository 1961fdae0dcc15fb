//! What is told of one torrent beside what the catalog has: read of the store when it is asked for.

use crate::acting;
use crate::manager::{Manager, Phase};
use crate::reading::Kept;
use control::announce::TrackerStatus;
use control::command::{
    CommandError, Described, FileStatus, PeerStatus, Pieces, Reply, SourceStatus,
};
use control::verify::PieceSet;
use engine::layout::{FileIndex, StorageLayout};
use engine::peer_list::PeerSource;
use engine::picker::Priority;
use proto::ids::{InfoHashV1, PieceIndex};
use seedring_io::peers::PeerSeen;
use state::Verified;
use std::path::PathBuf;
use std::sync::Arc;

impl Manager {
    /// Has `tell` be done beside everything else with what is kept of a torrent.
    fn read_for<T: Send + 'static>(
        &self,
        info_hash: InfoHashV1,
        reply: Reply<T>,
        tell: impl FnOnce(Kept) -> Result<T, CommandError> + Send + 'static,
    ) {
        if self.seat.catalog().get(&info_hash).is_none() {
            let _ = reply.send(Err(CommandError::Unknown(info_hash)));
            return;
        }
        let store = self.keeping.store.clone();
        let declared = self.declared.kept(&info_hash);
        tokio::task::spawn_blocking(move || {
            let kept = declared.map_or_else(|| Kept::read(&store, info_hash), Ok);
            let kept = kept.map_err(|error| CommandError::Failed(error.to_string()));
            let _ = reply.send(kept.and_then(tell));
        });
    }

    pub(crate) fn describe(&self, info_hash: InfoHashV1, reply: Reply<Box<Described>>) {
        let sources = self.sources(info_hash);
        let position = self.queue.position(&info_hash);
        self.read_for(info_hash, reply, move |kept| {
            let described = described(kept, position);
            Ok(Box::new(Described {
                sources,
                ..described
            }))
        });
    }

    pub(crate) fn files(&self, info_hash: InfoHashV1, reply: Reply<Vec<FileStatus>>) {
        let live = self.live_pieces(info_hash);
        self.read_for(info_hash, reply, move |kept| files(&kept, live));
    }

    pub(crate) fn pieces(&self, info_hash: InfoHashV1, reply: Reply<Pieces>) {
        let live = self.live_pieces(info_hash);
        self.read_for(info_hash, reply, move |kept| {
            let set = live.unwrap_or_else(|| verified(&kept));
            Ok(Pieces {
                count: kept.summary.pieces,
                verified: set.as_bitfield().to_vec(),
            })
        });
    }

    pub(crate) fn metainfo(&self, info_hash: InfoHashV1, reply: Reply<Vec<u8>>) {
        self.read_for(info_hash, reply, |kept| match kept.metainfo {
            Some((bytes, _)) => Ok(bytes),
            None => Err(CommandError::Conflict(
                "its metainfo are not known yet: peers are asked for them".into(),
            )),
        });
    }

    pub(crate) fn trackers(
        &self,
        info_hash: InfoHashV1,
    ) -> Result<Vec<TrackerStatus>, CommandError> {
        if self.seat.catalog().get(&info_hash).is_none() {
            return Err(CommandError::Unknown(info_hash));
        }
        let announcer = self.services.announcer.as_ref();
        let status = announcer.and_then(|announcer| announcer.status(info_hash));
        Ok(status.map_or_else(Vec::new, |status| status.trackers))
    }

    /// Tells the peers of a torrent, when the shards have said who they are.
    pub(crate) fn peers(&self, info_hash: InfoHashV1, reply: Reply<Vec<PeerStatus>>) {
        if self.seat.catalog().get(&info_hash).is_none() {
            let _ = reply.send(Err(CommandError::Unknown(info_hash)));
            return;
        }
        let plane = Arc::clone(&self.services.plane);
        tokio::spawn(async move {
            let peers = plane.peers(info_hash).await;
            let _ = reply.send(Ok(peers.into_iter().map(peer_status).collect()));
        });
    }

    /// What each source of peers gave, if the data plane has the torrent.
    fn sources(&self, info_hash: InfoHashV1) -> Vec<SourceStatus> {
        let torrent = match self.phases.get(&info_hash) {
            Some(Phase::Awake(awake)) => Some(&awake.torrent),
            Some(Phase::Downloading(download)) => Some(download.fetch.torrent()),
            _ => self.declared.torrent(&info_hash),
        };
        let Some(torrent) = torrent else {
            return Vec::new();
        };
        let (named, connected) = (torrent.named_by_source(), torrent.peers_by_source());
        let status = |source: PeerSource| SourceStatus {
            source: source.name(),
            named: named.get(source),
            connected: connected.get(source),
        };
        PeerSource::ALL.map(status).to_vec()
    }

    fn live_pieces(&self, info_hash: InfoHashV1) -> Option<PieceSet> {
        match self.phases.get(&info_hash) {
            Some(Phase::Downloading(download)) => Some(download.pieces.clone()),
            _ => None,
        }
    }

    /// Whether a torrent is served, fetched or described now, so that the sources of peers know of
    /// it; and if so, whether as a complete one.
    fn found_as(&self, info_hash: InfoHashV1) -> Option<bool> {
        let sleeps = self
            .seat
            .catalog()
            .get(&info_hash)
            .is_some_and(acting::sleeps);
        match self.phases.get(&info_hash) {
            Some(Phase::Awake(_)) => Some(true),
            Some(Phase::Downloading(_) | Phase::Metadata(_)) => Some(false),
            None => (sleeps && !self.moves.holds(&info_hash)).then_some(true),
            _ => None,
        }
    }

    /// Whether the sources of peers know of a torrent.
    pub(crate) fn is_found(&self, info_hash: InfoHashV1) -> bool {
        self.found_as(info_hash).is_some()
    }

    /// Announces a torrent to these trackers, if it is found now: as what it is.
    pub(crate) fn announce_to(&self, info_hash: InfoHashV1, tiers: &[Vec<String>]) {
        let Some(is_complete) = self.found_as(info_hash) else {
            return;
        };
        let private = {
            let catalog = self.seat.catalog();
            catalog.get(&info_hash).is_some_and(|it| it.summary.private)
        };
        self.finding
            .announce(info_hash, tiers, private, is_complete);
    }

    /// Reads the trackers of a torrent and announces it.
    pub(crate) fn read_trackers(&self, info_hash: InfoHashV1) {
        if self.services.announcer.is_some() {
            self.read_trackers_of(vec![info_hash]);
        }
    }
}

fn peer_status(peer: PeerSeen) -> PeerStatus {
    PeerStatus {
        address: peer.address,
        client: peer.client,
        incoming: peer.is_incoming,
        source: peer.source.name(),
        has_permille: peer.has_permille,
        uploaded: peer.uploaded,
        downloaded: peer.downloaded,
        upload_rate: peer.upload_rate,
        download_rate: peer.download_rate,
        am_choking: peer.am_choking,
        peer_interested: peer.peer_interested,
        peer_choking: peer.peer_choking,
        am_interested: peer.am_interested,
    }
}

fn described(kept: Kept, queue_position: Option<u64>) -> Described {
    let trackers = kept.trackers();
    let mut described = Described {
        trackers,
        queue_position,
        magnet: kept.summary.magnet.clone().unwrap_or_default(),
        ..Described::default()
    };
    if let Some((_, metainfo)) = &kept.metainfo {
        described.comment.clone_from(&metainfo.comment);
        described.created_by.clone_from(&metainfo.created_by);
        let at = metainfo.creation_date;
        described.created_at_s = at.and_then(|at| u64::try_from(at).ok());
        described.magnet = metainfo.magnet().to_string();
        let seeds = kept.details.web_seeds.clone();
        described.web_seeds = seeds.unwrap_or_else(|| metainfo.web_seeds.clone());
    }
    described.details = kept.details;
    described
}

fn verified(kept: &Kept) -> PieceSet {
    let count = kept.summary.pieces;
    match &kept.verified {
        Verified::None => PieceSet::new(count),
        Verified::All => PieceSet::full(count),
        Verified::Pieces(bits) => {
            PieceSet::from_bitfield(bits, count).unwrap_or_else(|| PieceSet::new(count))
        }
    }
}

fn files(kept: &Kept, live: Option<PieceSet>) -> Result<Vec<FileStatus>, CommandError> {
    let Some((_, metainfo)) = &kept.metainfo else {
        return Ok(Vec::new());
    };
    let set = live.unwrap_or_else(|| verified(kept));
    let lengths: Vec<_> = metainfo
        .files
        .iter()
        .map(|file| (file.length, file.pad))
        .collect();
    let layout = StorageLayout::new(&lengths, metainfo.piece_length);
    let layout = layout.map_err(|error| CommandError::Failed(error.to_string()))?;
    let piece_bytes = u64::from(metainfo.piece_length);
    let mut begin = 0;
    let mut files = Vec::new();
    for (index, file) in (0..).zip(&metainfo.files) {
        let from = begin;
        begin += file.length;
        if file.pad {
            continue;
        }
        let pieces = layout.pieces_of_file(FileIndex(index));
        let of_file = |piece: u32| {
            let start = u64::from(piece) * piece_bytes;
            begin
                .min(start + piece_bytes)
                .saturating_sub(start.max(from))
        };
        let there = pieces.filter(|piece| set.contains(PieceIndex(*piece)));
        let said = || file.path.iter().collect::<PathBuf>();
        let path = kept.details.renames.get(&index).cloned();
        let priority = kept.details.priorities.get(index as usize);
        files.push(FileStatus {
            index,
            path: path.unwrap_or_else(said),
            length: file.length,
            bytes_verified: there.map(of_file).sum(),
            priority: priority.copied().unwrap_or(Priority::NORMAL),
        });
    }
    Ok(files)
}
