//! The translation: a logical plan goes in, node by node a dataflow graph comes out.
//!
//! Every plan node becomes either an operator that works on deltas, or part of a *fragment*: a piece of plan that is run again, as a
//! whole or, where its rows meet only within *keys*, for the keys that a change touches. A fragment grows as long as its neighbours
//! above have no incremental form either (and the same keys), so that a chain of them is kept and run once; its leaves are operators.
//! What stands in the fragments and why is in the folder [`nodes`](crate::nodes), one file per family.
//!
//! **Names.** Nodes are shared, so the same node may stand under different qualifiers. Expressions are therefore moved, column by
//! column, from the schema of the plan to the `df_schema` of the node they read.
//!
//! **Demand.** `EMIT ON WINDOW CLOSE` asks for rows only when an output column proves that they are final. The demand travels
//! down as the index of that column ([`Translator::translate`]) to the aggregate that groups by it, which then hands out each group
//! once. See `emit.rs`.

use crate::bound::Bound;
use crate::canonical::needs_of;
use crate::error::{PlanError, Result};
use crate::explain::{node_label, unbounded_nodes};
use crate::graph::{Graph, Node, NodeId, Op, Properties, Strategy};
use crate::leaf::InputLeaf;
use crate::nodes::fragment::Fragment;
use crate::nodes::recursion::Leaf;
use crate::process::ProcessNode;
use crate::relation::{Relation, RelationKind, Relations};
use crate::{canonical, emit, state_ttl};
use datafusion::common::DFSchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Distinct, LogicalPlan, TableScan};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

/// The `EMIT` clause of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmitClause {
    /// No clause: changes as input comes.
    #[default]
    None,
    /// `EMIT ON WINDOW CLOSE`: each row once, when it is final.
    OnWindowClose,
    /// `EMIT CHANGES`.
    Changes,
    /// `EMIT PERIODIC`: changes, handed out less often. Planned as changes.
    Periodic,
}

/// What to do with nodes that have no incremental form: `SET fallback`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Recompute them.
    #[default]
    Recompute,
    /// Refuse the query.
    Error,
}

/// How `sum` and `avg` of floats take rows back: `SET float_sum`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloatSum {
    /// Subtract them from the total, which keeps what rounding has left.
    #[default]
    Fast,
    /// Add up the rows of the group again.
    Exact,
}

/// How a query is to be planned.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanOptions {
    /// When rows are handed out.
    pub emit: EmitClause,
    /// What is allowed.
    pub fallback: Fallback,
    /// How long a group stays that nothing touches, by the epoch clock.
    pub state_ttl: Option<Duration>,
    /// How float totals take rows back.
    pub float_sum: FloatSum,
}

/// A planned query.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its dataflow.
    pub graph: Graph,
    /// What the user should know: sentences.
    pub notices: Vec<String>,
}

/// Plans a continuous query. `plan` comes from [`optimize`](crate::optimize::optimize), `state` from
/// [`session_state_for_continuous`](crate::optimize::session_state_for_continuous).
///
/// # Errors
/// If the query contains what cannot be maintained, or asks for `EMIT ON WINDOW CLOSE` where no watermark reaches the output.
pub fn plan(plan: &LogicalPlan, relations: &dyn Relations, state: &SessionState, options: &PlanOptions) -> Result<Planned> {
    let mut translator = Translator::new(relations, state);
    translator.state_ttl_micros = state_ttl::micros(options)?;
    translator.float_sum = options.float_sum;
    let output = match options.emit {
        EmitClause::OnWindowClose => emit::on_window_close(&mut translator, plan)?,
        EmitClause::None | EmitClause::Changes | EmitClause::Periodic => {
            let part = translator.translate(plan, None)?;
            translator.node(part)?
        }
    };
    let output = translator.with_names(output, plan.schema())?;
    let graph = translator.finish(output);
    if options.state_ttl.is_some() {
        state_ttl::check(&graph)?;
    }
    if options.fallback == Fallback::Error {
        refuse_recompute(&graph)?;
    }
    let mut notices = vec![];
    if is_sorted_without_limit(plan) {
        notices.push("ORDER BY without LIMIT has no effect on a maintained result: sort where it is read.".to_string());
    }
    notices.extend(unbounded_nodes(&graph));
    Ok(Planned { graph, notices })
}

fn refuse_recompute(graph: &Graph) -> Result<()> {
    match graph.nodes.iter().find(|node| node.strategy == Strategy::Recompute) {
        None => Ok(()),
        Some(node) => Err(PlanError::FallbackRefused {
            node: node_label(node),
            reason: node.fallback_reason.clone().unwrap_or_else(|| "it has no incremental form".into()),
        }),
    }
}

fn is_sorted_without_limit(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::Projection(projection) => is_sorted_without_limit(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => is_sorted_without_limit(&alias.input),
        _ => false,
    }
}

/// A translated piece of plan.
#[derive(Clone, Debug)]
pub(crate) enum Part {
    /// An operator whose columns are those of the plan, in the same order.
    Node(NodeId),
    /// Not an operator yet: more of the plan may join it.
    Fragment(Box<Fragment>),
}

