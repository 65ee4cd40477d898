//! PreAggregate: the partial states of an epoch's rows, so that fewer rows have to be spread over windows.
//!
//! ```text
//!   rows (pane, key, price)  ─▶  (pane, key, state of sum(price))  ─▶  windows of the pane  ─▶  Aggregate
//! ```
//! **In**: any schema, append-only. **Out**: the group columns, then the state columns of each aggregate, one row per group of the
//! epoch. **State**: none, so the same group comes out again in the next epoch. **Errors**: what arguments report.

use super::call::{Call, NewRows, accumulate};
use super::interner::{Interner, Numbered};
use crate::columns::{evaluate, make_batch};
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, StepContext};
use crate::operators::registry::BuildContext;
use crate::zset::expand;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::compile_all;
use millstream_plan::graph::{Node, Op};
use millstream_types::delta::{Delta, DeltaBatch, Weights};
use millstream_types::row_key::canonical_floats;
use std::sync::Arc;

/// The operator.
pub(crate) struct PreAggregate {
    schema: SchemaRef,
    group: Vec<Arc<dyn PhysicalExpr>>,
    calls: Vec<Call>,
    interner: Interner,
}

impl PreAggregate {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::PreAggregate { group, aggregates } = &node.op else {
            return Err(DataflowError::internal("expected a pre-aggregate"));
        };
        let input = context.input(node, 0);
        let group = compile_all(group, &input.df_schema, context.state)?;
        let key_types = group.iter().map(|expr| expr.data_type(&input.schema)).collect::<datafusion::common::Result<Vec<_>>>()?;
        let calls = aggregates.iter().map(|expr| Call::new(expr, &input.df_schema, &input.schema, context.state));
        Ok(Self { schema: Arc::clone(&node.schema), interner: Interner::new(&key_types)?, group, calls: calls.collect::<Result<_>>()? })
    }

    fn aggregate(&mut self, batches: &[RecordBatch]) -> Result<Delta> {
        let mut keys: Vec<(Vec<ArrayRef>, usize)> = Vec::with_capacity(batches.len());
        for batch in batches {
            let columns = self.group.iter().map(|expr| Ok(canonical_floats(&evaluate(expr, batch)?)?)).collect::<Result<_>>()?;
            keys.push((columns, batch.num_rows()));
        }
        let Numbered { keys: mut columns, count, rows } = self.interner.number(&keys)?;
        if count == 0 {
            return Ok(vec![]);
        }
        let mut reached = 0;
        let parts = batches.iter().zip(rows).map(|(batch, groups)| {
            reached = groups.iter().fold(reached, |reached, group| reached.max(group + 1));
            NewRows { batch, groups: groups.into(), reached, states_first: None, masks: vec![] }
        });
        let (states, _) = accumulate(&self.calls, &[], &[], &parts.collect::<Vec<_>>(), count, false)?;
        columns.extend(states);
        Ok(vec![DeltaBatch::insertions(make_batch(&self.schema, columns, count)?)])
    }
}

#[async_trait]
impl Operator for PreAggregate {
    async fn step(&mut self, inputs: &[&[DeltaBatch]], _: &StepContext<'_>) -> Result<Delta> {
        let batches = inputs[0].iter().filter(|part| part.num_rows() > 0).map(|part| match &part.weights {
            Weights::Ones => Ok(part.batch.clone()),
            Weights::I64(_) => expand(part.batch.schema_ref(), part),
        });
        let batches = batches.collect::<Result<Vec<_>>>()?;
        self.aggregate(&batches)
    }
}
