//! One case: tables, changes and queries made from a seed, and the comparison after every epoch.

use super::changes::{Change, Kind, Live, Table};
use super::compare::{self, Cells};
use super::query::{Closing, Grammar, Query};
use super::values::{self, BASE_MICROS};
use crate::support::instance::Instance;
use crate::support::{output, scratch_dir};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::FutureExt;
use millstream::{EngineError, Subscription};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::Duration;

/// How much the clock moves before each epoch: longer than what statements, each an epoch of its own, move it by.
const CLOCK_STEP: Duration = Duration::from_secs(7);

/// What is pushed before an epoch: table and rows.
pub(super) type EpochChanges = Vec<(usize, Vec<Change>)>;

/// A case.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) tables: Vec<Table>,
    pub(super) epochs: Vec<EpochChanges>,
    pub(super) queries: Vec<Query>,
    /// Whether the engine is started anew after an epoch; `None` runs in memory.
    pub(super) restart_after: Option<usize>,
    /// Whether operators are divided as soon as a change has two rows, and into how many shards.
    pub(super) shards: Option<usize>,
}

/// Where a view and its batch answer differ.
#[derive(Clone, Debug)]
pub(super) struct Mismatch {
    pub(super) query: usize,
    pub(super) epoch: usize,
    pub(super) text: String,
}

/// Contents of each view and its batch answer, epoch by epoch.
pub(super) type History = Vec<Vec<(Vec<Cells>, Vec<Cells>)>>;

/// What came of a case.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) history: History,
    /// Joins of two queries shared rows.
    pub(super) shared: bool,
    /// Operators were divided into shards.
    pub(super) divided: bool,
}

impl Case {
    /// The case of a seed.
    pub(super) fn generate(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let tables: Vec<Table> = (0..rng.random_range(1..=3)).map(|index| Table::generate(&mut rng, index)).collect();
        let mut live = vec![Live::default(); tables.len()];
        let mut epochs = Vec::new();
        for epoch in 0..rng.random_range(4..=7) {
            let mut changes = Vec::new();
            for (index, table) in tables.iter().enumerate() {
                if rng.random_ratio(3, 4) {
                    let rows = table.changes(&mut rng, epoch, &live[index]);
                    live[index].apply_epoch(table, &rows);
                    changes.push((index, rows));
                }
            }
            if !changes.is_empty() {
                epochs.push(changes);
            }
        }
        let queries = (0..4)
            .map(|_| {
                let depth = rng.random_range(1..=4);
                Grammar::new(&mut rng, &tables).view(depth)
            })
            .collect();
        let restart_after = rng.random_ratio(1, 4).then(|| rng.random_range(0..epochs.len().max(1)));
        let shards = rng.random_ratio(1, 2).then(|| rng.random_range(2..=4));
        Case { tables, epochs, queries, restart_after, shards }
    }

    fn settings(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.shards.into_iter().flat_map(|shards| [("parallelism", shards), ("parallel_rows", 2)])
    }

