//! ASOF joins: each row on the left with the one row of its key on the right whose time is the nearest in one direction.
//!
//! ```sql
//! FROM trades t ASOF JOIN quotes q MATCH_CONDITION (t.ts >= q.ts) ON t.symbol = q.symbol
//! -- becomes
//! FROM trades t JOIN (SELECT *, lead(q.ts) OVER (PARTITION BY q.symbol ORDER BY q.ts) AS __next_1 FROM quotes q
//!                     WHERE q.ts IS NOT NULL) AS q
//!   ON t.symbol = q.symbol AND t.ts >= q.ts AND (__next_1 IS NULL OR t.ts < __next_1)
//! ```
//! So a row on the right becomes a version with the time of the one that follows it, and one version holds at any time:
//!
//! | condition | the nearest row | neighbour | holds until |
//! |---|---|---|---|
//! | `l.ts >= r.ts` | the last at or before | `lead` | `l.ts < neighbour` |
//! | `l.ts > r.ts` | the last before | `lead` | `l.ts <= neighbour` |
//! | `l.ts <= r.ts` | the first at or after | `lag` | `l.ts > neighbour` |
//! | `l.ts < r.ts` | the first after | `lag` | `l.ts >= neighbour` |
//!
//! Of rows with the same key and time the one next to the others holds, the rest hold for no time at all. Which one that is, their other
//! columns decide where the query is maintained. A NULL time or key matches nothing.
//!
//! `USING (k, ts)` is `l.k = r.k` and `l.ts >= r.ts`, and its columns are those of the left side. The column with the neighbour's time is
//! left out of `*`.
//!
//! The versions of a stream with PRIMARY KEY are the changes of its keys, in the order of their times and, among equal times, in that in
//! which they came. A deletion ends the version before it and is none itself:
//!
//! ```sql
//! FROM orders o JOIN (SELECT * EXCLUDE (__position, __deleted)
//!                     FROM (SELECT *, lead(r.since) OVER (PARTITION BY r.currency ORDER BY r.since, _epoch, __position) AS __next_1
//!                           FROM as_of_event_time.rates AS r)
//!                     WHERE NOT __deleted) AS r
//!   ON o.currency = r.currency AND o.ts >= r.since AND (__next_1 IS NULL OR o.ts < __next_1)
//! ```
//! Its key decides what is a version of what, so ON has an equality for every column of it; other conditions are those of any join.

use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, Ident, JoinConstraint, JoinOperator, Query, Select, SelectItem, SelectItemQualifiedWildcardKind,
    Spanned, TableFactor, TableWithJoins,
};
use sqlparser::tokenizer::Span;

use super::hidden_columns::{HIDDEN_COLUMNS, Sources, add_exclusions, expanded};
use super::table_version::{DELETED_COLUMN, POSITION_COLUMN};
use super::{RewriteContext, alias, derived, last_ident, last_word, plain_call, qualifier, template, unnamed_argument, visit_step};
use crate::error::{Result, SqlError};
use crate::tokens::asof_join::{ASOF_LEFT, ASOF_ON, USAGE};
use crate::visit::{Walk, WalkMut, walk, walk_mut};

/// `asof_version(l.ts >= r.ts, r.k1, r.k2 ..)`: the right side is the changes of a stream with this key.
pub(super) const ASOF_VERSION: &str = "asof_version";

/// Rewrites every ASOF join of `query`.
pub(super) fn rewrite(query: &mut Query, context: &RewriteContext<'_>) -> Result<()> {
    struct Rewriter {
        joins: Joins,
        result: Result<()>,
    }
    impl WalkMut for Rewriter {
        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            if !select.from.iter().any(has_asof) {
                return ControlFlow::Continue(());
            }
            visit_step(&mut self.result, rewrite_select(select, &mut self.joins))
        }
    }
    let joins = Joins { count: 0, shows_hidden_columns: context.shows_hidden_columns };
    let mut rewriter = Rewriter { joins, result: Ok(()) };
    let _ = walk_mut(query, &mut rewriter);
    rewriter.result
}

