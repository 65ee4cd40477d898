//! `EXPLAIN INCREMENTAL`: the dataflow as a tree, each operator with its strategy, its state and what bounds it.
//!
//! ```text
//! Aggregate: by window_start: count(*)
//!     T1 delta, append-only, on window close; state: a row per group, bounded by watermark of bids on window_start
//!   Map: tumble_start(ts, ...) AS window_start
//!       T1 delta, append-only
//!     Input: bids (ts)
//!         T1 delta, append-only
//! ```

use crate::bound::Bound;
use crate::graph::{Emit, Graph, Keep, Node, NodeId, Op, Ranking, Strategy};
use crate::nodes::recursion::TERM_INPUT;
use crate::process::ProcessResult;
use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator, SortExpr};
use itertools::Itertools;
use std::collections::HashSet;
use std::fmt::Write;

/// The text of `EXPLAIN INCREMENTAL`. A node that is used more than once is printed once and named by number afterwards.
pub fn explain(graph: &Graph) -> String {
    let mut uses = vec![0; graph.nodes.len()];
    graph.nodes.iter().flat_map(|node| &node.inputs).for_each(|input| uses[input.0] += 1);
    let mut printer = Printer { graph, uses, printed: HashSet::new(), text: String::new() };
    printer.print(graph.output, 0);
    printer.text
}

/// A sentence per operator whose state grows without end, with the clause that would bound it.
pub fn unbounded_nodes(graph: &Graph) -> Vec<String> {
    graph.nodes.iter().filter(|node| is_unbounded(graph, node)).map(|node| unbounded_sentence(graph, node)).collect()
}

/// Operator and expressions, in one line.
pub fn node_label(node: &Node) -> String {
    let details = details(node, &[]);
    if details.is_empty() { node.op.name().to_string() } else { format!("{}: {details}", node.op.name()) }
}

struct Printer<'g> {
    graph: &'g Graph,
    uses: Vec<usize>,
    printed: HashSet<NodeId>,
    text: String,
}

impl Printer<'_> {
    fn print(&mut self, id: NodeId, depth: usize) {
        let node = self.graph.node(id);
        let indent = "  ".repeat(depth);
        if !self.printed.insert(id) {
            let _ = writeln!(self.text, "{indent}node {} again", id.0);
            return;
        }
        let number = if self.uses[id.0] > 1 { format!(" (node {})", id.0) } else { String::new() };
        let inputs: Vec<&Node> = node.inputs.iter().map(|input| self.graph.node(*input)).collect();
        let details = details(node, &inputs);
        let colon = if details.is_empty() { "" } else { ": " };
        let _ = writeln!(self.text, "{indent}{}{number}{colon}{details}", node.op.name());
        for line in facts(self.graph, node) {
            let _ = writeln!(self.text, "{indent}    {line}");
        }
        if let Op::Recursion { term, .. } = &node.op {
            let _ = writeln!(self.text, "{indent}    each round:");
            for line in explain(term).lines() {
                let _ = writeln!(self.text, "{indent}      {line}");
            }
        }
        for input in &node.inputs {
            self.print(*input, depth + 1);
        }
    }
}

