//! MATCH_RECOGNIZE to a step.
//!
//! Always: a column of the results is claimed as their event time only where it is the last row's time, which is what a match's row
//! carries; where all rows come out each carries its own. Called by `walk`.

use std::fmt::Write as _;
use std::sync::Arc;

use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{ExprSchemable, UserDefinedLogicalNodeCore, cast};
use datafusion::physical_expr::create_physical_expr;

use super::check;
use super::lineage::{Lineage, column_of, lineage_of};
use super::step::Step;
use super::walk::{Lowered, Walk};
use crate::sql::error::SqlError;
use crate::sql::expr::PlannedExpr;
use crate::sql::pattern::{Formula, PatternTable, Shape};
use crate::sql::windows::Length;
use crate::stream::{Expr, PatternColumn, PatternCondition, PatternEnd, PatternRead, PatternSkip, PatternSpec, PatternVariable};

impl Walk<'_> {
    pub(super) fn pattern(&self, table: &PatternTable) -> Lowered {
        let mut chain = self.lower(&table.input)?;
        let (input, shape) = (table.input.schema(), table.shape.as_ref());
        self.check_time(&table.time, input, &chain)?;
        Self::keyed_by(&mut chain, &table.keys, input);
        let keys = table.keys.iter().map(|key| self.expr(key, input)).collect::<Result<Vec<_>, _>>()?;
        let mut arguments = Vec::with_capacity(table.arguments.len());
        for (argument, of) in table.arguments.iter().zip(&shape.types) {
            // What the optimizer made of it has to be of the type that was planned with.
            let typed = if argument.get_type(input.as_ref())? == *of { argument.clone() } else { cast(argument.clone(), of.clone()) };
            arguments.push((self.expr(&typed, input)?, of.clone()));
        }
        let mut variables = Vec::with_capacity(shape.variables.len());
        for variable in &shape.variables {
            variables.push(PatternVariable {
                name: variable.name.clone(),
                local: variable.local.as_ref().map(|of| self.formula(of)).transpose()?,
                history: variable.history.as_ref().map(|of| self.formula(of)).transpose()?,
            });
        }
        let measures = shape.measures.iter().map(|of| self.formula(of)).collect::<Result<Vec<_>, _>>()?;
        let schema = UserDefinedLogicalNodeCore::schema(table);
        chain.columns = lineages(table, schema, input, &chain.columns);
        let spec = PatternSpec {
            keys,
            arguments,
            variables,
            pattern: shape.pattern.clone(),
            within_ms: shape.within_ms,
            skip: shape.skip,
            all_rows: shape.all_rows,
            measures,
            columns: shape.columns.clone(),
            input: Arc::clone(input.inner()),
            schema: Arc::clone(schema.inner()),
        };
        chain.steps.push(Step::Match { spec: Box::new(spec), text: text(shape, schema) });
        Ok(chain)
    }

    fn formula(&self, of: &Formula) -> Result<PatternCondition, SqlError> {
        check::definition(&of.value).map_err(|error| error.at(of.place))?;
        let physical = create_physical_expr(&of.value, &of.schema, self.session.props(), &PhysicalPlanningContext::default())?;
        let value: Arc<dyn Expr> = Arc::new(PlannedExpr::of(physical, of.text.clone())?);
        Ok(PatternCondition { reads: of.reads.clone(), value })
    }
}

/// Where the columns of matches come from.
fn lineages(table: &PatternTable, schema: &DFSchemaRef, input: &DFSchemaRef, columns: &[Lineage]) -> Vec<Lineage> {
    let shape = table.shape.as_ref();
    let of = |column: &PatternColumn| match column {
        PatternColumn::Key(key) => {
            let own = lineage_of(&table.keys[*key], input, columns);
            if shape.all_rows { Lineage { key: true, ..own } } else { own.as_group() }
        }
        PatternColumn::Argument(argument) => {
            let own = column_of(&table.arguments[*argument], input).and_then(|at| columns.get(at).copied()).unwrap_or_default();
            Lineage { key: false, rank: false, ..own }
        }
        PatternColumn::Measure(measure) if is_last_time(shape, &shape.measures[*measure]) => {
            Lineage { time: true, behind_ms: Some(0), until: Some(0), ..Lineage::default() }
        }
        PatternColumn::Measure(_) => Lineage::default(),
    };
    debug_assert_eq!(shape.columns.len(), schema.fields().len());
    shape.columns.iter().map(of).collect()
}

/// Whether a measure is the time that the row of the results carries.
fn is_last_time(shape: &Shape, measure: &Formula) -> bool {
    let Some(PatternRead::Row { argument, of, from: PatternEnd::Last, skip: 0, back: 0, is_final }) = measure.read() else { return false };
    let is_last = of.is_none_or(|of| shape.pattern.last_variables() == 1 << of);
    // Of all rows each carries its own time: the last one so far.
    *argument == shape.time && if shape.all_rows { of.is_none() && !is_final } else { is_last }
}

/// The clause in one line: all that its state depends on.
fn text(shape: &Shape, schema: &DFSchemaRef) -> String {
    let mut out = format!("({})", shape.pattern_text);
    // Writing to a String cannot fail.
    if let Some(within) = shape.within_ms {
        let _ = write!(out, " within {}", Length(within));
    }
    for variable in &shape.variables {
        if let Some(condition) = variable.local.as_ref().or(variable.history.as_ref()) {
            let _ = write!(out, ", {} where {}", variable.name, condition.text);
        }
    }
    let name = |number: usize| shape.variables[number].name.as_str();
    let _ = match shape.skip {
        PatternSkip::PastLastRow => write!(out, "; the next past its last row"),
        PatternSkip::ToNextRow => write!(out, "; the next from its second row"),
        PatternSkip::ToFirst(number) => write!(out, "; the next from its first {}", name(number)),
        PatternSkip::ToLast(number) => write!(out, "; the next from its last {}", name(number)),
    };
    out.push_str(if shape.all_rows { "; all rows" } else { "; one row" });
    let named = shape.columns.iter().zip(schema.fields()).filter_map(|(column, field)| match column {
        PatternColumn::Measure(measure) => Some((shape.measures[*measure].text.as_str(), field.name())),
        _ => None,
    });
    for (text, name) in named {
        let _ = write!(out, ", {text} AS {name}");
    }
    out
}
