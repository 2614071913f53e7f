//! The statements of the dialect as values: what [`super::parse_statement`] makes, what the engine and lowering take.
//!
//! # Names
//!
//! A [`Name`] is folded as DataFusion folds it: lower case unless it was quoted.
//!
//! # The normal form of a query
//!
//! [`Select::query`] is sqlparser's AST after rewriting. Whatever spelling the user chose, a window call arrives as
//! a `TableFactor::Table { name, args: Some(..), alias, .. }` whose name is one unquoted lower-case word and whose
//! arguments are unnamed, in this order:
//!
//! | call | arguments |
//! |---|---|
//! | `tumble` | input, time, size \[, offset\] |
//! | `hop` | input, time, slide, size \[, offset\] |
//! | `absent` | input, time, silence, key .. |
//! | `gap_fill` | input, time, interval, `locf(column)` or `interpolate(column)` .., key .. |
//!
//! - *input* is always `ast::Expr::Subquery`: `TABLE vitals`, `vitals` and `DATA => TABLE vitals` all became
//!   `(SELECT * FROM vitals)`, so the columns keep the qualifier `vitals`.
//! - *time* is the column: `DESCRIPTOR(ts)` became `ts`.
//! - *slide*, *size*, *offset* and *silence* are INTERVAL literals of a fixed length, checked: [`super::interval_millis`]
//!   gives their milliseconds; size, slide and silence are positive, the offset may be negative.
//! - the keys of `absent` and `gap_fill` are their PARTITION BY columns, any number of them.
//! - the older `FROM s AS a WHERE .. GROUP BY k, TUMBLE(ts, i)` became
//!   `FROM tumble((SELECT * FROM s AS a), ts, i) WHERE .. GROUP BY k, window_start, window_end`, and in the same query
//!   `TUMBLE_START(ts, i)`, `HOP_START(..)` and `.._END(..)` became `window_start` and `window_end`.
//!
//! `ASOF JOIN` and `FOR SYSTEM_TIME AS OF` arrive as plain joins whose ON begins with a marker of [`super::asof`].
//!
//! `MATCH_RECOGNIZE` arrives as `TableFactor::MatchRecognize`; its WITHIN is the definition `__within` of DEFINE, and `FINAL f(..)` and
//! `RUNNING f(..)` are calls of `__final_f` and `__running_f`.
//!
//! What the dialect knows and does not build is refused before a [`Statement`] exists, by name. Refused there for
//! every query: parts of MATCH_RECOGNIZE (SUBSET, PERMUTE, anchors, rows left out, unmatched rows), TABLESAMPLE, hints, PIVOT,
//! INTO, FOR UPDATE, TOP and the other clauses of sqlparser that DataFusion would pass over in silence. For
//! [`CreateQuery`], [`CreateAlert`] and `EMIT CHANGES` also: ORDER BY, LIMIT, OFFSET, FETCH, DISTINCT at any depth (not inside
//! aggregates). Joins, set operations, QUALIFY, DISTINCT aggregates, GROUP BY without a window and subqueries reach lowering, which judges them.

use std::fmt;
use std::time::Duration;

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast;

use super::error::{Place, SqlError};
use super::options::{AlertOptions, FormatName, Given, QueryOptions, StreamOptions};
use crate::format::CsvRule;
use crate::record::TopicName;

/// A name as the catalogue keeps it, and where it was written.
#[derive(Clone, Debug)]
pub struct Name {
    /// The name: lower case unless it was quoted.
    pub text: String,
    /// Where it stands.
    pub place: Option<Place>,
}

impl Name {
    /// A name that nobody wrote.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), place: None }
    }

    /// The name of an identifier.
    #[must_use]
    pub fn of(ident: &ast::Ident) -> Self {
        let text = if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() };
        Self { text, place: Place::of(ident.span) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Two names are the same wherever they stand.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Name {}

/// One statement with the text it came from.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub statement: Statement,
    /// The statement as it was written, without the semicolon and what surrounds it.
    pub text: String,
    /// Where it begins in the script; the places inside `statement` count from the script's beginning too.
    pub place: Place,
}

impl Parsed {
    /// An error that planning or running this statement gave, with its place in the script: the one it has, else the
    /// first word that its message names.
    #[must_use]
    pub fn locate(&self, error: SqlError) -> SqlError {
        if error.place.is_some() {
            return error;
        }
        error.locate(&self.text).moved(self.place.line.saturating_sub(1), self.place.column.saturating_sub(1))
    }
}

