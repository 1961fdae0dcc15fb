//! Each rule by example, with figures; and sequences of calls against a naive model.

use proptest::prelude::*;

use super::*;

mod model;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_call_does_what_the_naive_model_does(
        bytes in proptest::collection::vec(any::<u8>(), 0..1_500),
    ) {
        model::run(&bytes);
    }
}

#[test]
fn the_sequences_reach_every_rule() {
    let mut random = Random::new(1);
    let mut all = model::Seen::default();
    for _ in 0..100 {
        let bytes: Vec<u8> = (0..1_500).map(|_| random.next_u64() as u8).collect();
        let seen = model::run(&bytes);
        all.add(seen);
    }
    panic!("{all:?}");
}
