//! `text` and `raw`: one column, a row per line.

use super::column::Column;
use super::{Format, FormatOptions, Input, Line, Rows};
use crate::error::{ConnectorError, Result};
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, SchemaRef};

/// Decodes lines into the one column there is.
#[derive(Debug)]
pub(crate) struct TextDecoder {
    /// `None` when the column is not asked for.
    column: Option<Column>,
    binary: bool,
}

impl TextDecoder {
    pub(crate) fn new(schema: &SchemaRef, selected: &[usize], options: &FormatOptions) -> Result<Self> {
        let name = options.format.name();
        let wanted = if options.format == Format::Raw { "BYTEA" } else { "VARCHAR" };
        let [field] = schema.fields().as_ref() else {
            return Err(ConnectorError::invalid(
                format!("the format {name} needs exactly one column, found {}", schema.fields().len()),
                format!("Declare a single {wanted} column; other columns can be computed from it."),
            ));
        };
        let binary = matches!(field.data_type(), DataType::Binary | DataType::BinaryView);
        let text = matches!(field.data_type(), DataType::Utf8 | DataType::Utf8View);
        if !(binary || text && options.format == Format::Text) {
            return Err(ConnectorError::invalid(
                format!(
                    "column \"{}\" has type {}, but the format {name} needs a {wanted} column",
                    field.name(),
                    super::sql_type(field.data_type())
                ),
                format!("Declare it as {wanted} and cast it in the query."),
            ));
        }
        let column = if selected.is_empty() { None } else { Some(Column::new(field, name)?) };
        Ok(Self { column, binary })
    }

    pub(crate) fn decode(&mut self, bytes: &[u8], lines: &[Line], rows: &mut Rows) -> Result<Vec<ArrayRef>> {
        let Some(column) = &mut self.column else { return Ok(Vec::new()) };
        if self.binary {
            for (index, line) in lines.iter().enumerate() {
                let taken = match line.oversized {
                    None => column.push_bytes(line.of(bytes)).is_ok(),
                    Some(length) => {
                        let reason = format!("the row has {length} bytes, more than the limit \"max_row_bytes\" allows");
                        rows.bad(index, line, bytes, reason);
                        false
                    }
                };
                if !taken {
                    column.pad(index + 1);
                }
            }
            return Ok(vec![column.finish()?]);
        }
        let input = Input::new(bytes, lines);
        let timestamps = super::TimestampFormat::Iso;
        for (index, line) in lines.iter().enumerate() {
            if let Some(text) = rows.text(index, line, &input) {
                // A text column takes any text.
                if let Err(misfit) = column.push(super::column::Token::Text, text, &timestamps) {
                    let reason = misfit.reason(column.field.name(), text, column.field.data_type());
                    rows.bad(index, line, bytes, reason);
                }
            }
            column.pad(index + 1);
        }
        Ok(vec![column.finish()?])
    }
}
