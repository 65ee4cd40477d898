//! Dividing the rows of a batch among threads, for expressions that are worth it.
//!
//! Functions that read or make text, and LIKE, take tens of nanoseconds a row and more, where arithmetic takes one. Over a large batch
//! such an expression is evaluated on all cores, each on a run of rows; the values come together in the order of the rows.

use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::Schema;
use datafusion::physical_expr::ScalarFunctionExpr;
use datafusion::physical_expr::expressions::LikeExpr;
use datafusion::physical_plan::PhysicalExpr;
use millstream_types::cores;
use std::sync::Arc;

/// A thread is not worth its start for fewer rows.
const PIECE_ROWS: usize = 8_192;

/// Into how many pieces `batch` should be divided for `expr`.
pub(crate) fn pieces(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> usize {
    let most = batch.num_rows() / PIECE_ROWS;
    if most < 2 || !works_on_text(expr, batch.schema_ref()) {
        return 1;
    }
    most.min(cores())
}

/// Whether an expression calls a function that reads or makes text, or matches a pattern.
fn works_on_text(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let is_text = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(schema).is_ok_and(|data_type| data_type.is_string());
    let itself = expr.is::<LikeExpr>() || expr.is::<ScalarFunctionExpr>() && (is_text(expr) || expr.children().into_iter().any(is_text));
    itself || expr.children().into_iter().any(|child| works_on_text(child, schema))
}

/// The values of `expr` for the rows of `batch`, by as many threads as there are pieces; this one is one of them.
pub(crate) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch, pieces: usize) -> Result<ArrayRef> {
    let size = batch.num_rows().div_ceil(pieces.max(1)).max(1);
    let runs: Vec<RecordBatch> =
        (0..batch.num_rows()).step_by(size).map(|from| batch.slice(from, size.min(batch.num_rows() - from))).collect();
    let values = |run: &RecordBatch| -> Result<ArrayRef> { Ok(expr.evaluate(run)?.into_array(run.num_rows())?) };
    let (Some(first), others) = (runs.first(), runs.get(1..).unwrap_or_default()) else { return values(batch) };
    let arrays = std::thread::scope(|scope| -> Result<Vec<ArrayRef>> {
        let others: Vec<_> = others.iter().map(|run| scope.spawn(|| values(run))).collect();
        let mut arrays = vec![values(first)?];
        for other in others {
            let array = other.join().map_err(|_| DataflowError::internal(format!("a thread that evaluated {expr} ended early")))?;
            arrays.push(array?);
        }
        Ok(arrays)
    })?;
    Ok(concat(&arrays.iter().map(|array| array as &dyn Array).collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::state;
    use arrow::array::{Int64Array, StringViewArray};
    use datafusion::common::DFSchema;
    use datafusion::functions::expr_fn::{concat as concat_text, upper};
    use datafusion::prelude::{cast, col, lit};
    use millstream_plan::compile::compile;

    fn batch(rows: i64) -> RecordBatch {
        let names = StringViewArray::from_iter((0..rows).map(|row| (row % 7 > 0).then(|| format!("name {row}"))));
        let columns: [(&str, ArrayRef); 2] = [("v", Arc::new(Int64Array::from_iter_values(0..rows))), ("name", Arc::new(names))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).expect("two columns")
    }

    fn compiled(expr: datafusion::logical_expr::Expr, batch: &RecordBatch) -> Arc<dyn PhysicalExpr> {
        let schema = DFSchema::try_from(batch.schema().as_ref().clone()).expect("a schema");
        compile(&expr, &schema, &state()).expect("it compiles")
    }

    #[test]
    fn pieces_come_together_in_order() {
        let batch = batch(100_003);
        for expr in [upper(col("name")), concat_text(vec![lit("x"), col("name")])] {
            let expr = compiled(expr, &batch);
            let whole = expr.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap();
            for pieces in [1, 2, 3, 7] {
                assert_eq!(&evaluate(&expr, &batch, pieces).unwrap(), &whole, "{pieces}");
            }
        }
    }

    #[test]
    fn an_error_of_any_piece_is_the_error() {
        let batch = batch(40_000);
        let expr = compiled(cast(upper(col("name")), arrow::datatypes::DataType::Int64), &batch);
        assert!(evaluate(&expr, &batch, 2).is_err());
    }

    #[test]
    fn only_large_batches_and_text_are_divided() {
        let (large, small) = (batch(100_000), batch(1_000));
        let many = cores().min(12);
        assert_eq!(pieces(&compiled(upper(col("name")), &large), &large), many);
        assert_eq!(pieces(&compiled(upper(col("name")), &small), &small), 1);
        assert_eq!(pieces(&compiled(col("v") + lit(1_i64), &large), &large), 1);
    }
}
