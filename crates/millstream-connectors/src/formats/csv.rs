//! CSV: RFC 4180 with a choice of delimiter, quote, NULL text and comments.
//!
//! With a header (the default) columns are found by name: a file may hold more columns and another order. A declared column that
//! the header lacks reads as NULL, unless it is NOT NULL or the header has a name that differs in case and
//! underscores only; then, or when no name is known at all, every row of the file is bad and the reason says what differs.
//! A name that no column has is left out, or refuses the header with [`FormatOptions::known_fields_only`].
//! Without a header columns are found by position. Every record must have as many fields as the header.
//! The NULL text (by default nothing) counts only outside quotes: `""` is an empty VARCHAR.

use super::column::{Column, Token};
use super::{FormatOptions, Input, Line, Misfit, Rows, TimestampFormat, shorten};
use crate::error::Result;
use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use memchr::{memchr, memchr_iter};
use millstream_types::suggest::nearest;
use std::sync::Arc;

/// Decodes CSV records.
#[derive(Debug)]
pub(crate) struct CsvDecoder {
    schema: SchemaRef,
    /// The columns handed out, and the index of each in the schema.
    columns: Vec<Column>,
    selected: Vec<usize>,
    layout: Layout,
    delimiter: u8,
    quote: Option<u8>,
    null: String,
    timestamps: TimestampFormat,
    known_fields_only: bool,
    fields: Vec<Field>,
    /// Contents of quoted fields that hold doubled quotes.
    unescaped: String,
}

/// Where the columns are in a record.
#[derive(Debug)]
enum Layout {
    HeaderExpected,
    /// The header does not fit: every row is bad for this reason.
    Refused(String),
    Known {
        /// Position of each selected column in a record; `None` where the file lacks it.
        positions: Vec<Option<usize>>,
        /// Schema columns that the header names; `None` without a header.
        named: Option<Vec<usize>>,
        /// Fields of a record.
        width: usize,
        header: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    quoted: bool,
    /// The range is in `unescaped`, not in the record.
    unescaped: bool,
}

impl CsvDecoder {
    pub(crate) fn new(schema: &SchemaRef, selected: &[usize], options: &FormatOptions) -> Result<Self> {
        let columns = selected.iter().map(|index| Column::new(&schema.fields()[*index], "csv")).collect::<Result<_>>()?;
        let layout = match options.header {
            true => Layout::HeaderExpected,
            false => Layout::Known {
                positions: selected.iter().copied().map(Some).collect(),
                named: None,
                width: schema.fields().len(),
                header: false,
            },
        };
        Ok(Self {
            schema: Arc::clone(schema),
            columns,
            selected: selected.to_vec(),
            layout,
            delimiter: options.delimiter,
            quote: options.quote,
            null: options.null.clone(),
            timestamps: options.timestamp_format.clone(),
            known_fields_only: options.known_fields_only,
            fields: Vec::new(),
            unescaped: String::new(),
        })
    }

    pub(crate) fn needs_header(&self) -> bool {
        matches!(self.layout, Layout::HeaderExpected)
    }

    pub(crate) fn header_columns(&self) -> Option<Vec<usize>> {
        match &self.layout {
            Layout::Known { named, .. } => named.clone(),
            _ => None,
        }
    }

    /// Why the header does not fit.
    pub(crate) fn header_problem(&self) -> Option<&str> {
        match &self.layout {
            Layout::Refused(reason) => Some(reason),
            _ => None,
        }
    }

    pub(crate) fn set_header(&mut self, line: &[u8]) {
        let names = match std::str::from_utf8(line) {
            Ok(text) => split_record(text, self.delimiter, self.quote).map_err(|problem| problem.to_string()),
            Err(_) => Err("it is not valid UTF-8".to_string()),
        };
        self.layout = match names {
            Ok(names) => self.match_header(&names).unwrap_or_else(Layout::Refused),
            Err(problem) => Layout::Refused(format!("the header cannot be read: {problem}")),
        };
    }

