//! The progress registry: the one source of what is known about a running pipeline.
//!
//! System tables, reports, listeners and tests read it. It keeps the last 1,000 epochs.

use crate::stopwatch::Stopwatch;
use millstream_types::{Epoch, EventTime};
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::broadcast;

/// Epochs kept.
const HISTORY: usize = 1_000;
/// Epoch times kept for percentiles.
const LATENCIES: usize = 1_000_000;

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

/// Where an epoch's time went.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PhaseTimes {
    /// Cutting ranges.
    #[serde(rename = "plan_ms", serialize_with = "millis")]
    pub plan: Duration,
    /// Reading, decoding, judging rows; runs beside the epoch before.
    #[serde(rename = "read_ms", serialize_with = "millis")]
    pub read: Duration,
    /// Operators.
    #[serde(rename = "dataflow_ms", serialize_with = "millis")]
    pub dataflow: Duration,
    /// Staging and preparing sinks.
    #[serde(rename = "sink_ms", serialize_with = "millis")]
    pub sink: Duration,
    /// Writing and syncing the commit record.
    #[serde(rename = "commit_ms", serialize_with = "millis")]
    pub commit: Duration,
    /// Making output visible, delivering, acknowledging.
    #[serde(rename = "publish_ms", serialize_with = "millis")]
    pub publish: Duration,
}

/// A stream in an epoch.
#[derive(Debug, Clone, Serialize)]
pub struct SourceProgress {
    /// Its name.
    pub stream: String,
    /// Rows read.
    pub rows_in: u64,
    /// Rows accepted.
    pub rows_used: u64,
    /// Rows that could not be decoded.
    pub rows_bad: u64,
    /// Rows below the watermark.
    pub rows_late: u64,
    /// Encoded bytes read.
    pub bytes: u64,
    /// Watermark after the epoch.
    pub watermark: EventTime,
    /// The stream has ended.
    pub ended: bool,
    /// Rows per second that the next epochs may take, where that is limited.
    pub rate_limit: Option<f64>,
}

/// A sink in an epoch.
#[derive(Debug, Clone, Serialize)]
pub struct SinkProgress {
    /// Its name.
    pub sink: String,
    /// Rows added.
    pub rows: u64,
    /// Files that became visible.
    pub files: u64,
    /// Committed rows that wait for a file.
    pub buffered_rows: u64,
}

/// An operator of a query, since it was built.
#[derive(Debug, Clone, Serialize)]
pub struct OperatorProgress {
    /// The query.
    pub query: String,
    /// Its place in the graph.
    pub node: u64,
    /// What it is.
    pub operator: String,
    /// How it is maintained.
    pub strategy: String,
    /// Rows taken in.
    pub rows_in: u64,
    /// Rows given out.
    pub rows_out: u64,
    /// Rows kept.
    pub state_rows: u64,
    /// Bytes they take.
    pub state_bytes: u64,
    /// Rows of state dropped by watermark.
    pub dropped_rows: u64,
    /// Other operators that share rows of its state, which only the first of them counts.
    pub shared_with: u64,
    /// Into how many shards it is divided.
    pub shards: u64,
}

/// A checkpoint.
#[derive(Debug, Clone, Serialize)]
pub struct CheckpointProgress {
    /// The epoch it holds.
    pub epoch: Epoch,
    /// Bytes of state.
    pub bytes: u64,
    /// How long it took.
    #[serde(rename = "ms", serialize_with = "millis")]
    pub elapsed: Duration,
}

impl PhaseTimes {
    /// The time in which somebody worked on the epoch.
    pub fn sum(&self) -> Duration {
        let Self { plan, read, dataflow, sink, commit, publish } = *self;
        plan + read + dataflow + sink + commit + publish
    }
}

/// One committed epoch.
#[derive(Debug, Clone, Serialize)]
pub struct EpochProgress {
    /// Its number.
    pub epoch: Epoch,
    /// The reading of its clock.
    pub clock: EventTime,
    /// Where the time went.
    pub phases: PhaseTimes,
    /// From the first step until it was durable and visible, with the time in which it waited to share a sync of the log.
    #[serde(rename = "total_ms", serialize_with = "millis")]
    pub total: Duration,
    /// Streams that brought something.
    pub sources: Vec<SourceProgress>,
    /// All sinks.
    pub sinks: Vec<SinkProgress>,
    /// The checkpoint made after it, if one was.
    pub checkpoint: Option<CheckpointProgress>,
}

/// What the distribution of durations of epochs is.
pub const EPOCH_DURATION: &str = "Time of epochs, in all and by phase.";

/// Upper bounds of the classes of [`DurationHistogram`], in seconds.
pub const DURATION_BUCKETS: [f64; 14] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// How often something took how long.
#[derive(Debug, Clone, Default)]
pub struct DurationHistogram {
    /// Per class of [`DURATION_BUCKETS`], without the classes below.
    pub counts: [u64; DURATION_BUCKETS.len()],
    /// All of them, also those above the last class.
    pub count: u64,
    /// Their sum.
    pub seconds: f64,
}

