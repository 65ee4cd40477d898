//! What `millstream verify` prints: a line per query and cut, and under it what differs.

use super::comparison::{Compared, Verdict};
use crate::args::Cut;
use crate::failure::{DONE, FAILED, Failure};
use crate::message;
use crate::numbers;
use crate::terminal::{Terminal, escape_keeping_lines};
use std::io::Write;

/// Differing rows that are shown of a query.
const ROWS_SHOWN: usize = 10;

/// Counts verdicts and prints them.
#[derive(Debug)]
pub(super) struct Report {
    escape: bool,
    quiet: bool,
    limited: bool,
    agreed: usize,
    /// Comparisons that agree that there are no rows.
    empty: usize,
    skipped: usize,
    /// Queries with what is wrong.
    failed: Vec<String>,
}

impl Report {
    /// An empty report.
    pub(super) fn new(quiet: bool) -> Self {
        Self { escape: Terminal::stdout().is_terminal, quiet, limited: false, agreed: 0, empty: 0, skipped: 0, failed: Vec::new() }
    }

    fn print(&self, text: &str) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        if self.escape { writeln!(stdout, "{}", escape_keeping_lines(text)) } else { writeln!(stdout, "{text}") }
    }

    /// Names the file that the next lines are about.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn heading(&self, file: &str) -> std::io::Result<()> {
        self.print(file)
    }

    /// Says, once, that a cut takes less than everything without having been told to.
    pub(super) fn limited(&mut self, cut: Cut, rows_max: u64) {
        if !self.quiet && !self.limited {
            let rows = numbers::grouped(rows_max);
            message::line(&format!("notice: cut {} takes the first {rows} rows of each stream (--rows-max)", cut.name()));
        }
        self.limited = true;
    }

    /// A query without a comparison.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn skipped(&mut self, query: &str, width: usize, reason: &str) -> std::io::Result<()> {
        self.skipped += 1;
        self.print(&format!("{query:width$}  -       skipped: {reason}"))
    }

    /// A file that could not be compared.
    pub(super) fn broken(&mut self, file: &str, error: &anyhow::Error) {
        message::line(&format!("{error:#}"));
        self.failed.push(format!("{file} (not compared)"));
    }

    /// The verdicts of a cut, in the order of `queries`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn compared<'a>(
        &mut self,
        queries: impl Iterator<Item = &'a str>,
        width: usize,
        cut: Cut,
        compared: &Compared,
    ) -> std::io::Result<()> {
        let mut fed = vec![numbers::rows(compared.changes) + " in"];
        if compared.deletions > 0 {
            fed.push(format!("{} of them deletions", numbers::grouped(compared.deletions as u64)));
        }
        if compared.late > 0 {
            fed.push(format!("{} late", numbers::grouped(compared.late)));
        }
        if compared.bad > 0 {
            fed.push(format!("{} bad", numbers::grouped(compared.bad)));
        }
        fed.push(if compared.epochs == 1 { "1 epoch".into() } else { format!("{} epochs", numbers::grouped(compared.epochs as u64)) });
        let fed = fed.join(", ");
        for problem in &compared.input_problems {
            self.failed.push(format!("input of cut {}", cut.name()));
            self.print(&format!("{:width$}  {:6}  INPUT    {problem}", "", cut.name()))?;
        }
        for query in queries {
            let Some(verdict) = compared.verdicts.get(query) else { continue };
            let line = |verdict: &str, what: &str| format!("{query:width$}  {:6}  {verdict:8} {what}", cut.name());
            match verdict {
                Verdict::Agrees(rows) => {
                    self.agreed += 1;
                    self.empty += usize::from(*rows == 0);
                    self.print(&line("agrees", &format!("{} ({fed})", numbers::rows(*rows))))?;
                }
                Verdict::Differs(rows) => {
                    self.failed.push(format!("{query} ({})", cut.name()));
                    self.print(&line("DIFFERS", &format!("in {} ({fed})", numbers::rows(rows.len()))))?;
                    for row in rows.iter().take(ROWS_SHOWN) {
                        self.print(&format!("    expected {} times, found {} times: {}", row.expected, row.found, row.text))?;
                    }
                    if rows.len() > ROWS_SHOWN {
                        self.print(&format!("    and {} more", numbers::rows(rows.len() - ROWS_SHOWN)))?;
                    }
                }
                Verdict::Refused(error) => {
                    // It is refused whatever the cut.
                    let what = format!("{query} (refused)");
                    if self.failed.last() != Some(&what) {
                        self.failed.push(what);
                        self.print(&format!("{query:width$}  -       REFUSED  {}", error.trim_end()))?;
                    }
                }
                Verdict::Failed(error) => {
                    self.failed.push(format!("{query} ({})", cut.name()));
                    self.print(&line("FAILED", error.trim_end()))?;
                }
            }
        }
        Ok(())
    }

    /// The exit code, and the last line on standard error.
    ///
    /// # Errors
    /// When something differs, or nothing was compared.
    pub(super) fn finish(self) -> Result<u8, Failure> {
        let skipped = match self.skipped {
            0 => String::new(),
            1 => ", 1 query skipped".into(),
            count => format!(", {count} queries skipped"),
        };
        if !self.failed.is_empty() {
            let total = self.failed.len() + self.agreed;
            let message = format!("{} of {total} comparisons failed{skipped}: {}", self.failed.len(), self.failed.join(", "));
            return Err(Failure { code: FAILED, message });
        }
        if self.agreed == 0 {
            return Err(Failure::failed(format!("nothing was compared{skipped}")));
        }
        if !self.quiet {
            let empty = if self.empty > 0 { format!(" ({} of them on no rows)", self.empty) } else { String::new() };
            let agree = if self.agreed == 1 { "1 comparison agrees".into() } else { format!("{} comparisons agree", self.agreed) };
            message::line(&format!("{agree}{empty}{skipped}"));
        }
        Ok(DONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_agreement_is_success() {
        assert!(Report::new(true).finish().unwrap_err().message.contains("nothing was compared"));
        let mut report = Report::new(true);
        report.agreed = 2;
        report.failed = vec!["v (row)".into()];
        let failure = report.finish().unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (FAILED, "1 of 3 comparisons failed: v (row)"));
        let mut report = Report::new(true);
        (report.agreed, report.skipped) = (1, 1);
        assert_eq!(report.finish(), Ok(DONE));
    }
}
