//! Markdown tables (GitHub flavour), for pasting into a text.

use super::table::Grid;
use crate::terminal::escape;

/// The table as Markdown.
pub(crate) fn draw(grid: &Grid, null: &str) -> String {
    let mut text = row(grid.header.iter().map(|name| clean(name)));
    text.push_str(&row(grid.right.iter().map(|right| if *right { "---:".to_string() } else { "---".to_string() })));
    for cells in &grid.rows {
        text.push_str(&row(cells.iter().map(|cell| cell.as_deref().map_or_else(|| null.to_string(), clean))));
    }
    text
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

fn clean(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(|line| escape(line).replace('\\', "\\\\").replace('|', "\\|")).collect();
    lines.join("<br>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cannot_break_the_table() {
        let mut grid = Grid::new(vec!["a".into(), "n".into()], vec![false, true]);
        grid.rows = vec![vec![Some("x|y\nz".into()), None]];
        assert_eq!(draw(&grid, "NULL"), "| a | n |\n| --- | ---: |\n| x\\|y<br>z | NULL |\n");
    }
}
