//! Patterns against plain backtracking, under any cut, interleaving and restart; and what bounds them.

mod model;
mod parts;

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use self::model::{by_backtracking, on_time};
use self::parts::{Case, Inverse, Side, at_least, below, chain, less, one, operator, repeat, row, tally, variable};
use super::*;
use crate::stream::doubles::{How, PLAIN, Partition, Reading, Told, check_always, readings, run};
use crate::stream::{Expr, Operator, Output, StateReader, StateWriter};
use crate::time::Timestamp;

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
const TS: usize = 0;
const VALUE: usize = 1;

fn check_case(case: &Case, inputs: &[Vec<Reading>], delay: i64) -> Option<(Told, usize)> {
    let (keys, mut others) = on_time(inputs, delay);
    let mut expected: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, lives) in keys {
        let lines = lives.iter().map(|rows| by_backtracking(case, rows, &mut others)).collect::<Option<Vec<_>>>()?;
        expected.insert(key, lines.concat());
    }
    let partitions: Vec<Partition> = inputs.iter().enumerate().map(|(p, readings)| Partition::new(p as i32, delay, readings)).collect();
    let told = check_always(&|| chain(case), &partitions, inputs.len() > 1);
    let mut found: BTreeMap<&str, Vec<String>> = expected.keys().map(|key| (*key, Vec::new())).collect();
    for line in &told.rows {
        found.get_mut(line.split(' ').next().unwrap()).unwrap().push(line.clone());
    }
    assert_eq!(found, expected, "{case:?}");
    let mut told_of = told.others.clone();
    told_of.sort();
    others.sort();
    assert_eq!(told_of, others, "{case:?}");
    let rows = told.rows.len();
    Some((told, rows))
}

fn any_pattern(chance: &mut ChaCha8Rng, variables: usize, depth: u32) -> Pattern {
    match chance.random_range(0..if depth == 0 { 1 } else { 5 }) {
        0 => one(chance.random_range(0..variables)),
        1 | 2 => Pattern::Sequence((0..chance.random_range(1..4)).map(|_| any_pattern(chance, variables, depth - 1)).collect()),
        3 => Pattern::Either((0..chance.random_range(2..4)).map(|_| any_pattern(chance, variables, depth - 1)).collect()),
        _ => {
            let least = chance.random_range(0..3);
            let most = chance.random_bool(0.5).then(|| least + chance.random_range(0..3));
            repeat(any_pattern(chance, variables, depth - 1), least, most, chance.random_bool(0.4))
        }
    }
}

fn any_condition(chance: &mut ChaCha8Rng, own: usize, variables: usize) -> PatternVariable {
    let name = ["a", "b", "c", "d"][own];
    let other = chance.random_bool(0.7).then(|| chance.random_range(0..variables));
    let from = if chance.random_bool(0.5) { PatternEnd::First } else { PatternEnd::Last };
    let current = row(Some(own), PatternEnd::Last, 0, 0);
    let limit = f64::from(chance.random_range(0..40_i32)) / 4.0;
    let local = match chance.random_range(0..7) {
        0 => Some(below(limit)),
        1 => Some(at_least(limit)),
        2 => Some(less(vec![current.clone(), row(None, PatternEnd::Last, 0, chance.random_range(1..3))], Side::Read(0), Side::Read(1))),
        _ => None,
    };
    let history = match chance.random_range(0..10) {
        0 => Some(less(vec![current, row(other, from, chance.random_range(0..3), 0)], Side::Read(0), Side::Read(1))),
        1 => {
            Some(less(vec![row(other, from, chance.random_range(0..2), chance.random_range(0..2)), current], Side::Read(0), Side::Read(1)))
        }
        2 => Some(less(
            vec![tally(TallyFunction::Count, other, false)],
            Side::Read(0),
            Side::Number(f64::from(chance.random_range(1..6_i32))),
        )),
        3 => Some(less(vec![tally(TallyFunction::Avg, other, false)], Side::Read(0), Side::Number(limit))),
        4 => {
            Some(less(vec![tally(TallyFunction::Sum, other, false), tally(TallyFunction::Max, None, false)], Side::Read(1), Side::Read(0)))
        }
        _ => None,
    };
    variable(name, local, history)
}

/// The same readings with silences between them, of a day and a little less or more.
fn with_silences(chance: &mut ChaCha8Rng, readings: Vec<Reading>) -> Vec<Reading> {
    let mut shift = 0;
    let mut later = |(key, at, value): Reading| {
        if chance.random_bool(0.08) {
            shift += DAY + chance.random_range(-60..=60);
        }
        (key, at.map(|at| at + shift), value)
    };
    readings.into_iter().map(&mut later).collect()
}

