//! How much of a load this machine has room for: asked before it begins, because what is missing
//! would otherwise show as failures of the seed.
//!
//! Two things run out with connections: descriptors of this process, and ports of an address that
//! connects to one seed. Memory is not looked at: a leecher takes some KiB.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are no connections: the standard streams, what is read of /proc, logs and
/// handles of programs that were started.
const DESCRIPTORS_KEPT: u64 = 64;

/// The kernel's default of `net.ipv4.ip_local_port_range`, where that cannot be read.
const PORTS_DEFAULT: (u64, u64) = (32_768, 60_999);

/// Open loop: more requests per second than this no load can make, and those that are due and not
/// made would fill its memory.
const REQUESTS_PER_S_MAX: u64 = 4_000_000;

/// What there is.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Files that this process may have open at a time.
    pub descriptors: u64,
    /// Ports that an address has for outgoing connections.
    pub ports: u64,
}

/// What a load needs.
#[derive(Debug, Clone, Copy)]
pub struct Needed {
    /// Connections to the seed.
    pub connections: u64,
    /// Threads; each has an epoll set.
    pub threads: u64,
    /// Different addresses to connect from; at least 1.
    pub addresses: u64,
}

/// Why a load cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// Too few descriptors.
    #[error(
        "{connections} connections need a descriptor each, and this process may open {limit} \
         files: ask for at most {possible}, or raise the limit (ulimit -Hn)"
    )]
    Descriptors {
        /// What was asked for.
        connections: u64,
        /// The hard limit.
        limit: u64,
        /// What could be had.
        possible: u64,
    },
    /// Too few ports.
    #[error(
        "{connections} connections to one seed need a port each, and an address has {ports} of \
         them (net.ipv4.ip_local_port_range): ask for at most {possible}, or connect from at \
         least {addresses} addresses (--local-addresses)"
    )]
    Ports {
        /// What was asked for.
        connections: u64,
        /// Those of one address.
        ports: u64,
        /// What could be had from the addresses that were given.
        possible: u64,
        /// Addresses that would do.
        addresses: u64,
    },
    /// Too little time.
    #[error(
        "that is {requests} requests per second, and a load makes at most {max}: ask for a lower \
         rate, or for longer blocks",
        max = REQUESTS_PER_S_MAX
    )]
    Rate {
        /// What was asked for.
        requests: u64,
    },
}

/// Whether an open loop may ask for `rate_bytes` per second in blocks of `block_bytes`.
pub fn check_rate(rate_bytes: u64, block_bytes: u32) -> Result<(), NoRoom> {
    match rate_bytes / u64::from(block_bytes.max(1)) {
        0..=REQUESTS_PER_S_MAX => Ok(()),
        requests => Err(NoRoom::Rate { requests }),
    }
}

impl Room {
    /// That of this process on this machine.
    pub fn here() -> Self {
        let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        let range = range.ok().and_then(|text| port_range(&text));
        let (first, last) = range.unwrap_or(PORTS_DEFAULT);
        Self {
            descriptors: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            ports: last - first + 1,
        }
    }

    /// Whether a load fits.
    pub fn check(&self, needed: &Needed) -> Result<(), NoRoom> {
        let Needed {
            connections,
            threads,
            addresses,
        } = *needed;
        let kept = threads.saturating_add(DESCRIPTORS_KEPT);
        let possible = self.descriptors.saturating_sub(kept);
        if connections > possible {
            return Err(NoRoom::Descriptors {
                connections,
                limit: self.descriptors,
                possible,
            });
        }
        let possible = self.ports.saturating_mul(addresses);
        if connections > possible {
            return Err(NoRoom::Ports {
                connections,
                ports: self.ports,
                possible,
                addresses: connections.div_ceil(self.ports.max(1)),
            });
        }
        Ok(())
    }
}

/// The two numbers of `ip_local_port_range`, if they are a range.
fn port_range(text: &str) -> Option<(u64, u64)> {
    let mut words = text.split_whitespace().map(str::parse);
    let (first, last) = (words.next()?.ok()?, words.next()?.ok()?);
    (first <= last).then_some((first, last))
}

/// Lets this process open as many files as [`Room::check`] counts on; the soft limit is often
/// 1,024.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be had shows when connecting.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(connections: u64, addresses: u64) -> Needed {
        Needed {
            connections,
            threads: 2,
            addresses,
        }
    }

    #[test]
    fn what_is_asked_for_must_fit_into_descriptors_and_ports() {
        let room = Room {
            descriptors: 1_066,
            ports: 300,
        };
        assert_eq!(room.check(&needed(300, 1)), Ok(()));
        let too_few = NoRoom::Ports {
            connections: 301,
            ports: 300,
            possible: 300,
            addresses: 2,
        };
        assert_eq!(room.check(&needed(301, 1)), Err(too_few));
        assert_eq!(room.check(&needed(1_000, 4)), Ok(()));
        let too_few = NoRoom::Descriptors {
            connections: 1_001,
            limit: 1_066,
            possible: 1_000,
        };
        assert_eq!(room.check(&needed(1_001, 4)), Err(too_few));
        let none = Room {
            descriptors: 10,
            ports: 0,
        };
        assert!(none.check(&needed(1, 1)).is_err());
        assert!(none.check(&needed(u64::MAX, u64::MAX)).is_err());
    }

    #[test]
    fn a_rate_is_no_more_than_a_load_can_ask_for() {
        assert_eq!(check_rate(0, 1 << 14), Ok(()));
        assert_eq!(check_rate(4_000_000 << 14, 1 << 14), Ok(()));
        let requests = 4_000_001;
        let too_many = Err(NoRoom::Rate { requests });
        assert_eq!(check_rate(requests << 14, 1 << 14), too_many);
        assert_eq!(check_rate(requests, 1), too_many);
    }

    #[test]
    fn ranges_are_read() {
        assert_eq!(port_range("32768\t60999\n"), Some((32_768, 60_999)));
        for wrong in ["", "1", "2 1", "a b", "-1 5"] {
            assert_eq!(port_range(wrong), None, "{wrong}");
        }
        let room = Room::here();
        assert!(room.descriptors > 0 && room.ports > 0);
    }
}
