//! Aggregates against a naive model, over random changes.

use crate::dataflow::{Dataflow, DataflowContext};
use crate::test_util::*;
use arrow::array::{Float64Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::functions_aggregate::expr_fn::{array_agg, bit_and, count, first_value, last_value, max, min, nth_value};
use datafusion::logical_expr::{Expr, ExprFunctionExt};
use datafusion::prelude::{col, lit};
use millstream_plan::bound::Bound;
use millstream_plan::functions::sum::{avg, sum};
use millstream_plan::graph::{Bucket, Emit, Graph, Op};
use millstream_types::delta::DeltaBatch;
use millstream_types::{Classified, ErrorKind};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;

fn input_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("name", DataType::Utf8View), ("v", DataType::Int64), ("x", DataType::Float64), ("ts", TIMESTAMP)])
}

fn random_row(rng: &mut SmallRng, time: i64) -> Row {
    let mut value = |range: std::ops::Range<i64>, nulls: f64| (!rng.random_bool(nulls)).then(|| rng.random_range(range));
    vec![value(0..6, 0.1), value(0..3, 0.1), value(-50..50, 0.3), value(-5000..5000, 0.3), value(time..time + 40, 0.0)]
}

struct Case {
    group: &'static [&'static str],
    aggregates: Vec<Expr>,
    output: SchemaRef,
    append_only: bool,
    emit: Emit,
    bucket: Option<usize>,
}

fn graph(case: &Case) -> Graph {
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &input_schema(), case.append_only);
    let op = Op::Aggregate {
        group: case.group.iter().map(|name| col(*name)).collect(),
        aggregates: case.aggregates.clone(),
        states: None,
        retracting: !case.append_only,
        emit: case.emit,
        bucket: case.bucket.map(|column| Bucket { column, bound: watermark_bound() }),
        state_ttl_micros: None,
    };
    let output = builder.add(op, &[input], &case.output, case.emit == Emit::OnClose);
    builder.finish(output)
}

/// Groups rows by some of their columns.
fn grouped(rows: Vec<Row>, columns: &[usize]) -> BTreeMap<Row, Vec<Row>> {
    let mut groups: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    for row in rows {
        groups.entry(columns.iter().map(|column| row[*column]).collect()).or_default().push(row);
    }
    groups
}

fn values(rows: &[Row], column: usize) -> Vec<i64> {
    rows.iter().filter_map(|row| row[column]).collect()
}

fn total(values: &[i64]) -> Option<i64> {
    (!values.is_empty()).then(|| values.iter().sum())
}

/// count(*), count(v), sum(v), avg(x), sum(v) FILTER (WHERE v > 0)
fn sums(rows: &[Row]) -> Row {
    let (v, x) = (values(rows, 2), values(rows, 3));
    let positive: Vec<i64> = v.iter().copied().filter(|v| *v > 0).collect();
    // Thousandths, rounded as the test reads them.
    let average = total(&x).map(|sum| (sum as f64 / x.len() as f64).round() as i64);
    vec![Some(rows.len() as i64), Some(v.len() as i64), total(&v), average, total(&positive)]
}

fn sum_exprs() -> Vec<Expr> {
    vec![
        count(lit(1)),
        count(col("v")),
        sum().call(vec![col("v")]),
        avg().call(vec![col("x")]),
        sum().call(vec![col("v")]).filter(col("v").gt(lit(0i64))).build().unwrap(),
    ]
}

fn sum_schema(keys: &[(&str, DataType)]) -> SchemaRef {
    let mut fields = keys.to_vec();
    fields.extend([
        ("rows", DataType::Int64),
        ("values", DataType::Int64),
        ("sum", DataType::Int64),
        ("avg", DataType::Float64),
        ("positive", DataType::Int64),
    ]);
    schema(&fields)
}