/// The ASOF joins of a query.
struct Joins {
    /// How many have been rewritten.
    count: usize,
    /// Streams show their hidden columns.
    shows_hidden_columns: bool,
}

fn has_asof(from: &TableWithJoins) -> bool {
    let nested = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => has_asof(table_with_joins),
        _ => false,
    };
    nested(&from.relation)
        || from.joins.iter().any(|join| matches!(join.join_operator, JoinOperator::AsOf { .. }) || nested(&join.relation))
}

/// A column of USING, as an unqualified name means it.
struct Shared {
    column: Ident,
    /// The relation that it belongs to.
    left: Ident,
}

fn rewrite_select(select: &mut Select, joins: &mut Joins) -> Result<()> {
    let first = joins.count;
    let mut shared = vec![];
    // What `*` gives is decided by the joins as they were written.
    let fact = |_: &TableFactor| ();
    let sources = Sources::of(&select.from, &fact);
    let mut hidden: Vec<(Option<Ident>, Ident)> = vec![];
    for from in &mut select.from {
        rewrite_from(from, joins, &mut shared, &mut hidden)?;
    }
    debug_assert!(hidden.len() == joins.count - first, "every join has a column to hide");
    hide(select, &sources, &hidden, !shared.is_empty())?;
    if !shared.is_empty() {
        qualify(select, &shared);
    }
    Ok(())
}

/// Rewrites the ASOF joins of a relation with its joins. `hidden` gets the columns that are not to be seen, each with the name that
/// qualifies it.
fn rewrite_from(
    from: &mut TableWithJoins,
    joins: &mut Joins,
    shared: &mut Vec<Shared>,
    hidden: &mut Vec<(Option<Ident>, Ident)>,
) -> Result<()> {
    rewrite_nested(&mut from.relation, joins, shared, hidden)?;
    for index in 0..from.joins.len() {
        rewrite_nested(&mut from.joins[index].relation, joins, shared, hidden)?;
        let (before, rest) = from.joins.split_at_mut(index);
        let join = &mut rest[0];
        let JoinOperator::AsOf { match_condition, constraint } = &join.join_operator else { continue };
        joins.count += 1;
        let neighbour = Ident::new(format!("__next_{}", joins.count));
        let right = right_name(&join.relation)?;
        hidden.push((right.clone(), neighbour.clone()));
        let left = if before.is_empty() { qualifier(&from.relation) } else { None };
        let written = Written::read(match_condition, constraint, join.relation.span())?;
        let parts = written.parts(right.as_ref(), left.as_ref(), shared)?;
        let relation = std::mem::replace(&mut join.relation, super::table(Ident::new("__taken").into()));
        join.relation = match written.key {
            None => parts.versions(relation, &neighbour, right),
            Some(_) => parts.changes(relation, &neighbour, right, joins.shows_hidden_columns),
        };
        let on = JoinConstraint::On(parts.condition(&neighbour));
        join.join_operator = if written.is_left { JoinOperator::Left(on) } else { JoinOperator::Join(on) };
    }
    Ok(())
}

fn rewrite_nested(
    factor: &mut TableFactor,
    joins: &mut Joins,
    shared: &mut Vec<Shared>,
    hidden: &mut Vec<(Option<Ident>, Ident)>,
) -> Result<()> {
    let TableFactor::NestedJoin { table_with_joins, alias } = factor else { return Ok(()) };
    let first = hidden.len();
    rewrite_from(table_with_joins, joins, shared, hidden)?;
    if let Some(alias) = alias {
        hidden[first..].iter_mut().for_each(|(qualifier, _)| *qualifier = Some(alias.name.clone()));
    }
    Ok(())
}

/// The name that qualifies the columns of the right side.
fn right_name(relation: &TableFactor) -> Result<Option<Ident>> {
    let what = match relation {
        TableFactor::NestedJoin { .. } => "a join in parentheses",
        TableFactor::Derived { lateral: true, .. } => "LATERAL",
        TableFactor::UNNEST { .. } => "UNNEST",
        _ => return Ok(qualifier(relation)),
    };
    Err(SqlError::new(format!("the right side of an ASOF JOIN is {what}"))
        .with_hint("Make it a subquery: `ASOF JOIN (SELECT ...) AS r`.")
        .at(relation.span()))
}

