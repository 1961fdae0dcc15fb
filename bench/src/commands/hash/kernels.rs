//! SHA-1 in memory on one core: what our server hashes with, beside the libraries that it could
//! have used.
//!
//! The one place where the bench links a crate of the server: `hash` alone, which does no I/O and
//! cannot be measured from outside. All hash the same pieces, and every digest is compared with the
//! first one's.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use hash::Sha1Digest;
use rustix::thread::{CpuSet, sched_setaffinity};
use sha1::Digest as _;

use crate::harness::comparison::{Column, Comparison, Figures};
use crate::harness::environment::Environment;
use crate::harness::options::{Choice, Pieces};
use crate::harness::rounds::{self, Contender};
use crate::harness::usage::{self, Usage};
use crate::load::blocks::Random;
use crate::units::seconds_ns;

const EXAMPLES: &str = "\
Examples:
  seedring-bench hash kernels --pin 1
  seedring-bench hash kernels --size 1M --piece-size 64K     # all of it in the CPU's cache

Exit codes: 0 all measured; 1 a wrong digest; 2 usage.";

const SIZE: &str = "How much is hashed in one pass. More than the CPU's caches, so that it comes \
                    from memory as pieces do";

const COLUMNS: &[Column] = &[Column::GIGABYTES_PER_S];

/// Of the machine's memory, this part may be filled with pieces: others are there too.
const MEMORY_PART: u64 = 2;

#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("size", |arg| arg.default_value("128M").help(SIZE)),
)]
pub struct KernelsArguments {
    #[command(flatten)]
    pieces: Pieces,

    /// The least that one run takes, in seconds.
    #[arg(long, value_name = "S", default_value = "0.5", value_parser = seconds_ns)]
    duration: u64,

    /// The core to hash on [default: where the system puts one thread].
    #[arg(long, value_name = "CORE")]
    pin: Option<usize>,

    #[command(flatten)]
    choice: Choice,
}

pub fn run(arguments: &KernelsArguments) -> anyhow::Result<ExitCode> {
    let pinned: Vec<usize> = arguments.pin.into_iter().collect();
    usage::cores("--pin", &pinned)?;
    let environment = Environment::here(&pinned);
    let count = piece_count(&arguments.pieces, environment.memory_bytes)?;
    let piece_bytes = arguments.pieces.piece_size as usize;
    if let Some(core) = arguments.pin {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)
            .with_context(|| format!("cannot run on core {core} alone"))?;
    }
    let mut memory = vec![0; count * piece_bytes];
    Random::new(1).fill(&mut memory);
    let pieces: Vec<&[u8]> = memory.chunks(piece_bytes).collect();
    let mut expected = vec![[0; 20]; count];
    libraries::sha1(&pieces, &mut expected);
    let job = Job {
        pieces: &pieces,
        expected: &expected,
        duration: Duration::from_nanos(arguments.duration),
    };
    let contenders = arguments.choice.chosen(contenders(&job))?;
    let mut report = Comparison::new("hash kernels", environment, COLUMNS, "gigabytes_per_s");
    report.setting(
        "data",
        format!(
            "{count} pieces of {} KiB in memory, one thread",
            piece_bytes >> 10
        ),
    );
    let everybody = rounds::run(contenders, arguments.choice.rounds.count, &mut report);
    arguments.choice.print(&report, everybody)
}

/// How many pieces are hashed: they are all in memory.
fn piece_count(pieces: &Pieces, memory_bytes: u64) -> Result<usize, Usage> {
    let (bytes, piece_bytes) = (pieces.size, u64::from(pieces.piece_size));
    if bytes < piece_bytes {
        return Err(Usage(format!(
            "--size {bytes}: it holds no piece of {piece_bytes} B: ask for more, or for a shorter \
             --piece-size"
        )));
    }
    let bytes_max = memory_bytes / MEMORY_PART;
    if bytes > bytes_max {
        return Err(Usage(format!(
            "--size {bytes}: all of it is in memory, of which this machine has {memory_bytes} B: \
             ask for at most {bytes_max}"
        )));
    }
    usize::try_from(bytes / piece_bytes).map_err(|error| Usage(format!("--size: {error}")))
}

/// What everybody is to do.
#[derive(Clone, Copy)]
struct Job<'a> {
    pieces: &'a [&'a [u8]],
    expected: &'a [Sha1Digest],
    duration: Duration,
}

/// Writes the digest of each piece to the place of the same index.
type HashPieces = Box<dyn Fn(&[&[u8]], &mut [Sha1Digest])>;

struct Kernel<'a> {
    name: String,
    version: String,
    hash_pieces: HashPieces,
    job: Job<'a>,
}

impl Contender for Kernel<'_> {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn version(&self) -> Result<String, String> {
        Ok(self.version.clone())
    }

    fn run(&mut self) -> anyhow::Result<Figures> {
        let pieces = self.job.pieces;
        let mut digests = vec![[0; 20]; pieces.len()];
        let started = Instant::now();
        let mut passes = 0;
        while passes == 0 || started.elapsed() < self.job.duration {
            (self.hash_pieces)(std::hint::black_box(pieces), &mut digests);
            passes += 1;
        }
        let seconds = started.elapsed().as_secs_f64();
        if digests != self.job.expected {
            bail!("a digest is wrong");
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let hashed = bytes as f64 * f64::from(passes);
        Ok(Figures::from([("gigabytes_per_s", hashed / 1e9 / seconds)]))
    }
}

