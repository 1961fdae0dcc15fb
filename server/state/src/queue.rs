//! The queue: the order in which torrents get their turn. Each has a rank, far apart from its
//! neighbours', so that moving one writes one; only where two have become neighbours all ranks are
//! given anew.

use crate::error::WriteError;
use crate::tables::{Tables, info_hash};
use proto::ids::InfoHashV1;
use redb::ReadableTable;
use std::ops::Bound;

/// How far ranks are apart that are given anew.
const GAP: u64 = 1 << 24;
/// The rank of the first torrent of an empty queue.
const MIDDLE: u64 = 1 << 63;

/// A place in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is not queued.
    #[default]
    Out,
    /// Before all others.
    First,
    /// Behind all others.
    Last,
    /// Right before another one, which is queued.
    Before(InfoHashV1),
    /// Right behind another one, which is queued.
    After(InfoHashV1),
}

/// Moves a torrent to `place`. Of a refusal nothing has changed.
pub(crate) fn move_to(
    tables: &mut Tables<'_>,
    torrent: &InfoHashV1,
    place: Place,
) -> Result<Result<(), WriteError>, redb::Error> {
    if let Place::Before(other) | Place::After(other) = place {
        if rank(tables, &other)?.is_none() {
            return Ok(Err(WriteError::NotQueued(other)));
        }
        if other == *torrent {
            return Ok(Ok(()));
        }
    }
    take_out(tables, torrent)?;
    if place == Place::Out {
        return Ok(Ok(()));
    }
    let found = match free_rank(tables, place)? {
        Some(rank) => Some(rank),
        None => {
            spread(tables)?;
            free_rank(tables, place)?
        }
    };
    // After spreading there is room everywhere.
    let rank = found.unwrap_or(MIDDLE).to_be_bytes();
    let (queue, ranks) = (&mut tables.queue, &mut tables.ranks);
    queue.insert(rank.as_slice(), torrent.0.as_slice())?;
    ranks.insert(torrent.0.as_slice(), rank.as_slice())?;
    Ok(Ok(()))
}

/// Takes a torrent out of the queue, if it is there.
pub(crate) fn take_out(tables: &mut Tables<'_>, torrent: &InfoHashV1) -> Result<(), redb::Error> {
    let old = tables.ranks.remove(torrent.0.as_slice())?;
    if let Some(old) = old {
        tables.queue.remove(old.value())?;
    }
    Ok(())
}

fn rank(tables: &Tables<'_>, torrent: &InfoHashV1) -> Result<Option<u64>, redb::Error> {
    let rank = tables.ranks.get(torrent.0.as_slice())?;
    Ok(rank.and_then(|rank| number(rank.value())))
}

fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}

/// A rank that nobody has, at `place`; none if there is none left.
fn free_rank(tables: &Tables<'_>, place: Place) -> Result<Option<u64>, redb::Error> {
    let queue = &tables.queue;
    let first = |from: u64| -> Result<Option<u64>, redb::Error> {
        let from = from.to_be_bytes();
        let mut range = queue.range::<&[u8]>(from.as_slice()..)?;
        let found = range.next().transpose()?;
        Ok(found.and_then(|(key, _)| number(key.value())))
    };
    let last = |before: Option<u64>| -> Result<Option<u64>, redb::Error> {
        let before = before.map(u64::to_be_bytes);
        let end = before
            .as_ref()
            .map_or(Bound::Unbounded, |end| Bound::Excluded(end.as_slice()));
        let mut range = queue.range::<&[u8]>((Bound::Unbounded, end))?;
        let found = range.next_back().transpose()?;
        Ok(found.and_then(|(key, _)| number(key.value())))
    };
    let (low, high) = match place {
        Place::Out => return Ok(None),
        Place::First => (None, first(0)?),
        Place::Last => (last(None)?, None),
        Place::Before(other) => {
            let high = rank(tables, &other)?;
            (last(high)?, high)
        }
        Place::After(other) => {
            let low = rank(tables, &other)?;
            let next = low.and_then(|low| low.checked_add(1));
            let high = match next {
                Some(next) => first(next)?,
                None => None,
            };
            (low, high)
        }
    };
    Ok(match (low, high) {
        (None, None) => Some(MIDDLE),
        (None, Some(high)) => high.checked_sub(GAP),
        (Some(low), None) => low.checked_add(GAP),
        (Some(low), Some(high)) => {
            let half = high.saturating_sub(low) / 2;
            (half > 0).then_some(low + half)
        }
    })
}