/// Everything one can say.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `CREATE STREAM`, `CREATE SOURCE`.
    CreateStream(CreateStream),
    /// `CREATE STREAM .. LIKE SAMPLE OF TOPIC ..`.
    CreateLike(CreateLike),
    /// `CREATE TABLE`.
    CreateTable(CreateTable),
    /// `CREATE QUERY`.
    CreateQuery(Box<CreateQuery>),
    /// `CREATE MATERIALIZED VIEW`: a query that writes a topic of its own, which is called as the view is.
    CreateView(Box<CreateQuery>),
    /// `CREATE VIEW`: a name for a query's text.
    CreatePlainView(Box<CreatePlainView>),
    /// `CREATE ALERT`.
    CreateAlert(Box<CreateAlert>),
    /// `CREATE FUNCTION`.
    CreateFunction(Box<CreateFunction>),
    /// `CREATE SAVEPOINT s FOR QUERY q`.
    CreateSavepoint(CreateSavepoint),
    /// A query typed by hand, with or without `EMIT CHANGES`.
    Select(Box<Select>),
    /// `SUBSCRIBE TO v`.
    Subscribe(Subscribe),
    /// `INSERT INTO s VALUES ..`.
    Insert(Insert),
    /// `PAUSE QUERY`, `PAUSE ALERT`.
    Pause(Kind, Name),
    /// `RESUME QUERY`, `RESUME ALERT`.
    Resume(Kind, Name),
    /// `RESTORE QUERY q FROM SAVEPOINT s`.
    Restore(Restore),
    /// `DROP ..`.
    Drop(DropObject),
    /// `SHOW ..`.
    Show(Show),
    /// `DESCRIBE x`.
    Describe(Name),
    /// `DESCRIBE SAVEPOINT s`.
    DescribeSavepoint(Name),
    /// `EXPLAIN ..`.
    Explain(Explain),
    /// `WHY QUERY q`.
    WhyQuery(Name),
}

impl Statement {
    /// The name this statement makes, where it is a CREATE.
    #[must_use]
    pub fn creates(&self) -> Option<(Kind, &Name)> {
        match self {
            Self::CreateStream(s) => Some((Kind::Stream, &s.name)),
            Self::CreateTable(t) => Some((Kind::Table, &t.name)),
            Self::CreateQuery(q) => Some((Kind::Query, &q.name)),
            Self::CreateView(v) => Some((Kind::View, &v.name)),
            Self::CreatePlainView(v) => Some((Kind::PlainView, &v.name)),
            Self::CreateAlert(a) => Some((Kind::Alert, &a.name)),
            Self::CreateFunction(f) => Some((Kind::Function, &f.name)),
            Self::CreateSavepoint(s) => Some((Kind::Savepoint, &s.name)),
            _ => None,
        }
    }
}

/// What a name may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A topic as an append-only stream.
    Stream,
    /// A keyed, compacted topic.
    Table,
    /// A continuous query.
    Query,
    /// A materialised view: a query with the topic it keeps up to date.
    View,
    /// A view that is no more than a name for a query's text.
    PlainView,
    /// An alert.
    Alert,
    /// A function that stands for an expression.
    Function,
    /// Where a query, view or alert stood at a moment, with its state.
    Savepoint,
}

impl Kind {
    /// Whether what is of this kind is meant by a statement that names that one: VIEW is said of both kinds.
    #[must_use]
    pub fn is_meant_by(self, said: Self) -> bool {
        self == said || (said, self) == (Self::View, Self::PlainView)
    }

    /// The word in the keys of records, one for each kind.
    #[must_use]
    pub const fn key_word(self) -> &'static str {
        match self {
            Self::PlainView => "plain-view",
            other => other.word(),
        }
    }

    /// The word in messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Table => "table",
            Self::Query => "query",
            Self::View | Self::PlainView => "view",
            Self::Alert => "alert",
            Self::Function => "function",
            Self::Savepoint => "savepoint",
        }
    }
}

/// `CREATE STREAM`.
#[derive(Clone, Debug)]
pub struct CreateStream {
    /// Its name.
    pub name: Name,
    /// Whether it takes the place of one of that name.
    pub or_replace: bool,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// Its event time, where it has one.
    pub watermark: Option<Watermark>,
    /// What stood in WITH.
    pub options: StreamOptions,
}

