//! `ALTER MATERIALIZED VIEW | SINK | QUERY x RESUME`: a query that failed under `on_query_failure = 'isolate'` catches up and goes on.
//!
//! | the query | how it catches up |
//! | --- | --- |
//! | was left out because a view it reads had failed | its state is that of the last epoch it took part in; it gets what came since |
//! | failed itself, and its whole result is kept: a view, a `complete` sink | the result is computed again; its change is the difference |
//! | failed itself and feeds any other sink | its state at the last epoch it took part in is computed again; the sink gets what came since |
//!
//! What came since goes in as one change, so that an error that later rows have mended, such as a sum that was out of range
//! for a while, does not come back. All of it happens in the epoch of the statement: views change and sinks go on
//! in that epoch, without loss or doubles, and a checkpoint follows. Queries that were left out because of a resumed view go on with it.
//!
//! **Errors**: when rows that are needed are kept nowhere any more, or when the rows a sink has got cannot be told for certain; the query
//! stays as it is then. A query whose rows still make it fail fails again, with the same message.

use super::Pipeline;
use super::query::{QueryState, Target, epoch_input};
use crate::catalog::object::{Backfill, ObjectKind, stream_of};
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use millstream_dataflow::Dataflow;
use millstream_sql::statement::{Alter, ObjectKind as Kind};
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime, delta};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Why a query does not run, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryFailure {
    /// Why.
    pub message: String,
    /// The last epoch it took part in.
    pub after: Epoch,
    /// The clock of that epoch.
    pub clock: EventTime,
    /// The watermarks after it, and which streams had ended.
    pub watermarks: BTreeMap<String, (EventTime, bool)>,
    /// It was not touched by the epoch it failed in: its state is that of `after`.
    pub intact: bool,
}

/// Changes of relations, by name.
type Changes = HashMap<String, Delta>;

/// Through the last epoch a query took part in, and after it.
#[derive(Default)]
struct Inputs {
    before: Changes,
    since: Changes,
}

/// A query that has caught up.
struct CaughtUp {
    index: usize,
    dataflow: Dataflow,
    changes: Delta,
}

