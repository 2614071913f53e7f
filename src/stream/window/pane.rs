//! One pane's groups and accumulators, live or frozen into state columns.
//!
//! A live pane takes rows. Once the first window it counts in has fired it takes no more (later rows
//! belong to another entry), and is frozen: its keys and intermediate states as columns, ready to be
//! merged into every further window and to be written out. Always: a frozen pane has `groups` rows in each
//! column, key columns first, then the states of each aggregate in order.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};

use super::shared::{Grouping, grouping};
use super::statistics::{Statistic, Statistics};
use crate::stream::rowwise::take_column;
use crate::stream::{Expr, Fold, FoldFactory, Keys, KeysFactory, StreamError};

/// Makes panes, and keeps emptied ones for the next use.
#[derive(Debug)]
pub(in crate::stream) struct Maker {
    keys: Option<Arc<dyn KeysFactory>>,
    folds: Vec<Arc<dyn FoldFactory>>,
    layout: Layout,
    /// Which aggregates are computed together ..
    units: Vec<Unit>,
    /// .. and where the state of each lies, behind the keys.
    states: Vec<Range<usize>>,
    pool: Pool,
}

/// What goes over the rows once.
#[derive(Debug)]
enum Unit {
    /// One aggregate.
    One(usize),
    /// Several, over the doubles of the column at a place of the layout.
    Together { place: usize, folds: Vec<usize>, of: Vec<Statistic> },
}

/// How many emptied panes are kept.
const POOLED: usize = 8;
/// A pane knows the groups of shared names where there are no more of these than so many times its groups, and ..
const SPARSE: usize = 4;
/// .. so many more.
const SMALL: usize = 1024;

#[derive(Default)]
struct Pool(Vec<Live>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} panes", self.0.len())
    }
}

/// Where the evaluated columns of a batch are: each distinct expression is evaluated once.
#[derive(Debug, Default)]
pub(in crate::stream) struct Layout {
    /// The distinct expressions.
    pub expressions: Vec<Arc<dyn Expr>>,
    keys: Vec<usize>,
    arguments: Vec<Vec<usize>>,
    filters: Vec<Option<usize>>,
}

impl Layout {
    fn place(&mut self, expr: &Arc<dyn Expr>) -> usize {
        let known = (0..self.expressions.len()).find(|place| Arc::ptr_eq(&self.expressions[*place], expr) && !self.is_filter(*place));
        if let Some(place) = known {
            return place;
        }
        self.expressions.push(Arc::clone(expr));
        self.expressions.len() - 1
    }

    /// As a filter NULL is false, as an argument it is NULL: a filter shares its column with filters only.
    fn filter_place(&mut self, expr: &Arc<dyn Expr>) -> usize {
        let known = self.filters.iter().flatten().find(|place| Arc::ptr_eq(&self.expressions[**place], expr));
        if let Some(place) = known {
            return *place;
        }
        self.expressions.push(Arc::clone(expr));
        self.expressions.len() - 1
    }

    /// The filters' places: these columns must be boolean and hold no NULL.
    pub(in crate::stream) fn is_filter(&self, place: usize) -> bool {
        self.filters.contains(&Some(place))
    }
}

impl Maker {
    pub(in crate::stream) fn new(
        key_exprs: &[Arc<dyn Expr>],
        keys: Option<Arc<dyn KeysFactory>>,
        folds: Vec<Arc<dyn FoldFactory>>,
    ) -> Result<Self, StreamError> {
        let mut layout = Layout::default();
        layout.keys = key_exprs.iter().map(|expr| layout.place(expr)).collect();
        for fold in &folds {
            let arguments = fold.arguments().iter().map(|expr| layout.place(expr)).collect();
            layout.arguments.push(arguments);
            let filter = fold.filter().map(|expr| layout.filter_place(expr));
            layout.filters.push(filter);
        }
        let keys = if key_exprs.is_empty() { None } else { keys };
        if !key_exprs.is_empty() && keys.is_none() {
            return Err(StreamError::Limit("a windowed aggregate has group keys and nothing to number them with".to_owned()));
        }
        let (units, mut states, mut at) = (units_of(&folds, &layout), Vec::with_capacity(folds.len()), 0);
        for fold in &folds {
            let width = fold.state_fields().len();
            states.push(at..at + width);
            at += width;
        }
        let mut maker = Self { keys, folds, layout, units, states, pool: Pool::default() };
        // Types an aggregate cannot take are found here, when the query is made, not at its first row.
        let first = maker.live()?;
        maker.give_back(first);
        Ok(maker)
    }

