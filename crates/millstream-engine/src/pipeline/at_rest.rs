//! At-rest tables and files in continuous queries: what is pinned, and when another version takes its place.
//!
//! | `refresh` | what a continuous query sees |
//! | --- | --- |
//! | `static` (default) | the content at the time it was first read, until `REFRESH TABLE` |
//! | an interval | the content as it was read at most an interval before, beside the epochs (see `reload`); rows already emitted stay as they are |
//! | `every epoch` | the content at each epoch; rows already emitted stay as they are |
//! | `track` | the content as a changing table: a difference is a change that corrects earlier results |
//!
//! A pinned version is stored in the state directory before its first use, and the commit record of the epoch that first uses it names
//! it, so that recovery joins every epoch with the version it saw. To exchange a version, the query is planned again over the new
//! one and takes over the state of its operators; only the static side of joins is loaded anew. A tracked table is kept like a table of
//! inserted rows, and its differences travel in commit records like theirs. A stored version goes with the checkpoints and the part of
//! the log that name it.

use super::{Pipeline, TableState};
use crate::catalog::object::{ExternalTableDef, ObjectKind, QueryForm, Refresh, TableDef};
use crate::catalog::resolve::Resolved;
use crate::error::{EngineError, Result};
use crate::guard::guarded;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;
use millstream_dataflow::Dataflow;
use millstream_plan::graph::{Graph, NodeId, Op};
use millstream_state::BlobStore;
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime, delta};
use sqlparser::ast::Query;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// How often the content of a tracked table is compared with what is known.
const TRACK_INTERVAL: Duration = Duration::from_secs(60);

/// Which stored contents the newest two checkpoints and the log after the older one name; the others are removed.
#[derive(Debug, Default)]
pub(super) struct NamedBlobs {
    /// Of commit records: epoch and hash.
    logged: Vec<(Epoch, String)>,
    /// Of the newest checkpoint.
    pinned: HashSet<String>,
    /// What is in the store, as far as known.
    kept: HashSet<String>,
}

impl NamedBlobs {
    /// The commit record of an epoch names a content.
    pub(super) fn name(&mut self, epoch: Epoch, hash: &str) {
        self.logged.push((epoch, hash.to_string()));
    }

    /// Recovery begins with a checkpoint.
    pub(super) fn restored(&mut self, pinned: &BTreeMap<String, serde_json::Value>) {
        self.pinned = hashes(pinned);
    }

    /// A checkpoint is durable, `older` is the one before: removes what nobody names any more.
    pub(super) fn checkpointed(&mut self, pinned: &BTreeMap<String, serde_json::Value>, older: Epoch, blobs: &BlobStore) -> Result<()> {
        self.logged.retain(|(epoch, _)| *epoch > older);
        let now = hashes(pinned);
        let logged = self.logged.iter().map(|(_, hash)| hash.clone());
        let kept: HashSet<String> = now.iter().chain(&self.pinned).cloned().chain(logged).collect();
        self.pinned = now;
        if kept != self.kept {
            blobs.retain(&kept)?;
            self.kept = kept;
        }
        Ok(())
    }
}

fn hashes(pinned: &BTreeMap<String, serde_json::Value>) -> HashSet<String> {
    pinned.values().filter_map(|blob| blob["hash"].as_str()).map(str::to_string).collect()
}

impl Pipeline {
    /// Loads the at-rest tables and files of a query that are not loaded yet; continuous queries see one version of them.
    pub(super) async fn pin_tables(&mut self, query: &Query) -> Result<()> {
        let Resolved { reads, files, .. } = self.resolve(query).await?;
        for name in reads {
            let Some(object) = self.catalog.get(&name).cloned() else { continue };
            let ObjectKind::ExternalTable(def) = &object.kind else { continue };
            if !self.pinned.contains_key(&name) && def.refresh != Refresh::Track {
                self.pin(&name, Arc::clone(&def.provider)).await?;
            }
        }
        for path in files {
            // A path has no definition that could be dropped: its content stays as long as a query reads it.
            let read = self.reads_at_rest(&path);
            if self.pinned.contains_key(&path) && (read || self.recovering()) {
                continue;
            }
            self.pinned.remove(&path);
            let provider = self.file_table(&path).await?;
            self.pin(&path, provider).await?;
        }
        Ok(())
    }

    /// Whether a query has the pinned content of an at-rest table or file.
    pub(super) fn reads_at_rest(&self, name: &str) -> bool {
        let queries = self.queries.iter().map(|query| &query.at_rest);
        queries.chain(self.live.iter().map(|live| live.at_rest())).any(|at_rest| at_rest.contains(name))
    }

