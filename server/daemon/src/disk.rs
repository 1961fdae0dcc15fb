//! The disk as hashing sees it: the rings of the data plane's crate behind the interface of `control`.
//!
//! Where io_uring is refused, hashing goes on with ordinary reads; what refuses it is told by the server
//! itself, which cannot do without.

use control::hashing::{Disk, DiskReader, Limits, ReadId, Way};
use seedring_io::bulk::{self, BulkReader, Resident};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The disk, for a command whose only work is hashing.
pub const FOREGROUND: &dyn Disk = &RingDisk { background: false };

/// The disk, for hashing beside a server: on cores and disks it comes after serving, and its memory is
/// part of the server's budget.
pub const BACKGROUND: &dyn Disk = &RingDisk { background: true };

#[derive(Debug)]
struct RingDisk {
    background: bool,
}

impl Disk for RingDisk {
    fn limits(&self) -> Limits {
        if self.background {
            Limits::BACKGROUND
        } else {
            Limits::FOREGROUND
        }
    }

    fn reader(&self) -> Box<dyn DiskReader> {
        if self.background {
            seedring_io::system::work_in_background();
        }
        Box::new(RingReader {
            resident: Resident::new(),
            reader: None,
        })
    }
}

/// Reads of one hashing thread; it has no ring until something is not in memory.
struct RingReader {
    resident: Resident,
    reader: Option<BulkReader>,
}

impl DiskReader for RingReader {
    fn is_resident(&self, file: &File, offset: u64, length: u64) -> bool {
        self.resident.is_resident(file, offset, length)
    }

    fn make_memory(&mut self, bytes: usize) -> bool {
        self.reader = BulkReader::new(bytes)
            .inspect_err(|error| tracing::info!(%error, "hashing reads without a ring"))
            .ok();
        self.reader.is_some()
    }

    fn start(
        &mut self,
        file: &Arc<File>,
        offset: u64,
        place: Range<usize>,
        way: Way,
    ) -> Option<ReadId> {
        let way = match way {
            Way::Direct => bulk::Way::Direct,
            Way::Passing => bulk::Way::Passing,
        };
        let read = self.reader.as_mut()?.start(file, offset, place, way)?;
        Some(ReadId(read.0))
    }

    fn submit(&mut self) {
        if let Some(reader) = &mut self.reader {
            // What could not be handed over now is so when it is waited for, which tells the error.
            let _ = reader.submit();
        }
    }

    fn wait(&mut self, read: ReadId) -> io::Result<usize> {
        match &mut self.reader {
            Some(reader) => reader.wait(bulk::ReadId(read.0)),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn bytes(&self, place: Range<usize>) -> &[u8] {
        self.reader
            .as_ref()
            .map_or(&[], |reader| reader.bytes(place))
    }
}
