//! What is kept of one key: its rows from the attempt that is open on, and the attempt.
//!
//! Owns [`Key`] and how far it goes: row by row, each attempt until it is decided, the next from where the match or the
//! clause about skipping says, over rows that lie there already. Always: what is found, and when, is a function of
//! the key's rows and of how far time has come, for an attempt sees nothing but rows in their order; a key that
//! has been silent for longer than it is remembered begins anew. Called by `operator`.

use std::collections::VecDeque;

use super::matcher::{Attempt, Looked, Outcome, Scratch};
use super::outbox::Outbox;
use super::program::Program;
use super::read::{Asked, Memory};
use super::spec::PatternSkip;
use crate::stream::NO_TIME;
use crate::stream::over::{NOTHING, Past};

/// An attempt may look at so many rows.
pub(super) const MAX_ROWS: u64 = 65_536;

/// Room for so many rows is kept though there are fewer.
const SPARE_ROWS: usize = 64;

/// Why rows are passed over.
const TOO_LONG: &str =
    "no match that begins with this row is decided within 65536 rows, so they are passed over: bound the pattern with WITHIN";
const TOO_WIDE: &str = "a match that begins with this row can go on in more than 4096 ways, so its rows are passed over: let the conditions of \
                        DEFINE exclude one another";
const TOO_MUCH: &str = "a match that begins with this row is not decided in 4194304 steps, so its rows are passed over: let the conditions of \
                        DEFINE exclude one another, or bound the pattern with WITHIN";
/// Why the next match is not looked for where AFTER MATCH SKIP says.
pub(super) const NO_PLACE: &str = "AFTER MATCH SKIP has nowhere to go behind the first row of the match that begins with this row: the next one \
                                   is looked for from its second row";

/// When something was decided: the time, whether by its passing or by a row, and which row. It orders what comes out.
pub(super) type Clock = (i64, bool, u64);

/// Before anything.
const NEVER: Clock = (i64::MIN, false, 0);

/// What all keys go by.
#[derive(Debug)]
pub(super) struct Rules {
    pub program: Program,
    pub names: Vec<String>,
    /// What the row and those before it decide, by variable.
    pub local: Vec<Option<Asked>>,
    /// What the rows taken decide, by variable.
    pub history: Vec<Option<Asked>>,
    pub memory: Memory,
    pub within_ms: Option<i64>,
    /// How long a key is remembered after its last row.
    pub lasts_ms: i64,
    /// How many rows before an attempt may be looked at.
    pub back: u64,
    pub skip: PatternSkip,
    pub all_rows: bool,
}

/// A row that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyRow {
    pub time: i64,
    pub past: u32,
    /// Its place in the order in which all rows came.
    pub number: u64,
    /// For each variable whether the row may be it, as far as it and those before it decide that.
    pub bits: u64,
    /// The key had been silent for longer than it is remembered.
    pub is_fresh: bool,
    /// It has been told that a condition failed over it.
    pub is_told: bool,
}

/// A row that has just come, by the numbers of its key.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRow {
    pub number: u64,
    /// None before this one is seen by it.
    origin: u64,
}

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    /// The number of the first row that is kept, counted by key.
    base: u64,
    rows: VecDeque<KeyRow>,
    /// The newest row that began anew; none before it is seen by those behind it.
    origin: u64,
    /// No row before this one is seen by the attempt.
    floor: u64,
    /// The first row of the attempt, and the one it looks at next.
    start: u64,
    next: u64,
    pub attempt: Attempt,
    /// Of each way whether it takes the row that is looked at, where that has been answered.
    pub answers: Option<Vec<bool>>,
    /// The ways that wait for an answer.
    pub asking: Vec<u32>,
    pub matches: i64,
    /// The time of the last row.
    pub last: i64,
    clock: Clock,
    /// What the operator has noted of it: when its attempt ends by itself, and how far it holds time back.
    pub wake: Option<i64>,
    pub hold: Option<i64>,
}

impl Default for Key {
    fn default() -> Self {
        Self {
            base: 0,
            rows: VecDeque::new(),
            origin: 0,
            floor: 0,
            start: 0,
            next: 0,
            attempt: Attempt::default(),
            answers: None,
            asking: Vec::new(),
            matches: 0,
            last: NO_TIME,
            clock: NEVER,
            wake: None,
            hold: None,
        }
    }
}

/// What a key needs to go on.
pub(super) struct Ground<'a> {
    pub rules: &'a Rules,
    pub past: &'a Past,
    pub outbox: &'a mut Outbox,
    pub scratch: &'a mut Scratch,
    /// Every row before this time is here.
    pub horizon: i64,
}

