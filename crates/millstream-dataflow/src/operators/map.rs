//! Map: filter and projection.
//!
//! ```sql
//! SELECT price * 2 AS doubled FROM bids WHERE price > 10
//! ```
//! Keeps the rows for which all predicates are true (NULL is not), then evaluates the output expressions, by calling the physical
//! expressions directly: no plan runs. Only columns that the expressions read are filtered.
//!
//! **In**: any schema. **Out**: the expressions, or the input columns. **Changelog**: weights pass. **State**: none.

use crate::columns::{Narrowed, describe_row, evaluate, make_batch};
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, StepContext};
use crate::operators::registry::BuildContext;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::cast::as_boolean_array;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::conjunction;
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::{compile_all, with_checked_arithmetic};
use millstream_plan::graph::Node;
use millstream_types::delta::{Delta, DeltaBatch};
use std::sync::Arc;

/// The operator.
pub(crate) struct Map {
    schema: SchemaRef,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    projection: Option<Narrowed>,
}

impl Map {
    pub(crate) fn new(node: &Node, predicates: &[Expr], exprs: Option<&[Expr]>, context: &BuildContext<'_>) -> Result<Self> {
        let input = context.input(node, 0);
        let predicates = compile_all(predicates, &input.df_schema, context.state)?;
        // One expression: DataFusion's AND evaluates its right side only on the rows that the left side leaves.
        let predicate = if predicates.is_empty() { None } else { Some(with_checked_arithmetic(conjunction(predicates))?) };
        let projection = match exprs {
            Some(exprs) => Some(Narrowed::new(&compile_all(exprs, &input.df_schema, context.state)?, &input.schema)?),
            None => None,
        };
        Ok(Self { schema: Arc::clone(&node.schema), predicate, projection })
    }

    /// Which rows pass; `None` if all do.
    fn mask(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(predicate) = &self.predicate else { return Ok(None) };
        let values = evaluate(predicate, batch)?;
        let values = as_boolean_array(&values)?;
        let mask = if values.null_count() > 0 { prep_null_mask_filter(values) } else { values.clone() };
        Ok((mask.true_count() < mask.len()).then_some(mask))
    }

    /// The error with the first row on which the expressions fail.
    fn at_row(&self, part: &DeltaBatch, error: DataflowError) -> DataflowError {
        let rows_of = |from: usize, rows: usize| DeltaBatch::insertions(part.batch.slice(from, rows));
        let (mut from, mut rows) = (0, part.num_rows());
        while rows > 1 {
            let half = rows / 2;
            match self.map(&rows_of(from, half)) {
                Err(_) => rows = half,
                Ok(_) => (from, rows) = (from + half, rows - half),
            }
        }
        match self.map(&rows_of(from, rows)) {
            Err(DataflowError::Expression { operator, source, .. }) => {
                let row = describe_row(part.batch.schema_ref(), part.batch.columns(), from);
                DataflowError::Expression { operator, row: Some(row), source }
            }
            _ => error,
        }
    }

    fn map(&self, part: &DeltaBatch) -> Result<Option<DeltaBatch>> {
        let mask = self.mask(&part.batch)?;
        let narrow = match &self.projection {
            Some(projection) => part.with_batch(part.batch.project(&projection.columns)?),
            None => part.clone(),
        };
        let narrow = match &mask {
            Some(mask) => narrow.filter(mask)?,
            None => narrow,
        };
        if narrow.num_rows() == 0 {
            return Ok(None);
        }
        let columns = match &self.projection {
            Some(projection) => projection.exprs.iter().map(|expr| evaluate(expr, &narrow.batch)).collect::<Result<Vec<_>>>()?,
            None => narrow.batch.columns().to_vec(),
        };
        Ok(Some(narrow.with_batch(make_batch(&self.schema, columns, narrow.num_rows())?)))
    }
}

#[async_trait]
impl Operator for Map {
    async fn step(&mut self, inputs: &[&[DeltaBatch]], _: &StepContext<'_>) -> Result<Delta> {
        let mapped = |part| self.map(part).map_err(|error| self.at_row(part, error));
        inputs[0].iter().filter_map(|part| mapped(part).transpose()).collect()
    }
}