    fn match_header(&self, names: &[String]) -> Result<Layout, String> {
        let mut named = Vec::new();
        let mut all = Vec::with_capacity(self.schema.fields().len());
        for (index, field) in self.schema.fields().iter().enumerate() {
            let mut found = names.iter().enumerate().filter(|(_, name)| *name == field.name());
            let position = found.next().map(|(position, _)| position);
            if found.next().is_some() {
                return Err(format!("the header names the column \"{}\" twice", field.name()));
            }
            if position.is_some() {
                named.push(index);
            }
            all.push(position);
        }
        if let Some(unknown) = names.iter().find(|name| self.known_fields_only && self.schema.index_of(name).is_err()) {
            return Err(format!("the header has \"{}\", which is no column", shorten(unknown)));
        }
        let list = |names: &[String]| names.iter().map(|name| format!("\"{}\"", shorten(name))).collect::<Vec<_>>().join(", ");
        if named.is_empty() && !self.schema.fields().is_empty() {
            let declared: Vec<String> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
            return Err(format!(
                "the first line is no header of this stream: it has {}, declared are {} (for files without a header set header = 'false')",
                list(&names[..names.len().min(8)]),
                list(&declared[..declared.len().min(8)])
            ));
        }
        for (field, position) in self.schema.fields().iter().zip(&all) {
            if position.is_some() {
                continue;
            }
            let strangers = || names.iter().filter(|name| self.schema.index_of(name).is_err());
            if let Some(near) = strangers().find(|name| same_but_spelling(name, field.name())) {
                return Err(format!("the header has no column \"{}\", but \"{}\"; names must match exactly", field.name(), shorten(near)));
            }
            if !field.is_nullable() {
                let near = nearest(field.name(), strangers().map(String::as_str));
                let near = near.map(|name| format!(" (it has \"{}\")", shorten(name))).unwrap_or_default();
                return Err(format!("the header has no column \"{}\", which is NOT NULL{near}", field.name()));
            }
        }
        let positions = self.selected.iter().map(|index| all[*index]).collect();
        Ok(Layout::Known { positions, named: Some(named), width: names.len(), header: true })
    }

    pub(crate) fn decode(&mut self, bytes: &[u8], lines: &[Line], rows: &mut Rows) -> Result<Vec<ArrayRef>> {
        let input = Input::new(bytes, lines);
        let Self { schema: _, columns, layout, delimiter, quote, null, timestamps, fields, unescaped, .. } = self;
        for (index, line) in lines.iter().enumerate() {
            let Some(text) = rows.text(index, line, &input) else {
                for column in columns.iter_mut() {
                    column.pad(index + 1);
                }
                continue;
            };
            let outcome = match layout {
                Layout::Refused(reason) => Err(reason.clone()),
                Layout::HeaderExpected => Err("the file has no header".to_string()),
                Layout::Known { positions, width, header, .. } => {
                    let split = split_fields(text, *delimiter, *quote, fields, unescaped);
                    split.map_err(|problem| problem.of_row(line.number)).and_then(|()| {
                        if fields.len() != *width {
                            let owner = if *header { "the header" } else { "the stream" };
                            return Err(format!("the row has {} fields, {owner} has {width}", fields.len()));
                        }
                        push_row(columns, positions, fields, text, unescaped, null, timestamps)
                    })
                }
            };
            if let Err(reason) = outcome {
                rows.bad(index, line, bytes, reason);
                for column in columns.iter_mut() {
                    column.pad(index + 1);
                }
            }
        }
        columns
            .iter_mut()
            .map(|column| {
                column.pad(lines.len());
                column.finish()
            })
            .collect()
    }
}

fn push_row(
    columns: &mut [Column],
    positions: &[Option<usize>],
    fields: &[Field],
    text: &str,
    unescaped: &str,
    null: &str,
    timestamps: &TimestampFormat,
) -> Result<(), String> {
    for (column, position) in columns.iter_mut().zip(positions) {
        let field = position.map(|position| fields[position]);
        let value = field.map(|field| if field.unescaped { &unescaped[field.start..field.end] } else { &text[field.start..field.end] });
        let outcome = match (value, field) {
            (Some(value), Some(field)) if field.quoted || value != null => column.push(Token::Text, value, timestamps),
            _ if column.field.is_nullable() => {
                column.push_null();
                Ok(())
            }
            _ => Err(Misfit::Null),
        };
        outcome.map_err(|misfit| misfit.reason(column.field.name(), value.unwrap_or(""), column.field.data_type()))?;
    }
    Ok(())
}

/// Why a record cannot be cut into fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BrokenRecord {
    /// A quote opens a field and none closes it. Of such a record only the first line is left, see [`super::lines`].
    Unclosed,
    /// Text follows the quote that closes a field.
    TextAfterQuote,
}

