//! Runs every program of `sql-examples/` and every SQL block of the documents.
//!
//! A program says in comments what it must lead to:
//!
//! ```text
//! -- expect: SELECT ...            a query over its views and sinks, and below it the rows, one per line
//! --   a|b|c
//! -- after: other.sql              runs that program first, in the same directories
//! -- feed: 9999 data/words/x.txt   the peer that the program connects to at this port sends this file
//! -- until: SELECT ...             runs epochs until the query says true; for input that comes from outside
//! ```
//! `BLESS=1` rewrites the rows. Paths below `out/` lead to a directory of the test's own.

use crate::slt::document;
use crate::support::{self, instance::Instance, output};
use std::fs;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[test]
fn quickstart() {
    run_named("quickstart");
}

#[test]
fn word_counts() {
    run_named("word_count");
}

#[test]
fn sensors_and_replay() {
    run_named("sensors");
    run_named("replay");
}

#[test]
fn nexmark() {
    run_named("nexmark");
}

#[test]
fn others() {
    for path in programs() {
        let name = path.file_stem().expect("a program has a name").to_string_lossy().into_owned();
        if !["quickstart", "word_count", "sensors", "replay", "nexmark"].iter().any(|known| name.starts_with(known)) {
            run(&path);
        }
    }
}

#[test]
fn documents() {
    let root = support::root();
    let mut paths = vec![root.join("README.md"), root.join("docs/from-spark-streaming.md"), root.join("docs/reference/sql.md")];
    paths.extend(with_extension(&root.join("docs/guide"), "md"));
    let failures: Vec<String> = paths.iter().flat_map(|path| support::block_on(document::run(path))).collect();
    assert!(failures.is_empty(), "\n\n{}\n", failures.join("\n"));
}

fn programs() -> Vec<PathBuf> {
    with_extension(&support::root().join("sql-examples"), "sql")
}

fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder exists");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory entry can be read").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == extension));
    paths.sort();
    paths
}

fn run_named(prefix: &str) {
    let found: Vec<PathBuf> =
        programs().into_iter().filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))).collect();
    assert!(!found.is_empty(), "no program of sql-examples is called {prefix}...");
    for path in found {
        run(&path);
    }
}

fn run(path: &Path) {
    let out = support::scratch_dir();
    if let Err(problem) = support::block_on(run_in(path, out.path())) {
        panic!("{}: {problem}", path.display());
    }
}

/// What the comments of a program ask for.
#[derive(Debug, Default)]
struct Directives {
    after: Option<String>,
    feed: Option<(String, PathBuf)>,
    until: Option<String>,
    expectations: Vec<Expectation>,
}

#[derive(Debug)]
struct Expectation {
    query: String,
    rows: Vec<String>,
    /// Indices of the lines that hold the rows.
    place: std::ops::Range<usize>,
}

fn directives(text: &str) -> Directives {
    let mut found = Directives::default();
    let lines: Vec<&str> = text.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        if let Some(query) = line.strip_prefix("-- expect: ") {
            let rows: Vec<String> = lines[index + 1..].iter().map_while(|line| line.strip_prefix("--   ")).map(str::to_string).collect();
            let place = index + 1..index + 1 + rows.len();
            found.expectations.push(Expectation { query: query.to_string(), rows, place });
        } else if let Some(name) = line.strip_prefix("-- after: ") {
            found.after = Some(name.trim().to_string());
        } else if let Some(query) = line.strip_prefix("-- until: ") {
            found.until = Some(query.to_string());
        } else if let Some((port, file)) = line.strip_prefix("-- feed: ").and_then(|rest| rest.split_once(' ')) {
            found.feed = Some((port.to_string(), PathBuf::from(file)));
        }
    }
    found
}

async fn run_in(path: &Path, out: &Path) -> Result<(), String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let directives = directives(&text);
    let folder = path.parent().expect("a program lies in a folder");
    if let Some(name) = &directives.after {
        Box::pin(run_in(&folder.join(name), out)).await?;
    }
    let mut sql = text.replace("'sql-examples/", &format!("'{}/", folder.display())).replace("'out/", &format!("'{}/", out.display()));
    let mut peer = None;
    if let Some((port, file)) = &directives.feed {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
        let free_port = listener.local_addr().map_err(|error| error.to_string())?.port();
        sql = sql.replace(&format!("'{port}'"), &format!("'{free_port}'"));
        peer = Some(tokio::spawn(send(listener, folder.join(file))));
    }
    let mut instance = Instance::start(None).await.map_err(|error| error.to_string())?;
    let file = instance.engine().apply_pipeline_file(&sql, None).await;
    let file = file.map_err(|failure| format!("{} in\n{}", failure.error, failure.position.text))?;
    instance.drain().await.map_err(|error| error.to_string())?;
    if let Some(query) = &directives.until {
        support::instance::within(wait_until(&mut instance, query)).await?;
    }
    for (place, _) in &file.queries {
        instance.rows(&place.text).await.map_err(|error| format!("{error} in\n{}", place.text))?;
    }
    let result = check(&instance, path, &text, &directives.expectations).await;
    instance.stop().await.map_err(|error| error.to_string())?;
    if let Some(peer) = peer {
        peer.abort();
    }
    result
}

/// Sends a file to the first one who calls, and keeps the connection.
async fn send(listener: TcpListener, file: PathBuf) -> std::io::Result<()> {
    let (mut connection, _) = listener.accept().await?;
    connection.write_all(&tokio::fs::read(file).await?).await?;
    std::future::pending().await
}

/// Runs epochs as input comes, until the query says true.
async fn wait_until(instance: &mut Instance, query: &str) -> Result<(), String> {
    loop {
        if instance.lines(query).await.map_err(|error| error.to_string())? == ["true"] {
            return Ok(());
        }
        if instance.epoch().await.map_err(|error| error.to_string())?.is_none() {
            // The peer's bytes are on their way through the socket.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

async fn check(instance: &Instance, path: &Path, text: &str, expectations: &[Expectation]) -> Result<(), String> {
    let mut lines: Vec<String> = text.lines().map(str::to_string).collect();
    let mut changed = false;
    for expectation in expectations.iter().rev() {
        let found = instance.lines(&expectation.query).await.map_err(|error| format!("{error} in\n{}", expectation.query))?;
        if found != expectation.rows {
            if !support::blessing() {
                return Err(format!("{}\n{}", expectation.query, output::difference(&expectation.rows, &found)));
            }
            lines.splice(expectation.place.clone(), found.iter().map(|row| format!("--   {row}")));
            changed = true;
        }
    }
    if changed {
        fs::write(path, lines.join("\n") + "\n").map_err(|error| error.to_string())?;
    }
    Ok(())
}
