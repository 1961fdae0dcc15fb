//! Windows of one shard: stretches of files mapped for the kernel to find their pages by, so that one call puts a
//! whole batch, headers and pages, into a pipe.
//!
//! Nobody reads through a window. A page that is not there any more, because its file has shrunk or its disk fails, is
//! an error of the call that asks for it and never a SIGBUS (docs/adr/0011-windows.md).
//!
//! Limits: [`Windows`] maps a given number of bytes, and the least recently used window goes when another is needed. A
//! window of a file goes with the file. What is mapped and in the page cache counts as resident memory of the process
//! and is none of its own.

use crate::files::OpenFile;
use crate::system::page_bytes;
use engine::time::Time;
use lru::LruCache;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::rc::Rc;
use std::time::Duration;

/// The size of a window, in bytes; the last one of a file is shorter.
const WINDOW_BYTES: u64 = 16 << 20;

/// The least that a shard maps, in bytes: what the batches of one turn of its peers need.
const BYTES_MIN: u64 = 4 * WINDOW_BYTES;

/// The most windows of a shard, small files being one each: the kernel grants a process 65,530 mappings.
const WINDOWS_MAX: usize = 4096;

/// How finely is known what of a window was touched lately, in bytes.
const TOUCH_BYTES: u64 = 16 << 10;

/// How long a touch counts. To find a page by its mapping is no use of it in the eyes of the page cache, which would
/// drop what everybody asks for as soon as what nobody does; so it is told of each page now and then.
const TOUCH_PERIOD: Duration = Duration::from_secs(10);

/// Windows of one shard's files.
pub struct Windows {
    bytes_max: u64,
    bytes: Cell<u64>,
    mapped: RefCell<LruCache<Key, Window>>,
    /// How many files have had windows.
    files: Cell<u64>,
    /// The batch that is being put together, whose windows stay.
    batch: Cell<u64>,
    can_touch: Cell<bool>,
}

/// A file's number and the window's index in it.
type Key = (u64, u64);

/// A run of a file's bytes in a window. Its memory is for the kernel to look at, not for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where it starts.
    pub start: *const u8,
    /// Bytes.
    pub length: usize,
}

impl Windows {
    /// Maps at most `bytes_max` bytes, or what one turn of the peers needs if that is more.
    pub fn new(bytes_max: u64) -> Rc<Windows> {
        Rc::new(Windows {
            bytes_max: bytes_max.max(BYTES_MIN),
            bytes: Cell::new(0),
            mapped: RefCell::new(LruCache::unbounded()),
            files: Cell::new(0),
            batch: Cell::new(0),
            can_touch: Cell::new(true),
        })
    }

    /// Bytes that are mapped.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Starts another batch: what [`Windows::find`] returned before may go.
    pub fn start_batch(&self) {
        self.batch.set(self.batch.get() + 1);
    }

    /// Where `length` bytes of `file` from `offset` are mapped, or as many of them as are in one window. They are
    /// within its `file_bytes` and in memory, or the call waits for the disk. The run is valid until the next
    /// [`Windows::start_batch`] and as long as `file` is open.
    ///
    /// # Errors
    ///
    /// What the kernel said: this file can not be mapped, or its bytes can not be had.
    pub fn find(
        self: &Rc<Self>,
        file: &OpenFile,
        file_bytes: u64,
        offset: u64,
        length: usize,
        now: Time,
    ) -> io::Result<Run> {
        let owner = file.windows(|| self.new_file());
        let index = offset / WINDOW_BYTES;
        let key = (owner.file, index);
        let first = offset % WINDOW_BYTES;
        let mut mapped = self.mapped.borrow_mut();
        if !mapped.contains(&key) {
            let start = index * WINDOW_BYTES;
            let bytes = WINDOW_BYTES.min(file_bytes.saturating_sub(start));
            self.make_room(&mut mapped, bytes);
            mapped.put(key, Window::map(file, start, bytes)?);
            self.bytes.set(self.bytes.get() + bytes);
        }
        let window = mapped.get_mut(&key).ok_or(io::ErrorKind::NotFound)?;
        window.batch = self.batch.get();
        let count = (length as u64).min(window.bytes.saturating_sub(first));
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.can_touch.get() && !window.was_touched(first, count, now) {
            self.touch(window, first, count)?;
        }
        Ok(window.run(first, count))
    }

    /// A file that gets its first window.
    fn new_file(self: &Rc<Self>) -> FileWindows {
        self.files.set(self.files.get() + 1);
        FileWindows {
            file: self.files.get(),
            windows: Rc::clone(self),
        }
    }

