//! Sessions against a naive model, over random rows, with a restored copy now and then.

use crate::dataflow::{Dataflow, DataflowContext};
use crate::test_util::*;
use arrow::array::Int64Array;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::functions_aggregate::expr_fn::{array_agg, count, max, min};
use datafusion::logical_expr::Expr;
use datafusion::prelude::{col, lit};
use millstream_plan::functions::sum::sum;
use millstream_plan::graph::{Bucket, Emit, Graph, Op};
use millstream_types::delta::DeltaBatch;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

const GAP: i64 = 10;

fn input_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("name", DataType::Utf8View), ("v", DataType::Int64), ("ts", TIMESTAMP)])
}

/// `key`, `window_start`, `window_end`, count(*), sum(v), min(v), max(ts).
fn output_schema(key: &[&str]) -> SchemaRef {
    let mut fields: Vec<(&str, DataType)> = vec![];
    for name in key {
        fields.push((*name, if *name == "k" { DataType::Int64 } else { DataType::Utf8View }));
    }
    fields.extend([("window_start", TIMESTAMP), ("window_end", TIMESTAMP)]);
    fields.extend([("rows", DataType::Int64), ("sum", DataType::Int64), ("min", DataType::Int64), ("newest", TIMESTAMP)]);
    schema(&fields)
}

fn graph(key: &[&str], aggregates: Vec<Expr>, output: &SchemaRef, emit: Emit, bounded: bool) -> Graph {
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &input_schema(), true);
    let op = Op::SessionWindow {
        key: key.iter().map(|name| col(*name)).collect(),
        time: col("ts"),
        gap_micros: GAP,
        aggregates,
        emit,
        bucket: bounded.then(|| Bucket { column: key.len() + 1, bound: watermark_bound() }),
    };
    let top = builder.add(op, &[input], output, emit == Emit::OnClose);
    builder.finish(top)
}

fn standard(key: &[&str], emit: Emit, bounded: bool) -> Graph {
    let aggregates = vec![count(lit(1)), sum().call(vec![col("v")]), min(col("v")), max(col("ts"))];
    graph(key, aggregates, &output_schema(key), emit, bounded)
}

/// The sessions of rows: key, start, end, and their rows.
fn sessions(rows: &[Row], key: &[usize]) -> Vec<(Row, Vec<Row>)> {
    let mut by_key: BTreeMap<Row, Vec<Row>> = BTreeMap::new();
    for row in rows {
        by_key.entry(key.iter().map(|column| row[*column]).collect()).or_default().push(row.clone());
    }
    let mut result: Vec<(Row, Vec<Row>)> = vec![];
    for (key, mut rows) in by_key {
        rows.sort_by_key(|row| row[3].unwrap_or(i64::MAX));
        let mut open: Vec<Row> = vec![];
        let mut done = |rows: Vec<Row>| {
            let Some(first) = rows.first() else { return };
            let mut label = key.clone();
            label.extend([first[3], rows[rows.len() - 1][3].map(|last| last + GAP)]);
            result.push((label, rows));
        };
        for row in rows {
            let apart = open.last().is_some_and(|last| match (last[3], row[3]) {
                (Some(last), Some(time)) => time > last + GAP,
                (last, time) => last.is_some() != time.is_some(),
            });
            if apart {
                done(std::mem::take(&mut open));
            }
            open.push(row);
        }
        done(open);
    }
    result
}

fn expected(rows: &[Row], key: &[usize], keep: impl Fn(Option<i64>) -> bool) -> Bag {
    bag(sessions(rows, key).into_iter().filter(|(label, _)| keep(label[key.len() + 1])).map(|(mut label, rows)| {
        let values: Vec<i64> = rows.iter().filter_map(|row| row[2]).collect();
        label.push(Some(rows.len() as i64));
        label.push((!values.is_empty()).then(|| values.iter().sum()));
        label.push(values.iter().min().copied());
        label.push(rows.iter().filter_map(|row| row[3]).max());
        label
    }))
}

fn random_row(rng: &mut SmallRng, from: i64, nulls: f64) -> Row {
    let mut value = |range: std::ops::Range<i64>, nulls: f64| (!rng.random_bool(nulls)).then(|| rng.random_range(range));
    vec![value(0..4, 0.2), value(0..2, 0.2), value(-50..50, 0.3), value(from..from + 150, nulls)]
}

