//! Files that a query names by their path alone, as in `FROM 'data/*.parquet'`: which ones they are, and in which format.

use super::config::Location;
use super::discovery::{check_exists, list};
use super::parquet::{self, NotParquet};
use super::storage::{FoundFile, quoted};
use crate::error::{ConnectorError, Result};
use crate::formats::Format;
use millstream_types::{Options, Reach};
use std::collections::{BTreeMap, BTreeSet};

/// The files of one path.
#[derive(Debug, Clone)]
pub struct FilesAtRest {
    /// The format of all of them.
    pub format: Format,
    /// Their paths, sorted.
    pub paths: Vec<String>,
}

/// Finds the files of a path: a file, a directory (its files, not those of its directories) or a glob. The names tell the format.
///
/// # Errors
/// When there is none, or their names tell no format or several.
pub async fn files_at_rest(path: &str, reach: &Reach) -> Result<FilesAtRest> {
    let (path, reach) = (path.to_string(), reach.clone());
    let place = path.clone();
    let work = tokio::task::spawn_blocking(move || find(&path, reach));
    work.await.map_err(|error| ConnectorError::unavailable("looking for", format!("\"{place}\""), error))?
}

fn find(path: &str, reach: Reach) -> Result<FilesAtRest> {
    let location = Location::parse(path, &mut Options::new("the query", BTreeMap::<String, String>::new()).within(reach))?;
    if check_exists(&location, "the query").is_err() {
        return Err(missing(path));
    }
    let files: Vec<FoundFile> = list(&location, false)?.into_iter().filter(|file| file.size > 0).collect();
    let mut paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(missing(path));
    }
    let known = |path: &String| Format::from_path(path);
    let formats: BTreeSet<&str> = paths.iter().filter_map(known).map(Format::name).collect();
    let format = Format::from_path(path).or_else(|| paths.iter().find_map(known));
    match format {
        Some(format) if formats.len() <= 1 => {
            if format == Format::Parquet {
                files.iter().try_for_each(|file| check_parquet(&location, file))?;
            }
            Ok(FilesAtRest { format, paths })
        }
        Some(_) => {
            let formats: Vec<&str> = formats.into_iter().collect();
            Err(ConnectorError::invalid(
                format!("the files of \"{path}\" have several formats: {}", formats.join(", ")),
                "Name those of one format with a glob, for example 'data/*.parquet'.",
            ))
        }
        None => Err(ConnectorError::invalid(
            format!("the name of \"{path}\" tells no format"),
            "Known endings are .parquet, .csv, .tsv, .json, .jsonl, .ndjson, .arrow, .avro, .txt and .log, those of text also with .gz, \
             .zst, .bz2 or .xz. CREATE EXTERNAL TABLE and CREATE STREAM can say the format.",
        )),
    }
}

/// Refuses local Parquet files whose end shows that they are none, before a reader meets them that would panic. Places that cannot be
/// listed are left to that reader.
///
/// # Errors
/// `Data`, naming the file.
pub async fn check_footers(path: &str) -> Result<()> {
    let path = path.to_string();
    let place = path.clone();
    let work = tokio::task::spawn_blocking(move || {
        let location = Location::parse(&path, &mut Options::new("the table", BTreeMap::<String, String>::new()));
        let Some(location) = location.ok().filter(|location| location.storage.is_local()) else { return Ok(()) };
        let files = list(&location, false).unwrap_or_default();
        files.iter().filter(|file| file.size > 0).try_for_each(|file| check_parquet(&location, file))
    });
    work.await.map_err(|error| ConnectorError::unavailable("looking for", format!("\"{place}\""), error))?
}

fn check_parquet(location: &Location, file: &FoundFile) -> Result<()> {
    parquet::open(&location.storage, file).map(drop).map_err(|error| match error {
        NotParquet::Incomplete(problem) => {
            ConnectorError::Data { place: quoted(&file.path), problem: problem.into(), hint: Some(super::DAMAGED_HINT.into()) }
        }
        NotParquet::Failed(error) => error,
    })
}

fn missing(path: &str) -> ConnectorError {
    ConnectorError::invalid(
        format!("there is no file \"{path}\" with anything in it"),
        "Correct the path; relative ones start at the working directory.",
    )
}
