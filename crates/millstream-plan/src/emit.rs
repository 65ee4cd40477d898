//! `EMIT ON WINDOW CLOSE`: which output column decides, and how rows are held back until its bound has passed them.
//!
//! The result at an epoch is the rows of the batch answer whose deciding column lies below its bound. The column is the first of
//! `window_end`, `window_start` and all others in order that has a bound. Where an aggregate groups by it, possibly below
//! projections, unions and joins on that column, the aggregate hands out closed groups only, and everything above it is append-only.
//! Plans that are run again by key ([`Op::TouchedKeys`]) do the same when it is a key.
//! Otherwise an [`Op::WindowClose`] on top holds the rows back, among them those of an outer join that have no match yet.

use crate::canonical::as_column;
use crate::error::{PlanError, Result};
use crate::graph::{Bucket, Emit, Node, NodeId, Op, Properties, Strategy};
use crate::nodes::{groups_sessions, passed_through};
use crate::relation::{Relation, RelationKind};
use crate::translate::{NewNode, Translator};
use arrow::datatypes::DataType;
use datafusion::common::JoinType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::{Expr, LogicalPlan};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Translates a query whose rows are to come out once.
pub(crate) fn on_window_close(translator: &mut Translator, plan: &LogicalPlan) -> Result<NodeId> {
    let names: Vec<String> = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
    let mut refused = None;
    for column in candidates(&names) {
        // A translation that fails for one column may succeed for another: it turns other aggregates final.
        let part = translator.translate(plan, Some(column));
        let node = match part.and_then(|part| translator.maintained(part)) {
            Ok(Some(node)) => node,
            Ok(None) => continue,
            Err(error) => {
                refused.get_or_insert(error);
                continue;
            }
        };
        let Some(bound) = translator.get(node).properties.bounds[column].clone() else { continue };
        if is_final(translator, node, column) {
            return Ok(node);
        }
        return Ok(window_close(translator, node, Bucket { column, bound }));
    }
    Err(match refused {
        Some(error) => error,
        None => PlanError::NoBound { columns: names, remedies: remedies(translator, plan)? },
    })
}

fn candidates(names: &[String]) -> Vec<usize> {
    let rank = |index: &usize| match names[*index].as_str() {
        "window_end" => 0,
        "window_start" => 1,
        _ => 2,
    };
    let mut columns: Vec<usize> = (0..names.len()).collect();
    columns.sort_by_key(rank);
    columns
}

/// Whether a node hands out only rows that the bound of `column` has passed.
pub(crate) fn is_final(translator: &Translator, node: NodeId, column: usize) -> bool {
    let node = translator.get(node);
    match &node.op {
        Op::Constant { .. } => true,
        Op::Aggregate { emit: Emit::OnClose, bucket: Some(bucket), .. } | Op::WindowClose { bucket } => bucket.column == column,
        Op::TouchedKeys { emit: Emit::OnClose, bucket: Some(bucket), .. } => bucket.column == column,
        Op::Aggregate { bucket: Some(bucket), .. } | Op::TouchedKeys { bucket: Some(bucket), .. } => {
            bucket.column == column && bucket.bound.is_epoch()
        }
        Op::SessionWindow { emit: Emit::OnClose, bucket: Some(bucket), .. } => bucket.column == column,
        Op::TopN { partition, .. } => {
            let below = &translator.get(node.inputs[0]).df_schema;
            node.properties.append_only && partition.iter().any(|expr| as_column(expr, below) == Some(column))
        }
        Op::Map { exprs: None, .. } => is_final(translator, node.inputs[0], column),
        Op::Map { exprs: Some(exprs), .. } => {
            let below = &translator.get(node.inputs[0]).df_schema;
            passed_through(&exprs[column], below).is_some_and(|column| is_final(translator, node.inputs[0], column))
        }
        // The bound of a union is that of its slowest input, so each of them must have the same one.
        Op::Union => {
            let bound = |input: &NodeId| translator.get(*input).properties.bounds[column].as_ref().map(|bound| bound.canonical());
            let changing: Vec<NodeId> =
                node.inputs.iter().copied().filter(|input| !matches!(translator.get(*input).op, Op::Constant { .. })).collect();
            let bounds: BTreeSet<_> = changing.iter().map(bound).collect();
            let no_constants = changing.len() == node.inputs.len();
            no_constants && bounds.len() == 1 && changing.iter().all(|input| is_final(translator, *input, column))
        }
        Op::Unnest { plan } => {
            let LogicalPlan::Unnest(unnest) = plan.as_ref() else { return false };
            let source = unnest.dependency_indices[column];
            let is_list = unnest.list_type_columns.iter().any(|(index, _)| *index == source);
            !is_list && !unnest.struct_type_columns.contains(&source) && is_final(translator, node.inputs[0], source)
        }
        Op::StaticJoin { .. } | Op::Join { lookup: true, .. } => {
            column < translator.get(node.inputs[0]).schema.fields().len() && is_final(translator, node.inputs[0], column)
        }
        Op::Join { join_type, on, .. } => join_is_final(translator, node, *join_type, on, column),
        Op::Aggregate { .. }
        | Op::Input { .. }
        | Op::PreAggregate { .. }
        | Op::Process { .. }
        | Op::Recompute { .. }
        | Op::Recursion { .. }
        | Op::SessionWindow { .. }
        | Op::TemporalFilter { .. }
        | Op::TouchedKeys { .. } => false,
    }
}

