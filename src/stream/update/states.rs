//! The accumulators of many groups that live long: at rest as columns, at work in live accumulators.
//!
//! What a round of rows touches is loaded, updated, and put to rest again as one more chunk of columns, so that what is
//! paid grows with the groups that were touched and not with all that there are. Always: a state that was put to
//! rest and loaded again goes on as if nothing had happened; what a state holds depends on its own rows alone.

use arrow::array::ArrayRef;

use super::groups::Part;
use crate::stream::StreamError;
use crate::stream::rank::{Spot, Store};
use crate::stream::window::{Live, Maker};

/// No place.
const NOWHERE: u32 = u32::MAX;

/// One state: where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// Its group among the live accumulators.
    live: u32,
    spot: Spot,
}

impl State {
    /// One that has seen no row.
    pub(super) const EMPTY: Self = Self { live: NOWHERE, spot: (NOWHERE, NOWHERE) };

    /// Where a state lies that was put to rest in this place.
    pub(super) const fn at(spot: Spot) -> Self {
        Self { live: NOWHERE, spot }
    }

    /// The same state at rest.
    pub(super) const fn spot(&self) -> Spot {
        self.spot
    }
}

/// All of them; whose they are is the caller's.
pub(super) struct States {
    maker: Maker,
    live: Option<Live>,
    /// Whose each live group is.
    touched: Vec<u32>,
    /// Live groups that are still to be loaded, and from where.
    load: Vec<(usize, Spot)>,
    store: Store,
}

impl States {
    pub(super) fn new(maker: Maker) -> Self {
        Self { maker, live: None, touched: Vec::new(), load: Vec::new(), store: Store::default() }
    }

    pub(super) const fn maker(&self) -> &Maker {
        &self.maker
    }

    /// The live group of a state, which is owner's.
    pub(super) fn touch(&mut self, owner: u32, state: &mut State) -> usize {
        if state.live == NOWHERE {
            state.live = self.touched.len() as u32;
            self.touched.push(owner);
            if state.spot.0 != NOWHERE {
                self.load.push((state.live as usize, state.spot));
            }
        }
        state.live as usize
    }

    /// Adds rows: `columns` are the layout's expressions over them, `at` the live group of each.
    pub(super) fn update(&mut self, columns: &[ArrayRef], at: &[usize]) -> Result<(), StreamError> {
        let total = self.touched.len();
        let mut live = match self.live.take() {
            Some(live) => live,
            None => self.maker.live()?,
        };
        let load = std::mem::take(&mut self.load);
        if !load.is_empty() && self.maker.frozen_width() > 0 {
            let (groups, spots): (Vec<usize>, Vec<Spot>) = load.into_iter().unzip();
            self.maker.merge_at(&mut live, &self.store.gather(&spots)?, &groups, total)?;
        }
        self.maker.update_at(&mut live, columns, at, total)?;
        self.live = Some(live);
        Ok(())
    }

    /// Puts all that is live to rest. The owners are parts; one may have let go of the state it was touched with.
    pub(super) fn rest(&mut self, parts: &mut [Part]) -> Result<(), StreamError> {
        let Some(mut live) = self.live.take() else { return Ok(()) };
        let touched = std::mem::take(&mut self.touched);
        let chunk = self.store.next();
        let mut kept = Vec::with_capacity(touched.len());
        for (at, owner) in touched.into_iter().enumerate() {
            let state = &mut parts[owner as usize].state;
            if state.live == at as u32 {
                *state = State::at((chunk, kept.len() as u32));
                kept.push(at as u32);
            }
        }
        let frozen = self.maker.freeze(&mut live)?;
        self.maker.give_back(live);
        self.store.add(&frozen.columns, kept)?;
        Ok(())
    }

    /// The values of groups, each made of the states at these spots, in order; all lie at rest.
    pub(super) fn values(&mut self, groups: &[Vec<Spot>]) -> Result<Vec<ArrayRef>, StreamError> {
        if self.maker.frozen_width() == 0 {
            return Ok(Vec::new());
        }
        let mut result = self.maker.live()?;
        for round in 0..groups.iter().map(Vec::len).max().unwrap_or(0) {
            let of = groups.iter().enumerate().filter_map(|(group, spots)| Some((group, *spots.get(round)?)));
            let (numbers, spots): (Vec<usize>, Vec<Spot>) = of.unzip();
            self.maker.merge_at(&mut result, &self.store.gather(&spots)?, &numbers, groups.len())?;
        }
        let finished = self.maker.values(&mut result)?;
        self.maker.give_back(result);
        Ok(finished.values)
    }

    /// The states at these spots as columns.
    pub(super) fn columns(&self, spots: &[Spot]) -> Result<Vec<ArrayRef>, StreamError> {
        if spots.is_empty() || self.maker.frozen_width() == 0 { Ok(Vec::new()) } else { self.store.gather(spots) }
    }

    /// Takes back what [`States::columns`] gave; answers the chunk in which the states lie in the same order.
    pub(super) fn restore(&mut self, columns: &[ArrayRef], rows: usize) -> Result<u32, StreamError> {
        self.store.add(columns, (0..rows as u32).collect())
    }

    /// Whether most of what is stored is of no use any more, where so many states are in use.
    pub(super) const fn is_untidy(&self, kept: usize) -> bool {
        self.store.is_untidy(kept)
    }

    /// Keeps the states at these spots alone: the first then lies at (0, 0), the second at (0, 1), and so on.
    pub(super) fn keep(&mut self, spots: &[Spot]) -> Result<(), StreamError> {
        self.store.keep(spots)
    }

    pub(super) fn bytes(&self) -> usize {
        self.store.bytes() + self.live.as_ref().map_or(0, Live::bytes) + self.touched.len() * 4
    }
}
