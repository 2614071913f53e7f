//! Expressions of DEFINE and MEASURES: what they read of the match, and what they make of it.
//!
//! Owns [`Formulas`], which takes everything that speaks of rows (`a.x`, `x`, `LAST(a.x, 1)`, `PREV(x)`, `sum(a.x)`, CLASSIFIER()) out of an
//! expression, and [`Formula`], which is the rest, over one column for each. Always: the argument of a read is an expression of one
//! row, planned over the input; equal arguments and equal reads are there once.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    self, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, Spanned, Value, VisitMut, VisitorMut,
};

use super::{external, refused};
use crate::sql::dialect::pattern::{FINAL, RUNNING, as_written};
use crate::sql::error::{Code, Place, SqlError, did_you_mean};
use crate::sql::functions::stateful;
use crate::sql::statement::Name;
use crate::sql::types::sql_type;
use crate::stream::{PatternEnd, PatternRead, TallyFunction};

/// Rows may be told off, or looked back at, up to so many.
const MAX_ROWS: u32 = 1000;

/// The event time is the first argument of all.
const TIME: usize = 0;

/// An expression over reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Formula {
    /// What the columns of its schema are.
    pub reads: Vec<PatternRead>,
    /// A column for each read.
    pub schema: DFSchemaRef,
    /// The expression over them.
    pub value: Expr,
    /// As it was written.
    pub text: String,
    /// Where.
    pub place: Option<Place>,
}

/// The name of a read's column.
fn column_name(read: usize) -> String {
    format!("__read_{read}")
}

fn schema_of(fields: Vec<Field>) -> DfResult<DFSchemaRef> {
    Ok(Arc::new(DFSchema::from_unqualified_fields(fields.into(), HashMap::new())?))
}

impl Formula {
    /// The read that it is, if it is nothing more.
    pub fn read(&self) -> Option<&PatternRead> {
        let Expr::Column(column) = &self.value else { return None };
        self.schema.maybe_index_of_column(column).and_then(|at| self.reads.get(at))
    }

    /// The condition of a variable in two: what the row and those before it decide, and the rest.
    pub fn split(self, variable: usize) -> DfResult<(Option<Self>, Option<Self>)> {
        let place = |schema: &DFSchema, column: &datafusion::common::Column| schema.maybe_index_of_column(column);
        let is_local = |part: &Expr| {
            let reads = part.column_refs().into_iter().filter_map(|column| place(&self.schema, column)).collect::<Vec<_>>();
            reads.iter().all(|read| self.reads[*read].is_local(variable))
        };
        let (local, history): (Vec<Expr>, Vec<Expr>) = split_conjunction_owned(self.value.clone()).into_iter().partition(is_local);
        let made = |parts: Vec<Expr>| -> DfResult<Option<Self>> {
            let Some(value) = conjunction(parts) else { return Ok(None) };
            let used = value.column_refs();
            let kept: Vec<usize> =
                (0..self.reads.len()).filter(|at| used.iter().any(|column| place(&self.schema, column) == Some(*at))).collect();
            let fields = kept.iter().map(|at| self.schema.field(*at).as_ref().clone()).collect();
            let reads = kept.iter().map(|at| self.reads[*at].clone()).collect();
            Ok(Some(Self { reads, schema: schema_of(fields)?, value, text: self.text.clone(), place: self.place }))
        };
        Ok((made(local)?, made(history)?))
    }
}

/// Takes expressions apart.
pub struct Formulas<'a> {
    context: &'a mut dyn RelationPlannerContext,
    input: &'a DFSchemaRef,
    variables: &'a [Name],
    arguments: Vec<Expr>,
    types: Vec<DataType>,
}

/// What is being taken apart.
struct Reader<'f, 'a> {
    formulas: &'f mut Formulas<'a>,
    reads: Vec<PatternRead>,
    fields: Vec<Field>,
}

