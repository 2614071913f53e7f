//! `MATCH_RECOGNIZE` as DataFusion plans it.
//!
//! Owns [`PatternPlanner`], which turns the clause into the node [`PatternTable`]; what DEFINE and MEASURES read is found by `formula`. Always:
//! whatever the node reads of its input stands in its expressions, so that DataFusion types it and hands down only the columns
//! that are needed; what is computed from rows of a match it does not see. Registered by `session`; `lower` turns the
//! node into an operator.

mod formula;

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result as DfResult, TableReference};
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::sql::sqlparser::ast::{
    self, AfterMatchSkip, MatchRecognizePattern, MatchRecognizeSymbol, RepetitionQuantifier, RowsPerMatch, Spanned, TableFactor,
};

pub use self::formula::Formula;
use self::formula::Formulas;
use super::dialect::pattern::WITHIN;
use super::error::{Code, Place, SqlError};
use super::statement::Name;
use super::types::sql_type;
use super::windows::{Length, length};
use crate::stream::{MAX_VARIABLES, Pattern, PatternColumn, PatternSkip};

/// A variable of PATTERN.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its condition, as far as a row and those before it decide it.
    pub local: Option<Formula>,
    /// Its condition, as far as it speaks of rows taken before.
    pub history: Option<Formula>,
}

/// All of the clause that is not read from the input by DataFusion.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The variables, in the order in which PATTERN names them.
    pub variables: Vec<Variable>,
    /// PATTERN.
    pub pattern: Pattern,
    /// PATTERN as it was written.
    pub pattern_text: String,
    /// WITHIN, in milliseconds.
    pub within_ms: Option<i64>,
    /// AFTER MATCH SKIP.
    pub skip: PatternSkip,
    /// Whether all rows of a match come out.
    pub all_rows: bool,
    /// MEASURES.
    pub measures: Vec<Formula>,
    /// What the columns are.
    pub columns: Vec<PatternColumn>,
    /// The types of the arguments.
    pub types: Vec<DataType>,
    /// The place of the event time among the arguments.
    pub time: usize,
}

/// Matches: the PARTITION BY columns and MEASURES; where all rows come out, the rows' other columns too.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PatternTable {
    /// The rows.
    pub input: LogicalPlan,
    /// Their event time.
    pub time: Expr,
    /// Whose rows.
    pub keys: Vec<Expr>,
    /// The values of a row that are read.
    pub arguments: Vec<Expr>,
    /// What is looked for.
    pub shape: Arc<Shape>,
    schema: DFSchemaRef,
}

impl fmt::Debug for PatternTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UserDefinedLogicalNodeCore::fmt_for_explain(self, f)
    }
}

impl PartialOrd for PatternTable {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for PatternTable {
    fn name(&self) -> &'static str {
        "PatternTable"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        std::iter::once(&self.time).chain(&self.keys).chain(&self.arguments).cloned().collect()
    }

