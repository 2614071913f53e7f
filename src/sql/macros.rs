//! `CREATE FUNCTION f(x DOUBLE) RETURNS DOUBLE RETURN x * 1.8 + 32`: a call stands for its expression.
//!
//! A call is replaced before planning: its arguments, cast to the types of the parameters, take the places of the parameters, and
//! the whole is cast to the type that the function returns. So a function costs what its expression costs, works wherever an
//! expression does, over streams and over what is stored, and fails a row where the expression would. Its body is one scalar
//! expression of its parameters; it may call other functions that are there already. Called by the catalogue, the engine and
//! `check`.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::compute::can_cast_types;
use arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::ExprSchemable;
use datafusion::sql::sqlparser::ast::{
    self, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, SelectItem, Spanned, Visit, VisitMut, Visitor,
    VisitorMut,
};

use super::error::{Code, Place, SqlError};
use super::session::Session;
use super::statement::{CreateFunction, Name};
use super::types::sql_type;

/// How deep functions may call one another.
const DEEPEST: usize = 16;
/// How many calls one statement may come to, those in functions counted where they are called.
const MOST_CALLS: usize = 1_000;

/// The functions there are, by name.
pub trait Functions {
    /// One of them.
    fn function(&self, name: &str) -> Option<&CreateFunction>;
}

/// Replaces every call of these functions in a query or expression.
pub fn expand<T: VisitMut>(of: &mut T, functions: &dyn Functions) -> Result<(), SqlError> {
    let mut calls = 0;
    expand_at(of, functions, 0, &mut calls)
}

fn expand_at<T: VisitMut>(of: &mut T, functions: &dyn Functions, depth: usize, calls: &mut usize) -> Result<(), SqlError> {
    match of.visit(&mut Expansion { functions, depth, calls }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Expansion<'a> {
    functions: &'a dyn Functions,
    depth: usize,
    calls: &'a mut usize,
}

impl VisitorMut for Expansion<'_> {
    type Break = Box<SqlError>;

    /// A column that is a call is called as the call was written.
    fn pre_visit_select(&mut self, select: &mut ast::Select) -> ControlFlow<Self::Break> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr @ Expr::Function(_)) = item
                && let Expr::Function(call) = expr
                && name_of(call).is_some_and(|name| self.functions.function(&name.text).is_some())
            {
                let alias = Ident::with_quote('"', call.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let Some(function) = name_of(call).and_then(|name| self.functions.function(&name.text)) else { return ControlFlow::Continue(()) };
        match self.body(function, call) {
            Ok(body) => *expr = body,
            Err(error) => return ControlFlow::Break(Box::new(error)),
        }
        ControlFlow::Continue(())
    }
}

impl Expansion<'_> {
    /// What a call stands for; its arguments have been replaced already.
    fn body(&mut self, function: &CreateFunction, call: &Function) -> Result<Expr, SqlError> {
        let place = Place::of(call.span());
        *self.calls += 1;
        if *self.calls > MOST_CALLS || self.depth >= DEEPEST {
            let what = if self.depth >= DEEPEST { format!("{DEEPEST} deep") } else { format!("{MOST_CALLS} times") };
            return Err(SqlError::new(Code::BadDefinition, format!("functions call functions more than {what} here"))
                .at(place)
                .hint("write part of it in a subquery, or in functions that call fewer others"));
        }
        let arguments = arguments(call).map_err(|e| e.at(place))?;
        if arguments.len() != function.parameters.len() {
            return Err(SqlError::new(
                Code::TypeMismatch,
                format!("function \"{}\" takes {}, and here are {}", function.name, counted(function.parameters.len()), arguments.len()),
            )
            .at(place)
            .hint(signature(function)));
        }
        let cast_to = |expr: Expr, to: &ast::DataType| Expr::Cast {
            kind: CastKind::Cast,
            expr: Box::new(expr),
            data_type: to.clone(),
            array: false,
            format: None,
        };
        let given = function.parameters.iter().zip(arguments);
        let given: Vec<(&Name, Expr)> =
            given.map(|(parameter, argument)| (&parameter.name, Expr::Nested(Box::new(cast_to(argument, &parameter.written))))).collect();
        let mut body = function.body.as_ref().clone();
        // What the body calls is replaced before the arguments come in, in which nothing is left to replace.
        expand_at(&mut body, self.functions, self.depth + 1, self.calls)?;
        let _ = VisitMut::visit(&mut body, &mut Arguments(&given));
        Ok(cast_to(Expr::Nested(Box::new(body)), &function.returns))
    }
}

/// Puts arguments in the places of the parameters.
struct Arguments<'a>(&'a [(&'a Name, Expr)]);

impl VisitorMut for Arguments<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(ident) = expr
            && let Some((_, argument)) = self.0.iter().find(|(name, _)| **name == Name::of(ident))
        {
            *expr = argument.clone();
        }
        ControlFlow::Continue(())
    }
}

/// The name of a call, of one part.
fn name_of(call: &Function) -> Option<Name> {
    match call.name.0.as_slice() {
        [part] => part.as_ident().map(Name::of),
        _ => None,
    }
}