#[tokio::test]
async fn sessions_merge_as_rows_come_in_between() {
    for (key, columns, seed) in [(&["k"][..], &[0][..], 1), (&["k", "name"], &[0, 1], 2), (&[], &[], 3)] {
        let mut runner = Runner::new(standard(key, Emit::Changes, false));
        let mut rng = rng(seed);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for epoch in 0..80 {
            let from = if key.is_empty() { epoch * 20 } else { epoch * 3 };
            let delta = random_delta(&mut rng, &input_schema(), &input, false, |rng| random_row(rng, from, 0.1));
            add(&mut input, &delta);
            let change = runner.step(&[("t", delta)], 0).await.unwrap();
            // Nothing goes that was not there.
            assert!(listed(&change).iter().all(|(row, weight)| *weight > 0 || result.contains_key(row)));
            add(&mut result, &change);
            assert_eq!(result, expected(&expanded(&input), columns, |_| true), "key {key:?} epoch {epoch}");
            assert_eq!(runner.flow.operator_stats()[1].state_rows, result.len());
        }
    }
}

/// Closed sessions go out once, in order, and leave the state; with changes they just leave.
#[tokio::test]
async fn sessions_close_when_the_bound_passes_their_end() {
    for (emit, seed) in [(Emit::OnClose, 4), (Emit::Changes, 5), (Emit::OnClose, 6)] {
        let mut runner = Runner::new(standard(&["k"], emit, true));
        let mut rng = rng(seed);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        let mut watermark = 0;
        for epoch in 0..150 {
            // A row at the bound itself is not late: it joins a session that ends there.
            let delta = random_delta(&mut rng, &input_schema(), &input, false, |rng| match rng.random_bool(0.3) {
                true => vec![Some(rng.random_range(0..4)), None, Some(1), Some(watermark)],
                false => random_row(rng, watermark, 0.0),
            });
            add(&mut input, &delta);
            if rng.random_bool(0.6) {
                watermark += rng.random_range(0..40);
            }
            let change = runner.step(&[("t", delta)], watermark).await.unwrap();
            add(&mut result, &change);
            let rows = expanded(&input);
            let open = sessions(&rows, &[0]).into_iter().filter(|(label, _)| label[2] >= Some(watermark)).count();
            assert_eq!(runner.flow.operator_stats()[1].state_rows, open, "epoch {epoch}");
            match emit {
                Emit::OnClose => {
                    assert!(append_only(&change));
                    assert!(listed(&change).iter().map(|(row, _)| (row[2], row[1], row[0].is_some(), row[0])).is_sorted());
                    assert_eq!(result, expected(&rows, &[0], |end| end < Some(watermark)), "epoch {epoch}");
                }
                Emit::Changes => assert_eq!(result, expected(&rows, &[0], |_| true), "epoch {epoch}"),
            }
        }
    }
}

fn row(k: Option<i64>, v: i64, time: Option<i64>) -> Row {
    vec![k, None, Some(v), time]
}

fn insert(rows: &[Row]) -> Vec<DeltaBatch> {
    vec![DeltaBatch::insertions(batch(&input_schema(), rows))]
}

#[tokio::test]
async fn a_session_that_stays_the_same_is_not_handed_out_again() {
    let output = schema(&[("k", DataType::Int64), ("window_start", TIMESTAMP), ("window_end", TIMESTAMP), ("max", DataType::Int64)]);
    let mut runner = Runner::new(graph(&["k"], vec![max(col("v"))], &output, Emit::Changes, false));
    let of = |start, end, max| vec![Some(1), Some(start), Some(end), Some(max)];
    let rows = [row(Some(1), 5, Some(0)), row(Some(1), 7, Some(10)), row(Some(1), 9, Some(21))];
    let change = runner.step(&[("t", insert(&rows))], 0).await.unwrap();
    assert_eq!(listed(&change), [(of(0, 20, 7), 1), (of(21, 31, 9), 1)]);
    assert!(runner.step(&[("t", insert(&[row(Some(1), 6, Some(4))]))], 0).await.unwrap().is_empty());
    // A row between the two joins them.
    let change = runner.step(&[("t", insert(&[row(Some(1), 1, Some(11))]))], 0).await.unwrap();
    assert_eq!(listed(&change), [(of(0, 20, 7), -1), (of(21, 31, 9), -1), (of(0, 31, 9), 1)]);
}

