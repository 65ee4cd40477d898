//! Plans by key against naive models, over random changes.

use crate::test_util::*;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::common::{Column, ScalarValue};
use datafusion::functions_aggregate::expr_fn::{count_distinct, max, min};
use datafusion::functions_aggregate::min_max::min_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::expr_fn::{dense_rank, first_value, lag, lead, rank, row_number};
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use datafusion::prelude::{cast, col, lit};
use millstream_plan::graph::{Bucket, Emit, FragmentKey, Graph, Op, Ranking, Tail, TailCall, TailFunction, Versions};
use millstream_plan::leaf::InputLeaf;
use millstream_plan::term_column;
use millstream_types::delta::{DeltaBatch, Weights};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;

fn input_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("name", DataType::Utf8View), ("v", DataType::Int64), ("ts", TIMESTAMP)])
}

fn random_row(rng: &mut SmallRng, time: i64, keys: i64) -> Row {
    let mut value = |range: std::ops::Range<i64>, nulls: f64| (!rng.random_bool(nulls)).then(|| rng.random_range(range));
    vec![value(0..keys, 0.1), value(0..2, 0.1), value(-9..9, 0.2), value(time..time + 40, 0.0)]
}

fn leaf() -> LogicalPlanBuilder {
    let schema = Arc::new(DFSchema::try_from(input_schema()).unwrap());
    LogicalPlanBuilder::from(InputLeaf { index: 0, schema, fingerprint: 0 }.into_plan())
}

fn by(name: &str, column: usize) -> FragmentKey {
    FragmentKey { expr: col(name), column }
}

fn graph(plan: LogicalPlan, keys: Vec<FragmentKey>, append_only: bool, emit: Emit, bucket: Option<usize>) -> Graph {
    let output = Arc::clone(plan.schema().inner());
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &input_schema(), append_only);
    let bucket = bucket.map(|column| Bucket { column, bound: watermark_bound() });
    let top = builder.add(
        Op::TouchedKeys { plan: Arc::new(plan), keys, emit, bucket, versions: None, tail: None, reach: None },
        &[input],
        &output,
        emit == Emit::OnClose,
    );
    builder.finish(top)
}

/// `SELECT <keys>, min(v), max(v), count(DISTINCT v) FROM t GROUP BY <keys>`
fn extremes(keys: &[&str]) -> LogicalPlan {
    let calls = vec![min(col("v")), max(col("v")), count_distinct(col("v"))];
    leaf().aggregate(keys.iter().map(|key| col(*key)).collect::<Vec<_>>(), calls).unwrap().build().unwrap()
}

fn naive_extremes(rows: Vec<Row>, keys: &[usize]) -> Bag {
    let mut groups: BTreeMap<Row, Vec<i64>> = BTreeMap::new();
    for row in rows {
        groups.entry(keys.iter().map(|key| row[*key]).collect()).or_default().extend(row[2]);
    }
    bag(groups.into_iter().map(|(mut row, mut values)| {
        values.sort_unstable();
        values.dedup();
        row.extend([values.first().copied(), values.last().copied(), Some(values.len() as i64)]);
        row
    }))
}

/// No row goes and comes back in one change.
fn assert_consolidated(delta: &[DeltaBatch]) {
    let rows = listed(delta);
    assert!(
        rows.iter().all(|(row, weight)| rows.iter().all(|(other, other_weight)| row != other || weight.signum() == other_weight.signum()))
    );
}

