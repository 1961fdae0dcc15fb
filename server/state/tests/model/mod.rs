//! The store as a naive model has it: a few maps, and operations that are drawn at random and done
//! to both.
//!
//! What an operation writes follows from its numbers alone, so a process that has been killed
//! leaves behind which state each number of operations leads to.
#![allow(dead_code, clippy::unwrap_used)]

use engine::layout::FileStamp;
use engine::picker::Priority;
use proto::ids::InfoHashV1;
use state::{
    Condition, Details, Handle, Intent, LastError, NewTorrent, Place, Summary, TorrentLimits,
    Totals, Update, Verified, Write, WriteError,
};
use std::collections::BTreeMap;

/// How many torrents the operations are about.
const TORRENTS: u8 = 24;

/// A place in the queue, by numbers.
#[derive(Clone, Copy, Debug)]
pub struct At(u8, u8);

/// Something that is done to the store.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Add(u8, u64, At),
    Remove(u8),
    Change(u8, u64),
    Metainfo(u8, u64),
    Progress(u8, u64),
    AllStamps(u8, u64),
    Queue(u8, At),
    Setting(u8, Option<u64>),
    Intent(u8, u8, Option<u64>),
    ServerTotals(u64),
}

impl Op {
    /// One at random. Adding is as likely as removing, so that there is always something and never
    /// all.
    pub fn random(random: &mut fastrand::Rng) -> Op {
        let torrent = random.u8(..TORRENTS);
        let tag = random.u64(..1 << 40);
        let at = At(random.u8(..8), random.u8(..TORRENTS));
        match random.u8(..13) {
            0..3 => Op::Add(torrent, tag, at),
            3..5 => Op::Remove(torrent),
            5 | 6 => Op::Change(torrent, tag),
            7 => Op::Metainfo(torrent, tag),
            8 => Op::Progress(torrent, tag),
            9 => Op::AllStamps(torrent, tag),
            10 => Op::Queue(torrent, at),
            11 => Op::Intent(
                torrent % 3,
                torrent,
                (!tag.is_multiple_of(3)).then_some(tag),
            ),
            _ if tag.is_multiple_of(3) => Op::ServerTotals(tag),
            _ => Op::Setting(torrent % 5, (!tag.is_multiple_of(4)).then_some(tag)),
        }
    }

    /// It as a write.
    pub fn write(&self) -> Write {
        match *self {
            Op::Add(torrent, tag, at) => Write::Add(hash(torrent), Box::new(new(torrent, tag, at))),
            Op::Remove(torrent) => Write::Remove(hash(torrent)),
            Op::Change(torrent, tag) => {
                let update = Update::new()
                    .summary(move |summary| change_summary(summary, tag))
                    .details(move |details| change_details(details, tag));
                Write::Update(hash(torrent), Box::new(update))
            }
            Op::Metainfo(torrent, tag) => {
                let update = Update::new()
                    .metainfo(metainfo(tag))
                    .summary(move |summary| summary.pieces = (tag % 50) as u32);
                Write::Update(hash(torrent), Box::new(update))
            }
            Op::Progress(torrent, tag) => {
                let update = Update::new()
                    .verified(raw_verified(torrent, tag))
                    .stamps(some_stamps(torrent, tag))
                    .totals(totals(tag));
                Write::Update(hash(torrent), Box::new(update))
            }
            Op::AllStamps(torrent, tag) => {
                let update = Update::new().all_stamps(stamps(torrent, tag));
                Write::Update(hash(torrent), Box::new(update))
            }
            Op::Queue(torrent, at) => Write::Queue(hash(torrent), place(at)),
            Op::Setting(name, tag) => Write::Setting(format!("name {name}"), tag.map(metainfo)),
            Op::Intent(kind, torrent, tag) => {
                Write::Intent(intent(kind), hash(torrent), tag.map(metainfo))
            }
            Op::ServerTotals(tag) => Write::ServerTotals(totals(tag)),
        }
    }
}

/// The info-hash of a torrent's number; neighbours of each other in the last byte.
pub fn hash(torrent: u8) -> InfoHashV1 {
    let mut hash = [torrent / 4; 20];
    hash[19] = torrent;
    InfoHashV1(hash)
}

