//! Sharded: an operator with state by key whose shards work at the same time.
//!
//! ```text
//!   delta ─▶ 256 key groups ─┬─▶ shard 0: rows and state of groups 0 to 127   ─┬─▶ delta of shard 0, then that of shard 1
//!                            └─▶ shard 1: rows and state of groups 128 to 255 ─┘
//! ```
//! The operator begins as one. A change of at least [`Parallelism::from_rows`] rows divides it, for good, if its state is not much larger
//! than the change, since all of it is divided then; so a replay and a view over history use all cores, and state that small epochs have
//! built up stays in one piece, where small epochs cost the least. Changes of that size are worked on by a thread for each shard, smaller
//! ones by this thread alone.
//!
//! **In, out, errors**: those of the operator. **Order**: the changes of the shards come in the order of the shards; groups that close do
//! so in the order of their buckets. What is divided, when, and into how many shards follows from the changes and from the setting, and a
//! checkpoint has the number of shards, so that a restart goes on with the very same order of rows.
//! **State**: in a checkpoint that of one operator, shard by shard. Rows that shards share with other queries are written by each of these.

mod keys;
#[cfg(test)]
mod tests;

use crate::bucket::BucketColumn;
use crate::dataflow::Parallelism;
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, Saved, Sharing, StateStats, StepContext};
use crate::operators::SharedArrangements;
use crate::operators::registry::{BuildContext, Shard, build_one};
use arrow::array::UInt32Array;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SessionState;
use futures::FutureExt;
use keys::{Keys, Picked};
use millstream_plan::graph::{Emit, Graph, Node, NodeId, Op};
use millstream_types::EventTime;
use millstream_types::delta::{Delta, DeltaBatch, num_rows};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// State of up to so many rows for each row of the change is divided.
const STATE_ROWS: usize = 16;
/// Name of the number of shards in the detail of a checkpoint.
const SHARDS: &str = "shards";

/// The operator.
pub(crate) struct Sharded {
    running: Running,
    keys: Keys,
    parallelism: Parallelism,
    recipe: Recipe,
    /// Groups are handed out when they close: the schema of the result, and its column whose order they come in.
    closing: Option<(SchemaRef, BucketColumn)>,
    /// Counters of the time before it was divided.
    before: StateStats,
}

enum Running {
    Whole(Box<dyn Operator>),
    Shards(Vec<Box<dyn Operator>>),
}

/// What shards are made from.
struct Recipe {
    graph: Arc<Graph>,
    node: NodeId,
    state: Arc<SessionState>,
    constant: Arc<[bool]>,
}

impl Recipe {
    fn shard(&self, shard: Shard) -> Result<Box<dyn Operator>> {
        let context = BuildContext {
            graph: &self.graph,
            state: &self.state,
            constant: &self.constant,
            parallelism: Parallelism::NONE,
            shard: Some(shard),
        };
        build_one(self.graph.node(self.node), &context)
    }
}

impl Sharded {
    /// The operator of a node, which may be divided if its state is by key.
    pub(crate) fn wrap(operator: Box<dyn Operator>, node: &Node, context: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
        if context.parallelism.shards < 2 {
            return Ok(operator);
        }
        let Some(keys) = Keys::of(node, context)? else { return Ok(operator) };
        let closing = match &node.op {
            Op::Aggregate { emit: Emit::OnClose, bucket: Some(bucket), .. } => {
                let column = BucketColumn::new(bucket.column, Arc::clone(&bucket.bound), node.schema.field(bucket.column).data_type())?;
                Some((Arc::clone(&node.schema), column))
            }
            _ => None,
        };
        let recipe = Recipe {
            graph: Arc::clone(context.graph),
            node: node.id,
            state: Arc::clone(context.state),
            constant: Arc::clone(context.constant),
        };
        let running = Running::Whole(operator);
        Ok(Box::new(Self { running, keys, parallelism: context.parallelism, recipe, closing, before: StateStats::default() }))
    }

    fn each(&self) -> &[Box<dyn Operator>] {
        match &self.running {
            Running::Whole(operator) => std::slice::from_ref(operator),
            Running::Shards(shards) => shards,
        }
    }

    fn each_mut(&mut self) -> &mut [Box<dyn Operator>] {
        match &mut self.running {
            Running::Whole(operator) => std::slice::from_mut(operator),
            Running::Shards(shards) => shards,
        }
    }

