//! A body that is an Arrow stream.
//!
//! Its batches are parts of the body, so that a length which it claims allocates nothing. Compressed buffers claim how large they become:
//! all of them together may become [`DECOMPRESSED_MAX`] bytes.

use crate::error::{RequestError, codes};
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::{RecordBatch as Encoded, root_as_message};
use axum::body::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes that compressed buffers of one body may become.
const DECOMPRESSED_MAX: u64 = 1024 * 1024 * 1024;
/// What stands before the length of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// The batches of a stream.
///
/// # Errors
/// When the body is none.
pub(crate) fn batches(body: Bytes) -> Result<Vec<RecordBatch>, RequestError> {
    let wrong = |what: String| RequestError::new(codes::BAD_VALUE, format!("the body is no Arrow stream: {what}"), "");
    let claimed = decompressed(&body);
    if claimed > DECOMPRESSED_MAX {
        let message = format!("the body becomes more than the {DECOMPRESSED_MAX} bytes that are allowed when it is decompressed");
        return Err(RequestError::new(codes::TOO_LARGE, message, "Send it in several parts."));
    }
    let read = || {
        let (mut decoder, mut rest) = (StreamDecoder::new(), Buffer::from(body));
        let mut batches = Vec::new();
        while let Some(batch) = decoder.decode(&mut rest)? {
            batches.push(batch);
        }
        decoder.finish()?;
        Ok::<_, ArrowError>(batches)
    };
    // Buffers that do not fit their columns are not an error everywhere in the decoder.
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(batches) => batches.map_err(|error| wrong(error.to_string())),
        Err(_) => Err(wrong("its buffers do not fit its columns".to_string())),
    }
}

/// How large the compressed buffers of a stream say they become.
fn decompressed(mut body: &[u8]) -> u64 {
    let mut sum = 0_u64;
    while let Some((claimed, rest)) = message(body) {
        sum = sum.saturating_add(claimed);
        body = rest;
    }
    sum
}

/// What the buffers of the first message say, and what comes after it; `None` at the end, and at what the decoder refuses anyway.
fn message(body: &[u8]) -> Option<(u64, &[u8])> {
    let body = body.strip_prefix(&CONTINUATION).unwrap_or(body);
    let (length, rest) = body.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_le_bytes(*length)).ok().filter(|length| *length > 0)?;
    let (head, rest) = rest.split_at_checked(length)?;
    let message = root_as_message(head).ok()?;
    let (content, rest) = rest.split_at_checked(usize::try_from(message.bodyLength()).ok()?)?;
    let dictionary = message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let claimed = message.header_as_record_batch().or(dictionary).map_or(0, |batch| claimed(&batch, content));
    Some((claimed, rest))
}

fn claimed(batch: &Encoded<'_>, content: &[u8]) -> u64 {
    if batch.compression().is_none() {
        return 0;
    }
    let size = |offset: i64, length: i64| {
        let from = usize::try_from(offset).ok()?;
        let buffer = content.get(from..from.checked_add(usize::try_from(length).ok()?)?)?;
        // -1: it is not compressed after all.
        buffer.first_chunk::<8>().map(|size| u64::try_from(i64::from_le_bytes(*size)).unwrap_or(0))
    };
    let buffers = batch.buffers().into_iter().flatten();
    buffers.map(|buffer| size(buffer.offset(), buffer.length()).unwrap_or(0)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, StringArray};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
    use std::sync::Arc;

    fn stream(compression: Option<CompressionType>) -> Vec<u8> {
        let words: ArrayRef = Arc::new(StringArray::from(vec!["word"; 1_000]));
        let batch = RecordBatch::try_from_iter([("w", words)]).unwrap();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    fn read(bytes: Vec<u8>) -> String {
        let rows = |batches: Vec<RecordBatch>| format!("{} rows", batches.iter().map(RecordBatch::num_rows).sum::<usize>());
        batches(bytes.into()).map_or_else(|error| error.message, rows)
    }

    #[test]
    fn streams_are_read_and_claims_are_not_believed() {
        for compression in [None, Some(CompressionType::ZSTD), Some(CompressionType::LZ4_FRAME)] {
            assert_eq!(read(stream(compression)), "1000 rows");
        }
        let mut bytes = stream(Some(CompressionType::ZSTD));
        let claim = 4_000_i64.to_le_bytes();
        // Offsets and lengths of the rows: 4,004 bytes of offsets, 4,000 of text.
        let at = bytes.windows(8).position(|window| *window == claim).unwrap();
        bytes[at..at + 8].copy_from_slice(&(1_i64 << 50).to_le_bytes());
        assert!(read(bytes).starts_with("the body becomes more than the"));
        let whole = stream(None);
        for length in 0..whole.len() - 8 {
            read(whole[..length].to_vec());
        }
        assert!(read(b"no stream at all".to_vec()).starts_with("the body is no Arrow stream"));
    }
}
