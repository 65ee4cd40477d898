//! Parts of catalog queries that DataFusion cannot plan, and that look for what nothing here has.
//!
//! | written | planned | because |
//! | --- | --- | --- |
//! | `CASE WHEN .. THEN (SELECT ..) .. END` | NULL | defaults, identities and collations of columns: there are none |
//! | a query that takes `indkey` or `conkey` apart with `unnest` | no rows, with its columns | there are no indexes and no constraints |
//! | `pg_table_is_visible(c.oid)` | `c.relnamespace IN (..)` | what names without a schema find: not the system tables |
//! | `pg_class.reloptions` | NULL | relations have no options |
//! | `LIKE x ESCAPE '/'` | `LIKE replace(x, '/', '\\')` | the backslash is the escape that DataFusion has |

use millstream_sql::dialect::function_call;
use sqlparser::ast::{self, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments};
use sqlparser::ast::{ObjectNamePart, SelectItem, SetExpr, Value, visit_expressions, visit_expressions_mut, visit_relations};
use std::ops::ControlFlow;

/// Changes a query in place.
pub(super) fn simplify(statement: &mut ast::Statement) {
    let of_indexes = visit_relations(statement, |name| match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) if matches!(ident.value.as_str(), "pg_index" | "pg_constraint") => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break();
    let takes_apart = visit_expressions(statement, |expr| match is_call_of(expr, &["unnest", "generate_subscripts"]) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    });
    if of_indexes && takes_apart.is_break() && without_rows(statement).is_some() {
        return;
    }
    let _ = visit_expressions_mut(statement, |expr| {
        let is_optional = match expr {
            Expr::Case { conditions, .. } => conditions.iter().any(|when| matches!(when.result, Expr::Subquery(_))),
            Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|last| last.value == "reloptions"),
            _ => false,
        };
        if is_optional {
            *expr = null();
        } else if let Some(visible) = visible(expr) {
            *expr = visible;
        } else {
            escape_by_backslash(expr);
        }
        ControlFlow::<()>::Continue(())
    });
}

/// Puts a query without rows in the place of one whose columns have names.
fn without_rows(statement: &mut ast::Statement) -> Option<()> {
    let ast::Statement::Query(query) = statement else { return None };
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let name = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(ident.value.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => parts.last().map(|ident| ident.value.clone()),
        _ => None,
    };
    let names = select.projection.iter().map(name).collect::<Option<Vec<String>>>()?;
    let columns = names.iter().map(|name| format!("CAST(NULL AS VARCHAR) AS \"{}\"", name.replace('"', "\"\"")));
    let empty = format!("SELECT {} WHERE false", columns.collect::<Vec<_>>().join(", "));
    **query = *millstream_sql::parse_query(&empty).ok()?;
    Some(())
}

fn null() -> Expr {
    // What stands here is a constant of this file; without a cast it would be as good.
    millstream_sql::parse_expression("CAST(NULL AS VARCHAR)").unwrap_or(Expr::value(Value::Null))
}

/// The condition that a relation is found without naming its schema.
fn visible(expr: &Expr) -> Option<Expr> {
    if !is_call_of(expr, &["pg_table_is_visible"]) {
        return None;
    }
    let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = expr else { return None };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::CompoundIdentifier(parts)))] = list.args.as_slice() else { return None };
    let (last, relation) = parts.split_last()?;
    if relation.is_empty() || !last.value.eq_ignore_ascii_case("oid") {
        return None;
    }
    let relation: Vec<String> = relation.iter().map(ToString::to_string).collect();
    let schemas = "SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ('public', 'pg_catalog', 'information_schema')";
    millstream_sql::parse_expression(&format!("{}.relnamespace IN ({schemas})", relation.join("."))).ok()
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
    **pattern = function_call("replace", args, vec![]);
}
