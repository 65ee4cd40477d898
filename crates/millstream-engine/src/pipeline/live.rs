//! Live queries: `SELECT ... EMIT CHANGES` and subscriptions. They see committed epochs, never enter the durable dataflow, and
//! cost only themselves.
//!
//! Subscribers of the same query share one dataflow and its changes: an epoch costs the query once, and each subscriber a pointer. Who
//! begins later is given the rows the query has then: those of the view it names, else what a dataflow of its own makes of the present
//! input.
//!
//! Under `EMIT PERIODIC` the changes wait in the query ([`super::held`]) and are handed to all its subscribers at the same time. Who
//! begins in between begins with the rows as they were handed out last.
//!
//! `AS OF EPOCH n` begins in the past: the query's input as it was after that epoch is what the views hold less what their history
//! ([`super::change_history`]) has since; that history is then run through the query epoch by epoch.

use super::Pipeline;
use super::backfill::{Wanted, looked_up};
use super::change_history::Past;
use super::held::Held;
use super::query::{Target, epoch_input, renamed};
use crate::catalog::object::{Backfill, ObjectKind, QueryForm};
use crate::catalog::resolve::object_name;
use crate::change_queue::{EpochChanges, Feed, Pushed, queue};
use crate::error::{EngineError, Result};
use crate::subscription::Subscription;
use arrow::datatypes::SchemaRef;
use millstream_dataflow::Dataflow;
use millstream_sql::statement::Emit;
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime, delta};
use sqlparser::ast::{Query, SetExpr, TableFactor};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

/// What to follow.
#[derive(Debug, Clone)]
pub struct LiveRequest {
    /// The query.
    pub query: Box<Query>,
    /// Only final rows.
    pub on_close: bool,
    /// Changes at most that often.
    pub period: Option<Duration>,
    /// Begin with the rows the query has now, or had after the epoch it begins with.
    pub snapshot: bool,
    /// Send a mark after every epoch.
    pub progress: bool,
    /// End after so many rows.
    pub limit: Option<u64>,
    /// Begin after this epoch.
    pub as_of: Option<Epoch>,
    /// End with this epoch.
    pub up_to: Option<Epoch>,
}

impl LiveRequest {
    /// A query with its EMIT clause, from the rows it has now.
    pub fn new(query: Box<Query>, emit: Emit) -> Self {
        let of =
            |on_close, period, limit| Self { query, on_close, period, snapshot: true, progress: false, limit, as_of: None, up_to: None };
        match emit {
            Emit::None => of(false, None, None),
            Emit::Changes { limit } => of(false, None, limit),
            Emit::OnWindowClose => of(true, None, None),
            Emit::Periodic(period) => of(false, Some(period), None),
        }
    }

    /// What queries that share their work have in common.
    fn text(&self) -> String {
        match (self.on_close, self.period) {
            (true, _) => format!("{} EMIT ON WINDOW CLOSE", self.query),
            (false, Some(period)) => format!("{} EMIT PERIODIC {} us", self.query, period.as_micros()),
            (false, None) => self.query.to_string(),
        }
    }
}

/// A live query.
#[derive(Debug)]
pub struct LiveQuery {
    query: Box<Query>,
    on_close: bool,
    /// How often changes are handed out at most.
    period: Option<Duration>,
    /// What waits for the end of the period.
    held: Held,
    dataflow: Dataflow,
    reads: BTreeSet<String>,
    at_rest: BTreeSet<String>,
    schema: SchemaRef,
    append_only: bool,
    clock_dependent: bool,
    /// Those with the same text share it.
    text: String,
    subscribers: Vec<Subscriber>,
}

/// Somebody who follows a live query.
#[derive(Debug)]
struct Subscriber {
    feed: Feed,
    progress: bool,
    up_to: Option<Epoch>,
}

impl Subscriber {
    /// Hands over the changes of an epoch; `false` when there is nothing more to hand over.
    fn push(&self, changes: &Arc<EpochChanges>) -> bool {
        if self.up_to.is_some_and(|last| changes.epoch > last) || self.feed.is_ended() {
            return false;
        }
        if (self.progress || !changes.parts.is_empty()) && self.feed.push(changes) == Pushed::Ended {
            return false;
        }
        self.up_to != Some(changes.epoch)
    }
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

