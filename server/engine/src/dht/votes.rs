//! Our address as others see it (BEP 42): what most of those say that we have asked.
//!
//! Limits: the last [`VOTES_MAX`] votes, one of each site. Only those count that answer what we
//! asked, so nobody votes unasked. An address inside a network is no news to anybody outside, and
//! is not voted for.

use super::site::Site;
use proto::address::is_global;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

/// Votes that are kept; the oldest goes.
const VOTES_MAX: usize = 24;
/// Votes without which nothing is decided.
const VOTES_MIN: usize = 6;

#[derive(Default)]
pub(super) struct Votes {
    votes: VecDeque<(Site, IpAddr)>,
}

impl Votes {
    /// Takes a vote, and answers whom two thirds are for, if they are.
    pub(super) fn vote(&mut self, voter: Site, seen: IpAddr) -> Option<IpAddr> {
        let seen = seen.to_canonical();
        if !is_global(seen) {
            return None;
        }
        self.votes.retain(|(earlier, _)| *earlier != voter);
        if self.votes.len() == VOTES_MAX {
            self.votes.pop_front();
        }
        self.votes.push_back((voter, network(seen)));
        let for_this = |ip: IpAddr| self.votes.iter().filter(|(_, vote)| *vote == ip).count();
        let won = for_this(network(seen));
        let all = self.votes.len();
        (all >= VOTES_MIN && won * 3 > all * 2).then_some(seen)
    }

    pub(super) fn clear(&mut self) {
        self.votes.clear();
    }
}

/// What of an address ids are bound to.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn voter(number: u8) -> Site {
        Site::of(SocketAddr::from(([9, 9, 9, number], 1)))
    }

    #[test]
    fn two_thirds_of_enough_decide() {
        let mut votes = Votes::default();
        let (us, lie): (IpAddr, IpAddr) = ("8.8.4.4".parse().unwrap(), "8.8.8.8".parse().unwrap());
        for number in 0..5 {
            assert_eq!(votes.vote(voter(number), us), None);
        }
        assert_eq!(votes.vote(voter(5), us), Some(us));
        // Eight of 24 lie: not outvoted, and nothing of theirs comes of it.
        for number in 6..16 {
            assert_eq!(votes.vote(voter(number), us), Some(us));
        }
        for number in 16..24 {
            assert_eq!(votes.vote(voter(number), lie), None);
        }
        // One voter counts once, however often it votes.
        for _ in 0..100 {
            assert_eq!(votes.vote(voter(0), lie), None);
        }
    }

    #[test]
    fn an_address_inside_a_network_is_not_voted_for() {
        let mut votes = Votes::default();
        for number in 0..24 {
            assert_eq!(
                votes.vote(voter(number), "192.168.0.7".parse().unwrap()),
                None
            );
        }
    }
}