#[tokio::test]
async fn aggregates_follow_random_changes() {
    let cases: [(&[&str], &[usize]); 3] = [(&["k"], &[0]), (&["name"], &[1]), (&["name", "k"], &[1, 0])];
    for (seed, (names, columns)) in cases.into_iter().enumerate() {
        for append_only in [true, false] {
            let keys = names.iter().enumerate().map(|(column, name)| by(name, column)).collect();
            let mut runner = Runner::new(graph(extremes(names), keys, append_only, Emit::Changes, None));
            let mut rng = rng(seed as u64);
            let (mut input, mut result) = (Bag::new(), Bag::new());
            for _ in 0..60 {
                let delta = random_delta(&mut rng, &input_schema(), &input, !append_only, |rng| random_row(rng, 0, 12));
                add(&mut input, &delta);
                let change = runner.step(&[("t", delta)], 0).await.unwrap();
                assert_consolidated(&change);
                add(&mut result, &change);
                assert_eq!(result, naive_extremes(expanded(&input), columns));
            }
            // Everything goes: nothing is left.
            if !append_only {
                let all = input.keys().cloned().collect::<Vec<_>>();
                let weights = input.values().map(|weight| -weight).collect();
                let gone = DeltaBatch::weighted(batch(&input_schema(), &all), weights);
                add(&mut result, &runner.step(&[("t", vec![gone])], 0).await.unwrap());
                assert_eq!(result, Bag::new());
                assert_eq!(runner.flow.operator_stats()[1].state_rows, 0);
            }
        }
    }
}

/// `SELECT *, row_number, lag(v) OVER (PARTITION BY k ORDER BY <order>) ... WHERE place <= limit`
fn places(order: &[&str], limit: i64) -> LogicalPlan {
    let order: Vec<_> = order.iter().map(|name| col(*name).sort(true, false)).collect();
    let over = |call: Expr, name: &str| call.partition_by(vec![col("k")]).order_by(order.clone()).build().unwrap().alias(name);
    let calls = [over(row_number(), "place"), over(lag(col("v"), Some(1), None), "before")];
    let columns = ["k", "name", "v", "ts", "before"].into_iter().map(col).chain([cast(col("place"), DataType::Int64).alias("place")]);
    leaf().window(calls).unwrap().filter(col("place").lt_eq(lit(limit as u64))).unwrap().project(columns).unwrap().build().unwrap()
}

fn naive_places(rows: Vec<Row>, limit: usize) -> Bag {
    let mut partitions: BTreeMap<Option<i64>, Vec<Row>> = BTreeMap::new();
    for row in rows {
        partitions.entry(row[0]).or_default().push(row);
    }
    let nulls_last = |value: Option<i64>| (value.is_none(), value);
    bag(partitions.into_values().flat_map(|mut rows| {
        rows.sort_by_key(|row| (nulls_last(row[2]), nulls_last(row[3]), nulls_last(row[1])));
        let mut before = None;
        let placed = rows.into_iter().enumerate().map(move |(place, mut row)| {
            let lag = std::mem::replace(&mut before, row[2]);
            row.extend([lag, Some(place as i64 + 1)]);
            row
        });
        placed.take(limit).collect::<Vec<_>>()
    }))
}

#[tokio::test]
async fn windows_follow_random_changes() {
    for (append_only, limit) in [(true, 2), (false, 3), (false, 100)] {
        let mut runner = Runner::new(graph(places(&["v", "ts", "name"], limit), vec![by("k", 0)], append_only, Emit::Changes, None));
        let mut rng = rng(limit as u64);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for _ in 0..60 {
            let delta = random_delta(&mut rng, &input_schema(), &input, !append_only, |rng| random_row(rng, 0, 9));
            add(&mut input, &delta);
            let change = runner.step(&[("t", delta)], 0).await.unwrap();
            assert_consolidated(&change);
            add(&mut result, &change);
            assert_eq!(result, naive_places(expanded(&input), limit as usize));
        }
    }
}

