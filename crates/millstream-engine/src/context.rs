//! The DataFusion side of the engine: one set of functions and types for continuous and batch queries, and what is adopted from
//! a session that exists already.

use crate::catalog::object::{ExternalTableDef, Object, ObjectKind, Refresh};
use crate::error::Result;
use arrow::datatypes::{DataType, TimeUnit};
use datafusion::config::ConfigOptions;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::optimizer::AnalyzerRule;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast;
use millstream_plan::compile::CheckedArithmetic;
use millstream_plan::first_values::FirstValues;
use millstream_plan::functions::{EpochClock, all_aggregate_functions, all_scalar_functions, all_window_functions};
use millstream_plan::multisets::Multisets;
use millstream_plan::optimize::mended_rules;
use millstream_plan::process::{ProcessPlanner, StatefulFunctions};
use millstream_plan::subquery_values::ExactMembership;
use std::sync::Arc;

/// `TIMESTAMP` is microseconds, everywhere; `TIMESTAMP(0|3|6|9)` are exact.
#[derive(Debug)]
struct MicrosecondTimestamps;

impl TypePlanner for MicrosecondTimestamps {
    fn plan_type(&self, sql_type: &ast::DataType) -> datafusion::error::Result<Option<DataType>> {
        let ast::DataType::Timestamp(precision, zone) = sql_type else {
            return Ok(match sql_type {
                ast::DataType::JSON | ast::DataType::JSONB => Some(DataType::Utf8View),
                _ => None,
            });
        };
        let unit = match precision {
            None | Some(6) => TimeUnit::Microsecond,
            Some(0) => TimeUnit::Second,
            Some(3) => TimeUnit::Millisecond,
            Some(9) => TimeUnit::Nanosecond,
            Some(other) => {
                return datafusion::common::plan_err!("TIMESTAMP({other}) is not supported; choose a precision of 0, 3, 6 or 9");
            }
        };
        let zone = match zone {
            ast::TimezoneInfo::Tz | ast::TimezoneInfo::WithTimeZone => Some(Arc::from("UTC")),
            ast::TimezoneInfo::None | ast::TimezoneInfo::WithoutTimeZone => None,
        };
        Ok(Some(DataType::Timestamp(unit, zone)))
    }
}

/// The tables in the default schema of a session, as objects of the catalog.
///
/// # Errors
/// When a table cannot be looked up.
pub async fn adopted_tables(context: &SessionContext) -> Result<Vec<Object>> {
    let state = context.state();
    let names = &state.config_options().catalog;
    let schema = context.catalog(&names.default_catalog).and_then(|catalog| catalog.schema(&names.default_schema));
    let Some(schema) = schema else { return Ok(Vec::new()) };
    let mut tables = Vec::new();
    let mut table_names = schema.table_names();
    table_names.sort();
    for name in table_names {
        let Some(provider) = schema.table(&name).await? else { continue };
        let sql = format!("-- table {name} of the DataFusion session that the engine was built over");
        let def = ExternalTableDef { name: name.clone(), schema: provider.schema(), refresh: Refresh::Static, adopted: true, provider };
        tables.push(Object { name, sql, kind: ObjectKind::ExternalTable(Arc::new(def)) });
    }
    Ok(tables)
}

/// The session state that all queries of an engine are planned with, batch and continuous.
///
/// # Errors
/// When a function cannot be registered.
pub fn base_state(epoch_clock: &Arc<EpochClock>, adopted: Option<&SessionContext>, functions: StatefulFunctions) -> Result<SessionState> {
    let mut options = ConfigOptions::default();
    options.sql_parser.parse_float_as_decimal = true;
    options.sql_parser.collect_spans = true;
    options.catalog.information_schema = true;
    options.execution.collect_statistics = false;
    options.execution.parquet.pushdown_filters = false;
    let config = SessionConfig::from(options);
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_type_planner(Arc::new(MicrosecondTimestamps))
        .with_relation_planners(vec![Arc::new(ProcessPlanner::new(functions))])
        .with_physical_optimizer_rule(Arc::new(CheckedArithmetic))
        .build();
    let rules = mended_rules(state.optimizers());
    let mut analyzer: Vec<Arc<dyn AnalyzerRule + Send + Sync>> =
        vec![Arc::new(Multisets), Arc::new(FirstValues), Arc::new(ExactMembership)];
    analyzer.extend(state.analyzer().rules.iter().cloned());
    state = SessionStateBuilder::new_from_existing(state).with_analyzer_rules(analyzer).with_optimizer_rules(rules).build();
    datafusion_functions_json::register_all(&mut state)?;
    if let Some(context) = adopted {
        let other = context.state();
        state = SessionStateBuilder::new_from_existing(state)
            .with_runtime_env(Arc::clone(other.runtime_env()))
            .with_table_functions(other.table_functions().clone())
            .build();
        for function in other.scalar_functions().values() {
            datafusion::execution::FunctionRegistry::register_udf(&mut state, Arc::clone(function))?;
        }
        for function in other.aggregate_functions().values() {
            datafusion::execution::FunctionRegistry::register_udaf(&mut state, Arc::clone(function))?;
        }
        for function in other.window_functions().values() {
            datafusion::execution::FunctionRegistry::register_udwf(&mut state, Arc::clone(function))?;
        }
    }
    for function in all_scalar_functions(Arc::clone(epoch_clock)) {
        datafusion::execution::FunctionRegistry::register_udf(&mut state, function)?;
    }
    for function in all_aggregate_functions() {
        datafusion::execution::FunctionRegistry::register_udaf(&mut state, function)?;
    }
    for function in all_window_functions() {
        datafusion::execution::FunctionRegistry::register_udwf(&mut state, function)?;
    }
    Ok(state)
}

/// A session that plans what is optimized already, and carries it out: without functions, so that copying it costs little.
pub fn executing(state: &SessionState) -> SessionState {
    SessionStateBuilder::new()
        .with_config(state.config().clone())
        .with_runtime_env(Arc::clone(state.runtime_env()))
        .with_query_planner(Arc::clone(state.query_planner()))
        .with_physical_optimizer_rules(state.physical_optimizers().to_vec())
        .build()
}