/// The state of a translation.
pub(crate) struct Translator<'a> {
    pub(crate) relations: &'a dyn Relations,
    pub(crate) state: &'a SessionState,
    nodes: Vec<Node>,
    by_fingerprint: HashMap<u64, NodeId>,
    /// Names of the recursive queries around the current node.
    pub(crate) recursions: Vec<String>,
    /// What the leaves stand for, where a term of a recursive query is translated by itself.
    pub(crate) leaves: Vec<Leaf>,
    /// The current node is part of what a lookup as of the epoch before reads.
    pub(crate) looking_up: bool,
    /// How long groups stay that nothing touches.
    pub(crate) state_ttl_micros: Option<i64>,
    /// How float totals take rows back.
    pub(crate) float_sum: FloatSum,
}

/// What a new node is, except for what follows from it.
pub(crate) struct NewNode {
    pub(crate) op: Op,
    pub(crate) inputs: Vec<NodeId>,
    pub(crate) df_schema: DFSchemaRef,
    pub(crate) properties: Properties,
    pub(crate) strategy: Strategy,
    pub(crate) fallback_reason: Option<String>,
    /// The canonical text of the operator's expressions.
    pub(crate) text: String,
}

impl<'a> Translator<'a> {
    pub(crate) fn new(relations: &'a dyn Relations, state: &'a SessionState) -> Self {
        let (nodes, by_fingerprint, recursions, leaves) = (vec![], HashMap::new(), vec![], vec![]);
        let (state_ttl_micros, float_sum) = (None, FloatSum::Fast);
        Self { relations, state, nodes, by_fingerprint, recursions, leaves, looking_up: false, state_ttl_micros, float_sum }
    }

