//! Record batches that a client sends, looked at before anything is made of them.
//!
//! A few bytes can claim to be a great many: a compressed buffer states how long it will be, a batch of NULLs how many rows it has, and
//! a dictionary or a view repeats one long value in every row. So sizes are checked message by message before they are decoded, and the
//! length that values have when they are written out before they are used. What is wrong is refused as a whole.

use super::failure::of_input;
use crate::config::Limits;
use crate::error::{RequestError, codes};
use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch};
use arrow::datatypes::{ByteViewType, DataType, SchemaRef};
use arrow::ipc::{MessageHeader, RecordBatch as BatchHeader, root_as_message};
use arrow_flight::FlightData;
use arrow_flight::decode::{DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use futures::{Stream, StreamExt};
use tonic::Status;

/// Rows of one batch.
const BATCH_ROWS_MAX: i64 = 4 * 1024 * 1024;

/// What a client sent.
#[derive(Debug)]
pub(super) struct Received {
    /// The columns, if it sent any.
    pub(super) schema: Option<SchemaRef>,
    /// The rows.
    pub(super) batches: Vec<RecordBatch>,
}

/// Takes everything a client sends.
///
/// # Errors
/// When it is no Arrow, or too much.
pub(super) async fn receive(
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
    limits: Limits,
) -> Result<Received, RequestError> {
    let mut total = 0_usize;
    let checked = messages.map(move |message| {
        let message = message.map_err(FlightError::from)?;
        total = total.saturating_add(message.data_body.len());
        check(&message, limits).and_then(|()| within(total, limits)).map_err(super::failure::in_stream)?;
        Ok(message)
    });
    // Messages without a header are none of Arrow's: a descriptor or metadata alone.
    let arrow = checked.filter(|message: &Result<FlightData, FlightError>| {
        let is_arrow = message.as_ref().map_or(true, |message| !message.data_header.is_empty());
        futures::future::ready(is_arrow)
    });
    let mut decoder = FlightDataDecoder::new(arrow);
    let mut received = Received { schema: None, batches: Vec::new() };
    let mut bytes = 0_usize;
    while let Some(decoded) = decoder.next().await {
        match decoded.map_err(of_input)?.payload {
            DecodedPayload::None => {}
            DecodedPayload::Schema(_) if received.schema.is_some() => {
                return Err(RequestError::new(codes::PROTOCOL, "a second schema was sent", "Send rows of one schema at a time."));
            }
            DecodedPayload::Schema(schema) => received.schema = Some(schema),
            DecodedPayload::RecordBatch(batch) => {
                for column in batch.columns() {
                    bytes = bytes.saturating_add(written_out(column)?);
                    within(bytes, limits)?;
                }
                received.batches.push(batch);
            }
        }
    }
    Ok(received)
}

fn within(bytes: usize, limits: Limits) -> Result<(), RequestError> {
    if bytes <= limits.copy_bytes {
        return Ok(());
    }
    let hint = "Send them in several requests; each is committed by itself.";
    Err(RequestError::new(codes::TOO_LARGE, format!("one request has {} bytes of rows at most", limits.copy_bytes), hint))
}

/// Whether a message is what it says it is, before it is decoded.
fn check(message: &FlightData, limits: Limits) -> Result<(), RequestError> {
    if message.data_header.is_empty() {
        return Ok(());
    }
    let wrong = |what: &str| RequestError::new(codes::BAD_VALUE, format!("the rows cannot be read: {what}"), "");
    let header = root_as_message(&message.data_header).map_err(|error| wrong(&error.to_string()))?;
    let batch = match header.header_type() {
        MessageHeader::RecordBatch => header.header_as_record_batch(),
        MessageHeader::DictionaryBatch => header.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()),
        _ => return Ok(()),
    };
    let batch = batch.ok_or_else(|| wrong("a batch without a header"))?;
    check_batch(&batch, &message.data_body, limits).map_err(|what| wrong(&what))
}

