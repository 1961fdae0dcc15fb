//! Which pieces a peer may fetch although it is choked (BEP 6), so that one that has nothing yet
//! gets something to give.
//!
//! The set follows from the peer's network and the torrent, so that whoever comes again, or from
//! the next address, gets no other pieces. What a stranger is given so is counted over all its
//! connections and torrents, for [`PERIOD`] from the first time on: whoever closes and connects
//! again goes on where it was.
//!
//! Limits: [`PIECES_MAX`] pieces of a torrent, and [`BYTES_MAX`] of one stranger (a v4 address, a
//! v6 /64), unless its first piece is longer; [`STRANGERS_MAX`] of them are counted at a time. When
//! there are so many, another is allowed nothing before the first of them is forgotten: it waits
//! for a slot as it would without BEP 6.

use crate::sockets::stranger;
use engine::session::ALLOWED_FAST_PIECES_MAX as PIECES_MAX;
use engine::time::Time;
use proto::ids::{InfoHashV1, PieceIndex};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What one stranger is given so in a [`PERIOD`], in bytes, unless a piece is longer.
const BYTES_MAX: u64 = 16 << 20;

/// For how long a stranger is remembered that was given some.
const PERIOD: Duration = Duration::from_secs(60 * 60);

/// How many strangers are remembered, at about a hundred bytes each.
const STRANGERS_MAX: usize = 4_096;

/// Rounds of the hash, each of which names five pieces: in a torrent of few pieces the same come
/// again and again.
const ROUNDS_MAX: usize = 100;

/// How many pieces of this length a peer is allowed.
pub(crate) fn count(piece_length: u32) -> usize {
    let fitting = BYTES_MAX / u64::from(piece_length.max(1));
    usize::try_from(fitting).map_or(PIECES_MAX, |fitting| fitting.clamp(1, PIECES_MAX))
}

/// The first `count` pieces of the set of a peer at `address`, as BEP 6 computes it; fewer if the
/// torrent has fewer.
pub(crate) fn pieces(
    address: IpAddr,
    info_hash: InfoHashV1,
    piece_count: u32,
    count: usize,
) -> Vec<PieceIndex> {
    let mut pieces = Vec::with_capacity(count);
    if piece_count == 0 {
        return pieces;
    }
    let mut text = network(address);
    text.extend(info_hash.0);
    for _ in 0..ROUNDS_MAX {
        text = hash::sha1(&text).to_vec();
        for word in text.chunks_exact(4) {
            let number = word
                .iter()
                .fold(0, |number, &byte| number << 8 | u32::from(byte));
            let piece = PieceIndex(number % piece_count);
            if pieces.len() == count {
                return pieces;
            }
            if !pieces.contains(&piece) {
                pieces.push(piece);
            }
        }
    }
    pieces
}

/// What strangers were given while they were choked, over all shards.
#[derive(Default)]
pub(crate) struct Given(Mutex<Strangers>);

#[derive(Default)]
struct Strangers {
    bytes: HashMap<IpAddr, u64>,
    /// Each of them, and when it is forgotten.
    in_order: VecDeque<(Time, IpAddr)>,
}

impl Given {
    /// Notes that who is at `address` may have `bytes` more. False if that is too much for it, or
    /// nobody else can be remembered.
    pub(crate) fn reserve(&self, address: IpAddr, bytes: u64, now: Time) -> bool {
        let stranger = stranger(address);
        let mut strangers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        strangers.forget(now);
        if let Some(given) = strangers.bytes.get_mut(&stranger) {
            let fits = *given == 0 || given.saturating_add(bytes) <= BYTES_MAX;
            *given += if fits { bytes } else { 0 };
            return fits;
        }
        if strangers.bytes.len() >= STRANGERS_MAX {
            return false;
        }
        strangers.bytes.insert(stranger, bytes);
        strangers.in_order.push_back((now + PERIOD, stranger));
        true
    }

