//! SELECT: a batch query over what relations hold after one epoch.
//!
//! ```text
//!   names that the query reads ──► content of one epoch, from what is published or from the pipeline's task ──► DataFusion
//!                                                                       a plan that was made before, or a new one ──┘
//! ```
//! **In**: a query, and the snapshot of the open transaction if there is one. **Out**: rows, and the epoch they belong to. **Errors**: what
//! the query names does not exist or cannot be read, or it fails while it runs.

use super::Session;
use super::bound::BoundValue;
use super::contents::{BatchContents, NamesOnly};
use crate::catalog::Catalog;
use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::{Resolved, Resolver};
use crate::error::{EngineError, Result};
use crate::notice::LateNotices;
use crate::pipeline::command::Command;
use crate::pipeline::snapshot::{Content, Snapshot, SnapshotRequest};
use crate::result::{Output, Rows, StatementResult};
use datafusion::common::ScalarValue;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::execute_stream;
use datafusion::prelude::DataFrame;
use millstream_plan::process::ProcessNode;
use millstream_sql::Statement;
use millstream_sql::statement::ExplainMode;
use millstream_types::Epoch;
use sqlparser::ast::Query;
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Queries over no more rows than these are computed in one partition.
const SMALL_ROWS: usize = 64 * 1024;

impl Session {
    /// The session that statements which read are planned with.
    fn reading(&self) -> Result<Cow<'_, SessionState>> {
        let shared = self.engine.shared();
        match self.limits().memory {
            None => Ok(Cow::Borrowed(&shared.reading)),
            Some(limit) => shared.memory.charge_statement(shared.reading.clone(), limit).map(Cow::Owned),
        }
    }

    /// Plans a batch query over one consistent snapshot.
    pub(crate) async fn plan(&self, query: &Query) -> Result<Resolved> {
        self.plan_at(query).await.map(|(resolved, _)| resolved)
    }

    /// As [`Session::plan`], with the epoch of the snapshot.
    pub(super) async fn plan_at(&self, query: &Query) -> Result<(Resolved, Epoch)> {
        let shared = self.engine.shared();
        let (catalog, snapshot) = self.snapshot_for(query).await?;
        let contents = BatchContents { shared, snapshot: &snapshot };
        let reading = self.reading()?;
        let resolved = Resolver { catalog: &catalog, base: &reading, contents: &contents }.plan(query).await?;
        refuse_process(&resolved)?;
        let mut resolved = self.started_now(resolved);
        if is_small(&resolved, &catalog, &snapshot) {
            resolved.state.config_mut().options_mut().execution.target_partitions = 1;
        }
        Ok((resolved, snapshot.epoch))
    }

    /// The catalog and the content that a query sees: those of the open transaction, or of the newest epoch.
    async fn snapshot_for(&self, query: &Query) -> Result<(Arc<Catalog>, Arc<Snapshot>)> {
        if let Some(pinned) = self.pinned() {
            return Ok(pinned);
        }
        let shared = self.engine.shared();
        let catalog = shared.catalog.read().clone();
        let reads = Resolver { catalog: &catalog, base: &shared.base, contents: &NamesOnly { shared } }.reads(query)?;
        let snapshot = match reads.system.is_empty() {
            true => self.snapshot_of(&catalog, &reads.objects).await?,
            false => self.taken(SnapshotRequest { names: reads.objects, figures: true }).await?,
        };
        Ok((catalog, snapshot))
    }

    /// The content of these objects after the newest epoch.
    async fn snapshot_of(&self, catalog: &Catalog, names: &BTreeSet<String>) -> Result<Arc<Snapshot>> {
        match self.engine.shared().published.find(catalog, names) {
            Some(snapshot) => Ok(snapshot),
            None => self.taken(SnapshotRequest { names: names.clone(), figures: false }).await,
        }
    }

    async fn taken(&self, request: SnapshotRequest) -> Result<Arc<Snapshot>> {
        self.engine.request(|answer| Command::Snapshot { request, answer }).await.map(Arc::new)
    }

    /// Fixes what `now()` is: the clock, which never lies before that of the newest epoch.
    fn started_now(&self, mut resolved: Resolved) -> Resolved {
        let shared = self.engine.shared();
        let now = shared.clock.now().max(shared.epoch_clock.time());
        let start = arrow::temporal_conversions::timestamp_us_to_datetime(now.0).map(|time| time.and_utc());
        resolved.state.execution_props_mut().query_execution_start_time = start;
        resolved
    }

    /// Carries out a query with these values for its parameters, where statements that read run.
    pub(super) async fn select(&self, query: &Query, values: &[BoundValue]) -> Result<StatementResult> {
        let (session, query, values) = (self.clone(), query.clone(), values.to_vec());
        self.engine.readers().statement(async move { session.select_here(query, &values).await }).await
    }

    async fn select_here(&self, mut query: Query, values: &[BoundValue]) -> Result<StatementResult> {
        let late = LateNotices::default();
        let selected = |rows: SendableRecordBatchStream, epoch| {
            let output = Output::Rows(Rows::new(rows).at_most(self.limits().rows).telling(late.clone()));
            StatementResult { tag: "SELECT".into(), notices: Vec::new(), epoch: Some(epoch), output }
        };
        if let Some((rows, epoch)) = self.rows_of_kept(&query, values).await? {
            return Ok(selected(rows, epoch));
        }
        millstream_sql::parameters::replace(&mut query, &mut |index| values.get(index).map(|value| value.literal.clone()))?;
        let (mut resolved, epoch) = self.plan_at(&query).await?;
        resolved.state.config_mut().set_extension(Arc::new(late.clone()));
        let plan = resolved.state.create_physical_plan(&resolved.plan).await.map_err(|error| EngineError::in_query(error, &query))?;
        let rows = execute_stream(plan, task(&resolved.state, Arc::clone(resolved.state.runtime_env())));
        Ok(selected(rows.map_err(|error| EngineError::in_query(error, &query))?, epoch))
    }

    /// The rows of a query whose plan is kept, and the epoch that they are of; `None` when it has to be planned.
    async fn rows_of_kept(&self, query: &Query, values: &[BoundValue]) -> Result<Option<(SendableRecordBatchStream, Epoch)>> {
        if self.in_transaction() {
            return Ok(None);
        }
        let Some(scalars) = values.iter().map(BoundValue::scalar).collect::<Option<Vec<ScalarValue>>>() else { return Ok(None) };
        let shared = self.engine.shared();
        let catalog = shared.catalog.read().clone();
        let types = values.iter().map(|value| value.data_type.clone()).collect();
        let Some(kept) = self.kept_plan(&catalog, query, types).await else { return Ok(None) };
        let snapshot = self.snapshot_of(&catalog, &kept.reads).await?;
        let in_query = |error| EngineError::in_query(error, query);
        let plan = kept.with_values(scalars).map_err(in_query)?;
        let mut state = shared.executing.clone();
        let rows = kept.reads.iter().filter_map(|name| snapshot.relations.get(name)).map(Content::rows).sum::<Option<usize>>();
        if rows.is_some_and(|rows| rows <= SMALL_ROWS) {
            state.config_mut().options_mut().execution.target_partitions = 1;
        }
        let epoch = snapshot.epoch;
        state.config_mut().set_extension(snapshot);
        let plan = state.query_planner().create_physical_plan(&plan, &state).await.map_err(in_query)?;
        let runtime = match self.limits().memory {
            None => Arc::clone(shared.reading.runtime_env()),
            Some(limit) => shared.memory.statement_runtime(shared.reading.runtime_env(), limit)?,
        };
        Ok(Some((execute_stream(plan, task(&state, runtime)).map_err(in_query)?, epoch)))
    }

    pub(super) async fn explain_batch(&self, mode: ExplainMode, statement: Statement) -> Result<StatementResult> {
        let session = self.clone();
        self.engine.readers().statement(async move { session.explain_here(mode, &statement).await }).await
    }

    async fn explain_here(&self, mode: ExplainMode, statement: &Statement) -> Result<StatementResult> {
        let Some(query) = statement.query() else {
            return Err(EngineError::invalid(
                format!("EXPLAIN explains queries, not: {statement}"),
                "EXPLAIN INCREMENTAL explains statements that make queries.",
            ));
        };
        let resolved = self.plan(query).await?;
        let frame = DataFrame::new(resolved.state, resolved.plan).explain(mode == ExplainMode::Verbose, mode == ExplainMode::Analyze)?;
        let output = Output::Rows(Rows::new(frame.execute_stream().await?));
        Ok(StatementResult { tag: "EXPLAIN".into(), notices: Vec::new(), epoch: None, output })
    }
}

