//! Where the columns of a plan come from, and what they say of the time that the rows carry.
//!
//! Owns [`Lineage`]: which column is the event time, which is the stream's key, which make up the key of the results;
//! how far a time lies behind the rows' own, and how much younger a row may be. Always: what is not known for
//! certain is not claimed, so that a clause that would need it is refused. Kept by `walk`, `join` and `asof` from
//! step to step.

use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::Expr as LogicalExpr;

use crate::sql::windows::Cut;
use crate::stream::WindowColumn;

/// Where a column comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    /// It is the event time that the rows carry.
    pub time: bool,
    /// How far it lies behind that time in every row, where this is known; while the rows carry another time: how
    /// far it lies behind the end of the window whose bound it is.
    pub behind_ms: Option<i64>,
    /// How long the window at most is whose bound it is, and in which the row's time lies.
    pub span_ms: Option<i64>,
    /// It is the column by which the stream's rows are placed in partitions.
    pub placed: bool,
    /// It is part of the results' key.
    pub key: bool,
    /// Which of the keys of the last windowed aggregate it is.
    pub group: Option<usize>,
    /// It is the number of the row in the last ranking.
    pub rank: bool,
    /// What it is of the group, or of the ranking, whose row changes: it is part of what tells such rows apart.
    pub change: Option<WindowColumn>,
    /// It is a time, and no row in which it has a value is younger than that value and so many milliseconds.
    pub until: Option<i64>,
}

impl Lineage {
    /// The same as a column by which rows were grouped: it says nothing of their time any more.
    pub(super) fn as_group(self) -> Self {
        Self { key: true, placed: self.placed, ..Self::default() }
    }

    /// How far before the value, and how far behind it, the row's time may lie, where the column is a time of the row
    /// or a bound of its window. Below nothing: it lies so far behind at least.
    pub(super) fn around(&self) -> Option<(i64, i64)> {
        match self.behind_ms.filter(|_| self.time) {
            Some(behind) => Some((-behind, behind)),
            None => self.span_ms.zip(self.until).map(|(span, until)| (span - 1 - until, until)),
        }
    }
}

/// What a window's start, end and time say of the rows in it.
pub(super) fn window_lineage(cut: Cut) -> [Lineage; 3] {
    let (span, start) = match cut {
        Cut::Tumble { size, .. } | Cut::Hop { size, .. } => (Some(size), Some(size - 1)),
        // Of the windows with one start each has its own end.
        Cut::Cumulate { size, .. } => (Some(size), None),
        Cut::Session { .. } => (None, None),
    };
    let longest = span.map(|span| span - 1);
    [(start, longest), (Some(-1), Some(-1)), (Some(0), Some(0))].map(|(behind_ms, until)| Lineage {
        behind_ms,
        until,
        span_ms: span,
        ..Lineage::default()
    })
}

/// The rows leave when `plus_ms` have passed since the value of the column `end`, and carry that time from then on.
pub(super) fn leave_at(columns: &mut [Lineage], end: Option<usize>, plus_ms: i64) {
    let Some(of) = end.and_then(|end| columns.get(end).copied()) else { return };
    let is_exact = of.behind_ms == Some(plus_ms);
    for (at, column) in columns.iter_mut().enumerate() {
        column.rank = false;
        if of.time && is_exact {
            // It is the time they carried before.
            continue;
        }
        let same_window = is_exact && of.span_ms.is_some() && column.span_ms == of.span_ms && !column.time;
        if Some(at) == end {
            (column.time, column.behind_ms, column.until) = (true, Some(plus_ms), Some(plus_ms));
        } else if same_window {
            column.time = true;
        } else {
            (column.time, column.behind_ms, column.span_ms, column.until) = (false, None, None, None);
        }
    }
}

/// The index of the input column that an expression is, if it is nothing more.
pub(super) fn column_of(expr: &LogicalExpr, schema: &DFSchemaRef) -> Option<usize> {
    match expr {
        LogicalExpr::Column(column) => schema.maybe_index_of_column(column),
        LogicalExpr::Alias(alias) => column_of(&alias.expr, schema),
        _ => None,
    }
}

/// Where an expression comes from: a column's lineage, or nothing that is known.
pub(super) fn lineage_of(expr: &LogicalExpr, schema: &DFSchemaRef, columns: &[Lineage]) -> Lineage {
    column_of(expr, schema).and_then(|i| columns.get(i).copied()).unwrap_or_default()
}