impl Pipeline {
    /// Has failed queries go on. What they have missed goes into `initial`.
    pub(super) async fn resume(&mut self, alter: &Alter, initial: &mut BTreeMap<String, Delta>) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let indices = self.queries_to_resume(alter, &mut notices)?;
        let mut done: Vec<CaughtUp> = Vec::new();
        for index in indices {
            let mut caught_up = self.catch_up(index, initial).await?;
            caught_up.dataflow.share(&self.arrangements)?;
            initial.insert(self.queries[index].def.name.clone(), caught_up.changes.clone());
            done.push(caught_up);
        }
        // Nothing fails from here on: either all of them go on, or none.
        for CaughtUp { index, dataflow, .. } in done {
            let query = &mut self.queries[index];
            query.dataflow = dataflow;
            query.started = true;
            query.failed = None;
            query.held = Default::default();
        }
        self.update_readers();
        Ok(notices)
    }

    /// The failed queries that a statement names, in the order they run in, with those that were left out because of them.
    fn queries_to_resume(&self, alter: &Alter, notices: &mut Vec<Notice>) -> Result<Vec<usize>> {
        let name = alter.name.as_ref().map(object_name).unwrap_or_default();
        let named: Vec<String> = match (alter.kind, self.catalog.get(&name).map(|object| &object.kind)) {
            (Kind::Query, _) if self.queries.iter().any(|query| query.def.name == name) => vec![name.clone()],
            (Kind::Query, _) => {
                return Err(EngineError::invalid(format!("query \"{name}\" does not exist"), "SHOW QUERIES lists them."));
            }
            (Kind::MaterializedView | Kind::View, Some(ObjectKind::MaterializedView(_))) => vec![name.clone()],
            (Kind::Sink, Some(ObjectKind::Sink(def))) => def.queries.iter().map(|query| query.name.clone()).collect(),
            (_, None) => return Err(self.catalog.unknown(&name)),
            (_, Some(kind)) => {
                return Err(EngineError::invalid(
                    format!("\"{name}\" is a {} and cannot be resumed by this statement", kind.word()),
                    "Materialized views, sinks and their queries fail and go on.",
                ));
            }
        };
        let failed = |query: &&QueryState| query.failed.is_some();
        let mut resumed: BTreeSet<&str> = self
            .queries
            .iter()
            .filter(failed)
            .map(|query| query.def.name.as_str())
            .filter(|name| named.iter().any(|n| n == name))
            .collect();
        if resumed.is_empty() {
            notices.push(Notice::info(format!("\"{name}\" has not failed, nothing is resumed"), ""));
        }
        let mut indices = Vec::new();
        for (index, query) in self.queries.iter().enumerate() {
            let Some(failure) = &query.failed else { continue };
            let named = resumed.contains(query.def.name.as_str());
            let follows = failure.intact && query.reads.iter().any(|read| resumed.contains(read.as_str()));
            if !named && !follows {
                continue;
            }
            let waits_for = |read: &&String| {
                !resumed.contains(read.as_str()) && self.queries.iter().any(|q| q.def.name == **read && q.failed.is_some())
            };
            if let Some(view) = query.reads.iter().find(waits_for) {
                if named {
                    return Err(EngineError::invalid(
                        format!("\"{}\" reads \"{view}\", which has failed", query.def.name),
                        format!("Write ALTER MATERIALIZED VIEW {view} RESUME first; what was left out because of it goes on with it."),
                    ));
                }
                continue;
            }
            if !named {
                notices.push(Notice::info(format!("\"{}\" goes on, too", query.def.name), ""));
            }
            resumed.insert(&query.def.name);
            indices.push(index);
        }
        Ok(indices)
    }

    async fn catch_up(&mut self, index: usize, initial: &BTreeMap<String, Delta>) -> Result<CaughtUp> {
        let query = &self.queries[index];
        let (def, Some(failure)) = (query.def.clone(), query.failed.clone()) else {
            return Err(EngineError::Internal("a query that runs is not resumed".into()));
        };
        let planned = self.plan_continuous(&def.query, &def.columns, &def.name, def.form).await?;
        let mut dataflow = self.new_dataflow(&planned)?;
        if failure.intact
            && let Some(inputs) = self.missed_inputs(index, &failure, initial).await?
        {
            dataflow.restore(self.queries[index].dataflow.checkpoint()?).await?;
            let changes = self.step_once(index, &mut dataflow, inputs.since, None).await?;
            let held = self.queries[index].held.changes.clone();
            let changes = self.queries[index].shaped(held.into_iter().chain(changes).collect())?;
            return Ok(CaughtUp { index, dataflow, changes });
        }
        if let Some(relation) = planned.graph.looked_up().first() {
            return Err(EngineError::invalid(
                format!("\"{}\" cannot be computed again: it looks rows up in \"{relation}\" as of the epoch before", def.name),
                "Drop it and create it again.",
            ));
        }
        if def.backfill != Backfill::All {
            return Err(EngineError::invalid(
                format!("\"{}\" was made without all rows from before, so that its result cannot be computed again", def.name),
                "Drop it and create it again.",
            ));
        }
        if let Target::View(_) | Target::Sink { result: Some(_), .. } = &self.queries[index].target {
            let inputs = self.whole_inputs(index, initial).await?;
            let whole = self.step_once(index, &mut dataflow, inputs, None).await?;
            let query = &mut self.queries[index];
            let (Target::View(store) | Target::Sink { result: Some(store), .. }) = &mut query.target else {
                return Err(EngineError::Internal("the result of the query is gone".into()));
            };
            let old = store.snapshot()?;
            let taken = old.iter().filter(|batch| batch.num_rows() > 0).map(|batch| DeltaBatch::insertions(batch.clone()).negated());
            let changes = delta::consolidate(&query.def.schema, &taken.chain(whole).collect::<Delta>())?;
            return Ok(CaughtUp { index, dataflow, changes });
        }
        let inputs = self.exact_inputs(index, &failure, initial).await?;
        self.step_once(index, &mut dataflow, inputs.before, Some(&failure)).await?;
        let changes = self.step_once(index, &mut dataflow, inputs.since, None).await?;
        let held = self.queries[index].held.changes.clone();
        let changes = self.queries[index].shaped(held.into_iter().chain(changes).collect())?;
        Ok(CaughtUp { index, dataflow, changes })
    }

    /// One step: as the statement's epoch, or as the last epoch that a query took part in.
    async fn step_once(&mut self, index: usize, dataflow: &mut Dataflow, deltas: Changes, at: Option<&QueryFailure>) -> Result<Delta> {
        let (epoch, clock, watermarks) = match at {
            Some(failure) => (failure.after, failure.clock, failure.watermarks.clone()),
            None => (self.epoch.next(), self.next_clock(), self.watermarks()),
        };
        self.shared.epoch_clock.set(clock);
        let query = &self.queries[index];
        let name = query.def.name.clone();
        let changes = dataflow.step(&epoch_input(epoch, clock, deltas, &watermarks)).await;
        query.shaped(changes.map_err(|source| EngineError::Query { query: name, epoch: epoch.0, source: std::sync::Arc::new(source) })?)
    }

    /// What came of a query's inputs since it was left out; `None` where that is not kept.
    async fn missed_inputs(&mut self, index: usize, failure: &QueryFailure, initial: &BTreeMap<String, Delta>) -> Result<Option<Inputs>> {
        let mut inputs = Inputs::default();
        for name in self.queries[index].reads.clone() {
            if self.catalog.stream(stream_of(&name)).is_err() {
                match self.relation_inputs(&name, failure, initial)? {
                    Some((_, since)) => inputs.since.insert(name, since),
                    None => return Ok(None),
                };
                continue;
            }
            if self.lost_rows_after(&name, Some(failure.after)) {
                return Err(self.not_retained(index, &name));
            }
            let (_, since) = self.stream_inputs(index, &name, failure.after, false).await?;
            inputs.since.insert(name, since);
        }
        Ok(Some(inputs))
    }

    /// Everything that a query's inputs hold now.
    async fn whole_inputs(&mut self, index: usize, initial: &BTreeMap<String, Delta>) -> Result<Changes> {
        let mut inputs = Changes::new();
        for name in self.queries[index].reads.clone() {
            let rows = if self.catalog.stream(stream_of(&name)).is_err() {
                let mut rows = self.snapshot_delta(&name)?.unwrap_or_default();
                // The views before it have their changes of this epoch still to come.
                rows.extend(initial.get(&name).cloned().unwrap_or_default());
                rows
            } else {
                if self.lost_rows_after(&name, None) {
                    return Err(self.not_retained(index, &name));
                }
                self.stream_inputs(index, &name, Epoch::ZERO, true).await?.1
            };
            inputs.insert(name, rows);
        }
        Ok(inputs)
    }

    /// What a sink's query had got when it failed, and what came since.
    async fn exact_inputs(&mut self, index: usize, failure: &QueryFailure, initial: &BTreeMap<String, Delta>) -> Result<Inputs> {
        let query = &self.queries[index];
        let inexact = |reason: String| {
            EngineError::invalid(
                format!("the rows that \"{}\" has given to its sink before it failed cannot be told: {reason}", query.def.name),
                "DROP the sink and create it again, with another path, or let a materialized view feed it, which can be resumed.",
            )
        };
        if let Some(reason) = query.graph.nodes.iter().find_map(|node| node.properties.nondeterminism.clone()) {
            return Err(inexact(reason));
        }
        if let Some(table) = query.at_rest.first().filter(|_| !query.graph.output_node().properties.append_only) {
            return Err(inexact(format!("table \"{table}\" may have had another content then")));
        }
        let mut inputs = Inputs::default();
        for name in query.reads.clone() {
            let (before, since) = if self.catalog.stream(stream_of(&name)).is_err() {
                match self.relation_inputs(&name, failure, initial)? {
                    Some(changes) => changes,
                    None => {
                        let query = &self.queries[index].def.name;
                        return Err(EngineError::invalid(
                            format!(
                                "the rows that \"{query}\" has given to its sink before it failed cannot be told: \
                                 the content that \"{name}\" had then is not kept"
                            ),
                            "DROP the sink and create it again, with another path.",
                        ));
                    }
                }
            } else {
                if self.lost_rows_after(&name, None) {
                    return Err(self.not_retained(index, &name));
                }
                self.stream_inputs(index, &name, failure.after, true).await?
            };
            inputs.before.insert(name.clone(), before);
            inputs.since.insert(name, since);
        }
        Ok(inputs)
    }

    /// The rows of a stream through an epoch (where asked for) and after it.
    async fn stream_inputs(&self, index: usize, name: &str, after: Epoch, before: bool) -> Result<(Delta, Delta)> {
        let columns = self.queries[index].dataflow.input_columns().remove(name).map(|columns| columns.into_iter().collect());
        let (mut earlier, mut later) = (Delta::new(), Delta::new());
        let from = if before { Epoch::ZERO } else { after.next() };
        let Some(mut cursor) = self.accepted_of(name, columns, Some(from))? else { return Ok((earlier, later)) };
        if !before {
            cursor.skip_to(after.next());
        }
        while let Some((epoch, _, rows)) = cursor.next().await? {
            match epoch > after {
                true => later.extend(rows),
                false if before => earlier.extend(rows),
                false => {}
            }
        }
        Ok((earlier, later))
    }

    /// The content of a table or view when a query failed, and its changes since; `None` where that is not known.
    fn relation_inputs(&mut self, name: &str, failure: &QueryFailure, initial: &BTreeMap<String, Delta>) -> Result<Option<(Delta, Delta)>> {
        let since = match (self.tables.get(name), initial.get(name)) {
            (Some(table), _) if table.changed <= failure.after => Delta::new(),
            // A view that is resumed by the same statement still has the content it had when it failed.
            (None, Some(changes)) if self.failed_after(name) == Some(failure.after) => changes.clone(),
            _ => return Ok(None),
        };
        Ok(self.snapshot_delta(name)?.map(|before| (before, since)))
    }

    fn failed_after(&self, view: &str) -> Option<Epoch> {
        let query = self.queries.iter().find(|query| query.def.name == view)?;
        query.failed.as_ref().map(|failure| failure.after)
    }

    /// Whether rows of a stream after an epoch (`None`: any rows) are kept nowhere any more.
    fn lost_rows_after(&self, stream: &str, epoch: Option<Epoch>) -> bool {
        let Some(runtime) = self.streams.get(stream_of(stream)).filter(|runtime| runtime.retention_cut) else { return false };
        match (epoch, runtime.retained.first_epoch()) {
            (Some(after), Some(oldest)) => oldest > after,
            _ => true,
        }
    }

    fn not_retained(&self, index: usize, stream: &str) -> EngineError {
        EngineError::invalid(
            format!(
                "\"{}\" cannot catch up: rows of stream \"{}\" that it needs are no longer retained",
                self.queries[index].def.name,
                stream_of(stream)
            ),
            "Drop it and create it again; a larger retention of the stream would have kept them.",
        )
    }
}
