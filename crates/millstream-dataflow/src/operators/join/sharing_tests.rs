//! Joins that share rows against nested loops: queries that come, are left out, catch up and go, and checkpoints of all of them.

use super::shared::SharedArrangements;
use super::tests::{Case, cases, join, left_schema, naive, output_schema, random_pair, right_schema};
use crate::dataflow::{Dataflow, DataflowContext, OperatorState};
use crate::test_util::*;
use arrow::array::RecordBatch;
use datafusion::common::JoinType;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool};
use millstream_plan::graph::{Graph, Keep};
use millstream_types::delta::{Delta, DeltaBatch};
use rand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A query and what its result adds up to.
struct Query {
    case: Case,
    flow: Dataflow,
    result: Bag,
    /// The changes that it was left out of.
    missed: Option<[Delta; 2]>,
}

/// The relations and the queries over them.
struct Pipeline {
    pool: Arc<dyn MemoryPool>,
    arrangements: SharedArrangements,
    content: [Bag; 2],
    epoch: u64,
    queries: Vec<Query>,
}

fn kind(join_type: JoinType, append_only: [bool; 2]) -> Case {
    Case { join_type, keys: true, filter: false, null_equals_null: false, null_aware: false, append_only }
}

fn graph(case: &Case) -> Graph {
    let monotone = matches!(case.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi);
    let mut builder = GraphBuilder::default();
    let l = builder.input("l", &left_schema(), case.append_only[0]);
    let r = builder.input("r", &right_schema(), case.append_only[1]);
    let op = join(case, [Keep::Forever, Keep::Forever], false);
    let top = builder.add(op, &[l, r], &output_schema(case.join_type), monotone && case.append_only == [true, true]);
    builder.finish(top)
}

fn rows(bag: &Bag, schema: &arrow::datatypes::SchemaRef) -> Delta {
    let rows = expanded(bag);
    if rows.is_empty() { vec![] } else { vec![DeltaBatch::insertions(batch(schema, &rows))] }
}

impl Pipeline {
    fn new() -> Self {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 30));
        let arrangements = SharedArrangements::new(Arc::clone(&pool));
        Self { pool, arrangements, content: Default::default(), epoch: 0, queries: vec![] }
    }

    fn flow(case: &Case) -> Dataflow {
        Dataflow::new(graph(case), DataflowContext::new(state())).unwrap()
    }

    /// A query that begins with everything there is, or with `content`.
    async fn create(&mut self, case: Case, content: Option<[Delta; 2]>) {
        let whole = || [rows(&self.content[0], &left_schema()), rows(&self.content[1], &right_schema())];
        let [l, r] = content.unwrap_or_else(whole);
        let mut flow = Self::flow(&case);
        let mut result = Bag::new();
        add(&mut result, &flow.step(&epoch_input(self.epoch, &[("l", l), ("r", r)], 0)).await.unwrap());
        flow.share(&self.arrangements).unwrap();
        self.queries.push(Query { case, flow, result, missed: None });
    }

    /// One epoch. The query `left_out` does not take part.
    async fn step(&mut self, deltas: [Delta; 2], left_out: Option<usize>) {
        self.epoch += 1;
        for (content, delta) in self.content.iter_mut().zip(&deltas) {
            add(content, delta);
        }
        let input = epoch_input(self.epoch, &[("l", deltas[0].clone()), ("r", deltas[1].clone())], 0);
        for (index, query) in self.queries.iter_mut().enumerate() {
            if let Some(missed) = &mut query.missed {
                missed.iter_mut().zip(&deltas).for_each(|(missed, delta)| missed.extend(delta.iter().cloned()));
            } else if left_out == Some(index) {
                query.missed = Some(deltas.clone());
            } else {
                let change = query.flow.step(&input).await.unwrap();
                let output = query.flow.graph().output_node();
                assert!(!output.properties.append_only || append_only(&change), "{:?}", query.case);
                add(&mut query.result, &change);
            }
        }
        if let Some(index) = left_out {
            assert!(self.queries[index].flow.part().unwrap());
        }
        self.arrangements.end_epoch();
        self.check();
    }

    fn check(&self) {
        for (index, query) in self.queries.iter().enumerate().filter(|(_, query)| query.missed.is_none()) {
            let expected = naive(&self.content[0], &self.content[1], &query.case);
            assert_eq!(query.result, expected, "query {index} in epoch {}: {:?}", self.epoch, query.case);
        }
    }

    /// Queries that were left out get what they have missed as one change.
    async fn catch_up(&mut self) {
        for query in &mut self.queries {
            if let Some([l, r]) = query.missed.take() {
                let change = query.flow.step(&epoch_input(self.epoch, &[("l", l), ("r", r)], 0)).await.unwrap();
                add(&mut query.result, &change);
                query.flow.share(&self.arrangements).unwrap();
            }
        }
        self.check();
    }

    /// Everything is saved and comes back, the last query first.
    async fn restart(&mut self) {
        let mut written = BTreeSet::new();
        let saved: Vec<Vec<OperatorState>> =
            self.queries.iter_mut().map(|query| query.flow.checkpoint_shared(&mut written).unwrap()).collect();
        let mut shared: BTreeMap<u64, Vec<RecordBatch>> = BTreeMap::new();
        for state in saved.iter().flatten() {
            for (group, batches) in state.groups.iter().filter(|(group, _)| state.shared.contains_key(group)) {
                let twice = shared.insert(state.shared[group], batches.clone());
                assert!(twice.is_none(), "rows are saved once");
            }
        }
        self.arrangements = SharedArrangements::new(Arc::clone(&self.pool));
        for (query, mut states) in self.queries.iter_mut().zip(saved).rev() {
            for state in &mut states {
                let known = |group: &String| state.shared.get(group).copied();
                state.groups.retain(|(group, _)| known(group).is_none());
                for (group, number) in state.shared.iter().filter(|(_, number)| !self.arrangements.has(**number)) {
                    state.groups.push((group.clone(), shared[number].clone()));
                }
            }
            query.flow = Self::flow(&query.case);
            query.flow.restore_shared(states, &self.arrangements).await.unwrap();
        }
    }

    fn shared_with(&self) -> Vec<usize> {
        self.queries.iter().map(|query| query.flow.operator_stats()[2].shared_with).collect()
    }

    fn state_rows(&self) -> Vec<usize> {
        self.queries.iter().map(|query| query.flow.operator_stats()[2].state_rows).collect()
    }
}