/// What the operator computes.
fn details(node: &Node, inputs: &[&Node]) -> String {
    match &node.op {
        Op::Input { relation, .. } if let Some(index) = relation.strip_prefix(TERM_INPUT) => {
            let names: Vec<String> = node.schema.fields().iter().map(|field| short(field.name())).collect();
            let what = if index == "0" { "what the round before brought".to_string() } else { format!("input {index}") };
            format!("{what} ({})", names.join(", "))
        }
        Op::Input { relation, columns } => format!("{relation} ({})", columns.join(", ")),
        Op::Constant { plan, tables } if tables.is_empty() => first_line(plan),
        Op::Constant { tables, .. } => tables.join(", "),
        Op::Map { predicates, exprs } => {
            let mut parts = vec![];
            if let Some(exprs) = exprs {
                parts.push(named(exprs, node));
            }
            if !predicates.is_empty() {
                parts.push(format!("where {}", list(predicates, " and ")));
            }
            parts.join(" ")
        }
        Op::TemporalFilter { rising, falling } => {
            format!("where {}", rising.iter().chain(falling).map(show).collect::<Vec<_>>().join(" and "))
        }
        Op::Unnest { plan } => match plan.as_ref() {
            LogicalPlan::Unnest(unnest) => {
                let columns = unnest.list_type_columns.iter().map(|(column, _)| *column).chain(unnest.struct_type_columns.iter().copied());
                let columns = columns.filter_map(|column| unnest.dependency_indices.iter().position(|source| *source == column));
                columns.map(|column| short(node.schema.field(column).name())).collect::<Vec<_>>().join(", ")
            }
            _ => String::new(),
        },
        Op::Union => format!("{} inputs", inputs.len().max(node.inputs.len())),
        Op::Aggregate { group, aggregates, .. } | Op::PreAggregate { group, aggregates } => {
            let by = if group.is_empty() { "all rows".to_string() } else { format!("by {}", named(group, node)) };
            if aggregates.is_empty() { by } else { format!("{by}: {}", list(aggregates, ", ")) }
        }
        Op::SessionWindow { key, time, gap_micros, aggregates, .. } => {
            let gap = show_micros(*gap_micros);
            let by = if key.is_empty() { "all rows".to_string() } else { format!("by {}", list(key, ", ")) };
            let sessions = format!("{by}, sessions of {} with a gap of {gap}", show(time));
            if aggregates.is_empty() { sessions } else { format!("{sessions}: {}", list(aggregates, ", ")) }
        }
        Op::Process { call, key, order, result, .. } => {
            let mut text = call.describe();
            if !key.is_empty() {
                let _ = write!(text, " by {}", list(key, ", "));
            }
            if !order.is_empty() {
                let _ = write!(text, " in the order of {}", order.iter().map(show_sort_key).collect::<Vec<_>>().join(", "));
            }
            if *result == ProcessResult::State {
                text.push_str(", its state");
            }
            text
        }
        Op::StaticJoin { join_type, on, filter, null_aware, .. } | Op::Join { join_type, on, filter, null_aware, .. } => {
            let mut parts = vec![if *null_aware { "NOT IN".to_string() } else { join_type.to_string() }];
            if !on.is_empty() {
                let pairs: Vec<String> = on.iter().map(|(left, right)| format!("{} = {}", show(left), show(right))).collect();
                parts.push(format!("on {}", pairs.join(" and ")));
            }
            if let Some(filter) = filter {
                parts.push(format!("where {}", show(filter)));
            }
            parts.join(" ")
        }
        Op::TopN { partition, order, ranking, skip, fetch, rest, .. } => {
            let by = if partition.is_empty() { String::new() } else { format!("by {}, ", list(partition, ", ")) };
            let counted = if *ranking == Ranking::RowNumber { "rows" } else { ranking.name() };
            let places = match (skip, fetch) {
                (_, fetch) if *rest => format!("{counted} {} and on", fetch.saturating_add(1)),
                (0, fetch) => format!("{counted} 1 to {fetch}"),
                (skip, fetch) => format!("{counted} {} to {}", skip + 1, skip.saturating_add(*fetch)),
            };
            let keys: Vec<String> = order.iter().map(show_sort_key).collect();
            let order = if keys.is_empty() { "by all columns".to_string() } else { format!("by {}", keys.join(", ")) };
            format!("{by}{places} {order}")
        }
        Op::Recursion { name, distinct, .. } => format!("{name} by {}", if *distinct { "UNION" } else { "UNION ALL" }),
        Op::Recompute { plan } => fragment_outline(plan),
        Op::TouchedKeys { plan, keys, .. } => {
            let keys: Vec<String> = keys.iter().map(|key| show(&key.expr)).collect();
            let by = if keys.is_empty() { String::new() } else { format!(" by {}", keys.join(", ")) };
            format!("{}{by}", fragment_outline(plan))
        }
        Op::WindowClose { bucket } => short(node.schema.field(bucket.column).name()),
    }
}

