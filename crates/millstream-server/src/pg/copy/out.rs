//! `COPY .. TO STDOUT`: rows of a query or a subscription to the client, in the forms that every protocol writes alike.

use super::super::connection::{Connection, Ended};
use super::super::values::encode::BatchEncoder;
use super::{CopyOptions, ForceQuote, Format, SIGNATURE};
use crate::rows::RowSource;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};

impl Connection {
    /// Sends all rows of a source, one message each.
    pub(in super::super) async fn copy_out(&mut self, mut source: RowSource, options: CopyOptions) -> Result<(), Ended> {
        let schema = source.schema();
        let mut copied = CopyOut::new(options, &schema);
        self.writer.answers.copy_begins(b'H', copied.is_binary(), schema.fields().len());
        if let Some(header) = copied.begin() {
            self.writer.answers.copy_data(header);
        }
        let follows = source.follows();
        if follows {
            self.writer.flush().await?;
        }
        loop {
            let next = self.next_rows(&mut source, usize::MAX).await?;
            let Some(batch) = next else { break };
            let encoder = copied.encoder(&batch)?;
            for row in 0..encoder.rows() {
                self.writer.answers.copy_data(copied.row(&encoder, row)?);
                self.writer.flush_if_large().await?;
            }
            if follows {
                self.writer.flush().await?;
            }
        }
        if let Some(trailer) = copied.end() {
            self.writer.answers.copy_data(trailer);
        }
        self.writer.answers.copy_done();
        self.writer.answers.command_complete(&format!("COPY {}", copied.rows));
        Ok(())
    }
}

/// What writes rows in the form of a COPY. Its parts, one after the other, are the copy.
pub(crate) struct CopyOut {
    options: CopyOptions,
    quoted: Vec<bool>,
    header: Option<BytesMut>,
    /// The newest part.
    line: BytesMut,
    rows: u64,
}

impl CopyOut {
    pub(crate) fn new(options: CopyOptions, schema: &Schema) -> Self {
        let quoted = schema.fields().iter().map(|field| is_forced(&options, field.name())).collect();
        let mut head = BytesMut::new();
        if options.header {
            header(&options, schema, &mut head);
        }
        let header = (!head.is_empty()).then_some(head);
        let mut line = BytesMut::new();
        if options.format == Format::Binary {
            line.put_slice(SIGNATURE);
            line.put_i32(0);
            line.put_i32(0);
        }
        Self { options, quoted, header, line, rows: 0 }
    }

    /// Whether its parts are no text.
    pub(crate) fn is_binary(&self) -> bool {
        self.options.format == Format::Binary
    }

    /// The names of the columns, where they come first.
    pub(crate) fn begin(&self) -> Option<&[u8]> {
        self.header.as_deref()
    }

    /// The rows of a batch as [`CopyOut::row`] takes them.
    ///
    /// # Errors
    /// When a column is of a type that has no such form.
    pub(crate) fn encoder(&self, batch: &RecordBatch) -> Result<BatchEncoder, ArrowError> {
        let is_binary = self.is_binary();
        BatchEncoder::new(batch, |_| is_binary)
    }

    /// A row. What opens a copy in binary goes with the first one, as clients expect it.
    ///
    /// # Errors
    /// When a value has no such form.
    pub(crate) fn row(&mut self, encoder: &BatchEncoder, row: usize) -> Result<&[u8], ArrowError> {
        if self.rows > 0 || !self.is_binary() {
            self.line.clear();
        }
        self.rows += 1;
        write_row(encoder, row, &self.options, &self.quoted, &mut self.line)?;
        Ok(&self.line)
    }

    /// What closes a copy in binary.
    pub(crate) fn end(&mut self) -> Option<&[u8]> {
        if !self.is_binary() {
            return None;
        }
        if self.rows > 0 {
            self.line.clear();
        }
        self.line.put_i16(-1);
        Some(&self.line)
    }
}

fn is_forced(options: &CopyOptions, name: &str) -> bool {
    match &options.format {
        Format::Csv { force_quote: ForceQuote::All, .. } => true,
        Format::Csv { force_quote: ForceQuote::Columns(columns), .. } => columns.iter().any(|column| column == name),
        _ => false,
    }
}

fn header(options: &CopyOptions, schema: &Schema, line: &mut BytesMut) {
    for (index, field) in schema.fields().iter().enumerate() {
        if index > 0 {
            line.put_u8(options.delimiter);
        }
        value(field.name(), options, false, line);
    }
    line.put_u8(b'\n');
}

