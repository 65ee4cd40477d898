//! COPY: many rows in one go, as text, CSV or PostgreSQL's binary form.
//!
//! | option | text | CSV | |
//! | --- | --- | --- | --- |
//! | `format` | `text`, the default | `csv` | `binary` takes no other option |
//! | `delimiter` | tab | comma | one byte |
//! | `null` | `\N` | nothing, without quotes | |
//! | `header` | false | false | names of columns in the first line; `match` checks them |
//! | `quote`, `escape` | - | `"`, the quote | one byte each |
//! | `force_quote` | - | none | `*`, or columns whose values are always quoted |

pub(crate) mod input;
pub(crate) mod out;

pub(super) use input::CopyIn;

use crate::error::{RequestError, codes};
use millstream_sql::Statement;
use millstream_sql::statement::{Copy, CopySource, Emit, OptionList, QueryStatement};

/// The form of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// One line per row, with backslashes before what is special.
    Text,
    /// Comma-separated values.
    Csv {
        /// Around values.
        quote: u8,
        /// Before a quote within a value.
        escape: u8,
        /// Which columns are always quoted.
        force_quote: ForceQuote,
    },
    /// As values are sent in binary.
    Binary,
}

/// Which columns are always quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ForceQuote {
    /// All.
    All,
    /// These.
    Columns(Vec<String>),
}

/// The options of a COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CopyOptions {
    pub(crate) format: Format,
    pub(super) delimiter: u8,
    pub(super) null: String,
    pub(super) header: bool,
    /// The header must have the names of the columns.
    pub(super) header_match: bool,
}

impl CopyOptions {
    /// Reads options. `out`: of a COPY TO.
    ///
    /// # Errors
    /// An option that does not exist or does not fit, or a value it does not take.
    pub(crate) fn new(format: Option<&str>, options: &OptionList, out: bool) -> Result<Self, RequestError> {
        let given = |name: &str| options.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let format = format.or_else(|| given("format")).unwrap_or("text").to_lowercase();
        let wrong = |message: String, hint: &str| Err(RequestError::new("22023", message, hint));
        let is_csv = format == "csv";
        if !matches!(format.as_str(), "text" | "csv" | "binary") {
            return wrong(format!("COPY has no format \"{format}\""), "Choose text, csv or binary.");
        }
        for (key, value) in options {
            let fits = match key.as_str() {
                "format" => true,
                "encoding" => ["utf8", "utf-8", "unicode"].contains(&value.to_lowercase().as_str()),
                "delimiter" | "null" | "header" => format != "binary",
                "quote" | "escape" => is_csv,
                "force_quote" => is_csv && out,
                // There is nothing to freeze.
                "freeze" => !out,
                _ => false,
            };
            if !fits {
                let known = "Options are format, delimiter, null, header, encoding; for CSV also quote, escape and force_quote.";
                return wrong(format!("COPY in format {format} does not take the option {key} = '{value}'"), known);
            }
        }
        let byte = |name: &str, default: u8| match given(name).map(str::as_bytes) {
            None => Ok(default),
            Some([byte]) if !matches!(byte, b'\n' | b'\r' | 0) => Ok(*byte),
            Some(_) => Err(RequestError::new("22023", format!("the option {name} of COPY is one byte, and no end of a line"), "")),
        };
        let delimiter = byte("delimiter", if is_csv { b',' } else { b'\t' })?;
        let quote = byte("quote", b'"')?;
        let escape = byte("escape", quote)?;
        if is_csv && delimiter == quote {
            return wrong("delimiter and quote of COPY are the same".into(), "Choose two different ones.");
        }
        if format == "text" && (delimiter == b'\\' || delimiter.is_ascii_alphanumeric()) {
            return wrong(
                "COPY as text cannot have this delimiter".into(),
                "Choose one that is neither a backslash nor a letter or digit.",
            );
        }
        let null = given("null").unwrap_or(if is_csv { "" } else { "\\N" }).to_string();
        if null.contains(['\n', '\r']) {
            return wrong("NULL cannot be written as an end of a line".into(), "");
        }
        let (header, header_match) = match given("header").unwrap_or("false").to_lowercase().as_str() {
            "true" | "on" | "1" => (true, false),
            "false" | "off" | "0" => (false, false),
            "match" if !out => (true, true),
            other => return wrong(format!("the option header of COPY is '{other}'"), "It is true, false or, for COPY FROM, match."),
        };
        let force_quote = match given("force_quote") {
            None => ForceQuote::Columns(Vec::new()),
            Some("*" | "true") => ForceQuote::All,
            Some(columns) => ForceQuote::Columns(columns.split(',').map(|column| column.trim().to_string()).collect()),
        };
        let format = match format.as_str() {
            "csv" => Format::Csv { quote, escape, force_quote },
            "binary" => Format::Binary,
            _ => Format::Text,
        };
        Ok(Self { format, delimiter, null, header, header_match })
    }
}

/// The form that a COPY to the client names, if it names one.
///
/// # Errors
/// As [`CopyOptions::new`].
pub(crate) fn named_form(copy: &Copy) -> Result<Option<CopyOptions>, RequestError> {
    let is_named = copy.format.is_some() || !copy.options.is_empty();
    is_named.then(|| CopyOptions::new(copy.format.as_deref(), &copy.options, true)).transpose()
}

/// The statement whose rows a COPY to the client gives.
///
/// # Errors
/// When it has parts that only a COPY to files takes.
pub(crate) fn copied(copy: Copy) -> Result<Statement, RequestError> {
    if !copy.partitioned_by.is_empty() {
        return Err(RequestError::new("22023", "COPY TO STDOUT is not partitioned", "Leave out PARTITIONED BY, or name a directory."));
    }
    Ok(match copy.source {
        CopySource::Query(query) => Statement::Query(QueryStatement { query, emit: Emit::None }),
        CopySource::Relation(name) => millstream_sql::parse_statement(&format!("SELECT * FROM {name}"))?,
        CopySource::Subscribe(subscribe) => Statement::Subscribe(subscribe),
    })
}

/// The signature that binary rows begin with.
pub(crate) const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

fn bad(message: String) -> RequestError {
    RequestError::new(codes::BAD_COPY, message, "")
}