/// Rounding may tip a half either way.
fn assert_close(found: &Bag, expected: &Bag, average: usize, context: &str) {
    let blur = |bag: &Bag| -> Vec<(Row, i64)> {
        bag.iter()
            .map(|(row, weight)| {
                let mut row = row.clone();
                row[average] = row[average].map(|_| 0);
                (row, *weight)
            })
            .collect()
    };
    assert_eq!(blur(found), blur(expected), "{context}");
    for (found, expected) in found.keys().zip(expected.keys()) {
        let distance = found[average].unwrap_or(0) - expected[average].unwrap_or(0);
        assert!(distance.abs() <= 1, "{context}: {found:?} {expected:?}");
    }
}

async fn check_sums(group: &'static [&'static str], columns: &'static [usize], append_only: bool, seed: u64) {
    let types = [("k", DataType::Int64), ("name", DataType::Utf8View)];
    let keys: Vec<_> = types.into_iter().filter(|(name, _)| group.contains(name)).collect();
    let case = Case { group, aggregates: sum_exprs(), output: sum_schema(&keys), append_only, emit: Emit::Changes, bucket: None };
    let mut runner = Runner::new(graph(&case));
    let mut rng = rng(seed);
    let (mut input, mut output) = (Bag::new(), Bag::new());
    for epoch in 0..60 {
        let delta = random_delta(&mut rng, &input_schema(), &input, !append_only, |rng| random_row(rng, 0));
        add(&mut input, &delta);
        add(&mut output, &runner.step(&[("t", delta)], 0).await.unwrap());
        let mut groups = grouped(expanded(&input), columns);
        if group.is_empty() {
            groups.entry(vec![]).or_default();
        }
        let expected = bag(groups.into_iter().map(|(key, rows)| key.into_iter().chain(sums(&rows)).collect()));
        assert_close(&output, &expected, group.len() + 3, &format!("group by {group:?}, seed {seed}, epoch {epoch}"));
    }
}

#[tokio::test]
async fn sums_with_and_without_retractions() {
    for seed in 0..4 {
        for append_only in [false, true] {
            check_sums(&["k", "name"], &[0, 1], append_only, seed).await;
            check_sums(&["k"], &[0], append_only, seed).await;
            check_sums(&["name"], &[1], append_only, seed).await;
            check_sums(&[], &[], append_only, seed).await;
        }
    }
}

#[tokio::test]
async fn mergeable_aggregates_over_append_only_input() {
    let output = schema(&[("k", DataType::Int64), ("min", DataType::Int64), ("max", DataType::Utf8View), ("distinct", DataType::Int64)]);
    let distinct = count(col("v")).distinct().build().unwrap();
    let aggregates = vec![min(col("v")), max(col("name")), distinct];
    let case = Case { group: &["k"], aggregates, output, append_only: true, emit: Emit::Changes, bucket: None };
    for seed in 10..14 {
        let mut runner = Runner::new(graph(&case));
        let mut rng = rng(seed);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for _ in 0..50 {
            let delta = random_delta(&mut rng, &input_schema(), &input, false, |rng| random_row(rng, 0));
            add(&mut input, &delta);
            add(&mut result, &runner.step(&[("t", delta)], 0).await.unwrap());
            let expected = grouped(expanded(&input), &[0]).into_iter().map(|(key, rows)| {
                let v = values(&rows, 2);
                let distinct = v.iter().collect::<std::collections::BTreeSet<_>>().len() as i64;
                vec![key[0], v.iter().min().copied(), values(&rows, 1).into_iter().max(), Some(distinct)]
            });
            assert_eq!(result, bag(expected), "seed {seed}");
        }
    }
}

