//! Suites that every connector passes: what the contracts of [`source`](crate::source) and [`sink`](crate::sink) promise, checked.
//!
//! A suite panics with the broken promise. It is part of this crate's tests and, with the feature `test-util`, of those of
//! connectors in other crates.

use crate::sink::{DeliveredSink, SinkCheckpoint, SinkCommit, SinkContext, SinkEpoch, SinkMode, TransactionalSink};
use crate::source::{BadRow, EpochLimits, ReadRequest, Reader, Source, SourceContext};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use millstream_types::{Clock, DeltaBatch, Epoch, EventTime, ManualClock, Offset, Options, PartitionRange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// 2000-01-01T00:00:00Z, where the clocks of tests start.
pub const START: EventTime = EventTime(946_684_800_000_000);

/// A clock that stands at [`START`].
pub fn start_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(START))
}

/// A context for a source of stream `s` with nullable columns of these types.
pub fn source_context(columns: &[(&str, DataType)], options: &[(&str, &str)], clock: &Arc<ManualClock>) -> SourceContext {
    let fields: Vec<Field> = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect();
    SourceContext {
        stream: "s".into(),
        schema: Arc::new(Schema::new(fields)),
        metadata: Vec::new(),
        event_time: None,
        options: Options::new("stream \"s\"", options.iter().map(|(name, value)| (name.to_string(), value.to_string()))),
        clock: Arc::clone(clock) as Arc<dyn Clock>,
    }
}

/// A context for a sink `k` without options.
pub fn sink_context(schema: SchemaRef, mode: SinkMode) -> SinkContext {
    SinkContext {
        sink: "k".into(),
        schema,
        partition_by: Vec::new(),
        order_by: Vec::new(),
        key: Vec::new(),
        mode,
        event_time: None,
        pipeline: "00c0ffee".into(),
        writer: 1,
        scratch: None,
        options: Options::new("sink \"k\"", Vec::new()),
    }
}

/// Limits of an epoch at this reading of the clock, generous ones.
pub fn limits(clock: EventTime) -> EpochLimits {
    EpochLimits { max_rows: None, max_bytes: 256_000_000, max_files: 1_000, clock, draining: false, until: None }
}

/// Everything that a range holds.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeRows {
    /// The rows that could be decoded.
    pub batch: RecordBatch,
    /// Their offsets.
    pub offsets: Vec<Offset>,
    /// The others.
    pub bad: Vec<BadRow>,
}

/// Reads a range to its end and checks what holds for every batch.
///
/// # Panics
/// When reading fails or a batch breaks the contract.
pub async fn read_range(reader: &Arc<dyn Reader>, range: &PartitionRange, request: &ReadRequest) -> RangeRows {
    let mut stream = reader.read(range.clone(), request.clone()).await.expect("a planned range is readable");
    let (mut batches, mut offsets, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(part) = stream.next().await {
        let part = part.expect("a planned range is readable");
        let rows = part.batch.num_rows();
        assert!(request.batch_size == 0 || rows <= request.batch_size, "a batch of {rows} rows exceeds {}", request.batch_size);
        match &part.rows {
            Some(numbers) => {
                assert_eq!(numbers.len(), rows, "one row offset per row");
                offsets.extend(numbers.iter().map(|row| Offset { sequence: part.sequence, row: *row }));
            }
            None => offsets.extend((0..rows as u64).map(|row| Offset { sequence: part.sequence, row: part.first_row + row })),
        }
        bad.extend(part.bad);
        batches.push(part.batch);
    }
    assert!(offsets.is_sorted_by(|left, right| left < right), "row offsets ascend");
    let mut all: Vec<Offset> = offsets.iter().copied().chain(bad.iter().map(|row| row.offset)).collect();
    all.sort();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "a row is either good or bad, once");
    assert!(all.iter().all(|offset| *offset >= range.range.start && *offset < range.range.end), "rows lie in their range");
    if range.range.start.sequence == range.range.end.sequence {
        assert_eq!(all.len() as u64, range.range.end.row - range.range.start.row, "every offset of the range is read");
    }
    let batch = match batches.first() {
        Some(first) => concat_batches(&first.schema(), &batches).expect("batches of a range have one schema"),
        None => RecordBatch::new_empty(Arc::new(Schema::empty())),
    };
    RangeRows { batch, offsets, bad }
}

