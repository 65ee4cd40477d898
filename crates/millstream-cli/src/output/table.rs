//! Tables: columns side by side, fitted to the window.
//!
//! ```text
//! ┌──────┬───────┐        word | count
//! │ word │ count │       ------+-------
//! ├──────┼───────┤        a    |     2
//! │ a    │     2 │
//! └──────┴───────┘
//! ```
//! A table that is too wide first loses width in its widest columns, down to [`MIN_COLUMN`]; what still does not fit is
//! left out from the right, and a notice under the table says how much was cut. A cell with line breaks takes several lines.

use crate::terminal::{cut, display_width, escape_keeping_lines};

/// A column is not made narrower than this, so that something of a value remains.
const MIN_COLUMN: usize = 8;

/// The texts of a table.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grid {
    /// Column names.
    pub(crate) header: Vec<String>,
    /// Per column: values are set to the right.
    pub(crate) right: Vec<bool>,
    /// The rows; `None` is NULL.
    pub(crate) rows: Vec<Vec<Option<String>>>,
}

impl Grid {
    /// A grid without rows.
    pub(crate) fn new(header: Vec<String>, right: Vec<bool>) -> Self {
        Self { header, right, rows: Vec::new() }
    }
}

/// The lines a table is drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lines {
    /// Box-drawing characters around the table.
    Box,
    /// ASCII, as psql draws by default.
    Ascii,
}

/// Marks a cell for highlighting: (row, column) to whether it stands out. Used by live views.
pub(crate) type Marks<'a> = &'a dyn Fn(usize, usize) -> bool;

/// How a table is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Drawing<'a> {
    /// The lines.
    pub(crate) lines: Lines,
    /// Columns available; `None` is unlimited.
    pub(crate) width: Option<usize>,
    /// What stands for NULL.
    pub(crate) null: &'a str,
    /// Names bold, NULL dim.
    pub(crate) color: bool,
    /// Cells that stand out (reverse video when in colour).
    pub(crate) marks: Option<Marks<'a>>,
}

/// A drawn table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// The text, every line with its line break.
    pub(crate) text: String,
    /// Number of columns left out from the right.
    pub(crate) columns_cut: usize,
    /// Number of cells that were shortened.
    pub(crate) cells_cut: usize,
}

impl Drawn {
    /// What was cut, as a sentence.
    pub(crate) fn notice(&self) -> Option<String> {
        let values = |count| if count == 1 { "1 value was".to_string() } else { format!("{count} values were") };
        let columns = |count| if count == 1 { "1 column was".to_string() } else { format!("{count} columns were") };
        let cut = match (self.columns_cut, self.cells_cut) {
            (0, 0) => return None,
            (0, cells) => format!("{} shortened", values(cells)),
            (left_out, 0) => format!("{} left out", columns(left_out)),
            (left_out, cells) => format!("{} left out and {} shortened", columns(left_out), values(cells)),
        };
        Some(format!("{cut} to fit the window; \\x shows rows expanded"))
    }
}

/// Natural width of every column, in terminal columns.
pub(crate) fn natural_widths(grid: &Grid, null: &str) -> Vec<usize> {
    let null_width = display_width(null);
    let mut widths: Vec<usize> = grid.header.iter().map(|name| display_width(&crate::terminal::escape(name))).collect();
    for row in &grid.rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            let cell_width = match cell {
                None => null_width,
                Some(text) => escape_keeping_lines(text).split('\n').map(display_width).max().unwrap_or(0),
            };
            *width = (*width).max(cell_width);
        }
    }
    widths
}

/// Columns a table of these column widths takes.
fn total_width(widths: &[usize], lines: Lines) -> usize {
    let content: usize = widths.iter().map(|width| width + 2).sum();
    match lines {
        Lines::Box => content + widths.len() + 1,
        Lines::Ascii => content + widths.len().saturating_sub(1),
    }
}

/// Whether the table fits into `width` columns as it is.
pub(crate) fn fits(grid: &Grid, null: &str, lines: Lines, width: usize) -> bool {
    total_width(&natural_widths(grid, null), lines) <= width
}

