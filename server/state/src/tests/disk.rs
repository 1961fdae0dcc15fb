//! A disk for tests: it keeps apart what is on stable storage and what only the kernel has, fails
//! when it is told to, and can be looked at as if the power had gone.

use crate::file::Medium;
use crate::tables;
use crate::{OpenError, Options, Store};
use redb::{Database, StorageBackend};
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

/// What was written and not synced.
#[derive(Clone, Debug)]
enum Dirty {
    Bytes(u64, Vec<u8>),
    Length(u64),
}

/// When operations fail: those from `from` on, so many, but none that only read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub from: u64,
    pub count: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// What programs read and write.
    cache: Vec<u8>,
    /// What a power cut leaves for certain.
    stable: Vec<u8>,
    dirty: Vec<Dirty>,
    /// Operations that change something, until now.
    operations: u64,
    faults: Faults,
    /// Where the power goes, and what is on the disk then.
    cut_at: Option<u64>,
    cut: Option<Vec<u8>>,
    syncs_held: bool,
    sync_waits: bool,
}

/// The disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<(Mutex<Inner>, Condvar)>);

/// Lets syncs go on when it is dropped.
pub(super) struct Gate(Disk);

impl Drop for Gate {
    fn drop(&mut self) {
        self.0.inner().syncs_held = false;
        self.0.0.1.notify_all();
    }
}

fn put(bytes: &mut Vec<u8>, dirty: &Dirty) {
    match dirty {
        Dirty::Length(length) => bytes.resize(*length as usize, 0),
        Dirty::Bytes(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(data);
        }
    }
}

impl Disk {
    /// A disk with a new store.
    pub fn with_store() -> Self {
        let disk = Disk::default();
        let database = Database::builder().create_with_backend(disk.clone());
        let database = database.unwrap();
        let transaction = database.begin_write().unwrap();
        tables::create(&transaction, &[7; 16]).unwrap();
        transaction.commit().unwrap();
        drop(database);
        disk
    }

    /// A disk with these bytes.
    pub fn with_bytes(bytes: Vec<u8>) -> Self {
        let disk = Disk::default();
        disk.inner().stable = bytes.clone();
        disk.inner().cache = bytes;
        disk
    }

    pub fn open(&self, options: Options) -> Result<Store, OpenError> {
        Store::start(Box::new(self.clone()), None, options)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap()
    }

    /// How many operations have changed something.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    pub fn fail(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// What is on stable storage for certain.
    pub fn stable(&self) -> Vec<u8> {
        self.inner().stable.clone()
    }

    /// The power goes after so many operations; the disk goes on as if it had not.
    pub fn cut_power_at(&self, operation: u64) {
        self.inner().cut_at = Some(operation);
    }

    /// What the power cut has left, if it has come: of what was not synced some, in no order.
    pub fn after_cut(&self) -> Option<Vec<u8>> {
        self.inner().cut.clone()
    }

    pub fn hold_syncs(&self) -> Gate {
        let mut inner = self.inner();
        inner.syncs_held = true;
        inner.sync_waits = false;
        Gate(self.clone())
    }

    /// Waits until a sync is being held.
    pub fn wait_for_held_sync(&self) {
        let inner = self.inner();
        let waited = self.0.1.wait_while(inner, |inner| !inner.sync_waits);
        drop(waited.unwrap());
    }

    /// Counts an operation, and says whether it fails.
    fn begin(inner: &mut Inner) -> bool {
        if inner.cut_at == Some(inner.operations) {
            let mut left = inner.stable.clone();
            let mut random = fastrand::Rng::with_seed(inner.operations);
            let mut some: Vec<&Dirty> = inner.dirty.iter().filter(|_| random.bool()).collect();
            random.shuffle(&mut some);
            for dirty in some {
                match dirty {
                    // A write may be cut in two.
                    Dirty::Bytes(offset, data) if random.u8(..4) == 0 => {
                        let end = random.usize(..=data.len());
                        put(&mut left, &Dirty::Bytes(*offset, data[..end].to_vec()));
                    }
                    dirty => put(&mut left, dirty),
                }
            }
            // A file system that has lost a length has lost what was behind it.
            inner.cut = Some(left);
        }
        let operation = inner.operations;
        inner.operations += 1;
        let Faults { from, count } = inner.faults;
        operation >= from && operation - from < count
    }

    fn change(&self, dirty: Dirty) -> io::Result<()> {
        let mut inner = self.inner();
        if Disk::begin(&mut inner) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        put(&mut inner.cache, &dirty);
        inner.dirty.push(dirty);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner().cache.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        let start = offset as usize;
        let bytes = inner.cache.get(start..start + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Dirty::Length(len))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Dirty::Bytes(offset, data.to_vec()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.syncs_held {
            inner.sync_waits = true;
            self.0.1.notify_all();
            let waited = self.0.1.wait_while(inner, |inner| inner.syncs_held);
            inner = waited.unwrap();
        }
        let failed = Disk::begin(&mut inner);
        let dirty = std::mem::take(&mut inner.dirty);
        if failed {
            // As Linux does it: what could not be written counts as written from then on.
            return Err(io::Error::other("the sync failed"));
        }
        for dirty in &dirty {
            put(&mut inner.stable, dirty);
        }
        Ok(())
    }
}

impl Medium for Disk {
    fn open(&self, again: bool) -> io::Result<Box<dyn StorageBackend>> {
        if again {
            // What counts as written is read from the disk.
            let mut inner = self.inner();
            let mut cache = inner.stable.clone();
            for dirty in &inner.dirty {
                put(&mut cache, dirty);
            }
            inner.cache = cache;
        }
        Ok(Box::new(self.clone()))
    }

    fn path(&self) -> &Path {
        Path::new("a disk of the tests")
    }
}