impl<'a> Formulas<'a> {
    pub fn new(context: &'a mut dyn RelationPlannerContext, input: &'a DFSchemaRef, variables: &'a [Name]) -> Self {
        Self { context, input, variables, arguments: Vec::new(), types: Vec::new() }
    }

    /// The planner beside it.
    pub fn context(&mut self) -> &mut dyn RelationPlannerContext {
        self.context
    }

    /// The values of a row that are read, and their types.
    pub fn into_arguments(self) -> (Vec<Expr>, Vec<DataType>) {
        (self.arguments, self.types)
    }

    /// The place of a value of a row among the arguments.
    pub fn argument_of(&mut self, value: Expr) -> DfResult<usize> {
        if let Some(known) = self.arguments.iter().position(|known| *known == value) {
            return Ok(known);
        }
        let of = match value.get_type(self.input.as_ref())? {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            of => of,
        };
        self.types.push(of);
        self.arguments.push(value);
        Ok(self.arguments.len() - 1)
    }

    /// Takes an expression apart.
    pub fn formula(&mut self, written: ast::Expr) -> DfResult<Formula> {
        let text = as_written(&written.to_string());
        let place = Place::of(written.span());
        let mut rest = written;
        let mut reader = Reader { formulas: self, reads: Vec::new(), fields: Vec::new() };
        if let ControlFlow::Break(error) = rest.visit(&mut reader) {
            return Err(error);
        }
        let (reads, fields) = (reader.reads, reader.fields);
        let schema = schema_of(fields)?;
        let value = self.context.sql_to_expr(rest, &schema)?;
        let value = coerced(value, &schema)?;
        whole(&value, &text, place)?;
        Ok(Formula { reads, schema, value, text, place })
    }
}

/// The expression with its types brought together.
fn coerced(value: Expr, schema: &DFSchemaRef) -> DfResult<Expr> {
    let context = SimplifyContext::builder().with_schema(Arc::clone(schema)).build();
    ExprSimplifier::new(context).coerce(value, schema)
}