    /// When what is held is to be handed out.
    pub(super) fn release_due(&self) -> Option<EventTime> {
        self.held.due(self.period?)
    }

    /// What of an epoch's changes its subscribers get in it. `ended`: nothing comes after it.
    fn release(&mut self, changes: Delta, clock: EventTime, ended: bool) -> Result<Delta> {
        match self.period {
            Some(period) => self.held.release(changes, &self.schema, period, (clock, ended)),
            None => Ok(changes),
        }
    }

    /// The rows as they were handed out last, from those there are now.
    fn handed_out(&self, mut rows: Delta) -> Result<Delta> {
        if self.held.changes.is_empty() {
            return Ok(rows);
        }
        rows.extend(self.held.changes.iter().map(DeltaBatch::negated));
        Ok(delta::consolidate(&self.schema, &rows)?)
    }

    /// Hands the changes of an epoch to everybody who follows.
    fn hand_out(&mut self, epoch: Epoch, changes: Delta) {
        let changes = EpochChanges::new(epoch, changes, false);
        self.subscribers.retain(|subscriber| subscriber.push(&changes));
    }

    /// Changes with the columns of the query.
    fn consolidated(&self, changes: Delta) -> Result<Delta> {
        let changes = changes
            .into_iter()
            .filter(|part| part.num_rows() > 0)
            .map(|part| Ok(part.with_batch(renamed(part.batch.clone(), &self.schema)?)))
            .collect::<Result<Delta>>()?;
        if self.append_only { Ok(changes) } else { Ok(delta::consolidate(&self.schema, &changes)?) }
    }
}

impl Pipeline {
    /// Starts a subscription.
    pub(super) async fn subscribe(&mut self, request: LiveRequest) -> Result<Subscription> {
        let (feed, tap) = queue();
        let begins = request.as_of.unwrap_or(self.epoch);
        let text = request.text();
        let running = self.live.iter().position(|live| live.text == text);
        let subscriber = Subscriber { feed, progress: request.progress, up_to: request.up_to };
        let index = match (request.as_of, running) {
            (Some(epoch), _) => {
                let live = self.since_epoch(&request, text, epoch, &subscriber).await?;
                running.unwrap_or_else(|| self.add_live(live))
            }
            (None, Some(index)) => {
                if request.snapshot {
                    let rows = self.present_rows(&request, &text, index).await?;
                    let rows = self.live[index].handed_out(rows)?;
                    subscriber.feed.begin(&EpochChanges::new(self.epoch, rows, true));
                }
                index
            }
            (None, None) => {
                let (mut live, rows) = self.started(&request, text).await?;
                if request.snapshot {
                    live.held.emitted = (!rows.is_empty()).then(|| self.shared.epoch_clock.time());
                    subscriber.feed.begin(&EpochChanges::new(self.epoch, rows, true));
                }
                self.add_live(live)
            }
        };
        let live = &mut self.live[index];
        let schema = SchemaRef::clone(&live.schema);
        let subscription = Subscription::new(schema, live.append_only, begins, tap, request.progress, request.limit);
        // What ends with an epoch that has passed has ended.
        if subscriber.up_to.is_none_or(|last| last > self.epoch) {
            live.subscribers.push(subscriber);
        }
        self.forget_unheard();
        if !self.manual {
            self.running = true;
        }
        Ok(subscription)
    }

    fn add_live(&mut self, live: LiveQuery) -> usize {
        self.live.push(live);
        self.update_readers();
        self.live.len() - 1
    }

    /// Ends live queries that nobody follows.
    fn forget_unheard(&mut self) {
        let before = self.live.len();
        self.live.retain(|live| !live.subscribers.is_empty());
        if self.live.len() != before {
            self.update_readers();
        }
    }

