//! One aligned mapping, cut into slots of one size: the memory of the chunk cache.
//!
//! Reads past the page cache (`O_DIRECT`) want memory at page boundaries. The mapping is anonymous,
//! so a slot costs memory from its first use on; it asks for huge pages, because a read has to find
//! the physical page behind every page of its target.
//!
//! Limits: the slots are counted out at the start, and nothing grows. Which slot is whose to write
//! is not known here.

use std::io;
use std::ptr::{self, NonNull};

/// The alignment of every slot, in bytes.
pub(crate) const ALIGNMENT: usize = 4096;

/// The size of a huge page on the machines that have them of use here.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Slots of memory, see the module. Freed when it is dropped: whoever reads into a slot keeps it
/// alive.
pub(crate) struct AlignedMemory {
    mapping: NonNull<u8>,
    mapped_bytes: usize,
    /// The first slot, on the first huge page boundary of the mapping.
    start: NonNull<u8>,
    slots: usize,
    slot_bytes: usize,
}

impl AlignedMemory {
    /// Maps `slots` slots of `slot_bytes` each, which must be a multiple of [`ALIGNMENT`].
    ///
    /// # Errors
    ///
    /// The kernel's refusal, as with a limit on address space.
    pub(crate) fn new(slots: usize, slot_bytes: usize) -> io::Result<AlignedMemory> {
        assert!(slot_bytes.is_multiple_of(ALIGNMENT) && slot_bytes > 0);
        let too_much = || io::Error::from_raw_os_error(libc::ENOMEM);
        let used = slots.checked_mul(slot_bytes).ok_or_else(too_much)?;
        let mapped_bytes = used.checked_add(HUGE_PAGE_BYTES).ok_or_else(too_much)?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that
        // exists.
        let mapping = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mapped_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast::<u8>()).ok_or_else(too_much)?;
        let skip = mapping.as_ptr().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: less than a huge page from the start, and the mapping is one longer than what is
        // used.
        let start = unsafe { mapping.add(skip) };
        // A kernel without huge pages refuses, and ordinary ones do.
        // SAFETY: the range lies in the mapping that was just made.
        unsafe { libc::madvise(start.as_ptr().cast(), used, libc::MADV_HUGEPAGE) };
        Ok(AlignedMemory {
            mapping,
            mapped_bytes,
            start,
            slots,
            slot_bytes,
        })
    }

    /// How many bytes a slot has.
    pub(crate) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// Where slot number `slot` starts. It is valid for as long as this memory, for `slot_bytes`.
    pub(crate) fn slot(&self, slot: usize) -> NonNull<u8> {
        assert!(slot < self.slots, "a slot of this memory");
        // SAFETY: inside the mapping, checked above.
        unsafe { self.start.add(slot * self.slot_bytes) }
    }
}

impl Drop for AlignedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours alone, made by `new` with this length, and nobody has a slot
        // any more: reads and sends keep this memory alive until they have ended.
        unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped_bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_aligned_and_do_not_overlap() {
        let memory = AlignedMemory::new(9, 3 * ALIGNMENT).unwrap();
        for slot in 0..9 {
            let start = memory.slot(slot).as_ptr();
            assert_eq!(start.align_offset(ALIGNMENT), 0);
            // SAFETY: the slot is ours and so long.
            unsafe { start.write_bytes(slot as u8 + 1, memory.slot_bytes()) };
        }
        assert_eq!(memory.slot(0).as_ptr().align_offset(HUGE_PAGE_BYTES), 0);
        for slot in 0..9 {
            let start = memory.slot(slot).as_ptr();
            // SAFETY: as above, and written.
            let bytes = unsafe { std::slice::from_raw_parts(start, memory.slot_bytes()) };
            assert!(bytes.iter().all(|&byte| byte == slot as u8 + 1));
        }
    }

    #[test]
    fn more_than_there_is_address_space_is_refused() {
        assert!(AlignedMemory::new(usize::MAX / 8192, 8192).is_err());
    }
}
