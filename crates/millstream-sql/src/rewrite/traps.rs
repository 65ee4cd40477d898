//! What DataFusion's planner ignores or gets wrong without saying so: refused, or brought into a form it gets right.
//!
//! Refused: TABLESAMPLE, unknown table versions, table hints, PIVOT and UNPIVOT, MATCH_RECOGNIZE, PREWHERE, CONNECT BY,
//! `GROUP BY .. WITH ROLLUP`, FORMAT and SETTINGS, SELECT INTO, and `EXCEPT` and `INTERSECT` BY NAME. Brought into form:
//! `= ANY (subquery)` becomes IN (DataFusion plans three joins without a key), `<> ALL` becomes
//! NOT IN, the column of a compared subquery gets a name of its own, FETCH FIRST becomes LIMIT, and MINUS becomes EXCEPT.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, GroupByExpr, Ident, Join, JoinOperator, LimitClause, Query, Select, SelectFlavor, SelectItem, SetExpr,
    SetOperator, SetQuantifier, Spanned, TableFactor, TableVersion, Value, WildcardAdditionalOptions,
};
use sqlparser::tokenizer::Span;

use super::epoch_slice::slice_bounds;
use super::table_version::{is_lookup, version_column};
use super::visit_step;
use crate::error::{Result, SqlError};
use crate::visit::{Walk, WalkMut, walk, walk_mut};

/// Refuses what is not supported.
pub(super) fn check(query: &Query) -> Result<()> {
    struct Checker {
        result: Result<()>,
    }
    impl Walk for Checker {
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            visit_step(&mut self.result, check_query(query))
        }

        fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
            visit_step(&mut self.result, check_select(select))
        }

        fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
            visit_step(&mut self.result, check_factor(factor))
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            visit_step(&mut self.result, check_expr(expr))
        }
    }
    let mut checker = Checker { result: Ok(()) };
    let _ = walk(query, &mut checker);
    checker.result
}

fn refuse(message: impl Into<String>, hint: impl Into<String>, span: Span) -> Result<()> {
    Err(SqlError::new(message).with_hint(hint).at(span))
}

fn check_query(query: &Query) -> Result<()> {
    if query.settings.is_some() || query.format_clause.is_some() {
        return refuse("SETTINGS and FORMAT after a query are not supported", "Write `SET name = value` before it.", query.span());
    }
    if query.for_clause.is_some() {
        return refuse("FOR XML, FOR JSON and FOR BROWSE are not supported", "Leave the clause out.", query.span());
    }
    if let Some(fetch) = &query.fetch
        && (fetch.with_ties || fetch.percent || query.limit_clause.as_ref().is_some_and(has_limit))
    {
        return refuse(
            "FETCH FIRST with TIES, PERCENT or LIMIT is not supported",
            "Write LIMIT n; for ties filter by rank().",
            query.span(),
        );
    }
    check_set_expr(&query.body)
}

fn has_limit(clause: &LimitClause) -> bool {
    !matches!(clause, LimitClause::LimitOffset { limit: None, .. })
}

fn check_set_expr(body: &SetExpr) -> Result<()> {
    let SetExpr::SetOperation { left, op, set_quantifier, right } = body else { return Ok(()) };
    let by_name = matches!(set_quantifier, SetQuantifier::ByName | SetQuantifier::AllByName | SetQuantifier::DistinctByName);
    if by_name && *op != SetOperator::Union {
        let hint = "List the columns of both sides in the same order, without BY NAME.";
        return refuse(format!("{op} {set_quantifier} is not supported"), hint, right.span());
    }
    check_set_expr(left)?;
    check_set_expr(right)
}

fn check_select(select: &Select) -> Result<()> {
    let span = select.select_token.0.span;
    if let Some(into) = &select.into {
        return refuse(format!("SELECT INTO {} is not supported", into.name), "Write `CREATE TABLE name AS SELECT ...`.", span);
    }
    if select.prewhere.is_some() {
        return refuse("PREWHERE is not supported", "Write WHERE.", span);
    }
    if !select.connect_by.is_empty() {
        return refuse("CONNECT BY is not supported", "Write a recursive query: `WITH RECURSIVE t AS (... UNION ALL ...)`.", span);
    }
    if select.top.is_some() {
        return refuse("TOP is not supported", "Write LIMIT after the query.", span);
    }
    if select.value_table_mode.is_some() {
        return refuse("SELECT AS STRUCT and AS VALUE are not supported", "Write `named_struct('a', a)`.", span);
    }
    if let GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers) = &select.group_by
        && let Some(modifier) = modifiers.first()
    {
        return refuse(
            format!("GROUP BY ... {modifier} is not supported"),
            "Write `GROUP BY ROLLUP (a, b)`, `CUBE (a, b)` or `GROUPING SETS`.",
            span,
        );
    }
    select.from.iter().try_for_each(|from| check_joins(&from.joins))
}