#[tokio::test]
async fn rows_without_a_time_are_a_session_until_the_end() {
    let output = schema(&[("k", DataType::Int64), ("window_start", TIMESTAMP), ("window_end", TIMESTAMP), ("rows", DataType::Int64)]);
    let mut runner = Runner::new(graph(&["k"], vec![count(lit(1))], &output, Emit::OnClose, true));
    let rows = [row(None, 1, None), row(None, 1, Some(5)), row(None, 1, None)];
    assert!(runner.step(&[("t", insert(&rows))], 15).await.unwrap().is_empty());
    assert_eq!(listed(&runner.step(&[], 16).await.unwrap()), [(vec![None, Some(5), Some(15), Some(1)], 1)]);
    let change = runner.step(&[], i64::MAX).await.unwrap();
    assert_eq!(listed(&change), [(vec![None, None, None, Some(2)], 1)]);
}

#[tokio::test]
async fn late_rows_are_counted() {
    let mut runner = Runner::new(standard(&["k"], Emit::OnClose, true));
    runner.step(&[("t", insert(&[row(Some(1), 1, Some(40))]))], 30).await.unwrap();
    assert!(runner.step(&[("t", insert(&[row(Some(1), 1, Some(29)), row(Some(1), 2, Some(30))]))], 30).await.unwrap().is_empty());
    assert_eq!(runner.flow.operator_stats()[1].dropped_rows, 1);
    let change = runner.step(&[], 51).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(1), Some(30), Some(50), Some(2), Some(3), Some(1), Some(40)], 1)]);
}

/// Weights are multiplicities, and aggregates whose state is a list merge in the order of time.
#[tokio::test]
async fn states_of_merged_sessions_are_merged_in_their_order() {
    let list = DataType::new_list(DataType::Int64, true);
    let output = schema(&[("window_start", TIMESTAMP), ("window_end", TIMESTAMP), ("all", list)]);
    let mut runner = Runner::new(graph(&[], vec![array_agg(col("v"))], &output, Emit::Changes, false));
    runner.step(&[("t", insert(&[row(None, 2, Some(20))]))], 0).await.unwrap();
    runner.step(&[("t", insert(&[row(None, 1, Some(5))]))], 0).await.unwrap();
    let twice = DeltaBatch::weighted(batch(&input_schema(), &[row(None, 3, Some(12))]), Int64Array::from(vec![2]));
    let change = runner.step(&[("t", vec![twice])], 0).await.unwrap();
    let text = |part: &DeltaBatch| arrow::util::display::array_value_to_string(part.batch.column(2), 0).unwrap();
    assert_eq!(change.last().map(text).unwrap(), "[1, 2, 3, 3]");
}

#[tokio::test]
async fn an_end_out_of_range_is_an_error() {
    let mut runner = Runner::new(standard(&["k"], Emit::Changes, false));
    let error = runner.step(&[("t", insert(&[row(Some(1), 1, Some(i64::MAX - 3))]))], 0).await.unwrap_err();
    assert!(error.to_string().contains("beyond the range of timestamps"), "{error}");
}

#[tokio::test]
async fn state_of_other_functions_is_refused() {
    let context = || DataflowContext::new(state());
    let output = schema(&[("k", DataType::Int64), ("window_start", TIMESTAMP), ("window_end", TIMESTAMP), ("v", DataType::Int64)]);
    let mut flow = Dataflow::new(graph(&["k"], vec![max(col("v"))], &output, Emit::Changes, false), context()).unwrap();
    flow.step(&epoch_input(1, &[("t", insert(&[row(Some(1), 1, Some(1))]))], 0)).await.unwrap();
    let saved = flow.checkpoint().unwrap();
    let mut other = Dataflow::new(graph(&["k"], vec![min(col("v"))], &output, Emit::Changes, false), context()).unwrap();
    let error = other.restore(saved).await.unwrap_err();
    assert_eq!(error.to_string(), "saved state of operator \"SessionWindow #1\" does not fit: it is of the functions max");
}