const EPOCHS: usize = 3;

/// Checks a source: ranges continue each other, a range reads the same as often as asked and in any batch size, planning takes and looking
/// does not, a restart goes on where the position says, and acknowledging harms nothing that was planned later. `make` builds
/// a new source over the same input; `feed` makes some rows available and is called before every epoch.
///
/// # Panics
/// When the source breaks a promise.
pub async fn source(make: impl Fn() -> Box<dyn Source>, clock: &ManualClock, mut feed: impl AsyncFnMut(&mut dyn Source)) {
    let mut source = make();
    source.open(None, &[]).await.expect("a new source opens");
    let replayable = source.properties().replayable;
    let reader = source.reader();
    let mut ends: BTreeMap<String, Offset> = BTreeMap::new();
    let mut epochs: Vec<(Vec<PartitionRange>, Vec<RangeRows>)> = Vec::new();
    let mut positions = vec![source.position()];
    for epoch in 0..EPOCHS {
        feed(source.as_mut()).await;
        clock.advance(Duration::from_secs(1));
        let before = source.position();
        let backlog = source.backlog().await.expect("a source can be asked what waits");
        source.backlog().await.expect("a source can be asked what waits");
        assert_eq!(source.position(), before, "looking takes nothing");
        assert!(!backlog.ended, "a source with rows to come has not ended");
        let ranges =
            source.plan(&limits(clock.now())).await.expect("planning succeeds").unwrap_or_else(|| panic!("epoch {epoch} has rows"));
        let mut rows = Vec::new();
        for range in &ranges {
            assert!(range.range.start <= range.range.end, "a range does not end before it starts");
            if let Some(end) = ends.insert(range.partition.clone(), range.range.end) {
                assert_eq!(range.range.start, end, "a range starts where its partition's last one ended");
            }
            let whole = read_range(&reader, range, &ReadRequest { projection: None, batch_size: 8_192, ..ReadRequest::default() }).await;
            let again = read_range(&reader, range, &ReadRequest { projection: None, batch_size: 3, ..ReadRequest::default() }).await;
            assert_eq!(whole.batch, again.batch, "a range reads the same twice, whatever the batch size");
            assert_eq!((&whole.offsets, &whole.bad), (&again.offsets, &again.bad));
            let narrow =
                read_range(&reader, range, &ReadRequest { projection: Some(vec![0]), batch_size: 8_192, ..ReadRequest::default() }).await;
            // A narrower request may find fewer faults, as it looks at less.
            if whole.bad.len() == narrow.bad.len() && whole.batch.num_rows() > 0 {
                assert_eq!(whole.batch.column(0), narrow.batch.column(0), "a projected column has the same values");
            }
            rows.push(whole);
        }
        assert!(rows.iter().any(|rows| rows.batch.num_rows() + rows.bad.len() > 0), "epoch {epoch} has rows");
        epochs.push((ranges, rows));
        positions.push(source.position());
    }
    // Later epochs do not take earlier ones away, nor does acknowledging the first one take the others.
    source.acknowledge(&epochs[0].0).await.expect("a planned range can be acknowledged");
    for (ranges, rows) in &epochs[1..] {
        assert_same(&reader, ranges, rows).await;
    }
    for (ranges, _) in &epochs[1..] {
        source.acknowledge(ranges).await.expect("a planned range can be acknowledged");
    }
    source.stop().await;
    drop(source);
    for taken in 0..=EPOCHS {
        // A checkpoint after `taken` epochs and replay of the others; at 0 there is no checkpoint at all.
        let position = (taken > 0).then(|| positions[taken].clone());
        let replayed: Vec<PartitionRange> = epochs[taken..].iter().flat_map(|(ranges, _)| ranges.clone()).collect();
        let mut restarted = make();
        restarted.open(position, &replayed).await.expect("a source opens again");
        if replayable {
            let reader = restarted.reader();
            for (ranges, rows) in &epochs {
                assert_same(&reader, ranges, rows).await;
            }
            assert_eq!(restarted.position(), positions[EPOCHS], "ranges replayed after a checkpoint count as taken");
        }
        feed(restarted.as_mut()).await;
        clock.advance(Duration::from_secs(1));
        let next = restarted.plan(&limits(clock.now())).await.expect("planning succeeds").expect("a restarted source goes on");
        for range in &next {
            if let Some(end) = ends.get(&range.partition) {
                assert_eq!(range.range.start, *end, "a restarted source goes on where it was");
            }
        }
        restarted.stop().await;
    }
}

