//! The source that hands a history out in the order of event time.

use super::HistoryOptions;
use super::bucket::Bucket;
use super::spool::{Manifest, manifest, write};
use crate::error::{ConnectorError, Result};
use crate::source::{Backlog, EpochLimits, ReadRequest, Reader, Source, SourceBatch, SourceContext, SourceProperties, single_partition};
use crate::sources::columns::SourceColumns;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_types::{EventTime, Offset, PartitionRange};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Notify;

/// See the documentation of the folder.
#[derive(Debug)]
pub struct HistorySource {
    stream: String,
    inner: Box<dyn Source>,
    options: HistoryOptions,
    time_index: usize,
    wake: Arc<Notify>,
    sorted: Arc<Sorted>,
    /// Position of the next row.
    next: u64,
}

/// The sorted history.
#[derive(Debug)]
struct Sorted {
    directory: PathBuf,
    columns: SchemaRef,
    /// Number of decoded columns; metadata columns follow.
    decoded: usize,
    manifest: Mutex<Manifest>,
    /// The bucket read last, since slices are smaller than buckets.
    loaded: Mutex<Option<(usize, Arc<Bucket>)>>,
}

impl HistorySource {
    /// Puts the order of event time in front of a source.
    ///
    /// # Errors
    /// When the stream has no event time among the columns that its source decodes.
    pub fn new(inner: Box<dyn Source>, connector: &str, context: &SourceContext, options: HistoryOptions) -> Result<Self> {
        let stream = context.stream.clone();
        let time_index = context.event_time.as_ref().and_then(|column| context.schema.index_of(column).ok()).ok_or_else(|| {
            ConnectorError::invalid(
                format!("stream \"{stream}\" has no event time among the columns that its source reads"),
                "Replay it with --order arrival.",
            )
        })?;
        if !inner.properties().replayable {
            return Err(ConnectorError::invalid(format!("stream \"{stream}\" has no history to replay"), "Point it at files."));
        }
        let columns = SourceColumns::new(connector, context)?;
        let all: Vec<usize> = (0..columns.schema.fields().len()).collect();
        let sorted = Sorted {
            directory: options.directory.join(&stream),
            columns: columns.output_schema(&all),
            decoded: all.len(),
            manifest: Mutex::default(),
            loaded: Mutex::default(),
        };
        Ok(Self { stream, inner, options, time_index, wake: Arc::new(Notify::new()), sorted: Arc::new(sorted), next: 0 })
    }
}

impl Sorted {
    fn total(&self) -> u64 {
        self.manifest.lock().bucket_rows.iter().sum()
    }

    /// The bucket that holds a position, and the position of its first row.
    fn bucket_at(&self, position: u64) -> Result<Option<(u64, Arc<Bucket>)>> {
        let found = {
            let manifest = self.manifest.lock();
            let mut first = 0;
            let mut found = None;
            for (index, rows) in manifest.bucket_rows.iter().enumerate() {
                if position < first + rows {
                    found = Some((index, first, *rows));
                    break;
                }
                first += rows;
            }
            found
        };
        let Some((index, first, rows)) = found else { return Ok(None) };
        let mut loaded = self.loaded.lock();
        if let Some((at, bucket)) = loaded.as_ref().filter(|(at, _)| *at == index) {
            debug_assert_eq!(*at, index);
            return Ok(Some((first, Arc::clone(bucket))));
        }
        let bucket = Arc::new(Bucket::load(&self.directory, index, &self.columns)?);
        if bucket.len() != rows {
            return Err(ConnectorError::Corrupt {
                place: format!("bucket {index} of \"{}\"", self.directory.display()),
                problem: format!("has {} rows, the manifest says {rows}", bucket.len()),
            });
        }
        *loaded = Some((index, Arc::clone(&bucket)));
        Ok(Some((first, bucket)))
    }
}

/// Runs something that reads files beside the runtime's own threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(ConnectorError::internal("reading sorted history", error)),
    }
}

