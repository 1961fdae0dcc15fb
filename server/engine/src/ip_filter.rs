//! Addresses to keep away, as sorted ranges that are looked up by halving.
//!
//! Limits: [`RANGES_MAX`] ranges before those that touch are joined; 8 bytes for each of IPv4 and
//! 32 of IPv6. A look-up is O(log n), and nothing is allocated for it.

use std::net::IpAddr;

use proto::ip_filter::IpRange;

/// Ranges of all lists together: more than the largest lists in use have, and at most 64 MiB of
/// IPv4.
pub const RANGES_MAX: usize = 8 << 20;

/// Collects ranges in any order.
#[derive(Debug, Default)]
pub struct IpFilterBuilder {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl IpFilterBuilder {
    /// Adds a range. False if there are too many.
    #[must_use]
    pub fn add(&mut self, range: IpRange) -> bool {
        if self.v4.len() + self.v6.len() >= RANGES_MAX {
            return false;
        }
        match range {
            IpRange::V4(first, last) => self.v4.push((first.to_bits(), last.to_bits())),
            IpRange::V6(first, last) => self.v6.push((first.to_bits(), last.to_bits())),
        }
        true
    }

    /// The filter of these ranges.
    pub fn build(self) -> IpFilter {
        IpFilter {
            v4: joined(self.v4, u32::MAX, |last| last + 1),
            v6: joined(self.v6, u128::MAX, |last| last + 1),
        }
    }
}

/// See the module. By default it keeps nobody away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IpFilter {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl IpFilter {
    /// Whether `address` is to be kept away.
    pub fn blocks(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(ip) => has(&self.v4, ip.to_bits()),
            IpAddr::V6(ip) => has(&self.v6, ip.to_bits()),
        }
    }

    /// How many ranges there are.
    pub fn ranges(&self) -> usize {
        self.v4.len() + self.v6.len()
    }
}

/// Sorts ranges and joins those that overlap or touch. `after` is the address after one that is not
/// `max`.
fn joined<A: Copy + Ord>(mut ranges: Vec<(A, A)>, max: A, after: impl Fn(A) -> A) -> Box<[(A, A)]> {
    ranges.sort_unstable();
    let mut joined: Vec<(A, A)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, end)) if *end == max || first <= after(*end) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    joined.into()
}

fn has<A: Copy + Ord>(ranges: &[(A, A)], address: A) -> bool {
    let behind = ranges.partition_point(|&(first, _)| first <= address);
    let range = behind.checked_sub(1).and_then(|at| ranges.get(at));
    range.is_some_and(|&(_, last)| address <= last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn filter(ranges: impl IntoIterator<Item = IpRange>) -> IpFilter {
        let mut builder = IpFilterBuilder::default();
        for range in ranges {
            assert!(builder.add(range));
        }
        builder.build()
    }

    fn v4(first: u32, last: u32) -> IpRange {
        IpRange::V4(first.into(), last.into())
    }

    fn v6(first: u128, last: u128) -> IpRange {
        IpRange::V6(first.into(), last.into())
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let one = filter([v4(5, 9), v4(1, 4), v4(20, 30), v4(25, 26), v4(11, 12)]);
        assert_eq!(one.ranges(), 3);
        let blocked: Vec<u32> = (0..40)
            .filter(|&ip| one.blocks(Ipv4Addr::from(ip).into()))
            .collect();
        let due: Vec<u32> = (1..=9).chain(11..=12).chain(20..=30).collect();
        assert_eq!(blocked, due);
    }

    #[test]
    fn the_ends_of_the_address_space_are_addresses() {
        let all = filter([v4(0, u32::MAX), v4(7, u32::MAX), v6(u128::MAX, u128::MAX)]);
        assert_eq!(all.ranges(), 2);
        assert!(all.blocks([0, 0, 0, 0].into()) && all.blocks([255; 4].into()));
        assert!(all.blocks(Ipv6Addr::from([0xff; 16]).into()));
        assert!(!all.blocks(Ipv6Addr::LOCALHOST.into()));
        assert!(
            all.blocks("::ffff:1.2.3.4".parse().unwrap()),
            "IPv4 in IPv6 clothes"
        );
        assert!(!IpFilter::default().blocks([1, 2, 3, 4].into()));
    }

    proptest! {
        #[test]
        fn it_blocks_what_a_look_at_each_range_would(
            ranges in vec((0..200_u32, 0..30_u32, any::<bool>()), 0..40),
        ) {
            let ranges: Vec<IpRange> = ranges.into_iter().map(|(first, length, is_v6)| match is_v6 {
                true => v6(first.into(), (first + length).into()),
                false => v4(first, first + length),
            }).collect();
            let filter = filter(ranges.iter().copied());
            for ip in 0..250_u32 {
                for ip in [IpAddr::from(Ipv4Addr::from(ip)), Ipv6Addr::from(u128::from(ip)).into()] {
                    let due = ranges.iter().any(|range| range.contains(ip));
                    prop_assert_eq!(filter.blocks(ip), due, "{}", ip);
                }
            }
        }
    }
}