impl Key {
    fn end(&self) -> u64 {
        self.base + self.rows.len() as u64
    }

    fn row(&self, number: u64) -> Option<&KeyRow> {
        self.rows.get(number.checked_sub(self.base)? as usize)
    }

    /// A row by its number.
    pub(super) fn row_mut(&mut self, number: u64) -> Option<&mut KeyRow> {
        self.rows.get_mut(number.checked_sub(self.base)? as usize)
    }

    /// Every row that is kept.
    pub(super) fn rows(&self) -> impl Iterator<Item = &KeyRow> {
        self.rows.iter()
    }

    /// The same, to be changed.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut KeyRow> {
        self.rows.iter_mut()
    }

    /// Adds a row; answers its number.
    pub(super) fn push(&mut self, row: KeyRow) -> NewRow {
        let number = self.end();
        if row.is_fresh {
            self.origin = number;
        }
        self.last = row.time;
        self.rows.push_back(row);
        NewRow { number, origin: self.origin }
    }

    /// Where the row `back` rows before a new one lies.
    pub(super) fn before(&self, row: NewRow, back: u32) -> u32 {
        self.place(row.number, back, row.origin)
    }

    /// Where the row `back` rows before the attempt's row `row` lies.
    pub(super) fn around(&self, row: u32, back: u32) -> u32 {
        self.place(self.start + u64::from(row), back, self.floor)
    }

    fn place(&self, number: u64, back: u32, floor: u64) -> u32 {
        let number = number.checked_sub(back.into()).filter(|number| *number >= floor);
        number.and_then(|number| self.row(number)).map_or(NOTHING, |row| row.past)
    }

    /// The row that is looked at: its number in the attempt, and itself.
    pub(super) fn looked(&self) -> Option<(u32, &KeyRow)> {
        self.row(self.next).map(|row| ((self.next - self.start) as u32, row))
    }

    /// The number of the row that is looked at.
    pub(super) const fn looking_at(&self) -> u64 {
        self.next
    }

    /// The attempt's row.
    pub(super) fn taken(&self, row: u32) -> &KeyRow {
        self.row(self.start + u64::from(row)).expect("the rows of an attempt are kept")
    }

    /// How many rows of those kept lie before the attempt.
    pub(super) const fn lead(&self) -> u64 {
        self.start - self.base
    }

    /// The attempt begins behind so many of the rows kept: after a restart.
    pub(super) fn resume(&mut self, lead: u64) {
        self.start = self.base + lead;
        self.next = self.start;
        // Rows of a former life before it are not seen.
        let fresh = |below: u64| (self.base..below).rev().find(|number| self.row(*number).is_some_and(|row| row.is_fresh));
        let (floor, origin) = (fresh(self.start), fresh(self.end()));
        self.floor = floor.unwrap_or(0);
        self.origin = origin.unwrap_or(0);
    }

    /// Whether it looks at rows that may be a match.
    pub(super) const fn is_live(&self) -> bool {
        self.next > self.start
    }

    /// When the attempt ends by itself.
    pub(super) fn wakes(&self, rules: &Rules) -> Option<i64> {
        self.is_live().then(|| self.ends(rules).0)
    }

    /// When no row can follow those that the attempt has looked at: a time that has to pass.
    fn ends(&self, rules: &Rules) -> Clock {
        let first = self.row(self.start).expect("the rows of an attempt are kept");
        let last = self.row(self.next - 1).expect("the rows of an attempt are kept");
        let silent = last.time.saturating_add(rules.lasts_ms);
        let within = rules.within_ms.map_or(i64::MAX, |within| first.time.saturating_add(within));
        (silent.min(within), true, first.number)
    }

    /// How far what may still come out holds time back.
    pub(super) fn holds(&self, rules: &Rules) -> Option<i64> {
        if !self.is_live() {
            return None;
        }
        if rules.all_rows {
            return self.row(self.start).map(|row| row.time);
        }
        // A match that begins behind this attempt's first row has so many rows at least; all others end at the match that
        // stands, or at rows to come.
        let best = self.attempt.end().and_then(|row| self.row(self.start + u64::from(row)));
        let later = self.row(self.start + rules.program.least_rows);
        [best, later].into_iter().flatten().map(|row| row.time).min()
    }

    /// Goes on as far as it can. Answers whether it waits for answers.
    pub(super) fn advance(&mut self, slot: u32, ground: &mut Ground<'_>) -> bool {
        loop {
            if let Some(answers) = self.answers.take() {
                self.step(slot, &answers, ground);
                ground.scratch.answers = answers;
                continue;
            }
            let Some(row) = self.row(self.next).copied() else {
                if !self.is_live() {
                    return false;
                }
                let ends = self.ends(ground.rules);
                if ends.0 >= ground.horizon {
                    return false;
                }
                self.clock = self.clock.max(ends);
                self.decide(slot, ground);
                continue;
            };
            if self.is_live() {
                let ends = self.ends(ground.rules);
                if row.is_fresh || row.time > ends.0 {
                    self.clock = self.clock.max(ends);
                    self.decide(slot, ground);
                    continue;
                }
                if self.next - self.start >= MAX_ROWS {
                    self.give_up(ground, TOO_LONG);
                    continue;
                }
            } else {
                if row.is_fresh {
                    self.floor = self.next;
                    self.matches = 0;
                }
                self.attempt.begin(&ground.rules.program, &ground.rules.memory);
            }
            self.clock = self.clock.max((row.time, false, row.number));
            let mut answers = std::mem::take(&mut ground.scratch.answers);
            answers.clear();
            for (way, of) in self.attempt.ways.iter().enumerate() {
                let variable = ground.rules.program.variable(of.at);
                let may = row.bits & (1 << variable) != 0;
                if may && ground.rules.history[variable as usize].is_some() {
                    self.asking.push(way as u32);
                }
                answers.push(may);
            }
            self.answers = Some(answers);
            if !self.asking.is_empty() {
                return true;
            }
        }
    }

    fn step(&mut self, slot: u32, answers: &[bool], ground: &mut Ground<'_>) {
        let Some((row, KeyRow { past, .. })) = self.looked() else { return };
        let looked = Looked { row, past: *past, lanes: &ground.past.lanes };
        let outcome = self.attempt.step(&ground.rules.program, &ground.rules.memory, &looked, answers, ground.scratch);
        self.next += 1;
        match outcome {
            Outcome::Open => {}
            Outcome::Decided => self.decide(slot, ground),
            Outcome::TooMany => self.give_up(ground, TOO_WIDE),
            Outcome::TooLong => self.give_up(ground, TOO_MUCH),
        }
    }

    /// Nothing more can be added to the attempt.
    fn decide(&mut self, slot: u32, ground: &mut Ground<'_>) {
        let Some(rows) = self.attempt.matched() else { return self.begin_at(self.start + 1) };
        self.matches += 1;
        ground.outbox.take(self, slot, &rows, self.clock, ground.rules, ground.past);
        let of = |variable: usize| move |(_, taken): &&(u32, u8)| usize::from(*taken) == variable;
        let to = match ground.rules.skip {
            PatternSkip::PastLastRow => rows.last().map(|(row, _)| row + 1),
            PatternSkip::ToNextRow => Some(1),
            PatternSkip::ToFirst(variable) => rows.iter().find(of(variable)).map(|(row, _)| *row),
            PatternSkip::ToLast(variable) => rows.iter().rev().find(of(variable)).map(|(row, _)| *row),
        };
        let to = to.filter(|row| *row > 0).unwrap_or_else(|| {
            ground.outbox.fail(self.taken(0).past, NO_PLACE.to_owned());
            1
        });
        self.begin_at(self.start + u64::from(to));
    }

    /// The rows looked at are passed over.
    fn give_up(&mut self, ground: &mut Ground<'_>, why: &str) {
        ground.outbox.fail(self.taken(0).past, why.to_owned());
        self.begin_at(self.next);
    }

    fn begin_at(&mut self, start: u64) {
        self.start = start;
        self.next = start;
        self.attempt.clear();
    }

    /// Lets go of the rows that nothing looks at any more.
    pub(super) fn trim(&mut self, back: u64) {
        let needed = self.start.saturating_sub(back).max(self.floor.min(self.start));
        while self.base < needed && self.rows.pop_front().is_some() {
            self.base += 1;
        }
        if self.rows.capacity() > SPARE_ROWS.max(4 * self.rows.len()) {
            self.rows.shrink_to(SPARE_ROWS.max(2 * self.rows.len()));
        }
    }

    /// The oldest row that is kept.
    pub(super) fn oldest(&self) -> u32 {
        self.rows.front().map_or(NOTHING, |row| row.past)
    }

    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.rows.capacity() * size_of::<KeyRow>() + self.attempt.bytes()
    }
}