/// Strategy, properties, state, reasons.
fn facts(graph: &Graph, node: &Node) -> Vec<String> {
    let strategy = match node.strategy {
        Strategy::Delta => "T1 delta",
        Strategy::TouchedKeys => "T2 touched keys",
        Strategy::Recompute => "T3 recompute",
    };
    let kind = if node.properties.append_only { "append-only" } else { "retracting" };
    let close = match &node.op {
        Op::Aggregate { emit: Emit::OnClose, .. }
        | Op::SessionWindow { emit: Emit::OnClose, .. }
        | Op::TouchedKeys { emit: Emit::OnClose, .. }
        | Op::WindowClose { .. } => ", on window close",
        _ => "",
    };
    let clock = if node.properties.clock_dependent { ", follows the clock" } else { "" };
    let state = state(graph, node).map(|state| format!("; state: {state}")).unwrap_or_default();
    let mut lines = vec![format!("{strategy}, {kind}{close}{clock}{state}")];
    if let Some(reason) = &node.fallback_reason {
        lines.push(format!("because {reason}"));
    }
    if let Op::TouchedKeys { tail: Some(_), keys, .. } = &node.op {
        let whose = if keys.is_empty() { "" } else { " of their partition" };
        lines.push(format!("rows behind all others{whose} are computed from the end alone"));
    }
    if let Op::TouchedKeys { reach: Some(reach), keys, .. } = &node.op {
        let whose = if keys.is_empty() { "" } else { " of their partition" };
        let rows = reach.back + reach.ahead;
        let last = if rows == 1 { "last one".to_string() } else { format!("last {rows}") };
        lines.push(format!("rows behind all others{whose} are computed with the {last} of these"));
    }
    let inherited = node.inputs.iter().any(|input| graph.node(*input).properties.nondeterminism == node.properties.nondeterminism);
    if let Some(note) = node.properties.nondeterminism.as_ref().filter(|_| !inherited) {
        lines.push(format!("not deterministic: {note}"));
    }
    lines
}

/// What an aggregate keeps beside a row per group.
fn values(aggregates: &[Expr], retracting: bool) -> &'static str {
    let has = |test: fn(&AggregateFunction) -> bool| {
        aggregates.iter().any(|expr| matches!(expr.clone().unalias_nested().data, Expr::AggregateFunction(call) if test(&call)))
    };
    let extremes = retracting && has(|call| matches!(call.func.name(), "min" | "max"));
    match (extremes, has(|call| call.params.distinct)) {
        (true, true) => " and the values of min, max and DISTINCT",
        (true, false) => " and the values of min and max",
        (false, true) => " and the values of DISTINCT",
        (false, false) => "",
    }
}