/// The order of ties may differ between runs; what was handed out is what is taken back.
#[tokio::test]
async fn ties_are_taken_back_as_they_came() {
    let mut runner = Runner::new(graph(places(&["name"], 1000), vec![by("k", 0)], false, Emit::Changes, None));
    let mut rng = rng(4);
    let (mut input, mut result) = (Bag::new(), Bag::new());
    for epoch in 0..40 {
        let mut delta = random_delta(&mut rng, &input_schema(), &input, true, |rng| random_row(rng, 0, 3));
        if epoch % 5 == 0 {
            let rows: Vec<Row> = (0..rng.random_range(0..300)).map(|_| random_row(&mut rng, 0, 6)).collect();
            delta.push(DeltaBatch::insertions(batch(&input_schema(), &rows)));
        }
        add(&mut input, &delta);
        add(&mut result, &runner.step(&[("t", delta)], 0).await.unwrap());
        assert!(result.values().all(|weight| *weight > 0));
        let rows = expanded(&result).into_iter().map(|row| row[..4].to_vec());
        assert_eq!(bag(rows), input);
    }
}

#[tokio::test]
async fn only_touched_keys_are_read() {
    let mut runner = Runner::new(graph(extremes(&["k"]), vec![by("k", 0)], false, Emit::Changes, None));
    // A thousand keys with three rows each.
    let rows: Vec<Row> = (0..3_000).map(|n| vec![Some(n % 1_000), Some(0), Some(n / 1_000), Some(0)]).collect();
    let bulk = runner.step(&[("t", vec![DeltaBatch::insertions(batch(&input_schema(), &rows))])], 0).await.unwrap();
    let figures = |runner: &Runner| {
        let stats = runner.flow.operator_stats()[1].clone();
        (stats.touched_keys, stats.read_rows)
    };
    assert_eq!((listed(&bulk).len(), figures(&runner)), (1_000, (1_000, 3_000)));
    let touch = |from: i64, to: i64| {
        let rows: Vec<Row> = (from..to).map(|key| vec![Some(key), Some(0), Some(from + 9), Some(0)]).collect();
        vec![DeltaBatch::insertions(batch(&input_schema(), &rows))]
    };
    let change = runner.step(&[("t", touch(7, 9))], 0).await.unwrap();
    assert_eq!((listed(&change).len(), figures(&runner)), (4, (1_002, 3_008)));
    // More than three tenths of the rows: all are read at once, and the results of other keys do not occur.
    let change = runner.step(&[("t", touch(100, 500))], 0).await.unwrap();
    assert_eq!((listed(&change).len(), figures(&runner)), (800, (1_402, 3_008 + 3_402)));
}

#[tokio::test]
async fn keys_below_the_bound_are_dropped() {
    for append_only in [true, false] {
        let keys = vec![by("ts", 0), by("k", 1)];
        let mut runner = Runner::new(graph(extremes(&["ts", "k"]), keys, append_only, Emit::Changes, Some(0)));
        let mut rng = rng(6);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        let mut watermark = 0;
        for _ in 0..60 {
            let open: Bag = input.iter().filter(|(row, _)| row[3] >= Some(watermark)).map(|(row, weight)| (row.clone(), *weight)).collect();
            let delta = random_delta(&mut rng, &input_schema(), &open, !append_only, |rng| random_row(rng, watermark, 3));
            add(&mut input, &delta);
            watermark += rng.random_range(0..15);
            add(&mut result, &runner.step(&[("t", delta)], watermark).await.unwrap());
            assert_eq!(result, naive_extremes(expanded(&input), &[3, 0]));
            let open = input.iter().filter(|(row, _)| row[3] >= Some(watermark));
            let rows = open.clone().map(|(_, weight)| if append_only { *weight as usize } else { 1 }).sum::<usize>();
            let groups = open.map(|(row, _)| (row[3], row[0])).collect::<std::collections::BTreeSet<_>>().len();
            assert_eq!(runner.flow.operator_stats()[1].state_rows, rows + groups);
        }
        let late =
            batch(&input_schema(), &[vec![Some(1), None, Some(1), Some(watermark - 1)], vec![Some(1), None, Some(1), Some(watermark)]]);
        let change = runner.step(&[("t", vec![DeltaBatch::insertions(late)])], watermark).await.unwrap();
        assert!(listed(&change).iter().all(|(row, _)| row[0] == Some(watermark)));
        assert_eq!(runner.flow.operator_stats()[1].dropped_rows, 1);
    }
}

