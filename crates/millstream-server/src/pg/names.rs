//! Names as PostgreSQL takes them and DataFusion does not: columns of a result that have the same name, relations with their database.
//!
//! PostgreSQL gives them out as they are (`SELECT 1, 1`, `SELECT *, id`), DataFusion refuses them. A column whose name is there already
//! gets another one inside: its own and a mark with a number, which [`shown`] takes off again. Columns with a parameter are called
//! `?column?`, whatever the parameter's value is, and so are constants. `millstream.public.t` is `public.t`.

use super::catalog::DATABASE;
use millstream_sql::visit::{Node, any_expr, each_relation_mut};
use sqlparser::ast::{Expr, Ident, ObjectNamePart, Query, SelectItem, SetExpr, Value};
use std::collections::HashSet;

/// Between a name and its number; no name has it.
const MARK: char = '\u{1}';
/// The name of what has none.
const UNNAMED: &str = "?column?";

/// The name that clients see.
pub(crate) fn shown(name: &str) -> &str {
    name.split_once(MARK).map_or(name, |(name, _)| name)
}

/// Leaves out the database before relations: there is one.
pub(crate) fn without_database(part: &mut dyn Node) {
    each_relation_mut(part, &mut |name| {
        if let [ObjectNamePart::Identifier(database), _, _] = name.0.as_slice()
            && database.value == DATABASE
        {
            name.0.remove(0);
        }
    });
}

/// Gives each column of a query a name of its own.
pub(crate) fn make_distinct(query: &mut Query) {
    of_body(&mut query.body);
}

fn of_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => of_items(&mut select.projection),
        SetExpr::Query(query) => make_distinct(query),
        SetExpr::SetOperation { left, right, .. } => {
            of_body(left);
            of_body(right);
        }
        _ => {}
    }
}

fn of_items(items: &mut [SelectItem]) {
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    // What a wildcard stands for is not known here: any name may be among it.
    let has_wildcard = items.iter().any(is_wildcard) && items.len() > 1;
    let mut taken = HashSet::new();
    for (index, item) in items.iter_mut().enumerate() {
        let (name, is_unnamed) = match item {
            SelectItem::ExprWithAlias { alias, .. } => (alias.value.clone(), false),
            SelectItem::UnnamedExpr(expr) if matches!(expr, Expr::Value(_)) || has_parameter(expr) => (UNNAMED.to_string(), true),
            SelectItem::UnnamedExpr(Expr::Identifier(ident)) => (ident.value.clone(), false),
            SelectItem::UnnamedExpr(expr @ Expr::CompoundIdentifier(_)) => (expr.to_string(), false),
            SelectItem::UnnamedExpr(expr) => (expr.to_string(), false),
            _ => continue,
        };
        if taken.insert(name.clone()) && !is_unnamed && !has_wildcard {
            continue;
        }
        let expr = match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.clone(),
            _ => continue,
        };
        let name = match (&*item, &expr) {
            (SelectItem::UnnamedExpr(_), Expr::CompoundIdentifier(parts)) => parts.last().map_or(name, |last| last.value.clone()),
            _ => name,
        };
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("{name}{MARK}{index}")) };
    }
}

fn has_parameter(expr: &Expr) -> bool {
    any_expr(expr, &mut |expr| matches!(expr, Expr::Value(value) if matches!(value.value, Value::Placeholder(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distinct(sql: &str) -> String {
        let mut query = millstream_sql::parse_query(sql).unwrap();
        make_distinct(&mut query);
        query.to_string().replace(MARK, "#")
    }

    #[test]
    fn there_is_one_database() {
        let mut query = millstream_sql::parse_query(r#"SELECT t.a FROM "millstream"."public"."t", public.u, v"#).unwrap();
        without_database(&mut *query);
        assert_eq!(query.to_string(), r#"SELECT t.a FROM "public"."t", public.u, v"#);
    }

    #[test]
    fn only_what_is_not_distinct_is_renamed() {
        assert_eq!(distinct("SELECT a, b AS c, count(*) FROM t"), "SELECT a, b AS c, count(*) FROM t");
        assert_eq!(distinct("SELECT n, n, 2 AS a, 3 AS a FROM t"), "SELECT n, n AS \"n#1\", 2 AS a, 3 AS \"a#3\" FROM t");
        assert_eq!(distinct("SELECT t.a, u.a FROM t, u"), "SELECT t.a, u.a FROM t, u");
        assert_eq!(distinct("SELECT *, t.a FROM t"), "SELECT *, t.a AS \"a#1\" FROM t");
        assert_eq!(distinct("SELECT $1, CAST($2 AS INT)"), "SELECT $1 AS \"?column?#0\", CAST($2 AS INT) AS \"?column?#1\"");
        assert_eq!(distinct("SELECT 1 UNION SELECT 2"), "SELECT 1 AS \"?column?#0\" UNION SELECT 2 AS \"?column?#0\"");
        assert_eq!((shown("a\u{1}3"), shown("a")), ("a", "a"));
    }
}
