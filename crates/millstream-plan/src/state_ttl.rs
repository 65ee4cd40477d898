//! `state_ttl` of a query: groups and keys of joins go when nothing has touched them for so long by the epoch clock, and their rows are
//! taken back.
//!
//! It applies to every GROUP BY and DISTINCT that is maintained from the changes of append-only input, and to the sides of joins on equal
//! keys whose rows only come, unless they come from such groups. Whatever stands above follows their changes. State that it does not
//! reach would stay although the statement says otherwise, so that is refused.

use crate::error::{PlanError, Result};
use crate::explain::node_label;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::translate::{EmitClause, PlanOptions, Translator};
use std::collections::HashSet;

/// The option in microseconds.
///
/// # Errors
/// With `EMIT ON WINDOW CLOSE`, under which a group goes by the watermark alone.
pub(crate) fn micros(options: &PlanOptions) -> Result<Option<i64>> {
    let Some(ttl) = options.state_ttl else { return Ok(None) };
    if options.emit == EmitClause::OnWindowClose {
        return Err(PlanError::StateTtl {
            problem: "with EMIT ON WINDOW CLOSE a group goes when the watermark has passed it, not before and not later".into(),
            remedy: "Leave out one of the two.".into(),
        });
    }
    Ok(Some(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX)))
}

/// What EXPLAIN says of a node whose groups or rows go.
pub(crate) fn note(what: &str) -> String {
    format!("state_ttl removes {what} by the epoch clock, so that the result is not that of the query alone")
}

impl Translator<'_> {
    /// Whether a node has rows of relations that only grow, other than by groups and rows that go by themselves.
    pub(crate) fn grows(&self, node: NodeId) -> bool {
        let mut open = vec![node];
        let mut seen = HashSet::new();
        while let Some(id) = open.pop() {
            let node = self.get(id);
            match &node.op {
                Op::Input { .. } if node.properties.append_only => return true,
                Op::TemporalFilter { falling, .. } if !falling.is_empty() => {}
                _ if expires(node) || !seen.insert(id) => {}
                _ => open.extend(&node.inputs),
            }
        }
        false
    }
}

/// Whether the option reaches all state of a graph, and has an effect.
///
/// # Errors
/// When it does not.
pub(crate) fn check(graph: &Graph) -> Result<()> {
    // By node: all that comes out of it comes from groups that go, or is at rest.
    let mut covered: Vec<bool> = Vec::with_capacity(graph.nodes.len());
    let mut applied = false;
    for node in &graph.nodes {
        let own = expires(node);
        applied |= own;
        let inputs = !node.inputs.is_empty() && node.inputs.iter().all(|input| covered[input.0]);
        covered.push(own || inputs || matches!(node.op, Op::Constant { .. }));
        if keeps_keys(node) && !own && !inputs {
            return Err(PlanError::StateTtl { problem: unreached(node), remedy: remedy(node).into() });
        }
    }
    if !applied {
        return Err(PlanError::StateTtl {
            problem: "there is no GROUP BY, DISTINCT or join of which groups or rows could go".into(),
            remedy: "Leave it out: the query keeps nothing that it would remove.".into(),
        });
    }
    Ok(())
}

fn expires(node: &Node) -> bool {
    matches!(node.op, Op::Aggregate { state_ttl_micros: Some(_), .. })
        || matches!(node.op, Op::Join { state_ttl_micros, .. } if state_ttl_micros != [None; 2])
}

/// Whether a node keeps rows by key, group or partition.
fn keeps_keys(node: &Node) -> bool {
    match &node.op {
        Op::Aggregate { group, .. } => !group.is_empty(),
        Op::Join { .. }
        | Op::Process { .. }
        | Op::Recompute { .. }
        | Op::Recursion { .. }
        | Op::SessionWindow { .. }
        | Op::TopN { .. }
        | Op::TouchedKeys { .. }
        | Op::WindowClose { .. } => true,
        Op::Constant { .. } | Op::Input { .. } | Op::Map { .. } | Op::PreAggregate { .. } | Op::StaticJoin { .. } => false,
        // Its rows go by the clock already.
        Op::TemporalFilter { .. } | Op::Union | Op::Unnest { .. } => false,
    }
}

fn unreached(node: &Node) -> String {
    let label = node_label(node);
    match &node.op {
        Op::Aggregate { retracting: true, .. } => {
            format!("it does not reach {label}: its input takes rows back, which would find their group gone")
        }
        _ => format!("it does not reach the state of {label}"),
    }
}

fn remedy(node: &Node) -> &'static str {
    match &node.op {
        Op::Process { .. } => "PROCESS has a state_ttl of its own among its arguments.",
        Op::Join { .. } => {
            "It removes the rows of a key from joins of changing inputs on equal keys (ON l.k = r.k). Bound another join by a range of event times (WATERMARK), or put it above a materialized view that has state_ttl."
        }
        _ => {
            "It removes groups of GROUP BY and DISTINCT, and rows of joins on equal keys, over append-only input whose aggregates follow from changes (EXPLAIN INCREMENTAL: T1 delta). A materialized view with state_ttl may feed the rest."
        }
    }
}
