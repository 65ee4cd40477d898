//! `EMIT ON WINDOW CLOSE`: which operators hand rows out once, and by which bound.

use super::*;

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
