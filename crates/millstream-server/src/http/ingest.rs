//! `POST /api/v1/streams/{name}/rows`: rows into a memory stream or a table, answered when they are committed.
//!
//! All rows of a request are one epoch's, or none are taken. With an `Idempotency-Key` a request that is sent again (because the answer
//! was lost, say) adds nothing and is answered as before; keys are part of what is committed, and the newest 100,000 are remembered.

use super::arrow_body;
use super::failure::{ErrorBody, Failure};
use super::{counted, media_type};
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::ingestion;
use crate::service::Service;
use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use serde::Serialize;
use std::io::Cursor;
use std::sync::Arc;
use utoipa::ToSchema;

/// Rows that are turned into one batch.
const BATCH_ROWS: usize = 8_192;

/// The answer to rows that are committed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Inserted {
    /// How many rows the request had.
    rows: usize,
    /// A committed epoch that has them: of repeated rows the one that committed them.
    epoch: u64,
    /// The key has been seen before; nothing was added.
    repeated: bool,
}

/// Adds rows to a stream or table.
#[utoipa::path(
    post,
    path = "/api/v1/streams/{name}/rows",
    params(
        ("name" = String, Path, description = "the stream or table"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same for a request that is sent again"),
    ),
    request_body(content(
        (String = "application/x-ndjson"), (String = "application/json"), (String = "text/csv"), (String = "application/vnd.apache.arrow.stream")
    )),
    responses(
        (status = 200, description = "the rows are committed", body = Inserted),
        (status = 400, description = "a row is wrong; none was taken", body = ErrorBody),
        (status = 401, description = "no user", body = ErrorBody),
        (status = 403, description = "the user may not insert rows there", body = ErrorBody),
        (status = 404, description = "there is no such stream", body = ErrorBody),
        (status = 429, description = "the user has as many connections as they may", body = ErrorBody),
    ),
    security(("token" = []), ("password" = []))
)]
pub(super) async fn rows(
    State(service): State<Arc<Service>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Inserted>, Failure> {
    let (user, _counted) = counted(&service, &headers)?;
    let key = headers.get("idempotency-key").map(|key| ingestion::key(key.as_bytes())).transpose()?;
    let session = service.session(&user);
    let schema = session.insert_schema(&name)?;
    let kind = media_type(&headers, header::CONTENT_TYPE);
    let batches = match kind.as_deref() {
        Some("application/x-ndjson" | "application/jsonl") => json(&body, &schema)?,
        Some("application/json") => json(&lines_of_array(&body)?, &schema)?,
        Some("text/csv") => csv(&body, &schema)?,
        Some("application/vnd.apache.arrow.stream") => arrow_body::batches(body)?,
        _ => {
            let kinds = "Send application/x-ndjson, application/json, text/csv or application/vnd.apache.arrow.stream.";
            return Err(RequestError::new("22023", "the rows are in no form that is known", kinds).into());
        }
    };
    let count: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let insertion = async move { session.insert_rows(&name, batches, key.as_deref()).await };
    let inserted = aside(insertion).await.map_err(RequestError::from)?;
    Ok(Json(Inserted { rows: count, epoch: inserted.epoch.0, repeated: inserted.repeated }))
}

/// The columns as they are read: what may not be NULL is checked when the rows are inserted.
fn nullable(schema: &Schema) -> SchemaRef {
    Arc::new(Schema::new(schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<Field>>()))
}

/// Objects, one per line. A field that no column has is an error: it is a typing mistake more often than not.
pub(crate) fn json(body: &[u8], schema: &Schema) -> Result<Vec<RecordBatch>, RequestError> {
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)
            .map_err(|error| RequestError::new(codes::BAD_VALUE, format!("line {} is no object: {error}", index + 1), ""))?;
        if let Some(unknown) = object.keys().find(|key| schema.index_of(key).is_err()) {
            let message = format!("line {} has the field \"{unknown}\", which is no column", index + 1);
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(RequestError::new("42703", message, format!("The columns are {}.", names.join(", "))));
        }
    }
    let wrong = |error: ArrowError| RequestError::new(codes::BAD_VALUE, error.to_string(), "");
    let reader = arrow::json::ReaderBuilder::new(nullable(schema)).with_batch_size(BATCH_ROWS).build(Cursor::new(body)).map_err(wrong)?;
    reader.collect::<Result<_, _>>().map_err(wrong)
}