/// `CREATE STREAM .. LIKE SAMPLE OF TOPIC ..`: a stream whose columns a topic's records say.
#[derive(Clone, Debug)]
pub struct CreateLike {
    /// Its name.
    pub name: Name,
    /// Whether it takes the place of one of that name.
    pub or_replace: bool,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// The topic that is looked at, and read.
    pub topic: TopicName,
    /// Where that was written.
    pub topic_place: Option<Place>,
    /// What stood in WITH: it goes into the statement as it is.
    pub given: Vec<Given>,
}

impl CreateLike {
    /// An option as it was written.
    fn option(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|g| g.name == name).map(|g| g.value.as_str())
    }

    /// The format, where it was written.
    #[must_use]
    pub fn format(&self) -> Option<FormatName> {
        self.option("format").map(|word| FormatName::of(Some(word)))
    }

    /// How lines of CSV are written.
    #[must_use]
    pub fn csv(&self) -> CsvRule {
        CsvRule {
            delimiter: super::options::delimiter(self.option("csv.delimiter")),
            null: self.option("csv.null").unwrap_or_default().to_owned(),
        }
    }
}

/// `CREATE TABLE .. PRIMARY KEY (..) NOT ENFORCED`.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: Name,
    /// Whether it takes the place of one of that name.
    pub or_replace: bool,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// Its columns, in order.
    pub columns: Vec<Column>,
    /// The key columns, at least one.
    pub primary_key: Vec<Name>,
    /// From when a row is valid, where a column says it.
    pub watermark: Option<Watermark>,
    /// What stood in WITH.
    pub options: StreamOptions,
}

/// `CREATE FUNCTION f(x DOUBLE) RETURNS DOUBLE RETURN ..`.
#[derive(Clone, Debug)]
pub struct CreateFunction {
    /// Its name.
    pub name: Name,
    /// Whether it takes the place of one of that name.
    pub or_replace: bool,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// The type it returns, as it was written.
    pub returns: ast::DataType,
    /// The same as Arrow knows it.
    pub returned: DataType,
    /// The expression that a call stands for.
    pub body: Box<ast::Expr>,
}

/// One parameter of a function.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// Its name.
    pub name: Name,
    /// Its type, as it was written.
    pub written: ast::DataType,
    /// The same as Arrow knows it.
    pub data_type: DataType,
}

/// One column of a stream or table.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: Name,
    /// Its type; `None` for a computed column, whose type its expression gives.
    pub data_type: Option<DataType>,
    /// Whether it may be NULL; a computed one may.
    pub nullable: bool,
    /// Where its value comes from.
    pub source: ColumnSource,
}

/// Where a column's value comes from.
#[derive(Clone, Debug)]
pub enum ColumnSource {
    /// The record's value.
    Value,
    /// The record's place, time or key.
    Metadata(Metadata),
    /// An expression over the other columns.
    Computed(Box<ast::Expr>),
}

/// What `METADATA FROM '..'` can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// The partition.
    Partition,
    /// The offset.
    Offset,
    /// The record's timestamp.
    Timestamp,
    /// The record's key as text.
    Key,
}

impl Metadata {
    /// Every kind there is.
    pub const ALL: [Self; 4] = [Self::Partition, Self::Offset, Self::Timestamp, Self::Key];

    /// The word in `METADATA FROM '..'`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Timestamp => "timestamp",
            Self::Key => "key",
        }
    }
}

/// `WATERMARK FOR column AS expr`.
#[derive(Clone, Debug)]
pub struct Watermark {
    /// The event time: a TIMESTAMP column (or a computed one, whose type planning checks).
    pub column: Name,
    /// What the watermark is, over one row.
    pub expr: ast::Expr,
    /// Where the expression begins.
    pub place: Option<Place>,
}

/// A query after rewriting, and when its rows come out.
#[derive(Clone, Debug)]
pub struct Select {
    /// The query in its normal form; see the head of this file.
    pub query: Box<ast::Query>,
    /// Its EMIT clause.
    pub emit: Emit,
    /// Where EMIT stands.
    pub emit_place: Option<Place>,
    /// How long state is kept for which no row comes.
    pub state_ttl: StateTtl,
    /// The relations it reads, once each, in order of first mention; names of its own WITH are left out.
    pub reads: Vec<Name>,
}

/// When rows come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Nothing was written: on window close where there are windows, else as rows come; over stored data where typed by hand.
    Unstated,
    /// `EMIT ON WINDOW CLOSE [WITH GRACE i] [TIMEOUT i]`.
    WindowClose {
        /// How long behind its end a window still takes late rows, and is written once more for each.
        grace: Option<Duration>,
        /// After how long of silence a partition's windows close by the clock.
        timeout: Option<Duration>,
    },
    /// `EMIT ON UPDATE [EVERY i]`, `EMIT EVERY i`.
    Update {
        /// How often by the clock; with every commit where nothing is said.
        every: Option<Duration>,
    },
    /// `EMIT CHANGES`.
    Changes,
}