#[tokio::test]
async fn extremes_over_retractions() {
    let negative = max(col("v")).filter(col("v").lt(lit(0_i64))).build().unwrap();
    let aggregates = vec![min(col("v")), max(col("name")), negative];
    let value = |name: &'static str, data_type: DataType| (name, data_type);
    let values_of = [value("min", DataType::Int64), value("max", DataType::Utf8View), value("negative", DataType::Int64)];
    for (group, columns) in [(&["k"][..], &[0][..]), (&["k", "name"], &[0, 1]), (&[], &[])] {
        let keys = group.iter().map(|name| value(name, input_schema().field_with_name(name).unwrap().data_type().clone()));
        let output = schema(&keys.chain(values_of.clone()).collect::<Vec<_>>());
        let case = Case { group, aggregates: aggregates.clone(), output, append_only: false, emit: Emit::Changes, bucket: None };
        for seed in 20..24 {
            let mut runner = Runner::new(graph(&case));
            let mut rng = rng(seed);
            let (mut input, mut result) = (Bag::new(), Bag::new());
            for _ in 0..80 {
                let delta = random_delta(&mut rng, &input_schema(), &input, true, |rng| random_row(rng, 0));
                add(&mut input, &delta);
                add(&mut result, &runner.step(&[("t", delta)], 0).await.unwrap());
                let mut groups = grouped(expanded(&input), columns);
                if group.is_empty() {
                    groups.entry(vec![]).or_default();
                }
                let expected = groups.into_iter().map(|(mut row, rows)| {
                    let v = values(&rows, 2);
                    let negative = v.iter().copied().filter(|v| *v < 0).max();
                    row.extend([v.iter().min().copied(), values(&rows, 1).into_iter().max(), negative]);
                    row
                });
                assert_eq!(result, bag(expected), "seed {seed}");
            }
        }
    }
}

#[tokio::test]
async fn arrays_keep_the_order_of_arrival() {
    let input = schema(&[("k", DataType::Int64), ("v", DataType::Int64)]);
    let list = DataType::new_list(DataType::Int64, true);
    let output = schema(&[("k", DataType::Int64), ("all", list)]);
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &input, true);
    let op = Op::Aggregate {
        group: vec![col("k")],
        aggregates: vec![array_agg(col("v"))],
        states: None,
        retracting: false,
        emit: Emit::Changes,
        bucket: None,
        state_ttl_micros: None,
    };
    let top = builder.add(op, &[source], &output, false);
    let mut runner = Runner::new(builder.finish(top));
    let part = |values: &[i64]| DeltaBatch::insertions(batch(&input, &values.iter().map(|v| vec![Some(1), Some(*v)]).collect::<Vec<_>>()));
    runner.step(&[("t", vec![part(&[3, 1])])], 0).await.unwrap();
    let change = runner.step(&[("t", vec![part(&[2])])], 0).await.unwrap();
    let text = |part: &DeltaBatch| arrow::util::display::array_value_to_string(part.batch.column(1), 0).unwrap();
    assert_eq!(change.iter().map(text).collect::<Vec<_>>(), ["[3, 1]", "[3, 1, 2]"]);
    assert_eq!(change.iter().map(|part| part.weights.value(0)).collect::<Vec<_>>(), [-1, 1]);
}

