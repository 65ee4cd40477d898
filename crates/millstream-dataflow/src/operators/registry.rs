//! The one list of operators: from what a node does to what runs it.

use crate::dataflow::Parallelism;
use crate::error::Result;
use crate::operator::Operator;
use crate::operators::aggregate::Aggregate;
use crate::operators::aggregate::pre_aggregate::PreAggregate;
use crate::operators::constant::Constant;
use crate::operators::input::Input;
use crate::operators::join::Join;
use crate::operators::map::Map;
use crate::operators::process::Process;
use crate::operators::recompute::Recompute;
use crate::operators::recursion::Recursion;
use crate::operators::session_window::SessionWindow;
use crate::operators::sharded::Sharded;
use crate::operators::static_join::StaticJoin;
use crate::operators::temporal_filter::TemporalFilter;
use crate::operators::top_n::TopN;
use crate::operators::touched_keys::TouchedKeys;
use crate::operators::union::Union;
use crate::operators::unnest::Unnest;
use crate::operators::window_close::WindowClose;
use datafusion::execution::SessionState;
use millstream_plan::graph::{Graph, Node, Op};
use std::sync::Arc;

/// What operators are built from.
pub(crate) struct BuildContext<'a> {
    /// The graph.
    pub(crate) graph: &'a Arc<Graph>,
    /// The session whose functions and settings the expressions use.
    pub(crate) state: &'a Arc<SessionState>,
    /// By node: it follows from constants alone, so a restart computes its rows again.
    pub(crate) constant: &'a Arc<[bool]>,
    /// How far operators may be divided.
    pub(crate) parallelism: Parallelism,
    /// The operator is one of several that have the keys among them.
    pub(crate) shard: Option<Shard>,
}

/// One of the shards of an operator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shard {
    /// Which one.
    pub(crate) place: usize,
    /// Of how many.
    pub(crate) count: usize,
}

impl<'a> BuildContext<'a> {
    /// The node that feeds input `input` of `node`.
    pub(crate) fn input(&self, node: &Node, input: usize) -> &'a Node {
        self.graph.node(node.inputs[input])
    }
}

/// Builds the operator of a node, which divides itself where that is worth it.
pub(crate) fn build(node: &Node, context: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
    Sharded::wrap(build_one(node, context)?, node, context)
}

/// Builds the operator of a node, or one of its shards.
pub(crate) fn build_one(node: &Node, context: &BuildContext<'_>) -> Result<Box<dyn Operator>> {
    Ok(match &node.op {
        Op::Aggregate { .. } => Box::new(Aggregate::new(node, context)?),
        Op::Constant { plan, .. } => Box::new(Constant::new(node, plan, context)),
        Op::Input { relation, columns } => Box::new(Input::new(node, relation, columns)),
        Op::Join { .. } => Box::new(Join::new(node, context)?),
        Op::Map { predicates, exprs } => Box::new(Map::new(node, predicates, exprs.as_deref(), context)?),
        Op::PreAggregate { .. } => Box::new(PreAggregate::new(node, context)?),
        Op::Process { .. } => Box::new(Process::new(node, context)?),
        Op::Recompute { plan } => Box::new(Recompute::new(node, plan, context)?),
        Op::Recursion { .. } => Box::new(Recursion::new(node, context)?),
        Op::SessionWindow { .. } => Box::new(SessionWindow::new(node, context)?),
        Op::StaticJoin { .. } => Box::new(StaticJoin::new(node, context)?),
        Op::TemporalFilter { .. } => Box::new(TemporalFilter::new(node, context)?),
        Op::TouchedKeys { .. } => Box::new(TouchedKeys::new(node, context)?),
        Op::TopN { .. } => Box::new(TopN::new(node, context)?),
        Op::Union => Box::new(Union::new(node)),
        Op::Unnest { plan } => Box::new(Unnest::new(node, plan, context)?),
        Op::WindowClose { bucket } => Box::new(WindowClose::new(node, bucket, context)?),
    })
}
