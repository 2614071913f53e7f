//! The operator of aggregates that are kept up to date.
//!
//! A group is a key, or a key and a window. It lives for ever, until no row has come for it for so long, or until the end
//! of its window or of the time in its key; and it speaks at its end, or whenever a commit finds it changed, and with
//! GRACE once more for every row behind its end. Always: what a group is made of is a function of each partition's rows in
//! their order, partitions in order of number; whatever leaves at an end leaves in order of end and key; what is asked for its
//! changes is told in the order in which they came; a correction holds the rows on time and the late ones up to its own, in order of
//! (the watermark before them, partition, offset).
//!
//! A group is in memory or on the disk (`cold`), whole. A row for it brings it back, and so does the watermark at its end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;

use super::behind::{Counted, Picked};
use super::groups::{Due, Groups, NONE};
use super::shown::Shown;
use super::states::{State, States};
use crate::stream::keyed::{Buffer, ColdKeys};
use crate::stream::over::OverExpiry;
use crate::stream::rowwise::{evaluate, evaluate_flat, row_by_row};
use crate::stream::source::millis;
use crate::stream::stateless::condition_of;
use crate::stream::window::{Maker, WindowColumn, WindowRule};
use crate::stream::{
    Aside, AsideRow, Expr, FoldFactory, NO_TIME, Operator, Output, Rows, Scope, SpillSpace, StateReader, StateWriter, StreamError,
};
use crate::time::Timestamp;

/// Results leave in batches of at most this many rows.
const BATCH_ROWS: usize = 8192;
/// So many groups speak in one commit at most.
const TURN_GROUPS: usize = 50_000;

/// How long a group lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupLife {
    /// For ever, or until no row has come for so many milliseconds of event time.
    Open {
        /// How many.
        ttl_ms: Option<i64>,
    },
    /// As long as its window, and so much longer for rows that come late.
    Window {
        /// Which windows there are.
        rule: WindowRule,
        /// How much longer, in milliseconds.
        grace_ms: i64,
    },
    /// Until a time that one of its keys says.
    Key(OverExpiry),
}

impl GroupLife {
    /// When time reaches a part whose last row came at `last`, of a group whose last moment this is; the greatest time for never.
    pub(super) const fn reached(&self, until: i64, fired: bool, last: i64) -> i64 {
        match self {
            Self::Open { ttl_ms: None } => i64::MAX,
            Self::Open { ttl_ms: Some(ttl) } => last.saturating_add(*ttl),
            Self::Window { grace_ms, .. } if fired => until.saturating_add(*grace_ms),
            Self::Window { .. } | Self::Key(_) => until,
        }
    }
}

/// When a group speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupEmit {
    /// At its end; within the grace also for every row behind it.
    OnClose,
    /// When it is asked, where it has changed since.
    OnUpdate,
}

/// All that the operator is made of.
#[derive(Debug)]
pub struct UpdateSpec {
    /// Which partitions meet here.
    pub scope: Scope,
    /// The group keys, the window aside. May be empty.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The aggregates.
    pub folds: Vec<Arc<dyn FoldFactory>>,
    /// How long a group lives.
    pub life: GroupLife,
    /// When it speaks.
    pub emit: GroupEmit,
    /// What each column of a group's row is.
    pub columns: Vec<WindowColumn>,
    /// These columns.
    pub schema: SchemaRef,
    /// What the rows go through where they change; none where each is said once.
    pub shown: Option<Shown>,
}

/// The operator.
pub struct UpdateAggregate {
    pub(super) spec: UpdateSpec,
    pub(super) groups: Groups,
    pub(super) states: States,
    /// The groups on the disk.
    pub(super) cold: ColdKeys,
    /// Counts up whenever it is asked to put something on the disk.
    pub(super) round: u32,
    /// The groups whose last moment this is, until it has passed; none where all of them lie on the disk.
    pub(super) ends: BTreeMap<i64, Vec<u32>>,
    /// Those that have spoken, by the last moment of their grace.
    pub(super) closing: BTreeMap<i64, Vec<u32>>,
    /// The parts that are to be looked at behind a time: it, or a later one, is their last.
    pub(super) expiries: BTreeMap<i64, Vec<u32>>,
    /// Rows behind the end of their window, in a task that merges partitions.
    pub(super) waiting: Buffer,
    /// The groups that have changed, each with the note that says so; one that has a later note, or nothing to say, is none of them.
    changed: Vec<(u32, u64)>,
    notes: u64,
    pub(super) turn: VecDeque<u32>,
    pub(super) mark: i64,
}

