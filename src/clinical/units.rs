//! Conversions between the units that devices and charts use.

/// Fahrenheit to Celsius.
#[must_use]
pub fn f_to_c(fahrenheit: f64) -> f64 {
    (fahrenheit - 32.0) * 5.0 / 9.0
}

/// Kilopascal to millimetres of mercury (1 kPa = 7.50062 mmHg).
#[must_use]
pub fn kpa_to_mmhg(kilopascal: f64) -> f64 {
    kilopascal * 7.500_62
}

/// Glucose from mmol/L to mg/dL (molar mass 180.16 g/mol). For glucose only.
#[must_use]
pub fn mgdl_from_mmoll(mmol_per_litre: f64) -> f64 {
    mmol_per_litre * 18.016
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_points() {
        assert!((f_to_c(98.6) - 37.0).abs() < 1e-9);
        assert!((kpa_to_mmhg(13.332_2) - 100.0).abs() < 0.001);
        assert!((mgdl_from_mmoll(5.0) - 90.08).abs() < 1e-9);
    }
}
