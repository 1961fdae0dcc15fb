//! What one send carries: control messages, then a batch of blocks, each its 13-byte header and its
//! bytes of the payload, which lie in a buffer or in chunks of the cache. One `sendmsg` gathers
//! them; a partial send continues where it stopped.
//!
//! One `Outgoing` belongs to one connection and is used again for every send: no allocation per
//! block.

use crate::direct;
use crate::payload::Payload;
use engine::queue::BATCH_BLOCKS_MAX;
use proto::wire::PIECE_HEADER_BYTES;
use std::ptr;

/// Control bytes, then a header and a payload slice per block; one slice more where a block lies in
/// two runs.
const PARTS_MAX: usize = 1 + 2 * BATCH_BLOCKS_MAX + (direct::PARTS_MAX - 1);

/// A gathered message on its way to one socket.
pub struct Outgoing {
    control: Vec<u8>,
    headers: [[u8; PIECE_HEADER_BYTES]; BATCH_BLOCKS_MAX],
    /// The payload length of each block, in bytes.
    lengths: [u32; BATCH_BLOCKS_MAX],
    blocks: usize,
    payload: Option<Payload>,
    /// Bytes of the whole message, and how many of them the socket has taken.
    total: usize,
    sent: usize,
    parts: [libc::iovec; PARTS_MAX],
    message: libc::msghdr,
}

impl Outgoing {
    /// An empty message.
    pub fn new() -> Box<Outgoing> {
        let empty = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Box::new(Outgoing {
            control: Vec::new(),
            headers: [[0; PIECE_HEADER_BYTES]; BATCH_BLOCKS_MAX],
            lengths: [0; BATCH_BLOCKS_MAX],
            blocks: 0,
            payload: None,
            total: 0,
            sent: 0,
            parts: [empty; PARTS_MAX],
            // SAFETY: a `msghdr` of zeros is valid: null pointers with zero lengths.
            message: unsafe { std::mem::zeroed() },
        })
    }

    /// The buffer of control bytes, to be filled before the blocks are added.
    pub fn control_mut(&mut self) -> &mut Vec<u8> {
        &mut self.control
    }

    /// Adds a block of `length` payload bytes. False when there is room for no more.
    pub fn push_block(&mut self, header: [u8; PIECE_HEADER_BYTES], length: u32) -> bool {
        if self.blocks == BATCH_BLOCKS_MAX {
            return false;
        }
        self.headers[self.blocks] = header;
        self.lengths[self.blocks] = length;
        self.blocks += 1;
        true
    }

    /// Closes the message: `payload` holds the blocks' bytes one after another.
    pub fn seal(&mut self, payload: Option<Payload>) {
        let payload_bytes: usize = self.lengths[..self.blocks]
            .iter()
            .map(|&l| l as usize)
            .sum();
        assert_eq!(
            payload_bytes,
            payload
                .iter()
                .flat_map(Payload::runs)
                .map(<[u8]>::len)
                .sum()
        );
        self.payload = payload;
        self.total = self.control.len() + self.blocks * PIECE_HEADER_BYTES + payload_bytes;
        self.sent = 0;
    }

    /// Notes that the socket has taken `count` bytes more. True when that was all.
    pub fn advance(&mut self, count: usize) -> bool {
        self.sent = (self.sent + count).min(self.total);
        self.sent == self.total
    }

    /// Forgets what was sent, keeps the allocations of ordinary size.
    pub fn clear(&mut self) {
        /// Control bytes kept allocated between sends; a bitfield may have needed more.
        const CONTROL_BYTES_KEPT: usize = 1024;
        self.control.clear();
        self.control.shrink_to(CONTROL_BYTES_KEPT);
        self.payload = None;
        self.blocks = 0;
        self.total = 0;
        self.sent = 0;
    }

    /// Points the message at what is left to send. The pointers hold until `self` is next changed.
    pub(crate) fn prepare(&mut self) -> *const libc::msghdr {
        let mut gathered = Gathered {
            parts: &mut self.parts,
            count: 0,
            skip: self.sent,
        };
        gathered.add(&self.control);
        let mut runs = self.payload.iter().flat_map(Payload::runs);
        let mut run: &[u8] = &[];
        for (header, &length) in self.headers.iter().zip(&self.lengths).take(self.blocks) {
            gathered.add(header);
            let mut missing = length as usize;
            while missing > 0 {
                if run.is_empty() {
                    run = runs.next().expect("`seal` has counted the payload");
                }
                let (bytes, rest) = run.split_at(missing.min(run.len()));
                gathered.add(bytes);
                missing -= bytes.len();
                run = rest;
            }
        }
        self.message.msg_iovlen = gathered.count;
        self.message.msg_iov = self.parts.as_mut_ptr();
        &raw const self.message
    }
}

/// The parts of a message, from the first byte that is to be sent.
struct Gathered<'a> {
    parts: &'a mut [libc::iovec; PARTS_MAX],
    count: usize,
    /// Bytes that have been sent before.
    skip: usize,
}

impl Gathered<'_> {
    /// Adds what of `part` has not been sent.
    fn add(&mut self, part: &[u8]) {
        let skipped = self.skip.min(part.len());
        self.skip -= skipped;
        let rest = &part[skipped..];
        if !rest.is_empty() {
            self.parts[self.count] = libc::iovec {
                iov_base: rest.as_ptr() as *mut _,
                iov_len: rest.len(),
            };
            self.count += 1;
        }
    }
}

#[cfg(test)]
impl Outgoing {
    /// What the kernel would read from the prepared message.
    pub(crate) fn gathered(&mut self) -> Vec<u8> {
        self.prepare();
        let mut bytes = Vec::new();
        for part in &self.parts[..self.message.msg_iovlen] {
            // SAFETY: `prepare` has just pointed the part at live memory of this message.
            bytes.extend_from_slice(unsafe {
                std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len)
            });
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_a_partial_send_at_every_byte() {
        tokio_uring::start(async {
            let pool = crate::buffers::BufferPool::new(1, 64, Default::default()).unwrap();
            let mut outgoing = Outgoing::new();
            for split in 0..=(5 + 2 * 13 + 30) {
                outgoing.clear();
                outgoing.control_mut().extend_from_slice(b"abcde");
                assert!(outgoing.push_block([1; 13], 10));
                assert!(outgoing.push_block([2; 13], 20));
                let mut payload = pool.try_take().unwrap();
                assert!(payload.fill_zero(30));
                outgoing.seal(Some(Payload::Buffer(payload)));
                let whole = outgoing.gathered();
                assert_eq!(whole.len(), 5 + 2 * 13 + 30);
                assert_eq!(outgoing.advance(split), split == whole.len());
                assert_eq!(outgoing.gathered(), whole[split..]);
            }
        });
    }
}
