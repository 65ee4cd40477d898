//! What queries become.

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

pub(super) const TUMBLE: &str = "(SELECT *, window_end(window_start, INTERVAL '10 seconds') AS window_end
    FROM (SELECT *, tumble_start(ts, INTERVAL '10 seconds') AS window_start FROM bids))";
const HOP: &str = "(SELECT *, window_end(window_start, INTERVAL '10 seconds') AS window_end
    FROM (SELECT *, unnest(hop_starts(ts, INTERVAL '5 seconds', INTERVAL '10 seconds')) AS window_start FROM bids))";
const ROW_NUMBER: &str = "SELECT * FROM (SELECT auction, price, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS rn
    FROM bids) WHERE rn <= 3";
pub(super) const SESSION: &str =
    "(SELECT *, session_start(ts, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY ts) AS window_start,
    session_end(ts, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY ts) AS window_end FROM bids)";
const CLOSURE: &str = "WITH RECURSIVE r AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM r JOIN edges e ON r.b = e.a)
    SELECT a, b FROM r";

#[tokio::test]
async fn filter_and_projection() {
    let sql = "SELECT auction, price * 2 AS double FROM bids WHERE price > 10";
    assert_eq!(
        explained(sql).await,
        "\
Map: auction, price * 2 AS double where price > 10
    T1 delta, append-only
  Input: bids (auction, price)
      T1 delta, append-only
"
    );
}

#[tokio::test]
async fn tumble_on_window_close() {
    let sql = format!("SELECT window_start, window_end, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2, 3");
    assert_eq!(
        explained_final(&sql).await,
        "\
Map: window_start, window_end, auction, count(*) AS n
    T1 delta, append-only
  Aggregate: by window_start, window_end, auction: count(*)
      T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
    Map: auction, window_start, window_end(window_start, INTERVAL '10 seconds') AS window_end
        T1 delta, append-only
      Map: auction, tumble_start(ts, INTERVAL '10 seconds') AS window_start
          T1 delta, append-only
        Input: bids (auction, ts)
            T1 delta, append-only
"
    );
}

