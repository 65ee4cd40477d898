//! Live queries: `SELECT ... EMIT CHANGES` and subscriptions. They see committed epochs, never enter the durable dataflow, and
//! cost only themselves.

use super::Pipeline;
use super::backfill::{Wanted, looked_up};
use super::query::{epoch_input, renamed};
use crate::catalog::object::{Backfill, QueryForm};
use crate::error::Result;
use crate::subscription::{BUFFER, Change, Subscription};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_dataflow::{Dataflow, DataflowContext};
use millstream_types::{Delta, Epoch, EventTime, Weights, delta};
use sqlparser::ast::Query;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// What to follow.
#[derive(Debug, Clone)]
pub struct LiveRequest {
    /// The query.
    pub query: Box<Query>,
    /// Only final rows.
    pub on_close: bool,
    /// Begin with the rows the query has now.
    pub snapshot: bool,
    /// Send a mark after every epoch.
    pub progress: bool,
    /// End after so many rows.
    pub limit: Option<u64>,
    /// End with this epoch.
    pub up_to: Option<Epoch>,
}

/// A live query.
#[derive(Debug)]
pub struct LiveQuery {
    query: Box<Query>,
    on_close: bool,
    dataflow: Dataflow,
    reads: BTreeSet<String>,
    at_rest: BTreeSet<String>,
    schema: SchemaRef,
    append_only: bool,
    clock_dependent: bool,
    progress: bool,
    up_to: Option<Epoch>,
    sender: mpsc::Sender<Result<Change>>,
}

impl LiveQuery {
    pub(super) fn dataflow(&self) -> &Dataflow {
        &self.dataflow
    }

    /// The query, and whether it gives final rows only.
    pub(super) fn definition(&self) -> (Box<Query>, bool) {
        (self.query.clone(), self.on_close)
    }

    /// Goes on with another dataflow of the same query, which gets the state of the present one.
    pub(super) async fn take_over(&mut self, mut dataflow: Dataflow) -> Result<()> {
        dataflow.restore(self.dataflow.checkpoint()?).await?;
        self.dataflow = dataflow;
        Ok(())
    }

    pub(super) fn at_rest(&self) -> &BTreeSet<String> {
        &self.at_rest
    }

    pub(super) fn clock_dependent(&self) -> bool {
        self.clock_dependent
    }

    fn consolidated(&self, changes: Delta) -> Result<Delta> {
        let changes = changes
            .into_iter()
            .filter(|part| part.num_rows() > 0)
            .map(|part| Ok(part.with_batch(renamed(part.batch.clone(), &self.schema)?)))
            .collect::<Result<Delta>>()?;
        if self.append_only { Ok(changes) } else { Ok(delta::consolidate(&self.schema, &changes)?) }
    }

    /// Sends changes; `false` when the subscriber is gone or too slow.
    fn send(&self, epoch: Epoch, changes: Delta, snapshot: bool) -> bool {
        let mark = self.progress || snapshot;
        let marks = mark.then(|| Change {
            epoch,
            batch: RecordBatch::new_empty(SchemaRef::clone(&self.schema)),
            weights: Weights::Ones,
            snapshot,
            progress: true,
        });
        let parts = changes.into_iter().map(|part| Change { epoch, batch: part.batch, weights: part.weights, snapshot, progress: false });
        for change in parts.chain(marks) {
            match self.sender.try_send(Ok(change)) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => return false,
                Err(TrySendError::Closed(_)) => return false,
            }
        }
        true
    }
}

