//! PROCESS against a naive model. The clock of an epoch is its number, so times are numbers of epochs.

use crate::test_util::*;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::col;
use millstream_plan::graph::{Graph, Op};
use millstream_plan::process::{
    Arguments, Cause, Declaration, FunctionError, KeyCall, ProcessCall, ProcessResult, ScalarValue, StatefulFunction,
};
use millstream_types::delta::DeltaBatch;
use millstream_types::{Classified, ErrorKind, EventTime};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;

const TTL: i64 = 5;
const WAKE: i64 = 3;
const LIMIT: i64 = 12;

/// Counts rows; wakes up `WAKE` after them by the clock and once the watermark has passed their greatest time; forgets a key at `LIMIT`.
/// Rows it returns: the count, and why.
struct Count;

impl StatefulFunction for Count {
    fn declare(&self, _: &Schema, _: &Arguments) -> Result<Declaration, FunctionError> {
        let columns = vec![Field::new("n", DataType::Int64, false), Field::new("cause", DataType::Int64, false)];
        Ok(Declaration::new(vec![Field::new("n", DataType::Int64, false)], columns).with_clock_timer().with_event_timer())
    }

    fn call(&self, call: &mut KeyCall<'_>) -> Result<(), FunctionError> {
        let mut n = match call.state() {
            Some([ScalarValue::Int64(Some(n))]) => *n,
            _ => 0,
        };
        let cause = match call.cause() {
            Cause::Rows => 0,
            Cause::EventTimer(_) => 1,
            Cause::ClockTimer(_) => 2,
            Cause::Expired => 3,
        };
        if cause == 0 {
            let rows = rows(call.rows());
            assert!(rows.is_sorted_by_key(|row| row[1]), "rows come in the order of ts");
            n += rows.len() as i64;
            if rows.iter().any(|row| row[1] < Some(0)) {
                return Err("a time is negative".into());
            }
            call.wake_at_clock(EventTime(call.clock().0 + WAKE))?;
            call.wake_at_event_time(rows.iter().filter_map(|row| row[1]).max().map(EventTime))?;
        }
        call.emit([ScalarValue::from(n), ScalarValue::from(cause)])?;
        match cause {
            0 if n >= LIMIT => call.remove(),
            0 => call.update([ScalarValue::from(n)])?,
            _ => {}
        }
        Ok(())
    }
}

fn input_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("ts", TIMESTAMP)])
}

fn graph(result: ProcessResult, partitioned: bool, initial: &[Row]) -> Graph {
    let declaration = Count.declare(&input_schema(), &Arguments::default()).unwrap();
    let mut own = match result {
        ProcessResult::Rows => vec![("n", DataType::Int64), ("cause", DataType::Int64)],
        ProcessResult::State => vec![("n", DataType::Int64)],
    };
    if partitioned {
        own.insert(0, ("k", DataType::Int64));
    }
    let output = schema(&own);
    let mut builder = GraphBuilder::default();
    let mut inputs = vec![builder.input("t", &input_schema(), true)];
    if !initial.is_empty() {
        let columns = schema(&[("k", DataType::Int64), ("n", DataType::Int64)]);
        inputs.push(builder.add(super::super::tests::constant(initial, &columns), &[], &columns, true));
    }
    let op = Op::Process {
        call: ProcessCall { name: "count".into(), function: Arc::new(Count), arguments: Arguments::default(), declaration },
        key: if partitioned { vec![col("k")] } else { vec![] },
        order: vec![col("ts").sort(true, false)],
        event_time: Some(watermark_bound()),
        state_ttl_micros: Some(TTL),
        result,
    };
    let top = builder.add(op, &inputs, &output, result == ProcessResult::Rows);
    builder.finish(top)
}

#[derive(Clone)]
struct Key {
    n: i64,
    touched: i64,
    event: Option<i64>,
    clock: Option<i64>,
}

