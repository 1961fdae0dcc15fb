//! The reader of a connection from which blocks are fetched.
//!
//! One call receives what the socket has: first the rest of the block that is coming, straight into
//! its place in its piece, then the blocks that are foreseen ([`Foreseen`]) into theirs, then
//! whatever follows into a buffer that the shard has for all its connections. From there messages
//! are decoded, whole blocks are copied to their places, and of the last one, which is seldom
//! whole, what is there. So of a peer that answers in order hardly a byte is copied after the
//! kernel has handed it over; of others each is once, out of a cache that is still warm.
//!
//! Limits: a connection keeps of its own only the message that is not whole, and what it could not
//! take for want of memory or room to answer: what one call brings, [`RECEIVE_BYTES`] or as many
//! blocks as are foreseen. While it keeps some, nothing more is received. All connections of a
//! shard keep [`KEPT_BYTES_MAX`]; while they do, a call brings no more than
//! [`RECEIVE_BYTES_SCARCE`].

use crate::closing::CloseReason;
use crate::connection::{Connection, wait_readable};
use crate::fetch::foreseen::{Foreseen, Foresight};
use crate::fetch::home::ActiveFetch;
use crate::fetch::pieces::OpenPieces;
use crate::shard::Shard;
use crate::sockets::{self, RECEIVE_TARGETS_MAX};
use engine::choker::PeerKey;
use engine::download::Verdict;
use engine::meter::RateMeter;
use engine::peer_list::PeerSource;
use engine::time::Time;
use proto::limits;
use proto::wire::{self, BlockRequest, Decoded, Message, PIECE_HEADER_BYTES};
use seedring_metrics::Counter;
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// What a shard receives into, in bytes: what one call brings at most beside the rest of a block.
pub(crate) const RECEIVE_BYTES: usize = 256 << 10;

/// The same behind as many blocks as are foreseen at a time: room for what is not a block.
const RECEIVE_BYTES_BEHIND: usize = 4 << 10;

/// What undecoded bytes all connections of a shard may keep before each of them receives little at
/// a time.
pub(crate) const KEPT_BYTES_MAX: usize = 2 << 20;

/// What a shard's connections keep undecoded at most beside [`RECEIVE_BYTES_SCARCE`] each: the last
/// one to receive much was just below the limit.
pub const UNDECODED_BYTES_MAX: u64 = (KEPT_BYTES_MAX + 2 * RECEIVE_BYTES) as u64;

/// What is received at a time while they keep so much: no more than a peer that asks for blocks
/// costs anyway.
const RECEIVE_BYTES_SCARCE: usize = 16 << 10;

/// The room of that: a message that is not whole comes before it, of which a bitfield is the
/// longest.
pub(crate) const RECEIVE_BUFFER_BYTES: usize =
    2 * RECEIVE_BYTES + (limits::PIECES_MAX as usize).div_ceil(8);

/// Payload that a peer may send without having been asked, in bytes, before it is closed, beside a
/// sixteenth of what was asked. Some is honest: what was asked so long ago that it is forgotten, or
/// was on its way at the end.
pub(crate) const UNASKED_BYTES_MAX: u64 = 16 << 20;

/// What a connection is to the download that it serves.
pub(crate) struct Fetching {
    pub(crate) fetch: Rc<ActiveFetch>,
    pub(crate) key: PeerKey,
    /// How fast it gives.
    pub(crate) meter: RefCell<RateMeter>,
    /// Payload of it that was kept.
    pub(crate) given_bytes: Cell<u64>,
}

impl Fetching {
    /// A new peer of `fetch`.
    pub(crate) fn new(fetch: Rc<ActiveFetch>, now: Time) -> Fetching {
        Fetching {
            key: fetch.new_key(),
            fetch,
            meter: RefCell::new(RateMeter::new(now)),
            given_bytes: Cell::new(0),
        }
    }

    /// Enters the connection into its download; it leaves when the result is dropped.
    pub(crate) fn join(
        &self,
        shard: &Rc<Shard>,
        connection: &Rc<Connection>,
        fast: bool,
        called: Option<SocketAddr>,
    ) -> Joined {
        let now = shard.now();
        self.fetch.join(connection, self.key, fast, called, now);
        Joined {
            shard: Rc::clone(shard),
            fetch: Rc::clone(&self.fetch),
            key: self.key,
        }
    }
}

/// A peer's place in its download.
pub(crate) struct Joined {
    shard: Rc<Shard>,
    fetch: Rc<ActiveFetch>,
    key: PeerKey,
}

