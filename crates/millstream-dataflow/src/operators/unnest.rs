//! UNNEST: one row per element of a list.
//!
//! ```text
//!   (7, [a, b], 1)  ─▶  (7, a, 1), (7, b, 1)         weights go with the rows
//! ```
//! A single list is unnested with `take`; several lists, nested depths and structs run DataFusion's `UnnestExec` over the batch with a
//! row number as a last column, by which the weights find their rows.
//!
//! **In**: any schema. **Out**: the plan's schema. **Changelog**: a retraction yields the retractions of its elements. **State**: none.

use crate::columns::{make_batch, take_columns};
use crate::error::{DataflowError, Result};
use crate::operator::{Operator, StepContext};
use crate::operators::constant::run;
use crate::operators::registry::BuildContext;
use arrow::array::{Array, ArrayRef, AsArray, OffsetSizeTrait, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::common::NullHandling;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{LogicalPlan, Unnest as UnnestPlan};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use millstream_plan::graph::Node;
use millstream_plan::leaf::{LeafExec, LeafSlot};
use millstream_types::delta::{Delta, DeltaBatch, Weights};
use std::sync::Arc;

const ROW: &str = "__row";

/// The operator.
pub(crate) struct Unnest {
    schema: SchemaRef,
    form: Form,
}

enum Form {
    /// One list column of depth one.
    Single { column: usize, nulls: NullHandling },
    /// Anything else.
    General { plan: Arc<dyn ExecutionPlan>, leaf: Arc<LeafSlot>, leaf_schema: SchemaRef, schema: SchemaRef },
}

impl Unnest {
    pub(crate) fn new(node: &Node, plan: &Arc<LogicalPlan>, context: &BuildContext<'_>) -> Result<Self> {
        let LogicalPlan::Unnest(unnest) = plan.as_ref() else {
            return Err(DataflowError::internal(format!("expected an unnest plan, found {}", plan.display())));
        };
        let input = &context.input(node, 0).schema;
        let form = match unnest.list_type_columns.as_slice() {
            [(column, list)]
                if list.depth == 1
                    && unnest.struct_type_columns.is_empty()
                    && matches!(input.field(*column).data_type(), DataType::List(_) | DataType::LargeList(_)) =>
            {
                Form::Single { column: *column, nulls: unnest.options.null_handling }
            }
            _ => general(unnest, input)?,
        };
        Ok(Self { schema: Arc::clone(&node.schema), form })
    }

    async fn unnest(&self, part: &DeltaBatch, task: &Arc<TaskContext>) -> Result<Vec<DeltaBatch>> {
        match &self.form {
            Form::Single { column, nulls } => {
                let list = part.batch.column(*column);
                let (rows, values) = match list.data_type() {
                    DataType::LargeList(_) => flatten(list, list.as_list::<i64>().value_offsets(), list.as_list::<i64>().values(), nulls)?,
                    _ => flatten(list, list.as_list::<i32>().value_offsets(), list.as_list::<i32>().values(), nulls)?,
                };
                let mut columns = Vec::with_capacity(part.batch.num_columns());
                for (index, array) in part.batch.columns().iter().enumerate() {
                    columns.push(if index == *column { Arc::clone(&values) } else { take(array, &rows, None)? });
                }
                let batch = make_batch(&self.schema, columns, rows.len())?;
                Ok(vec![DeltaBatch { batch, weights: take_weights(&part.weights, &rows)? }])
            }
            Form::General { plan, leaf, leaf_schema, schema } => {
                let mut columns = part.batch.columns().to_vec();
                columns.push(Arc::new(arrow::array::Int64Array::from_iter_values(0..part.num_rows() as i64)));
                leaf.set(vec![make_batch(leaf_schema, columns, part.num_rows())?]);
                let batches = run(&reset_plan_states(Arc::clone(plan))?, schema, task).await;
                leaf.clear();
                batches?
                    .into_iter()
                    .map(|batch| {
                        let mut columns = batch.columns().to_vec();
                        let rows = columns.pop().ok_or_else(|| DataflowError::internal("the row number is gone"))?;
                        let rows = UInt32Array::from_iter_values(rows.as_primitive::<Int64Type>().values().iter().map(|row| *row as u32));
                        let batch = make_batch(&self.schema, columns, rows.len())?;
                        Ok(DeltaBatch { batch, weights: take_weights(&part.weights, &rows)? })
                    })
                    .collect()
            }
        }
    }
}

fn general(unnest: &UnnestPlan, input: &SchemaRef) -> Result<Form> {
    let with_row = |schema: &Schema| {
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(Field::new(ROW, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    };
    // `UnnestExec` finds the columns it copies by name, so the leaf takes its names from the plan, not from the input's batches.
    let leaf_schema = with_row(unnest.input.schema().as_arrow());
    if leaf_schema.fields().len() != input.fields().len() + 1 {
        return Err(DataflowError::internal("the unnest plan and its input have different columns"));
    }
    let schema = with_row(unnest.schema.as_arrow());
    let leaf = LeafSlot::new();
    let lists = unnest.list_type_columns.iter();
    let lists = lists.map(|(index, list)| ListUnnest { index_in_input_schema: *index, depth: list.depth }).collect();
    let input = Arc::new(LeafExec::new(0, Arc::clone(&leaf_schema), Arc::clone(&leaf)));
    let plan = UnnestExec::new(input, lists, unnest.struct_type_columns.clone(), Arc::clone(&schema), unnest.options.clone())?;
    Ok(Form::General { plan: Arc::new(plan), leaf, leaf_schema, schema })
}

/// The row of each element, and the elements.
fn flatten<O: OffsetSizeTrait>(list: &ArrayRef, offsets: &[O], values: &ArrayRef, nulls: &NullHandling) -> Result<(UInt32Array, ArrayRef)> {
    let mut rows: Vec<u32> = Vec::with_capacity(values.len());
    let mut elements: Vec<Option<u32>> = Vec::with_capacity(values.len());
    for row in 0..list.len() {
        let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
        let padded = match nulls {
            NullHandling::Drop => false,
            NullHandling::Preserve => list.is_null(row),
            NullHandling::PreserveAndExpandEmpty => list.is_null(row) || start == end,
        };
        if padded {
            rows.push(row as u32);
            elements.push(None);
        } else if !list.is_null(row) {
            rows.extend(std::iter::repeat_n(row as u32, end - start));
            elements.extend((start..end).map(|element| Some(element as u32)));
        }
    }
    // Usually the elements are a contiguous range of the values.
    let first = elements.first().copied().flatten();
    let values = match first {
        Some(first) if elements.iter().enumerate().all(|(index, element)| *element == Some(first + index as u32)) => {
            values.slice(first as usize, elements.len())
        }
        _ => take(values, &UInt32Array::from(elements), None)?,
    };
    Ok((UInt32Array::from(rows), values))
}

fn take_weights(weights: &Weights, rows: &UInt32Array) -> Result<Weights> {
    Ok(match weights {
        Weights::Ones => Weights::Ones,
        Weights::I64(weights) => {
            let column: ArrayRef = Arc::new(weights.clone());
            Weights::I64(take_columns(&[column], rows)?[0].as_primitive::<Int64Type>().clone())
        }
    })
}

#[async_trait]
impl Operator for Unnest {
    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let mut output = Vec::new();
        for part in inputs[0] {
            output.extend(self.unnest(part, context.task).await?);
        }
        output.retain(|part| part.num_rows() > 0);
        Ok(output)
    }
}
