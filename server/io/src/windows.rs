//! Windows of one shard: stretches of files mapped for the kernel to find their pages by, so that
//! one call puts a whole batch, headers and pages, into a pipe.
//!
//! Nobody reads through a window. A page that is not there any more, because its file has shrunk or
//! its disk fails, is an error of the call that asks for it and never a SIGBUS
//! (docs/adr/0011-windows.md).
//!
//! Limits: a number of bytes and of windows ([`Windows::new`]); the least recently used window goes
//! when another is needed. A window of a file goes with the file. What is mapped and in the page
//! cache counts as resident memory of the process and is none of its own.

use crate::files::OpenFile;
use crate::pipes::SLOTS;
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

/// The least that a shard maps, in bytes and in windows. One batch never needs so much, so that
/// what it needs last pushes out nothing that it needed first: it lies in two long windows at most,
/// and in files shorter than itself between them, at most as many as a pipe has slots.
const BYTES_MIN: u64 = 4 * WINDOW_BYTES;
const WINDOWS_MIN: usize = 2 * SLOTS;

/// The most windows of all shards, small files being one each: the kernel grants a process 65,530
/// mappings.
const WINDOWS_MAX: usize = 32_768;

/// How finely is known what of a window was touched lately, in bytes.
const TOUCH_BYTES: u64 = 16 << 10;

/// How long a touch counts. To find a page by its mapping is no use of it in the eyes of the page
/// cache, which would drop what everybody asks for as soon as what nobody does; so it is told of
/// each page now and then.
const TOUCH_PERIOD: Duration = Duration::from_secs(10);

/// Of how many ranges that were touched lately one is looked for in memory all the same. A prime,
/// so that of peers who have their turns one after another it is not always the same.
const SAMPLE_EACH: u32 = 17;

/// How long no touch is believed in after one was found wrong, because memory is so short that
/// mapped pages are taken: at first, and at most. It doubles each time.
const DOUBT_PERIOD_MIN: Duration = Duration::from_secs(60);
const DOUBT_PERIOD_MAX: Duration = Duration::from_secs(3600);

/// Windows of one shard's files.
pub struct Windows {
    bytes_max: u64,
    count_max: usize,
    bytes: Cell<u64>,
    mapped: RefCell<LruCache<Key, Window>>,
    /// How many files have had windows.
    files: Cell<u64>,
    /// Ranges that were touched lately and asked for.
    believed: Cell<u32>,
    /// Until when no touch is believed in.
    doubt_until: Cell<Time>,
    /// For how long the next time.
    doubt: Cell<Duration>,
}

/// A file's number and the window's index in it.
type Key = (u64, u64);

/// A run of a file's bytes in a window, or of constant ones. Its memory is for the kernel to look
/// at, not for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Where it starts.
    pub start: *const u8,
    /// Bytes.
    pub length: usize,
}

/// How many bytes one of `shards` shards maps at most, of `bytes_max` over all.
pub fn bytes_per_shard(bytes_max: u64, shards: usize) -> u64 {
    (bytes_max / shards.max(1) as u64).max(BYTES_MIN)
}

impl Windows {
    /// The windows of one of `shards` shards, which map at most `bytes_max` bytes together, or what
    /// a batch of each needs if that is more.
    pub fn new(bytes_max: u64, shards: usize) -> Rc<Windows> {
        Rc::new(Windows {
            bytes_max: bytes_per_shard(bytes_max, shards),
            count_max: (WINDOWS_MAX / shards.max(1)).max(WINDOWS_MIN),
            bytes: Cell::new(0),
            mapped: RefCell::new(LruCache::unbounded()),
            files: Cell::new(0),
            believed: Cell::new(0),
            doubt_until: Cell::new(Time::default()),
            doubt: Cell::new(DOUBT_PERIOD_MIN),
        })
    }

    /// Bytes that are mapped.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Where `length` bytes of `file` from `offset` are mapped, or as many of them as are in one
    /// window. They are within its `file_bytes` and in memory, or the call waits for the disk. The
    /// run is valid until this was called for the next batch, and as long as `file` is open.
    ///
    /// # Errors
    ///
    /// What the kernel said: the file can not be mapped, which is remembered of it, or these bytes
    /// can not be had.
    pub fn find(
        self: &Rc<Self>,
        file: &OpenFile,
        file_bytes: u64,
        offset: u64,
        length: usize,
        now: Time,
    ) -> io::Result<Run> {
        let owner = file.windows(|| self.new_file(file_bytes));
        let index = offset / WINDOW_BYTES;
        let (start, first) = (index * WINDOW_BYTES, offset % WINDOW_BYTES);
        let bytes = WINDOW_BYTES.min(file_bytes.saturating_sub(start));
        let count = (length as u64).min(bytes.saturating_sub(first));
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let key = (owner.file, index);
        let mut mapped = self.mapped.borrow_mut();
        if !mapped.contains(&key) {
            let window = self.map(&mut mapped, file, start, bytes);
            let window = window.inspect_err(|error| file.set_unmappable(error))?;
            mapped.put(key, window);
            self.bytes.set(self.bytes.get() + bytes);
        }
        let window = mapped.get_mut(&key).ok_or(io::ErrorKind::NotFound)?;
        if !window.is_touched(first, count, now) {
            window.touch(first, count)?;
            window.set_touched(first, count, now);
        }
        Ok(window.run(first, count))
    }