fn state(graph: &Graph, node: &Node) -> Option<String> {
    let bounded = |bound: &Bound, column: usize| format!("bounded by {} on {}", bound.describe(), short(node.schema.field(column).name()));
    let size = || if is_unbounded(graph, node) { "UNBOUNDED" } else { "as large as its input" };
    match &node.op {
        Op::Aggregate { group, aggregates, retracting, .. } if group.is_empty() => {
            let values = values(aggregates, *retracting);
            Some(if values.is_empty() { "one row".into() } else { format!("one row{values}, {}", size()) })
        }
        Op::Aggregate { bucket, state_ttl_micros: Some(micros), .. } => {
            let expiry = format!("removed when untouched for {} by the epoch clock, which changes the result", show_micros(*micros));
            Some(match bucket {
                Some(bucket) => format!("a row per group, {}, and {expiry}", bounded(&bucket.bound, bucket.column)),
                None => format!("a row per group, {expiry}"),
            })
        }
        Op::Aggregate { aggregates, retracting, bucket, .. } => {
            let size = bucket.as_ref().map_or_else(|| size().to_string(), |bucket| bounded(&bucket.bound, bucket.column));
            Some(format!("a row per group{}, {size}", values(aggregates, *retracting)))
        }
        Op::SessionWindow { bucket: Some(bucket), .. } => Some(format!("a row per session, {}", bounded(&bucket.bound, bucket.column))),
        Op::SessionWindow { .. } => Some(format!("a row per session, {}", size())),
        Op::Process { call, key, state_ttl_micros, .. } => {
            let columns: Vec<&str> = call.declaration.state().fields().iter().map(|field| field.name().as_str()).collect();
            let row = format!("a row ({}){}", columns.join(", "), if key.is_empty() { "" } else { " per key" });
            Some(match state_ttl_micros {
                Some(micros) => format!("{row}, removed when untouched for {} by the epoch clock", show_micros(*micros)),
                None if key.is_empty() => row,
                None => format!("{row}, {}", if is_unbounded(graph, node) { "UNBOUNDED unless the function removes it" } else { size() }),
            })
        }
        Op::StaticJoin { .. } => Some("the input at rest".into()),
        Op::Join { lookup: true, .. } => Some("right rows by key, as large as its input".into()),
        Op::Join { keep, one_copy, state_ttl_micros, .. } => {
            let kept = |side: usize| match &keep[side] {
                _ if let Some(micros) = state_ttl_micros[side] => Some(format!(
                    "removed when their key is untouched for {} by the epoch clock, which changes the result",
                    show_micros(micros)
                )),
                Keep::Never => None,
                Keep::Unmatched if side_is_unbounded(graph, node, side) => Some("without a match, UNBOUNDED".into()),
                Keep::Unmatched => Some("without a match, as large as its input".into()),
                Keep::Until { value, bound } => Some(format!("bounded by {} on {}", bound.describe(), show_kept(value))),
                Keep::Forever if matches!(graph.node(node.inputs[side]).op, Op::Constant { .. }) => Some("the input at rest".into()),
                Keep::Forever if side_is_unbounded(graph, node, side) => Some("UNBOUNDED".into()),
                Keep::Forever => Some("as large as its input".into()),
            };
            Some(match (kept(0), kept(1)) {
                (Some(rows), _) if *one_copy => format!("rows, once for both sides, {rows}"),
                (Some(left), Some(right)) if left == right => format!("rows of both sides, {left}"),
                (Some(left), Some(right)) => format!("left rows{}; right rows{}", joined(&left), joined(&right)),
                (Some(left), None) => format!("left rows{}", joined(&left)),
                (None, right) => format!("right rows{}", joined(&right.unwrap_or_default())),
            })
        }
        Op::TopN { partition, skip, fetch, ranking, bucket, .. } => {
            let append_only = node.inputs.iter().all(|input| graph.node(*input).properties.append_only);
            let rows = match (append_only, ranking) {
                (true, Ranking::RowNumber) => format!("{} rows", skip.saturating_add(*fetch)),
                (true, _) => "the first rows".to_string(),
                (false, _) => "all rows".to_string(),
            };
            let per = if partition.is_empty() { "" } else { " per partition" };
            Some(match bucket {
                Some(bucket) => format!("{rows}{per}, bounded by {} on {}", bucket.bound.describe(), show(&partition[bucket.column])),
                None if append_only && partition.is_empty() && *ranking == Ranking::RowNumber => rows,
                None => format!("{rows}{per}, {}", size()),
            })
        }
        Op::Recursion { distinct: true, .. } => Some(format!("the result and what its term keeps, {}", size())),
        Op::Recursion { distinct: false, .. } => Some(format!("what its term keeps, {}", size())),
        Op::Recompute { .. } => Some(format!("all inputs and the result, {}", size())),
        Op::TouchedKeys { versions: Some(versions), bucket: None, .. } => {
            let (bound, time) = (versions.bound.describe(), short(node.schema.field(versions.time).name()));
            Some(format!("of each key the last row before {bound} on {time} and the rows after it, {}", size()))
        }
        Op::TouchedKeys { emit, bucket, keys, .. } => {
            let kept = match emit {
                Emit::OnClose => "the input by key",
                Emit::Changes if keys.is_empty() => "the input and the result",
                Emit::Changes => "the input and the result by key",
            };
            Some(match bucket {
                Some(bucket) => format!("{kept}, {}", bounded(&bucket.bound, bucket.column)),
                None => format!("{kept}, {}", size()),
            })
        }
        Op::TemporalFilter { rising, falling } => Some(
            match (rising.is_empty(), falling.is_empty()) {
                (true, _) => "rows until they leave, bounded by the clock",
                (false, true) => "rows until they enter, bounded by the clock",
                (false, false) => "rows until they enter and leave, bounded by the clock",
            }
            .into(),
        ),
        Op::WindowClose { bucket } => Some(format!("waiting rows, {}", bounded(&bucket.bound, bucket.column))),
        Op::Input { .. } | Op::Constant { .. } | Op::Map { .. } | Op::Unnest { .. } | Op::Union | Op::PreAggregate { .. } => None,
    }
}

/// The value by which a side of a join drops rows. Of versions it is the time of the next one, if there is one.
fn show_kept(value: &Expr) -> String {
    match value {
        Expr::Case(Case { else_expr: Some(next), .. }) => show(next),
        value => show(value),
    }
}

