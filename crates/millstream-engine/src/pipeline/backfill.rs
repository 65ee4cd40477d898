//! Back-fill: a query that is made over streams with history runs over everything accepted before, as one change.

use super::Pipeline;
use super::query::{QueryState, epoch_input};
use crate::catalog::object::{Backfill, stream_of};
use crate::error::{EngineError, Result};
use millstream_plan::graph::Graph;
use millstream_types::{Delta, Epoch, EventTime, delta};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a query needs of the history of the relations it reads.
pub(super) struct Wanted<'q> {
    pub(super) reads: &'q BTreeSet<String>,
    /// The columns that are read of each.
    pub(super) columns: HashMap<String, Vec<String>>,
    /// Those in which rows are looked up as of the epoch before.
    pub(super) looked_up: BTreeSet<String>,
    pub(super) backfill: Backfill,
}

/// The relations in which a query looks rows up as of the epoch before.
pub(super) fn looked_up(graph: &Graph) -> BTreeSet<String> {
    graph.looked_up().into_iter().map(ToString::to_string).collect()
}

impl Pipeline {
    /// Runs a new query over everything accepted so far, as one change. `initial`: what views that are made with it begin with.
    pub(super) async fn backfill(
        &mut self,
        query: &mut QueryState,
        backfill: Backfill,
        initial: &BTreeMap<String, Delta>,
    ) -> Result<Delta> {
        self.statement_clock = Some(self.statement_clock());
        let looked_up = looked_up(&query.graph);
        let wanted = Wanted { reads: &query.reads, columns: query.dataflow.input_columns(), looked_up, backfill };
        let ticks = self.history_of(wanted, initial, &query.def.name).await?;
        self.shared.epoch_clock.set(self.clock.max(self.statement_clock()));
        let watermarks = self.watermarks();
        let mut changes = Delta::new();
        let last = ticks.len().saturating_sub(1);
        for (index, (epoch, clock, deltas)) in ticks.into_iter().enumerate() {
            // Windows close at the end only, so that every row of history finds its window open.
            let none = BTreeMap::new();
            let input = epoch_input(epoch, clock, deltas, if index == last { &watermarks } else { &none });
            changes.extend(query.step(&input).await?);
        }
        if query.graph.output_node().properties.append_only {
            return Ok(changes);
        }
        Ok(delta::consolidate(&query.def.schema, &changes)?)
    }

    /// Everything accepted so far of relations, epoch by epoch; at least one tick.
    pub(super) async fn history_of(
        &mut self,
        wanted: Wanted<'_>,
        initial: &BTreeMap<String, Delta>,
        query: &str,
    ) -> Result<Vec<(Epoch, EventTime, HashMap<String, Delta>)>> {
        let Wanted { reads, mut columns, looked_up, backfill } = wanted;
        let mut ticks: BTreeMap<Epoch, (EventTime, HashMap<String, Delta>)> = BTreeMap::new();
        if backfill != Backfill::None {
            for name in reads {
                if self.catalog.stream(stream_of(name)).is_err() {
                    if let Some(mut rows) = self.snapshot_delta(name)? {
                        rows.extend(initial.get(name).cloned().unwrap_or_default());
                        // The rows of history are looked up in what is there now.
                        let (epoch, clock) =
                            if looked_up.contains(name) { (Epoch::ZERO, EventTime::MIN) } else { (self.epoch, self.clock) };
                        ticks.entry(epoch).or_insert_with(|| (clock, HashMap::new())).1.insert(name.clone(), rows);
                    }
                    continue;
                }
                let columns = columns.remove(name).unwrap_or_default().into_iter().collect();
                for (epoch, clock, rows) in self.stream_history(name, columns, backfill, query).await? {
                    ticks.entry(epoch).or_insert_with(|| (clock, HashMap::new())).1.insert(name.clone(), rows);
                }
            }
        }
        ticks.entry(self.epoch.next()).or_insert_with(|| (self.statement_clock(), HashMap::new()));
        Ok(ticks.into_iter().map(|(epoch, (clock, deltas))| (epoch, clock, deltas)).collect())
    }

    async fn stream_history(
        &self,
        name: &str,
        columns: BTreeSet<String>,
        backfill: Backfill,
        query: &str,
    ) -> Result<Vec<(Epoch, EventTime, Delta)>> {
        let stream = stream_of(name);
        let Some(runtime) = self.streams.get(stream) else { return Ok(Vec::new()) };
        if runtime.retention_cut && backfill == Backfill::All {
            return Err(EngineError::invalid(
                format!("query \"{query}\" cannot count all rows of stream \"{stream}\": the oldest are no longer retained"),
                "Add WITH (backfill = 'retained') or 'none', or raise the stream's retention.",
            ));
        }
        let from = (backfill == Backfill::All).then_some(Epoch::ZERO);
        let Some(mut cursor) = self.accepted_of(name, Some(columns), from)? else { return Ok(Vec::new()) };
        let mut epochs = Vec::new();
        while let Some(epoch) = cursor.next().await? {
            epochs.push(epoch);
        }
        Ok(epochs)
    }
}