    /// Whether the `length` bytes from `offset` of `file` are in memory: by `look`, or without it
    /// if they were touched lately. The kernel takes pages that were in use lately, and are in page
    /// tables, after those that were not; where memory is so short that it takes them all the same,
    /// a look now and then finds out, and nothing is believed for a while.
    pub fn are_resident(
        &self,
        file: &OpenFile,
        offset: u64,
        length: u64,
        now: Time,
        look: impl FnOnce() -> bool,
    ) -> bool {
        let touched = self.were_touched(file, offset, length, now);
        if touched && now >= self.doubt_until.get() {
            self.believed.set(self.believed.get().wrapping_add(1));
            if !self.believed.get().is_multiple_of(SAMPLE_EACH) {
                return true;
            }
        }
        let is_resident = look();
        if touched && !is_resident {
            self.doubt_until.set(now + self.doubt.get());
            self.doubt.set(DOUBT_PERIOD_MAX.min(2 * self.doubt.get()));
            // So that they are touched again when they have come back.
            self.forget_touches();
        }
        is_resident
    }

    /// From now on nothing counts as touched.
    fn forget_touches(&self) {
        for (_, window) in self.mapped.borrow_mut().iter_mut() {
            window.touched = Default::default();
        }
    }

    /// Whether all of the `length` bytes from `offset` of `file` are in windows and were touched
    /// lately.
    fn were_touched(&self, file: &OpenFile, offset: u64, length: u64, now: Time) -> bool {
        let Some(owner) = file.windows_so_far() else {
            return false;
        };
        let mapped = self.mapped.borrow();
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let (index, first) = (at / WINDOW_BYTES, at % WINDOW_BYTES);
            let count = (end - at).min(WINDOW_BYTES - first);
            let window = mapped.peek(&(owner.file, index));
            if !window.is_some_and(|window| window.is_touched(first, count, now)) {
                return false;
            }
            at += count;
        }
        true
    }

    /// A file that gets its first window.
    fn new_file(self: &Rc<Self>, bytes: u64) -> FileWindows {
        self.files.set(self.files.get() + 1);
        FileWindows {
            file: self.files.get(),
            count: bytes.div_ceil(WINDOW_BYTES),
            windows: Rc::clone(self),
        }
    }

    /// Maps a window, and unmaps others if there are too many, or more than the system grants.
    fn map(
        &self,
        mapped: &mut LruCache<Key, Window>,
        file: &OpenFile,
        start: u64,
        bytes: u64,
    ) -> io::Result<Window> {
        while self.bytes.get() + bytes > self.bytes_max || mapped.len() >= self.count_max {
            if !self.unmap_oldest(mapped) {
                break;
            }
        }
        match Window::map(file, start, bytes) {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOMEM)
                    && mapped.len() > WINDOWS_MIN
                    && self.unmap_oldest(mapped) =>
            {
                Window::map(file, start, bytes)
            }
            mapped => mapped,
        }
    }

    /// Unmaps the least recently used window, if there is one.
    fn unmap_oldest(&self, mapped: &mut LruCache<Key, Window>) -> bool {
        let oldest = mapped.pop_lru();
        if let Some((_, window)) = &oldest {
            self.bytes.set(self.bytes.get() - window.bytes);
        }
        oldest.is_some()
    }

    /// Unmaps the windows of a file of so many.
    fn forget(&self, file: u64, count: u64) {
        let mut mapped = self.mapped.borrow_mut();
        let gone: Vec<Key> = if count <= mapped.len() as u64 {
            (0..count).map(|index| (file, index)).collect()
        } else {
            let keys = mapped.iter().map(|(key, _)| *key);
            keys.filter(|key| key.0 == file).collect()
        };
        for key in gone {
            if let Some(window) = mapped.pop(&key) {
                self.bytes.set(self.bytes.get() - window.bytes);
            }
        }
    }
}

/// What an open file holds of [`Windows`]: with it go those of the file.
pub(crate) struct FileWindows {
    file: u64,
    /// Of how many windows it consists.
    count: u64,
    windows: Rc<Windows>,
}