/// Aggregates with their own ORDER BY follow it across epochs.
#[tokio::test]
async fn ordered_aggregates_merge_by_their_order() {
    let input = schema(&[("k", DataType::Int64), ("v", DataType::Int64), ("x", DataType::Int64)]);
    let order = || vec![col("x").sort(true, false)];
    let ordered = |expr: Expr| expr.order_by(order()).build().unwrap();
    let aggregates = vec![first_value(col("v"), order()), last_value(col("v"), order()), ordered(array_agg(col("v")))];
    let list = DataType::new_list(DataType::Int64, true);
    let output = schema(&[("k", DataType::Int64), ("first", DataType::Int64), ("last", DataType::Int64), ("all", list)]);
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &input, true);
    let op = Op::Aggregate {
        group: vec![col("k")],
        aggregates,
        states: None,
        retracting: false,
        emit: Emit::Changes,
        bucket: None,
        state_ttl_micros: None,
    };
    let top = builder.add(op, &[source], &output, false);
    let mut flow = Dataflow::new(builder.finish(top), DataflowContext::new(state())).unwrap();
    let mut rng = rng(2);
    let mut seen: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    let mut order: Vec<i64> = (0..120).collect();
    for place in 0..order.len() {
        let other = rng.random_range(0..order.len());
        order.swap(place, other);
    }
    for (epoch, part) in order.chunks(4).enumerate() {
        let rows: Vec<Row> = part.iter().map(|x| vec![Some(x % 3), Some(x * 7 % 50), Some(*x)]).collect();
        for row in &rows {
            seen.entry(row[0].unwrap()).or_default().push((row[2].unwrap(), row[1].unwrap()));
        }
        let delta = vec![DeltaBatch::insertions(batch(&input, &rows))];
        let change = flow.step(&epoch_input(epoch as u64 + 1, &[("t", delta)], 0)).await.unwrap();
        let new = &change.last().unwrap().batch;
        for row in 0..new.num_rows() {
            let texts: Vec<String> =
                new.columns().iter().map(|column| arrow::util::display::array_value_to_string(column, row).unwrap()).collect();
            let values = seen.get_mut(&texts[0].parse().unwrap()).unwrap();
            values.sort();
            let values: Vec<String> = values.iter().map(|(_, v)| v.to_string()).collect();
            let list = format!("[{}]", values.join(", "));
            assert_eq!(texts[1..], [values[0].clone(), values[values.len() - 1].clone(), list], "epoch {epoch}");
        }
    }
}

#[tokio::test]
async fn distinct_emits_at_zero_crossings() {
    for append_only in [true, false] {
        let output = schema(&[("k", DataType::Int64), ("name", DataType::Utf8View)]);
        let case = Case { group: &["k", "name"], aggregates: vec![], output, append_only, emit: Emit::Changes, bucket: None };
        let mut runner = Runner::new(graph(&case));
        let mut rng = rng(21);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for _ in 0..80 {
            let delta = random_delta(&mut rng, &input_schema(), &input, !append_only, |rng| random_row(rng, 0));
            add(&mut input, &delta);
            let change = runner.step(&[("t", delta)], 0).await.unwrap();
            assert!(!append_only || crate::test_util::append_only(&change));
            add(&mut result, &change);
            assert_eq!(result, bag(grouped(expanded(&input), &[0, 1]).into_keys()));
        }
    }
}

/// Closed groups go out once, in the order of their buckets, and leave the state.
#[tokio::test]
async fn groups_close_once() {
    for append_only in [true, false] {
        for group in [&["ts", "k"][..], &["ts"][..]] {
            let mut keys = vec![("ts", TIMESTAMP)];
            let columns: &[usize] = if group.len() == 2 { &[4, 0] } else { &[4] };
            if group.len() == 2 {
                keys.push(("k", DataType::Int64));
            }
            let case = Case {
                group: if group.len() == 2 { &["ts", "k"] } else { &["ts"] },
                aggregates: sum_exprs(),
                output: sum_schema(&keys),
                append_only,
                emit: Emit::OnClose,
                bucket: Some(0),
            };
            let mut runner = Runner::new(graph(&case));
            let mut rng = rng(5);
            let (mut input, mut output) = (Bag::new(), Bag::new());
            let mut watermark = 0;
            for _ in 0..60 {
                // Only rows that are still open may be taken back.
                let open: Bag =
                    input.iter().filter(|(row, _)| row[4] >= Some(watermark)).map(|(row, weight)| (row.clone(), *weight)).collect();
                let delta = random_delta(&mut rng, &input_schema(), &open, !append_only, |rng| random_row(rng, watermark));
                add(&mut input, &delta);
                if rng.random_bool(0.5) {
                    watermark += rng.random_range(0..30);
                }
                let change = runner.step(&[("t", delta)], watermark).await.unwrap();
                assert!(crate::test_util::append_only(&change));
                let times: Vec<_> = listed(&change).into_iter().map(|(row, _)| row[0]).collect();
                assert!(times.is_sorted());
                add(&mut output, &change);
                let closed = expanded(&input).into_iter().filter(|row| row[4] < Some(watermark)).collect();
                let expected = bag(grouped(closed, columns).into_iter().map(|(key, rows)| key.into_iter().chain(sums(&rows)).collect()));
                assert_close(&output, &expected, group.len() + 3, "closed groups");
                let open = expanded(&input).into_iter().filter(|row| row[4] >= Some(watermark)).collect();
                assert_eq!(runner.flow.operator_stats()[1].state_rows, grouped(open, columns).len());
            }
        }
    }
}

