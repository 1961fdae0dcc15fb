//! What a server has set out to do with the files of a torrent and has not ended: kept before it is
//! begun, so that the next start goes on with it.
//!
//! Limits: one of each kind for an info-hash, [`limits::INTENT_BYTES_MAX`] each. Does not: know
//! what the bytes say.

use crate::error::WriteError;
use crate::limits;
use crate::tables::{self, SETTINGS, SUMMARIES, Tables};
use crate::write::{Refusable, at_most, put};
use proto::ids::InfoHashV1;
use redb::{ReadableTable, WriteTransaction};
use std::ops::RangeInclusive;

/// What a server may set out to do. The numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Intent {
    /// To move a torrent's data. It goes with the torrent.
    Move = 1,
    /// To rename files of a torrent. It goes with the torrent.
    Rename = 2,
    /// To delete the files of a torrent that is gone: it stays when the torrent goes, and needs
    /// none. One that is there again has nothing to do with it.
    Delete = 3,
}

impl Intent {
    const ALL: [Intent; 3] = [Intent::Move, Intent::Rename, Intent::Delete];

    /// Whether it is only kept with its torrent.
    pub(crate) fn needs_torrent(self) -> bool {
        match self {
            Intent::Move | Intent::Rename => true,
            Intent::Delete => false,
        }
    }
}

/// The key of an intent.
pub(crate) fn key(intent: Intent, info_hash: &InfoHashV1) -> [u8; 21] {
    let mut key = [intent as u8; 21];
    let (_, hash) = key.split_at_mut(1);
    hash.copy_from_slice(&info_hash.0);
    key
}

/// What is intended, and of which torrent.
pub(crate) fn key_parts(key: &[u8]) -> Option<(Intent, InfoHashV1)> {
    let (number, hash) = key.split_first()?;
    let intent = Intent::ALL.into_iter().find(|it| *it as u8 == *number)?;
    Some((intent, tables::info_hash(hash)?))
}

/// The keys of all torrents.
pub(crate) fn keys(intent: Intent) -> RangeInclusive<[u8; 21]> {
    key(intent, &InfoHashV1([0; 20]))..=key(intent, &InfoHashV1([0xff; 20]))
}

/// Keeps an intent in place of what there is of this kind, or takes it out.
pub(crate) fn set(
    tables: &mut Tables<'_>,
    intent: Intent,
    info_hash: InfoHashV1,
    value: Option<&[u8]>,
) -> Refusable<()> {
    let bytes = value.map_or(0, <[u8]>::len);
    if let Err(refused) = at_most("bytes of an intent", bytes, limits::INTENT_BYTES_MAX) {
        return Ok(Err(refused));
    }
    // What is kept of a torrent that was removed meanwhile would be nobody's.
    let is_alone = value.is_some() && intent.needs_torrent();
    if is_alone && tables.summaries.get(info_hash.0.as_slice())?.is_none() {
        return Ok(Err(WriteError::Unknown(info_hash)));
    }
    put(&mut tables.intents, &key(intent, &info_hash), value)?;
    Ok(Ok(()))
}

/// Takes out what goes with a torrent.
pub(crate) fn remove_with(
    tables: &mut Tables<'_>,
    info_hash: &InfoHashV1,
) -> Result<(), redb::Error> {
    for intent in Intent::ALL.into_iter().filter(|it| it.needs_torrent()) {
        tables.intents.remove(key(intent, info_hash).as_slice())?;
    }
    Ok(())
}

/// The step from schema 1, where moves and renames were settings, of which there may be but so
/// many. Those of torrents that are gone go, as every start took them.
pub(crate) fn from_settings(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    let mut settings = transaction.open_table(SETTINGS)?;
    let summaries = transaction.open_table(SUMMARIES)?;
    let mut intents = transaction.open_table(tables::INTENTS)?;
    for (prefix, intent) in [("move-", Intent::Move), ("rename-", Intent::Rename)] {
        let mut found = Vec::new();
        for entry in settings.range::<&[u8]>(prefix.as_bytes()..)? {
            let (name, value) = entry?;
            let Some(hash) = name.value().strip_prefix(prefix.as_bytes()) else {
                break;
            };
            let hash = str::from_utf8(hash).ok().and_then(InfoHashV1::from_hex);
            if let Some(info_hash) = hash {
                found.push((name.value().to_vec(), info_hash, value.value().to_vec()));
            }
        }
        for (name, info_hash, value) in found {
            settings.remove(name.as_slice())?;
            if summaries.get(info_hash.0.as_slice())?.is_some() {
                intents.insert(key(intent, &info_hash).as_slice(), value.as_slice())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_those_of_one_kind_lie_together() {
        let hashes = [[0; 20], [9; 20], [0xff; 20]].map(InfoHashV1);
        for (intent, hash) in Intent::ALL
            .into_iter()
            .flat_map(|it| hashes.map(|h| (it, h)))
        {
            let key = key(intent, &hash);
            assert_eq!(key_parts(&key), Some((intent, hash)));
            for other in Intent::ALL {
                assert_eq!(keys(other).contains(&key), other == intent);
            }
        }
        assert_eq!(key_parts(&[0; 21]), None);
        assert_eq!(key_parts(&[4; 21]), None);
        assert_eq!(key_parts(&[1; 20]), None);
        assert_eq!(key_parts(&[1; 22]), None);
        assert_eq!(key_parts(&[]), None);
    }
}