fn contenders<'a>(job: &Job<'a>) -> Vec<Box<dyn Contender + 'a>> {
    let chosen = format!(
        "crate hash as the server uses it: {}, {} pieces at a time",
        hash::Kernel::best(),
        hash::lanes()
    );
    let mut all: Vec<(String, String, HashPieces)> =
        vec![("seedring".to_owned(), chosen, Box::new(hash::hash_pieces))];
    for kernel in hash::Kernel::available() {
        let version = format!("crate hash, {} pieces at a time", kernel.lanes());
        let hash_pieces =
            move |pieces: &[&[u8]], digests: &mut [Sha1Digest]| kernel.hash_pieces(pieces, digests);
        all.push((format!("kernel {kernel}"), version, Box::new(hash_pieces)));
    }
    let mut library = |name: &str, version: &str, hash_pieces: fn(&[&[u8]], &mut [Sha1Digest])| {
        all.push((
            name.to_owned(),
            format!("{version}, one stream"),
            Box::new(hash_pieces),
        ));
    };
    library(
        "aws-lc-rs",
        "SHA-NI where the CPU has it",
        libraries::aws_lc,
    );
    library(
        "sha1",
        "crate sha1 0.10, SHA-NI where the CPU has it",
        libraries::sha1,
    );
    #[cfg(target_arch = "x86_64")]
    library("sha1-asm", "no SHA-NI", libraries::sha1_asm);
    let contender = |(name, version, hash_pieces)| {
        Box::new(Kernel {
            name,
            version,
            hash_pieces,
            job: *job,
        }) as Box<dyn Contender + 'a>
    };
    all.into_iter().map(contender).collect()
}

/// Each library's way to hash one piece after the other.
mod libraries {
    use super::*;

    pub fn aws_lc(pieces: &[&[u8]], digests: &mut [Sha1Digest]) {
        use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
        for (piece, out) in pieces.iter().zip(digests) {
            out.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, piece).as_ref());
        }
    }

    pub fn sha1(pieces: &[&[u8]], digests: &mut [Sha1Digest]) {
        for (piece, out) in pieces.iter().zip(digests) {
            *out = sha1::Sha1::digest(piece).into();
        }
    }

    #[cfg(target_arch = "x86_64")]
    /// The crate has the compression function alone; blocks and padding are ours (FIPS 180-4,
    /// 5.1.1).
    pub fn sha1_asm(pieces: &[&[u8]], digests: &mut [Sha1Digest]) {
        for (piece, out) in pieces.iter().zip(digests) {
            let mut state = [
                0x6745_2301,
                0xefcd_ab89,
                0x98ba_dcfe,
                0x1032_5476,
                0xc3d2_e1f0,
            ];
            let (blocks, rest) = piece.as_chunks::<64>();
            sha1_asm::compress(&mut state, blocks);
            let mut tail = [[0; 64]; 2];
            let bytes = tail.as_flattened_mut();
            bytes[..rest.len()].copy_from_slice(rest);
            bytes[rest.len()] = 0x80;
            let end = if rest.len() < 56 { 64 } else { 128 };
            bytes[end - 8..end].copy_from_slice(&(piece.len() as u64 * 8).to_be_bytes());
            sha1_asm::compress(&mut state, &tail[..end / 64]);
            for (word, out) in state.iter().zip(out.chunks_mut(4)) {
                out.copy_from_slice(&word.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_hashes_every_length_alike() {
        let memory: Vec<u8> = (0..300u32).map(|index| (index * 31) as u8).collect();
        let pieces: Vec<&[u8]> = (0..300).map(|length| &memory[..length]).collect();
        let mut expected = vec![[0; 20]; 300];
        libraries::sha1(&pieces, &mut expected);
        let job = Job {
            pieces: &pieces,
            expected: &expected,
            duration: Duration::ZERO,
        };
        let mut all = contenders(&job);
        assert!(all.len() >= 4);
        for kernel in &mut all {
            kernel.run().unwrap();
        }
    }

    #[test]
    fn pieces_must_fit_into_memory_and_be_some() {
        let count = |size| {
            let piece_size = 1 << 14;
            piece_count(&Pieces { size, piece_size }, 1 << 30)
        };
        assert_eq!(count(1 << 14).unwrap(), 1);
        assert_eq!(count(1 << 29).unwrap(), 1 << 15);
        for (wrong, why) in [((1 << 14) - 1, "no piece"), ((1 << 29) + 1, "in memory")] {
            let error = count(wrong).unwrap_err().to_string();
            assert!(
                error.starts_with("--size ") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn a_wrong_digest_is_a_failure() {
        let pieces: [&[u8]; 1] = [b"piece"];
        let job = Job {
            pieces: &pieces,
            expected: &[[1; 20]],
            duration: Duration::ZERO,
        };
        let mut all = contenders(&job);
        assert!(all.iter_mut().all(|kernel| kernel.run().is_err()));
        let mut expected = [[0; 20]];
        libraries::sha1(&pieces, &mut expected);
        let job = Job {
            expected: &expected,
            ..job
        };
        let mut all = contenders(&job);
        assert!(all.iter_mut().all(|kernel| kernel.run().is_ok()));
    }
}