#[tokio::test]
async fn changing_groups_are_dropped_silently_below_the_bound() {
    let output = schema(&[("ts", TIMESTAMP), ("rows", DataType::Int64)]);
    let aggregates = vec![count(lit(1))];
    let case = Case { group: &["ts"], aggregates, output, append_only: true, emit: Emit::Changes, bucket: Some(0) };
    let mut runner = Runner::new(graph(&case));
    let row = |time: i64| vec![Some(0), Some(0), Some(0), Some(0), Some(time)];
    let delta = |times: &[i64]| vec![DeltaBatch::insertions(batch(&input_schema(), &times.iter().map(|t| row(*t)).collect::<Vec<_>>()))];
    let change = runner.step(&[("t", delta(&[1, 1, 5, 9]))], 6).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(1), Some(2)], 1), (vec![Some(5), Some(1)], 1), (vec![Some(9), Some(1)], 1)]);
    assert_eq!(runner.flow.operator_stats()[1].state_rows, 1);
    let change = runner.step(&[("t", delta(&[9, 2]))], 6).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(9), Some(1)], -1), (vec![Some(9), Some(2)], 1)]);
    assert_eq!(runner.flow.operator_stats()[1].dropped_rows, 1);
    assert!(runner.step(&[], 20).await.unwrap().is_empty());
    assert_eq!(runner.flow.operator_stats()[1].state_rows, 0);
}

/// `GROUP BY _epoch, k`: groups are final in the epoch that brings them.
#[tokio::test]
async fn epoch_groups_keep_no_state() {
    let input = schema(&[("_epoch", DataType::Int64), ("k", DataType::Int64)]);
    let output = schema(&[("_epoch", DataType::Int64), ("k", DataType::Int64), ("rows", DataType::Int64)]);
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &input, true);
    let op = Op::Aggregate {
        group: vec![col("_epoch"), col("k")],
        aggregates: vec![count(lit(1))],
        states: None,
        retracting: false,
        emit: Emit::OnClose,
        bucket: Some(Bucket { column: 0, bound: Arc::new(Bound::Epoch { stream: "t".into() }) }),
        state_ttl_micros: None,
    };
    let top = builder.add(op, &[source], &output, true);
    let mut runner = Runner::new(builder.finish(top));
    for epoch in 1..5 {
        let rows: Vec<Row> = [7, 8, 7].iter().map(|k| vec![Some(epoch), Some(*k)]).collect();
        let change = runner.step(&[("t", vec![DeltaBatch::insertions(batch(&input, &rows))])], 0).await.unwrap();
        let row = |k, rows| (vec![Some(epoch), Some(k), Some(rows)], 1);
        assert_eq!(listed(&change), [row(7, 2), row(8, 1)]);
        assert_eq!(runner.flow.operator_stats()[1].state_rows, 0);
    }
}