/// Whether a query reads so few rows that dividing them among cores would take longer than reading them.
fn is_small(resolved: &Resolved, catalog: &Catalog, snapshot: &Snapshot) -> bool {
    let rows_of = |name: &String| match snapshot.relations.get(name) {
        Some(content) => content.rows(),
        None => catalog.get(name).filter(|object| matches!(object.kind, ObjectKind::View(_))).map(|_| 0),
    };
    let rows = resolved.reads.iter().map(rows_of).sum::<Option<usize>>();
    rows.is_some_and(|rows| rows <= SMALL_ROWS) && !resolved.reads.is_empty() && resolved.files.is_empty()
}

/// What a plan is carried out in. Functions are looked up by name only where plans are read from bytes; hundreds of them are not copied for
/// every statement.
fn task(state: &SessionState, runtime: Arc<RuntimeEnv>) -> Arc<TaskContext> {
    let (id, config) = (state.session_id().to_string(), state.config().clone());
    Arc::new(TaskContext::new(None, id, config, HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new(), runtime))
}

/// A stateful function has no batch form: what it returns depends on epochs, which a SELECT does not have.
fn refuse_process(resolved: &Resolved) -> Result<()> {
    match ProcessNode::find(&resolved.plan)? {
        None => Ok(()),
        Some(function) => Err(EngineError::invalid(
            format!("PROCESS({function}, ..) has no batch form: what a stateful function returns depends on how rows come"),
            "CREATE MATERIALIZED VIEW v AS SELECT .. FROM PROCESS(..) and read v, or follow it with EMIT CHANGES.",
        )),
    }
}
