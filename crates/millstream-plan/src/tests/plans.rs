//! What queries become.

use super::*;
use crate::bound::{BoundContext, BoundValue};
use crate::compile::compile_all;
use crate::graph::{Graph, Node, Op};
use crate::leaf::{LeafSlot, physical_plan};
use crate::translate::Fallback;
use datafusion::physical_plan::collect;
use millstream_types::{Classified, Epoch};
use std::collections::BTreeSet;

const TUMBLE: &str = "(SELECT *, window_end(window_start, INTERVAL '10 seconds') AS window_end
    FROM (SELECT *, tumble_start(ts, INTERVAL '10 seconds') AS window_start FROM bids))";
const HOP: &str = "(SELECT *, window_end(window_start, INTERVAL '10 seconds') AS window_end
    FROM (SELECT *, unnest(hop_starts(ts, INTERVAL '5 seconds', INTERVAL '10 seconds')) AS window_start FROM bids))";
const ROW_NUMBER: &str = "SELECT * FROM (SELECT auction, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn
    FROM bids) WHERE rn <= 3";
const CLOSURE: &str = "WITH RECURSIVE r AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM r JOIN edges e ON r.b = e.a)
    SELECT a, b FROM r";

#[tokio::test]
async fn filter_and_projection() {
    println!("@@filter_and_projection\n{}@@end", explained("SELECT auction, price * 2 AS double FROM bids WHERE price > 10").await);
}

#[tokio::test]
async fn tumble_on_window_close() {
    println!("@@tumble_on_window_close\n{}@@end", explained_final(&format!("SELECT window_start, window_end, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2, 3")).await);
}

#[tokio::test]
async fn tumble_changes() {
    println!("@@tumble_changes\n{}@@end", explained(&format!("SELECT window_start, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2")).await);
}

#[tokio::test]
async fn hop_on_window_close() {
    println!("@@hop_on_window_close\n{}@@end", explained_final(&format!("SELECT window_start, window_end, sum(price) AS s FROM {HOP} GROUP BY 1, 2")).await);
}

#[tokio::test]
async fn aggregate_over_closed_windows() {
    println!("@@aggregate_over_closed_windows\n{}@@end", explained_final(&format!("SELECT window_start, max(n) AS m FROM (SELECT window_start, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2) GROUP BY 1")).await);
}

#[tokio::test]
async fn aggregate_over_open_windows() {
    println!("@@aggregate_over_open_windows\n{}@@end", explained(&format!("SELECT window_start, max(n) AS m FROM (SELECT window_start, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2) GROUP BY 1")).await);
}

#[tokio::test]
async fn distinct() {
    println!("@@distinct\n{}@@end", explained("SELECT DISTINCT auction FROM bids").await);
}

#[tokio::test]
async fn union_of_rows_on_window_close() {
    println!("@@union_of_rows_on_window_close\n{}@@end", explained_final("SELECT ts, price FROM bids UNION ALL SELECT ts, auction FROM bids").await);
}

#[tokio::test]
async fn union_of_windows_on_window_close() {
    println!("@@union_of_windows_on_window_close\n{}@@end", explained_final(&format!("SELECT window_end, count(*) AS n FROM {TUMBLE} GROUP BY 1 UNION ALL SELECT window_end, max(price) FROM {TUMBLE} GROUP BY 1")).await);
}

#[tokio::test]
async fn join_with_table_at_rest() {
    println!("@@join_with_table_at_rest\n{}@@end", explained("SELECT b.price, i.name FROM bids b JOIN items i ON b.auction = i.id WHERE i.name <> 'x'").await);
}

#[tokio::test]
async fn mirrored_join_with_table_at_rest() {
    println!("@@mirrored_join_with_table_at_rest\n{}@@end", explained("SELECT b.price, i.name FROM items i RIGHT JOIN bids b ON b.auction = i.id AND b.price > i.id").await);
}

