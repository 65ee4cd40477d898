//! Messages of an IPC stream, encoded by several threads.
//!
//! ```text
//!   batches 0, 2, 4 .. ──► thread 0 ──►┐
//!                                       ├─► written in order
//!   batches 1, 3, 5 .. ──► thread 1 ──►┘
//! ```
//! Compressing takes longer than writing. The messages are those that one thread makes.

use crate::error::{Result, StateError};
use crate::ipc::{Compression, compact};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use millstream_types::cores;
use std::sync::mpsc::{SyncSender, sync_channel};

/// A thread is not worth its start for fewer bytes.
const BYTES_MIN: usize = 4 << 20;
/// A disk takes no more than so many threads make.
const THREADS_MAX: usize = 8;
/// Messages of a thread that wait to be written.
const AHEAD: usize = 1;

/// How many threads should encode batches.
pub(crate) fn threads_for(schema: &SchemaRef, batches: &[RecordBatch]) -> usize {
    // Every epoch writes its record through here.
    if batches.len() < 2 {
        return 1;
    }
    // A dictionary is written with the first batch that has it.
    let has_dictionaries = || schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..)));
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    if bytes < 2 * BYTES_MIN || has_dictionaries() {
        return 1;
    }
    cores().min(THREADS_MAX).min(batches.len()).min(bytes / BYTES_MIN)
}

/// Encodes each batch and gives its message to `write`, in the order of the batches.
///
/// # Errors
/// When a batch has another schema, or those of `write`.
pub(crate) fn each_message(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    compression: Compression,
    threads: usize,
    mut write: impl FnMut(Vec<u8>) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let start = |first: usize| {
            let (sender, messages) = sync_channel(AHEAD);
            scope.spawn(move || encode(schema, batches.iter().skip(first).step_by(threads), compression, &sender));
            messages
        };
        let messages: Vec<_> = (0..threads).map(start).collect();
        for place in 0..batches.len() {
            // Nothing comes from a thread that panicked, and the scope panics then.
            let Ok(message) = messages[place % threads].recv() else { break };
            write(message?)?;
        }
        Ok(())
    })
}

/// Encodes batches until one fails or nobody wants more.
fn encode<'a>(
    schema: &SchemaRef,
    batches: impl Iterator<Item = &'a RecordBatch>,
    compression: Compression,
    messages: &SyncSender<Result<Vec<u8>>>,
) {
    let mut writer = None;
    for batch in batches {
        let message = message(schema, batch, compression, &mut writer);
        let failed = message.is_err();
        if messages.send(message).is_err() || failed {
            return;
        }
    }
}

/// The message of a batch. `writer`: of this thread.
fn message(
    schema: &SchemaRef,
    batch: &RecordBatch,
    compression: Compression,
    writer: &mut Option<StreamWriter<Vec<u8>>>,
) -> Result<Vec<u8>> {
    let failed = || StateError::arrow("writing batches as Arrow IPC failed");
    let writer = match writer {
        Some(writer) => writer,
        none => none.insert(StreamWriter::try_new_with_options(vec![], schema, compression.options()?).map_err(failed())?),
    };
    // Without the schema, which the stream has already.
    writer.get_mut().clear();
    writer.write(&compact(batch)?).map_err(failed())?;
    Ok(std::mem::take(writer.get_mut()))
}
