//! Types in casts under the names of other engines: `CAST(x AS JSONB)`, `x::TIMESTAMP_LTZ(3)`.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, VisitMut, VisitorMut};

use crate::parse::normalize_type;

/// Replaces the types of casts and typed literals by ours.
pub(super) fn normalize(query: &mut Query) {
    struct Normalizer;
    impl VisitorMut for Normalizer {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Cast { data_type, .. } => normalize_type(data_type),
                Expr::TypedString(literal) => normalize_type(&mut literal.data_type),
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }
    let _ = VisitMut::visit(query, &mut Normalizer);
}
