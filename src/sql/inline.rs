//! `CREATE VIEW v AS SELECT ..`: a name for a query's text, which stands for it wherever it is read.
//!
//! A view's name in FROM is replaced before planning by its query, under the same name: as a stream in a continuous query, as
//! history in a SELECT. So a view costs what its query costs, and nothing runs of it. A view may read views. Always: an error
//! about what a view says points into its text, and tells where the view is read; names in a view mean what they meant where
//! it was made. Called by the catalogue.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Ident, TableAlias, TableAliasColumnDef, TableFactor, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::dialect::split_script;
use super::error::{Code, Place, SqlError};
use super::parse::{parse_piece, relations};
use super::statement::{CreatePlainView, Name, Statement};

/// How deep views may read one another.
const DEEPEST: usize = 8;
/// So many views one statement may come to, those in views counted where they are read.
const MOST: usize = 64;
/// The lines of one view's text are numbered so far behind those of another, and of the statement that reads them: a script has fewer.
const APART: u32 = 5_000_000;

/// The views there are, by name.
pub trait Views {
    /// The text of one of them.
    fn view_text(&self, name: &str) -> Option<&str>;
}

/// A view that a statement reads, itself or through another one.
#[derive(Clone, Debug)]
pub struct Used {
    /// Its name, where it is read.
    pub name: Name,
    /// Its CREATE VIEW.
    pub text: String,
}

/// Replaces the views that a query reads, and theirs. Answers which they were; none where the query is as it was.
pub fn expand(query: &mut ast::Query, views: &dyn Views) -> Result<Vec<Used>, SqlError> {
    let mut used = Vec::new();
    match expand_at(query, views, 0, &mut used) {
        Ok(()) => Ok(used),
        Err(error) => Err(as_written(error, &used)),
    }
}

/// An error with its place where the one who reads the statement finds it: in the text of a view, if it lies there.
pub fn as_written(mut error: SqlError, used: &[Used]) -> SqlError {
    while let Some(place) = error.place.filter(|place| place.line > APART) {
        let number = ((place.line - 1) / APART) as usize - 1;
        let Some(view) = used.get(number) else {
            error.place = None;
            break;
        };
        error.place = Some(Place { line: (place.line - 1) % APART + 1, ..place });
        error = inside(error, view);
    }
    error
}

/// An error about what a view says: its text is shown below, and the place is where the view is read.
pub fn inside(error: SqlError, view: &Used) -> SqlError {
    let error = error.locate(&view.text);
    let rendered = error.render(&view.text);
    let mut shown = SqlError::new(error.code, error.message).at(view.name.place).hint(format!("reads view \"{}\", in which", view.name));
    shown.notes = rendered.lines().skip(1).map(|line| line.strip_prefix("  ").unwrap_or(line).to_owned()).collect();
    shown
}

fn expand_at(query: &mut ast::Query, views: &dyn Views, depth: usize, used: &mut Vec<Used>) -> Result<(), SqlError> {
    match query.visit(&mut Expansion { views, depth, used, scopes: Vec::new() }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Expansion<'a> {
    views: &'a dyn Views,
    depth: usize,
    used: &'a mut Vec<Used>,
    /// The names of WITH that are in sight, one list a query.
    scopes: Vec<Vec<String>>,
}

impl VisitorMut for Expansion<'_> {
    type Break = Box<SqlError>;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> ControlFlow<Self::Break> {
        self.scopes.push(Vec::new());
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                let name = Name::of(&cte.alias.name).text;
                // Inside its own body a name still means what it meant outside, unless it is said to be recursive.
                if !with.recursive {
                    cte.query.visit(self)?;
                }
                self.scopes.last_mut().expect("it was pushed just now").push(name);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<Self::Break> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        let TableFactor::Table { name, alias, args: None, version: None, .. } = factor else { return ControlFlow::Continue(()) };
        let [part] = name.0.as_slice() else { return ControlFlow::Continue(()) };
        let Some(ident) = part.as_ident() else { return ControlFlow::Continue(()) };
        let name = Name::of(ident);
        if self.scopes.iter().flatten().any(|own| *own == name.text) {
            return ControlFlow::Continue(());
        }
        let Some(text) = self.views.view_text(&name.text) else { return ControlFlow::Continue(()) };
        match self.body(&name, text) {
            Ok((subquery, columns)) => {
                *factor = TableFactor::Derived {
                    lateral: false,
                    subquery: Box::new(subquery),
                    alias: Some(aliased(alias.take(), ident_of(&name), &columns)),
                    sample: None,
                };
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Box::new(error)),
        }
    }
}

impl Expansion<'_> {
    /// The query that a view stands for, and the names of its columns where it gives them.
    fn body(&mut self, name: &Name, text: &str) -> Result<(ast::Query, Vec<Name>), SqlError> {
        if self.used.len() >= MOST || self.depth >= DEEPEST {
            let what = if self.depth >= DEEPEST { format!("{DEEPEST} deep") } else { format!("{MOST} times") };
            return Err(SqlError::new(Code::BadDefinition, format!("views read views more than {what} here"))
                .at(name.place)
                .hint("write part of it as a query into a stream, or as a MATERIALIZED VIEW"));
        }
        let number = self.used.len() as u32 + 1;
        self.used.push(Used { name: name.clone(), text: text.to_owned() });
        let view = placed_apart(text, number * APART)?;
        let mut query = *view.select.query;
        expand_at(&mut query, self.views, self.depth + 1, self.used)?;
        let hidden = relations(&query).into_iter().find(|read| self.scopes.iter().flatten().any(|own| *own == read.text));
        if let Some(hidden) = hidden {
            let message = format!("WITH gives the name \"{hidden}\" to something else, and view \"{name}\" reads what is called so");
            return Err(SqlError::new(Code::Ambiguous, message).at(name.place).hint("choose another name in WITH"));
        }
        Ok((query, view.columns))
    }
}

/// A view's statement, its places so many lines further down.
fn placed_apart(text: &str, lines: u32) -> Result<CreatePlainView, SqlError> {
    let mut piece = split_script(text)?.into_iter().next().ok_or_else(|| SqlError::new(Code::Internal, "a view without a text"))?;
    for token in &mut piece.tokens {
        let Span { start, end } = &mut token.span;
        start.line += u64::from(lines);
        end.line += u64::from(lines);
    }
    match parse_piece(&piece)?.statement {
        Statement::CreatePlainView(view) => Ok(*view),
        _ => Err(SqlError::new(Code::Internal, "the text of a view is no CREATE VIEW")),
    }
}

fn ident_of(name: &Name) -> Ident {
    Ident::with_quote('"', name.text.clone())
}

/// The name under which a view's query stands: the alias where there is one, and the view's columns where that renames none.
fn aliased(alias: Option<TableAlias>, view: Ident, columns: &[Name]) -> TableAlias {
    let mut alias = alias.unwrap_or(TableAlias { explicit: true, name: view, columns: Vec::new(), at: None });
    if alias.columns.is_empty() {
        alias.columns = columns.iter().map(|column| TableAliasColumnDef { name: ident_of(column), data_type: None }).collect();
    }
    alias
}