    /// Divides the operator if a change of so many rows is worth it.
    fn divide_for(&mut self, rows: usize) -> Result<()> {
        let Running::Whole(operator) = &mut self.running else { return Ok(()) };
        if rows < self.parallelism.from_rows {
            return Ok(());
        }
        let stats = operator.stats();
        if stats.shared_with > 0 || stats.rows / STATE_ROWS > rows {
            return Ok(());
        }
        if let Some(sharing) = operator.sharing()
            && !sharing.part()?
        {
            return Err(DataflowError::internal("rows that nobody shares are lost"));
        }
        let saved = operator.checkpoint()?.unwrap_or_default();
        self.before = StateStats { rows: 0, bytes: 0, shared: (0, 0), shared_with: 0, ..stats };
        self.divide(&saved, self.parallelism.shards)
    }

    /// Becomes so many shards with this state.
    fn divide(&mut self, saved: &Saved, count: usize) -> Result<()> {
        let mut shards = vec![];
        let mut states: Vec<Saved> =
            (0..count).map(|_| Saved { format: saved.format, groups: vec![], detail: saved.detail.clone() }).collect();
        for (group, batches) in &saved.groups {
            states.iter_mut().for_each(|state| state.groups.push((group.clone(), vec![])));
            for batch in batches {
                for (state, rows) in states.iter_mut().zip(self.keys.divide_saved(group, batch, count)?) {
                    if let (Some((_, batches)), Some(rows)) = (state.groups.last_mut(), rows) {
                        batches.push(rows);
                    }
                }
            }
        }
        for (place, state) in states.iter().enumerate() {
            let mut shard = self.recipe.shard(Shard { place, count })?;
            shard.restore(state)?;
            shards.push(shard);
        }
        self.running = Running::Shards(shards);
        Ok(())
    }

    /// Puts the rows of groups that close into the order of their buckets.
    fn in_order(&self, delta: Delta) -> Result<Delta> {
        let Some((schema, column)) = self.closing.as_ref().filter(|_| delta.len() > 1) else { return Ok(delta) };
        let all = concat_batches(schema, delta.iter().map(|part| &part.batch))?;
        let keys = column.keys(all.column(column.column))?;
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_by(|a, b| keys[*a as usize].cmp(&keys[*b as usize]));
        Ok(vec![DeltaBatch::insertions(all).take(&UInt32Array::from(order))?])
    }
}