#[tokio::test]
async fn results_on_close_come_once_and_in_order() {
    for append_only in [true, false] {
        let keys = vec![by("k", 0), by("ts", 1)];
        let mut runner = Runner::new(graph(extremes(&["k", "ts"]), keys, append_only, Emit::OnClose, Some(1)));
        let mut rng = rng(8);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        let mut watermark = 0;
        for _ in 0..60 {
            let open: Bag = input.iter().filter(|(row, _)| row[3] >= Some(watermark)).map(|(row, weight)| (row.clone(), *weight)).collect();
            let delta = random_delta(&mut rng, &input_schema(), &open, !append_only, |rng| random_row(rng, watermark, 3));
            add(&mut input, &delta);
            watermark += rng.random_range(0..15);
            let change = runner.step(&[("t", delta)], watermark).await.unwrap();
            assert!(change.iter().all(|part| part.weights == Weights::Ones));
            assert!(listed(&change).is_sorted_by_key(|(row, _)| row[1]));
            add(&mut result, &change);
            let closed = expanded(&input).into_iter().filter(|row| row[3] < Some(watermark)).collect();
            assert_eq!(result, naive_extremes(closed, &[0, 3]));
        }
        // The end of the stream closes everything.
        add(&mut result, &runner.step(&[], i64::MAX).await.unwrap());
        assert_eq!(result, naive_extremes(expanded(&input), &[0, 3]));
        let stats = runner.flow.operator_stats()[1].clone();
        assert_eq!((stats.state_rows, stats.dropped_rows), (0, 0));
        // No row is computed before its key closes, and none twice.
        assert_eq!(stats.read_rows, expanded(&input).len() as u64);
    }
}

#[tokio::test]
async fn a_row_that_is_not_there_cannot_go() {
    let mut runner = Runner::new(graph(extremes(&["k"]), vec![by("k", 0)], false, Emit::Changes, None));
    let row = batch(&input_schema(), &[vec![Some(1), None, Some(5), Some(0)]]);
    let error = runner.step(&[("t", vec![DeltaBatch::insertions(row).negated()])], 0).await.unwrap_err();
    assert!(error.to_string().contains("k = 1, name = NULL, v = 5"), "{error}");
}

/// Rows come above the watermark only, so that what was before the last row below it never changes: the changes are the same whether it
/// is kept or not.
#[tokio::test]
async fn versions_that_are_final_are_forgotten() {
    let order = ["ts", "v", "name"].map(|name| col(name).sort(true, false)).to_vec();
    let next = lead(col("ts"), None, None).partition_by(vec![col("k")]).order_by(order).build().unwrap().alias("next");
    let plan = leaf().window(vec![next]).unwrap().build().unwrap();
    let runner = |forgets: bool| {
        let mut graph = graph(plan.clone(), vec![by("k", 0)], true, Emit::Changes, None);
        if let Op::TouchedKeys { versions, .. } = &mut graph.nodes[1].op {
            *versions = forgets.then(|| Versions { input_time: 3, bound: watermark_bound(), time: 3, next: 4 });
        }
        Runner::new(graph)
    };
    let (mut forgets, mut remembers) = (runner(true), runner(false));
    let mut rng = rng(5);
    let mut input = Bag::new();
    for step in 0..80 {
        let watermark = step * 10;
        let delta = random_delta(&mut rng, &input_schema(), &input, false, |rng| random_row(rng, watermark, 6));
        add(&mut input, &delta);
        // The watermark at the end of the epoch is that of the next rows.
        let found = forgets.step(&[("t", delta.clone())], watermark + 10).await.unwrap();
        let expected = remembers.step(&[("t", delta)], watermark + 10).await.unwrap();
        let as_bag = |change: &[DeltaBatch]| {
            let mut bag = Bag::new();
            add(&mut bag, change);
            bag
        };
        assert_eq!(as_bag(&found), as_bag(&expected), "epoch {step}");
    }
    let state = |runner: &Runner| runner.flow.operator_stats()[1].state_rows;
    assert!(state(&forgets) * 4 < state(&remembers), "{} of {} rows are kept", state(&forgets), state(&remembers));
}