#[tokio::test]
async fn tumble_changes() {
    let sql = format!("SELECT window_start, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2");
    assert_eq!(
        explained(&sql).await,
        "\
Map: window_start, auction, count(*) AS n
    T1 delta, retracting
  Aggregate: by window_start, auction: count(*)
      T1 delta, retracting; state: a row per group, bounded by watermark of bids on window_start
    Map: auction, tumble_start(ts, INTERVAL '10 seconds') AS window_start
        T1 delta, append-only
      Input: bids (auction, ts)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn hop_on_window_close() {
    let sql = format!("SELECT window_start, window_end, sum(price) AS s FROM {HOP} GROUP BY 1, 2");
    assert_eq!(
        explained_final(&sql).await,
        "\
Map: window_start, window_end, sum(bids.price) AS s
    T1 delta, append-only
  Aggregate: by window_start, window_end: sum(price)
      T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
    Map: window AS window_start, window_end(window, INTERVAL '10 seconds') AS window_end, state0_0, state0_1
        T1 delta, append-only
      Unnest: window
          T1 delta, append-only
        Map: hop_starts(pane, INTERVAL '5 seconds', INTERVAL '10 seconds') AS window, state0_0, state0_1
            T1 delta, append-only
          PreAggregate: by tumble_start(ts, INTERVAL '5 seconds') AS pane: sum(price)
              T1 delta, append-only
            Input: bids (price, ts)
                T1 delta, append-only
"
    );
}

#[tokio::test]
async fn aggregate_over_closed_windows() {
    let sql = format!(
        "SELECT window_start, max(n) AS m FROM (SELECT window_start, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2) GROUP BY 1"
    );
    assert_eq!(
        explained_final(&sql).await,
        "\
Map: window_start, max(n) AS m
    T1 delta, append-only
  Aggregate: by window_start: max(n)
      T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_start
    Map: window_start, count(*) AS n
        T1 delta, append-only
      Aggregate: by window_start, auction: count(*)
          T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_start
        Map: auction, tumble_start(ts, INTERVAL '10 seconds') AS window_start
            T1 delta, append-only
          Input: bids (auction, ts)
              T1 delta, append-only
"
    );
}

#[tokio::test]
async fn aggregate_over_open_windows() {
    let sql = format!(
        "SELECT window_start, max(n) AS m FROM (SELECT window_start, auction, count(*) AS n FROM {TUMBLE} GROUP BY 1, 2) GROUP BY 1"
    );
    assert_eq!(
        explained(&sql).await,
        "\
Map: window_start, max(n) AS m
    T1 delta, retracting
  Aggregate: by window_start: max(n)
      T1 delta, retracting; state: a row per group and the values of min and max, bounded by watermark of bids on window_start
    Map: window_start, count(*) AS n
        T1 delta, retracting
      Aggregate: by window_start, auction: count(*)
          T1 delta, retracting; state: a row per group, bounded by watermark of bids on window_start
        Map: auction, tumble_start(ts, INTERVAL '10 seconds') AS window_start
            T1 delta, append-only
          Input: bids (auction, ts)
              T1 delta, append-only
"
    );
}

#[tokio::test]
async fn distinct() {
    let sql = "SELECT DISTINCT auction FROM bids";
    assert_eq!(
        explained(sql).await,
        "\
Distinct: by auction
    T1 delta, append-only; state: a row per group, UNBOUNDED
  Input: bids (auction)
      T1 delta, append-only
"
    );
}

#[tokio::test]
async fn union_of_rows_on_window_close() {
    let sql = "SELECT ts, price FROM bids UNION ALL SELECT ts, auction FROM bids";
    assert_eq!(
        explained_final(sql).await,
        "\
WindowClose: ts
    T1 delta, append-only, on window close; state: waiting rows, bounded by watermark of bids on ts
  Union: 2 inputs
      T1 delta, append-only
    Map: ts, price
        T1 delta, append-only
      Input: bids (price, ts)
          T1 delta, append-only
    Map: ts, auction AS price
        T1 delta, append-only
      Input: bids (auction, ts)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn union_of_windows_on_window_close() {
    let sql = format!(
        "SELECT window_end, count(*) AS n FROM {TUMBLE} GROUP BY 1 UNION ALL SELECT window_end, max(price) FROM {TUMBLE} GROUP BY 1"
    );
    assert_eq!(
        explained_final(&sql).await,
        "\
Union: 2 inputs
    T1 delta, append-only
  Aggregate: by window_end: count(*)
      T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
    Map: window_end(tumble_start(ts, INTERVAL '10 seconds'), INTERVAL '10 seconds') AS window_end
        T1 delta, append-only
      Input: bids (ts)
          T1 delta, append-only
  Aggregate: by window_end: max(price)
      T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
    Map: price, window_end(tumble_start(ts, INTERVAL '10 seconds'), INTERVAL '10 seconds') AS window_end
        T1 delta, append-only
      Input: bids (price, ts)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn join_with_table_at_rest() {
    let sql = "SELECT b.price, i.name FROM bids b JOIN items i ON b.auction = i.id WHERE i.name <> 'x'";
    assert_eq!(
        explained(sql).await,
        "\
Map: price, name
    T1 delta, append-only
  StaticJoin: Inner on auction = id
      T1 delta, append-only; state: the input at rest
    Map: where auction IS NOT NULL
        T1 delta, append-only
      Input: bids (auction, price)
          T1 delta, append-only
    Constant: items
        T1 delta, append-only
"
    );
}

#[tokio::test]
async fn mirrored_join_with_table_at_rest() {
    let sql = "SELECT b.price, i.name FROM items i RIGHT JOIN bids b ON b.auction = i.id AND b.price > i.id";
    assert_eq!(
        explained(sql).await,
        "\
Map: price, name
    T1 delta, append-only
  StaticJoin: Left on auction = id where price > id
      T1 delta, append-only; state: the input at rest
    Input: bids (auction, price)
        T1 delta, append-only
    Constant: items
        T1 delta, append-only
"
    );
}

#[tokio::test]
async fn join_that_keeps_the_table_at_rest() {
    let sql = "SELECT b.price, i.name FROM items i LEFT JOIN bids b ON b.auction = i.id";
    assert_eq!(
        explained(sql).await,
        "\
Map: price, name
    T1 delta, retracting
  Join: Left on id = auction
      T1 delta, retracting; state: left rows, the input at rest
    Constant: items
        T1 delta, append-only
    Map: where auction IS NOT NULL
        T1 delta, append-only
      Input: bids (auction, price)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn not_in() {
    let sql = "SELECT price FROM bids WHERE auction NOT IN (SELECT id FROM items)";
    assert_eq!(
        explained(sql).await,
        "\
Map: price
    T1 delta, append-only
  StaticJoin: NOT IN on auction = id
      T1 delta, append-only; state: the input at rest
    Input: bids (auction, price)
        T1 delta, append-only
    Constant: items
        T1 delta, append-only
"
    );
}

#[tokio::test]
async fn join_of_streams() {
    let sql = "SELECT b.price, c.page FROM bids b JOIN clicks c ON b.bidder = c.page WHERE b.price > 3";
    assert_eq!(
        explained(sql).await,
        "\
Map: price, page
    T1 delta, append-only
  Join: Inner on bidder = page
      T1 delta, append-only; state: rows of both sides, UNBOUNDED
    Map: where bidder IS NOT NULL AND price > 3
        T1 delta, append-only
      Input: bids (bidder, price)
          T1 delta, append-only
    Map: where page IS NOT NULL
        T1 delta, append-only
      Input: clicks (page)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn self_join_keeps_one_copy() {
    let sql = "SELECT a.price, b.price AS p2 FROM bids a JOIN bids b ON a.auction = b.auction";
    assert_eq!(
        explained(sql).await,
        "\
Map: price, price AS p2
    T1 delta, append-only
  Join: Inner on auction = auction
      T1 delta, append-only; state: rows, once for both sides, UNBOUNDED
    Map (node 1): where auction IS NOT NULL
        T1 delta, append-only
      Input: bids (auction, price)
          T1 delta, append-only
    node 1 again
"
    );
}

#[tokio::test]
async fn outer_join_with_a_condition() {
    let sql = "SELECT b.price, c.page FROM bids b LEFT JOIN clicks c ON b.bidder = c.page AND b.ts < c.at";
    assert_eq!(
        explained(sql).await,
        "\
Map: price, page
    T1 delta, retracting
  Join: Left on bidder = page where ts < at
      T1 delta, retracting; state: left rows, UNBOUNDED; right rows, bounded by watermark of bids on at
    Input: bids (bidder, price, ts)
        T1 delta, append-only
    Map: where page IS NOT NULL
        T1 delta, append-only
      Input: clicks (page, at)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn existence_asks_for_distinct_keys() {
    let sql = "SELECT price FROM bids WHERE bidder IN (SELECT page FROM clicks)";
    assert_eq!(
        explained(sql).await,
        "\
Map: price
    T1 delta, append-only
  Join: LeftSemi on bidder = page
      T1 delta, append-only; state: left rows without a match, UNBOUNDED; right rows, UNBOUNDED
    Map: where bidder IS NOT NULL
        T1 delta, append-only
      Input: bids (bidder, price)
          T1 delta, append-only
    Distinct: by page
        T1 delta, append-only; state: a row per group, UNBOUNDED
      Map: where page IS NOT NULL
          T1 delta, append-only
        Input: clicks (page)
            T1 delta, append-only
"
    );
}

/// The newer of two rows comes at most a minute after the older one, whichever that is.
#[tokio::test]
async fn band_join_drops_both_sides() {
    let sql = "SELECT l.price, r.price AS p2 FROM bids l JOIN bids r ON l.auction = r.auction
        AND r.ts BETWEEN l.ts - INTERVAL '1 minute' AND l.ts + INTERVAL '1 minute'";
    assert_eq!(
        explained(sql).await,
        "\
Map: price, price AS p2
    T1 delta, append-only
  Join: Inner on auction = auction where right.ts >= left.ts - INTERVAL '60 seconds' AND right.ts <= left.ts + INTERVAL '60 seconds'
      T1 delta, append-only; state: left rows, bounded by watermark of bids on ts + INTERVAL '60 seconds'; right rows, bounded by \
watermark of bids on ts
    Map (node 1): where auction IS NOT NULL
        T1 delta, append-only
      Input: bids (auction, price, ts)
          T1 delta, append-only
    node 1 again
"
    );
}

/// Nexmark q5: a join of an aggregate over windows with its maximum per window.
#[tokio::test]
async fn join_of_windows_on_window_close() {
    let counts = format!("SELECT auction, count(*) AS n, window_start, window_end FROM {HOP} GROUP BY auction, window_start, window_end");
    let sql = format!(
        "SELECT c.auction, c.n, c.window_end FROM ({counts}) c
         JOIN (SELECT max(n) AS n, window_start, window_end FROM ({counts}) GROUP BY window_start, window_end) m
         ON c.window_start = m.window_start AND c.window_end = m.window_end AND c.n = m.n"
    );
    assert_eq!(
        explained_final(&sql).await,
        "\
Map: auction, n, window_end
    T1 delta, append-only
  Join: LeftSemi on window_start = window_start and window_end = window_end and n = n
      T1 delta, append-only; state: rows of both sides, bounded by watermark of bids on window_end
    Map: auction, count(*) AS n, window_start, window_end
        T1 delta, append-only
      Aggregate (node 5): by auction, window_start, window_end: count(*)
          T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
        Map: auction, window AS window_start, window_end(window, INTERVAL '10 seconds') AS window_end, state0_0 \
where window IS NOT NULL AND window_end(window, INTERVAL '10 seconds') IS NOT NULL
            T1 delta, append-only
          Unnest: window
              T1 delta, append-only
            Map: hop_starts(pane, INTERVAL '5 seconds', INTERVAL '10 seconds') AS window, auction, state0_0
                T1 delta, append-only
              PreAggregate: by tumble_start(ts, INTERVAL '5 seconds') AS pane, auction: count(*)
                  T1 delta, append-only
                Input: bids (auction, ts)
                    T1 delta, append-only
    Map: max(n) AS n, window_start, window_end where max(n) IS NOT NULL
        T1 delta, append-only
      Aggregate: by window_start, window_end: max(n)
          T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
        Map: count(*) AS n, window_start, window_end
            T1 delta, append-only
          node 5 again
"
    );
}

/// Nexmark q7: rows with the largest of their window.
#[tokio::test]
async fn join_of_rows_with_their_window() {
    let sql = format!(
        "SELECT b.auction, b.price, b.window_start, b.window_end FROM {TUMBLE} b
         JOIN (SELECT max(price) AS price, window_start, window_end FROM {TUMBLE} GROUP BY window_start, window_end) m
         ON b.window_start = m.window_start AND b.window_end = m.window_end AND b.price = m.price"
    );
    assert_eq!(
        explained_final(&sql).await,
        "\
Join: LeftSemi on window_start = window_start and window_end = window_end and price = price
    T1 delta, append-only; state: left rows, bounded by watermark of bids on window_end; right rows, bounded by watermark of bids on \
window_start
  Map: auction, price, window_start, window_end(window_start, INTERVAL '10 seconds') AS window_end
      T1 delta, append-only
    Map: auction, price, tumble_start(ts, INTERVAL '10 seconds') AS window_start where price IS NOT NULL
        T1 delta, append-only
      Input: bids (auction, price, ts)
          T1 delta, append-only
  Map: max(bids.price) AS price, window_start, window_end where max(bids.price) IS NOT NULL
      T1 delta, append-only
    Aggregate: by window_start, window_end: max(price)
        T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
      Map: price, window_start, window_end(window_start, INTERVAL '10 seconds') AS window_end
          T1 delta, append-only
        Map: price, tumble_start(ts, INTERVAL '10 seconds') AS window_start
            T1 delta, append-only
          Input: bids (price, ts)
              T1 delta, append-only
"
    );
}

#[tokio::test]
async fn outer_join_of_windows_on_window_close() {
    let windows = format!("SELECT auction, max(price) AS price, window_end FROM {TUMBLE} GROUP BY auction, window_end");
    let sql = format!(
        "SELECT l.window_end, l.auction, r.price FROM ({windows}) l
         LEFT JOIN ({windows}) r ON l.window_end = r.window_end AND l.price = r.auction"
    );
    assert_eq!(
        explained_final(&sql).await,
        "\
Map: window_end, auction, price
    T1 delta, append-only
  Join: Left on window_end = window_end and price = auction
      T1 delta, append-only; state: rows of both sides, bounded by watermark of bids on window_end
    Map: auction, max(bids.price) AS price, window_end
        T1 delta, append-only
      Aggregate: by auction, window_end: max(price)
          T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
        Map: auction, price, window_end(tumble_start(ts, INTERVAL '10 seconds'), INTERVAL '10 seconds') AS window_end
            T1 delta, append-only
          Input (node 0): bids (auction, price, ts)
              T1 delta, append-only
    Map: auction, max(bids.price) AS price, window_end
        T1 delta, append-only
      Aggregate: by auction, window_end: max(price)
          T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
        Map: auction, price, window_end(tumble_start(ts, INTERVAL '10 seconds'), INTERVAL '10 seconds') AS window_end where auction IS \
NOT NULL
            T1 delta, append-only
          node 0 again
"
    );
}

#[tokio::test]
async fn row_number() {
    let sql = ROW_NUMBER;
    assert_eq!(
        explained(sql).await,
        "\
Map: auction, price, row_number AS rn
    T1 delta, retracting
  TopN: by auction, rows 1 to 3 by price DESC
      T1 delta, retracting; state: 3 rows per partition, UNBOUNDED
    Input: bids (auction, price)
        T1 delta, append-only
"
    );
}

/// Calls that need a total order and calls that treat ties alike become two windows of one fragment. On close it hands rows out once,
/// so that what stands on it is append-only.
#[tokio::test]
async fn row_number_on_window_close() {
    let places = format!(
        "SELECT window_end, auction, row_number() OVER (PARTITION BY window_end ORDER BY price) AS place,
         rank() OVER (PARTITION BY window_end ORDER BY price) AS rank FROM {TUMBLE}"
    );
    let sql = format!("SELECT window_end, max(auction) AS a FROM ({places}) WHERE place <= 3 AND rank < 3 GROUP BY window_end");
    assert_eq!(
        explained_final(&sql).await,
        "\
Map: window_end, max(bids.auction) AS a
    T1 delta, append-only
  Aggregate: by window_end: max(auction)
      T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_end
    TouchedKeys: Projection of Filter of Projection of Projection of Window of Window by window_end
        T2 touched keys, append-only, on window close; state: the input by key, bounded by watermark of bids on window_end
        because window functions read whole partitions
      Map: auction, price, window_end(tumble_start(ts, INTERVAL '10 seconds'), INTERVAL '10 seconds') AS window_end
          T1 delta, append-only
        Input: bids (auction, price, ts)
            T1 delta, append-only
"
    );
}

/// Windows without a common key are two operators; a key that is an expression becomes a column first.
#[tokio::test]
async fn windows_over_different_columns() {
    let sql = "SELECT auction, first_value(price) OVER (PARTITION BY bidder ORDER BY ts) AS f,
               rank() OVER (PARTITION BY auction % 2 ORDER BY price) AS r FROM bids";
    assert_eq!(
        explained(sql).await,
        "\
Map: auction, first_value(bids.price) OVER (..) AS f, rank() OVER (..) AS r
    T1 delta, retracting
  TouchedKeys: Window by bidder
      T2 touched keys, retracting; state: the input and the result by key, UNBOUNDED
      because window functions read whole partitions
      rows behind all others of their partition are computed from the end alone
    Map: auction, bidder, price, ts, rank() OVER (..)
        T1 delta, retracting
      TouchedKeys: Window by __partition_0
          T2 touched keys, retracting; state: the input and the result by key, UNBOUNDED
          because window functions read whole partitions
          rows behind all others of their partition are computed from the end alone
        Map: auction, bidder, price, ts, auction % 2 AS __partition_0
            T1 delta, append-only
          Input: bids (auction, bidder, price, ts)
              T1 delta, append-only
"
    );
}

#[tokio::test]
async fn order_by_limit() {
    let sql = "SELECT auction, price FROM bids ORDER BY price DESC LIMIT 3";
    assert_eq!(
        explained(sql).await,
        "\
TopN: rows 1 to 3 by price DESC
    T1 delta, retracting; state: 3 rows
  Input: bids (auction, price)
      T1 delta, append-only
"
    );
}

#[tokio::test]
async fn count_distinct() {
    let sql = "SELECT auction, count(DISTINCT bidder) AS n FROM bids GROUP BY auction";
    assert_eq!(
        explained(sql).await,
        "\
Map: auction, count(alias1) AS n
    T1 delta, retracting
  Aggregate: by auction: count(alias1)
      T1 delta, retracting; state: a row per group, UNBOUNDED
    Distinct: by auction, bidder AS alias1
        T1 delta, append-only; state: a row per group, UNBOUNDED
      Input: bids (auction, bidder)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn count_distinct_beside_max() {
    let sql = "SELECT auction, count(DISTINCT bidder) AS n, max(price) AS m FROM bids GROUP BY auction";
    assert_eq!(
        explained(sql).await,
        "\
Map: auction, count(DISTINCT bids.bidder) AS n, max(bids.price) AS m
    T1 delta, retracting
  Aggregate: by auction: count(DISTINCT bidder), max(price)
      T1 delta, retracting; state: a row per group and the values of DISTINCT, UNBOUNDED
    Input: bids (auction, bidder, price)
        T1 delta, append-only
"
    );
}

#[tokio::test]
async fn max_over_retractions() {
    let sql = "SELECT max(amount) AS m FROM stock";
    assert_eq!(
        explained(sql).await,
        "\
Map: max(stock.amount) AS m
    T1 delta, retracting
  Aggregate: all rows: max(amount)
      T1 delta, retracting; state: one row and the values of min and max, as large as its input
    Input: stock (amount)
        T1 delta, retracting
"
    );
}

#[tokio::test]
async fn sum_over_retractions() {
    let sql = "SELECT item, sum(amount) AS m FROM stock GROUP BY item";
    assert_eq!(
        explained(sql).await,
        "\
Map: item, sum(stock.amount) AS m
    T1 delta, retracting
  Aggregate: by item: sum(amount)
      T1 delta, retracting; state: a row per group, as large as its input
    Input: stock (item, amount)
        T1 delta, retracting
"
    );
}

#[tokio::test]
async fn scalar_subquery() {
    let sql = "SELECT price FROM bids WHERE price > (SELECT avg(price) FROM bids)";
    assert_eq!(
        explained(sql).await,
        "\
Map: price
    T1 delta, retracting
  Join: Inner where price > avg(bids.price)
      T1 delta, retracting; state: rows of both sides, UNBOUNDED
    Input (node 0): bids (price)
        T1 delta, append-only
    Aggregate: all rows: avg(price)
        T1 delta, retracting; state: one row
      node 0 again
"
    );
}

#[tokio::test]
async fn recursive() {
    let sql = CLOSURE;
    assert_eq!(
        explained(sql).await,
        "\
Recursion: r by UNION
    T1 delta, append-only; state: the result and what its term keeps, UNBOUNDED
    each round:
      Map: a, b
          T1 delta, append-only
        Join: Inner on b = a
            T1 delta, append-only; state: rows of both sides, UNBOUNDED
          Map: where b IS NOT NULL
              T1 delta, append-only
            Input: what the round before brought (a, b)
                T1 delta, append-only
          Input: input 1 (a, b)
              T1 delta, append-only
  Input (node 0): edges (a, b)
      T1 delta, append-only
  Map: where a IS NOT NULL
      T1 delta, append-only
    node 0 again
"
    );
}

#[tokio::test]
async fn now_in_a_filter() {
    let sql = "SELECT price FROM bids WHERE ts > now() - INTERVAL '1 hour' AND price > 5";
    assert_eq!(
        explained(sql).await,
        "\
Map: price
    T1 delta, retracting
  TemporalFilter: where ts > now() - INTERVAL '3600 seconds'
      T1 delta, retracting, follows the clock; state: rows until they leave, bounded by the clock
    Map: where price > 5
        T1 delta, append-only
      Input: bids (price, ts)
          T1 delta, append-only
"
    );
}

#[tokio::test]
async fn rollup() {
    let sql = "SELECT auction, bidder, sum(price) AS s FROM bids GROUP BY ROLLUP(auction, bidder)";
    assert_eq!(
        explained(sql).await,
        "\
Map: auction, bidder, sum(bids.price) AS s
    T1 delta, retracting
  Union: 2 inputs
      T1 delta, retracting
    Aggregate: by auction#3 AS auction, bidder#4 AS bidder, __grouping_id: sum(price)
        T1 delta, retracting; state: a row per group, UNBOUNDED
      Union: 2 inputs
          T1 delta, append-only
        Map: auction AS auction#0, bidder AS bidder#1, price, auction AS auction#3, bidder AS bidder#4, 0 AS __grouping_id
            T1 delta, append-only
          Input (node 0): bids (auction, bidder, price)
              T1 delta, append-only
        Map: auction AS auction#0, bidder AS bidder#1, price, auction AS auction#3, NULL AS bidder#4, 1 AS __grouping_id
            T1 delta, append-only
          node 0 again
    Map: NULL AS auction, NULL AS bidder, 3 AS __grouping_id, sum(bids.price)
        T1 delta, retracting
      Aggregate: all rows: sum(price)
          T1 delta, retracting; state: one row
        node 0 again
"
    );
}

#[tokio::test]
async fn group_by_epoch() {
    let sql = "SELECT _epoch, bidder, count(*) AS n FROM bids GROUP BY _epoch, bidder";
    assert_eq!(
        explained(sql).await,
        "\
Map: _epoch, bidder, count(*) AS n
    T1 delta, append-only
  Aggregate: by _epoch, bidder: count(*)
      T1 delta, append-only; state: a row per group, bounded by epoch of bids on _epoch
    Input: bids (bidder, _epoch)
        T1 delta, append-only
"
    );
}

#[tokio::test]
async fn volatile_over_append_only() {
    let sql = "SELECT random() < 0.5 AS r FROM bids";
    assert_eq!(
        explained(sql).await,
        "\
Map: random() < 0.5 AS r
    T1 delta, append-only
    not deterministic: random() < Float64(0.5) is evaluated when a row arrives
  Input: bids ()
      T1 delta, append-only
"
    );
}

#[tokio::test]
async fn weakly_monotone_column_on_window_close() {
    let sql = format!("SELECT date_trunc('hour', window_end) AS hour, n FROM (SELECT window_end, count(*) AS n FROM {TUMBLE} GROUP BY 1)");
    assert_eq!(
        explained_final(&sql).await,
        "\
WindowClose: hour
    T1 delta, append-only, on window close; state: waiting rows, bounded by watermark of bids on hour
  Map: date_trunc('hour', window_end) AS hour, count(*) AS n
      T1 delta, retracting
    Aggregate: by window_end: count(*)
        T1 delta, retracting; state: a row per group, bounded by watermark of bids on window_end
      Map: window_end(tumble_start(ts, INTERVAL '10 seconds'), INTERVAL '10 seconds') AS window_end
          T1 delta, append-only
        Input: bids (ts)
            T1 delta, append-only
"
    );
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