impl Drop for Joined {
    fn drop(&mut self) {
        // While a panic unwinds, something of it may be borrowed.
        if !std::thread::panicking() {
            self.fetch.leave(&self.shard, self.key);
        }
    }
}

/// A block of which more is to come.
struct Coming {
    block: BlockRequest,
    done: u32,
    /// Whether it has or had a place; else its bytes are dropped.
    is_wanted: bool,
    /// Whether its place was claimed, which is done once: a claim that was lost is not had again.
    is_claimed: bool,
}

/// What a connection received and did not decode, counted with what the others of its shard keep.
struct Kept {
    bytes: Vec<u8>,
    of_shard: Rc<Cell<usize>>,
}

impl Kept {
    fn new(of_shard: &Rc<Cell<usize>>) -> Kept {
        let (bytes, of_shard) = (Vec::new(), Rc::clone(of_shard));
        Kept { bytes, of_shard }
    }

    /// Keeps `bytes` in place of what was kept before, which is returned.
    fn replace(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let others = self.of_shard.get() - self.bytes.len();
        self.of_shard.set(others + bytes.len());
        std::mem::replace(&mut self.bytes, bytes)
    }

    /// Whether so much is kept that little is to be received.
    fn is_scarce(&self) -> bool {
        self.of_shard.get() >= KEPT_BYTES_MAX
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.replace(Vec::new());
    }
}

/// Why a reader stops for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// All is decoded: more is to be received.
    Empty,
    /// The session takes no input.
    Unwanted,
    /// There is no memory for a block.
    NoMemory,
}

/// What is known of a connection's input.
struct Reader<'a> {
    shard: &'a Rc<Shard>,
    connection: &'a Connection,
    fetching: &'a Fetching,
    kept: Kept,
    coming: Option<Coming>,
    foresight: Foresight,
    unasked_bytes: u64,
    /// The peer's `reqq` as the download knows it.
    peer_queue: Option<u32>,
}

/// Receives and decodes until the connection ends; `received` has come already.
pub(crate) async fn read_blocks(
    shard: &Rc<Shard>,
    connection: &Connection,
    fetching: &Fetching,
    received: Vec<u8>,
) -> CloseReason {
    let mut reader = Reader {
        shard,
        connection,
        fetching,
        kept: Kept::new(&shard.kept_bytes),
        coming: None,
        foresight: Foresight::default(),
        unasked_bytes: 0,
        peer_queue: None,
    };
    let mut next = reader.decode(&received);
    drop(received);
    let reason = loop {
        let mut stop = match next {
            Ok(stop) => stop,
            Err(reason) => break reason,
        };
        if let Some(reason) = connection.closing() {
            // A peer that goes on sending would keep us reading.
            break reason;
        }
        let outcome = loop {
            match stop {
                Stop::Empty => break Ok(()),
                Stop::Unwanted => connection.input().await,
                Stop::NoMemory => fetching.fetch.wait_for_memory(shard).await,
            }
            if connection.closing().is_some() {
                break Err(CloseReason::PeerClosed);
            }
            stop = match reader.decode_kept() {
                Ok(stop) => stop,
                Err(reason) => break Err(reason),
            };
        };
        if let Err(reason) = outcome {
            break reason;
        }
        if let Err(error) = wait_readable(&connection.socket).await {
            break CloseReason::of_socket(&error);
        }
        next = reader.receive();
    };
    reader.give_up_coming();
    reason
}