#[tokio::test]
async fn join_that_keeps_the_table_at_rest() {
    println!("@@join_that_keeps_the_table_at_rest\n{}@@end", explained("SELECT b.price, i.name FROM items i LEFT JOIN bids b ON b.auction = i.id").await);
}

#[tokio::test]
async fn not_in() {
    println!("@@not_in\n{}@@end", explained("SELECT price FROM bids WHERE auction NOT IN (SELECT id FROM items)").await);
}

#[tokio::test]
async fn join_of_streams() {
    println!("@@join_of_streams\n{}@@end", explained("SELECT b.price, c.page FROM bids b JOIN clicks c ON b.bidder = c.page WHERE b.price > 3").await);
}

#[tokio::test]
async fn self_join_keeps_one_copy() {
    println!("@@self_join_keeps_one_copy\n{}@@end", explained("SELECT a.price, b.price AS p2 FROM bids a JOIN bids b ON a.auction = b.auction").await);
}

#[tokio::test]
async fn row_number() {
    println!("@@row_number\n{}@@end", explained(ROW_NUMBER).await);
}

#[tokio::test]
async fn order_by_limit() {
    println!("@@order_by_limit\n{}@@end", explained("SELECT auction, price FROM bids ORDER BY price DESC LIMIT 3").await);
}

#[tokio::test]
async fn count_distinct() {
    println!("@@count_distinct\n{}@@end", explained("SELECT auction, count(DISTINCT bidder) AS n FROM bids GROUP BY auction").await);
}

#[tokio::test]
async fn count_distinct_beside_max() {
    println!("@@count_distinct_beside_max\n{}@@end", explained("SELECT auction, count(DISTINCT bidder) AS n, max(price) AS m FROM bids GROUP BY auction").await);
}

#[tokio::test]
async fn max_over_retractions() {
    println!("@@max_over_retractions\n{}@@end", explained("SELECT max(amount) AS m FROM stock").await);
}

#[tokio::test]
async fn sum_over_retractions() {
    println!("@@sum_over_retractions\n{}@@end", explained("SELECT item, sum(amount) AS m FROM stock GROUP BY item").await);
}

#[tokio::test]
async fn scalar_subquery() {
    println!("@@scalar_subquery\n{}@@end", explained("SELECT price FROM bids WHERE price > (SELECT avg(price) FROM bids)").await);
}

#[tokio::test]
async fn recursive() {
    println!("@@recursive\n{}@@end", explained(CLOSURE).await);
}

#[tokio::test]
async fn now_in_a_filter() {
    println!("@@now_in_a_filter\n{}@@end", explained("SELECT price FROM bids WHERE ts > now() - INTERVAL '1 hour' AND price > 5").await);
}

#[tokio::test]
async fn rollup() {
    println!("@@rollup\n{}@@end", explained("SELECT auction, bidder, sum(price) AS s FROM bids GROUP BY ROLLUP(auction, bidder)").await);
}

#[tokio::test]
async fn group_by_epoch() {
    println!("@@group_by_epoch\n{}@@end", explained("SELECT _epoch, bidder, count(*) AS n FROM bids GROUP BY _epoch, bidder").await);
}

#[tokio::test]
async fn volatile_over_append_only() {
    println!("@@volatile_over_append_only\n{}@@end", explained("SELECT random() < 0.5 AS r FROM bids").await);
}