/// Narrows the widest columns until the table fits, then leaves out columns from the right.
fn fit(mut widths: Vec<usize>, lines: Lines, available: usize) -> Vec<usize> {
    let floor = |natural: usize| natural.min(MIN_COLUMN);
    let floors: Vec<usize> = widths.iter().map(|&width| floor(width)).collect();
    while total_width(&widths, lines) > available {
        let excess = total_width(&widths, lines) - available;
        let widest = widths.iter().zip(&floors).filter(|(width, floor)| width > floor).map(|(width, _)| *width).max();
        let Some(widest) = widest else { break };
        // Lower all columns of the widest width together to the next narrower one, but not further than needed.
        let next = widths.iter().copied().filter(|&width| width < widest).max().unwrap_or(0);
        let affected: Vec<usize> = (0..widths.len()).filter(|&index| widths[index] == widest).collect();
        let step = (widest - next).min(excess.div_ceil(affected.len())).max(1);
        for index in affected {
            widths[index] = (widest - step).max(floors[index]);
        }
    }
    while widths.len() > 1 && total_width(&widths, lines) > available {
        widths.pop();
    }
    if let [only] = widths.as_mut_slice() {
        let frame = total_width(&[0], lines);
        *only = (*only).min(available.saturating_sub(frame)).max(1);
    }
    widths
}

/// Draws a table.
pub(crate) fn draw(grid: &Grid, drawing: Drawing<'_>) -> Drawn {
    let natural = natural_widths(grid, drawing.null);
    let widths = match drawing.width {
        Some(available) => fit(natural, drawing.lines, available),
        None => natural,
    };
    let mut drawn = Drawn { text: String::new(), columns_cut: grid.header.len() - widths.len(), cells_cut: 0 };
    let boxed = drawing.lines == Lines::Box;
    if boxed {
        rule(&mut drawn.text, &widths, ["┌", "─", "┬", "┐"]);
    }
    let header: Vec<Cell> = grid
        .header
        .iter()
        .zip(&widths)
        .map(|(name, &width)| Cell {
            lines: vec![cut(&crate::terminal::escape(name), width).into_owned()],
            right: false,
            style: Paint::Bold,
        })
        .collect();
    line(&mut drawn.text, &header, &widths, drawing);
    if boxed {
        rule(&mut drawn.text, &widths, ["├", "─", "┼", "┤"]);
    } else {
        rule(&mut drawn.text, &widths, ["", "-", "+", ""]);
    }
    for (row_index, row) in grid.rows.iter().enumerate() {
        let cells: Vec<Cell> = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(column, (cell, &width))| {
                let marked = drawing.marks.is_some_and(|marks| marks(row_index, column));
                let style = match (marked, cell) {
                    (true, _) => Paint::Marked,
                    (false, None) => Paint::Dim,
                    (false, Some(_)) => Paint::None,
                };
                let safe = cell.as_deref().map_or(std::borrow::Cow::Borrowed(drawing.null), escape_keeping_lines);
                let mut shortened = false;
                let lines = safe
                    .split('\n')
                    .map(|text| {
                        let short = cut(text, width);
                        shortened |= matches!(short, std::borrow::Cow::Owned(_));
                        short.into_owned()
                    })
                    .collect();
                drawn.cells_cut += usize::from(shortened);
                Cell { lines, right: grid.right.get(column).copied().unwrap_or(false), style }
            })
            .collect();
        line(&mut drawn.text, &cells, &widths, drawing);
    }
    if boxed {
        rule(&mut drawn.text, &widths, ["└", "─", "┴", "┘"]);
    }
    drawn
}

