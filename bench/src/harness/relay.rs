//! A long link between programs on one machine: connections pass through here, and what they carry
//! comes as late and as slowly as over a line of a given round trip and rate. Kernels without
//! `netem` have no other.
//!
//! Each direction is a line of its own, which all connections share: bytes take their turn on it at
//! its rate, and arrive half a round trip later. TCP sees the two short ends alone, so what is
//! tested is whether a client keeps enough requests on the way, not the kernel's congestion
//! control.
//!
//! Limits: [`CONNECTIONS_MAX`], and as many bytes on the way as the line holds, of which there are
//! at most [`ON_THE_WAY_BYTES_MAX`].

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::harness::usage::Usage;

/// Connections at a time; more are closed.
const CONNECTIONS_MAX: usize = 256;

/// How long what waits before the line may occupy it: more than a sleep is longer than asked for.
const AHEAD: Duration = Duration::from_millis(5);

/// What is passed on at a time, in bytes.
const PACKET_BYTES: usize = 16 << 10;

/// What a line may hold in each direction: it is in memory here.
const ON_THE_WAY_BYTES_MAX: f64 = (1 << 30) as f64;

/// A line.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// From one end to the other and back.
    pub round_trip: Duration,
    /// Of each direction, in bytes per second.
    pub rate: u64,
}

impl Link {
    /// How long so many bytes occupy the line.
    fn time_of(self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate as f64)
    }

    /// Whether what is on the way fits into memory.
    pub fn check(self) -> Result<(), Usage> {
        if self.on_the_way_bytes() <= ON_THE_WAY_BYTES_MAX {
            return Ok(());
        }
        Err(Usage(format!(
            "--round-trip {} --link-rate {}: such a line holds {:.0} GiB, which would be in \
             memory here, and 1 GiB at most: ask for a shorter or a slower one",
            self.round_trip.as_millis(),
            self.rate,
            self.on_the_way_bytes() / ON_THE_WAY_BYTES_MAX
        )))
    }

    /// What is on the way in one direction at most.
    fn on_the_way_bytes(self) -> f64 {
        self.rate as f64 * (self.round_trip / 2 + AHEAD).as_secs_f64()
    }

    /// How many packets that is.
    fn packets(self) -> usize {
        // One more is about to leave, and packets of less than a read's length are there too.
        2 + 2 * (self.on_the_way_bytes() / PACKET_BYTES as f64).ceil() as usize
    }
}

/// One direction: when what is on the line now has left.
type Line = Arc<Mutex<Instant>>;

struct Packet {
    bytes: Vec<u8>,
    arrives: Instant,
}

/// A relay that ends with the program.
#[derive(Debug)]
pub struct Relay;

impl Relay {
    /// Passes connections to `listener` on to `target`.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn start(listener: TcpListener, target: SocketAddr, link: Link) -> anyhow::Result<Relay> {
        let lines: [Line; 2] = std::array::from_fn(|_| Arc::new(Mutex::new(Instant::now())));
        let open = Arc::new(AtomicUsize::new(0));
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let Ok(onward) = TcpStream::connect(target) else {
                    continue;
                };
                if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
                    open.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let _ = (stream.set_nodelay(true), onward.set_nodelay(true));
                let (lines, open) = (lines.clone(), Arc::clone(&open));
                thread::spawn(move || {
                    let [there, back] = lines;
                    let ends = (stream.try_clone(), onward.try_clone());
                    if let (Ok(stream_too), Ok(onward_too)) = ends {
                        let back = thread::spawn(move || pass(onward_too, stream_too, &back, link));
                        pass(stream, onward, &there, link);
                        let _ = back.join();
                    }
                    open.fetch_sub(1, Ordering::Relaxed);
                });
            }
        };
        let thread = thread::Builder::new().name("relay".to_owned());
        thread.spawn(accept).context("cannot start the relay")?;
        Ok(Relay)
    }
}

/// Passes bytes on until one side has ended.
fn pass(mut from: TcpStream, to: TcpStream, line: &Line, link: Link) {
    let (packets, arriving) = sync_channel(link.packets());
    let writer = thread::spawn(move || arrive(&arriving, to));
    leave(&mut from, &packets, line, link);
    drop(packets);
    let _ = writer.join();
}

/// Puts what comes on the line.
fn leave(from: &mut TcpStream, packets: &SyncSender<Packet>, line: &Line, link: Link) {
    loop {
        let mut bytes = vec![0; PACKET_BYTES];
        let count = match from.read(&mut bytes) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        bytes.truncate(count);
        let left = {
            let mut free_at = line.lock().unwrap_or_else(PoisonError::into_inner);
            *free_at = (*free_at).max(Instant::now()) + link.time_of(count);
            *free_at
        };
        let arrives = left + link.round_trip / 2;
        if packets.send(Packet { bytes, arrives }).is_err() {
            return;
        }
        // Until it has nearly left: the socket's buffer holds what waits for the line, which never
        // stands idle for that.
        thread::sleep(left.saturating_duration_since(Instant::now() + AHEAD));
    }
}

/// Delivers what was on the line when it arrives.
fn arrive(packets: &Receiver<Packet>, mut to: TcpStream) {
    for packet in packets {
        thread::sleep(packet.arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&packet.bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_line_that_memory_cannot_hold_is_refused() {
        let line = |ms, rate| Link {
            round_trip: Duration::from_millis(ms),
            rate,
        };
        line(100, 62_500_000).check().unwrap();
        line(1_990, 1 << 30).check().unwrap();
        let said = line(10_000, 1 << 30).check().unwrap_err().to_string();
        assert!(
            said.contains("--link-rate 1073741824: such a line holds 5 GiB"),
            "{said}"
        );
        assert!(line(0, u64::MAX).check().is_err());
    }

    #[test]
    fn what_is_sent_arrives_as_late_as_the_line_makes_it() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = server.local_addr().unwrap();
        let echo = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).unwrap();
            stream.write_all(&heard).unwrap();
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let link = Link {
            round_trip: Duration::from_millis(100),
            rate: 10_000_000,
        };
        Relay::start(listener, target, link).unwrap();
        let started = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut heard = Vec::new();
        thread::scope(|scope| {
            let mut writer = stream.try_clone().unwrap();
            let sent = &sent;
            scope.spawn(move || {
                writer.write_all(sent).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            stream.read_to_end(&mut heard).unwrap();
        });
        assert!(heard == sent, "every byte, in order");
        // There and back, a tenth of a second on the line each way.
        assert!(started.elapsed() >= Duration::from_millis(300));
        echo.join().unwrap();
    }
}