#[tokio::test]
async fn sharers_get_what_each_would_get_alone() {
    let mut shared = 0;
    for (number, case) in cases().into_iter().enumerate() {
        let append_only = case.append_only;
        let mut pipeline = Pipeline::new();
        let mut rng = rng(number as u64);
        let (keys, null_equals_null) = (case.keys, case.null_equals_null);
        let inner = Case { keys, null_equals_null, filter: number % 2 == 0, ..kind(JoinType::Inner, append_only) };
        pipeline.create(case, None).await;
        pipeline.create(inner.clone(), None).await;
        for epoch in 0..14 {
            let l = random_delta(&mut rng, &left_schema(), &pipeline.content[0], !append_only[0], random_pair);
            let r = random_delta(&mut rng, &right_schema(), &pipeline.content[1], !append_only[1], random_pair);
            let deltas = match rng.random_range(0..4) {
                0 => [l, vec![]],
                1 => [vec![], r],
                _ => [l, r],
            };
            let left_out = rng.random_bool(0.2).then(|| rng.random_range(0..pipeline.queries.len()));
            let left_out = left_out.filter(|index| pipeline.queries[*index].missed.is_none());
            pipeline.step(deltas, left_out).await;
            if rng.random_bool(0.4) {
                pipeline.catch_up().await;
            }
            if rng.random_bool(0.2) {
                pipeline.restart().await;
            }
            match epoch {
                4 | 10 => pipeline.create(inner.clone(), None).await,
                8 => drop(pipeline.queries.remove(0)),
                _ => {}
            }
            shared += pipeline.shared_with().into_iter().max().unwrap();
        }
        let pool = Arc::clone(&pipeline.pool);
        drop(pipeline);
        assert_eq!(pool.reserved(), 0, "all memory is given back");
    }
    assert!(shared > 1000, "{shared}");
}

fn pairs(rows: &[(i64, i64)]) -> Vec<Row> {
    rows.iter().map(|(key, value)| vec![Some(*key), Some(*value)]).collect()
}

fn inserted(schema: &arrow::datatypes::SchemaRef, rows: &[(i64, i64)]) -> Delta {
    vec![DeltaBatch::insertions(batch(schema, &pairs(rows)))]
}

/// The first of the sharers counts the rows; when it goes, the next one does.
#[tokio::test]
async fn shared_rows_are_counted_once() {
    let mut pipeline = Pipeline::new();
    let inner = kind(JoinType::Inner, [true, false]);
    pipeline.create(kind(JoinType::Left, [true, false]), None).await;
    pipeline.create(inner.clone(), None).await;
    pipeline.step([inserted(&left_schema(), &[(1, 1), (2, 2)]), inserted(&right_schema(), &[(1, 10), (2, 20), (3, 30)])], None).await;
    // The left join counts the matches of its left rows, and keeps these for itself.
    assert_eq!((pipeline.state_rows(), pipeline.shared_with()), (vec![5, 2], vec![1, 1]));
    pipeline.create(inner, None).await;
    assert_eq!((pipeline.state_rows(), pipeline.shared_with()), (vec![5, 2, 0], vec![2, 2, 2]));
    let reserved = pipeline.pool.reserved();
    pipeline.queries.remove(0);
    assert_eq!((pipeline.state_rows(), pipeline.shared_with()), (vec![5, 0], vec![1, 1]));
    assert!(pipeline.pool.reserved() <= reserved);
    pipeline.queries.remove(0);
    assert_eq!((pipeline.state_rows(), pipeline.shared_with()), (vec![5], vec![0]));
}