fn check_batch(batch: &BatchHeader<'_>, body: &[u8], limits: Limits) -> Result<(), String> {
    if !(0..=BATCH_ROWS_MAX).contains(&batch.length()) {
        return Err(format!("a batch has {BATCH_ROWS_MAX} rows at most, not {}", batch.length()));
    }
    for node in batch.nodes().iter().flatten() {
        // Items of lists are as many as fit; their buffers tell. Those of NULLs have none.
        let most = BATCH_ROWS_MAX.max(i64::try_from(body.len()).unwrap_or(i64::MAX).saturating_mul(8));
        if !(0..=most).contains(&node.length()) || !(0..=node.length()).contains(&node.null_count()) {
            return Err(format!("a column of {} values with {} NULLs", node.length(), node.null_count()));
        }
    }
    let is_compressed = batch.compression().is_some();
    let mut total = 0_u64;
    for buffer in batch.buffers().iter().flatten() {
        let part = usize::try_from(buffer.offset()).ok().zip(usize::try_from(buffer.length()).ok());
        let part = part.and_then(|(offset, length)| body.get(offset..offset.checked_add(length)?));
        let part = part.ok_or_else(|| "a buffer lies outside of its message".to_string())?;
        if !is_compressed || part.is_empty() {
            continue;
        }
        let prefix = part.first_chunk().ok_or_else(|| "a compressed buffer without its length".to_string())?;
        // -1 says that the buffer is not compressed after all.
        let length = match i64::from_le_bytes(*prefix) {
            -1 => 0,
            length => u64::try_from(length).map_err(|_| format!("a compressed buffer of {length} bytes"))?,
        };
        total = total.saturating_add(length);
        if total > limits.copy_bytes as u64 {
            return Err(format!("compressed buffers of more than {} bytes", limits.copy_bytes));
        }
    }
    Ok(())
}

/// Bytes of a column's values when each is written out.
fn written_out(column: &ArrayRef) -> Result<usize, RequestError> {
    let fixed = column.get_array_memory_size();
    Ok(match column.data_type() {
        DataType::Utf8View => view_bytes(column.as_string_view()),
        DataType::BinaryView => view_bytes(column.as_binary_view()),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let lengths = value_lengths(dictionary.values())?;
            let keys = dictionary.normalized_keys();
            // A NULL's key is any number.
            keys.into_iter().map(|key| lengths.get(key).copied().unwrap_or(0)).fold(fixed, usize::saturating_add)
        }
        DataType::List(_) => fixed.saturating_add(written_out(column.as_list::<i32>().values())?),
        DataType::LargeList(_) => fixed.saturating_add(written_out(column.as_list::<i64>().values())?),
        DataType::FixedSizeList(..) => fixed.saturating_add(written_out(column.as_fixed_size_list().values())?),
        DataType::Struct(_) => {
            let mut bytes = fixed;
            for child in column.as_struct().columns() {
                bytes = bytes.saturating_add(written_out(child)?);
            }
            bytes
        }
        DataType::RunEndEncoded(..) | DataType::ListView(_) | DataType::LargeListView(_) | DataType::Union(..) => {
            return Err(unusual(column.data_type()));
        }
        _ => fixed,
    })
}

fn view_bytes<T: ByteViewType>(views: &GenericByteViewArray<T>) -> usize {
    views.lengths().fold(views.len() * 4, |sum, length| sum.saturating_add(length as usize))
}

/// The length of each value of a dictionary.
fn value_lengths(values: &ArrayRef) -> Result<Vec<usize>, RequestError> {
    let offsets = |ends: Vec<i64>| ends.windows(2).map(|pair| usize::try_from(pair[1] - pair[0]).unwrap_or(0)).collect();
    Ok(match values.data_type() {
        DataType::Utf8 => offsets(values.as_string::<i32>().value_offsets().iter().map(|end| i64::from(*end)).collect()),
        DataType::LargeUtf8 => offsets(values.as_string::<i64>().value_offsets().to_vec()),
        DataType::Binary => offsets(values.as_binary::<i32>().value_offsets().iter().map(|end| i64::from(*end)).collect()),
        DataType::LargeBinary => offsets(values.as_binary::<i64>().value_offsets().to_vec()),
        DataType::Utf8View => values.as_string_view().lengths().map(|length| length as usize).collect(),
        DataType::BinaryView => values.as_binary_view().lengths().map(|length| length as usize).collect(),
        data_type if data_type.is_primitive() || *data_type == DataType::Boolean => vec![16; values.len()],
        other => return Err(unusual(other)),
    })
}

