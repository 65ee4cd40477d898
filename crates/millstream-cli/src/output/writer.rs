//! Writes the rows of one result in any format, batch by batch.

use super::cells::{CellFormatter, right_aligned};
use super::delimited::{self, Delimiter};
use super::table::{self, Drawing, Grid, Lines};
use super::{Expanded, Format, Style, expanded, json, markdown};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::io::Write;

/// Rows that are kept to draw a table on a terminal; more would be scrolled away unread and cost memory.
const TERMINAL_ROWS_MAX: usize = 10_000;

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Printed {
    /// Rows of the result, shown or not.
    pub(crate) rows: usize,
    /// What was cut, for people.
    pub(crate) notice: Option<String>,
}

/// Writes one result.
pub(crate) struct RowWriter {
    style: Style,
    schema: SchemaRef,
    grid: Grid,
    rows: usize,
    started: bool,
}

impl RowWriter {
    /// A writer for rows of `schema`.
    pub(crate) fn new(style: Style, schema: SchemaRef) -> Self {
        let header = schema.fields().iter().map(|field| field.name().clone()).collect();
        let grid = Grid::new(header, right_aligned(&schema));
        Self { style, schema, grid, rows: 0, started: false }
    }

    /// Takes a batch: written at once where the format allows it, else kept until [`finish`](Self::finish).
    ///
    /// # Errors
    /// When a value cannot be shown or the output cannot be written.
    pub(crate) fn write(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> anyhow::Result<()> {
        self.start(out)?;
        let terminal = self.style.escape;
        match self.style.format {
            Format::Csv => out.write_all(delimited::rows(Delimiter::Comma, batch, terminal, |_| Vec::new())?.as_bytes())?,
            Format::Tsv => out.write_all(delimited::rows(Delimiter::Tab, batch, terminal, |_| Vec::new())?.as_bytes())?,
            Format::Ndjson => out.write_all(json::lines(batch, terminal)?.as_bytes())?,
            Format::Json => {
                for (index, object) in json::lines(batch, terminal)?.lines().enumerate() {
                    let separator = if self.rows + index == 0 { "\n  " } else { ",\n  " };
                    write!(out, "{separator}{object}")?;
                }
            }
            Format::Box | Format::Table | Format::Expanded | Format::Markdown => self.keep(batch)?,
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub(crate) fn finish(mut self, out: &mut dyn Write) -> anyhow::Result<Printed> {
        self.start(out)?;
        let mut notice = None;
        match self.style.format {
            Format::Csv | Format::Tsv | Format::Ndjson => {}
            Format::Json => out.write_all(if self.rows == 0 { b"]\n" } else { b"\n]\n" })?,
            Format::Markdown => out.write_all(markdown::draw(&self.grid, &self.style.null).as_bytes())?,
            Format::Expanded => out.write_all(expanded::draw(&self.grid, Lines::Box, &self.style.null, 1).as_bytes())?,
            Format::Box | Format::Table => notice = self.draw_table(out)?,
        }
        if self.style.format.is_for_people() && self.grid.rows.len() < self.rows {
            let shown =
                format!("the first {} of {} rows are shown; \\pset format csv or \\o FILE gives all", self.grid.rows.len(), self.rows);
            notice = Some(notice.map_or(shown.clone(), |cut| format!("{cut}; {shown}")));
        }
        Ok(Printed { rows: self.rows, notice })
    }

    fn draw_table(&self, out: &mut dyn Write) -> anyhow::Result<Option<String>> {
        let lines = if self.style.format == Format::Box { Lines::Box } else { Lines::Ascii };
        let style = &self.style;
        let expand = match (style.expanded, style.width) {
            (Expanded::On, _) => true,
            (Expanded::Auto, Some(width)) => !table::fits(&self.grid, &style.null, lines, width),
            (Expanded::Auto, None) | (Expanded::Off, _) => false,
        };
        if expand {
            out.write_all(expanded::draw(&self.grid, lines, &style.null, 1).as_bytes())?;
            return Ok(None);
        }
        let drawing = Drawing { lines, width: style.width, null: &style.null, color: style.color, marks: None };
        let drawn = table::draw(&self.grid, drawing);
        out.write_all(drawn.text.as_bytes())?;
        Ok(drawn.notice())
    }

    /// Headers come before the first row, and also when there is none.
    fn start(&mut self, out: &mut dyn Write) -> anyhow::Result<()> {
        if std::mem::replace(&mut self.started, true) {
            return Ok(());
        }
        let delimiter = match self.style.format {
            Format::Csv => Delimiter::Comma,
            Format::Tsv => Delimiter::Tab,
            Format::Json => {
                out.write_all(b"[")?;
                return Ok(());
            }
            Format::Box | Format::Table | Format::Expanded | Format::Ndjson | Format::Markdown => return Ok(()),
        };
        let names = self.schema.fields().iter().map(|field| Some(field.name().as_str()));
        out.write_all(delimited::record(delimiter, names, self.style.escape).as_bytes())?;
        Ok(())
    }

    fn keep(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let limit = if self.style.escape { TERMINAL_ROWS_MAX } else { usize::MAX };
        let take = batch.num_rows().min(limit.saturating_sub(self.grid.rows.len()));
        let formatter = CellFormatter::new(batch)?;
        for row in 0..take {
            self.grid.rows.push(formatter.row(row)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Terminal;
    use arrow::array::{ArrayRef, Int64Array, StringViewArray};
    use std::sync::Arc;

    fn batch() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> =
            vec![("word", Arc::new(StringViewArray::from(vec![Some("a"), None]))), ("n", Arc::new(Int64Array::from(vec![1, 22])))];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written(format: Format, batches: &[RecordBatch], schema: SchemaRef) -> (String, Printed) {
        let pipe = Terminal { is_terminal: false, width: None, height: None, color: false };
        let mut writer = RowWriter::new(Style::for_output(pipe, Some(format)), schema);
        let mut out = Vec::new();
        for batch in batches {
            writer.write(&mut out, batch).unwrap();
        }
        let printed = writer.finish(&mut out).unwrap();
        (String::from_utf8(out).unwrap(), printed)
    }

    #[test]
    fn every_format_writes_rows_of_several_batches() {
        let two = [batch(), batch().slice(0, 1)];
        let schema = batch().schema();
        assert_eq!(written(Format::Csv, &two, schema.clone()).0, "word,n\na,1\n,22\na,1\n");
        assert_eq!(written(Format::Tsv, &two, schema.clone()).0, "word\tn\na\t1\n\\N\t22\na\t1\n");
        assert_eq!(
            written(Format::Json, &two, schema.clone()).0,
            "[\n  {\"word\":\"a\",\"n\":1},\n  {\"word\":null,\"n\":22},\n  {\"word\":\"a\",\"n\":1}\n]\n"
        );
        let (text, printed) = written(Format::Box, &two, schema);
        assert_eq!(text.lines().count(), 7);
        assert_eq!(printed, Printed { rows: 3, notice: None });
    }

    #[test]
    fn an_empty_result_still_has_a_header() {
        let schema = batch().schema();
        assert_eq!(written(Format::Csv, &[], schema.clone()).0, "word,n\n");
        assert_eq!(written(Format::Json, &[], schema.clone()).0, "[]\n");
        assert_eq!(written(Format::Ndjson, &[], schema.clone()).0, "");
        assert_eq!(written(Format::Table, &[], schema).0, " word | n\n------+---\n");
    }
}
