//! Recursive queries: what is new is followed to its end, round by round ([`Op::Recursion`]).
//!
//! ```sql
//! WITH RECURSIVE reach AS (SELECT a, b FROM edges UNION SELECT r.a, e.b FROM reach r JOIN edges e ON r.b = e.a) SELECT * FROM reach
//! ```
//! The recursive term becomes a graph of its own, over an input for the result so far and one for every part of the term that does
//! not read it. That works for terms that are *linear* in the result: DataFusion lets a term read it once, so it is enough that each
//! row is followed by itself, through filters, projections, UNNEST and the side of a join that decides which rows there are.
//!
//! With UNION ALL the result is the sum of all rounds, and the sum of what changes in each is its change, whether rows come or go. With
//! UNION a row that is there already is not followed again; whether a row is still derived after another one went cannot be told from
//! that, so nothing may be taken back. Everything else is recomputed, with the reason.

use crate::canonical::{column_at, has_subquery, is_volatile, reads_clock};
use crate::error::{PlanError, Result};
use crate::graph::{Graph, NodeId, Op, Properties, Strategy};
use crate::leaf::InputLeaf;
use crate::translate::{NewNode, Part, Translator};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DFSchemaRef, JoinType};
use datafusion::logical_expr::{Distinct, Join, LogicalPlan, Projection, RecursiveQuery, TableScan};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Number of the leaf that stands for the result so far.
const RESULT: usize = 0;

/// An input of a term that is translated by itself.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    append_only: bool,
    keys: Vec<Vec<usize>>,
    /// All its rows come in the first epoch.
    at_rest: bool,
}

/// A recursive term, its parts that do not read the result replaced by leaves.
struct Term {
    plan: LogicalPlan,
    /// The nodes of leaves 1, 2, ..
    inputs: Vec<NodeId>,
}