    pub(in crate::stream) const fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(in crate::stream) fn key_count(&self) -> usize {
        self.layout.keys.len()
    }

    /// How many columns a frozen pane has.
    pub(in crate::stream) fn frozen_width(&self) -> usize {
        self.key_count() + self.states.last().map_or(0, |last| last.end)
    }

    /// An empty live pane.
    pub(in crate::stream) fn live(&mut self) -> Result<Live, StreamError> {
        if let Some(pooled) = self.pool.0.pop() {
            return Ok(pooled);
        }
        let keys = self.keys.as_ref().map(|keys| keys.keys()).transpose()?;
        let part = |unit: &Unit| match unit {
            Unit::One(fold) => self.folds[*fold].fold().map(Part::One),
            Unit::Together { .. } => Ok(Part::Together(Statistics::default())),
        };
        let parts = self.units.iter().map(part).collect::<Result<_, _>>()?;
        Ok(Live { keys, parts, groups: 0, numbers: Vec::new(), own: Vec::new(), named: Named::default() })
    }

    /// Takes back a pane whose groups have been taken out.
    pub(in crate::stream) fn give_back(&mut self, live: Live) {
        if self.pool.0.len() < POOLED && live.groups == 0 {
            self.pool.0.push(live);
        }
    }

    fn named(&self, fold: usize, error: StreamError) -> StreamError {
        let what = self.folds[fold].field().name().clone();
        match error {
            StreamError::Evaluate { why, .. } => StreamError::Evaluate { what, why },
            other => other,
        }
    }

    /// Rows into a live pane: `columns` are the layout's expressions over exactly these rows.
    pub(in crate::stream) fn update(&self, live: &mut Live, columns: &[ArrayRef], rows: usize) -> Result<(), StreamError> {
        let keys: Vec<ArrayRef> = self.layout.keys.iter().map(|place| ArrayRef::clone(&columns[*place])).collect();
        // Other queries read the column too.
        let shared = if let [only] = keys.as_slice() { grouping(only) } else { None };
        live.number(&keys, rows, shared.as_deref())?;
        self.feed(&mut live.parts, columns, &live.numbers, live.groups)
    }

