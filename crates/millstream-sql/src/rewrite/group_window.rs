//! Windows in GROUP BY: `GROUP BY TUMBLE(ts, size)`, `GROUP BY HOP(ts, slide, size)`, `GROUP BY window(ts, size [, slide])`,
//! `GROUP BY k, SESSION(ts, gap)`, `GROUP BY k, session_window(ts, gap)`.
//!
//! The older SQL of Flink and Calcite, and Spark's `window` functions with their own order of arguments. The relation after FROM
//! becomes the derived table that the window table function gives, the window in GROUP BY its columns `window_start` and
//! `window_end`, and `TUMBLE_START(ts, size)` or `window.start` a reference to them. What else a session is grouped by is its key.
//! Over a join it is not known which side has the time column: there TUMBLE becomes an expression, and the others are refused.

use std::ops::ControlFlow;

use sqlparser::ast::{
    AccessExpr, Expr, FunctionArg, GroupByExpr, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, Spanned, Value,
    ValueWithSpan,
};
use sqlparser::tokenizer::Span;

use super::session_window::SessionWindow;
use super::window::{Window, WindowKind, window_column};
use super::window_tvf::Arguments;
use super::{alias, plain_call, qualifier, template_expr, unnamed_argument, visit_step};
use crate::error::{Result, SqlError};
use crate::literal::parse_interval;
use crate::visit::{WalkMut, any_expr, each_expr_mut, walk_mut};

/// Rewrites the group windows of `query` and of every query in it.
pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    struct Rewriter {
        result: Result<()>,
    }
    impl WalkMut for Rewriter {
        fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            visit_step(&mut self.result, rewrite_body(&mut query.body, query.order_by.as_mut()))
        }
    }
    let mut rewriter = Rewriter { result: Ok(()) };
    let _ = walk_mut(query, &mut rewriter);
    rewriter.result
}

fn rewrite_body(body: &mut SetExpr, order_by: Option<&mut OrderBy>) -> Result<()> {
    match body {
        SetExpr::Select(select) => rewrite_select(select, order_by),
        SetExpr::SetOperation { left, right, .. } => {
            rewrite_body(left, None)?;
            rewrite_body(right, None)
        }
        // A query of its own, visited on its own.
        _ => Ok(()),
    }
}

/// The window found in GROUP BY.
struct GroupWindow {
    /// `tumble`, `hop`, `session`, `window` or `session_window`.
    word: String,
    /// The arguments as text, which TUMBLE_START and its like must repeat.
    arguments: String,
    window: Kind,
}

enum Kind {
    Grid(Window),
    Session(SessionWindow),
}

impl GroupWindow {
    /// Whether the window is a value with the fields `start` and `end`, as in Spark.
    fn is_struct(&self) -> bool {
        is_struct_word(&self.word)
    }
}

fn is_struct_word(word: &str) -> bool {
    matches!(word, "window" | "session_window")
}

fn rewrite_select(select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else { return Ok(()) };
    let mut found: Option<(usize, GroupWindow)> = None;
    for (index, expr) in groups.iter().enumerate() {
        let Some(group) = group_window(expr)? else { continue };
        if found.is_some() {
            return Err(SqlError::new("GROUP BY has two windows")
                .with_hint("Group by one window; aggregate again over its result for a longer one.")
                .at(expr.span()));
        }
        found = Some((index, group));
    }
    let Some((index, mut group)) = found else { return Ok(()) };
    let span = groups[index].span();
    if let Kind::Session(window) = group.window {
        group.window = Kind::Session(window.with_keys(session_keys(select, groups, index, &group.word)?));
    }

    let [start, end, time, group_by] = place(select, &group, span)?;
    let replace = |expr: &mut Expr| -> Result<()> {
        let mut replacer = Replacer { group: &group, start: &start, end: &end, time: &time, result: Ok(()) };
        let _ = walk_mut(expr, &mut replacer);
        replacer.result
    };
    if let GroupByExpr::Expressions(groups, _) = &mut select.group_by {
        let ends = if matches!(group_by, Expr::Tuple(_)) { vec![start.clone(), end.clone()] } else { vec![group_by] };
        groups.splice(index..=index, ends);
        for expr in groups.iter_mut() {
            replace(expr)?;
        }
    }
    for item in &mut select.projection {
        let SelectItem::UnnamedExpr(expr) = item else {
            if let SelectItem::ExprWithAlias { expr, .. } = item {
                replace(expr)?;
            }
            continue;
        };
        let name = column_name(expr, &group.word);
        replace(expr)?;
        if let Some(name) = name {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::new(name) };
        }
    }
    for expr in select.having.iter_mut().chain(select.qualify.iter_mut()) {
        replace(expr)?;
    }
    if let Some(OrderBy { kind: OrderByKind::Expressions(order), .. }) = order_by {
        for item in order {
            replace(&mut item.expr)?;
        }
    }
    Ok(())
}

