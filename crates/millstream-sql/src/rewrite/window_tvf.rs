//! Window table functions after FROM, rewritten into derived tables.
//!
//! ```sql
//! FROM TUMBLE(bids, ts, INTERVAL '10 seconds')
//! -- becomes
//! FROM (SELECT *, window_start + INTERVAL '10 seconds' AS window_end, .. AS window_time
//!       FROM (SELECT *, date_bin(INTERVAL '10 seconds', ts) AS window_start FROM bids)) AS bids
//! ```
//!
//! Also read: `TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND))` and named arguments. The relation is a
//! name or a subquery. Without an alias the columns are qualified by the relation's name.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, ObjectName, Query, Spanned, TableAlias, TableFactor};
use sqlparser::tokenizer::Span;

use super::window::{Window, WindowKind, interval_text, is_longer, parse_offset, parse_time, parse_zone};
use super::{alias, derived, function_word, last_ident, plain_call, process, session_window, table, unnamed_argument, visit_step};
use crate::dialect::PARTITIONED_ARGUMENT;
use crate::error::{Result, SqlError};
use crate::literal::{WindowLength, parse_interval};
use crate::visit::{WalkMut, walk_mut};

/// A window table function as it stands after FROM.
pub(super) struct Call<'a> {
    pub(super) word: String,
    pub(super) args: &'a [FunctionArg],
    pub(super) alias: Option<&'a TableAlias>,
    pub(super) span: Span,
}

impl Call<'_> {
    /// The relation, if it is a name.
    pub(super) fn relation_name(&self) -> Option<ObjectName> {
        let named = self.args.iter().find_map(|argument| match argument {
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } if RELATION_NAMES.contains(&name.value.as_str()) => {
                Some(expr)
            }
            _ => None,
        });
        let relation = named.or_else(|| self.args.first().and_then(unnamed_argument))?;
        let relation = match plain_call(relation) {
            Some((word, _, [first, ..])) if word == PARTITIONED_ARGUMENT => unnamed_argument(first)?,
            _ => relation,
        };
        relation_name(relation)
    }
}

const RELATION_NAMES: [&str; 3] = ["data", "relation", "table"];

/// The window table function of a factor, if it is one.
pub(super) fn call_of(factor: &TableFactor) -> Option<Call<'_>> {
    let is_window = |word: &str| matches!(word, "tumble" | "hop" | "cumulate" | "session" | "process");
    let (word, args, alias, span) = match factor {
        TableFactor::Table { name, args: Some(args), alias, .. } => (function_word(name)?, args.args.as_slice(), alias, name.span()),
        TableFactor::Function { name, args, alias, .. } => (function_word(name)?, args.as_slice(), alias, name.span()),
        TableFactor::TableFunction { expr, alias } => {
            let (word, name, args) = plain_call(expr)?;
            (word, args, alias, name.span())
        }
        _ => return None,
    };
    is_window(&word).then_some(Call { word, args, alias: alias.as_ref(), span })
}

/// Rewrites every window table function of `query`.
pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    struct Rewriter {
        result: Result<()>,
    }
    impl WalkMut for Rewriter {
        // After the children, so that a window over a subquery with windows works from the inside out.
        fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
            let Some(call) = call_of(factor) else { return ControlFlow::Continue(()) };
            let result = derived_table(&call).map(|derived| *factor = derived);
            visit_step(&mut self.result, result)
        }
    }
    let mut rewriter = Rewriter { result: Ok(()) };
    let _ = walk_mut(query, &mut rewriter);
    rewriter.result
}

fn derived_table(call: &Call<'_>) -> Result<TableFactor> {
    let kind = match call.word.as_str() {
        "tumble" => WindowKind::Tumble,
        "hop" => WindowKind::Hop,
        "cumulate" => WindowKind::Cumulate,
        "session" => return session_window::derived_table(call),
        _ => return process::factor(call),
    };
    let arguments = Arguments::read(kind, call)?;
    let relation_expr = arguments.required("data", call.span)?;
    let (relation, default_alias) = relation_factor(relation_expr, kind.sql())?;
    let window = arguments.window(call.span)?;
    let alias = call.alias.cloned().or(default_alias);
    Ok(window.factor(relation, alias))
}

