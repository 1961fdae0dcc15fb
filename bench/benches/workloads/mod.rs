//! What the micro-benchmarks run: each workload once, for `micro` (time, by criterion) and `counts`
//! (instructions) alike.
//!
//! A workload is prepared once and then run any number of times; each run does the same work, and
//! says by its result that it did it, so that a benchmark that measures nothing fails instead of
//! being fast. Inputs are made here, from fixed seeds. No I/O.

mod bencode;
mod engine;
mod hashing;
mod picker;
mod wire;

/// One run: does the work and returns a figure that depends on all of it.
pub type Run = Box<dyn FnMut() -> u64>;

/// What one run gets through, so that times compare across sizes.
#[derive(Clone, Copy)]
pub enum Amount {
    /// Bytes of input or output.
    Bytes(u64),
    /// Things: requests, peers, blocks.
    Elements(u64),
}

/// One micro-benchmark.
pub struct Workload {
    /// `group/name`, unique.
    pub name: &'static str,
    /// What one run gets through.
    pub amount: Amount,
    /// Makes the inputs; the result is what is measured.
    pub prepare: fn() -> Run,
    /// What every run returns.
    pub result: u64,
}

/// All of them, in the order of a block's path through the server.
pub fn all() -> Vec<Workload> {
    let mut workloads = bencode::workloads();
    workloads.extend(wire::workloads());
    workloads.extend(engine::workloads());
    workloads.extend(picker::workloads());
    workloads.extend(hashing::workloads());
    workloads
}

/// Runs `workload` once and fails if it did not do its work.
pub fn check(workload: &Workload, run: &mut Run) {
    let result = run();
    assert_eq!(
        result, workload.result,
        "{} does not do the work that it is to measure",
        workload.name
    );
}
