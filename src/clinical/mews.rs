//! MEWS, the Modified Early Warning Score of Subbe and others (QJM 2001, 94:521).
//!
//! | | 3 | 2 | 1 | 0 | 1 | 2 | 3 |
//! |---|---|---|---|---|---|---|---|
//! | systolic pressure mmHg | <=70 | 71-80 | 81-100 | 101-199 | | >=200 | |
//! | heart rate /min | | <=40 | 41-50 | 51-100 | 101-110 | 111-129 | >=130 |
//! | respiration rate /min | | <=8 | | 9-14 | 15-20 | 21-29 | >=30 |
//! | temperature Cel | | <35.0 | | 35.0-38.4 | | >=38.5 | |
//! | AVPU | | | | A | V | P | U |
//!
//! 0 to 14; 5 and more is raised risk (some hospitals call at 4). Many local variants exist: this is Subbe's.

use super::news2::Acvpu;
use super::{half_up, half_up_tenth};

/// The five parameters, each as last known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MewsInput {
    /// mmHg.
    pub sbp: Option<f64>,
    /// Beats a minute.
    pub heart_rate: Option<f64>,
    /// Breaths a minute.
    pub resp_rate: Option<f64>,
    /// Degrees Celsius.
    pub temp_c: Option<f64>,
    /// Level of consciousness. New confusion is not in Subbe's AVPU; it scores as V, the nearest.
    pub consciousness: Option<Acvpu>,
}

/// A score: the total where everything is known, bounds where not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MewsScore {
    /// The total; `None` while anything is missing.
    pub total: Option<u8>,
    /// The names of what is missing.
    pub missing: Vec<&'static str>,
    /// The least total that the missing ones allow.
    pub score_min: u8,
    /// The greatest.
    pub score_max: u8,
}

/// Scores.
#[must_use]
pub fn mews_subbe(input: &MewsInput) -> MewsScore {
    let finite = |value: Option<f64>| value.filter(|v| v.is_finite());
    let sbp = finite(input.sbp).map(|v| match half_up(v) {
        v if v <= 70.0 => 3,
        v if v <= 80.0 => 2,
        v if v <= 100.0 => 1,
        v if v <= 199.0 => 0,
        _ => 2,
    });
    let heart_rate = finite(input.heart_rate).map(|v| match half_up(v) {
        v if v <= 40.0 => 2,
        v if v <= 50.0 => 1,
        v if v <= 100.0 => 0,
        v if v <= 110.0 => 1,
        v if v <= 129.0 => 2,
        _ => 3,
    });
    let resp_rate = finite(input.resp_rate).map(|v| match half_up(v) {
        v if v <= 8.0 => 2,
        v if v <= 14.0 => 0,
        v if v <= 20.0 => 1,
        v if v <= 29.0 => 2,
        _ => 3,
    });
    let temp_c = finite(input.temp_c).map(|v| match half_up_tenth(v) {
        v if v < 35.0 => 2,
        v if v < 38.5 => 0,
        _ => 2,
    });
    let consciousness = input.consciousness.map(|level| match level {
        Acvpu::Alert => 0,
        Acvpu::Confusion | Acvpu::Voice => 1,
        Acvpu::Pain => 2,
        Acvpu::Unresponsive => 3,
    });
    let all: [(&'static str, Option<u8>, u8); 5] =
        [("sbp", sbp, 3), ("heart_rate", heart_rate, 3), ("resp_rate", resp_rate, 3), ("temp_c", temp_c, 2), ("acvpu", consciousness, 3)];
    let missing: Vec<&'static str> = all.iter().filter(|(_, p, _)| p.is_none()).map(|(name, ..)| *name).collect();
    let known: u8 = all.iter().filter_map(|(_, p, _)| *p).sum();
    let most = known + all.iter().filter(|(_, p, _)| p.is_none()).map(|(.., most)| *most).sum::<u8>();
    MewsScore { total: missing.is_empty().then_some(known), missing, score_min: known, score_max: most }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(sbp: f64, heart_rate: f64, resp_rate: f64, temp_c: f64, level: Acvpu) -> Option<u8> {
        let input = MewsInput {
            sbp: Some(sbp),
            heart_rate: Some(heart_rate),
            resp_rate: Some(resp_rate),
            temp_c: Some(temp_c),
            consciousness: Some(level),
        };
        mews_subbe(&input).total
    }

    #[test]
    fn both_sides_of_every_limit() {
        let well = |sbp, hr, rr, t| total(sbp, hr, rr, t, Acvpu::Alert);
        for (sbp, points) in [(70.0, 3), (71.0, 2), (80.0, 2), (81.0, 1), (100.0, 1), (101.0, 0), (199.0, 0), (200.0, 2)] {
            assert_eq!(well(sbp, 80.0, 12.0, 37.0), Some(points), "sbp {sbp}");
        }
        for (hr, points) in
            [(40.0, 2), (41.0, 1), (50.0, 1), (51.0, 0), (100.0, 0), (101.0, 1), (110.0, 1), (111.0, 2), (129.0, 2), (130.0, 3)]
        {
            assert_eq!(well(120.0, hr, 12.0, 37.0), Some(points), "heart rate {hr}");
        }
        for (rr, points) in [(8.0, 2), (9.0, 0), (14.0, 0), (15.0, 1), (20.0, 1), (21.0, 2), (29.0, 2), (30.0, 3)] {
            assert_eq!(well(120.0, 80.0, rr, 37.0), Some(points), "respiration {rr}");
        }
        for (t, points) in [(34.9, 2), (35.0, 0), (38.4, 0), (38.5, 2)] {
            assert_eq!(well(120.0, 80.0, 12.0, t), Some(points), "temperature {t}");
        }
        for (level, points) in [(Acvpu::Alert, 0), (Acvpu::Voice, 1), (Acvpu::Pain, 2), (Acvpu::Unresponsive, 3)] {
            assert_eq!(total(120.0, 80.0, 12.0, 37.0, level), Some(points), "{level:?}");
        }
        assert_eq!(total(60.0, 150.0, 40.0, 40.0, Acvpu::Unresponsive), Some(14));
    }

    #[test]
    fn missing_gives_bounds() {
        let score = mews_subbe(&MewsInput { heart_rate: Some(130.0), ..MewsInput::default() });
        assert_eq!((score.total, score.score_min, score.score_max, score.missing.len()), (None, 3, 14, 4));
    }
}
