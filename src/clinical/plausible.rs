//! What a body can have: hard limits, beyond which a value is an artefact, and limits beyond which it is suspect.
//!
//! Hard limits as in the ICU package ricu (`vitals.json`), suspect ones as in public VitalDB pipelines; breathing after a
//! published validator. A heart rate or breathing of 0 is an alarm and not an artefact: it is kept.

/// A vital, by its canonical name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vital {
    /// Beats a minute.
    HeartRate,
    /// Beats a minute, from the pulse.
    PulseRate,
    /// Breaths a minute.
    RespRate,
    /// Per cent.
    Spo2,
    /// mmHg.
    Sbp,
    /// mmHg.
    Dbp,
    /// mmHg.
    Map,
    /// Degrees Celsius.
    TempC,
    /// mmHg.
    Etco2,
}

/// `least..=greatest` that a body can have, and the narrower range that is not suspect.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Beyond these a value is rejected.
    pub hard: (f64, f64),
    /// Beyond these it is flagged.
    pub suspect: (f64, f64),
    /// Where the limits come from.
    pub source: &'static str,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plausibility {
    /// As bodies have it.
    Plausible,
    /// Possible, and rare enough to look at.
    Suspect,
    /// Not possible.
    Impossible,
}

impl Vital {
    /// Reads the canonical name, as a column of `vitals` has it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "heart_rate" => Self::HeartRate,
            "pulse_rate" => Self::PulseRate,
            "resp_rate" => Self::RespRate,
            "spo2" => Self::Spo2,
            "sbp" => Self::Sbp,
            "dbp" => Self::Dbp,
            "map" => Self::Map,
            "temp_c" => Self::TempC,
            "etco2" => Self::Etco2,
            _ => return None,
        })
    }

    /// Its limits.
    #[must_use]
    pub const fn limits(self) -> Limits {
        const ICU: &str = "hard: ricu vitals.json; suspect: VitalDB pipelines";
        let (hard, suspect, source) = match self {
            Self::HeartRate | Self::PulseRate => ((0.0, 300.0), (20.0, 250.0), ICU),
            Self::RespRate => ((0.0, 100.0), (4.0, 60.0), "hard: a published score validator; suspect: common practice"),
            Self::Spo2 => ((0.0, 100.0), (50.0, 100.0), "VitalDB pipelines"),
            Self::Sbp => ((0.0, 300.0), (40.0, 250.0), ICU),
            Self::Dbp => ((0.0, 200.0), (10.0, 180.0), ICU),
            Self::Map => ((0.0, 250.0), (20.0, 220.0), ICU),
            Self::TempC => ((30.0, 44.0), (32.0, 42.0), "hard: ricu vitals.json; suspect: common practice"),
            Self::Etco2 => ((10.0, 60.0), (10.0, 60.0), "ricu vitals.json"),
        };
        Limits { hard, suspect, source }
    }
}

/// Judges a value.
#[must_use]
pub fn plausible(vital: Vital, value: f64) -> Plausibility {
    let within = |(least, greatest): (f64, f64)| (least..=greatest).contains(&value);
    let limits = vital.limits();
    // Nothing at all is an alarm: zero stays what it is.
    let flat = value == 0.0 && matches!(vital, Vital::HeartRate | Vital::RespRate);
    if within(limits.suspect) || flat {
        Plausibility::Plausible
    } else if within(limits.hard) {
        Plausibility::Suspect
    } else {
        Plausibility::Impossible
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_on_both_sides() {
        assert_eq!(plausible(Vital::HeartRate, 300.0), Plausibility::Suspect);
        assert_eq!(plausible(Vital::HeartRate, 300.1), Plausibility::Impossible);
        assert_eq!(plausible(Vital::HeartRate, 0.0), Plausibility::Plausible, "asystole is an alarm");
        assert_eq!(plausible(Vital::Spo2, 101.0), Plausibility::Impossible);
        assert_eq!(plausible(Vital::TempC, 98.6), Plausibility::Impossible, "Fahrenheit");
        assert_eq!(plausible(Vital::TempC, f64::NAN), Plausibility::Impossible);
        assert_eq!(Vital::parse("map"), Some(Vital::Map));
    }

    #[test]
    fn a_value_is_judged_alike_at_each_limit_of_each_vital() {
        use Vital::{Dbp, Etco2, HeartRate, Map, PulseRate, RespRate, Sbp, Spo2, TempC};
        for vital in [HeartRate, PulseRate, RespRate, Spo2, Sbp, Dbp, Map, TempC, Etco2] {
            let Limits { hard, suspect, source } = vital.limits();
            assert!(hard.0 <= suspect.0 && suspect.0 < suspect.1 && suspect.1 <= hard.1 && !source.is_empty(), "{vital:?}");
            for (limit, out) in [(hard.0, -0.1), (hard.1, 0.1)] {
                assert_ne!(plausible(vital, limit), Plausibility::Impossible, "{vital:?} {limit}");
                assert_eq!(plausible(vital, limit + out), Plausibility::Impossible, "{vital:?} {limit}");
            }
            for (limit, out) in [(suspect.0, -0.1), (suspect.1, 0.1)] {
                assert_eq!(plausible(vital, limit), Plausibility::Plausible, "{vital:?} {limit}");
                assert_ne!(plausible(vital, limit + out), Plausibility::Plausible, "{vital:?} {limit}");
            }
        }
    }
}
