//! Carries out meta commands.

use super::meta::{self, Listing, Meta};
use super::{Next, Shell};
use crate::connection;
use crate::interrupt::interruptible;
use crate::message;
use crate::output::table::{Drawing, Grid, Lines, draw};
use crate::output::{Expanded, Format};
use crate::present::print_error;
use crate::script::Script;
use crate::settings::{EXPANDED, Live, SWITCH};
use std::path::Path;
use std::time::Duration;

/// Carries out a line that starts with a backslash or a dot.
///
/// # Errors
/// When the output cannot be written.
pub(crate) async fn execute(shell: &mut Shell, line: &str) -> anyhow::Result<Next> {
    let command = match meta::parse(line) {
        Ok(command) => command,
        Err(problem) => {
            print_error(&problem);
            return Ok(Next::Continue);
        }
    };
    let done = match command {
        Meta::Quit => return Ok(Next::Quit),
        Meta::Help => shell.presenter.write(&meta::help()).map_err(Into::into),
        Meta::SqlHelp(topic) => match meta::sql_help(topic.as_deref()) {
            Ok(text) => shell.presenter.write(&text).map_err(Into::into),
            Err(problem) => Err(Problem(problem).into()),
        },
        Meta::List(listing) => list(shell, listing, None).await,
        Meta::Describe(name) if name.contains('*') => list(shell, Listing::All, Some(&name)).await,
        Meta::Describe(name) => {
            let name = quoted(shell, &name).await;
            shell.statements(&format!("DESCRIBE {name}"), None).await.map(|_| ())
        }
        Meta::Definition(name) => definitions(shell, name.as_deref()).await,
        Meta::Expanded(word) => expanded(shell, word.as_deref()),
        Meta::Timing(word) => switched(shell.timing, word.as_deref()).map(|on| {
            shell.timing = on;
            message::line(if on { "timing is on" } else { "timing is off" });
        }),
        Meta::Watch(interval) => watch(shell, interval).await,
        Meta::Include(path) => include(shell, &path).await,
        Meta::Output(path) => shell.presenter.redirect(path.as_deref()),
        Meta::Pset(None) => settings(shell),
        Meta::Pset(Some((name, value))) => pset(shell, &name, value.as_deref()),
        Meta::Set(None) => {
            let lines: Vec<String> = shell.variables.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
            shell.presenter.write(&lines.concat()).map_err(Into::into)
        }
        Meta::Set(Some((name, value))) => {
            shell.variables.insert(name, value);
            Ok(())
        }
        Meta::Unset(name) => {
            shell.variables.remove(&name);
            Ok(())
        }
        Meta::Echo(text) => shell.presenter.write(&format!("{text}\n")).map_err(Into::into),
    };
    match done {
        Ok(()) => {}
        // What the user can mend is said; a terminal that is gone ends the shell.
        Err(error)
            if error.is::<Problem>()
                || error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() != std::io::ErrorKind::BrokenPipe) =>
        {
            print_error(&error.to_string());
        }
        Err(error) => match error.downcast_ref::<crate::failure::Failure>() {
            Some(failure) if !failure.message.is_empty() => print_error(&failure.message),
            _ => return Err(error),
        },
    }
    Ok(Next::Continue)
}

/// Something the user did wrong.
#[derive(Debug)]
struct Problem(String);

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Problem {}

/// A name as SQL wants it: as it is when the catalog has it so, quoted.
async fn quoted(shell: &Shell, name: &str) -> String {
    if shell.connection.catalog().await.is_ok_and(|entries| entries.iter().any(|entry| entry.name == name)) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_string()
    }
}

async fn list(shell: &mut Shell, listing: Listing, pattern: Option<&str>) -> anyhow::Result<()> {
    let kinds: &[&str] = match listing {
        Listing::All => &["stream", "table", "view", "materialized view", "sink"],
        Listing::Streams => &["stream"],
        Listing::Tables => &["table"],
        Listing::Views => &["view", "materialized view"],
        Listing::Sinks => &["sink"],
        Listing::Queries => return shell.statements("SHOW QUERIES", None).await.map(|_| ()),
        Listing::Functions => return shell.statements("SHOW FUNCTIONS", None).await.map(|_| ()),
    };
    let mut grid = Grid::new(vec!["name".into(), "kind".into(), "columns".into()], vec![false; 3]);
    let mut entries = shell.connection.catalog().await.map_err(|error| connection::failed(&error))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in
        entries.iter().filter(|entry| kinds.contains(&entry.kind.as_str()) && pattern.is_none_or(|pattern| matches(pattern, &entry.name)))
    {
        let columns: Vec<&str> = entry.schema.fields().iter().map(|field| field.name().as_str()).collect();
        grid.rows.push(vec![Some(entry.name.clone()), Some(entry.kind.clone()), Some(columns.join(", "))]);
    }
    if grid.rows.is_empty() {
        message::line("there is nothing yet; \\h create stream shows how to begin");
        return Ok(());
    }
    let style = shell.presenter.current_style();
    let lines = if style.format == Format::Table { Lines::Ascii } else { Lines::Box };
    let drawing = Drawing { lines, width: style.width, null: &style.null, color: style.color, marks: None };
    shell.presenter.write(&draw(&grid, drawing).text)?;
    Ok(())
}