#[async_trait]
impl Source for HistorySource {
    fn properties(&self) -> SourceProperties {
        SourceProperties { replayable: true, bounded: self.options.closes }
    }

    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()> {
        let known = position.as_ref().and_then(serde_json::Value::as_u64).unwrap_or(0);
        self.next = replayed.iter().map(|range| range.range.end.row).fold(known, u64::max);
        let directory = self.sorted.directory.clone();
        let place = format!("\"{}\"", directory.display());
        // A first start sorts what is there now, whatever an earlier replay left.
        let fresh = position.is_none() && replayed.is_empty();
        let found = match if fresh { None } else { manifest(&directory)? } {
            Some(found) if found.from != self.options.from || found.to != self.options.to => {
                if self.next > 0 {
                    return Err(ConnectorError::invalid(
                        format!("the replay of stream \"{}\" was begun with other bounds", self.stream),
                        "Go on with the same --from and --to, or begin anew with another --state-dir.",
                    ));
                }
                None
            }
            found => found,
        };
        let found = match found {
            Some(found) => found,
            None if self.next > 0 => return Err(ConnectorError::Corrupt { place, problem: "with the sorted history is gone".into() }),
            None => {
                self.inner.open(None, &[]).await?;
                let written = write(self.inner.as_mut(), &self.sorted.columns, self.time_index, &directory, &self.options).await?;
                self.inner.stop().await;
                written
            }
        };
        *self.sorted.manifest.lock() = found;
        Ok(())
    }

    fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    async fn backlog(&mut self) -> Result<Backlog> {
        let total = self.sorted.total();
        let (sorted, next) = (Arc::clone(&self.sorted), self.next);
        let time = blocking(move || Ok(sorted.bucket_at(next)?.and_then(|(first, bucket)| bucket.time_at(next - first)))).await?;
        Ok(Backlog {
            rows: Some(total - self.next.min(total)),
            latest: vec![(String::new(), Offset::row(total))],
            ended: self.options.closes && self.next >= total,
            next_event_time: time.map(EventTime),
            ..Backlog::default()
        })
    }

    async fn mark_end(&mut self) -> Result<()> {
        Ok(())
    }

    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>> {
        let (sorted, start) = (Arc::clone(&self.sorted), self.next);
        let until = limits.until.map_or(i64::MAX, |until| until.0);
        let end = blocking(move || {
            let mut end = start;
            while let Some((first, bucket)) = sorted.bucket_at(end)? {
                let reached = first + bucket.position_of(until);
                end = end.max(reached);
                if reached < first + bucket.len() {
                    break;
                }
            }
            Ok(end)
        })
        .await?;
        if end == start {
            return Ok(None);
        }
        self.next = end;
        Ok(Some(vec![single_partition(Offset::row(start), Offset::row(end))]))
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(HistoryReader(Arc::clone(&self.sorted)))
    }

    async fn acknowledge(&mut self, _ranges: &[PartitionRange]) -> Result<()> {
        Ok(())
    }

    fn position(&self) -> serde_json::Value {
        self.next.into()
    }
}

/// Reads ranges of a sorted history.
#[derive(Debug)]
struct HistoryReader(Arc<Sorted>);

#[async_trait]
impl Reader for HistoryReader {
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>> {
        let (start, end) = (range.range.start.row, range.range.end.row);
        let decoded = self.0.decoded;
        let metadata = decoded..self.0.columns.fields().len();
        let projection: Option<Vec<usize>> =
            request.projection.map(|chosen| chosen.into_iter().filter(|index| *index < decoded).chain(metadata).collect());
        let parts = stream::try_unfold((Arc::clone(&self.0), start), move |(sorted, at)| {
            let projection = projection.clone();
            async move {
                if at >= end {
                    return Ok(None);
                }
                let from = Arc::clone(&sorted);
                let read = blocking(move || {
                    let Some((first, bucket)) = from.bucket_at(at)? else {
                        return Err(ConnectorError::Corrupt {
                            place: format!("\"{}\"", from.directory.display()),
                            problem: format!("does not reach row {at} any more"),
                        });
                    };
                    let to = end.min(first + bucket.len());
                    let mut batches = bucket.read(at - first..to - first, first, request.batch_size);
                    if let Some(projection) = &projection {
                        for batch in &mut batches {
                            batch.batch = batch.batch.project(projection).map_err(super::bucket::internal)?;
                        }
                    }
                    Ok((batches, to))
                })
                .await;
                let (batches, to) = read?;
                Ok(Some((stream::iter(batches.into_iter().map(Ok)), (sorted, to))))
            }
        });
        Ok(parts
            .map(|part: Result<_>| match part {
                Ok(batches) => batches.left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            })
            .flatten()
            .boxed())
    }
}