/// Window functions that look back, in two orders, and what their ends need.
fn looking_back() -> (LogicalPlan, Tail) {
    let order = |names: &[&str]| names.iter().map(|name| col(*name).sort(true, false)).collect::<Vec<_>>();
    let (total, time): (&[&str], &[&str]) = (&["ts", "v", "name"], &["ts"]);
    let over = |call: Expr, keys: &[&str]| call.partition_by(vec![col("k")]).order_by(order(keys)).build().unwrap();
    let aggregate = |function: Arc<AggregateUDF>, keys: &[&str], frame: WindowFrame| {
        let call = Expr::WindowFunction(Box::new(WindowFunction::new(function, vec![col("v")])));
        call.partition_by(vec![col("k")]).order_by(order(keys)).window_frame(frame).build().unwrap()
    };
    let here = WindowFrameBound::CurrentRow;
    let rows_back = |count: u64| {
        WindowFrame::new_bounds(WindowFrameUnits::Rows, WindowFrameBound::Preceding(ScalarValue::UInt64(Some(count))), here.clone())
    };
    let rows = WindowFrame::new_bounds(WindowFrameUnits::Rows, WindowFrameBound::Preceding(ScalarValue::UInt64(None)), here.clone());
    let count = |expr: Expr| cast(expr, DataType::Int64);
    let by_place = vec![
        over(row_number(), total).alias("place"),
        over(lag(col("v"), Some(2), None), total).alias("before"),
        over(first_value(col("v")), total).alias("first"),
        aggregate(sum_udaf(), total, rows).alias("total"),
        aggregate(min_udaf(), total, rows_back(2)).alias("least"),
    ];
    let by_value = vec![
        over(rank(), time).alias("rank"),
        over(dense_rank(), time).alias("dense"),
        aggregate(sum_udaf(), time, WindowFrame::new(Some(false))).alias("with_ties"),
    ];
    let columns = ["k", "name", "v", "ts", "before", "first", "total", "least", "with_ties"].into_iter().map(col);
    let columns = columns.chain([
        count(col("place")).alias("place"),
        count(col("rank")).alias("rank"),
        (count(col("dense")) + lit(1_i64)).alias("dense"),
    ]);
    let plan = leaf().window(by_place).unwrap().window(by_value).unwrap().project(columns).unwrap().build().unwrap();

    let input = |place: usize| Expr::Column(Column::new_unqualified(term_column(place)));
    let call = |index: usize| Expr::Column(Column::new_unqualified(format!("__call{index}")));
    let summed = |function: Arc<AggregateUDF>, by_value: bool, back: Option<u64>| TailFunction::Aggregate {
        call: Expr::AggregateFunction(AggregateFunction::new_udf(function, vec![input(2)], false, None, vec![], None)),
        by_value,
        back,
    };
    let calls = [
        (TailFunction::Ranking(Ranking::RowNumber), 3, DataType::UInt64),
        (TailFunction::Lag { value: input(2), back: 2 }, 3, DataType::Int64),
        (TailFunction::First { value: input(2) }, 3, DataType::Int64),
        (summed(sum_udaf(), false, None), 3, DataType::Int64),
        (summed(min_udaf(), false, Some(2)), 3, DataType::Int64),
        (TailFunction::Ranking(Ranking::Rank), 1, DataType::UInt64),
        (TailFunction::Ranking(Ranking::DenseRank), 1, DataType::UInt64),
        (summed(sum_udaf(), true, None), 1, DataType::Int64),
    ];
    let names: Vec<String> = (0..4).map(term_column).chain((0..calls.len()).map(|index| format!("__call{index}"))).collect();
    let types = input_schema()
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .chain(calls.iter().map(|call| call.2.clone()))
        .collect::<Vec<_>>();
    let fields: Vec<(&str, DataType)> = names.iter().map(String::as_str).zip(types).collect();
    let schema_of = |fields: &[(&str, DataType)]| Arc::new(DFSchema::try_from(schema(fields)).unwrap());
    let outputs = [0, 1, 2, 3].into_iter().map(input).chain([call(1), call(2), call(3), call(4), call(7)]);
    let tail = Tail {
        input: schema_of(&fields[..4]),
        order: [3, 2, 1].into_iter().map(|place| input(place).sort(true, false)).collect(),
        calls: calls.into_iter().map(|(function, order, data_type)| TailCall { function, order, data_type }).collect(),
        with_calls: schema_of(&fields),
        outputs: outputs.chain([count(call(0)), count(call(5)), count(call(6)) + lit(1_i64)]).collect(),
    };
    (plan, tail)
}

