//! From a query in our dialect to one that DataFusion plans, and plans rightly.
//!
//! [`rewrite_query`] changes the AST in this order; each step is a file:
//!
//! | step | what it does |
//! |---|---|
//! | `traps` | refuses what DataFusion ignores or gets wrong, normalises what it knows under another form |
//! | `named_windows` | `OVER (w ROWS ..)` becomes a window with what `w` says |
//! | `multisets` | marks `EXCEPT ALL` and `INTERSECT ALL`, which the planner mends |
//! | `hidden_columns` | keeps `_epoch` and `_epoch_time` out of the user's `*` |
//! | `epoch_slice` | `FOR EPOCH BETWEEN` becomes a filter on `_epoch` |
//! | `table_version` | `x FOR SYSTEM_TIME AS OF PROCTIME()` becomes a scan of a schema of its own, `AS OF s.ts` an ASOF join, with the changes of a keyed stream |
//! | `asof_join` | `ASOF JOIN` becomes a join with versions: rows that know the time of the one that follows them |
//! | `unnest` | `CROSS JOIN UNNEST(t.tags) AS u(tag)` becomes an `unnest` in a derived table |
//! | `group_window` | `GROUP BY TUMBLE(..)`, `HOP(..)`, `SESSION(..)`, `window(..)` and `session_window(..)` become window columns |
//! | `window_tvf` | `TUMBLE(..)`, `HOP(..)`, `CUMULATE(..)` and `SESSION(..)` after FROM become derived tables, `PROCESS(..)` a call in one form |
//!
//! The result uses functions that DataFusion does not have, always with all their arguments:
//! `tumble_start(ts, size, offset, zone)`, `window_end(start, size, zone)`, the lists, ascending and empty for a NULL time,
//! `hop_starts(ts, slide, size, offset, zone)` and `cumulate_ends(ts, step, size, offset, zone)`, and the window functions
//! `session_start(ts, gap)` and `session_end(ts, gap)`.

mod asof_join;
mod casts;
mod epoch_slice;
mod group_window;
pub mod hidden_columns;
mod multisets;
mod named_windows;
mod process;
mod session_window;
mod table_version;
mod traps;
mod unnest;
mod window;
mod window_tvf;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident, ObjectName, ObjectNamePart, OrderByExpr, Query,
    TableAlias, TableFactor,
};

pub use hidden_columns::{exclude_hidden_from_wildcards, mentions_hidden};
pub use table_version::{DELETED_COLUMN, LOOKUP_SCHEMA, POSITION_COLUMN, VERSIONS_SCHEMA};

use crate::error::Result;
use crate::visit::{WalkMut, walk_mut};

/// What the rewrite has to know of the world.
#[derive(Clone, Copy)]
pub struct RewriteContext<'a> {
    /// True for the name of a stream.
    pub is_stream: &'a dyn Fn(&ObjectName) -> bool,
    /// True if the streams show `_epoch` and `_epoch_time` to this query, which is for queries that mention them; see
    /// [`mentions_hidden`].
    pub shows_hidden_columns: bool,
    /// From when the rows of a relation hold, for `FOR SYSTEM_TIME AS OF s.ts`.
    pub version_time: &'a dyn Fn(&ObjectName) -> VersionTime,
}

/// From when the rows of a relation hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionTime {
    /// From the time in this column: the event time of an append-only stream, each row of which is a version.
    Column(String),
    /// Each change of a key makes a version, and a deletion ends one.
    Changes {
        /// The column with the time from which a change holds.
        time: String,
        /// The columns of the key.
        key: Vec<String>,
    },
    /// Rows are taken away, and no key says which version ends.
    Unkeyed,
    /// No column is known to say so.
    Unknown,
}

/// Rewrites `query` in place.
///
/// # Errors
/// Forms that are not supported, each with its place and, where there is one, the form to write instead. The query may be
/// half rewritten then.
pub fn rewrite_query(query: &mut Query, context: &RewriteContext<'_>) -> Result<()> {
    traps::check(query)?;
    traps::normalize(query);
    casts::normalize(query);
    named_windows::expand(query)?;
    multisets::mark(query);
    if context.shows_hidden_columns {
        exclude_hidden_from_wildcards(query, context.is_stream)?;
    }
    epoch_slice::rewrite(query);
    table_version::rewrite(query, context)?;
    asof_join::rewrite(query, context)?;
    unnest::rewrite(query)?;
    group_window::rewrite(query)?;
    window_tvf::rewrite(query)
}

