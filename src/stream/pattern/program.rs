//! A row pattern and the instructions it becomes.
//!
//! Owns [`Pattern`], as the query says it, and [`Program`], which the matcher follows. Quantifiers with numbers are unrolled, so that
//! where one stands in the program says all about how often something was taken. Always: from each place the rows
//! that may be taken next are known beforehand, the preferred first, and what stands behind the end of the pattern in
//! that order is left out, for it can never win.

use crate::stream::StreamError;

/// A pattern may have this many steps when its quantifiers are unrolled.
pub(super) const MAX_STEPS: usize = 4096;
/// So many ways on there may be, over all steps.
const MAX_WAYS_ON: usize = 1 << 16;

/// In place of a step: the pattern is complete.
pub(super) const DONE: u32 = u32::MAX;

/// A pattern over variables, which are known by their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Pattern {
    /// One row that is the variable.
    Variable(usize),
    /// One behind the other.
    Sequence(Vec<Self>),
    /// One of them, an earlier one rather than a later one.
    Either(Vec<Self>),
    /// Again and again.
    Repeat {
        /// What.
        of: Box<Self>,
        /// At least so often.
        least: u32,
        /// At most so often; `None` without end.
        most: Option<u32>,
        /// Rather less often than more.
        reluctant: bool,
    },
}

impl Pattern {
    /// How many rows it takes at least.
    #[must_use]
    pub fn least_rows(&self) -> u64 {
        match self {
            Self::Variable(_) => 1,
            Self::Sequence(parts) => parts.iter().fold(0, |sum, part| sum.saturating_add(part.least_rows())),
            Self::Either(parts) => parts.iter().map(Self::least_rows).min().unwrap_or(0),
            Self::Repeat { of, least, .. } => of.least_rows().saturating_mul(u64::from(*least)),
        }
    }

    /// Whether it can be followed.
    pub fn check(&self) -> Result<(), StreamError> {
        Program::new(self).map(|_| ())
    }

    /// Which variables the last row of a match may be, a bit each.
    #[must_use]
    pub fn last_variables(&self) -> u64 {
        self.edge(true)
    }

    /// Which variables the first row of a match may be, a bit each.
    #[must_use]
    pub fn first_variables(&self) -> u64 {
        self.edge(false)
    }

    fn edge(&self, last: bool) -> u64 {
        match self {
            Self::Variable(variable) => 1 << (variable % 64),
            Self::Sequence(parts) => {
                let mut found = 0;
                let inward: Box<dyn Iterator<Item = &Self>> = if last { Box::new(parts.iter().rev()) } else { Box::new(parts.iter()) };
                for part in inward {
                    found |= part.edge(last);
                    if part.least_rows() > 0 {
                        break;
                    }
                }
                found
            }
            Self::Either(parts) => parts.iter().fold(0, |found, part| found | part.edge(last)),
            Self::Repeat { most: Some(0), .. } => 0,
            Self::Repeat { of, .. } => of.edge(last),
        }
    }

    /// How many steps it unrolls to.
    fn size(&self) -> usize {
        match self {
            Self::Variable(_) => 1,
            Self::Sequence(parts) => parts.iter().fold(0, |sum, part| sum.saturating_add(part.size())),
            Self::Either(parts) => parts.iter().fold(0, |sum, part| sum.saturating_add(part.size()).saturating_add(2)),
            Self::Repeat { of, least, most, .. } => {
                let size = of.size();
                let always = size.saturating_mul(*least as usize);
                let more = match most {
                    None => size.saturating_add(2),
                    Some(most) => (most.saturating_sub(*least) as usize).saturating_mul(size.saturating_add(1)),
                };
                always.saturating_add(more)
            }
        }
    }
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Take a row that is the variable.
    Take(u8),
    /// Go on at both, the first preferred.
    Split(u32, u32),
    /// Go on there.
    Jump(u32),
}

/// A pattern as instructions.
#[derive(Debug)]
pub(super) struct Program {
    steps: Vec<Step>,
    /// For each step that takes a row: the steps that may take the next one.
    on: Vec<Vec<u32>>,
    first: Vec<u32>,
    /// How many rows a match has at least.
    pub least_rows: u64,
}

impl Program {
    pub(super) fn new(pattern: &Pattern) -> Result<Self, StreamError> {
        if pattern.least_rows() == 0 {
            return Err(StreamError::Limit("PATTERN can match without a row".to_owned()));
        }
        let size = pattern.size();
        if size > MAX_STEPS {
            return Err(StreamError::Limit(format!("PATTERN has more than {MAX_STEPS} steps when its quantifiers are written out")));
        }
        let mut steps = Vec::with_capacity(size);
        emit(pattern, &mut steps);
        let mut scratch = vec![false; steps.len()];
        let first = ways_on(&steps, 0, &mut scratch);
        let (mut on, mut all) = (Vec::with_capacity(steps.len()), 0);
        for (at, step) in steps.iter().enumerate() {
            let ways = if matches!(step, Step::Take(_)) { ways_on(&steps, at + 1, &mut scratch) } else { Vec::new() };
            all += ways.len();
            if all > MAX_WAYS_ON {
                return Err(StreamError::Limit(
                    "PATTERN has too many ways to go on; write fewer optional parts behind one another".to_owned(),
                ));
            }
            on.push(ways);
        }
        Ok(Self { steps, on, first, least_rows: pattern.least_rows() })
    }

    /// How many steps there are.
    pub(super) const fn len(&self) -> usize {
        self.steps.len()
    }

    /// The variable that a step takes.
    pub(super) fn variable(&self, step: u32) -> u8 {
        match self.steps[step as usize] {
            Step::Take(variable) => variable,
            Step::Split(..) | Step::Jump(_) => unreachable!("only steps that take a row are stood at"),
        }
    }