/// Rows come in the order of time as a rule, with ties, and now and then in between; the changes are the same with and without ends.
#[tokio::test]
async fn ends_of_partitions_go_on() {
    let (plan, tail) = looking_back();
    for append_only in [true, false] {
        let runner = |with_ends: bool| {
            let mut graph = graph(plan.clone(), vec![by("k", 0)], append_only, Emit::Changes, None);
            if let Op::TouchedKeys { tail: ends, .. } = &mut graph.nodes[1].op {
                *ends = with_ends.then(|| tail.clone());
            }
            Runner::new(graph)
        };
        let (mut with, mut without) = (runner(true), runner(false));
        let mut rng = rng(11);
        let mut input = Bag::new();
        for epoch in 0..80 {
            let retracting = !append_only && epoch % 4 == 3;
            let (from, spread) = if epoch % 9 == 8 { (0, 30) } else { (epoch * 10, 3) };
            let row = |rng: &mut SmallRng| {
                let mut row = random_row(rng, from, 4);
                row[3] = Some(from + rng.random_range(0..spread) * 3);
                row
            };
            let delta = random_delta(&mut rng, &input_schema(), &input, retracting, row);
            add(&mut input, &delta);
            let as_bag = |change: &[DeltaBatch]| {
                let mut bag = Bag::new();
                add(&mut bag, change);
                bag
            };
            let found = with.step(&[("t", delta.clone())], 0).await.unwrap();
            let expected = without.step(&[("t", delta)], 0).await.unwrap();
            assert_eq!(as_bag(&found), as_bag(&expected), "epoch {epoch}");
        }
        let read = |runner: &Runner| runner.flow.operator_stats()[1].read_rows;
        assert!(read(&with) * 2 < read(&without), "{} and {} rows were read", read(&with), read(&without));
    }
}

#[tokio::test]
async fn a_row_behind_its_partition_is_the_only_one_read() {
    let (plan, tail) = looking_back();
    let mut graph = graph(plan, vec![by("k", 0)], true, Emit::Changes, None);
    if let Op::TouchedKeys { tail: ends, .. } = &mut graph.nodes[1].op {
        *ends = Some(tail);
    }
    let mut runner = Runner::new(graph);
    let rows: Vec<Row> = (0..1_000).map(|time| vec![Some(1), Some(0), Some(1), Some(time)]).collect();
    runner.step(&[("t", vec![DeltaBatch::insertions(batch(&input_schema(), &rows))])], 0).await.unwrap();
    let before = runner.flow.operator_stats()[1].read_rows;
    let row = batch(&input_schema(), &[vec![Some(1), Some(0), Some(5), Some(2_000)]]);
    let change = runner.step(&[("t", vec![DeltaBatch::insertions(row)])], 0).await.unwrap();
    let expected = [1, 0, 5, 2_000, 1, 1, 1_005, 1, 1_005, 1_001, 1_001, 1_002].map(Some).to_vec();
    assert_eq!(listed(&change), [(expected, 1)]);
    assert_eq!(runner.flow.operator_stats()[1].read_rows, before + 1);
}
