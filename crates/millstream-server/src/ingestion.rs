//! What ingestion has in common over HTTP and Arrow Flight SQL: the keys that make a repeated request harmless, and what is said of rows
//! that do not fit.

use crate::error::{RequestError, codes};
use arrow::datatypes::Schema;
use millstream_connectors::formats::all_or_nothing::Refusal;
use millstream_engine::sql_types::sql_type;

/// Bytes of a key at most.
const KEY_BYTES: usize = 200;

/// The key of a request, as it is kept. Bytes that are no text are refused: replaced by something, two keys could become one, and the rows
/// of the second request be taken for those of the first.
///
/// # Errors
/// When it is empty, too long or no text.
pub(crate) fn key(bytes: &[u8]) -> Result<String, RequestError> {
    match std::str::from_utf8(bytes) {
        Ok(key) if (1..=KEY_BYTES).contains(&key.len()) => Ok(key.to_string()),
        Ok(_) => Err(RequestError::new(codes::BAD_VALUE, format!("an idempotency key has 1 to {KEY_BYTES} bytes"), "")),
        Err(_) => Err(RequestError::new(codes::BAD_VALUE, "an idempotency key is no valid UTF-8", "Send letters and digits.")),
    }
}

/// Columns that a hint lists at most.
const LISTED_MAX: usize = 20;

/// The error of rows that were not taken.
pub(crate) fn refused(refusal: &Refusal, schema: &Schema) -> RequestError {
    let fields = schema.fields().iter().take(LISTED_MAX);
    let mut columns: Vec<String> = fields.map(|field| format!("{} {}", field.name(), sql_type(field.data_type()))).collect();
    if schema.fields().len() > LISTED_MAX {
        columns.push(format!("and {} more", schema.fields().len() - LISTED_MAX));
    }
    let hint = format!("The columns are {}. None of the rows was taken.", columns.join(", "));
    RequestError::new(codes::BAD_VALUE, refusal.to_string(), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_as_they_are_or_refused() {
        assert_eq!(key("order-ß".as_bytes()).unwrap(), "order-ß");
        assert_eq!(key(&[b'x'; 200]).unwrap().len(), 200);
        for wrong in [&b""[..], &[b'x'; 201], b"\xff", b"order\xfe"] {
            assert_eq!(key(wrong).unwrap_err().code, codes::BAD_VALUE);
        }
    }
}