/// Refuses what has no meaning among the rows of a match.
fn whole(value: &Expr, text: &str, place: Option<Place>) -> DfResult<()> {
    let mut found = None;
    value.apply(|expr| {
        found = match expr {
            Expr::AggregateFunction(call) => Some(format!("{}(..)", call.func.name())),
            Expr::WindowFunction(call) => Some(format!("{}(..) OVER", call.fun.name())),
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => Some("a subquery".to_owned()),
            Expr::OuterReferenceColumn(..) => Some("a column of an outer query".to_owned()),
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match found {
        None => Ok(()),
        Some(what) => Err(external(
            SqlError::not_supported(&format!("{what} in MATCH_RECOGNIZE"))
                .at(place)
                .hint("of the rows of a match there are FIRST, LAST, PREV, count, sum, avg, min and max")
                .note(format!("in: {text}")),
        )),
    }
}

/// The one-part name of a call, in lower case.
fn called(call: &Function) -> Option<String> {
    let [ast::ObjectNamePart::Identifier(ident)] = call.name.0.as_slice() else { return None };
    ident.quote_style.is_none().then(|| ident.value.to_ascii_lowercase())
}

fn place_of(call: &Function) -> Option<Place> {
    Place::of(call.name.span())
}

impl VisitorMut for Reader<'_, '_> {
    type Break = datafusion::common::DataFusionError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<Self::Break> {
        let made = match expr {
            ast::Expr::Function(call) => self.call(call),
            ast::Expr::Identifier(_) | ast::Expr::CompoundIdentifier(_) => self.row(expr.clone()).map(Some),
            ast::Expr::Subquery(_) | ast::Expr::Exists { .. } | ast::Expr::InSubquery { .. } => {
                let error = SqlError::not_supported("a subquery in MATCH_RECOGNIZE").at(Place::of(expr.span()));
                return ControlFlow::Break(external(
                    error.hint("join before: WITH x AS (SELECT .. JOIN ..) SELECT .. FROM x MATCH_RECOGNIZE (..)"),
                ));
            }
            _ => Ok(None),
        };
        match made {
            Ok(Some(read)) => match self.column(read) {
                Ok(column) => {
                    *expr = column;
                    ControlFlow::Continue(())
                }
                Err(error) => ControlFlow::Break(error),
            },
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Reader<'_, '_> {
    /// The column that stands for a read.
    fn column(&mut self, read: PatternRead) -> DfResult<ast::Expr> {
        let at = match self.reads.iter().position(|known| *known == read) {
            Some(known) => known,
            None => {
                let of = match &read {
                    PatternRead::Row { argument, .. } => self.formulas.types[*argument].clone(),
                    PatternRead::Tally { to, .. } => to.clone(),
                    PatternRead::Classifier { .. } => DataType::Utf8,
                    PatternRead::Number => DataType::Int64,
                };
                self.fields.push(Field::new(column_name(self.reads.len()), of, true));
                self.reads.push(read);
                self.reads.len() - 1
            }
        };
        Ok(ast::Expr::Identifier(Ident::new(column_name(at))))
    }

    /// A call that speaks of rows; `None` for every other.
    fn call(&mut self, call: &Function) -> DfResult<Option<PatternRead>> {
        let Some(full) = called(call) else { return Ok(None) };
        let (name, is_final, is_said) = match (full.strip_prefix(FINAL), full.strip_prefix(RUNNING)) {
            (Some(name), _) => (name, true, true),
            (_, Some(name)) => (name, false, true),
            _ => (full.as_str(), false, false),
        };
        let read = match name {
            "first" | "last" | "prev" => self.navigation(name, call, is_final)?,
            "next" => {
                let error = SqlError::not_supported("NEXT in MATCH_RECOGNIZE").at(place_of(call));
                return Err(external(error.hint("add a variable for the next row to PATTERN")));
            }
            "lag" | "lead" => {
                let error = SqlError::not_supported(&format!("{name}(..) in MATCH_RECOGNIZE")).at(place_of(call));
                return Err(external(error.hint("write PREV(a.x) for the row before, LAST(a.x, 1) for the a before")));
            }
            _ if stateful::find(name).is_some() => {
                let error = SqlError::not_supported(&format!("{name}(..) in MATCH_RECOGNIZE")).at(place_of(call));
                return Err(external(error.hint(format!("compute it before: WITH x AS (SELECT .., {name}(..) OVER (..) AS v FROM ..)"))));
            }
            "count" | "sum" | "avg" | "min" | "max" => self.tally(name, call, is_final)?,
            "classifier" => {
                self.no_arguments(name, call)?;
                PatternRead::Classifier { is_final }
            }
            "match_number" => {
                self.no_arguments(name, call)?;
                PatternRead::Number
            }
            "match_rowtime" => {
                let is_time = match self.arguments(name, call)?.as_slice() {
                    [] => true,
                    [FunctionArgExpr::Expr(value)] => self.operand(value.clone())? == (TIME, None),
                    _ => false,
                };
                if !is_time {
                    return refused("MATCH_ROWTIME takes the event time, or nothing", place_of(call), "write MATCH_ROWTIME()");
                }
                PatternRead::Row { argument: TIME, of: None, from: PatternEnd::Last, skip: 0, back: 0, is_final: true }
            }
            "match_proctime" => {
                let error = SqlError::not_supported("MATCH_PROCTIME in MATCH_RECOGNIZE").at(place_of(call));
                return Err(external(error.hint("a match goes by event time alone: write MATCH_ROWTIME()")));
            }
            _ if is_said => {
                let word = if is_final { "FINAL" } else { "RUNNING" };
                return refused(
                    format!("{word} {name}(..): there is nothing that goes on in it"),
                    place_of(call),
                    "FINAL and RUNNING stand before FIRST, LAST, count, sum, avg, min, max and CLASSIFIER",
                );
            }
            _ => return Ok(None),
        };
        Ok(Some(read))
    }

    fn no_arguments(&self, name: &str, call: &Function) -> DfResult<()> {
        match self.arguments(name, call)?.as_slice() {
            [] => Ok(()),
            _ => Err(external(
                SqlError::not_supported(&format!("{}(..) with an argument", name.to_uppercase()))
                    .at(place_of(call))
                    .hint(format!("write {}()", name.to_uppercase())),
            )),
        }
    }

    /// The arguments of a call that has nothing beside them.
    fn arguments<'c>(&self, name: &str, call: &'c Function) -> DfResult<Vec<&'c FunctionArgExpr>> {
        let not_built = |what: &str| {
            let error = SqlError::not_supported(&format!("{what} in {}(..) in MATCH_RECOGNIZE", name.to_uppercase()));
            external(error.at(place_of(call)).hint("leave it out"))
        };
        if call.over.is_some() {
            return Err(not_built("OVER"));
        }
        if call.filter.is_some() {
            return Err(not_built("FILTER"));
        }
        if call.null_treatment.is_some() {
            return Err(not_built("IGNORE NULLS and RESPECT NULLS"));
        }
        if !call.within_group.is_empty() || !matches!(call.parameters, FunctionArguments::None) {
            return Err(not_built("WITHIN GROUP"));
        }
        let FunctionArguments::List(list) = &call.args else { return Ok(Vec::new()) };
        if list.duplicate_treatment.is_some() {
            return Err(not_built("DISTINCT"));
        }
        if !list.clauses.is_empty() {
            return Err(not_built("ORDER BY and the like"));
        }
        let value = |argument: &'c FunctionArg| match argument {
            FunctionArg::Unnamed(value) => Ok(value),
            _ => Err(not_built("a named argument")),
        };
        list.args.iter().map(value).collect()
    }

    fn navigation(&mut self, name: &str, call: &Function, is_final: bool) -> DfResult<PatternRead> {
        let usage = match name {
            "prev" => "write PREV(a.x), PREV(a.x, 2) or PREV(LAST(a.x, 1))",
            "first" => "write FIRST(a.x) or FIRST(a.x, 1)",
            _ => "write LAST(a.x) or LAST(a.x, 1)",
        };
        let wrong = || refused(format!("{} takes a value of a row and a constant count", name.to_uppercase()), place_of(call), usage);
        let (value, count) = match self.arguments(name, call)?.as_slice() {
            [FunctionArgExpr::Expr(value)] => (value.clone(), None),
            [FunctionArgExpr::Expr(value), FunctionArgExpr::Expr(count)] => match constant(count) {
                Some(count) => (value.clone(), Some(count)),
                None => return wrong(),
            },
            _ => return wrong(),
        };
        if count.is_some_and(|count| count > MAX_ROWS) {
            return refused(format!("{} goes further than {MAX_ROWS} rows", name.to_uppercase()), place_of(call), "look at fewer rows");
        }
        if name != "prev" {
            let (argument, of) = self.operand(value)?;
            let from = if name == "first" { PatternEnd::First } else { PatternEnd::Last };
            return Ok(PatternRead::Row { argument, of, from, skip: count.unwrap_or(0), back: 0, is_final });
        }
        let back = count.unwrap_or(1);
        if let ast::Expr::Function(inner) = &value
            && let Some(inner_name) = called(inner)
            && matches!(inner_name.as_str(), "first" | "last")
        {
            return Ok(match self.navigation(&inner_name, inner, is_final)? {
                PatternRead::Row { argument, of, from, skip, is_final, .. } => {
                    PatternRead::Row { argument, of, from, skip, back, is_final }
                }
                other => other,
            });
        }
        let (argument, of) = self.operand(value)?;
        Ok(PatternRead::Row { argument, of, from: PatternEnd::Last, skip: 0, back, is_final })
    }

    fn tally(&mut self, name: &str, call: &Function, is_final: bool) -> DfResult<PatternRead> {
        let function = match name {
            "count" => TallyFunction::Count,
            "sum" => TallyFunction::Sum,
            "avg" => TallyFunction::Avg,
            "min" => TallyFunction::Min,
            _ => TallyFunction::Max,
        };
        let wrong = || refused(format!("{name} takes one value of a row"), place_of(call), &format!("write {name}(a.x)"));
        let rows = |of: Option<usize>| PatternRead::Tally { function, argument: None, of, to: DataType::Int64, is_final };
        let value = match (self.arguments(name, call)?.as_slice(), function) {
            ([FunctionArgExpr::Expr(value)], _) => value.clone(),
            ([FunctionArgExpr::Wildcard], TallyFunction::Count) => return Ok(rows(None)),
            ([FunctionArgExpr::QualifiedWildcard(of)], TallyFunction::Count) => return Ok(rows(Some(self.variable_of(of)?))),
            _ => return wrong(),
        };
        let (written, place) = (value.to_string(), Place::of(value.span()));
        let (value, of) = self.value(value)?;
        let from = match value.get_type(self.formulas.input.as_ref())? {
            DataType::Dictionary(_, values) => values.as_ref().clone(),
            from => from,
        };
        let refuse = || {
            let error =
                SqlError::new(Code::TypeMismatch, format!("{name}({written}) in MATCH_RECOGNIZE does not take {}", sql_type(&from)));
            Err(external(error.at(place).hint("numbers, and for min and max times, are taken")))
        };
        // What is added up is put in the widest type of its kind.
        let wide = match &from {
            DataType::Null if function != TallyFunction::Count => DataType::Float64,
            DataType::Float16 | DataType::Float32 => DataType::Float64,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => DataType::Int64,
            of => of.clone(),
        };
        let (wide, to) = match (function, &from, wide) {
            (TallyFunction::Count, from, _) => (from.clone(), DataType::Int64),
            (TallyFunction::Sum, _, of @ (DataType::Int64 | DataType::Float64)) => (of.clone(), of),
            (TallyFunction::Sum, _, DataType::Decimal128(p, s)) => (DataType::Decimal128(p, s), DataType::Decimal128((p + 10).min(38), s)),
            (TallyFunction::Avg, _, of @ (DataType::Int64 | DataType::Float64)) => (of, DataType::Float64),
            (TallyFunction::Avg, _, DataType::Decimal128(p, s)) => {
                (DataType::Decimal128(p, s), DataType::Decimal128((p + 4).min(38), (s + 4).min(38)))
            }
            (TallyFunction::Min | TallyFunction::Max, from, of @ (DataType::Int64 | DataType::Float64 | DataType::Decimal128(..))) => {
                (of.clone(), if from.is_null() { of } else { from.clone() })
            }
            (TallyFunction::Min | TallyFunction::Max, _, of @ (DataType::Timestamp(..) | DataType::Date32 | DataType::Date64)) => {
                (of.clone(), of)
            }
            _ => return refuse(),
        };
        let value = if wide == from { value } else { cast(value, wide) };
        let argument = self.formulas.argument_of(value)?;
        Ok(PatternRead::Tally { function, argument: Some(argument), of, to, is_final })
    }

    /// A column by itself: of the last row that is its variable.
    fn row(&mut self, written: ast::Expr) -> DfResult<PatternRead> {
        let (argument, of) = self.operand(written)?;
        Ok(PatternRead::Row { argument, of, from: PatternEnd::Last, skip: 0, back: 0, is_final: false })
    }

    /// A value of a row: its place among the arguments, and whose row.
    fn operand(&mut self, written: ast::Expr) -> DfResult<(usize, Option<usize>)> {
        let (value, of) = self.value(written)?;
        Ok((self.formulas.argument_of(value)?, of))
    }

    /// A value of a row over the input, and whose row.
    fn value(&mut self, mut written: ast::Expr) -> DfResult<(Expr, Option<usize>)> {
        let (text, place) = (written.to_string(), Place::of(written.span()));
        let mut columns = Columns { variables: self.formulas.variables, of: None };
        if let ControlFlow::Break(error) = written.visit(&mut columns) {
            return Err(external(error.at(place).note(format!("in: {text}"))));
        }
        let of = columns.of.flatten();
        let value = self.formulas.context.sql_to_expr(written, self.formulas.input.as_ref())?;
        let value = coerced(value, self.formulas.input)?;
        whole(&value, &text, place)?;
        Ok((value, of))
    }

    fn variable_of(&self, of: &ObjectName) -> DfResult<usize> {
        let ident = match of.0.as_slice() {
            [ast::ObjectNamePart::Identifier(ident)] => Some(ident),
            _ => None,
        };
        match ident.map(Name::of).and_then(|name| self.formulas.variables.iter().position(|variable| *variable == name)) {
            Some(number) => Ok(number),
            None => Err(external(no_variable(&of.to_string(), self.formulas.variables).at(Place::of(of.span())))),
        }
    }
}

fn no_variable(name: &str, variables: &[Name]) -> SqlError {
    let known: Vec<&str> = variables.iter().map(|variable| variable.text.as_str()).collect();
    let error = SqlError::new(Code::NoSuchColumn, format!("\"{name}\" is no variable of PATTERN"));
    error.hint_opt(did_you_mean(name, known.iter().copied())).note(format!("variables: {}", known.join(", ")))
}

fn constant(expr: &ast::Expr) -> Option<u32> {
    match expr {
        ast::Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.parse().ok(),
            _ => None,
        },
        ast::Expr::Nested(inner) => constant(inner),
        _ => None,
    }
}

/// Takes the variables off the columns of a value: all are of one row.
struct Columns<'a> {
    variables: &'a [Name],
    /// The variable of the columns so far; `None` within for no variable.
    of: Option<Option<usize>>,
}

impl VisitorMut for Columns<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &mut ast::Expr) -> ControlFlow<SqlError> {
        let of = match expr {
            ast::Expr::Identifier(_) => None,
            ast::Expr::CompoundIdentifier(parts) => {
                let name = Name::of(&parts[0]);
                let Some(number) = self.variables.iter().position(|variable| *variable == name) else {
                    return ControlFlow::Break(no_variable(&name.text, self.variables).at(name.place));
                };
                let rest = parts.split_off(1);
                *expr = match <[Ident; 1]>::try_from(rest) {
                    Ok([only]) => ast::Expr::Identifier(only),
                    Err(rest) => ast::Expr::CompoundIdentifier(rest),
                };
                Some(number)
            }
            ast::Expr::Function(call) if called(call).is_some_and(|name| speaks_of_rows(&name)) => {
                let error = SqlError::not_supported(&format!("{}(..) inside another function over the rows of a match", call.name));
                return ControlFlow::Break(error.hint("PREV(LAST(a.x, 1), 2) is the only one that is built"));
            }
            _ => return ControlFlow::Continue(()),
        };
        if self.of.is_some_and(|known| known != of) {
            let error = SqlError::new(Code::BadDefinition, "a value of one row reads columns of several variables");
            return ControlFlow::Break(error.hint("write a function for each: LAST(a.x) - LAST(b.x)"));
        }
        self.of = Some(of);
        ControlFlow::Continue(())
    }
}

fn speaks_of_rows(name: &str) -> bool {
    let name = name.strip_prefix(FINAL).or_else(|| name.strip_prefix(RUNNING)).unwrap_or(name);
    matches!(name, "first" | "last" | "prev" | "next" | "classifier" | "match_number" | "match_rowtime" | "match_proctime")
        || matches!(name, "count" | "sum" | "avg" | "min" | "max")
}
