//! Branches: parts of a graph that need not wait for each other.
//!
//! ```text
//!   person ──▶ Map ─▶ Aggregate ─┐
//!                                ├─▶ Join          groups: [person.., auction..], [Join]
//!   auction ─▶ Map ─▶ Aggregate ─┘
//! ```
//! A branch is a run of operators of which each reads the one before and nothing else, and is the only one to do so. Branches that stand
//! next to each other in the graph, none of which reads another, form a group. If an epoch brings several of its branches rows enough,
//! each has a thread; this one is one of them. What an operator gives depends on its inputs and its state alone, so nobody can tell.

use super::Task;
use crate::dataflow::Parallelism;
use crate::error::{DataflowError, Result};
use crate::operator::StepContext;
use futures::FutureExt;
use millstream_plan::graph::{Graph, Node, Op};
use millstream_types::cores;
use millstream_types::delta::{Delta, DeltaBatch, num_rows};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A thread is worth its start for this part of the rows that it takes to divide an operator: no rows have to be divided.
const PART_OF_ROWS: usize = 16;

/// The branches of a graph, by group.
pub(super) fn groups(graph: &Graph) -> Vec<Vec<Range<usize>>> {
    let mut readers = vec![0; graph.nodes.len()];
    for input in graph.nodes.iter().flat_map(|node| &node.inputs).chain([&graph.output]) {
        readers[input.0] += 1;
    }
    let mut groups: Vec<Vec<Range<usize>>> = vec![];
    for (place, node) in graph.nodes.iter().enumerate() {
        let goes_on = matches!(node.inputs.as_slice(), [only] if only.0 + 1 == place && readers[only.0] == 1);
        if goes_on && let Some(branch) = groups.last_mut().and_then(|group| group.last_mut()) {
            branch.end = place + 1;
            continue;
        }
        let first = groups.last().and_then(|group| group.first());
        if !first.is_some_and(|first| node.inputs.iter().all(|input| input.0 < first.start)) {
            groups.push(vec![]);
        }
        groups.last_mut().into_iter().for_each(|group| group.push(place..place + 1));
    }
    groups
}

/// A branch in an epoch.
pub(super) struct Branch<'a> {
    nodes: &'a [Node],
    tasks: &'a mut [Task],
    /// What its first operator reads.
    inputs: Vec<&'a [DeltaBatch]>,
}

impl<'a> Branch<'a> {
    /// The branches of a group; `deltas`: the changes of the operators before it.
    pub(super) fn of_group(group: &[Range<usize>], nodes: &'a [Node], tasks: &'a mut [Task], deltas: &'a [Delta]) -> Vec<Self> {
        let mut rest = &mut tasks[group[0].start..];
        let branch = |range: &Range<usize>| {
            let (tasks, others) = std::mem::take(&mut rest).split_at_mut(range.len());
            rest = others;
            let nodes = &nodes[range.clone()];
            Branch { nodes, tasks, inputs: nodes[0].inputs.iter().map(|input| deltas[input.0].as_slice()).collect() }
        };
        group.iter().map(branch).collect()
    }

    /// Rows that come into it.
    fn rows(&self, context: &StepContext<'_>) -> usize {
        match &self.nodes[0].op {
            Op::Input { relation, .. } => context.deltas.get(relation).map_or(0, |delta| num_rows(delta)),
            _ => self.inputs.iter().map(|input| num_rows(input)).sum(),
        }
    }

    /// Whether it is worth a thread of its own: it has rows and work, waits for nothing, and shares no state.
    fn deserves_a_thread(&self, context: &StepContext<'_>, least_rows: usize) -> bool {
        self.nodes.iter().any(|node| has_work(&node.op))
            && self.nodes.iter().all(|node| never_waits(&node.op))
            && self.rows(context) >= least_rows
            && self.tasks.iter().all(|task| task.operator.stats().shared_with == 0)
    }

    /// The change of its last operator.
    async fn step(self, context: &StepContext<'_>) -> Result<Delta> {
        let mut delta = vec![];
        for (place, (node, task)) in self.nodes.iter().zip(self.tasks).enumerate() {
            let before = std::mem::take(&mut delta);
            delta = match place {
                0 => task.step(node, &self.inputs, context).await?,
                _ => task.step(node, &[&before], context).await?,
            };
        }
        Ok(delta)
    }
}