/// The name of a result column that is a window's start, end or the window itself.
fn column_name(expr: &Expr, group_word: &str) -> Option<&'static str> {
    match expr {
        Expr::Identifier(ident) if is_struct_word(group_word) && ident.value == group_word => struct_name(group_word),
        Expr::CompoundIdentifier(parts) if is_struct_word(group_word) && parts.len() == 2 && parts[0].value == group_word => None,
        _ => match plain_call(expr)?.0.as_str() {
            "tumble_start" | "hop_start" | "session_start" => Some("window_start"),
            "tumble_end" | "hop_end" | "session_end" => Some("window_end"),
            "tumble_rowtime" | "hop_rowtime" | "session_rowtime" => Some("window_time"),
            word if word == group_word => struct_name(group_word),
            _ => None,
        },
    }
}

fn struct_name(group_word: &str) -> Option<&'static str> {
    ["window", "session_window"].into_iter().find(|word| *word == group_word)
}

/// What the rows of a session have in common: everything else in GROUP BY. `window` is the place of the window there.
fn session_keys(select: &Select, groups: &[Expr], window: usize, word: &str) -> Result<Vec<Expr>> {
    let refused = |message: String, expr: &Expr| {
        Err(SqlError::new(message)
            .with_hint(
                "Name the key after FROM: `FROM SESSION(relation PARTITION BY key, ts, gap) GROUP BY key, window_start, window_end`.",
            )
            .at(expr.span()))
    };
    let mut keys = Vec::new();
    for (_, expr) in groups.iter().enumerate().filter(|(index, _)| *index != window) {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => {
                let item = number.parse::<usize>().ok().and_then(|place| select.projection.get(place.checked_sub(1)?));
                match item {
                    Some(SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }) if !names_window(item, word) => {
                        keys.push(item.clone());
                    }
                    _ => return refused(format!("the key {number} of {} is no column", word.to_uppercase()), expr),
                }
            }
            Expr::Identifier(name) if is_other_alias(select, name) => {
                return refused(format!("the key \"{}\" of {} is named in the SELECT list", name.value, word.to_uppercase()), expr);
            }
            Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => {
                return refused(format!("{} stands beside grouping sets", word.to_uppercase()), expr);
            }
            Expr::Tuple(parts) => keys.extend(parts.iter().cloned()),
            Expr::Nested(inner) => keys.push((**inner).clone()),
            _ => keys.push(expr.clone()),
        }
    }
    Ok(keys)
}

/// Whether an expression refers to the session of GROUP BY.
fn names_window(expr: &Expr, word: &str) -> bool {
    any_expr(expr, &mut |expr| match expr {
        Expr::Identifier(name) => name.value == word,
        Expr::CompoundIdentifier(parts) => parts[0].value == word,
        _ => plain_call(expr).is_some_and(|(called, ..)| called.starts_with(word)),
    })
}

/// Whether a name is given in the SELECT list to something else than the column of this name.
fn is_other_alias(select: &Select, name: &Ident) -> bool {
    select.projection.iter().any(|item| match item {
        SelectItem::ExprWithAlias { expr, alias } => alias.value == name.value && !matches!(expr, Expr::Identifier(own) if own == alias),
        _ => false,
    })
}

/// The window a GROUP BY expression is, if it is one.
fn group_window(expr: &Expr) -> Result<Option<GroupWindow>> {
    let Some((word, name, args)) = plain_call(expr) else { return Ok(None) };
    let span = name.span();
    let window = match word.as_str() {
        "tumble" => Kind::Grid(Arguments::read_group(WindowKind::Tumble, args, span)?.window(span)?),
        "hop" => Kind::Grid(Arguments::read_group(WindowKind::Hop, args, span)?.window(span)?),
        "cumulate" => Kind::Grid(Arguments::read_group(WindowKind::Cumulate, args, span)?.window(span)?),
        "window" => Kind::Grid(spark_window(args, span)?),
        "session" | "session_window" if args.len() > 1 => Kind::Session(SessionWindow::of_group(args, &word.to_uppercase(), span)?),
        _ => return Ok(None),
    };
    Ok(Some(GroupWindow { word, arguments: arguments_text(args), window }))
}

/// `window(ts, size [, slide [, start]])`.
fn spark_window(args: &[FunctionArg], span: Span) -> Result<Window> {
    let usage = "Write `window(ts, '10 seconds')`, or `window(ts, '10 seconds', '5 seconds')` with the slide after the size.";
    let exprs: Option<Vec<&Expr>> = args.iter().map(unnamed_argument).collect();
    let Some(exprs) = exprs.filter(|exprs| (2..=4).contains(&exprs.len())) else {
        return Err(SqlError::new("window has the wrong arguments").with_hint(usage).at(span));
    };
    let time = super::window::parse_time(exprs[0], "window")?;
    let size = parse_interval(exprs[1])?;
    let step = exprs.get(2).map(|expr| parse_interval(expr)).transpose()?.unwrap_or(size);
    let offset = exprs.get(3).map(|expr| parse_interval(expr)).transpose()?.unwrap_or_default();
    if super::window::is_longer(step, size) {
        return Err(SqlError::new("the slide of window is longer than its size").with_hint(usage).at(span));
    }
    let kind = if step == size { WindowKind::Tumble } else { WindowKind::Hop };
    Window { kind, time, size, step, offset, zone: None }.checked(span)
}