fn check_joins(joins: &[Join]) -> Result<()> {
    for join in joins {
        match &join.join_operator {
            JoinOperator::CrossApply | JoinOperator::OuterApply => {
                return refuse(
                    "APPLY is not supported",
                    "Write CROSS JOIN LATERAL (...) or LEFT JOIN LATERAL (...) ON true.",
                    join.relation.span(),
                );
            }
            JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
                return refuse("ARRAY JOIN is not supported", "Write `CROSS JOIN UNNEST(t.a) AS u(x)`.", join.relation.span());
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_factor(factor: &TableFactor) -> Result<()> {
    let span = factor.span();
    let sample_hint = "Filter by a hash of a key: `WHERE md5(CAST(k AS VARCHAR)) < '1a'` keeps a tenth.";
    match factor {
        TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
            refuse("TABLESAMPLE is not supported", sample_hint, span)
        }
        TableFactor::Table { with_hints, index_hints, name, .. } if !with_hints.is_empty() || !index_hints.is_empty() => {
            refuse(format!("table hints after \"{name}\" are not supported"), "Leave them out; options belong to CREATE and SET.", span)
        }
        TableFactor::Table { partitions, name, .. } if !partitions.is_empty() => {
            refuse(format!("PARTITION after \"{name}\" is not supported"), "Filter by the partition column in WHERE.", span)
        }
        TableFactor::Table { with_ordinality: true, .. } | TableFactor::Function { with_ordinality: true, .. } => {
            refuse("WITH ORDINALITY is not supported", "Number the rows with row_number().", span)
        }
        TableFactor::Table { version: Some(version), name, .. } => check_version(version, &name.to_string(), span),
        TableFactor::Pivot { .. } => {
            refuse("PIVOT is not supported", "Write one aggregate for each column: `sum(x) FILTER (WHERE month = 1) AS jan`.", span)
        }
        TableFactor::Unpivot { .. } => refuse("UNPIVOT is not supported", "Write UNION ALL of one SELECT for each column.", span),
        TableFactor::MatchRecognize { .. } => {
            refuse("MATCH_RECOGNIZE is not supported", "Compare rows with lag() and lead() OVER (PARTITION BY .. ORDER BY ..).", span)
        }
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } | TableFactor::XmlTable { .. } => {
            refuse("JSON_TABLE, OPENJSON and XMLTABLE are not supported", "Take fields with the JSON functions, for example j->>'a'.", span)
        }
        TableFactor::NestedJoin { table_with_joins, .. } => check_joins(&table_with_joins.joins),
        _ => Ok(()),
    }
}

fn check_version(version: &TableVersion, name: &str, span: Span) -> Result<()> {
    if slice_bounds(version).is_some() || is_lookup(version) || version_column(version).is_some() {
        return Ok(());
    }
    match version {
        TableVersion::ForSystemTimeAsOf(_) => refuse(
            format!("FOR SYSTEM_TIME AS OF after \"{name}\" names no known version"),
            "Write PROCTIME() for what it held after the epoch before, or the event time of the row that it is joined with.",
            span,
        ),
        _ => refuse(
            format!("the version after \"{name}\" is not supported"),
            "Write `FOR EPOCH BETWEEN a AND b` for a slice of a stream.",
            span,
        ),
    }
}

fn check_expr(expr: &Expr) -> Result<()> {
    if let Expr::Value(value) = expr
        && let Value::Placeholder(name) = &value.value
        && let Some(variable) = name.strip_prefix(':')
    {
        return refuse(format!("variable \"{variable}\" is not set"), format!("Set it with `-v {variable}=value`."), value.span);
    }
    Ok(())
}

/// Brings a query into the forms that DataFusion plans well.
pub(super) fn normalize(query: &mut Query) {
    struct Normalizer;
    impl WalkMut for Normalizer {
        fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            fetch_to_limit(query);
            minus_to_except(&mut query.body);
            ControlFlow::Continue(())
        }

        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            if select.flavor == SelectFlavor::FromFirstNoSelect && select.projection.is_empty() {
                select.projection.push(SelectItem::Wildcard(WildcardAdditionalOptions::default()));
            }
            select.flavor = SelectFlavor::Standard;
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            normalize_comparison(expr);
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(query, &mut Normalizer);
}

fn fetch_to_limit(query: &mut Query) {
    let Some(fetch) = query.fetch.take() else { return };
    // FETCH FIRST ROW ONLY is one row.
    let quantity = fetch.quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false)));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, .. }) => *limit = Some(quantity),
        _ => query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(quantity), offset: None, limit_by: vec![] }),
    }
}

fn minus_to_except(body: &mut SetExpr) {
    if let SetExpr::SetOperation { left, op, right, .. } = body {
        if *op == SetOperator::Minus {
            *op = SetOperator::Except;
        }
        minus_to_except(left);
        minus_to_except(right);
    }
}

fn normalize_comparison(expr: &mut Expr) {
    let (left, right, negated) = match expr {
        Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => (left, right, false),
        Expr::AllOp { left, compare_op: BinaryOperator::NotEq, right } => (left, right, true),
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } => {
            if let Some(query) = subquery_mut(right) {
                rename_column(query);
            }
            return;
        }
        _ => return,
    };
    if let Some(query) = subquery_mut(right) {
        *expr = Expr::InSubquery { expr: left.clone(), subquery: Box::new(query.clone()), negated };
    }
}

fn subquery_mut(expr: &mut Expr) -> Option<&mut Query> {
    match expr {
        Expr::Subquery(query) => Some(query),
        Expr::Nested(inner) => subquery_mut(inner),
        _ => None,
    }
}

/// Gives the only column of a compared subquery a name that no column outside has: DataFusion resolves both sides by name.
fn rename_column(query: &mut Query) {
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    let [item] = select.projection.as_mut_slice() else { return };
    let (SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) = item else { return };
    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new("__compared") };
}
