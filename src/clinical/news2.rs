//! NEWS2, the National Early Warning Score 2 of the Royal College of Physicians (London 2017).
//!
//! | parameter | 3 | 2 | 1 | 0 | 1 | 2 | 3 |
//! |---|---|---|---|---|---|---|---|
//! | respiration rate /min | <=8 | | 9-11 | 12-20 | | 21-24 | >=25 |
//! | SpO2 scale 1 % | <=91 | 92-93 | 94-95 | >=96 | | | |
//! | SpO2 scale 2 % | <=83 | 84-85 | 86-87 | 88-92, or >=93 on air | 93-94 on O2 | 95-96 on O2 | >=97 on O2 |
//! | air or oxygen | | O2 | | air | | | |
//! | systolic pressure mmHg | <=90 | 91-100 | 101-110 | 111-219 | | | >=220 |
//! | pulse /min | <=40 | | 41-50 | 51-90 | 91-110 | 111-130 | >=131 |
//! | consciousness | | | | A | | | C V P U |
//! | temperature Cel | <=35.0 | | 35.1-36.0 | 36.1-38.0 | 38.1-39.0 | >=39.1 | |
//!
//! Aggregate risk: 0-4 low, any single 3 with a total below 5 low-medium, 5-6 medium, 7 and more high. Age 16 and
//! over, not pregnant. Charts hold whole numbers, temperatures one decimal: values are rounded half up before banding, so
//! that 38.05 is not lost between two bands. Scale 2 is prescribed by a clinician, per patient, and never inferred.

use super::{half_up, half_up_tenth};

/// Level of consciousness: alert, new confusion, voice, pain, unresponsive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Acvpu {
    /// Alert.
    Alert,
    /// New confusion.
    Confusion,
    /// Responds to voice.
    Voice,
    /// Responds to pain.
    Pain,
    /// Unresponsive.
    Unresponsive,
}

impl Acvpu {
    /// Reads the chart's letter or its word. Anything else is not known, and so missing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let words = [
            ("A", "alert", Self::Alert),
            ("C", "confusion", Self::Confusion),
            ("V", "voice", Self::Voice),
            ("P", "pain", Self::Pain),
            ("U", "unresponsive", Self::Unresponsive),
        ];
        let text = text.trim();
        words
            .iter()
            .find(|(letter, word, _)| text.eq_ignore_ascii_case(letter) || text.eq_ignore_ascii_case(word))
            .map(|(.., level)| *level)
    }
}

/// The seven parameters, each as last known; `None` where it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct News2Input {
    /// Breaths a minute.
    pub resp_rate: Option<f64>,
    /// Saturation in per cent.
    pub spo2: Option<f64>,
    /// Breathing extra oxygen.
    pub on_oxygen: Option<bool>,
    /// The SpO2 scale that is prescribed: 1, or 2 for a target of 88-92 %. Not known is scale 1, which is everyone's unless
    /// a clinician has said otherwise; any other number is not a scale, and the saturation cannot be scored.
    pub spo2_scale: Option<i32>,
    /// mmHg.
    pub sbp: Option<f64>,
    /// Beats a minute.
    pub heart_rate: Option<f64>,
    /// Level of consciousness.
    pub consciousness: Option<Acvpu>,
    /// Degrees Celsius.
    pub temp_c: Option<f64>,
}

/// Points by parameter; `None` where the parameter is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News2Points {
    /// Respiration rate.
    pub resp_rate: Option<u8>,
    /// Saturation, on the prescribed scale.
    pub spo2: Option<u8>,
    /// Air or oxygen.
    pub oxygen: Option<u8>,
    /// Systolic pressure.
    pub sbp: Option<u8>,
    /// Pulse.
    pub heart_rate: Option<u8>,
    /// Consciousness.
    pub consciousness: Option<u8>,
    /// Temperature.
    pub temperature: Option<u8>,
}

/// The clinical risk that a total stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Risk {
    /// 0-4.
    Low,
    /// A single parameter of 3, with a total below 5.
    LowMedium,
    /// 5-6.
    Medium,
    /// 7 and more.
    High,
}

