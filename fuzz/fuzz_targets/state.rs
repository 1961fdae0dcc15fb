//! Records of the state store: whatever a damaged file has in them is refused or read, and what is
//! read can be kept.
#![no_main]

use libfuzzer_sys::fuzz_target;
use state::encode::{
    decode_details, decode_stamp, decode_summary, decode_totals, decode_verified, encode_details,
    encode_stamp, encode_summary, encode_totals, encode_verified,
};
use state::limits;

fuzz_target!(|data: &[u8]| {
    if let Ok(summary) = decode_summary(data) {
        assert_eq!(decode_summary(&encode_summary(&summary)), Ok(summary));
    }
    if let Ok(details) = decode_details(data) {
        assert!(details.priorities.len() <= limits::FILES_MAX);
        match encode_details(&details) {
            Some(record) => assert_eq!(decode_details(&record), Ok(details)),
            None => assert_eq!(details, state::Details::default()),
        }
    }
    if let Ok(totals) = decode_totals(data) {
        assert_eq!(decode_totals(&encode_totals(&totals)), Ok(totals));
    }
    if let Ok(stamp) = decode_stamp(data) {
        assert_eq!(decode_stamp(&encode_stamp(&stamp)), Ok(stamp));
    }
    // The number of pieces is another record's.
    let Some((pieces, rest)) = data.split_first_chunk::<2>() else {
        return;
    };
    let pieces = u32::from(u16::from_le_bytes(*pieces));
    if let Ok(verified) = decode_verified(rest, pieces) {
        assert!(verified.count(pieces) <= pieces);
        match encode_verified(&verified) {
            Some(record) => assert_eq!(decode_verified(&record, pieces), Ok(verified)),
            None => assert_eq!(verified, state::Verified::None),
        }
    }
});
