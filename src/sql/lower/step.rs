//! The steps of a continuous query: what lowering finds in a plan, and the operators of `stream` made of it.
//!
//! A [`Step`] is shared by all tasks of a query and holds no state; [`Step::operator`] makes a fresh operator. Always:
//! a step's schema is what its operator hands on. Made by `walk`, kept by `QueryPlan`.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::sql::grouping::Sets;
use crate::sql::windows::{Cut, Length};
use crate::stream::{
    Absent, AbsentColumn, AbsentSpec, Ahead, AheadSpec, ExpandColumn, Expr, FilterProject, FoldFactory, GapColumn, GapFill, GapSpec,
    GroupEmit, GroupLife, GroupingSets, GroupingSpec, Keyed, KeyedFunction, KeyedSpec, KeysFactory, Lead, LeadCall, LeadSpec,
    MatchRecognize, Operator, Over, OverCall, OverExpiry, OverFrame, OverFunction, OverSpec, PatternSpec, Rank, RankOrder, RankSpec,
    Regroup, RegroupSpec, Scope, SessionAggregate, SessionSpec, Shown, StreamError, Top, TopSpec, UpdateAggregate, UpdateSpec,
    WindowAggregate, WindowAggregateSpec, WindowColumn, WindowExpand, WindowRule,
};

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A condition, then columns.
    Map { filter: Option<Arc<dyn Expr>>, columns: Option<Vec<Arc<dyn Expr>>>, schema: SchemaRef },
    /// Functions over a key's past.
    Keyed { keys: Vec<Arc<dyn Expr>>, functions: Vec<KeyedFunction>, names: Vec<String>, schema: SchemaRef },
    /// Functions over frames of a key's rows.
    Over { keys: Vec<Arc<dyn Expr>>, calls: Vec<OverCall>, expiry: Option<OverExpiry>, ttl_ms: Option<i64>, schema: SchemaRef },
    /// Functions over frames that reach behind their rows.
    Ahead { keys: Vec<Arc<dyn Expr>>, calls: Vec<OverCall>, schema: SchemaRef },
    /// Values of a key's later rows.
    Lead { keys: Vec<Arc<dyn Expr>>, calls: Vec<LeadCall>, names: Vec<String>, schema: SchemaRef },
    /// The number of each row in an order, within partitions that come to an end.
    Rank { keys: Vec<Arc<dyn Expr>>, order: Vec<RankOrder>, expiry: OverExpiry, limit: Option<usize>, schema: SchemaRef },
    /// The first rows of each key in an order, told as they change.
    Top {
        keys: Vec<Arc<dyn Expr>>,
        /// Which column each of the keys is, where it is one.
        key_columns: Vec<Option<usize>>,
        order: Vec<RankOrder>,
        limit: Option<usize>,
        ttl_ms: Option<i64>,
        schema: SchemaRef,
    },
    /// Rows put into gaps.
    Gaps { columns: Vec<GapColumn>, every_ms: i64, schema: SchemaRef },
    /// Aggregates by key and window.
    Window {
        cut: Cut,
        keys: Vec<Arc<dyn Expr>>,
        sets: Option<StepSets>,
        keys_factory: Option<Arc<dyn KeysFactory>>,
        folds: Vec<Arc<dyn FoldFactory>>,
        schema: SchemaRef,
    },
    /// Aggregates by key that are told as they change, or once a time in their key has passed.
    Update {
        life: Life,
        emit: GroupEmit,
        keys: Vec<Arc<dyn Expr>>,
        sets: Option<StepSets>,
        folds: Vec<Arc<dyn FoldFactory>>,
        schema: SchemaRef,
    },
    /// Aggregates by key of results that change, behind the conditions and columns that those go through.
    Regroup { from: Vec<usize>, between: Vec<Self>, keys: Vec<Arc<dyn Expr>>, folds: Vec<Arc<dyn FoldFactory>>, schema: SchemaRef },
    /// Each row with every window it lies in.
    Expand { cut: Cut, columns: Vec<ExpandColumn>, schema: SchemaRef },
    /// Matches of a pattern; what it is, as it was written.
    Match { spec: Box<PatternSpec>, text: String },
    /// Silences.
    Absent { keys: Vec<Arc<dyn Expr>>, after_ms: i64, returns: bool, schema: SchemaRef },
}

