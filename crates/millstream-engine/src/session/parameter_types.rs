//! Types of parameters that follow from how a statement is written, where DataFusion infers none.
//!
//! | written | type of the parameter |
//! | --- | --- |
//! | `CAST($1 AS type)`, `$1::type` | the type |
//! | `x = ANY($1)`, `x <> ALL($1)` | a list of what `x` is |
//! | `LIMIT $1`, `OFFSET $1` | BIGINT |
//!
//! A parameter that is cast somewhere has that type everywhere.

use millstream_sql::visit::{Node, WalkMut, walk_mut};
use sqlparser::ast::{self, BinaryOperator, Expr, LimitClause, Query};
use std::ops::ControlFlow;

/// A type that a parameter has, as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Written {
    /// This one.
    Type(ast::DataType),
    /// A list of what it would be as a single value in the same place.
    ListOfInferred,
    /// A number of rows.
    Count,
}

/// What is written about the parameters of a part of a statement, which is changed so that the types of single values can be inferred:
/// `x = ANY($1)` becomes `x = $1`.
pub(super) fn written(part: &mut dyn Node) -> Vec<(usize, Written)> {
    let mut finder = Finder { found: Vec::new() };
    let _ = walk_mut(part, &mut finder);
    finder.found
}

struct Finder {
    found: Vec<(usize, Written)>,
}

impl WalkMut for Finder {
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { expr: operand, data_type, .. } => {
                if let Some(index) = parameter(operand) {
                    self.found.push((index, Written::Type(data_type.clone())));
                }
            }
            Expr::AnyOp { left, compare_op, right, .. } | Expr::AllOp { left, compare_op, right } => {
                if let Some(index) = parameter(right) {
                    self.found.push((index, Written::ListOfInferred));
                    let op = if *compare_op == BinaryOperator::NotEq { BinaryOperator::NotEq } else { BinaryOperator::Eq };
                    *expr = Expr::BinaryOp { left: left.clone(), op, right: right.clone() };
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let mut count = |expr: &Expr| self.found.extend(parameter(expr).map(|index| (index, Written::Count)));
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                limit.iter().for_each(&mut count);
                offset.iter().for_each(|offset| count(&offset.value));
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                count(offset);
                count(limit);
            }
            None => {}
        }
        // What they are is known now; DataFusion plans no LIMIT of an unknown type.
        query.limit_clause = None;
        ControlFlow::Continue(())
    }
}

/// The parameter that an expression is.
pub(super) fn parameter(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Nested(inner) => parameter(inner),
        Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), .. }) => millstream_sql::parameters::index(name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn casts_lists_and_counts_are_found() {
        let sql = "SELECT CAST($1 AS BIGINT) FROM t WHERE a = ANY($2) AND b IN (SELECT c FROM u LIMIT $3) ORDER BY a LIMIT $4 OFFSET ($5)";
        let mut query = millstream_sql::parse_query(sql).unwrap();
        let mut found = written(&mut *query);
        found.sort_by_key(|(index, _)| *index);
        let big = Written::Type(ast::DataType::BigInt(None));
        let expected = [big, Written::ListOfInferred, Written::Count, Written::Count, Written::Count];
        assert_eq!(found, expected.into_iter().enumerate().collect::<Vec<_>>());
        assert!(query.to_string().contains("a = $2"), "{query}");
    }
}