/// The changes of the branches of a group.
pub(super) async fn step(branches: Vec<Branch<'_>>, context: &StepContext<'_>, parallelism: Parallelism) -> Result<Vec<Delta>> {
    let mut deltas: Vec<Option<Result<Delta>>> = branches.iter().map(|_| None).collect();
    let mut alone: Vec<(usize, Branch<'_>)> = branches.into_iter().enumerate().collect();
    if alone.len() > 1 {
        let least_rows = (parallelism.from_rows / PART_OF_ROWS).max(1);
        let deserving: Vec<(usize, Branch<'_>)> =
            alone.extract_if(.., |(_, branch)| branch.deserves_a_thread(context, least_rows)).collect();
        if deserving.len() > 1 {
            side_by_side(deserving, context, &mut deltas)?;
        } else {
            alone.extend(deserving);
        }
    }
    for (place, branch) in alone {
        deltas[place] = Some(branch.step(context).await);
    }
    let missing = || Err(DataflowError::internal("a branch has no result"));
    deltas.into_iter().map(|delta| delta.unwrap_or_else(missing)).collect()
}

/// Runs branches that wait for nothing, on all cores; those with most rows first.
fn side_by_side(mut branches: Vec<(usize, Branch<'_>)>, context: &StepContext<'_>, deltas: &mut [Option<Result<Delta>>]) -> Result<()> {
    let threads = branches.len().min(cores());
    branches.sort_by_key(|(_, branch)| branch.rows(context));
    let waiting = Mutex::new(branches);
    let span = tracing::Span::current();
    let work = || {
        let _entered = span.enter();
        let mut done = vec![];
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some((place, branch)) = next() {
            let delta = branch.step(context).now_or_never();
            done.push((place, delta.unwrap_or_else(|| Err(DataflowError::internal("a branch waits")))));
        }
        done
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().map_err(|_| DataflowError::internal("the thread of a branch ended early"))?);
        }
        done.into_iter().for_each(|(place, delta)| deltas[place] = Some(delta));
        Ok(())
    })
}

/// Whether an operator does more per row than it takes to hand the row to another thread.
fn has_work(op: &Op) -> bool {
    matches!(
        op,
        Op::Aggregate { .. }
            | Op::Join { .. }
            | Op::PreAggregate { .. }
            | Op::SessionWindow { .. }
            | Op::StaticJoin { .. }
            | Op::TopN { .. }
    )
}