fn write_row(encoder: &BatchEncoder, row: usize, options: &CopyOptions, quoted: &[bool], line: &mut BytesMut) -> Result<(), ArrowError> {
    if options.format == Format::Binary {
        line.put_u16(u16::try_from(encoder.columns()).unwrap_or(u16::MAX));
        return encoder.row(row, line);
    }
    let mut text = String::new();
    for column in 0..encoder.columns() {
        if column > 0 {
            line.put_u8(options.delimiter);
        }
        text.clear();
        match encoder.text(row, column, &mut text)? {
            true => value(&text, options, quoted.get(column) == Some(&true), line),
            false => line.put_slice(options.null.as_bytes()),
        }
    }
    line.put_u8(b'\n');
    Ok(())
}

fn value(text: &str, options: &CopyOptions, forced: bool, line: &mut BytesMut) {
    match &options.format {
        Format::Csv { quote, escape, .. } => {
            let special = |byte: u8| byte == options.delimiter || byte == *quote || byte == b'\n' || byte == b'\r';
            // `\.` alone would end the copy.
            if !forced && text != options.null && text != "\\." && !text.bytes().any(special) {
                line.put_slice(text.as_bytes());
                return;
            }
            line.put_u8(*quote);
            for byte in text.bytes() {
                if byte == *quote || byte == *escape {
                    line.put_u8(*escape);
                }
                line.put_u8(byte);
            }
            line.put_u8(*quote);
        }
        _ => {
            for byte in text.bytes() {
                let escaped = match byte {
                    b'\\' => b'\\',
                    b'\n' => b'n',
                    b'\r' => b'r',
                    b'\t' => b't',
                    0x08 => b'b',
                    0x0b => b'v',
                    0x0c => b'f',
                    byte if byte == options.delimiter => byte,
                    byte => {
                        line.put_u8(byte);
                        continue;
                    }
                };
                line.put_u8(b'\\');
                line.put_u8(escaped);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn copied(format: &str, options: &[(&str, &str)]) -> String {
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("plain"), Some("a,b\t\"c\"\n\\"), Some(""), None, Some("\\.")]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4), Some(5)]));
        let batch = RecordBatch::try_from_iter_with_nullable([("word", words, true), ("n", numbers, true)]).unwrap();
        let options = options.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
        let options = CopyOptions::new(Some(format), &options, true).unwrap();
        let quoted: Vec<bool> = ["word", "n"].iter().map(|name| is_forced(&options, name)).collect();
        let encoder = BatchEncoder::new(&batch, |_| false).unwrap();
        let mut out = BytesMut::new();
        if options.header {
            header(&options, &batch.schema(), &mut out);
        }
        for row in 0..encoder.rows() {
            write_row(&encoder, row, &options, &quoted, &mut out).unwrap();
        }
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn what_is_special_is_written_so_that_it_reads_back() {
        assert_eq!(copied("text", &[]), "plain\t1\na,b\\t\"c\"\\n\\\\\t\\N\n\t3\n\\N\t4\n\\\\.\t5\n");
        assert_eq!(copied("csv", &[("header", "true")]), "word,n\nplain,1\n\"a,b\t\"\"c\"\"\n\\\",\n\"\",3\n,4\n\"\\.\",5\n");
        assert!(
            copied("csv", &[("force_quote", "n"), ("delimiter", ";")]).starts_with("plain;\"1\"\na,b".replace("a,b", "\"a,b").as_str())
        );
    }

    #[test]
    fn options_are_checked() {
        let check = |format: &str, key: &str, value: &str| CopyOptions::new(Some(format), &vec![(key.into(), value.into())], true).is_ok();
        assert!(check("csv", "delimiter", ";") && check("text", "null", "NULL") && check("csv", "force_quote", "*"));
        for (format, key, value) in [
            ("parquet", "header", "true"),
            ("text", "quote", "'"),
            ("binary", "header", "true"),
            ("csv", "delimiter", ";;"),
            ("csv", "delimiter", "\""),
            ("csv", "header", "maybe"),
            ("csv", "encoding", "latin1"),
            ("csv", "nosuch", "1"),
            ("text", "delimiter", "\\"),
        ] {
            assert!(!check(format, key, value), "{format} {key} {value}");
        }
    }
}