fn unusual(data_type: &DataType) -> RequestError {
    let hint = "Cast the column to the type of its values first.";
    RequestError::new(codes::NOT_SUPPORTED, format!("rows of the Arrow type {data_type} are not taken"), hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{DictionaryArray, Int64Array, StringArray, UInt16Array};
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::IpcWriteOptions;
    use arrow_flight::encode::FlightDataEncoderBuilder;
    use std::sync::Arc;

    async fn messages(batch: &RecordBatch, options: IpcWriteOptions) -> Vec<FlightData> {
        let encoder = FlightDataEncoderBuilder::new().with_options(options).build(futures::stream::iter([Ok(batch.clone())]));
        encoder.map(Result::unwrap).collect().await
    }

    async fn received(messages: Vec<FlightData>, limits: Limits) -> Result<Received, String> {
        receive(futures::stream::iter(messages.into_iter().map(Ok)), limits).await.map_err(|error| error.message)
    }

    fn numbers() -> RecordBatch {
        RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..1_000)) as ArrayRef)]).unwrap()
    }

    #[tokio::test]
    async fn rows_come_through_as_they_were_sent() {
        let batch = numbers();
        let compressed = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
        for options in [IpcWriteOptions::default(), compressed] {
            let mut sent = vec![FlightData::new()];
            sent.extend(messages(&batch, options).await);
            assert_eq!(received(sent, Limits::default()).await.unwrap().batches, std::slice::from_ref(&batch));
        }
        assert!(received(Vec::new(), Limits::default()).await.unwrap().schema.is_none());
    }

    #[tokio::test]
    async fn what_claims_to_be_long_is_not_believed() {
        let compressed = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
        let mut sent = messages(&numbers(), compressed).await;
        let mut body = sent[1].data_body.to_vec();
        let position = body.windows(8).position(|window| window == 8_000_i64.to_le_bytes()).unwrap();
        body[position..position + 8].copy_from_slice(&i64::MAX.to_le_bytes());
        sent[1].data_body = body.into();
        assert!(received(sent, Limits::default()).await.unwrap_err().contains("compressed buffers of more than"));

        let mut sent = messages(&numbers(), IpcWriteOptions::default()).await;
        sent[1].data_body = sent[1].data_body.slice(..100);
        assert!(received(sent, Limits::default()).await.unwrap_err().contains("outside of its message"));

        let few = Limits { copy_bytes: 1_000, ..Limits::default() };
        assert!(received(messages(&numbers(), IpcWriteOptions::default()).await, few).await.unwrap_err().contains("at most"));
        let mut garbage = messages(&numbers(), IpcWriteOptions::default()).await;
        garbage[1].data_header = vec![0xff; 200].into();
        assert!(received(garbage, Limits::default()).await.unwrap_err().starts_with("the rows cannot be read"));
    }

    #[test]
    fn repeated_values_count_as_often_as_they_are_repeated() {
        let long = "x".repeat(1_000);
        let words = StringArray::from(vec![long.as_str()]);
        let keys = UInt16Array::from(vec![0; 500]);
        let dictionary: ArrayRef = Arc::new(DictionaryArray::new(keys, Arc::new(words)));
        assert!(written_out(&dictionary).unwrap() > 500_000);
        let mut views = arrow::array::StringViewBuilder::new().with_deduplicate_strings();
        (0..500).for_each(|_| views.append_value(&long));
        let views: ArrayRef = Arc::new(views.finish());
        assert!(written_out(&views).unwrap() > 500_000);
    }
}
