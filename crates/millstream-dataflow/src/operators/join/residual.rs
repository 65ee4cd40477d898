//! The condition of a join beyond equal keys, evaluated on candidate pairs.

use crate::columns::{Narrowed, evaluate, make_batch};
use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::Schema;
use datafusion::common::DFSchema;
use datafusion::common::cast::as_boolean_array;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use millstream_plan::compile::compile;
use millstream_plan::graph::Node;
use std::ops::Range;
use std::sync::Arc;

/// The condition over the columns it reads: of the left side, then of the right side.
pub(crate) struct Residual {
    narrowed: Narrowed,
    /// By side: its columns among the narrowed ones.
    columns: [Vec<usize>; 2],
}

impl Residual {
    /// Compiles `filter`, which reads left columns, then right columns.
    pub(crate) fn new(filter: &Expr, filter_schema: &DFSchema, left: &Node, right: &Node, state: &SessionState) -> Result<Self> {
        let fields = left.schema.fields().iter().chain(right.schema.fields()).cloned().collect::<Vec<_>>();
        let wide = Arc::new(Schema::new(fields));
        if filter_schema.fields().len() != wide.fields().len() {
            return Err(DataflowError::internal("the join condition has other columns than the inputs"));
        }
        let narrowed = Narrowed::new(&[compile(filter, filter_schema, state)?], &wide)?;
        let width = left.schema.fields().len();
        let of = |range: Range<usize>| {
            let columns = narrowed.columns.iter().filter(|column| range.contains(column));
            columns.map(|column| column - range.start).collect()
        };
        let columns = [of(0..width), of(width..wide.fields().len())];
        Ok(Self { narrowed, columns })
    }

    /// The columns of a side that the condition reads.
    pub(crate) fn columns(&self, side: usize) -> &[usize] {
        &self.columns[side]
    }

    /// Which of `count` pairs meet the condition, given [`columns`](Self::columns) of both sides, a row per pair. No value is NULL.
    pub(crate) fn mask(&self, left: Vec<ArrayRef>, right: Vec<ArrayRef>, count: usize) -> Result<BooleanArray> {
        let candidates = make_batch(&self.narrowed.schema, left.into_iter().chain(right).collect(), count)?;
        let mask = evaluate(&self.narrowed.exprs[0], &candidates)?;
        let mask = as_boolean_array(&mask)?;
        Ok(if mask.null_count() == 0 { mask.clone() } else { prep_null_mask_filter(mask) })
    }
}

/// Keeps the values where the mask is true.
pub(crate) fn retain(values: &mut Vec<u32>, mask: &BooleanArray) {
    let mut row = 0;
    values.retain(|_| {
        row += 1;
        mask.value(row - 1)
    });
}