    /// Rows into the groups of a pane without keys that somebody else numbers.
    pub(in crate::stream) fn update_at(
        &self,
        live: &mut Live,
        columns: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<(), StreamError> {
        live.groups = total;
        self.feed(&mut live.parts, columns, groups, total)
    }

    fn feed(&self, parts: &mut [Part], columns: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), StreamError> {
        for (unit, part) in self.units.iter().zip(parts) {
            match (unit, part) {
                (Unit::One(index), Part::One(fold)) => {
                    let arguments: Vec<ArrayRef> =
                        self.layout.arguments[*index].iter().map(|place| ArrayRef::clone(&columns[*place])).collect();
                    let filter = self.layout.filters[*index].map(|place| columns[place].as_boolean());
                    fold.update(&arguments, groups, filter, total).map_err(|e| self.named(*index, e))?;
                }
                (Unit::Together { place, .. }, Part::Together(statistics)) => statistics.update(&columns[*place], groups, total)?,
                _ => return Err(misfit("it is another query's pane")),
            }
        }
        Ok(())
    }

    /// States into the groups of a pane without keys that somebody else numbers.
    pub(in crate::stream) fn merge_at(
        &self,
        live: &mut Live,
        states: &[ArrayRef],
        groups: &[usize],
        total: usize,
    ) -> Result<(), StreamError> {
        live.groups = total;
        self.join(&mut live.parts, states, groups, total)
    }

    /// A frozen pane's groups into a live one.
    pub(in crate::stream) fn merge(&self, live: &mut Live, frozen: &Frozen) -> Result<(), StreamError> {
        let (keys, states) = frozen.columns.split_at_checked(self.key_count()).ok_or_else(|| misfit("its state has too few columns"))?;
        live.number(keys, frozen.groups, None)?;
        self.join(&mut live.parts, states, &live.numbers, live.groups)
    }

    fn join(&self, parts: &mut [Part], states: &[ArrayRef], groups: &[usize], total: usize) -> Result<(), StreamError> {
        let state_of = |fold: usize| states.get(self.states[fold].clone()).ok_or_else(|| misfit("its state has too few columns"));
        for (unit, part) in self.units.iter().zip(parts) {
            match (unit, part) {
                (Unit::One(index), Part::One(fold)) => {
                    fold.merge(state_of(*index)?, groups, total).map_err(|e| self.named(*index, e))?;
                }
                (Unit::Together { folds, of, .. }, Part::Together(statistics)) => {
                    let states = folds.iter().map(|fold| state_of(*fold)).collect::<Result<Vec<_>, _>>()?.concat();
                    statistics.merge(of, &states, groups, total)?;
                }
                _ => return Err(misfit("it is another query's pane")),
            }
        }
        Ok(())
    }

    /// All groups out of a live pane, as columns of keys and states; the pane is empty afterwards.
    pub(in crate::stream) fn freeze(&self, live: &mut Live) -> Result<Frozen, StreamError> {
        let groups = live.groups;
        let mut columns = live.take_keys()?;
        let mut states = vec![Vec::new(); self.folds.len()];
        for (unit, part) in self.units.iter().zip(&mut live.parts) {
            match (unit, part) {
                (Unit::One(index), Part::One(fold)) => states[*index] = fold.take_state().map_err(|e| self.named(*index, e))?,
                (Unit::Together { folds, of, .. }, Part::Together(statistics)) => {
                    folds.iter().zip(statistics.take_states(of)).for_each(|(fold, state)| states[*fold] = state);
                }
                _ => return Err(misfit("it is another query's pane")),
            }
        }
        columns.extend(states.into_iter().flatten());
        if columns.len() != self.frozen_width() || columns.iter().any(|column| column.len() != groups) {
            return Err(misfit("an aggregate gave a state of another shape than it declared"));
        }
        Ok(Frozen { columns, groups })
    }

    /// All groups out of a live pane: their keys, and each aggregate's values; the pane is empty afterwards.
    pub(in crate::stream) fn values(&self, live: &mut Live) -> Result<Finished, StreamError> {
        let groups = live.groups;
        let keys = live.take_keys()?;
        let mut values = vec![None; self.folds.len()];
        for (unit, part) in self.units.iter().zip(&mut live.parts) {
            match (unit, part) {
                (Unit::One(index), Part::One(fold)) => values[*index] = Some(fold.take_values().map_err(|e| self.named(*index, e))?),
                (Unit::Together { folds, of, .. }, Part::Together(statistics)) => {
                    folds.iter().zip(statistics.take_values(of)).for_each(|(fold, column)| values[*fold] = Some(column));
                }
                _ => return Err(misfit("it is another query's pane")),
            }
        }
        Ok(Finished { keys, values: values.into_iter().flatten().collect(), groups })
    }
}

/// Aggregates over the doubles of one column go together, where there are several.
fn units_of(folds: &[Arc<dyn FoldFactory>], layout: &Layout) -> Vec<Unit> {
    let place_of = |fold: usize| match (folds[fold].statistic(), layout.arguments[fold].as_slice(), layout.filters[fold]) {
        (Some(statistic), [place], None) => Some((*place, statistic)),
        _ => None,
    };
    let mut units = Vec::new();
    for fold in 0..folds.len() {
        let Some((place, _)) = place_of(fold) else {
            units.push(Unit::One(fold));
            continue;
        };
        let (members, of): (Vec<usize>, Vec<Statistic>) = (0..folds.len())
            .filter_map(|other| place_of(other).filter(|(at, _)| *at == place).map(|(_, statistic)| (other, statistic)))
            .unzip();
        if members.len() == 1 {
            units.push(Unit::One(fold));
        } else if members[0] == fold {
            units.push(Unit::Together { place, folds: members, of });
        }
    }
    units
}

fn misfit(why: &str) -> StreamError {
    StreamError::Evaluate { what: "the windowed aggregate".to_owned(), why: why.to_owned() }
}

/// A pane that takes rows.
pub(in crate::stream) struct Live {
    keys: Option<Box<dyn Keys>>,
    parts: Vec<Part>,
    groups: usize,
    /// Each row's group during one call; kept for its memory.
    numbers: Vec<usize>,
    /// The same of each text of a grouping.
    own: Vec<usize>,
    named: Named,
}

/// What a unit holds.
enum Part {
    One(Box<dyn Fold>),
    Together(Statistics),
}

impl Part {
    fn size(&self) -> usize {
        match self {
            Self::One(fold) => fold.size(),
            Self::Together(statistics) => statistics.size(),
        }
    }
}

/// The groups of texts that have a number which several queries share.
#[derive(Default)]
struct Named {
    generation: u64,
    /// By number: the group and one, or nothing where it is not known.
    groups: Vec<u32>,
    /// The places of those not known, and their groups, during one call.
    missing: Vec<u32>,
    found: Vec<usize>,
}

impl Named {
    /// The group of each text of a grouping; what is not known is asked of `keys`.
    fn groups_of(&mut self, grouping: &Grouping, keys: &mut dyn Keys, groups: &mut Vec<usize>) -> Result<(), StreamError> {
        groups.clear();
        // A table for many texts of which few are here would be larger than the state.
        if grouping.end as usize > SPARSE * keys.len() + SMALL {
            return keys.intern(std::slice::from_ref(&grouping.texts), groups);
        }
        if self.generation != grouping.generation {
            self.forget();
            self.generation = grouping.generation;
        }
        if self.groups.len() < grouping.end as usize {
            self.groups.resize(grouping.end as usize, 0);
        }
        self.missing.clear();
        for (place, name) in grouping.names.iter().enumerate() {
            let known = self.groups[*name as usize];
            if known == 0 {
                self.missing.push(place as u32);
            }
            groups.push((known as usize).wrapping_sub(1));
        }
        if self.missing.is_empty() {
            return Ok(());
        }
        self.found.clear();
        keys.intern(&[take_column(&grouping.texts, &UInt32Array::from(self.missing.clone()))?], &mut self.found)?;
        for (place, group) in self.missing.iter().zip(&self.found) {
            groups[*place as usize] = *group;
            if let Ok(group) = u32::try_from(*group + 1) {
                self.groups[grouping.names[*place as usize] as usize] = group;
            }
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.groups.clear();
    }
}

impl Live {
    fn number(&mut self, keys: &[ArrayRef], rows: usize, shared: Option<&Grouping>) -> Result<(), StreamError> {
        self.numbers.clear();
        match &mut self.keys {
            Some(known) => {
                match shared {
                    None => known.intern(keys, &mut self.numbers)?,
                    Some(found) => {
                        self.named.groups_of(found, known.as_mut(), &mut self.own)?;
                        self.numbers.extend(found.places.iter().map(|place| self.own[*place as usize]));
                    }
                }
                self.groups = known.len();
            }
            None => {
                self.numbers.resize(rows, 0);
                self.groups = self.groups.max(usize::from(rows > 0));
            }
        }
        Ok(())
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>, StreamError> {
        self.groups = 0;
        self.named.forget();
        self.keys.as_mut().map_or_else(|| Ok(Vec::new()), |keys| keys.take())
    }

    pub(in crate::stream) fn bytes(&self) -> usize {
        let named = self.named.groups.capacity() * size_of::<u32>();
        named + self.keys.as_ref().map_or(0, |keys| keys.size()) + self.parts.iter().map(Part::size).sum::<usize>()
    }
}

/// A pane as columns.
#[derive(Clone, Debug)]
pub(in crate::stream) struct Frozen {
    pub columns: Vec<ArrayRef>,
    pub groups: usize,
}

/// The results of one window.
pub(in crate::stream) struct Finished {
    pub keys: Vec<ArrayRef>,
    pub values: Vec<ArrayRef>,
    pub groups: usize,
}

#[cfg(test)]
mod tests {
    use arrow::array::StringArray;
    use arrow::datatypes::DataType;
    use proptest::prelude::*;

