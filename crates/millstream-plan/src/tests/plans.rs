//! Filters, orders, window functions, queries in expressions.

use super::*;

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
