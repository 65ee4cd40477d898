//! The input: Nexmark events as Parquet, one file of each stream per epoch.

use crate::bench::parquet_file::write_parquet;
use anyhow::Context;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_connectors::sources::nexmark::{self, NexmarkTable};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Rows of the table at rest of q13.
const SIDE_INPUT_ROWS: i64 = 10_000;

/// What a directory holds; changes with the generator, so that old files are not taken for new ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    format: u32,
    events: u64,
    epoch_rows: u64,
}

/// The generated input.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Holds `person/`, `auction/`, `bid/` and `side_input/`.
    pub(crate) dir: PathBuf,
    /// Events of all tables.
    pub(crate) events: u64,
}

impl Input {
    /// The directory of a table.
    pub(crate) fn table(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Rows of a table.
    pub(crate) fn rows(&self, table: NexmarkTable) -> u64 {
        table.rows_among(self.events)
    }
}

/// Generates the files, or uses those that are there from the same numbers.
///
/// # Errors
/// When the directory holds other data, or cannot be written.
pub(crate) fn prepare(dir: &Path, events: u64, epoch_rows: u64) -> anyhow::Result<Input> {
    let manifest = Manifest { format: 1, events, epoch_rows };
    let input = Input { dir: dir.to_path_buf(), events };
    let path = dir.join("nexmark.json");
    if let Ok(text) = std::fs::read_to_string(&path) {
        let found: Manifest = serde_json::from_str(&text).with_context(|| format!("reading \"{}\"", path.display()))?;
        if found == manifest {
            return Ok(input);
        }
        anyhow::bail!(
            "\"{}\" holds {} events in files of {}, not {events} in files of {epoch_rows}: remove it, or give another --dir",
            dir.display(),
            found.events,
            found.epoch_rows
        );
    }
    for table in NexmarkTable::ALL {
        let directory = dir.join(table.name());
        std::fs::create_dir_all(&directory).with_context(|| format!("making \"{}\"", directory.display()))?;
        for epoch in 0..events.div_ceil(epoch_rows) {
            let first = epoch * epoch_rows;
            let batch = nexmark::generate(table, first, epoch_rows.min(events - first))?;
            write_parquet(&directory.join(format!("{:06}.parquet", epoch + 1)), &batch)?;
        }
    }
    write_side_input(dir)?;
    std::fs::write(&path, serde_json::to_string_pretty(&manifest)? + "\n")?;
    Ok(input)
}

/// Writes the table at rest of q13 to `side_input/` below `dir`.
///
/// # Errors
/// When the directory cannot be written.
pub(crate) fn write_side_input(dir: &Path) -> anyhow::Result<()> {
    let directory = dir.join("side_input");
    std::fs::create_dir_all(&directory).with_context(|| format!("making \"{}\"", directory.display()))?;
    write_parquet(&directory.join("000001.parquet"), &side_input()?)
}

/// The columns of a table's stream as SQL declares them, with four seconds for late rows; `arrival`: with the time of arrival.
pub(crate) fn declared_columns(table: NexmarkTable, arrival: bool) -> String {
    let schema = nexmark::schema_of(table);
    let declared = |field: &Arc<Field>| format!("{} {} NOT NULL", field.name(), crate::output::cells::sql_type(field.data_type()));
    let mut columns: Vec<String> = schema.fields().iter().map(declared).collect();
    if arrival {
        columns.push("arrived AS PROCTIME()".into());
    }
    columns.push("WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'".into());
    columns.join(", ")
}

fn side_input() -> anyhow::Result<RecordBatch> {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..SIDE_INPUT_ROWS));
    let values: ArrayRef = Arc::new(StringArray::from_iter_values((0..SIDE_INPUT_ROWS).map(|key| format!("value {key}"))));
    let schema = Schema::new(vec![Field::new("key", DataType::Int64, false), Field::new("value", DataType::Utf8, false)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![keys, values])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_epochs_and_are_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let input = prepare(directory.path(), 250, 100).unwrap();
        assert_eq!(std::fs::read_dir(input.table("bid")).unwrap().count(), 3);
        assert_eq!(input.rows(NexmarkTable::Bid), 230);
        assert!(prepare(directory.path(), 250, 100).is_ok());
        assert!(prepare(directory.path(), 300, 100).unwrap_err().to_string().contains("holds 250 events"));
    }
}
