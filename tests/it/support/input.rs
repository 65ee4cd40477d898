//! Rows from text: CSV in the order of the columns, or one JSON object per line.

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// A batch of `schema` from lines. A line that opens with `{` is JSON and may leave columns out; any other is CSV with all
/// columns, where `NULL` is a NULL and `"..."` takes a text as it is.
///
/// # Errors
/// A sentence that names the line.
pub(crate) fn batch(schema: &SchemaRef, lines: &[String]) -> Result<RecordBatch, String> {
    if lines.iter().any(|line| line.trim_start().starts_with('{')) {
        return json(schema, lines);
    }
    let width = schema.fields().len();
    let mut columns: Vec<Vec<Option<String>>> = vec![Vec::with_capacity(lines.len()); width];
    for line in lines {
        let cells = cells(line);
        if cells.len() != width {
            return Err(format!("the row `{line}` has {} values, the stream has {width} columns", cells.len()));
        }
        for (column, cell) in columns.iter_mut().zip(cells) {
            column.push(cell);
        }
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let arrays = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(values, field)| {
            let text: ArrayRef = Arc::new(StringArray::from(values));
            cast_with_options(&text, field.data_type(), &options).map_err(|error| format!("column \"{}\": {error}", field.name()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(schema), arrays).map_err(|error| error.to_string())
}

fn json(schema: &SchemaRef, lines: &[String]) -> Result<RecordBatch, String> {
    let mut decoder = arrow::json::ReaderBuilder::new(Arc::clone(schema))
        .with_strict_mode(true)
        .with_batch_size(lines.len().max(1))
        .build_decoder()
        .map_err(|error| error.to_string())?;
    decoder.decode(lines.join("\n").as_bytes()).map_err(|error| error.to_string())?;
    let batch = decoder.flush().map_err(|error| error.to_string())?;
    Ok(batch.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(schema))))
}

/// The values of a CSV line.
fn cells(line: &str) -> Vec<Option<String>> {
    let mut cells = Vec::new();
    let mut characters = line.chars().peekable();
    loop {
        let mut text = String::new();
        let mut quoted = false;
        if characters.peek() == Some(&'"') {
            quoted = true;
            characters.next();
            while let Some(character) = characters.next() {
                match character {
                    '"' if characters.peek() == Some(&'"') => {
                        characters.next();
                        text.push('"');
                    }
                    '"' => break,
                    other => text.push(other),
                }
            }
        }
        while let Some(character) = characters.next_if(|character| *character != ',') {
            text.push(character);
        }
        let value = if quoted { text } else { text.trim().to_string() };
        cells.push((quoted || value != "NULL").then_some(value));
        if characters.next().is_none() {
            return cells;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cells;

    #[test]
    fn splits_csv() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(cells("1, x ,NULL,\"a,\"\"b\",\"NULL\","), [some("1"), some("x"), None, some("a,\"b"), some("NULL"), some("")]);
    }
}
