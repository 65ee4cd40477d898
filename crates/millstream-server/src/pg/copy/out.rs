//! `COPY .. TO STDOUT`: rows of a query or a subscription to the client.

use super::super::connection::{Connection, Ended};
use super::super::values::encode::BatchEncoder;
use super::{CopyOptions, ForceQuote, Format, SIGNATURE};
use crate::rows::RowSource;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use bytes::{BufMut, BytesMut};

impl Connection {
    /// Sends all rows of a source, one message each.
    pub(in super::super) async fn copy_out(&mut self, mut source: RowSource, options: &CopyOptions) -> Result<(), Ended> {
        let schema = source.schema();
        let is_binary = options.format == Format::Binary;
        self.writer.answers.copy_begins(b'H', is_binary, schema.fields().len());
        let quoted: Vec<bool> = schema.fields().iter().map(|field| is_forced(options, field.name())).collect();
        let mut line = BytesMut::new();
        if is_binary {
            line.put_slice(SIGNATURE);
            line.put_i32(0);
            line.put_i32(0);
        } else if options.header {
            header(options, &schema, &mut line);
            self.writer.answers.copy_data(&line);
        }
        let follows = source.follows();
        if follows {
            self.writer.flush().await?;
        }
        let mut count = 0_u64;
        loop {
            let next = self.next_rows(&mut source, usize::MAX).await?;
            let Some(batch) = next else { break };
            let encoder = BatchEncoder::new(&batch, |_| is_binary)?;
            for row in 0..encoder.rows() {
                // The signature goes with the first row, as clients expect it.
                if count > 0 || row > 0 || !is_binary {
                    line.clear();
                }
                write_row(&encoder, row, options, &quoted, &mut line)?;
                self.writer.answers.copy_data(&line);
                self.writer.flush_if_large().await?;
            }
            count += encoder.rows() as u64;
            if follows {
                self.writer.flush().await?;
            }
        }
        if is_binary {
            if count > 0 {
                line.clear();
            }
            line.put_i16(-1);
            self.writer.answers.copy_data(&line);
        }
        self.writer.answers.copy_done();
        self.writer.answers.command_complete(&format!("COPY {count}"));
        Ok(())
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
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
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
