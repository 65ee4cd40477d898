//! The runner: operators in topological order, one epoch at a time.
//!
//! ```text
//!   new ─▶ step* ─▶ checkpoint            new ─▶ restore ─▶ step*
//! ```
//! In an epoch every operator runs at most once, with the complete change of each of its inputs; operators whose inputs did not change
//! and whose bound has passed nothing are skipped. Nothing is planned per epoch.
//!
//! Constants are not saved. [`Dataflow::restore`] runs their plans again (the engine keeps the content they read) and fills
//! the operators that keep it; what they handed out downstream in the first epoch is part of the state there.

use crate::error::{DataflowError, Result};
use crate::operator::{Operator, Saved, Sharing, StateStats, StepContext};
use crate::operators::SharedArrangements;
use crate::operators::registry::{BuildContext, build};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SessionState, TaskContext};
use millstream_plan::bound::BoundContext;
use millstream_plan::graph::{Graph, Node, NodeId, Op, Strategy};
use millstream_types::delta::{Delta, num_rows};
use millstream_types::{Epoch, EventTime};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use tracing::Instrument;

/// Version of the runner's own state.
const FORMAT: u32 = 1;
/// Name of the state that belongs to no operator.
const RUNNER: &str = "Dataflow";

/// What a dataflow runs in.
#[derive(Clone, Debug)]
pub struct DataflowContext {
    /// Session with the functions and settings that the query was planned with. Its runtime's memory pool limits the state.
    pub state: SessionState,
    /// How far operators are divided among cores.
    pub parallelism: Parallelism,
}

/// How far operators with state by key are divided, each shard with keys of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallelism {
    /// Into how many shards; less than two: not at all.
    pub shards: usize,
    /// A change of so many rows is worth it.
    pub from_rows: usize,
}

impl Parallelism {
    /// Nothing is divided.
    pub const NONE: Self = Self { shards: 1, from_rows: usize::MAX };
}

impl DataflowContext {
    /// A session, in which nothing is divided.
    pub fn new(state: SessionState) -> Self {
        Self { state, parallelism: Parallelism::NONE }
    }
}

/// One epoch.
#[derive(Clone, Debug)]
pub struct EpochInput {
    /// Its number.
    pub epoch: Epoch,
    /// The change of each relation that has one, by name. Batches hold at least [`Dataflow::input_columns`], in any order.
    pub deltas: HashMap<String, Delta>,
    /// Watermarks and clock at the end of the epoch.
    pub bounds: BoundContext,
    /// The epoch clock. Functions such as `now()` read it from the session they were planned with, which is set before the step.
    pub clock: EventTime,
}

/// Counters of an operator, for `EXPLAIN` and metrics. Counts of rows are since the start of the process.
#[derive(Clone, Debug)]
pub struct OperatorStats {
    /// The node.
    pub node: NodeId,
    /// What it does.
    pub name: &'static str,
    /// How it is maintained.
    pub strategy: Strategy,
    /// Rows of its inputs' changes.
    pub rows_in: u64,
    /// Rows of its own changes.
    pub rows_out: u64,
    /// Rows it keeps.
    pub state_rows: usize,
    /// Memory of its state in bytes. State that several operators share is counted by the first of them alone.
    pub state_bytes: usize,
    /// How many other operators, of this query or others, share rows of its state.
    pub shared_with: usize,
    /// Into how many shards it is divided; one if it is not.
    pub shards: usize,
    /// Keys it has looked up.
    pub touched_keys: u64,
    /// Rows of its state that it has computed again because their key was touched.
    pub read_rows: u64,
    /// Rows it has ignored because they came below its bound.
    pub dropped_rows: u64,
}

/// State of one operator in a checkpoint.
#[derive(Clone, Debug)]
pub struct OperatorState {
    /// Identity of the node.
    pub fingerprint: u64,
    /// Which one of the nodes with this fingerprint.
    pub ordinal: u32,
    /// Name of the operator.
    pub name: String,
    /// Version of its layout.
    pub format: u32,
    /// Its rows by what they are.
    pub groups: Vec<(String, Vec<RecordBatch>)>,
    /// The numbers of groups that several operators share; of those one operator alone has the rows.
    pub shared: BTreeMap<String, u64>,
    /// Everything that is not rows.
    pub detail: serde_json::Value,
}