impl Pipeline {
    /// Starts a live query.
    pub(super) async fn subscribe(&mut self, request: LiveRequest) -> Result<Subscription> {
        let name = format!("live query {}", self.next_live);
        self.next_live += 1;
        let planned = self.plan_continuous(&request.query, &[], &name, QueryForm { on_close: request.on_close, state_ttl: None }).await?;
        let dataflow = Dataflow::new(planned.graph.as_ref().clone(), DataflowContext { state: planned.state })?;
        let properties = &planned.graph.output_node().properties;
        let (sender, receiver) = mpsc::channel(BUFFER);
        let mut live = LiveQuery {
            query: request.query,
            on_close: request.on_close,
            dataflow,
            reads: planned.reads,
            at_rest: planned.at_rest,
            schema: planned.schema,
            append_only: properties.append_only,
            clock_dependent: planned.graph.polls_clock(),
            progress: request.progress,
            up_to: request.up_to,
            sender,
        };
        self.statement_clock = None;
        let watermarks = self.watermarks();
        let looked_up = looked_up(&planned.graph);
        let wanted = Wanted { reads: &live.reads, columns: live.dataflow.input_columns(), looked_up, backfill: Backfill::Retained };
        let ticks = self.history_of(wanted, &BTreeMap::new(), &name).await?;
        self.shared.epoch_clock.set(self.clock.max(self.next_clock()));
        let mut changes = Delta::new();
        let last = ticks.len().saturating_sub(1);
        for (index, (epoch, clock, deltas)) in ticks.into_iter().enumerate() {
            let none = BTreeMap::new();
            let input = epoch_input(epoch, clock, deltas, if index == last { &watermarks } else { &none });
            changes.extend(live.dataflow.step(&input).await?);
        }
        let changes = live.consolidated(changes)?;
        let subscription = Subscription {
            schema: SchemaRef::clone(&live.schema),
            append_only: live.append_only,
            epoch: self.epoch,
            receiver,
            remaining: request.limit,
        };
        if request.snapshot {
            live.send(self.epoch, changes, true);
        }
        self.live.push(live);
        self.update_readers();
        if !self.manual {
            self.running = true;
        }
        Ok(subscription)
    }

    /// Brings live queries up to a committed epoch. A failing one ends with its error and costs nobody else.
    pub(super) async fn step_live(&mut self, epoch: Epoch, clock: EventTime, deltas: &HashMap<String, Delta>) {
        if self.live.is_empty() {
            return;
        }
        let watermarks = self.watermarks();
        let mut kept = Vec::with_capacity(self.live.len());
        let before = self.live.len();
        for mut live in std::mem::take(&mut self.live) {
            if live.sender.is_closed() {
                continue;
            }
            let own = live.reads.iter().filter_map(|name| deltas.get(name).map(|delta| (name.clone(), delta.clone()))).collect();
            let input = epoch_input(epoch, clock, own, &watermarks);
            let changes = match live.dataflow.step(&input).await {
                Ok(changes) => live.consolidated(changes),
                Err(error) => Err(error.into()),
            };
            match changes {
                Ok(changes) => {
                    let ended = live.up_to.is_some_and(|last| epoch >= last);
                    if live.send(epoch, changes, false) && !ended {
                        kept.push(live);
                    } else if !ended && !live.sender.is_closed() {
                        let sender = live.sender.clone();
                        tokio::spawn(async move { sender.send(Err(Subscription::too_slow())).await });
                    }
                }
                Err(error) => {
                    let sender = live.sender.clone();
                    tokio::spawn(async move { sender.send(Err(error)).await });
                }
            }
        }
        self.live = kept;
        if self.live.len() != before {
            self.update_readers();
        }
    }

    /// All streams have ended: live queries that depend on nothing else have seen everything.
    pub(super) fn end_live(&mut self) {
        let before = self.live.len();
        let lasts = |live: &LiveQuery| live.clock_dependent || !live.at_rest.is_empty() || !self.tables.is_empty();
        self.live.retain(lasts);
        if self.live.len() != before {
            self.update_readers();
        }
    }

    /// Watermarks of all streams that have one, or have ended.
    pub(super) fn watermarks(&self) -> BTreeMap<String, (EventTime, bool)> {
        self.streams
            .iter()
            .filter(|(_, stream)| stream.watermark.1 || stream.def.watermark.is_some())
            .map(|(name, stream)| (name.clone(), stream.watermark))
            .collect()
    }
}