/// An ASOF join as it was written.
struct Written<'a> {
    is_left: bool,
    /// The argument of MATCH_CONDITION.
    condition: Option<&'a Expr>,
    /// The columns of the key whose changes the right side is.
    key: Option<&'a [FunctionArg]>,
    constraint: &'a JoinConstraint,
    span: Span,
}

impl<'a> Written<'a> {
    fn read(match_condition: &'a Expr, constraint: &'a JoinConstraint, span: Span) -> Result<Self> {
        let (is_left, condition) = match plain_call(match_condition) {
            Some((word, _, [])) if word == ASOF_ON => (false, None),
            Some((word, _, [])) if word == ASOF_LEFT => (true, None),
            Some((word, _, [condition])) if word == ASOF_LEFT => (true, unnamed_argument(condition)),
            _ => (false, Some(match_condition)),
        };
        let (condition, key) = match condition.map(|condition| (condition, plain_call(condition))) {
            Some((_, Some((word, _, [condition, key @ ..])))) if word == ASOF_VERSION => (unnamed_argument(condition), Some(key)),
            _ => (condition, None),
        };
        Ok(Written { is_left, condition, key, constraint, span })
    }

    /// What ON or USING ask for.
    fn conjuncts(&self, right: Option<&Ident>, left: Option<&Ident>, shared: &mut Vec<Shared>) -> Result<Vec<Expr>> {
        let mut conjuncts = vec![];
        match self.constraint {
            JoinConstraint::On(on) => split(on, &mut conjuncts),
            JoinConstraint::Using(names) => {
                let columns: Vec<&Ident> = names.iter().filter_map(last_ident).collect();
                let (Some(left), Some(right)) = (left, right) else {
                    return Err(SqlError::new("USING after an ASOF JOIN needs one named relation on each side")
                        .with_hint("Write ON with qualified columns: `ON l.k = r.k AND l.ts >= r.ts`.")
                        .at(columns.first().map_or(self.span, |column| column.span)));
                };
                let of = |relation: &Ident, column: &Ident| Expr::CompoundIdentifier(vec![relation.clone(), column.clone()]);
                for (index, column) in columns.iter().enumerate() {
                    let is_time = self.condition.is_none() && index + 1 == columns.len();
                    let op = if is_time { BinaryOperator::GtEq } else { BinaryOperator::Eq };
                    conjuncts.push(binary(of(left, column), op, of(right, column)));
                    shared.push(Shared { column: (*column).clone(), left: left.clone() });
                }
            }
            JoinConstraint::Natural | JoinConstraint::None => {}
        }
        Ok(conjuncts)
    }

    /// The conditions of a join with the changes of a key.
    fn parts_of_changes(&self, condition: &Expr, key: &[FunctionArg], right: Option<&Ident>, conditions: Vec<Expr>) -> Result<Parts> {
        let key: Vec<Expr> = key.iter().filter_map(unnamed_argument).cloned().collect();
        let compares = |column: &Expr| {
            let read = conditions.iter().filter_map(|condition| Comparison::read(condition, right).ok());
            read.filter(|(comparison, _)| comparison.op == BinaryOperator::Eq).any(|(_, sides)| is_column(&sides.right, column))
        };
        if let Some(missing) = key.iter().find(|column| !compares(column)) {
            let column = name_of(missing).map_or_else(|| missing.to_string(), |column| column.value.clone());
            let of = right.map_or_else(String::new, |right| format!("{right}."));
            let span = conditions.first().map_or(self.span, |condition| condition.span());
            return Err(SqlError::new(format!("the join with a version has no equality for \"{column}\" of the PRIMARY KEY"))
                .with_hint(format!(
                    "Each key has versions of its own. Write ON with an equality for every column of it: `l.{column} = {of}{column}`."
                ))
                .at(span));
        }
        let (comparison, sides) = Comparison::read(condition, right)?;
        Ok(Parts { conditions, partition: key, left_time: sides.left, right_time: sides.right, op: comparison.op })
    }