    /// Notes that it did not fetch `bytes` of what it might have had.
    pub(crate) fn give_back(&self, address: IpAddr, bytes: u64) {
        let mut strangers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(given) = strangers.bytes.get_mut(&stranger(address)) {
            *given = given.saturating_sub(bytes);
        }
    }
}

impl Strangers {
    fn forget(&mut self, now: Time) {
        while let Some(&(until, stranger)) = self.in_order.front()
            && until <= now
        {
            self.in_order.pop_front();
            self.bytes.remove(&stranger);
        }
    }
}

/// The v4 /24 of an address, as BEP 6 has it. Of IPv6 it says nothing: the /64 is what one customer
/// gets.
fn network(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            vec![a, b, c, 0]
        }
        IpAddr::V6(address) => address.octets().into_iter().take(8).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(address: &str, piece_count: u32, count: usize) -> Vec<u32> {
        let pieces = pieces(
            address.parse().unwrap(),
            InfoHashV1([0xaa; 20]),
            piece_count,
            count,
        );
        pieces.into_iter().map(|piece| piece.0).collect()
    }

    #[test]
    fn the_set_is_the_one_that_bep_6_gives_as_its_example() {
        let due = [1059, 431, 808, 1217, 287, 376, 1188, 353, 508];
        assert_eq!(set("80.4.4.200", 1313, 7), due[..7]);
        assert_eq!(set("80.4.4.200", 1313, 9), due);
        assert_eq!(
            set("::ffff:80.4.4.7", 1313, 9),
            due,
            "its neighbour's is the same"
        );
    }

    #[test]
    fn a_small_torrent_has_no_more_pieces_than_it_has() {
        assert_eq!(set("192.0.2.1", 0, 5), []);
        let mut all = set("2001:db8::1", 3, 10);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2]);
        assert_eq!([16 << 10, 4 << 20, 512 << 20].map(count), [10, 4, 1]);
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn who_comes_again_goes_on_where_it_was() {
        let (given, now) = (Given::default(), Time::default());
        let one = ip("192.0.2.1");
        assert!(given.reserve(one, BYTES_MAX - 5, now));
        assert!(!given.reserve(one, 6, now), "too much");
        assert!(given.reserve(one, 5, now));
        assert!(!given.reserve(ip("::ffff:192.0.2.1"), 1, now), "the same");
        assert!(given.reserve(ip("192.0.2.2"), 1, now), "another");
        given.give_back(one, 3);
        assert!(given.reserve(one, 3, now) && !given.reserve(one, 1, now));
        let later = now + PERIOD;
        assert!(given.reserve(one, BYTES_MAX, later), "in its next period");
        let network = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(ip);
        let granted = network.map(|address| given.reserve(address, BYTES_MAX, later));
        assert_eq!(granted, [true, false, true], "a /64 is one stranger");
    }

    #[test]
    fn a_long_piece_is_had_once() {
        let (given, now) = (Given::default(), Time::default());
        let one = ip("192.0.2.1");
        assert!(given.reserve(one, 2 * BYTES_MAX, now));
        assert!(!given.reserve(one, 1, now));
        given.give_back(one, u64::MAX);
        assert!(given.reserve(one, 2 * BYTES_MAX, now), "none of it was had");
    }

    #[test]
    fn no_more_strangers_are_remembered_than_there_is_room_for() {
        let (given, now) = (Given::default(), Time::default());
        let number = |number: usize| IpAddr::from(u32::try_from(number).unwrap().to_be_bytes());
        for stranger in 0..STRANGERS_MAX {
            assert!(given.reserve(number(stranger), 1, now));
        }
        let one_more = number(STRANGERS_MAX);
        assert!(!given.reserve(one_more, 1, now), "there is no room");
        assert!(given.reserve(number(0), 1, now), "it is known");
        assert!(given.reserve(one_more, 1, now + PERIOD));
        assert_eq!(given.0.lock().unwrap().in_order.len(), 1);
    }
}