struct Cell {
    lines: Vec<String>,
    right: bool,
    style: Paint,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Paint {
    None,
    Bold,
    Dim,
    Marked,
}

fn rule(text: &mut String, widths: &[usize], [left, dash, cross, right]: [&str; 4]) {
    text.push_str(left);
    for (index, width) in widths.iter().enumerate() {
        if index > 0 {
            text.push_str(cross);
        }
        text.push_str(&dash.repeat(width + 2));
    }
    text.push_str(right);
    text.push('\n');
}

/// One row of cells, as many lines as its tallest cell.
fn line(text: &mut String, cells: &[Cell], widths: &[usize], drawing: Drawing<'_>) {
    let boxed = drawing.lines == Lines::Box;
    let height = cells.iter().map(|cell| cell.lines.len()).max().unwrap_or(1);
    for index in 0..height {
        if boxed {
            text.push('│');
        }
        for (column, (cell, &width)) in cells.iter().zip(widths).enumerate() {
            if column > 0 {
                text.push(if boxed { '│' } else { '|' });
            }
            let content = cell.lines.get(index).map_or("", String::as_str);
            let pad = " ".repeat(width.saturating_sub(display_width(content)));
            let last = !boxed && column + 1 == widths.len();
            text.push(' ');
            if cell.right {
                text.push_str(&pad);
            }
            paint(text, content, cell.style, drawing.color);
            // psql leaves no blanks at the end of a line.
            if !cell.right && !last {
                text.push_str(&pad);
            }
            if !last {
                text.push(' ');
            }
        }
        if boxed {
            text.push('│');
        }
        text.push('\n');
    }
}

fn paint(text: &mut String, content: &str, style: Paint, color: bool) {
    let code = match style {
        Paint::None => "",
        Paint::Bold => "1",
        Paint::Dim => "2",
        Paint::Marked => "7",
    };
    if !color || code.is_empty() || content.is_empty() {
        text.push_str(content);
    } else {
        text.push_str(&format!("\x1b[{code}m{content}\x1b[0m"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let mut grid = Grid::new(vec!["word".into(), "n".into()], vec![false, true]);
        grid.rows = vec![vec![Some("a".into()), Some("12".into())], vec![None, Some("-7".into())]];
        grid
    }

    fn drawing<'a>(lines: Lines, width: Option<usize>) -> Drawing<'a> {
        Drawing { lines, width, null: "NULL", color: false, marks: None }
    }

    #[test]
    fn boxes_align_numbers_right_and_show_null() {
        let drawn = draw(&grid(), drawing(Lines::Box, None));
        assert_eq!(drawn.text, "┌──────┬────┐\n│ word │ n  │\n├──────┼────┤\n│ a    │ 12 │\n│ NULL │ -7 │\n└──────┴────┘\n");
        assert_eq!(drawn.notice(), None);
    }

    #[test]
    fn ascii_tables_look_like_psql() {
        let drawn = draw(&grid(), drawing(Lines::Ascii, None));
        assert_eq!(drawn.text, " word | n\n------+----\n a    | 12\n NULL | -7\n");
    }

    #[test]
    fn wide_tables_are_cut_with_a_notice() {
        let mut grid = Grid::new(vec!["text".into(), "n".into()], vec![false, true]);
        grid.rows = vec![vec![Some("x".repeat(100)), Some("1".into())]];
        let drawn = draw(&grid, drawing(Lines::Box, Some(30)));
        assert!(drawn.text.lines().all(|line| display_width(line) == 30), "{}", drawn.text);
        assert_eq!(drawn.notice().unwrap(), "1 value was shortened to fit the window; \\x shows rows expanded");

        let many = Grid {
            header: (0..20).map(|index| format!("column_{index}")).collect(),
            right: vec![false; 20],
            rows: vec![vec![Some("v".into()); 20]],
        };
        let drawn = draw(&many, drawing(Lines::Box, Some(40)));
        assert!(drawn.columns_cut > 10);
        assert!(drawn.text.lines().all(|line| display_width(line) <= 40));
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut grid = Grid::new(vec!["a\x1b]0;x".into()], vec![false]);
        grid.rows = vec![vec![Some("\x1b[2J\u{7}".into())]];
        let drawn = draw(&grid, drawing(Lines::Box, None));
        assert!(!drawn.text.contains('\x1b') && !drawn.text.contains('\u{7}'), "{:?}", drawn.text);
        assert!(drawn.text.contains("\\x1b[2J\\x07"));
    }

    #[test]
    fn cells_with_lines_take_several_lines() {
        let mut grid = Grid::new(vec!["plan".into(), "n".into()], vec![false, true]);
        grid.rows = vec![vec![Some("Sort\n  Scan".into()), Some("1".into())]];
        let drawn = draw(&grid, drawing(Lines::Box, None));
        assert!(drawn.text.contains("│ Sort   │ 1 │\n│   Scan │   │\n"), "{}", drawn.text);
    }

    #[test]
    fn one_column_in_a_tiny_window_still_terminates() {
        let mut grid = Grid::new(vec!["c".repeat(50)], vec![false]);
        grid.rows = vec![vec![Some("y".repeat(50))]];
        let drawn = draw(&grid, drawing(Lines::Box, Some(6)));
        assert!(drawn.text.lines().all(|line| display_width(line) <= 6), "{}", drawn.text);
    }
}
