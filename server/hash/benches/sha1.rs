//! Every SHA-1 kernel that runs on this CPU beside aws-lc-rs: 16 pieces of 1 MiB in memory, on one
//! core. `cargo bench -p hash` prints the rate of each; pin it (`taskset -c 1`) for figures that
//! hold.
//!
//! Does not: read files. That is measured by the `verify` command on a file in the page cache.
#![forbid(unsafe_code)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hash::{Kernel, LANES_MAX, Sha1, Sha1Digest};
use std::hint::black_box;

/// The length of one piece, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// What a hashing thread reads of each piece at a time, in bytes.
const SLICE_BYTES: usize = 64 << 10;

/// Bytes without a short period, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Whole pieces, which do not fit a core's cache: memory is read.
fn pieces(criterion: &mut Criterion) {
    let data = noise(LANES_MAX * PIECE_BYTES);
    let pieces: Vec<&[u8]> = data.chunks(PIECE_BYTES).collect();
    let mut digests: Vec<Sha1Digest> = vec![[0; 20]; pieces.len()];
    let mut group = criterion.benchmark_group("16 pieces of 1 MiB");
    group.throughput(Throughput::BytesDecimal(data.len() as u64));
    group.bench_function("aws-lc-rs", |bencher| {
        bencher.iter(|| {
            for piece in &pieces {
                let algorithm = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
                black_box(aws_lc_rs::digest::digest(algorithm, black_box(piece)));
            }
        });
    });
    for kernel in Kernel::available() {
        group.bench_function(kernel.to_string(), |bencher| {
            bencher.iter(|| kernel.hash_pieces(black_box(&pieces), black_box(&mut digests)));
        });
    }
    group.finish();
}

/// Slices that fit a core's cache, as a hashing thread has them after it has read them.
fn slices(criterion: &mut Criterion) {
    let data = noise(LANES_MAX * SLICE_BYTES);
    let slices: Vec<&[u8]> = data.chunks(SLICE_BYTES).collect();
    let mut streams = vec![Sha1::new(); LANES_MAX];
    let mut group = criterion.benchmark_group("16 slices of 64 KiB");
    group.throughput(Throughput::BytesDecimal(data.len() as u64));
    for kernel in Kernel::available() {
        group.bench_function(kernel.to_string(), |bencher| {
            bencher.iter(|| kernel.update_many(black_box(&mut streams), black_box(&slices)));
        });
    }
    group.finish();
}

/// How many streams it takes for a wide kernel to be sooner done than a library: the line that is
/// drawn in `kernel.rs`.
fn few(criterion: &mut Criterion) {
    let data = noise(LANES_MAX * SLICE_BYTES);
    let slices: Vec<&[u8]> = data.chunks(SLICE_BYTES).collect();
    let mut streams = vec![Sha1::new(); LANES_MAX];
    let best = Kernel::best();
    for count in [1, 2, 3, 4, 5, 6, 8] {
        let mut group = criterion.benchmark_group(format!("{count} slices of 64 KiB"));
        group.throughput(Throughput::BytesDecimal((count * SLICE_BYTES) as u64));
        group.bench_function(best.to_string(), |bencher| {
            bencher.iter(|| {
                best.update_many(
                    black_box(&mut streams[..count]),
                    black_box(&slices[..count]),
                );
            });
        });
        group.finish();
    }
}

criterion_group!(benches, pieces, slices, few);
criterion_main!(benches);
