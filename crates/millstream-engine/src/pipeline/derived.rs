//! Derived streams: a projection, filter or UNNEST over one stream that runs at the source edge, so that event time can be declared
//! after parsing.
//!
//! ```text
//!   base's accepted rows of the epoch ─► the query ─► the derived stream's own edge (late? bad?) ─► its accepted rows
//! ```
//! **State**: none of its own; the edge keeps the watermark. A derived stream that is made over a stream with history begins with
//! it: every earlier epoch is judged as if the stream had been there. Rows that are refused then are counted; they do not go to the
//! dead letters a second time, since their base has them.

use super::accepted::AcceptedRows;
use super::query::{epoch_input, renamed};
use super::record::HistoryEntry;
use super::retained::Retained;
use super::{Pipeline, StreamRuntime};
use crate::catalog::object::{QueryForm, StreamShape};
use crate::edge::{Accepted, Edge, EdgeEpoch};
use crate::error::{EngineError, Result};
use datafusion::execution::SessionState;
use millstream_connectors::source::SourceBatch;
use millstream_dataflow::{Dataflow, DataflowContext};
use millstream_plan::graph::{Graph, Op};
use millstream_types::{Delta, EventTime};
use sqlparser::ast::Query;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A derived stream's query, planned once.
#[derive(Debug, Clone)]
pub struct DerivedPlan {
    base: String,
    graph: Arc<Graph>,
    state: Arc<SessionState>,
}

/// A derived stream's query at work.
#[derive(Debug)]
pub struct Derivation {
    base: String,
    dataflow: Dataflow,
}

impl DerivedPlan {
    /// The stream it reads.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its operators, new.
    ///
    /// # Errors
    /// When an expression does not compile.
    pub fn start(&self) -> Result<Derivation> {
        let context = DataflowContext::new(self.state.as_ref().clone());
        Ok(Derivation { base: self.base.clone(), dataflow: Dataflow::new(self.graph.as_ref().clone(), context)? })
    }
}

impl Derivation {
    /// Its operators.
    pub fn dataflow(&self) -> &Dataflow {
        &self.dataflow
    }

    /// The columns it reads of its base.
    pub fn columns(&self) -> BTreeSet<String> {
        self.dataflow.input_columns().remove(&self.base).unwrap_or_default().into_iter().collect()
    }

    /// What the edge of the derived stream accepts of its base's rows.
    ///
    /// # Errors
    /// When an expression fails, or a row does not fit a stream whose policy is `fail`.
    pub async fn derive(&mut self, edge: &mut Edge, base: &Delta, epoch: EdgeEpoch) -> Result<Accepted> {
        let input = epoch_input(epoch.epoch, epoch.clock, [(self.base.clone(), base.clone())].into(), &BTreeMap::new());
        let rows = self.dataflow.step(&input).await?;
        let mut accepted = Accepted::default();
        let mut first_row = 0;
        for part in rows {
            let batch = renamed(part.expanded()?, &edge.decode_schema())?;
            let count = batch.num_rows() as u64;
            let rows = SourceBatch {
                batch,
                sequence: epoch.epoch.0,
                rows: None,
                first_row,
                bad: Vec::new(),
                places: None,
                bytes: 0,
                event_times: None,
            };
            first_row += count;
            edge.accept("", rows, epoch, &mut accepted)?;
        }
        Ok(accepted)
    }
}