    /// A live query that has not seen any rows.
    async fn planned_live(&mut self, request: &LiveRequest, text: String) -> Result<(LiveQuery, BTreeSet<String>)> {
        let name = format!("live query {}", self.next_live);
        self.next_live += 1;
        let planned = self.plan_continuous(&request.query, &[], &name, QueryForm { on_close: request.on_close, state_ttl: None }).await?;
        let dataflow = self.new_dataflow(&planned)?;
        let live = LiveQuery {
            query: request.query.clone(),
            on_close: request.on_close,
            period: request.period,
            held: Held::default(),
            dataflow,
            reads: planned.reads,
            at_rest: planned.at_rest,
            schema: planned.schema,
            append_only: planned.graph.output_node().properties.append_only,
            clock_dependent: planned.graph.polls_clock(),
            text,
            subscribers: Vec::new(),
        };
        Ok((live, looked_up(&planned.graph)))
    }

    /// A live query that has seen everything there is, and its rows.
    async fn started(&mut self, request: &LiveRequest, text: String) -> Result<(LiveQuery, Delta)> {
        let (mut live, looked_up) = self.planned_live(request, text).await?;
        self.statement_clock = None;
        let watermarks = self.watermarks();
        let name = format!("live query {}", self.next_live - 1);
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
        Ok((live, changes))
    }

    /// The rows of a running live query, for who begins to follow it now.
    async fn present_rows(&mut self, request: &LiveRequest, text: &str, index: usize) -> Result<Delta> {
        if let Some(name) = whole_relation(&request.query).filter(|_| !request.on_close)
            && self.is_maintained(&name)
            && let Some(rows) = self.snapshot_delta(&name)?
        {
            return self.live[index].consolidated(rows);
        }
        Ok(self.started(request, text.to_string()).await?.1)
    }

    /// A table or materialized view, whose rows are at hand.
    fn is_maintained(&self, name: &str) -> bool {
        self.catalog.get(name).is_some_and(|object| matches!(object.kind, ObjectKind::Table(_) | ObjectKind::MaterializedView(_)))
    }

    /// Hands a subscriber what a query had after an epoch and what came since. The live query is up to date then.
    async fn since_epoch(&mut self, request: &LiveRequest, text: String, epoch: Epoch, subscriber: &Subscriber) -> Result<LiveQuery> {
        if epoch > self.epoch {
            return Err(EngineError::invalid(
                format!("epoch {} has not come yet: the newest is {}", epoch.0, self.epoch.0),
                "Leave AS OF EPOCH out to begin with the present rows.",
            ));
        }
        let (mut live, looked_up) = self.planned_live(request, text).await?;
        if live.clock_dependent || !looked_up.is_empty() {
            let what = "a query that depends on the clock, or looks up what there was the epoch before,";
            return Err(EngineError::invalid(format!("{what} cannot be followed from an epoch that has passed"), ""));
        }
        let (before, since) = self.history_of_views(&live.reads, epoch)?;
        let watermarks = self.watermarks();
        let rows = live.dataflow.step(&epoch_input(epoch, self.clock, before, &watermarks)).await?;
        if request.snapshot {
            subscriber.feed.begin(&EpochChanges::new(epoch, live.consolidated(rows)?, true));
        }
        let mut last = epoch;
        for (epoch, (clock, deltas)) in since {
            let changes = live.dataflow.step(&epoch_input(epoch, clock, deltas, &watermarks)).await?;
            let changes = live.consolidated(changes)?;
            if request.up_to.is_none_or(|end| epoch <= end) && (!changes.is_empty() || request.progress) {
                subscriber.feed.begin(&EpochChanges::new(epoch, changes, false));
                last = epoch;
            }
        }
        // Nothing came in the newest epochs: it is known all the same.
        let until = request.up_to.unwrap_or(self.epoch).min(self.epoch);
        if request.progress && last < until {
            subscriber.feed.begin(&EpochChanges::new(until, Delta::new(), false));
        }
        Ok(live)
    }

