//! One key's attempt at a match: the ways in which the rows since its first one may be taken.
//!
//! Owns [`Attempt`]. Rows come one by one, and with each whether every way may take it. Always: the ways stand in the order of
//! preference, so that a way that completes the pattern ends all behind it, and the match is decided when none is
//! left before it; of two ways that stand at one step and remember the same, the later can never win and goes. Rows are
//! known by how far they lie behind the first. Called by `keys`.

use super::program::{DONE, Program};
use super::read::{Memory, Seen};
use crate::stream::over::Lane;

/// So many ways may be open at once.
pub(super) const MAX_WAYS: usize = 4096;

/// An attempt may take so many steps: looks whether a way takes a row, at where it may go on, and at ways like it. It links no more rows
/// than that.
pub(super) const MAX_WORK: usize = 1 << 22;

/// Room for so many links is kept from attempt to attempt.
const SPARE_LINKS: usize = 4096;

/// In place of a row or a link: none.
pub(super) const NONE: u32 = u32::MAX;

/// A way to go on.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The step that takes the next row.
    pub at: u32,
    /// What has been taken.
    trail: u32,
    /// What conditions remember of it.
    pub seen: Seen,
}

/// One row taken.
#[derive(Clone, Copy, Debug)]
struct Link {
    row: u32,
    variable: u8,
    before: u32,
}

/// A complete match.
#[derive(Clone, Copy, Debug)]
struct Best {
    trail: u32,
    /// Its last row.
    row: u32,
}

/// Whether there may be another row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Some way goes on.
    Open,
    /// None does: what has been found is the match.
    Decided,
    /// There are too many.
    TooMany,
    /// It has taken too many steps.
    TooLong,
}

/// An attempt.
#[derive(Debug, Default)]
pub(super) struct Attempt {
    pub ways: Vec<Way>,
    best: Option<Best>,
    links: Vec<Link>,
    /// At this many links those that no way needs are dropped.
    limit: usize,
    /// How many steps it has taken.
    work: usize,
}

/// Room that attempts share.
#[derive(Debug)]
pub(super) struct Scratch {
    /// To find equal ways: the newest way at each step.
    newest: Vec<u32>,
    /// For each way the one before it at its step.
    before: Vec<u32>,
    /// The ways of the row before.
    ways: Vec<Way>,
    /// For a key's answers.
    pub answers: Vec<bool>,
}

impl Scratch {
    pub(super) fn new(program: &Program) -> Self {
        Self { newest: vec![NONE; program.len()], before: Vec::new(), ways: Vec::new(), answers: Vec::new() }
    }
}

/// A row that is looked at, and where its values are.
pub(super) struct Looked<'a> {
    /// How far behind the attempt's first row.
    pub row: u32,
    pub past: u32,
    pub lanes: &'a [Lane],
}

impl Attempt {
    /// Begins anew.
    pub(super) fn begin(&mut self, program: &Program, memory: &Memory) {
        self.clear();
        self.ways.extend(program.first().iter().map(|at| Way { at: *at, trail: NONE, seen: memory.nothing() }));
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.ways.clear();
        self.best = None;
        self.links.clear();
        self.links.shrink_to(SPARE_LINKS);
        self.limit = 1024;
        self.work = 0;
    }

    /// Takes a row in every way in which it may be taken.
    pub(super) fn step(
        &mut self,
        program: &Program,
        memory: &Memory,
        looked: &Looked<'_>,
        answers: &[bool],
        scratch: &mut Scratch,
    ) -> Outcome {
        let mut ways = std::mem::replace(&mut self.ways, std::mem::take(&mut scratch.ways));
        self.work += ways.len();
        let mut outcome = Outcome::Decided;
        scratch.before.clear();
        'ways: for (way, _) in ways.iter().zip(answers).filter(|(_, yes)| **yes) {
            let variable = program.variable(way.at);
            let mut seen = way.seen.clone();
            memory.enter(&mut seen, variable, looked.row, looked.lanes, looked.past);
            let trail = self.links.len() as u32;
            self.links.push(Link { row: looked.row, variable, before: way.trail });
            self.work += program.on(way.at).len();
            for at in program.on(way.at) {
                if *at == DONE {
                    self.best = Some(Best { trail, row: looked.row });
                    break 'ways;
                }
                let mut same = scratch.newest[*at as usize];
                while same != NONE && self.ways[same as usize].seen != seen {
                    self.work += 1;
                    same = scratch.before[same as usize];
                }
                if same != NONE {
                    continue;
                }
                if self.ways.len() == MAX_WAYS {
                    outcome = Outcome::TooMany;
                    break 'ways;
                }
                scratch.before.push(scratch.newest[*at as usize]);
                scratch.newest[*at as usize] = self.ways.len() as u32;
                self.ways.push(Way { at: *at, trail, seen: seen.clone() });
            }
        }
        for way in &self.ways {
            scratch.newest[way.at as usize] = NONE;
        }
        ways.clear();
        scratch.ways = ways;
        if outcome == Outcome::TooMany || self.ways.is_empty() {
            return outcome;
        }
        if self.work > MAX_WORK {
            return Outcome::TooLong;
        }
        if self.links.len() > self.limit {
            self.compact();
        }
        Outcome::Open
    }

    /// The rows of the match that stands, each with its variable.
    pub(super) fn matched(&self) -> Option<Vec<(u32, u8)>> {
        let mut at = self.best?.trail;
        let mut rows = Vec::new();
        while at != NONE {
            let link = self.links[at as usize];
            rows.push((link.row, link.variable));
            at = link.before;
        }
        rows.reverse();
        Some(rows)
    }

    /// The last row of the match that stands.
    pub(super) fn end(&self) -> Option<u32> {
        self.best.map(|best| best.row)
    }

    /// Drops the links of ways that are gone.
    fn compact(&mut self) {
        let mut places = vec![NONE; self.links.len()];
        let ends = self.ways.iter().map(|way| way.trail).chain(self.best.map(|best| best.trail));
        for mut at in ends {
            while at != NONE && places[at as usize] == NONE {
                places[at as usize] = 0;
                at = self.links[at as usize].before;
            }
        }
        let mut kept = Vec::new();
        for (at, link) in self.links.iter().enumerate() {
            if places[at] != NONE {
                places[at] = kept.len() as u32;
                // A link lies behind the one before it, whose place is known by now.
                let before = if link.before == NONE { NONE } else { places[link.before as usize] };
                kept.push(Link { before, ..*link });
            }
        }
        self.links = kept;
        for way in &mut self.ways {
            way.trail = places[way.trail as usize];
        }
        if let Some(best) = &mut self.best {
            best.trail = places[best.trail as usize];
        }
        self.limit = 2 * self.links.len() + 1024;
    }

    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        let ways: usize = self.ways.iter().map(|way| size_of::<Way>() + way.seen.bytes()).sum();
        ways + self.links.capacity() * size_of::<Link>()
    }
}
