//! The clinic: vitals, units, plausibility and scores, as pure functions beside their published tables.
//!
//! Always: a missing value is never taken as normal. A score with something missing has no total, and says what is
//! missing and between which bounds the total lies. Nothing here knows of rows, streams or SQL. **Not a medical device.**

mod derived;
mod mews;
mod news2;
mod patient;
mod plausible;
mod sepsis;
mod units;

pub use derived::{age_shock_index, map_from, modified_shock_index, pulse_pressure, shock_index};
pub use mews::{MewsInput, MewsScore, mews_subbe};
pub use news2::{Acvpu, News2Input, News2Points, News2Score, Risk, news2};
pub use patient::PatientId;
pub use plausible::{Limits, Plausibility, Vital, plausible};
pub use sepsis::{QsofaInput, SirsInput, Tally, qsofa, sirs};
pub use units::{f_to_c, kpa_to_mmhg, mgdl_from_mmoll};

/// Rounds half up, as charts do: 20.5 is 21, and -0.5 is 0.
fn half_up(value: f64) -> f64 {
    (value + 0.5).floor()
}

/// Rounds half up to one decimal, for temperatures. The small term undoes what binary fractions take away: 38.05 is 38.1.
fn half_up_tenth(value: f64) -> f64 {
    ((value * 10.0 + 0.5) + 1e-9).floor() / 10.0
}
