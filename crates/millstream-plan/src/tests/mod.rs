//! Planned queries as text.

mod aggregates;
mod functions;
mod graphs;
mod joins;
mod on_window_close;
mod plans;
mod recursion;
mod session_window;
mod temporal_filter;
mod top_n;

use crate::functions::{EpochClock, register};
use crate::optimize::{optimize, session_state_for_continuous};
use crate::relation::{Relation, RelationKind, Relations};
use crate::translate::{EmitClause, PlanOptions, Planned, plan};
use crate::{error::Result, explain};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::TableReference;
use datafusion::datasource::MemTable;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_types::EventTime;
use std::sync::Arc;

const TUMBLE: &str = "(SELECT *, window_end(window_start, INTERVAL '10 seconds') AS window_end
    FROM (SELECT *, tumble_start(ts, INTERVAL '10 seconds') AS window_start FROM bids))";
const HOP: &str = "(SELECT *, window_end(window_start, INTERVAL '10 seconds') AS window_end
    FROM (SELECT *, unnest(hop_starts(ts, INTERVAL '5 seconds', INTERVAL '10 seconds')) AS window_start FROM bids))";
const ROW_NUMBER: &str = "SELECT * FROM (SELECT auction, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn
    FROM bids) WHERE rn <= 3";
const CLOSURE: &str = "WITH RECURSIVE r AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM r JOIN edges e ON r.b = e.a)
    SELECT a, b FROM r";
const SESSION: &str = "(SELECT *, session_start(ts, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY ts) AS window_start,
    session_end(ts, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY ts) AS window_end FROM bids)";

/// `bids(auction, bidder, price, ts, _epoch, _epoch_time)` with a watermark on `ts`; `clicks(page, at)` without; table
/// `stock(item, amount)`; at-rest table `items(id, name)`; `edges(a, b)`.
struct Catalog;

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), *name != "ts")).collect::<Vec<_>>()))
}

const NAMES: [&str; 5] = ["bids", "clicks", "stock", "items", "edges"];

impl Relations for Catalog {
    fn relation(&self, table: &TableReference) -> Option<Relation> {
        use DataType::{Int64, Utf8View};
        let kind = |kind, columns: &[(&str, DataType)]| Relation::new(table.table(), kind, schema(columns));
        Some(match table.table() {
            "bids" => Relation {
                event_time: Some("ts".into()),
                epoch_column: Some("_epoch".into()),
                clock_columns: vec!["_epoch_time".into()],
                ..kind(
                    RelationKind::Stream,
                    &[
                        ("auction", Int64),
                        ("bidder", Utf8View),
                        ("price", Int64),
                        ("ts", time()),
                        ("_epoch", Int64),
                        ("_epoch_time", time()),
                    ],
                )
            },
            "clicks" => kind(RelationKind::Stream, &[("page", Utf8View), ("at", time())]),
            "stock" => Relation { keys: vec![vec!["item".into()]], ..kind(RelationKind::Table, &[("item", Int64), ("amount", Int64)]) },
            "items" => kind(RelationKind::AtRest, &[("id", Int64), ("name", Utf8View)]),
            "edges" => kind(RelationKind::Stream, &[("a", Int64), ("b", Int64)]),
            _ => return None,
        })
    }
}

fn state() -> SessionState {
    let config = SessionConfig::new().with_target_partitions(1);
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    register(&mut state, EpochClock::new(EventTime(0))).unwrap();
    state
}

/// The optimized plan of a query over the catalog.
async fn optimized(sql: &str) -> Result<(LogicalPlan, SessionState)> {
    let context = SessionContext::new_with_state(session_state_for_continuous(&state()));
    for name in NAMES {
        let schema = Catalog.relation(&TableReference::bare(name)).unwrap().schema;
        context.register_table(name, Arc::new(MemTable::try_new(schema, vec![vec![]])?))?;
    }
    // The context's own state() would set a start time and fold now().
    let state = context.state_ref().read().clone();
    let plan = state.create_logical_plan(sql).await?;
    Ok((optimize(&plan, &state)?, session_state_for_continuous(&state)))
}

async fn planned(sql: &str, emit: EmitClause) -> Result<Planned> {
    let (optimized, state) = optimized(sql).await?;
    plan(&optimized, &Catalog, &state, &PlanOptions { emit, ..PlanOptions::default() })
}

/// `EXPLAIN INCREMENTAL` of a query.
async fn explained(sql: &str) -> String {
    explain::explain(&planned(sql, EmitClause::None).await.unwrap().graph)
}

/// The same with `EMIT ON WINDOW CLOSE`.
async fn explained_final(sql: &str) -> String {
    explain::explain(&planned(sql, EmitClause::OnWindowClose).await.unwrap().graph)
}
