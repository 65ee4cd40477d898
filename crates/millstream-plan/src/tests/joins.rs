//! Joins: with what is at rest, and of changing inputs.

use super::*;

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
