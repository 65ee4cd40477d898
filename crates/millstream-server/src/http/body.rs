//! Rows as the body of an answer, written while they are computed.
//!
//! An answer that has begun cannot become a failure any more. JSON and NDJSON then end with an `error`; a body of CSV or Arrow is cut
//! off, which clients see as a broken transfer.

use super::failure::ErrorBody;
use crate::error::RequestError;
use crate::rows::RowSource;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{LineDelimited, WriterBuilder};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use millstream_engine::sql_types::sql_type;
use std::io;

/// The forms of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One object with `columns` and `rows`.
    Json,
    /// One object per line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Form {
    const ALL: [(&'static str, Form); 7] = [
        ("application/json", Form::Json),
        ("*/*", Form::Json),
        ("application/*", Form::Json),
        ("application/x-ndjson", Form::Ndjson),
        ("application/jsonl", Form::Ndjson),
        ("text/csv", Form::Csv),
        ("application/vnd.apache.arrow.stream", Form::Arrow),
    ];

    /// The first form of an `Accept` header that is known.
    pub(super) fn accepted(accept: Option<&str>) -> Option<Self> {
        let Some(accept) = accept else { return Some(Form::Json) };
        let of = |part: &str| {
            let name = part.split(';').next().unwrap_or_default().trim().to_lowercase();
            Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, form)| *form)
        };
        accept.split(',').find_map(of)
    }

    /// Its media type.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Ndjson => "application/x-ndjson",
            Form::Csv => "text/csv; charset=utf-8",
            Form::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// The rows of a batch as JSON, one object per line.
///
/// # Errors
/// When a column has a type JSON cannot carry.
pub(super) fn json_lines(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(&mut bytes);
    writer.write(batch)?;
    writer.finish()?;
    Ok(bytes)
}

/// What writes rows in a form.
struct Rendering {
    form: Form,
    schema: SchemaRef,
    epoch: Option<u64>,
    arrow: Option<StreamWriter<Vec<u8>>>,
    rows: u64,
}

impl Rendering {
    fn begin(&mut self) -> Result<Vec<u8>, ArrowError> {
        match self.form {
            Form::Json => {
                let epoch = self.epoch.map(|epoch| format!("\"epoch\":{epoch},")).unwrap_or_default();
                Ok(format!("{{{epoch}\"columns\":{},\"rows\":[", columns(&self.schema)).into_bytes())
            }
            Form::Ndjson => Ok(Vec::new()),
            Form::Csv => csv(&RecordBatch::new_empty(SchemaRef::clone(&self.schema)), true),
            Form::Arrow => {
                let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
                let bytes = std::mem::take(writer.get_mut());
                self.arrow = Some(writer);
                Ok(bytes)
            }
        }
    }