impl UpdateAggregate {
    /// Checks the plan, and makes every accumulator once so that a type one cannot take is found now.
    pub fn new(spec: UpdateSpec) -> Result<Self, StreamError> {
        let wrong = |why: &str| Err(StreamError::Limit(format!("an aggregate that is kept up to date {why}")));
        if spec.columns.len() != spec.schema.fields().len() {
            return wrong("has other columns than its schema");
        }
        let grace = matches!(spec.life, GroupLife::Window { grace_ms, .. } if grace_ms > 0);
        if spec.shown.is_none() && (grace || spec.emit == GroupEmit::OnUpdate) {
            return wrong("does not say what is shown of it");
        }
        if matches!(spec.life, GroupLife::Open { .. }) && spec.emit == GroupEmit::OnClose {
            return wrong("waits for the end of groups that have none");
        }
        if matches!(spec.life, GroupLife::Key(expiry) if expiry.key >= spec.keys.len()) {
            return wrong("has no key that says when it ends");
        }
        let maker = Maker::new(&[], None, spec.folds.clone())?;
        Ok(Self {
            spec,
            groups: Groups::default(),
            states: States::new(maker),
            cold: ColdKeys::default(),
            round: 1,
            ends: BTreeMap::new(),
            closing: BTreeMap::new(),
            expiries: BTreeMap::new(),
            waiting: Buffer::default(),
            changed: Vec::new(),
            notes: 0,
            turn: VecDeque::new(),
            mark: i64::MIN,
        })
    }

    pub(super) fn arguments(&self) -> usize {
        self.states.maker().layout().expressions.len()
    }

    pub(super) const fn grace_ms(&self) -> i64 {
        match self.spec.life {
            GroupLife::Window { grace_ms, .. } => grace_ms,
            GroupLife::Open { .. } | GroupLife::Key(_) => 0,
        }
    }

    fn ttl_ms(&self) -> Option<i64> {
        match self.spec.life {
            GroupLife::Open { ttl_ms } => ttl_ms,
            GroupLife::Window { .. } | GroupLife::Key(_) => None,
        }
    }

    /// How many columns stand before the keys in the encoded key: a window's last moment.
    pub(super) const fn lead(&self) -> usize {
        match self.spec.life {
            GroupLife::Window { .. } => 1,
            GroupLife::Open { .. } | GroupLife::Key(_) => 0,
        }
    }

