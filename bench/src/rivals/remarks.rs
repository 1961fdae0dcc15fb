//! What a reader must know of a row: remarks that the reports have in common.

use super::figures::Figures;
use crate::quiet::{self, Disturbance};

/// Of the content, more than this in the page cache when a cold run begins is remarked.
const CACHED_SHARE: f64 = 0.01;

/// Pieces whose hash was wrong.
pub fn wrong_pieces<'a>(figures: impl Iterator<Item = &'a Figures>) -> Option<String> {
    let wrong: u64 = figures.map(|one| one.pieces_wrong).sum();
    (wrong > 0).then(|| format!("{wrong} WRONG PIECES"))
}

/// Peers that got nothing, in the worst run.
pub fn starved_peers<'a>(figures: impl Iterator<Item = &'a Figures>) -> Option<String> {
    let starved = figures.map(|one| one.peers_without_data).max();
    starved
        .filter(|&starved| starved > 0)
        .map(|starved| format!("up to {starved} peers got nothing"))
}

/// What else the machine did, in the worst run.
pub fn disturbances<'a>(figures: impl Iterator<Item = &'a Figures>) -> Vec<String> {
    quiet::remarks(figures.map(|one| Disturbance {
        elsewhere_cores: one.elsewhere_cores,
        stolen_cores: one.stolen_cores,
    }))
}

/// What of the data was not cold in the worst run: the share that was in the page cache when the
/// load began, and how often all of them were asked for.
pub fn not_cold(
    what: &str,
    cached_shares: impl Iterator<Item = f64>,
    rounds: impl Iterator<Item = f64>,
) -> Vec<String> {
    let mut found = Vec::new();
    let left = cached_shares.fold(0.0, f64::max);
    if left > CACHED_SHARE {
        let percent = left * 100.0;
        found.push(format!(
            "up to {percent:.0} % of {what} still in the page cache"
        ));
    }
    let rounds = rounds.fold(0.0, f64::max);
    if rounds > 1.0 {
        found.push(format!(
            "all of {what} asked for up to {rounds:.1} times: not all cold (--size)"
        ));
    }
    found
}

/// Why runs failed, each reason once.
pub fn failures<'a>(errors: impl Iterator<Item = &'a String>) -> impl Iterator<Item = String> {
    let mut errors: Vec<&String> = errors.collect();
    errors.sort_unstable();
    errors.dedup();
    errors.into_iter().map(|error| format!("FAILED: {error}"))
}