#[tokio::test]
async fn a_global_aggregate_has_a_row_from_the_first_epoch_on() {
    for append_only in [true, false] {
        let case = Case { group: &[], aggregates: sum_exprs(), output: sum_schema(&[]), append_only, emit: Emit::Changes, bucket: None };
        let mut runner = Runner::new(graph(&case));
        let empty = vec![Some(0), Some(0), None, None, None];
        assert_eq!(listed(&runner.step(&[], 0).await.unwrap()), [(empty.clone(), 1)]);
        assert!(runner.step(&[], 0).await.unwrap().is_empty());
        let rows = batch(&input_schema(), &[vec![Some(1), Some(1), Some(4), Some(2000), Some(0)]]);
        let full = vec![Some(1), Some(1), Some(4), Some(2000), Some(4)];
        let change = runner.step(&[("t", vec![DeltaBatch::insertions(rows.clone())])], 0).await.unwrap();
        assert_eq!(listed(&change), [(empty.clone(), -1), (full.clone(), 1)]);
        if !append_only {
            let change = runner.step(&[("t", vec![DeltaBatch::insertions(rows).negated()])], 0).await.unwrap();
            assert_eq!(listed(&change), [(full, -1), (empty, 1)]);
        }
    }
}

#[tokio::test]
async fn special_floats_can_be_taken_back() {
    let input = schema(&[("x", DataType::Float64)]);
    let output = schema(&[("sum", DataType::Float64)]);
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &input, false);
    let aggregates = vec![sum().call(vec![col("x")])];
    let top = builder.add(
        Op::Aggregate {
            group: vec![],
            aggregates,
            states: None,
            retracting: true,
            emit: Emit::Changes,
            bucket: None,
            state_ttl_micros: None,
        },
        &[source],
        &output,
        false,
    );
    let mut runner = Runner::new(builder.finish(top));
    let part = |value: f64, weight: i64| {
        let batch = RecordBatch::try_new(Arc::clone(&input), vec![Arc::new(Float64Array::from(vec![value]))]).unwrap();
        vec![DeltaBatch::weighted(batch, Int64Array::from(vec![weight]))]
    };
    runner.step(&[("t", part(2.5, 1))], 0).await.unwrap();
    runner.step(&[("t", part(f64::INFINITY, 1))], 0).await.unwrap();
    runner.step(&[("t", part(f64::NAN, 1))], 0).await.unwrap();
    runner.step(&[("t", part(f64::NAN, -1))], 0).await.unwrap();
    let change = runner.step(&[("t", part(f64::INFINITY, -1))], 0).await.unwrap();
    assert_eq!(listed(&change).last().unwrap(), &(vec![Some(2500)], 1));
}

#[tokio::test]
async fn a_row_that_is_not_there_cannot_be_taken_back() {
    let output = schema(&[("k", DataType::Int64), ("rows", DataType::Int64)]);
    let case = Case { group: &["k"], aggregates: vec![count(lit(1))], output, append_only: false, emit: Emit::Changes, bucket: None };
    let mut runner = Runner::new(graph(&case));
    let row = batch(&input_schema(), &[vec![Some(3), None, None, None, Some(0)]]);
    let error = runner.step(&[("t", vec![DeltaBatch::insertions(row).negated()])], 0).await.unwrap_err();
    assert_eq!(error.to_string(), "relation \"Aggregate #1\" would hold the row (k = 3) -1 times");
    assert_eq!(error.kind(), ErrorKind::Data);
}

#[test]
fn functions_that_cannot_be_merged_are_refused() {
    let refuse = |append_only, call: Expr| {
        let output = schema(&[("value", DataType::Int64)]);
        let case = Case { group: &[], aggregates: vec![call], output, append_only, emit: Emit::Changes, bucket: None };
        Dataflow::new(graph(&case), DataflowContext::new(state())).unwrap_err()
    };
    let error = refuse(false, bit_and(col("v")));
    assert_eq!(error.to_string(), "operator \"Aggregate #1\": bit_and cannot take rows back");
    assert_eq!(error.kind(), ErrorKind::Internal);
    let error = refuse(true, nth_value(col("v"), 2, vec![col("x").sort(true, false)]));
    assert!(error.to_string().ends_with("needs its whole input in order"), "{error}");
}

