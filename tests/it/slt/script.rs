//! The text of a script: records of lines, and how expectations are put back into it.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The line between what is done and what is expected.
const SEPARATOR: &str = "----";

/// A parsed script.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) path: PathBuf,
    pub(super) records: Vec<Record>,
    /// Words of the `mode` lines.
    pub(super) modes: Vec<String>,
    lines: Vec<String>,
}

/// A command with its lines, up to the next empty line.
#[derive(Debug)]
pub(super) struct Record {
    /// Number of the first line, from 1.
    pub(super) line: usize,
    /// First word.
    pub(super) command: String,
    /// The rest of the first line.
    pub(super) argument: String,
    /// The lines below it, up to `----`.
    pub(super) body: Vec<String>,
    /// What follows `----`, where there is such a line.
    pub(super) expected: Option<Expected>,
}

/// Expected lines and where they stand.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) lines: Vec<String>,
    pub(super) place: Range<usize>,
}

impl Script {
    /// Reads a script.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        let text = fs::read_to_string(path)?;
        Ok(Self::parse_as(path, &text, &text))
    }

    /// The script `text` of a file whose text is `whole`, with the same line numbers.
    pub(super) fn parse_as(path: &Path, whole: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_string).collect();
        let whole = whole.lines().map(str::to_string).collect();
        let mut script = Script { path: path.to_path_buf(), records: Vec::new(), modes: Vec::new(), lines: whole };
        let mut at = 0;
        while at < lines.len() {
            let first = lines[at].trim();
            if first.is_empty() || first.starts_with('#') {
                at += 1;
                continue;
            }
            if let Some(mode) = first.strip_prefix("mode ") {
                script.modes.extend(mode.split(' ').next().map(str::to_string));
                at += 1;
                continue;
            }
            let end = lines[at..].iter().position(|line| line.trim().is_empty()).map_or(lines.len(), |count| at + count);
            let (command, argument) = first.split_once(' ').unwrap_or((first, ""));
            let separator = lines[at..end].iter().position(|line| line == SEPARATOR).map(|count| at + count);
            let expected = separator.map(|line| Expected { lines: lines[line + 1..end].to_vec(), place: line + 1..end });
            let body = lines[at + 1..separator.unwrap_or(end)].to_vec();
            script.records.push(Record { line: at + 1, command: command.into(), argument: argument.trim().into(), body, expected });
            at = end;
        }
        script
    }

    /// Whether a `mode` line has this word.
    pub(super) fn has_mode(&self, word: &str) -> bool {
        self.modes.iter().any(|mode| mode == word)
    }

    /// Writes the file with some expectations replaced.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn rewrite(&self, replacements: Vec<(Range<usize>, Vec<String>)>) -> std::io::Result<()> {
        let mut lines = self.lines.clone();
        for (place, replacement) in replacements.into_iter().rev() {
            lines.splice(place, replacement);
        }
        fs::write(&self.path, lines.join("\n") + "\n")
    }
}

impl Record {
    /// The lines below the command as one text.
    pub(super) fn text(&self) -> String {
        self.body.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_end_at_an_empty_line() {
        let text = "# a comment\nmode recut\n\nquery rowsort\nSELECT 1\n----\n1\n\nepoch\n";
        let script = Script::parse_as(Path::new("x.slt"), text, text);
        assert!(script.has_mode("recut"));
        assert_eq!(script.records.len(), 2);
        let query = &script.records[0];
        assert_eq!((query.line, query.command.as_str(), query.argument.as_str()), (4, "query", "rowsort"));
        assert_eq!(query.text(), "SELECT 1");
        let expected = query.expected.as_ref().unwrap();
        assert_eq!((expected.lines.as_slice(), expected.place.clone()), (&["1".to_string()][..], 6..7));
        assert_eq!(script.records[1].command, "epoch");
    }
}