fn intent(kind: u8) -> Intent {
    [Intent::Move, Intent::Rename, Intent::Delete][usize::from(kind)]
}

fn pieces(torrent: u8) -> u32 {
    u32::from(torrent) * 7 % 40
}

fn files(torrent: u8) -> u32 {
    1 + u32::from(torrent) % 3
}

fn metainfo(tag: u64) -> Vec<u8> {
    vec![tag as u8; (tag % 9000) as usize]
}

fn totals(tag: u64) -> Totals {
    Totals {
        uploaded_bytes: tag,
        downloaded_bytes: tag % 1000,
        wasted_bytes: tag % 3,
        active_s: tag / 2,
        seeding_s: tag % 7,
        last_active_at_s: tag % 2,
    }
}

fn stamp(tag: u64, file: u32) -> FileStamp {
    FileStamp {
        device: tag % 5,
        inode: tag,
        size: u64::from(file),
        mtime_ns: tag.cast_signed() - (1 << 39),
        ctime_ns: 1,
    }
}

fn stamps(torrent: u8, tag: u64) -> Vec<Option<FileStamp>> {
    let all = 0..files(torrent);
    all.map(|file| (tag >> file & 1 == 1).then(|| stamp(tag, file)))
        .collect()
}

fn some_stamps(torrent: u8, tag: u64) -> Vec<(u32, Option<FileStamp>)> {
    let file = (tag % 3) as u32 % files(torrent);
    vec![(file, (!tag.is_multiple_of(4)).then(|| stamp(tag, file)))]
}

/// Every so many pieces, or all, or none; as a bitfield in each case.
fn piece_set(torrent: u8, tag: u64) -> Vec<bool> {
    let step = (tag % 5) as u32;
    let all = 0..pieces(torrent);
    all.map(|piece| step > 0 && piece % step == 0).collect()
}

fn raw_verified(torrent: u8, tag: u64) -> Verified {
    let set = piece_set(torrent, tag);
    let mut bits = vec![0u8; set.len().div_ceil(8)];
    for (piece, _) in set.iter().enumerate().filter(|(_, have)| **have) {
        bits[piece / 8] |= 0x80 >> (piece % 8);
    }
    Verified::Pieces(bits)
}

/// The same in the form that is read.
fn verified(torrent: u8, tag: u64) -> Verified {
    let set = piece_set(torrent, tag);
    match set.iter().filter(|have| **have).count() {
        0 => Verified::None,
        count if count == set.len() => Verified::All,
        _ => raw_verified(torrent, tag),
    }
}

fn change_summary(summary: &mut Summary, tag: u64) {
    summary.paused = !summary.paused;
    summary.labels = vec![format!("label {tag}"); (tag % 3) as usize];
    summary.category = (tag.is_multiple_of(2)).then(|| format!("category {}", tag % 7));
    summary.completed_at_s = (tag.is_multiple_of(3)).then_some(tag);
    summary.limits = TorrentLimits {
        upload_rate: (tag % 3 == 1).then_some(tag),
        ..TorrentLimits::default()
    };
    summary.condition = match tag % 3 {
        0 => Condition::Ready,
        1 => Condition::Offline,
        _ => Condition::Failed,
    };
    summary.last_error = (tag.is_multiple_of(5)).then(|| LastError {
        at_s: tag,
        text: format!("error {tag}"),
    });
}

fn change_details(details: &mut Details, tag: u64) {
    if tag.is_multiple_of(4) {
        *details = Details::default();
        return;
    }
    details.priorities = vec![Priority::new((tag % 8) as u8).unwrap(); (tag % 20) as usize];
    details
        .renames
        .insert((tag % 9) as u32, format!("new/{tag}").into());
    details.trackers =
        (tag.is_multiple_of(2)).then(|| vec![vec![format!("http://{tag}/")], Vec::new()]);
}