    /// Loads the content of an at-rest table or file and keeps it, durably where there is a state directory.
    async fn pin(&mut self, name: &str, provider: Arc<dyn TableProvider>) -> Result<()> {
        let (schema, batches) = match self.pinned_content(name)? {
            Some(stored) if self.recovering() || self.catalog.get(name).is_some() => stored,
            _ => {
                let (schema, batches) = self.content(provider).await?;
                self.pin_content(name, &schema, &batches)?;
                (schema, batches)
            }
        };
        self.refreshed.insert(name.to_string(), self.clock);
        self.pinned.insert(name.to_string(), Arc::new(MemTable::try_new(schema, vec![batches])?));
        Ok(())
    }

    async fn content(&self, provider: Arc<dyn TableProvider>) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        content(provider, &self.shared.base).await
    }

    /// Forgets the pinned content of an at-rest table: whoever reads it next loads it again.
    pub(super) fn unpin(&mut self, name: &str) {
        self.stop_reading(name);
        self.pinned.remove(name);
        self.pinned_blobs.remove(name);
        self.refreshed.remove(name);
    }

    /// The rows of files: in recovery as they were pinned, else as they are now.
    pub(super) async fn file_table(&self, path: &str) -> Result<Arc<dyn TableProvider>> {
        if self.recovering()
            && let Some((schema, batches)) = self.pinned_content(path)?
        {
            return Ok(Arc::new(MemTable::try_new(schema, vec![batches])?));
        }
        crate::file_relation::provider(path, &self.shared.base, &self.shared.clock).await
    }

    /// `REFRESH TABLE`: takes the content as it is now. Recovery finds the content in the same record.
    pub(super) async fn refresh_table(&mut self, name: &str) -> Result<()> {
        let object = Arc::clone(self.catalog.require(name)?);
        let ObjectKind::ExternalTable(def) = &object.kind else {
            return Err(EngineError::invalid(
                format!("\"{name}\" is a {} and has nothing to refresh", object.kind.word()),
                "REFRESH TABLE reads the files of a table made by CREATE EXTERNAL TABLE again.",
            ));
        };
        if self.recovering() {
            if !self.reads_at_rest(name) {
                self.pinned.remove(name);
            }
            return Ok(());
        }
        match def.refresh {
            // The next attempt at an epoch compares.
            Refresh::Track => drop(self.refreshed.remove(name)),
            _ if self.reads_at_rest(name) => self.exchange(def).await?,
            _ => self.unpin(name),
        }
        Ok(())
    }

    /// Before an epoch: exchanges the versions of tables whose refresh is due.
    pub(super) async fn refresh_due(&mut self, clock: EventTime) -> Result<()> {
        for def in self.refreshed_tables() {
            if def.refresh == Refresh::EveryEpoch && self.reads_at_rest(&def.name) {
                self.exchange(&def).await?;
                self.refreshed.insert(def.name.clone(), clock);
            }
        }
        if self.manual {
            self.read_versions(clock);
        }
        self.take_versions().await
    }

    pub(super) fn refreshed_tables(&self) -> Vec<Arc<ExternalTableDef>> {
        let tables = self.catalog.objects().iter().filter_map(|object| match &object.kind {
            ObjectKind::ExternalTable(def) if def.refresh != Refresh::Static => Some(Arc::clone(def)),
            _ => None,
        });
        tables.collect()
    }

    /// Puts the present content of a table in the place of the pinned one, if it is another.
    async fn exchange(&mut self, def: &ExternalTableDef) -> Result<()> {
        self.stop_reading(&def.name);
        let (schema, batches) = self.content(Arc::clone(&def.provider)).await?;
        let old = match self.pinned.get(&def.name) {
            Some(pinned) => self.content(Arc::clone(pinned)).await?.1,
            None => Vec::new(),
        };
        if difference(&schema, &old, &batches)?.is_empty() {
            return Ok(());
        }
        self.pin_content(&def.name, &schema, &batches)?;
        self.pinned.insert(def.name.clone(), Arc::new(MemTable::try_new(schema, vec![batches])?));
        self.reload(&def.name).await
    }

    /// In recovery: the version that an epoch used first.
    pub(super) async fn replay_pinned(&mut self, name: &str) -> Result<()> {
        self.pinned.remove(name);
        if !self.reads_at_rest(name) {
            return Ok(());
        }
        let Some((schema, batches)) = self.pinned_content(name)? else { return Ok(()) };
        self.pinned.insert(name.to_string(), Arc::new(MemTable::try_new(schema, vec![batches])?));
        self.reload(name).await
    }

    /// Plans the queries that read a pinned table again and hands them their state.
    pub(super) async fn reload(&mut self, name: &str) -> Result<()> {
        for index in 0..self.queries.len() {
            let query = &self.queries[index];
            if !query.at_rest.contains(name) || query.failed.is_some() {
                continue;
            }
            let def = Arc::clone(&query.def);
            let dataflow = self.planned_dataflow(&def.query, &def.columns, &def.name, def.form).await?;
            self.queries[index].take_over(dataflow, &self.arrangements).await?;
        }
        for index in 0..self.live.len() {
            if self.live[index].at_rest().contains(name) {
                let (query, on_close) = self.live[index].definition();
                let dataflow = self.planned_dataflow(&query, &[], "live query", QueryForm { on_close, state_ttl: None }).await?;
                self.live[index].take_over(dataflow).await?;
            }
        }
        Ok(())
    }

    async fn planned_dataflow(&mut self, query: &Query, columns: &[String], name: &str, form: QueryForm) -> Result<Dataflow> {
        let planned = Box::pin(self.plan_continuous(query, columns, name, form)).await?;
        self.new_dataflow(&planned)
    }

    /// Begins to track a table: its content is that of a table of inserted rows.
    pub(super) async fn track(&mut self, def: &ExternalTableDef) -> Result<()> {
        let (schema, batches) = match self.pinned_content(&def.name)? {
            Some(stored) if self.recovering() => stored,
            _ => {
                let (schema, batches) = self.content(Arc::clone(&def.provider)).await?;
                self.pin_content(&def.name, &schema, &batches)?;
                (schema, batches)
            }
        };
        let mut rows = self.store(&def.name, &schema, false)?;
        rows.apply(&batches.into_iter().filter(|batch| batch.num_rows() > 0).map(DeltaBatch::insertions).collect::<Delta>())?;
        let table = TableDef { name: def.name.clone(), schema, key: Vec::new() };
        self.tables.insert(def.name.clone(), TableState { rows, def: Arc::new(table), changed: self.epoch });
        self.refreshed.insert(def.name.clone(), self.clock);
        Ok(())
    }

    /// Differences of tracked tables that are due to be looked at.
    pub(super) async fn tracked_changes(&mut self, clock: EventTime) -> Result<BTreeMap<String, Delta>> {
        let mut changes = BTreeMap::new();
        for def in self.refreshed_tables().into_iter().filter(|def| def.refresh == Refresh::Track) {
            if self.refreshed.get(&def.name).is_some_and(|last| last.plus(TRACK_INTERVAL) > clock) {
                continue;
            }
            let (schema, new) = self.content(Arc::clone(&def.provider)).await?;
            let Some(table) = self.tables.get_mut(&def.name) else { continue };
            let difference = difference(&schema, &table.rows.snapshot()?, &new)?;
            self.refreshed.insert(def.name.clone(), clock);
            if !difference.is_empty() {
                changes.insert(def.name.clone(), difference);
            }
        }
        Ok(changes)
    }

    /// When a tracked table is to be looked at next.
    pub(super) fn track_due(&self) -> Option<EventTime> {
        let tracked = self.refreshed_tables().into_iter().filter(|def| def.refresh == Refresh::Track);
        tracked.map(|def| self.refreshed.get(&def.name).map_or(EventTime::MIN, |last| last.plus(TRACK_INTERVAL))).min()
    }

    /// Refuses a query in which a table that is refreshed is anything but the static side of a join: rows it brought elsewhere would
    /// stay for ever.
    pub(super) fn check_refreshed(&self, name: &str, graph: &Graph) -> Result<()> {
        let refreshed: BTreeSet<String> =
            self.refreshed_tables().iter().filter(|def| def.refresh != Refresh::Track).map(|def| def.name.clone()).collect();
        for node in &graph.nodes {
            let Op::Constant { tables, .. } = &node.op else { continue };
            if let Some(table) = tables.iter().find(|table| refreshed.contains(*table))
                && !only_static_side(graph, node.id)
            {
                return Err(EngineError::invalid(
                    format!("table \"{table}\" is refreshed, but query \"{name}\" reads it elsewhere than on the static side of a join"),
                    "Join a stream with it (inner, left, EXISTS, IN), or make it with refresh = 'track' or 'static'.",
                ));
            }
        }
        Ok(())
    }
}