/// The sets of keys that an aggregate goes by.
#[derive(Clone, Debug)]
pub(super) struct StepSets {
    pub sets: Sets,
    /// How many columns the aggregate's rows have.
    pub width: usize,
    /// Whether the keys of a row alone do not say which set it is of: some may be NULL without that.
    pub is_needed: bool,
    /// What the results say of the set, beside its number: a value for each set.
    pub marks: Vec<Vec<i64>>,
}

impl StepSets {
    /// Whether those of the marks that are there have other values for every set.
    fn told_apart_by(&self, is_there: impl Fn(usize) -> bool) -> bool {
        let there: Vec<&Vec<i64>> = self.marks.iter().enumerate().filter(|(at, _)| is_there(*at)).map(|(_, mark)| mark).collect();
        let of = |set: usize| there.iter().map(|mark| mark[set]).collect::<Vec<_>>();
        (0..self.sets.sets.len()).all(|set| (0..set).all(|before| of(before) != of(set)))
    }

    fn spec(&self, keys: &[Arc<dyn Expr>]) -> GroupingSpec {
        GroupingSpec {
            width: self.width,
            keys: keys.to_vec(),
            sets: self.sets.sets.clone(),
            id: self.sets.id.clone(),
            marks: self.marks.clone(),
        }
    }
}

/// What an aggregate goes by, where its keys stand alone and where they stand in sets.
fn inner_keys(keys: &[Arc<dyn Expr>], sets: Option<&StepSets>) -> Vec<Arc<dyn Expr>> {
    sets.map_or_else(|| keys.to_vec(), |sets| sets.spec(keys).inner_keys())
}

/// An aggregate with its sets around it, where it has any.
fn in_sets(
    inner: Box<dyn Operator>,
    keys: &[Arc<dyn Expr>],
    sets: Option<&StepSets>,
    folds: &[Arc<dyn FoldFactory>],
) -> Result<Box<dyn Operator>, StreamError> {
    Ok(match sets {
        Some(sets) => Box::new(GroupingSets::new(sets.spec(keys), folds.to_vec(), inner)?),
        None => inner,
    })
}

/// How long groups live that are told as they change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Until no row has come for so long, or for ever.
    Open(Option<i64>),
    /// As long as their window and a grace.
    Window(Cut, i64),
    /// Until a time in their key.
    Key(OverExpiry),
}

/// The columns of an aggregate over windows.
fn window_columns(keys: usize, folds: usize) -> Vec<WindowColumn> {
    let window = [WindowColumn::WindowStart, WindowColumn::WindowEnd, WindowColumn::WindowTime];
    (0..keys).map(WindowColumn::Key).chain(window).chain((0..folds).map(WindowColumn::Agg)).collect()
}

/// The rule of windows that lie where the clock says.
pub(super) fn rule(cut: Cut) -> Result<WindowRule, StreamError> {
    match cut {
        Cut::Tumble { size, offset } => WindowRule::tumble(size, offset),
        Cut::Hop { slide, size, offset } => WindowRule::hop(slide, size, offset),
        Cut::Cumulate { step, size, offset } => WindowRule::cumulate(step, size, offset),
        Cut::Session { .. } => Err(StreamError::Limit("a session lies where its rows lie".to_owned())),
    }
}

impl Step {
    /// The columns it hands on.
    pub(super) fn schema(&self) -> &SchemaRef {
        match self {
            Self::Map { schema, .. }
            | Self::Keyed { schema, .. }
            | Self::Over { schema, .. }
            | Self::Ahead { schema, .. }
            | Self::Lead { schema, .. }
            | Self::Gaps { schema, .. }
            | Self::Rank { schema, .. }
            | Self::Top { schema, .. }
            | Self::Window { schema, .. }
            | Self::Update { schema, .. }
            | Self::Regroup { schema, .. }
            | Self::Expand { schema, .. }
            | Self::Absent { schema, .. } => schema,
            Self::Match { spec, .. } => &spec.schema,
        }
    }

