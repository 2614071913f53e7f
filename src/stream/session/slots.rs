//! The accumulators of many open sessions.
//!
//! A session adds its rows to a slot. Slots lie in blocks of accumulators over many groups; closing some sessions
//! takes their blocks apart, finishes theirs and moves the rest together, so that what is paid for a close does not
//! grow with all that is open. Always: a slot's number stays the same while its place moves; what a slot holds depends
//! on its own rows alone.

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::interleave;

use crate::stream::StreamError;
use crate::stream::rowwise::{arrow_error, take_column};
use crate::stream::window::{Finished, Frozen, Live, Maker};

/// Groups in one block.
const BLOCK: usize = 512;

/// All slots.
pub(super) struct Slots {
    maker: Maker,
    blocks: Vec<Option<Block>>,
    free_blocks: Vec<u32>,
    /// The block that takes new slots.
    current: Option<u32>,
    /// Where each slot lies; a free one nowhere.
    places: Vec<Option<Place>>,
    free: Vec<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    block: u32,
    at: u32,
}

struct Block {
    live: Live,
    /// The slot of each group.
    owners: Vec<u32>,
}

/// Rows that go to one block, and the group of each there.
struct Part {
    block: u32,
    rows: Vec<u32>,
    groups: Vec<usize>,
}

/// A block that was taken apart; in order of their numbers where there are several.
struct Apart {
    block: u32,
    states: Frozen,
    owners: Vec<u32>,
}

impl Slots {
    pub(super) const fn new(maker: Maker) -> Self {
        Self { maker, blocks: Vec::new(), free_blocks: Vec::new(), current: None, places: Vec::new(), free: Vec::new() }
    }

    pub(super) const fn maker(&self) -> &Maker {
        &self.maker
    }

    /// A slot that holds nothing yet.
    pub(super) fn make(&mut self) -> Result<u32, StreamError> {
        let slot = self.number();
        self.place(slot)?;
        Ok(slot)
    }

