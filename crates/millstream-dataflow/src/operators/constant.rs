//! Constant: a query over at-rest tables only, run once.
//!
//! **Out**: its rows, as a change of the first epoch. **State**: none; after a restart the plan runs again for the operators that keep
//! no copy of it. **Errors**: those of the query.

use crate::columns::make_batch;
use crate::error::Result;
use crate::operator::{Operator, StepContext};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::common::collect as collect_stream;
use millstream_plan::graph::Node;
use millstream_plan::leaf::physical_plan;
use millstream_types::delta::{Delta, DeltaBatch};
use std::sync::Arc;

use crate::operators::registry::BuildContext;

/// The operator.
pub(crate) struct Constant {
    plan: Arc<LogicalPlan>,
    schema: SchemaRef,
    state: SessionState,
}

impl Constant {
    pub(crate) fn new(node: &Node, plan: &Arc<LogicalPlan>, context: &BuildContext<'_>) -> Self {
        Self { plan: Arc::clone(plan), schema: Arc::clone(&node.schema), state: context.state.as_ref().clone() }
    }
}

/// Runs a plan partition by partition, so that the order of rows is the plan's.
pub(crate) async fn run(plan: &Arc<dyn ExecutionPlan>, schema: &SchemaRef, task: &Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    for partition in 0..plan.properties().output_partitioning().partition_count() {
        for batch in collect_stream(plan.execute(partition, Arc::clone(task))?).await? {
            if batch.num_rows() > 0 {
                batches.push(make_batch(schema, batch.columns().to_vec(), batch.num_rows())?);
            }
        }
    }
    Ok(batches)
}

#[async_trait]
impl Operator for Constant {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        Ok(context.first)
    }

    async fn step(&mut self, _: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        if !context.first {
            return Ok(vec![]);
        }
        let plan = physical_plan(&self.plan, &[], &self.state).await?;
        let batches = run(&plan, &self.schema, context.task).await?;
        Ok(batches.into_iter().map(DeltaBatch::insertions).collect())
    }
}