    /// A fresh operator for one task.
    pub(super) fn operator(&self, scope: Scope) -> Result<Box<dyn Operator>, StreamError> {
        Ok(match self {
            Self::Map { filter, columns, schema } => Box::new(FilterProject::new(filter.clone(), columns.clone(), Arc::clone(schema))),
            Self::Keyed { keys, functions, schema, .. } => {
                Box::new(Keyed::new(KeyedSpec { keys: keys.clone(), functions: functions.clone(), schema: Arc::clone(schema) })?)
            }
            Self::Over { keys, calls, expiry, ttl_ms, schema } => Box::new(Over::new(OverSpec {
                keys: keys.clone(),
                calls: calls.clone(),
                expiry: *expiry,
                ttl_ms: *ttl_ms,
                schema: Arc::clone(schema),
            })?),
            Self::Ahead { keys, calls, schema } => {
                Box::new(Ahead::new(AheadSpec { keys: keys.clone(), calls: calls.clone(), schema: Arc::clone(schema) })?)
            }
            Self::Lead { keys, calls, schema, .. } => {
                Box::new(Lead::new(LeadSpec { keys: keys.clone(), calls: calls.clone(), schema: Arc::clone(schema) })?)
            }
            Self::Rank { keys, order, expiry, limit, schema } => Box::new(Rank::new(RankSpec {
                scope,
                keys: keys.clone(),
                order: order.clone(),
                expiry: *expiry,
                limit: *limit,
                schema: Arc::clone(schema),
            })?),
            Self::Gaps { columns, every_ms, schema } => {
                Box::new(GapFill::new(GapSpec { columns: columns.clone(), interval_ms: *every_ms, schema: Arc::clone(schema) })?)
            }
            Self::Window { cut: Cut::Session { gap }, keys, folds, schema, .. } => Box::new(SessionAggregate::new(SessionSpec {
                gap_ms: *gap,
                scope,
                keys: keys.clone(),
                folds: folds.clone(),
                columns: window_columns(keys.len(), folds.len()),
                schema: Arc::clone(schema),
            })?),
            Self::Window { .. } => self.over_sets(Box::new(WindowAggregate::new(self.window(scope)?)?))?,
            Self::Top { .. } | Self::Regroup { .. } => {
                return Err(StreamError::Limit("results that change do not say what is shown of them".to_owned()));
            }
            Self::Update { .. } => self.update(scope, None)?,
            Self::Expand { cut, columns, schema } => Box::new(WindowExpand::new(rule(*cut)?, columns.clone(), Arc::clone(schema))),
            Self::Match { spec, .. } => Box::new(MatchRecognize::new(spec.as_ref().clone())?),
            Self::Absent { keys, after_ms, returns, schema } => {
                // `absent_since` of a return is when the key came back: each row's own time.
                let own = [AbsentColumn::LastTs, AbsentColumn::At, AbsentColumn::Absent];
                Box::new(Absent::new(AbsentSpec {
                    scope,
                    keys: keys.clone(),
                    interval_ms: *after_ms,
                    returns: *returns,
                    columns: (0..keys.len()).map(AbsentColumn::Key).chain(own).collect(),
                    schema: Arc::clone(schema),
                })?)
            }
        })
    }