    fn batch(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let bytes = match (self.form, &mut self.arrow) {
            (Form::Json, _) => {
                let lines = json_lines(batch)?;
                let mut out = Vec::with_capacity(lines.len() + 1);
                let mut first = self.rows == 0;
                for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    out.extend_from_slice(line);
                }
                out
            }
            (Form::Ndjson, _) => json_lines(batch)?,
            (Form::Csv, _) => csv(batch, false)?,
            (Form::Arrow, Some(writer)) => {
                writer.write(batch)?;
                std::mem::take(writer.get_mut())
            }
            (Form::Arrow, None) => Vec::new(),
        };
        self.rows += batch.num_rows() as u64;
        Ok(bytes)
    }

    fn end(&mut self) -> Result<Vec<u8>, ArrowError> {
        match (self.form, self.arrow.take()) {
            (Form::Json, _) => Ok(b"]}\n".to_vec()),
            (Form::Arrow, Some(mut writer)) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The end of rows that could not be computed.
    fn failed(&self, error: RequestError) -> Result<Vec<u8>, io::Error> {
        let message = error.message.clone();
        let body = serde_json::to_string(&ErrorBody::from(error)).unwrap_or_default();
        match self.form {
            // `{"error": ..}` without its braces.
            Form::Json => Ok(format!("],{}}}\n", body.trim_start_matches('{').trim_end_matches('}').to_string() + "}").into_bytes()),
            Form::Ndjson => Ok((body + "\n").into_bytes()),
            Form::Csv | Form::Arrow => Err(io::Error::other(message)),
        }
    }
}

/// Names and types of columns, as JSON.
fn columns(schema: &Schema) -> String {
    let column = |field: &arrow::datatypes::FieldRef| serde_json::json!({ "name": field.name(), "type": sql_type(field.data_type()) });
    serde_json::Value::from(schema.fields().iter().map(column).collect::<Vec<_>>()).to_string()
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(&mut bytes);
    writer.write(batch)?;
    drop(writer);
    Ok(bytes)
}

/// The body of an answer. `first` is what has come already.
///
/// # Errors
/// When the first rows cannot be written in the form.
pub(super) fn stream(
    form: Form,
    epoch: Option<u64>,
    first: Option<RecordBatch>,
    source: RowSource,
) -> Result<impl Stream<Item = Result<Bytes, io::Error>> + Send, RequestError> {
    let mut rendering = Rendering { form, schema: source.schema(), epoch, arrow: None, rows: 0 };
    let mut head = rendering.begin()?;
    if let Some(batch) = &first {
        head.extend(rendering.batch(batch)?);
    }
    let rest = futures::stream::unfold(Some((source, rendering)), |state| async move {
        let (mut source, mut rendering) = state?;
        let written = match source.next(usize::MAX).await {
            Ok(Some(batch)) => match rendering.batch(&batch) {
                Ok(bytes) => return Some((Ok(Bytes::from(bytes)), Some((source, rendering)))),
                Err(error) => rendering.failed(error.into()),
            },
            Ok(None) => rendering.end().map_err(io::Error::other),
            Err(error) => rendering.failed(error),
        };
        Some((written.map(Bytes::from), None))
    });
    Ok(futures::stream::iter([Ok(Bytes::from(head))]).chain(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array};
    use std::sync::Arc;

    fn batch(numbers: &[i64]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    async fn rendered(form: Form, fails: bool) -> String {
        let schema = batch(&[]).schema();
        let source = RowSource::of_batches(SchemaRef::clone(&schema), vec![batch(&[2, 3]), batch(&[4])]);
        let mut text = String::new();
        let mut body = std::pin::pin!(stream(form, Some(7), Some(batch(&[1])), source).unwrap());
        while let Some(bytes) = body.next().await {
            text.push_str(std::str::from_utf8(&bytes.unwrap()).unwrap());
        }
        if fails {
            let rendering = Rendering { form, schema, epoch: None, arrow: None, rows: 1 };
            text = String::from_utf8(rendering.failed(RequestError::new("22012", "division by zero", "")).unwrap()).unwrap();
        }
        text
    }

    #[tokio::test]
    async fn rows_are_written_as_they_come() {
        let json = r#"{"epoch":7,"columns":[{"name":"n","type":"BIGINT"}],"rows":[{"n":1},{"n":2},{"n":3},{"n":4}]}"#;
        assert_eq!(rendered(Form::Json, false).await, format!("{json}\n"));
        assert_eq!(rendered(Form::Ndjson, false).await, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n{\"n\":4}\n");
        assert_eq!(rendered(Form::Csv, false).await, "n\n1\n2\n3\n4\n");
        let failed = r#"],"error":{"code":"22012","message":"division by zero"}}"#;
        assert_eq!(rendered(Form::Json, true).await, format!("{failed}\n"));
    }

    #[test]
    fn accept_names_the_form() {
        assert_eq!(Form::accepted(None), Some(Form::Json));
        assert_eq!(Form::accepted(Some("text/html, application/x-ndjson;q=0.9, */*")), Some(Form::Ndjson));
        assert_eq!(Form::accepted(Some("text/CSV")), Some(Form::Csv));
        assert_eq!(Form::accepted(Some("image/png")), None);
    }
}