    /// Runs the case.
    ///
    /// # Errors
    /// The first difference.
    pub(super) async fn run(&self) -> Result<Ran, Mismatch> {
        let dir = scratch_dir();
        let refused = |query: usize, epoch: usize, text: String| Mismatch { query, epoch, text };
        let state_dir = self.restart_after.map(|_| dir.path().join("state"));
        let mut instance = Instance::start(state_dir.as_deref()).await.map_err(|error| refused(0, 0, error.to_string()))?;
        for (name, value) in self.settings() {
            let set = instance.rows(&format!("SET {name} = '{value}'")).await;
            set.map_err(|error| refused(0, 0, error.to_string()))?;
        }
        for table in &self.tables {
            instance.rows(&table.definition()).await.map_err(|error| refused(0, 0, format!("{error} in {}", table.definition())))?;
        }
        let mut live = vec![Live::default(); self.tables.len()];
        let (mut running, mut lasting, mut twins) = (Vec::new(), Vec::new(), Vec::new());
        for (index, query) in self.queries.iter().enumerate() {
            // What DataFusion cannot answer has no answer to compare with.
            if batch_rows(&self.tables, &live, query, 0, false).await.is_err() {
                continue;
            }
            let statement = format!("CREATE MATERIALIZED VIEW v{index} AS {}", query.sql);
            instance.rows(&statement).await.map_err(|error| refused(index, 0, format!("{error}\n{statement}")))?;
            running.push(index);
            // Groups that nothing touches for so long do not occur, so the same rows must come out.
            let statement = format!("CREATE MATERIALIZED VIEW lasting{index} WITH (state_ttl = '10000 days') AS {}", query.sql);
            match instance.rows(&statement).await {
                Ok(_) => lasting.push(index),
                Err(error) if error.to_string().starts_with("state_ttl") => {}
                Err(error) => return Err(refused(index, 0, format!("{error}\n{statement}"))),
            }
        }
        let mut history: History = vec![Vec::new(); self.queries.len()];
        let mut integral = match running.first() {
            Some(&index) => Some(
                Integral::start(&instance, index, self.queries[index].closes.is_some())
                    .await
                    .map_err(|error| refused(index, 0, error.to_string()))?,
            ),
            None => None,
        };
        for (number, changes) in self.epochs.iter().enumerate() {
            instance.advance(CLOCK_STEP);
            for (table, rows) in changes {
                let table_of = &self.tables[*table];
                live[*table].apply_epoch(table_of, rows);
                let pushed: Vec<_> = rows.iter().map(|change| pushed_row(table_of, change)).collect();
                let batch = values::batch(&table_of.pushed_columns(), &pushed);
                instance.push(&table_of.name, batch).await.map_err(|error| refused(0, number, error.to_string()))?;
            }
            instance.epoch().await.map_err(|error| refused(failed_query(&error.to_string()), number, error.to_string()))?;
            if self.restart_after == Some(number) {
                instance.restart().await.map_err(|error| refused(0, number, format!("restart: {error}")))?;
                // A subscription ends with its engine.
                integral = None;
            }
            if number == self.epochs.len() / 2 {
                for &index in running.iter().filter(|index| may_have_twin(&self.queries[**index])) {
                    let statement =
                        format!("CREATE MATERIALIZED VIEW twin{index} AS SELECT *, 1 AS one FROM ({}) AS q", self.queries[index].sql);
                    instance.rows(&statement).await.map_err(|error| refused(index, number, format!("{error}\n{statement}")))?;
                    twins.push(index);
                }
            }
            for &index in &running {
                let query = &self.queries[index];
                // Errors that depend on the data are no answer either.
                let Ok(expected) = batch_rows(&self.tables, &live, query, number + 1, false).await else { continue };
                let view = format!("SELECT * FROM v{index}");
                let found = instance.rows(&view).await.map_err(|error| refused(index, number, error.to_string()))?;
                let found = compare::cells(&found);
                if !compare::same(&expected, &found) {
                    let difference = output::difference(&compare::lines(&expected), &compare::lines(&found));
                    let text = format!("the view (+) differs from the batch answer (-) after epoch {number}\n{difference}\n{}", query.sql);
                    return Err(refused(index, number, text));
                }
                if lasting.contains(&index) {
                    let view = format!("SELECT * FROM lasting{index}");
                    let found = instance.rows(&view).await.map_err(|error| refused(index, number, error.to_string()))?;
                    let found = compare::cells(&found);
                    if !compare::same(&expected, &found) {
                        let difference = output::difference(&compare::lines(&expected), &compare::lines(&found));
                        let text = format!(
                            "the view with state_ttl (+) differs from the batch answer (-) after epoch {number}\n{difference}\n{}",
                            query.sql
                        );
                        return Err(refused(index, number, text));
                    }
                }
                if twins.contains(&index) {
                    let view = format!("SELECT * FROM twin{index}");
                    let found = instance.rows(&view).await.map_err(|error| refused(index, number, error.to_string()))?;
                    let mut found = compare::cells(&found);
                    found.iter_mut().for_each(|row| drop(row.pop()));
                    if !compare::same(&expected, &found) {
                        let difference = output::difference(&compare::lines(&expected), &compare::lines(&found));
                        let text =
                            format!("the twin (+) differs from the batch answer (-) after epoch {number}\n{difference}\n{}", query.sql);
                        return Err(refused(index, number, text));
                    }
                }
                if let Some(integral) = integral.as_mut().filter(|integral| integral.view == index) {
                    let problem = integral.difference(&found).map_err(|error| refused(index, number, error.to_string()))?;
                    if let Some(difference) = problem {
                        let text = format!(
                            "the sum of all changes (+) differs from the view (-) after epoch {number}\n{difference}\n{}",
                            query.sql
                        );
                        return Err(refused(index, number, text));
                    }
                }
                history[index].push((found, expected));
            }
        }
        let operators = "SELECT 1 FROM millstream.operators WHERE";
        let mut any = Vec::new();
        for condition in ["query LIKE 'twin%' AND shared_with > 0", "shards > 1"] {
            let found = instance.rows(&format!("{operators} {condition}")).await;
            let found = found.map_err(|error| refused(0, self.epochs.len(), error.to_string()))?;
            any.push(found.iter().any(|batch| batch.num_rows() > 0));
        }
        self.end(&mut instance, &live, &running).await?;
        instance.stop().await.map_err(|error| refused(0, self.epochs.len(), error.to_string()))?;
        Ok(Ran { history, shared: any[0], divided: any[1] })
    }

