//! A stream as planning sees it: its columns, key and time.
//!
//! Owns [`Source`], which the catalogue fills in, and its [`Shape`]: the columns a query can name (computed ones
//! among them), how they come from the decoded ones, and the expressions that tell time.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::{Expr as LogicalExpr, ExprSchemable};
use datafusion::sql::sqlparser::ast;

use super::check;
use crate::record::TopicName;
use crate::sql::error::{Code, SqlError};
use crate::sql::expr::PlannedExpr;
use crate::sql::session::Session;
use crate::stream::{Expr, TimeRule};

/// The decoded column of a table that says when its record was written; no query can name it.
pub const RECORD_TIME: &str = "__record_time";
/// The column of a view that has its record's key: what tells one of its rows from another.
pub const RECORD_KEY: &str = "__record_key";

/// A stream or table as a query reads it.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its name in SQL.
    pub name: String,
    /// The topic behind it.
    pub topic: TopicName,
    /// How many partitions the topic has.
    pub partitions: i32,
    /// What the decoder yields, in its order.
    pub decoded: SchemaRef,
    /// The columns in the order they were declared.
    pub columns: Vec<SourceColumn>,
    /// The column whose rows of one value lie in one partition.
    pub key: Option<String>,
    /// Whether it is checked that they lie where Java's partitioner puts them, as it does with results of queries.
    pub is_murmur2: bool,
    /// The event time column.
    pub time: Option<String>,
    /// The WATERMARK expression over the columns.
    pub watermark: Option<ast::Expr>,
    /// How far ahead of the clock a row may be and still move the watermark, in milliseconds.
    pub max_future_ms: Option<i64>,
    /// Whether a row takes the place of the one before it under the same key.
    pub is_table: bool,
    /// A table's primary key; a stream has none, nor has a view of one row.
    pub primary_key: Vec<String>,
}

/// One column of a [`Source`].
#[derive(Clone, Debug)]
pub struct SourceColumn {
    /// Its name.
    pub name: String,
    /// What computes it; `None` where the decoder yields a column of this name.
    pub computed: Option<ast::Expr>,
}

/// Where planning finds streams and tables.
pub trait Sources {
    /// The stream or table of this name.
    fn source(&self, name: &str) -> Option<Source>;
}

impl<F: Fn(&str) -> Option<Source>> Sources for F {
    fn source(&self, name: &str) -> Option<Source> {
        self(name)
    }
}

impl Source {
    /// A stream whose columns are all decoded ones.
    #[must_use]
    pub fn plain(name: &str, topic: TopicName, partitions: i32, decoded: SchemaRef) -> Self {
        let columns = decoded.fields().iter().map(|field| SourceColumn { name: field.name().clone(), computed: None }).collect();
        Self {
            name: name.to_owned(),
            topic,
            partitions,
            decoded,
            columns,
            key: None,
            is_murmur2: false,
            time: None,
            watermark: None,
            max_future_ms: None,
            is_table: false,
            primary_key: Vec::new(),
        }
    }