impl Reader<'_> {
    fn fetch(&self) -> &ActiveFetch {
        &self.fetching.fetch
    }

    /// Receives once and decodes what has come.
    fn receive(&mut self) -> Result<Stop, CloseReason> {
        let shard = Rc::clone(self.shard);
        let mut scratch = shard.receive_buffer.borrow_mut();
        let kept = self.kept.bytes.len();
        scratch
            .get_mut(..kept)
            .unwrap_or_default()
            .copy_from_slice(&self.kept.bytes);
        self.kept.replace(Vec::new());
        let mut foreseen = Foreseen::default();
        let received = self.receive_into(&mut scratch, kept, &mut foreseen);
        let (direct, into_foreseen, buffered) = match received {
            Ok((0, 0, 0)) => return Err(CloseReason::PeerClosed),
            Ok(counts) => counts,
            Err(error) if is_passing(&error) => {
                let kept = scratch.get(..kept).unwrap_or_default().to_vec();
                self.kept.replace(kept);
                return Ok(Stop::Empty);
            }
            Err(error) => return Err(CloseReason::of_socket(&error)),
        };
        self.came(direct);
        let as_foreseen = self.take_foreseen(&foreseen, into_foreseen);
        let input = scratch.get(..kept + buffered).unwrap_or_default();
        if as_foreseen == into_foreseen {
            return self.decode(input);
        }
        let mut others = {
            let open = self.fetch().open.borrow();
            foreseen.gather(&open, as_foreseen, into_foreseen)
        };
        others.extend_from_slice(input);
        self.decode(&others)
    }

    /// Receives once: into the place of the block that is coming, those that are foreseen, and
    /// `scratch` behind the first `kept` bytes of it. Returns how many bytes came to each of them.
    fn receive_into(
        &mut self,
        scratch: &mut [u8],
        kept: usize,
        foreseen: &mut Foreseen,
    ) -> io::Result<(usize, usize, usize)> {
        let fetch = Rc::clone(&self.fetching.fetch);
        let mut open = fetch.open.borrow_mut();
        let target = self.coming.as_ref().and_then(|coming| {
            let target = open.target(coming.block, coming.done, self.fetching.key);
            target.filter(|_| coming.is_wanted)
        });
        // Behind what was kept, or what is to be dropped, it is not known where a block begins.
        let is_at_block = kept == 0 && self.coming.is_some() == target.is_some();
        let is_scarce = self.kept.is_scarce();
        let may_foresee = is_at_block && !is_scarce && !fetch.is_over();
        if may_foresee && self.foresight.is_worth_it() {
            self.foresee(&mut open, foreseen);
        }
        let mut targets: Vec<(*mut u8, usize)> = Vec::with_capacity(RECEIVE_TARGETS_MAX);
        targets.extend(target);
        targets.extend(foreseen.targets());
        // What comes behind blocks that are foreseen is best left for the next receive, to be
        // foreseen then.
        let rest_bytes = match foreseen.is_full() {
            _ if is_scarce => RECEIVE_BYTES_SCARCE,
            true => RECEIVE_BYTES_BEHIND,
            false => RECEIVE_BYTES,
        };
        let rest = scratch.get_mut(kept..kept + rest_bytes).unwrap_or_default();
        // SAFETY: the places of the blocks are valid until the pieces are next changed, for which
        // they would have to be borrowed again, and nobody else writes to them: the first is this
        // peer's, the others nobody's.
        let count = unsafe { sockets::receive_into(&*self.connection.socket, &targets, rest) }?;
        self.foresight.set_received(count);
        let direct = count.min(target.map_or(0, |(_, length)| length));
        let after = count - direct;
        let into_foreseen = after.min(foreseen.bytes());
        Ok((direct, into_foreseen, after - into_foreseen))
    }

    /// Finds the places of what comes next, if the peer answers in order.
    fn foresee(&self, open: &mut OpenPieces, foreseen: &mut Foreseen) {
        let fetch = self.fetch();
        let coming = self.coming.as_ref().map(|coming| coming.block);
        let download = fetch.download.borrow();
        let upcoming = download.upcoming(self.fetching.key, coming);
        for block in upcoming.take(self.foresight.blocks()) {
            let piece_bytes = fetch.torrent.layout().piece_length_of(block.piece);
            let place = open.spare_place(block, piece_bytes, &self.shard.segments);
            if !place.is_some_and(|place| foreseen.add(block, place)) {
                return;
            }
        }
    }

    /// Takes the blocks that came as they were foreseen, out of `bytes` that came where they were.
    /// Returns how many bytes those are: what is behind them is something else, or not enough to
    /// tell.
    fn take_foreseen(&mut self, foreseen: &Foreseen, bytes: usize) -> usize {
        let mut taken = 0;
        if bytes == 0 {
            // It tells nothing of the order in which the peer answers.
            return taken;
        }
        for (block, header) in foreseen.blocks() {
            let left = bytes - taken;
            if left < PIECE_HEADER_BYTES {
                return taken;
            }
            if *header != wire::piece_header(block.piece, block.begin, block.length) {
                self.foresight.was_wrong();
                return taken;
            }
            let now = self.shard.now();
            let here = (left - PIECE_HEADER_BYTES).min(block.length as usize);
            taken += PIECE_HEADER_BYTES + here;
            if here == block.length as usize {
                self.block_came(block, None, true, now);
                continue;
            }
            let mut open = self.fetching.fetch.open.borrow_mut();
            open.claim(block, self.fetching.key);
            self.coming = Some(Coming {
                block,
                done: u32::try_from(here).unwrap_or(u32::MAX),
                is_wanted: true,
                is_claimed: true,
            });
            return taken;
        }
        self.foresight.was_right();
        taken
    }

    /// Decodes what was kept.
    fn decode_kept(&mut self) -> Result<Stop, CloseReason> {
        let kept = self.kept.replace(Vec::new());
        self.decode(&kept)
    }

    /// Decodes `input`, keeps what is left of it, and has the download go on.
    fn decode(&mut self, input: &[u8]) -> Result<Stop, CloseReason> {
        let now = self.shard.now();
        let (consumed, stop) = self.digest(input, now)?;
        let kept = input.get(consumed..).unwrap_or_default().to_vec();
        self.kept.replace(kept);
        self.connection.after_input(self.shard, now);
        if !self.fetch().is_over() {
            self.fetch().drive(self.shard, now);
        }
        Ok(stop)
    }

    /// Takes messages off the front of `input`; returns how many bytes they were, and why that was
    /// all.
    fn digest(&mut self, input: &[u8], now: Time) -> Result<(usize, Stop), CloseReason> {
        let limits = self.connection.session.borrow().frame_limits();
        let mut at = 0;
        loop {
            let rest = input.get(at..).unwrap_or_default();
            if self.coming.is_some() {
                // Its bytes come first.
                at += self.take_coming(rest, now);
                if self.coming.is_some() {
                    return Ok((at, Stop::Empty));
                }
                continue;
            }
            if !self.connection.session.borrow().wants_input() {
                return Ok((at, Stop::Unwanted));
            }
            let wrong = |error: wire::WireError| {
                tracing::debug!(peer = %self.connection.peer, %error, "closing");
                CloseReason::Misbehaved
            };
            if let Some(block) = wire::piece_start(rest, &limits).map_err(wrong)? {
                if !self.begin_block(block) {
                    return Ok((at, Stop::NoMemory));
                }
                at += PIECE_HEADER_BYTES;
                continue;
            }
            match wire::decode(rest, &limits).map_err(wrong)? {
                Decoded::Message { message, consumed } => {
                    self.take_message(&message, now)?;
                    at += consumed;
                }
                Decoded::Incomplete { .. } => return Ok((at, Stop::Empty)),
            }
        }
    }

    fn take_message(&mut self, message: &Message<'_>, now: Time) -> Result<(), CloseReason> {
        self.shard.count_message(message);
        let mut session = self.connection.session.borrow_mut();
        session.handle_message(message, now).map_err(|disconnect| {
            tracing::debug!(peer = %self.connection.peer, %disconnect, "closing");
            CloseReason::of_session(&disconnect)
        })?;
        let peer_queue = session.peer_request_queue();
        let named = session.take_named();
        let dht_port = session.take_dht_port();
        drop(session);
        if let Some(port) = dht_port {
            self.shard.heard_of_node(self.connection.peer, port);
        }
        if self.fetch().is_over() {
            let torrent = &self.connection.torrent;
            if torrent.is_complete() {
                self.shard.take_told(torrent, &named);
            }
            return Ok(());
        }
        if !named.is_empty() {
            let named = named.into_iter().map(|peer| peer.address);
            let fetch = self.fetch();
            fetch.add_peers(self.shard, named, PeerSource::Exchange);
            fetch.news.notify_one();
        }
        let key = self.fetching.key;
        let mut download = self.fetch().download.borrow_mut();
        download.handle_message(key, message, now);
        if let Some(requests) = peer_queue.filter(|_| peer_queue != self.peer_queue) {
            download.set_peer_queue(key, requests);
        }
        drop(download);
        self.peer_queue = peer_queue;
        Ok(())
    }

    /// A block begins to come. False if there is no memory for it.
    fn begin_block(&mut self, block: BlockRequest) -> bool {
        let key = self.fetching.key;
        let fetch = self.fetch();
        let is_wanted = !fetch.is_over() && fetch.download.borrow().expects(key, block);
        if is_wanted {
            let piece_bytes = fetch.torrent.layout().piece_length_of(block.piece);
            let mut open = fetch.open.borrow_mut();
            if open
                .make_place(block, piece_bytes, &self.shard.segments)
                .is_err()
            {
                return false;
            }
        }
        self.coming = Some(Coming {
            block,
            done: 0,
            is_wanted,
            is_claimed: false,
        });
        true
    }

    /// Takes bytes of the block that is coming off the front of `rest`; returns how many.
    fn take_coming(&mut self, rest: &[u8], now: Time) -> usize {
        let Some(coming) = &mut self.coming else {
            return 0;
        };
        let missing = (coming.block.length - coming.done) as usize;
        let bytes = rest.get(..missing.min(rest.len())).unwrap_or_default();
        let is_whole = coming.done == 0 && bytes.len() == missing;
        let (block, done, is_wanted) = (coming.block, coming.done, coming.is_wanted);
        let was_claimed = coming.is_claimed;
        if is_wanted && !is_whole {
            let mut open = self.fetching.fetch.open.borrow_mut();
            if !was_claimed {
                open.claim(block, self.fetching.key);
                coming.is_claimed = true;
            }
            // A claim that was lost has no place any more.
            if open.target(block, done, self.fetching.key).is_some() {
                open.put(block, done, bytes);
            }
        }
        if is_whole {
            self.coming = None;
            let has_place = is_wanted && (!was_claimed || self.end_claim(block));
            self.block_came(block, has_place.then_some(bytes), has_place, now);
        } else {
            self.came(bytes.len());
        }
        bytes.len()
    }

    /// Notes that `count` bytes more of the block that is coming are in their place, or dropped.
    fn came(&mut self, count: usize) {
        let Some(coming) = &mut self.coming else {
            return;
        };
        coming.done += u32::try_from(count).unwrap_or(u32::MAX);
        if coming.done < coming.block.length {
            return;
        }
        let (block, is_wanted) = (coming.block, coming.is_wanted);
        self.coming = None;
        let now = self.shard.now();
        let has_place = is_wanted && self.end_claim(block);
        self.block_came(block, None, has_place, now);
    }

    /// Ends the claim to a block; false if it was lost.
    fn end_claim(&self, block: BlockRequest) -> bool {
        let mut open = self.fetch().open.borrow_mut();
        open.end_claim(block, self.fetching.key)
    }

    /// A block has come: its `bytes`, or if they `has_place` already none.
    fn block_came(
        &mut self,
        block: BlockRequest,
        bytes: Option<&[u8]>,
        has_place: bool,
        now: Time,
    ) {
        let length = u64::from(block.length);
        let key = self.fetching.key;
        let fetch = Rc::clone(&self.fetching.fetch);
        self.shard.cells.add(Counter::DownloadedBytes, length);
        self.shard.cells.increment(Counter::MessagesPiece);
        fetch
            .published
            .downloaded
            .fetch_add(length, Ordering::Relaxed);
        self.fetching.meter.borrow_mut().add(length, now);
        self.tell_session(block, now);
        if fetch.is_over() {
            fetch.waste(self.shard, length);
            return self.unasked(length);
        }
        if !has_place && fetch.download.borrow().expects(key, block) {
            // It lost its place to somebody who did not bring it either.
            fetch.waste(self.shard, length);
            return fetch.download.borrow_mut().rejected(key, block, now);
        }
        let verdict = fetch.download.borrow_mut().block(key, block, now);
        if verdict == Verdict::Keep {
            let mut open = fetch.open.borrow_mut();
            if let Some(bytes) = bytes {
                open.put(block, 0, bytes);
            }
            open.set_here(block);
            let given = &self.fetching.given_bytes;
            given.set(given.get() + length);
            return;
        }
        fetch.waste(self.shard, length);
        if verdict == Verdict::Unasked {
            self.unasked(length);
        }
    }

    /// Counts what nobody asked for, of which there is an end.
    fn unasked(&mut self, bytes: u64) {
        self.unasked_bytes += bytes;
        let asked = self.fetching.given_bytes.get();
        if self.unasked_bytes > UNASKED_BYTES_MAX + asked / 16 {
            // What is on its way would keep both kernels waiting for each other.
            self.connection.abort(CloseReason::Flood);
        }
    }

    /// The session hears of each message; that we fetch from the peer it knows.
    fn tell_session(&self, block: BlockRequest, now: Time) {
        let message = Message::Piece {
            piece: block.piece,
            begin: block.begin,
            block: &[],
        };
        let mut session = self.connection.session.borrow_mut();
        let _ = session.handle_message(&message, now);
    }

    /// Gives up the place of a block of which no more will come.
    fn give_up_coming(&mut self) {
        if let Some(coming) = self.coming.take() {
            self.end_claim(coming.block);
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_keep_is_counted_together() {
        let of_shard = Rc::default();
        let (mut one, mut other) = (Kept::new(&of_shard), Kept::new(&of_shard));
        one.replace(vec![0; KEPT_BYTES_MAX - 1]);
        assert!(!other.is_scarce());
        other.replace(vec![0; 1]);
        assert!(one.is_scarce() && other.is_scarce());
        assert_eq!(other.replace(Vec::new()).len(), 1);
        assert!(!one.is_scarce());
        one.replace(vec![0; 5]);
        assert_eq!(of_shard.get(), 5);
        drop((one, other));
        assert_eq!(of_shard.get(), 0);
    }
}
