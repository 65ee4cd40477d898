//! Types in casts under the names of other engines: `CAST(x AS JSONB)`, `x::TIMESTAMP_LTZ(3)`.

use sqlparser::ast::{Expr, Query};

use crate::parse::normalize_type;
use crate::visit::each_expr_mut;

/// Replaces the types of casts and typed literals by ours.
pub(super) fn normalize(query: &mut Query) {
    each_expr_mut(query, &mut |expr| match expr {
        Expr::Cast { data_type, .. } => normalize_type(data_type),
        Expr::TypedString(literal) => normalize_type(&mut literal.data_type),
        _ => {}
    });
}
