//! The key columns of a join.

use crate::error::Result;
use crate::operators::key_exprs::KeyExprs;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use millstream_plan::graph::Node;

/// The key expressions of one side.
pub(crate) struct JoinKeys {
    exprs: KeyExprs,
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
        Ok(KeyExprs::of_join(on, left, right, state)?.map(|exprs| Self { exprs, null_equals_null }))
    }

    /// Types of the key columns.
    pub(crate) fn types(&self) -> &[DataType] {
        self.exprs.types()
    }

    /// The keys of the rows of `batch`.
    pub(crate) fn evaluate(&self, batch: &RecordBatch) -> Result<KeyColumns> {
        let columns = self.exprs.evaluate(batch)?;
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
