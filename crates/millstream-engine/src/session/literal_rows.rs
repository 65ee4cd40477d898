//! `VALUES` with nothing but literals: rows as they are written, without a plan.
//!
//! Single rows that drivers insert are such lists. **In**: numbers, texts, truth values, NULL, and casts of texts to the very type of the
//! column (what parameters become). **Out**: columns as planning would give them. Whatever else is written, or does not fit, is left to
//! planning, which knows more and says what is wrong.

use super::bound::scalar;
use crate::sql_types::ast_type;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::ScalarValue;
use sqlparser::ast::{Expr, Query, SetExpr, UnaryOperator, Value};
use std::cell::LazyCell;
use std::sync::Arc;

/// The rows of a list of literals for these columns, if it is one.
pub(super) fn literal_rows(query: &Query, columns: &[&Field]) -> Option<RecordBatch> {
    let Query { with: None, body, order_by: None, limit_clause: None, fetch: None, .. } = query else { return None };
    let SetExpr::Values(values) = body.as_ref() else { return None };
    if values.rows.is_empty() || values.rows.iter().any(|row| row.content.len() != columns.len()) || !query.pipe_operators.is_empty() {
        return None;
    }
    let column = |(index, field): (usize, &&Field)| column(values.rows.iter().map(|row| &row.content[index]), field);
    let arrays: Vec<ArrayRef> = columns.iter().enumerate().map(column).collect::<Option<_>>()?;
    let fields: Vec<Field> =
        columns.iter().zip(&arrays).map(|(field, array)| Field::new(field.name(), array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()
}

/// The values of a column, if all of them but NULL have one type.
fn column<'a>(values: impl Iterator<Item = &'a Expr>, field: &Field) -> Option<ArrayRef> {
    let written = LazyCell::new(|| ast_type(field.data_type()).ok());
    let value = |expr: &Expr| match expr {
        Expr::Cast { data_type, .. } if written.as_ref() != Some(data_type) => None,
        Expr::Cast { .. } => scalar(expr, field.data_type()),
        expr => literal(expr),
    };
    let mut scalars = values.map(value).collect::<Option<Vec<ScalarValue>>>()?;
    let known = scalars.iter().map(ScalarValue::data_type).find(|data_type| *data_type != DataType::Null);
    if let Some(known) = &known {
        let null = ScalarValue::try_from(known).ok()?;
        for value in &mut scalars {
            match value.data_type() {
                DataType::Null => *value = null.clone(),
                other if other != *known => return None,
                _ => {}
            }
        }
    }
    ScalarValue::iter_to_array(scalars).ok()
}

/// A literal without a type of its own.
fn literal(expr: &Expr) -> Option<ScalarValue> {
    let (expr, sign) = match expr {
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => (expr.as_ref(), "-"),
        expr => (expr, ""),
    };
    let Expr::Value(value) = expr else { return None };
    match &value.value {
        // What is no whole number of 64 bits is a decimal, whose type depends on how it is written.
        Value::Number(digits, _) => Some(ScalarValue::Int64(Some(format!("{sign}{digits}").parse().ok()?))),
        _ if !sign.is_empty() => None,
        Value::SingleQuotedString(text) => Some(ScalarValue::Utf8(Some(text.clone()))),
        Value::Boolean(value) => Some(ScalarValue::Boolean(Some(*value))),
        Value::Null => Some(ScalarValue::Null),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;

    fn rows(values: &str) -> Option<String> {
        let (id, word, day) = (Field::new("id", DataType::Int64, false), Field::new("word", DataType::Utf8View, true), day());
        let query = millstream_sql::parse_query(values).unwrap();
        literal_rows(&query, &[&id, &word, &day]).map(|batch| pretty_format_batches(&[batch]).unwrap().to_string())
    }

    fn day() -> Field {
        Field::new("day", DataType::Date32, true)
    }

    #[test]
    fn literals_are_columns() {
        let text =
            rows("VALUES (1, 'it''s', NULL), (-2, NULL, CAST('2026-11-27' AS DATE)), (CAST('3' AS BIGINT), 'x', CAST(NULL AS DATE))");
        assert_eq!(
            text.unwrap(),
            "\
+----+------+------------+
| id | word | day        |
+----+------+------------+
| 1  | it's |            |
| -2 |      | 2026-11-27 |
| 3  | x    |            |
+----+------+------------+"
        );
    }

    #[test]
    fn what_is_no_literal_is_planned() {
        for values in [
            "VALUES (1 + 1, 'a', NULL)",
            "VALUES (1.5, 'a', NULL)",
            "VALUES (9223372036854775808, 'a', NULL)",
            "VALUES (1, 'a', CAST('2026-13-27' AS DATE))",
            "VALUES (CAST('1' AS INT), 'a', NULL)",
            "VALUES (1, 2, NULL), (2, 'a', NULL)",
            "VALUES (1, 'a')",
            "VALUES (1, 'a', NULL) LIMIT 0",
            "SELECT 1, 'a', NULL",
        ] {
            assert_eq!(rows(values), None, "{values}");
        }
    }
}
