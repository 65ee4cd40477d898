//! The key columns of a join.

use crate::columns::evaluate;
use crate::error::Result;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::compile;
use millstream_plan::graph::Node;
use std::sync::Arc;

/// The key expressions of one side.
pub(crate) struct JoinKeys {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    /// Those of the right side, for both.
    types: Vec<DataType>,
    null_equals_null: bool,
}

/// The keys of a batch.
pub(crate) struct KeyColumns {
    /// One column per key.
    pub(crate) columns: Vec<ArrayRef>,
    /// Which rows have a NULL among their keys and so equal no other; `None` if no row has, or if NULL equals NULL.
    nulls: Option<BooleanArray>,
}

impl JoinKeys {
    /// The keys of the left and of the right side.
    pub(crate) fn of_both(
        on: &[(Expr, Expr)],
        left: &Node,
        right: &Node,
        null_equals_null: bool,
        state: &SessionState,
    ) -> Result<[Self; 2]> {
        let left_exprs = on.iter().map(|(key, _)| Ok(compile(key, &left.df_schema, state)?)).collect::<Result<Vec<_>>>()?;
        let right_exprs = on.iter().map(|(_, key)| Ok(compile(key, &right.df_schema, state)?)).collect::<Result<Vec<_>>>()?;
        let types: Vec<DataType> = right_exprs.iter().map(|key| key.data_type(&right.schema)).collect::<datafusion::common::Result<_>>()?;
        let side = |exprs| Self { exprs, types: types.clone(), null_equals_null };
        Ok([side(left_exprs), side(right_exprs)])
    }

    /// Types of the key columns.
    pub(crate) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The keys of the rows of `batch`.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<KeyColumns> {
        let mut columns = Vec::with_capacity(self.exprs.len());
        for (expr, data_type) in self.exprs.iter().zip(&self.types) {
            let column = evaluate(expr, batch)?;
            columns.push(if column.data_type() == data_type { column } else { cast(&column, data_type)? });
        }
        if self.null_equals_null || columns.iter().all(|column| column.logical_null_count() == 0) {
            return Ok(KeyColumns { columns, nulls: None });
        }
        let nulls: Vec<_> = columns.iter().filter_map(|column| column.logical_nulls()).collect();
        let mask = (0..batch.num_rows()).map(|row| Some(nulls.iter().any(|nulls| nulls.is_null(row))));
        let nulls = Some(BooleanArray::from_iter(mask));
        Ok(KeyColumns { columns, nulls })
    }
}

impl KeyColumns {
    /// Whether a row has a NULL key that equals no other.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.value(row))
    }
}
