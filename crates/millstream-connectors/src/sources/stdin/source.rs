//! Standard input as a source.

use crate::error::{ConnectorError, Result};
use crate::formats::FormatOptions;
use crate::source::{Backlog, EpochLimits, Reader, Source, SourceContext, SourceProperties};
use crate::sources::columns::SourceColumns;
use crate::sources::position::stored;
use crate::sources::received::{DEFAULT_BUFFER_BYTES, ExpectedHeader, LineBuffer, LineReader, LineReceiver, check_columns, take_format};
use async_trait::async_trait;
use millstream_types::{OptionError, PartitionRange};
use std::io::Read;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

const READ_BYTES: usize = 64 << 10;

/// A source of lines from standard input. See the module's documentation.
pub struct StdinSource {
    stream: String,
    input: Option<Box<dyn Read + Send + Sync>>,
    format: FormatOptions,
    columns: SourceColumns,
    buffer: Arc<LineBuffer>,
    task: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for StdinSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StdinSource").field("stream", &self.stream).field("buffer", &self.buffer).finish_non_exhaustive()
    }
}

impl StdinSource {
    /// A source that will read `input` to its end once it is opened.
    ///
    /// # Errors
    /// When an option has no legal value or a column a type that the format cannot hold.
    pub fn new(context: &mut SourceContext, input: Box<dyn Read + Send + Sync>) -> Result<Self> {
        let options = &mut context.options;
        let buffer_bytes = options.bytes("buffer_bytes")?.unwrap_or(DEFAULT_BUFFER_BYTES);
        if options.boolean("bounded")? == Some(false) {
            let (owner, name) = (options.owner().to_string(), "bounded".to_string());
            return Err(OptionError::Value {
                owner,
                name,
                value: "false".into(),
                expected: "true: standard input ends with its pipe".into(),
            }
            .into());
        }
        let format = take_format(options, true)?;
        check_columns(&context.schema, &format)?;
        Ok(Self {
            stream: context.stream.clone(),
            input: Some(input),
            format,
            columns: SourceColumns::new("stdin", context)?,
            buffer: Arc::new(LineBuffer::new(Arc::clone(&context.clock), buffer_bytes)),
            task: None,
        })
    }
}

/// Reads on a thread of its own: a read of a terminal cannot be cancelled, and must not hold up the end of the program.
fn read_chunks(stream: &str, mut input: Box<dyn Read + Send + Sync>) -> Result<mpsc::Receiver<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel(1);
    let name = stream.to_string();
    let run = move || {
        let mut chunk = vec![0; READ_BYTES];
        loop {
            match input.read(&mut chunk) {
                Ok(0) => return,
                Ok(bytes) => {
                    if sender.blocking_send(chunk[..bytes].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::error!(stream = %name, %error, "standard input cannot be read, the stream ends");
                    return;
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("millstream-stdin".into())
        .spawn(run)
        .map_err(|error| ConnectorError::unavailable("reading", "standard input", error))?;
    Ok(receiver)
}

#[async_trait]
impl Source for StdinSource {
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: false, bounded: true }
    }

    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        let planned: u64 = position.map_or(Ok(0), |value| stored(&self.stream, &value))?;
        let row = replayed.iter().map(|range| range.range.end.row).fold(planned, u64::max);
        self.buffer.start_partition("", row);
        let Some(input) = self.input.take() else { return Ok(()) };
        let mut chunks = read_chunks(&self.stream, input)?;
        let expected = ExpectedHeader::of(&self.columns.schema, &self.format);
        let mut receiver = LineReceiver::new(&self.buffer, "", "standard input", self.format.split_options(), expected);
        let buffer = Arc::clone(&self.buffer);
        self.task = Some(tokio::spawn(async move {
            while let Some(chunk) = chunks.recv().await {
                receiver.receive(&chunk).await;
            }
            receiver.finish();
            buffer.end();
        }));
        Ok(())
    }

    fn wake(&self) -> Arc<Notify> {
        self.buffer.wake()
    }

    async fn backlog(&mut self) -> Result<Backlog> {
        Ok(self.buffer.backlog())
    }

    async fn mark_end(&mut self) -> Result<()> {
        Ok(())
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        if limits.draining {
            // What a pipe still holds is there too: whoever asks for all there is means all up to its end.
            self.buffer.wait_for_lines().await;
        }
        Ok(self.buffer.plan(limits))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(LineReader {
            stream: self.stream.clone(),
            buffer: Arc::clone(&self.buffer),
            columns: self.columns.clone(),
            format: self.format.clone(),
        })
    }

    async fn acknowledge(&mut self, ranges: &[PartitionRange]) -> Result<()> {
        self.buffer.acknowledge(ranges);
        Ok(())
    }

    fn position(&self) -> serde_json::Value {
        serde_json::json!(self.buffer.planned_row(""))
    }

    async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Ends with the cancellation; after it nothing is held open any more.
            let _ = task.await;
        }
    }
}

impl Drop for StdinSource {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