/// Whether a name matches a pattern with `*`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name
            .strip_prefix(head)
            .is_some_and(|tail| tail.char_indices().map(|(index, _)| index).chain([tail.len()]).any(|index| matches(rest, &tail[index..]))),
    }
}

async fn definitions(shell: &mut Shell, name: Option<&str>) -> anyhow::Result<()> {
    let texts = shell.connection.definitions(name).await?;
    let texts: Vec<String> = texts.iter().map(|text| format!("{text};\n")).collect();
    shell.presenter.write(&texts.concat())?;
    Ok(())
}

fn chosen<T: Copy>(word: &str, choices: &[(&str, T)]) -> anyhow::Result<T> {
    let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, choice)| *choice);
    found.ok_or_else(|| {
        let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
        Problem(format!("'{word}' is not one of {}", names.join(", "))).into()
    })
}

/// The switch after a command: the word, or the opposite of what it was.
fn switched(now: bool, word: Option<&str>) -> anyhow::Result<bool> {
    word.map_or(Ok(!now), |word| chosen(word, &SWITCH))
}

fn expanded(shell: &mut Shell, word: Option<&str>) -> anyhow::Result<()> {
    let style = &mut shell.presenter.style;
    style.expanded = match word {
        Some(word) => chosen(word, &EXPANDED)?,
        None if style.expanded == Expanded::Off => Expanded::On,
        None => Expanded::Off,
    };
    let name = EXPANDED.iter().find(|(_, choice)| *choice == style.expanded).map_or("off", |(name, _)| name);
    message::line(&format!("expanded is {name}"));
    Ok(())
}

fn settings(shell: &mut Shell) -> anyhow::Result<()> {
    let lines: Vec<String> = meta::PSET.iter().map(|(name, _)| format!("{name} = {}\n", value_of(shell, name))).collect();
    shell.presenter.write(&lines.concat())?;
    Ok(())
}

fn value_of(shell: &Shell, name: &str) -> String {
    let presenter = &shell.presenter;
    match name {
        "format" => presenter.style.format.name().into(),
        "null" => format!("'{}'", presenter.style.null),
        "expanded" => EXPANDED.iter().find(|(_, choice)| *choice == presenter.style.expanded).map_or("off", |(name, _)| name).into(),
        "live" => Live::ALL.iter().find(|(_, choice)| *choice == presenter.live).map_or("table", |(name, _)| name).into(),
        "pager" => if presenter.pager { "on" } else { "off" }.into(),
        _ => String::new(),
    }
}

fn pset(shell: &mut Shell, name: &str, value: Option<&str>) -> anyhow::Result<()> {
    if !meta::PSET.iter().any(|(known, _)| *known == name) {
        let names: Vec<&str> = meta::PSET.iter().map(|(name, _)| *name).collect();
        return Err(Problem(format!("unknown setting '{name}'\nhint: \\pset knows {}.", names.join(", "))).into());
    }
    let presenter = &mut shell.presenter;
    match (name, value) {
        ("format", Some(word)) => {
            presenter.style.format = chosen(word, &Format::ALL)?;
            presenter.format_is_chosen = true;
        }
        ("null", Some(text)) => presenter.style.null = text.to_string(),
        ("expanded", word) => return expanded(shell, word),
        ("live", Some(word)) => presenter.live = chosen(word, &Live::ALL)?,
        ("pager", word) => presenter.pager = switched(presenter.pager, word)?,
        _ => {}
    }
    message::line(&format!("{name} is {}", value_of(shell, name)));
    Ok(())
}

async fn watch(shell: &mut Shell, interval: Duration) -> anyhow::Result<()> {
    let Some(statement) = shell.last.clone() else {
        return Err(Problem("there is no statement to watch\nhint: Run it once, then \\watch.".into()).into());
    };
    loop {
        if !shell.statements(&statement, None).await? {
            return Ok(());
        }
        if interruptible(tokio::time::sleep(interval)).await?.is_err() {
            // The terminal has echoed ^C.
            message::line("");
            return Ok(());
        }
    }
}

async fn include(shell: &mut Shell, path: &Path) -> anyhow::Result<()> {
    let script = Script::read(path)?;
    shell.statements(&script.text, script.name.as_deref()).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_anywhere_a_star_stands() {
        assert!(matches("b*", "bids") && matches("*s", "bids") && matches("*", "") && matches("b*d*", "bids"));
        assert!(!matches("b*", "asks") && !matches("bid", "bids"));
    }
}
