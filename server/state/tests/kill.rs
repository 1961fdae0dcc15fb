//! kill -9 at random moments: what was acknowledged is there, and of what was not, whole batches or
//! nothing.
//!
//! 20 times; with SEEDRING_TESTS_FULL=1 200 times. The process that is killed is this test binary
//! again, which runs the ignored test [`child`].
#![allow(clippy::unwrap_used)]

mod model;

use model::{Model, Op};
use state::{Ack, Options, Store};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "STATE_KILL_DIRECTORY";
const SEED: &str = "STATE_KILL_SEED";

/// Batches that are under way at once.
const UNDER_WAY: usize = 4;

/// The batches of a seed, one after another without end.
fn batches(seed: u64) -> impl Iterator<Item = Vec<Op>> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(move || {
        let count = random.usize(1..6);
        (0..count).map(|_| Op::random(&mut random)).collect()
    })
}

#[test]
#[ignore = "it is what the test of kill -9 starts and kills"]
fn child() {
    let (Some(directory), Ok(seed)) = (std::env::var_os(DIRECTORY), std::env::var(SEED)) else {
        return;
    };
    let store = Store::open(&PathBuf::from(directory), Options::default()).unwrap();
    let handle = store.handle();
    let mut under_way: VecDeque<Ack> = VecDeque::new();
    let mut stdout = std::io::stdout();
    for batch in batches(seed.parse().unwrap()) {
        let writes = batch.iter().map(Op::write).collect();
        under_way.push_back(handle.submit_blocking(writes).unwrap());
        if under_way.len() == UNDER_WAY {
            under_way.pop_front().unwrap().wait();
            // Straight to the pipe, in one call.
            stdout.write_all(b"acked\n").unwrap();
            stdout.flush().unwrap();
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_nothing_is_half_done() {
    let full = std::env::var_os("SEEDRING_TESTS_FULL").is_some();
    let rounds = if full { 200 } else { 20 };
    let directory = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let mut model = Model::default();
    let (mut acked_in_all, mut not_acked) = (0, 0);
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env(SEED, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let output = child.stdout.take().unwrap();
        // When it is killed: after so many acknowledgements and a moment, or before the first.
        let after = random.usize(..30);
        let moment = Duration::from_micros(random.u64(..3000));
        let mut lines = BufReader::new(output).lines().map(Result::unwrap);
        let mut acked = 0;
        while acked < after {
            let line = lines.next().expect("the child ends when it is killed");
            acked += usize::from(line.trim() == "acked");
        }
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        acked += lines.filter(|line| line.trim() == "acked").count();

        let store = Store::open(directory.path(), Options::default()).unwrap();
        let found = Model::read(&store.handle());
        let mut batches = batches(round);
        let mut apply = |model: &mut Model| {
            for op in batches.next().unwrap() {
                // Refused by both alike; that is another test's.
                let _refused = model.apply(op);
            }
        };
        for _ in 0..acked {
            apply(&mut model);
        }
        // Those that were under way may be there too, in their order.
        let mut more = 0;
        while found != model {
            assert!(
                more < UNDER_WAY,
                "round {round}, {acked} batches acknowledged: no state that can be"
            );
            apply(&mut model);
            more += 1;
        }
        acked_in_all += acked;
        not_acked += more;
        drop(store);
        if round % 10 == 9 {
            let report = state::check(directory.path()).unwrap();
            assert_eq!(report.torrents, model.len() as u64);
        }
    }
    println!("{rounds} kills, {acked_in_all} batches acknowledged, {not_acked} more were there");
    assert!(acked_in_all > rounds as usize, "nearly nothing was written");
}
