//! Parts of catalog queries that DataFusion cannot plan, and that look for what nothing here has.
//!
//! | written | planned | because |
//! | --- | --- | --- |
//! | `CASE WHEN .. THEN (SELECT ..) .. END` | NULL | defaults, identities and collations of columns: there are none |
//! | `ARRAY(SELECT ..)` | an empty array | members of roles, options: there are none |
//! | `(SELECT a = b FROM ..)` | `EXISTS (SELECT 1 FROM .. AND a = b)` | a subquery for one value must not depend on the row |
//! | `_pg_expandarray(a)`, `(..).n`, `(..).x`; `generate_subscripts(a, 1)` | `unnest` of the array, or of 1 to its length | a row of an array and its place |
//! | `CROSS JOIN UNNEST(a) AS x` | a subquery with `unnest` in its SELECT list | an array of the relation beside it |
//! | `pg_table_is_visible(c.oid)` | `c.relnamespace IN (..)` | what names without a schema find: not the system tables |
//! | `CAST($1 AS regclass)` | `(SELECT oid FROM pg_class ..)` | a name that comes later |
//! | `relacl`, `reloptions` and their like | an empty list, NULL | nothing is granted or set there |
//! | `tableoid` | 0 | there is none |
//! | `typreceive <> 0`, `typinput = 'array_in'::regproc` | `typreceive <> '-'`, `typinput = 'array_in'` | functions have names here |
//! | `EXISTS (SELECT ..)` in a SELECT list | `(SELECT count(*) ..) > 0` | a condition is no value |
//! | `information_schema.key_column_usage` | a table of `pg_catalog` | DataFusion's `information_schema` has no constraints |
//! | `LIKE x ESCAPE '/'` | `LIKE replace(x, '/', '\\')` | the backslash is the escape that DataFusion has |

use super::functions::RELATION_NAME;
use super::relations::{INFORMATION, INFORMATION_TABLES};
use millstream_sql::dialect::function_call;
use millstream_sql::visit::{WalkMut, each_expr, each_expr_mut, each_relation_mut, walk_mut};
use sqlparser::ast::{self, AccessExpr, BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName};
use sqlparser::ast::{ObjectNamePart, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Value};
use std::ops::ControlFlow;

/// Columns for lists of what is granted or set, which nothing here has.
const EMPTY_LISTS: &[&str] = &[
    "attacl",
    "attoptions",
    "datacl",
    "defaclacl",
    "fdwacl",
    "fdwoptions",
    "lanacl",
    "nspacl",
    "proacl",
    "proconfig",
    "relacl",
    "reloptions",
    "rolconfig",
    "setconfig",
    "spcacl",
    "spcoptions",
    "srvacl",
    "srvoptions",
    "typacl",
];
/// Columns with the names of functions, which PostgreSQL has the numbers of.
const FUNCTION_COLUMNS: &[&str] = &["typinput", "typoutput", "typreceive", "typsend", "typanalyze", "typmodin", "typmodout"];

/// Changes a query in place.
pub(super) fn simplify(statement: &mut ast::Statement) {
    each_relation_mut(statement, &mut own_information);
    let _ = walk_mut(statement, &mut Selects);
    // Parts come before the whole.
    each_expr_mut(statement, &mut |expr| {
        if let Some(simple) = simplified(expr) {
            *expr = simple;
        } else {
            escape_by_backslash(expr);
        }
    });
}

