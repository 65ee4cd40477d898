//! When operators are divided and what of it lasts. That shards change as the whole does, all tests of these operators show.

use crate::dataflow::{Dataflow, DataflowContext, Parallelism};
use crate::operators::SharedArrangements;
use crate::test_util::*;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, JoinType};
use datafusion::execution::memory_pool::UnboundedMemoryPool;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{col, lit};
use millstream_plan::graph::{Bucket, Emit, Graph, Keep, Op};
use millstream_types::delta::{Delta, DeltaBatch};
use std::sync::Arc;

fn input_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("ts", TIMESTAMP)])
}

/// count(*) by ts and k.
fn counts(emit: Emit) -> Graph {
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &input_schema(), true);
    let op = Op::Aggregate {
        group: vec![col("ts"), col("k")],
        aggregates: vec![count(lit(1))],
        states: None,
        retracting: false,
        emit,
        bucket: Some(Bucket { column: 0, bound: watermark_bound() }),
        state_ttl_micros: None,
    };
    let output = schema(&[("ts", TIMESTAMP), ("k", DataType::Int64), ("n", DataType::Int64)]);
    let top = builder.add(op, &[input], &output, emit == Emit::OnClose);
    builder.finish(top)
}

/// t JOIN u ON t.k = u.k
fn pairs() -> Graph {
    let mut builder = GraphBuilder::default();
    let inputs = ["t", "u"].map(|name| builder.input(name, &input_schema(), true));
    let output = schema(&[("k", DataType::Int64), ("ts", TIMESTAMP), ("k2", DataType::Int64), ("ts2", TIMESTAMP)]);
    let op = Op::Join {
        join_type: JoinType::Inner,
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
    let top = builder.add(op, &inputs, &output, true);
    builder.finish(top)
}

fn flow(graph: Graph, shards: usize, from_rows: usize) -> Dataflow {
    let parallelism = Parallelism { shards, from_rows };
    Dataflow::new(graph, DataflowContext { state: state(), parallelism }).unwrap()
}

fn rows(keys: std::ops::Range<i64>, time: impl Fn(i64) -> i64) -> Delta {
    let rows: Vec<Row> = keys.map(|key| vec![Some(key), Some(time(key))]).collect();
    vec![DeltaBatch::insertions(batch(&input_schema(), &rows))]
}

fn shards(flow: &Dataflow) -> usize {
    flow.operator_stats().last().unwrap().shards
}

#[tokio::test]
async fn a_large_change_divides_state_that_is_not_much_larger() {
    let mut divided = flow(counts(Emit::Changes), 4, 100);
    divided.step(&epoch_input(1, &[("t", rows(0..99, |_| 5))], 0)).await.unwrap();
    assert_eq!(shards(&divided), 1);
    divided.step(&epoch_input(2, &[("t", rows(50..200, |_| 5))], 0)).await.unwrap();
    assert_eq!(shards(&divided), 4);
    assert_eq!(divided.operator_stats()[1].state_rows, 200);

    let mut whole = flow(counts(Emit::Changes), 4, 100);
    for from in (0..4_000).step_by(50) {
        whole.step(&epoch_input(1, &[("t", rows(from..from + 50, |_| 5))], 0)).await.unwrap();
    }
    whole.step(&epoch_input(2, &[("t", rows(0..100, |_| 5))], 0)).await.unwrap();
    assert_eq!(shards(&whole), 1);
}

#[tokio::test]
async fn a_restored_dataflow_has_the_shards_that_were_saved() {
    let mut saved = flow(counts(Emit::Changes), 4, 100);
    let first = saved.step(&epoch_input(1, &[("t", rows(0..300, |key| key % 7))], 0)).await.unwrap();
    assert_eq!(listed(&first).len(), 300);
    for (count, from_rows) in [(2, 100), (1, usize::MAX), (8, 1)] {
        let mut restored = flow(counts(Emit::Changes), count, from_rows);
        restored.restore(saved.checkpoint().unwrap()).await.unwrap();
        let expected = if count == 1 { 1 } else { 4 };
        assert_eq!(shards(&restored), expected, "where {count} would be made");
        assert_eq!(restored.operator_stats()[1].state_rows, 300);
    }
    let mut restored = flow(counts(Emit::Changes), 4, 100);
    restored.restore(saved.checkpoint().unwrap()).await.unwrap();
    let next = epoch_input(2, &[("t", rows(100..400, |key| key % 7))], 0);
    assert_eq!(listed(&restored.step(&next).await.unwrap()), listed(&saved.step(&next).await.unwrap()));
}

#[tokio::test]
async fn groups_of_all_shards_close_in_the_order_of_their_buckets() {
    let mut divided = flow(counts(Emit::OnClose), 4, 100);
    divided.step(&epoch_input(1, &[("t", rows(0..500, |key| key * 31 % 50))], 0)).await.unwrap();
    assert_eq!(shards(&divided), 4);
    let closed = listed(&divided.step(&epoch_input(2, &[], 40)).await.unwrap());
    let times: Vec<_> = closed.iter().map(|(row, _)| row[0]).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(times.len(), 400);
}

#[tokio::test]
async fn shards_share_rows_with_the_same_shards_of_others() {
    let arrangements = SharedArrangements::new(Arc::new(UnboundedMemoryPool::default()));
    let history = [("t", rows(0..200, |_| 1)), ("u", rows(100..300, |_| 2))];
    let mut flows = [flow(pairs(), 4, 100), flow(pairs(), 4, 100)];
    for flow in &mut flows {
        assert_eq!(listed(&flow.step(&epoch_input(1, &history, 0)).await.unwrap()).len(), 100);
        flow.share(&arrangements).unwrap();
    }
    let stats = |flow: &Dataflow| flow.operator_stats().last().map(|stats| (stats.shards, stats.shared_with, stats.state_rows)).unwrap();
    assert_eq!(flows.each_ref().map(stats), [(4, 1, 400), (4, 1, 0)]);
    // Both keep up, and so do their copies.
    let mut written = Default::default();
    let saved = flows.each_mut().map(|flow| flow.checkpoint_shared(&mut written).unwrap());
    let others = SharedArrangements::new(Arc::new(UnboundedMemoryPool::default()));
    let next = epoch_input(2, &[("t", rows(250..260, |_| 3)), ("u", rows(255..265, |_| 4))], 0);
    for (flow, saved) in flows.iter_mut().zip(saved) {
        let mut copy = self::flow(pairs(), 4, 100);
        copy.restore_shared(saved, &others).await.unwrap();
        let found = listed(&flow.step(&next).await.unwrap());
        // The new rows of t meet 250 to 259 of u, and 255 to 259 again, which are new.
        assert_eq!(found.len(), 15);
        assert_eq!(listed(&copy.step(&next).await.unwrap()).len(), 15);
    }
    arrangements.end_epoch();
}
