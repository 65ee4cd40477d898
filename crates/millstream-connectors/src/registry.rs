//! The one explicit list of connectors: names, synonyms, metadata columns and how to create each.
//!
//! Nothing registers itself. A new connector is its folder and one entry here. Names that are planned but not in this
//! build are known as well, so that the error says so instead of guessing.

use crate::error::{ConnectorError, Result};
use crate::sink::{Sink, SinkContext};
use crate::sinks::{blackhole, console, files as sink_files};
use crate::source::{Source, SourceContext};
use crate::sources::{files as source_files, generator, memory, nexmark, socket, stdin, timer};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use futures::future::BoxFuture;
use millstream_types::{Options, suggest};

/// Finds the columns of a stream that declares none.
pub type InferSchema = for<'a> fn(&'a mut Options) -> BoxFuture<'a, Result<SchemaRef>>;

/// A kind of source.
#[derive(Debug, Clone, Copy)]
pub struct SourceKind {
    /// Its name in `connector = '...'`.
    pub name: &'static str,
    /// Other names for it.
    pub synonyms: &'static [&'static str],
    /// What it is, in one line.
    pub description: &'static str,
    /// The metadata columns it offers: key and type.
    pub metadata: fn() -> Vec<(&'static str, DataType)>,
    /// Rows are pushed to it and are not replayable: the engine stores the accepted ones itself.
    pub push: bool,
    /// Builds it; options it does not take are refused afterwards.
    pub create: fn(&mut SourceContext) -> Result<Box<dyn Source>>,
    /// Finds its columns; `None` where they must be declared.
    pub infer: Option<InferSchema>,
}

/// A kind of sink.
#[derive(Debug, Clone, Copy)]
pub struct SinkKind {
    /// Its name in `connector = '...'`.
    pub name: &'static str,
    /// Other names for it.
    pub synonyms: &'static [&'static str],
    /// What it is, in one line.
    pub description: &'static str,
    /// Its output becomes visible with the commit; otherwise it is delivered after it.
    pub transactional: bool,
    /// Builds it; options it does not take are refused afterwards.
    pub create: fn(&mut SinkContext) -> Result<Sink>,
}

/// All sources, sorted by name.
pub const SOURCES: &[SourceKind] = &[
    SourceKind {
        name: "files",
        synonyms: &["filesystem"],
        description: "files of a directory, a glob or an object-store prefix, each taken once",
        metadata: source_files::metadata,
        push: false,
        create: source_files::create,
        infer: Some(source_files::infer),
    },
    SourceKind {
        name: "generator",
        synonyms: &["datagen"],
        description: "seeded random rows at a given rate",
        metadata: row_number_only,
        push: false,
        create: generator::create,
        infer: None,
    },
    SourceKind {
        name: "memory",
        synonyms: &[],
        description: "rows pushed by the embedding program or by INSERT",
        metadata: memory::metadata,
        push: true,
        create: memory::create,
        infer: None,
    },
    SourceKind {
        name: "nexmark",
        synonyms: &[],
        description: "persons, auctions and bids of the Nexmark benchmark",
        metadata: row_number_only,
        push: false,
        create: nexmark::create,
        infer: Some(nexmark::infer),
    },
    SourceKind {
        name: "socket",
        synonyms: &[],
        description: "lines of text, JSON or CSV over TCP",
        metadata: socket::metadata,
        push: true,
        create: socket::create,
        infer: Some(socket::infer),
    },
    SourceKind {
        name: "stdin",
        synonyms: &[],
        description: "lines of text, JSON or CSV from standard input",
        metadata: stdin::metadata,
        push: true,
        create: stdin::create,
        infer: Some(socket::infer),
    },
    SourceKind {
        name: "timer",
        synonyms: &[],
        description: "one row per tick of the clock",
        metadata: timer::metadata,
        push: false,
        create: timer::create,
        infer: Some(timer::infer),
    },
];

/// All sinks, sorted by name.
pub const SINKS: &[SinkKind] = &[
    SinkKind {
        name: "blackhole",
        synonyms: &[],
        description: "counts rows and forgets them",
        transactional: true,
        create: blackhole::create,
    },
    SinkKind {
        name: "console",
        synonyms: &["print"],
        description: "prints the first rows of every epoch",
        transactional: false,
        create: console::create,
    },
    SinkKind {
        name: "files",
        synonyms: &["filesystem"],
        description: "rolling files that become visible with their epoch's commit",
        transactional: true,
        create: sink_files::create,
    },
];

/// Names of connectors that are planned; they are refused with "not in this build".
pub const RESERVED: &[&str] = &[
    "amqp",
    "delta",
    "elasticsearch",
    "fluent",
    "flume",
    "http",
    "http_stream",
    "iceberg",
    "kafka",
    "kinesis",
    "mqtt",
    "mysql",
    "nats",
    "otlp",
    "postgres",
    "postgres_cdc",
    "redis",
    "syslog",
    "websocket",
    "zeromq",
];

/// Formats that may be named as a connector: `connector = 'csv'` is `connector = 'files', format = 'csv'`.
const FORMAT_SYNONYMS: &[&str] = &["arrow", "avro", "csv", "json", "parquet", "text"];

/// The metadata column of generated streams.
fn row_number_only() -> Vec<(&'static str, DataType)> {
    vec![("n", DataType::Int64)]
}

/// The type of metadata columns that hold a time.
pub(crate) fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// The connector of streams without a WITH list.
pub const DEFAULT_SOURCE: &str = "memory";

