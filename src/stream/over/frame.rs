//! Frames: which of a key's rows count for each of its rows.
//!
//! Owns [`OverFrame`], the rule, and [`Frames`], where each key's frame stands. Always: a frame moves forwards
//! only, so each row enters it once and leaves it once. Rows are named by their place in [`Past`]. Called by
//! the operator with rows in event-time order, all rows of one time together: in a RANGE frame rows of one time
//! are peers, and each counts for all of them.

use super::past::{NOTHING, Past};

/// How long a key's rows are remembered where a frame counts rows and not time: a row that comes more than a day
/// of event time after the key's last one finds nothing, as with the other functions over keys.
pub(super) const REMEMBERED_MS: i64 = 24 * 3_600_000;

/// Which rows of the key count for a row: from so far before it to so far before it, both included. Below nothing: so far
/// behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverFrame {
    /// By event time, in milliseconds. To 0 means the row itself and its peers.
    Range {
        /// How far back it begins; `None` is UNBOUNDED PRECEDING.
        from_ms: Option<i64>,
        /// How far back it ends.
        to_ms: i64,
    },
    /// By number of rows. To 0 means the row itself.
    Rows {
        /// How far back it begins; `None` is UNBOUNDED PRECEDING.
        from: Option<i64>,
        /// How far back it ends.
        to: i64,
    },
}

impl OverFrame {
    /// Whether it has a beginning that moves.
    pub(super) const fn is_bounded(self) -> bool {
        matches!(self, Self::Range { from_ms: Some(_), .. } | Self::Rows { from: Some(_), .. })
    }

    /// Whether it goes back to the key's first row, so that a key is remembered for as long as there may be rows of it.
    #[must_use]
    pub const fn is_endless(self) -> bool {
        !self.is_bounded()
    }

    /// Whether rows behind its own may count.
    pub(super) const fn reaches_ahead(self) -> bool {
        matches!(self, Self::Range { to_ms: ..0, .. } | Self::Rows { to: ..0, .. })
    }

    /// After how much event time without a row a key may be forgotten without changing any result, where there is such a time.
    const fn lasts_ms(self) -> Option<i64> {
        match self {
            Self::Range { from_ms, .. } => from_ms,
            Self::Rows { from: Some(_), .. } => Some(REMEMBERED_MS),
            Self::Rows { from: None, .. } => None,
        }
    }

    /// Whether a row this long after the key's last one finds nothing.
    const fn forgets_after(self, gap_ms: i64) -> bool {
        matches!(self, Self::Rows { from: Some(_), .. }) && gap_ms > REMEMBERED_MS
    }
}

/// Where one key's frame stands.
#[derive(Clone, Copy, Debug)]
struct Stand {
    /// The first row in it.
    head: u32,
    /// The last row that entered it.
    last: u32,
    /// The first row that has not entered it, where no row has.
    start: u32,
    /// How many rows are in it.
    inside: u64,
    /// How many rows have not entered it yet; of a frame that reaches ahead, how many have entered from the next row on.
    waiting: u64,
}

const NEW: Stand = Stand { head: NOTHING, last: NOTHING, start: NOTHING, inside: 0, waiting: 0 };

impl Stand {
    fn next(&self, past: &Past) -> u32 {
        if self.last == NOTHING { self.start } else { past.next(self.last) }
    }
}

/// One row's step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The slot of its key.
    pub slot: u32,
    /// Whether the frame begins anew with it.
    pub fresh: bool,
    /// The first row in its frame, where the frame has a beginning that moves.
    pub head: u32,
    /// The last one.
    pub last: u32,
    /// Where the rows that enter with it end in [`Walk::enter`].
    pub enter_to: u32,
    /// Where the rows that leave with it end in [`Walk::leave`].
    pub leave_to: u32,
}

/// How a frame moved over the rows of a batch. Of each row, those that enter come before those that leave.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub steps: Vec<Step>,
    pub enter: Vec<u32>,
    pub leave: Vec<u32>,
}

impl Walk {
    /// Each step, with what enters and what leaves.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Step, &[u32], &[u32])> {
        let (mut enter_from, mut leave_from) = (0, 0);
        self.steps.iter().map(move |step| {
            let (enter, leave) = (enter_from..step.enter_to as usize, leave_from..step.leave_to as usize);
            (enter_from, leave_from) = (enter.end, leave.end);
            (step, &self.enter[enter], &self.leave[leave])
        })
    }
}