impl Drop for FileWindows {
    fn drop(&mut self) {
        self.windows.forget(self.file, self.count);
    }
}

/// A mapped stretch of a file.
struct Window {
    start: NonNull<u8>,
    bytes: u64,
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
        Ok(Window {
            start: NonNull::new(address.cast()).ok_or(io::ErrorKind::OutOfMemory)?,
            bytes,
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

    /// Whether all of the `count` bytes from `first` were touched lately.
    fn is_touched(&self, first: u64, count: u64, now: Time) -> bool {
        let mut units = units(first, count);
        now.since(self.touched_at) < TOUCH_PERIOD
            && units.all(|unit| self.touched[unit / 64] & (1 << (unit % 64)) != 0)
    }

    /// Notes that the `count` bytes from `first` have been touched.
    fn set_touched(&mut self, first: u64, count: u64, now: Time) {
        if now.since(self.touched_at) >= TOUCH_PERIOD {
            self.touched = Default::default();
            self.touched_at = now;
        }
        for unit in units(first, count) {
            self.touched[unit / 64] |= 1 << (unit % 64);
        }
    }

    /// Tells the page cache that the pages of the `count` bytes from `first` are in use, and enters
    /// them into the page tables.
    fn touch(&self, first: u64, count: u64) -> io::Result<()> {
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

/// The units of [`TOUCH_BYTES`] that the `count` bytes from `first` of a window lie in.
fn units(first: u64, count: u64) -> std::ops::RangeInclusive<usize> {
    (first / TOUCH_BYTES) as usize..=((first + count - 1) / TOUCH_BYTES) as usize
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the range is the whole of our own mapping, and runs of it are only for the
        // kernel, which holds the pages that it was given.
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

    /// A file of `length` bytes that are on no disk.
    fn empty_file(length: usize) -> (OpenFile, u64) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length as u64).unwrap();
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
        let windows = Windows::new(0, 1);
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
    fn the_least_recently_used_window_goes() {
        let windows = Windows::new(0, 1);
        let count = (BYTES_MIN / WINDOW_BYTES) as usize;
        let (file, bytes) = empty_file((count + 2) * WINDOW);
        let find = |index: usize| {
            let offset = (index * WINDOW) as u64;
            windows
                .find(&file, bytes, offset, 10, Time::default())
                .unwrap()
        };
        let is_mapped = |index: usize| windows.mapped.borrow().contains(&(1, index as u64));
        (0..count).for_each(|index| {
            find(index);
        });
        assert_eq!(windows.bytes(), BYTES_MIN);
        find(0);
        find(count);
        assert!(is_mapped(0) && !is_mapped(1) && is_mapped(2) && is_mapped(count));
        assert_eq!(windows.bytes(), BYTES_MIN);
        let (other, bytes) = self::file(10);
        windows.find(&other, bytes, 0, 10, Time::default()).unwrap();
        assert_eq!(windows.bytes(), BYTES_MIN - WINDOW_BYTES + 10);
    }

    #[test]
    fn there_are_so_many_windows_and_no_more() {
        let windows = Windows::new(0, WINDOWS_MAX);
        assert_eq!(windows.count_max, WINDOWS_MIN);
        let files: Vec<_> = (0..=WINDOWS_MIN).map(|_| empty_file(1)).collect();
        for (file, bytes) in &files {
            windows.find(file, *bytes, 0, 1, Time::default()).unwrap();
        }
        assert_eq!(windows.bytes(), WINDOWS_MIN as u64);
        assert!(!windows.mapped.borrow().contains(&(1, 0)));
        drop(files);
        assert_eq!(windows.bytes(), 0);
    }

    #[test]
    fn a_file_that_can_not_be_mapped_is_remembered() {
        let windows = Windows::new(0, 1);
        let (reader, _writer) = std::io::pipe().unwrap();
        let file = OpenFile::new(reader.into());
        assert!(!file.is_unmappable());
        assert!(windows.find(&file, 10, 0, 10, Time::default()).is_err());
        assert!(file.is_unmappable());
        // Not for a range that it does not have.
        let (file, bytes) = self::file(10);
        assert!(windows.find(&file, bytes, 10, 1, Time::default()).is_err());
        assert!(!file.is_unmappable());
    }

    /// What the system has of a mapping in the page tables, in bytes.
    fn entered_bytes(run: Run) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let range = format!("{:x}-", run.start.addr());
        let from = maps.find(&range).unwrap();
        let line = maps[from..]
            .lines()
            .find_map(|line| line.strip_prefix("Rss:"));
        let kib = line.unwrap().trim_end_matches("kB").trim();
        1024 * kib.parse::<u64>().unwrap()
    }

    /// Nothing but a touch has looked at the pages.
    #[test]
    fn what_is_found_is_touched() {
        let windows = Windows::new(0, 1);
        let (file, bytes) = file(1 << 20);
        let run = windows.find(&file, bytes, 0, 200_000, Time::default());
        assert!(entered_bytes(run.unwrap()) >= 200_000);
    }

    #[test]
    fn a_files_windows_go_with_it() {
        let windows = Windows::new(0, 1);
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
        let windows = Windows::new(0, 1);
        let (file, bytes) = file(100_000);
        // SAFETY: shortens a file of our own.
        assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), 10) }, 0);
        let found = windows.find(&file, bytes, 50_000, 10, Time::default());
        assert!(found.is_err());
        assert!(!file.is_unmappable());
        // Nor when it shrinks after it was found.
        let (file, bytes) = self::file(100_000);
        let run = windows
            .find(&file, bytes, 50_000, 10, Time::default())
            .unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::ftruncate(file.as_raw_fd(), 10) }, 0);
        assert!(seen(run).is_err());
    }

    #[test]
    fn a_touch_counts_for_its_bytes_and_for_its_time() {
        let (file, bytes) = file(100_000);
        let mut window = Window::map(&file, 0, bytes).unwrap();
        let now = Time::default() + TOUCH_PERIOD;
        assert!(!window.is_touched(0, 1, now));
        window.set_touched(0, 1, now);
        assert!(window.is_touched(TOUCH_BYTES - 1, 1, now));
        assert!(!window.is_touched(TOUCH_BYTES - 1, 2, now));
        window.set_touched(0, 5 * TOUCH_BYTES, now);
        assert!(window.is_touched(0, 5 * TOUCH_BYTES, now));
        assert!(!window.is_touched(0, 5 * TOUCH_BYTES + 1, now));
        assert!(!window.is_touched(0, 1, now + TOUCH_PERIOD));
        window.set_touched(0, 1, now + TOUCH_PERIOD);
        assert!(!window.is_touched(0, TOUCH_BYTES + 1, now + TOUCH_PERIOD));
    }

    /// How often of `times` memory is looked at for the first `length` bytes of `file`, which are
    /// there or not. A look decides; without one they count as being there.
    fn looks(
        windows: &Windows,
        file: &OpenFile,
        length: u64,
        now: Time,
        times: u32,
        there: bool,
    ) -> u32 {
        let mut looks = 0;
        for _ in 0..times {
            let before = looks;
            let resident = windows.are_resident(file, 0, length, now, || {
                looks += 1;
                there
            });
            assert_eq!(resident, there || looks == before);
        }
        looks
    }

    #[test]
    fn what_was_touched_is_looked_for_now_and_then() {
        let windows = Windows::new(0, 1);
        let (file, bytes) = file(WINDOW + 100_000);
        let now = Time::default() + TOUCH_PERIOD;
        let length = bytes - 5000;
        let times = 4 * SAMPLE_EACH;
        assert_eq!(looks(&windows, &file, length, now, times, true), times);
        windows.find(&file, bytes, 0, WINDOW, now).unwrap();
        assert_eq!(looks(&windows, &file, length, now, times, true), times);
        let rest = bytes as usize - WINDOW;
        windows.find(&file, bytes, WINDOW_BYTES, rest, now).unwrap();
        assert_eq!(
            looks(&windows, &file, length, now, times, true),
            times / SAMPLE_EACH
        );
        let later = now + TOUCH_PERIOD;
        assert_eq!(looks(&windows, &file, length, later, times, true), times);
    }

    #[test]
    fn a_touch_that_was_wrong_brings_doubt_for_a_while() {
        let windows = Windows::new(0, 1);
        let (file, bytes) = file(100_000);
        let touch = |now: Time| windows.find(&file, bytes, 0, 100_000, now).unwrap();
        let mut now = Time::default() + TOUCH_PERIOD;
        for doubt in [DOUBT_PERIOD_MIN, 2 * DOUBT_PERIOD_MIN] {
            touch(now);
            // The sample finds that it is gone; from then on it does not even count as touched.
            let looked = looks(&windows, &file, bytes, now, SAMPLE_EACH, false);
            assert_eq!(looked, 1);
            assert!(!windows.were_touched(&file, 0, bytes, now));
            touch(now);
            assert_eq!(looks(&windows, &file, bytes, now, 5, true), 5);
            let just_before = now + (doubt - Duration::from_nanos(1));
            touch(just_before);
            assert_eq!(looks(&windows, &file, bytes, just_before, 5, true), 5);
            now = now + doubt;
            touch(now);
            assert_eq!(looks(&windows, &file, bytes, now, SAMPLE_EACH, true), 1);
        }
    }
}
