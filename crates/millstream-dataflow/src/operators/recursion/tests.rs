//! The operator against naive closures over all rows.

use crate::test_util::{Bag, GraphBuilder, Row, Runner, add, append_only, bag, batch, expanded, listed, random_delta, rng, schema};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, JoinType};
use datafusion::logical_expr::{col, lit};
use millstream_plan::graph::{Graph, Keep, Op};
use millstream_plan::{term_column, term_input};
use millstream_types::delta::DeltaBatch;
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeSet;
use std::sync::Arc;

fn edges() -> SchemaRef {
    schema(&[("a", DataType::Int64), ("b", DataType::Int64)])
}

/// `SELECT r.a, e.b FROM r JOIN edges e ON r.b = e.a`
fn step(append_only: bool) -> Graph {
    let mut builder = GraphBuilder::default();
    let column = |side: &str, index: usize| format!("{side}{index}");
    let side = |side: &str| schema(&[(&column(side, 0), DataType::Int64), (&column(side, 1), DataType::Int64)]);
    let names = || (0..2).map(term_column).collect::<Vec<_>>();
    let result = builder.add(Op::Input { relation: term_input(0), columns: names() }, &[], &side("l"), append_only);
    let other = builder.add(Op::Input { relation: term_input(1), columns: names() }, &[], &side("r"), append_only);
    let both = schema(&[("l0", DataType::Int64), ("l1", DataType::Int64), ("r0", DataType::Int64), ("r1", DataType::Int64)]);
    let join = Op::Join {
        join_type: JoinType::Inner,
        on: vec![(col("l1"), col("r0"))],
        filter: None,
        filter_schema: Arc::new(DFSchema::try_from(Arc::clone(&both)).unwrap()),
        null_equals_null: false,
        null_aware: false,
        keep: Box::new([Keep::Forever, Keep::Forever]),
        one_copy: false,
        lookup: false,
        state_ttl_micros: [None; 2],
    };
    let join = builder.add(join, &[result, other], &both, append_only);
    let top = builder.add(Op::Map { predicates: vec![], exprs: Some(vec![col("l0"), col("r1")]) }, &[join], &edges(), append_only);
    builder.finish(top)
}

/// The closure of the edges that begin at `start`.
fn graph(distinct: bool, append_only: bool) -> Graph {
    let mut builder = GraphBuilder::default();
    let source = builder.input("t", &edges(), append_only);
    let start = builder.add(Op::Map { predicates: vec![col("a").lt(lit(3_i64))], exprs: None }, &[source], &edges(), append_only);
    let term = Arc::new(step(append_only));
    let top = builder.add(Op::Recursion { name: "r".into(), term, distinct }, &[start, source], &edges(), append_only);
    builder.finish(top)
}

fn starts(edges: &[Row]) -> Vec<Row> {
    edges.iter().filter(|edge| edge[0].is_some_and(|a| a < 3)).cloned().collect()
}

fn followed(rows: &[Row], edges: &[Row]) -> Vec<Row> {
    let matching =
        |row: &Row| edges.iter().filter(|edge| row[1].is_some() && edge[0] == row[1]).map(|edge| vec![row[0], edge[1]]).collect::<Vec<_>>();
    rows.iter().flat_map(matching).collect()
}

fn naive_union(edges: &[Row]) -> Bag {
    let mut known: BTreeSet<Row> = BTreeSet::new();
    let mut fresh = starts(edges);
    while !fresh.is_empty() {
        fresh.retain(|row| !known.contains(row));
        known.extend(fresh.iter().cloned());
        fresh = followed(&fresh, edges);
    }
    bag(known)
}

fn naive_union_all(edges: &[Row]) -> Bag {
    let (mut all, mut fresh) = (vec![], starts(edges));
    while !fresh.is_empty() {
        all.extend(fresh.iter().cloned());
        fresh = followed(&fresh, edges);
    }
    bag(all)
}

/// Edges among twelve nodes, with cycles; sometimes without an end.
fn any_edge(rng: &mut SmallRng) -> Row {
    vec![Some(rng.random_range(0..12)), rng.random_bool(0.95).then(|| rng.random_range(0..12))]
}

/// Edges that lead up only.
fn upward_edge(rng: &mut SmallRng) -> Row {
    let from = rng.random_range(0..9);
    vec![Some(from), Some(rng.random_range(from + 1..11))]
}

#[tokio::test]
async fn union_follows_cycles_once() {
    let mut runner = Runner::new(graph(true, true));
    let mut rng = rng(3);
    let (mut input, mut result) = (Bag::new(), Bag::new());
    for _ in 0..30 {
        let mut delta = random_delta(&mut rng, &edges(), &input, false, any_edge);
        delta.truncate(1);
        add(&mut input, &delta);
        let change = runner.step(&[("t", delta)], 0).await.unwrap();
        assert!(append_only(&change));
        add(&mut result, &change);
        assert_eq!(result, naive_union(&expanded(&input)));
    }
}

#[tokio::test]
async fn union_all_follows_rows_that_come_and_go() {
    for only_appends in [true, false] {
        let mut runner = Runner::new(graph(false, only_appends));
        let mut rng = rng(4);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for _ in 0..30 {
            let delta = random_delta(&mut rng, &edges(), &input, !only_appends, upward_edge);
            // Multiplicities grow fast.
            let delta = if only_appends && input.len() > 12 { vec![] } else { delta };
            add(&mut input, &delta);
            let change = runner.step(&[("t", delta)], 0).await.unwrap();
            add(&mut result, &change);
            assert_eq!(result, naive_union_all(&expanded(&input)));
        }
    }
}

#[tokio::test]
async fn a_change_costs_what_follows_from_it() {
    let mut runner = Runner::new(graph(true, true));
    // A chain from 2 to 1000, and one more edge at its end.
    let rows: Vec<Row> = (2..1_000).map(|node| vec![Some(node), Some(node + 1)]).collect();
    let bulk = runner.step(&[("t", vec![DeltaBatch::insertions(batch(&edges(), &rows))])], 0).await.unwrap();
    assert_eq!(listed(&bulk).len(), 998);
    let before = runner.flow.operator_stats()[2].touched_keys;
    let edge = batch(&edges(), &[vec![Some(1_000), Some(1_001)]]);
    let change = runner.step(&[("t", vec![DeltaBatch::insertions(edge)])], 0).await.unwrap();
    assert_eq!(listed(&change), [(vec![Some(2), Some(1_001)], 1)]);
    assert!(runner.flow.operator_stats()[2].touched_keys - before < 10);
}

#[tokio::test]
async fn a_cycle_of_union_all_is_an_error() {
    let mut runner = Runner::new(graph(false, true));
    let rows = batch(&edges(), &[vec![Some(1), Some(2)], vec![Some(2), Some(1)]]);
    let error = runner.step(&[("t", vec![DeltaBatch::insertions(rows)])], 0).await.unwrap_err();
    assert_eq!(error.to_string(), "recursive query \"r\" has not come to an end after 1500 rounds");
}
