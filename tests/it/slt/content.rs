//! What sinks wrote: the names of files and the rows in them.

use crate::support::output;
use arrow::array::RecordBatch;
use arrow::ipc::reader::FileReader;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files that match a glob below `dir`, in order of their names.
pub(crate) fn files(dir: &Path, pattern: &str) -> Vec<PathBuf> {
    let pattern = dir.join(pattern);
    let mut paths: Vec<PathBuf> = glob::glob(&pattern.to_string_lossy()).expect("the pattern is a glob").flatten().collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths
}

/// The rows of a file: of Parquet and Arrow as `a|b|c`, of other formats the lines as they are.
///
/// # Errors
/// When the file is damaged.
pub(crate) fn rows(path: &Path) -> Result<Vec<String>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let batches: Vec<RecordBatch> = match path.extension().and_then(|extension| extension.to_str()) {
        Some("parquet") => {
            let file = File::open(path).map_err(|error| failed(&error))?;
            let reader =
                ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).map_err(|error| failed(&error))?;
            reader.collect::<Result<_, _>>().map_err(|error| failed(&error))?
        }
        Some("arrow") => {
            let file = File::open(path).map_err(|error| failed(&error))?;
            let reader = FileReader::try_new(file, None).map_err(|error| failed(&error))?;
            reader.collect::<Result<_, _>>().map_err(|error| failed(&error))?
        }
        _ => {
            let mut text = String::new();
            fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)).map_err(|error| failed(&error))?;
            return Ok(text.lines().map(str::to_string).collect());
        }
    };
    output::rows(&batches).map_err(|error| failed(&error))
}