/// How long state is kept for which no row comes: the option `state.ttl` of the statement around a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateTtl {
    /// Nothing was said.
    #[default]
    Unstated,
    /// For ever.
    Forever,
    /// So long, in event time.
    For(Duration),
}

/// `CREATE QUERY .. AS INSERT INTO .. SELECT ..`, and `CREATE MATERIALIZED VIEW .. AS SELECT ..`, which writes what is called like it.
#[derive(Clone, Debug)]
pub struct CreateQuery {
    /// Its name.
    pub name: Name,
    /// Whether it takes the place of an older one.
    pub or_replace: bool,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// What stood in WITH.
    pub options: QueryOptions,
    /// The stream it writes.
    pub insert_into: Name,
    /// The columns it writes, where they are listed.
    pub insert_columns: Vec<Name>,
    /// What it finds.
    pub select: Select,
}

/// `CREATE VIEW v [(columns)] AS SELECT ..`.
#[derive(Clone, Debug)]
pub struct CreatePlainView {
    /// Its name.
    pub name: Name,
    /// Whether it takes the place of an older one.
    pub or_replace: bool,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// What its columns are called, where that is said.
    pub columns: Vec<Name>,
    /// What it stands for.
    pub select: Select,
}

/// `SUBSCRIBE TO view [WHERE condition] [AS OF 'epoch']`.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The view.
    pub view: Name,
    /// Which of its rows.
    pub filter: Option<Box<ast::Expr>>,
    /// From which moment on; all that holds now and what comes, where nothing is said.
    pub as_of: Option<(String, Option<Place>)>,
}

/// `CREATE ALERT .. AS SELECT ..`.
#[derive(Clone, Debug)]
pub struct CreateAlert {
    /// Its name, which is the rule's.
    pub name: Name,
    /// Whether it takes the place of an older one.
    pub or_replace: bool,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// What stood in WITH.
    pub options: AlertOptions,
    /// What it finds.
    pub select: Select,
}

/// `CREATE SAVEPOINT [IF NOT EXISTS] s FOR QUERY | VIEW | ALERT q`.
#[derive(Clone, Debug)]
pub struct CreateSavepoint {
    /// Its name.
    pub name: Name,
    /// Whether an existing one is left as it is.
    pub if_not_exists: bool,
    /// What it is of: a query, view or alert.
    pub kind: Kind,
    /// Of which.
    pub of: Name,
}

/// `RESTORE QUERY | ALERT q FROM SAVEPOINT s`.
#[derive(Clone, Debug)]
pub struct Restore {
    /// What goes back: a query or alert.
    pub kind: Kind,
    /// Which.
    pub name: Name,
    /// To where.
    pub savepoint: Name,
}

/// `INSERT INTO s [(columns)] VALUES (..), ..`.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The stream or table.
    pub into: Name,
    /// The columns listed; all that are not metadata or computed, in order, where none are.
    pub columns: Vec<Name>,
    /// The rows, each as long as the first: a query whose body is `SetExpr::Values`.
    pub values: Box<ast::Query>,
}

/// `DROP kind [IF EXISTS] name`.
#[derive(Clone, Debug)]
pub struct DropObject {
    /// What.
    pub kind: Kind,
    /// Whether a missing one is no error.
    pub if_exists: bool,
    /// Which.
    pub name: Name,
}

/// `SHOW ..`.
#[derive(Clone, Debug)]
pub enum Show {
    /// All of a kind.
    All(Kind),
    /// The canonical text of one.
    Create {
        /// Of which kind, where it was said.
        kind: Option<Kind>,
        /// Which.
        name: Name,
    },
}

/// `EXPLAIN ..`.
#[derive(Clone, Debug)]
pub enum Explain {
    /// The plan of a query that is written out; with its figures where ANALYZE is said, for which it runs over what is stored.
    Select {
        /// Whether it is to run, for its figures.
        analyze: bool,
        /// The query.
        select: Box<Select>,
    },
    /// The plan of one that is in the catalogue; with its figures where ANALYZE is said.
    Query {
        /// Whether its figures are wanted.
        analyze: bool,
        /// Which.
        name: Name,
    },
}
