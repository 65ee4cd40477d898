//! A continuous query at run time: its dataflow, and what its changes feed.

use super::change_history::ChangeHistory;
use super::epoch::{unweighted, weighted_batches};
use super::held::Held;
use super::record::{OperatorCheckpoint, QueryCheckpoint};
use super::resume::QueryFailure;
use crate::catalog::object::QueryDef;
use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_connectors::sink::SinkMode;
use millstream_dataflow::{Dataflow, EpochInput, OperatorState, SharedArrangements, ViewStore};
use millstream_plan::bound::BoundContext;
use millstream_plan::graph::Graph;
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime, delta};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Rows by the name of their segment in a checkpoint.
pub type Segments = Vec<(String, Vec<RecordBatch>)>;

/// Where a query's changes go.
#[derive(Debug)]
pub enum Target {
    /// A materialized view: its rows.
    View(ViewStore),
    /// A sink. In `complete` mode the whole result is kept too.
    Sink {
        /// Name of the sink.
        sink: String,
        /// The whole result, for `complete` mode.
        result: Option<ViewStore>,
    },
}

/// A continuous query at run time.
#[derive(Debug)]
pub struct QueryState {
    /// The definition.
    pub def: Arc<QueryDef>,
    /// The plan, for EXPLAIN and bounds.
    pub graph: Arc<Graph>,
    /// Its operators.
    pub dataflow: Dataflow,
    /// Where its changes go.
    pub target: Target,
    /// Catalog objects it reads.
    pub reads: BTreeSet<String>,
    /// At-rest tables and paths of files it reads, as they were when it was made.
    pub at_rest: BTreeSet<String>,
    /// It has been stepped at least once.
    pub started: bool,
    /// Why it failed, if it did; it is not run any more.
    pub failed: Option<QueryFailure>,
    /// It has an operator that depends on the clock alone and does not know when.
    pub clock_dependent: bool,
    /// What waits for the end of the period of EMIT PERIODIC.
    pub held: Held,
    /// The changes of the newest epochs, of a view.
    pub history: ChangeHistory,
}

impl QueryState {
    /// Runs one epoch: the query's change, with the columns of its definition.
    ///
    /// # Errors
    /// When an operator fails; names the query and the epoch.
    pub async fn step(&mut self, input: &EpochInput) -> Result<Delta> {
        let fail = |source| EngineError::Query { query: self.def.name.clone(), epoch: input.epoch.0, source: Arc::new(source) };
        let changes = self.dataflow.step(input).await.map_err(fail)?;
        self.started = true;
        self.shaped(changes)
    }

    /// Changes with the columns of the definition, consolidated where rows can go.
    ///
    /// # Errors
    /// When a column cannot be cast.
    pub fn shaped(&self, changes: Delta) -> Result<Delta> {
        let changes = changes
            .into_iter()
            .filter(|part| part.num_rows() > 0)
            .map(|part| Ok(part.with_batch(renamed(part.batch.clone(), &self.def.schema)?)))
            .collect::<Result<Delta>>()?;
        if self.graph.output_node().properties.append_only {
            return Ok(changes);
        }
        Ok(delta::consolidate(&self.def.schema, &changes)?)
    }

    /// Goes on with another dataflow of the same query, which gets the state of the present one.
    ///
    /// # Errors
    /// When it is the dataflow of another query.
    pub async fn take_over(&mut self, mut dataflow: Dataflow, arrangements: &SharedArrangements) -> Result<()> {
        dataflow.restore(self.dataflow.checkpoint()?).await?;
        dataflow.share(arrangements)?;
        self.dataflow = dataflow;
        Ok(())
    }

    /// What of an epoch's changes is handed out in it: all, unless EMIT PERIODIC holds them. `ended`: nothing comes after it.
    ///
    /// # Errors
    /// When changes cannot be consolidated.
    pub fn release(&mut self, changes: Delta, clock: EventTime, ended: bool) -> Result<Delta> {
        match self.def.period {
            Some(period) => self.held.release(changes, &self.def.schema, period, (clock, ended)),
            None => Ok(changes),
        }
    }

    /// Takes the change into the query's own result, where it keeps one.
    ///
    /// # Errors
    /// When a row would be taken away that is not there.
    pub fn apply(&mut self, changes: &Delta) -> Result<()> {
        let store = match &mut self.target {
            Target::View(store) | Target::Sink { result: Some(store), .. } => store,
            Target::Sink { result: None, .. } => return Ok(()),
        };
        store.apply(changes).map_err(|source| EngineError::Dataflow(Arc::new(source)))
    }

    /// What the sink gets of an epoch: the changes, or in `complete` mode the whole result if it changed.
    ///
    /// # Errors
    /// When the result cannot be read.
    pub fn sink_changes(&mut self, changes: Delta, mode: SinkMode) -> Result<Delta> {
        if mode != SinkMode::Complete || changes.is_empty() {
            return Ok(changes);
        }
        let Target::Sink { result: Some(store), .. } = &mut self.target else { return Ok(changes) };
        let rows = store.snapshot()?;
        if rows.iter().all(|batch| batch.num_rows() == 0) {
            // An empty list would mean that nothing changed.
            return Ok(vec![DeltaBatch::insertions(RecordBatch::new_empty(Arc::clone(&self.def.schema)))]);
        }
        Ok(rows.iter().cloned().map(DeltaBatch::insertions).collect())
    }