/// One frame, for every key.
#[derive(Debug)]
pub(super) struct Frames {
    pub(super) of: OverFrame,
    /// Where the frame has no beginning: it begins anew with a row that comes more than this after the key's last one.
    pub(super) ttl_ms: Option<i64>,
    stands: Vec<Stand>,
}

impl Frames {
    pub(super) const fn new(of: OverFrame) -> Self {
        Self { of, ttl_ms: None, stands: Vec::new() }
    }

    /// After how much event time without a row a key may be forgotten without changing any result.
    pub(super) fn lasts_ms(&self) -> Option<i64> {
        self.of.lasts_ms().or(self.ttl_ms)
    }

    /// Whether a row this long after the key's last one finds nothing.
    fn forgets_after(&self, gap_ms: i64) -> bool {
        self.of.forgets_after(gap_ms) || (!self.of.is_bounded() && self.ttl_ms.is_some_and(|ttl| gap_ms > ttl))
    }

    pub(super) fn grow(&mut self, slots: usize) {
        if self.stands.len() < slots {
            self.stands.resize(slots, NEW);
        }
    }

    pub(super) fn forget(&mut self, slot: u32) {
        self.stands[slot as usize] = NEW;
    }

    /// Moves over the rows of a batch, which lie in the past from `first` on; `gaps` says how long before each the
    /// key's last row was.
    pub(super) fn walk(&mut self, past: &Past, first: u32, slots: &[u32], gaps: &[i64]) -> Walk {
        let mut walk =
            Walk { steps: Vec::with_capacity(slots.len()), enter: Vec::with_capacity(slots.len()), leave: Vec::with_capacity(slots.len()) };
        for (row, slot) in slots.iter().enumerate() {
            let here = first + row as u32;
            let fresh = self.forgets_after(gaps[row]);
            let stand = &mut self.stands[*slot as usize];
            if fresh {
                *stand = NEW;
            }
            if stand.last == NOTHING && stand.start == NOTHING {
                stand.start = here;
            }
            match self.of {
                OverFrame::Range { from_ms, to_ms } => by_time(stand, past, past.time(here), (from_ms, to_ms), &mut walk),
                OverFrame::Rows { from, to } => {
                    stand.waiting += 1;
                    if stand.waiting as i64 > to {
                        let next = stand.next(past);
                        enter(stand, next, &mut walk.enter);
                        stand.waiting -= 1;
                    }
                    if let Some(from) = from {
                        while stand.inside as i64 > from.saturating_sub(to).saturating_add(1) {
                            leave(stand, past, &mut walk.leave);
                        }
                    }
                }
            }
            stepped(stand, *slot, fresh, &mut walk);
        }
        walk
    }

    /// Hears of a row of a key, which may enter later.
    pub(super) fn heard(&mut self, slot: u32, row: u32) {
        let stand = &mut self.stands[slot as usize];
        if stand.last == NOTHING && stand.start == NOTHING {
            stand.start = row;
        }
    }

    /// The step of one row, once all rows that count for it have been heard of; a key's rows one after the other.
    pub(super) fn step(&mut self, past: &Past, here: u32, slot: u32, fresh: bool, walk: &mut Walk) {
        let stand = &mut self.stands[slot as usize];
        match self.of {
            OverFrame::Range { from_ms, to_ms } => by_time(stand, past, past.time(here), (from_ms, to_ms), walk),
            OverFrame::Rows { from, to } => {
                let mut ahead = stand.waiting as i64;
                let mut next = stand.next(past);
                while ahead <= -to && next != NOTHING {
                    enter(stand, next, &mut walk.enter);
                    ahead += 1;
                    next = past.next(next);
                }
                while from.is_some_and(|from| stand.inside > 0 && ahead - (stand.inside as i64) < -from) {
                    leave(stand, past, &mut walk.leave);
                }
                stand.waiting = (ahead - 1).max(0) as u64;
            }
        }
        stepped(stand, slot, fresh, walk);
    }

