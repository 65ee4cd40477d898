//! Cuts a stream of chunks into records, one per line, without ever holding more than one record too many.
//!
//! With a quote character a line end inside a quoted field belongs to the record (RFC 4180). A stray quote would take everything that
//! follows with it. So a record of several lines is only its first line, and its second line begins the next record, when its quoted field
//!
//! - has no end before the end of the input, or
//! - makes the record longer than the limit, or
//! - ends with a quote that neither a delimiter nor a line end follows.
//!
//! A line longer than the limit becomes one [`Line`] that says how long it was and holds its first 64 KiB; the rest is skipped to the next
//! line end. Records are the same however the input is cut into chunks, and each byte is looked at a bounded number of times. A
//! byte order mark, `\r` before `\n`, blank lines and comments are left out here, so that everyone who counts rows counts the same.

use super::{DEFAULT_MAX_ROW_BYTES, RAW_BYTES_MAX};
use memchr::{memchr, memchr_iter, memchr2, memrchr};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

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
    Outside,
    Quoted,
    /// After a quote inside a quoted field: it ends the field, or the next quote makes it a literal one.
    QuoteInQuoted,
}

/// How far the record that has begun was looked at.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// Bytes of it that need no second look.
    scanned: usize,
    /// The state there.
    quoting: Quoting,
    /// Where its first line ends, if that is inside a quoted field.
    first_line: Option<usize>,
}

impl Progress {
    const NONE: Self = Self { scanned: 0, quoting: Quoting::Outside, first_line: None };
}

/// What is known of a record that was given up: each of its line ends before `until` is inside a quoted field. A later record whose line
/// ends so before that goes on in the same way, and need not be looked at again.
#[derive(Debug, Clone, Copy)]
struct GivenUp {
    /// Offset in the input.
    until: u64,
    /// A record that gets there cannot end well.
    is_doomed: bool,
}