fn new(torrent: u8, tag: u64, at: At) -> NewTorrent {
    let known = !tag.is_multiple_of(6);
    let mut summary = Summary {
        name: format!("torrent {torrent} of {tag}"),
        magnet: (!known).then(|| format!("magnet:?tag={tag}")),
        total_bytes: tag,
        piece_bytes: 1 << 18,
        pieces: pieces(torrent),
        files: files(torrent),
        save_path: format!("/data/{}", tag % 4).into(),
        added_at_s: tag,
        ..Summary::default()
    };
    change_summary(&mut summary, tag / 3);
    let mut details = Details::default();
    change_details(&mut details, tag / 5);
    NewTorrent {
        summary,
        details,
        metainfo: known.then(|| metainfo(tag)),
        verified: raw_verified(torrent, tag),
        stamps: stamps(torrent, tag),
        totals: totals(tag),
        place: place(at),
    }
}

fn place(At(kind, other): At) -> Place {
    match kind {
        0 => Place::Out,
        1 => Place::First,
        2..5 => Place::Last,
        5 | 6 => Place::Before(hash(other)),
        _ => Place::After(hash(other)),
    }
}

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Every torrent; its place is in the queue only.
    torrents: BTreeMap<InfoHashV1, NewTorrent>,
    queue: Vec<InfoHashV1>,
    settings: BTreeMap<String, Vec<u8>>,
    intents: BTreeMap<(Intent, InfoHashV1), Vec<u8>>,
    server: Totals,
}

impl Model {
    pub fn len(&self) -> usize {
        self.torrents.len()
    }

    /// Does an operation.
    pub fn apply(&mut self, op: Op) -> Result<(), WriteError> {
        match op {
            Op::Add(torrent, tag, at) => {
                let key = hash(torrent);
                if self.torrents.contains_key(&key) {
                    return Err(WriteError::Exists(key));
                }
                self.enqueue(key, place(at))?;
                let mut kept = new(torrent, tag, at);
                kept.place = Place::Out;
                kept.verified = verified(torrent, tag);
                self.torrents.insert(key, kept);
                self.trim(key);
            }
            Op::Remove(torrent) => {
                self.known(torrent)?;
                self.torrents.remove(&hash(torrent));
                self.queue.retain(|queued| *queued != hash(torrent));
                let stays = |(intent, of): &(Intent, InfoHashV1)| {
                    *of != hash(torrent) || *intent == Intent::Delete
                };
                self.intents.retain(|key, _| stays(key));
            }
            Op::Change(torrent, tag) => {
                let kept = self.known(torrent)?;
                change_summary(&mut kept.summary, tag);
                change_details(&mut kept.details, tag);
            }
            Op::Metainfo(torrent, tag) => {
                let kept = self.known(torrent)?;
                kept.metainfo = Some(metainfo(tag));
                let pieces = (tag % 50) as u32;
                if kept.summary.pieces != pieces {
                    kept.verified = Verified::None;
                    kept.summary.pieces = pieces;
                }
            }
            Op::Progress(torrent, tag) => self.progress(torrent, tag)?,
            Op::AllStamps(torrent, tag) => {
                self.known(torrent)?.stamps = stamps(torrent, tag);
                self.trim(hash(torrent));
            }
            Op::Queue(torrent, at) => {
                self.known(torrent)?;
                self.enqueue(hash(torrent), place(at))?;
            }
            Op::Setting(name, tag) => {
                let name = format!("name {name}");
                match tag {
                    Some(tag) => self.settings.insert(name, metainfo(tag)),
                    None => self.settings.remove(&name),
                };
            }
            Op::Intent(kind, torrent, tag) => {
                let key = (intent(kind), hash(torrent));
                let Some(tag) = tag else {
                    self.intents.remove(&key);
                    return Ok(());
                };
                if intent(kind) != Intent::Delete {
                    self.known(torrent)?;
                }
                self.intents.insert(key, metainfo(tag));
            }
            Op::ServerTotals(tag) => self.server = totals(tag),
        }
        Ok(())
    }

    fn progress(&mut self, torrent: u8, tag: u64) -> Result<(), WriteError> {
        let kept = self.known(torrent)?;
        let bytes = |pieces: u32| pieces.div_ceil(8);
        let fits = piece_set(torrent, tag)
            .iter()
            .skip(kept.summary.pieces as usize)
            .all(|have| !have);
        if bytes(kept.summary.pieces) != bytes(pieces(torrent)) || !fits {
            let what = "the verified pieces";
            let info_hash = hash(torrent);
            return Err(WriteError::Mismatch { info_hash, what });
        }
        let count = piece_set(torrent, tag).iter().filter(|have| **have).count();
        kept.verified = match count {
            0 => Verified::None,
            count if count == kept.summary.pieces as usize => Verified::All,
            _ => raw_verified(torrent, tag),
        };
        kept.totals = totals(tag);
        for (file, stamp) in some_stamps(torrent, tag) {
            kept.stamps.resize(4, None);
            kept.stamps[file as usize] = stamp;
        }
        self.trim(hash(torrent));
        Ok(())
    }