#[tokio::test]
async fn state_of_another_query_is_refused() {
    let output = schema(&[("k", DataType::Int64), ("rows", DataType::Int64)]);
    let case = |group| Case {
        group,
        aggregates: vec![count(lit(1))],
        output: if group == ["k"] { output.clone() } else { schema(&[("name", DataType::Utf8View), ("rows", DataType::Int64)]) },
        append_only: true,
        emit: Emit::Changes,
        bucket: None,
    };
    let context = || DataflowContext::new(state());
    let mut flow = Dataflow::new(graph(&case(&["k"])), context()).unwrap();
    let row = batch(&input_schema(), &[vec![Some(3), None, None, None, Some(0)]]);
    flow.step(&epoch_input(1, &[("t", vec![DeltaBatch::insertions(row)])], 0)).await.unwrap();
    let saved = flow.checkpoint().unwrap();
    let mut other = Dataflow::new(graph(&case(&["name"])), context()).unwrap();
    let error = other.restore(saved).await.unwrap_err();
    let expected =
        "saved state of operator \"Aggregate #1\" does not fit: its columns are (Int64, Int64), the query needs (Utf8View, Int64)";
    assert_eq!(error.to_string(), expected);
}

/// The clock of an epoch is its number, so `TTL` is a number of epochs.
#[tokio::test]
async fn groups_expire_when_untouched() {
    const TTL: i64 = 4;
    let output = schema(&[("k", DataType::Int64), ("ts", TIMESTAMP), ("rows", DataType::Int64), ("max", DataType::Int64)]);
    for bucket in [None, Some(Bucket { column: 1, bound: watermark_bound() })] {
        let mut builder = GraphBuilder::default();
        let source = builder.input("t", &input_schema(), true);
        let op = Op::Aggregate {
            group: vec![col("k"), col("ts")],
            aggregates: vec![count(lit(1)), max(col("v"))],
            states: None,
            retracting: false,
            emit: Emit::Changes,
            bucket: bucket.clone(),
            state_ttl_micros: Some(TTL),
        };
        let top = builder.add(op, &[source], &output, false);
        let mut runner = Runner::new(builder.finish(top));
        let mut rng = rng(5);
        // By group: when it was touched, its rows since it is there; those that the watermark has closed stay in the result.
        let mut groups: BTreeMap<Row, (i64, Vec<Row>)> = BTreeMap::new();
        let (mut result, mut closed, mut watermark) = (Bag::new(), Bag::new(), 0);
        let row = |key: &Row, rows: &[Row]| {
            let values = values(rows, 2);
            key.iter().copied().chain([Some(rows.len() as i64), values.iter().max().copied()]).collect::<Row>()
        };
        for epoch in 1..200 {
            let make = |rng: &mut SmallRng| {
                vec![Some(rng.random_range(0..3)), None, Some(rng.random_range(0..9)), None, Some(watermark + rng.random_range(0..4))]
            };
            let delta = if rng.random_bool(0.5) { random_delta(&mut rng, &input_schema(), &Bag::new(), false, make) } else { vec![] };
            for (row, _) in listed(&delta) {
                let group = groups.entry(vec![row[0], row[4]]).or_default();
                group.0 = epoch;
                group.1.push(row);
            }
            watermark += rng.random_range(0..2);
            add(&mut result, &runner.step(&[("t", delta)], watermark).await.unwrap());
            groups.retain(|key, (touched, rows)| {
                let closes = bucket.is_some() && key[1] < Some(watermark);
                if closes {
                    closed.insert(row(key, rows), 1);
                }
                !closes && *touched + TTL > epoch
            });
            let mut expected = closed.clone();
            expected.extend(bag(groups.iter().map(|(key, (_, rows))| row(key, rows))));
            assert_eq!(result, expected, "epoch {epoch}");
            assert_eq!(runner.flow.operator_stats()[1].state_rows, groups.len());
        }
        assert!(!groups.is_empty() || !closed.is_empty());
    }
}