async fn assert_same(reader: &Arc<dyn Reader>, ranges: &[PartitionRange], expected: &[RangeRows]) {
    for (range, expected) in ranges.iter().zip(expected) {
        let rows = read_range(reader, range, &ReadRequest { projection: None, batch_size: 8_192, ..ReadRequest::default() }).await;
        assert_eq!(&rows, expected, "a planned range reads the same later");
    }
}

/// The epoch of that number, a second after the one before, the first one a second after [`START`].
pub fn sink_epoch(number: u64) -> SinkEpoch {
    SinkEpoch { epoch: Epoch(number), clock: START.plus(Duration::from_secs(number)), roll: false }
}

/// `id BIGINT, name VARCHAR`, the columns of [`sample_epochs`].
pub fn sample_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8View, true)]))
}

fn sample_batch(rows: &[(i64, Option<&str>)]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(rows.iter().map(|(id, _)| *id).collect::<Int64Array>());
    let names: ArrayRef = Arc::new(rows.iter().map(|(_, name)| *name).collect::<StringViewArray>());
    RecordBatch::try_new(sample_schema(), vec![ids, names]).expect("the columns fit the schema")
}

/// Three epochs of a changelog: insertions, an update with a row that comes twice, insertions again. Nine rows by weight.
pub fn sample_epochs() -> Vec<Vec<DeltaBatch>> {
    vec![
        vec![DeltaBatch::insertions(sample_batch(&[(1, Some("one")), (2, Some("two")), (3, Some("three"))]))],
        vec![DeltaBatch::weighted(sample_batch(&[(2, Some("two")), (2, None), (4, Some("four"))]), Int64Array::from(vec![-1, 1, 2]))],
        vec![DeltaBatch::insertions(sample_batch(&[(5, Some("five")), (6, Some("six"))]))],
    ]
}

/// Three epochs that only add rows, for sinks in append mode.
pub fn append_epochs() -> Vec<Vec<DeltaBatch>> {
    let mut epochs = sample_epochs();
    epochs[1] = vec![DeltaBatch::weighted(sample_batch(&[(7, None), (4, Some("four"))]), Int64Array::from(vec![1, 2]))];
    epochs
}

/// A transactional sink to check.
pub struct SinkCase<'a> {
    /// Builds a sink over the same place.
    pub make: &'a dyn Fn() -> Box<dyn TransactionalSink>,
    /// What readers of the place see: names and contents.
    pub visible: &'a dyn Fn() -> BTreeMap<String, Vec<u8>>,
    /// The changes of at least two epochs, as its mode allows.
    pub epochs: Vec<Vec<DeltaBatch>>,
}

impl std::fmt::Debug for SinkCase<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkCase").field("epochs", &self.epochs.len()).finish_non_exhaustive()
    }
}

