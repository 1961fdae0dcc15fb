//! The tables of the file, its schema version and the steps from one to the next.
//!
//! All tables have byte strings for keys and values, so that a backup copies every table of every
//! schema alike.

use proto::ids::InfoHashV1;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
pub(crate) type Bytes<'t> = Table<'t, &'static [u8], &'static [u8]>;

/// The layout of the tables below and of the records in them. A newer one is refused, never guessed
/// at.
pub const SCHEMA: u64 = 3;

/// A step from one schema to the next.
pub(crate) type Step = fn(&WriteTransaction) -> Result<(), redb::Error>;

/// The steps: the first leads from schema 1 to 2.
const STEPS: [Step; SCHEMA as usize - 1] = [crate::intent::from_settings, as_it_was];

/// The step from schema 2, whose summaries have one flag less: what it says is as if it were unset.
fn as_it_was(_: &WriteTransaction) -> Result<(), redb::Error> {
    Ok(())
}

/// Name to a number or record of the whole store.
pub(crate) const GLOBAL: Definition = TableDefinition::new("global");
/// Name to whatever the server keeps under it.
pub(crate) const SETTINGS: Definition = TableDefinition::new("settings");
/// Info-hash to summary.
pub(crate) const SUMMARIES: Definition = TableDefinition::new("summaries");
/// Info-hash to details; no entry where nothing differs from the metainfo.
pub(crate) const DETAILS: Definition = TableDefinition::new("details");
/// Info-hash to the bytes of the .torrent file.
pub(crate) const METAINFO: Definition = TableDefinition::new("metainfo");
/// Info-hash to verified pieces; no entry where there are none.
pub(crate) const VERIFIED: Definition = TableDefinition::new("verified");
/// Info-hash and file index (big-endian) to the file's stamp.
pub(crate) const STAMPS: Definition = TableDefinition::new("stamps");
/// Info-hash to totals.
pub(crate) const TOTALS: Definition = TableDefinition::new("totals");
/// Rank (big-endian) to info-hash: the queue in its order.
pub(crate) const QUEUE: Definition = TableDefinition::new("queue");
/// Info-hash to rank.
pub(crate) const RANKS: Definition = TableDefinition::new("ranks");
/// Kind and info-hash to what is intended with the torrent's files; since schema 2.
pub(crate) const INTENTS: Definition = TableDefinition::new("intents");

const ALL: [Definition; 11] = [
    GLOBAL, SETTINGS, SUMMARIES, DETAILS, METAINFO, VERIFIED, STAMPS, TOTALS, QUEUE, RANKS, INTENTS,
];

/// The schema version (little-endian, 8 bytes). It has been where it is since schema 1, and stays
/// there.
pub(crate) const KEY_SCHEMA: &[u8] = b"schema";
/// What tells this store from all others: 16 random bytes.
pub(crate) const KEY_UUID: &[u8] = b"uuid";
/// The totals of the server.
pub(crate) const KEY_TOTALS: &[u8] = b"totals";

/// The tables, open for writing.
pub(crate) struct Tables<'t> {
    pub global: Bytes<'t>,
    pub settings: Bytes<'t>,
    pub summaries: Bytes<'t>,
    pub details: Bytes<'t>,
    pub metainfo: Bytes<'t>,
    pub verified: Bytes<'t>,
    pub stamps: Bytes<'t>,
    pub totals: Bytes<'t>,
    pub queue: Bytes<'t>,
    pub ranks: Bytes<'t>,
    pub intents: Bytes<'t>,
}

impl<'t> Tables<'t> {
    pub fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            global: transaction.open_table(GLOBAL)?,
            settings: transaction.open_table(SETTINGS)?,
            summaries: transaction.open_table(SUMMARIES)?,
            details: transaction.open_table(DETAILS)?,
            metainfo: transaction.open_table(METAINFO)?,
            verified: transaction.open_table(VERIFIED)?,
            stamps: transaction.open_table(STAMPS)?,
            totals: transaction.open_table(TOTALS)?,
            queue: transaction.open_table(QUEUE)?,
            ranks: transaction.open_table(RANKS)?,
            intents: transaction.open_table(INTENTS)?,
        })
    }
}

/// Makes the tables of a new store.
pub(crate) fn create(transaction: &WriteTransaction, uuid: &[u8; 16]) -> Result<(), redb::Error> {
    for table in ALL {
        transaction.open_table(table)?;
    }
    let mut global = transaction.open_table(GLOBAL)?;
    global.insert(KEY_UUID, uuid.as_slice())?;
    global.insert(KEY_SCHEMA, SCHEMA.to_le_bytes().as_slice())?;
    Ok(())
}