    /// Unmaps the least recently used windows until `bytes` more may be mapped, but none of this batch.
    fn make_room(&self, mapped: &mut LruCache<Key, Window>, bytes: u64) {
        while self.bytes.get() + bytes > self.bytes_max || mapped.len() >= WINDOWS_MAX {
            match mapped.peek_lru() {
                Some((_, window)) if window.batch != self.batch.get() => {}
                _ => return,
            }
            if let Some((_, window)) = mapped.pop_lru() {
                self.bytes.set(self.bytes.get() - window.bytes);
            }
        }
    }

    /// Unmaps the windows of a file.
    fn forget(&self, file: u64) {
        let mut mapped = self.mapped.borrow_mut();
        let is_its = |(key, _): &(&Key, &Window)| key.0 == file;
        let gone: Vec<Key> = mapped.iter().filter(is_its).map(|(key, _)| *key).collect();
        for key in gone {
            if let Some(window) = mapped.pop(&key) {
                self.bytes.set(self.bytes.get() - window.bytes);
            }
        }
    }

    /// Tells the page cache that these pages are in use, and enters them into the page tables.
    fn touch(&self, window: &mut Window, first: u64, count: u64) -> io::Result<()> {
        let error = match window.populate(first, count) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // Of Linux 5.14. Without it the page tables are filled by who asks for the pages.
        if error.raw_os_error() != Some(libc::EINVAL) {
            return Err(error);
        }
        self.can_touch.set(false);
        Ok(())
    }
}

/// What an open file holds of [`Windows`]: with it go those of the file.
pub(crate) struct FileWindows {
    file: u64,
    windows: Rc<Windows>,
}

impl Drop for FileWindows {
    fn drop(&mut self) {
        self.windows.forget(self.file);
    }
}

/// A mapped stretch of a file.
struct Window {
    start: NonNull<u8>,
    bytes: u64,
    /// The batch that used it last.
    batch: u64,
    /// What was touched since `touched_at`: a bit for each [`TOUCH_BYTES`].
    touched: [u64; (WINDOW_BYTES / TOUCH_BYTES / 64) as usize],
    touched_at: Time,
}

impl Window {
    /// Maps `bytes` of `file` from `start`, a multiple of [`WINDOW_BYTES`].
    fn map(file: &impl AsRawFd, start: u64, bytes: u64) -> io::Result<Window> {
        let offset = libc::off_t::try_from(start).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice concerns no other memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes as usize,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // A page that is missing after all is read alone. Refused, it is read with its neighbours.
        // SAFETY: the range is the whole of our own new mapping.
        unsafe { libc::madvise(address, bytes as usize, libc::MADV_RANDOM) };
        Ok(Window {
            start: NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            bytes,
            batch: 0,
            touched: Default::default(),
            touched_at: Time::default(),
        })
    }

    /// The run of `count` bytes from `first`, both within the window.
    fn run(&self, first: u64, count: u64) -> Run {
        Run {
            start: self.start.as_ptr().wrapping_add(first as usize),
            length: count as usize,
        }
    }

    /// Whether all of the `count` bytes from `first` were touched lately; from now on they count as touched.
    fn was_touched(&mut self, first: u64, count: u64, now: Time) -> bool {
        if now.since(self.touched_at) >= TOUCH_PERIOD {
            self.touched = Default::default();
            self.touched_at = now;
        }
        let mut all = true;
        for unit in first / TOUCH_BYTES..=(first + count - 1) / TOUCH_BYTES {
            let bit = 1 << (unit % 64);
            let word = &mut self.touched[(unit / 64) as usize];
            all &= *word & bit != 0;
            *word |= bit;
        }
        all
    }

