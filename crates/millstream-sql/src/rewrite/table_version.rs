//! Versions of relations: `FOR SYSTEM_TIME AS OF`.
//!
//! ```sql
//! FROM orders o JOIN rates FOR SYSTEM_TIME AS OF PROCTIME() AS r ON o.currency = r.currency
//! -- becomes a scan that the planner knows by its schema
//! FROM orders o JOIN as_of_proctime.rates AS r ON o.currency = r.currency
//!
//! FROM orders o JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency
//! -- becomes, with the event time of rates
//! FROM orders o ASOF JOIN rates AS r MATCH_CONDITION (o.ts >= r.since) ON o.currency = r.currency
//! ```
//! The first reads what `rates` held after the epoch before. The second takes every row of an append-only stream for a version of its
//! key, which holds from its event time until the next one's. Of a stream with PRIMARY KEY, whose rows replace each other, it reads the
//! changes as they came, from a schema of their own:
//!
//! ```sql
//! FROM orders o ASOF JOIN as_of_event_time.rates AS r MATCH_CONDITION (asof_version(o.ts >= r.since, r.currency))
//!   ON o.currency = r.currency
//! ```
//! Where the rewrite cannot tell which column the time is in, or which rows are versions, it refuses and names ASOF JOIN, which is told.

use std::collections::HashSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, Spanned,
    TableFactor, TableVersion, TableWithJoins,
};

use super::asof_join::ASOF_VERSION;
use super::{RewriteContext, VersionTime, alias, last_ident, last_word, plain_call, qualifier, visit_step};
use crate::dialect::function_call;
use crate::error::{Result, SqlError};
use crate::tokens::asof_join::ASOF_LEFT;
use crate::visit::{Walk, WalkMut, walk, walk_mut};

/// The schema in which a scan finds relations as they were after the epoch before.
pub const LOOKUP_SCHEMA: &str = "as_of_proctime";

/// The schema in which a scan finds the changes of streams with PRIMARY KEY: their columns, the hidden ones, and the two below.
pub const VERSIONS_SCHEMA: &str = "as_of_event_time";

/// The place of a change among those of its stream and epoch.
pub const POSITION_COLUMN: &str = "__position";

/// Whether a change takes the row of its key away.
pub const DELETED_COLUMN: &str = "__deleted";

/// True if `version` is `AS OF PROCTIME()`.
pub(super) fn is_lookup(version: &TableVersion) -> bool {
    matches!(version, TableVersion::ForSystemTimeAsOf(expr) if matches!(plain_call(expr), Some((word, _, [])) if word == "proctime"))
}

/// The column whose time a version is of.
pub(super) fn version_column(version: &TableVersion) -> Option<&Expr> {
    match version {
        TableVersion::ForSystemTimeAsOf(expr @ (Expr::Identifier(_) | Expr::CompoundIdentifier(_))) => Some(expr),
        _ => None,
    }
}

/// Rewrites every version of `query` but slices of epochs.
pub(super) fn rewrite(query: &mut Query, context: &RewriteContext<'_>) -> Result<()> {
    struct Rewriter<'a> {
        context: &'a RewriteContext<'a>,
        /// The names of common table expressions, which have no versions.
        named: HashSet<String>,
        result: Result<()>,
    }
    impl WalkMut for Rewriter<'_> {
        fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            let joins = select.from.iter_mut().try_for_each(|from| version_joins(from, self.context, &self.named));
            visit_step(&mut self.result, joins)
        }

        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            visit_step(&mut self.result, scan(factor, &self.named))
        }
    }
    let named = common_tables(query);
    let mut rewriter = Rewriter { context, named, result: Ok(()) };
    let _ = walk_mut(query, &mut rewriter);
    rewriter.result
}

fn common_tables(query: &Query) -> HashSet<String> {
    struct Collector(HashSet<String>);
    impl Walk for Collector {
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            self.0.extend(query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| cte.alias.name.value.to_lowercase()));
            ControlFlow::Continue(())
        }
    }
    let mut collector = Collector(HashSet::new());
    let _ = walk(query, &mut collector);
    collector.0
}

