//! Cuts a stream of chunks into records, one per line, without ever holding more than one record too many.
//!
//! With a quote character a line end inside a quoted field belongs to the record (RFC 4180). A record longer than the limit
//! becomes one [`Line`] that says how long it was and holds its first 64 KiB; the rest is skipped to the next line end. A
//! byte order mark, `\r` before `\n`, blank lines and comments are left out here, so that everyone who counts rows counts the same.

use super::{DEFAULT_MAX_ROW_BYTES, RAW_BYTES_MAX};
use memchr::{memchr, memchr2};

/// How records are told apart.
#[derive(Debug, Clone, Copy)]
pub struct SplitOptions {
    /// A longer record is cut and marked.
    pub max_row_bytes: usize,
    /// The quote character of CSV.
    pub quote: Option<u8>,
    /// The delimiter of CSV; a quote counts only at the start of a field.
    pub delimiter: u8,
    /// Lines that start with it are no records.
    pub comment: Option<u8>,
    /// Empty lines are no records.
    pub skip_blank: bool,
}

impl Default for SplitOptions {
    fn default() -> Self {
        Self { max_row_bytes: DEFAULT_MAX_ROW_BYTES, quote: None, delimiter: b',', comment: None, skip_blank: false }
    }
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line {
    /// Where it starts in [`LineBatch::bytes`].
    pub start: usize,
    /// Where it ends there, without its line end.
    pub end: usize,
    /// Line number of its first line in the input, from 1.
    pub number: u64,
    /// Offset in the input after its line end.
    pub next_offset: u64,
    /// Line number after it.
    pub next_number: u64,
    /// Its true length, where it was too long and has been cut.
    pub oversized: Option<u64>,
}

impl Line {
    /// The record's bytes.
    pub fn of<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start..self.end]
    }
}

/// Records and the bytes they lie in.
#[derive(Debug, Clone, Default)]
pub struct LineBatch {
    /// The records' bytes (and what stands between them).
    pub bytes: Vec<u8>,
    /// The records, in order.
    pub lines: Vec<Line>,
}

impl LineBatch {
    /// Forgets all records and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.lines.clear();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quoting {
    FieldStart,
    Unquoted,
    Quoted,
    /// After a quote inside a quoted field: it ends the field, or the next quote makes it a literal one.
    QuoteInQuoted,
}

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct LineSplitter {
    options: SplitOptions,
    /// The record that has begun and not ended.
    carry: Vec<u8>,
    /// How much of `carry` has been looked at, and the state there; whole lines only.
    scanned: usize,
    quoting: Quoting,
    /// Lines that ended inside the record so far.
    inner_lines: u64,
    /// Bytes of an oversized record that were dropped.
    skipped: Option<u64>,
    /// Offset in the input of the start of `carry`.
    offset: u64,
    /// Its line number.
    line: u64,
}

impl LineSplitter {
    /// A splitter at the start of an input.
    pub fn new(options: SplitOptions) -> Self {
        Self::resume(options, 0, 1)
    }

    /// A splitter that goes on at a record's start; `offset` and `line` say where that is.
    pub fn resume(options: SplitOptions, offset: u64, line: u64) -> Self {
        Self { options, carry: Vec::new(), scanned: 0, quoting: Quoting::FieldStart, inner_lines: 0, skipped: None, offset, line }
    }

    /// Offset in the input after the last whole record.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Line number of the next record, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether a record has begun and not ended.
    pub fn has_partial(&self) -> bool {
        !self.carry.is_empty() || self.skipped.is_some()
    }

    /// Appends the records that `chunk` completes to `out`.
    pub fn push(&mut self, mut chunk: &[u8], out: &mut LineBatch) {
        if let Some(skipped) = self.skipped {
            let Some(at) = memchr(b'\n', chunk) else {
                self.skipped = Some(skipped + chunk.len() as u64);
                return;
            };
            self.end_oversized(skipped + at as u64, 1, out);
            chunk = &chunk[at + 1..];
        }
        let mut start = out.bytes.len();
        out.bytes.extend_from_slice(&self.carry);
        out.bytes.extend_from_slice(chunk);
        let mut position = start + self.scanned;
        self.carry.clear();
        while let Some(end) = self.find_end(&out.bytes, start, &mut position) {
            let next_offset = self.offset + (end + 1 - start) as u64;
            self.emit(out, start, end, next_offset, 1);
            start = end + 1;
            position = start;
        }
        self.scanned = position - start;
        let partial = out.bytes.len() - start;
        if partial > self.options.max_row_bytes {
            self.carry.extend_from_slice(&out.bytes[start..start + partial.min(RAW_BYTES_MAX)]);
            self.skipped = Some((partial - self.carry.len()) as u64);
            self.scanned = 0;
        } else {
            self.carry.extend_from_slice(&out.bytes[start..]);
        }
        out.bytes.truncate(start);
    }

    /// The input has ended: the unterminated rest is the last record.
    pub fn finish(&mut self, out: &mut LineBatch) {
        if let Some(skipped) = self.skipped {
            self.end_oversized(skipped, 0, out);
        } else if !self.carry.is_empty() {
            let start = out.bytes.len();
            out.bytes.extend_from_slice(&self.carry);
            let next_offset = self.offset + self.carry.len() as u64;
            self.carry.clear();
            self.emit(out, start, out.bytes.len(), next_offset, 0);
        }
        self.scanned = 0;
    }

