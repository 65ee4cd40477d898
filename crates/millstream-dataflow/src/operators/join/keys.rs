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

/// By side and column: the column of the other side that has the same value in each pair of rows that the keys let meet.
pub(super) fn same_columns(on: &[(Expr, Expr)], left: &Node, right: &Node) -> [Vec<Option<usize>>; 2] {
    let mut same = [left, right].map(|side| vec![None; side.schema.fields().len()]);
    for pair in on {
        let (Expr::Column(left_key), Expr::Column(right_key)) = pair else { continue };
        let (Ok(from), Ok(to)) = (left.df_schema.index_of_column(left_key), right.df_schema.index_of_column(right_key)) else { continue };
        let types = [left.schema.field(from).data_type(), right.schema.field(to).data_type()];
        if types[0] == types[1] && equal_is_same(types[0]) {
            same[0][from] = Some(to);
            same[1][to] = Some(from);
        }
    }
    same
}

/// Whether equal values of a type are the same value. Floats have two zeros.
fn equal_is_same(data_type: &DataType) -> bool {
    !(data_type.is_floating() || data_type.is_nested() || matches!(data_type, DataType::Dictionary(..) | DataType::RunEndEncoded(..)))
}

impl KeyColumns {
    /// Whether a row has a NULL key that equals no other.
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.value(row))
    }
}