/// The relation argument as a factor, and the alias it gives where none is written.
pub(super) fn relation_factor(expr: &Expr, function: &str) -> Result<(TableFactor, Option<TableAlias>)> {
    if let Some(name) = relation_name(expr) {
        let default_alias = last_ident(&name).cloned().map(alias);
        return Ok((table(name), default_alias));
    }
    match expr {
        Expr::Subquery(query) => Ok((derived((**query).clone(), None), None)),
        Expr::Nested(inner) => relation_factor(inner, function),
        _ if plain_call(expr).is_some_and(|(word, ..)| word == PARTITIONED_ARGUMENT) => {
            Err(SqlError::new(format!("{function} takes no PARTITION BY"))
                .with_hint("Put the key into GROUP BY, beside window_start and window_end.")
                .at(expr.span()))
        }
        _ => Err(SqlError::new(format!("the first argument of {function} is {expr}, which is not a relation"))
            .with_hint(format!("Name a stream, table or view, or give a subquery: `{function}((SELECT ...), ts, ...)`."))
            .at(expr.span())),
    }
}

pub(super) fn relation_name(expr: &Expr) -> Option<ObjectName> {
    match expr {
        Expr::Identifier(ident) => Some(ident.clone().into()),
        Expr::CompoundIdentifier(idents) => Some(idents.clone().into()),
        _ => None,
    }
}

/// The arguments by name and by position.
pub(super) struct Arguments<'a> {
    kind: WindowKind,
    /// What the function's arguments are called in order; GROUP BY windows have no relation.
    names: &'static [&'static str],
    positional: Vec<&'a Expr>,
    named: Vec<(String, &'a Expr)>,
}

const TUMBLE_NAMES: [&str; 4] = ["data", "timecol", "size", "offset"];
const HOP_NAMES: [&str; 5] = ["data", "timecol", "slide", "size", "offset"];
const CUMULATE_NAMES: [&str; 5] = ["data", "timecol", "step", "size", "offset"];

