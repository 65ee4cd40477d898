//! Lines that a peer sends: kept from their arrival to their acknowledgement, decoded when they are read.
//!
//! ```text
//!   peer ──► LineReceiver ──► LineBuffer ──► plan: cut ──► LineReader: decode
//!               waits while the buffer is full              acknowledge: forget
//! ```
//! A receiver that waits does not read from its peer, so the peer is slowed down by its own transport (TCP, a pipe)
//! and nothing is dropped. Offsets count lines, bad ones included, CSV headers not.

mod buffer;
mod reader;
#[cfg(test)]
mod tests;

pub(crate) use buffer::{ExpectedHeader, LineBuffer, LineReceiver};
pub(crate) use reader::LineReader;

use crate::error::{ConnectorError, Result};
use crate::formats::{Decoder, Format, FormatOptions};
use crate::registry::timestamp_type;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_types::{OptionError, Options};
use std::sync::Arc;

/// Bytes that may wait by default.
pub(crate) const DEFAULT_BUFFER_BYTES: u64 = 64_000_000;
/// A longer line is a bad row, where `max_row_bytes` does not say otherwise: every connection may hold one unfinished line.
const DEFAULT_LINE_BYTES: usize = 1 << 20;

/// The metadata columns of received lines.
pub(crate) fn metadata() -> Vec<(&'static str, DataType)> {
    vec![("offset", DataType::Int64), ("partition", DataType::Utf8View), ("timestamp", timestamp_type())]
}

/// Takes the options of the format; text unless told otherwise.
///
/// # Errors
/// When the format is not made of lines or an option has no legal value.
pub(crate) fn take_format(options: &mut Options, header: bool) -> Result<FormatOptions> {
    let (row_bytes_given, header_given) = (options.peek("max_row_bytes").is_some(), options.peek("header").is_some());
    let mut format = FormatOptions::take(options, Some(Format::Text))?;
    if !format.format.is_text() {
        return Err(OptionError::Value {
            owner: options.owner().into(),
            name: "format".into(),
            value: format.format.name().into(),
            expected: "one of 'text', 'json', 'csv', 'raw': rows arrive as lines".into(),
        }
        .into());
    }
    if !row_bytes_given {
        format.max_row_bytes = DEFAULT_LINE_BYTES;
    }
    if !header_given {
        format.header = header;
    }
    Ok(format)
}

/// Refuses columns that the format cannot fill.
///
/// # Errors
/// As [`Decoder::new`].
pub(crate) fn check_columns(schema: &SchemaRef, format: &FormatOptions) -> Result<()> {
    Decoder::new(Arc::clone(schema), None, format).map(|_| ())
}

/// The columns of a stream of lines that declares none: `line VARCHAR`.
///
/// # Errors
/// When the format is not text.
pub(crate) fn infer_columns(options: &mut Options) -> Result<SchemaRef> {
    let format = take_format(options, false)?;
    let data_type = match format.format {
        Format::Text => DataType::Utf8View,
        Format::Raw => DataType::BinaryView,
        other => {
            return Err(ConnectorError::invalid(
                format!(
                    "the columns of {} are not declared, and {} lines that are still to come do not tell them",
                    options.owner(),
                    other.name()
                ),
                "List the columns in CREATE STREAM.",
            ));
        }
    };
    Ok(Arc::new(Schema::new(vec![Field::new("line", data_type, true)])))
}
