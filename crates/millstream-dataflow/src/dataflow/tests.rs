//! What belongs to the runner: first epochs, restarts, skipped operators, the memory limit.

use super::*;
use crate::test_util::*;
use arrow::datatypes::DataType;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use millstream_plan::graph::Emit;
use millstream_types::delta::DeltaBatch;
use millstream_types::{Classified, ErrorKind};

fn numbers() -> SchemaRef {
    schema(&[("k", DataType::Int64)])
}

fn part(values: &[i64]) -> Delta {
    vec![DeltaBatch::insertions(batch(&numbers(), &values.iter().map(|value| vec![Some(*value)]).collect::<Vec<_>>()))]
}

fn counted() -> Op {
    Op::Aggregate {
        group: vec![col("k")],
        aggregates: vec![count(lit(1))],
        states: None,
        retracting: false,
        emit: Emit::Changes,
        bucket: None,
        state_ttl_micros: None,
    }
}

/// `SELECT k, count(*) FROM (t UNION ALL constant) GROUP BY k`
fn graph() -> Graph {
    let table = MemTable::try_new(numbers(), vec![vec![part(&[1, 2]).remove(0).batch]]).unwrap();
    let plan = LogicalPlanBuilder::scan("c", provider_as_source(Arc::new(table)), None).unwrap().build().unwrap();
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &numbers(), true);
    let constant = builder.add(Op::Constant { plan: Arc::new(plan), tables: vec!["c".into()] }, &[], &numbers(), true);
    let both = builder.add(Op::Union, &[input, constant], &numbers(), true);
    let top = builder.add(counted(), &[both], &schema(&[("k", DataType::Int64), ("rows", DataType::Int64)]), false);
    builder.finish(top)
}

fn flow() -> Dataflow {
    Dataflow::new(graph(), DataflowContext::new(state())).unwrap()
}

#[tokio::test]
async fn constants_are_handed_out_once_and_not_after_a_restart() {
    let mut first = flow();
    let saved = first.checkpoint().unwrap();
    let change = first.step(&epoch_input(1, &[("t", part(&[1]))], 0)).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(1), Some(2)], 1), (vec![Some(2), Some(1)], 1)]);

    let mut again = flow();
    again.restore(first.checkpoint().unwrap()).await.unwrap();
    let change = again.step(&epoch_input(2, &[("t", part(&[2]))], 0)).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(2), Some(1)], -1), (vec![Some(2), Some(2)], 1)]);

    // A checkpoint of before the first epoch leaves the first epoch to come.
    let mut fresh = flow();
    fresh.restore(saved).await.unwrap();
    let change = fresh.step(&epoch_input(1, &[], 0)).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(1), Some(1)], 1), (vec![Some(2), Some(1)], 1)]);
}

#[tokio::test]
async fn epochs_without_changes_touch_nothing() {
    let mut flow = flow();
    flow.step(&epoch_input(1, &[("t", part(&[7]))], 0)).await.unwrap();
    let before: Vec<u64> = flow.operator_stats().iter().map(|stats| stats.touched_keys).collect();
    assert!(flow.step(&epoch_input(2, &[("other", part(&[7]))], 0)).await.unwrap().is_empty());
    assert_eq!(flow.operator_stats().iter().map(|stats| stats.touched_keys).collect::<Vec<_>>(), before);
    let stats = flow.operator_stats().pop().unwrap();
    assert_eq!((stats.name, stats.rows_in, stats.rows_out, stats.state_rows), ("Aggregate", 3, 3, 3));
    assert!(stats.state_bytes > 0);
}

#[tokio::test]
async fn incomplete_and_foreign_checkpoints_are_refused() {
    let mut source = flow();
    source.step(&epoch_input(1, &[], 0)).await.unwrap();
    let saved = source.checkpoint().unwrap();
    let error = flow().restore(saved[..1].to_vec()).await.unwrap_err();
    assert_eq!(error.to_string(), "saved state of operator \"Aggregate #3\" does not fit: there is none in the checkpoint");
    let error = flow().restore(saved[1..].to_vec()).await.unwrap_err();
    assert_eq!(error.to_string(), "saved state of operator \"Dataflow\" does not fit: it is incomplete");
    let mut newer = saved.clone();
    newer[1].format = 9;
    let error = flow().restore(newer).await.unwrap_err();
    assert_eq!(error.to_string(), "saved state of operator \"Aggregate #3\" does not fit: it has format 9, this version reads 2");
    let mut more = saved;
    more.push(OperatorState { fingerprint: 5, name: "Recompute".into(), ..more[1].clone() });
    let error = flow().restore(more).await.unwrap_err();
    assert_eq!(error.to_string(), "saved state of operator \"Recompute\" does not fit: the query has no such operator");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn the_memory_limit_names_the_operator() {
    let runtime = RuntimeEnvBuilder::new().with_memory_limit(20_000, 1.0).build_arc().unwrap();
    let state = SessionContext::new_with_config_rt(SessionConfig::new(), runtime).state();
    let mut flow = Dataflow::new(graph(), DataflowContext::new(state)).unwrap();
    flow.step(&epoch_input(1, &[("t", part(&[1]))], 0)).await.unwrap();
    let many: Vec<i64> = (0..5_000).collect();
    let error = flow.step(&epoch_input(2, &[("t", part(&many))], 0)).await.unwrap_err();
    assert!(matches!(error, DataflowError::Memory { .. }), "{error}");
    assert!(error.to_string().starts_with("operator \"Aggregate #3\" needs "), "{error}");
    assert!(error.hint().unwrap().contains("WATERMARK"));
}

#[test]
fn a_dataflow_can_run_on_any_thread() {
    fn check<T: Send>(_: T) {}
    fn step(flow: &mut Dataflow, input: &EpochInput) {
        check(flow.step(input));
        check(flow.restore(vec![]));
    }
    let _ = step;
    fn shared<T: Send + Sync>() {}
    shared::<Dataflow>();
}
