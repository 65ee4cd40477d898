//! Fragments: DataFusion plans over batches of state, planned once and run again and again.
//!
//! A run puts the batches into the plan's leaves, resets the plan's state and executes it. Equal batches give equal rows in equal
//! order.

use crate::columns::{owned, take_rows};
use crate::error::Result;
use crate::operators::constant::run;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::displayable;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use millstream_plan::leaf::{LeafSlot, physical_plan};
use millstream_types::row_key::{RowKeyEncoder, types_of};
use std::sync::Arc;

/// A plan whose leaves are [`InputLeaf`](millstream_plan::leaf::InputLeaf)s.
pub(crate) struct Fragment {
    logical: Arc<LogicalPlan>,
    physical: Option<Physical>,
    slots: Vec<Arc<LeafSlot>>,
    schema: SchemaRef,
    state: SessionState,
}

struct Physical {
    plan: Arc<dyn ExecutionPlan>,
    /// Somewhere partitions are merged in the order in which they finish.
    unordered: bool,
}

impl Fragment {
    /// A plan with `leaves` leaves and the columns of `schema`.
    pub(crate) fn new(plan: &Arc<LogicalPlan>, leaves: usize, schema: &SchemaRef, state: &SessionState) -> Self {
        let slots = (0..leaves).map(|_| LeafSlot::new()).collect();
        Self { logical: Arc::clone(plan), physical: None, slots, schema: Arc::clone(schema), state: state.clone() }
    }

    /// Runs the plan over the batches of each leaf.
    pub(crate) async fn run(&mut self, leaves: Vec<Vec<RecordBatch>>, task: &Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
        if self.physical.is_none() {
            let plan = physical_plan(&self.logical, &self.slots, &self.state).await?;
            tracing::debug!(plan = %displayable(plan.as_ref()).indent(false), "planned a fragment");
            let unordered = merges_partitions(&plan);
            self.physical = Some(Physical { plan, unordered });
        }
        let physical = self.physical.as_ref().expect("it was made above");
        self.slots.iter().zip(leaves).for_each(|(slot, batches)| slot.set(batches));
        let result = match reset_plan_states(Arc::clone(&physical.plan)) {
            Ok(plan) => run(&plan, &self.schema, task).await,
            Err(error) => Err(error.into()),
        };
        self.slots.iter().for_each(|slot| slot.clear());
        let batches = result?;
        if physical.unordered { sorted(&self.schema, &batches) } else { batches.iter().map(owned).collect() }
    }
}

/// Whether the order of rows depends on how partitions are scheduled.
fn merges_partitions(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let merges = matches!(plan.name(), "CoalescePartitionsExec" | "RepartitionExec");
    let several = plan.children().iter().any(|child| child.properties().output_partitioning().partition_count() > 1);
    (merges && several) || plan.children().into_iter().any(merges_partitions)
}

/// The rows in the order of their encodings.
fn sorted(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let all = concat_batches(schema, batches)?;
    if all.num_columns() == 0 || all.num_rows() == 0 {
        return Ok(vec![all]);
    }
    let rows = RowKeyEncoder::new(types_of(schema.fields()))?.encode(all.columns())?;
    let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
    order.sort_by(|a, b| rows.row(*a as usize).cmp(&rows.row(*b as usize)));
    Ok(vec![owned(&take_rows(&all, &order.into())?)?])
}