    /// Enters the pages of the `count` bytes from `first` into the page tables, as used.
    fn populate(&self, first: u64, count: u64) -> io::Result<()> {
        let from = first - first % page_bytes() as u64;
        let run = self.run(from, first + count - from);
        // SAFETY: the range is within our own mapping, whose memory stays what it is.
        let done = unsafe {
            libc::madvise(
                run.start.cast_mut().cast(),
                run.length,
                libc::MADV_POPULATE_READ,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the range is the whole of our own mapping, and runs of it are only for the kernel, which holds
        // the pages that it was given.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.bytes as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::rc::Weak;

    const WINDOW: usize = WINDOW_BYTES as usize;

    /// A file of `length` bytes that differ from window to window.
    fn file(length: usize) -> (OpenFile, u64) {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..length).map(|at| (at / 1021 % 251) as u8).collect();
        file.write_all(&content).unwrap();
        (OpenFile::new(file.into()), length as u64)
    }

    /// What the kernel finds in `run`.
    fn seen(run: Run) -> io::Result<Vec<u8>> {
        let (reader, writer) = std::os::unix::net::UnixStream::pair()?;
        // SAFETY: the kernel looks at the memory, and answers where there is none.
        let sent = unsafe { libc::send(writer.as_raw_fd(), run.start.cast(), run.length, 0) };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        let mut bytes = vec![0; sent];
        io::Read::read_exact(&mut { reader }, &mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn a_run_ends_with_its_window_and_with_its_file() {
        let windows = Windows::new(0);
        let (file, bytes) = file(WINDOW + 5000);
        let find = |offset: usize, length| {
            let run = windows.find(&file, bytes, offset as u64, length, Time::default());
            seen(run.unwrap()).unwrap()
        };
        let right = |at: usize| (at / 1021 % 251) as u8;
        assert_eq!(find(4095, 3), [right(4095), right(4096), right(4097)]);
        assert_eq!(find(WINDOW - 2, 10), [right(WINDOW - 2), right(WINDOW - 1)]);
        assert_eq!(find(WINDOW + 4990, 100).len(), 10);
        assert_eq!(windows.bytes(), bytes);
        let beyond = windows.find(&file, bytes, bytes, 1, Time::default());
        assert!(beyond.is_err());
    }

    #[test]
    fn the_least_recently_used_window_goes_but_none_of_this_batch() {
        let windows = Windows::new(0);
        let count = (BYTES_MIN / WINDOW_BYTES) as usize;
        let (file, bytes) = file((count + 2) * WINDOW);
        let find = |index: usize| {
            let offset = (index * WINDOW) as u64;
            windows
                .find(&file, bytes, offset, 10, Time::default())
                .unwrap()
        };
        let is_mapped = |index: usize| windows.mapped.borrow().contains(&(1, index as u64));
        for index in 0..count {
            windows.start_batch();
            find(index);
        }
        assert_eq!(windows.bytes(), BYTES_MIN);
        windows.start_batch();
        find(0);
        find(count);
        assert!(is_mapped(0) && !is_mapped(1) && is_mapped(count));
        assert_eq!(windows.bytes(), BYTES_MIN);
        // One batch may use more than is allowed.
        windows.start_batch();
        for index in 0..count + 2 {
            find(index);
        }
        assert!((0..count + 2).all(is_mapped));
        windows.start_batch();
        find(0);
        assert_eq!(windows.bytes(), bytes);
        let (other, bytes) = self::file(10);
        windows.find(&other, bytes, 0, 10, Time::default()).unwrap();
        assert!(windows.bytes() <= BYTES_MIN);
    }

    #[test]
    fn a_files_windows_go_with_it() {
        let windows = Windows::new(0);
        let (one, other) = (file(10), file(20));
        windows.find(&one.0, 10, 0, 10, Time::default()).unwrap();
        windows.find(&other.0, 20, 0, 10, Time::default()).unwrap();
        drop(one);
        assert_eq!(windows.bytes(), 20);
        drop(other);
        assert_eq!(windows.bytes(), 0);
        let weak = Rc::downgrade(&windows);
        drop(windows);
        assert!(Weak::upgrade(&weak).is_none());
    }

    #[test]
    fn a_file_that_has_shrunk_is_an_error() {
        let windows = Windows::new(0);
        for touches in [true, false] {
            windows.can_touch.set(touches);
            let (file, bytes) = file(100_000);
            // SAFETY: shortens a file of our own.
            assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), 10) }, 0);
            let found = windows.find(&file, bytes, 50_000, 10, Time::default());
            assert!(found.and_then(seen).is_err());
        }
    }

    #[test]
    fn a_touch_counts_for_its_bytes_and_for_its_time() {
        let (file, bytes) = file(100_000);
        let mut window = Window::map(&file, 0, bytes).unwrap();
        let now = Time::default() + TOUCH_PERIOD;
        assert!(!window.was_touched(0, 1, now));
        assert!(window.was_touched(TOUCH_BYTES - 1, 1, now));
        assert!(!window.was_touched(TOUCH_BYTES - 1, 2, now));
        assert!(!window.was_touched(0, 5 * TOUCH_BYTES, now));
        assert!(window.was_touched(0, 5 * TOUCH_BYTES, now));
        assert!(!window.was_touched(0, 1, now + TOUCH_PERIOD));
    }
}