/// Turns the joins with a relation as of a column into ASOF joins.
fn version_joins(from: &mut TableWithJoins, context: &RewriteContext<'_>, named: &HashSet<String>) -> Result<()> {
    if let TableFactor::NestedJoin { table_with_joins, .. } = &mut from.relation {
        version_joins(table_with_joins, context, named)?;
    }
    for join in &mut from.joins {
        if let TableFactor::NestedJoin { table_with_joins, .. } = &mut join.relation {
            version_joins(table_with_joins, context, named)?;
        }
        let right = qualifier(&join.relation);
        let TableFactor::Table { name, alias: given, version, .. } = &mut join.relation else { continue };
        let Some(column) = version.as_ref().and_then(version_column).cloned() else { continue };
        refuse_common_table(name, named)?;
        let versions = versions_of(name, context)?;
        let (constraint, is_left) = match &join.join_operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (constraint.clone(), false),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => (constraint.clone(), true),
            _ => return Err(misplaced(name, &column)),
        };
        if matches!(constraint, JoinConstraint::None | JoinConstraint::Natural) {
            return Err(SqlError::new(format!("the join with \"{name}\" as of {column} has no key"))
                .with_hint("Write ON with an equality of the key whose version is meant.")
                .at(name.span()));
        }
        let right = right.or_else(|| last_ident(name).cloned());
        let of_right = |column: Ident| Expr::CompoundIdentifier(right.iter().cloned().chain([column]).collect());
        let time = of_right(versions.time);
        let mut condition = Expr::BinaryOp { left: Box::new(column), op: BinaryOperator::GtEq, right: Box::new(time) };
        *version = None;
        if let (Some(key), Some(relation)) = (versions.key, last_ident(name).cloned()) {
            condition = call(ASOF_VERSION, std::iter::once(condition).chain(key.into_iter().map(of_right)).collect());
            *given = given.take().or_else(|| Some(alias(relation.clone())));
            *name = ObjectName::from(vec![Ident::new(VERSIONS_SCHEMA), relation]);
        }
        join.join_operator =
            JoinOperator::AsOf { match_condition: if is_left { call(ASOF_LEFT, vec![condition]) } else { condition }, constraint };
    }
    Ok(())
}

/// Which rows of a relation are its versions.
struct Versions {
    /// The column with the time from which one holds.
    time: Ident,
    /// The key, where they are the changes of a stream.
    key: Option<Vec<Ident>>,
}

fn versions_of(name: &ObjectName, context: &RewriteContext<'_>) -> Result<Versions> {
    let asof = format!("Name the column from which its rows hold: `ASOF JOIN {name} AS r MATCH_CONDITION (l.ts >= r.since) ON l.k = r.k`.");
    let quoted = |column: String| Ident::with_quote('"', column);
    let (message, hint) = match (context.version_time)(name) {
        VersionTime::Column(column) => return Ok(Versions { time: Ident::new(column), key: None }),
        VersionTime::Changes { time, key } => {
            return Ok(Versions { time: quoted(time), key: Some(key.into_iter().map(quoted).collect()) });
        }
        VersionTime::Unknown => (format!("relation \"{name}\" has no event time, so that its versions have no time"), asof),
        VersionTime::Unkeyed => (
            format!("stream \"{name}\" takes rows away and has no key, so that none is known to be a version of another"),
            "Declare a PRIMARY KEY: each change of a key then is a version, from its event time until that of the next.".to_string(),
        ),
    };
    Err(SqlError::new(message).with_hint(hint).at(name.span()))
}

/// Turns a relation as of the epoch before into the scan of its version; refuses versions that are left.
fn scan(factor: &mut TableFactor, named: &HashSet<String>) -> Result<()> {
    let TableFactor::Table { name, alias: given, version, .. } = factor else { return Ok(()) };
    let Some(found) = version else { return Ok(()) };
    if let Some(column) = version_column(found) {
        return Err(misplaced(name, column));
    }
    if is_lookup(found) {
        refuse_common_table(name, named)?;
        let Some(relation) = last_ident(name).cloned() else { return Ok(()) };
        *given = given.take().or_else(|| Some(alias(relation.clone())));
        *name = ObjectName::from(vec![Ident::new(LOOKUP_SCHEMA), relation]);
        *version = None;
    }
    Ok(())
}

fn misplaced(name: &ObjectName, column: &Expr) -> SqlError {
    SqlError::new(format!("\"{name}\" as of {column} does not stand after JOIN or LEFT JOIN"))
        .with_hint(format!("Write `FROM s JOIN {name} FOR SYSTEM_TIME AS OF s.ts ON s.k = {name}.k`."))
        .at(name.span())
}

fn refuse_common_table(name: &ObjectName, named: &HashSet<String>) -> Result<()> {
    if name.0.len() > 1 || !last_word(name).is_some_and(|word| named.contains(&word)) {
        return Ok(());
    }
    Err(SqlError::new(format!("\"{name}\" is a query of WITH, which has no versions"))
        .with_hint("Make it a materialized view.")
        .at(name.span()))
}

fn call(function: &str, arguments: Vec<Expr>) -> Expr {
    function_call(function, arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect(), vec![])
}
