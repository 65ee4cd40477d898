//! The key expressions of an input of an operator.

use crate::columns::evaluate;
use crate::error::Result;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::compile;
use millstream_plan::graph::Node;
use std::sync::Arc;

/// Expressions with the types that their values have as keys.
pub(super) struct KeyExprs {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    types: Vec<DataType>,
}

impl KeyExprs {
    /// Expressions over the rows of `input`, with their own types.
    pub(super) fn new<'a>(exprs: impl IntoIterator<Item = &'a Expr>, input: &Node, state: &SessionState) -> Result<Self> {
        let exprs = exprs.into_iter().map(|key| Ok(compile(key, &input.df_schema, state)?)).collect::<Result<Vec<_>>>()?;
        let types = exprs.iter().map(|key| key.data_type(&input.schema)).collect::<datafusion::common::Result<_>>()?;
        Ok(Self { exprs, types })
    }

    /// The keys of the two sides of a join. The types of the right side are those of both.
    pub(super) fn of_join(on: &[(Expr, Expr)], left: &Node, right: &Node, state: &SessionState) -> Result<[Self; 2]> {
        let right = Self::new(on.iter().map(|(_, key)| key), right, state)?;
        let mut left = Self::new(on.iter().map(|(key, _)| key), left, state)?;
        left.types.clone_from(&right.types);
        Ok([left, right])
    }

    /// Types of the key columns.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The key columns of a batch.
    pub(super) fn evaluate(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |(expr, data_type): (&Arc<dyn PhysicalExpr>, &DataType)| {
            let column = evaluate(expr, batch)?;
            Ok(if column.data_type() == data_type { column } else { cast(&column, data_type)? })
        };
        self.exprs.iter().zip(&self.types).map(column).collect()
    }
}
