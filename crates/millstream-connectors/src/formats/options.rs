//! The options that say how bytes become rows.

use super::{Compression, SplitOptions, TimestampFormat};
use crate::error::{ConnectorError, Result};
use millstream_types::{OptionError, Options};

/// Default of [`FormatOptions::max_row_bytes`].
pub const DEFAULT_MAX_ROW_BYTES: usize = 16 << 20;

/// How bytes become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Separated values, RFC 4180 with options.
    Csv,
    /// One JSON object per line.
    Json,
    /// One VARCHAR (or BYTEA) column, a row per line.
    Text,
    /// One BYTEA column, a row per line, bytes as they are.
    Raw,
    /// Apache Parquet files.
    Parquet,
    /// Arrow IPC files or streams.
    Arrow,
    /// Avro object container files.
    Avro,
}

impl Format {
    /// The value of the option `format`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Csv => "csv",
            Format::Json => "json",
            Format::Text => "text",
            Format::Raw => "raw",
            Format::Parquet => "parquet",
            Format::Arrow => "arrow",
            Format::Avro => "avro",
        }
    }

    /// Whether rows are lines.
    pub fn is_text(self) -> bool {
        matches!(self, Format::Csv | Format::Json | Format::Text | Format::Raw)
    }

    /// The format that a file name's suffix stands for, a compression suffix put aside.
    pub fn from_path(path: &str) -> Option<Format> {
        let (stem, _) = Compression::strip_suffix(path);
        match stem.rsplit_once('.')?.1.to_ascii_lowercase().as_str() {
            "csv" | "tsv" => Some(Format::Csv),
            "json" | "jsonl" | "ndjson" => Some(Format::Json),
            "txt" | "log" => Some(Format::Text),
            "parquet" => Some(Format::Parquet),
            "arrow" | "arrows" | "feather" => Some(Format::Arrow),
            "avro" => Some(Format::Avro),
            _ => None,
        }
    }
}

/// Everything the `WITH` list says about a format.
#[derive(Debug, Clone)]
pub struct FormatOptions {
    /// How bytes become rows.
    pub format: Format,
    /// How timestamps are written.
    pub timestamp_format: TimestampFormat,
    /// CSV: the first record names the columns.
    pub header: bool,
    /// CSV: between fields.
    pub delimiter: u8,
    /// CSV: around fields that hold delimiters or line ends; `None` switches quoting off.
    pub quote: Option<u8>,
    /// CSV: the unquoted text that means NULL.
    pub null: String,
    /// CSV: lines that start with it are skipped.
    pub comment: Option<u8>,
    /// A longer row is a bad row.
    pub max_row_bytes: usize,
    /// JSON, CSV: a field that no column has makes a row bad, instead of being ignored and counted.
    pub known_fields_only: bool,
}

impl FormatOptions {
    /// The defaults of `format`.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            timestamp_format: TimestampFormat::Iso,
            header: true,
            delimiter: b',',
            quote: Some(b'"'),
            null: String::new(),
            comment: None,
            max_row_bytes: DEFAULT_MAX_ROW_BYTES,
            known_fields_only: false,
        }
    }

    /// Takes `format` and the options that belong to it: `timestamp_format`, `max_row_bytes`, and for CSV `header`,
    /// `delimiter`, `quote`, `null`, `comment`. Without `format` it is `default`, if there is one.
    ///
    /// # Errors
    /// When an option is missing or malformed.
    pub fn take(options: &mut Options, default: Option<Format>) -> Result<Self> {
        let choices = [
            ("csv", Format::Csv),
            ("json", Format::Json),
            ("text", Format::Text),
            ("parquet", Format::Parquet),
            ("avro", Format::Avro),
            ("arrow", Format::Arrow),
            ("raw", Format::Raw),
        ];
        let format = match (options.choice("format", &choices)?, default) {
            (Some(format), _) | (None, Some(format)) => format,
            (None, None) => return Err(OptionError::Missing { owner: options.owner().to_string(), name: "format".into() }.into()),
        };
        let mut taken = Self::new(format);
        if format.is_text()
            && let Some(bytes) = options.bytes("max_row_bytes")?
        {
            taken.max_row_bytes = usize::try_from(bytes).unwrap_or(usize::MAX).clamp(1, 1 << 30);
        }
        if matches!(format, Format::Csv | Format::Json)
            && let Some(text) = options.take("timestamp_format")
        {
            let expected = "'iso', 'epoch_s', 'epoch_ms', 'epoch_us' or a strftime pattern such as '%Y-%m-%d %H:%M:%S'";
            taken.timestamp_format =
                TimestampFormat::parse(&text).ok_or_else(|| value_error(options, "timestamp_format", text, expected))?;
        }
        if format == Format::Csv {
            if let Some(header) = options.boolean("header")? {
                taken.header = header;
            }
            if let Some(delimiter) = take_byte(options, "delimiter")? {
                taken.delimiter = delimiter.ok_or_else(|| value_error(options, "delimiter", String::new(), "a single character"))?;
            }
            if let Some(quote) = take_byte(options, "quote")? {
                taken.quote = quote;
            }
            if let Some(comment) = take_byte(options, "comment")? {
                taken.comment = comment;
            }
            if let Some(null) = options.take("null") {
                taken.null = null;
            }
            if taken.quote == Some(taken.delimiter) {
                return Err(ConnectorError::invalid(
                    format!("options \"delimiter\" and \"quote\" of {} are the same character", options.owner()),
                    "",
                ));
            }
        }
        Ok(taken)
    }

    /// How the bytes of this format are cut into records.
    pub fn split_options(&self) -> SplitOptions {
        let csv = self.format == Format::Csv;
        SplitOptions {
            max_row_bytes: self.max_row_bytes,
            quote: self.quote.filter(|_| csv),
            delimiter: self.delimiter,
            comment: self.comment.filter(|_| csv),
            skip_blank: matches!(self.format, Format::Csv | Format::Json),
        }
    }
}

fn value_error(options: &Options, name: &str, value: String, expected: &str) -> ConnectorError {
    OptionError::Value { owner: options.owner().to_string(), name: name.into(), value, expected: expected.into() }.into()
}

/// A single ASCII character; `Some(None)` for the empty text.
fn take_byte(options: &mut Options, name: &str) -> Result<Option<Option<u8>>> {
    let Some(text) = options.take(name) else { return Ok(None) };
    match text.as_bytes() {
        [] => Ok(Some(None)),
        b"\\t" | b"tab" => Ok(Some(Some(b'\t'))),
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(Some(Some(*byte))),
        _ => Err(value_error(options, name, text, "a single character")),
    }
}