/// `SEEDS=5000` tries more.
#[test]
fn any_pattern_finds_what_plain_backtracking_finds() {
    let seeds = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let from = std::env::var("SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let (mut tried, mut rows, mut matching) = (0_u64, 0, 0);
    for seed in from..from + seeds {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let variables = chance.random_range(1..=4);
        let pattern = any_pattern(&mut chance, variables, 3);
        if pattern.least_rows() == 0 {
            continue;
        }
        let skip = match chance.random_range(0..4) {
            0 => PatternSkip::ToNextRow,
            1 => PatternSkip::ToFirst(chance.random_range(0..variables)),
            2 => PatternSkip::ToLast(chance.random_range(0..variables)),
            _ => PatternSkip::PastLastRow,
        };
        let all_rows = chance.random_bool(0.3);
        let case = Case {
            pattern,
            variables: (0..variables).map(|own| any_condition(&mut chance, own, variables)).collect(),
            within_ms: chance.random_bool(0.5).then(|| chance.random_range(0..400)),
            skip,
            all_rows,
            is_final: !all_rows || chance.random_bool(0.5),
        };
        let count = chance.random_range(1..3);
        let is_silent = chance.random_bool(0.3);
        let inputs = (0..count).map(|part| {
            let readings = readings(seed * 10 + part, 60, 30, chance.random_range(0..60));
            if is_silent { with_silences(&mut chance, readings) } else { readings }
        });
        let inputs: Vec<Vec<Reading>> = inputs.collect();
        if let Some((_, found)) = check_case(&case, &inputs, 40) {
            tried += 1;
            rows += found as u64;
            matching += u64::from(found > 0);
        }
    }
    let says_enough = 2 * tried > seeds && 4 * matching > seeds && rows > 4 * seeds;
    assert!(says_enough, "{tried} patterns, {matching} of them with {rows} rows, say too little");
}

fn falling() -> Case {
    Case {
        pattern: Pattern::Sequence(vec![one(0), repeat(one(1), 1, None, false), one(2)]),
        variables: vec![
            variable("high", Some(at_least(5.0)), None),
            variable(
                "down",
                None,
                Some(less(vec![row(Some(1), PatternEnd::Last, 0, 0), row(None, PatternEnd::Last, 1, 0)], Side::Read(0), Side::Read(1))),
            ),
            variable(
                "up",
                Some(less(vec![row(None, PatternEnd::Last, 0, 1), row(None, PatternEnd::Last, 0, 0)], Side::Read(0), Side::Read(1))),
                None,
            ),
        ],
        within_ms: None,
        skip: PatternSkip::PastLastRow,
        all_rows: false,
        is_final: true,
    }
}

fn ann(readings: &[(i64, f64)]) -> Vec<Reading> {
    readings.iter().map(|(at, value)| ("ann", Some(*at), Some(*value))).collect()
}

#[test]
fn a_match_comes_out_as_soon_as_nothing_preferred_can_win() {
    let mut of = operator(&falling());
    let input = Partition::new(0, 0, &ann(&[(1, 9.0), (2, 7.0), (3, 6.0), (4, 8.0), (5, 1.0)]));
    let mut out = Output::default();
    of.rows(input.rows(), &mut out).unwrap();
    of.watermark(Timestamp(4), &mut out).unwrap();
    assert!(out.rows.is_empty(), "the row that rises has not passed the watermark");
    of.watermark(Timestamp(5), &mut out).unwrap();
    assert_eq!((out.rows.len(), out.rows[0].times.to_vec(), out.rows[0].before.to_vec()), (1, vec![4], vec![4]));
    // `high down+` may still be taken further: nothing comes out, and time is held back for no match that has ended.
    let greedy = Case { pattern: Pattern::Sequence(vec![one(0), repeat(one(1), 1, None, false)]), within_ms: Some(10), ..falling() };
    let mut of = operator(&greedy);
    let mut out = Output::default();
    of.rows(input.rows(), &mut out).unwrap();
    of.watermark(Timestamp(4), &mut out).unwrap();
    assert!(out.rows.is_empty());
    assert_eq!(out.watermark, Some(Timestamp(3)), "the match that stands ends at 3");
    assert_eq!(of.due(Timestamp(11)), Some(Timestamp(6)), "what has arrived comes first");
    of.watermark(Timestamp(5), &mut out).unwrap();
    assert_eq!((out.rows.len(), out.watermark), (1, Some(Timestamp(5))), "8 does not fall: the match is decided");
}

#[test]
fn within_is_inclusive_and_closes_by_time_alone() {
    let case = Case { pattern: Pattern::Sequence(vec![one(0), repeat(one(1), 1, None, false)]), within_ms: Some(10), ..falling() };
    let mut of = operator(&case);
    let input = Partition::new(0, 0, &ann(&[(0, 9.0), (4, 7.0), (10, 6.0)]));
    let mut out = Output::default();
    of.rows(input.rows(), &mut out).unwrap();
    of.watermark(Timestamp(10), &mut out).unwrap();
    assert_eq!(of.due(Timestamp(11)), Some(Timestamp(11)));
    of.watermark(Timestamp(11), &mut out).unwrap();
    assert_eq!(out.rows.len(), 1, "no later row can lie within 10 of the first");
    assert_eq!(out.rows[0].times.to_vec(), [10]);
}

#[test]
fn a_key_that_was_silent_for_a_day_begins_anew() {
    let inputs = vec![ann(&[
        (0, 9.0),
        (1, 7.0),
        (2, 8.0),
        (DAY + 3, 9.0),
        (DAY + 4, 7.0),
        (2 * DAY + 5, 6.0),
        (2 * DAY + 6, 9.0),
        (2 * DAY + 7, 1.0),
        (2 * DAY + 8, 3.0),
    ])];
    let (told, _) = check_case(&falling(), &inputs, 0).unwrap();
    let numbers: Vec<&str> = told.rows.iter().map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(numbers, ["1", "1"], "{told:?}");
}

#[test]
fn late_rows_go_aside_and_change_nothing() {
    let mut readings = ann(&[(0, 9.0), (100, 7.0)]);
    readings.push(("ann", Some(50), Some(1.0)));
    readings.push(("ann", None, Some(1.0)));
    readings.extend(ann(&[(110, 8.0)]));
    let (told, _) = check_case(&falling(), &[readings], 20).unwrap();
    assert_eq!(told.others, ["p0@2 late", "p0@3 late"]);
    assert_eq!(told.rows.len(), 1);
}

#[test]
fn a_row_whose_condition_fails_is_told_once_and_is_not_the_variable() {
    let value = |reads: Vec<PatternRead>| Some(PatternCondition { reads, value: Arc::new(Inverse) as Arc<dyn Expr> });
    let inputs = [Partition::new(0, 0, &ann(&[(0, 9.0), (1, 0.0), (2, 8.0), (3, 7.0), (4, 0.0)]))];
    for (local, history) in [
        (value(vec![row(None, PatternEnd::Last, 0, 0)]), None),
        (None, value(vec![PatternRead::Row { argument: VALUE, of: Some(1), from: PatternEnd::First, skip: 0, back: 0, is_final: false }])),
    ] {
        let case = Case {
            pattern: Pattern::Sequence(vec![one(0), one(1)]),
            variables: vec![variable("a", None, None), variable("b", local, history)],
            ..falling()
        };
        let told = check_always(&|| chain(&case), &inputs, false);
        let why = "could not evaluate 1 / value > 0: division by zero";
        assert_eq!(told.others, [format!("p0@1 {why}"), format!("p0@4 {why}")]);
        let ends: Vec<&str> = told.rows.iter().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(ends, ["2"], "{told:?}");
    }
}

#[test]
fn skipping_to_no_row_behind_the_first_is_told() {
    let case = Case { skip: PatternSkip::ToFirst(0), ..falling() };
    let told = check_always(&|| chain(&case), &[Partition::new(0, 0, &ann(&[(1, 9.0), (2, 7.0), (3, 6.0), (4, 8.0)]))], false);
    assert_eq!(told.rows.len(), 2, "the match at 1 and the one at 2: {told:?}");
    assert!(told.others.iter().all(|line| line.contains("AFTER MATCH SKIP has nowhere to go")), "{told:?}");
}

#[test]
fn what_grows_too_far_is_passed_over_and_told() {
    // Every row is an a, and no b ever comes.
    let endless = Case {
        pattern: Pattern::Sequence(vec![repeat(one(0), 1, None, false), one(1)]),
        variables: vec![variable("a", None, None), variable("b", Some(below(-1.0)), None)],
        ..falling()
    };
    let count = keys::MAX_ROWS as i64 + 10;
    let many: Vec<Reading> = (0..count).map(|at| ("ann", Some(at), Some(1.0))).collect();
    let input = [Partition::new(0, 0, &many)];
    let whole = run(&|| chain(&endless), &input, PLAIN);
    assert_eq!(whole.others.len(), 1, "{:?}", whole.others);
    assert!(whole.others[0].starts_with("p0@0 no match that begins with this row is decided within 65536 rows"), "{:?}", whole.others);
    let cut = run(&|| chain(&endless), &input, How { seed: 3, batch: 30_000, interrupt: false, merged: false, spill: false });
    assert_eq!(whole, cut);
    // Many optional rows, one behind the other: tens of thousands of ways on with each row.
    let dense = Case {
        pattern: Pattern::Sequence(vec![repeat(repeat(one(0), 0, Some(1), false), 350, Some(350), false), one(1)]),
        variables: vec![variable("a", None, None), variable("b", Some(below(-1.0)), None)],
        ..falling()
    };
    let told = run(&|| chain(&dense), &[Partition::new(0, 0, &many[..120])], PLAIN);
    assert_eq!(told.others.len(), 1, "{told:?}");
    assert!(told.others[0].starts_with("p0@0 a match that begins with this row is not decided in 4194304 steps"), "{told:?}");
    // Two variables that every row may be, told apart by what came before: twice as many ways with each row.
    let wide = Case {
        pattern: Pattern::Sequence(vec![repeat(Pattern::Either(vec![one(0), one(1)]), 1, None, false), one(2)]),
        variables: vec![
            variable("a", None, Some(less(vec![tally(TallyFunction::Sum, Some(0), false)], Side::Read(0), Side::Number(1e12)))),
            variable("b", None, None),
            variable("c", Some(below(-1.0)), None),
        ],
        ..falling()
    };
    let doubling: Vec<Reading> = (0..20).map(|at| ("ann", Some(at), Some(f64::from(1 << at)))).collect();
    let doubling = [Partition::new(0, 0, &doubling)];
    let told = run(&|| chain(&wide), &doubling, PLAIN);
    assert_eq!(run(&|| chain(&wide), &doubling, How { seed: 5, batch: 7, interrupt: true, merged: false, spill: false }), told);
    assert_eq!(told.others.len(), 1, "{told:?}");
    assert!(told.others[0].starts_with("p0@0 a match that begins with this row can go on in more than 4096 ways"), "{told:?}");
}

#[test]
fn nested_quantifiers_cost_what_flat_ones_do() {
    // Every row but the last may be an a or a b: plain backtracking would try 2^n ways before it finds that no c comes.
    let optional = |of: Pattern| repeat(of, 0, None, false);
    let nested = optional(Pattern::Sequence(vec![optional(one(0)), optional(one(1))]));
    let case = Case {
        pattern: Pattern::Sequence(vec![optional(nested), one(2)]),
        variables: vec![
            variable("a", Some(at_least(0.0)), None),
            variable("b", Some(at_least(0.0)), None),
            variable("c", Some(below(-1.0)), None),
        ],
        ..falling()
    };
    let count = 20_000;
    let mut many: Vec<Reading> = (0..count).map(|at| ("ann", Some(at), Some(1.0))).collect();
    many.push(("ann", Some(count), Some(-2.0)));
    let mut of = operator(&case);
    let mut out = Output::default();
    of.rows(Partition::new(0, 0, &many).rows(), &mut out).unwrap();
    of.watermark(Timestamp(count), &mut out).unwrap();
    assert!(out.rows.is_empty() && out.failed.is_empty());
    assert!(of.state_bytes() < 8_000_000, "{} bytes for {count} rows", of.state_bytes());
    of.watermark(Timestamp(count + 1), &mut out).unwrap();
    assert_eq!((out.rows.len(), out.rows[0].len(), out.rows[0].times.to_vec()), (1, 1, vec![count]));
}

#[test]
fn rows_are_let_go_of_as_time_goes_on() {
    let case = Case { within_ms: Some(100), ..falling() };
    let mut of = operator(&case);
    let (mut most, mut out) = (0, Output::default());
    for minute in 0..200 {
        let readings: Vec<Reading> = (0..500).map(|at| ("ann", Some(minute * 500 + at), Some(f64::from(at as i32 % 7)))).collect();
        let input = Partition::new(0, 0, &readings);
        of.rows(input.rows(), &mut out).unwrap();
        of.watermark(Timestamp(minute * 500 + 500), &mut out).unwrap();
        most = most.max(of.state_bytes());
    }
    assert!(most < 4_000_000, "{most} bytes for 100 rows");
    of.watermark(Timestamp(3 * DAY), &mut out).unwrap();
    let mut state = StateWriter::default();
    of.save(&mut state).unwrap();
    assert_eq!(state.parts.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["mark"]);
    let mut again = operator(&case);
    again.restore(&StateReader::of(state.parts)).unwrap();
    assert!(again.state_bytes() < 1000);
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let (mut of, mut out) = (operator(&falling()), Output::default());
    of.rows(Partition::new(0, 0, &ann(&[(1, 9.0), (2, 7.0)])).rows(), &mut out).unwrap();
    of.watermark(Timestamp(10), &mut out).unwrap();
    let mut state = StateWriter::default();
    of.save(&mut state).unwrap();
    for gone in 0..state.parts.len() {
        let mut parts = state.parts.clone();
        let (name, _) = parts.remove(gone);
        let restored = operator(&falling()).restore(&StateReader::of(parts));
        // Without keys there is nothing to restore.
        assert!(restored.is_err() || name == "numbers", "without {name}");
    }
}
