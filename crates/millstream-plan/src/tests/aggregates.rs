//! GROUP BY and DISTINCT: over rows that only come, and over rows that may be taken back.

use super::*;

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
