//! Map: filter and projection.
//!
//! ```sql
//! SELECT price * 2 AS doubled FROM bids WHERE price > 10
//! ```
//! Keeps the rows for which all predicates are true (NULL is not), then evaluates the output expressions, by calling the physical
//! expressions directly: no plan runs. Only columns that the expressions read are filtered. Where an expression works on text row by
//! row (functions, LIKE, regular expressions), the rows of a large change are divided among the cores; their order stays.
//!
//! **In**: any schema. **Out**: the expressions, or the input columns. **Changelog**: weights pass. **State**: none.

use crate::columns::{Narrowed, evaluate, make_batch};
use crate::divide::divided;
use crate::error::Result;
use crate::operator::{Operator, StepContext};
use crate::operators::registry::BuildContext;
use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::cast::as_boolean_array;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::expressions::LikeExpr;
use datafusion::physical_expr::{ScalarFunctionExpr, conjunction};
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::{compile_all, with_checked_arithmetic};
use millstream_plan::graph::Node;
use millstream_types::delta::{Delta, DeltaBatch};
use std::sync::Arc;

/// The operator.
pub(crate) struct Map {
    program: Arc<Program>,
    /// Into how many pieces a large change is divided.
    pieces: usize,
}

/// What happens to each row.
struct Program {
    schema: SchemaRef,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    projection: Option<Narrowed>,
}

impl Map {
    pub(crate) fn new(node: &Node, predicates: &[Expr], exprs: Option<&[Expr]>, context: &BuildContext<'_>) -> Result<Self> {
        let input = context.input(node, 0);
        let predicates = compile_all(predicates, &input.df_schema, context.state)?;
        let exprs = exprs.map(|exprs| compile_all(exprs, &input.df_schema, context.state)).transpose()?;
        let costly = predicates.iter().chain(exprs.iter().flatten()).any(|expr| works_on_text(expr, &input.schema));
        let pieces = if costly { std::thread::available_parallelism().map_or(1, usize::from) } else { 1 };
        // One expression: DataFusion's AND evaluates its right side only on the rows that the left side leaves.
        let predicate = if predicates.is_empty() { None } else { Some(with_checked_arithmetic(conjunction(predicates))?) };
        let projection = exprs.map(|exprs| Narrowed::new(&exprs, &input.schema)).transpose()?;
        Ok(Self { program: Arc::new(Program { schema: Arc::clone(&node.schema), predicate, projection }), pieces })
    }
}

impl Program {
    fn map_all(&self, delta: &[DeltaBatch]) -> Result<Delta> {
        delta.iter().filter_map(|part| self.map(part).transpose()).collect()
    }

    /// Which rows pass; `None` if all do.
    fn mask(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(predicate) = &self.predicate else { return Ok(None) };
        let values = evaluate(predicate, batch)?;
        let values = as_boolean_array(&values)?;
        let mask = if values.null_count() > 0 { prep_null_mask_filter(values) } else { values.clone() };
        Ok((mask.true_count() < mask.len()).then_some(mask))
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

/// Whether an expression calls a function that reads or makes text, or matches a pattern.
fn works_on_text(expr: &Arc<dyn PhysicalExpr>, schema: &SchemaRef) -> bool {
    let is_text = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(schema).is_ok_and(|data_type| data_type.is_string());
    let itself = expr.is::<LikeExpr>() || expr.is::<ScalarFunctionExpr>() && (is_text(expr) || expr.children().into_iter().any(is_text));
    itself || expr.children().into_iter().any(|child| works_on_text(child, schema))
}

#[async_trait]
impl Operator for Map {
    async fn step(&mut self, inputs: &[&[DeltaBatch]], _: &StepContext<'_>) -> Result<Delta> {
        let mut pieces = divided(inputs[0], self.pieces).into_iter();
        let first = pieces.next().unwrap_or_default();
        let others: Vec<_> = pieces
            .map(|piece| {
                let program = Arc::clone(&self.program);
                SpawnedTask::spawn_blocking(move || program.map_all(&piece))
            })
            .collect();
        let mut result = self.program.map_all(&first)?;
        for other in others {
            result.extend(other.join_unwind().await.map_err(|error| DataFusionError::External(Box::new(error)))??);
        }
        Ok(result)
    }
}