    /// The conditions of the join by what they are for.
    fn parts(&self, right: Option<&Ident>, left: Option<&Ident>, shared: &mut Vec<Shared>) -> Result<Parts> {
        let conjuncts = self.conjuncts(right, left, shared)?;
        if let (Some(key), Some(condition)) = (self.key, self.condition) {
            return self.parts_of_changes(condition, key, right, conjuncts);
        }
        let mut conditions = vec![];
        let mut partition = vec![];
        let mut time = None;
        for conjunct in conjuncts.iter().chain(self.condition) {
            let is_match = self.condition.is_some_and(|condition| std::ptr::eq(condition, conjunct));
            let (comparison, sides) = Comparison::read(conjunct, right)?;
            match comparison.op {
                BinaryOperator::Eq if !is_match => {
                    conditions.push(conjunct.clone());
                    partition.push(sides.right);
                }
                BinaryOperator::Eq => return Err(not_a_time(conjunct)),
                op if time.is_none() && (is_match || self.condition.is_none()) => time = Some((op, sides)),
                _ => {
                    return Err(SqlError::new(format!("{conjunct} is a second comparison of times in one ASOF JOIN"))
                        .with_hint("Besides one comparison with >=, >, <= or < all conditions are equalities. Filter in WHERE, or in a subquery on the right side.")
                        .at(conjunct.span()));
                }
            }
        }
        let Some((op, Sides { left, right })) = time else {
            return Err(SqlError::new("an ASOF JOIN needs a comparison of times with >=, >, <= or <").with_hint(USAGE).at(self.span));
        };
        Ok(Parts { conditions, partition, left_time: left, right_time: right, op })
    }
}

/// A condition with a column of the right side on its right.
struct Comparison {
    /// `=`, `>=`, `>`, `<=` or `<`; IS NOT DISTINCT FROM counts as `=`.
    op: BinaryOperator,
}

/// What a condition compares.
struct Sides {
    left: Expr,
    right: Expr,
}

impl Comparison {
    fn read(expr: &Expr, right: Option<&Ident>) -> Result<(Self, Sides)> {
        let (first, op, second) = match expr {
            Expr::Nested(inner) => return Self::read(inner, right),
            Expr::IsNotDistinctFrom(first, second) => (first, BinaryOperator::Eq, second),
            Expr::BinaryOp { left, op, right } if mirrored(op).is_some() => (left, op.clone(), right),
            _ => {
                return Err(SqlError::new(format!("{expr} cannot be a condition of an ASOF JOIN"))
                    .with_hint("The conditions are equalities and one comparison with >=, >, <= or <. Filter in WHERE, or in a subquery on the right side.")
                    .at(expr.span()));
            }
        };
        let (first, second) = (first.as_ref(), second.as_ref());
        let is_turned = match (side(first, right), side(second, right)) {
            (Side::Left | Side::Unknown, Side::Right) | (Side::Left, Side::Unknown) => false,
            (Side::Right, Side::Left | Side::Unknown) | (Side::Unknown, Side::Left) => true,
            (Side::Unknown, Side::Unknown) => {
                return Err(SqlError::new(format!("it is not clear which side of the ASOF JOIN the columns of {expr} are of"))
                    .with_hint("Qualify them: `l.ts >= r.ts`.")
                    .at(expr.span()));
            }
            _ => {
                return Err(SqlError::new(format!("{expr} does not compare a left and a right expression of the ASOF JOIN"))
                    .with_hint("Filter in WHERE, or in a subquery on the right side: `ASOF JOIN (SELECT * FROM r WHERE ...) AS r`.")
                    .at(expr.span()));
            }
        };
        let op = if is_turned { mirrored(&op).unwrap_or(op) } else { op };
        let (left, right) = if is_turned { (second, first) } else { (first, second) };
        Ok((Comparison { op }, Sides { left: left.clone(), right: right.clone() }))
    }
}

/// Whose columns an expression reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Left,
    Right,
    /// Its columns are not qualified.
    Unknown,
    Both,
    Neither,
}

