//! SHA-1 and SHA-256 of many pieces at a time.
#![forbid(unsafe_code)]
