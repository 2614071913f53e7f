//! The functions over a key's readings in event time, as DataFusion's planner sees them.
//!
//! Owns their names, arguments and types: `f(..) OVER (PARTITION BY k ORDER BY ts)`. They are window functions to
//! the planner only; `lower` turns them into `stream`'s keyed operator, and nothing else can run them.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result as DfResult, not_impl_err};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::sql) enum Argument {
    /// True or false, of each row.
    Condition,
    /// A number of each row.
    Number,
    /// Any value of each row.
    Value,
    /// A number that is the same for all rows.
    Limit,
    /// An INTERVAL that is the same for all rows.
    Length,
}

/// What a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Boolean,
    Double,
    /// What its first argument is.
    Same,
}

/// One function.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(in crate::sql) struct Stateful {
    /// Its name.
    pub(in crate::sql) name: &'static str,
    /// Its arguments.
    pub(in crate::sql) arguments: &'static [Argument],
    /// How many arguments there must be at least.
    pub(in crate::sql) required: usize,
    answer: Answer,
    /// How it is called, for messages.
    pub(in crate::sql) usage: &'static str,
}

/// All of them.
pub(in crate::sql) const STATEFUL: &[Stateful] = &[
    Stateful {
        name: "held_for",
        arguments: &[Argument::Condition, Argument::Length, Argument::Length],
        required: 2,
        answer: Answer::Boolean,
        usage: "held_for(condition, INTERVAL '15' SECOND [, max_gap INTERVAL])",
    },
    Stateful {
        name: "hysteresis",
        arguments: &[Argument::Number, Argument::Limit, Argument::Limit],
        required: 3,
        answer: Answer::Boolean,
        usage: "hysteresis(value, enter, exit)",
    },
    Stateful {
        name: "locf",
        arguments: &[Argument::Value, Argument::Length],
        required: 2,
        answer: Answer::Same,
        usage: "locf(value, INTERVAL '5' MINUTE)",
    },
    Stateful {
        name: "twa_below",
        arguments: &[Argument::Number, Argument::Limit, Argument::Length],
        required: 3,
        answer: Answer::Double,
        usage: "twa_below(value, limit, INTERVAL '30' SECOND)",
    },
    Stateful {
        name: "rate_of_change",
        arguments: &[Argument::Number, Argument::Length],
        required: 2,
        answer: Answer::Double,
        usage: "rate_of_change(value, INTERVAL '5' MINUTE)",
    },
];

/// The function of this name, if it is one of ours.
pub(in crate::sql) fn find(name: &str) -> Option<&'static Stateful> {
    STATEFUL.iter().find(|function| function.name.eq_ignore_ascii_case(name))
}

/// The functions for DataFusion's registry.
pub(super) fn all() -> impl Iterator<Item = Arc<WindowUDF>> {
    STATEFUL.iter().map(|of| Arc::new(WindowUDF::new_from_impl(Planned { of })))
}

/// A function as the planner sees it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Planned {
    of: &'static Stateful,
}

impl WindowUDFImpl for Planned {
    fn name(&self) -> &str {
        self.of.name
    }

    /// Anything: lowering knows the arguments and says better what is wrong with them.
    fn signature(&self) -> &Signature {
        static ANY: LazyLock<Signature> = LazyLock::new(|| Signature::variadic_any(Volatility::Immutable));
        &ANY
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs<'_>) -> DfResult<Box<dyn PartitionEvaluator>> {
        not_impl_err!("{} runs over a stream's event time only: PARTITION BY its key and ORDER BY its event time", self.of.name)
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> DfResult<FieldRef> {
        let data_type = match self.of.answer {
            Answer::Boolean => DataType::Boolean,
            Answer::Double => DataType::Float64,
            Answer::Same => args.get_input_field(0).map_or(DataType::Null, |field| field.data_type().clone()),
        };
        Ok(Arc::new(Field::new(args.name(), data_type, true)))
    }
}