impl Translator<'_> {
    /// A recursive query: maintained where its term allows it, or else run to its end again whenever an input changes.
    pub(crate) fn recursion(&mut self, plan: &LogicalPlan, recursion: &RecursiveQuery) -> Result<Part> {
        let reason = match self.followed(plan, recursion)? {
            Ok(node) => return Ok(Part::Node(node)),
            Err(reason) => format!("recursive queries are recomputed where {reason}"),
        };
        let start = self.translate(&recursion.static_term, None)?;
        self.recursions.push(recursion.name.clone());
        let step = self.translate(&recursion.recursive_term, None);
        self.recursions.pop();
        match self.fragment(plan, vec![start, step?], Some(reason))? {
            Part::Fragment(mut fragment) => {
                fragment.open.remove(&recursion.name);
                Ok(Part::Fragment(fragment))
            }
            node => Ok(node),
        }
    }

    /// The operator of a recursive query, or why there is none.
    fn followed(&mut self, plan: &LogicalPlan, recursion: &RecursiveQuery) -> Result<std::result::Result<NodeId, String>> {
        if !self.recursions.is_empty() {
            return Ok(Err("one stands inside another".into()));
        }
        let distinct = recursion.is_distinct;
        if let Some(reason) = obstacle(&recursion.recursive_term, &recursion.name, distinct)? {
            return Ok(Err(reason.into()));
        }
        if self.looks_up(&recursion.recursive_term)? {
            return Ok(Err("the recursive term looks rows up as of the epoch before".into()));
        }
        let start = self.translate(&recursion.static_term, None)?;
        let start = self.node(start)?;
        let term = self.term(recursion)?;
        let mut append_only = [start].iter().chain(&term.inputs).all(|input| self.get(*input).properties.append_only);
        if distinct && !append_only {
            return Ok(Err("UNION reads rows that can be taken back".into()));
        }
        let graph = match self.term_graph(&term, append_only)? {
            Some(graph) if append_only && !graph.output_node().properties.append_only => {
                append_only = false;
                self.term_graph(&term, false)?
            }
            graph => graph,
        };
        let Some(graph) = graph else { return Ok(Err("the recursive term has no incremental form".into())) };
        if distinct && !append_only {
            return Ok(Err("UNION follows rows that the recursive term takes back".into()));
        }
        let df_schema = Arc::clone(plan.schema());
        let width = df_schema.fields().len();
        let properties = Properties {
            append_only,
            bounds: vec![None; width],
            keys: if distinct { vec![(0..width).collect()] } else { vec![] },
            clock_dependent: false,
            nondeterminism: None,
        };
        let text = format!("distinct {distinct} append_only {append_only} term {:016x}", graph.output_node().fingerprint);
        Ok(Ok(self.push(NewNode {
            op: Op::Recursion { name: recursion.name.clone(), term: Arc::new(graph), distinct },
            inputs: [start].into_iter().chain(term.inputs).collect(),
            df_schema,
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text,
        })))
    }

    /// Whether a plan reads a relation as of the epoch before.
    fn looks_up(&self, plan: &LogicalPlan) -> Result<bool> {
        let mut found = false;
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                found |= self.relations.relation(&scan.table_name).is_some_and(|relation| relation.lookup);
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(found)
    }

    /// The term over leaves; those that do not read the result are translated as parts of this query.
    fn term(&mut self, recursion: &RecursiveQuery) -> Result<Term> {
        let mut inputs = vec![];
        let plan = self.with_leaves(&recursion.recursive_term, recursion, &mut inputs)?;
        Ok(Term { plan, inputs })
    }

    fn with_leaves(&mut self, plan: &LogicalPlan, recursion: &RecursiveQuery, inputs: &mut Vec<NodeId>) -> Result<LogicalPlan> {
        if !reads(plan, &recursion.name)? {
            let part = self.translate(plan, None)?;
            let node = self.node(part)?;
            inputs.push(node);
            let fingerprint = self.get(node).fingerprint;
            return Ok(InputLeaf { index: inputs.len(), schema: Arc::clone(plan.schema()), fingerprint }.into_plan());
        }
        if let LogicalPlan::TableScan(scan) = plan {
            return result_leaf(scan, recursion);
        }
        let children = plan.inputs().into_iter().map(|child| self.with_leaves(child, recursion, inputs)).collect::<Result<Vec<_>>>()?;
        let mut children = children.into_iter();
        Ok(plan.clone().map_children(|child| Ok(children.next().map_or(Transformed::no(child), Transformed::yes)))?.data)
    }

    /// The graph of a term; `None` if a part of it would be recomputed.
    fn term_graph(&self, term: &Term, append_only: bool) -> Result<Option<Graph>> {
        let mut inner = Translator::new(self.relations, self.state);
        inner.leaves.push(Leaf { append_only, keys: vec![], at_rest: false });
        inner.leaves.extend(term.inputs.iter().map(|input| {
            let node = self.get(*input);
            let properties = &node.properties;
            let at_rest = matches!(node.op, Op::Constant { .. });
            Leaf { append_only: properties.append_only, keys: properties.keys.clone(), at_rest }
        }));
        let Part::Node(output) = inner.translate(&term.plan, None)? else { return Ok(None) };
        let graph = inner.finish(output);
        Ok(graph.nodes.iter().all(|node| node.strategy == Strategy::Delta).then_some(graph))
    }

    /// A leaf of a term that is translated by itself.
    pub(crate) fn leaf(&mut self, leaf: &InputLeaf) -> Result<Part> {
        let Some(Leaf { append_only, keys, .. }) = self.leaves.get(leaf.index).cloned() else {
            return Err(PlanError::internal(format!("there is no leaf {}", leaf.index)));
        };
        let columns = leaf.schema.fields().len();
        let properties = Properties { append_only, bounds: vec![None; columns], keys, clock_dependent: false, nondeterminism: None };
        Ok(Part::Node(self.push(NewNode {
            op: Op::Input { relation: term_input(leaf.index), columns: (0..columns).map(term_column).collect() },
            inputs: vec![],
            df_schema: Arc::clone(&leaf.schema),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text: format!("leaf {} {:016x}", leaf.index, leaf.fingerprint),
        })))
    }

    /// Whether a plan is a leaf whose rows all come in the first epoch.
    pub(super) fn is_leaf_at_rest(&self, plan: &LogicalPlan) -> bool {
        let LogicalPlan::Extension(extension) = plan else { return false };
        let leaf = extension.node.as_any().downcast_ref::<InputLeaf>().and_then(|leaf| self.leaves.get(leaf.index));
        leaf.is_some_and(|leaf| leaf.at_rest)
    }
}

