//! What becomes of LIMIT and of rankings that are cut off.

use super::*;
use crate::graph::{Node, Op};

/// The top-n of a query, if it has one.
async fn top_n(sql: &str) -> Option<Node> {
    let planned = planned(sql, EmitClause::None).await.unwrap();
    planned.graph.nodes.iter().find(|node| matches!(node.op, Op::TopN { .. })).cloned()
}

/// Skipped places, shown places, and whether their number is a column.
async fn places(sql: &str) -> Option<(u64, u64, bool)> {
    match top_n(sql).await?.op {
        Op::TopN { skip, fetch, numbered, .. } => Some((skip, fetch, numbered)),
        _ => None,
    }
}

async fn ranked(select: &str, function: &str, condition: &str) -> Option<(u64, u64, bool)> {
    let over = "OVER (PARTITION BY auction ORDER BY price DESC NULLS LAST)";
    places(&format!("SELECT {select} FROM (SELECT *, {function}() {over} AS place FROM bids) WHERE {condition}")).await
}

#[tokio::test]
async fn conditions_on_the_number() {
    for (condition, expected) in [
        ("place <= 3", (0, 3)),
        ("place < 3", (0, 2)),
        ("3 >= place", (0, 3)),
        ("place = 1", (0, 1)),
        ("place = 2", (1, 1)),
        ("place BETWEEN 2 AND 4", (1, 3)),
        ("place > 1 AND place < 4 AND place <= 9", (1, 2)),
        ("CAST(place AS BIGINT) <= 3", (0, 3)),
        ("place <= 0", (0, 0)),
        ("place <= 3 AND price > 5 AND auction = 7", (0, 3)),
    ] {
        for function in ["row_number", "rank", "dense_rank"] {
            let (skip, fetch) = expected;
            assert_eq!(ranked("auction, price", function, condition).await, Some((skip, fetch, false)), "{condition}");
            assert_eq!(ranked("price, place", function, condition).await, Some((skip, fetch, true)), "{condition}");
        }
    }
    // A further condition on the number needs it.
    assert_eq!(ranked("price", "row_number", "place <= 3 AND place % 2 = 1").await, Some((0, 3, true)));
    for condition in ["place >= 3", "place <= price", "place <= 3 OR price = 1"] {
        assert_eq!(ranked("price", "row_number", condition).await, None, "{condition}");
    }
    assert_eq!(ranked("price", "cume_dist", "place <= 3").await, None);
}

#[tokio::test]
async fn limits() {
    assert_eq!(places("SELECT price FROM bids LIMIT 2").await, Some((0, 2, false)));
    assert_eq!(places("SELECT price FROM bids ORDER BY ts DESC, price + 1 LIMIT 2 OFFSET 3").await, Some((3, 2, false)));
    assert_eq!(places("SELECT max(p) FROM (SELECT price + 1 AS p FROM bids ORDER BY ts LIMIT 4) WHERE p > 2").await, Some((0, 4, false)));
    assert_eq!(places("SELECT price FROM bids ORDER BY ts DESC OFFSET 3").await, Some((0, 3, false)));
    assert_eq!(
        places("SELECT price FROM (SELECT price, lead(price) OVER (ORDER BY ts) AS l FROM bids) ORDER BY l LIMIT 2").await,
        Some((0, 2, false))
    );
    // What a limit stands on is recomputed with it.
    assert_eq!(places("SELECT price FROM (SELECT price, cume_dist() OVER (ORDER BY ts) AS l FROM bids) ORDER BY l LIMIT 2").await, None);
    assert_eq!(places("SELECT price FROM bids ORDER BY ts > now(), ts LIMIT 2").await, None);
}

#[tokio::test]
async fn explanations() {
    let sql = "SELECT auction, price, dense_rank() OVER (PARTITION BY auction ORDER BY price, ts DESC NULLS LAST) AS place FROM bids
        QUALIFY place BETWEEN 2 AND 5";
    assert_eq!(
        explained(sql).await,
        "\
Map: auction, price, dense_rank AS place
    T1 delta, retracting
  TopN: by auction, dense_rank 2 to 5 by price, ts DESC NULLS LAST
      T1 delta, retracting; state: the first rows per partition, UNBOUNDED
    Input: bids (auction, price, ts)
        T1 delta, append-only
"
    );
    let planned = planned("SELECT auction, sum(price) AS s FROM bids GROUP BY auction ORDER BY s DESC LIMIT 3", EmitClause::None);
    let notices = planned.await.unwrap().notices;
    assert_eq!(
        notices,
        [
            "Aggregate: by auction: sum(price) keeps a row per group forever. Group also by a window over the event time (WATERMARK) of \"bids\" to bound \
             it.",
            "TopN: rows 1 to 3 by sum(bids.price) DESC keeps all its input, since any row may become one of the first when others go.",
        ]
    );
}

/// The first of each window: its groups come once, all together, and so do the first of them.
#[tokio::test]
async fn of_closed_windows() {
    let sql = format!(
        "SELECT window_end, auction, n FROM (
            SELECT *, row_number() OVER (PARTITION BY window_end ORDER BY n DESC) AS place FROM (
                SELECT window_end, auction, count(*) AS n FROM {TUMBLE} GROUP BY window_end, auction))
         WHERE place <= 3"
    );
    let text = explained_final(&sql).await;
    assert!(
        text.contains(
            "  TopN: by window_end, rows 1 to 3 by count(*) DESC
      T1 delta, append-only; state: 3 rows per partition, bounded by watermark of bids on window_end"
        ) && !text.contains("WindowClose"),
        "{text}"
    );
    // With changes the partitions are dropped just the same.
    let text = explained(&sql).await;
    assert!(text.contains("retracting; state: all rows per partition, bounded by watermark of bids on window_end"), "{text}");
    // Rows that come as they are are held back.
    let sql = format!(
        "SELECT window_end, price FROM (SELECT *, rank() OVER (PARTITION BY window_end ORDER BY price) AS place FROM {TUMBLE}) WHERE place = 1"
    );
    let text = explained_final(&sql).await;
    assert!(text.starts_with("WindowClose: window_end"), "{text}");
}
