//! Expanded records: one line per column, for rows that are wider than the window.
//!
//! ```text
//! ─[ row 1 ]──────
//! word  │ a
//! count │ 2
//! ```

use super::table::{Grid, Lines};
use crate::terminal::{display_width, escape, escape_keeping_lines};

/// Draws all rows expanded; `first_row` is the number of the first one.
pub(crate) fn draw(grid: &Grid, lines: Lines, null: &str, first_row: usize) -> String {
    let (dash, bar) = match lines {
        Lines::Box => ("─", "│"),
        Lines::Ascii => ("-", "|"),
    };
    let names: Vec<_> = grid.header.iter().map(|name| escape(name)).collect();
    let name_width = names.iter().map(|name| display_width(name)).max().unwrap_or(0);
    let mut text = String::new();
    for (index, row) in grid.rows.iter().enumerate() {
        let title = format!("[ row {} ]", first_row + index);
        let rest = (name_width + 10).saturating_sub(display_width(&title) + 1);
        text.push_str(&format!("{dash}{title}{}\n", dash.repeat(rest)));
        for (name, cell) in names.iter().zip(row) {
            let value = cell.as_deref().map_or(std::borrow::Cow::Borrowed(null), escape_keeping_lines);
            for (line_index, line) in value.split('\n').enumerate() {
                let name = if line_index == 0 { name.as_ref() } else { "" };
                let pad = " ".repeat(name_width - display_width(name));
                text.push_str(format!("{name}{pad} {bar} {line}").trim_end());
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_show_one_column_per_line() {
        let mut grid = Grid::new(vec!["word".into(), "count".into()], vec![false, true]);
        grid.rows = vec![vec![Some("a\nb".into()), None]];
        let text = draw(&grid, Lines::Ascii, "NULL", 3);
        assert_eq!(text, "-[ row 3 ]-----\nword  | a\n      | b\ncount | NULL\n");
    }
}