fn side(expr: &Expr, right: Option<&Ident>) -> Side {
    struct Sides<'r> {
        right: Option<&'r Ident>,
        found: Side,
    }
    impl Walk for Sides<'_> {
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let found = match expr {
                // Without a name, the right side is what has none.
                Expr::Identifier(_) if self.right.is_none() => Side::Right,
                Expr::Identifier(_) => Side::Unknown,
                Expr::CompoundIdentifier(parts) => match (parts.as_slice(), self.right) {
                    ([.., relation, _], Some(right)) if relation.value == right.value => Side::Right,
                    _ => Side::Left,
                },
                _ => return ControlFlow::Continue(()),
            };
            self.found = match (self.found, found) {
                (Side::Neither | Side::Unknown, found) | (found, Side::Neither | Side::Unknown) => found,
                (known, found) if known == found => known,
                _ => Side::Both,
            };
            ControlFlow::Continue(())
        }
    }
    let mut sides = Sides { right, found: Side::Neither };
    let _ = walk(expr, &mut sides);
    sides.found
}

/// The operator with its operands exchanged; `None` for what is no comparison of an ASOF join.
fn mirrored(op: &BinaryOperator) -> Option<BinaryOperator> {
    Some(match op {
        BinaryOperator::Eq => BinaryOperator::Eq,
        BinaryOperator::Gt => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::LtEq,
        BinaryOperator::Lt => BinaryOperator::Gt,
        BinaryOperator::LtEq => BinaryOperator::GtEq,
        _ => return None,
    })
}

fn not_a_time(expr: &Expr) -> SqlError {
    SqlError::new(format!("{expr} is no MATCH_CONDITION"))
        .with_hint("It compares times with >=, >, <= or <; equalities belong after ON.")
        .at(expr.span())
}

fn split(expr: &Expr, conjuncts: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            split(left, conjuncts);
            split(right, conjuncts);
        }
        Expr::Nested(inner) if matches!(**inner, Expr::BinaryOp { op: BinaryOperator::And, .. }) => split(inner, conjuncts),
        other => conjuncts.push(other.clone()),
    }
}

/// The column that a plain name means.
fn name_of(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(column) => Some(column),
        Expr::CompoundIdentifier(parts) => parts.last(),
        _ => None,
    }
}

/// Whether `expr` is a name for a column of the right side, whose own name is quoted.
fn is_column(expr: &Expr, column: &Expr) -> bool {
    let (Some(written), Some(column)) = (name_of(expr), name_of(column)) else { return false };
    match written.quote_style {
        Some(_) => written.value == column.value,
        None => written.value.eq_ignore_ascii_case(&column.value),
    }
}

/// The conditions of an ASOF join.
struct Parts {
    /// Those beside the times.
    conditions: Vec<Expr>,
    /// What makes rows of the right side versions of each other.
    partition: Vec<Expr>,
    left_time: Expr,
    right_time: Expr,
    /// How the left time compares with the right one.
    op: BinaryOperator,
}

impl Parts {
    /// The rows of the right side, each with the time of its neighbour.
    fn versions(&self, relation: TableFactor, neighbour: &Ident, right: Option<Ident>) -> TableFactor {
        let function = match self.op {
            BinaryOperator::Gt | BinaryOperator::GtEq => "lead",
            _ => "lag",
        };
        let over = |partition: &str| format!("{function}(__time) OVER ({partition}ORDER BY __time)");
        let rows = self.with_neighbours(relation, neighbour, &over, " WHERE __time IS NOT NULL");
        derived(rows, right.map(alias))
    }

    /// The versions that the changes on the right side make, each with the time of the next change.
    fn changes(&self, relation: TableFactor, neighbour: &Ident, right: Option<Ident>, shows_hidden_columns: bool) -> TableFactor {
        let over = |partition: &str| format!("lead(__time) OVER ({partition}ORDER BY __time, _epoch, {POSITION_COLUMN})");
        let changes = derived(self.with_neighbours(relation, neighbour, &over, ""), None);
        let mut hidden = vec![POSITION_COLUMN, DELETED_COLUMN];
        if !shows_hidden_columns {
            hidden.extend(HIDDEN_COLUMNS);
        }
        let sql = format!("SELECT * EXCLUDE ({}) FROM __relation WHERE NOT {DELETED_COLUMN}", hidden.join(", "));
        derived(template(&sql, changes, &[]), right.map(alias))
    }