impl BrokenRecord {
    /// As the reason of a bad row that begins in this line.
    fn of_row(self, line: u64) -> String {
        match self {
            Self::Unclosed => format!("{self}: its quote opens in line {line}, which is left out alone"),
            Self::TextAfterQuote => self.to_string(),
        }
    }
}

impl std::fmt::Display for BrokenRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unclosed => "a quoted field has no end",
            Self::TextAfterQuote => "a quoted field is followed by text instead of a delimiter",
        })
    }
}

/// Cuts a record into fields.
fn split_fields(
    record: &str,
    delimiter: u8,
    quote: Option<u8>,
    fields: &mut Vec<Field>,
    unescaped: &mut String,
) -> Result<(), BrokenRecord> {
    fields.clear();
    unescaped.clear();
    let bytes = record.as_bytes();
    let plain = |start, end| Field { start, end, quoted: false, unescaped: false };
    let Some(quote) = quote.filter(|quote| memchr(*quote, bytes).is_some()) else {
        let mut start = 0;
        for end in memchr_iter(delimiter, bytes) {
            fields.push(plain(start, end));
            start = end + 1;
        }
        fields.push(plain(start, bytes.len()));
        return Ok(());
    };
    let mut position = 0;
    loop {
        if bytes.get(position) != Some(&quote) {
            let end = memchr(delimiter, &bytes[position..]).map_or(bytes.len(), |at| position + at);
            fields.push(plain(position, end));
            position = end;
        } else {
            let start = position + 1;
            let mut from = start;
            let mut copied = None;
            let end = loop {
                let at = from + memchr(quote, &bytes[from..]).ok_or(BrokenRecord::Unclosed)?;
                if bytes.get(at + 1) != Some(&quote) {
                    break at;
                }
                // A doubled quote is a literal one: from here on the content is put together aside.
                let (_, segment) = *copied.get_or_insert((unescaped.len(), start));
                unescaped.push_str(&record[segment..=at]);
                copied = copied.map(|(begin, _)| (begin, at + 2));
                from = at + 2;
            };
            fields.push(match copied {
                Some((begin, segment)) => {
                    unescaped.push_str(&record[segment..end]);
                    Field { start: begin, end: unescaped.len(), quoted: true, unescaped: true }
                }
                None => Field { start, end, quoted: true, unescaped: false },
            });
            position = end + 1;
            if position < bytes.len() && bytes[position] != delimiter {
                return Err(BrokenRecord::TextAfterQuote);
            }
        }
        if position >= bytes.len() {
            return Ok(());
        }
        position += 1;
    }
}

/// The fields of a record as text, for headers and inference.
pub(crate) fn split_record(record: &str, delimiter: u8, quote: Option<u8>) -> Result<Vec<String>, BrokenRecord> {
    let (mut fields, mut unescaped) = (Vec::new(), String::new());
    split_fields(record, delimiter, quote, &mut fields, &mut unescaped)?;
    let texts = fields.iter().map(|field| match field.unescaped {
        true => unescaped[field.start..field.end].to_string(),
        false => record[field.start..field.end].to_string(),
    });
    Ok(texts.collect())
}

/// Whether two names differ in case, underscores and blanks only.
pub(crate) fn same_but_spelling(left: &str, right: &str) -> bool {
    let letters = |name: &str| name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let (left, right) = (letters(left), letters(right));
    !left.is_empty() && left == right
}
