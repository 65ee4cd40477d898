//! Values for the parameters of a statement.

use super::Session;
use crate::error::Result;
use crate::guard::guarded;
use crate::result::StatementResult;
use crate::spans::noting_failure;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use millstream_sql::Statement;
use millstream_sql::statement::{Emit, QueryStatement};
use sqlparser::ast::{Expr, Value};

/// A value for a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct BoundValue {
    /// The expression that stands for it in the statement.
    pub literal: Expr,
    /// Its type.
    pub data_type: DataType,
}

impl BoundValue {
    /// The value itself, where the literal is one of a plain type: text, NULL, or a cast of these.
    pub(super) fn scalar(&self) -> Option<ScalarValue> {
        scalar(&self.literal, &self.data_type)
    }
}

/// The value of a text or NULL, or of a cast of these, that has this type.
pub(super) fn scalar(literal: &Expr, data_type: &DataType) -> Option<ScalarValue> {
    let literal = match literal {
        Expr::Cast { expr, .. } => expr.as_ref(),
        literal => literal,
    };
    let Expr::Value(value) = literal else { return None };
    match &value.value {
        Value::Null => ScalarValue::try_from(data_type).ok(),
        Value::SingleQuotedString(text) => ScalarValue::Utf8(Some(text.clone())).cast_to(data_type).ok(),
        _ => None,
    }
}

impl Session {
    /// Carries out a statement with values for its parameters. A query that differs from one before in nothing but these values is not
    /// planned again.
    ///
    /// # Errors
    /// As [`Session::execute`].
    pub async fn execute_bound(&self, mut statement: Statement, values: &[BoundValue]) -> Result<StatementResult> {
        if let Statement::Query(QueryStatement { query, emit: Emit::None }) = &statement {
            let work = async {
                self.authorize(&statement)?;
                self.check_transaction(&statement)?;
                guarded("the statement", Box::pin(self.select(query, values))).await
            };
            return noting_failure(self.span_of(&statement), work).await;
        }
        statement.replace_parameters(&mut |index| values.get(index).map(|value| value.literal.clone()))?;
        self.execute_parsed(statement).await
    }
}