fn arguments_text(args: &[FunctionArg]) -> String {
    args.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Puts the window below the SELECT, and gives start, end and time as expressions, and what to group by: a tuple for start
/// and end.
fn place(select: &mut Select, group: &GroupWindow, span: Span) -> Result<[Expr; 4]> {
    if let [from] = select.from.as_mut_slice()
        && from.joins.is_empty()
    {
        let name = qualifier(&from.relation);
        // The relation stays as it is inside, so that a qualified time column is found there.
        let inner = std::mem::replace(&mut from.relation, super::table(Ident::new(super::RELATION).into()));
        let outer = name.clone().map(alias);
        from.relation = match &group.window {
            Kind::Grid(window) => window.factor(inner, outer),
            // Which rows there are decides what a session is, so WHERE comes first.
            Kind::Session(window) => window.factor(inner, select.selection.take().as_ref(), outer),
        };
        let column = |column: &str| window_column(column, None);
        let (start, end) = (column("window_start"), column("window_end"));
        return Ok([start.clone(), end.clone(), column("window_time"), Expr::Tuple(vec![start, end])]);
    }
    let name = match &group.window {
        Kind::Grid(window) if window.kind == WindowKind::Tumble && !select.from.is_empty() => {
            let [start, end, time] = window.expressions();
            return Ok([start.clone(), end, time, start]);
        }
        Kind::Grid(window) => window.kind.sql(),
        Kind::Session(_) => "SESSION",
    };
    Err(SqlError::new(format!("GROUP BY {name} over a join is not supported"))
        .with_hint(format!("Put the window after FROM: `FROM {name}(relation, ts, ...) JOIN ... GROUP BY window_start, window_end`."))
        .at(span))
}

/// Replaces what refers to the window.
struct Replacer<'a> {
    group: &'a GroupWindow,
    start: &'a Expr,
    end: &'a Expr,
    time: &'a Expr,
    result: Result<()>,
}

impl Replacer<'_> {
    fn replacement(&self, expr: &Expr) -> Result<Option<Expr>> {
        let is_spark = self.group.is_struct();
        let own = self.group.word.as_str();
        let field = |name: &str| match name {
            "start" => Some(self.start.clone()),
            "end" => Some(self.end.clone()),
            _ => None,
        };
        match expr {
            Expr::CompoundIdentifier(parts) if is_spark => match parts.as_slice() {
                [window, part] if window.value == own && window.quote_style.is_none() => return Ok(field(&part.value)),
                _ => return Ok(None),
            },
            Expr::Identifier(ident) if is_spark && ident.value == own && ident.quote_style.is_none() => {
                return Ok(Some(self.as_struct()));
            }
            Expr::CompoundFieldAccess { root, access_chain } if is_spark => {
                if let ([AccessExpr::Dot(Expr::Identifier(part))], Some((word, ..))) = (access_chain.as_slice(), plain_call(root))
                    && word == own
                {
                    return Ok(field(&part.value));
                }
                return Ok(None);
            }
            _ => {}
        }
        let Some((word, name, args)) = plain_call(expr) else { return Ok(None) };
        if word == self.group.word && is_spark {
            self.check_arguments(&word, args, name.span())?;
            return Ok(Some(self.as_struct()));
        }
        let Some(part) = word.strip_prefix(self.group.word.as_str()) else { return Ok(None) };
        let replacement = match part {
            "_start" => self.start,
            "_end" => self.end,
            "_rowtime" => self.time,
            _ => return Ok(None),
        };
        self.check_arguments(&word, args, name.span())?;
        Ok(Some(replacement.clone()))
    }

    fn check_arguments(&self, word: &str, args: &[FunctionArg], span: Span) -> Result<()> {
        if arguments_text(args) == self.group.arguments {
            return Ok(());
        }
        let (upper, group) = (word.to_uppercase(), self.group.word.to_uppercase());
        Err(SqlError::new(format!("the arguments of {upper} differ from those of {group} in GROUP BY"))
            .with_hint(format!("Write `{upper}({})`.", self.group.arguments))
            .at(span))
    }

    fn as_struct(&self) -> Expr {
        let mut expr = template_expr("named_struct('start', __start, 'end', __end)");
        each_expr_mut(&mut expr, &mut |expr| {
            if let Expr::Identifier(ident) = expr {
                match ident.value.as_str() {
                    "__start" => *expr = self.start.clone(),
                    "__end" => *expr = self.end.clone(),
                    _ => {}
                }
            }
        });
        expr
    }
}

impl WalkMut for Replacer<'_> {
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let replaced = self.replacement(expr).map(|replacement| {
            if let Some(replacement) = replacement {
                *expr = replacement;
            }
        });
        visit_step(&mut self.result, replaced)
    }
}