/// See the module documentation.
#[derive(Debug, Clone)]
pub struct LineSplitter {
    options: SplitOptions,
    /// From `begin` on: the record that has begun and not ended.
    carry: Vec<u8>,
    begin: usize,
    progress: Progress,
    given_up: Option<GivenUp>,
    /// Bytes of an oversized record that were dropped, and whether the last of them is `\r`.
    skipped: Option<(u64, bool)>,
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
        Self { options, carry: Vec::new(), begin: 0, progress: Progress::NONE, given_up: None, skipped: None, offset, line }
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
        // The record that has begun is completed line by line, so that each of its bytes is copied and looked at once.
        while self.has_partial() {
            let line_end = memchr(b'\n', chunk);
            let (head, rest) = chunk.split_at(line_end.map_or(chunk.len(), |at| at + 1));
            chunk = rest;
            if self.skipped.is_some() {
                self.skip(head, line_end.is_some(), out);
            } else {
                self.carry.extend_from_slice(head);
                self.take_carry(false, out);
            }
            if line_end.is_none() {
                return;
            }
        }
        let mut start = out.bytes.len();
        out.bytes.extend_from_slice(chunk);
        while let Some(end) = self.find_end(&out.bytes, start, false) {
            self.emit(out, start, end, 1);
            start = end + 1;
        }
        self.carry.extend_from_slice(&out.bytes[start..]);
        out.bytes.truncate(start);
        self.cut_oversized();
    }

    /// The input has ended: the unterminated rest is the last record.
    pub fn finish(&mut self, out: &mut LineBatch) {
        match self.skipped {
            Some(_) => self.end_oversized(0, out),
            None => self.take_carry(true, out),
        }
        self.progress = Progress::NONE;
    }

    /// Moves the records that are whole from `carry` to `out`.
    fn take_carry(&mut self, at_end: bool, out: &mut LineBatch) {
        let carry = std::mem::take(&mut self.carry);
        let mut start = self.begin;
        while start < carry.len()
            && let Some(end) = self.find_end(&carry, start, at_end)
        {
            let next = (end + 1).min(carry.len());
            let moved = out.bytes.len();
            out.bytes.extend_from_slice(&carry[start..next]);
            self.emit(out, moved, moved + end - start, (next - end) as u64);
            start = next;
        }
        self.carry = carry;
        self.begin = start;
        // What remains is moved seldom: it may be long, and the records before it short.
        if start > self.carry.len() / 2 {
            self.compact();
        }
        self.cut_oversized();
    }

    fn compact(&mut self) {
        self.carry.drain(..self.begin);
        self.begin = 0;
    }

    /// The end of the record that starts at `start`: the place of its line end, or the end of `bytes` where nothing follows. `None` when
    /// it is not there yet; then the next call, with more bytes, goes on where this one has stopped.
    fn find_end(&mut self, bytes: &[u8], start: usize, at_end: bool) -> Option<usize> {
        let from = start + self.progress.scanned;
        let is_comment = self.options.comment.is_some() && bytes.get(start) == self.options.comment.as_ref();
        let quote = self.options.quote.filter(|_| !is_comment);
        let found = match quote {
            Some(quote) => self.find_quoted_end(bytes, start, quote, at_end),
            None => {
                self.progress.scanned = bytes.len() - start;
                memchr(b'\n', &bytes[from..]).map(|at| from + at)
            }
        };
        found.or_else(|| (at_end && bytes.len() > start).then_some(bytes.len()))
    }

    /// As [`find_end`](Self::find_end), where line ends inside quoted fields belong to the record.
    fn find_quoted_end(&mut self, bytes: &[u8], start: usize, quote: u8, at_end: bool) -> Option<usize> {
        let limit = self.options.max_row_bytes;
        let line_start = |end: usize| memrchr(b'\n', &bytes[start..end]).map_or(start, |at| start + at + 1);
        let mut position = start + self.progress.scanned;
        loop {
            match self.progress.quoting {
                Quoting::Outside => {
                    // Most records have no quotes: one pass finds the line end.
                    let Some(at) = memchr2(b'\n', quote, &bytes[position..]) else {
                        position = bytes.len();
                        break;
                    };
                    let found = position + at;
                    position = found + 1;
                    if bytes[found] == b'\n' {
                        return match self.progress.first_line {
                            Some(first) if found - start > limit => Some(self.give_up(start, first, line_start(found), false)),
                            _ => Some(found),
                        };
                    }
                    let opens = found == start || bytes[found - 1] == self.options.delimiter || self.is_after_mark(&bytes[start..found]);
                    if opens {
                        self.progress.quoting = Quoting::Quoted;
                    }
                }
                Quoting::Quoted => {
                    let Some(at) = memchr2(b'\n', quote, &bytes[position..]) else {
                        position = bytes.len();
                        break;
                    };
                    let found = position + at;
                    position = found + 1;
                    if bytes[found] == quote {
                        self.progress.quoting = Quoting::QuoteInQuoted;
                        continue;
                    }
                    let Some(first) = self.progress.first_line else {
                        if found - start > limit {
                            return Some(found);
                        }
                        self.progress.first_line = Some(found - start);
                        let known = self.given_up.filter(|known| known.until > self.offset + (found - start) as u64);
                        if let Some(known) = known {
                            position = start + (known.until - self.offset) as usize;
                            if known.is_doomed || position - start > limit {
                                return Some(self.give_up(start, found - start, position, known.is_doomed));
                            }
                        }
                        continue;
                    };
                    if position - start > limit {
                        return Some(self.give_up(start, first, position, false));
                    }
                }
                Quoting::QuoteInQuoted => {
                    let ends = match bytes[position..] {
                        [] => break,
                        [b'\r'] if !at_end => break,
                        [byte, ..] if byte == quote => {
                            self.progress.quoting = Quoting::Quoted;
                            position += 1;
                            continue;
                        }
                        [b'\r'] | [b'\r', b'\n', ..] | [b'\n', ..] => true,
                        [byte, ..] => byte == self.options.delimiter,
                    };
                    self.progress.quoting = Quoting::Outside;
                    if let (false, Some(first)) = (ends, self.progress.first_line) {
                        return Some(self.give_up(start, first, line_start(position), true));
                    }
                }
            }
        }
        let is_unclosed = at_end && self.progress.quoting == Quoting::Quoted;
        match self.progress.first_line {
            Some(first) if is_unclosed || bytes.len() - start > limit => {
                Some(self.give_up(start, first, line_start(bytes.len()), is_unclosed))
            }
            _ => {
                // A `\r` that the next byte decides about is looked at again with it.
                self.progress.scanned = position - start;
                None
            }
        }
    }

    /// A byte order mark is no part of the first field.
    fn is_after_mark(&self, before: &[u8]) -> bool {
        self.offset == 0 && before == BYTE_ORDER_MARK
    }

    /// Makes the first line of the record all of it, because its quoted field has no end. `until` is the start of the last line that
    /// begins inside of the field.
    fn give_up(&mut self, start: usize, first_line: usize, until: usize, is_doomed: bool) -> usize {
        let until = self.offset + (until - start) as u64;
        self.given_up = Some(GivenUp { until, is_doomed });
        start + first_line
    }

    /// Drops most of a line that is too long already.
    fn cut_oversized(&mut self) {
        let most = self.options.max_row_bytes.saturating_add(BYTE_ORDER_MARK.len() + 1);
        if self.carry.len() - self.begin > most && self.progress.first_line.is_none() {
            self.compact();
            let kept = self.carry.len().min(RAW_BYTES_MAX + self.mark());
            self.skipped = Some(((self.carry.len() - kept) as u64, self.carry.last() == Some(&b'\r')));
            self.carry.truncate(kept);
            self.progress = Progress::NONE;
        }
    }

    /// Bytes of the mark that `carry` begins with.
    fn mark(&self) -> usize {
        if self.offset == 0 && self.carry.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 }
    }

    /// Drops more of it, beyond what is kept to be shown.
    fn skip(&mut self, head: &[u8], ends: bool, out: &mut LineBatch) {
        let Some((skipped, after_return)) = self.skipped else { return };
        let dropped = head.len() - usize::from(ends);
        let after_return = head[..dropped].last().map_or(after_return, |byte| *byte == b'\r');
        let kept = dropped.min((RAW_BYTES_MAX + self.mark()).saturating_sub(self.carry.len()));
        self.carry.extend_from_slice(&head[..kept]);
        self.skipped = Some((skipped + (dropped - kept) as u64, after_return));
        if ends {
            self.end_oversized(1, out);
        }
    }

    fn emit(&mut self, out: &mut LineBatch, start: usize, end: usize, line_ends: u64) {
        let inner_lines = self.progress.first_line.map_or(0, |_| memchr_iter(b'\n', &out.bytes[start..end]).count() as u64);
        let at_start = self.offset == 0;
        let number = self.line;
        self.offset += (end - start) as u64 + line_ends;
        self.line += inner_lines + line_ends;
        self.progress = Progress::NONE;
        let mut start = start;
        let mut end = end;
        if at_start && out.bytes[start..end].starts_with(BYTE_ORDER_MARK) {
            start += BYTE_ORDER_MARK.len();
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
        out.lines.push(Line { start, end, number, next_offset: self.offset, next_number: self.line, oversized });
    }

    fn end_oversized(&mut self, line_ends: u64, out: &mut LineBatch) {
        let Some((skipped, after_return)) = self.skipped.take() else { return };
        let whole = self.carry.len() as u64 + skipped;
        let mark = self.mark();
        if skipped == 0 && after_return {
            self.carry.pop();
        }
        let number = self.line;
        self.offset += whole + line_ends;
        self.line += line_ends;
        self.progress = Progress::NONE;
        let start = out.bytes.len();
        out.bytes.extend_from_slice(&self.carry[mark..]);
        self.carry.clear();
        let length = whole - mark as u64 - u64::from(after_return);
        if self.options.comment.is_some() && out.bytes.get(start) == self.options.comment.as_ref() {
            return;
        }
        let (end, next_offset, next_number) = (out.bytes.len(), self.offset, self.line);
        out.lines.push(Line { start, end, number, next_offset, next_number, oversized: Some(length) });
    }
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
                assert!(splitter.carry.len() <= 100_100 + chunk);
            }
            assert_eq!(out.lines.len(), 2);
            assert_eq!(out.lines[0].oversized, Some(1_000_000));
            assert_eq!(out.lines[0].of(&out.bytes).len(), RAW_BYTES_MAX);
            assert_eq!((out.lines[1].of(&out.bytes), out.lines[1].number), (&b"short"[..], 2));
            assert_eq!(splitter.offset(), input.len() as u64);
        }
    }

    const CSV: SplitOptions = SplitOptions { max_row_bytes: 60, quote: Some(b'"'), delimiter: b',', comment: None, skip_blank: true };

    /// The texts and line numbers of the records, the same however the input is cut, and when reading begins anew at any of them.
    fn records(options: SplitOptions, input: &str) -> Vec<(String, u64)> {
        let whole = split(options, input.as_bytes(), input.len().max(1));
        for chunk in 1..input.len() {
            assert_eq!(split(options, input.as_bytes(), chunk), whole, "chunks of {chunk}");
        }
        for (index, (_, _, end)) in whole.iter().enumerate() {
            // Only up to the end of a record, as an epoch that ends there reads it.
            let again = split(options, &input.as_bytes()[..*end as usize], 7);
            assert_eq!(again, whole[..=index], "up to record {index}");
        }
        for (index, (_, number, _)) in whole.iter().enumerate().skip(1) {
            let from = whole[index - 1].2;
            let mut splitter = LineSplitter::resume(options, from, *number);
            let mut out = LineBatch::default();
            splitter.push(&input.as_bytes()[from as usize..], &mut out);
            splitter.finish(&mut out);
            let again: Vec<_> = out.lines.iter().map(|line| (line.of(&out.bytes).to_vec(), line.next_offset)).collect();
            let rest: Vec<_> = whole[index..].iter().map(|(text, _, next)| (text.as_bytes().to_vec(), *next)).collect();
            assert_eq!(again, rest, "from record {index}");
        }
        whole.into_iter().map(|(text, number, _)| (text, number)).collect()
    }

    fn shown(input: &str) -> Vec<String> {
        records(CSV, input).into_iter().map(|(text, number)| format!("{number}: {}", text.replace('\n', "|"))).collect()
    }

    #[test]
    fn a_stray_quote_costs_its_line_only() {
        // No end before the end of the input.
        assert_eq!(shown("1,a\n2,\"b\n3,c\n4,d\n"), ["1: 1,a", "2: 2,\"b", "3: 3,c", "4: 4,d"]);
        assert_eq!(shown("2,\"b\r\n3,c\r\n4"), ["1: 2,\"b", "2: 3,c", "3: 4"]);
        assert_eq!(shown("2,\"b"), ["1: 2,\"b"]);
        // A later field that is quoted as it should be.
        assert_eq!(shown("2,\"b\n3,c\n4,\"d\"\n5,\"e\nf\"\n"), ["1: 2,\"b", "2: 3,c", "3: 4,\"d\"", "4: 5,\"e|f\""]);
        // Longer than the limit.
        let long: String = (3..30).map(|n| format!("{n},word\n")).collect();
        let expected: Vec<String> = (3..30).map(|n| format!("{}: {n},word", n - 1)).collect();
        assert_eq!(shown(&format!("2,\"b\n{long}"))[1..], expected);
        assert_eq!(shown(&format!("2,\"b\n{long}30,\"\n"))[1..expected.len() + 1], expected);
        // One after the other, and after a field of two lines.
        assert_eq!(shown("1,\"a\n2,\"b\n3,\"c\n4,d\n"), ["1: 1,\"a", "2: 2,\"b", "3: 3,\"c", "4: 4,d"]);
        assert_eq!(shown("1,\"a\nb\",\"c\n4,d\n"), ["1: 1,\"a", "2: b\",\"c", "3: 4,d"]);
        // What is well-formed stays together.
        assert_eq!(shown("1,\"a\n\nb \"\"c\"\"\"\n\"\",2\n"), ["1: 1,\"a||b \"\"c\"\"\"", "4: \"\",2"]);
        assert_eq!(shown("1,\"a\nb\"\r\n2,\"c\nd\"\r"), ["1: 1,\"a|b\"", "3: 2,\"c|d\""]);
    }

    #[test]
    fn every_cut_of_random_quotes_gives_the_same_records() {
        // A linear congruential generator: Knuth's MMIX.
        let mut state = 7_u64;
        let mut next = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..300 {
            let input: String = (0..next() % 90).map(|_| ["\"", "\"", ",", "\n", "\n", "a", "\r"][next() % 7]).collect();
            let options = SplitOptions { max_row_bytes: 20, ..CSV };
            let rows = records(options, &input);
            let lines = input.split('\n').filter(|line| !line.strip_suffix('\r').unwrap_or(line).is_empty()).count();
            assert!(rows.len() <= lines, "{input:?}");
        }
    }

    #[test]
    fn many_quotes_that_stay_open_are_looked_at_once_each() {
        // Each line closes the field of the line before, and opens one.
        let line = "a\",\"c\n";
        let options = SplitOptions { max_row_bytes: 1 << 20, ..CSV };
        let input = line.repeat(400_000);
        let rows = split(options, input.as_bytes(), 256 << 10);
        assert_eq!(rows.len(), 400_000);
    }

    #[test]
    fn a_line_at_the_limit_is_the_same_in_any_chunks() {
        for length in 58..=66 {
            for end in ["\n", "\r\n", ""] {
                records(CSV, &format!("\u{feff}{}{end}b{end}", "x".repeat(length)));
                records(CSV, &format!("1,\"{}{end}b\"{end}", "x".repeat(length)));
            }
        }
    }
}