    /// Ends the input: what waited for a watermark comes out.
    async fn end(&self, instance: &mut Instance, live: &[Live], running: &[usize]) -> Result<(), Mismatch> {
        let last = self.epochs.len().saturating_sub(1);
        let refused = |query: usize, text: String| Mismatch { query, epoch: last, text };
        for table in &self.tables {
            instance.engine().memory_source(&table.name).map_err(|error| refused(0, error.to_string()))?.end();
        }
        instance.drain().await.map_err(|error| refused(failed_query(&error.to_string()), error.to_string()))?;
        for &index in running.iter().filter(|index| self.queries[**index].closes.is_some()) {
            let query = &self.queries[index];
            let Ok(expected) = batch_rows(&self.tables, live, query, self.epochs.len(), true).await else { continue };
            let found = instance.rows(&format!("SELECT * FROM v{index}")).await.map_err(|error| refused(index, error.to_string()))?;
            let found = compare::cells(&found);
            if !compare::same(&expected, &found) {
                let difference = output::difference(&compare::lines(&expected), &compare::lines(&found));
                let text = format!("the view (+) differs from the batch answer (-) after the end\n{difference}\n{}", query.sql);
                return Err(refused(index, text));
            }
        }
        Ok(())
    }

    /// The case as a script of `tests/slt`.
    pub(super) fn to_script(&self) -> String {
        let mut script = String::from("# Found by the oracle.\n\n");
        for (name, value) in self.settings() {
            let _ = writeln!(script, "statement ok\nSET {name} = '{value}'\n");
        }
        for table in &self.tables {
            let _ = writeln!(script, "statement ok\n{}\n", table.definition());
        }
        for (index, query) in self.queries.iter().enumerate() {
            let _ = writeln!(script, "statement ok\nCREATE MATERIALIZED VIEW v{index} AS {}\n", query.sql);
        }
        for (number, changes) in self.epochs.iter().enumerate() {
            let _ = writeln!(script, "clock {}s\n", CLOCK_STEP.as_secs());
            for (table, rows) in changes {
                let table = &self.tables[*table];
                let _ = writeln!(script, "push {}", table.name);
                for change in rows {
                    let cells: Vec<String> = pushed_row(table, change).iter().map(values::Value::csv).collect();
                    let _ = writeln!(script, "{}", cells.join(","));
                }
                script.push('\n');
            }
            script += "epoch\n\n";
            if self.restart_after == Some(number) {
                script += "restart\n\n";
            }
        }
        if self.queries.iter().any(|query| query.closes.is_some()) {
            self.tables.iter().for_each(|table| script += &format!("end {}\n\n", table.name));
            script += "drain\n\n";
        }
        for index in 0..self.queries.len() {
            let _ = writeln!(script, "query rowsort\nSELECT * FROM v{index}\n----\n");
        }
        script
    }
}

/// What the changes of a subscription add up to.
struct Integral {
    view: usize,
    /// Rows come once and stay.
    append_only: bool,
    subscription: Subscription,
    rows: BTreeMap<String, i64>,
}

impl Integral {
    async fn start(instance: &Instance, view: usize, append_only: bool) -> Result<Self, EngineError> {
        let subscription = instance.engine().subscribe(&format!("SELECT * FROM v{view}")).await?;
        Ok(Self { view, append_only, subscription, rows: BTreeMap::new() })
    }

