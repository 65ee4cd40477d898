//! What ingestion has in common over HTTP and Arrow Flight SQL: the keys that make a repeated request harmless.

use crate::error::{RequestError, codes};

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