    /// What views held after an epoch, and their changes since, by epoch.
    fn history_of_views(&mut self, reads: &BTreeSet<String>, epoch: Epoch) -> Result<(HashMap<String, Delta>, Since)> {
        let mut before = HashMap::new();
        let mut since: Since = BTreeMap::new();
        for name in reads {
            let view = self.queries.iter().find(|query| query.def.name == *name && matches!(query.target, Target::View(_)));
            let Some(view) = view else {
                return Err(EngineError::invalid(
                    format!("only materialized views have a history, and \"{name}\" is none"),
                    "Leave AS OF EPOCH out to begin with the present rows, or make a materialized view and follow it.",
                ));
            };
            let past = view.history.since(name, epoch, self.epoch)?;
            let schema = Arc::clone(&view.def.schema);
            let mut rows = self.snapshot_delta(name)?.unwrap_or_default();
            for Past { epoch, clock, changes } in past {
                rows.extend(changes.iter().map(DeltaBatch::negated));
                since.entry(epoch).or_insert_with(|| (clock, HashMap::new())).1.insert(name.clone(), changes);
            }
            before.insert(name.clone(), delta::consolidate(&schema, &rows)?);
        }
        Ok((before, since))
    }

    /// Brings live queries up to a committed epoch. A failing one ends with its error and costs nobody else.
    pub(super) async fn step_live(&mut self, epoch: Epoch, clock: EventTime, deltas: &HashMap<String, Delta>) {
        if self.live.is_empty() {
            return;
        }
        let watermarks = self.watermarks();
        let ended = !self.streams.is_empty() && self.streams.values().all(|stream| stream.watermark.1);
        for live in &mut self.live {
            live.subscribers.retain(|subscriber| !subscriber.feed.is_ended());
            if live.subscribers.is_empty() {
                continue;
            }
            let own = live.reads.iter().filter_map(|name| deltas.get(name).map(|delta| (name.clone(), delta.clone()))).collect();
            let input = epoch_input(epoch, clock, own, &watermarks);
            let changes = match live.dataflow.step(&input).await {
                Ok(changes) => live.consolidated(changes),
                Err(error) => Err(error.into()),
            };
            match changes.and_then(|changes| live.release(changes, clock, ended)) {
                Ok(changes) => live.hand_out(epoch, changes),
                Err(error) => live.subscribers.drain(..).for_each(|subscriber| subscriber.feed.fail(error.clone())),
            }
        }
        self.forget_unheard();
    }

    /// Ends the live queries over a relation that is dropped. Nobody joins the others any more: a name in their text may get another
    /// meaning.
    pub(super) fn end_live_over(&mut self, name: &str) {
        self.live.iter_mut().for_each(|live| live.text.clear());
        for live in self.live.iter_mut().filter(|live| live.reads.contains(name)) {
            let error = EngineError::invalid(format!("\"{name}\" was dropped"), "Its changes end here.");
            live.subscribers.drain(..).for_each(|subscriber| subscriber.feed.fail(error.clone()));
        }
        self.live.retain(|live| !live.subscribers.is_empty());
    }

    /// Nothing comes any more: what is held is handed out, and live queries end.
    pub(super) fn finish_live(&mut self) {
        for mut live in std::mem::take(&mut self.live) {
            match live.release(Delta::new(), self.clock, true) {
                Ok(changes) if changes.is_empty() => {}
                Ok(changes) => live.hand_out(self.epoch, changes),
                Err(error) => live.subscribers.drain(..).for_each(|subscriber| subscriber.feed.fail(error.clone())),
            }
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

/// Changes of relations, by epoch.
type Since = BTreeMap<Epoch, (EventTime, HashMap<String, Delta>)>;

/// The relation that a query gives whole: `SELECT * FROM relation`.
fn whole_relation(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, .. } = &from.relation else { return None };
    let name = object_name(name);
    // Compared as text, so that no clause is overlooked.
    let whole = super::ddl::select_all(&sqlparser::ast::ObjectName::from(vec![sqlparser::ast::Ident::with_quote('"', &name)])).ok()?;
    let unquoted = format!("SELECT * FROM {name}");
    (query.to_string() == whole.to_string() || query.to_string() == unquoted).then_some(name)
}
