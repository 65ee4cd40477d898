//! What holds for every graph: expressions compile, fragments run, bounds have the type of their column.

use super::*;
use crate::PlanError;
use crate::bound::{BoundContext, BoundValue};
use crate::compile::{compile, compile_all};
use crate::graph::{Graph, Keep, Node, Op};
use crate::leaf::{LeafSlot, physical_plan};
use crate::temporal::over_clock;
use crate::translate::Fallback;
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use datafusion::physical_plan::collect;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use millstream_types::{Classified, Epoch};
use std::collections::BTreeSet;

/// Every expression compiles against its input, every fragment can be planned and run, every bound has its column's type.
#[tokio::test]
async fn graphs_are_complete() {
    let queries = [
        format!("SELECT window_start, window_end, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2, 3"),
        format!("SELECT window_start, window_end, max(price) AS m FROM {HOP} GROUP BY 1, 2"),
        "SELECT a.price, b.price AS p2, i.name FROM bids a JOIN bids b ON a.auction = b.auction JOIN items i ON i.id = a.auction".into(),
        "SELECT b.price, i.name FROM items i RIGHT JOIN bids b ON b.auction = i.id AND b.price > i.id".into(),
        "SELECT i.name, b.price FROM items i CROSS JOIN bids b WHERE b.price > i.id".into(),
        "SELECT price FROM bids WHERE auction NOT IN (SELECT id FROM items)".into(),
        "SELECT price FROM bids WHERE auction NOT IN (SELECT a FROM edges)".into(),
        "SELECT price, a + 1 AS c FROM bids LEFT JOIN edges ON auction = a AND price > b".into(),
        "SELECT price, i.name FROM items i FULL JOIN bids ON auction = i.id".into(),
        "SELECT price FROM bids WHERE price > 5 OR EXISTS (SELECT 1 FROM edges WHERE a = auction)".into(),
        format!("SELECT l.price, r.price AS p2, l.window_end FROM {TUMBLE} l FULL JOIN {TUMBLE} r ON l.window_end = r.window_end"),
        "SELECT l.price, r.ts AS t FROM bids l JOIN bids r ON l.auction = r.auction AND r.ts BETWEEN l.ts AND l.ts + INTERVAL '1 day'"
            .into(),
        "SELECT price FROM bids WHERE price > 5 OR EXISTS (SELECT 1 FROM items WHERE id = auction)".into(),
        "SELECT price FROM bids WHERE price > (SELECT avg(price) FROM bids)".into(),
        "SELECT auction, price FROM bids ORDER BY price DESC LIMIT 3 OFFSET 1".into(),
        "SELECT p + 1 AS q FROM (SELECT price AS p FROM bids ORDER BY ts LIMIT 5) WHERE p > 2".into(),
        "SELECT auction, bidder, sum(price) AS s, grouping(auction) AS g FROM bids GROUP BY CUBE(auction, bidder)".into(),
        "SELECT auction, count(DISTINCT bidder) AS n, max(price) AS m FROM bids GROUP BY auction".into(),
        "SELECT auction FROM bids EXCEPT SELECT item FROM stock".into(),
        "SELECT item, amount FROM stock UNION SELECT auction, price FROM bids".into(),
        "SELECT price FROM bids WHERE ts > now() - INTERVAL '1 hour' AND price > 5".into(),
        "SELECT price FROM bids WHERE now() BETWEEN ts AND ts + INTERVAL '1 hour' OR ts > now()".into(),
        "SELECT now() AS n, count(*) AS c FROM bids".into(),
        "SELECT ts + INTERVAL '1 day' AS t, _epoch + 1 AS e, _epoch_time AS et, CAST(ts AS TIMESTAMP(3)) AS m FROM bids".into(),
        "SELECT DISTINCT ON (auction) auction, price FROM bids ORDER BY auction, ts DESC".into(),
        "SELECT unnest(make_array(price, auction)) AS x FROM bids".into(),
        ROW_NUMBER.into(),
        format!("SELECT bidder, window_end, sum(price) AS s FROM {SESSION} GROUP BY bidder, window_start, window_end"),
        format!("SELECT auction, window_end FROM {SESSION}"),
        CLOSURE.into(),
        "WITH RECURSIVE n AS (SELECT auction, 0 AS d FROM bids UNION ALL SELECT auction, d + 1 FROM n WHERE d < 3) SELECT * FROM n".into(),
    ];
    for sql in &queries {
        for emit in [EmitClause::None, EmitClause::OnWindowClose] {
            let (optimized, state) = optimized(sql).await.unwrap();
            let planned = plan(&optimized, &Catalog, &state, &PlanOptions { emit, ..PlanOptions::default() });
            let planned = match (planned, emit) {
                (Ok(planned), _) => planned,
                (Err(PlanError::NoBound { .. }), EmitClause::OnWindowClose) => continue,
                (Err(error), _) => panic!("{sql}: {error}"),
            };
            let names: Vec<_> = optimized.schema().fields().iter().map(|field| field.name().clone()).collect();
            let output: Vec<_> = planned.graph.output_node().schema.fields().iter().map(|field| field.name().clone()).collect();
            assert_eq!(output, names, "{sql}");
            for node in &planned.graph.nodes {
                check_node(sql, &planned.graph, node, &state).await;
            }
        }
    }
}

