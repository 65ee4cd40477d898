//! The socket as a source.

use super::connection::{Receiving, run_client, run_server};
use crate::error::{ConnectorError, Result};
use crate::formats::FormatOptions;
use crate::source::{Backlog, EpochLimits, Reader, Source, SourceContext, SourceProperties};
use crate::sources::columns::SourceColumns;
use crate::sources::position::stored;
use crate::sources::received::{DEFAULT_BUFFER_BYTES, ExpectedHeader, LineBuffer, LineReader, check_columns, take_format};
use async_trait::async_trait;
use millstream_types::{OptionError, PartitionRange};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const DEFAULT_MAX_CONNECTIONS: usize = 1_024;

/// A source of lines over TCP. See the module's documentation.
#[derive(Debug)]
pub struct SocketSource {
    stream: String,
    host: String,
    port: u16,
    listen: bool,
    max_connections: usize,
    bounded: bool,
    format: FormatOptions,
    columns: SourceColumns,
    buffer: Arc<LineBuffer>,
    position: Position,
    address: Option<SocketAddr>,
    task: Option<JoinHandle<()>>,
}

/// What a checkpoint keeps.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Position {
    /// Lines planned of the client's partition.
    row: u64,
    /// Number of the next connection; those before it may be known to the engine.
    next_connection: u64,
}

impl SocketSource {
    /// A source that is not connected yet.
    ///
    /// # Errors
    /// When an option has no legal value or a column a type that the format cannot hold.
    pub fn new(context: &mut SourceContext) -> Result<Self> {
        let options = &mut context.options;
        let listen = options.boolean("listen")?.unwrap_or(false);
        let host = match (options.take("host"), listen) {
            (Some(host), _) => host.trim().to_string(),
            (None, true) => "127.0.0.1".to_string(),
            (None, false) => return Err(OptionError::Missing { owner: options.owner().into(), name: "host".into() }.into()),
        };
        let port = options.parse::<u16>("port", "a port number")?;
        let port = port.ok_or_else(|| OptionError::Missing { owner: options.owner().into(), name: "port".into() })?;
        if port == 0 && !listen {
            return Err(OptionError::Value {
                owner: options.owner().into(),
                name: "port".into(),
                value: "0".into(),
                expected: "between 1 and 65535".into(),
            }
            .into());
        }
        // Who listens opens a port of this machine.
        crate::reach::check_host(options.reach(), options.owner(), &host, Some(port))?;
        let max_connections = match listen {
            true => options.parse::<usize>("max_connections", "a number of connections")?.unwrap_or(DEFAULT_MAX_CONNECTIONS).max(1),
            false => 1,
        };
        let buffer_bytes = options.bytes("buffer_bytes")?.unwrap_or(DEFAULT_BUFFER_BYTES);
        let bounded = options.boolean("bounded")?.unwrap_or(false);
        let format = take_format(options, false)?;
        check_columns(&context.schema, &format)?;
        Ok(Self {
            stream: context.stream.clone(),
            host,
            port,
            listen,
            max_connections,
            bounded,
            format,
            columns: SourceColumns::new("socket", context)?,
            buffer: Arc::new(LineBuffer::new(Arc::clone(&context.clock), buffer_bytes)),
            position: Position { row: 0, next_connection: 1 },
            address: None,
            task: None,
        })
    }

    /// The address this source listens on, once it is open.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.address
    }
}

#[async_trait]
impl Source for SocketSource {
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: false, bounded: self.bounded }
    }

    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        if let Some(value) = position {
            self.position = stored(&self.stream, &value)?;
        }
        for range in replayed {
            match range.partition.parse::<u64>() {
                Ok(number) => self.position.next_connection = self.position.next_connection.max(number + 1),
                Err(_) => self.position.row = self.position.row.max(range.range.end.row),
            }
        }
        let receiving = Receiving {
            stream: self.stream.as_str().into(),
            buffer: Arc::clone(&self.buffer),
            split: self.format.split_options(),
            expected: ExpectedHeader::of(&self.columns.schema, &self.format),
            bounded: self.bounded,
        };
        let place = if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) };
        let task = if self.listen {
            let listener =
                TcpListener::bind(&place).await.map_err(|error| ConnectorError::unavailable("listening on", place.clone(), error))?;
            self.address = listener.local_addr().ok();
            tokio::spawn(run_server(receiving, listener, self.position.next_connection, self.max_connections))
        } else {
            self.buffer.start_partition("", self.position.row);
            tokio::spawn(run_client(receiving, place))
        };
        if let Some(earlier) = self.task.replace(task) {
            earlier.abort();
        }
        Ok(())
    }

    fn wake(&self) -> Arc<Notify> {
        self.buffer.wake()
    }

    async fn backlog(&mut self) -> Result<Backlog> {
        Ok(self.buffer.backlog())
    }

    async fn mark_end(&mut self) -> Result<()> {
        self.buffer.mark_end();
        Ok(())
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        let ranges = self.buffer.plan(limits);
        for range in ranges.iter().flatten() {
            match range.partition.parse::<u64>() {
                Ok(number) => self.position.next_connection = self.position.next_connection.max(number + 1),
                Err(_) => self.position.row = range.range.end.row,
            }
        }
        Ok(ranges)
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
        serde_json::json!(self.position)
    }

    async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Ends with the cancellation; after it nothing is held open any more.
            let _ = task.await;
        }
    }
}

impl Drop for SocketSource {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
