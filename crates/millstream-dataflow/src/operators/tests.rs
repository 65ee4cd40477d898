//! Map, Union, Unnest, StaticJoin, Recompute and WindowClose against naive models, over random changes.

use crate::test_util::*;
use arrow::array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::{Column, JoinType};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{col, lit};
use millstream_plan::graph::{Bucket, Graph, Op};
use millstream_plan::leaf::InputLeaf;
use millstream_types::delta::DeltaBatch;
use millstream_types::{Classified, ErrorKind};
use rand::Rng;
use rand::rngs::SmallRng;
use std::sync::Arc;

fn two_columns() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("v", DataType::Int64)])
}

fn random_pair(rng: &mut SmallRng) -> Row {
    let mut value = |range| (!rng.random_bool(0.15)).then(|| rng.random_range(range));
    vec![value(0..8), value(-9..9)]
}

pub(super) fn constant(rows: &[Row], schema: &SchemaRef) -> Op {
    let table = MemTable::try_new(Arc::clone(schema), vec![vec![batch(schema, rows)]]).unwrap();
    let plan = LogicalPlanBuilder::scan("c", provider_as_source(Arc::new(table)), None).unwrap().build().unwrap();
    Op::Constant { plan: Arc::new(plan), tables: vec!["c".into()] }
}

#[tokio::test]
async fn map_filters_and_projects_and_keeps_weights() {
    let output = schema(&[("w", DataType::Int64), ("k", DataType::Int64)]);
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &two_columns(), false);
    let op =
        Op::Map { predicates: vec![col("v").gt(lit(-5i64)), col("k").lt(lit(6i64))], exprs: Some(vec![col("v") + lit(1i64), col("k")]) };
    let top = builder.add(op, &[input], &output, false);
    let mut runner = Runner::new(builder.finish(top));
    let mut rng = rng(1);
    let (mut input, mut result) = (Bag::new(), Bag::new());
    for _ in 0..50 {
        let delta = random_delta(&mut rng, &two_columns(), &input, true, random_pair);
        add(&mut input, &delta);
        add(&mut result, &runner.step(&[("t", delta)], 0).await.unwrap());
        let expected = expanded(&input).into_iter().filter(|row| row[1] > Some(-5) && row[0].is_some_and(|k| k < 6));
        assert_eq!(result, bag(expected.map(|row| vec![row[1].map(|v| v + 1), row[0]])));
    }
}

#[tokio::test]
async fn overflow_names_the_operator() {
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &two_columns(), true);
    let op = Op::Map { predicates: vec![], exprs: Some(vec![col("k") * lit(i64::MAX), col("v")]) };
    let top = builder.add(op, &[input], &two_columns(), true);
    let mut runner = Runner::new(builder.finish(top));
    let rows = batch(&two_columns(), &[vec![Some(2), Some(2)]]);
    let error = runner.step(&[("t", vec![DeltaBatch::insertions(rows)])], 0).await.unwrap_err();
    assert!(error.to_string().starts_with("operator \"Map #1\" failed on the row (k = 2, v = 2): "), "{error}");
    assert_eq!(error.kind(), ErrorKind::Data);
}

#[tokio::test]
async fn inputs_take_columns_by_name_and_unions_cast() {
    let wide = schema(&[("v", DataType::Int64), ("x", DataType::Float64), ("k", DataType::Int64)]);
    let output = schema(&[("k", DataType::Float64)]);
    let one = schema(&[("k", DataType::Int64)]);
    let mut builder = GraphBuilder::default();
    let first = builder.input("t", &one, true);
    let second = builder.input("t", &one, true);
    let top = builder.add(Op::Union, &[first, second], &output, true);
    let mut runner = Runner::new(builder.finish(top));
    assert_eq!(runner.flow.input_columns(), [("t".to_string(), vec!["k".to_string()])].into());
    let rows = batch(&wide, &[vec![Some(1), Some(2), Some(3)]]);
    let change = runner.step(&[("t", vec![DeltaBatch::insertions(rows)])], 0).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(3000)], 1), (vec![Some(3000)], 1)]);
    let lacking = batch(&schema(&[("v", DataType::Int64)]), &[vec![Some(1)]]);
    let error = runner.step(&[("t", vec![DeltaBatch::insertions(lacking)])], 0).await.unwrap_err();
    assert_eq!(error.to_string(), "operator \"Input #0\": the change of relation \"t\" lacks column \"k\"");
}