/// Whether the rows of a constant go into static sides of joins and nowhere else.
fn only_static_side(graph: &Graph, constant: NodeId) -> bool {
    graph.output != constant
        && graph.nodes.iter().all(|node| {
            node.inputs.iter().enumerate().filter(|(_, input)| **input == constant).all(|(place, _)| match &node.op {
                Op::StaticJoin { .. } => place == 1,
                Op::Map { .. } | Op::Unnest { .. } => only_static_side(graph, node.id),
                _ => false,
            })
        })
}

/// The rows of a table.
pub(super) async fn content(provider: Arc<dyn TableProvider>, base: &SessionState) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let schema = provider.schema();
    let context = SessionContext::new_with_state(base.clone());
    let rows = guarded("reading a table", Box::pin(async { Ok(context.read_table(provider)?.collect().await?) })).await?;
    Ok((schema, rows))
}

/// What makes `new` of `old`.
pub(super) fn difference(schema: &SchemaRef, old: &[RecordBatch], new: &[RecordBatch]) -> Result<Delta> {
    let part = |batch: &RecordBatch| DeltaBatch::insertions(batch.clone());
    let both: Delta =
        old.iter().map(|batch| part(batch).negated()).chain(new.iter().map(part)).filter(|part| part.num_rows() > 0).collect();
    Ok(delta::consolidate(schema, &both)?)
}
