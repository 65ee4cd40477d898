//! Meta commands: what starts with a backslash (as in psql) or a dot (as in sqlite). They end with the line.

use super::lexer::{Kind, Piece, pieces};
use millstream_types::options::parse_duration;
use millstream_types::suggest::nearest;
use std::path::PathBuf;
use std::time::Duration;

/// A kind of object that `\d` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// Everything.
    All,
    /// Streams.
    Streams,
    /// Tables.
    Tables,
    /// Views, materialized ones too.
    Views,
    /// Sinks.
    Sinks,
    /// Continuous queries.
    Queries,
    /// Functions.
    Functions,
}

/// A meta command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meta {
    /// Lists objects.
    List(Listing),
    /// Shows the columns of one object, or the objects that match a pattern with `*`.
    Describe(String),
    /// Shows the statement that made an object; of all without a name.
    Definition(Option<String>),
    /// Rows one column per line: on, off, auto; without a word it toggles.
    Expanded(Option<String>),
    /// Times of statements: on, off; without a word it toggles.
    Timing(Option<String>),
    /// Runs the last statement again and again.
    Watch(Duration),
    /// Executes a file.
    Include(PathBuf),
    /// Results go to a file, or back to the terminal.
    Output(Option<PathBuf>),
    /// Sets how results are shown; without a name it lists.
    Pset(Option<(String, Option<String>)>),
    /// Sets a variable; without a name it lists them.
    Set(Option<(String, String)>),
    /// Removes a variable.
    Unset(String),
    /// Prints a text.
    Echo(String),
    /// Lists the meta commands.
    Help,
    /// Explains a statement; without a name it lists them.
    SqlHelp(Option<String>),
    /// Leaves the shell.
    Quit,
}

/// Every command: name, arguments, what it does.
pub(crate) const COMMANDS: &[(&str, &str, &str)] = &[
    ("\\?", "", "list these commands"),
    ("\\h", "[statement]", "explain a statement"),
    ("\\q", "", "leave"),
    ("\\d", "[name]", "list everything, or show the columns of one object"),
    ("\\ds", "", "list streams"),
    ("\\dt", "", "list tables"),
    ("\\dv", "", "list views"),
    ("\\dk", "", "list sinks"),
    ("\\dq", "", "list continuous queries"),
    ("\\df", "", "list functions"),
    ("\\sf", "[name]", "show the statement that made an object"),
    ("\\x", "[on|off|auto]", "show rows one column per line"),
    ("\\timing", "[on|off]", "print how long statements take"),
    ("\\watch", "[seconds]", "run the last statement again and again, until Ctrl-C"),
    ("\\i", "FILE", "execute a file"),
    ("\\o", "[FILE]", "write results to a file; without a name, here again"),
    ("\\pset", "[name [value]]", "how results are shown: format, null, expanded, live, pager"),
    ("\\set", "[name value]", "set a variable for :name"),
    ("\\unset", "name", "remove a variable"),
    ("\\echo", "text", "print a text"),
];

/// What `\pset` sets.
pub(crate) const PSET: &[(&str, &str)] = &[
    ("format", "box, table, expanded, csv, tsv, json, ndjson, markdown"),
    ("null", "what stands for NULL"),
    ("expanded", "on, off, auto"),
    ("live", "table, changelog, append: how EMIT CHANGES is shown"),
    ("pager", "on, off"),
];

/// The statements that `\h` explains: name, syntax, what it does.
const STATEMENTS: &[(&str, &str, &str)] = &[
    (
        "create stream",
        "CREATE STREAM name (column TYPE ..., WATERMARK FOR ts AS ts - INTERVAL '5 seconds')\n    WITH (connector = '...', ...)",
        "a stream: rows that keep coming from a source",
    ),
    ("create table", "CREATE TABLE name (column TYPE ..., [PRIMARY KEY (column)])", "a table whose rows are inserted by hand"),
    ("create external table", "CREATE EXTERNAL TABLE name STORED AS PARQUET | CSV | JSON LOCATION 'path'", "a table over files at rest"),
    ("create view", "CREATE VIEW name AS SELECT ...", "a named query, computed when it is read"),
    (
        "create materialized view",
        "CREATE MATERIALIZED VIEW name AS SELECT ... [EMIT ON WINDOW CLOSE]",
        "a query whose answer is kept up to date",
    ),
    (
        "create sink",
        "CREATE SINK name [FROM view | AS SELECT ...] WITH (connector = '...', path = '...', [mode = 'append | changelog | complete'])",
        "where the changes of a query go",
    ),
    (
        "insert",
        "INSERT INTO table VALUES (...), ...\nINSERT INTO sink SELECT ...",
        "rows into a table once, or a continuous query into a sink",
    ),
    (
        "select",
        "SELECT ... FROM ... [WHERE] [GROUP BY] [HAVING] [ORDER BY] [LIMIT] [EMIT CHANGES]",
        "a snapshot; with EMIT CHANGES a live query",
    ),
    (
        "window",
        "FROM TUMBLE(stream, ts, INTERVAL '10 seconds')\nFROM HOP(stream, ts, slide, size)\nFROM CUMULATE(stream, ts, step, size)\n    adds window_start, window_end, window_time",
        "windows in event time",
    ),
    ("emit", "EMIT CHANGES | EMIT ON WINDOW CLOSE | EMIT PERIODIC INTERVAL '1 minute'", "when a continuous query emits its rows"),
    ("explain", "EXPLAIN [INCREMENTAL] SELECT ...", "how a query is executed, or kept up to date"),
    ("show", "SHOW STREAMS | TABLES | VIEWS | SINKS | QUERIES | FUNCTIONS | CONNECTORS | ALL\nSHOW CREATE name", "what there is"),
    ("describe", "DESCRIBE name", "columns of an object"),
    ("set", "SET name = value\nRESET name", "options; SHOW ALL lists them"),
    ("drop", "DROP STREAM | TABLE | VIEW | MATERIALIZED VIEW | SINK [IF EXISTS] name [CASCADE]", "removes an object"),
    ("copy", "COPY (SELECT ...) TO 'file' STORED AS PARQUET | CSV | JSON", "writes a result to files"),
];