    /// What is found depends on the rows around it, so only a condition on the keys may go below.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let is_key = |name: &String| self.keys.iter().any(|key| matches!(key, Expr::Column(column) if column.name == *name));
        self.schema.fields().iter().map(|field| field.name().clone()).filter(|name| !is_key(name)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PatternTable: ({})", self.shape.pattern_text)?;
        if let Some(within) = self.shape.within_ms {
            write!(f, " within {}", Length(within))?;
        }
        write!(f, " of {}", self.time)?;
        if !self.keys.is_empty() {
            write!(f, " by {}", self.keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, mut exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let arguments = exprs.split_off(1 + self.keys.len());
        let keys = exprs.split_off(1);
        let (input, time) = (inputs.swap_remove(0), exprs.swap_remove(0));
        Ok(Self { input, time, keys, arguments, shape: Arc::clone(&self.shape), schema: Arc::clone(&self.schema) })
    }

    fn necessary_children_exprs(&self, _output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        // All that is needed is in `expressions`.
        Some(vec![Vec::new()])
    }
}

/// Our own error, on its way through DataFusion.
fn external(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn refused<T>(message: impl Into<String>, place: Option<Place>, hint: &str) -> DfResult<T> {
    Err(external(SqlError::new(Code::BadDefinition, message).at(place).hint(hint)))
}

/// Plans MATCH_RECOGNIZE; everything else is left to DataFusion.
#[derive(Debug)]
pub struct PatternPlanner;

impl RelationPlanner for PatternPlanner {
    fn plan_relation(&self, relation: TableFactor, context: &mut dyn RelationPlannerContext) -> DfResult<RelationPlanning> {
        let TableFactor::MatchRecognize {
            table,
            partition_by,
            order_by,
            measures,
            rows_per_match,
            after_match_skip,
            pattern,
            symbols,
            alias,
        } = relation
        else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let place = Place::of(table.span());
        let input = context.plan(*table)?;
        let schema = Arc::clone(input.schema());
        let time = match order_by.as_slice() {
            [by] if by.options.asc != Some(false) => context.sql_to_expr(by.expr.clone(), &schema)?,
            [by] => {
                let place = Place::of(by.expr.span());
                return refused(
                    "ORDER BY .. DESC in MATCH_RECOGNIZE",
                    place,
                    "order by the event time, ascending: a stream knows no later rows",
                );
            }
            [] => return refused("MATCH_RECOGNIZE without ORDER BY", place, "write ORDER BY the event time, as in ORDER BY ts"),
            [_, by, ..] => {
                let place = Place::of(by.expr.span());
                return refused("ORDER BY of several columns in MATCH_RECOGNIZE", place, "order by the event time alone");
            }
        };
        let keys = partition_by.into_iter().map(|key| context.sql_to_expr(key, &schema)).collect::<DfResult<Vec<_>>>()?;
        let all_rows = matches!(rows_per_match, Some(RowsPerMatch::AllRows(_)));
        let mut variables: Vec<Name> = Vec::new();
        let pattern_text = pattern.to_string();
        let pattern = converted(&pattern, &mut variables)?;
        if variables.len() > MAX_VARIABLES {
            let message = format!("PATTERN has {} variables, more than {MAX_VARIABLES}", variables.len());
            return refused(message, variables[0].place, "give rows that are alike one name");
        }
        if pattern.least_rows() == 0 {
            let place = variables.first().and_then(|first| first.place);
            return refused("PATTERN can match no row at all", place, "write + instead of *, or add a variable that has to come");
        }
        if let Err(error) = pattern.check() {
            let place = variables.first().and_then(|first| first.place);
            return Err(external(SqlError::new(Code::Limit, error.to_string()).at(place).hint("write fewer or smaller quantifiers")));
        }
        let skip = skip(after_match_skip, &variables, &pattern)?;
        let mut formulas = Formulas::new(context, &schema, &variables);
        let time_argument = formulas.argument_of(time.clone())?;
        let (mut within_ms, mut conditions): (Option<i64>, Vec<Option<Formula>>) = (None, vec![None; variables.len()]);
        for symbol in symbols {
            let name = Name::of(&symbol.symbol);
            if name.text == WITHIN {
                let ms = length(symbol.definition, formulas.context()).map_err(|error| external(SqlError::from(error).at(name.place)))?;
                if ms <= 0 {
                    return refused("WITHIN needs an interval longer than nothing", name.place, "write WITHIN INTERVAL '2' MINUTE");
                }
                within_ms = Some(ms);
                continue;
            }
            let Some(number) = variables.iter().position(|variable| *variable == name) else {
                return refused(
                    format!("DEFINE says what \"{name}\" is, and PATTERN does not have it"),
                    name.place,
                    "leave it out of DEFINE",
                );
            };
            if conditions[number].is_some() {
                return refused(format!("DEFINE says twice what \"{name}\" is"), name.place, "join both conditions with AND");
            }
            let condition = formulas.formula(symbol.definition)?;
            let of = condition.value.get_type(&condition.schema)?;
            if !matches!(of, DataType::Boolean | DataType::Null) {
                return refused(
                    format!("\"{name}\" is defined as {}, which is no condition", sql_type(&of)),
                    name.place,
                    "write a comparison",
                );
            }
            conditions[number] = Some(condition);
        }
        let mut names: Vec<(Name, Formula)> = Vec::with_capacity(measures.len());
        for measure in measures {
            names.push((Name::of(&measure.alias), formulas.formula(measure.expr)?));
        }
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> = Vec::new();
        let mut columns: Vec<PatternColumn> = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            fields.push(key.to_field(&schema)?);
            columns.push(PatternColumn::Key(place));
        }
        let is_column = |expr: &Expr, at: usize| matches!(expr, Expr::Column(column) if schema.maybe_index_of_column(column) == Some(at));
        let shown = |at: &usize| !keys.iter().any(|key| is_column(key, *at));
        let mut rest: Vec<usize> = if all_rows { (0..schema.fields().len()).filter(shown).collect() } else { Vec::new() };
        // As the standard has it: what the rows are ordered by, the measures, everything else.
        rest.sort_by_key(|at| !is_column(&time, *at));
        let first = rest.iter().take_while(|at| is_column(&time, **at)).count();
        let show = |at: usize, fields: &mut Vec<_>, columns: &mut Vec<_>, formulas: &mut Formulas<'_>| -> DfResult<()> {
            let (qualifier, field) = schema.qualified_field(at);
            let argument = formulas.argument_of(Expr::Column((qualifier, field).into()))?;
            fields.push((qualifier.cloned(), Arc::clone(field)));
            columns.push(PatternColumn::Argument(argument));
            Ok(())
        };
        for at in &rest[..first] {
            show(*at, &mut fields, &mut columns, &mut formulas)?;
        }
        for (place, (name, formula)) in names.iter().enumerate() {
            let of = formula.value.get_type(&formula.schema)?;
            fields.push((None, Arc::new(Field::new(&name.text, of, true))));
            columns.push(PatternColumn::Measure(place));
        }
        for at in &rest[first..] {
            show(*at, &mut fields, &mut columns, &mut formulas)?;
        }
        for (at, (_, field)) in fields.iter().enumerate() {
            if fields[..at].iter().any(|(_, before)| before.name() == field.name()) {
                let place = names.iter().find(|(name, _)| name.text == *field.name()).and_then(|(name, _)| name.place);
                return refused(
                    format!("two columns of MATCH_RECOGNIZE are called \"{}\"", field.name()),
                    place,
                    "give one of them another name with AS",
                );
            }
        }
        if fields.is_empty() {
            return refused("MATCH_RECOGNIZE gives no column", place, "write MEASURES, or PARTITION BY");
        }
        let (arguments, types) = formulas.into_arguments();
        let split = |(name, condition): (&Name, Option<Formula>)| -> DfResult<Variable> {
            let (local, history) = match condition {
                Some(condition) => condition.split(variables.iter().position(|variable| variable == name).unwrap_or(0))?,
                None => (None, None),
            };
            Ok(Variable { name: name.text.clone(), local, history })
        };
        let shape = Shape {
            variables: variables.iter().zip(conditions).map(split).collect::<DfResult<_>>()?,
            pattern,
            pattern_text,
            within_ms,
            skip,
            all_rows,
            measures: names.into_iter().map(|(_, formula)| formula).collect(),
            columns,
            types,
            time: time_argument,
        };
        let schema = Arc::new(DFSchema::new_with_metadata(fields, HashMap::new())?);
        let node = PatternTable { input, time, keys, arguments, shape: Arc::new(shape), schema };
        let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
    }
}

fn skip(written: Option<AfterMatchSkip>, variables: &[Name], pattern: &Pattern) -> DfResult<PatternSkip> {
    let find = |ident: &ast::Ident| {
        let name = Name::of(ident);
        match variables.iter().position(|variable| *variable == name) {
            Some(number) => Ok(number),
            None => {
                let known = variables.iter().map(|variable| variable.text.as_str()).collect::<Vec<_>>().join(", ");
                refused(format!("AFTER MATCH SKIP TO \"{name}\": PATTERN has no such variable"), name.place, &format!("it has {known}"))
            }
        }
    };
    Ok(match written {
        None | Some(AfterMatchSkip::PastLastRow) => PatternSkip::PastLastRow,
        Some(AfterMatchSkip::ToNextRow) => PatternSkip::ToNextRow,
        Some(AfterMatchSkip::ToFirst(ident)) => {
            let number = find(&ident)?;
            if pattern.first_variables() == 1 << number {
                return refused(
                    format!("AFTER MATCH SKIP TO FIRST {ident} goes to the row at which the match began, for ever"),
                    Place::of(ident.span),
                    "write AFTER MATCH SKIP TO NEXT ROW",
                );
            }
            PatternSkip::ToFirst(number)
        }
        Some(AfterMatchSkip::ToLast(ident)) => PatternSkip::ToLast(find(&ident)?),
    })
}

/// Where the first variable of a part of PATTERN stands.
fn place_in(pattern: &MatchRecognizePattern) -> Option<Place> {
    match pattern {
        MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(ident)) => Place::of(ident.span),
        MatchRecognizePattern::Concat(parts) | MatchRecognizePattern::Alternation(parts) => parts.iter().find_map(place_in),
        MatchRecognizePattern::Group(inner) | MatchRecognizePattern::Repetition(inner, _) => place_in(inner),
        _ => None,
    }
}