    /// Takes what has come, and compares it with the content of the view.
    fn difference(&mut self, view: &[Cells]) -> Result<Option<String>, EngineError> {
        // Without tokio's budget, which makes a channel look empty to a task that has received much without a pause.
        while let Some(Some(change)) = tokio::task::unconstrained(self.subscription.next()).now_or_never() {
            let change = change?;
            for (index, row) in compare::cells(std::slice::from_ref(&change.batch)).into_iter().enumerate() {
                let line = compare::lines(&[row]).remove(0);
                let weight = self.rows.entry(line).or_default();
                *weight += change.weights.value(index);
                if self.append_only && change.weights.value(index) < 0 {
                    return Ok(Some(format!("a final row was taken back: {:?}", self.rows)));
                }
            }
        }
        self.rows.retain(|_, weight| *weight != 0);
        let sum = self.rows.iter().flat_map(|(line, weight)| {
            (0..weight.unsigned_abs()).map(move |_| if *weight < 0 { format!("minus {line}") } else { line.clone() })
        });
        let (sum, view) = (output::sorted(sum.collect()), output::sorted(compare::lines(view)));
        Ok((sum != view).then(|| output::difference(&view, &sum)))
    }
}

/// Whether a query joins somewhere and may be made again half-way. What it looked up in the epoch before, or in versions of a stream,
/// is not there any more.
fn may_have_twin(query: &Query) -> bool {
    query.closes.is_none() && has_join(query) && !query.sql.contains("FOR SYSTEM_TIME")
}

fn has_join(query: &Query) -> bool {
    query.kind.ends_with("join") || query.parts.iter().any(has_join)
}

/// The number in `query "v3" failed`.
fn failed_query(message: &str) -> usize {
    let digits = message.strip_prefix("query \"v").and_then(|rest| rest.split('"').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn pushed_row(table: &Table, change: &Change) -> values::Row {
    let mut row = change.row.clone();
    if table.pushed_columns().len() > row.len() {
        row.push(values::Value::Text(change.op));
    }
    row
}

/// DataFusion without the optimizations that look at rows while a query runs.
fn plain_config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1);
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    config
}

/// The answer of a fresh DataFusion after `steps` steps of the clock. `ended`: all rows are final.
async fn batch_rows(tables: &[Table], live: &[Live], query: &Query, steps: usize, ended: bool) -> datafusion::error::Result<Vec<Cells>> {
    let context = SessionContext::new_with_config(plain_config());
    for (table, live) in tables.iter().zip(live) {
        let schema = values::schema(&table.columns);
        let batch = values::batch(&table.columns, &live.rows);
        context.register_table(table.name.as_str(), Arc::new(MemTable::try_new(schema, vec![vec![batch]])?))?;
        if table.kind == Kind::Versioned {
            let columns = table.change_columns();
            let changes = MemTable::try_new(values::schema(&columns), vec![vec![values::batch(&columns, &live.changes)]])?;
            context.register_table(format!("{}_changes", table.name), Arc::new(changes))?;
        }
    }
    // DataFusion's own clock is that of the machine.
    let now = format!("(CAST('2000-01-01T00:00:00' AS TIMESTAMP) + INTERVAL '{} seconds')", steps as u64 * CLOCK_STEP.as_secs());
    let mut sql = query.batch_sql.replace("now()", &now);
    if let Some(Closing { watermarks, column, inclusive }) = query.closes.as_ref().filter(|_| !ended) {
        let passed = watermarks.iter().map(|(table, seconds)| Some(live[*table].watermark(&tables[*table])? + seconds * 1_000_000));
        sql = match passed.collect::<Option<Vec<i64>>>().and_then(|passed| passed.into_iter().min()) {
            Some(watermark) => {
                let seconds = (watermark - BASE_MICROS) / 1_000_000;
                let bound = format!("CAST('2000-01-01T00:00:00' AS TIMESTAMP) + INTERVAL '{seconds} seconds'");
                let reached = if *inclusive { "<=" } else { "<" };
                format!("SELECT * FROM ({sql}) AS q WHERE {column} {reached} {bound}")
            }
            None => format!("SELECT * FROM ({sql}) AS q WHERE false"),
        };
    }
    Ok(compare::cells(&context.sql(&sql).await?.collect().await?))
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query {}: {}", self.query, self.text)
    }
}