    fn evaluated(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, StreamError> {
        let layout = self.states.maker().layout();
        let mut columns = Vec::with_capacity(layout.expressions.len() + self.spec.keys.len());
        for (place, expr) in layout.expressions.iter().enumerate() {
            columns.push(if layout.is_filter(place) {
                Arc::new(condition_of(expr.as_ref(), batch)?) as ArrayRef
            } else {
                evaluate(expr.as_ref(), batch)?
            });
        }
        for key in &self.spec.keys {
            columns.push(evaluate_flat(key.as_ref(), batch)?);
        }
        Ok(columns)
    }

    /// Which groups each row counts in: the row and the group's last moment, those on time and those behind it.
    fn places(&self, rows: &Rows, columns: &[ArrayRef], out: &mut Output) -> Result<[Vec<(u32, i64)>; 2], StreamError> {
        let (mut on_time, mut behind) = (Vec::with_capacity(rows.len()), Vec::new());
        let ends = match self.spec.life {
            GroupLife::Key(expiry) => Some(millis(&columns[self.arguments() + expiry.key])?),
            GroupLife::Open { .. } | GroupLife::Window { .. } => None,
        };
        for row in 0..rows.len() {
            let (at, mark) = (rows.times[row], rows.before[row].max(self.mark));
            let counts = match self.spec.life {
                GroupLife::Open { ttl_ms } => {
                    // A row so old that its group would be let go at once is late.
                    let counts = ttl_ms.is_none_or(|ttl| at != NO_TIME && at.saturating_add(ttl) >= mark);
                    on_time.extend(counts.then_some((row as u32, i64::MAX)));
                    counts
                }
                GroupLife::Key(expiry) => {
                    let until = ends.as_ref().filter(|ends| ends.is_valid(row)).map(|ends| ends.value(row).saturating_add(expiry.plus_ms));
                    let until = until.filter(|until| at != NO_TIME && *until >= mark);
                    on_time.extend(until.map(|until| (row as u32, until)));
                    until.is_some()
                }
                GroupLife::Window { rule, grace_ms } if rule.places(at) => {
                    let pane = rule.pane_of(at);
                    // With a slide longer than the size some time lies in no window.
                    let first = rule.first_open_end(pane, mark.saturating_sub(grace_ms)).filter(|_| rule.holds(pane));
                    let mut end = first.unwrap_or(i64::MAX);
                    while end <= rule.last_end(pane) {
                        let to = if end > mark { &mut on_time } else { &mut behind };
                        to.push((row as u32, end - 1));
                        end += rule.slide_ms();
                    }
                    first.is_some() || !rule.holds(pane)
                }
                GroupLife::Window { .. } => false,
            };
            if !counts {
                out.aside.push(AsideRow { partition: rows.partition, offset: rows.offsets[row], why: Aside::Late });
            }
        }
        Ok([on_time, behind])
    }

    /// Adds rows to their groups, which then have something to say.
    pub(super) fn count(&mut self, rows: &Counted<'_>) -> Result<(), StreamError> {
        let (arguments, ttl) = (self.arguments(), self.ttl_ms());
        let mut keys = rows.columns[arguments..].to_vec();
        if self.lead() == 1 {
            keys.insert(0, Arc::new(Int64Array::from(rows.untils.to_vec())));
        }
        let encoded = self.groups.table.encode(&keys)?;
        if let Some(brought) = self.cold.take(&encoded, rows.times.len())? {
            self.enter(&brought)?;
        }
        let mut at = Vec::with_capacity(rows.times.len());
        for (row, time) in rows.times.iter().enumerate() {
            let (group, new) = self.groups.group(encoded.key(row));
            if new {
                self.begin(group, rows.untils[row]);
            }
            let (part, new) = self.groups.part(group, rows.partition, *time);
            if let Some(ttl) = ttl {
                let part = &mut self.groups.parts[part as usize];
                if !new && part.last.saturating_add(ttl) < rows.marks[row].max(self.mark) {
                    part.state = State::EMPTY;
                    part.last = *time;
                }
            }
            if let Some(ttl) = ttl.filter(|_| new) {
                self.expiries.entry(time.saturating_add(ttl)).or_default().push(part);
            }
            let part_of = &mut self.groups.parts[part as usize];
            part_of.last = part_of.last.max(*time);
            at.push(self.states.touch(part, &mut part_of.state));
            self.groups.get_mut(group).touched = self.round;
            self.note(group);
        }
        self.states.update(&rows.columns[..arguments], &at)
    }

    pub(super) fn begin(&mut self, group: u32, until: i64) {
        self.groups.get_mut(group).until = until;
        if until == i64::MAX {
            return;
        }
        if until < self.mark {
            self.groups.get_mut(group).fired = true;
            self.closing.entry(until.saturating_add(self.grace_ms())).or_default().push(group);
        } else {
            self.ends.entry(until).or_default().push(group);
        }
    }

    /// Notes that a group has changed.
    fn note(&mut self, group: u32) {
        if self.groups.get(group).due == Due::Nothing {
            self.owe(group, Due::Changed);
        }
    }

    /// The groups whose last moment lies before the watermark speak.
    pub(super) fn fire(&mut self, at: i64, out: &mut Output) -> Result<(), StreamError> {
        if let Some(brought) = self.cold.take_before(at)? {
            self.enter(&brought)?;
        }
        self.mark = self.mark.max(at);
        let open = self.ends.split_off(&at);
        let ended = std::mem::replace(&mut self.ends, open);
        let mut ready: Vec<u32> = Vec::new();
        for (_, mut groups) in ended {
            self.groups.sort(&mut groups);
            ready.extend(groups);
        }
        for groups in ready.chunks(BATCH_ROWS) {
            if self.spec.shown.is_none() {
                self.hand_on(groups, out)?;
            } else {
                let due: Vec<u32> = groups.iter().copied().filter(|group| self.groups.get(*group).due != Due::Nothing).collect();
                self.tell(&due, out)?;
            }
            for group in groups {
                if self.grace_ms() == 0 {
                    self.groups.drop_group(*group);
                    continue;
                }
                let of = self.groups.get_mut(*group);
                of.fired = true;
                let until = of.until.saturating_add(self.grace_ms());
                self.closing.entry(until).or_default().push(*group);
            }
        }
        Ok(())
    }

    /// Parts that have had no row for too long go, and with its last part a group.
    fn expire(&mut self, at: i64, out: &mut Output) -> Result<(), StreamError> {
        let Some(ttl) = self.ttl_ms() else { return Ok(()) };
        let later = self.expiries.split_off(&at);
        let looked_at = std::mem::replace(&mut self.expiries, later);
        let (mut gone, mut fewer) = (Vec::new(), Vec::new());
        for part in looked_at.into_values().flatten() {
            let of = self.groups.parts[part as usize];
            let until = of.last.saturating_add(ttl);
            if until >= at {
                self.expiries.entry(until).or_default().push(part);
            } else if self.groups.drop_part(part) {
                gone.push(of.group);
            } else {
                fewer.push(of.group);
            }
        }
        self.groups.sort(&mut fewer);
        fewer.into_iter().for_each(|group| self.note(group));
        self.groups.sort(&mut gone);
        for groups in gone.chunks(BATCH_ROWS) {
            let shown: Vec<u32> = groups.iter().copied().filter(|group| self.groups.get(*group).shown).collect();
            self.say_gone(&shown, out)?;
            for group in groups {
                self.groups.drop_group(*group);
            }
        }
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), StreamError> {
        if self.states.is_untidy(self.groups.kept) { self.pack() } else { Ok(()) }
    }

    /// Copies together the states of the groups that are in memory, and lets go of all others.
    pub(super) fn pack(&mut self) -> Result<(), StreamError> {
        self.states.rest(&mut self.groups.parts)?;
        let mut spots = Vec::with_capacity(self.groups.kept);
        for part in self.groups.parts.iter_mut().filter(|part| part.group != NONE) {
            let to = State::at((0, spots.len() as u32));
            spots.push(std::mem::replace(&mut part.state, to).spot());
        }
        self.states.keep(&spots)
    }

    /// A group has this to say, behind those that have already.
    pub(super) fn owe(&mut self, group: u32, due: Due) {
        self.groups.get_mut(group).due = due;
        match due {
            Due::Nothing => {}
            Due::Changed if self.spec.emit == GroupEmit::OnUpdate => {
                self.notes += 1;
                self.groups.get_mut(group).noted = self.notes;
                self.changed.push((group, self.notes));
            }
            Due::Changed => {}
            Due::Turn => self.turn.push_back(group),
        }
    }

    /// Whether a group of the list of those that have changed is to speak: it may have gone meanwhile, another in its place, or have
    /// spoken at its end.
    fn is_changed(&self, (group, noted): (u32, u64)) -> bool {
        let of = self.groups.get(group);
        of.due == Due::Changed && of.first != NONE && of.noted == noted
    }

    /// All groups in memory: first those that have changed, as they are to speak.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let mut all: Vec<u32> = self.changed.iter().filter(|of| self.is_changed(**of)).map(|(group, _)| *group).collect();
        let mut listed = vec![false; self.groups.groups.len()];
        all.iter().for_each(|group| listed[*group as usize] = true);
        all.extend(self.groups.table.in_use().into_iter().filter(|group| !listed[*group as usize]));
        all
    }