    /// The step as EXPLAIN shows it, one or more lines.
    pub(super) fn explain(&self, out: &mut String) {
        let list = |exprs: &[Arc<dyn Expr>]| exprs.iter().map(|e| e.text()).collect::<Vec<_>>().join(", ");
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Map { filter, columns, schema } => {
                if let Some(filter) = filter {
                    let _ = writeln!(out, "keep     {}", filter.text());
                }
                let Some(columns) = columns else { return };
                let named = columns.iter().zip(schema.fields()).map(|(expr, field)| {
                    let text = expr.text();
                    let plain = text == *field.name() || text.rsplit_once('.').is_some_and(|(_, last)| last == field.name());
                    if plain || field.name().starts_with("__") { text } else { format!("{text} AS {}", field.name()) }
                });
                writeln!(out, "columns  {}", named.collect::<Vec<_>>().join(", "))
            }
            Self::Keyed { keys, names, .. } => writeln!(out, "over     [{}] by time: {}", list(keys), names.join(", ")),
            Self::Over { keys, calls, expiry, ttl_ms, .. } => {
                let calls = calls.iter().map(shown_call).collect::<Vec<_>>().join(", ");
                let until = expiry.map(|expiry| format!(", each {}", shown_end(&keys[expiry.key].text(), expiry.plus_ms)));
                let silent = ttl_ms.map(|ttl| format!(", each until {} without a row", Length(ttl)));
                writeln!(out, "over     [{}] by time{}{}: {calls}", list(keys), until.unwrap_or_default(), silent.unwrap_or_default())
            }
            Self::Ahead { keys, calls, .. } => {
                let calls = calls.iter().map(shown_call).collect::<Vec<_>>().join(", ");
                writeln!(out, "around   [{}] by time: {calls}", list(keys))
            }
            Self::Lead { keys, names, .. } => writeln!(out, "ahead    [{}] by time: {}", list(keys), names.join(", ")),
            Self::Rank { keys, order, expiry, limit, .. } => {
                let order = order.iter().map(shown_order).collect::<Vec<_>>().join(", ");
                let first = limit.map_or_else(|| "all".to_owned(), |limit| format!("first {limit}"));
                let until = shown_end(&keys[expiry.key].text(), expiry.plus_ms);
                writeln!(out, "rank     {first} of [{}] by [{order}], each {until}", list(keys))
            }
            Self::Top { keys, order, limit, ttl_ms, .. } => {
                let order = order.iter().map(shown_order).collect::<Vec<_>>().join(", ");
                let until = ttl_ms.map_or_else(String::new, |ttl| format!(", each until {} without a row", Length(ttl)));
                writeln!(out, "top      first {} of [{}] by [{order}]{until}", limit.unwrap_or(0), list(keys))
            }
            Self::Gaps { columns, every_ms, schema } => {
                let of = |what: GapColumn| {
                    let named = columns.iter().zip(schema.fields()).filter(move |(column, _)| **column == what);
                    named.map(|(_, field)| field.name().as_str()).collect::<Vec<_>>().join(", ")
                };
                let (keys, locf, lines) = (of(GapColumn::Key), of(GapColumn::Locf), of(GapColumn::Interpolate));
                writeln!(out, "gaps     [{keys}] every {}: last of [{locf}], line of [{lines}]", Length(*every_ms))
            }
            Self::Window { cut, keys, sets, folds, .. } => {
                let folds = folds.iter().map(|fold| format!("{fold:?}")).collect::<Vec<_>>().join(", ");
                writeln!(out, "window   {cut} by [{}]{}: {folds}", list(keys), shown_sets(keys, sets.as_ref()))
            }
            Self::Update { life, emit, keys, sets, folds, .. } => {
                let folds = folds.iter().map(|fold| format!("{fold:?}")).collect::<Vec<_>>().join(", ");
                let until = match life {
                    Life::Open(None) => String::new(),
                    Life::Open(Some(ttl)) => format!(", each until {} without a row", Length(*ttl)),
                    Life::Window(_, 0) => String::new(),
                    Life::Window(_, grace) => format!(", late rows for {}", Length(*grace)),
                    Life::Key(expiry) => format!(", each {}", shown_end(&keys[expiry.key].text(), expiry.plus_ms)),
                };
                let of = if let Life::Window(cut, _) = life { format!("{cut} ") } else { String::new() };
                let when = if *emit == GroupEmit::OnUpdate { "update  " } else { "group   " };
                writeln!(out, "{when} {of}by [{}]{}{until}: {folds}", list(keys), shown_sets(keys, sets.as_ref()))
            }
            Self::Regroup { between, keys, folds, .. } => {
                between.iter().for_each(|step| step.explain(out));
                let folds = folds.iter().map(|fold| format!("{fold:?}")).collect::<Vec<_>>().join(", ");
                writeln!(out, "regroup  by [{}], of what holds: {folds}", list(keys))
            }
            Self::Expand { cut, .. } => writeln!(out, "windows  {cut}: each row with every window it lies in"),
            Self::Match { spec, text } => writeln!(out, "match    [{}] by time: {text}", list(&spec.keys)),
            Self::Absent { keys, after_ms, returns, .. } => {
                let told = if *returns { "silences and returns" } else { "silences" };
                writeln!(out, "absent   {told}, after {} by [{}]", Length(*after_ms), list(keys))
            }
        };
    }

    /// What tells this step's state from another's: its text and the types it keeps.
    pub(super) fn fingerprint(&self, out: &mut String) {
        self.explain(out);
        let _ = writeln!(out, "{:?}", self.schema().fields());
        if let Self::Match { spec, .. } = self {
            let _ = writeln!(out, "{:?} {:?}", spec.input.fields(), spec.arguments);
        }
        if let Self::Regroup { folds, from, .. } = self {
            let _ = writeln!(out, "{from:?}");
            for fold in folds {
                let _ = writeln!(out, "{:?}", fold.state_fields());
            }
        }
        if let Self::Window { folds, sets, .. } | Self::Update { folds, sets, .. } = self {
            for fold in folds {
                let _ = writeln!(out, "{:?}", fold.state_fields());
            }
            if let Some(sets) = sets {
                let numbers: Vec<u64> = sets.sets.sets.iter().map(|set| set.id).collect();
                let _ = writeln!(out, "{numbers:?} {:?}", sets.marks);
            }
        }
    }

    /// What an aggregate over windows is made of that lie where the clock says.
    pub(super) fn window(&self, scope: Scope) -> Result<WindowAggregateSpec, StreamError> {
        let Self::Window { cut, keys, sets, keys_factory, folds, schema } = self else {
            return Err(StreamError::Limit("the step is no aggregate over windows".to_owned()));
        };
        let keys = inner_keys(keys, sets.as_ref());
        Ok(WindowAggregateSpec {
            rule: rule(*cut)?,
            scope,
            columns: window_columns(keys.len(), folds.len()),
            keys,
            keys_factory: keys_factory.clone(),
            folds: folds.clone(),
            schema: Arc::clone(schema),
        })
    }

    /// What takes the rows of such an aggregate, with its sets around it, where it has any.
    pub(super) fn over_sets(&self, inner: Box<dyn Operator>) -> Result<Box<dyn Operator>, StreamError> {
        match self {
            Self::Window { keys, sets, folds, .. } => in_sets(inner, keys, sets.as_ref(), folds),
            _ => Ok(inner),
        }
    }

    /// A fresh operator of groups that are told as they change.
    fn update(&self, scope: Scope, shown: Option<Shown>) -> Result<Box<dyn Operator>, StreamError> {
        let Self::Update { life, emit, keys, sets, folds, schema } = self else {
            return Err(StreamError::Limit("the step does not change rows".to_owned()));
        };
        let window: &[WindowColumn] = match life {
            Life::Window(..) => &[WindowColumn::WindowStart, WindowColumn::WindowEnd, WindowColumn::WindowTime],
            Life::Open(_) | Life::Key(_) => &[],
        };
        let keys_of = inner_keys(keys, sets.as_ref());
        let shown_keys = keys.len() + usize::from(sets.is_some());
        let columns = (0..shown_keys).map(WindowColumn::Key).chain(window.iter().copied()).chain((0..folds.len()).map(WindowColumn::Agg));
        let aggregate = UpdateAggregate::new(UpdateSpec {
            scope,
            keys: keys_of,
            folds: folds.clone(),
            life: match *life {
                Life::Open(ttl_ms) => GroupLife::Open { ttl_ms },
                Life::Window(cut, grace_ms) => GroupLife::Window { rule: rule(cut)?, grace_ms },
                Life::Key(expiry) => GroupLife::Key(expiry),
            },
            emit: *emit,
            columns: columns.collect(),
            schema: Arc::clone(schema),
            shown,
        })?;
        in_sets(Box::new(aggregate), keys, sets.as_ref(), folds)
    }

    /// Whether its rows take the place of those it gave before.
    pub(super) fn is_changing(&self) -> bool {
        match self {
            Self::Update { life, emit, .. } => *emit == GroupEmit::OnUpdate || matches!(life, Life::Window(..)),
            Self::Top { .. } | Self::Regroup { .. } => true,
            _ => false,
        }
    }

    /// What of the key of rows that change is not among these columns.
    pub(super) fn missing_key(&self, columns: &[(usize, WindowColumn)]) -> Option<String> {
        let keys = match self {
            Self::Update { keys, .. } | Self::Top { keys, .. } | Self::Regroup { keys, .. } => keys,
            _ => return None,
        };
        let has = |part: WindowColumn| columns.iter().any(|(_, column)| *column == part);
        if let Some(missing) = (0..keys.len()).find(|key| !has(WindowColumn::Key(*key))) {
            return Some(keys[missing].text());
        }
        if let Self::Update { sets: Some(sets), .. } = self
            && sets.is_needed
            && !sets.told_apart_by(|mark| has(WindowColumn::Key(keys.len() + 1 + mark)))
        {
            return Some(format!("grouping_id({})", keys.iter().map(|key| key.text()).collect::<Vec<_>>().join(", ")));
        }
        let window = [WindowColumn::WindowStart, WindowColumn::WindowEnd];
        match self {
            Self::Update { life: Life::Window(..), .. } if !window.into_iter().any(has) => Some("window_end".to_owned()),
            Self::Top { limit, .. } if *limit != Some(1) && !has(WindowColumn::Agg(0)) => Some("the ROW_NUMBER".to_owned()),
            _ => None,
        }
    }

    /// A fresh operator whose rows change, and which shows them so.
    pub(super) fn changing(&self, scope: Scope, shown: Shown) -> Result<Box<dyn Operator>, StreamError> {
        if let Self::Top { keys, order, limit, ttl_ms, schema, .. } = self {
            return Ok(Box::new(Top::new(TopSpec {
                scope,
                keys: keys.clone(),
                order: order.clone(),
                limit: limit.unwrap_or(0),
                ttl_ms: *ttl_ms,
                schema: Arc::clone(schema),
                shown,
            })?));
        }
        if let Self::Regroup { from, between, keys, folds, schema } = self {
            return Ok(Box::new(Regroup::new(RegroupSpec {
                scope,
                from: from.clone(),
                between: between.iter().map(Self::filter_project).collect::<Option<_>>().ok_or_else(changes_alone)?,
                keys: keys.clone(),
                folds: folds.clone(),
                schema: Arc::clone(schema),
                shown,
            })?));
        }
        self.update(scope, Some(shown))
    }

    /// Where its rows change: which of its own columns tell them apart; `None` where its columns do not say it.
    pub(super) fn own_key(&self) -> Option<Vec<(usize, WindowColumn)>> {
        match self {
            Self::Update { life: Life::Open(_), keys, sets, .. } => {
                Some((0..keys.len() + usize::from(sets.is_some())).map(|key| (key, WindowColumn::Key(key))).collect())
            }
            Self::Regroup { keys, .. } => Some((0..keys.len()).map(|key| (key, WindowColumn::Key(key))).collect()),
            Self::Top { key_columns, limit, schema, .. } => {
                let keys = key_columns.iter().enumerate().map(|(key, column)| Some(((*column)?, WindowColumn::Key(key))));
                let number = (*limit != Some(1)).then_some(Some((schema.fields().len() - 1, WindowColumn::Agg(0))));
                keys.chain(number).collect()
            }
            _ => None,
        }
    }

    /// The condition and columns that it is, where it is nothing else.
    pub(super) fn filter_project(&self) -> Option<FilterProject> {
        match self {
            Self::Map { filter, columns, schema } => Some(FilterProject::new(filter.clone(), columns.clone(), Arc::clone(schema))),
            _ => None,
        }
    }

    /// Whether something in it is let go of by `state.ttl`.
    pub(super) const fn has_ttl(&self) -> bool {
        matches!(
            self,
            Self::Over { ttl_ms: Some(_), .. } | Self::Top { ttl_ms: Some(_), .. } | Self::Update { life: Life::Open(Some(_)), .. }
        )
    }

    /// Whether its rows come in order of the time they carry, of each input partition at least.
    pub(super) const fn is_in_order(&self) -> bool {
        matches!(
            self,
            Self::Keyed { .. }
                | Self::Over { .. }
                | Self::Rank { .. }
                | Self::Window { .. }
                | Self::Update { life: Life::Key(_), emit: GroupEmit::OnClose, .. }
        )
    }

    /// Whether it keeps anything between rows.
    pub(super) const fn is_stateful(&self) -> bool {
        matches!(
            self,
            Self::Keyed { .. }
                | Self::Over { .. }
                | Self::Ahead { .. }
                | Self::Lead { .. }
                | Self::Gaps { .. }
                | Self::Rank { .. }
                | Self::Top { .. }
                | Self::Window { .. }
                | Self::Update { .. }
                | Self::Regroup { .. }
                | Self::Absent { .. }
                | Self::Match { .. }
        )
    }
}