/// What is kept of rows, after the word "rows".
fn joined(kept: &str) -> String {
    if kept.starts_with("without") { format!(" {kept}") } else { format!(", {kept}") }
}

/// Whether state grows as long as rows arrive. State over tables and views is as large as they are.
fn is_unbounded(graph: &Graph, node: &Node) -> bool {
    let grows = match &node.op {
        Op::Aggregate { group, aggregates, retracting, bucket, state_ttl_micros, .. } => {
            let grows = !group.is_empty() || !values(aggregates, *retracting).is_empty();
            grows && bucket.is_none() && state_ttl_micros.is_none()
        }
        Op::SessionWindow { bucket, .. } => bucket.is_none(),
        Op::Process { key, state_ttl_micros, .. } => !key.is_empty() && state_ttl_micros.is_none(),
        // As large as what rows are looked up in.
        Op::Join { lookup: true, .. } => false,
        Op::Join { .. } => return [0, 1].into_iter().any(|side| side_is_unbounded(graph, node, side)),
        Op::TopN { partition, ranking, bucket, .. } => {
            let append_only = node.inputs.iter().all(|input| graph.node(*input).properties.append_only);
            bucket.is_none() && !(append_only && partition.is_empty() && *ranking == Ranking::RowNumber)
        }
        Op::Recompute { .. } | Op::Recursion { .. } => true,
        Op::TouchedKeys { bucket, .. } => bucket.is_none(),
        _ => false,
    };
    grows && !growing_inputs(graph, &node.inputs).is_empty()
}

/// Whether a join keeps the rows of a side as long as they arrive.
fn side_is_unbounded(graph: &Graph, node: &Node, side: usize) -> bool {
    let Op::Join { keep, state_ttl_micros, .. } = &node.op else { return false };
    if state_ttl_micros[side].is_some() {
        return false;
    }
    matches!(keep[side], Keep::Forever | Keep::Unmatched) && !growing_inputs(graph, &node.inputs[side..=side]).is_empty()
}

/// The append-only relations from which the rows of nodes come. Rows that a final aggregate or a window close hands out count too.
fn growing_inputs<'g>(graph: &'g Graph, nodes: &[NodeId]) -> Vec<&'g Node> {
    let mut found: Vec<&Node> = vec![];
    let mut open: Vec<NodeId> = nodes.to_vec();
    let mut seen = HashSet::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let input = graph.node(id);
        if matches!(input.op, Op::Input { .. }) && input.properties.append_only {
            found.push(input);
        }
        // What is above them is as large as the groups, or the rows, that are left.
        let goes = match &input.op {
            Op::Aggregate { state_ttl_micros, .. } => state_ttl_micros.is_some(),
            Op::Join { state_ttl_micros, .. } => *state_ttl_micros != [None; 2],
            Op::TemporalFilter { falling, .. } => !falling.is_empty(),
            _ => false,
        };
        if goes {
            continue;
        }
        open.extend(&input.inputs);
    }
    found.sort_by_key(|node| node.id);
    found
}