/// A running query.
pub struct Dataflow {
    graph: Arc<Graph>,
    tasks: Vec<Task>,
    /// By node: it follows from constants alone, without state.
    constant: Arc<[bool]>,
    task: Arc<TaskContext>,
    started: bool,
    /// It is part of an operator, which accounts for its memory.
    nested: bool,
}

struct Task {
    operator: Box<dyn Operator>,
    label: String,
    ordinal: u32,
    /// How many nodes read its output, one more for the result.
    readers: usize,
    rows_in: u64,
    rows_out: u64,
    reservation: MemoryReservation,
}

impl Task {
    /// Accounts for the memory of its own state; what it shares accounts for itself.
    fn reserve(&mut self) -> Result<()> {
        let StateStats { bytes, .. } = self.operator.stats();
        let reserved = self.reservation.try_resize(bytes);
        reserved.map_err(|source| DataflowError::Memory { operator: self.label.clone(), bytes, source: Box::new(source) })
    }

    /// Takes state back. `numbers`: of the groups that are shared.
    fn load(&mut self, saved: &Saved, numbers: &BTreeMap<String, u64>, arrangements: Option<&SharedArrangements>) -> Result<()> {
        match (arrangements, self.operator.sharing()) {
            (Some(arrangements), Some(sharing)) => sharing.restore(saved, numbers, arrangements),
            _ if numbers.is_empty() => self.operator.restore(saved),
            _ => Err(DataflowError::mismatch("its rows are shared with other queries")),
        }
    }
}

impl EpochInput {
    /// What a dataflow within an operator gets: changes under names of its own.
    pub(crate) fn nested(deltas: HashMap<String, Delta>, bounds: &BoundContext) -> Self {
        Self { epoch: bounds.epoch, deltas, bounds: bounds.clone(), clock: bounds.clock }
    }
}

impl std::fmt::Debug for Dataflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels: Vec<&str> = self.tasks.iter().map(|task| task.label.as_str()).collect();
        f.debug_struct("Dataflow").field("operators", &labels).field("started", &self.started).finish_non_exhaustive()
    }
}

impl Dataflow {
    /// Builds the operators of a graph.
    ///
    /// # Errors
    /// When an expression does not compile or the graph breaks a rule of its operators.
    pub fn new(graph: Graph, context: DataflowContext) -> Result<Self> {
        let DataflowContext { state, parallelism } = context;
        let constant: Arc<[bool]> = constant_nodes(&graph).into();
        let (graph, state) = (Arc::new(graph), Arc::new(state));
        let task = state.task_ctx();
        let build_context = BuildContext { graph: &graph, state: &state, constant: &constant, parallelism, shard: None };
        let mut ordinals: BTreeMap<u64, u32> = BTreeMap::new();
        let mut tasks = Vec::with_capacity(graph.nodes.len());
        for (place, node) in graph.nodes.iter().enumerate() {
            let label = format!("{} #{}", node.op.name(), node.id.0);
            if node.id.0 != place || node.inputs.iter().any(|input| input.0 >= place) {
                return Err(DataflowError::internal("the graph is not in topological order").at(&label));
            }
            let operator = build(node, &build_context).map_err(|error| error.at(&label))?;
            let ordinal = ordinals.entry(node.fingerprint).or_default();
            let reservation = MemoryConsumer::new(label.clone()).register(task.memory_pool());
            tasks.push(Task { operator, label, ordinal: *ordinal, readers: 0, rows_in: 0, rows_out: 0, reservation });
            *ordinal += 1;
        }
        for input in graph.nodes.iter().flat_map(|node| &node.inputs).chain([&graph.output]) {
            tasks[input.0].readers += 1;
        }
        Ok(Self { graph, tasks, constant, task, started: false, nested: false })
    }

