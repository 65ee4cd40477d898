//! Slices of retained epochs: `FROM s FOR EPOCH BETWEEN a AND b` becomes a filter on the hidden column.
//!
//! The tokens have become a table version before parsing: `s FOR SYSTEM_TIME AS OF epoch_between(a, b)`.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, TableFactor, TableVersion};

use super::{alias, derived, last_ident, plain_call, template, unnamed_argument};
use crate::tokens::{EPOCH_BETWEEN, EPOCH_TIME_BETWEEN};
use crate::visit::{WalkMut, walk_mut};

/// The hidden column and the bounds, if `version` is a slice.
pub(super) fn slice_bounds(version: &TableVersion) -> Option<(&'static str, &Expr, &Expr)> {
    let TableVersion::ForSystemTimeAsOf(expr) = version else { return None };
    let (word, _, [first, second]) = plain_call(expr)? else { return None };
    let column = match word.as_str() {
        EPOCH_BETWEEN => "_epoch",
        EPOCH_TIME_BETWEEN => "_epoch_time",
        _ => return None,
    };
    Some((column, unnamed_argument(first)?, unnamed_argument(second)?))
}

/// Rewrites every slice of `query`.
pub(super) fn rewrite(query: &mut Query) {
    struct Rewriter;
    impl WalkMut for Rewriter {
        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let TableFactor::Table { name, alias: given, version, .. } = factor else { return ControlFlow::Continue(()) };
            let Some((column, first, last)) = version.as_ref().and_then(slice_bounds) else { return ControlFlow::Continue(()) };
            let sql = format!("SELECT * FROM __relation WHERE {column} BETWEEN __first AND __last");
            let slice = template(&sql, super::table(name.clone()), &[("__first", first), ("__last", last)]);
            let outer = given.clone().or_else(|| last_ident(name).cloned().map(alias));
            *factor = derived(slice, outer);
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(query, &mut Rewriter);
}