impl Risk {
    /// The word, as the chart has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::LowMedium => "low-medium",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// A score: the total where everything is known, bounds where not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News2Score {
    /// The total; `None` while anything is missing.
    pub total: Option<u8>,
    /// The points of each parameter.
    pub points: News2Points,
    /// Whether a known parameter scores 3 by itself.
    pub single3: bool,
    /// The risk; with something missing only where every possible total means the same.
    pub risk: Option<Risk>,
    /// Whether all seven are known.
    pub complete: bool,
    /// The names of those that are not.
    pub missing: Vec<&'static str>,
    /// The least total that the missing ones allow.
    pub score_min: u8,
    /// The greatest total that they allow.
    pub score_max: u8,
}

/// Scores.
#[must_use]
pub fn news2(input: &News2Input) -> News2Score {
    let points = News2Points {
        resp_rate: finite(input.resp_rate).map(resp_rate),
        spo2: saturation(input),
        oxygen: input.on_oxygen.map(|on| if on { 2 } else { 0 }),
        sbp: finite(input.sbp).map(systolic),
        heart_rate: finite(input.heart_rate).map(pulse),
        consciousness: input.consciousness.map(|level| if level == Acvpu::Alert { 0 } else { 3 }),
        temperature: finite(input.temp_c).map(temperature),
    };
    // Each parameter with the least and the most it could score where it is missing. Saturation and oxygen stand
    // together: with one of them known, the other cannot be everything.
    let (saturation_least, saturation_most) = saturation_bounds(input);
    let all: [(&'static str, Option<u8>, u8, u8); 7] = [
        ("resp_rate", points.resp_rate, 0, 3),
        ("spo2", points.spo2, saturation_least, saturation_most),
        ("on_oxygen", points.oxygen, 0, 2),
        ("sbp", points.sbp, 0, 3),
        ("heart_rate", points.heart_rate, 0, 3),
        ("acvpu", points.consciousness, 0, 3),
        ("temp_c", points.temperature, 0, 3),
    ];
    let missing: Vec<&'static str> = all.iter().filter(|(_, p, ..)| p.is_none()).map(|(name, ..)| *name).collect();
    let least: u8 = all.iter().map(|(_, p, least, _)| p.unwrap_or(*least)).sum();
    let most: u8 = all.iter().map(|(_, p, _, most)| p.unwrap_or(*most)).sum();
    // The oxygen item is at most 2: a 3 is always a parameter of the body.
    let single3 = all.iter().any(|(_, p, ..)| *p == Some(3));
    let may_be_single3 = all.iter().any(|(_, p, _, most)| p.unwrap_or(*most) == 3);
    let complete = missing.is_empty();
    // More points never mean less risk, so where both ends agree, all between them do.
    let (lowest, highest) = (risk_of(least, single3), risk_of(most, may_be_single3));
    News2Score {
        total: complete.then_some(least),
        points,
        single3,
        risk: (lowest == highest).then_some(lowest),
        complete,
        missing,
        score_min: least,
        score_max: most,
    }
}

/// What saturation could score as far as is known of it.
fn saturation_bounds(input: &News2Input) -> (u8, u8) {
    if finite(input.spo2).is_none() || !matches!(input.spo2_scale, None | Some(1 | 2)) {
        return (0, 3);
    }
    let on = |on_oxygen| saturation(&News2Input { on_oxygen: Some(on_oxygen), ..*input }).unwrap_or(0);
    match input.on_oxygen {
        Some(known) => (on(known), on(known)),
        None => (on(false).min(on(true)), on(false).max(on(true))),
    }
}

/// A NaN from a device is no value.
fn finite(value: Option<f64>) -> Option<f64> {
    value.filter(|v| v.is_finite())
}

const fn risk_of(total: u8, single3: bool) -> Risk {
    match total {
        7.. => Risk::High,
        5..=6 => Risk::Medium,
        _ if single3 => Risk::LowMedium,
        _ => Risk::Low,
    }
}

fn resp_rate(value: f64) -> u8 {
    match half_up(value) {
        v if v <= 8.0 => 3,
        v if v <= 11.0 => 1,
        v if v <= 20.0 => 0,
        v if v <= 24.0 => 2,
        _ => 3,
    }
}

/// Scale 2 depends on whether the patient breathes oxygen from 93 % on; without that knowledge it cannot be scored there.
fn saturation(input: &News2Input) -> Option<u8> {
    let value = half_up(finite(input.spo2)?);
    match input.spo2_scale.unwrap_or(1) {
        1 => Some(match value {
            v if v <= 91.0 => 3,
            v if v <= 93.0 => 2,
            v if v <= 95.0 => 1,
            _ => 0,
        }),
        2 => match value {
            v if v <= 83.0 => Some(3),
            v if v <= 85.0 => Some(2),
            v if v <= 87.0 => Some(1),
            v if v <= 92.0 => Some(0),
            v => input.on_oxygen.map(|on| match v {
                _ if !on => 0,
                v if v <= 94.0 => 1,
                v if v <= 96.0 => 2,
                _ => 3,
            }),
        },
        _ => None,
    }
}

fn systolic(value: f64) -> u8 {
    match half_up(value) {
        v if v <= 90.0 => 3,
        v if v <= 100.0 => 2,
        v if v <= 110.0 => 1,
        v if v <= 219.0 => 0,
        _ => 3,
    }
}

fn pulse(value: f64) -> u8 {
    match half_up(value) {
        v if v <= 40.0 => 3,
        v if v <= 50.0 => 1,
        v if v <= 90.0 => 0,
        v if v <= 110.0 => 1,
        v if v <= 130.0 => 2,
        _ => 3,
    }
}

fn temperature(value: f64) -> u8 {
    match half_up_tenth(value) {
        v if v <= 35.0 => 3,
        v if v <= 36.0 => 1,
        v if v <= 38.0 => 0,
        v if v <= 39.0 => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Published test cases, worked examples and band edges, each agreed on by three independent implementations: id, breathing,
    /// saturation, air or oxygen, scale, systolic, pulse, consciousness, temperature, points, total, single 3, risk.
    const VECTORS: &str = "\
K1,16,98,air,1,120,80,A,37.0,0/0/0/0/0/0/0,0,n,low
K2,18,90,O2,1,100,100,V,36.5,0/3/2/2/1/3/0,11,y,high
K3,7,80,O2,1,85,140,U,34.5,3/3/2/3/3/3/3,20,y,high
K4,22,98,air,1,120,80,A,37.0,2/0/0/0/0/0/0,2,n,low
K5,16,100,O2,2,120,80,A,37.0,0/3/2/0/0/0/0,5,y,medium
K6,16,90,air,2,120,80,A,37.0,0/0/0/0/0/0/0,0,n,low
K7,22,94,O2,1,105,45,C,35.5,2/1/2/1/1/3/1,11,y,high
K8,10,98,air,1,120,95,A,38.5,1/0/0/0/1/0/1,3,n,low
K9,16,98,air,1,120,35,A,37.0,0/0/0/0/3/0/0,3,y,low-medium
K10,22,98,air,1,95,95,A,37.0,2/0/0/2/1/0/0,5,n,medium
K11,26,98,air,1,95,115,A,37.0,3/0/0/2/2/0/0,7,y,high
T1,22,94,O2,1,105,85,A,37.0,2/1/2/1/0/0/0,6,n,medium
T2,15,85,O2,2,95,100,A,36.5,0/2/2/2/1/0/0,7,n,high
N3,18,90,air,1,120,75,A,36.5,0/3/0/0/0/0/0,3,y,low-medium
N5,18,98,air,1,120,75,C,36.5,0/0/0/0/0/3/0,3,y,low-medium
U2,20,95,air,1,105,95,A,38.2,0/1/0/1/1/0/1,4,n,low
U3,22,93,O2,1,95,110,A,38.5,2/2/2/2/1/0/1,10,n,high
U4,26,90,O2,1,85,125,A,35.5,3/3/2/3/2/0/1,14,y,high
U5,20,88,O2,2,120,80,A,37.0,0/0/2/0/0/0/0,2,n,low
U6,18,96,air,1,120,135,A,37.0,0/0/0/0/3/0/0,3,y,low-medium
U7,18,96,air,1,120,60,A,34.5,0/0/0/0/0/0/3,3,y,low-medium
S1,21,93,air,1,120,95,A,37.5,2/2/0/0/1/0/0,5,n,medium
R1,22,93,air,1,98,112,A,38.4,2/2/0/2/2/0/1,9,n,high
B1,18,97,air,2,120,75,A,36.5,0/0/0/0/0/0/0,0,n,low
B2,18,97,O2,2,120,75,A,36.5,0/3/2/0/0/0/0,5,y,medium
B3,18,93,O2,2,120,75,A,36.5,0/1/2/0/0/0/0,3,n,low
B4,18,95,O2,2,120,75,A,36.5,0/2/2/0/0/0/0,4,n,low
B5,18,83,air,2,120,75,A,36.5,0/3/0/0/0/0/0,3,y,low-medium
B6,18,87,air,2,120,75,A,36.5,0/1/0/0/0/0/0,1,n,low
B7,8,91,air,1,90,40,A,35.0,3/3/0/3/3/0/3,15,y,high
B8,9,92,air,1,91,41,A,35.1,1/2/0/2/1/0/1,7,n,high
B9,11,93,air,1,100,50,A,36.0,1/2/0/2/1/0/1,7,n,high
B10,12,94,air,1,101,51,A,36.1,0/1/0/1/0/0/0,2,n,low
B11,20,95,air,1,110,90,A,38.0,0/1/0/1/0/0/0,2,n,low
B12,21,96,air,1,111,91,A,38.1,2/0/0/0/1/0/1,4,n,low
B13,24,96,air,1,219,110,A,39.0,2/0/0/0/1/0/1,4,n,low
B14,25,96,air,1,220,111,A,39.1,3/0/0/3/2/0/2,10,y,high
B15,25,96,air,1,111,131,A,39.1,3/0/0/0/3/0/2,8,y,high
B16,4,70,O2,1,60,180,U,34.0,3/3/2/3/3/3/3,20,y,high";

    fn well() -> News2Input {
        News2Input {
            resp_rate: Some(16.0),
            spo2: Some(98.0),
            on_oxygen: Some(false),
            spo2_scale: Some(1),
            sbp: Some(120.0),
            heart_rate: Some(80.0),
            consciousness: Some(Acvpu::Alert),
            temp_c: Some(37.0),
        }
    }

    fn shown(points: &News2Points) -> String {
        let all = [points.resp_rate, points.spo2, points.oxygen, points.sbp, points.heart_rate, points.consciousness, points.temperature];
        all.map(|p| p.map_or("-".to_owned(), |p| p.to_string())).join("/")
    }

    #[test]
    fn every_published_vector_and_band_edge_is_scored_as_it_should() {
        let mut count = 0;
        for line in VECTORS.lines() {
            let f: Vec<&str> = line.split(',').collect();
            let number = |i: usize| f[i].parse::<f64>().ok();
            let input = News2Input {
                resp_rate: number(1),
                spo2: number(2),
                on_oxygen: Some(f[3] == "O2"),
                spo2_scale: f[4].parse().ok(),
                sbp: number(5),
                heart_rate: number(6),
                consciousness: Acvpu::parse(f[7]),
                temp_c: number(8),
            };
            let score = news2(&input);
            let total = score.total.expect("complete").to_string();
            let single = if score.single3 { "y" } else { "n" };
            let got = format!("{},{},{},{}", shown(&score.points), total, single, score.risk.expect("complete").as_str());
            assert_eq!(got, f[9..].join(","), "{line}");
            assert_eq!((score.score_min, score.score_max), (score.total.unwrap_or(0), score.total.unwrap_or(0)));
            count += 1;
        }
        assert_eq!(count, 39);
    }

    #[test]
    fn values_between_two_bands_are_rounded_half_up_and_not_lost() {
        let input =
            News2Input { resp_rate: Some(20.5), spo2: Some(95.5), sbp: Some(110.5), heart_rate: Some(90.5), temp_c: Some(38.05), ..well() };
        let score = news2(&input);
        assert_eq!((shown(&score.points).as_str(), score.total), ("2/0/0/0/1/0/1", Some(4)));
    }

    #[test]
    fn what_is_missing_is_never_zero_points() {
        let nothing = news2(&News2Input::default());
        assert_eq!((nothing.total, nothing.risk, nothing.score_min, nothing.score_max), (None, None, 0, 20));
        assert_eq!(nothing.missing.len(), 7);
        let one = news2(&News2Input { temp_c: None, ..well() });
        assert_eq!((one.total, one.complete, one.score_min, one.score_max), (None, false, 0, 3));
        assert_eq!(one.missing, ["temp_c"]);
        let bad = News2Input { resp_rate: Some(30.0), spo2: Some(80.0), sbp: Some(80.0), temp_c: None, ..well() };
        assert_eq!(news2(&bad).risk, Some(Risk::High), "whatever the temperature is");
        assert_eq!(news2(&News2Input { spo2: Some(f64::NAN), ..well() }).missing, ["spo2"]);
    }

    #[test]
    fn scale_two_above_its_target_needs_to_know_of_oxygen() {
        let at = |spo2, on_oxygen| news2(&News2Input { spo2: Some(spo2), spo2_scale: Some(2), on_oxygen, ..well() }).points.spo2;
        assert_eq!(at(95.0, None), None);
        assert_eq!(at(95.0, Some(true)), Some(2));
        assert_eq!(at(95.0, Some(false)), Some(0));
        assert_eq!(at(90.0, None), Some(0));
        assert_eq!(news2(&News2Input { spo2_scale: Some(3), ..well() }).points.spo2, None, "there is no scale 3");
    }

    #[test]
    fn oxygen_and_saturation_bound_each_other() {
        let at = |spo2, scale| {
            let score = news2(&News2Input { spo2: Some(spo2), spo2_scale: Some(scale), on_oxygen: None, ..well() });
            (score.score_min, score.score_max, score.risk.map(Risk::as_str), score.missing)
        };
        // On scale 1 saturation does not ask for oxygen; on scale 2 it does above the target.
        assert_eq!(at(98.0, 1), (0, 2, Some("low"), vec!["on_oxygen"]));
        assert_eq!(at(90.0, 2), (0, 2, Some("low"), vec!["on_oxygen"]));
        assert_eq!(at(93.0, 2), (0, 3, Some("low"), vec!["spo2", "on_oxygen"]));
        assert_eq!(at(96.0, 2), (0, 4, Some("low"), vec!["spo2", "on_oxygen"]));
        assert_eq!(at(97.0, 2), (0, 5, None, vec!["spo2", "on_oxygen"]));
        assert_eq!(at(97.0, 3), (0, 5, None, vec!["spo2", "on_oxygen"]));
    }

    /// Every total that the missing parameters allow lies within the bounds, both ends are reached, and a risk
    /// that is told holds for all of them.
    #[test]
    fn bounds_hold_for_everything_that_could_be_true() {
        let numbers = [(7.0, 16.0, 26.0), (80.0, 93.0, 98.0), (80.0, 120.0, 230.0), (30.0, 80.0, 140.0), (34.0, 37.0, 40.0)];
        let spo2s = [80.0, 84.0, 86.0, 90.0, 93.0, 95.0, 98.0];
        let mut inputs = Vec::new();
        for scale in [1, 2] {
            for spo2 in spo2s {
                for on_oxygen in [false, true] {
                    inputs.push(News2Input { spo2: Some(spo2), spo2_scale: Some(scale), on_oxygen: Some(on_oxygen), ..well() });
                    inputs.push(News2Input {
                        spo2: Some(spo2),
                        spo2_scale: Some(scale),
                        on_oxygen: Some(on_oxygen),
                        sbp: Some(105.0),
                        resp_rate: Some(22.0),
                        ..well()
                    });
                }
            }
        }
        for input in inputs {
            for hidden in 0..128_u32 {
                let hide = |bit: u32| hidden >> bit & 1 == 1;
                let known = News2Input {
                    resp_rate: input.resp_rate.filter(|_| !hide(0)),
                    spo2: input.spo2.filter(|_| !hide(1)),
                    on_oxygen: input.on_oxygen.filter(|_| !hide(2)),
                    spo2_scale: input.spo2_scale,
                    sbp: input.sbp.filter(|_| !hide(3)),
                    heart_rate: input.heart_rate.filter(|_| !hide(4)),
                    consciousness: input.consciousness.filter(|_| !hide(5)),
                    temp_c: input.temp_c.filter(|_| !hide(6)),
                };
                let told = news2(&known);
                let full = news2(&input);
                let total = full.total.expect("nothing is hidden");
                assert!((told.score_min..=told.score_max).contains(&total), "{known:?}: {told:?} but {total}");
                assert!(told.risk.is_none() || told.risk == full.risk, "{known:?}: {told:?} but {full:?}");
                if hidden.count_ones() == 1 && (hide(0) || hide(3) || hide(4) || hide(6)) {
                    // One vital hidden: its extremes reach both ends.
                    let at = hidden.trailing_zeros();
                    let (low, mid, high) = numbers[match at {
                        0 => 0,
                        3 => 2,
                        4 => 3,
                        _ => 4,
                    }];
                    let totals = [low, mid, high].map(|value| {
                        let mut full = known;
                        match at {
                            0 => full.resp_rate = Some(value),
                            3 => full.sbp = Some(value),
                            4 => full.heart_rate = Some(value),
                            _ => full.temp_c = Some(value),
                        }
                        news2(&full).total.expect("nothing is hidden")
                    });
                    assert_eq!(totals.iter().min(), Some(&told.score_min));
                    assert_eq!(totals.iter().max(), Some(&told.score_max));
                }
            }
        }
    }

    #[test]
    fn both_sides_of_every_limit() {
        let check = |name: &str, bands: &[(f64, u8)], of: &dyn Fn(f64) -> Option<u8>| {
            for (value, points) in bands {
                assert_eq!(of(*value), Some(*points), "{name} {value}");
            }
        };
        check(
            "resp_rate",
            &[(0.0, 3), (8.0, 3), (9.0, 1), (11.0, 1), (12.0, 0), (20.0, 0), (21.0, 2), (24.0, 2), (25.0, 3), (60.0, 3)],
            &|v| news2(&News2Input { resp_rate: Some(v), ..well() }).points.resp_rate,
        );
        check("spo2 scale 1", &[(91.0, 3), (92.0, 2), (93.0, 2), (94.0, 1), (95.0, 1), (96.0, 0), (100.0, 0)], &|v| {
            news2(&News2Input { spo2: Some(v), ..well() }).points.spo2
        });
        let target = [(83.0, 3), (84.0, 2), (85.0, 2), (86.0, 1), (87.0, 1), (88.0, 0), (92.0, 0)];
        for on_oxygen in [false, true] {
            let of = |v| news2(&News2Input { spo2: Some(v), spo2_scale: Some(2), on_oxygen: Some(on_oxygen), ..well() }).points.spo2;
            check("spo2 scale 2", &target, &of);
            let above: [(f64, u8); 6] = if on_oxygen {
                [(93.0, 1), (94.0, 1), (95.0, 2), (96.0, 2), (97.0, 3), (100.0, 3)]
            } else {
                [(93.0, 0), (94.0, 0), (95.0, 0), (96.0, 0), (97.0, 0), (100.0, 0)]
            };
            check("spo2 scale 2", &above, &of);
        }
        check("sbp", &[(90.0, 3), (91.0, 2), (100.0, 2), (101.0, 1), (110.0, 1), (111.0, 0), (219.0, 0), (220.0, 3)], &|v| {
            news2(&News2Input { sbp: Some(v), ..well() }).points.sbp
        });
        check(
            "heart_rate",
            &[(40.0, 3), (41.0, 1), (50.0, 1), (51.0, 0), (90.0, 0), (91.0, 1), (110.0, 1), (111.0, 2), (130.0, 2), (131.0, 3)],
            &|v| news2(&News2Input { heart_rate: Some(v), ..well() }).points.heart_rate,
        );
        check("temp_c", &[(35.0, 3), (35.1, 1), (36.0, 1), (36.1, 0), (38.0, 0), (38.1, 1), (39.0, 1), (39.1, 2)], &|v| {
            news2(&News2Input { temp_c: Some(v), ..well() }).points.temperature
        });
        for (letter, points) in [("A", 0), ("c", 3), ("V", 3), ("pain", 3), ("Unresponsive", 3)] {
            assert_eq!(news2(&News2Input { consciousness: Acvpu::parse(letter), ..well() }).points.consciousness, Some(points), "{letter}");
        }
        assert_eq!(Acvpu::parse("awake"), None);
    }

    /// The band table and the published cases, where they stand beside the project.
    #[test]
    fn the_reference_tables_agree_where_they_are_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/news2_vectors");
        let (Ok(bands), Ok(published)) =
            (std::fs::read_to_string(root.join("news2_bands.csv")), std::fs::read_to_string(root.join("news2_published_vectors.csv")))
        else {
            eprintln!("skipped: no reference tables beside the project");
            return;
        };
        let mut checked = 0;
        for line in bands.lines().skip(1) {
            let f: Vec<&str> = line.split(',').collect();
            let points = |input: News2Input| news2(&input).points;
            let value = f[1].parse::<f64>().ok();
            let oxygen = Some(f[2] == "oxygen");
            let got = match f[0] {
                "resp_rate" => points(News2Input { resp_rate: value, ..well() }).resp_rate,
                "spo2_scale1" => points(News2Input { spo2: value, ..well() }).spo2,
                "spo2_scale2" => points(News2Input { spo2: value, spo2_scale: Some(2), on_oxygen: oxygen, ..well() }).spo2,
                "sbp" => points(News2Input { sbp: value, ..well() }).sbp,
                "heart_rate" => points(News2Input { heart_rate: value, ..well() }).heart_rate,
                "temp_c" => points(News2Input { temp_c: value, ..well() }).temperature,
                other => panic!("unknown parameter {other}"),
            };
            assert_eq!(got.map(|p| p.to_string()).as_deref(), Some(f[3]), "{line}");
            checked += 1;
        }
        assert_eq!(checked, 777);
        let header: Vec<&str> = published.lines().next().expect("a header").split(',').collect();
        let at = |names: &[&str]| {
            header.iter().position(|h| names.contains(h)).unwrap_or_else(|| panic!("no column of {names:?} in {header:?}"))
        };
        for line in published.lines().skip(1) {
            // The name of a case may be quoted and hold commas; nothing else may.
            let (name, rest) = match line.strip_prefix('"').and_then(|quoted| quoted.split_once("\",")) {
                Some(parts) => parts,
                None => line.split_once(',').expect("columns"),
            };
            let f: Vec<&str> = std::iter::once(name).chain(rest.split(',')).collect();
            let number = |names: &[&str]| f[at(names)].parse::<f64>().ok();
            let flag = |names: &[&str]| number(names) == Some(1.0);
            let input = News2Input {
                resp_rate: number(&["resp_rate"]),
                spo2: number(&["spo2"]),
                on_oxygen: Some(flag(&["supplemental_o2"])),
                spo2_scale: Some(if flag(&["hypercapnic"]) { 2 } else { 1 }),
                sbp: number(&["sbp"]),
                heart_rate: number(&["heart_rate"]),
                consciousness: Some(if flag(&["cvpu"]) { Acvpu::Confusion } else { Acvpu::Alert }),
                temp_c: number(&["temp_c"]),
            };
            let score = news2(&input);
            let points = |given: Option<u8>| given.map(f64::from);
            assert_eq!(points(score.total), number(&["news2_expected"]), "{line}");
            assert_eq!(points(score.points.resp_rate), number(&["rr_score_expected"]), "{line}");
            assert_eq!(points(score.points.spo2), number(&["spo2_score_expected"]), "{line}");
            assert_eq!(points(score.points.sbp), number(&["sbp_score_expected"]), "{line}");
            assert_eq!(points(score.points.heart_rate), number(&["hr_score_expected"]), "{line}");
            assert_eq!(points(score.points.temperature), number(&["temp_score_expected"]), "{line}");
            assert_eq!(score.risk.map(Risk::as_str), Some(f[at(&["risk_expected"])]), "{line}");
        }
    }
}