/// Whether the step of an operator is done when it is first polled: it runs no plan, and no code of others.
fn never_waits(op: &Op) -> bool {
    has_work(op) || matches!(op, Op::Input { .. } | Op::Map { .. } | Op::TemporalFilter { .. } | Op::Union | Op::WindowClose { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataflow::{Dataflow, DataflowContext};
    use crate::test_util::{Bag, GraphBuilder, add, batch, epoch_input, listed, random_delta, rng, schema, state};
    use arrow::datatypes::{DataType, SchemaRef};
    use datafusion::common::{DFSchema, JoinType};
    use datafusion::functions_aggregate::expr_fn::count;
    use datafusion::prelude::{col, lit};
    use millstream_plan::graph::{Emit, Keep};
    use rand::Rng;
    use std::sync::Arc;

    fn numbers() -> SchemaRef {
        schema(&[("k", DataType::Int64)])
    }

    /// How often each number is in two relations, side by side.
    fn graph() -> Graph {
        let counts = schema(&[("k", DataType::Int64), ("rows", DataType::Int64)]);
        let counted = |builder: &mut GraphBuilder, relation: &str| {
            let input = builder.input(relation, &numbers(), false);
            let op = Op::Aggregate {
                group: vec![col("k")],
                aggregates: vec![count(lit(1))],
                states: None,
                retracting: true,
                emit: Emit::Changes,
                bucket: None,
                state_ttl_micros: None,
            };
            builder.add(op, &[input], &counts, false)
        };
        let mut builder = GraphBuilder::default();
        let sides = ["t", "u"].map(|relation| counted(&mut builder, relation));
        let both = schema(&[("k", DataType::Int64), ("rows", DataType::Int64), ("k2", DataType::Int64), ("rows2", DataType::Int64)]);
        let op = Op::Join {
            join_type: JoinType::Full,
            on: vec![(col("k"), col("k"))],
            filter: None,
            filter_schema: Arc::new(DFSchema::empty()),
            null_equals_null: false,
            null_aware: false,
            keep: Box::new([Keep::Forever, Keep::Forever]),
            one_copy: false,
            lookup: false,
            state_ttl_micros: [None, None],
        };
        let joined = builder.add(op, &sides, &both, false);
        builder.finish(joined)
    }

    fn flow(from_rows: usize) -> Dataflow {
        Dataflow::new(graph(), DataflowContext { state: state(), parallelism: Parallelism { shards: 1, from_rows } }).unwrap()
    }

    #[test]
    fn neighbours_that_do_not_read_each_other_are_a_group() {
        let ends = |graph: &Graph| -> Vec<Vec<_>> {
            groups(graph).iter().map(|group| group.iter().map(|branch| (branch.start, branch.end)).collect()).collect()
        };
        assert_eq!(ends(&graph()), [vec![(0, 2), (2, 4)], vec![(4, 5)]]);
        let mut builder = GraphBuilder::default();
        let input = builder.input("t", &numbers(), true);
        // Two operators read the input: each begins a branch. The union reads both.
        let left = builder.add(Op::Union, &[input], &numbers(), true);
        let right = builder.add(Op::Union, &[input], &numbers(), true);
        let both = builder.add(Op::Union, &[left, right], &numbers(), true);
        let top = builder.add(Op::Union, &[both], &numbers(), true);
        assert_eq!(ends(&builder.finish(top)), [vec![(0, 1)], vec![(1, 2), (2, 3)], vec![(3, 5)]]);
    }

    #[tokio::test]
    async fn threads_change_nothing() {
        let (mut alone, mut threads, mut rng) = (flow(usize::MAX), flow(PART_OF_ROWS), rng(3));
        let mut relations = [Bag::new(), Bag::new()];
        for epoch in 1..200 {
            let deltas = relations.each_mut().map(|relation| {
                let delta = random_delta(&mut rng, &numbers(), relation, true, |rng| vec![Some(rng.random_range(0..9))]);
                add(relation, &delta);
                delta
            });
            let input = epoch_input(epoch, &[("t", deltas[0].clone()), ("u", deltas[1].clone())], 0);
            assert_eq!(listed(&threads.step(&input).await.unwrap()), listed(&alone.step(&input).await.unwrap()), "epoch {epoch}");
        }
        let stats = |flow: &Dataflow| flow.operator_stats().iter().map(|stats| (stats.rows_in, stats.rows_out)).collect::<Vec<_>>();
        assert_eq!(stats(&threads), stats(&alone));
    }

    #[tokio::test]
    async fn a_branch_needs_rows_and_work_for_a_thread() {
        let mut flow = flow(10 * PART_OF_ROWS);
        let rows = |count: i64| vec![DeltaBatch::insertions(batch(&numbers(), &(0..count).map(|k| vec![Some(k)]).collect::<Vec<_>>()))];
        let input = epoch_input(1, &[("t", rows(10)), ("u", rows(9))], 0);
        let context = StepContext { deltas: &input.deltas, bounds: &input.bounds, first: true, task: &flow.task };
        let deltas = vec![vec![]; 5];
        let branches = Branch::of_group(&flow.groups[0], &flow.graph.nodes, &mut flow.tasks, &deltas);
        assert_eq!(branches.iter().map(|branch| branch.deserves_a_thread(&context, 10)).collect::<Vec<_>>(), [true, false]);
    }

    #[tokio::test]
    async fn the_first_branch_that_fails_is_the_error() {
        let gone = vec![DeltaBatch::weighted(batch(&numbers(), &[vec![Some(7)]]), vec![-1].into())];
        let error = flow(1).step(&epoch_input(1, &[("t", gone.clone()), ("u", gone)], 0)).await.unwrap_err();
        assert!(error.to_string().contains("Aggregate #1"), "{error}");
    }
}