    /// As [`new`](Self::new), for an operator that runs a dataflow of its own and accounts for the memory of both.
    pub(crate) fn nested(graph: Graph, context: DataflowContext) -> Result<Self> {
        Ok(Self { nested: true, ..Self::new(graph, context)? })
    }

    /// The graph it runs.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Columns of the result.
    pub fn output_schema(&self) -> &SchemaRef {
        &self.graph.output_node().schema
    }

    /// Which columns of which relations it reads.
    pub fn input_columns(&self) -> HashMap<String, Vec<String>> {
        let mut result: HashMap<String, Vec<String>> = HashMap::new();
        for node in &self.graph.nodes {
            if let Op::Input { relation, columns } = &node.op {
                let known = result.entry(relation.clone()).or_default();
                for column in columns {
                    if !known.contains(column) {
                        known.push(column.clone());
                    }
                }
            }
        }
        result
    }

    /// Runs one epoch and returns the change of the result. The first call is the query's first epoch: constants and rows over empty input
    /// are part of its result.
    ///
    /// # Errors
    /// Expression, memory and input errors; the dataflow is then undefined: drop or restore it.
    pub async fn step(&mut self, input: &EpochInput) -> Result<Delta> {
        let first = !self.started;
        let context = StepContext { deltas: &input.deltas, bounds: &input.bounds, first, task: &self.task };
        let mut deltas: Vec<Delta> = vec![vec![]; self.tasks.len()];
        let mut readers: Vec<usize> = self.tasks.iter().map(|task| task.readers).collect();
        for (node, task) in self.graph.nodes.iter().zip(&mut self.tasks) {
            let inputs: Vec<&[_]> = node.inputs.iter().map(|input| deltas[input.0].as_slice()).collect();
            let rows: usize = inputs.iter().map(|input| num_rows(input)).sum();
            let due = rows > 0 || task.operator.needs_step(&context).map_err(|error| error.at(&task.label))?;
            if due {
                let span = tracing::debug_span!("operator", operator_id = node.id.0, rows);
                let step = task.operator.step(&inputs, &context).instrument(span);
                let mut delta = step.await.map_err(|error| error.at(&task.label))?;
                delta.retain(|part| part.num_rows() > 0);
                task.rows_in += rows as u64;
                task.rows_out += num_rows(&delta) as u64;
                if !self.nested {
                    task.reserve()?;
                }
                deltas[node.id.0] = delta;
            }
            // A change is dropped once its last reader has seen it.
            for input in &node.inputs {
                readers[input.0] -= 1;
                if readers[input.0] == 0 {
                    deltas[input.0] = vec![];
                }
            }
        }
        self.started = true;
        Ok(std::mem::take(&mut deltas[self.graph.output.0]))
    }

    /// The reading of the clock at which the result changes without a change of the inputs, as far as operators know it in advance.
    pub fn next_due(&self) -> Option<EventTime> {
        self.tasks.iter().filter_map(|task| task.operator.next_due()).min()
    }

    /// Counters of all operators, in the order of the graph.
    pub fn operator_stats(&self) -> Vec<OperatorStats> {
        let stats = |(node, task): (&Node, &Task)| {
            let state = task.operator.stats();
            OperatorStats {
                node: node.id,
                name: node.op.name(),
                strategy: node.strategy,
                rows_in: task.rows_in,
                rows_out: task.rows_out,
                state_rows: state.rows + state.shared.0,
                state_bytes: state.bytes + state.shared.1,
                shared_with: state.shared_with,
                shards: state.shards.max(1),
                touched_keys: state.touched_keys,
                read_rows: state.read_rows,
                dropped_rows: state.dropped_rows,
            }
        };
        self.graph.nodes.iter().zip(&self.tasks).map(stats).collect()
    }

