//! qSOFA and SIRS: how many criteria are met, of those that are known.
//!
//! qSOFA (Seymour 2016, JAMA 315:762): one each for respiration >= 22 /min, systolic pressure <= 100 mmHg, altered mentation;
//! positive at 2. SIRS (Bone 1992, Chest 101:1644): one each for temperature > 38.0 or < 36.0 Cel, heart rate > 90 /min,
//! respiration > 20 /min or PaCO2 < 32 mmHg, white cells > 12 or < 4 x10^9/L; positive at 2. Immature white cells
//! (over 10 % bands), the other way to the fourth criterion, are not looked at. PaCO2 is an alternative for those whose
//! breathing is not their own: where it is not measured, the respiration rate alone decides. A NaN is not known.

use super::news2::Acvpu;

/// What qSOFA looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QsofaInput {
    /// Breaths a minute.
    pub resp_rate: Option<f64>,
    /// mmHg.
    pub sbp: Option<f64>,
    /// Level of consciousness; anything but alert is altered.
    pub consciousness: Option<Acvpu>,
}

/// What SIRS looks at. Laboratory values may stay away: the tally then says that it is partial.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SirsInput {
    /// Degrees Celsius.
    pub temp_c: Option<f64>,
    /// Beats a minute.
    pub heart_rate: Option<f64>,
    /// Breaths a minute.
    pub resp_rate: Option<f64>,
    /// mmHg.
    pub paco2: Option<f64>,
    /// 10^9 a litre.
    pub wbc: Option<f64>,
}

/// How many criteria are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Of those that are known.
    pub met: u8,
    /// How many are not known.
    pub unknown: u8,
}

impl Tally {
    fn of(criteria: &[Option<bool>]) -> Self {
        let met = criteria.iter().filter(|c| **c == Some(true)).count() as u8;
        Self { met, unknown: criteria.iter().filter(|c| c.is_none()).count() as u8 }
    }

    /// The count, where all criteria are known.
    #[must_use]
    pub const fn total(self) -> Option<u8> {
        if self.unknown == 0 { Some(self.met) } else { None }
    }

    /// Two or more: yes, no, or not to be known.
    #[must_use]
    pub const fn positive(self) -> Option<bool> {
        if self.met >= 2 {
            Some(true)
        } else if self.met + self.unknown < 2 {
            Some(false)
        } else {
            None
        }
    }
}

/// Whether a measured value meets a criterion; what is no number is not known.
fn meets(value: Option<f64>, criterion: impl Fn(f64) -> bool) -> Option<bool> {
    value.filter(|v| v.is_finite()).map(criterion)
}

/// qSOFA.
#[must_use]
pub fn qsofa(input: &QsofaInput) -> Tally {
    Tally::of(&[
        meets(input.resp_rate, |v| v >= 22.0),
        meets(input.sbp, |v| v <= 100.0),
        input.consciousness.map(|level| level != Acvpu::Alert),
    ])
}

/// SIRS.
#[must_use]
pub fn sirs(input: &SirsInput) -> Tally {
    let breathing = match (meets(input.resp_rate, |v| v > 20.0), meets(input.paco2, |v| v < 32.0)) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), _) => Some(false),
        (None, _) => None,
    };
    Tally::of(&[
        meets(input.temp_c, |v| !(36.0..=38.0).contains(&v)),
        meets(input.heart_rate, |v| v > 90.0),
        breathing,
        meets(input.wbc, |v| !(4.0..=12.0).contains(&v)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qsofa_counts_at_its_limits() {
        let of = |rr, sbp, level| qsofa(&QsofaInput { resp_rate: Some(rr), sbp: Some(sbp), consciousness: Some(level) }).total();
        assert_eq!(of(21.0, 101.0, Acvpu::Alert), Some(0));
        assert_eq!(of(22.0, 100.0, Acvpu::Confusion), Some(3));
        let partial = qsofa(&QsofaInput { resp_rate: Some(25.0), sbp: Some(90.0), consciousness: None });
        assert_eq!((partial.total(), partial.positive()), (None, Some(true)));
        assert_eq!(qsofa(&QsofaInput { resp_rate: Some(25.0), ..QsofaInput::default() }).positive(), None);
    }

    #[test]
    fn sirs_counts_at_its_limits_and_says_when_it_is_partial() {
        let of = |temp_c, heart_rate, resp_rate, wbc| {
            sirs(&SirsInput { temp_c: Some(temp_c), heart_rate: Some(heart_rate), resp_rate: Some(resp_rate), paco2: None, wbc: Some(wbc) })
                .total()
        };
        assert_eq!(of(38.0, 90.0, 20.0, 12.0), Some(0));
        assert_eq!(of(38.1, 91.0, 21.0, 12.1), Some(4));
        assert_eq!(of(36.0, 90.0, 20.0, 4.0), Some(0));
        assert_eq!(of(35.9, 90.0, 20.0, 3.9), Some(2));
        let vitals = sirs(&SirsInput { temp_c: Some(37.0), heart_rate: Some(80.0), resp_rate: Some(16.0), ..SirsInput::default() });
        assert_eq!((vitals.total(), vitals.positive()), (None, Some(false)), "one unknown cannot make two");
        let breathing = |resp_rate, paco2| sirs(&SirsInput { resp_rate, paco2, ..SirsInput::default() }).met;
        assert_eq!(breathing(Some(16.0), Some(31.9)), 1);
        assert_eq!(breathing(Some(20.0), Some(32.0)), 0);
        assert_eq!(breathing(None, Some(20.0)), 1);
        assert_eq!(sirs(&SirsInput { paco2: Some(40.0), ..SirsInput::default() }).unknown, 4, "a normal PaCO2 says nothing of the rate");
    }

    #[test]
    fn a_nan_is_not_known_and_not_normal() {
        let nan = Some(f64::NAN);
        assert_eq!(sirs(&SirsInput { temp_c: nan, heart_rate: nan, resp_rate: nan, paco2: nan, wbc: nan }).unknown, 4);
        assert_eq!(qsofa(&QsofaInput { resp_rate: nan, sbp: nan, consciousness: None }).unknown, 3);
    }
}