/// The change of one shard. None of the operators that are divided waits for anything.
fn step_shard(shard: &mut Box<dyn Operator>, inputs: &[Vec<Picked<'_>>], context: &StepContext<'_>) -> Result<Delta> {
    let inputs = inputs.iter().map(|picked| picked.iter().map(Picked::rows).collect()).collect::<Result<Vec<Delta>>>()?;
    let inputs: Vec<&[DeltaBatch]> = inputs.iter().map(Vec::as_slice).collect();
    let step = shard.step(&inputs, context).now_or_never();
    step.unwrap_or_else(|| Err(DataflowError::internal("a shard waits")))
}

#[async_trait]
impl Operator for Sharded {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        for operator in self.each() {
            if operator.needs_step(context)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn next_due(&self) -> Option<EventTime> {
        self.each().iter().filter_map(|operator| operator.next_due()).min()
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let rows: usize = inputs.iter().map(|input| num_rows(input)).sum();
        self.divide_for(rows)?;
        let shards = match &mut self.running {
            Running::Whole(operator) => return operator.step(inputs, context).await,
            Running::Shards(shards) => shards,
        };
        // By shard, then by input.
        let mut divided: Vec<Vec<Vec<Picked<'_>>>> = (0..shards.len()).map(|_| vec![]).collect();
        for (place, input) in inputs.iter().enumerate() {
            let by_shard = self.keys.divide(place, input, shards.len())?;
            divided.iter_mut().zip(by_shard).for_each(|(shard, rows)| shard.push(rows));
        }
        // All of them step, also without rows: bounds move for all.
        let mut work = shards.iter_mut().zip(&divided);
        let deltas: Vec<Result<Delta>> = if rows < self.parallelism.from_rows {
            work.map(|(shard, inputs)| step_shard(shard, inputs, context)).collect()
        } else {
            let first = work.next();
            std::thread::scope(|scope| {
                let others: Vec<_> = work.map(|(shard, inputs)| scope.spawn(move || step_shard(shard, inputs, context))).collect();
                let mut deltas: Vec<_> = first.into_iter().map(|(shard, inputs)| step_shard(shard, inputs, context)).collect();
                let ended = |_| Err(DataflowError::internal("the thread of a shard ended early"));
                deltas.extend(others.into_iter().map(|other| other.join().unwrap_or_else(ended)));
                deltas
            })
        };
        let mut output = vec![];
        for delta in deltas {
            output.extend(delta?);
        }
        output.retain(|part| part.num_rows() > 0);
        self.in_order(output)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let shards = match &mut self.running {
            Running::Whole(operator) => return operator.checkpoint(),
            Running::Shards(shards) => shards,
        };
        let mut all: Option<Saved> = None;
        for shard in shards.iter_mut() {
            let Some(saved) = shard.checkpoint()? else { continue };
            match &mut all {
                None => all = Some(saved),
                Some(all) => all.groups.iter_mut().zip(saved.groups).for_each(|((_, batches), (_, more))| batches.extend(more)),
            }
        }
        if let Some(serde_json::Value::Object(detail)) = all.as_mut().map(|all| &mut all.detail) {
            detail.insert(SHARDS.to_string(), shards.len().into());
        }
        Ok(all)
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        match saved.detail::<Option<usize>>(SHARDS)? {
            Some(count @ 2..) => self.divide(saved, count),
            _ => self.each_mut().iter_mut().try_for_each(|operator| operator.restore(saved)),
        }
    }

    fn load_constant(&mut self, input: usize, delta: &[DeltaBatch]) -> Result<()> {
        self.each_mut().iter_mut().try_for_each(|operator| operator.load_constant(input, delta))
    }

    fn sharing(&mut self) -> Option<&mut dyn Sharing> {
        self.each_mut().iter_mut().all(|operator| operator.sharing().is_some()).then_some(self as &mut dyn Sharing)
    }

    fn stats(&self) -> StateStats {
        let shards = match &self.running {
            Running::Whole(_) => 0,
            Running::Shards(shards) => shards.len(),
        };
        let before = StateStats { shards, ..self.before };
        self.each().iter().map(|operator| operator.stats()).fold(before, |sum, stats| StateStats {
            rows: sum.rows + stats.rows,
            bytes: sum.bytes + stats.bytes,
            shared: (sum.shared.0 + stats.shared.0, sum.shared.1 + stats.shared.1),
            shared_with: sum.shared_with.max(stats.shared_with),
            shards,
            touched_keys: sum.touched_keys + stats.touched_keys,
            read_rows: sum.read_rows + stats.read_rows,
            dropped_rows: sum.dropped_rows + stats.dropped_rows,
        })
    }
}

/// Each shard shares with the same shard of others.
impl Sharing for Sharded {
    fn share(&mut self, arrangements: &SharedArrangements) -> Result<()> {
        self.each_mut().iter_mut().filter_map(|operator| operator.sharing()).try_for_each(|sharing| sharing.share(arrangements))
    }

    fn part(&mut self) -> Result<bool> {
        let mut whole = true;
        for sharing in self.each_mut().iter_mut().filter_map(|operator| operator.sharing()) {
            whole &= sharing.part()?;
        }
        Ok(whole)
    }

    fn let_go(&mut self) {
        self.each_mut().iter_mut().filter_map(|operator| operator.sharing()).for_each(Sharing::let_go);
    }

    fn checkpoint(&mut self, written: &mut BTreeSet<u64>) -> Result<(Saved, BTreeMap<String, u64>)> {
        if let Running::Whole(operator) = &mut self.running
            && let Some(sharing) = operator.sharing()
        {
            return sharing.checkpoint(written);
        }
        Ok((Operator::checkpoint(self)?.unwrap_or_default(), BTreeMap::new()))
    }

    fn restore(&mut self, saved: &Saved, numbers: &BTreeMap<String, u64>, arrangements: &SharedArrangements) -> Result<()> {
        match &mut self.running {
            Running::Whole(operator) if !numbers.is_empty() => match operator.sharing() {
                Some(sharing) => sharing.restore(saved, numbers, arrangements),
                None => Err(DataflowError::mismatch("its rows are shared with other queries")),
            },
            _ => Operator::restore(self, saved),
        }
    }
}