/// Checks a transactional sink: nothing is visible before `publish`, publishing twice is publishing once, an aborted epoch leaves
/// nothing, and a restart that replays committed epochs shows what was there before, also when the crash came before `publish`.
/// The last epoch is rolled, so that everything ends up visible where the sink has files.
///
/// # Panics
/// When the sink breaks a promise.
pub async fn transactional_sink(case: SinkCase<'_>) {
    let count = case.epochs.len() as u64;
    let epoch_of = |number: u64| SinkEpoch { roll: number == count, ..sink_epoch(number) };
    let mut sink = (case.make)();
    sink.open(None).await.expect("a new sink opens");
    let nothing = (case.visible)();

    // An epoch that fails before its commit leaves nothing and does not hinder the next attempt.
    sink.stage(SinkEpoch { roll: true, ..epoch_of(1) }, &case.epochs[0]).await.expect("staging succeeds");
    sink.prepare(SinkEpoch { roll: true, ..epoch_of(1) }).await.expect("preparing succeeds");
    assert_eq!((case.visible)(), nothing, "nothing is visible before the commit");
    sink.abort(SinkEpoch { roll: true, ..epoch_of(1) }).await.expect("aborting succeeds");
    assert_eq!((case.visible)(), nothing, "an aborted epoch leaves nothing");
    assert!(
        sink.buffered().await.expect("rows that wait can be read").iter().all(|batch| batch.num_rows() == 0),
        "an aborted epoch leaves no rows"
    );

    let mut commits: Vec<SinkCommit> = Vec::new();
    let mut checkpoint: Option<SinkCheckpoint> = None;
    for (index, changes) in case.epochs.iter().enumerate() {
        let epoch = epoch_of(index as u64 + 1);
        let before = (case.visible)();
        sink.stage(epoch, changes).await.expect("staging succeeds");
        let commit = sink.prepare(epoch).await.expect("preparing succeeds");
        assert_eq!((case.visible)(), before, "nothing is visible before the commit");
        if epoch.epoch.0 < count {
            sink.publish(&commit).await.expect("publishing succeeds");
            let published = (case.visible)();
            sink.publish(&commit).await.expect("publishing again succeeds");
            assert_eq!((case.visible)(), published, "publishing twice is publishing once");
            if epoch.epoch.0 == 1 {
                checkpoint = Some(sink.checkpoint().await.expect("a checkpoint can be taken"));
            }
        }
        commits.push(commit);
    }
    // The crash: the last epoch is committed and was never published.
    drop(sink);
    let mut restarted = (case.make)();
    restarted.open(checkpoint).await.expect("a sink opens again");
    for (index, changes) in case.epochs.iter().enumerate().skip(1) {
        restarted.replay(epoch_of(index as u64 + 1), changes, &commits[index]).await.expect("replay succeeds");
    }
    restarted.check_published(epoch_of(count).epoch).await.expect("nothing is ahead of the log");
    restarted.remove_orphans().await.expect("orphans can be removed");
    let recovered = (case.visible)();
    for commit in &commits {
        for file in &commit.files {
            assert!(recovered.contains_key(&file.name), "the committed file {} is visible after recovery", file.name);
        }
    }
    // Recovery from the very start rewrites nothing that is there.
    drop(restarted);
    let mut again = (case.make)();
    again.open(None).await.expect("a sink opens again");
    for (index, changes) in case.epochs.iter().enumerate() {
        again.replay(epoch_of(index as u64 + 1), changes, &commits[index]).await.expect("replay succeeds");
    }
    again.check_published(epoch_of(count).epoch).await.expect("nothing is ahead of the log");
    again.remove_orphans().await.expect("orphans can be removed");
    assert_eq!((case.visible)(), recovered, "replaying again changes nothing");
}

/// Checks a delivered sink: it opens, takes epochs in order, and takes one again after a restart.
///
/// # Panics
/// When the sink fails.
pub async fn delivered_sink(make: impl Fn() -> Box<dyn DeliveredSink>, epochs: &[Vec<DeltaBatch>]) {
    let mut sink = make();
    sink.open().await.expect("a sink opens");
    for (index, changes) in epochs.iter().enumerate() {
        sink.deliver(sink_epoch(index as u64 + 1), changes).await.expect("an epoch is delivered");
    }
    drop(sink);
    let mut restarted = make();
    restarted.open().await.expect("a sink opens again");
    if let Some(changes) = epochs.last() {
        restarted.deliver(sink_epoch(epochs.len() as u64), changes).await.expect("an epoch is delivered again");
    }
}