/// An array of objects as one object per line.
pub(crate) fn lines_of_array(body: &[u8]) -> Result<Vec<u8>, RequestError> {
    let wrong = |error: serde_json::Error| RequestError::new(codes::BAD_VALUE, format!("the body is no array of objects: {error}"), "");
    // As they were written: numbers keep all their digits.
    let rows: Vec<Box<serde_json::value::RawValue>> = serde_json::from_slice(body).map_err(wrong)?;
    let mut lines = Vec::with_capacity(body.len());
    for row in rows {
        lines.extend(row.get().bytes().filter(|byte| *byte != b'\n' && *byte != b'\r'));
        lines.push(b'\n');
    }
    Ok(lines)
}

/// CSV with a header, whose names choose the columns.
pub(crate) fn csv(body: &[u8], schema: &Schema) -> Result<Vec<RecordBatch>, RequestError> {
    let wrong = |error: ArrowError| RequestError::new(codes::BAD_VALUE, error.to_string(), "");
    let (header, _) = arrow::csv::reader::Format::default().with_header(true).infer_schema(Cursor::new(body), Some(1)).map_err(wrong)?;
    let field = |name: &String| match schema.field_with_name(name) {
        Ok(field) => Ok(field.clone().with_nullable(true)),
        Err(_) => {
            let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            let hint = format!("The first line names columns: {}.", names.join(", "));
            Err(RequestError::new("42703", format!("the header has \"{name}\", which is no column"), hint))
        }
    };
    let fields = header.fields().iter().map(|column| field(column.name())).collect::<Result<Vec<Field>, _>>()?;
    let reader = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(fields))).with_header(true).with_batch_size(BATCH_ROWS);
    reader.build(Cursor::new(body)).map_err(wrong)?.collect::<Result<_, _>>().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;
    use arrow::util::pretty::pretty_format_batches;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("word", DataType::Utf8, false), Field::new("n", DataType::Int64, true)]))
    }

    fn shown(batches: Result<Vec<RecordBatch>, RequestError>) -> String {
        batches.map_or_else(|error| error.message, |batches| pretty_format_batches(&batches).unwrap().to_string())
    }

    #[test]
    fn the_forms_agree() {
        let table = "+------+---+\n| word | n |\n+------+---+\n| a    | 1 |\n| b    |   |\n+------+---+";
        assert_eq!(shown(json(b"{\"word\":\"a\",\"n\":1}\n\n{\"word\":\"b\"}\n", &schema())), table);
        let array = lines_of_array(b"[{\"word\":\"a\",\n\"n\":1},{\"word\":\"b\"}]").unwrap();
        assert_eq!(shown(json(&array, &schema())), table);
        assert_eq!(shown(csv(b"word,n\na,1\nb,\n", &schema())), table);
    }

    #[test]
    fn wrong_rows_are_named() {
        assert_eq!(shown(json(b"{\"wrd\":\"a\"}", &schema())), "line 1 has the field \"wrd\", which is no column");
        assert!(shown(json(b"{\"word\":\"a\"}\n[1]", &schema())).starts_with("line 2 is no object"));
        assert!(shown(json(b"{\"n\":\"x\"}", &schema())).contains('x'));
        assert_eq!(shown(csv(b"word,m\na,1\n", &schema())), "the header has \"m\", which is no column");
        assert!(shown(csv(b"word,n\na,x\n", &schema())).contains('x'));
        assert!(lines_of_array(b"{}").is_err());
    }
}