/// Names of the statements that `\h` explains.
pub(crate) fn topics() -> impl Iterator<Item = &'static str> {
    STATEMENTS.iter().map(|(name, _, _)| *name)
}

/// Whether a line is a meta command, and so complete without a `;`.
pub(crate) fn is_meta(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with('\\') || line.starts_with('.') && line[1..].starts_with(|c: char| c.is_alphabetic())
}

/// The meta command at the end of the last line, and what stands before it: as in psql, a backslash outside of quotes and comments begins
/// one, also within a statement that is not finished.
pub(crate) fn split_command(text: &str) -> Option<(&str, &str)> {
    let last_line = text.rfind('\n').map_or(0, |at| at + 1);
    let is_backslash = |piece: &Piece| piece.kind == Kind::Symbol && piece.range.start >= last_line && text[piece.range.clone()] == *"\\";
    let at = pieces(text).into_iter().find(is_backslash)?.range.start;
    Some(text.split_at(at))
}

/// Understands a meta command.
///
/// # Errors
/// A message for the user when the command is unknown or its argument wrong.
pub(crate) fn parse(line: &str) -> Result<Meta, String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    let word = || (!argument.is_empty()).then(|| unquoted(argument));
    let needs = |what: &str| if argument.is_empty() { Err(format!("{name} needs {what}")) } else { Ok(unquoted(argument)) };
    let listed = |listing| if argument.is_empty() { Meta::List(listing) } else { Meta::Describe(unquoted(argument)) };
    Ok(match name.trim_end_matches('+') {
        "\\d" | ".columns" => listed(Listing::All),
        ".tables" => listed(Listing::All),
        "\\ds" => listed(Listing::Streams),
        "\\dt" => listed(Listing::Tables),
        "\\dv" | "\\dm" => listed(Listing::Views),
        "\\dk" => listed(Listing::Sinks),
        "\\dq" | "\\l" => Meta::List(Listing::Queries),
        "\\df" => Meta::List(Listing::Functions),
        ".schema" | "\\sf" | "\\sv" => Meta::Definition(word()),
        "\\x" => Meta::Expanded(word()),
        "\\timing" | ".timer" => Meta::Timing(word()),
        "\\watch" => Meta::Watch(watch_interval(argument)?),
        "\\i" | "\\include" | ".read" => Meta::Include(needs("the name of a file")?.into()),
        "\\o" | "\\out" | ".output" => Meta::Output(word().map(PathBuf::from)),
        ".mode" => Meta::Pset(Some(("format".into(), word()))),
        "\\pset" => Meta::Pset(pair(argument)),
        "\\set" => match pair(argument) {
            None => Meta::Set(None),
            Some((name, value)) => Meta::Set(Some((name, value.unwrap_or_default()))),
        },
        "\\unset" => Meta::Unset(needs("the name of a variable")?),
        "\\echo" | ".print" => Meta::Echo(argument.to_string()),
        "\\?" | ".help" => Meta::Help,
        "\\h" | "\\help" => Meta::SqlHelp(word()),
        "\\q" | "\\quit" | ".quit" | ".exit" => Meta::Quit,
        unknown => {
            let hint = nearest(unknown, COMMANDS.iter().map(|(name, _, _)| *name))
                .map_or_else(|| "\\? lists the commands.".to_string(), |name| format!("Did you mean {name}? \\? lists the commands."));
            return Err(format!("unknown command {}\nhint: {hint}", crate::terminal::escape(unknown)));
        }
    })
}