fn lists(values: &[Option<Vec<Option<i64>>>]) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(values.iter().cloned()))
}

fn unnest_graph(columns: &[&str]) -> (Graph, SchemaRef) {
    let list = DataType::new_list(DataType::Int64, true);
    let fields = [("id", DataType::Int64), ("a", list.clone()), ("b", list)];
    let input_schema = schema(&fields[..columns.len() + 1]);
    let df_schema = Arc::new(datafusion::common::DFSchema::try_from(Arc::clone(&input_schema)).unwrap());
    let leaf = InputLeaf { index: 0, schema: df_schema, fingerprint: 1 };
    let columns = columns.iter().map(|name| Column::from_name(*name)).collect();
    let plan =
        LogicalPlanBuilder::from(leaf.into_plan()).unnest_columns_with_options(columns, Default::default()).unwrap().build().unwrap();
    let output = Arc::clone(plan.schema().inner());
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &input_schema, false);
    let top = builder.add(Op::Unnest { plan: Arc::new(plan) }, &[input], &output, false);
    (builder.finish(top), input_schema)
}

#[tokio::test]
async fn unnest_of_one_list() {
    let (graph, schema) = unnest_graph(&["a"]);
    let mut runner = Runner::new(graph);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    let list = lists(&[Some(vec![Some(10), None]), None, Some(vec![]), Some(vec![Some(40)])]);
    let whole = RecordBatch::try_new(schema, vec![ids, list]).unwrap();
    let weights = Int64Array::from(vec![2, 1, 1, -3]);
    let expected = [(vec![Some(1), Some(10)], 2), (vec![Some(1), None], 2), (vec![Some(2), None], 1), (vec![Some(4), Some(40)], -3)];
    let change = runner.step(&[("t", vec![DeltaBatch::weighted(whole.clone(), weights)])], 0).await.unwrap();
    assert_eq!(listed(&change), expected);
    let change = runner.step(&[("t", vec![DeltaBatch::insertions(whole.slice(3, 1))])], 0).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(4), Some(40)], 1)]);
}

#[tokio::test]
async fn unnest_of_two_lists_runs_the_plan_and_keeps_weights() {
    let (graph, schema) = unnest_graph(&["a", "b"]);
    let mut runner = Runner::new(graph);
    for _ in 0..2 {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let a = lists(&[Some(vec![Some(10)]), Some(vec![Some(20), Some(21)])]);
        let b = lists(&[Some(vec![Some(5), Some(6)]), None]);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![ids, a, b]).unwrap();
        let change = runner.step(&[("t", vec![DeltaBatch::weighted(batch, Int64Array::from(vec![1, -2]))])], 0).await.unwrap();
        let row = |id, a, b, weight| (vec![Some(id), a, b], weight);
        let expected = [row(1, Some(10), Some(5), 1), row(1, None, Some(6), 1), row(2, Some(20), None, -2), row(2, Some(21), None, -2)];
        assert_eq!(listed(&change), expected);
    }
}

/// What a join with these parameters gives for one left row, by nested loops.
fn naive_join(left: &Row, right: &[Row], op: &Join) -> Vec<Row> {
    let met = |r: &&Row| !op.filter || matches!((left[1], r[1]), (Some(a), Some(b)) if a < b);
    let key = |r: &&Row| !op.keys || (op.null_equals_null || left[0].is_some()) && left[0] == r[0];
    let matches: Vec<&Row> = right.iter().filter(key).filter(met).collect();
    let both = |r: &Row| left.iter().chain(r).copied().collect::<Row>();
    match op.join_type {
        JoinType::Inner => matches.into_iter().map(both).collect(),
        JoinType::Left if matches.is_empty() => vec![both(&vec![None, None])],
        JoinType::Left => matches.into_iter().map(both).collect(),
        JoinType::LeftSemi => {
            if matches.is_empty() {
                vec![]
            } else {
                vec![left.clone()]
            }
        }
        JoinType::LeftAnti if op.null_aware => {
            let candidates: Vec<&Row> = right.iter().filter(met).collect();
            let unknown = candidates.iter().any(|r| r[0].is_none() || left[0].is_none());
            if matches.is_empty() && !unknown { vec![left.clone()] } else { vec![] }
        }
        JoinType::LeftAnti => {
            if matches.is_empty() {
                vec![left.clone()]
            } else {
                vec![]
            }
        }
        JoinType::LeftMark => vec![left.iter().copied().chain([Some(i64::from(!matches.is_empty()))]).collect()],
        other => panic!("{other}"),
    }
}

