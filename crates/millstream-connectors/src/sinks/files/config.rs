//! Options of a file sink. Options that only some formats or modes have are unknown to the others, so that none is ignored.

use super::format::FileFormat;
use super::naming::NameTemplate;
use crate::error::{ConnectorError, Result};
use crate::sink::SinkMode;
use millstream_types::{OptionError, Options, Reach};
use std::path::PathBuf;
use std::time::Duration;

/// What to do with data files that this pipeline did not write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnExisting {
    /// Leave them and add to them.
    Append,
    /// Remove them at the first start.
    Replace,
}

/// How files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip(u32),
    Lz4,
    Snappy,
    Zstd(i32),
}

/// Options of CSV files.
#[derive(Debug, Clone)]
pub(crate) struct CsvOptions {
    pub(crate) header: bool,
    pub(crate) delimiter: u8,
    pub(crate) null_value: String,
}

/// How much statistics Parquet files hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statistics {
    None,
    Chunk,
    Page,
}

/// Options of Parquet files.
#[derive(Debug, Clone)]
pub(crate) struct ParquetOptions {
    pub(crate) dictionary: bool,
    pub(crate) statistics: Statistics,
    pub(crate) bloom_filter: Vec<String>,
}

/// All options of a file sink.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) path: PathBuf,
    /// Where it may lie, also when directories become links later.
    pub(crate) reach: Reach,
    pub(crate) roll_size: u64,
    pub(crate) roll_interval: Duration,
    pub(crate) roll_rows: Option<u64>,
    pub(crate) compression: Compression,
    /// As the user gave it.
    pub(crate) row_group_rows: Option<usize>,
    pub(crate) file_name: NameTemplate,
    pub(crate) on_existing: Option<OnExisting>,
    pub(crate) keep_versions: usize,
    pub(crate) op_name: String,
    pub(crate) epoch_name: String,
    pub(crate) max_open_partitions: usize,
    pub(crate) csv: CsvOptions,
    pub(crate) parquet: ParquetOptions,
}

/// Rows of a row group unless told: DuckDB's vector of 2,048 times 60, large enough for dictionaries and small enough to keep one per
/// open partition in memory.
pub(crate) const DEFAULT_ROW_GROUP_ROWS: usize = 122_880;

const DEFAULT_ROLL_SIZE: u64 = 128_000_000;
const DEFAULT_ROLL_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_MAX_OPEN_PARTITIONS: usize = 100;

/// Level 1 is twice as fast as the level 3 that DataFusion writes, for files that are a few percent larger: a stream is written once and
/// is usually limited by the processor.
const DEFAULT_ZSTD_LEVEL: i32 = 1;

impl Config {
    /// Takes the options of a sink.
    pub(crate) fn take(options: &mut Options, format: FileFormat, mode: SinkMode) -> Result<Config> {
        let path = path(options)?;
        crate::reach::check_path(options.reach(), options.owner(), &path)?;
        let compression = compression(options, format)?;
        let file_name = match options.take("file_name") {
            Some(template) => NameTemplate::parse(&template)
                .map_err(|problem| value(options, "file_name", &template, problem))?
                .with_extension(format.extension(compression)),
            None => NameTemplate::default_for(format.extension(compression)),
        };
        Ok(Config {
            path,
            reach: options.reach().clone(),
            roll_size: options
                .bytes("roll_size")?
                .map(|size| at_least_one(options, "roll_size", size))
                .transpose()?
                .unwrap_or(DEFAULT_ROLL_SIZE),
            roll_interval: options.duration("roll_interval")?.unwrap_or(DEFAULT_ROLL_INTERVAL),
            roll_rows: options.parse("roll_rows", ROWS)?.map(|rows| at_least_one(options, "roll_rows", rows)).transpose()?,
            compression,
            row_group_rows: options
                .parse::<u64>("row_group_rows", ROWS)?
                .map(|rows| at_least_one(options, "row_group_rows", rows))
                .transpose()?
                .map(|rows| usize::try_from(rows).unwrap_or(usize::MAX)),
            file_name,
            on_existing: options.choice("on_existing", &[("append", OnExisting::Append), ("replace", OnExisting::Replace)])?,
            keep_versions: match mode {
                SinkMode::Complete => {
                    usize::try_from(options.parse::<u64>("keep_versions", VERSIONS)?.unwrap_or(2).max(1)).unwrap_or(usize::MAX)
                }
                _ => 2,
            },
            op_name: changelog_name(options, mode, "op_name", "op"),
            epoch_name: changelog_name(options, mode, "epoch_name", "epoch"),
            max_open_partitions: options
                .parse::<u64>("max_open_partitions", "a number of partitions")?
                .map(|count| at_least_one(options, "max_open_partitions", count))
                .transpose()?
                .map_or(DEFAULT_MAX_OPEN_PARTITIONS, |count| usize::try_from(count).unwrap_or(usize::MAX)),
            csv: csv(options, format)?,
            parquet: parquet(options, format)?,
        })
    }
}