/// A pair comes out when the later of its rows comes in. So the column of an equal key is final if it is on both sides, or on one
/// side while the bound of the other side's column is the same. A row without a match is final when it comes only if its
/// matches would have come with it.
fn join_is_final(translator: &Translator, node: &Node, join_type: JoinType, on: &[(Expr, Expr)], column: usize) -> bool {
    let (left, right) = (translator.get(node.inputs[0]), translator.get(node.inputs[1]));
    let width = left.schema.fields().len();
    let of_left = matches!(join_type, JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark);
    let of_right = matches!(join_type, JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark);
    let wanted = |l: usize, r: usize| match join_type {
        JoinType::Inner => l == column || r + width == column,
        JoinType::Right => r + width == column,
        _ => (of_left && l == column) || (of_right && r == column),
    };
    let pairs_only = matches!(join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi);
    key_columns(left, right, on).any(|(l, r)| {
        let (l_final, r_final) = (is_final(translator, left.id, l), is_final(translator, right.id, r));
        let finals = l_final && r_final || (l_final || r_final) && same_bound(left, l, right, r);
        node.properties.append_only && wanted(l, r) && ((pairs_only && finals) || comes_at_once(translator, left, l, right, r))
    })
}

/// Whether rows of two nodes that are equal in a key come in one and the same epoch.
pub(crate) fn come_at_once(translator: &Translator, left: NodeId, right: NodeId, on: &[(Expr, Expr)]) -> bool {
    let (left, right) = (translator.get(left), translator.get(right));
    key_columns(left, right, on).any(|(l, r)| comes_at_once(translator, left, l, right, r))
}

fn comes_at_once(translator: &Translator, left: &Node, l: usize, right: &Node, r: usize) -> bool {
    let of_epoch = |node: &Node, column: usize| {
        node.properties.append_only && node.properties.bounds[column].as_ref().is_some_and(|bound| bound.is_epoch())
    };
    let finals = || is_final(translator, left.id, l) && is_final(translator, right.id, r);
    (of_epoch(left, l) && of_epoch(right, r)) || (same_bound(left, l, right, r) && finals())
}

fn same_bound(left: &Node, l: usize, right: &Node, r: usize) -> bool {
    let bound = |node: &Node, column: usize| node.properties.bounds[column].as_ref().map(|bound| bound.canonical());
    bound(left, l).is_some() && bound(left, l) == bound(right, r)
}

/// Equal keys that are columns on both sides.
fn key_columns<'k>(left: &'k Node, right: &'k Node, on: &'k [(Expr, Expr)]) -> impl Iterator<Item = (usize, usize)> {
    on.iter().filter_map(|(l, r)| Some((as_column(l, &left.df_schema)?, as_column(r, &right.df_schema)?)))
}

fn window_close(translator: &mut Translator, input: NodeId, bucket: Bucket) -> NodeId {
    let below = translator.get(input);
    let mut bounds = vec![None; below.schema.fields().len()];
    bounds[bucket.column] = Some(Arc::clone(&bucket.bound));
    let properties = Properties { append_only: true, bounds, clock_dependent: false, nondeterminism: None, ..below.properties.clone() };
    let df_schema = Arc::clone(&below.df_schema);
    translator.push(NewNode {
        text: format!("#{}", bucket.column),
        op: Op::WindowClose { bucket },
        inputs: vec![input],
        df_schema,
        properties,
        strategy: Strategy::Delta,
        fallback_reason: None,
    })
}

/// What would bound an output column, per stream of the query.
fn remedies(translator: &Translator, plan: &LogicalPlan) -> Result<Vec<String>> {
    let mut scans = vec![];
    let mut sentences = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::TableScan(scan) => scans.push(scan.clone()),
            LogicalPlan::Aggregate(aggregate) if groups_sessions(aggregate) => {
                sentences.insert("A session closes by its end: select window_end.".to_string());
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    for scan in scans {
        // Scans of working tables are not in the catalog.
        if let Ok(Some(relation)) = translator.relation(&scan)
            && relation.kind == RelationKind::Stream
        {
            sentences.insert(remedy(&relation));
        }
    }
    Ok(sentences.into_iter().collect())
}

/// What bounds the rows of a stream.
pub(crate) fn remedy(relation: &Relation) -> String {
    let name = &relation.name;
    if let Some(column) = &relation.event_time {
        return format!("Group by a window over \"{column}\" of stream \"{name}\" and select the window column.");
    }
    let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(..));
    let hidden = |column: &str| relation.clock_columns.iter().any(|clock| clock == column);
    let column = relation.schema.fields().iter().find(|field| is_time(field.data_type()) && !hidden(field.name()));
    match column {
        Some(field) => format!(
            "Add WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds' to stream \"{name}\", and group by a window over it.",
            column = field.name()
        ),
        None => format!("Stream \"{name}\" has no timestamp column: add one, with a WATERMARK, and group by a window over it."),
    }
}