    /// Its state for a checkpoint: facts, and rows by segment name. `written`: the shared rows that the checkpoint has already.
    ///
    /// # Errors
    /// When state cannot be read.
    pub fn checkpoint(&mut self, written: &mut BTreeSet<u64>) -> Result<(QueryCheckpoint, Segments)> {
        let mut segments = Vec::new();
        let mut operators = Vec::new();
        // What an epoch that failed has left behind is no state.
        let broken = self.failed.as_ref().is_some_and(|failure| !failure.intact);
        let states = if broken { Vec::new() } else { self.dataflow.checkpoint_shared(written)? };
        for (index, state) in states.into_iter().enumerate() {
            let mut groups = Vec::new();
            for (group, batches) in state.groups {
                if batches.is_empty() {
                    continue;
                }
                match state.shared.get(&group) {
                    Some(number) => segments.push((shared_segment(*number), batches)),
                    None => {
                        segments.push((format!("query/{}/{index}/{group}", self.def.name), batches));
                        groups.push(group);
                    }
                }
            }
            operators.push(OperatorCheckpoint {
                fingerprint: state.fingerprint,
                ordinal: state.ordinal,
                name: state.name.to_string(),
                format: state.format,
                detail: state.detail,
                groups,
                shared: state.shared,
            });
        }
        if let Target::View(store) | Target::Sink { result: Some(store), .. } = &mut self.target {
            let batches = store.checkpoint()?;
            if !batches.is_empty() {
                segments.push((format!("query/{}/result", self.def.name), batches));
            }
        }
        if !self.held.changes.is_empty() {
            segments.push((format!("query/{}/held", self.def.name), weighted_batches(&self.held.changes)?));
        }
        Ok((QueryCheckpoint { operators, failed: self.failed.clone(), emitted: self.held.emitted }, segments))
    }

    /// Takes over what [`QueryState::checkpoint`] gave; `segment` reads rows by name.
    ///
    /// # Errors
    /// When the state belongs to another plan.
    pub async fn restore(
        &mut self,
        checkpoint: &QueryCheckpoint,
        arrangements: &SharedArrangements,
        mut segment: impl FnMut(&str) -> Result<Vec<RecordBatch>>,
    ) -> Result<()> {
        let mut states = Vec::new();
        for (index, operator) in checkpoint.operators.iter().enumerate() {
            let mut groups = Vec::new();
            for group in &operator.groups {
                groups.push((group.clone(), segment(&format!("query/{}/{index}/{group}", self.def.name))?));
            }
            for (group, number) in operator.shared.iter().filter(|(_, number)| !arrangements.has(**number)) {
                groups.push((group.clone(), segment(&shared_segment(*number))?));
            }
            states.push(OperatorState {
                fingerprint: operator.fingerprint,
                ordinal: operator.ordinal,
                name: operator.name.clone(),
                format: operator.format,
                groups,
                shared: operator.shared.clone(),
                detail: operator.detail.clone(),
            });
        }
        if checkpoint.failed.as_ref().is_none_or(|failure| failure.intact) {
            self.dataflow.restore_shared(states, arrangements).await?;
        }
        if let Target::View(store) | Target::Sink { result: Some(store), .. } = &mut self.target {
            store.restore(&segment(&format!("query/{}/result", self.def.name))?)?;
        }
        self.held.changes = unweighted(segment(&format!("query/{}/held", self.def.name))?)?;
        self.held.emitted = checkpoint.emitted;
        self.started = true;
        self.failed = checkpoint.failed.clone();
        Ok(())
    }
}

/// The segment of rows that several queries share.
fn shared_segment(number: u64) -> String {
    format!("shared/{number}")
}

/// The batch with the schema's names and types; same number of columns, in order.
///
/// # Errors
/// When a column cannot be cast.
pub fn renamed(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let columns =
        batch
            .columns()
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| {
                if column.data_type() == field.data_type() {
                    Ok(Arc::clone(column))
                } else {
                    arrow::compute::cast(column, field.data_type())
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The input of an epoch for a dataflow. `watermarks`: by stream, `W_end` and whether it has ended.
pub fn epoch_input(
    epoch: Epoch,
    clock: EventTime,
    deltas: HashMap<String, Delta>,
    watermarks: &BTreeMap<String, (EventTime, bool)>,
) -> EpochInput {
    let bounds = BoundContext {
        watermarks: watermarks.iter().map(|(name, (watermark, _))| (name.clone(), *watermark)).collect(),
        closed: watermarks.iter().filter(|(_, (_, closed))| *closed).map(|(name, _)| name.clone()).collect(),
        epoch,
        clock,
    };
    EpochInput { epoch, deltas, bounds, clock }
}
