//! Recompute: the fallback that maintains any query.
//!
//! Keeps its inputs, runs the plan again when one of them changed (or the clock did, for plans that read it), and hands out the
//! difference to the previous result. The plan is made once; a run resets its state and swaps the batches of its leaves.
//!
//! **In**: any number of inputs, each as often as the plan reads it. **Out**: the plan's columns. **Changelog**: retractions first, then
//! insertions. **State**: every input that is not constant (`input<i>`: columns, `__weight`) and the previous result (`output`). It is
//! never dropped. **Cost**: that of the query over the whole input. **Errors**: those of the query, for example a scalar subquery with
//! two rows.

use crate::columns::owned;
use crate::error::Result;
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::constant::run;
use crate::operators::registry::BuildContext;
use crate::zset::{ZSet, check_columns};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use millstream_plan::graph::Node;
use millstream_plan::leaf::{LeafSlot, physical_plan};
use millstream_types::delta::{Delta, DeltaBatch, consolidate};
use millstream_types::row_key::{RowKeyEncoder, types_of};
use std::sync::Arc;

const FORMAT: u32 = 1;

/// The operator.
pub(crate) struct Recompute {
    logical: Arc<LogicalPlan>,
    plan: Option<Physical>,
    slots: Vec<Arc<LeafSlot>>,
    inputs: Vec<ZSet>,
    /// By input: it is constant, so it is not part of the state.
    constant: Vec<bool>,
    schema: SchemaRef,
    output: Vec<RecordBatch>,
    clock_dependent: bool,
    state: SessionState,
}

struct Physical {
    plan: Arc<dyn ExecutionPlan>,
    /// Somewhere partitions are merged in the order in which they finish.
    unordered: bool,
}

impl Recompute {
    pub(crate) fn new(node: &Node, plan: &Arc<LogicalPlan>, context: &BuildContext<'_>) -> Result<Self> {
        let inputs = node.inputs.iter().map(|input| context.graph.node(*input));
        Ok(Self {
            logical: Arc::clone(plan),
            plan: None,
            slots: node.inputs.iter().map(|_| LeafSlot::new()).collect(),
            inputs: inputs.map(|input| ZSet::new(Arc::clone(&input.schema), input.properties.append_only, None)).collect::<Result<_>>()?,
            constant: node.inputs.iter().map(|input| context.constant[input.0]).collect(),
            schema: Arc::clone(&node.schema),
            output: vec![],
            clock_dependent: node.properties.clock_dependent,
            state: context.state.clone(),
        })
    }

    async fn run(&mut self, context: &StepContext<'_>) -> Result<Vec<RecordBatch>> {
        if self.plan.is_none() {
            let plan = physical_plan(&self.logical, &self.slots, &self.state).await?;
            let unordered = merges_partitions(&plan);
            self.plan = Some(Physical { plan, unordered });
        }
        let physical = self.plan.as_ref().expect("it was made above");
        for (slot, input) in self.slots.iter().zip(&mut self.inputs) {
            slot.set(input.snapshot()?.as_ref().clone());
        }
        let result = match reset_plan_states(Arc::clone(&physical.plan)) {
            Ok(plan) => run(&plan, &self.schema, context.task).await,
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
    Ok(vec![owned(&crate::columns::take_rows(&all, &order.into())?)?])
}

#[async_trait]
impl Operator for Recompute {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        Ok(context.first || self.clock_dependent)
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        for (store, delta) in self.inputs.iter_mut().zip(inputs) {
            store.apply(delta)?;
        }
        let output = self.run(context).await?;
        let old = std::mem::replace(&mut self.output, output.clone());
        let mut change: Delta = old.into_iter().map(|batch| DeltaBatch::insertions(batch).negated()).collect();
        change.extend(output.into_iter().map(DeltaBatch::insertions));
        change.retain(|part| part.num_rows() > 0);
        Ok(consolidate(&self.schema, &change)?)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let mut groups = vec![("output".to_string(), self.output.clone())];
        for (index, input) in self.inputs.iter().enumerate().filter(|(index, _)| !self.constant[*index]) {
            groups.push((format!("input{index}"), input.checkpoint()?));
        }
        Ok(Some(Saved { format: FORMAT, groups, detail: serde_json::Value::Null }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        for (index, input) in self.inputs.iter_mut().enumerate().filter(|(index, _)| !self.constant[*index]) {
            input.restore(saved.group(&format!("input{index}")))?;
        }
        for batch in saved.group("output") {
            check_columns(&self.schema, batch, 0)?;
            self.output.push(crate::columns::make_batch(&self.schema, batch.columns().to_vec(), batch.num_rows())?);
        }
        Ok(())
    }

    fn load_constant(&mut self, input: usize, delta: &[DeltaBatch]) -> Result<()> {
        self.inputs[input].apply(delta)
    }

    fn stats(&self) -> StateStats {
        let output_rows: usize = self.output.iter().map(RecordBatch::num_rows).sum();
        let output_bytes: usize = self.output.iter().map(RecordBatch::get_array_memory_size).sum();
        StateStats {
            rows: self.inputs.iter().map(ZSet::rows).sum::<usize>() + output_rows,
            bytes: self.inputs.iter().map(ZSet::bytes).sum::<usize>() + output_bytes,
            ..StateStats::default()
        }
    }
}