impl Pipeline {
    /// Plans the query of a derived stream.
    pub(super) async fn plan_derived(&mut self, name: &str, query: &Query) -> Result<(DerivedPlan, arrow::datatypes::SchemaRef)> {
        let planned = self.plan_continuous(query, &[], name, QueryForm::default()).await?;
        let mut reads = planned.reads.iter();
        let (Some(base), None) = (reads.next().cloned(), reads.next()) else {
            return Err(EngineError::invalid(format!("derived stream \"{name}\" must read exactly one stream"), ""));
        };
        let nodes = &planned.graph.nodes;
        if nodes.iter().any(|node| node.properties.clock_dependent) {
            return Err(EngineError::invalid(
                format!("derived stream \"{name}\" depends on the present time, so that its rows could not be derived again"),
                "Read the hidden column _epoch_time of its source, or add a column AS PROCTIME() to it.",
            ));
        }
        let linear = nodes.iter().all(|node| matches!(node.op, Op::Input { .. } | Op::Map { .. } | Op::Unnest { .. }));
        if !linear || !self.catalog.stream(&base).is_ok_and(|base| base.shape == StreamShape::Append) {
            return Err(EngineError::invalid(
                format!("derived stream \"{name}\" must be a projection, filter or UNNEST over one append-only stream"),
                "Use CREATE VIEW or CREATE MATERIALIZED VIEW for anything else.",
            ));
        }
        Ok((DerivedPlan { base, graph: planned.graph, state: Arc::new(planned.state) }, planned.schema))
    }

    /// Begins a derived stream with what its base has accepted before.
    pub(super) async fn derive_history(&mut self, name: &str) -> Result<()> {
        let Some(base) = self.streams.get(name).and_then(|runtime| runtime.derived.as_ref()).map(|plan| plan.base.clone()) else {
            return Ok(());
        };
        let ended = self.streams.get(&base).is_some_and(|base| base.watermark.1);
        let Some(rows) = self.accepted_rows(&base) else { return Ok(()) };
        let (Some(sources), Some(runtime)) = (&mut self.sources, self.streams.get_mut(name)) else { return Ok(()) };
        let Some(stream) = sources.streams.get_mut(name) else { return Ok(()) };
        let columns = stream.derived.as_ref().map(Derivation::columns);
        let mut base_rows = rows.cursor(columns, &self.shared.base)?;
        while let Some((epoch, clock, delta)) = base_rows.next().await? {
            let epoch = EdgeEpoch { epoch, clock, watermark_start: stream.edge.watermark.current };
            let derived = stream.derive(&delta, false, epoch).await?;
            let totals = &mut runtime.totals;
            totals.rows_in += derived.commit.rows_in;
            totals.rows_used += derived.commit.rows_used;
            totals.rows_bad += derived.commit.rows_bad;
            totals.rows_late += derived.commit.rows_late;
            if !runtime.replayable {
                let Accepted { delta: rows, versions, .. } = derived.accepted;
                runtime.retain(Retained { epoch: epoch.epoch, clock, rows, versions });
            } else if derived.commit.rows_in > 0 {
                let (epoch, watermark_start) = (epoch.epoch, epoch.watermark_start);
                runtime.history.push(Arc::new(HistoryEntry { epoch, clock, watermark_start, ranges: Vec::new(), columns: None }));
            }
        }
        if ended {
            stream.ended = true;
            stream.edge.watermark.closed = true;
            stream.edge.watermark.current = EventTime::MAX;
        }
        runtime.watermark = (stream.edge.watermark.current, stream.edge.watermark.closed);
        Ok(())
    }

    /// The accepted rows of a stream through the newest epoch.
    pub(super) fn accepted_rows(&self, name: &str) -> Option<AcceptedRows> {
        let runtime = self.streams.get(name)?;
        let base = match &runtime.derived {
            Some(plan) if runtime.replayable => Some(self.accepted_rows(&plan.base)?),
            _ => None,
        };
        Some(AcceptedRows::of(runtime, base))
    }

    /// No query has drained the stream yet, so that SELECT reads its source afresh.
    pub(super) fn is_untouched(&self, runtime: &StreamRuntime) -> bool {
        let drained = self.running || !self.queries.is_empty() || !self.live.is_empty() || !runtime.history.is_empty();
        let base = runtime.derived.as_ref().and_then(|plan| self.streams.get(&plan.base));
        !drained && runtime.replayable && base.is_none_or(|base| self.is_untouched(base))
    }
}