/// PATTERN with its variables numbered as they come.
fn converted(pattern: &MatchRecognizePattern, variables: &mut Vec<Name>) -> DfResult<Pattern> {
    let not_built = |what: &str| Err(external(SqlError::not_supported(&format!("{what} in PATTERN"))));
    let mut all = |parts: &[MatchRecognizePattern]| parts.iter().map(|part| converted(part, variables)).collect::<DfResult<Vec<_>>>();
    Ok(match pattern {
        MatchRecognizePattern::Symbol(MatchRecognizeSymbol::Named(ident)) => {
            let name = Name::of(ident);
            let number = variables.iter().position(|variable| *variable == name).unwrap_or_else(|| {
                variables.push(name);
                variables.len() - 1
            });
            Pattern::Variable(number)
        }
        MatchRecognizePattern::Symbol(_) => return not_built("^ and $ (the first and the last row of all)"),
        MatchRecognizePattern::Exclude(_) => return not_built("{- .. -} (rows left out)"),
        MatchRecognizePattern::Permute(_) => return not_built("PERMUTE"),
        MatchRecognizePattern::Concat(parts) => Pattern::Sequence(all(parts)?),
        MatchRecognizePattern::Alternation(parts) => Pattern::Either(all(parts)?),
        MatchRecognizePattern::Group(inner) => converted(inner, variables)?,
        MatchRecognizePattern::Repetition(of, how) => {
            // `a+?` arrives as `?` behind `a+`.
            let (of, how, reluctant) = match (of.as_ref(), how) {
                (MatchRecognizePattern::Repetition(inner, first), RepetitionQuantifier::AtMostOne) => (inner.as_ref(), first, true),
                (of, how) => (of, how, false),
            };
            if matches!(of, MatchRecognizePattern::Repetition(..)) {
                return refused(
                    format!("PATTERN has a quantifier behind another one: {pattern}"),
                    place_in(pattern),
                    "write brackets around the first: (a+){2}",
                );
            }
            let (least, most) = match how {
                RepetitionQuantifier::ZeroOrMore => (0, None),
                RepetitionQuantifier::OneOrMore => (1, None),
                RepetitionQuantifier::AtMostOne => (0, Some(1)),
                RepetitionQuantifier::Exactly(n) => (*n, Some(*n)),
                RepetitionQuantifier::AtLeast(n) => (*n, None),
                RepetitionQuantifier::AtMost(m) => (0, Some(*m)),
                RepetitionQuantifier::Range(n, m) => (*n, Some(*m)),
            };
            if most.is_some_and(|most| most == 0 || most < least) {
                return refused(
                    format!("the quantifier of {pattern} lets nothing through"),
                    place_in(pattern),
                    "write {n,m} with n up to m, and m at least 1",
                );
            }
            Pattern::Repeat { of: Box::new(converted(of, variables)?), least, most, reluctant }
        }
    })
}
