//! `COPY .. FROM STDIN`: rows of the client, committed together.
//!
//! Bytes come cut anywhere; complete rows are turned into batches as they come, and inserted with the end of the copy: all of them in one
//! epoch, or, if one is wrong, none. **Errors** name the row and the column.

use super::super::connection::{Connection, Ended};
use super::super::values::parameter::{binary_text, text_elements};
use super::super::values::types::data_type;
use super::super::wire::Message;
use super::{CopyOptions, Format, SIGNATURE, bad};
use crate::error::{RequestError, codes};
use arrow::array::{Array as _, ArrayRef, BinaryArray, BooleanArray, ListArray, RecordBatch, StringArray, StringBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use bytes::{Buf, BytesMut};
use millstream_connectors::formats::all_or_nothing::text_column;
use millstream_engine::EngineError;
use millstream_engine::catalog::resolve::fold;
use millstream_sql::statement::CopyFrom;
use std::sync::Arc;

/// Rows that are turned into one batch.
const BATCH_ROWS: usize = 8_192;

/// Rows on their way into a relation.
pub(in super::super) struct CopyIn {
    target: String,
    schema: SchemaRef,
    options: CopyOptions,
    bytes_max: usize,
    bytes: usize,
    /// What has come of the next row.
    rest: BytesMut,
    /// Binary: the signature has been read. Otherwise: the header has.
    begun: bool,
    /// The end of the rows was among them.
    ended: bool,
    /// Rows so far.
    rows: usize,
    columns: Vec<StringBuilder>,
    batches: Vec<RecordBatch>,
}

/// The rows of a copy that comes in pieces of so many bytes.
///
/// # Errors
/// As the copy of a client.
pub(crate) fn rows_of(schema: &SchemaRef, copy: &CopyFrom, bytes: &[u8], piece: usize) -> Result<Vec<RecordBatch>, RequestError> {
    let mut input = CopyIn::new("t".into(), schema, copy, usize::MAX)?;
    bytes.chunks(piece.max(1)).try_for_each(|piece| input.take(piece))?;
    input.finish()
}

impl CopyIn {
    /// A copy into a relation with these columns.
    ///
    /// # Errors
    /// A column that does not exist, or an option that does not fit.
    pub(in super::super) fn new(target: String, schema: &SchemaRef, copy: &CopyFrom, bytes_max: usize) -> Result<Self, RequestError> {
        let options = CopyOptions::new(None, &copy.options, false)?;
        let schema = if copy.columns.is_empty() {
            Arc::clone(schema)
        } else {
            let field = |name: String| match schema.field_with_name(&name) {
                Ok(field) => Ok(field.clone()),
                Err(_) => Err(RequestError::new("42703", format!("\"{target}\" has no column \"{name}\""), "")),
            };
            Arc::new(Schema::new(copy.columns.iter().map(fold).map(field).collect::<Result<Vec<Field>, _>>()?))
        };
        let columns = schema.fields().iter().map(|_| StringBuilder::new()).collect();
        let begun = !options.header && options.format != Format::Binary;
        let (rest, batches) = (BytesMut::new(), Vec::new());
        Ok(Self { target, schema, options, bytes_max, bytes: 0, rest, begun, ended: false, rows: 0, columns, batches })
    }

    /// Takes a piece of the rows.
    ///
    /// # Errors
    /// When there are too many bytes, or what came is no row.
    fn take(&mut self, data: &[u8]) -> Result<(), RequestError> {
        self.bytes += data.len();
        if self.bytes > self.bytes_max {
            let message = format!("COPY has more than the {} bytes that are allowed", self.bytes_max);
            return Err(RequestError::new(codes::TOO_LARGE, message, "Copy it in several parts."));
        }
        self.rest.extend_from_slice(data);
        self.rows_of_rest(false)
    }

    /// Takes the end of the rows and gives them all.
    ///
    /// # Errors
    /// When the last one is not complete.
    fn finish(&mut self) -> Result<Vec<RecordBatch>, RequestError> {
        self.rows_of_rest(true)?;
        if self.options.format == Format::Binary && !(self.begun && self.rest.is_empty()) {
            return Err(bad("the binary rows are not complete".into()));
        }
        self.batch()?;
        Ok(std::mem::take(&mut self.batches))
    }

    fn rows_of_rest(&mut self, at_end: bool) -> Result<(), RequestError> {
        let options = self.options.clone();
        while !self.ended {
            let row = match &options.format {
                Format::Binary => self.binary_row()?,
                Format::Csv { quote, escape, .. } => self.csv_row(*quote, *escape, at_end)?,
                Format::Text => self.text_row(at_end)?,
            };
            let Some(row) = row else { return Ok(()) };
            if !self.begun {
                self.begun = true;
                self.check_header(&row)?;
                continue;
            }
            self.add(row)?;
        }
        // Nothing that comes after the end is read.
        self.rest.clear();
        Ok(())
    }

    fn check_header(&self, row: &[Option<String>]) -> Result<(), RequestError> {
        if !self.options.header_match {
            return Ok(());
        }
        let names = self.schema.fields().iter().map(|field| Some(field.name().as_str()));
        if row.iter().map(Option::as_deref).eq(names) {
            return Ok(());
        }
        let expected: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        Err(bad(format!("the header of the copy is not that of \"{}\": {}", self.target, expected.join(", "))))
    }

    fn add(&mut self, row: Vec<Option<String>>) -> Result<(), RequestError> {
        self.rows += 1;
        if row.len() != self.columns.len() {
            return Err(bad(format!("row {} of the copy has {} values for {} columns", self.rows, row.len(), self.columns.len())));
        }
        for (column, value) in self.columns.iter_mut().zip(row) {
            column.append_option(value);
        }
        if self.rows.is_multiple_of(BATCH_ROWS) { self.batch() } else { Ok(()) }
    }

    /// Turns the texts so far into a batch.
    fn batch(&mut self) -> Result<(), RequestError> {
        let texts: Vec<StringArray> = self.columns.iter_mut().map(StringBuilder::finish).collect();
        let Some(count) = texts.first().map(|texts| texts.len()).filter(|count| *count > 0) else { return Ok(()) };
        let first = self.rows - count;
        let columns = texts.iter().zip(self.schema.fields()).map(|(texts, field)| {
            values(texts, field).map_err(|(row, message)| {
                RequestError::new(codes::BAD_VALUE, format!("row {} of the copy, {message}", first + row + 1), "")
            })
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>()?;
        let nullable = self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect::<Vec<Field>>();
        self.batches.push(RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns)?);
        Ok(())
    }

    /// The next line as text, without its end.
    fn text_row(&mut self, at_end: bool) -> Result<Option<Vec<Option<String>>>, RequestError> {
        // An end of line after a backslash belongs to the value; a backslash before that does not.
        let mut end = None;
        let mut escaped = false;
        for (index, byte) in self.rest.iter().enumerate() {
            match byte {
                b'\n' if !escaped => {
                    end = Some(index);
                    break;
                }
                b'\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        let Some(line) = self.line(end, at_end) else { return Ok(None) };
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if line == b"\\." {
            self.ended = true;
            return Ok(None);
        }
        let mut row = Vec::with_capacity(self.columns.len());
        let mut raw = Vec::new();
        let mut value = Vec::new();
        let mut bytes = line.iter().copied().peekable();
        loop {
            let byte = bytes.next();
            match byte {
                Some(b'\\') => {
                    let Some(next) = bytes.next() else { return Err(self.bad_row("ends with a backslash")) };
                    raw.extend([b'\\', next]);
                    match next {
                        b'b' => value.push(0x08),
                        b'f' => value.push(0x0c),
                        b'n' => value.push(b'\n'),
                        b'r' => value.push(b'\r'),
                        b't' => value.push(b'\t'),
                        b'v' => value.push(0x0b),
                        b'0'..=b'7' => {
                            let mut code = u32::from(next - b'0');
                            for _ in 0..2 {
                                if let Some(digit) = bytes.next_if(|byte| matches!(byte, b'0'..=b'7')) {
                                    code = code * 8 + u32::from(digit - b'0');
                                }
                            }
                            value.push((code & 0xff) as u8);
                        }
                        b'x' if bytes.peek().is_some_and(u8::is_ascii_hexdigit) => {
                            let mut code = 0;
                            for _ in 0..2 {
                                if let Some(digit) = bytes.next_if(u8::is_ascii_hexdigit) {
                                    code = code * 16 + char::from(digit).to_digit(16).unwrap_or(0);
                                }
                            }
                            value.push((code & 0xff) as u8);
                        }
                        other => value.push(other),
                    }
                }
                Some(byte) if byte != self.options.delimiter => {
                    raw.push(byte);
                    value.push(byte);
                }
                _ => {
                    let is_null = raw == self.options.null.as_bytes();
                    let text = String::from_utf8(std::mem::take(&mut value)).map_err(|_| self.bad_row("is no valid UTF-8"))?;
                    row.push((!is_null).then_some(text));
                    raw.clear();
                    if byte.is_none() {
                        return Ok(Some(row));
                    }
                }
            }
        }
    }

    /// The next record of CSV.
    fn csv_row(&mut self, quote: u8, escape: u8, at_end: bool) -> Result<Option<Vec<Option<String>>>, RequestError> {
        let mut row = Vec::with_capacity(self.columns.len());
        let mut value = Vec::new();
        let (mut quoted, mut was_quoted) = (false, false);
        let mut index = 0;
        let bytes = &self.rest;
        let end = loop {
            let Some(&byte) = bytes.get(index) else {
                if !at_end || bytes.is_empty() {
                    return Ok(None);
                }
                if quoted {
                    return Err(self.bad_row("has a quote that does not end"));
                }
                break index;
            };
            index += 1;
            if quoted {
                match bytes.get(index) {
                    // Whether it is an escape shows with the next byte.
                    None if byte == escape && !at_end => return Ok(None),
                    Some(&next) if byte == escape && (next == quote || next == escape) => {
                        value.push(next);
                        index += 1;
                    }
                    _ if byte == quote => quoted = false,
                    _ => value.push(byte),
                }
            } else if byte == quote {
                (quoted, was_quoted) = (true, true);
            } else if byte == self.options.delimiter {
                row.push((std::mem::take(&mut value), std::mem::take(&mut was_quoted)));
            } else if byte == b'\n' {
                break index - 1;
            } else if byte != b'\r' || bytes.get(index).is_some_and(|next| *next != b'\n') {
                value.push(byte);
            } else if bytes.get(index).is_none() && !at_end {
                return Ok(None);
            }
        };
        row.push((value, was_quoted));
        let consumed = (end + 1).min(self.rest.len());
        self.rest.advance(consumed);
        if let [(value, false)] = row.as_slice()
            && value == b"\\."
        {
            self.ended = true;
            return Ok(None);
        }
        let mut values = Vec::with_capacity(row.len());
        for (value, was_quoted) in row {
            let text = String::from_utf8(value).map_err(|_| self.bad_row("is no valid UTF-8"))?;
            values.push((was_quoted || text != self.options.null).then_some(text));
        }
        Ok(Some(values))
    }

    /// Takes a line off that ends at `end`, or with the rows.
    fn line(&mut self, end: Option<usize>, at_end: bool) -> Option<Vec<u8>> {
        match end {
            Some(end) => {
                let line = self.rest.split_to(end).to_vec();
                self.rest.advance(1);
                Some(line)
            }
            None if at_end && !self.rest.is_empty() => Some(self.rest.split().to_vec()),
            None => None,
        }
    }

    /// The next row in binary; the first call takes the signature.
    fn binary_row(&mut self) -> Result<Option<Vec<Option<String>>>, RequestError> {
        if !self.begun {
            let Some(mut lengths) = self.rest.get(SIGNATURE.len()..SIGNATURE.len() + 8) else { return Ok(None) };
            if !self.rest.starts_with(SIGNATURE) {
                return Err(bad("the binary rows do not begin with the signature of COPY".into()));
            }
            let (flags, extension) = (lengths.get_i32(), lengths.get_i32());
            if flags != 0 || !(0..1_000_000).contains(&extension) {
                return Err(bad("the binary rows have flags that are not known".into()));
            }
            let length = SIGNATURE.len() + 8 + usize::try_from(extension).unwrap_or(0);
            if self.rest.len() < length {
                return Ok(None);
            }
            self.rest.advance(length);
            self.begun = true;
        }
        let Some(mut body) = self.rest.get(..).filter(|body| body.len() >= 2) else { return Ok(None) };
        let count = body.get_i16();
        if count == -1 {
            self.rest.advance(2);
            self.ended = true;
            return Ok(None);
        }
        let count = usize::try_from(count).ok().filter(|count| *count == self.columns.len());
        let Some(count) = count else { return Err(self.bad_row("has another number of values than there are columns")) };
        let mut row = Vec::with_capacity(count);
        for field in self.schema.fields() {
            if body.len() < 4 {
                return Ok(None);
            }
            let length = body.get_i32();
            match usize::try_from(length) {
                Err(_) if length == -1 => row.push(None),
                Err(_) => return Err(self.bad_row("has a value of negative length")),
                Ok(length) if length <= body.len() => {
                    let (value, after) = body.split_at(length);
                    let text = binary_text(value, &data_type(field.data_type()));
                    let text = text.map_err(|error| self.bad_row(&format!("has no value for column \"{}\": {error}", field.name())))?;
                    row.push(Some(text));
                    body = after;
                }
                Ok(length) if length > self.bytes_max => return Err(self.bad_row("has a value that is too large")),
                Ok(_) => return Ok(None),
            }
        }
        let consumed = self.rest.len() - body.len();
        self.rest.advance(consumed);
        Ok(Some(row))
    }

    fn bad_row(&self, what: &str) -> RequestError {
        bad(format!("row {} of the copy {what}", self.rows + 1))
    }
}

/// Texts as values of a column; an error says which row. Truth values, bytes and lists are written as PostgreSQL writes them; all others
/// are read as the sources read text: exactly or not at all.
fn values<'a>(texts: &'a StringArray, field: &FieldRef) -> Result<ArrayRef, (usize, String)> {
    let named = |message: String| format!("column \"{}\": {message}", field.name());
    let each = |parse: &mut dyn FnMut(&str) -> Result<(), String>| {
        for (row, text) in texts.iter().enumerate() {
            if let Some(text) = text {
                parse(text).map_err(|message| (row, named(message)))?;
            }
        }
        Ok::<(), (usize, String)>(())
    };
    let wanted = field.data_type();
    match wanted {
        DataType::Boolean => {
            let mut parsed = Vec::with_capacity(texts.len());
            each(&mut |text| {
                parsed.push(boolean(text).ok_or_else(|| format!("'{text}' is no boolean"))?);
                Ok(())
            })?;
            let mut parsed = parsed.into_iter();
            Ok(Arc::new(BooleanArray::from_iter(texts.iter().map(|text| text.and_then(|_| parsed.next())))))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let mut parsed = Vec::with_capacity(texts.len());
            each(&mut |text| {
                parsed.push(bytes_of(text).ok_or_else(|| format!("'{text}' has invalid hexadecimal digits"))?);
                Ok(())
            })?;
            let mut parsed = parsed.into_iter();
            let array: ArrayRef = Arc::new(BinaryArray::from_iter(texts.iter().map(|text| text.and_then(|_| parsed.next()))));
            arrow::compute::cast(&array, wanted).map_err(|error| (0, named(error.to_string())))
        }
        DataType::List(item) => {
            let mut elements = StringBuilder::new();
            let mut lengths = Vec::with_capacity(texts.len());
            for (row, text) in texts.iter().enumerate() {
                let list = text.map_or_else(|| Ok(Vec::new()), text_elements).map_err(|error| (row, named(error.to_string())))?;
                lengths.push(list.len());
                list.into_iter().for_each(|element| elements.append_option(element));
            }
            let offsets = OffsetBuffer::<i32>::from_lengths(lengths);
            let row_of = |element: usize| offsets.iter().skip(1).position(|end| usize::try_from(*end).is_ok_and(|end| element < end));
            let element = Arc::new(Field::new(field.name(), item.data_type().clone(), true));
            let parsed = values(&elements.finish(), &element).map_err(|(element, message)| (row_of(element).unwrap_or(0), message))?;
            let nulls = NullBuffer::from_iter(texts.iter().map(|text| text.is_some()));
            let lists =
                ListArray::try_new(Arc::clone(item), offsets, parsed, Some(nulls)).map_err(|error| (0, named(error.to_string())))?;
            Ok(Arc::new(lists))
        }
        wanted => {
            let is_text = matches!(wanted, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
            let text = |text: &'a str| match is_text {
                true => text,
                false => without_plus(text.trim()),
            };
            let column = text_column(field, texts.iter().map(|value| value.map(text)));
            column.map_err(|refusal| (refusal.row.map_or(0, |row| row as usize - 1), refusal.reason))
        }
    }
}

/// A number without the plus that PostgreSQL allows before it.
fn without_plus(text: &str) -> &str {
    text.strip_prefix('+').filter(|number| number.starts_with(|c: char| c.is_ascii_digit() || c == '.')).unwrap_or(text)
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_lowercase().as_str() {
        "t" | "true" | "y" | "yes" | "on" | "1" => Some(true),
        "f" | "false" | "n" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let Some(hex) = text.strip_prefix("\\x") else { return Some(text.as_bytes().to_vec()) };
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect())
}

impl Connection {
    /// Takes rows from the client and commits them.
    pub(in super::super) async fn copy_in(&mut self, mut copy: CopyIn) -> Result<(), Ended> {
        self.writer.answers.copy_begins(b'G', copy.options.format == Format::Binary, copy.columns.len());
        self.writer.flush().await?;
        // A wrong row is reported with the end: a client that is still sending would not see it before.
        let mut failed = None;
        loop {
            match self.copy_message().await? {
                Message::CopyData(data) if failed.is_none() => failed = copy.take(&data).err(),
                // Clients of the extended protocol send a Sync right after Execute.
                Message::CopyData(_) | Message::Flush | Message::Sync => {}
                Message::CopyDone => break,
                Message::CopyFail(reason) => {
                    return Err(RequestError::new(codes::CANCELED, format!("COPY from stdin failed: {reason}"), "").into());
                }
                _ => return Err(RequestError::new(codes::PROTOCOL, "unexpected message during COPY from stdin", "").into()),
            }
        }
        if let Some(error) = failed {
            return Err(error.into());
        }
        let rows = copy.finish()?;
        let (session, target) = (self.session.clone(), copy.target.clone());
        let work = async move { session.insert_rows(&target, rows, None).await.map_err(RequestError::from) };
        let inserted = self.guarded(crate::aside::aside::<_, RequestError>(work)).await?;
        self.writer.answers.command_complete(&format!("COPY {}", inserted.rows));
        Ok(())
    }
}

impl From<RequestError> for EngineError {
    fn from(error: RequestError) -> Self {
        EngineError::invalid(error.message, error.hint.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_batches;

    fn copy(options: &[(&str, &str)]) -> CopyIn {
        let fields = [("word", DataType::Utf8), ("n", DataType::Int64), ("flags", DataType::new_list(DataType::Boolean, true))];
        let schema = Arc::new(Schema::new(fields.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
        let options = options.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
        let target = sqlparser::ast::ObjectName::from(vec!["t".into()]);
        CopyIn::new("t".into(), &schema, &CopyFrom { target, columns: vec![], options }, 10_000).unwrap()
    }

    /// The rows, the same however the bytes are cut.
    fn read(options: &[(&str, &str)], bytes: &[u8]) -> String {
        let whole = |size: usize| {
            let mut copy = copy(options);
            let taken = bytes.chunks(size).try_for_each(|chunk| copy.take(chunk)).and_then(|()| copy.finish());
            taken.map_or_else(|error| error.message, |batches| pretty_format_batches(&batches).unwrap().to_string())
        };
        let expected = whole(bytes.len().max(1));
        for size in 1..bytes.len().max(2) {
            assert_eq!(whole(size), expected, "in pieces of {size}");
        }
        expected
    }

    #[test]
    fn text_and_csv_read_what_they_mean() {
        let line = "+-------+----+---------------+\n";
        let rows = "| word  | n  | flags         |\n+-------+----+---------------+\n| a,b   | 1  | [true, false] |\n|       |    |               |\n";
        let table = format!("{line}{rows}| x\"y\tz | -3 | []            |\n{}", line.trim_end());
        assert_eq!(read(&[], b"a,b\t1\t{t,f}\n\t\\N\t\\N\nx\"y\\tz\t-3\t{}\n\\.\nnot read"), table);
        assert_eq!(read(&[("format", "csv")], b"\"a,b\",1,\"{t,f}\"\r\n\"\",,\n\"x\"\"y\tz\",-3,{}"), table);
        assert_eq!(
            read(&[("format", "csv"), ("header", "match")], b"word,n,flags\n\"a,b\",1,\"{t,f}\"\n\"\",,\n\"x\"\"y\tz\",-3,{}\n"),
            table
        );
    }

    #[test]
    fn wrong_rows_are_named() {
        let csv = [("format", "csv")];
        assert_eq!(read(&csv, b"a,1,\nb,x,\n"), "row 2 of the copy, column \"n\": 'x' is not a valid BIGINT");
        assert_eq!(read(&csv, b"a,9.5,\n"), "row 1 of the copy, column \"n\": '9.5' is not a valid BIGINT");
        let large = "row 1 of the copy, column \"n\": '9223372036854775808' is out of range for BIGINT";
        assert_eq!(read(&csv, b"a,9223372036854775808,\n"), large);
        assert_eq!(read(&csv, b"a,1\n"), "row 1 of the copy has 2 values for 3 columns");
        assert_eq!(read(&csv, b"a,1,\n\"b"), "row 2 of the copy has a quote that does not end");
        assert_eq!(read(&csv, b"a,1,{x}\n"), "row 1 of the copy, column \"flags\": 'x' is no boolean");
        assert_eq!(read(&[], b"\xff\t1\t{}\n"), "row 1 of the copy is no valid UTF-8");
        assert_eq!(
            read(&[("format", "csv"), ("header", "match")], b"w,n,flags\n"),
            "the header of the copy is not that of \"t\": word, n, flags"
        );
        assert!(copy(&csv).take(&[b'a'; 10_001]).is_err());
    }

    #[test]
    fn binary_rows_are_read_with_care() {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([0; 8]);
        bytes.extend([0, 3, 0, 0, 0, 1, b'a', 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        let table = "+------+---+-------+\n| word | n | flags |\n+------+---+-------+\n| a    | 7 |       |\n+------+---+-------+";
        assert_eq!(read(&[("format", "binary")], &bytes), table);
        for length in 0..bytes.len() - 2 {
            let mut copy = copy(&[("format", "binary")]);
            let _ = copy.take(&bytes[..length]);
            assert!(length == bytes.len() - 2 || copy.finish().is_err() || length >= 19, "{length}");
        }
        assert_eq!(
            read(&[("format", "binary")], b"not the signature of copies"),
            "the binary rows do not begin with the signature of COPY"
        );
    }
}
