//! The piece picker: sequences of what peers and the caller can do, against the naive model of its unit tests.
//!
//! Checked beyond "no panic": every choice is one that the rules allow, nothing is left out, and all that can
//! be seen of the picker is what the model says. The bytes are read by [`model::run`].
#![no_main]

use engine::choker::PeerKey;
use engine::layout::StorageLayout;
use engine::picker::{
    Event, PeerPieces, Picker, PickerConfig, PieceOrder, Priority, Received, Sharing, Wish,
};
use libfuzzer_sys::fuzz_target;
use proto::ids::PieceIndex;
use proto::wire::BlockRequest;

#[allow(dead_code)]
#[path = "../../server/engine/src/picker/tests/model.rs"]
mod model;

fuzz_target!(|data: &[u8]| {
    model::run(data);
});
