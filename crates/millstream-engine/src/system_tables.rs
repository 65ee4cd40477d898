//! The system tables `millstream.*`: the progress registry and the catalog, as SQL sees them.

use crate::catalog::object::ObjectKind;
use crate::error::Result;
use crate::pipeline::Shared;
use crate::pipeline::snapshot::Snapshot;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use millstream_types::EventTime;
use std::sync::Arc;

/// Names of all system tables, sorted.
pub const SYSTEM_TABLES: &[&str] =
    &["checkpoints", "dead_letters", "epochs", "errors", "operators", "queries", "settings", "sinks", "sources", "streams"];

fn text<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn optional_text(values: impl IntoIterator<Item = Option<String>>) -> ArrayRef {
    Arc::new(StringArray::from_iter(values))
}

fn int(values: impl IntoIterator<Item = u64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.into_iter().map(|value| i64::try_from(value).unwrap_or(i64::MAX))))
}

fn float(values: impl IntoIterator<Item = f64>) -> ArrayRef {
    Arc::new(Float64Array::from_iter_values(values))
}

/// Times; the two infinities are NULL.
fn time(values: impl IntoIterator<Item = EventTime>) -> ArrayRef {
    let finite = |time: EventTime| (time != EventTime::MIN && time != EventTime::MAX).then_some(time.0);
    Arc::new(TimestampMicrosecondArray::from_iter(values.into_iter().map(finite)))
}

fn boolean(values: impl IntoIterator<Item = bool>) -> ArrayRef {
    Arc::new(BooleanArray::from_iter(values.into_iter().map(Some)))
}

/// The provider of a system table; `None` when there is no such table.
pub fn provider(name: &str, shared: &Shared, snapshot: &Snapshot) -> Option<Arc<dyn TableProvider>> {
    if name == "dead_letters" {
        return shared.dead_letters.read().provider().ok();
    }
    let batch = rows(name, shared, snapshot)?.ok()?;
    let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).ok()?;
    Some(Arc::new(table))
}