    /// Translates a plan. With a `demand`, rows should come out when the bound of that output column has passed them, as far as the
    /// operators allow; whether they do is for [`emit::is_final`] to say.
    pub(crate) fn translate(&mut self, plan: &LogicalPlan, demand: Option<usize>) -> Result<Part> {
        if self.is_constant(plan)? {
            return Ok(Part::Node(self.constant(plan)?));
        }
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(plan, scan),
            LogicalPlan::Projection(projection) => self.projection(plan, projection, demand),
            LogicalPlan::Filter(filter) => self.filter(plan, filter, demand),
            LogicalPlan::SubqueryAlias(alias) => match self.translate(&alias.input, demand)? {
                Part::Node(node) => Ok(Part::Node(node)),
                child => self.passing(plan, child, None),
            },
            LogicalPlan::Union(union) => self.union(plan, union, demand),
            LogicalPlan::Unnest(unnest) => self.unnest(plan, unnest, demand),
            LogicalPlan::Distinct(Distinct::All(input)) => self.distinct(plan, input, demand),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(plan, aggregate, demand),
            LogicalPlan::Join(join) => self.join(plan, join, demand),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.translate(&sort.input, demand),
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => self.ordered(plan),
            LogicalPlan::Window(window) => self.window(plan, window, demand),
            LogicalPlan::RecursiveQuery(recursion) => self.recursion(plan, recursion),
            LogicalPlan::Repartition(repartition) => self.translate(&repartition.input, demand),
            LogicalPlan::Subquery(subquery) => self.translate(&subquery.subquery, demand),
            LogicalPlan::Distinct(Distinct::On(_)) => self.fallback(plan, "DISTINCT ON"),
            LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_) => self.fallback(plan, "now() changes with the clock"),
            LogicalPlan::Extension(extension) if extension.node.as_any().is::<ProcessNode>() => self.process(extension).map(Part::Node),
            LogicalPlan::Extension(extension) if let Some(leaf) = extension.node.as_any().downcast_ref::<InputLeaf>() => self.leaf(leaf),
            other => Err(PlanError::Unsupported {
                what: format!("a {} node", other.display()),
                remedy: "Continuous queries are SELECTs over streams, tables and views.".into(),
            }),
        }
    }

    /// Makes all of a plan node a fragment over its translated inputs.
    pub(crate) fn fallback(&mut self, plan: &LogicalPlan, reason: &str) -> Result<Part> {
        let children = plan.inputs().into_iter().map(|input| self.translate(input, None)).collect::<Result<Vec<_>>>()?;
        self.fragment(plan, children, Some(reason.into()))
    }

    /// The relation that a scan reads; `None` for the working table of an enclosing recursion.
    pub(crate) fn relation(&self, scan: &TableScan) -> Result<Option<Relation>> {
        if self.recursions.iter().any(|name| name == scan.table_name.table()) {
            return Ok(None);
        }
        match self.relations.relation(&scan.table_name) {
            Some(relation) if relation.kind == RelationKind::Work => Ok(None),
            Some(relation) => Ok(Some(relation)),
            None => Err(PlanError::UnknownRelation { name: scan.table_name.to_string() }),
        }
    }

    /// Whether a plan reads at-rest tables at most, and no clock.
    pub(crate) fn is_constant(&self, plan: &LogicalPlan) -> Result<bool> {
        let mut recursions = BTreeSet::new();
        let mut scans = vec![];
        let mut constant = true;
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => scans.push(scan.clone()),
                LogicalPlan::RecursiveQuery(recursion) => {
                    recursions.insert(recursion.name.clone());
                }
                LogicalPlan::Extension(_) => constant = false,
                _ => {}
            }
            constant &= !needs_of(node).clock;
            Ok(if constant { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })?;
        for scan in scans {
            if !constant {
                break;
            }
            if recursions.contains(scan.table_name.table()) {
                continue;
            }
            constant = self.relation(&scan)?.is_some_and(|relation| relation.kind == RelationKind::AtRest);
        }
        Ok(constant)
    }

    /// The operator of a part; a fragment becomes a [`Op::TouchedKeys`] or a [`Op::Recompute`].
    pub(crate) fn node(&mut self, part: Part) -> Result<NodeId> {
        match part {
            Part::Node(node) => Ok(node),
            Part::Fragment(fragment) => self.enclose(*fragment),
        }
    }

    /// Adds a node, or finds the equal one.
    pub(crate) fn push(&mut self, new: NewNode) -> NodeId {
        let fingerprint = self.fingerprint(&new);
        if let Some(known) = self.by_fingerprint.get(&fingerprint) {
            return *known;
        }
        let id = NodeId(self.nodes.len());
        let NewNode { op, inputs, df_schema, mut properties, strategy, fallback_reason, .. } = new;
        if properties.nondeterminism.is_none() {
            properties.nondeterminism = inputs.iter().find_map(|input| self.nodes[input.0].properties.nondeterminism.clone());
        }
        let schema = Arc::clone(df_schema.inner());
        self.nodes.push(Node { id, op, inputs, df_schema, schema, properties, strategy, fallback_reason, fingerprint });
        self.by_fingerprint.insert(fingerprint, id);
        id
    }

    fn fingerprint(&self, new: &NewNode) -> u64 {
        let mut hasher = Xxh3::new();
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(new.op.name());
        part(&new.text);
        for input in &new.inputs {
            part(&format!("{:016x}", self.nodes[input.0].fingerprint));
        }
        for field in new.df_schema.fields() {
            part(&field.data_type().to_string());
        }
        hasher.digest()
    }

    /// A node by id.
    pub(crate) fn get(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// The node with the column names of the query. A shared node may have got others.
    pub(crate) fn with_names(&mut self, node: NodeId, wanted: &DFSchemaRef) -> Result<NodeId> {
        let found = self.get(node);
        let same = found.schema.fields().iter().zip(wanted.fields()).all(|(a, b)| a.name() == b.name());
        if same {
            return Ok(node);
        }
        let exprs = canonical::all_columns(&found.df_schema);
        let (inputs, properties) = (vec![node], Properties { clock_dependent: false, ..found.properties.clone() });
        Ok(self.push(NewNode {
            op: Op::Map { predicates: vec![], exprs: Some(exprs) },
            inputs,
            df_schema: Arc::clone(wanted),
            properties,
            strategy: Strategy::Delta,
            fallback_reason: None,
            text: "names".into(),
        }))
    }

    /// Drops nodes that the output does not need: translations that were tried and given up.
    pub(crate) fn finish(self, output: NodeId) -> Graph {
        let mut needed = vec![false; self.nodes.len()];
        needed[output.0] = true;
        for node in self.nodes.iter().rev() {
            if needed[node.id.0] {
                node.inputs.iter().for_each(|input| needed[input.0] = true);
            }
        }
        let mut places = vec![None; self.nodes.len()];
        let mut nodes: Vec<Node> = vec![];
        for mut node in self.nodes {
            if !needed[node.id.0] {
                continue;
            }
            let id = NodeId(nodes.len());
            places[node.id.0] = Some(id);
            for input in &mut node.inputs {
                *input = places[input.0].expect("inputs come before their consumers and are needed with them");
            }
            nodes.push(Node { id, ..node });
        }
        let output = places[output.0].expect("the output is needed");
        Graph { nodes, output }
    }
}

/// Properties of an operator about which nothing is known.
pub(crate) fn no_properties(columns: usize) -> Properties {
    Properties { append_only: false, bounds: vec![None; columns], keys: vec![], clock_dependent: false, nondeterminism: None }
}

/// The column by whose bound groups and rows are dropped, when several are bounded: `window_end`, then `window_start`, then the
/// first.
pub(crate) fn preferred_column<'s>(bounds: &[Option<Arc<Bound>>], names: impl Iterator<Item = &'s str>) -> Option<usize> {
    let bounded: Vec<(usize, &str)> = names.enumerate().filter(|(index, _)| bounds.get(*index).is_some_and(Option::is_some)).collect();
    let named = |wanted: &str| bounded.iter().find(|(_, name)| *name == wanted);
    named("window_end").or_else(|| named("window_start")).or_else(|| bounded.first()).map(|(index, _)| *index)
}