impl DurationHistogram {
    /// Counts one.
    pub fn add(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        if let Some(class) = DURATION_BUCKETS.iter().position(|bound| seconds <= *bound) {
            self.counts[class] += 1;
        }
        self.count += 1;
        self.seconds += seconds;
    }
}

/// Time of epochs in all, and by phase.
#[derive(Debug, Clone, Default)]
struct Durations {
    total: DurationHistogram,
    plan: DurationHistogram,
    read: DurationHistogram,
    dataflow: DurationHistogram,
    sink: DurationHistogram,
    commit: DurationHistogram,
    publish: DurationHistogram,
}

#[derive(Debug)]
struct Registry {
    epochs: VecDeque<Arc<EpochProgress>>,
    latencies_us: Vec<u32>,
    totals: Totals,
    phases: PhaseTimes,
    durations: Durations,
    checkpoints: VecDeque<CheckpointProgress>,
    errors: VecDeque<(Epoch, String, String)>,
    started: Stopwatch,
    busy: Duration,
}

#[derive(Debug, Default, Clone)]
struct Totals {
    epochs: u64,
    data_epochs: u64,
    rows_in: u64,
    rows_used: u64,
    rows_bad: u64,
    rows_late: u64,
    rows_out: u64,
    files_out: u64,
    bytes_in: u64,
    watermarks: BTreeMap<String, EventTime>,
    first: Option<Duration>,
    last: Duration,
}

/// The registry. Shared; written by the pipeline's task only.
#[derive(Debug)]
pub struct Progress {
    registry: Mutex<Registry>,
    events: broadcast::Sender<Arc<EpochProgress>>,
    ended: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        let registry = Registry {
            epochs: VecDeque::new(),
            latencies_us: Vec::new(),
            totals: Totals::default(),
            phases: PhaseTimes::default(),
            durations: Durations::default(),
            checkpoints: VecDeque::new(),
            errors: VecDeque::new(),
            started: Stopwatch::start(),
            busy: Duration::ZERO,
        };
        Self { registry: Mutex::new(registry), events: broadcast::channel(256).0, ended: AtomicBool::new(false) }
    }
}

impl Progress {
    /// The newest committed epoch.
    pub fn latest(&self) -> Option<Arc<EpochProgress>> {
        self.registry.lock().epochs.back().cloned()
    }

    /// The last epochs, oldest first.
    pub fn history(&self) -> Vec<Arc<EpochProgress>> {
        self.registry.lock().epochs.iter().cloned().collect()
    }

