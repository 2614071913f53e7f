//! Which groups there are, and what each is made of.
//!
//! A group has one part for every input partition that has brought rows for it, in order of partition: so a value that is
//! made of the parts in order does not depend on how partitions interleave. Always: a group that is in use has a part, and
//! every part in use belongs to one group.

use arrow::array::ArrayRef;

use super::states::State;
use crate::stream::StreamError;
use crate::stream::keyed::KeyTable;
use crate::stream::rank::Spot;

/// No part.
pub(super) const NONE: u32 = u32::MAX;

/// What a group still has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing new.
    Nothing,
    /// It has changed since it was last told.
    Changed,
    /// Its turn has come; it is told with the next commit.
    Turn,
}

/// One group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    /// Its last moment; the greatest time where it has none.
    pub until: i64,
    /// Its first part.
    pub first: u32,
    pub due: Due,
    /// Whether the reader of the results has a row of it.
    pub shown: bool,
    /// Whether it has come to its end, and now only corrects what it has said.
    pub fired: bool,
    /// When the last row came for it, in rounds of what goes to the disk.
    pub touched: u32,
    /// Which of all notes was the last that it has changed.
    pub noted: u64,
}

/// What one input partition has brought for a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub group: u32,
    pub partition: i32,
    /// The part behind it.
    pub next: u32,
    /// The greatest time of its rows.
    pub last: i64,
    pub state: State,
}

/// The groups by their key.
#[derive(Default)]
pub(super) struct Groups {
    pub table: KeyTable,
    pub groups: Vec<Group>,
    pub parts: Vec<Part>,
    free: Vec<u32>,
    /// How many parts are in use.
    pub kept: usize,
}

impl Groups {
    /// The group of a key, and whether it is new.
    pub(super) fn group(&mut self, key: &[u8]) -> (u32, bool) {
        let (at, new) = self.table.slot(key);
        if new {
            let (due, shown, fired) = (Due::Nothing, false, false);
            let group = Group { until: i64::MAX, first: NONE, due, shown, fired, touched: 0, noted: 0 };
            match self.groups.get_mut(at as usize) {
                Some(free) => *free = group,
                None => self.groups.push(group),
            }
        }
        (at, new)
    }

    pub(super) fn get(&self, group: u32) -> &Group {
        &self.groups[group as usize]
    }

    pub(super) fn get_mut(&mut self, group: u32) -> &mut Group {
        &mut self.groups[group as usize]
    }

    /// The part of a partition in a group, and whether it is new; then its last time is `at`.
    pub(super) fn part(&mut self, group: u32, partition: i32, at: i64) -> (u32, bool) {
        let (mut before, mut next) = (NONE, self.groups[group as usize].first);
        while next != NONE && self.parts[next as usize].partition < partition {
            (before, next) = (next, self.parts[next as usize].next);
        }
        if next != NONE && self.parts[next as usize].partition == partition {
            return (next, false);
        }
        let part = Part { group, partition, next, last: at, state: State::EMPTY };
        let made = match self.free.pop() {
            Some(free) => {
                self.parts[free as usize] = part;
                free
            }
            None => {
                self.parts.push(part);
                (self.parts.len() - 1) as u32
            }
        };
        match self.parts.get_mut(before as usize) {
            Some(before) => before.next = made,
            None => self.groups[group as usize].first = made,
        }
        self.kept += 1;
        (made, true)
    }

    /// The parts of a group, in order of partition.
    pub(super) fn parts_of(&self, group: u32) -> impl Iterator<Item = (u32, &Part)> {
        let mut next = self.groups[group as usize].first;
        std::iter::from_fn(move || {
            let at = next;
            let part = self.parts.get(at as usize)?;
            next = part.next;
            Some((at, part))
        })
    }

    /// Where the states of a group lie, all of them at rest.
    pub(super) fn spots_of(&self, group: u32) -> Vec<Spot> {
        self.parts_of(group).map(|(_, part)| part.state.spot()).collect()
    }

    /// The greatest time of a group's rows.
    pub(super) fn last_of(&self, group: u32) -> i64 {
        self.parts_of(group).map(|(_, part)| part.last).max().unwrap_or(i64::MIN)
    }

    /// Lets go of a part. Answers whether its group is left without one.
    pub(super) fn drop_part(&mut self, part: u32) -> bool {
        let Part { group, next, .. } = self.parts[part as usize];
        let before = self.parts_of(group).map(|(at, _)| at).take_while(|at| *at != part).last();
        match before {
            Some(before) => self.parts[before as usize].next = next,
            None => self.groups[group as usize].first = next,
        }
        self.let_go(part);
        self.groups[group as usize].first == NONE
    }

    /// Lets go of a group and all its parts.
    pub(super) fn drop_group(&mut self, group: u32) {
        let mut next = std::mem::replace(&mut self.groups[group as usize].first, NONE);
        while next != NONE {
            let part = next;
            next = self.parts[part as usize].next;
            self.let_go(part);
        }
        self.groups[group as usize].due = Due::Nothing;
        self.table.drop_slot(group);
    }

    fn let_go(&mut self, part: u32) {
        self.parts[part as usize].state = State::EMPTY;
        self.parts[part as usize].group = NONE;
        self.free.push(part);
        self.kept -= 1;
    }

    /// In order of their keys.
    pub(super) fn sort(&self, groups: &mut [u32]) {
        groups.sort_unstable_by(|a, b| self.table.key(*a).cmp(&self.table.key(*b)));
    }

    /// The key columns of groups.
    pub(super) fn keys(&self, groups: &[u32]) -> Result<Vec<ArrayRef>, StreamError> {
        self.table.decode(groups.iter().filter_map(|group| self.table.key(*group).map(AsRef::as_ref)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.table.bytes() + self.groups.capacity() * size_of::<Group>() + self.parts.capacity() * size_of::<Part>()
    }
}
