//! The console as a sink.

use super::render::{Layout, Style, render};
use crate::error::{ConnectorError, Result};
use crate::sink::{DeliveredSink, SinkContext, SinkEpoch, SinkMode};
use async_trait::async_trait;
use millstream_types::{DeltaBatch, OptionError};
use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;

/// Where the text goes.
pub type ConsoleWriter = Arc<Mutex<dyn Write + Send>>;

const DEFAULT_LIMIT: usize = 10;

/// Prints changes. See the module's documentation.
pub struct ConsoleSink {
    layout: Layout,
    writer: ConsoleWriter,
}

impl std::fmt::Debug for ConsoleSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsoleSink").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl ConsoleSink {
    /// A sink that prints to `writer`.
    ///
    /// # Errors
    /// When an option has no legal value.
    pub fn new(context: &mut SinkContext, writer: ConsoleWriter) -> Result<Self> {
        let limit = context.options.parse::<usize>("limit", "a number of rows")?.unwrap_or(DEFAULT_LIMIT);
        let style = context.options.choice("format", &[("table", Style::Table), ("lines", Style::Lines)])?.unwrap_or(Style::Table);
        let mut key = Vec::with_capacity(context.key.len());
        for name in &context.key {
            let index = context.schema.index_of(name).map_err(|_| OptionError::Value {
                owner: context.options.owner().to_string(),
                name: "PRIMARY KEY".into(),
                value: name.clone(),
                expected: "a column of the query".into(),
            })?;
            key.push(index);
        }
        let ops = matches!(context.mode, SinkMode::Changelog | SinkMode::Upsert);
        Ok(Self { layout: Layout { schema: Arc::clone(&context.schema), key, ops, limit, style }, writer })
    }
}

#[async_trait]
impl DeliveredSink for ConsoleSink {
    async fn open(&mut self) -> Result<()> {
        Ok(())
    }

    async fn deliver(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<()> {
        let text =
            render(&self.layout, epoch, changes).map_err(|error| ConnectorError::internal("rendering rows for the console", error))?;
        if text.is_empty() {
            return Ok(());
        }
        let mut writer = self.writer.lock();
        writer
            .write_all(text.as_bytes())
            .and_then(|()| writer.flush())
            .map_err(|error| ConnectorError::unavailable("writing to", "the console", error))
    }
}