#[derive(Debug)]
struct Join {
    join_type: JoinType,
    keys: bool,
    filter: bool,
    null_equals_null: bool,
    null_aware: bool,
    empty: bool,
}

#[tokio::test]
async fn static_joins_of_all_kinds() {
    let kinds = [JoinType::Inner, JoinType::Left, JoinType::LeftSemi, JoinType::LeftAnti, JoinType::LeftMark];
    let mut joins = Vec::new();
    for join_type in kinds {
        for choice in 0..16 {
            let (keys, filter, null_equals_null, empty) = (choice & 1 > 0, choice & 2 > 0, choice & 4 > 0, choice & 8 > 0);
            joins.push(Join { join_type, keys, filter, null_equals_null, null_aware: false, empty });
            if join_type == JoinType::LeftAnti && keys && !null_equals_null {
                joins.push(Join { join_type, keys, filter, null_equals_null, null_aware: true, empty });
            }
        }
    }
    for (number, join) in joins.iter().enumerate() {
        let mut rng = rng(number as u64);
        let right_schema = schema(&[("rk", DataType::Int64), ("rv", DataType::Int64)]);
        let mut right: Vec<Row> = (0..if join.empty { 0 } else { rng.random_range(1..12) }).map(|_| random_pair(&mut rng)).collect();
        if join.null_aware && rng.random_bool(0.5) {
            right.retain(|row| row[0].is_some());
        }
        let both = [("k", DataType::Int64), ("v", DataType::Int64), ("rk", DataType::Int64), ("rv", DataType::Int64)];
        let output = match join.join_type {
            JoinType::Inner | JoinType::Left => schema(&both),
            JoinType::LeftMark => schema(&[("k", DataType::Int64), ("v", DataType::Int64), ("mark", DataType::Boolean)]),
            _ => two_columns(),
        };
        let mut builder = GraphBuilder::default();
        let changing = builder.input("t", &two_columns(), false);
        let fixed = builder.add(constant(&right, &right_schema), &[], &right_schema, true);
        // A filter between the constant and the join is constant too.
        let fixed = builder.add(Op::Map { predicates: vec![], exprs: None }, &[fixed], &right_schema, true);
        let op = Op::StaticJoin {
            join_type: join.join_type,
            on: if join.keys { vec![(col("k"), col("rk"))] } else { vec![] },
            filter: join.filter.then(|| col("v").lt(col("rv"))),
            filter_schema: Arc::new(datafusion::common::DFSchema::try_from(schema(&both)).unwrap()),
            null_equals_null: join.null_equals_null,
            null_aware: join.null_aware,
        };
        let top = builder.add(op, &[changing, fixed], &output, false);
        let mut runner = Runner::new(builder.finish(top));
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for _ in 0..8 {
            let delta = random_delta(&mut rng, &two_columns(), &input, true, random_pair);
            add(&mut input, &delta);
            add(&mut result, &runner.step(&[("t", delta)], 0).await.unwrap());
            let expected = bag(expanded(&input).iter().flat_map(|left| naive_join(left, &right, join)));
            assert_eq!(result, expected, "{join:?} with {right:?}");
        }
    }
}