    /// Looks at a part again once it may have lived long enough.
    pub(super) fn watch(&mut self, part: u32) {
        if let Some(ttl) = self.ttl_ms() {
            let until = self.groups.parts[part as usize].last.saturating_add(ttl);
            self.expiries.entry(until).or_default().push(part);
        }
    }
}

impl Operator for UpdateAggregate {
    fn name(&self) -> &'static str {
        "group"
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(self.spec.shown.as_ref().map_or(&self.spec.schema, |shown| &shown.schema))
    }

    fn rows(&mut self, rows: &Rows, out: &mut Output) -> Result<(), StreamError> {
        let evaluated = row_by_row(rows, &mut |batch| self.evaluated(batch), &mut out.failed)?;
        for (rows, columns) in evaluated {
            let [on_time, behind] = self.places(&rows, &columns, out)?;
            if !on_time.is_empty() {
                let picked = Picked::of(&rows, &columns, &on_time)?;
                self.count(&picked.counted(0..on_time.len(), rows.partition.0))?;
            }
            if behind.is_empty() {
                continue;
            }
            let picked = Picked::of(&rows, &columns, &behind)?;
            match self.spec.scope {
                Scope::Partition(_) => self.correct_each(&picked, rows.partition.0, out)?,
                Scope::Merged => self.wait(&rows, &picked)?,
            }
        }
        Ok(())
    }

    fn watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<(), StreamError> {
        // What waits was behind the end of a window that fires now at the latest.
        self.fire(at.0, out)?;
        self.corrections(at.0, out)?;
        let open = self.closing.split_off(&at.0);
        for group in std::mem::replace(&mut self.closing, open).into_values().flatten() {
            self.groups.drop_group(group);
        }
        self.expire(at.0, out)?;
        self.tidy()
    }

    fn due(&self, now: Timestamp) -> Option<Timestamp> {
        let ended = self.ends.range(..now.0).next_back().map(|(end, _)| *end);
        ended.max(self.waiting.latest(now.0 - 1)).map(|end| Timestamp(end.saturating_add(1)))
    }

    fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.turn.is_empty()
    }

    fn flush(&mut self, out: &mut Output) -> Result<bool, StreamError> {
        if self.turn.is_empty() {
            let changed = std::mem::take(&mut self.changed);
            let mut changed: Vec<u32> = changed.into_iter().filter(|of| self.is_changed(*of)).map(|(group, _)| group).collect();
            changed.iter().for_each(|group| self.groups.get_mut(*group).due = Due::Turn);
            if changed.len() > TURN_GROUPS {
                // Which of them speak in this commit must not depend on how partitions interleaved.
                self.groups.sort(&mut changed);
            }
            self.turn.extend(changed);
        }
        let count = self.turn.len().min(TURN_GROUPS);
        let mut turn: Vec<u32> = self.turn.drain(..count).collect();
        turn.retain(|group| self.groups.get(*group).due == Due::Turn && self.groups.get(*group).first != NONE);
        for groups in turn.chunks(BATCH_ROWS) {
            self.tell(groups, out)?;
        }
        self.tidy()?;
        Ok(!self.turn.is_empty())
    }

    fn save(&mut self, state: &mut StateWriter) -> Result<(), StreamError> {
        self.write(state)
    }

    fn restore(&mut self, state: &StateReader) -> Result<(), StreamError> {
        self.read(state)
    }

    fn state_bytes(&self) -> usize {
        let lists = (self.ends.len() + self.closing.len() + self.expiries.len()) * 64 + self.groups.kept * 8;
        self.groups.bytes() + self.states.bytes() + self.waiting.bytes() + lists + self.cold.bytes()
    }

    fn spill(&mut self, want: usize, space: &SpillSpace) -> Result<usize, StreamError> {
        self.put_away(want, space)
    }

    fn spilled_bytes(&self) -> u64 {
        self.cold.spilled_bytes()
    }
}
