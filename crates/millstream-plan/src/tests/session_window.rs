//! What becomes of SESSION: one operator with its GROUP BY, or a Window.

use super::*;

#[tokio::test]
async fn sessions_and_their_groups_are_one_operator() {
    let sql = format!("SELECT bidder, window_start, window_end, count(*) AS n FROM {SESSION} GROUP BY 1, 2, 3");
    assert_eq!(
        explained_final(&sql).await,
        "\
Map: bidder, window_start, window_end, count(*) AS n
    T1 delta, append-only
  SessionWindow: by bidder, sessions of ts with a gap of INTERVAL '10 seconds': count(*)
      T1 delta, append-only, on window close; state: a row per session, bounded by watermark of bids on window_end
    Input: bids (bidder, ts)
        T1 delta, append-only
"
    );
    let sql = format!("SELECT bidder, window_start, max(price) AS m FROM {SESSION} GROUP BY 1, 2");
    assert_eq!(
        explained(&sql).await,
        "\
Map: bidder, window_start, max(bids.price) AS m
    T1 delta, retracting
  Map: bidder, window_start, max(bids.price)
      T1 delta, retracting
    SessionWindow: by bidder, sessions of ts with a gap of INTERVAL '10 seconds': max(price)
        T1 delta, retracting; state: a row per session, bounded by watermark of bids on window_end
      Input: bids (bidder, price, ts)
          T1 delta, append-only
"
    );
}

/// Whether the query runs on the operator.
async fn fused(sql: &str) -> bool {
    let text = explained(sql).await;
    assert_ne!(text.contains("SessionWindow"), text.contains("Recompute") || text.contains("TouchedKeys"), "{text}");
    text.contains("SessionWindow")
}

#[tokio::test]
async fn group_columns_conditions_and_calls() {
    for (select, rest) in [
        // The session in other words, more of the same, in another order.
        ("window_end - window_start AS length, upper(bidder) AS b", "GROUP BY window_end, window_start, bidder"),
        ("bidder", "GROUP BY window_start, bidder, date_trunc('day', window_end)"),
        ("DISTINCT bidder, window_start", ""),
        // Conditions on key and session, before and after.
        ("bidder, count(*) AS n", "WHERE window_start > TIMESTAMP '2020-01-01' AND bidder <> 'x' GROUP BY bidder, window_start"),
        ("bidder, count(*) AS n", "GROUP BY bidder, window_start, window_end HAVING window_end - window_start > INTERVAL '1 hour'"),
        // Functions that other plans would have taken apart.
        ("bidder, count(DISTINCT auction) AS n", "GROUP BY bidder, window_start"),
        ("bidder, sum(price) FILTER (WHERE auction > 1) AS n, max(price + 1) AS m", "GROUP BY bidder, window_end"),
    ] {
        let sql = format!("SELECT {select} FROM {SESSION} {rest}");
        assert!(fused(&sql).await, "{sql}");
    }
    for (select, rest) in [
        // Not all of the key, more than the key, no session.
        ("window_start, count(*) AS n", "GROUP BY window_start"),
        ("bidder, auction, window_start", "GROUP BY bidder, auction, window_start"),
        ("bidder, date_trunc('day', window_start) AS d", "GROUP BY bidder, date_trunc('day', window_start)"),
        // Rows that are left out after they made a session.
        ("bidder, window_start, count(*) AS n", "WHERE price > 5 GROUP BY bidder, window_start"),
        // The edges move.
        ("bidder, window_start, max(window_end) AS e", "GROUP BY bidder, window_start"),
        ("bidder, window_start, ts", ""),
    ] {
        let sql = format!("SELECT {select} FROM {SESSION} {rest}");
        assert!(!fused(&sql).await, "{sql}");
    }
    // Rows that are taken back.
    let changing = "(SELECT auction, max(ts) AS ts FROM bids GROUP BY auction)";
    let session = "session_start(ts, INTERVAL '10 seconds') OVER (ORDER BY ts) AS window_start";
    assert!(!fused(&format!("SELECT window_start, count(*) AS n FROM (SELECT *, {session} FROM {changing}) GROUP BY window_start")).await);
    // Another order, or two gaps, are not one session.
    let other = "session_start(ts, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY ts DESC) AS window_start";
    assert!(!fused(&format!("SELECT bidder, window_start FROM (SELECT *, {other} FROM bids) GROUP BY 1, 2")).await);
}

#[tokio::test]
async fn without_a_watermark_sessions_stay() {
    let session = "session_start(at, INTERVAL '1 minute') OVER (PARTITION BY page ORDER BY at) AS window_start";
    let sql = format!("SELECT page, window_start, count(*) AS n FROM (SELECT *, {session} FROM clicks) GROUP BY page, window_start");
    let planned = planned(&sql, EmitClause::None).await.unwrap();
    assert_eq!(
        planned.notices,
        ["SessionWindow: by page, sessions of at with a gap of INTERVAL '60 seconds': count(*) keeps a row per session forever. \
             Sessions over the event time (WATERMARK) of \"clicks\" are dropped when it has passed them."]
    );
    assert!(super::planned(&sql, EmitClause::OnWindowClose).await.is_err());
}

/// Times of another unit are read in microseconds, and the watermark comes along.
#[tokio::test]
async fn coarser_times() {
    let session = |edge: &str| format!("session_{edge}(t, INTERVAL '10 seconds') OVER (PARTITION BY bidder ORDER BY t) AS window_{edge}");
    let below = "(SELECT bidder, CAST(ts AS TIMESTAMP(3)) AS t FROM bids)";
    let sql = format!(
        "SELECT bidder, window_end, count(*) AS n FROM (SELECT *, {}, {} FROM {below}) GROUP BY bidder, window_start, window_end",
        session("start"),
        session("end")
    );
    let text = explained_final(&sql).await;
    assert!(text.contains("on window close; state: a row per session, bounded by watermark of bids on window_end"), "{text}");
}
