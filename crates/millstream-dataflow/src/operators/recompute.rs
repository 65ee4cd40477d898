//! Recompute: the fallback that maintains any query.
//!
//! Keeps its inputs, runs the plan again when one of them changed (or the clock did, for plans that read it), and hands out the
//! difference to the previous result.
//!
//! **In**: any number of inputs, each as often as the plan reads it. **Out**: the plan's columns. **Changelog**: retractions first, then
//! insertions. **State**: every input that is not constant (`input<i>`: columns, `__weight`) and the previous result (`output`). It is
//! never dropped. **Cost**: that of the query over the whole input. **Errors**: those of the query, for example a scalar subquery with
//! two rows.

use crate::columns::make_batch;
use crate::error::Result;
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::fragment::Fragment;
use crate::operators::registry::BuildContext;
use crate::zset::{ZSet, check_columns};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::logical_expr::LogicalPlan;
use millstream_plan::graph::Node;
use millstream_types::delta::{Delta, DeltaBatch, consolidate};
use std::sync::Arc;

const FORMAT: u32 = 1;

/// The operator.
pub(crate) struct Recompute {
    fragment: Fragment,
    inputs: Vec<ZSet>,
    /// By input: it is constant, so it is not part of the state.
    constant: Vec<bool>,
    schema: SchemaRef,
    output: Vec<RecordBatch>,
    clock_dependent: bool,
}

impl Recompute {
    pub(crate) fn new(node: &Node, plan: &Arc<LogicalPlan>, context: &BuildContext<'_>) -> Result<Self> {
        let inputs = node.inputs.iter().map(|input| context.graph.node(*input));
        Ok(Self {
            fragment: Fragment::new(plan, node.inputs.len(), &node.schema, context.state),
            inputs: inputs.map(|input| ZSet::new(Arc::clone(&input.schema), input.properties.append_only, None)).collect::<Result<_>>()?,
            constant: node.inputs.iter().map(|input| context.constant[input.0]).collect(),
            schema: Arc::clone(&node.schema),
            output: vec![],
            clock_dependent: node.properties.clock_dependent,
        })
    }
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
        let inputs = self.inputs.iter_mut().map(|input| Ok(input.snapshot()?.as_ref().clone())).collect::<Result<_>>()?;
        let output = self.fragment.run(inputs, context.task).await?;
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
            self.output.push(make_batch(&self.schema, batch.columns().to_vec(), batch.num_rows())?);
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