#[tokio::test]
async fn large_cross_joins_come_in_chunks() {
    let right: Vec<Row> = (0..1000).map(|n| vec![Some(n), Some(n)]).collect();
    let right_schema = schema(&[("rk", DataType::Int64), ("rv", DataType::Int64)]);
    let both = schema(&[("k", DataType::Int64), ("v", DataType::Int64), ("rk", DataType::Int64), ("rv", DataType::Int64)]);
    let mut builder = GraphBuilder::default();
    let changing = builder.input("t", &two_columns(), true);
    let fixed = builder.add(constant(&right, &right_schema), &[], &right_schema, true);
    let op = Op::StaticJoin {
        join_type: JoinType::Inner,
        on: vec![],
        filter: None,
        filter_schema: Arc::new(datafusion::common::DFSchema::try_from(Arc::clone(&both)).unwrap()),
        null_equals_null: false,
        null_aware: false,
    };
    let top = builder.add(op, &[changing, fixed], &both, true);
    let mut runner = Runner::new(builder.finish(top));
    let rows: Vec<Row> = (0..200).map(|n| vec![Some(n), None]).collect();
    let change = runner.step(&[("t", vec![DeltaBatch::insertions(batch(&two_columns(), &rows))])], 0).await.unwrap();
    assert_eq!(change.iter().map(DeltaBatch::num_rows).collect::<Vec<_>>(), [65536, 65536, 65536, 3392]);
    assert!(append_only(&change));
}

fn leaf(index: usize, schema: &SchemaRef) -> LogicalPlan {
    let schema = Arc::new(datafusion::common::DFSchema::try_from(Arc::clone(schema)).unwrap());
    InputLeaf { index, schema, fingerprint: index as u64 }.into_plan()
}

/// `SELECT k, max(v) FROM t JOIN c ON k = rk GROUP BY k`, with a changing `t` and a constant `c`.
fn recompute_graph(append_only: bool, right: &[Row]) -> Graph {
    let right_schema = schema(&[("rk", DataType::Int64), ("rv", DataType::Int64)]);
    let plan = LogicalPlanBuilder::from(leaf(0, &two_columns()))
        .join(leaf(1, &right_schema), JoinType::Inner, (vec!["k"], vec!["rk"]), None)
        .unwrap()
        .aggregate(vec![col("k")], vec![max(col("v") + col("rv"))])
        .unwrap()
        .build()
        .unwrap();
    let output = Arc::clone(plan.schema().inner());
    let mut builder = GraphBuilder::default();
    let changing = builder.input("t", &two_columns(), append_only);
    let fixed = builder.add(constant(right, &right_schema), &[], &right_schema, true);
    let top = builder.add(Op::Recompute { plan: Arc::new(plan) }, &[changing, fixed], &output, false);
    builder.finish(top)
}

#[tokio::test]
async fn recompute_follows_random_changes() {
    for append_only in [true, false] {
        let mut rng = rng(3);
        let right: Vec<Row> = (0..6).map(|_| random_pair(&mut rng)).collect();
        let mut runner = Runner::new(recompute_graph(append_only, &right));
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for _ in 0..60 {
            let delta = random_delta(&mut rng, &two_columns(), &input, !append_only, random_pair);
            add(&mut input, &delta);
            add(&mut result, &runner.step(&[("t", delta)], 0).await.unwrap());
            let mut groups: std::collections::BTreeMap<i64, Option<i64>> = Default::default();
            for left in expanded(&input) {
                for r in right.iter().filter(|r| r[0].is_some() && r[0] == left[0]) {
                    let best = groups.entry(left[0].unwrap()).or_default();
                    *best = (*best).max(left[1].zip(r[1]).map(|(a, b)| a + b));
                }
            }
            assert_eq!(result, bag(groups.into_iter().map(|(k, best)| vec![Some(k), best])));
        }
    }
}