#[tokio::test]
async fn weakly_monotone_column_on_window_close() {
    println!("@@weakly_monotone_column_on_window_close\n{}@@end", explained_final(&format!("SELECT date_trunc('hour', window_end) AS hour, n FROM (SELECT window_end, count(*) AS n FROM {TUMBLE} GROUP BY 1)")).await);
}

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
        "SELECT price FROM bids WHERE price > 5 OR EXISTS (SELECT 1 FROM items WHERE id = auction)".into(),
        "SELECT price FROM bids WHERE price > (SELECT avg(price) FROM bids)".into(),
        "SELECT auction, price FROM bids ORDER BY price DESC LIMIT 3 OFFSET 1".into(),
        "SELECT p + 1 AS q FROM (SELECT price AS p FROM bids ORDER BY ts LIMIT 5) WHERE p > 2".into(),
        "SELECT auction, bidder, sum(price) AS s, grouping(auction) AS g FROM bids GROUP BY CUBE(auction, bidder)".into(),
        "SELECT auction, count(DISTINCT bidder) AS n, max(price) AS m FROM bids GROUP BY auction".into(),
        "SELECT auction FROM bids EXCEPT SELECT item FROM stock".into(),
        "SELECT item, amount FROM stock UNION SELECT auction, price FROM bids".into(),
        "SELECT price FROM bids WHERE ts > now() - INTERVAL '1 hour' AND price > 5".into(),
        "SELECT now() AS n, count(*) AS c FROM bids".into(),
        "SELECT ts + INTERVAL '1 day' AS t, _epoch + 1 AS e, _epoch_time AS et, CAST(ts AS TIMESTAMP(3)) AS m FROM bids".into(),
        "SELECT DISTINCT ON (auction) auction, price FROM bids ORDER BY auction, ts DESC".into(),
        "SELECT unnest(make_array(price, auction)) AS x FROM bids".into(),
        ROW_NUMBER.into(),
        CLOSURE.into(),
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
        Op::Aggregate { group, aggregates, bucket, .. } => {
            compile_all(group, &inputs[0].df_schema, state).unwrap();
            assert_eq!(group.len() + aggregates.len(), node.schema.fields().len(), "{at}");
            assert!(bucket.as_ref().is_none_or(|bucket| bucket.column < group.len()), "{at}");
        }
        Op::StaticJoin { on, filter, filter_schema, .. } => {
            assert!(matches!(inputs[1].op, Op::Constant { .. }), "{at}");
            for (left, right) in on {
                compile_all(std::slice::from_ref(left), &inputs[0].df_schema, state).unwrap();
                compile_all(std::slice::from_ref(right), &inputs[1].df_schema, state).unwrap();
            }
            compile_all(filter.as_slice(), filter_schema, state).unwrap();
        }
        Op::Unnest { plan } | Op::Recompute { plan } => {
            let slots: Vec<_> = inputs.iter().map(|_| LeafSlot::new()).collect();
            let physical = physical_plan(plan, &slots, state).await.unwrap_or_else(|error| panic!("{at}: {error}"));
            let found: Vec<_> = physical.schema().fields().iter().map(|field| field.data_type().clone()).collect();
            assert_eq!(found, types(node), "{at}");
            collect(physical, state.task_ctx()).await.unwrap_or_else(|error| panic!("{at}: {error}"));
        }
        Op::Input { .. } | Op::Constant { .. } | Op::Union | Op::WindowClose { .. } => {}
    }
    let context = BoundContext {
        watermarks: [("bids".to_string(), EventTime(1_700_000_001_234_567))].into(),
        closed: BTreeSet::new(),
        epoch: Epoch(7),
        clock: EventTime(1_700_000_000_000_000),
    };
    for (bound, field) in node.properties.bounds.iter().zip(node.schema.fields()) {
        let Some(bound) = bound else { continue };
        match bound.evaluate(&context).unwrap() {
            BoundValue::Below(value) => assert_eq!(&value.data_type(), field.data_type(), "{at}: {}", bound.canonical()),
            other => panic!("{at}: {other:?}"),
        }
    }
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
    let value = |column: usize, micros| match graph.output_node().properties.bounds[column].as_ref().unwrap().evaluate(&at(micros)).unwrap() {
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
    let (optimized, state) = optimized(ROW_NUMBER).await.unwrap();
    let options = PlanOptions { fallback: Fallback::Error, ..PlanOptions::default() };
    let error = plan(&optimized, &Catalog, &state, &options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Recompute: Projection of Filter of Window would be recomputed as a whole: window functions are recomputed"
    );
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
