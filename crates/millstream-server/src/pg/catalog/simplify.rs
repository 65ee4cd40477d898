//! Parts of catalog queries that DataFusion cannot plan, and that look for what nothing here has.
//!
//! | written | planned | because |
//! | --- | --- | --- |
//! | `CASE WHEN .. THEN (SELECT ..) .. END` | NULL | defaults, identities and collations of columns: there are none |
//! | `unnest(indkey)`, `generate_subscripts(indkey, 1)` | NULL | columns of indexes and constraints: there are none |
//! | `LIKE x ESCAPE '/'` | `LIKE replace(x, '/', '\\')` | the backslash is the escape that DataFusion has |

use sqlparser::ast::{self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, ObjectName};
use sqlparser::ast::{ObjectNamePart, Value, visit_expressions_mut, visit_relations};
use std::ops::ControlFlow;

/// Changes a query in place.
pub(super) fn simplify(statement: &mut ast::Statement) {
    let of_indexes = visit_relations(statement, |name| match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) if matches!(ident.value.as_str(), "pg_index" | "pg_constraint") => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break();
    let _ = visit_expressions_mut(statement, |expr| {
        let is_optional = match expr {
            Expr::Case { conditions, .. } => conditions.iter().any(|when| matches!(when.result, Expr::Subquery(_))),
            _ => false,
        };
        if is_optional {
            *expr = null("VARCHAR");
        } else if of_indexes && is_call_of(expr, &["unnest", "generate_subscripts"]) {
            *expr = null("INT");
        } else {
            escape_by_backslash(expr);
        }
        ControlFlow::<()>::Continue(())
    });
}

fn null(kind: &str) -> Expr {
    // What stands here is a constant of this file; without a cast it would be as good.
    millstream_sql::parse_expression(&format!("CAST(NULL AS {kind})")).unwrap_or(Expr::value(Value::Null))
}

fn is_call_of(expr: &Expr, names: &[&str]) -> bool {
    match expr {
        Expr::Function(function) => match function.name.0.last() {
            Some(ObjectNamePart::Identifier(ident)) => names.iter().any(|name| ident.value.eq_ignore_ascii_case(name)),
            _ => false,
        },
        _ => false,
    }
}

fn escape_by_backslash(expr: &mut Expr) {
    let (Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. }) = expr else { return };
    let Some(escape) = escape_char.take() else { return };
    let escape = match &escape.value {
        Value::SingleQuotedString(escape) if escape != "\\" => escape.clone(),
        _ => return,
    };
    let text = |text: &str| Expr::value(Value::SingleQuotedString(text.to_string()));
    let arguments = [Expr::Nested(pattern.clone()), text(&escape), text("\\")];
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    **pattern = Expr::Function(Function {
        name: ObjectName::from(vec!["replace".into()]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    });
}
