//! Leaves: the place in a plan where a node's current input comes in.
//!
//! The plan of an [`Op::Unnest`](crate::graph::Op::Unnest) or [`Op::Recompute`](crate::graph::Op::Recompute) reads
//! [`InputLeaf`]s instead of tables. It is planned once ([`physical_plan`]) over one [`LeafSlot`] per input; to run it, put the
//! batches into the slots, call `reset_plan_states` and execute partition 0.
//!
//! A leaf reports no statistics and no order, so that nothing the planner decides depends on the rows of the first run.

use crate::compile::CheckedArithmetic;
use crate::error::{PlanError, Result};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DFSchemaRef, DataFusionError};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore};
use datafusion::physical_expr::EquivalenceProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PhysicalExpr, PlanProperties, ReplaceChildrenOptions,
};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// A logical leaf: input number `index` of the node that owns the plan.
#[derive(Clone, Debug)]
pub struct InputLeaf {
    /// Which input.
    pub index: usize,
    /// Its columns, with the qualifiers that the plan above refers to.
    pub schema: DFSchemaRef,
    /// Identity of the node that feeds it.
    pub fingerprint: u64,
}

impl InputLeaf {
    /// A plan that consists of this leaf.
    pub fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }
}

// The schema follows from the fingerprint, except for its qualifiers, which do not make two inputs different.
impl PartialEq for InputLeaf {
    fn eq(&self, other: &Self) -> bool {
        (self.index, self.fingerprint) == (other.index, other.fingerprint)
    }
}

impl Eq for InputLeaf {}

impl Hash for InputLeaf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.index, self.fingerprint).hash(state);
    }
}

impl PartialOrd for InputLeaf {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some((self.index, self.fingerprint).cmp(&(other.index, other.fingerprint)))
    }
}

impl UserDefinedLogicalNodeCore for InputLeaf {
    fn name(&self) -> &str {
        "InputLeaf"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "InputLeaf: #{}", self.index)
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, _inputs: Vec<LogicalPlan>) -> datafusion::common::Result<Self> {
        Ok(self.clone())
    }
}

/// The batches that a leaf reads at its next execution.
#[derive(Debug, Default)]
pub struct LeafSlot {
    batches: Mutex<Vec<RecordBatch>>,
}

impl LeafSlot {
    /// An empty slot.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Replaces the content.
    pub fn set(&self, batches: Vec<RecordBatch>) {
        *self.batches.lock().unwrap_or_else(PoisonError::into_inner) = batches;
    }

    /// Drops the content, so that the memory is free between executions.
    pub fn clear(&self) {
        self.set(vec![]);
    }

    /// The content.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads the batches of a [`LeafSlot`]: one partition, no statistics, no order.
#[derive(Debug)]
pub struct LeafExec {
    index: usize,
    schema: SchemaRef,
    slot: Arc<LeafSlot>,
    properties: Arc<PlanProperties>,
}

impl LeafExec {
    /// A leaf that hands out batches of `schema` from `slot`.
    pub fn new(index: usize, schema: SchemaRef, slot: Arc<LeafSlot>) -> Self {
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Self { index, schema, slot, properties }
    }
}

impl DisplayAs for LeafExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "LeafExec: #{}", self.index)
    }
}

impl ExecutionPlan for LeafExec {
    fn name(&self) -> &str {
        "LeafExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> datafusion::common::Result<TreeNodeRecursion>,
    ) -> datafusion::common::Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _partition: usize, _context: Arc<TaskContext>) -> datafusion::common::Result<SendableRecordBatchStream> {
        let batches =
            self.slot.batches().into_iter().map(|batch| conform(batch, &self.schema)).collect::<datafusion::common::Result<Vec<_>>>()?;
        Ok(Box::pin(MemoryStream::try_new(batches, Arc::clone(&self.schema), None)?))
    }
}

/// Gives a batch the leaf's field names; types must agree.
fn conform(batch: RecordBatch, schema: &SchemaRef) -> datafusion::common::Result<RecordBatch> {
    if Arc::ptr_eq(batch.schema_ref(), schema) {
        return Ok(batch);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

/// Plans [`InputLeaf`]s as [`LeafExec`]s over the given slots, everything else as DataFusion does.
#[derive(Clone, Debug)]
pub struct LeafPlanner {
    slots: Vec<Arc<LeafSlot>>,
}

impl LeafPlanner {
    /// A planner for plans whose leaf `i` reads `slots[i]`.
    pub fn new(slots: Vec<Arc<LeafSlot>>) -> Self {
        Self { slots }
    }
}

#[async_trait]
impl ExtensionPlanner for LeafPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        _physical_inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> datafusion::common::Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(leaf) = node.as_any().downcast_ref::<InputLeaf>() else {
            return Ok(None);
        };
        let slot = self.slots.get(leaf.index).ok_or_else(|| {
            DataFusionError::from(PlanError::internal(format!("leaf {} has no slot, there are {}", leaf.index, self.slots.len())))
        })?;
        Ok(Some(Arc::new(LeafExec::new(leaf.index, Arc::clone(leaf.schema.inner()), Arc::clone(slot)))))
    }
}

#[async_trait]
impl QueryPlanner for LeafPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(self.clone())]).create_physical_plan(plan, session).await
    }
}

/// Plans an already optimized plan over leaves, to be executed again and again: one partition, no dynamic filters, no
/// constants taken from statistics, integer overflow checked. The logical optimizer does not run.
///
/// # Errors
/// What DataFusion's physical planner reports; a leaf without a slot.
pub async fn physical_plan(plan: &LogicalPlan, slots: &[Arc<LeafSlot>], state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    let state = fragment_state(state);
    Ok(LeafPlanner::new(slots.to_vec()).create_physical_plan(plan, &state).await?)
}

/// The session under which [`physical_plan`] plans.
fn fragment_state(base: &SessionState) -> SessionState {
    let mut config = base.config().clone().with_target_partitions(1).with_create_default_catalog_and_schema(false);
    let optimizer = &mut config.options_mut().optimizer;
    optimizer.enable_dynamic_filter_pushdown = false;
    optimizer.enable_topk_dynamic_filter_pushdown = false;
    optimizer.enable_join_dynamic_filter_pushdown = false;
    optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    optimizer.repartition_joins = false;
    optimizer.repartition_aggregations = false;
    optimizer.repartition_windows = false;
    optimizer.repartition_sorts = false;
    let mut props = base.execution_props().clone();
    props.config_options = Some(Arc::clone(config.options()));
    let mut rules: Vec<_> = base
        .physical_optimizers()
        .iter()
        .filter(|rule| rule.name() != "aggregate_statistics" && rule.name() != CheckedArithmetic::NAME)
        .cloned()
        .collect();
    rules.insert(0, Arc::new(CheckedArithmetic));
    SessionStateBuilder::new_from_existing(base.clone())
        .with_config(config)
        .with_execution_props(props)
        .with_physical_optimizer_rules(rules)
        .build()
}
