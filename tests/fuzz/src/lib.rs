//! The lower rooms of VitalSQL, and what all fuzzing targets need: memory that is counted.

#![allow(dead_code, unused_imports, missing_docs, reason = "the rooms are checked where they live")]

#[path = "../../../src/broker/mod.rs"]
pub mod broker;
#[path = "../../../src/log/mod.rs"]
pub mod log;
#[path = "../../../src/metrics/mod.rs"]
pub mod metrics;
#[path = "../../../src/record/mod.rs"]
pub mod record;
#[path = "../../../src/server/mod.rs"]
pub mod server;
#[path = "../../../src/time.rs"]
pub mod time;
#[path = "../../../src/wire/mod.rs"]
pub mod wire;

pub mod memory;
pub mod recovery;

/// A target's `main`: libFuzzer's, or one that runs the files it is given.
#[macro_export]
macro_rules! target {
    ($run:path) => {
        #[cfg(feature = "libfuzzer")]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $run(data));
        #[cfg(not(feature = "libfuzzer"))]
        fn main() {
            for name in std::env::args().skip(1) {
                let data = std::fs::read(&name).expect("a file");
                $run(&data);
                println!("{name}: {} bytes", data.len());
            }
        }
    };
}