    /// The first row that a key's frame still needs.
    pub(super) fn needs(&self, slot: u32, past: &Past) -> u32 {
        let stand = &self.stands[slot as usize];
        if self.of.is_bounded() && stand.inside > 0 { stand.head } else { stand.next(past) }
    }

    /// Before the past is made smaller: names no row that it does not need.
    pub(super) fn loosen(&mut self, past: &Past) {
        for stand in &mut self.stands {
            if stand.inside == 0 || !self.of.is_bounded() {
                *stand = Stand { head: NOTHING, last: NOTHING, start: stand.next(past), ..*stand };
            }
        }
    }

    /// After it: the rows have other places.
    pub(super) fn renumber(&mut self, places: &[u32]) {
        for stand in &mut self.stands {
            for row in [&mut stand.head, &mut stand.last, &mut stand.start] {
                if *row != NOTHING {
                    *row = places[*row as usize];
                }
            }
        }
    }

    /// Where the frames of these slots stand, five numbers each.
    pub(super) fn save(&self, slots: &[u32]) -> Vec<i64> {
        let row = |row: u32| if row == NOTHING { -1 } else { i64::from(row) };
        let numbers = |slot: &u32| {
            let stand = &self.stands[*slot as usize];
            [row(stand.head), row(stand.last), row(stand.start), stand.inside as i64, stand.waiting as i64]
        };
        slots.iter().flat_map(numbers).collect()
    }

    /// Takes it back for slots 0, 1, 2 ..; answers the rows in each bounded frame as a walk without answers.
    pub(super) fn restore(&mut self, numbers: &[i64], past: &Past) -> Option<Walk> {
        let row = |number: i64| match number {
            -1 => Some(NOTHING),
            number => u32::try_from(number).ok().filter(|row| (*row as usize) < past.len()),
        };
        let (chunks, []) = numbers.as_chunks::<5>() else { return None };
        let mut walk = Walk::default();
        self.stands.clear();
        for (slot, [head, last, start, inside, waiting]) in chunks.iter().enumerate() {
            let stand = Stand {
                head: row(*head)?,
                last: row(*last)?,
                start: row(*start)?,
                inside: u64::try_from(*inside).ok()?,
                waiting: u64::try_from(*waiting).ok()?,
            };
            self.stands.push(stand);
            if !self.of.is_bounded() {
                continue;
            }
            let mut inside = stand.head;
            for _ in 0..stand.inside {
                if inside == NOTHING {
                    return None;
                }
                walk.enter.push(inside);
                inside = past.next(inside);
            }
            let (enter_to, slot) = (walk.enter.len() as u32, slot as u32);
            walk.steps.push(Step { slot, fresh: false, head: stand.head, last: stand.last, enter_to, leave_to: 0 });
        }
        Some(walk)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.stands.len() * size_of::<Stand>()
    }
}

/// Moves a frame of time over a row of this time.
fn by_time(stand: &mut Stand, past: &Past, at: i64, (from_ms, to_ms): (Option<i64>, i64), walk: &mut Walk) {
    let to = at.saturating_sub(to_ms);
    let mut next = stand.next(past);
    while next != NOTHING && past.time(next) <= to {
        enter(stand, next, &mut walk.enter);
        next = past.next(next);
    }
    if let Some(from_ms) = from_ms {
        let from = at.saturating_sub(from_ms);
        while stand.inside > 0 && past.time(stand.head) < from {
            leave(stand, past, &mut walk.leave);
        }
    }
}

fn stepped(stand: &Stand, slot: u32, fresh: bool, walk: &mut Walk) {
    let (head, last) = if stand.inside > 0 { (stand.head, stand.last) } else { (NOTHING, NOTHING) };
    walk.steps.push(Step { slot, fresh, head, last, enter_to: walk.enter.len() as u32, leave_to: walk.leave.len() as u32 });
}

fn enter(stand: &mut Stand, row: u32, entered: &mut Vec<u32>) {
    if stand.inside == 0 {
        stand.head = row;
    }
    stand.last = row;
    stand.inside += 1;
    entered.push(row);
}

fn leave(stand: &mut Stand, past: &Past, left: &mut Vec<u32>) {
    left.push(stand.head);
    stand.inside -= 1;
    stand.head = if stand.inside > 0 { past.next(stand.head) } else { NOTHING };
}
