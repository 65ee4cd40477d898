//! UNION ALL: the changes of all inputs, one after the other.
//!
//! **In**: any number of inputs with as many columns. **Out**: columns cast to the node's types. **State**: none.

use crate::columns::make_batch;
use crate::error::Result;
use crate::operator::{Operator, StepContext};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_plan::graph::Node;
use millstream_types::delta::{Delta, DeltaBatch};
use std::sync::Arc;

/// The operator.
pub(crate) struct Union {
    schema: SchemaRef,
}

impl Union {
    pub(crate) fn new(node: &Node) -> Self {
        Self { schema: Arc::clone(&node.schema) }
    }
}

#[async_trait]
impl Operator for Union {
    async fn step(&mut self, inputs: &[&[DeltaBatch]], _: &StepContext<'_>) -> Result<Delta> {
        let parts = inputs.iter().flat_map(|input| input.iter());
        parts.map(|part| Ok(part.with_batch(make_batch(&self.schema, part.batch.columns().to_vec(), part.num_rows())?))).collect()
    }
}