fn bound_context() -> BoundContext {
    BoundContext {
        watermarks: [("bids".to_string(), EventTime(1_700_000_001_234_567))].into(),
        closed: BTreeSet::new(),
        epoch: Epoch(7),
        clock: EventTime(1_700_000_000_000_000),
    }
}

async fn check_node(sql: &str, graph: &Graph, node: &Node, state: &SessionState) {
    let at = format!("{sql}\n{}", explain::node_label(node));
    let inputs: Vec<&Node> = node.inputs.iter().map(|input| graph.node(*input)).collect();
    assert_eq!(node.properties.bounds.len(), node.schema.fields().len(), "{at}");
    let types = |node: &Node| node.schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
    match &node.op {
        Op::Map { predicates, exprs } => {
            let schema = &inputs[0].df_schema;
            compile_all(predicates, schema, state).unwrap();
            if let Some(exprs) = exprs {
                let compiled = compile_all(exprs, schema, state).unwrap();
                let found: Vec<_> = compiled.iter().map(|expr| expr.data_type(&inputs[0].schema).unwrap()).collect();
                assert_eq!(found, types(node), "{at}");
            }
        }
        Op::TemporalFilter { rising, falling } => {
            let conditions: Vec<_> = rising.iter().chain(falling).cloned().collect();
            let (conditions, schema) = over_clock(&conditions, &inputs[0].df_schema).unwrap();
            let compiled = compile_all(&conditions, &schema, state).unwrap();
            assert!(compiled.iter().all(|expr| expr.data_type(schema.inner()).unwrap() == DataType::Boolean), "{at}");
        }
        Op::PreAggregate { group, aggregates } => {
            let keys = compile_all(group, &inputs[0].df_schema, state).unwrap();
            let found: Vec<_> = keys.iter().map(|expr| expr.data_type(&inputs[0].schema).unwrap()).collect();
            assert_eq!(found, types(node)[..group.len()], "{at}");
            assert!(node.schema.fields().len() >= group.len() + aggregates.len(), "{at}");
        }
        Op::Aggregate { group, aggregates, states, bucket, .. } => {
            compile_all(group, &inputs[0].df_schema, state).unwrap();
            assert!(states.as_ref().is_none_or(|states| states.first == group.len()), "{at}");
            assert_eq!(group.len() + aggregates.len(), node.schema.fields().len(), "{at}");
            assert!(bucket.as_ref().is_none_or(|bucket| bucket.column < group.len()), "{at}");
        }
        Op::SessionWindow { key, time, aggregates, bucket, .. } => {
            let keys = compile_all(key, &inputs[0].df_schema, state).unwrap();
            let time = compile(time, &inputs[0].df_schema, state).unwrap();
            let mut found: Vec<_> = keys.iter().map(|expr| expr.data_type(&inputs[0].schema).unwrap()).collect();
            found.extend([time.data_type(&inputs[0].schema).unwrap(), time.data_type(&inputs[0].schema).unwrap()]);
            assert_eq!(found, types(node)[..key.len() + 2], "{at}");
            assert_eq!(key.len() + 2 + aggregates.len(), node.schema.fields().len(), "{at}");
            assert!(bucket.as_ref().is_none_or(|bucket| bucket.column == key.len() + 1), "{at}");
        }
        Op::Process { key, order, .. } => {
            let keys = compile_all(key, &inputs[0].df_schema, state).unwrap();
            let found: Vec<_> = keys.iter().map(|expr| expr.data_type(&inputs[0].schema).unwrap()).collect();
            assert_eq!(found, types(node)[..key.len()], "{at}");
            for sort in order {
                compile(&sort.expr, &inputs[0].df_schema, state).unwrap();
            }
        }
        Op::StaticJoin { on, filter, filter_schema, .. } | Op::Join { on, filter, filter_schema, .. } => {
            assert_eq!(matches!(node.op, Op::StaticJoin { .. }), matches!(inputs[1].op, Op::Constant { .. }), "{at}");
            for (left, right) in on {
                compile_all(std::slice::from_ref(left), &inputs[0].df_schema, state).unwrap();
                compile_all(std::slice::from_ref(right), &inputs[1].df_schema, state).unwrap();
            }
            compile_all(filter.as_slice(), filter_schema, state).unwrap();
            if let Op::Join { keep, .. } = &node.op {
                for (keep, input) in keep.iter().zip(&inputs) {
                    let Keep::Until { value, bound } = keep else { continue };
                    let data_type = compile(value, &input.df_schema, state).unwrap().data_type(&input.schema).unwrap();
                    if let BoundValue::Below(bound) = bound.evaluate(&bound_context()).unwrap() {
                        assert_eq!(bound.data_type(), data_type, "{at}");
                    }
                }
            }
        }
        Op::TopN { partition, order, numbered, bucket, .. } => {
            compile_all(partition, &inputs[0].df_schema, state).unwrap();
            order.iter().for_each(|key| drop(compile(&key.expr, &inputs[0].df_schema, state).unwrap()));
            assert_eq!(inputs[0].schema.fields().len() + usize::from(*numbered), node.schema.fields().len(), "{at}");
            assert!(bucket.as_ref().is_none_or(|bucket| bucket.column < partition.len()), "{at}");
        }
        Op::Unnest { plan } | Op::Recompute { plan } | Op::TouchedKeys { plan, .. } => {
            let slots: Vec<_> = inputs.iter().map(|_| LeafSlot::new()).collect();
            let physical = physical_plan(plan, &slots, state).await.unwrap_or_else(|error| panic!("{at}: {error}"));
            let found: Vec<_> = physical.schema().fields().iter().map(|field| field.data_type().clone()).collect();
            assert_eq!(found, types(node), "{at}");
            collect(physical, state.task_ctx()).await.unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        Op::Recursion { term, distinct, .. } => {
            assert_eq!(types(inputs[0]), types(node), "{at}");
            assert_eq!(types(term.output_node()), types(node), "{at}");
            assert!(!distinct || term.output_node().properties.append_only, "{at}");
            for inner in &term.nodes {
                Box::pin(check_node(sql, term, inner, state)).await;
            }
        }
        Op::Input { .. } | Op::Constant { .. } | Op::Union | Op::WindowClose { .. } => {}
    }
    for (bound, field) in node.properties.bounds.iter().zip(node.schema.fields()) {
        let Some(bound) = bound else { continue };
        match bound.evaluate(&bound_context()).unwrap() {
            BoundValue::Below(value) => assert_eq!(&value.data_type(), field.data_type(), "{at}: {}", bound.canonical()),
            other => panic!("{at}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn fragments_run_again_on_new_batches() {
    // What a limit stands on is recomputed with it.
    let numbered = "SELECT auction, price, ntile(1) OVER (ORDER BY auction) AS n FROM bids";
    let sql = format!("SELECT auction, price FROM ({numbered}) WHERE n > 0 ORDER BY price DESC OFFSET 1");
    let planned = planned(&sql, EmitClause::None).await.unwrap();
    let node = planned.graph.output_node();
    let Op::Recompute { plan } = &node.op else { panic!("{node:?}") };
    let (slot, state) = (LeafSlot::new(), state());
    let physical = physical_plan(plan, std::slice::from_ref(&slot), &state).await.unwrap();
    let schema = Arc::clone(&planned.graph.node(node.inputs[0]).schema);
    let mut results = vec![];
    for prices in [vec![1, 5, 5], vec![7, 1], vec![]] {
        let auctions = (0..prices.len() as i64).rev().collect::<Vec<_>>();
        let columns = vec![Arc::new(Int64Array::from(auctions)) as _, Arc::new(Int64Array::from(prices)) as _];
        slot.set(vec![RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()]);
        let physical = reset_plan_states(Arc::clone(&physical)).unwrap();
        let batches = collect(physical, state.task_ctx()).await.unwrap();
        let pairs = batches.iter().flat_map(|batch| {
            let (auctions, prices) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
            (0..batch.num_rows()).map(|row| (auctions.value(row), prices.value(row))).collect::<Vec<_>>()
        });
        results.push(pairs.collect::<Vec<_>>());
    }
    // Equal prices are ordered by auction, whatever the order of arrival.
    assert_eq!(results, [vec![(1, 5), (2, 1)], vec![(0, 1)], vec![]]);
}

#[tokio::test]
async fn bounds_follow_the_watermark() {
    let sql = format!("SELECT window_start, window_end, count(*) AS n FROM {HOP} GROUP BY 1, 2");
    let graph = planned(&sql, EmitClause::None).await.unwrap().graph;
    let at = |micros| BoundContext {
        watermarks: [("bids".to_string(), EventTime(micros))].into(),
        closed: BTreeSet::new(),
        epoch: Epoch(1),
        clock: EventTime(0),
    };
    let value = |column: usize, micros| match graph.output_node().properties.bounds[column].as_ref().unwrap().evaluate(&at(micros)).unwrap()
    {
        BoundValue::Below(datafusion::common::ScalarValue::TimestampMicrosecond(Some(value), _)) => value / 1_000_000,
        other => panic!("{other:?}"),
    };
    // With the watermark at 12 s the windows [-5, 5) and [0, 10) are complete, [5, 15) is not.
    assert_eq!((value(0, 12_000_000), value(1, 12_000_000)), (5, 15));
    // A watermark at the end of a window completes it.
    assert_eq!((value(0, 15_000_000), value(1, 15_000_000)), (10, 20));
}

#[tokio::test]
async fn names_do_not_change_fingerprints() {
    let graph = |sql: &'static str| async move { planned(sql, EmitClause::None).await.unwrap().graph };
    let first = graph("SELECT b.auction AS a, count(*) AS n FROM bids b WHERE b.price > 1 GROUP BY b.auction").await;
    let second = graph("SELECT auction, count(*) FROM bids WHERE price > 1 GROUP BY auction").await;
    let third = graph("SELECT auction, count(*) FROM bids WHERE price > 2 GROUP BY auction").await;
    let aggregate = |graph: &Graph| graph.nodes.iter().find(|node| matches!(node.op, Op::Aggregate { .. })).unwrap().fingerprint;
    assert_eq!(aggregate(&first), aggregate(&second));
    assert_ne!(aggregate(&first), aggregate(&third));
}

#[tokio::test]
async fn refusals() {
    let error = planned("SELECT amount, random() AS r FROM stock", EmitClause::None).await.unwrap_err();
    assert_eq!(error.to_string(), "volatile expression random() reads rows that may be taken back");
    let error = planned("SELECT page, count(*) AS n FROM clicks GROUP BY page", EmitClause::OnWindowClose).await.unwrap_err();
    assert_eq!(error.to_string(), "emit on window close: no output column is bounded by a watermark; the columns are \"page\", \"n\"");
    assert_eq!(
        error.hint().unwrap(),
        "Add WATERMARK FOR at AS at - INTERVAL '5 seconds' to stream \"clicks\", and group by a window over it."
    );
    let error = planned("SELECT auction, count(*) AS n FROM bids GROUP BY auction", EmitClause::OnWindowClose).await.unwrap_err();
    assert_eq!(error.hint().unwrap(), "Group by a window over \"ts\" of stream \"bids\" and select the window column.");
    let (optimized, state) = optimized("SELECT cume_dist() OVER (ORDER BY ts) AS l FROM bids").await.unwrap();
    let options = PlanOptions { fallback: Fallback::Error, ..PlanOptions::default() };
    let error = plan(&optimized, &Catalog, &state, &options).unwrap_err();
    let reason = "would be recomputed as a whole: window functions without PARTITION BY read all rows";
    assert!(error.to_string().ends_with(reason), "{error}");
}

#[tokio::test]
async fn notices() {
    let planned = planned("SELECT DISTINCT auction FROM bids ORDER BY auction", EmitClause::None).await.unwrap();
    assert_eq!(
        planned.notices,
        [
            "ORDER BY without LIMIT has no effect on a maintained result: sort where it is read.",
            "Distinct: by auction keeps a row per group forever. Group also by a window over the event time (WATERMARK) of \"bids\" to bound it.",
        ]
    );
}

#[tokio::test]
async fn equal_rows_of_joins_are_told() {
    let rows = |sql: &'static str, side| async move {
        let graph = planned(sql, EmitClause::None).await.unwrap().graph;
        let join = graph.nodes.iter().find(|node| matches!(node.op, Op::Join { .. })).unwrap().clone();
        crate::sharing::rows_of_side(&graph, &join, side).unwrap()
    };
    let stock = rows("SELECT c.price, s.amount FROM bids c JOIN stock s ON c.auction = s.item", 1).await;
    assert!(stock.is_some());
    // Whatever it is called and on whichever side it stands, and whatever is joined with it.
    assert_eq!(rows("SELECT t.amount AS n, e.b FROM stock t JOIN edges e ON e.a = t.item", 0).await, stock);
    assert_eq!(rows("SELECT c.price, s.amount FROM bids c LEFT JOIN stock s ON c.auction = s.item", 1).await, stock);
    // Other columns, other rows, another key.
    for sql in [
        "SELECT c.price, s.item FROM bids c JOIN stock s ON c.auction = s.item",
        "SELECT c.price, s.amount FROM bids c JOIN stock s ON c.auction = s.item AND s.amount > 1",
        "SELECT c.price, s.amount FROM bids c JOIN stock s ON c.auction = s.item + 1",
    ] {
        let other = rows(sql, 1).await;
        assert!(other.is_some() && other != stock, "{sql}");
    }
    // They do not follow from the changes of the epoch.
    for sql in [
        "SELECT c.price, s.amount FROM bids c JOIN (SELECT item, sum(amount) AS amount FROM stock GROUP BY item) s ON c.auction = s.item",
        "SELECT auction FROM bids WHERE auction NOT IN (SELECT item FROM stock)",
    ] {
        assert_eq!(rows(sql, 1).await, None, "{sql}");
    }
}