    /// The rows of the right side with the result of a window function; `over` gets the PARTITION BY.
    fn with_neighbours(&self, relation: TableFactor, neighbour: &Ident, over: &dyn Fn(&str) -> String, rest: &str) -> Query {
        let names: Vec<String> = (0..self.partition.len()).map(|index| format!("__key_{index}")).collect();
        let partition = if names.is_empty() { String::new() } else { format!("PARTITION BY {} ", names.join(", ")) };
        let sql = format!("SELECT *, {} AS {neighbour} FROM __relation{rest}", over(&partition));
        let keys = names.iter().map(String::as_str).zip(&self.partition);
        let expressions: Vec<(&str, &Expr)> = std::iter::once(("__time", &self.right_time)).chain(keys).collect();
        template(&sql, relation, &expressions)
    }

    /// The condition under which a version is the one of a left row.
    fn condition(&self, neighbour: &Ident) -> Expr {
        let until = match self.op {
            BinaryOperator::GtEq => BinaryOperator::Lt,
            BinaryOperator::Gt => BinaryOperator::LtEq,
            BinaryOperator::LtEq => BinaryOperator::Gt,
            _ => BinaryOperator::GtEq,
        };
        let open = Expr::IsNull(Box::new(Expr::Identifier(neighbour.clone())));
        let holds = binary(self.left_time.clone(), until, Expr::Identifier(neighbour.clone()));
        let holds = Expr::Nested(Box::new(binary(open, BinaryOperator::Or, holds)));
        let begun = binary(self.left_time.clone(), self.op.clone(), self.right_time.clone());
        let conditions = self.conditions.iter().cloned();
        conditions.chain([begun]).rfold(holds, |rest, condition| binary(condition, BinaryOperator::And, rest))
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// Leaves the columns of neighbours out of `*` and `r.*`.
fn hide(select: &mut Select, sources: &Sources<'_, ()>, hidden: &[(Option<Ident>, Ident)], has_using: bool) -> Result<()> {
    let of = |relation: Option<&str>| -> Vec<Ident> {
        let owned = hidden.iter().filter(|(owner, _)| relation.is_none() || owner.as_ref().map(|owner| owner.value.as_str()) == relation);
        owned.map(|(_, column)| column.clone()).collect()
    };
    let mut projection = Vec::with_capacity(select.projection.len());
    for mut item in std::mem::take(&mut select.projection) {
        match &mut item {
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                add_exclusions(options, &of(last_word(name).as_deref()));
            }
            SelectItem::Wildcard(options) if has_using => {
                let span = options.wildcard_token.0.span;
                let Some(mut items) = expanded(options, sources, |()| vec![]) else {
                    return Err(SqlError::new("* over an ASOF JOIN with USING needs a name for every relation, and no modifiers")
                        .with_hint("Name the columns, or write ON with qualified columns.")
                        .at(span));
                };
                for item in &mut items {
                    if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) = item {
                        add_exclusions(options, &of(last_word(name).as_deref()));
                    }
                }
                projection.extend(items);
                continue;
            }
            SelectItem::Wildcard(options) => add_exclusions(options, &of(None)),
            _ => {}
        }
        projection.push(item);
    }
    select.projection = projection;
    Ok(())
}

/// Qualifies the columns of USING, which are those of the left side.
fn qualify(select: &mut Select, shared: &[Shared]) {
    struct Qualifier<'s> {
        shared: &'s [Shared],
        /// Subqueries around the current place. What a name means there depends on their relations.
        depth: usize,
    }
    impl WalkMut for Qualifier<'_> {
        fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if self.depth == 0
                && let Expr::Identifier(ident) = expr
                && let Some(Shared { column, left }) = self.shared.iter().find(|shared| shared.column.value == ident.value)
            {
                let mut column = column.clone();
                column.span = ident.span;
                *expr = Expr::CompoundIdentifier(vec![left.clone(), column]);
            }
            ControlFlow::Continue(())
        }
    }
    let _ = walk_mut(select, &mut Qualifier { shared, depth: 0 });
}
