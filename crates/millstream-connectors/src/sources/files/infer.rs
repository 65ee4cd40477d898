//! Finds the columns of a stream that declares none: from the footer, the header or the first rows of the
//! oldest file that is not empty.

use super::config::FilesConfig;
use super::discovery::{check_exists, list};
use super::parquet::NotParquet;
use super::storage::FoundFile;
use super::{arrow, avro, parquet, text};
use crate::error::{ConnectorError, Result};
use crate::formats::infer::{infer_lines, stored_schema};
use crate::formats::{Format, LineBatch};
use ::arrow::datatypes::SchemaRef;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_types::Options;

/// How many rows decide the types of CSV and JSON columns.
const SAMPLE_ROWS: u64 = 1_000;
/// And how many bytes at most.
const SAMPLE_BYTES: u64 = 16 << 20;

/// The columns of the stream that `options` describe, with Millstream's types. The options are taken as by `create`.
pub fn infer(options: &mut Options) -> BoxFuture<'_, Result<SchemaRef>> {
    async move {
        let owner = options.owner().to_string();
        let config = FilesConfig::take(options)?;
        let place = config.location.written.clone();
        let work = tokio::task::spawn_blocking(move || infer_with(&config, &owner));
        work.await.map_err(|error| ConnectorError::unavailable("looking at the columns of", format!("\"{place}\""), error))?
    }
    .boxed()
}

/// As [`infer`], for callers without a runtime; only for local paths.
///
/// # Errors
/// When there is no file, or none whose columns can be told.
pub fn infer_schema(options: &Options) -> Result<SchemaRef> {
    let config = FilesConfig::take(&mut options.clone())?;
    infer_with(&config, options.owner())
}

fn infer_with(config: &FilesConfig, owner: &str) -> Result<SchemaRef> {
    check_exists(&config.location, owner)?;
    let mut files = list(&config.location, config.recursive)?;
    files.sort_by(|left, right| (left.modified, &left.path).cmp(&(right.modified, &right.path)));
    let Some(file) = files.iter().find(|file| file.size > 0) else {
        return Err(ConnectorError::invalid(
            format!("path \"{}\" of {owner} holds no file that could tell the columns", config.location.written),
            "Declare the columns in CREATE STREAM.",
        ));
    };
    infer_file(config, file)
}

fn infer_file(config: &FilesConfig, file: &FoundFile) -> Result<SchemaRef> {
    let storage = &config.location.storage;
    match config.format.format {
        Format::Parquet => match parquet::load(storage, file) {
            Ok(metadata) => Ok(stored_schema(&parquet::schema(&file.path, &metadata)?)),
            Err(NotParquet::Incomplete(problem)) => {
                Err(ConnectorError::Data { place: format!("\"{}\"", file.path), problem: problem.into(), hint: None })
            }
            Err(NotParquet::Failed(error)) => Err(error),
        },
        Format::Arrow => Ok(stored_schema(arrow::schema(storage, file)?.as_ref())),
        Format::Avro => Ok(stored_schema(avro::schema(storage, file)?.as_ref())),
        Format::Csv | Format::Json | Format::Text | Format::Raw => {
            let mut lines = LineBatch::default();
            text::sample(config, file, SAMPLE_ROWS, SAMPLE_BYTES, &mut lines)?;
            infer_lines(&config.format, &lines, &format!("\"{}\"", file.path))
        }
    }
}