fn unbounded_sentence(graph: &Graph, node: &Node) -> String {
    let remedies = |nodes: &[NodeId], remedy: fn(&Node) -> Option<String>| -> String {
        growing_inputs(graph, nodes).into_iter().filter_map(remedy).unique().map(|remedy| format!(" {remedy}")).collect()
    };
    match &node.op {
        Op::Join { .. } => {
            let sides: Vec<usize> = [0, 1].into_iter().filter(|side| side_is_unbounded(graph, node, *side)).collect();
            let (whose, others): (_, Vec<NodeId>) = match sides.as_slice() {
                [0] => ("its left input", vec![node.inputs[1]]),
                [1] => ("its right input", vec![node.inputs[0]]),
                _ => ("both inputs", node.inputs.clone()),
            };
            format!("{} keeps the rows of {whose} forever.{}", node_label(node), remedies(&others, join_remedy))
        }
        Op::Recompute { .. } => format!(
            "{} keeps all its input and is run again in every epoch ({}).",
            node_label(node),
            node.fallback_reason.as_deref().unwrap_or("it has no incremental form")
        ),
        Op::Recursion { .. } => format!("{} keeps its result and what it reads forever.", node_label(node)),
        Op::TouchedKeys { versions: Some(_), .. } => format!("{} keeps the last row of each key forever.", node_label(node)),
        Op::TouchedKeys { .. } => {
            format!(
                "{} keeps all its input and its result forever.{}",
                node_label(node),
                remedies(&node.inputs, |input| remedy(input, "Group or partition"))
            )
        }
        Op::TopN { partition, .. } if partition.is_empty() => {
            format!("{} keeps all its input, since any row may become one of the first when others go.", node_label(node))
        }
        Op::TopN { .. } => {
            format!("{} keeps rows of each partition forever.{}", node_label(node), remedies(&node.inputs, partition_remedy))
        }
        Op::Process { .. } => {
            format!("{} keeps a row per key until the function removes it. state_ttl => INTERVAL '..' would bound it.", node_label(node))
        }
        Op::SessionWindow { .. } => {
            format!("{} keeps a row per session forever.{}", node_label(node), remedies(&node.inputs, session_remedy))
        }
        _ => format!("{} keeps a row per group forever.{}", node_label(node), remedies(&node.inputs, |input| remedy(input, "Group"))),
    }
}

/// What would let a join drop the rows of one side: a condition on the event time of the other.
fn join_remedy(other: &Node) -> Option<String> {
    let Op::Input { relation, columns } = &other.op else { return None };
    let timed = other.properties.bounds.iter().position(|bound| bound.as_ref().is_some_and(|bound| !bound.is_epoch()));
    let time = timed.map_or("the event time (WATERMARK)".to_string(), |column| format!("\"{}\"", columns[column]));
    Some(format!("Join also on equal windows, or on a range of times around {time} of \"{relation}\", to bound it."))
}

fn partition_remedy(input: &Node) -> Option<String> {
    let Op::Input { relation, .. } = &input.op else { return None };
    Some(format!("Partition also by a window over the event time (WATERMARK) of \"{relation}\" to bound it."))
}

fn session_remedy(input: &Node) -> Option<String> {
    let Op::Input { relation, .. } = &input.op else { return None };
    Some(format!("Sessions over the event time (WATERMARK) of \"{relation}\" are dropped when it has passed them."))
}

/// What would let groups be dropped.
fn remedy(input: &Node, verb: &str) -> Option<String> {
    let Op::Input { relation, columns } = &input.op else { return None };
    let timed = input.properties.bounds.iter().position(|bound| bound.as_ref().is_some_and(|bound| !bound.is_epoch()));
    Some(match timed {
        Some(column) => format!("{verb} also by a window over \"{}\" of \"{relation}\" to bound it.", columns[column]),
        None => format!("{verb} also by a window over the event time (WATERMARK) of \"{relation}\" to bound it."),
    })
}

/// The operators of a fragment from the outside in, without leaves.
fn fragment_outline(plan: &LogicalPlan) -> String {
    let inner: Vec<String> = plan.inputs().into_iter().map(fragment_outline).filter(|text| !text.is_empty()).collect();
    let name = match plan {
        LogicalPlan::Extension(_) => return String::new(),
        LogicalPlan::SubqueryAlias(_) => return inner.join(", "),
        LogicalPlan::Projection(_) => "Projection".to_string(),
        LogicalPlan::Filter(_) => "Filter".to_string(),
        LogicalPlan::Sort(_) => "Sort".to_string(),
        LogicalPlan::Aggregate(_) => "Aggregate".to_string(),
        LogicalPlan::RecursiveQuery(query) => format!("Recursive {}", query.name),
        LogicalPlan::TableScan(scan) => scan.table_name.to_string(),
        LogicalPlan::Join(join) => format!("{} join", join.join_type),
        LogicalPlan::Window(_) => "Window".to_string(),
        LogicalPlan::Limit(_) => "Limit".to_string(),
        other => other.display().to_string().split(':').next().unwrap_or_default().to_string(),
    };
    match inner.len() {
        0 => name,
        1 => format!("{name} of {}", inner[0]),
        _ => format!("{name} of ({})", inner.join(", ")),
    }
}

