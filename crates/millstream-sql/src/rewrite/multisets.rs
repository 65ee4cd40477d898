//! `EXCEPT ALL` and `INTERSECT ALL`: the right side becomes `(SELECT * FROM (..) AS __multiset)`.
//!
//! DataFusion plans both as a semi or anti join, so that one row on the right takes all equal rows of the left away, or keeps them all.
//! The planner finds the marked join and numbers equal rows on both sides first.

use std::ops::ControlFlow;

use sqlparser::ast::{Query, SetExpr, SetOperator, SetQuantifier, TableFactor};

use crate::visit::{WalkMut, walk_mut};

/// The name of the marked relation; the planner knows it, too.
const MULTISET: &str = "__multiset";

/// Marks the right side of all such operations in `query`.
pub(super) fn mark(query: &mut Query) {
    struct Marker;
    impl WalkMut for Marker {
        fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            mark_operations(&mut query.body);
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(query, &mut Marker);
}

fn mark_operations(body: &mut SetExpr) {
    let SetExpr::SetOperation { left, op, set_quantifier, right } = body else { return };
    mark_operations(left);
    mark_operations(right);
    if *op == SetOperator::Union || *set_quantifier != SetQuantifier::All {
        return;
    }
    let mut marked = template(&format!("SELECT * FROM (SELECT 1) AS {MULTISET}"));
    if let SetExpr::Select(select) = marked.body.as_mut()
        && let Some(TableFactor::Derived { subquery, .. }) = select.from.first_mut().map(|from| &mut from.relation)
    {
        std::mem::swap(&mut subquery.body, right);
        std::mem::swap(&mut marked.body, right);
    }
}

fn template(sql: &str) -> Box<Query> {
    crate::parse_query(sql).expect("templates are valid SQL")
}
