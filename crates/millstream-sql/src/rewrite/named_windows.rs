//! Windows that go on from a named one: `OVER (w ROWS 1 PRECEDING)`, `WINDOW v AS (w ORDER BY ts)`.
//!
//! ```sql
//! SELECT sum(x) OVER (w ROWS 1 PRECEDING) FROM s WINDOW w AS (PARTITION BY k ORDER BY ts)
//! -- becomes
//! SELECT sum(x) OVER (PARTITION BY k ORDER BY ts ROWS 1 PRECEDING) FROM s WINDOW w AS (PARTITION BY k ORDER BY ts)
//! ```
//! DataFusion leaves the name in such a window out, without a word. The rules are the standard's: the one that goes on has no PARTITION BY,
//! it has an ORDER BY only where the named one has none, and the named one has no frame.
//!
//! `OVER w` alone is written out, too: DataFusion knows it in the SELECT list and not in ORDER BY. Names compare as others do: `W` is `w`,
//! `"W"` is not.

use std::collections::HashMap;
use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, NamedWindowExpr, Query, Select, SetExpr, WindowSpec, WindowType};

use super::{folded, visit_step};
use crate::error::{Result, SqlError};
use crate::visit::{Node, WalkMut, walk_mut};

/// Writes out every such window of `query`.
pub(super) fn expand(query: &mut Query) -> Result<()> {
    struct Expander {
        result: Result<()>,
    }
    impl WalkMut for Expander {
        fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
            visit_step(&mut self.result, expand_select(select))
        }

        fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
            let SetExpr::Select(select) = query.body.as_ref() else { return ControlFlow::Continue(()) };
            let Some(order_by) = &mut query.order_by else { return ControlFlow::Continue(()) };
            // The definitions have been written out with the select.
            visit_step(&mut self.result, definitions(select).and_then(|known| expand_calls(order_by, &known)))
        }
    }
    let mut expander = Expander { result: Ok(()) };
    let _ = walk_mut(query, &mut expander);
    expander.result
}

fn expand_select(select: &mut Select) -> Result<()> {
    let known = definitions(select)?;
    for definition in &mut select.named_window {
        if let Some(spec) = known.get(folded(&definition.0).as_ref()) {
            definition.1 = NamedWindowExpr::WindowSpec(spec.clone());
        }
    }
    expand_calls(select, &known)
}

/// The windows that a select names, in full.
fn definitions(select: &Select) -> Result<HashMap<String, WindowSpec>> {
    let mut known: HashMap<String, WindowSpec> = HashMap::new();
    for definition in &select.named_window {
        let spec = match &definition.1 {
            NamedWindowExpr::NamedWindow(name) => named(name, &known)?.clone(),
            NamedWindowExpr::WindowSpec(spec) => full(spec, &known)?,
        };
        if known.insert(folded(&definition.0).into_owned(), spec).is_some() {
            return Err(SqlError::new(format!("there are two windows {}", definition.0))
                .with_hint("Names without quotes are the same in upper and lower case. Give one of them another name.")
                .at(definition.0.span));
        }
    }
    Ok(known)
}

fn expand_calls(part: &mut dyn Node, known: &HashMap<String, WindowSpec>) -> Result<()> {
    struct Calls<'a> {
        known: &'a HashMap<String, WindowSpec>,
        result: Result<()>,
    }
    impl WalkMut for Calls<'_> {
        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let over = match &function.over {
                Some(WindowType::WindowSpec(spec)) => full(spec, self.known),
                Some(WindowType::NamedWindow(name)) => named(name, self.known).cloned(),
                None => return ControlFlow::Continue(()),
            };
            visit_step(&mut self.result, over.map(|over| function.over = Some(WindowType::WindowSpec(over))))
        }
    }
    let mut calls = Calls { known, result: Ok(()) };
    let _ = walk_mut(part, &mut calls);
    calls.result
}

/// A window with what it takes over from the one it names.
fn full(spec: &WindowSpec, known: &HashMap<String, WindowSpec>) -> Result<WindowSpec> {
    let Some(name) = &spec.window_name else { return Ok(spec.clone()) };
    let base = named(name, known)?;
    let refused = |problem: &str, hint: &str| {
        Err(SqlError::new(format!("a window that goes on from \"{name}\" {problem}")).with_hint(hint).at(name.span))
    };
    if !spec.partition_by.is_empty() {
        return refused("has a PARTITION BY of its own", "Leave out the name and write the whole window.");
    }
    if !spec.order_by.is_empty() && !base.order_by.is_empty() {
        return refused("has an ORDER BY, which the named one has already", "Leave out one of them.");
    }
    if base.window_frame.is_some() {
        return refused("takes over its frame, which only `OVER name` does", "Take the frame out of WINDOW and write it after each name.");
    }
    Ok(WindowSpec {
        window_name: None,
        partition_by: base.partition_by.clone(),
        order_by: if spec.order_by.is_empty() { base.order_by.clone() } else { spec.order_by.clone() },
        window_frame: spec.window_frame.clone(),
    })
}

fn named<'a>(name: &Ident, known: &'a HashMap<String, WindowSpec>) -> Result<&'a WindowSpec> {
    known.get(folded(name).as_ref()).ok_or_else(|| {
        let hint = match known.keys().min() {
            None => "Add WINDOW with its definition after the WHERE, GROUP BY and HAVING of the query.".to_string(),
            Some(_) => {
                let mut names: Vec<&str> = known.keys().map(String::as_str).collect();
                names.sort_unstable();
                format!("Defined before it: {}.", names.join(", "))
            }
        };
        SqlError::new(format!("there is no window \"{}\"", folded(name))).with_hint(hint).at(name.span)
    })
}
