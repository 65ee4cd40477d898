//! `POST /api/v1/streams/{name}/rows`: rows into a memory stream or a table, answered when they are committed.
//!
//! All rows of a request are one epoch's, or none are taken: the decoders of the sources read them, and the first row that would be a bad
//! row there is named in the answer (400). With an `Idempotency-Key` a request that is sent again (because the answer
//! was lost, say) adds nothing and is answered as before; keys are part of what is committed, and the newest 100,000 are remembered.

use super::arrow_body;
use super::failure::{ErrorBody, Failure};
use super::{counted, media_type};
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::ingestion;
use crate::service::Service;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use millstream_connectors::formats::all_or_nothing::{decode_lines, decode_rows, exact_batches};
use millstream_connectors::formats::{Format, FormatOptions, Line, LineBatch};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use utoipa::ToSchema;

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
        Some("application/x-ndjson" | "application/jsonl") => ndjson(&body, &schema)?,
        Some("application/json") => json_array(&body, &schema)?,
        Some("text/csv") => csv(&body, &schema)?,
        Some("application/vnd.apache.arrow.stream") => arrow_stream(body, &schema)?,
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

/// Objects, one per line.
///
/// # Errors
/// The first row that does not fit.
pub(crate) fn ndjson(body: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, RequestError> {
    decode_lines(schema, &strict(Format::Json), body).map_err(|refusal| ingestion::refused(&refusal, schema))
}

/// An array of objects.
///
/// # Errors
/// When the body is none, or the first row that does not fit.
pub(crate) fn json_array(body: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, RequestError> {
    let wrong = |error: serde_json::Error| RequestError::new(codes::BAD_VALUE, format!("the body is no array of objects: {error}"), "");
    // As they were written: numbers keep all their digits.
    let objects: Vec<&RawValue> = serde_json::from_slice(body).map_err(wrong)?;
    let mut rows = LineBatch::default();
    for (number, object) in (1..).zip(objects) {
        let start = rows.bytes.len();
        rows.bytes.extend_from_slice(object.get().as_bytes());
        let end = rows.bytes.len();
        rows.lines.push(Line { start, end, number, next_offset: end as u64, next_number: number + 1, oversized: None });
    }
    decode_rows(schema, &strict(Format::Json), &rows).map_err(|refusal| ingestion::refused(&refusal, schema))
}

/// CSV with a header, whose names choose the columns.
///
/// # Errors
/// A header that names what is no column, or the first row that does not fit.
pub(crate) fn csv(body: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>, RequestError> {
    decode_lines(schema, &strict(Format::Csv), body).map_err(|refusal| ingestion::refused(&refusal, schema))
}

/// An Arrow stream.
///
/// # Errors
/// When the body is none, or the first value that does not fit.
pub(crate) fn arrow_stream(body: Bytes, schema: &SchemaRef) -> Result<Vec<RecordBatch>, RequestError> {
    exact_batches(&arrow_body::batches(body)?, schema).map_err(|refusal| ingestion::refused(&refusal, schema))
}

/// A field that no column has is an error: it is a typing mistake more often than not. How long a row may be follows from the body's limit.
fn strict(format: Format) -> FormatOptions {
    FormatOptions { known_fields_only: true, max_row_bytes: usize::MAX, ..FormatOptions::new(format) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::{DataType, Field, Schema};
    use arrow::ipc::writer::StreamWriter;
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
        assert_eq!(shown(ndjson(b"{\"word\":\"a\",\"n\":1}\n\n{\"word\":\"b\"}\n", &schema())), table);
        assert_eq!(shown(json_array(b"[{\"word\":\"a\",\n\"n\":1},{\"word\":\"b\"}]", &schema())), table);
        assert_eq!(shown(csv(b"word,n\na,1\nb,\n", &schema())), table);
    }

    #[test]
    fn what_is_given_out_is_taken_back() {
        let json = "{\"word\":\"a\\\"b\",\"n\":9223372036854775807}\n{\"word\":\"\",\"n\":null}\n";
        let batches = ndjson(json.as_bytes(), &schema()).unwrap();
        let written = crate::http::body::json_lines(&batches[0]).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), json);
        let mut stream = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        stream.write(&batches[0]).unwrap();
        let taken = arrow_stream(stream.into_inner().unwrap().into(), &schema()).unwrap();
        assert_eq!(taken, batches);
    }

    #[test]
    fn wrong_rows_are_named() {
        assert_eq!(shown(ndjson(b"{\"wrd\":\"a\"}", &schema())), "row 1 (line 1): the field \"wrd\" is no column");
        assert_eq!(shown(ndjson(b"{\"word\":\"a\"}\n[1]", &schema())), "row 2 (line 2): the row is not a JSON object");
        let wrong = json_array(b"[{\"word\":\"a\"},\n\n{\"word\":\"b\",\n\"n\":9.5}]", &schema()).unwrap_err();
        assert_eq!(wrong.message, "row 2: column \"n\": '9.5' is not a valid BIGINT");
        assert_eq!(wrong.hint.unwrap(), "The columns are word VARCHAR, n BIGINT. None of the rows was taken.");
        assert_eq!(shown(csv(b"word,m\na,1\n", &schema())), "line 1: the header has \"m\", which is no column");
        assert_eq!(shown(csv(b"word,n\na,x\n", &schema())), "row 1 (line 2): column \"n\": 'x' is not a valid BIGINT");
        assert!(json_array(b"{}", &schema()).is_err());
    }
}