const ROWS: &str = "a number of rows";
const VERSIONS: &str = "a number of versions";

fn value(options: &Options, name: &str, value: &str, expected: impl Into<String>) -> ConnectorError {
    OptionError::Value { owner: options.owner().into(), name: name.into(), value: value.into(), expected: expected.into() }.into()
}

fn at_least_one(options: &Options, name: &str, number: u64) -> Result<u64> {
    if number == 0 { Err(value(options, name, "0", "at least 1")) } else { Ok(number) }
}

fn path(options: &mut Options) -> Result<PathBuf> {
    let text = options.require("path")?;
    if let Some((scheme, rest)) = text.split_once("://") {
        return match (scheme, rest.starts_with('/')) {
            ("file", true) => Ok(PathBuf::from(rest)),
            _ => Err(ConnectorError::invalid(
                format!("{} cannot write to \"{text}\": file sinks write to local directories", options.owner()),
                "Give a local path, for example path = '/data/out'.",
            )),
        };
    }
    if text.trim().is_empty() {
        return Err(value(options, "path", &text, "a directory"));
    }
    Ok(PathBuf::from(text))
}

fn compression(options: &mut Options, format: FileFormat) -> Result<Compression> {
    const NONE: (&str, Compression) = ("none", Compression::None);
    const UNCOMPRESSED: (&str, Compression) = ("uncompressed", Compression::None);
    const GZIP: (&str, Compression) = ("gzip", Compression::Gzip(6));
    const LZ4: (&str, Compression) = ("lz4", Compression::Lz4);
    const SNAPPY: (&str, Compression) = ("snappy", Compression::Snappy);
    const ZSTD: (&str, Compression) = ("zstd", Compression::Zstd(DEFAULT_ZSTD_LEVEL));
    let (choices, default): (&[(&str, Compression)], Compression) = match format {
        FileFormat::Parquet => (&[NONE, UNCOMPRESSED, GZIP, LZ4, SNAPPY, ZSTD], ZSTD.1),
        FileFormat::Arrow => (&[NONE, UNCOMPRESSED, LZ4, ZSTD], LZ4.1),
        FileFormat::Csv | FileFormat::Json | FileFormat::Text => (&[NONE, UNCOMPRESSED, GZIP, ZSTD], NONE.1),
    };
    let chosen = options.choice("compression", choices)?.unwrap_or(default);
    // Arrow's IPC takes no level.
    match chosen {
        Compression::Zstd(_) if format != FileFormat::Arrow => match options.parse::<i32>("compression_level", "a level from 1 to 22")? {
            Some(level) if (1..=22).contains(&level) => Ok(Compression::Zstd(level)),
            Some(level) => Err(value(options, "compression_level", &level.to_string(), "a level from 1 to 22")),
            None => Ok(chosen),
        },
        Compression::Gzip(_) => match options.parse::<u32>("compression_level", "a level from 1 to 9")? {
            Some(level) if (1..=9).contains(&level) => Ok(Compression::Gzip(level)),
            Some(level) => Err(value(options, "compression_level", &level.to_string(), "a level from 1 to 9")),
            None => Ok(chosen),
        },
        _ => Ok(chosen),
    }
}

fn changelog_name(options: &mut Options, mode: SinkMode, option: &str, default: &str) -> String {
    match mode {
        SinkMode::Changelog => options.take(option).unwrap_or_else(|| default.to_string()),
        _ => default.to_string(),
    }
}

fn csv(options: &mut Options, format: FileFormat) -> Result<CsvOptions> {
    let mut csv = CsvOptions { header: true, delimiter: b',', null_value: String::new() };
    if format == FileFormat::Csv {
        csv.header = options.boolean("header")?.unwrap_or(true);
        if let Some(text) = options.take("delimiter") {
            csv.delimiter = match text.as_bytes() {
                b"\\t" => b'\t',
                [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => *byte,
                _ => return Err(value(options, "delimiter", &text, "one ASCII character")),
            };
        }
        csv.null_value = options.take("null_value").unwrap_or_default();
    }
    Ok(csv)
}

fn parquet(options: &mut Options, format: FileFormat) -> Result<ParquetOptions> {
    let mut parquet = ParquetOptions { dictionary: true, statistics: Statistics::Page, bloom_filter: Vec::new() };
    if format == FileFormat::Parquet {
        parquet.dictionary = options.boolean("dictionary")?.unwrap_or(true);
        let levels = [("none", Statistics::None), ("chunk", Statistics::Chunk), ("page", Statistics::Page)];
        parquet.statistics = options.choice("statistics", &levels)?.unwrap_or(Statistics::Page);
        if let Some(columns) = options.take("bloom_filter") {
            parquet.bloom_filter = columns.split(',').map(|column| column.trim().to_string()).filter(|column| !column.is_empty()).collect();
        }
    }
    Ok(parquet)
}
