//! Addresses to keep away, as sorted ranges that are looked up by halving.
//!
//! Limits: [`RANGES_V4_MAX`] and [`RANGES_V6_MAX`] ranges before those that touch are joined; 8 bytes
//! for each of IPv4 and 32 of IPv6, [`MEMORY_BYTES_MAX`] in all. A look-up is O(log n), and nothing is
//! allocated for it.

use std::net::IpAddr;

use proto::ip_filter::IpRange;

/// Ranges of IPv4 in all lists together, which take 16 MiB: several times those of the largest lists
/// in use.
pub const RANGES_V4_MAX: usize = 2 << 20;

/// Ranges of IPv6 in all lists together, which take 16 MiB.
pub const RANGES_V6_MAX: usize = 512 << 10;

/// The bytes of a filter that has as many ranges as may be.
const FILTER_BYTES_MAX: usize =
    RANGES_V4_MAX * size_of::<(u32, u32)>() + RANGES_V6_MAX * size_of::<(u128, u128)>();

/// Memory of the filter at most, in bytes: the one in use, the next one while the lists are read
/// again, and for a moment one half of that once more, while it grows or what it has too much is cut
/// off.
pub const MEMORY_BYTES_MAX: usize = 2 * FILTER_BYTES_MAX + FILTER_BYTES_MAX / 2;

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
        match range {
            IpRange::V4(first, last) if self.v4.len() < RANGES_V4_MAX => {
                self.v4.push((first.to_bits(), last.to_bits()));
            }
            IpRange::V6(first, last) if self.v6.len() < RANGES_V6_MAX => {
                self.v6.push((first.to_bits(), last.to_bits()));
            }
            IpRange::V4(..) | IpRange::V6(..) => return false,
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

/// Sorts ranges and joins those that overlap or touch, in their place: a second copy would be the most
/// memory that a filter ever takes. `after` is the address after one that is not `max`.
fn joined<A: Copy + Ord>(mut ranges: Vec<(A, A)>, max: A, after: impl Fn(A) -> A) -> Box<[(A, A)]> {
    ranges.sort_unstable();
    ranges.dedup_by(|(first, last), (_, end)| {
        let is_one = *end == max || *first <= after(*end);
        if is_one {
            *end = (*last).max(*end);
        }
        is_one
    });
    ranges.into()
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

    #[test]
    fn there_is_a_limit_for_each_family() {
        let mut builder = IpFilterBuilder::default();
        for at in 0..RANGES_V4_MAX as u32 {
            assert!(builder.add(v4(2 * at, 2 * at)));
        }
        assert!(!builder.add(v4(7, 7)));
        for at in 0..RANGES_V6_MAX as u128 {
            assert!(builder.add(v6(2 * at, 2 * at)));
        }
        assert!(!builder.add(v6(7, 7)));
        let bytes = builder.v4.capacity() * 8 + builder.v6.capacity() * 32;
        assert_eq!(
            bytes, FILTER_BYTES_MAX,
            "what is reserved is what is counted"
        );
        assert_eq!(builder.build().ranges(), RANGES_V4_MAX + RANGES_V6_MAX);
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