    /// The end of the record that starts at `start`; moves `position` over whole lines that do not end it.
    fn find_end(&mut self, bytes: &[u8], start: usize, position: &mut usize) -> Option<usize> {
        let Some(quote) = self.options.quote else {
            let end = *position + memchr(b'\n', &bytes[*position..])?;
            return Some(end);
        };
        if self.options.comment.is_some() && bytes.get(start) == self.options.comment.as_ref() {
            return Some(start + memchr(b'\n', &bytes[start..])?);
        }
        loop {
            if self.quoting == Quoting::FieldStart {
                // Most records have no quotes: one pass finds the line end.
                let found = *position + memchr2(b'\n', quote, &bytes[*position..])?;
                if bytes[found] == b'\n' {
                    return Some(found);
                }
            }
            let end = *position + memchr(b'\n', &bytes[*position..])?;
            self.quoting = scan_quotes(&bytes[*position..end], self.quoting, quote, self.options.delimiter);
            if self.quoting != Quoting::Quoted {
                self.quoting = Quoting::FieldStart;
                return Some(end);
            }
            self.inner_lines += 1;
            *position = end + 1;
        }
    }

    fn emit(&mut self, out: &mut LineBatch, start: usize, end: usize, next_offset: u64, line_ends: u64) {
        let at_start = self.offset == 0;
        let number = self.line;
        self.offset = next_offset;
        self.line += self.inner_lines + line_ends;
        self.inner_lines = 0;
        self.quoting = Quoting::FieldStart;
        let mut start = start;
        let mut end = end;
        if at_start && out.bytes[start..end].starts_with(b"\xEF\xBB\xBF") {
            start += 3;
        }
        if end > start && out.bytes[end - 1] == b'\r' {
            end -= 1;
        }
        let length = end - start;
        let comment = length > 0 && self.options.comment == Some(out.bytes[start]);
        if comment || length == 0 && self.options.skip_blank {
            return;
        }
        let oversized = (length > self.options.max_row_bytes).then_some(length as u64);
        let end = if oversized.is_some() { start + length.min(RAW_BYTES_MAX) } else { end };
        out.lines.push(Line { start, end, number, next_offset, next_number: self.line, oversized });
    }

    fn end_oversized(&mut self, skipped: u64, line_ends: u64, out: &mut LineBatch) {
        let length = self.carry.len() as u64 + skipped;
        let number = self.line;
        self.offset += length + line_ends;
        self.line += self.inner_lines + line_ends;
        self.inner_lines = 0;
        self.quoting = Quoting::FieldStart;
        self.skipped = None;
        self.scanned = 0;
        let start = out.bytes.len();
        out.bytes.extend_from_slice(&self.carry);
        self.carry.clear();
        let (end, next_offset, next_number) = (out.bytes.len(), self.offset, self.line);
        out.lines.push(Line { start, end, number, next_offset, next_number, oversized: Some(length) });
    }
}

fn scan_quotes(bytes: &[u8], state: Quoting, quote: u8, delimiter: u8) -> Quoting {
    bytes.iter().fold(state, |state, byte| match state {
        Quoting::FieldStart if *byte == quote => Quoting::Quoted,
        Quoting::Quoted if *byte == quote => Quoting::QuoteInQuoted,
        Quoting::Quoted => Quoting::Quoted,
        Quoting::QuoteInQuoted if *byte == quote => Quoting::Quoted,
        _ if *byte == delimiter => Quoting::FieldStart,
        _ => Quoting::Unquoted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(options: SplitOptions, input: &[u8], chunk: usize) -> Vec<(String, u64, u64)> {
        let mut splitter = LineSplitter::new(options);
        let mut out = LineBatch::default();
        for part in input.chunks(chunk) {
            splitter.push(part, &mut out);
        }
        splitter.finish(&mut out);
        assert_eq!(splitter.offset(), input.len() as u64);
        let lines = out.lines.iter();
        lines.map(|line| (String::from_utf8_lossy(line.of(&out.bytes)).into_owned(), line.number, line.next_offset)).collect()
    }

    #[test]
    fn splits_the_same_whatever_the_chunks() {
        let options = SplitOptions { quote: Some(b'"'), comment: Some(b'#'), skip_blank: true, ..SplitOptions::default() };
        let input = b"\xEF\xBB\xBFa,b\r\n\n# \"odd\n1,\"x\ny\"\n5\" pipe,2\n\"q\"\"\n,\",3\nlast";
        let whole = split(options, input, input.len());
        let texts: Vec<_> = whole.iter().map(|(text, number, _)| (text.as_str(), *number)).collect();
        assert_eq!(texts, [("a,b", 1), ("1,\"x\ny\"", 4), ("5\" pipe,2", 6), ("\"q\"\"\n,\",3", 7), ("last", 9)]);
        for chunk in 1..input.len() {
            assert_eq!(split(options, input, chunk), whole, "chunks of {chunk}");
        }
    }

    #[test]
    fn cuts_oversized_records() {
        let options = SplitOptions { max_row_bytes: 100_000, ..SplitOptions::default() };
        let mut input = vec![b'x'; 1_000_000];
        input.extend_from_slice(b"\nshort\n");
        for chunk in [1_000, 65_536, 2_000_000] {
            let mut splitter = LineSplitter::new(options);
            let mut out = LineBatch::default();
            for part in input.chunks(chunk) {
                splitter.push(part, &mut out);
                assert!(splitter.carry.len() <= 100_000 + chunk);
            }
            assert_eq!(out.lines.len(), 2);
            assert_eq!(out.lines[0].oversized, Some(1_000_000));
            assert_eq!(out.lines[0].of(&out.bytes).len(), RAW_BYTES_MAX);
            assert_eq!((out.lines[1].of(&out.bytes), out.lines[1].number), (&b"short"[..], 2));
            assert_eq!(splitter.offset(), input.len() as u64);
        }
    }
}