/// The kind of source that a name in `connector = '...'` stands for.
///
/// # Errors
/// `Invalid` when there is none: whether the name is planned, a sink's, or near another one.
pub fn source_kind(connector: &str) -> Result<&'static SourceKind> {
    let name = canonical(connector);
    find(SOURCES, &name, |kind| (kind.name, kind.synonyms)).ok_or_else(|| {
        let other = find(SINKS, &name, |kind| (kind.name, kind.synonyms)).map(|_| "sink");
        unknown("source", &name, SOURCES.iter().flat_map(|kind| names(kind.name, kind.synonyms)).collect(), other)
    })
}

/// The kind of sink that a name in `connector = '...'` stands for.
///
/// # Errors
/// As [`source_kind`].
pub fn sink_kind(connector: &str) -> Result<&'static SinkKind> {
    let name = canonical(connector);
    find(SINKS, &name, |kind| (kind.name, kind.synonyms)).ok_or_else(|| {
        let other = find(SOURCES, &name, |kind| (kind.name, kind.synonyms)).map(|_| "source");
        unknown("sink", &name, SINKS.iter().flat_map(|kind| names(kind.name, kind.synonyms)).collect(), other)
    })
}

/// Builds a source and refuses the options it does not know.
///
/// # Errors
/// When the connector or an option is unknown, or the source refuses its columns or options.
pub fn create_source(connector: &str, mut context: SourceContext) -> Result<Box<dyn Source>> {
    let kind = source_kind(connector)?;
    settle_format(connector, &mut context.options)?;
    let source = (kind.create)(&mut context)?;
    context.options.finish()?;
    Ok(source)
}

/// Builds a sink and refuses the options it does not know.
///
/// # Errors
/// As [`create_source`].
pub fn create_sink(connector: &str, mut context: SinkContext) -> Result<Sink> {
    let kind = sink_kind(connector)?;
    settle_format(connector, &mut context.options)?;
    let sink = (kind.create)(&mut context)?;
    context.options.finish()?;
    Ok(sink)
}

/// The columns of a stream that declares none. The options stay as they are.
///
/// # Errors
/// When the connector needs declared columns, or its input cannot be looked at.
pub async fn infer_schema(connector: &str, options: &Options) -> Result<SchemaRef> {
    let kind = source_kind(connector)?;
    let mut options = options.clone();
    settle_format(connector, &mut options)?;
    match kind.infer {
        Some(infer) => infer(&mut options).await,
        None => Err(ConnectorError::invalid(
            format!("{} needs a list of columns, as the connector \"{}\" has none of its own", options.owner(), kind.name),
            "List them in CREATE STREAM: CREATE STREAM name (column TYPE, ...) WITH (...).",
        )),
    }
}

/// The type of a metadata column.
///
/// # Errors
/// When the connector does not offer that key; the hint lists those it does.
pub fn metadata_type(connector: &str, key: &str) -> Result<DataType> {
    let kind = source_kind(connector)?;
    let known = (kind.metadata)();
    known.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, data_type)| data_type.clone()).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        ConnectorError::invalid(
            format!("the connector \"{}\" has no metadata \"{key}\"", kind.name),
            if names.is_empty() { "It has none at all.".to_string() } else { format!("It has {}.", names.join(", ")) },
        )
    })
}

/// Names are compared in lower case; format names stand for the files connector.
fn canonical(connector: &str) -> String {
    let name = connector.trim().to_lowercase();
    if FORMAT_SYNONYMS.contains(&name.as_str()) { "files".into() } else { name }
}

/// Puts `format` in for `connector = 'csv'` and the like.
fn settle_format(connector: &str, options: &mut Options) -> Result<()> {
    let name = connector.trim().to_lowercase();
    if !FORMAT_SYNONYMS.contains(&name.as_str()) {
        return Ok(());
    }
    match options.peek("format") {
        Some(format) if !format.trim().eq_ignore_ascii_case(&name) => Err(ConnectorError::invalid(
            format!("{} has connector '{name}' and format '{format}', which contradict each other", options.owner()),
            format!("Write connector = 'files', format = '{name}'."),
        )),
        _ => {
            options.set_default("format", name);
            Ok(())
        }
    }
}

fn names(name: &'static str, synonyms: &'static [&'static str]) -> impl Iterator<Item = &'static str> {
    std::iter::once(name).chain(synonyms.iter().copied())
}

fn find<K>(kinds: &'static [K], name: &str, names_of: impl Fn(&K) -> (&'static str, &'static [&'static str])) -> Option<&'static K> {
    kinds.iter().find(|kind| {
        let (own, synonyms) = names_of(kind);
        own == name || synonyms.contains(&name)
    })
}

fn unknown(what: &str, name: &str, known: Vec<&'static str>, other: Option<&str>) -> ConnectorError {
    if let Some(other) = other {
        return ConnectorError::invalid(
            format!("the connector \"{name}\" is a {other}, not a {what}"),
            format!("There are {}.", known.join(", ")),
        );
    }
    if RESERVED.contains(&name) {
        return ConnectorError::invalid(
            format!("the connector \"{name}\" is not in this build"),
            format!("There are {}.", known.join(", ")),
        );
    }
    let hint = match suggest::nearest(name, known.iter().copied().chain(FORMAT_SYNONYMS.iter().copied())) {
        Some(near) => format!("Did you mean \"{near}\"?"),
        None => format!("There are {}.", known.join(", ")),
    };
    ConnectorError::invalid(format!("unknown {what} connector \"{name}\""), hint)
}

#[cfg(test)]
mod tests;
