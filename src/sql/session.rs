//! The one place where DataFusion is set up: its options, rules, functions and planners.
//!
//! Owns [`Session`]. Always: one partition (we shard by key ourselves), text is `Utf8`, and `count(DISTINCT x)` is not
//! split into two aggregates. A session is cheap: it shares everything but its tables with all others. Made by
//! `plan` and `batch`, one a statement.

use std::sync::{Arc, LazyLock};

use chrono::{DateTime, Utc};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider, SchemaProvider,
    TableProvider,
};
use datafusion::common::{DFSchema, DFSchemaRef, Result as DfResult};
use datafusion::config::ConfigOptions;
use datafusion::execution::context::ExecutionProps;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::RelationPlanner;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use futures::FutureExt;

use super::analyze::RecogniseWindows;
use super::asof::RecogniseAsOf;
use super::error::{Code, SqlError};
use super::functions;
use super::overflow::strict_constants;
use super::pattern::PatternPlanner;
use super::windows::WindowPlanner;
use super::workspace::Workspace;
use crate::time::Timestamp;

/// Everything sessions share: building it takes a few milliseconds, copying it almost nothing.
static BASE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut options = ConfigOptions::default();
    options.execution.target_partitions = 1;
    options.sql_parser.map_string_types_to_utf8view = false;
    // A failing rule is a fault to be seen, not to be passed over.
    options.optimizer.skip_failed_rules = false;
    options.catalog.create_default_catalog_and_schema = false;
    let config = SessionConfig::from(options);
    let rules = Optimizer::new().rules.into_iter().filter(|rule| rule.name() != "single_distinct_aggregation_to_group_by").collect();
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_optimizer_rules(rules)
        .with_analyzer_rule(Arc::new(RecogniseAsOf))
        .with_analyzer_rule(Arc::new(RecogniseWindows))
        .build();
    functions::register(&mut state).expect("the names of our functions are not taken");
    let planners: [Arc<dyn RelationPlanner>; 2] = [Arc::new(WindowPlanner), Arc::new(PatternPlanner)];
    for planner in planners {
        state.register_relation_planner(planner).expect("this build of DataFusion takes relation planners");
    }
    state
});

/// DataFusion, ready to plan one statement over some tables.
#[derive(Clone)]
pub struct Session {
    state: SessionState,
}

impl Session {
    /// A session that knows these tables and no others.
    #[must_use]
    pub fn new(tables: impl IntoIterator<Item = (String, Arc<dyn TableProvider>)>) -> Self {
        let schema = Arc::new(MemorySchemaProvider::new());
        for (name, table) in tables {
            schema.register_table(name, table).expect("a schema in memory takes any table");
        }
        let catalog = Arc::new(MemoryCatalogProvider::new());
        let catalogs = Arc::new(MemoryCatalogProviderList::new());
        let names = BASE.config_options().catalog.clone();
        catalog.register_schema(&names.default_schema, schema).expect("a catalogue in memory takes any schema");
        catalogs.register_catalog(names.default_catalog, catalog);
        let state = SessionStateBuilder::new_from_existing(BASE.clone()).with_catalog_list(catalogs).build();
        Self { state }
    }

    /// Whether DataFusion or we have a function of this name.
    #[must_use]
    pub fn knows_function(name: &str) -> bool {
        BASE.scalar_functions().contains_key(name) || !Self::is_scalar(name)
    }

    /// Whether a call of this name, known or not, is none of an aggregate or of a function over rows.
    #[must_use]
    pub fn is_scalar(name: &str) -> bool {
        !(BASE.aggregate_functions().contains_key(name) || BASE.window_functions().contains_key(name))
    }

    /// The same session, in which `now()` is this time.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.state.execution_props_mut().query_execution_start_time = DateTime::<Utc>::from_timestamp_millis(now.millis());
        self
    }

    /// The same session, whose plans run in this workspace.
    #[must_use]
    pub fn within(self, workspace: &Workspace) -> Self {
        Self { state: SessionStateBuilder::new_from_existing(self.state).with_runtime_env(workspace.runtime()).build() }
    }

    /// What expressions are planned with.
    #[must_use]
    pub fn props(&self) -> &ExecutionProps {
        self.state.execution_props()
    }

    /// DataFusion's own object.
    #[must_use]
    pub const fn state(&self) -> &SessionState {
        &self.state
    }

    /// A context that runs plans of this session.
    #[must_use]
    pub fn context(&self) -> SessionContext {
        SessionContext::new_with_state(self.state.clone())
    }

    /// The logical plan of a query, as written: not yet analysed, nothing folded; see [`super::overflow`].
    pub fn logical(&self, query: &ast::Query) -> Result<LogicalPlan, SqlError> {
        let statement = Statement::Statement(Box::new(ast::Statement::Query(Box::new(query.clone()))));
        // Our catalogue is in memory: nothing in there ever waits.
        let planned = self.state.statement_to_plan(statement).now_or_never();
        let planned = planned.ok_or_else(|| SqlError::new(Code::Internal, "planning waited for something"))?;
        Ok(strict_constants(planned?)?)
    }

    /// An expression over the columns of `schema`, types coerced and constants folded.
    pub fn expression(&self, expr: &ast::Expr, schema: &DFSchema) -> Result<Expr, SqlError> {
        let named = ast::ExprWithAlias { expr: expr.clone(), alias: None };
        let logical = self.state.create_logical_expr_from_sql_expr(named, schema)?;
        let schema = Arc::new(schema.clone());
        let context = SimplifyContext::builder().with_schema(Arc::clone(&schema)).build();
        let simplifier = ExprSimplifier::new(context);
        let coerced = simplifier.coerce(logical, &schema)?;
        Ok(simplifier.simplify(coerced)?)
    }

    /// An expression of a plan over the columns of `schema`, its constants folded.
    pub fn folded(&self, expr: Expr, schema: &DFSchemaRef) -> DfResult<Expr> {
        ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(schema)).build()).simplify(expr)
    }

    /// Types coerced, windows recognised, constants folded, projections pushed down.
    pub fn optimize(&self, plan: &LogicalPlan) -> DfResult<LogicalPlan> {
        self.state.optimize(plan)
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}