impl<'a> Arguments<'a> {
    fn read(kind: WindowKind, call: &Call<'a>) -> Result<Self> {
        let names: &'static [&'static str] = match kind {
            WindowKind::Tumble => &TUMBLE_NAMES,
            WindowKind::Hop => &HOP_NAMES,
            WindowKind::Cumulate => &CUMULATE_NAMES,
        };
        Self::read_list(kind, names, call.args, call.span)
    }

    /// The arguments of `GROUP BY TUMBLE(ts, ..)`, which has no relation.
    pub(super) fn read_group(kind: WindowKind, args: &'a [FunctionArg], span: Span) -> Result<Self> {
        let names: &'static [&'static str] = match kind {
            WindowKind::Tumble => &TUMBLE_NAMES[1..],
            WindowKind::Hop => &HOP_NAMES[1..],
            WindowKind::Cumulate => &CUMULATE_NAMES[1..],
        };
        Self::read_list(kind, names, args, span)
    }

    fn read_list(kind: WindowKind, names: &'static [&'static str], args: &'a [FunctionArg], span: Span) -> Result<Self> {
        let mut arguments = Arguments { kind, names, positional: Vec::new(), named: Vec::new() };
        for argument in args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => {
                    if !arguments.named.is_empty() {
                        return Err(SqlError::new(format!("an argument of {} without a name follows one with a name", kind.sql()))
                            .with_hint(arguments.usage())
                            .at(expr.span()));
                    }
                    if arguments.positional.len() == names.len() {
                        return Err(SqlError::new(format!("{} has too many arguments", kind.sql()))
                            .with_hint(arguments.usage())
                            .at(expr.span()));
                    }
                    arguments.positional.push(expr);
                }
                FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. } => {
                    let canonical = match name.value.to_lowercase().as_str() {
                        "relation" | "table" => "data".to_owned(),
                        "time" | "ts" | "time_column" => "timecol".to_owned(),
                        "origin" => "offset".to_owned(),
                        "zone" | "timezone" => "time_zone".to_owned(),
                        other => other.to_owned(),
                    };
                    let is_known = canonical == "time_zone" || names.contains(&canonical.as_str());
                    let index = names.iter().position(|known| *known == canonical);
                    if !is_known {
                        return Err(SqlError::new(format!("{} has no argument \"{}\"", kind.sql(), name.value))
                            .with_hint(arguments.usage())
                            .at(name.span));
                    }
                    if index.is_some_and(|index| index < arguments.positional.len())
                        || arguments.named.iter().any(|(other, _)| *other == canonical)
                    {
                        return Err(SqlError::new(format!("argument \"{}\" of {} is given twice", name.value, kind.sql()))
                            .with_hint(arguments.usage())
                            .at(name.span));
                    }
                    arguments.named.push((canonical, expr));
                }
                other => {
                    return Err(SqlError::new(format!("{} takes no argument {other}", kind.sql())).with_hint(arguments.usage()).at(span));
                }
            }
        }
        Ok(arguments)
    }

    fn usage(&self) -> String {
        let is_group = self.names.first() != Some(&"data");
        let relation = if is_group { "" } else { "relation, " };
        let lengths = match self.kind {
            WindowKind::Tumble => "size",
            WindowKind::Hop => "slide, size",
            WindowKind::Cumulate => "step, size",
        };
        format!("Write `{}({relation}ts, {lengths} [, offset => ..] [, time_zone => ..])`.", self.kind.sql())
    }

    fn get(&self, name: &str) -> Option<&'a Expr> {
        let position = self.names.iter().position(|known| *known == name);
        let by_position = position.and_then(|index| self.positional.get(index).copied());
        by_position.or_else(|| self.named.iter().find(|(other, _)| other == name).map(|(_, expr)| *expr))
    }

    fn required(&self, name: &str, span: Span) -> Result<&'a Expr> {
        self.get(name).ok_or_else(|| {
            let what = match name {
                "data" => "relation",
                "timecol" => "time column",
                other => other,
            };
            SqlError::new(format!("{} has no {what}", self.kind.sql())).with_hint(self.usage()).at(span)
        })
    }

    /// The window these arguments describe.
    pub(super) fn window(&self, span: Span) -> Result<Window> {
        let kind = self.kind;
        let time = parse_time(self.required("timecol", span)?, kind.sql())?;
        let size = parse_interval(self.required("size", span)?)?;
        let step = match kind {
            WindowKind::Tumble => size,
            _ => parse_interval(self.required(kind.step_name(), span)?)?,
        };
        let is_positional = self.named.iter().all(|(name, _)| name != "size" && name != kind.step_name());
        if kind != WindowKind::Tumble && is_positional && is_longer(step, size) {
            return Err(self.swapped(step, size).at(span));
        }
        let offset = self.get("offset").map(parse_offset).transpose()?.unwrap_or_default();
        let zone = self.get("time_zone").map(parse_zone).transpose()?.flatten();
        Window { kind, time, size, step, offset, zone }.checked(span)
    }

    /// The error for lengths in the wrong order.
    fn swapped(&self, step: WindowLength, size: WindowLength) -> SqlError {
        let (name, step_name) = (self.kind.sql(), self.kind.step_name());
        let before: String = self.positional.iter().take(self.names.len() - 3).map(|expr| format!("{expr}, ")).collect();
        let swapped = format!("{name}({before}{}, {})", size.to_sql(), step.to_sql());
        let hint = if self.kind == WindowKind::Hop {
            format!(
                "The slide comes before the size: write `{swapped}`. For windows with gaps between them name the arguments: \
                 slide => {}, size => {}.",
                step.to_sql(),
                size.to_sql()
            )
        } else {
            format!("The step comes before the size: write `{swapped}`.")
        };
        SqlError::new(format!("the {step_name} {} of {name} is longer than its size {}", interval_text(step), interval_text(size)))
            .with_hint(hint)
    }
}