    fn known(&mut self, torrent: u8) -> Result<&mut NewTorrent, WriteError> {
        let key = hash(torrent);
        let found = self.torrents.get_mut(&key);
        found.ok_or(WriteError::Unknown(key))
    }

    /// Stamps of files behind the last that has one are as good as none.
    fn trim(&mut self, torrent: InfoHashV1) {
        let kept = self.torrents.get_mut(&torrent).unwrap();
        while kept.stamps.last() == Some(&None) {
            kept.stamps.pop();
        }
    }

    fn enqueue(&mut self, torrent: InfoHashV1, place: Place) -> Result<(), WriteError> {
        if let Place::Before(other) | Place::After(other) = place {
            if !self.queue.contains(&other) {
                return Err(WriteError::NotQueued(other));
            }
            if other == torrent {
                return Ok(());
            }
        }
        self.queue.retain(|queued| *queued != torrent);
        let find = |other| {
            self.queue
                .iter()
                .position(|queued| *queued == other)
                .unwrap()
        };
        let at = match place {
            Place::Out => return Ok(()),
            Place::First => 0,
            Place::Last => self.queue.len(),
            Place::Before(other) => find(other),
            Place::After(other) => find(other) + 1,
        };
        self.queue.insert(at, torrent);
        Ok(())
    }

    /// What a store holds, read in small pages and part by part; a list has to say the same as the
    /// parts.
    pub fn read(handle: &Handle) -> Model {
        let read = handle.read_blocking(|view| {
            let mut model = Model {
                queue: view.queue()?,
                server: view.server_totals()?,
                ..Model::default()
            };
            for name in (0..5).map(|name| format!("name {name}")) {
                if let Some(value) = view.setting(&name)? {
                    model.settings.insert(name, value);
                }
            }
            for kind in (0..3).map(intent) {
                let mut after = None;
                loop {
                    let page = view.intents(kind, after, 2)?;
                    let torrents: Vec<_> = page.iter().map(|(torrent, _)| *torrent).collect();
                    assert_eq!(view.intending(kind, after, 2)?, torrents);
                    let Some((last, _)) = page.last() else {
                        break;
                    };
                    after = Some(*last);
                    let page = page.into_iter();
                    model
                        .intents
                        .extend(page.map(|(hash, value)| ((kind, hash), value)));
                }
            }
            let mut after = None;
            loop {
                let page = view.torrents(after, 3)?;
                let Some(last) = page.last() else {
                    break;
                };
                after = Some(last.info_hash);
                for listed in page {
                    let torrent = &listed.info_hash;
                    let summary = view.summary(torrent)?.unwrap();
                    let verified = view.verified(torrent)?;
                    let totals = view.totals(torrent)?;
                    assert_eq!(listed.summary.as_ref(), Ok(&summary));
                    assert_eq!(listed.pieces_verified, verified.count(summary.pieces));
                    assert_eq!(listed.totals, totals);
                    let alone = view.torrent(torrent)?.unwrap();
                    assert_eq!(alone.summary, listed.summary);
                    assert_eq!(alone.pieces_verified, listed.pieces_verified);
                    assert_eq!(alone.totals, listed.totals);
                    let mut stamps = Vec::new();
                    for (file, stamp) in view.stamps(torrent)? {
                        stamps.resize(file as usize, None);
                        stamps.push(Some(stamp));
                    }
                    let kept = NewTorrent {
                        details: view.details(torrent)?,
                        metainfo: view.metainfo(torrent)?,
                        place: Place::Out,
                        summary,
                        verified,
                        stamps,
                        totals,
                    };
                    model.torrents.insert(*torrent, kept);
                }
            }
            assert_eq!(view.count()?, model.torrents.len() as u64);
            Ok(model)
        });
        read.unwrap()
    }
}
