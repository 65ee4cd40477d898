//! Which conditions on the clock are kept up to date from their instants, and which are recomputed.

use super::*;
use crate::graph::Op;

/// How many conditions make rows enter, and leave, if there are any and nothing is recomputed.
async fn turns(condition: &str) -> Option<(usize, usize)> {
    turns_of(&format!("SELECT auction FROM bids WHERE {condition}")).await
}

async fn turns_of(sql: &str) -> Option<(usize, usize)> {
    let planned = planned(sql, EmitClause::None).await.unwrap();
    if planned.graph.polls_clock() {
        return None;
    }
    let counts = planned.graph.nodes.iter().filter_map(|node| match &node.op {
        Op::TemporalFilter { rising, falling } => Some((rising.len(), falling.len())),
        _ => None,
    });
    counts.reduce(|a, b| (a.0 + b.0, a.1 + b.1))
}

#[tokio::test]
async fn what_turns_once() {
    for (condition, expected) in [
        ("ts > now() - INTERVAL '1 hour'", (0, 1)),
        ("ts + INTERVAL '1 hour' >= current_timestamp", (0, 1)),
        ("now() - ts < INTERVAL '1 hour'", (0, 1)),
        ("ts <= now()", (1, 0)),
        ("ts + CASE WHEN price > 5 THEN INTERVAL '1 day' ELSE INTERVAL '1 month' END > now() AND price > 3", (0, 1)),
        ("now() BETWEEN ts AND ts + INTERVAL '2 days'", (1, 1)),
        ("ts BETWEEN now() - INTERVAL '7 days' AND now()", (1, 1)),
        ("ts >= date_trunc('day', now())", (0, 1)),
        ("ts::date = current_date", (1, 1)),
        ("ts::date >= current_date - INTERVAL '7 days'", (0, 1)),
        ("ts > now() - INTERVAL '1 hour' OR price > 7", (0, 1)),
        ("NOT (ts > now() - INTERVAL '1 hour')", (1, 0)),
        ("date_bin(INTERVAL '5 minutes', now()) > ts", (1, 0)),
        ("extract(epoch FROM now()) - price < 3600", (0, 1)),
        ("extract(epoch FROM now()) * 1000 > price", (1, 0)),
        ("now() > '2020-01-01T00:00:00Z'", (1, 0)),
        ("date_trunc('month', now()) <= ts", (0, 1)),
    ] {
        assert_eq!(turns(condition).await, Some(expected), "{condition}");
    }
    let join = "SELECT b.price FROM bids b JOIN clicks c ON b.bidder = c.page AND now() BETWEEN b.ts AND c.at";
    assert_eq!(turns_of(join).await, Some((1, 1)));
    assert_eq!(turns_of("SELECT auction, max(ts) FROM bids GROUP BY auction HAVING max(ts) < now()").await, Some((1, 0)));
}

#[tokio::test]
async fn what_does_not() {
    for condition in [
        "ts > now() - INTERVAL '1 month'",
        "date_part('hour', now()) = price",
        "ts > now() OR ts < now() - INTERVAL '1 hour'",
        "now() <> ts",
        "current_time > '12:00:00'",
        "ts NOT BETWEEN now() - INTERVAL '1 hour' AND now()",
        "extract(epoch FROM now()) * price > 5",
        "ts > now() - CASE WHEN price > 5 THEN INTERVAL '1 day' ELSE INTERVAL '1 month' END",
    ] {
        assert_eq!(turns(condition).await, None, "{condition}");
    }
    let outer = "SELECT b.price FROM bids b LEFT JOIN clicks c ON b.bidder = c.page AND b.ts > now()";
    assert_eq!(turns_of(outer).await, None);
}