    /// A slot without a place.
    fn number(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        })
    }

    /// Gives a slot the next group of the current block.
    fn place(&mut self, slot: u32) -> Result<(), StreamError> {
        let block = match self.current {
            Some(block) if self.blocks[block as usize].as_ref().is_some_and(|b| b.owners.len() < BLOCK) => block,
            _ => {
                let made = Block { live: self.maker.live()?, owners: Vec::new() };
                let block = match self.free_blocks.pop() {
                    Some(block) => {
                        self.blocks[block as usize] = Some(made);
                        block
                    }
                    None => {
                        self.blocks.push(Some(made));
                        (self.blocks.len() - 1) as u32
                    }
                };
                self.current = Some(block);
                block
            }
        };
        let owners = &mut self.blocks[block as usize].as_mut().expect("the current block is there").owners;
        owners.push(slot);
        self.places[slot as usize] = Some(Place { block, at: (owners.len() - 1) as u32 });
        Ok(())
    }

    fn placed(&self, slot: u32) -> Place {
        self.places[slot as usize].expect("a session's slot has a place")
    }

    /// Adds rows: `columns` are the layout's expressions over them, `slots` says where each goes.
    pub(super) fn update(&mut self, columns: &[ArrayRef], slots: &[u32]) -> Result<(), StreamError> {
        for part in self.parts_of(slots) {
            let Some(Block { live, owners }) = self.blocks[part.block as usize].as_mut() else { continue };
            if part.groups.len() == slots.len() {
                self.maker.update_at(live, columns, &part.groups, owners.len())?;
                continue;
            }
            let rows = UInt32Array::from(part.rows);
            let picked = columns.iter().map(|column| take_column(column, &rows)).collect::<Result<Vec<_>, _>>()?;
            self.maker.update_at(live, &picked, &part.groups, owners.len())?;
        }
        Ok(())
    }

    /// Which rows go to which block, in one pass; the rows of a block in their order.
    fn parts_of(&self, slots: &[u32]) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        let mut of_block = vec![usize::MAX; self.blocks.len()];
        for (row, slot) in slots.iter().enumerate() {
            let Place { block, at } = self.placed(*slot);
            let part = &mut of_block[block as usize];
            if *part == usize::MAX {
                *part = parts.len();
                parts.push(Part { block, rows: Vec::new(), groups: Vec::new() });
            }
            let part = &mut parts[*part];
            part.rows.push(row as u32);
            part.groups.push(at as usize);
        }
        parts
    }

    /// The values of sessions, each the union of its slots, which are free afterwards.
    pub(super) fn finish(&mut self, sessions: &[Vec<u32>]) -> Result<Finished, StreamError> {
        let apart = self.apart(sessions.iter().flatten())?;
        let mut result = self.maker.live()?;
        // A session's slots follow one another in their own order, whatever blocks they lie in.
        for round in 0..sessions.iter().map(Vec::len).max().unwrap_or(0) {
            let of = sessions.iter().enumerate().filter_map(|(group, slots)| Some((*slots.get(round)?, group)));
            let (slots, groups): (Vec<u32>, Vec<usize>) = of.unzip();
            self.maker.merge_at(&mut result, &self.states_of(&apart, &slots)?, &groups, sessions.len())?;
        }
        self.let_go(&apart, sessions.iter().flatten())?;
        let finished = self.maker.values(&mut result)?;
        self.maker.give_back(result);
        Ok(finished)
    }

    /// The states of slots as columns, in this order; they are free afterwards.
    pub(super) fn take(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>, StreamError> {
        let apart = self.apart(slots.iter())?;
        let states = self.states_of(&apart, slots)?;
        self.let_go(&apart, slots.iter())?;
        Ok(states)
    }

    /// Takes the blocks apart in which these slots lie.
    fn apart<'a>(&mut self, slots: impl Iterator<Item = &'a u32>) -> Result<Vec<Apart>, StreamError> {
        let mut blocks: Vec<u32> = slots.map(|slot| self.placed(*slot).block).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let mut apart = Vec::with_capacity(blocks.len());
        for block in blocks {
            let Some(Block { mut live, owners }) = self.blocks[block as usize].take() else { continue };
            let states = self.maker.freeze(&mut live)?;
            self.maker.give_back(live);
            self.free_blocks.push(block);
            if self.current == Some(block) {
                self.current = None;
            }
            apart.push(Apart { block, states, owners });
        }
        Ok(apart)
    }

    /// The states of slots whose blocks were taken apart.
    fn states_of(&self, apart: &[Apart], slots: &[u32]) -> Result<Vec<ArrayRef>, StreamError> {
        let place = |slot: &u32| {
            let Place { block, at } = self.placed(*slot);
            (apart.binary_search_by_key(&block, |of| of.block).expect("it was taken apart just now"), at as usize)
        };
        let picked: Vec<(usize, usize)> = slots.iter().map(place).collect();
        let states: Vec<&Frozen> = apart.iter().map(|of| &of.states).collect();
        gather(&states, &picked, self.maker.frozen_width())
    }

    /// Frees slots of blocks that were taken apart; what else lay there finds other places.
    fn let_go<'a>(&mut self, apart: &[Apart], slots: impl Iterator<Item = &'a u32>) -> Result<(), StreamError> {
        for slot in slots {
            self.places[*slot as usize] = None;
            self.free.push(*slot);
        }
        for Apart { states, owners, .. } in apart {
            let stays = owners.iter().enumerate().filter(|(_, slot)| self.places[**slot as usize].is_some());
            let stay: Vec<(usize, u32)> = stays.map(|(at, slot)| (at, *slot)).collect();
            self.settle(states, &stay)?;
        }
        Ok(())
    }

    /// Finds places for slots, each with the state in its row.
    fn settle(&mut self, states: &Frozen, slots: &[(usize, u32)]) -> Result<(), StreamError> {
        let mut from = 0;
        while from < slots.len() {
            self.place(slots[from].1)?;
            let block = self.placed(slots[from].1).block;
            let room = BLOCK - self.blocks[block as usize].as_ref().map_or(0, |b| b.owners.len());
            let to = (from + 1 + room).min(slots.len());
            for (_, slot) in &slots[from + 1..to] {
                self.place(*slot)?;
            }
            let picked: Vec<(usize, usize)> = slots[from..to].iter().map(|(at, _)| (0, *at)).collect();
            let columns = gather(&[states], &picked, self.maker.frozen_width())?;
            let groups: Vec<usize> = slots[from..to].iter().map(|(_, slot)| self.placed(*slot).at as usize).collect();
            let Some(Block { live, owners }) = self.blocks[block as usize].as_mut() else { continue };
            self.maker.merge_at(live, &columns, &groups, owners.len())?;
            from = to;
        }
        Ok(())
    }

    /// The states of slots as columns, in this order; everything goes on as if nothing had happened.
    pub(super) fn save(&mut self, slots: &[u32]) -> Result<Vec<ArrayRef>, StreamError> {
        let mut frozen = Vec::with_capacity(self.blocks.len());
        for block in &mut self.blocks {
            let states = match block {
                Some(Block { live, owners }) => {
                    let states = self.maker.freeze(live)?;
                    let groups: Vec<usize> = (0..states.groups).collect();
                    self.maker.merge_at(live, &states.columns, &groups, owners.len())?;
                    states
                }
                None => Frozen { columns: Vec::new(), groups: 0 },
            };
            frozen.push(states);
        }
        // Only blocks with groups have columns.
        let there: Vec<usize> = (0..frozen.len()).filter(|block| !frozen[*block].columns.is_empty()).collect();
        let states: Vec<&Frozen> = there.iter().map(|block| &frozen[*block]).collect();
        let picked: Vec<(usize, usize)> = slots
            .iter()
            .map(|slot| {
                let place = self.placed(*slot);
                (there.partition_point(|block| *block < place.block as usize), place.at as usize)
            })
            .collect();
        gather(&states, &picked, self.maker.frozen_width())
    }

    /// Takes back what [`Slots::save`] or [`Slots::take`] gave; answers the slots.
    pub(super) fn restore(&mut self, columns: &[ArrayRef], count: usize) -> Result<Vec<u32>, StreamError> {
        let slots: Vec<u32> = (0..count).map(|_| self.number()).collect();
        let states = Frozen { columns: columns.to_vec(), groups: count };
        self.settle(&states, &slots.iter().copied().enumerate().collect::<Vec<_>>())?;
        Ok(slots)
    }

    /// About how many bytes they take.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().flatten().map(|block| block.live.bytes() + block.owners.len() * 4).sum::<usize>() + self.places.len() * 12
    }
}

/// Rows of several frozen blocks, one behind the other.
fn gather(from: &[&Frozen], picked: &[(usize, usize)], width: usize) -> Result<Vec<ArrayRef>, StreamError> {
    let column = |place: usize| {
        let sources: Vec<&dyn Array> = from.iter().map(|states| states.columns[place].as_ref()).collect();
        interleave(&sources, picked).map_err(|e| arrow_error("the sessions' state", &e))
    };
    (0..width).map(column).collect()
}