/// The error of a plan that puts more than conditions and columns behind results that change.
pub(super) fn changes_alone() -> StreamError {
    StreamError::Limit("rows that change go through conditions and columns alone".to_owned())
}

/// A call over a frame: `avg(hr) over 5 min`.
fn shown_call(call: &OverCall) -> String {
    let filter = call.filter.as_ref().map(|filter| format!(" where {}", filter.text())).unwrap_or_default();
    let text = &call.text;
    if matches!(call.function, OverFunction::RowNumber | OverFunction::Rank | OverFunction::DenseRank) {
        return text.clone();
    }
    let time = |ms: i64| if ms < 0 { format!("{} behind", Length(-ms)) } else { format!("{} before", Length(ms)) };
    let rows = |rows: i64| if rows < 0 { format!("{} behind", -rows) } else { format!("{rows} before") };
    let frame = match call.frame {
        OverFrame::Range { from_ms: Some(from), to_ms: to @ ..0 } => format!("{} to {}", time(from), time(to)),
        OverFrame::Rows { from: Some(from), to: to @ ..0 } => format!("rows {} to {}", rows(from), rows(to)),
        OverFrame::Range { from_ms: None, to_ms: 0 } => "all so far".to_owned(),
        OverFrame::Range { from_ms: Some(0), to_ms: 0 } => "rows of one time".to_owned(),
        OverFrame::Range { from_ms: None, to_ms } => format!("all up to {} before", Length(to_ms)),
        OverFrame::Range { from_ms: Some(from), to_ms: 0 } => Length(from).to_string(),
        OverFrame::Range { from_ms: Some(from), to_ms } => format!("{} to {} before", Length(from), Length(to_ms)),
        OverFrame::Rows { from: None, to: 0 } => "all rows so far".to_owned(),
        OverFrame::Rows { from: None, to } => format!("all up to {to} rows before"),
        OverFrame::Rows { from: Some(from), to: 0 } => format!("{} rows", from.saturating_add(1)),
        OverFrame::Rows { from: Some(from), to } => format!("{from} to {to} rows before"),
    };
    format!("{text}{filter} over {frame}")
}

fn shown_sets(keys: &[Arc<dyn Expr>], sets: Option<&StepSets>) -> String {
    let keys: Vec<String> = keys.iter().map(|key| key.text()).collect();
    sets.map_or_else(String::new, |of| format!(" in sets {}", of.sets.text(&keys)))
}

fn shown_order(order: &RankOrder) -> String {
    let nulls = match (order.descending, order.nulls_first) {
        (false, true) => " NULLS FIRST",
        (true, false) => " NULLS LAST",
        _ => "",
    };
    format!("{}{}{nulls}", order.value.text(), if order.descending { " DESC" } else { "" })
}

fn shown_end(key: &str, plus_ms: i64) -> String {
    match plus_ms {
        0 => format!("until {key}"),
        -1 => format!("before {key}"),
        plus => format!("until {} behind {key}", Length(plus)),
    }
}
