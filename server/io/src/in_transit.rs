//! The files whose pages are on their way to one peer: in a pipe, in the socket, or sent and not
//! acknowledged.
//!
//! They stay open until then, and with them their leases, which keep writers away from those pages
//! ([`crate::leases`]). A peer on this very machine, in a container perhaps, is handed the pages
//! themselves and reads them some time after its kernel has acknowledged them; for peers that may
//! be such ones they count as on their way for [`LINGER`] more.
//!
//! Limits: [`FILES_MAX`] files; beyond that a batch goes through a buffer.

use crate::files::OpenFile;
use crate::sockets::unacknowledged;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Files of one peer at a time.
const FILES_MAX: usize = 4;

/// How long a program on this machine may leave what it has received unread. Nothing tells when it
/// has read it; one that takes longer while its file is written to finds wrong bytes, which its
/// hash check shows.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// What one peer has not acknowledged.
pub(crate) struct InTransit {
    /// Bytes that the socket was given since the start.
    given_bytes: u64,
    /// Whether the peer may be on this machine.
    is_near: bool,
    files: VecDeque<Sent>,
}

/// A file whose pages are on their way.
struct Sent {
    file: Rc<OpenFile>,
    /// How many bytes the socket will have been given when it has the last page.
    until: u64,
    /// When that page was found to be acknowledged.
    arrived_at: Option<Instant>,
}

/// Files whose pages have arrived at peers that are gone, and since when: somebody nearby may not
/// have read them.
pub(crate) type Lingering = RefCell<Vec<(Rc<OpenFile>, Instant)>>;

impl InTransit {
    /// Of a peer at an address of this machine or site (`is_near`), or anywhere else.
    pub(crate) fn new(is_near: bool) -> InTransit {
        InTransit {
            given_bytes: 0,
            is_near,
            files: VecDeque::new(),
        }
    }

    /// Notes that the socket was given `bytes` more.
    pub(crate) fn given(&mut self, bytes: usize) {
        self.given_bytes += bytes as u64;
    }

    /// Notes that the next `bytes` for the socket hold pages of `file`. False if there are too many
    /// files, and the pages are not to be sent.
    pub(crate) fn add(&mut self, socket: &impl AsRawFd, file: &Rc<OpenFile>, bytes: usize) -> bool {
        let until = self.given_bytes + bytes as u64;
        if let Some(sent) = self
            .files
            .iter_mut()
            .find(|one| Rc::ptr_eq(&one.file, file))
        {
            (sent.until, sent.arrived_at) = (until, None);
            return true;
        }
        if self.files.len() == FILES_MAX {
            self.forget_arrived(socket);
        }
        if self.files.len() == FILES_MAX {
            return false;
        }
        let file = Rc::clone(file);
        let arrived_at = None;
        self.files.push_back(Sent {
            file,
            until,
            arrived_at,
        });
        true
    }

    /// Notes that what was to be given next has been thrown away: what is on its way ends here.
    pub(crate) fn cut(&mut self) {
        for sent in &mut self.files {
            sent.until = self.given_bytes.min(sent.until);
        }
    }

    /// Whether pages of `file` may still be on their way.
    pub(crate) fn holds(&mut self, socket: &impl AsRawFd, file: &Rc<OpenFile>) -> bool {
        self.forget_arrived(socket);
        self.files.iter().any(|sent| Rc::ptr_eq(&sent.file, file))
    }

    /// Whether pages of `file` wait for the peer to acknowledge them.
    pub(crate) fn awaits(&self, socket: &impl AsRawFd, file: &Rc<OpenFile>) -> bool {
        let arrived = self.given_bytes.saturating_sub(unacknowledged(socket));
        let mut sent = self.files.iter();
        sent.any(|sent| Rc::ptr_eq(&sent.file, file) && sent.until > arrived)
    }

    /// Whether pages of any file do.
    pub(crate) fn awaits_any(&mut self, socket: &impl AsRawFd) -> bool {
        self.forget_arrived(socket);
        self.files.iter().any(|sent| sent.arrived_at.is_none())
    }

    /// Forgets the files whose last page has arrived.
    pub(crate) fn forget_arrived(&mut self, socket: &impl AsRawFd) {
        if self.files.is_empty() {
            return;
        }
        let arrived = self.given_bytes.saturating_sub(unacknowledged(socket));
        let (is_near, now) = (self.is_near, Instant::now());
        self.files.retain_mut(|sent| {
            if sent.until > arrived {
                return true;
            }
            let since = *sent.arrived_at.get_or_insert(now);
            is_near && now.duration_since(since) < LINGER
        });
    }

    /// Leaves what has arrived, or was dropped with its socket, to `lingering` when the peer is
    /// gone.
    pub(crate) fn hand_over(&mut self, lingering: &Lingering) {
        let now = Instant::now();
        let mut lingering = lingering.borrow_mut();
        lingering.retain(|(_, since)| now.duration_since(*since) < LINGER);
        if self.is_near {
            lingering.extend(self.files.drain(..).map(|sent| (sent.file, now)));
        }
        self.files.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn file() -> Rc<OpenFile> {
        Rc::new(OpenFile::new(tempfile::tempfile().unwrap().into()))
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, theirs)
    }

    fn until(mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_file_is_held_until_its_last_page_is_acknowledged() {
        let (mut ours, mut theirs) = pair();
        let (one, other) = (file(), file());
        let mut transit = InTransit::new(false);
        assert!(transit.add(&ours, &one, 100));
        // In the pipe only: nothing was given to the socket.
        assert!(transit.holds(&ours, &one));
        ours.write_all(&[0; 100]).unwrap();
        transit.given(100);
        theirs.read_exact(&mut [0; 100]).unwrap();
        until(|| !transit.holds(&ours, &one));
        assert!(transit.add(&ours, &other, 50));
        assert!(transit.holds(&ours, &other) && !transit.holds(&ours, &one));
        // Thrown away before the socket had it.
        transit.cut();
        assert!(!transit.holds(&ours, &other));
    }

    #[test]
    fn no_more_than_so_many_files() {
        let (ours, _theirs) = pair();
        let mut transit = InTransit::new(false);
        for _ in 0..FILES_MAX {
            assert!(transit.add(&ours, &file(), 10));
        }
        assert!(!transit.add(&ours, &file(), 10));
        transit.cut();
        assert!(transit.add(&ours, &file(), 10));
    }

    #[test]
    fn a_peer_nearby_may_read_what_it_has_acknowledged_later() {
        let (mut ours, mut theirs) = pair();
        let one = file();
        let mut transit = InTransit::new(true);
        assert!(transit.add(&ours, &one, 100));
        ours.write_all(&[0; 100]).unwrap();
        transit.given(100);
        theirs.read_exact(&mut [0; 100]).unwrap();
        until(|| !transit.awaits(&ours, &one));
        let acknowledged = Instant::now();
        until(|| !transit.holds(&ours, &one));
        assert!(acknowledged.elapsed() >= LINGER);
    }
}
