//! Joins with the latest row: of a stream (`ASOF JOIN`), or of a table (`FOR SYSTEM_TIME AS OF`).
//!
//! Always: a table is looked up by its whole primary key, for a version is a key's; what else ON says is asked of the
//! version that was found. A table that lies in other partitions than the stream, or by another key, is read whole by every
//! task. Called by `walk`.

use std::sync::Arc;

use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr as LogicalExpr, ExprSchemable, LogicalPlan, UserDefinedLogicalNodeCore, binary_expr};

use super::flow::JoinStep;
use super::join::{check_types, joined, together};
use super::lineage::{Lineage, column_of};
use super::walk::{Chain, Lowered, Walk, refused};
use crate::sql::asof::AsOfJoin;
use crate::sql::error::{Code, SqlError};
use crate::stream::{AsOfSpec, Expr, TableSide};

/// How much a table may take in every task that reads it whole.
const WHOLE_BYTES: usize = 64 << 20;

impl Walk<'_> {
    /// Lowers a join with the latest row.
    pub(super) fn as_of(&self, join: &AsOfJoin) -> Lowered {
        let left = self.lower(&join.left)?;
        let right = if join.right_time.is_some() { self.lower(&join.right)? } else { self.table(&join.right)? };
        let schemas = [join.left.schema(), join.right.schema()];
        self.check_time(&join.time, schemas[0], &left)?;
        if let Some(time) = &join.right_time {
            self.check_time(time, schemas[1], &right)?;
        }
        let (mut pairs, mut others): (Vec<[LogicalExpr; 2]>, _) = (Vec::new(), join.others.clone());
        for (of_left, of_right) in &join.keys {
            check_types([of_left, of_right], &schemas)?;
            let is_key = join.right_time.is_some() || primary_key_place(of_right, schemas[1], &right).is_some();
            if is_key {
                pairs.push([of_left.clone(), of_right.clone()]);
            } else {
                others.push(binary_expr(of_left.clone(), datafusion::logical_expr::Operator::Eq, of_right.clone()));
            }
        }
        if join.right_time.is_some() && !others.is_empty() {
            return Err(refused(
                &format!("the condition {} in ASOF JOIN", others[0].human_display()),
                "in ON stand equalities: filter the right side in a subquery, or the result in WHERE",
            ));
        }
        let is_together = together([&left, &right], &pairs, &schemas);
        let table = match join.right_time {
            Some(_) => None,
            None => Some(table_side(&pairs, schemas[1], &right, (!is_together).then_some(WHOLE_BYTES))?),
        };
        let mut keys: [Vec<Arc<dyn Expr>>; 2] = [Vec::new(), Vec::new()];
        for pair in &pairs {
            for side in 0..2 {
                keys[side].push(self.expr(&pair[side], schemas[side])?);
            }
        }
        let condition = match conjunction(others) {
            None => None,
            Some(condition) => Some(self.expr(&condition, &Arc::new(schemas[0].join(schemas[1])?))?),
        };
        let ttl_ms = match join.right_time {
            // Of a key's rows the latest is kept for ever where nothing is said.
            Some(_) => {
                let of_right: Vec<LogicalExpr> = pairs.iter().map(|[_, of_right]| of_right.clone()).collect();
                self.ttl_of(&of_right, &[], schemas[1], &right)?
            }
            None => None,
        };
        let spec = AsOfSpec {
            keeps_left: join.keeps_left,
            is_strict: join.is_strict,
            inputs: schemas.map(|schema| Arc::clone(schema.inner())),
            keys,
            condition,
            table,
            ttl_ms,
            schema: Arc::clone(UserDefinedLogicalNodeCore::schema(join).inner()),
        };
        let is_table = join.right_time.is_none();
        let local = is_together || (is_table && left.local);
        let mut columns: Vec<Lineage> =
            left.columns.iter().map(|column| Lineage { placed: column.placed && local, rank: false, ..*column }).collect();
        columns.resize(columns.len() + right.columns.len(), Lineage::default());
        let mut right = right;
        if is_table && !is_together {
            right.inputs.iter_mut().for_each(|input| input.is_whole = true);
            // Its partitions do not divide the tasks.
            right.partitions = left.partitions;
        }
        Ok(joined(left, right, JoinStep::AsOf(spec), local, columns))
    }

    /// A table as the right side of a join: its columns, and nothing that would hide a version.
    fn table(&self, plan: &LogicalPlan) -> Lowered {
        match plan {
            LogicalPlan::SubqueryAlias(alias) => self.table(&alias.input),
            LogicalPlan::Projection(projection) => {
                let chain = self.table(&projection.input)?;
                self.project_over(projection, chain)
            }
            LogicalPlan::TableScan(scan) => {
                let chain = self.scan_any(scan)?;
                if chain.source.primary_key.is_empty() {
                    let error = SqlError::new(
                        Code::NotOnAStream,
                        format!("\"{}\" is a stream, and FOR SYSTEM_TIME AS OF looks into a table", chain.source.name),
                    );
                    return Err(error.hint("write ASOF JOIN .. MATCH_CONDITION (a.ts >= b.ts), or CREATE TABLE with a PRIMARY KEY"));
                }
                Ok(chain)
            }
            _ => Err(refused("FOR SYSTEM_TIME AS OF behind a subquery", "name the table itself, and filter in WHERE")),
        }
    }
}

/// Which column of the table's primary key an expression is.
fn primary_key_place(expr: &LogicalExpr, schema: &DFSchemaRef, table: &Chain) -> Option<usize> {
    let name = schema.field(column_of(expr, schema)?).name();
    table.source.primary_key.iter().position(|key| key == name)
}

fn table_side(pairs: &[[LogicalExpr; 2]], schema: &DFSchemaRef, table: &Chain, most_bytes: Option<usize>) -> Result<TableSide, SqlError> {
    let key = &table.source.primary_key;
    let place =
        |name: &String| pairs.iter().position(|[_, right]| primary_key_place(right, schema, table).is_some_and(|at| key[at] == *name));
    let places: Option<Vec<usize>> = key.iter().map(place).collect();
    let Some(primary_key) = places.filter(|places| places.len() == pairs.len()) else {
        let error = SqlError::new(
            Code::NotOnAStream,
            format!("a table is looked up by its whole PRIMARY KEY, and ON does not compare each of ({}) once", key.join(", ")),
        );
        return Err(error.hint(format!("write ON {}", key.iter().map(|k| format!("s.{k} = t.{k}")).collect::<Vec<_>>().join(" AND "))));
    };
    let key_types = pairs.iter().map(|[_, right]| Ok(right.get_type(schema.as_ref())?)).collect::<Result<_, SqlError>>()?;
    Ok(TableSide { primary_key, key_types, most_bytes })
}
