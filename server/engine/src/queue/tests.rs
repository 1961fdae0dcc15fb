use super::*;
use proptest::prelude::*;

fn block(piece: u32, begin: u32, length: u32) -> BlockRequest {
    BlockRequest {
        piece: PieceIndex(piece),
        begin,
        length,
    }
}

fn push_all(queue: &mut RequestQueue, blocks: impl IntoIterator<Item = BlockRequest>) {
    for block in blocks {
        assert!(queue.push(block));
    }
}

#[test]
fn adjacent_blocks_of_one_piece_leave_together() {
    let mut queue = RequestQueue::new(100);
    let first = [block(3, 0, 10), block(3, 10, 20), block(3, 30, 5)];
    push_all(&mut queue, first);
    push_all(
        &mut queue,
        [block(4, 35, 5), block(4, 50, 5), block(4, 55, 5)],
    );
    let batch = queue.next_batch(1000).unwrap();
    assert_eq!(
        (batch.piece, batch.begin, batch.bytes, batch.count),
        (PieceIndex(3), 0, 35, 3)
    );
    assert!(batch.blocks().eq(first));
    assert_eq!(queue.next_batch(1000).unwrap().bytes, 5);
    assert_eq!(queue.peek_batch(9).unwrap().bytes, 5);
    assert_eq!(queue.next_batch(1000).unwrap().bytes, 10);
    assert_eq!(queue.next_batch(1000), None);
}

#[test]
fn a_batch_is_bounded_in_blocks_and_bytes() {
    let mut queue = RequestQueue::new(100);
    push_all(&mut queue, (0..20).map(|i| block(0, i * 16_384, 16_384)));
    assert_eq!(queue.next_batch(16_383), None);
    assert_eq!(queue.next_batch(u32::MAX).unwrap().count, 16);
    assert_eq!(queue.next_batch(40_000).unwrap().count, 2);
    queue.clear();
    push_all(&mut queue, (0..4).map(|i| block(0, i * 131_072, 131_072)));
    assert_eq!(queue.next_batch(u32::MAX).unwrap().bytes, BATCH_BYTES_MAX);
    queue.clear();
    push_all(&mut queue, (0..20).map(|i| block(0, i, 1)));
    assert_eq!(
        queue.next_batch(u32::MAX).unwrap().count as usize,
        BATCH_BLOCKS_MAX
    );
}

#[test]
fn a_full_queue_refuses_and_an_empty_one_holds_no_memory() {
    let mut queue = RequestQueue::new(2_000);
    assert_eq!(queue.memory_bytes(), 0);
    push_all(&mut queue, (0..2_000).map(|i| block(i, 0, 16_384)));
    assert!(!queue.push(block(9_999, 0, 1)));
    assert_eq!(queue.bytes(), 2_000 * 16_384);
    assert!(queue.memory_bytes() <= RequestQueue::memory_bytes_max(2_000));
    assert_eq!(RequestQueue::memory_bytes_max(2_000), 2048 * 20);
    queue.shrink();
    assert_eq!(queue.len(), 2_000, "shrinking drops no request");
    while queue.next_batch(u32::MAX).is_some() {}
    queue.shrink();
    assert_eq!(queue.memory_bytes(), 0);
    assert!(!queue.cancel(block(1, 0, 16_384)));
}

#[test]
fn a_queue_for_no_requests_refuses_all() {
    let mut queue = RequestQueue::new(0);
    assert!(!queue.push(block(0, 0, 1)));
    assert_eq!(queue.memory_bytes(), 0);
}

#[test]
fn equal_requests_are_two_and_a_cancel_takes_back_one() {
    let mut queue = RequestQueue::new(10);
    let twice = block(1, 0, 16);
    push_all(&mut queue, [twice, block(2, 0, 16), twice]);
    assert!(queue.cancel(twice));
    assert!(
        queue.iter().eq([twice, block(2, 0, 16)]),
        "the newer one goes"
    );
    assert!(queue.cancel(twice));
    assert!(!queue.cancel(twice));
    assert!(queue.iter().eq([block(2, 0, 16)]));
    assert!(
        !queue.cancel(block(2, 0, 15)),
        "the length is part of the request"
    );
}