/// Expressions with the names of the output columns, where they differ.
fn named(exprs: &[Expr], node: &Node) -> String {
    let named = |(index, expr): (usize, &Expr)| {
        let (text, name) = (show(expr), short(node.schema.field(index).name()));
        let obvious = text == name || matches!(expr, Expr::Column(column) if &column.name == node.schema.field(index).name());
        if obvious { text } else { format!("{text} AS {name}") }
    };
    exprs.iter().enumerate().map(named).collect::<Vec<_>>().join(", ")
}

fn list(exprs: &[Expr], separator: &str) -> String {
    exprs.iter().map(show).collect::<Vec<_>>().join(separator)
}

/// A sort key as one would write it: what is the default is left out.
fn show_sort_key(key: &SortExpr) -> String {
    let direction = if key.asc { "" } else { " DESC" };
    let nulls = match (key.asc, key.nulls_first) {
        (true, true) => " NULLS FIRST",
        (false, false) => " NULLS LAST",
        _ => "",
    };
    format!("{}{direction}{nulls}", show(&key.expr))
}

/// An expression as one would write it: literals in SQL, columns without qualifiers.
fn show(expr: &Expr) -> String {
    let written = expr.clone().transform_up(|node| {
        Ok(match &node {
            Expr::Literal(value, _) => Transformed::yes(Expr::Column(Column::new_unqualified(show_literal(value)))),
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(short(&column.name)))),
            _ => in_parentheses(node),
        })
    });
    let text = match written.data() {
        Ok(written) => written.human_display().to_string(),
        Err(_) => expr.to_string(),
    };
    short(&text.replace("count(1)", "count(*)"))
}

/// The node with parentheses around the operations in it that would be read otherwise without.
fn in_parentheses(node: Expr) -> Transformed<Expr> {
    let enclosed = |child: Box<Expr>| Box::new(Expr::Column(Column::new_unqualified(format!("({})", child.human_display()))));
    let precedence = |child: &Expr| match child {
        Expr::BinaryExpr(child) => Some((child.op, child.op.precedence())),
        _ => None,
    };
    match node {
        Expr::BinaryExpr(BinaryExpr { mut left, op, mut right }) => {
            let own = op.precedence();
            if precedence(&left).is_some_and(|(_, inner)| inner < own) {
                left = enclosed(left);
            }
            let chains = |inner: Operator| inner == op && matches!(op, Operator::And | Operator::Or | Operator::Plus | Operator::Multiply);
            if precedence(&right).is_some_and(|(op, inner)| inner < own || (inner == own && !chains(op))) {
                right = enclosed(right);
            }
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        Expr::Not(inner) if precedence(&inner).is_some_and(|(op, _)| matches!(op, Operator::And | Operator::Or)) => {
            Transformed::yes(Expr::Not(enclosed(inner)))
        }
        other => Transformed::no(other),
    }
}

fn show_micros(micros: i64) -> String {
    show_literal(&ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, 0, micros.saturating_mul(1_000)))))
}

fn show_literal(value: &ScalarValue) -> String {
    match value {
        ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)) => {
            format!("'{}'", text.replace('\'', "''"))
        }
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            let seconds = interval.nanoseconds as f64 / 1e9;
            let parts = [(f64::from(interval.months), "months"), (f64::from(interval.days), "days"), (seconds, "seconds")];
            let parts: Vec<String> =
                parts.iter().filter(|(count, _)| *count != 0.0).map(|(count, unit)| format!("{count} {unit}")).collect();
            format!("INTERVAL '{}'", if parts.is_empty() { "0 seconds".to_string() } else { parts.join(" ") })
        }
        other => other.to_string(),
    }
}

/// Names that the query engine makes up from whole expressions, cut at their arguments.
fn short(name: &str) -> String {
    const LENGTH_MAX: usize = 60;
    let inner = name.replace("count(Int64(1))", "count(*)");
    let inner = inner.strip_prefix("__unnest_placeholder(").map_or(inner.clone(), |inner| format!("unnest {inner}"));
    if let Some((call, _)) = inner.split_once(" PARTITION BY [") {
        return format!("{call} OVER (..)");
    }
    match inner.split_once('(') {
        Some((function, _)) if inner.chars().count() > LENGTH_MAX && name.starts_with("__") => format!("{function}(..)"),
        _ => inner,
    }
}

fn first_line(plan: &LogicalPlan) -> String {
    plan.display().to_string().lines().next().unwrap_or_default().to_string()
}
