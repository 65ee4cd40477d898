//! Results as text: one module per format, all fed with Arrow batches.
//!
//! Tables, expanded records and Markdown need all rows before the first line can be written, since widths depend on
//! them; delimited text and JSON are written batch by batch. What goes to a terminal never carries control characters
//! of the data; what goes to a file or a pipe is exact.

pub(crate) mod cells;
pub(crate) mod changes;
pub(crate) mod delimited;
pub(crate) mod expanded;
pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod pager;
pub(crate) mod table;
mod writer;

pub(crate) use writer::{Printed, RowWriter};

use crate::terminal::Terminal;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table with lines around it, fitted to the window.
    Box,
    /// A table of plain ASCII characters.
    Table,
    /// One line per column and a header per row.
    Expanded,
    /// Comma-separated values with a header (RFC 4180); NULL is an empty field, an empty text is `""`.
    Csv,
    /// Tab-separated values with a header and the escapes of PostgreSQL's COPY; NULL is `\N`.
    Tsv,
    /// One JSON array of objects.
    Json,
    /// One JSON object per line.
    Ndjson,
    /// A Markdown table.
    Markdown,
}

impl Format {
    /// Every format with its name, for `\pset` and completion.
    pub(crate) const ALL: [(&'static str, Format); 8] = [
        ("box", Format::Box),
        ("table", Format::Table),
        ("expanded", Format::Expanded),
        ("csv", Format::Csv),
        ("tsv", Format::Tsv),
        ("json", Format::Json),
        ("ndjson", Format::Ndjson),
        ("markdown", Format::Markdown),
    ];

    /// The name of the format.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, format)| *format == self).map_or("box", |(name, _)| name)
    }

    /// Whether the format is for people: then row counts and notices accompany it.
    pub(crate) fn is_for_people(self) -> bool {
        matches!(self, Format::Box | Format::Table | Format::Expanded)
    }
}

/// Whether rows are shown expanded, one column per line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expanded {
    /// Always as a table.
    Off,
    /// Always expanded.
    On,
    /// Expanded when the table would not fit the window.
    Auto,
}

/// How results are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// The format.
    pub(crate) format: Format,
    /// Expansion of the table formats.
    pub(crate) expanded: Expanded,
    /// What stands for NULL in the formats for people and in Markdown.
    pub(crate) null: String,
    /// Columns that are available; `None` is unlimited.
    pub(crate) width: Option<usize>,
    /// Colours are used.
    pub(crate) color: bool,
    /// Control characters of the data are escaped, since the output is a terminal.
    pub(crate) escape: bool,
}

impl Style {
    /// The style for an output: what was asked for, else a box on a terminal and CSV elsewhere.
    pub(crate) fn for_output(terminal: Terminal, format: Option<Format>) -> Self {
        let default = if terminal.is_terminal { Format::Box } else { Format::Csv };
        Self {
            format: format.unwrap_or(default),
            expanded: Expanded::Off,
            null: "NULL".into(),
            width: terminal.width,
            color: terminal.color,
            escape: terminal.is_terminal,
        }
    }
}