/// What an epoch returns, call by call, and what becomes of the keys.
fn model(keys: &mut BTreeMap<Option<i64>, Key>, input: &[Row], epoch: i64, watermark: i64) -> Vec<Row> {
    let mut returned: Vec<Row> = vec![];
    let mut touched: BTreeMap<Option<i64>, Vec<i64>> = BTreeMap::new();
    input.iter().for_each(|row| touched.entry(row[0]).or_default().push(row[1].unwrap()));
    for (k, times) in touched {
        let n = keys.get(&k).map_or(0, |key| key.n) + times.len() as i64;
        returned.push(vec![k, Some(n), Some(0)]);
        keys.remove(&k);
        if n < LIMIT {
            keys.insert(k, Key { n, touched: epoch, event: times.into_iter().max(), clock: Some(epoch + WAKE) });
        }
    }
    for (k, key) in keys.iter_mut() {
        if key.event.is_some_and(|time| time < watermark) {
            key.event = None;
            returned.push(vec![*k, Some(key.n), Some(1)]);
        }
        if key.clock.is_some_and(|time| time <= epoch) {
            key.clock = None;
            returned.push(vec![*k, Some(key.n), Some(2)]);
        }
        if key.touched + TTL <= epoch {
            returned.push(vec![*k, Some(key.n), Some(3)]);
        }
    }
    keys.retain(|_, key| key.touched + TTL > epoch);
    returned
}

fn random_input(rng: &mut SmallRng, watermark: i64) -> Vec<DeltaBatch> {
    if rng.random_bool(0.4) {
        return vec![];
    }
    random_delta(rng, &input_schema(), &Bag::new(), false, |rng| {
        vec![rng.random_bool(0.9).then(|| rng.random_range(0..8)), Some(watermark + rng.random_range(0..6))]
    })
}

#[tokio::test]
async fn calls_follow_rows_timers_and_expiry() {
    for partitioned in [true, false] {
        let (mut rows, mut state) =
            (Runner::new(graph(ProcessResult::Rows, partitioned, &[])), Runner::new(graph(ProcessResult::State, partitioned, &[])));
        let mut rng = rng(3);
        let (mut keys, mut snapshot, mut watermark) = (BTreeMap::new(), Bag::new(), 0);
        for epoch in 1..300 {
            let delta = random_input(&mut rng, watermark);
            watermark += rng.random_range(0..4);
            let mut input: Vec<Row> = listed(&delta).into_iter().map(|(row, _)| row).collect();
            if !partitioned {
                input.iter_mut().for_each(|row| row[0] = None);
            }
            let expected = model(&mut keys, &input, epoch, watermark);
            let own = |row: Row| if partitioned { row } else { row[1..].to_vec() };
            let change = rows.step(&[("t", delta.clone())], watermark).await.unwrap();
            assert!(append_only(&change));
            let returned: Vec<Row> = listed(&change).into_iter().map(|(row, _)| row).collect();
            assert_eq!(returned, expected.into_iter().map(own).collect::<Vec<_>>(), "epoch {epoch}");
            add(&mut snapshot, &state.step(&[("t", delta)], watermark).await.unwrap());
            assert_eq!(snapshot, bag(keys.iter().map(|(k, key)| own(vec![*k, Some(key.n)]))), "epoch {epoch}");
            assert_eq!(rows.flow.operator_stats()[1].state_rows, keys.len());
        }
    }
}

#[tokio::test]
async fn initial_state_is_there_before_the_first_rows() {
    let initial = [vec![Some(1), Some(5)], vec![None, Some(7)]];
    let mut state = Runner::new(graph(ProcessResult::State, true, &initial));
    let mut snapshot = Bag::new();
    let row = |k| DeltaBatch::insertions(batch(&input_schema(), &[vec![k, Some(9)]]));
    add(&mut snapshot, &state.step(&[("t", vec![row(Some(1)), row(Some(2))])], 0).await.unwrap());
    assert_eq!(snapshot, bag([vec![None, Some(7)], vec![Some(1), Some(6)], vec![Some(2), Some(1)]]));
    // Nothing touches them: after TTL epochs all are gone.
    for _ in 0..TTL {
        add(&mut snapshot, &state.step(&[], 0).await.unwrap());
    }
    assert!(snapshot.is_empty());
    let mut twice = Runner::new(graph(ProcessResult::Rows, true, &[vec![Some(1), Some(5)], vec![Some(1), Some(6)]]));
    let error = twice.step(&[], 0).await.unwrap_err();
    assert_eq!(error.to_string(), "stateful function \"count\" failed for k = 1: its initial state has the key twice");
}

#[tokio::test]
async fn errors_name_function_and_key() {
    let mut runner = Runner::new(graph(ProcessResult::Rows, true, &[]));
    let rows = batch(&input_schema(), &[vec![Some(1), Some(2)], vec![Some(4), Some(-1)]]);
    let error = runner.step(&[("t", vec![DeltaBatch::insertions(rows)])], 0).await.unwrap_err();
    assert_eq!(error.to_string(), "stateful function \"count\" failed for k = 4: a time is negative");
    assert_eq!(error.kind(), ErrorKind::Data);
}