/// Gives all ranks anew, in the same order.
fn spread(tables: &mut Tables<'_>) -> Result<(), redb::Error> {
    let mut order = Vec::new();
    for entry in tables.queue.iter()? {
        let (_, torrent) = entry?;
        order.extend(info_hash(torrent.value()));
    }
    tables.queue.retain(|_, _| false)?;
    let start = MIDDLE - GAP * (order.len() as u64 / 2);
    for (rank, torrent) in (0u64..).zip(&order) {
        let rank = (start + rank * GAP).to_be_bytes();
        tables.queue.insert(rank.as_slice(), torrent.0.as_slice())?;
        tables.ranks.insert(torrent.0.as_slice(), rank.as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tables;
    use redb::{Database, backends::InMemoryBackend};

    fn hash(number: u32) -> InfoHashV1 {
        let mut hash = [0; 20];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        InfoHashV1(hash)
    }

    /// Does what `moves` does to a queue, and returns the queue.
    fn queue(moves: impl FnOnce(&mut Tables<'_>)) -> Vec<InfoHashV1> {
        let database = Database::builder();
        let database = database.create_with_backend(InMemoryBackend::new());
        let database = database.unwrap();
        let transaction = database.begin_write().unwrap();
        tables::create(&transaction, &[0; 16]).unwrap();
        let mut tables = Tables::open(&transaction).unwrap();
        moves(&mut tables);
        let entries = tables.queue.iter().unwrap().map(|entry| {
            let (rank, torrent) = entry.unwrap();
            let torrent = info_hash(torrent.value()).unwrap();
            let back = tables.ranks.get(torrent.0.as_slice()).unwrap().unwrap();
            assert_eq!(rank.value(), back.value(), "both tables say the same");
            torrent
        });
        let order: Vec<_> = entries.collect();
        let ranks = tables.ranks.iter().unwrap().count();
        assert_eq!(ranks, order.len());
        order
    }

    #[test]
    fn every_place_is_where_it_says() {
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(hash);
        let moves = [
            (a, Place::Last),
            (b, Place::Last),
            (c, Place::First),
            (d, Place::Before(b)),
            (e, Place::After(c)),
            (a, Place::First),
            (a, Place::After(a)),
        ];
        let order = queue(|tables| {
            for (torrent, place) in moves {
                assert_eq!(move_to(tables, &torrent, place).unwrap(), Ok(()));
            }
            let stranger = hash(9);
            let refused = move_to(tables, &b, Place::Before(stranger)).unwrap();
            assert_eq!(refused, Err(WriteError::NotQueued(stranger)));
        });
        assert_eq!(order, [a, c, e, d, b]);
        let order = queue(|tables| {
            for torrent in [a, b, c] {
                move_to(tables, &torrent, Place::Last).unwrap().unwrap();
            }
            move_to(tables, &b, Place::Out).unwrap().unwrap();
        });
        assert_eq!(order, [a, c]);
    }

    /// One place is used so often that ranks become neighbours there, more than once.
    #[test]
    fn a_crowded_place_makes_room_and_keeps_the_order() {
        let (first, last) = (hash(0), hash(u32::MAX));
        let order = queue(|tables| {
            move_to(tables, &first, Place::Last).unwrap().unwrap();
            move_to(tables, &last, Place::Last).unwrap().unwrap();
            for number in 1..=200 {
                let place = Place::After(first);
                move_to(tables, &hash(number), place).unwrap().unwrap();
            }
        });
        let mut expected = vec![first];
        expected.extend((1..=200).rev().map(hash));
        expected.push(last);
        assert_eq!(order, expected);
    }

    #[test]
    fn the_ends_of_the_ranks_are_no_end_of_the_queue() {
        let [a, b, c, d] = [1, 2, 3, 4].map(hash);
        let order = queue(|tables| {
            for (torrent, rank) in [(a, 5u64), (b, u64::MAX)] {
                let rank = rank.to_be_bytes();
                let (hash, rank) = (torrent.0.as_slice(), rank.as_slice());
                tables.queue.insert(rank, hash).unwrap();
                tables.ranks.insert(hash, rank).unwrap();
            }
            move_to(tables, &c, Place::Last).unwrap().unwrap();
            move_to(tables, &d, Place::First).unwrap().unwrap();
        });
        assert_eq!(order, [d, a, b, c]);
    }
}