/// A query that has seen less begins rows of its own, which others who have seen as much share.
#[tokio::test]
async fn only_equal_rows_are_shared() {
    let mut pipeline = Pipeline::new();
    let inner = kind(JoinType::Inner, [true, true]);
    pipeline.create(inner.clone(), None).await;
    pipeline.step([inserted(&left_schema(), &[(1, 1), (2, 2)]), inserted(&right_schema(), &[(1, 10), (2, 20)])], None).await;
    let less = || Some([inserted(&left_schema(), &[(2, 2)]), inserted(&right_schema(), &[(2, 20)])]);
    let other = || Some([inserted(&left_schema(), &[(1, 1), (2, 2)]), inserted(&right_schema(), &[(1, 10), (2, 21)])]);
    pipeline.create(inner.clone(), less()).await;
    pipeline.create(inner.clone(), other()).await;
    // As many left rows as the first one has, and the same.
    assert_eq!(pipeline.shared_with(), [1, 0, 1]);
    assert_eq!(pipeline.state_rows(), [4, 2, 2]);
    pipeline.create(inner, less()).await;
    assert_eq!(pipeline.shared_with(), [1, 1, 1, 1]);
    assert_eq!(pipeline.state_rows(), [4, 2, 2, 0]);
    pipeline.restart().await;
    assert_eq!(pipeline.shared_with(), [1, 1, 1, 1]);
}

/// A change that does not fit loses the rows for everybody.
#[tokio::test]
async fn all_sharers_fail_with_the_rows() {
    let mut pipeline = Pipeline::new();
    let inner = kind(JoinType::Inner, [true, false]);
    pipeline.create(inner.clone(), None).await;
    pipeline.create(inner.clone(), None).await;
    pipeline.create(inner, None).await;
    let gone = inserted(&right_schema(), &[(1, 2)]).iter().map(DeltaBatch::negated).collect();
    let input = epoch_input(1, &[("r", gone)], 0);
    for query in &mut pipeline.queries[..2] {
        let error = query.flow.step(&input).await.unwrap_err();
        assert_eq!(error.to_string(), "relation \"Join\" would hold the row (rk = 1, rv = 2) -1 times");
    }
    assert!(!pipeline.queries[2].flow.part().unwrap(), "the rows of before are lost, too");
    pipeline.queries.iter_mut().for_each(|query| query.flow.let_go());
    pipeline.arrangements.end_epoch();
    // Whoever comes next begins anew.
    pipeline.queries.clear();
    pipeline.create(kind(JoinType::Inner, [true, false]), None).await;
    pipeline.step([inserted(&left_schema(), &[(1, 1)]), inserted(&right_schema(), &[(1, 10)])], None).await;
    assert_eq!(pipeline.shared_with(), [0]);
}

/// Checkpoints of versions that did not share hold the rows of each query.
#[tokio::test]
async fn state_that_is_not_shared_is_read() {
    let mut pipeline = Pipeline::new();
    let inner = kind(JoinType::Inner, [true, false]);
    pipeline.create(inner.clone(), None).await;
    pipeline.create(inner, None).await;
    pipeline.step([inserted(&left_schema(), &[(1, 1), (2, 2)]), inserted(&right_schema(), &[(1, 10), (2, 20)])], None).await;
    let saved: Vec<_> = pipeline.queries.iter_mut().map(|query| query.flow.checkpoint().unwrap()).collect();
    pipeline.arrangements = SharedArrangements::new(Arc::clone(&pipeline.pool));
    for (query, states) in pipeline.queries.iter_mut().zip(saved) {
        assert!(states.iter().all(|state| state.shared.is_empty() && state.format == 1));
        query.flow = Pipeline::flow(&query.case);
        query.flow.restore_shared(states, &pipeline.arrangements).await.unwrap();
    }
    assert_eq!((pipeline.state_rows(), pipeline.shared_with()), (vec![4, 4], vec![0, 0]));
    for query in &mut pipeline.queries {
        query.flow.share(&pipeline.arrangements).unwrap();
    }
    assert_eq!((pipeline.state_rows(), pipeline.shared_with()), (vec![4, 0], vec![1, 1]));
    pipeline.step([inserted(&left_schema(), &[(1, 3)]), inserted(&right_schema(), &[(1, 11)])], None).await;
}
