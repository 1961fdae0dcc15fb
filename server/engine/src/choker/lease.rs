//! A global number of upload slots, divided over shards.

use std::cmp::Reverse;

/// Divides `total` slots over shards by `demand` (their interested peers). The parts add up to
/// `total`.
///
/// While there are slots enough, each shard gets what it asks for, and the rest is spread evenly,
/// so that a new peer finds a free slot wherever it connects. When there are too few, they are
/// divided in proportion by largest remainders, ties to the lower index; then each shard that asks
/// and would get none takes one from whoever has most (if there are that many slots), so that no
/// peer waits for ever because of where it connected.
pub fn lease_slots(total: u32, demand: &[u32]) -> Vec<u32> {
    if demand.is_empty() {
        return Vec::new();
    }
    let asked: u64 = demand.iter().map(|&slots| u64::from(slots)).sum();
    if asked <= u64::from(total) {
        let spare = total - asked as u32;
        let shards = demand.len() as u64;
        let even = |index: u64| {
            let extra = u64::from(index < u64::from(spare) % shards);
            (u64::from(spare) / shards + extra) as u32
        };
        return (0..)
            .zip(demand)
            .map(|(index, &slots)| slots + even(index))
            .collect();
    }
    let mut parts = in_proportion(total, demand);
    let asking = demand.iter().filter(|&&slots| slots > 0).count();
    if asking <= total as usize {
        for shard in 0..parts.len() {
            if parts[shard] == 0 && demand[shard] > 0 {
                // Somebody has two, or there would be one for each.
                let wealth = |&shard: &usize| (parts[shard], Reverse(demand[shard]));
                let richest = (0..parts.len()).max_by_key(wealth).unwrap_or(shard);
                parts[richest] -= 1;
                parts[shard] = 1;
            }
        }
    }
    parts
}

/// Divides `total`, which is at most the sum of `demand`, by the method of largest remainders.
fn in_proportion(total: u32, demand: &[u32]) -> Vec<u32> {
    let asked: u64 = demand.iter().map(|&slots| u64::from(slots)).sum();
    if asked == 0 {
        return vec![0; demand.len()];
    }
    let product = |slots: u32| u64::from(slots) * u64::from(total);
    let mut parts: Vec<u32> = demand
        .iter()
        .map(|&slots| (product(slots) / asked) as u32)
        .collect();
    let given: u32 = parts.iter().sum();
    let mut order: Vec<usize> = (0..demand.len()).collect();
    order.sort_by_key(|&shard| Reverse(product(demand[shard]) % asked));
    for &shard in order.iter().take((total - given) as usize) {
        parts[shard] += 1;
    }
    parts
}
