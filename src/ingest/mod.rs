//! Ways in beside the Kafka port: recordings, and a simulated ward.

mod recording;
pub mod simulator;

pub use recording::{Recording, RecordingError, RecordingOptions, RecordingRow};