/// A call's arguments, where it has nothing but arguments.
fn arguments(call: &Function) -> Result<Vec<Expr>, SqlError> {
    let refused = |what: &str| Err(SqlError::not_supported(&format!("{what} of a function that CREATE FUNCTION made")));
    if call.over.is_some() {
        return refused("OVER");
    }
    if call.filter.is_some() || call.null_treatment.is_some() || !call.within_group.is_empty() {
        return refused("FILTER, WITHIN GROUP, IGNORE NULLS");
    }
    let list = match &call.args {
        FunctionArguments::None => return Ok(Vec::new()),
        FunctionArguments::Subquery(_) => return refused("a subquery as the argument"),
        FunctionArguments::List(list) => list,
    };
    if list.duplicate_treatment.is_some() || !list.clauses.is_empty() {
        return refused("DISTINCT, ORDER BY, LIMIT");
    }
    let argument = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr.clone()),
        _ => Err(SqlError::not_supported("an argument with a name, or *, of a function that CREATE FUNCTION made")),
    };
    list.args.iter().map(argument).collect()
}

fn counted(parameters: usize) -> String {
    match parameters {
        0 => "no argument".to_owned(),
        1 => "1 argument".to_owned(),
        several => format!("{several} arguments"),
    }
}

/// A function as one calls it.
pub fn signature(function: &CreateFunction) -> String {
    let parameters: Vec<String> = function.parameters.iter().map(|p| format!("{} {}", p.name, sql_type(&p.data_type))).collect();
    format!("{}({}) RETURNS {}", function.name, parameters.join(", "), sql_type(&function.returned))
}

/// The functions that a query or expression calls, whoever made them; each once.
pub fn calls<T: Visit>(of: &T) -> BTreeSet<String> {
    struct Calls(BTreeSet<String>);
    impl Visitor for Calls {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(call) = expr {
                self.0.extend(name_of(call).map(|name| name.text));
            }
            ControlFlow::Continue(())
        }
    }
    let mut calls = Calls(BTreeSet::new());
    let _ = of.visit(&mut calls);
    calls.0
}

/// Whether a function can be made: its name is free, its body is an expression of its parameters alone, and becomes what it returns.
/// `functions` are those there are, this one among them under its name where it takes the place of another.
pub fn check(function: &CreateFunction, functions: &dyn Functions) -> Result<(), SqlError> {
    let name = &function.name;
    if Session::knows_function(&name.text) || super::spelling::knows(&name.text) || super::windows::is_window_name(&name.text) {
        return Err(SqlError::new(Code::NameTaken, format!("there is a function \"{name}\" already, which comes with VitalSQL"))
            .at(name.place)
            .hint("choose another name"));
    }
    let body_place = super::dialect::columns::place_of(&function.body);
    let bad = |message: String| SqlError::new(Code::BadDefinition, message).at(body_place);
    if let Some(what) = not_scalar(&function.body) {
        return Err(bad(format!("{what} cannot stand in a function: its body is one expression of its parameters")));
    }
    if calls_itself(function, functions) {
        return Err(bad(format!("function \"{name}\" would call itself")).hint("a function is an expression: it cannot repeat itself"));
    }
    let mut body = function.body.as_ref().clone();
    expand(&mut body, functions)?;
    let fields: Vec<Field> = function.parameters.iter().map(|p| Field::new(&p.name.text, p.data_type.clone(), true)).collect();
    let schema = DFSchema::try_from(Schema::new(fields)).map_err(SqlError::from)?;
    let typed = Session::new([]).expression(&body, &schema)?;
    let made = typed.get_type(&schema).map_err(SqlError::from)?;
    if !can_cast_types(&made, &function.returned) {
        return Err(SqlError::new(
            Code::TypeMismatch,
            format!("function \"{name}\" returns {}, and its expression is {}", sql_type(&function.returned), sql_type(&made)),
        )
        .at(body_place)
        .hint("cast it, or return another type"));
    }
    Ok(())
}

/// Whether a function comes back to itself through what it calls.
fn calls_itself(function: &CreateFunction, functions: &dyn Functions) -> bool {
    let mut seen = BTreeSet::new();
    let mut open: Vec<String> = calls(function.body.as_ref()).into_iter().collect();
    while let Some(name) = open.pop() {
        if name == function.name.text {
            return true;
        }
        if let Some(called) = functions.function(&name).filter(|_| seen.insert(name)) {
            open.extend(calls(called.body.as_ref()));
        }
    }
    false
}

/// What in an expression is no scalar.
fn not_scalar(body: &Expr) -> Option<String> {
    struct Look;
    impl Visitor for Look {
        type Break = String;
        fn pre_visit_query(&mut self, _: &ast::Query) -> ControlFlow<String> {
            ControlFlow::Break("a subquery".to_owned())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
            match expr {
                Expr::Function(call) if call.over.is_some() => ControlFlow::Break("OVER".to_owned()),
                Expr::Function(call) => match name_of(call) {
                    Some(name) if !Session::is_scalar(&name.text) => {
                        ControlFlow::Break(format!("\"{name}\", which looks at several rows,"))
                    }
                    _ => ControlFlow::Continue(()),
                },
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match body.visit(&mut Look) {
        ControlFlow::Break(what) => Some(what),
        ControlFlow::Continue(()) => None,
    }
}
