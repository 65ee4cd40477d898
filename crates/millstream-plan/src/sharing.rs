//! Which rows the joins of several queries keep alike, so that one copy of them serves all.
//!
//! ```text
//!   query a:  orders ─────▶ Join on orders.account = accounts.id ◀───── accounts (id, name)     same columns by the same key:
//!   query b:  payments ───▶ Join on payments.payer = accounts.id ◀───── accounts (id, name)     one copy
//! ```
//! A side counts if what it keeps follows from the changes of relations alone: all rows, for good, and made of these changes by operators
//! that keep nothing. Then every query gives it the same rows in the same epochs, whatever stands above or on the other side of its join.

use crate::canonical::canonical_text;
use crate::error::Result;
use crate::graph::{Graph, Keep, Node, NodeId, Op};
use std::fmt::Write;

/// What tells the rows that side `side` (0 left, 1 right) of a join keeps from those that others keep: within a pipeline it is equal for
/// equal rows by equal keys, whatever the query calls them. `None`: these rows are not for others. Whether the join counts the matches of
/// each row, so that it needs rows of its own, is for the operator to say.
///
/// # Errors
/// When a key reads a column that the side does not have.
pub fn rows_of_side(graph: &Graph, node: &Node, side: usize) -> Result<Option<String>> {
    let Op::Join { on, null_equals_null, null_aware: false, keep, one_copy: false, lookup: false, state_ttl_micros: [None, None], .. } =
        &node.op
    else {
        return Ok(None);
    };
    let input = graph.node(node.inputs[side]);
    if !matches!(keep[side], Keep::Forever) || !follows_from_changes(graph, input.id) {
        return Ok(None);
    }
    let mut text = format!("rows {:016x} nulls equal {null_equals_null}", input.fingerprint);
    for (left, right) in on {
        let _ = write!(text, " by {}", canonical_text(if side == 0 { left } else { right }, &input.df_schema)?);
    }
    Ok(Some(text))
}

/// Whether a node's change follows from those of relations in the same epoch, and from nothing else.
fn follows_from_changes(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let keeps_nothing = matches!(node.op, Op::Input { .. } | Op::Map { .. } | Op::Unnest { .. } | Op::Union);
    let settled = !node.properties.clock_dependent && node.properties.nondeterminism.is_none();
    keeps_nothing && settled && node.inputs.iter().all(|input| follows_from_changes(graph, *input))
}