/// The `Result` of a step of a walk, which ends with the first error. `kept` becomes the result of the walk.
fn visit_step(kept: &mut Result<()>, result: Result<()>) -> ControlFlow<()> {
    *kept = result;
    match kept {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    }
}

/// The relation a template stands for.
const RELATION: &str = "__relation";

/// Parses `sql`, in which `__relation` stands for `relation` and every name of `expressions` for its expression.
fn template(sql: &str, relation: TableFactor, expressions: &[(&str, &Expr)]) -> Query {
    struct Fill<'a> {
        relation: Option<TableFactor>,
        expressions: &'a [(&'a str, &'a Expr)],
    }
    impl WalkMut for Fill<'_> {
        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            if matches!(factor, TableFactor::Table { name, .. } if last_word(name).is_some_and(|name| name == RELATION))
                && let Some(relation) = self.relation.take()
            {
                *factor = relation;
            }
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Identifier(ident) = expr
                && let Some((_, replacement)) = self.expressions.iter().find(|(name, _)| *name == ident.value)
            {
                *expr = (*replacement).clone();
            }
            ControlFlow::Continue(())
        }
    }
    let mut query = crate::parse::parse_query(sql).expect("templates are valid SQL");
    let mut fill = Fill { relation: None, expressions };
    // The expressions first: those of the relation are not the template's.
    let _ = walk_mut(&mut *query, &mut fill);
    fill.relation = Some(relation);
    fill.expressions = &[];
    let _ = walk_mut(&mut *query, &mut fill);
    *query
}

/// Parses an expression of ours.
fn template_expr(sql: &str) -> Expr {
    crate::parse::parse_expression(sql).expect("templates are valid SQL")
}

/// The last part of a name in lower case.
fn last_word(name: &ObjectName) -> Option<String> {
    last_ident(name).map(|ident| ident.value.to_lowercase())
}

fn last_ident(name: &ObjectName) -> Option<&Ident> {
    name.0.last().and_then(ObjectNamePart::as_ident)
}

/// A name as names compare: in lower case unless it is quoted, as DataFusion folds it.
fn folded(ident: &Ident) -> Cow<'_, str> {
    match ident.quote_style {
        Some(_) => Cow::Borrowed(&ident.value),
        None => Cow::Owned(ident.value.to_ascii_lowercase()),
    }
}

/// The name in lower case if it is one unquoted word, as the functions we rewrite are.
fn function_word(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] if ident.quote_style.is_none() => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

/// The arguments of a call, and the function's name, if `expr` is a plain call.
fn plain_call(expr: &Expr) -> Option<(String, &ObjectName, &[FunctionArg])> {
    let Expr::Function(function) = expr else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    if function.over.is_some() || function.filter.is_some() {
        return None;
    }
    Some((function_word(&function.name)?, &function.name, &list.args))
}

/// The ORDER BY of a relation argument.
fn argument_order(expr: &Expr) -> &[OrderByExpr] {
    let Expr::Function(function) = expr else { return &[] };
    let FunctionArguments::List(list) = &function.args else { return &[] };
    let orders = list.clauses.iter().find_map(|clause| match clause {
        FunctionArgumentClause::OrderBy(keys) => Some(keys.as_slice()),
        _ => None,
    });
    orders.unwrap_or_default()
}

/// The expression of an argument without a name.
fn unnamed_argument(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

/// A plain reference to the relation `name`.
fn table(name: ObjectName) -> TableFactor {
    TableFactor::Table {
        name,
        alias: None,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

/// `(subquery) AS alias`.
fn derived(subquery: Query, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Derived { lateral: false, subquery: Box::new(subquery), alias, sample: None }
}

/// `AS name`.
fn alias(name: Ident) -> TableAlias {
    TableAlias { explicit: true, name, columns: vec![], at: None }
}

/// The name by which the columns of a factor are qualified.
fn qualifier(factor: &TableFactor) -> Option<Ident> {
    match factor {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. }
        | TableFactor::NestedJoin { alias: Some(alias), .. } => Some(alias.name.clone()),
        TableFactor::Table { name, args: None, .. } => last_ident(name).cloned(),
        _ => window_tvf::call_of(factor).and_then(|call| call.relation_name()).and_then(|name| last_ident(&name).cloned()),
    }
}
