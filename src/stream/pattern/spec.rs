//! What the operator is made of: the pattern, its conditions, and what comes out.
//!
//! Owns [`PatternSpec`] and its parts. A condition or measure is an expression over a few columns, its *reads*: each says where in the
//! match a value is taken from. So `sql` plans expressions without knowing rows, and the matcher finds rows without
//! knowing expressions.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};

use super::program::Pattern;
use crate::stream::Expr;

/// A pattern has at most this many variables.
pub const MAX_VARIABLES: usize = 64;

/// From which end of the rows that count rows are told off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternEnd {
    /// FIRST.
    First,
    /// LAST, and a column by itself.
    Last,
}

/// What is told of the rows that are a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TallyFunction {
    /// How many rows have a value; without an argument, how many rows.
    Count,
    /// Their sum. One of whole numbers or decimals that does not fit its type is an error.
    Sum,
    /// Their average.
    Avg,
    /// The least.
    Min,
    /// The greatest.
    Max,
}

/// Where a value is taken from. `of` is a variable; `None` stands for any. `is_final` is about all rows of the match, else only
/// those up to the row that is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PatternRead {
    /// A value of one row: so many rows from one end of those that count, and then so many rows back among all rows of
    /// the key. NULL where there is no such row.
    Row {
        /// Which of the arguments.
        argument: usize,
        /// Which rows count.
        of: Option<usize>,
        /// From which end.
        from: PatternEnd,
        /// How many rows further on.
        skip: u32,
        /// And then how many rows back.
        back: u32,
        /// All rows of the match.
        is_final: bool,
    },
    /// An aggregate.
    Tally {
        /// Which.
        function: TallyFunction,
        /// Over which argument; `None` counts rows.
        argument: Option<usize>,
        /// Which rows count.
        of: Option<usize>,
        /// Of which type it is.
        to: DataType,
        /// All rows of the match.
        is_final: bool,
    },
    /// The name of the variable that the row is.
    Classifier {
        /// The last row of the match.
        is_final: bool,
    },
    /// The number of the match, from 1 in each key.
    Number,
}

impl PatternRead {
    /// Whether in the condition of `variable` it is decided by the row itself and those before it alone.
    #[must_use]
    pub fn is_local(&self, variable: usize) -> bool {
        matches!(self, Self::Row { of, from: PatternEnd::Last, skip: 0, .. } if of.is_none_or(|of| of == variable))
    }

    pub(super) const fn back(&self) -> u32 {
        if let Self::Row { back, .. } = self { *back } else { 0 }
    }
}

/// An expression over reads: a condition of DEFINE, or a measure.
#[derive(Clone, Debug)]
pub struct PatternCondition {
    /// What the columns of its batch are.
    pub reads: Vec<PatternRead>,
    /// The expression; of a condition, boolean.
    pub value: Arc<dyn Expr>,
}

/// A variable of the pattern.
#[derive(Clone, Debug)]
pub struct PatternVariable {
    /// Its name, for CLASSIFIER.
    pub name: String,
    /// What its row must be, as far as the row and those before it decide it: every read is local.
    pub local: Option<PatternCondition>,
    /// What it must be beside that.
    pub history: Option<PatternCondition>,
}

/// Where the next match may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternSkip {
    /// Behind the last row of the match.
    PastLastRow,
    /// Behind its first row.
    ToNextRow,
    /// At its first row that is the variable.
    ToFirst(usize),
    /// At its last row that is the variable.
    ToLast(usize),
}

/// What a column of the results is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PatternColumn {
    /// The PARTITION BY column with this place.
    Key(usize),
    /// An argument of the row itself: only where all rows come out.
    Argument(usize),
    /// A measure.
    Measure(usize),
}

/// All that the operator is made of.
#[derive(Clone, Debug)]
pub struct PatternSpec {
    /// PARTITION BY. Without any, all rows are one key's.
    pub keys: Vec<Arc<dyn Expr>>,
    /// The values of a row that are read, each with its type.
    pub arguments: Vec<(Arc<dyn Expr>, DataType)>,
    /// The variables.
    pub variables: Vec<PatternVariable>,
    /// The pattern.
    pub pattern: Pattern,
    /// How far apart its first and last row may be, in milliseconds.
    pub within_ms: Option<i64>,
    /// Where it is looked for next.
    pub skip: PatternSkip,
    /// Every row of a match comes out, not one row for all.
    pub all_rows: bool,
    /// The measures.
    pub measures: Vec<PatternCondition>,
    /// What the columns are.
    pub columns: Vec<PatternColumn>,
    /// The columns of the rows that come in.
    pub input: SchemaRef,
    /// The columns of those that come out.
    pub schema: SchemaRef,
}