#[tokio::test]
async fn recompute_runs_only_when_something_changed() {
    let mut runner = Runner::new(recompute_graph(true, &[vec![Some(1), Some(1)]]));
    runner.step(&[], 0).await.unwrap();
    let rows = DeltaBatch::insertions(batch(&two_columns(), &[vec![Some(1), Some(5)]]));
    let change = runner.step(&[("t", vec![rows])], 0).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(1), Some(6)], 1)]);
    assert!(runner.step(&[], 0).await.unwrap().is_empty());
    let smaller = DeltaBatch::insertions(batch(&two_columns(), &[vec![Some(1), Some(4)]]));
    assert!(runner.step(&[("t", vec![smaller])], 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn rows_are_held_back_until_their_window_closes() {
    let input_schema = schema(&[("k", DataType::Int64), ("name", DataType::Utf8View), ("ts", TIMESTAMP)]);
    for append_only_input in [true, false] {
        let mut builder = GraphBuilder::default();
        let source = builder.input("t", &input_schema, append_only_input);
        let bucket = Bucket { column: 2, bound: watermark_bound() };
        let top = builder.add(Op::WindowClose { bucket }, &[source], &input_schema, true);
        let mut runner = Runner::new(builder.finish(top));
        let mut rng = rng(9);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        let mut watermark = 0;
        for _ in 0..80 {
            let open: Bag = input.iter().filter(|(row, _)| row[2] >= Some(watermark)).map(|(row, weight)| (row.clone(), *weight)).collect();
            let delta = random_delta(&mut rng, &input_schema, &open, !append_only_input, |rng| {
                vec![Some(rng.random_range(0..3)), Some(rng.random_range(0..3)), Some(watermark + rng.random_range(0..20))]
            });
            add(&mut input, &delta);
            if rng.random_bool(0.6) {
                watermark += rng.random_range(0..12);
            }
            let change = runner.step(&[("t", delta)], watermark).await.unwrap();
            let order: Vec<_> = listed(&change).into_iter().map(|(row, weight)| (row[2], weight > 0)).collect();
            assert!(order.is_sorted() && order.iter().all(|(_, positive)| *positive));
            add(&mut result, &change);
            let closed: Bag =
                input.iter().filter(|(row, _)| row[2] < Some(watermark)).map(|(row, weight)| (row.clone(), *weight)).collect();
            assert_eq!(result, closed);
        }
        // The end of the stream closes everything.
        add(&mut result, &runner.step(&[], i64::MAX).await.unwrap());
        assert_eq!(result, input);
        assert_eq!(runner.flow.operator_stats()[1].state_rows, 0);
    }
}

#[tokio::test]
async fn relations_without_columns_are_counted() {
    let none: SchemaRef = Arc::new(Schema::empty());
    let output = schema(&[("rows", DataType::Int64)]);
    let wide = schema(&[("k", DataType::Int64)]);
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &none, false);
    let op = Op::Aggregate {
        group: vec![],
        aggregates: vec![datafusion::functions_aggregate::expr_fn::count(lit(1))],
        states: None,
        retracting: true,
        emit: millstream_plan::graph::Emit::Changes,
        bucket: None,
        state_ttl_micros: None,
    };
    let top = builder.add(op, &[source], &output, false);
    let mut runner = Runner::new(builder.finish(top));
    let rows = batch(&wide, &[vec![Some(1)], vec![Some(2)]]);
    let change = runner.step(&[("t", vec![DeltaBatch::insertions(rows.clone())])], 0).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(2)], 1)]);
    let gone = DeltaBatch::weighted(rows, Int64Array::from(vec![-1, 0]));
    assert_eq!(listed(&runner.step(&[("t", vec![gone])], 0).await.unwrap()).last().unwrap(), &(vec![Some(1)], 1));
}

#[test]
fn stored_rows_pin_nothing() {
    let long: Vec<String> = (0..10_000).map(|n| format!("a string that does not fit into a view {n}")).collect();
    let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8View, false), Field::new("n", DataType::Int64, false)]));
    let columns: Vec<ArrayRef> =
        vec![Arc::new(StringViewArray::from_iter_values(&long)), Arc::new(Int64Array::from_iter_values(0..10_000))];
    let slice = RecordBatch::try_new(schema, columns).unwrap().slice(5_000, 2);
    let stored = crate::columns::owned(&slice).unwrap();
    assert_eq!(stored, slice);
    assert!(stored.columns().iter().map(|column| column.get_array_memory_size()).sum::<usize>() < 2_000);
}

/// `Expr` is used by value in the cases above; this keeps predicates over NULL in view.
#[tokio::test]
async fn null_predicates_are_not_true() {
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &two_columns(), true);
    let predicate: Expr = col("k").eq(col("v"));
    let top = builder.add(Op::Map { predicates: vec![predicate], exprs: None }, &[source], &two_columns(), true);
    let mut runner = Runner::new(builder.finish(top));
    let rows = batch(&two_columns(), &[vec![None, None], vec![Some(1), Some(1)], vec![Some(1), None]]);
    let change = runner.step(&[("t", vec![DeltaBatch::insertions(rows)])], 0).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(1), Some(1)], 1)]);
}