    /// Puts state together with equal state of other dataflows, from now on. To be called between epochs, when everything that the others
    /// have seen is in.
    ///
    /// # Errors
    /// When state cannot be read, or there is no memory for it.
    pub fn share(&mut self, arrangements: &SharedArrangements) -> Result<()> {
        for task in &mut self.tasks {
            let Some(sharing) = task.operator.sharing() else { continue };
            // What is shared is accounted for anew.
            task.reservation.free();
            sharing.share(arrangements).map_err(|error| error.at(&task.label))?;
            task.reserve()?;
        }
        Ok(())
    }

    /// Goes on alone, with the state of before the running epoch, in which this dataflow was not stepped. `false`: that is lost, and the
    /// dataflow with it.
    ///
    /// # Errors
    /// When state cannot be copied.
    pub fn part(&mut self) -> Result<bool> {
        let mut whole = true;
        for task in &mut self.tasks {
            if let Some(sharing) = task.operator.sharing() {
                whole &= sharing.part().map_err(|error| error.at(&task.label))?;
                // It was in memory before, whatever the limit says.
                task.reservation.resize(task.operator.stats().bytes);
            }
        }
        Ok(whole)
    }

    /// Lets go of what it shares: it is not stepped any more.
    pub fn let_go(&mut self) {
        self.tasks.iter_mut().filter_map(|task| task.operator.sharing()).for_each(Sharing::let_go);
    }

    /// The whole state, what is shared included. Batches share memory with the operators where they can.
    ///
    /// # Errors
    /// When state cannot be copied.
    pub fn checkpoint(&mut self) -> Result<Vec<OperatorState>> {
        self.saved(|operator| Ok(operator.checkpoint()?.map(|saved| (saved, BTreeMap::new()))))
    }

    /// As [`checkpoint`](Self::checkpoint), but of what is shared only what is not `written` yet.
    ///
    /// # Errors
    /// When state cannot be copied.
    pub fn checkpoint_shared(&mut self, written: &mut BTreeSet<u64>) -> Result<Vec<OperatorState>> {
        self.saved(|operator| match operator.sharing() {
            Some(sharing) => sharing.checkpoint(written).map(Some),
            None => Ok(operator.checkpoint()?.map(|saved| (saved, BTreeMap::new()))),
        })
    }

    fn saved(
        &mut self,
        mut state_of: impl FnMut(&mut dyn Operator) -> Result<Option<(Saved, BTreeMap<String, u64>)>>,
    ) -> Result<Vec<OperatorState>> {
        let mut states = vec![OperatorState {
            fingerprint: self.graph.output_node().fingerprint,
            ordinal: 0,
            name: RUNNER.to_string(),
            format: FORMAT,
            groups: vec![],
            shared: BTreeMap::new(),
            detail: serde_json::json!({ "started": self.started }),
        }];
        for (node, task) in self.graph.nodes.iter().zip(&mut self.tasks) {
            let saved = state_of(task.operator.as_mut()).map_err(|error| error.at(&task.label))?;
            if let Some((Saved { format, groups, detail }, shared)) = saved {
                let (name, ordinal) = (node.op.name().to_string(), task.ordinal);
                states.push(OperatorState { fingerprint: node.fingerprint, ordinal, name, format, groups, shared, detail });
            }
        }
        Ok(states)
    }

    /// Loads a [`checkpoint`](Self::checkpoint) into a new dataflow and runs the constants again where operators keep them.
    ///
    /// # Errors
    /// [`DataflowError::StateMismatch`] when the state is of another query or format; errors of the constants' plans.
    pub async fn restore(&mut self, states: Vec<OperatorState>) -> Result<()> {
        self.load(states, None)?;
        self.restored().await
    }