fn rows(name: &str, shared: &Shared, snapshot: &Snapshot) -> Option<Result<RecordBatch>> {
    let columns: Vec<(&str, ArrayRef)> = match name {
        "epochs" => {
            let epochs = shared.progress.history();
            let sum = |get: fn(&crate::progress::SourceProgress) -> u64| {
                int(epochs.iter().map(|epoch| epoch.sources.iter().map(get).sum()).collect::<Vec<u64>>())
            };
            let ms = |get: fn(&crate::progress::PhaseTimes) -> std::time::Duration| {
                float(epochs.iter().map(|epoch| get(&epoch.phases).as_secs_f64() * 1e3).collect::<Vec<_>>())
            };
            vec![
                ("epoch", int(epochs.iter().map(|epoch| epoch.epoch.0))),
                ("clock", time(epochs.iter().map(|epoch| epoch.clock))),
                ("rows_in", sum(|source| source.rows_in)),
                ("rows_used", sum(|source| source.rows_used)),
                ("rows_bad", sum(|source| source.rows_bad)),
                ("rows_late", sum(|source| source.rows_late)),
                ("rows_out", int(epochs.iter().map(|epoch| epoch.sinks.iter().map(|sink| sink.rows).sum::<u64>()))),
                ("files", int(epochs.iter().map(|epoch| epoch.sinks.iter().map(|sink| sink.files).sum::<u64>()))),
                ("plan_ms", ms(|phases| phases.plan)),
                ("read_ms", ms(|phases| phases.read)),
                ("dataflow_ms", ms(|phases| phases.dataflow)),
                ("sink_ms", ms(|phases| phases.sink)),
                ("commit_ms", ms(|phases| phases.commit)),
                ("publish_ms", ms(|phases| phases.publish)),
                ("total_ms", float(epochs.iter().map(|epoch| epoch.total.as_secs_f64() * 1e3))),
            ]
        }
        "sources" | "streams" => {
            let streams = &snapshot.streams;
            let letters = shared.dead_letters.read();
            vec![
                ("stream", text(streams.iter().map(|stream| &stream.name))),
                ("connector", text(streams.iter().map(|stream| &stream.connector))),
                ("rows_in", int(streams.iter().map(|stream| stream.totals.rows_in))),
                ("rows_used", int(streams.iter().map(|stream| stream.totals.rows_used))),
                ("rows_bad", int(streams.iter().map(|stream| stream.totals.rows_bad))),
                ("rows_late", int(streams.iter().map(|stream| stream.totals.rows_late))),
                ("bytes", int(streams.iter().map(|stream| stream.totals.bytes))),
                ("watermark", time(streams.iter().map(|stream| stream.watermark))),
                ("ended", boolean(streams.iter().map(|stream| stream.ended))),
                ("rate_limit", Arc::new(Float64Array::from_iter(streams.iter().map(|stream| stream.rate_limit)))),
                ("dead_letters_dropped", int(streams.iter().map(|stream| letters.dropped(&stream.name)))),
            ]
        }
        "sinks" => {
            let history = shared.progress.history();
            let total = |name: &str, get: fn(&crate::progress::SinkProgress) -> u64| -> u64 {
                history.iter().flat_map(|epoch| &epoch.sinks).filter(|sink| sink.sink == name).map(get).sum()
            };
            vec![
                ("sink", text(snapshot.sinks.iter().map(|(name, _, _)| name))),
                ("mode", text(snapshot.sinks.iter().map(|(_, mode, _)| mode))),
                ("recent_rows", int(snapshot.sinks.iter().map(|(name, _, _)| total(name, |sink| sink.rows)))),
                ("recent_files", int(snapshot.sinks.iter().map(|(name, _, _)| total(name, |sink| sink.files)))),
                ("buffered_rows", int(snapshot.sinks.iter().map(|(_, _, buffered)| *buffered))),
            ]
        }
        "operators" => {
            let operators = &snapshot.operators;
            vec![
                ("query", text(operators.iter().map(|operator| &operator.query))),
                ("node", int(operators.iter().map(|operator| operator.node))),
                ("operator", text(operators.iter().map(|operator| &operator.operator))),
                ("strategy", text(operators.iter().map(|operator| &operator.strategy))),
                ("rows_in", int(operators.iter().map(|operator| operator.rows_in))),
                ("rows_out", int(operators.iter().map(|operator| operator.rows_out))),
                ("state_rows", int(operators.iter().map(|operator| operator.state_rows))),
                ("state_bytes", int(operators.iter().map(|operator| operator.state_bytes))),
                ("dropped_rows", int(operators.iter().map(|operator| operator.dropped_rows))),
                ("shared_with", int(operators.iter().map(|operator| operator.shared_with))),
                ("shards", int(operators.iter().map(|operator| operator.shards))),
            ]
        }
        "queries" => vec![
            ("query", text(snapshot.queries.iter().map(|(name, _)| name))),
            ("state", text(snapshot.queries.iter().map(|(_, failed)| if failed.is_some() { "FAILED" } else { "RUNNING" }))),
            ("error", optional_text(snapshot.queries.iter().map(|(_, failed)| failed.clone()))),
        ],
        "checkpoints" => {
            let checkpoints = shared.progress.checkpoints();
            vec![
                ("epoch", int(checkpoints.iter().map(|checkpoint| checkpoint.epoch.0))),
                ("bytes", int(checkpoints.iter().map(|checkpoint| checkpoint.bytes))),
                ("ms", float(checkpoints.iter().map(|checkpoint| checkpoint.elapsed.as_secs_f64() * 1e3))),
            ]
        }
        "errors" => {
            let errors = shared.progress.errors();
            vec![
                ("epoch", int(errors.iter().map(|(epoch, _, _)| epoch.0))),
                ("query", text(errors.iter().map(|(_, query, _)| query))),
                ("message", text(errors.iter().map(|(_, _, message)| message))),
            ]
        }
        "settings" => {
            let settings = shared.settings.read().list();
            vec![
                ("name", text(settings.iter().map(|setting| setting.name))),
                ("value", text(settings.iter().map(|setting| &setting.value))),
                ("default", text(settings.iter().map(|setting| setting.default))),
                ("doc", text(settings.iter().map(|setting| setting.doc))),
            ]
        }
        _ => return None,
    };
    Some(RecordBatch::try_from_iter(columns).map_err(Into::into))
}

/// Names, kinds and definitions of catalog objects, for SHOW.
pub fn catalog_rows(shared: &Shared, keep: impl Fn(&ObjectKind) -> bool) -> Result<RecordBatch> {
    let catalog = shared.catalog.read().clone();
    let objects: Vec<_> = catalog.objects().iter().filter(|object| keep(&object.kind)).collect();
    let detail = |kind: &ObjectKind| match kind {
        ObjectKind::Stream(def) => def.connector.clone(),
        ObjectKind::Sink(def) => format!("{} ({})", def.connector, def.mode),
        ObjectKind::ExternalTable(_) => "at rest".to_string(),
        _ => String::new(),
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("name", text(objects.iter().map(|object| &object.name))),
        ("kind", text(objects.iter().map(|object| object.kind.word()))),
        ("detail", text(objects.iter().map(|object| detail(&object.kind)))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