fn simplified(expr: &Expr) -> Option<Expr> {
    match expr {
        Expr::Case { conditions, .. } => {
            let subquery = conditions.iter().find_map(|when| match &when.result {
                Expr::Subquery(query) => Some(query),
                _ => None,
            })?;
            Some(null(if gives_list(subquery) { list_of(subquery) } else { "VARCHAR" }))
        }
        Expr::CompoundIdentifier(parts) => match parts.last()?.value.to_ascii_lowercase() {
            name if EMPTY_LISTS.contains(&name.as_str()) => Some(null("VARCHAR[]")),
            name if name == "tableoid" => parsed("CAST(0 AS INT)"),
            _ => None,
        },
        Expr::Identifier(ident) if EMPTY_LISTS.contains(&ident.value.to_ascii_lowercase().as_str()) => Some(null("VARCHAR[]")),
        Expr::Function(Function { args: FunctionArguments::Subquery(_), .. }) if is_call_of(expr, &["array"]) => {
            parsed("CAST(make_array() AS VARCHAR[])")
        }
        // ADBC writes `"public" . "t"`.
        Expr::Function(_) if is_call_of(expr, &["parse_ident"]) => {
            parsed(&format!("parse_ident(replace({}, ' . ', '.'))", argument(expr, 0)?))
        }
        Expr::Function(_) if is_call_of(expr, &["_pg_expandarray"]) => Some(call("unnest", argument(expr, 0)?.clone())),
        Expr::Function(_) if is_call_of(expr, &["generate_subscripts"]) => places(argument(expr, 0)?),
        Expr::Function(_) => visible(expr),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let [AccessExpr::Dot(Expr::Identifier(field))] = access_chain.as_slice() else { return None };
            let inner = match root.as_ref() {
                Expr::Nested(inner) => inner.as_ref(),
                other => other,
            };
            let is_expanded = is_call_of(inner, &["unnest"]);
            match (field.value.to_ascii_lowercase().as_str(), is_expanded) {
                ("n", true) => places(argument(inner, 0)?),
                ("x", _) => Some(inner.clone()),
                _ => None,
            }
        }
        Expr::BinaryOp { left, op: op @ (BinaryOperator::Eq | BinaryOperator::NotEq), right } => {
            let (Expr::Identifier(_) | Expr::CompoundIdentifier(_)) = left.as_ref() else { return None };
            let column = last_part(left)?;
            let is_zero = matches!(right.as_ref(), Expr::Value(value) if matches!(&value.value, Value::Number(number, _) if number == "0"));
            let name = match right.as_ref() {
                Expr::Subquery(query) => function_name(query)?,
                Expr::Nested(inner) => match inner.as_ref() {
                    Expr::Subquery(query) => function_name(query)?,
                    _ => return None,
                },
                _ if is_zero => "-".to_string(),
                _ => return None,
            };
            let named = || Expr::BinaryOp { left: left.clone(), op: op.clone(), right: Box::new(text(&name)) };
            FUNCTION_COLUMNS.contains(&column.as_str()).then(named)
        }
        Expr::Subquery(query) => holds(query),
        Expr::Cast { expr: operand, data_type, .. } if data_type.to_string().to_ascii_lowercase().ends_with("regclass") => {
            placeholder(operand)?;
            let name = call(RELATION_NAME, operand.as_ref().clone());
            parsed(&format!("(SELECT max(named.oid) FROM pg_catalog.pg_class AS named WHERE named.relname = {name})"))
        }
        _ => None,
    }
}

/// The last part of a column's name.
fn last_part(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.to_ascii_lowercase()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| ident.value.to_ascii_lowercase()),
        _ => None,
    }
}

/// 1 to the length of an array, one row each.
fn places(array: &Expr) -> Option<Expr> {
    parsed(&format!("unnest(generate_series(1, CAST(array_length({array}) AS BIGINT)))"))
}

/// The only column of a query that is one SELECT.
fn only_column(query: &Query) -> Option<(&Select, &Expr)> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    match select.projection.as_slice() {
        [SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }] => Some((select, expr)),
        _ => None,
    }
}

fn gives_list(query: &Query) -> bool {
    only_column(query).is_some_and(|(_, expr)| is_call_of(expr, &["array_agg"]))
}

/// The type of what a query aggregates to an array: texts, or numbers of objects.
fn list_of(query: &Query) -> &'static str {
    let is_text = only_column(query).and_then(|(_, expr)| argument(expr, 0)).is_some_and(|argument| matches!(argument, Expr::Cast { .. }));
    if is_text { "VARCHAR[]" } else { "INT[]" }
}

/// A subquery for one truth value as the condition that there is a row for which it holds.
fn holds(query: &Query) -> Option<Expr> {
    let (_, condition) = only_column(query)?;
    let is_condition = matches!(condition, Expr::BinaryOp { op: BinaryOperator::Eq | BinaryOperator::NotEq, .. });
    if !is_condition || query.limit_clause.is_some() {
        return None;
    }
    let condition = condition.clone();
    let mut query = query.clone();
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    select.projection = vec![SelectItem::UnnamedExpr(parsed("1")?)];
    select.selection = Some(match select.selection.take() {
        Some(present) => {
            let (left, right) = (Box::new(Expr::Nested(Box::new(present))), Box::new(Expr::Nested(Box::new(condition))));
            Expr::BinaryOp { left, op: BinaryOperator::And, right }
        }
        None => condition,
    });
    Some(Expr::Exists { subquery: Box::new(query), negated: false })
}

/// The parameter in which a condition looks for a value: that of `= ANY($1)`.
pub(super) fn searched(expr: &Expr) -> Option<usize> {
    match is_call_of(expr, &["array_contains", "array_has"]) {
        true => placeholder(argument(expr, 0)?),
        false => None,
    }
}