    /// Loads what [`checkpoint_shared`](Self::checkpoint_shared) gave. Shared rows may be missing where
    /// [`SharedArrangements::has`] them already.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub async fn restore_shared(&mut self, states: Vec<OperatorState>, arrangements: &SharedArrangements) -> Result<()> {
        self.load(states, Some(arrangements))?;
        self.restored().await
    }

    async fn restored(&mut self) -> Result<()> {
        if self.started {
            self.load_constants().await?;
        }
        if !self.nested {
            self.tasks.iter_mut().try_for_each(Task::reserve)?;
        }
        Ok(())
    }

    /// As [`restore`](Self::restore), but for constants.
    pub(crate) fn load(&mut self, states: Vec<OperatorState>, arrangements: Option<&SharedArrangements>) -> Result<()> {
        if self.started {
            return Err(DataflowError::internal("a dataflow that has run is not restored").at(RUNNER));
        }
        let mut found: BTreeMap<(u64, u32), (Saved, BTreeMap<String, u64>)> = BTreeMap::new();
        let mut names: BTreeMap<(u64, u32), String> = BTreeMap::new();
        let mut started = None;
        for OperatorState { fingerprint, ordinal, name, format, groups, shared, detail } in states {
            let saved = Saved { format, groups, detail };
            if name == RUNNER {
                saved.expect_format(FORMAT).map_err(|error| error.at(RUNNER))?;
                if fingerprint != self.graph.output_node().fingerprint {
                    return Err(DataflowError::mismatch("it is of another query").at(RUNNER));
                }
                started = Some(saved.detail("started").map_err(|error| error.at(RUNNER))?);
            } else {
                names.insert((fingerprint, ordinal), name);
                found.insert((fingerprint, ordinal), (saved, shared));
            }
        }
        let started: bool = started.ok_or_else(|| DataflowError::mismatch("it is incomplete").at(RUNNER))?;
        for (node, task) in self.graph.nodes.iter().zip(&mut self.tasks) {
            let key = (node.fingerprint, task.ordinal);
            let stateful = task.operator.checkpoint().map_err(|error| error.at(&task.label))?.is_some();
            match found.remove(&key) {
                Some(_) if names.get(&key).is_some_and(|name| name != node.op.name()) => {
                    return Err(DataflowError::mismatch(format!("it is of operator \"{}\"", names[&key])).at(&task.label));
                }
                Some((saved, numbers)) => task.load(&saved, &numbers, arrangements).map_err(|error| error.at(&task.label))?,
                None if stateful => return Err(DataflowError::mismatch("there is none in the checkpoint").at(&task.label)),
                None => {}
            }
        }
        if let Some(key) = found.keys().next() {
            return Err(DataflowError::mismatch("the query has no such operator").at(&names[key]));
        }
        self.started = started;
        Ok(())
    }

    /// Computes the nodes that follow from constants and fills the operators that keep them.
    async fn load_constants(&mut self) -> Result<()> {
        let (deltas, bounds) = (HashMap::new(), no_bounds());
        let context = StepContext { deltas: &deltas, bounds: &bounds, first: true, task: &self.task };
        let mut outputs: Vec<Delta> = vec![vec![]; self.tasks.len()];
        for (node, task) in self.graph.nodes.iter().zip(&mut self.tasks) {
            if self.constant[node.id.0] {
                let inputs: Vec<&[_]> = node.inputs.iter().map(|input| outputs[input.0].as_slice()).collect();
                outputs[node.id.0] = task.operator.step(&inputs, &context).await.map_err(|error| error.at(&task.label))?;
                continue;
            }
            for (place, input) in node.inputs.iter().enumerate().filter(|(_, input)| self.constant[input.0]) {
                task.operator.load_constant(place, &outputs[input.0]).map_err(|error| error.at(&task.label))?;
            }
        }
        Ok(())
    }
}

/// Constants, and operators without state over nothing but constants.
fn constant_nodes(graph: &Graph) -> Vec<bool> {
    let mut constant: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let inputs = !node.inputs.is_empty() && node.inputs.iter().all(|input| constant.get(input.0).copied().unwrap_or(false));
        constant.push(match node.op {
            Op::Constant { .. } => true,
            Op::Map { .. } | Op::Unnest { .. } | Op::Union => inputs,
            _ => false,
        });
    }
    constant
}

fn no_bounds() -> BoundContext {
    BoundContext { watermarks: BTreeMap::new(), closed: Default::default(), epoch: Epoch::ZERO, clock: EventTime::MIN }
}

#[cfg(test)]
mod tests;
