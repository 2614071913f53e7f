//! A data directory with anything in it: a start never panics, never takes memory by what a file claims, and where it succeeds the
//! log is whole: it can be read, written, closed, and found again as it was left.
//!
//! Input: see `vitalsql_fuzz::recovery`.

#![cfg_attr(feature = "libfuzzer", no_main)]

vitalsql_fuzz::target!(vitalsql_fuzz::recovery::run);