    /// The steps that may take the first row, the preferred first.
    pub(super) fn first(&self) -> &[u32] {
        &self.first
    }

    /// What may come when a step has taken its row, the preferred first; [`DONE`] stands last.
    pub(super) fn on(&self, step: u32) -> &[u32] {
        &self.on[step as usize]
    }
}

fn emit(pattern: &Pattern, steps: &mut Vec<Step>) {
    match pattern {
        Pattern::Variable(variable) => steps.push(Step::Take(*variable as u8)),
        Pattern::Sequence(parts) => parts.iter().for_each(|part| emit(part, steps)),
        Pattern::Either(parts) => {
            let mut ends = Vec::with_capacity(parts.len());
            for (number, part) in parts.iter().enumerate() {
                let split = (number + 1 < parts.len()).then(|| begin(steps));
                emit(part, steps);
                if let Some(split) = split {
                    ends.push(begin(steps));
                    steps[split] = Step::Split(split as u32 + 1, steps.len() as u32);
                }
            }
            for end in ends {
                steps[end] = Step::Jump(steps.len() as u32);
            }
        }
        Pattern::Repeat { of, least, most, reluctant } => {
            for _ in 0..*least {
                emit(of, steps);
            }
            let split = |more: usize, end: usize| {
                if *reluctant { Step::Split(end as u32, more as u32) } else { Step::Split(more as u32, end as u32) }
            };
            match most {
                Some(most) => {
                    let mut splits = Vec::new();
                    for _ in *least..*most {
                        splits.push(begin(steps));
                        emit(of, steps);
                    }
                    for at in splits {
                        steps[at] = split(at + 1, steps.len());
                    }
                }
                // A round that takes no row is the last one: so `x*` of such an x is `(x+)?`.
                None if of.least_rows() == 0 => {
                    let outer = begin(steps);
                    emit(of, steps);
                    let again = begin(steps);
                    steps[again] = split(outer + 1, again + 1);
                    steps[outer] = split(outer + 1, again + 1);
                }
                None => {
                    let at = begin(steps);
                    emit(of, steps);
                    steps.push(Step::Jump(at as u32));
                    steps[at] = split(at + 1, steps.len());
                }
            }
        }
    }
}

/// Room for a step that is known later.
fn begin(steps: &mut Vec<Step>) -> usize {
    steps.push(Step::Jump(0));
    steps.len() - 1
}

/// The steps that take a row and are reached from `from` without taking one.
fn ways_on(steps: &[Step], from: usize, seen: &mut [bool]) -> Vec<u32> {
    let (mut todo, mut visited, mut found) = (vec![from], Vec::new(), Vec::new());
    while let Some(at) = todo.pop() {
        let Some(step) = steps.get(at) else {
            found.push(DONE);
            break;
        };
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        visited.push(at);
        match *step {
            Step::Take(_) => found.push(at as u32),
            Step::Jump(to) => todo.push(to as usize),
            Step::Split(first, second) => todo.extend([second as usize, first as usize]),
        }
    }
    for at in visited {
        seen[at] = false;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(number: usize) -> Pattern {
        Pattern::Variable(number)
    }

    fn repeat(of: Pattern, least: u32, most: Option<u32>, reluctant: bool) -> Pattern {
        Pattern::Repeat { of: Box::new(of), least, most, reluctant }
    }

    /// The variables that may be first, in order; `.` for the end.
    fn shown(program: &Program, ways: &[u32]) -> String {
        ways.iter().map(|step| if *step == DONE { '.' } else { char::from(b'a' + program.variable(*step)) }).collect()
    }

    #[test]
    fn the_preferred_way_stands_first_and_nothing_behind_the_end() {
        let program = |pattern: &Pattern| Program::new(pattern).unwrap();
        let greedy = program(&Pattern::Sequence(vec![variable(0), repeat(variable(1), 0, None, false), variable(2)]));
        assert_eq!(shown(&greedy, greedy.first()), "a");
        assert_eq!(shown(&greedy, greedy.on(0)), "bc");
        let reluctant = program(&Pattern::Sequence(vec![variable(0), repeat(variable(1), 0, None, true)]));
        assert_eq!(shown(&reluctant, reluctant.on(0)), ".");
        let either = program(&Pattern::Either(vec![variable(2), variable(0), variable(1)]));
        assert_eq!(shown(&either, either.first()), "cab");
        let counted = program(&repeat(variable(0), 2, Some(4), false));
        assert_eq!((shown(&counted, counted.on(0)), shown(&counted, counted.on(1))), ("a".to_owned(), "a.".to_owned()));
    }

    #[test]
    fn what_matches_nothing_or_is_too_long_is_refused() {
        for pattern in [repeat(variable(0), 0, None, false), Pattern::Either(vec![variable(0), Pattern::Sequence(Vec::new())])] {
            assert!(Program::new(&pattern).unwrap_err().to_string().contains("without a row"));
        }
        let long = repeat(repeat(variable(0), 100, Some(100), false), 100, None, false);
        assert!(Program::new(&long).unwrap_err().to_string().contains("4096 steps"));
        let optional = repeat(repeat(variable(0), 0, Some(1), false), 400, Some(400), false);
        let dense = Pattern::Sequence(vec![optional, variable(1)]);
        assert!(Program::new(&dense).unwrap_err().to_string().contains("too many ways to go on"));
    }

    #[test]
    fn what_stands_at_the_edges_is_known() {
        let optional = repeat(variable(2), 0, Some(1), false);
        let pattern = Pattern::Sequence(vec![optional.clone(), variable(0), variable(1), optional]);
        assert_eq!((pattern.first_variables(), pattern.last_variables(), pattern.least_rows()), (0b101, 0b110, 2));
    }
}
