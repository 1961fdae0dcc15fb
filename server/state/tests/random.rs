//! The store beside a naive model: operations at random, in batches of random size, with the store
//! closed and opened between.

mod model;

use model::{Model, Op};
use proptest::prelude::*;
use state::{Options, Store};

/// How many sequences are tried.
const CASES: u32 = if cfg!(debug_assertions) { 24 } else { 200 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]
    #[test]
    fn the_store_is_what_the_model_is(seed in any::<u64>(), batches in 1..40usize) {
        let mut random = fastrand::Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(directory.path(), Options::default()).unwrap();
        let mut model = Model::default();
        for _ in 0..batches {
            let count = random.usize(..12);
            let batch: Vec<Op> = (0..count).map(|_| Op::random(&mut random)).collect();
            let writes = batch.iter().map(Op::write).collect();
            let outcomes = store.handle().submit_blocking(writes).unwrap().wait();
            let expected: Vec<_> = batch.iter().map(|op| model.apply(*op)).collect();
            prop_assert_eq!(outcomes, expected, "{:?}", batch);
            if random.u8(..5) == 0 {
                store.close();
                store = Store::open(directory.path(), Options::default()).unwrap();
            }
            if random.u8(..3) == 0 {
                prop_assert_eq!(Model::read(&store.handle()), model.clone());
            }
        }
        prop_assert_eq!(Model::read(&store.handle()), model.clone());
        drop(store);
        let report = state::check(directory.path()).unwrap();
        // The model's metainfo is none.
        let mut problems = report.problems.iter();
        let other = problems.find(|problem| !problem.text.starts_with("its metainfo"));
        prop_assert_eq!(other, None);
        prop_assert_eq!(report.torrents, model.len() as u64);
    }
}