    /// Types and plans whatever is computed. What cannot be planned fails here, at CREATE.
    pub fn shape(&self) -> Result<Shape, SqlError> {
        let session = Session::new([]);
        let decoded = DFSchema::try_from(Arc::clone(&self.decoded))?;
        let (mut fields, mut exprs) = (Vec::new(), Vec::new());
        for column in &self.columns {
            let expr = match &column.computed {
                None => LogicalExpr::Column(datafusion::common::Column::new_unqualified(&column.name)),
                Some(ast) => session.expression(ast, &decoded)?,
            };
            check::definition(&expr)?;
            let (_, field) = expr.to_field(&decoded)?;
            fields.push(Field::new(&column.name, field.data_type().clone(), field.is_nullable()));
            exprs.push(expr);
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let time = self.time.as_ref().map(|time| self.time_index(time, &schema)).transpose()?;
        let columns = DFSchema::try_from(Arc::clone(&schema))?;
        let watermark = match &self.watermark {
            None => None,
            Some(ast) => {
                let over_columns = session.expression(ast, &columns)?;
                check::definition(&over_columns)?;
                match over_columns.get_type(&columns)? {
                    DataType::Timestamp(..) => {}
                    other => {
                        let error = SqlError::new(Code::BadDefinition, format!("the WATERMARK of \"{}\" is of type {other}", self.name));
                        return Err(error.hint("write an expression that yields a TIMESTAMP, such as ts - INTERVAL '5' SECOND"));
                    }
                }
                let over_decoded = over_columns.transform_up(|expr| match &expr {
                    LogicalExpr::Column(column) => {
                        let at = columns.index_of_column(column)?;
                        Ok(Transformed::yes(exprs[at].clone()))
                    }
                    _ => Ok(Transformed::no(expr)),
                });
                Some(PlannedExpr::plan(&session, &over_decoded?.data, &decoded)? as Arc<dyn Expr>)
            }
        };
        // A table without a WATERMARK goes by when its records were written.
        let record_time = if !self.is_table || self.time.is_some() { None } else { self.decoded.index_of(RECORD_TIME).ok() };
        let planned = exprs.iter().map(|expr| PlannedExpr::plan(&session, expr, &decoded)).collect::<DfResult<Vec<_>>>()?;
        let mut rule =
            TimeRule { time: time.map(|time| Arc::clone(&planned[time]) as Arc<dyn Expr>), watermark, max_future_ms: self.max_future_ms };
        if record_time.is_some() {
            let column = LogicalExpr::Column(datafusion::common::Column::new_unqualified(RECORD_TIME));
            let column: Arc<dyn Expr> = PlannedExpr::plan(&session, &column, &decoded)?;
            (rule.time, rule.watermark) = (Some(Arc::clone(&column)), Some(column));
        }
        let index = |name: &String| schema.index_of(name).ok();
        Ok(Shape { key: self.key.as_ref().and_then(index), schema: Arc::clone(&schema), time, rule, planned })
    }

    fn time_index(&self, time: &str, schema: &SchemaRef) -> Result<usize, SqlError> {
        let names = schema.fields().iter().map(|f| f.name().as_str());
        let at = schema.index_of(time).map_err(|_| SqlError::no_such("column", time, names))?;
        match schema.field(at).data_type() {
            DataType::Timestamp(..) => Ok(at),
            other => {
                let error =
                    SqlError::new(Code::BadDefinition, format!("the event time \"{time}\" of \"{}\" is of type {other}", self.name));
                Err(error.hint("declare it TIMESTAMP(3), or compute it: et AS to_timestamp_millis(epoch_ms)"))
            }
        }
    }
}

/// A [`Source`] with everything typed and planned.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The columns a query can name.
    pub schema: SchemaRef,
    /// Which of them is the key.
    pub key: Option<usize>,
    /// Which of them is the event time.
    pub time: Option<usize>,
    /// How the stream tells time, over decoded rows.
    pub rule: TimeRule,
    /// Each column over decoded rows.
    planned: Vec<Arc<PlannedExpr>>,
}

impl Shape {
    /// Every column over decoded rows, and whether they are the decoded rows as they are.
    pub(in crate::sql) fn all_columns(&self, decoded: &Schema) -> (Vec<Arc<dyn Expr>>, bool) {
        self.columns(&(0..self.planned.len()).collect::<Vec<_>>(), decoded)
    }

    /// The columns of these indexes over decoded rows, and whether they are the decoded rows as they are.
    pub(super) fn columns(&self, of: &[usize], decoded: &Schema) -> (Vec<Arc<dyn Expr>>, bool) {
        let planned: Vec<&Arc<PlannedExpr>> = of.iter().map(|i| &self.planned[*i]).collect();
        let as_is = planned.len() == decoded.fields().len() && planned.iter().enumerate().all(|(i, expr)| expr.column() == Some(i));
        (planned.into_iter().map(|expr| Arc::clone(expr) as Arc<dyn Expr>).collect(), as_is)
    }

    /// What DataFusion needs to plan a query that names this source; nothing can be read from it.
    pub fn table(&self) -> DfResult<Arc<dyn TableProvider>> {
        Ok(Arc::new(StreamingTable::try_new(Arc::clone(&self.schema), Vec::new())?))
    }
}