/// What the file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub schema: u64,
    pub uuid: [u8; 16],
}

/// Reads who the store is; none if the file is not one of ours.
pub(crate) fn identity(
    global: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Option<Identity>, redb::Error> {
    let schema = global.get(KEY_SCHEMA)?;
    let schema = schema.and_then(|value| value.value().try_into().ok());
    let uuid = global.get(KEY_UUID)?;
    let uuid = uuid.and_then(|value| value.value().try_into().ok());
    Ok(schema.zip(uuid).map(|(schema, uuid)| Identity {
        schema: u64::from_le_bytes(schema),
        uuid,
    }))
}

/// Brings the tables from schema `found` to this version's, in the caller's transaction: all steps
/// or none.
pub(crate) fn upgrade(transaction: &WriteTransaction, found: u64) -> Result<(), redb::Error> {
    upgrade_by(transaction, found, &STEPS)
}

fn upgrade_by(
    transaction: &WriteTransaction,
    found: u64,
    steps: &[Step],
) -> Result<(), redb::Error> {
    let done = usize::try_from(found.saturating_sub(1)).unwrap_or(usize::MAX);
    for step in steps.iter().skip(done) {
        step(transaction)?;
    }
    let reached = steps.len() as u64 + 1;
    let mut global = transaction.open_table(GLOBAL)?;
    global.insert(KEY_SCHEMA, reached.to_le_bytes().as_slice())?;
    Ok(())
}

/// The key of a file's stamp.
pub(crate) fn stamp_key(info_hash: &InfoHashV1, file: u32) -> [u8; 24] {
    let mut key = [0; 24];
    let (hash, index) = key.split_at_mut(20);
    hash.copy_from_slice(&info_hash.0);
    index.copy_from_slice(&file.to_be_bytes());
    key
}

/// The torrent and the file of a stamp's key.
pub(crate) fn stamp_key_parts(key: &[u8]) -> Option<(InfoHashV1, u32)> {
    let (hash, index) = key.split_first_chunk::<20>()?;
    let index = index.try_into().ok()?;
    Some((InfoHashV1(*hash), u32::from_be_bytes(index)))
}

/// The info-hash that a key or value is.
pub(crate) fn info_hash(bytes: &[u8]) -> Option<InfoHashV1> {
    bytes.try_into().ok().map(InfoHashV1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::{Database, ReadableDatabase, backends::InMemoryBackend};

    fn note(transaction: &WriteTransaction, name: &[u8]) -> Result<(), redb::Error> {
        let mut table = transaction.open_table(SETTINGS)?;
        let count = table.len()?;
        let value = [u8::try_from(count).unwrap()];
        table.insert(name, value.as_slice())?;
        Ok(())
    }

    fn two(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        note(transaction, b"two")
    }

    fn three(transaction: &WriteTransaction) -> Result<(), redb::Error> {
        note(transaction, b"three")
    }

    use redb::ReadableTableMetadata;

    #[test]
    fn an_upgrade_does_every_step_that_is_missing_in_its_order_once() {
        for (found, expected) in [
            (1, &[("two", 0), ("three", 1)][..]),
            (2, &[("three", 0)]),
            (3, &[]),
        ] {
            let database = Database::builder();
            let database = database.create_with_backend(InMemoryBackend::new());
            let database = database.unwrap();
            let transaction = database.begin_write().unwrap();
            create(&transaction, &[7; 16]).unwrap();
            upgrade_by(&transaction, found, &[two, three]).unwrap();
            transaction.commit().unwrap();
            let transaction = database.begin_read().unwrap();
            let settings = transaction.open_table(SETTINGS).unwrap();
            assert_eq!(
                settings.len().unwrap(),
                expected.len() as u64,
                "from {found}"
            );
            for (name, order) in expected {
                let value = settings.get(name.as_bytes()).unwrap().unwrap();
                assert_eq!(value.value(), [*order], "{name} from {found}");
            }
            let global = transaction.open_table(GLOBAL).unwrap();
            let identity = identity(&global).unwrap();
            let expected = Identity {
                schema: 3,
                uuid: [7; 16],
            };
            assert_eq!(identity, Some(expected));
        }
    }

    #[test]
    fn keys_of_stamps_come_back_and_lie_in_the_order_of_files() {
        let hash = InfoHashV1([9; 20]);
        for file in [0, 1, 255, 256, u32::MAX] {
            assert_eq!(stamp_key_parts(&stamp_key(&hash, file)), Some((hash, file)));
        }
        assert!(stamp_key(&hash, 255) < stamp_key(&hash, 256));
        assert_eq!(stamp_key_parts(&[0; 23]), None);
        assert_eq!(stamp_key_parts(&[0; 25]), None);
    }
}