fn pair(argument: &str) -> Option<(String, Option<String>)> {
    if argument.is_empty() {
        return None;
    }
    let (name, value) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let value = value.trim();
    // `\pset null ''` sets the empty text; `\pset null` alone shows the value.
    Some((name.to_lowercase(), (!value.is_empty()).then(|| unquoted(value))))
}

fn unquoted(text: &str) -> String {
    let inner = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).filter(|_| text.len() >= 2);
    inner.map_or_else(|| text.to_string(), |inner| inner.replace("''", "'"))
}

fn watch_interval(argument: &str) -> Result<Duration, String> {
    if argument.is_empty() {
        return Ok(Duration::from_secs(2));
    }
    let interval = match argument.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => parse_duration(argument),
    };
    interval.filter(|interval| !interval.is_zero()).ok_or_else(|| format!("'{argument}' is not an interval such as 2, 0.5 or 500ms"))
}

/// The text of `\?`.
pub(crate) fn help() -> String {
    let mut text = String::from("Statements end with a semicolon; meta commands end with the line.\n\n");
    for (name, arguments, about) in COMMANDS {
        text.push_str(&format!("  {:<24} {about}\n", format!("{name} {arguments}")));
    }
    text.push_str("\n  .tables .schema .read .mode .timer .help .quit are understood as well.\n");
    text.push_str("  Tab completes, Ctrl-R searches the history, Alt-Enter breaks the line, Ctrl-C cancels a statement.\n");
    text
}

/// The text of `\h`.
///
/// # Errors
/// A message for the user when nothing matches.
pub(crate) fn sql_help(topic: Option<&str>) -> Result<String, String> {
    let Some(topic) = topic else {
        let names: Vec<&str> = topics().collect();
        return Ok(format!("\\h explains: {}\n", names.join(", ")));
    };
    let wanted = topic.to_lowercase();
    let found: Vec<String> = STATEMENTS
        .iter()
        .filter(|(name, _, _)| name.starts_with(&wanted) || name.split(' ').any(|word| word == wanted))
        .map(|(name, syntax, about)| format!("{}: {about}\n{syntax}\n", name.to_uppercase()))
        .collect();
    if !found.is_empty() {
        return Ok(found.join("\n"));
    }
    let hint = nearest(&wanted, topics()).map_or(String::new(), |name| format!("\nhint: Did you mean \\h {name}?"));
    Err(format!("no help for \"{}\"{hint}", crate::terminal::escape(topic)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_what_is_not_finished() {
        assert_eq!(split_command("SELECT 1\n\\x"), Some(("SELECT 1\n", "\\x")));
        assert_eq!(split_command("SELECT 1; \\pset null -"), Some(("SELECT 1; ", "\\pset null -")));
        assert_eq!(split_command("\\d t"), Some(("", "\\d t")));
        for whole in ["SELECT '\n\\x", "SELECT 'a\\b'", "/*\n\\x", "SELECT 1 -- \\x", "SELECT 1", ""] {
            assert_eq!(split_command(whole), None, "{whole}");
        }
    }

    #[test]
    fn commands_are_understood() {
        assert_eq!(parse("\\d"), Ok(Meta::List(Listing::All)));
        assert_eq!(parse(" \\d bids ;"), Ok(Meta::Describe("bids".into())));
        assert_eq!(parse("\\ds"), Ok(Meta::List(Listing::Streams)));
        assert_eq!(parse("\\x auto"), Ok(Meta::Expanded(Some("auto".into()))));
        assert_eq!(parse("\\watch 0.5"), Ok(Meta::Watch(Duration::from_millis(500))));
        assert_eq!(parse("\\watch 500ms"), Ok(Meta::Watch(Duration::from_millis(500))));
        assert_eq!(parse("\\i 'my file.sql'"), Ok(Meta::Include("my file.sql".into())));
        assert_eq!(parse("\\o"), Ok(Meta::Output(None)));
        assert_eq!(parse("\\pset null ''"), Ok(Meta::Pset(Some(("null".into(), Some(String::new()))))));
        assert_eq!(parse("\\pset format csv"), Ok(Meta::Pset(Some(("format".into(), Some("csv".into()))))));
        assert_eq!(parse(".tables"), Ok(Meta::List(Listing::All)));
        assert_eq!(parse(".schema bids"), Ok(Meta::Definition(Some("bids".into()))));
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("\\timng").unwrap_err().contains("Did you mean \\timing?"));
        assert_eq!(parse("\\i").unwrap_err(), "\\i needs the name of a file");
        assert!(parse("\\watch 0").is_err() && parse("\\watch soon").is_err());
        assert!(sql_help(Some("slect")).unwrap_err().contains("\\h select"));
        assert!(sql_help(Some("create")).unwrap().contains("CREATE STREAM"));
    }

    #[test]
    fn a_decimal_point_is_no_command() {
        assert!(is_meta("\\d") && is_meta("  .tables"));
        assert!(!is_meta(".5 + 1;") && !is_meta("SELECT 1"));
    }
}