    use super::super::shared::Names;
    use super::*;
    use crate::stream::doubles::Numbering;

    /// What happens to a pane.
    #[derive(Clone, Debug)]
    enum Step {
        /// Rows whose texts have numbers.
        Shared(Vec<u8>),
        /// Rows that only this query reads.
        Alone(Vec<u8>),
        /// It is emptied.
        Taken,
    }

    fn step() -> impl Strategy<Value = Step> {
        let keys = || proptest::collection::vec(0..40u8, 80..200);
        prop_oneof![4 => keys().prop_map(Step::Shared), 2 => keys().prop_map(Step::Alone), 1 => Just(Step::Taken)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn groups_by_number_are_those_by_text(steps in proptest::collection::vec(step(), 1..12), elsewhere in proptest::collection::vec(20..60u8, 80..90)) {
            let texts = |keys: &[u8]| keys.iter().map(|key| (*key > 0).then(|| format!("p{key}"))).collect::<StringArray>();
            let mut names = Names::default();
            // Another query has given numbers before.
            Grouping::of(&texts(&elsewhere), &mut names);
            let (mut one, mut other) = (Numbering(vec![DataType::Utf8]).keys().unwrap(), Numbering(vec![DataType::Utf8]).keys().unwrap());
            let mut named = Named::default();
            for step in steps {
                let (mut by_number, mut by_text) = (Vec::new(), Vec::new());
                match step {
                    Step::Shared(keys) => {
                        let column = texts(&keys);
                        let Some(grouping) = Grouping::of(&column, &mut names) else { continue };
                        let mut own = Vec::new();
                        named.groups_of(&grouping, one.as_mut(), &mut own).unwrap();
                        by_number.extend(grouping.places.iter().map(|place| own[*place as usize]));
                        other.intern(&[Arc::new(column)], &mut by_text).unwrap();
                    }
                    Step::Alone(keys) => {
                        let column: ArrayRef = Arc::new(texts(&keys));
                        one.intern(std::slice::from_ref(&column), &mut by_number).unwrap();
                        other.intern(&[column], &mut by_text).unwrap();
                    }
                    Step::Taken => {
                        one.take().unwrap();
                        other.take().unwrap();
                        named.forget();
                    }
                }
                prop_assert_eq!(by_number, by_text);
                prop_assert_eq!(one.len(), other.len());
            }
        }
    }

    #[test]
    fn numbers_that_begin_anew_are_not_taken_for_the_old_ones() {
        let mut names = Names::default();
        let mut keys = Numbering(vec![DataType::Utf8]).keys().unwrap();
        let (mut named, mut own) = (Named::default(), Vec::new());
        let column =
            |from: usize, count: usize| (from..from + count).flat_map(|n| [n, n]).map(|n| Some(format!("p{n}"))).collect::<StringArray>();
        for from in [0, 40_000, 80_000, 0] {
            let grouping = Grouping::of(&column(from, 40_000), &mut names).unwrap();
            named.groups_of(&grouping, keys.as_mut(), &mut own).unwrap();
            assert_eq!(own.first(), Some(&from), "generation {}", grouping.generation);
        }
    }
}
