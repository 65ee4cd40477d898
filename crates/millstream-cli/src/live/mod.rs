//! `SELECT ... EMIT CHANGES`: a table that is updated in place on a terminal, lines everywhere else.
//!
//! A query that only appends is shown as lines on a terminal too: they are the natural view of a log. In CSV, TSV and
//! JSON each change is a row with `epoch` and `op` before its columns.

mod screen;
mod table;

use crate::output::delimited::{self, Delimiter};
use crate::output::{Format, changes, json};
use crate::present::Presenter;
use crate::settings::Live;
use crate::terminal::Terminal;
use anyhow::Context;
use arrow::array::RecordBatch;
use futures::FutureExt;
use millstream_engine::Subscription;
use screen::Screen;
use table::LiveTable;

/// Shows the changes of a query until it ends, or the caller drops the call. Gives the number of change rows.
///
/// # Errors
/// When the query fails or the output cannot be written.
pub(crate) async fn show(presenter: &mut Presenter, subscription: Subscription) -> anyhow::Result<u64> {
    let for_people = presenter.style.format.is_for_people();
    let as_table = presenter.is_on_terminal() && for_people && presenter.live == Live::Table && !subscription.append_only();
    if as_table {
        return show_table(presenter, subscription).await;
    }
    if presenter.live == Live::Append && !subscription.append_only() && presenter.is_on_terminal() {
        presenter.notice(&millstream_engine::Notice::info(
            "the query takes rows back, so its changes are shown",
            "\\pset live table shows the rows themselves.",
        ));
    }
    show_lines(presenter, subscription).await
}

/// How change lines are written: the formats for rows keep their shape, tables for people become change lines.
fn change_text(presenter: &Presenter, log: &RecordBatch, with_header: bool, plain: bool) -> anyhow::Result<String> {
    let style = &presenter.style;
    let delimiter = match style.format {
        Format::Csv if !plain => Some(Delimiter::Comma),
        Format::Tsv => Some(Delimiter::Tab),
        _ => None,
    };
    if let Some(delimiter) = delimiter {
        let schema = log.schema();
        let names = schema.fields().iter().map(|field| Some(field.name().as_str()));
        let mut text = if with_header { delimited::record(delimiter, names, style.escape) } else { String::new() };
        text.push_str(&delimited::rows(delimiter, log, style.escape, |_| Vec::new())?);
        return Ok(text);
    }
    Ok(match style.format {
        Format::Json | Format::Ndjson => json::lines(log, style.escape)?,
        _ => changes::lines(log, &style.null)?,
    })
}

async fn show_lines(presenter: &mut Presenter, mut subscription: Subscription) -> anyhow::Result<u64> {
    // CSV is what a pipe gets when nothing was asked for; changes are then plain lines.
    let plain = !presenter.format_is_chosen;
    let empty = RecordBatch::new_empty(subscription.schema());
    let log = changes::log_rows(millstream_types::Epoch::ZERO, &empty, &millstream_types::Weights::Ones, &[])?;
    let header = change_text(presenter, &log, true, plain)?;
    presenter.write(&header)?;
    let mut rows = 0;
    while let Some(change) = subscription.next().await {
        let change = change?;
        if change.progress || change.batch.num_rows() == 0 {
            continue;
        }
        let log = changes::log_rows(change.epoch, &change.batch, &change.weights, &[])?;
        rows += log.num_rows() as u64;
        let text = change_text(presenter, &log, false, plain)?;
        presenter.write(&text)?;
    }
    Ok(rows)
}

async fn show_table(presenter: &mut Presenter, mut subscription: Subscription) -> anyhow::Result<u64> {
    let mut table = LiveTable::new(subscription.schema()).context("showing the query as a table")?;
    // Dropping the screen leaves the last table standing, also when the view is cancelled.
    let mut screen = Screen::new();
    let mut rows = 0;
    loop {
        let style = presenter.current_style();
        screen.draw(&table.draw(&style, Terminal::stdout().height))?;
        let Some(mut change) = subscription.next().await else { return Ok(rows) };
        // Whatever has come meanwhile is shown at once: a fast query does not wait for the terminal.
        loop {
            let part = change?;
            rows += part.batch.num_rows() as u64;
            table.apply(part.epoch, &part.batch, &part.weights, part.snapshot)?;
            match subscription.next().now_or_never() {
                Some(Some(next)) => change = next,
                Some(None) | None => break,
            }
        }
    }
}
