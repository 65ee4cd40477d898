//! Input: the change of a relation, with the columns the query reads.
//!
//! **In**: the relation's delta, whose batches hold at least the named columns, in any order. **Out**: those columns in the node's
//! order. **State**: none.

use crate::columns::make_batch;
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, StepContext};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_plan::graph::Node;
use millstream_types::delta::{Delta, DeltaBatch};
use std::sync::Arc;

/// The operator.
pub(crate) struct Input {
    relation: String,
    columns: Vec<String>,
    schema: SchemaRef,
    /// Where the columns are in batches of the schema seen last. Holding the schema keeps its address from being reused.
    mapping: Option<(SchemaRef, Vec<usize>)>,
}

impl Input {
    pub(crate) fn new(node: &Node, relation: &str, columns: &[String]) -> Self {
        Self { relation: relation.to_string(), columns: columns.to_vec(), schema: Arc::clone(&node.schema), mapping: None }
    }

    fn indices(&mut self, schema: &SchemaRef) -> Result<&[usize]> {
        if !self.mapping.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, schema)) {
            let indices = self
                .columns
                .iter()
                .map(|column| {
                    schema.fields().iter().position(|field| field.name() == column).ok_or_else(|| {
                        DataflowError::internal(format!("the change of relation \"{}\" lacks column \"{column}\"", self.relation))
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            self.mapping = Some((Arc::clone(schema), indices));
        }
        Ok(self.mapping.as_ref().map_or(&[], |(_, indices)| indices.as_slice()))
    }
}

#[async_trait]
impl Operator for Input {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        Ok(context.deltas.get(&self.relation).is_some_and(|delta| !delta.is_empty()))
    }

    async fn step(&mut self, _: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let Some(delta) = context.deltas.get(&self.relation) else { return Ok(vec![]) };
        let mut output = Vec::with_capacity(delta.len());
        for part in delta.iter().filter(|part| part.num_rows() > 0) {
            let indices = self.indices(&part.batch.schema())?;
            let columns = indices.iter().map(|index| Arc::clone(part.batch.column(*index))).collect();
            output.push(part.with_batch(make_batch(&self.schema, columns, part.num_rows())?));
        }
        Ok(output)
    }
}