fn placeholder(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Nested(inner) => placeholder(inner),
        Expr::Value(value) => match &value.value {
            Value::Placeholder(name) => millstream_sql::parameters::index(name),
            _ => None,
        },
        _ => None,
    }
}

fn argument(expr: &Expr, index: usize) -> Option<&Expr> {
    let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = expr else { return None };
    match list.args.get(index)? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn call(name: &str, argument: Expr) -> Expr {
    function_call(name, vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))], vec![])
}

fn text(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.to_string()))
}

fn parsed(text: &str) -> Option<Expr> {
    millstream_sql::parse_expression(text).ok()
}

fn null(data_type: &str) -> Expr {
    // What stands here is a constant of this file; without a cast it would be as good.
    parsed(&format!("CAST(NULL AS {data_type})")).unwrap_or(Expr::value(Value::Null))
}

/// The tables of `information_schema` that are here under another name.
fn own_information(name: &mut ObjectName) {
    let [.., ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(table)] = name.0.as_slice() else { return };
    let table = table.value.to_ascii_lowercase();
    if schema.value.eq_ignore_ascii_case("information_schema") && INFORMATION_TABLES.contains(&table.as_str()) {
        *name = ObjectName::from(vec![ast::Ident::new("pg_catalog"), ast::Ident::new(format!("{INFORMATION}{table}"))]);
    }
}

/// What is changed in each SELECT before its parts are.
struct Selects;

impl WalkMut for Selects {
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        select.from.iter_mut().for_each(|from| {
            let _changed = lateral_array(from);
        });
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if let Expr::Identifier(ident) = expr
                && EMPTY_LISTS.contains(&ident.value.to_ascii_lowercase().as_str())
            {
                // What stands for it has no name.
                *item = SelectItem::ExprWithAlias { alias: ident.clone(), expr: expr.clone() };
            } else if let Expr::CompoundIdentifier(parts) = expr
                && let Some(last) = parts.last()
                && EMPTY_LISTS.contains(&last.value.to_ascii_lowercase().as_str())
            {
                *item = SelectItem::ExprWithAlias { alias: last.clone(), expr: expr.clone() };
            }
        }
        for item in &mut select.projection {
            let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { continue };
            each_expr_mut(expr, &mut |expr| {
                if let Some(counted) = counted(expr) {
                    *expr = counted;
                }
            });
        }
        ControlFlow::Continue(())
    }
}

/// `EXISTS (SELECT .. FROM ..)` as a number that is compared: a value, and no condition.
fn counted(expr: &Expr) -> Option<Expr> {
    let Expr::Exists { subquery, negated } = expr else { return None };
    let mut query = subquery.clone();
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    select.projection = vec![SelectItem::UnnamedExpr(parsed("count(*)")?)];
    parsed(&format!("(({query}) {} 0)", if *negated { "=" } else { ">" }))
}

/// The name in `'pg_catalog.name'::regproc`, which the parser has made a subquery of.
fn function_name(query: &Query) -> Option<String> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let mut found = None;
    each_expr(select.selection.as_ref()?, &mut |expr| {
        if let Expr::Value(value) = expr
            && let Value::SingleQuotedString(name) = &value.value
        {
            found = name.rsplit('.').next().map(str::to_string);
        }
    });
    found
}

/// `t CROSS JOIN UNNEST(a) AS x` as `(SELECT *, unnest(t.a) AS x FROM t) AS t`.
fn lateral_array(from: &mut TableWithJoins) -> Option<()> {
    let at = from.joins.iter().position(|join| matches!(join.relation, TableFactor::UNNEST { .. }))?;
    let TableFactor::UNNEST { alias: Some(alias), array_exprs, .. } = &from.joins[at].relation else { return None };
    let [array] = array_exprs.as_slice() else { return None };
    let TableFactor::Table { name, alias: relation, .. } = &from.relation else { return None };
    let relation = match relation {
        Some(relation) => relation.name.to_string(),
        None => name.0.last()?.to_string(),
    };
    let column = alias.columns.first().map_or_else(|| alias.name.to_string(), |column| column.name.to_string());
    let text = format!("SELECT * FROM (SELECT {relation}.*, unnest({array}) AS {column} FROM {name} AS {relation}) AS {relation}");
    let SetExpr::Select(mut select) = *millstream_sql::parse_query(&text).ok()?.body else { return None };
    from.relation = select.from.pop()?.relation;
    from.joins.remove(at);
    Some(())
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
    let arguments = [Expr::Nested(pattern.clone()), text(&escape), text("\\")];
    let args = arguments.into_iter().map(|expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))).collect();
    **pattern = function_call("replace", args, vec![]);
}