/// C5: a storm of requests and cancels neither grows the queue nor loses a request.
#[test]
fn a_cancel_storm_leaves_the_queue_as_it_was() {
    let mut queue = RequestQueue::new(2_000);
    push_all(&mut queue, (0..1_999).map(|i| block(i, 0, 16)));
    // The last one keeps the cancelled slots before it in the ring.
    let mut last = block(5_000, 0, 16);
    push_all(&mut queue, [last]);
    for i in 0..100_000 {
        assert!(queue.cancel(last));
        last = block(6_000 + i, 0, 16);
        push_all(&mut queue, [last]);
        let middle = block(i % 1_999, 0, 16);
        assert!(queue.cancel(middle));
        push_all(&mut queue, [middle]);
    }
    queue.check_invariants();
    assert_eq!(queue.len(), 2_000);
    assert!(queue.memory_bytes() <= RequestQueue::memory_bytes_max(2_000));
}

#[test]
fn sequence_numbers_wrap() {
    let mut queue = RequestQueue::new(64);
    queue.head = u32::MAX - 20;
    for round in 0..10 {
        push_all(&mut queue, (0..8).map(|i| block(i, round, 16)));
        assert!(queue.cancel(block(5, round, 16)));
        assert!(queue.cancel(block(7, round, 16)));
        queue.check_invariants();
        let pieces: Vec<_> = std::iter::from_fn(|| queue.pop())
            .map(|block| block.piece.0)
            .collect();
        assert_eq!(pieces, [0, 1, 2, 3, 4, 6]);
    }
}

#[derive(Clone, Debug)]
enum Operation {
    Push(BlockRequest),
    Cancel(BlockRequest),
    Batch(u32),
    Pop,
    Clear,
    Shrink,
}

/// Few distinct blocks, most of them adjacent, so that runs, duplicates and cancels all happen.
fn blocks() -> impl Strategy<Value = BlockRequest> {
    (0_u32..3, 0_u32..12, 0_u32..8).prop_map(|(piece, place, odd)| {
        if odd == 0 {
            block(piece, place * 16 + 1, 5)
        } else {
            block(piece, place * 16, 16)
        }
    })
}

fn operations() -> impl Strategy<Value = Operation> {
    prop_oneof![
        10 => blocks().prop_map(Operation::Push),
        6 => blocks().prop_map(Operation::Cancel),
        3 => (0_u32..300).prop_map(Operation::Batch),
        1 => Just(Operation::Pop),
        1 => (0_u32..20).prop_map(|i| if i == 0 { Operation::Clear } else { Operation::Shrink }),
    ]
}

/// The batch at the front of the naive model, which it takes.
fn model_batch(model: &mut Vec<BlockRequest>, bytes_max: u32) -> Vec<BlockRequest> {
    let mut batch: Vec<BlockRequest> = Vec::new();
    let mut bytes = 0;
    while let Some(&next) = model.first() {
        let follows = batch
            .last()
            .is_none_or(|last| last.piece == next.piece && last.begin + last.length == next.begin);
        if !follows || batch.len() == BATCH_BLOCKS_MAX || bytes + next.length > bytes_max {
            break;
        }
        bytes += next.length;
        batch.push(model.remove(0));
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_queue_does_as_a_naive_list_does(
        requests_max in 1_u32..70,
        operations in proptest::collection::vec(operations(), 1..400),
    ) {
        let mut queue = RequestQueue::new(requests_max);
        let mut model: Vec<BlockRequest> = Vec::new();
        for operation in operations {
            match operation {
                Operation::Push(block) => {
                    let room = model.len() < requests_max as usize;
                    prop_assert_eq!(queue.push(block), room);
                    if room {
                        model.push(block);
                    }
                }
                Operation::Cancel(block) => {
                    let newest = model.iter().rposition(|&other| other == block);
                    prop_assert_eq!(queue.cancel(block), newest.is_some());
                    if let Some(newest) = newest {
                        model.remove(newest);
                    }
                }
                Operation::Batch(bytes_max) => {
                    let peeked = queue.peek_batch(bytes_max);
                    let batch = queue.next_batch(bytes_max);
                    prop_assert_eq!(peeked, batch);
                    let blocks: Vec<_> = batch.iter().flat_map(Batch::blocks).collect();
                    prop_assert_eq!(blocks, model_batch(&mut model, bytes_max));
                }
                Operation::Pop => {
                    let first = (!model.is_empty()).then(|| model.remove(0));
                    prop_assert_eq!(queue.pop(), first);
                }
                Operation::Clear => {
                    queue.clear();
                    model.clear();
                }
                Operation::Shrink => queue.shrink(),
            }
            queue.check_invariants();
            prop_assert!(queue.iter().eq(model.iter().copied()));
            prop_assert_eq!(queue.front(), model.first().copied());
        }
    }
}