/// How the names of such relations begin.
pub(crate) const TERM_INPUT: &str = "__input";

/// The relation by which the graph of a recursive term reads input `index` of its [`Op::Recursion`]; 0 is the result so far.
pub fn term_input(index: usize) -> String {
    format!("{TERM_INPUT}{index}")
}

/// The name of a column of such a relation.
pub fn term_column(index: usize) -> String {
    format!("__column{index}")
}

fn result_leaf(scan: &TableScan, recursion: &RecursiveQuery) -> Result<LogicalPlan> {
    let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
    let schema: DFSchemaRef = Arc::new(source);
    // What feeds it is the operator itself: its identity follows from the rest of the term.
    let fingerprint = u64::from(recursion.is_distinct);
    let leaf = InputLeaf { index: RESULT, schema: Arc::clone(&schema), fingerprint }.into_plan();
    let Some(columns) = &scan.projection else { return Ok(leaf) };
    let exprs = columns.iter().map(|column| column_at(&schema, *column)).collect();
    Ok(LogicalPlan::Projection(Projection::try_new_with_schema(exprs, Arc::new(leaf), Arc::clone(&scan.projected_schema))?))
}

/// Whether a plan reads the result of a recursive query.
fn reads(plan: &LogicalPlan, name: &str) -> Result<bool> {
    let mut found = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            found.insert(scan.table_name.table().to_string());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found.contains(name))
}

/// What in a recursive term, on the way to the result it reads, keeps it from being followed row by row.
fn obstacle(plan: &LogicalPlan, name: &str, distinct: bool) -> Result<Option<&'static str>> {
    if !reads(plan, name)? {
        return Ok(None);
    }
    for expr in plan.expressions() {
        if is_volatile(&expr) || reads_clock(&expr) || has_subquery(&expr) {
            return Ok(Some("an expression of the recursive term is volatile, reads the clock or contains a query"));
        }
    }
    let below = match plan {
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => return Ok(None),
        LogicalPlan::Projection(projection) => &projection.input,
        LogicalPlan::Filter(filter) => &filter.input,
        LogicalPlan::SubqueryAlias(alias) => &alias.input,
        LogicalPlan::Unnest(unnest) => &unnest.input,
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => &sort.input,
        LogicalPlan::Repartition(repartition) => &repartition.input,
        LogicalPlan::Distinct(Distinct::All(input)) if distinct => input,
        LogicalPlan::Aggregate(aggregate) if distinct && aggregate.aggr_expr.is_empty() => &aggregate.input,
        LogicalPlan::Join(join) => return joined(join, name, distinct),
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => return Ok(Some("the recursive term aggregates what it reads")),
        LogicalPlan::Window(_) => return Ok(Some("the recursive term uses window functions")),
        LogicalPlan::Union(_) => return Ok(Some("the recursive term is a UNION itself")),
        LogicalPlan::RecursiveQuery(_) => return Ok(Some("one stands inside another")),
        _ => return Ok(Some("the recursive term cuts off what it reads")),
    };
    obstacle(below, name, distinct)
}

fn joined(join: &Join, name: &str, distinct: bool) -> Result<Option<&'static str>> {
    let (left, right) = (reads(&join.left, name)?, reads(&join.right, name)?);
    let (follows, reason) = match join.join_type {
        _ if join.null_aware => (false, "the recursive term asks with NOT IN"),
        JoinType::Inner => (true, ""),
        JoinType::LeftSemi => (left || distinct, "the recursive term asks whether a row is there already"),
        JoinType::RightSemi => (right || distinct, "the recursive term asks whether a row is there already"),
        JoinType::Left | JoinType::LeftAnti | JoinType::LeftMark => (left && !distinct, "the recursive term uses an outer or anti join"),
        JoinType::Right | JoinType::RightAnti | JoinType::RightMark => {
            (right && !distinct, "the recursive term uses an outer or anti join")
        }
        JoinType::Full => (false, "the recursive term uses an outer or anti join"),
    };
    if !follows || (left && right) {
        return Ok(Some(if follows { "the recursive term reads its result twice" } else { reason }));
    }
    obstacle(if left { &join.left } else { &join.right }, name, distinct)
}
