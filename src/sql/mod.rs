//! Streaming SQL: the dialect, the catalogue, planning on DataFusion, functions, history.
//!
//! The one room that names DataFusion. A text becomes [`Statement`]s (`parse`, over `dialect`), which change the
//! catalogue or are lowered to the operators of `stream`. Called by `alerts` (its rules), `http`, `node` and `cli`.

mod analyze;
mod asof;
mod batch;
mod catalog;
mod dialect;
mod engine;
mod error;
mod expr;
mod figures;
mod fold;
mod functions;
mod grouping;
mod inline;
mod lower;
mod macros;
mod options;
mod overflow;
mod parse;
mod pattern;
mod pick;
mod sample;
mod session;
mod show;
mod spelling;
mod statement;
mod types;
mod windows;
mod workspace;

pub use batch::{History, Rows as HistoryRows, explain_history, insert_values, select_history};
pub use catalog::{CATALOG_TOPIC, Catalog, CatalogRecord, Change, Entry, Existing, RecordError, StreamDef, ViewDef, same_text};
pub use dialect::{Piece, split_script};
pub use engine::{Checker, Engine, EngineOptions, Outcome, QueryState, QueryStatus, RuleFactory, RuleSpec};
pub use error::{Code, Place, SqlError, did_you_mean, nearest};
pub use functions::set_pseudonym_key;
pub use lower::{Placement, Purpose, QueryPlan, ResultTime, Shape, Source, SourceColumn, Sources, plan};
pub use options::{
    ALERT_OPTIONS, AlertOptions, AlertOrder, AlertPriority, BadRecords, EpochUnit, FormatName, Given, KeyPartitioner, Kind as OptionKind,
    OptionSpec, Options, QUERY_OPTIONS, QueryOptions, STREAM_OPTIONS, Start, StreamOptions, TABLE_OPTIONS,
};
pub use parse::{parse_piece, parse_script, parse_statement};
pub use show::{TaskLine, canonical, derived_stream, describe_schema, describe_stream, lines, show_all, show_create};
pub use statement::{
    Column, ColumnSource, CreateAlert, CreateFunction, CreateLike, CreatePlainView, CreateQuery, CreateStream, CreateTable, DropObject,
    Emit, Explain, Insert, Kind, Metadata, Name, Parsed, Select, Show, Statement, Watermark,
};
pub use types::{arrow_type, interval_millis, quoted, sql_type};
pub use workspace::{Spill, Workspace};
