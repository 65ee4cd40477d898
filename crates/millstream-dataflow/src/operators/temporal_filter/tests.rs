//! The operator against a naive filter over all rows, with the clock of the epoch.

use crate::dataflow::{Dataflow, DataflowContext};
use crate::test_util::{
    Bag, GraphBuilder, Row, Runner, TIMESTAMP, add, append_only, batch, epoch_input, listed, random_delta, rng, schema,
};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, cast, col, lit};
use millstream_plan::functions::{EpochClock, register};
use millstream_plan::graph::{Graph, Op};
use millstream_types::EventTime;
use millstream_types::delta::{DeltaBatch, Weights};
use rand::Rng;
use rand::rngs::SmallRng;

fn input_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("a", TIMESTAMP), ("b", TIMESTAMP), ("name", DataType::Utf8View)])
}

fn state() -> SessionState {
    let mut state = SessionStateBuilder::new().with_default_features().build();
    register(&mut state, EpochClock::new(EventTime(0))).unwrap();
    state
}

fn now() -> Expr {
    state().scalar_functions()["now"].call(vec![])
}

fn instant(column: &str) -> Expr {
    cast(col(column), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
}

fn micros(count: i64) -> Expr {
    lit(ScalarValue::DurationMicrosecond(Some(count)))
}

fn graph(rising: Vec<Expr>, falling: Vec<Expr>, append_only: bool) -> Graph {
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &input_schema(), append_only);
    let only_enters = falling.is_empty();
    let top = builder.add(Op::TemporalFilter { rising, falling }, &[source], &input_schema(), append_only && only_enters);
    builder.finish(top)
}

fn random_row(rng: &mut SmallRng) -> Row {
    let mut time = || rng.random_bool(0.9).then(|| rng.random_range(-10..90));
    let (a, b) = (time(), time());
    vec![Some(rng.random_range(0..3)), a, b, Some(rng.random_range(0..3))]
}

/// What is shown of the rows so far at a reading of the clock.
type Naive = fn(&Row, i64) -> bool;

async fn follows(rising: Vec<Expr>, falling: Vec<Expr>, naive: Naive) {
    for only_appends in [true, false] {
        let enters_only = falling.is_empty();
        let mut runner = Runner::with_state(graph(rising.clone(), falling.clone(), only_appends), state());
        let mut rng = rng(5);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for clock in 1..100 {
            // Epochs without input come too: the clock alone moves rows.
            let delta = if clock % 3 == 0 { vec![] } else { random_delta(&mut rng, &input_schema(), &input, !only_appends, random_row) };
            add(&mut input, &delta);
            let change = runner.step(&[("t", delta)], 0).await.unwrap();
            if only_appends && enters_only {
                assert!(append_only(&change));
            }
            add(&mut result, &change);
            let expected: Bag = input.iter().filter(|(row, _)| naive(row, clock)).map(|(row, weight)| (row.clone(), *weight)).collect();
            assert_eq!(result, expected, "at {clock}");
        }
        // All instants have passed.
        assert_eq!(runner.flow.operator_stats()[1].state_rows, 0);
    }
}

#[tokio::test]
async fn rows_leave() {
    follows(vec![], vec![instant("a").gt(now() - micros(7))], |row, clock| row[1].is_some_and(|a| a > clock - 7)).await;
}

#[tokio::test]
async fn rows_enter() {
    follows(vec![instant("a").lt_eq(now())], vec![], |row, clock| row[1].is_some_and(|a| a <= clock)).await;
}

#[tokio::test]
async fn rows_enter_and_leave() {
    let naive: Naive = |row, clock| row[1].is_some_and(|a| a <= clock) && row[2].is_some_and(|b| clock < b);
    follows(vec![now().gt_eq(instant("a"))], vec![now().lt(instant("b"))], naive).await;
}

/// Nothing but bisection finds these instants: steps of four, and a choice between two.
#[tokio::test]
async fn coarse_conditions() {
    let quarter = cast(now(), DataType::Int64) / lit(4_i64);
    let rising = quarter.clone().gt(col("k") * lit(5_i64));
    let falling = quarter.lt_eq(lit(20_i64)).or(instant("b").gt(now()));
    let naive: Naive = |row, clock| row[0].is_some_and(|k| clock / 4 > k * 5) && (clock / 4 <= 20 || row[2].is_some_and(|b| b > clock));
    follows(vec![rising], vec![falling], naive).await;
}

/// Nanoseconds end in the year 2262: what lies behind is looked at again then.
#[tokio::test]
async fn instants_that_cannot_be_looked_at() {
    let nanos = |expr: Expr| cast(expr, DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())));
    let naive: Naive = |row, clock| row[1].is_some_and(|a| a > clock - 7);
    let length = |micros: i64| lit(ScalarValue::DurationNanosecond(Some(micros * 1_000)));
    follows(vec![], vec![nanos(instant("a")).gt(nanos(now()) - length(7))], naive).await;
    let far = nanos(now()) + length(9_223_372_036_854_000);
    follows(vec![], vec![far.lt(nanos(instant("a")) + length(9_223_372_036_854_007))], naive).await;
}

/// The clock, the input's change, what comes of it, and the next instant.
type Step = (u64, Vec<DeltaBatch>, Vec<(Row, i64)>, Option<i64>);

#[tokio::test]
async fn the_next_instant_is_known() {
    let mut flow =
        Dataflow::new(graph(vec![instant("a").lt_eq(now())], vec![instant("b").gt(now())], false), DataflowContext::new(state())).unwrap();
    let row = |a: i64, b: i64, name: i64| vec![Some(1), Some(a), Some(b), Some(name)];
    let rows = [row(10, 20, 1), row(0, 15, 2), row(30, 25, 3), row(0, 1, 4), row(0, 300_000_000_000_000_000, 5)];
    let insertions = DeltaBatch::insertions(batch(&input_schema(), &rows));
    let steps: [Step; 5] = [
        (5, vec![insertions], vec![(row(0, 15, 2), 1), (row(0, 300_000_000_000_000_000, 5), 1)], Some(10)),
        (9, vec![], vec![], Some(10)),
        // A row that waits is taken back, and one that has left.
        (12, vec![DeltaBatch::insertions(batch(&input_schema(), &[row(0, 1, 4)])).negated()], vec![(row(10, 20, 1), 1)], Some(15)),
        (40, vec![], vec![(row(0, 15, 2), -1), (row(10, 20, 1), -1)], None),
        (41, vec![DeltaBatch::insertions(batch(&input_schema(), &[row(10, 20, 1)])).negated()], vec![], None),
    ];
    for (clock, delta, expected, due) in steps {
        let change = flow.step(&epoch_input(clock, &[("t", delta)], 0)).await.unwrap();
        assert_eq!(listed(&change), expected, "at {clock}");
        assert_eq!(flow.next_due(), due.map(EventTime), "at {clock}");
    }
}

#[tokio::test]
async fn a_row_that_is_not_there_cannot_go() {
    let mut runner = Runner::with_state(graph(vec![], vec![instant("a").gt(now())], false), state());
    let row = batch(&input_schema(), &[vec![Some(1), Some(50), None, None]]);
    let mut delta = vec![DeltaBatch::insertions(row).negated()];
    assert!(matches!(delta[0].weights, Weights::I64(_)));
    let error = runner.step(&[("t", std::mem::take(&mut delta))], 0).await.unwrap_err();
    assert!(error.to_string().contains("k = 1, a = 1970-01-01T00:00:00.000050, b = NULL, name = NULL"), "{error}");
}
