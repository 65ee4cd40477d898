//! `files`: rolling Parquet, CSV, JSON, Arrow and text files in a local directory, visible exactly when their epoch is committed.
//!
//! ```sql
//! CREATE SINK totals FROM totals_per_minute PARTITIONED BY (day)
//! WITH (connector = 'files', format = 'parquet', path = '/data/totals', roll_interval = '5 minutes');
//! ```
//! ```text
//!   /data/totals/day=2024-05-01/totals-1f3a90bc-17-42-0.parquet     <sink>-<pipeline>-<first epoch>-<last epoch>-<part>
//!   /data/totals/day=2024-05-01/.totals-1f3a90bc-43-50-0.parquet.3.tmp     written by writer 3, not committed
//!   /data/totals/_millstream/pipeline         which pipeline and sink own the directory, and the columns of its files
//!   /data/totals/_millstream/manifest-0       one JSON line per epoch that added files; a new manifest file every 1,000 files
//! ```
//!
//! **Modes**: `append` (a row of weight n is n rows), `changelog` (adds the columns `op`, one of `+I -U +U -D`, and `epoch`; with a
//! PRIMARY KEY a retraction and an insertion of one key in an epoch are `-U` and `+U`), `complete` (the whole result goes to
//! `v-<epoch>/`, then the symbolic link `current` is turned to it; `keep_versions` stay). **Guarantee**: transactional.
//!
//! **Rolling**: rows are encoded as they come. Every full row group becomes a *part*, in the background, beside the next epoch; the roll
//! copies the parts of a file together without decoding them. A file is rolled when it has `roll_size` bytes (of the parts that were
//! there before the epoch; the newest, which may still be encoded, count by the bytes that the others have per row, so that the decision
//! neither waits for the encoder nor depends on how fast it is), `roll_rows` rows, or when its first row is `roll_interval` old by the
//! epoch clock; at the end of the input, at a CHECKPOINT, and when more than `max_open_partitions` partitions have rows, the least
//! recently used first. `roll_interval = '0'` writes the files of every epoch. Rows that wait are part of checkpoints and of SELECT on
//! the sink. An epoch without rows writes nothing, and no cost depends on how many files there are.
//!
//! **Determinism**: the same input, cut into the same epochs, gives the same names and bytes. Recovery obeys the recorded decisions.
//!
//! **Durability**: files are synced before the commit record and renamed, never over another file, after it. A pipeline without a state
//! directory has nothing to recover to and does not sync.
//!
//! **Ownership**: a directory that holds data files of anyone else is refused unless `on_existing` says `'append'` or `'replace'`, and
//! so is one whose files have other columns.
//!
//! **After the fact**: a published file that somebody removes stays away: recovery does not write it again, and warns. Files of epochs
//! that the log has lost (its last records are damaged, or it is an older copy) stop the start: the epochs would be written a second
//! time. Bring the log back, or move the files away and let the epochs write them again.
//!
//! **Memory**: one row group per open partition, and the parts that are being encoded; for `complete` and ORDER BY the rows of the result
//! or of one file.

mod arrow_ipc;
mod audit;
mod buffer;
mod changelog;
mod config;
mod csv;
mod draft;
mod format;
mod inspect;
mod json;
mod layout;
mod manifest;
mod naming;
mod ownership;
mod parquet;
mod parquet_columns;
mod part;
mod partition;
mod publish;
mod roll;
mod saved;
mod sink;
mod text;
mod version;

#[cfg(test)]
mod tests;

pub use format::FileFormat;
pub use inspect::{Inspection, inspect};
pub use manifest::{ManifestEntry, ManifestFile, read_manifest};
pub use sink::FileSink;

use crate::error::{ConnectorError, Result};
use crate::sink::{Sink, SinkContext, SinkMode};
use config::Config;
use layout::Layout;
use millstream_state::StateError;

/// Builds a file sink for the registry; the option `format` says which kind.
///
/// # Errors
/// `Invalid` when an option, a column or the mode does not fit.
pub fn create(context: &mut SinkContext) -> Result<Sink> {
    let format = match context.options.choice("format", FileFormat::CHOICES)? {
        Some(format) => format,
        None => {
            let known: Vec<String> = FileFormat::CHOICES.iter().map(|(name, _)| format!("'{name}'")).collect();
            return Err(ConnectorError::invalid(
                format!("sink \"{}\" does not say which format its files have", context.sink),
                format!("Add format = '...', one of {}.", known.join(", ")),
            ));
        }
    };
    Ok(Sink::Transactional(Box::new(build(context, format)?)))
}

/// Builds a file sink of a format. Options that it does not know stay in the context.
///
/// # Errors
/// As [`create`].
pub fn build(context: &mut SinkContext, format: FileFormat) -> Result<FileSink> {
    if context.mode == SinkMode::Upsert {
        return Err(ConnectorError::invalid(
            format!("sink \"{}\" cannot have mode 'upsert': a row in a file cannot be replaced", context.sink),
            "Use mode = 'changelog' for every change with its op, or mode = 'complete' for the whole result in a new version.",
        ));
    }
    let config = Config::take(&mut context.options, format, context.mode)?;
    let layout = Layout::new(context, &config)?;
    FileSink::new(config, layout, format, context.scratch.clone())
}

/// A failure of the state crate, as one of this crate.
fn state_error(place: &std::path::Path) -> impl FnOnce(StateError) -> ConnectorError {
    let place = format!("\"{}\"", place.display());
    move |error| match error {
        StateError::Corrupt { path, problem, .. } => ConnectorError::Corrupt { place: format!("\"{}\"", path.display()), problem },
        other => ConnectorError::unavailable("writing", place, other),
    }
}

/// A failure of the file system.
fn io_error(action: &'static str, place: &std::path::Path) -> impl FnOnce(std::io::Error) -> ConnectorError {
    let place = format!("\"{}\"", place.display());
    move |error| ConnectorError::unavailable(action, place, error)
}

/// A failure inside Arrow.
fn arrow_error(context: &'static str) -> impl FnOnce(arrow::error::ArrowError) -> ConnectorError {
    move |error| ConnectorError::internal(context, error)
}

/// A fail point of the sink.
fn hit(name: &str) -> Result<()> {
    millstream_state::failpoint::hit(name).map_err(|error| ConnectorError::unavailable("reaching", format!("fail point \"{name}\""), error))
}