    /// The last checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<CheckpointProgress> {
        self.registry.lock().checkpoints.iter().cloned().collect()
    }

    /// The last failures: (epoch, query or empty, message).
    pub fn errors(&self) -> Vec<(Epoch, String, String)> {
        self.registry.lock().errors.iter().cloned().collect()
    }

    /// How long epochs took since the engine was built: in all (`total`) and by phase.
    pub fn durations(&self) -> Vec<(&'static str, DurationHistogram)> {
        let Durations { total, plan, read, dataflow, sink, commit, publish } = self.registry.lock().durations.clone();
        let phases = [("plan", plan), ("read", read), ("dataflow", dataflow), ("sink", sink), ("commit", commit), ("publish", publish)];
        std::iter::once(("total", total)).chain(phases).collect()
    }

    /// Every epoch as it is committed.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<EpochProgress>> {
        self.events.subscribe()
    }

    /// Whether all streams have ended and everything is committed.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(crate) fn epoch(&self, progress: EpochProgress) {
        let progress = Arc::new(progress);
        let mut registry = self.registry.lock();
        let elapsed = registry.started.elapsed();
        let rows_in: u64 = progress.sources.iter().map(|source| source.rows_in).sum();
        registry.busy += progress.phases.sum();
        let totals = &mut registry.totals;
        totals.epochs += 1;
        for source in &progress.sources {
            totals.rows_in += source.rows_in;
            totals.rows_used += source.rows_used;
            totals.rows_bad += source.rows_bad;
            totals.rows_late += source.rows_late;
            totals.bytes_in += source.bytes;
            totals.watermarks.insert(source.stream.clone(), source.watermark);
        }
        for sink in &progress.sinks {
            totals.rows_out += sink.rows;
            totals.files_out += sink.files;
        }
        if totals.first.is_none() && rows_in > 0 {
            totals.first = Some(elapsed.saturating_sub(progress.total));
        }
        totals.last = elapsed;
        if rows_in > 0 {
            totals.data_epochs += 1;
            if registry.latencies_us.len() < LATENCIES {
                registry.latencies_us.push(u32::try_from(progress.total.as_micros()).unwrap_or(u32::MAX));
            }
        }
        let durations = &mut registry.durations;
        durations.total.add(progress.total);
        durations.plan.add(progress.phases.plan);
        durations.read.add(progress.phases.read);
        durations.dataflow.add(progress.phases.dataflow);
        durations.sink.add(progress.phases.sink);
        durations.commit.add(progress.phases.commit);
        durations.publish.add(progress.phases.publish);
        let phases = &mut registry.phases;
        phases.plan += progress.phases.plan;
        phases.read += progress.phases.read;
        phases.dataflow += progress.phases.dataflow;
        phases.sink += progress.phases.sink;
        phases.commit += progress.phases.commit;
        phases.publish += progress.phases.publish;
        if registry.epochs.len() >= HISTORY {
            registry.epochs.pop_front();
        }
        registry.epochs.push_back(Arc::clone(&progress));
        drop(registry);
        // Nobody listening is fine.
        let _ = self.events.send(progress);
    }

    pub(crate) fn checkpoint(&self, epoch: Epoch, bytes: u64, elapsed: Duration) {
        let mut registry = self.registry.lock();
        if registry.checkpoints.len() >= HISTORY {
            registry.checkpoints.pop_front();
        }
        registry.checkpoints.push_back(CheckpointProgress { epoch, bytes, elapsed });
    }

    pub(crate) fn query_failed(&self, query: &str, epoch: Epoch, message: &str) {
        let mut registry = self.registry.lock();
        if registry.errors.len() >= HISTORY {
            registry.errors.pop_front();
        }
        registry.errors.push_back((epoch, query.to_string(), message.to_string()));
    }

    pub(crate) fn failed(&self, message: String) {
        let epoch = self.latest().map_or(Epoch::ZERO, |progress| progress.epoch);
        self.query_failed("", epoch.next(), &message);
    }

    /// Everything since the engine was built, as one record. State figures are added by the engine.
    pub fn report(&self) -> RunReport {
        let registry = self.registry.lock();
        let totals = registry.totals.clone();
        let mut latencies = registry.latencies_us.clone();
        latencies.sort_unstable();
        let at = |share: f64| {
            let index = ((latencies.len().saturating_sub(1)) as f64 * share).round() as usize;
            latencies.get(index).map_or(0.0, |us| f64::from(*us) / 1e3)
        };
        let seconds = totals.last.saturating_sub(totals.first.unwrap_or_default()).as_secs_f64();
        RunReport {
            rows_in: totals.rows_in,
            rows_used: totals.rows_used,
            rows_bad: totals.rows_bad,
            rows_late: totals.rows_late,
            rows_out: totals.rows_out,
            files_out: totals.files_out,
            bytes_in: totals.bytes_in,
            epochs: totals.epochs,
            seconds,
            rows_per_second: if seconds > 0.0 { totals.rows_in as f64 / seconds } else { 0.0 },
            epoch_latency_ms: LatencyReport { p50: at(0.5), p99: at(0.99), max: at(1.0) },
            phases_ms: registry.phases,
            busy_seconds: registry.busy.as_secs_f64(),
            cpu_seconds: 0.0,
            peak_memory_bytes: 0,
            state_rows: 0,
            state_bytes: 0,
            watermarks: totals.watermarks.iter().map(|(name, time)| (name.clone(), time.to_string())).collect(),
        }
    }
}

/// Percentiles of the time of epochs that brought rows.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct LatencyReport {
    /// Half of the epochs took at most this long.
    pub p50: f64,
    /// 99 of 100.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// What `--report` writes.
#[derive(Debug, Clone, Serialize)]
pub struct RunReport {
    /// Rows read.
    pub rows_in: u64,
    /// Rows accepted.
    pub rows_used: u64,
    /// Rows that could not be decoded.
    pub rows_bad: u64,
    /// Rows below the watermark.
    pub rows_late: u64,
    /// Rows added to sinks.
    pub rows_out: u64,
    /// Files that became visible.
    pub files_out: u64,
    /// Encoded bytes read.
    pub bytes_in: u64,
    /// Epochs committed.
    pub epochs: u64,
    /// From the start of the first epoch with rows to the end of the last epoch.
    pub seconds: f64,
    /// Rows read per second of that time.
    pub rows_per_second: f64,
    /// Time of epochs.
    pub epoch_latency_ms: LatencyReport,
    /// Where the time went; reading runs beside the other phases.
    pub phases_ms: PhaseTimes,
    /// Sum of the time of all epochs.
    pub busy_seconds: f64,
    /// CPU time of the process, user and system.
    pub cpu_seconds: f64,
    /// Largest resident set of the process.
    pub peak_memory_bytes: u64,
    /// Rows of operator state and views.
    pub state_rows: u64,
    /// Bytes they take.
    pub state_bytes: u64,
    /// Watermark of each stream.
    pub watermarks: BTreeMap<String, String>,
}
