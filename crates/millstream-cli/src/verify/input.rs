//! The input of a comparison: the rows of every stream, read once.

use super::pipeline::{Pipeline, Placed};
use super::{engine, stream_form};
use crate::failure::Failure;
use crate::script::rendered;
use crate::settings::Settings;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use millstream_engine::{Engine, Stop};
use millstream_sql::Statement;
use millstream_sql::statement::CreateStream;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What rows do to their stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Every row is added.
    Append,
    /// The last row of each key counts.
    Keyed(Vec<String>),
    /// Rows say themselves what they do.
    Changelog,
}

/// The rows of a stream, as its source has them.
#[derive(Debug, Clone)]
pub(super) struct Input {
    /// The stream.
    pub(super) name: String,
    /// Its rows, in order.
    pub(super) rows: RecordBatch,
    /// What they do.
    pub(super) shape: Shape,
    /// Deletions of earlier rows for each row that comes.
    pub(super) deletions: f64,
    /// Where rows come one by one, these are all there before.
    pub(super) comes_first: bool,
}

impl Input {
    /// Whether earlier rows are deleted.
    pub(super) fn deletes(&self) -> bool {
        self.deletions > 0.0
    }
}

/// What a stream's rows do, and how many of them are deleted when `share` is asked for. Streams are left as they are that bring their
/// own changes, that a derived stream reads, or whose rows carry the time of their arrival and no key.
pub(super) fn shape_of(stream: &CreateStream, share: f64, bases: &BTreeSet<String>) -> (Shape, f64) {
    let key = stream_form::key(stream);
    let share = if bases.contains(&stream_form::name(stream)) { 0.0 } else { share };
    match stream_form::option(stream, "op_column") {
        Some(_) => (Shape::Changelog, 0.0),
        None if key.is_empty() && stream_form::has_arrival(stream) => (Shape::Append, 0.0),
        None if key.is_empty() => (Shape::Append, share),
        None => (Shape::Keyed(key), share),
    }
}

/// Why the rows of a stream cannot be read as a whole; `None` when they can.
pub(super) fn endless(stream: &CreateStream) -> Option<String> {
    let name = stream_form::name(stream);
    match stream_form::connector(stream) {
        connector @ ("socket" | "stdin") => Some(format!(
            "stream \"{name}\" has no input that can be read twice: it comes from connector '{connector}'; point it at files with \
             --set {name}.connector=files --set {name}.path=DIR --set {name}.format=FORMAT"
        )),
        "generator" | "datagen" | "timer" if stream_form::option(stream, "row_limit").is_none() => {
            Some(format!("stream \"{name}\" has no end; give it one with --set {name}.row_limit=10000"))
        }
        "nexmark" if stream_form::option(stream, "event_limit").is_none() => {
            Some(format!("stream \"{name}\" has no end; give it one with --set {name}.event_limit=10000"))
        }
        _ => None,
    }
}

/// Reads the streams of a pipeline, at most `rows_max` rows of each.
///
/// # Errors
/// A script failure for a definition that is wrong, or input that cannot be read.
pub(super) async fn read(pipeline: &Pipeline, deletions: f64, rows_max: Option<u64>, settings: &Settings) -> anyhow::Result<Vec<Input>> {
    let (engine, _clock) = engine::start(settings).await?;
    for placed in pipeline.read_form() {
        execute(&engine, &placed, pipeline.name.as_deref()).await?;
    }
    let bases = pipeline.bases();
    let is_pushed = |stream: &CreateStream| stream_form::connector(stream) == "memory";
    let mut inputs = Vec::new();
    // Inserted rows run epochs, after which streams give what those took; so the others are read first.
    for pushed in [false, true] {
        if pushed {
            for placed in pipeline.inserts() {
                execute(&engine, placed, pipeline.name.as_deref()).await?;
            }
        }
        for (placed, stream) in pipeline.sources().filter(|(_, stream)| is_pushed(stream) == pushed) {
            let name = stream_form::name(stream);
            let rows = rows_of(&engine, &name, rows_max).await.map_err(|error| failure(&error, placed, pipeline.name.as_deref()))?;
            let (shape, deletions) = shape_of(stream, deletions, &bases);
            inputs.push(Input { name, rows, shape, deletions, comes_first: false });
        }
    }
    engine.stop(Stop::Now).await?;
    Ok(inputs)
}

async fn rows_of(engine: &Engine, stream: &str, rows_max: Option<u64>) -> Result<RecordBatch, millstream_engine::EngineError> {
    let limit = rows_max.map_or(String::new(), |rows| format!(" LIMIT {rows}"));
    let batches = engine.sql(&format!("SELECT * FROM {}{limit}", quoted(stream))).await?.collect().await?;
    let schema = match batches.first() {
        Some(batch) => batch.schema(),
        None => {
            let entry = engine.catalog().into_iter().find(|entry| entry.name == stream);
            entry.map_or_else(|| Arc::new(Schema::empty()), |entry| entry.schema)
        }
    };
    Ok(concat_batches(&schema, &batches)?)
}

/// Carries out a statement of the file.
///
/// # Errors
/// A script failure with the place.
pub(super) async fn execute(engine: &Engine, placed: &Placed, file: Option<&str>) -> Result<(), Failure> {
    let session = engine.session();
    match session.execute_parsed(placed.statement.clone()).await {
        Ok(_) => Ok(()),
        // The file itself is named where it is wrong, not what it was turned into.
        Err(error) => Err(failure(&error, placed, file)),
    }
}

fn failure(error: &millstream_engine::EngineError, placed: &Placed, file: Option<&str>) -> Failure {
    Failure::script(rendered(error, &placed.text, file, placed.line))
}

/// A name as SQL writes it whatever its letters.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name a materialized view defines.
pub(super) fn view_name(statement: &Statement) -> Option<String> {
    match statement {
        Statement::CreateMaterializedView(view) => Some(millstream_engine::catalog::resolve::object_name(&view.name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> CreateStream {
        match millstream_sql::parse_statement(text).unwrap() {
            Statement::CreateStream(stream) => stream,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn streams_without_an_end_are_told() {
        let without = |text: &str| endless(&stream(text)).is_some();
        assert!(without("CREATE STREAM s (a INT) WITH (connector = 'socket', port = '1')"));
        assert!(without("CREATE STREAM s (a INT) WITH (connector = 'generator')"));
        assert!(without("CREATE STREAM s WITH (connector = 'nexmark', table = 'bid')"));
        assert!(!without("CREATE STREAM s (a INT) WITH (connector = 'generator', row_limit = '5')"));
        assert!(!without("CREATE STREAM s (a INT)"));
    }

    #[test]
    fn rows_are_deleted_where_nothing_else_deletes_them() {
        let plain = stream("CREATE STREAM s (a INT)");
        let none = BTreeSet::new();
        assert_eq!(shape_of(&plain, 0.5, &none), (Shape::Append, 0.5));
        assert_eq!(shape_of(&plain, 0.5, &["s".to_string()].into()), (Shape::Append, 0.0));
        assert_eq!(shape_of(&stream("CREATE STREAM s (a INT, at AS PROCTIME())"), 0.5, &none), (Shape::Append, 0.0));
        assert_eq!(shape_of(&stream("CREATE STREAM s (a INT PRIMARY KEY)"), 0.5, &none), (Shape::Keyed(vec!["a".into()]), 0.5));
        assert_eq!(shape_of(&stream("CREATE STREAM s (a INT) WITH (op_column = 'op')"), 0.5, &none), (Shape::Changelog, 0.0));
    }
}
