//! Quantities that follow from two or three measured ones. `None` where an input is missing, not finite, or makes no sense.

fn both(a: Option<f64>, b: Option<f64>) -> Option<(f64, f64)> {
    a.zip(b).filter(|(a, b)| a.is_finite() && b.is_finite())
}

fn ratio(of: Option<f64>, over: Option<f64>) -> Option<f64> {
    both(of, over).filter(|(_, over)| *over > 0.0).map(|(of, over)| of / over)
}

/// Mean arterial pressure from systolic and diastolic: `(sbp + 2 dbp) / 3`. Where the device measures a mean, that is better.
#[must_use]
pub fn map_from(sbp: Option<f64>, dbp: Option<f64>) -> Option<f64> {
    both(sbp, dbp).map(|(sbp, dbp)| (sbp + 2.0 * dbp) / 3.0)
}

/// Shock index, heart rate over systolic pressure; normal 0.5-0.7, raised from 0.9 (Koch 2019, doi 10.2147/OAEM.S178358).
#[must_use]
pub fn shock_index(heart_rate: Option<f64>, sbp: Option<f64>) -> Option<f64> {
    ratio(heart_rate, sbp)
}

/// Modified shock index, heart rate over mean pressure; cut-off 1.3 (Liu 2012, PMC4129788).
#[must_use]
pub fn modified_shock_index(heart_rate: Option<f64>, map: Option<f64>) -> Option<f64> {
    ratio(heart_rate, map)
}

/// Age shock index, age in years times the shock index; cut-off 50 (Sotello 2019, doi 10.12746/swrccc.v7i28.539).
#[must_use]
pub fn age_shock_index(age: Option<f64>, heart_rate: Option<f64>, sbp: Option<f64>) -> Option<f64> {
    both(age, shock_index(heart_rate, sbp)).map(|(age, index)| age * index)
}

/// Pulse pressure, systolic less diastolic.
#[must_use]
pub fn pulse_pressure(sbp: Option<f64>, dbp: Option<f64>) -> Option<f64> {
    both(sbp, dbp).map(|(sbp, dbp)| sbp - dbp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_follow_their_formulas_and_never_divide_by_nothing() {
        assert_eq!(map_from(Some(120.0), Some(75.0)), Some(90.0));
        assert_eq!(shock_index(Some(90.0), Some(100.0)), Some(0.9));
        assert_eq!(shock_index(Some(90.0), Some(0.0)), None);
        assert_eq!(shock_index(Some(f64::NAN), Some(100.0)), None);
        assert_eq!(modified_shock_index(Some(130.0), Some(100.0)), Some(1.3));
        assert_eq!(age_shock_index(Some(50.0), Some(100.0), Some(100.0)), Some(50.0));
        assert_eq!(pulse_pressure(Some(120.0), None), None);
    }
}
