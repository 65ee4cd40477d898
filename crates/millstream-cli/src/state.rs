//! `millstream state`: looks into a state directory without owning it.

use crate::args::StateAction;
use crate::failure::{DONE, Failure};
use crate::numbers;
use crate::output::table::{Drawing, Grid, Lines, draw};
use crate::terminal::Terminal;
use millstream_connectors::sinks::files::inspect;
use millstream_engine::{EngineError, SinkPlaces};
use millstream_state::{CheckpointReader, LogReader};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs `state ls`, `show` or `verify`.
///
/// # Errors
/// When the directory is none of ours, or damaged.
pub(crate) fn state(action: &StateAction) -> anyhow::Result<u8> {
    let dir = match action {
        StateAction::Ls { dir } | StateAction::Show { dir } | StateAction::Verify { dir } => dir,
    };
    if !dir.join("FORMAT").is_file() {
        return Err(Failure::usage(format!("\"{}\" is not a state directory: it has no file FORMAT", dir.display())).into());
    }
    let text = match action {
        StateAction::Ls { dir } => list(dir)?,
        StateAction::Show { dir } => show(dir)?,
        StateAction::Verify { dir } => verify(dir)?,
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(DONE)
}

fn drawn(header: &[&str], right: &[bool], rows: Vec<Vec<String>>) -> String {
    let terminal = Terminal::stdout();
    let mut grid = Grid::new(header.iter().map(ToString::to_string).collect(), right.to_vec());
    grid.rows = rows.into_iter().map(|row| row.into_iter().map(Some).collect()).collect();
    let lines = if terminal.is_terminal { Lines::Box } else { Lines::Ascii };
    draw(&grid, Drawing { lines, width: terminal.width, null: "", color: terminal.color, marks: None }).text
}

/// Every file with its size, sorted by path.
fn list(dir: &Path) -> anyhow::Result<String> {
    let mut rows = Vec::new();
    let mut total = 0;
    for (path, bytes) in files(dir)? {
        total += bytes;
        rows.push(vec![path.display().to_string(), numbers::bytes(bytes)]);
    }
    let count = rows.len();
    Ok(format!("{}{count} files, {}\n", drawn(&["file", "size"], &[false, true], rows), numbers::bytes(total)))
}

fn files(dir: &Path) -> anyhow::Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else {
                let path = entry.path();
                found.push((path.strip_prefix(dir).unwrap_or(&path).to_path_buf(), metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The checkpoint, its segments, and the epochs of the log.
fn show(dir: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let recovered = CheckpointReader::newest_valid(&dir.join("checkpoint"))?;
    match &recovered.checkpoint {
        None => text.push_str("checkpoint: none\n"),
        Some(checkpoint) => {
            let manifest = checkpoint.manifest();
            text.push_str(&format!(
                "checkpoint: epoch {}, writer {}, {} segments, {}\n",
                manifest.epoch,
                manifest.writer,
                manifest.segments.len(),
                numbers::bytes(manifest.bytes())
            ));
            let rows = manifest
                .segments
                .iter()
                .map(|segment| vec![segment.name.clone(), numbers::grouped(segment.rows), numbers::bytes(segment.bytes)])
                .collect();
            text.push_str(&drawn(&["segment", "rows", "size"], &[false, true, true], rows));
        }
    }
    let log = Log::read(dir)?;
    match (log.first, log.last) {
        (Some(first), Some(last)) => text.push_str(&format!(
            "log: epochs {first} to {last}, {} frames, {}\nnewest committed epoch: {last}\n",
            numbers::grouped(log.frames),
            numbers::bytes(log.bytes)
        )),
        _ => text.push_str("log: empty\n"),
    }
    Ok(text)
}

/// What a log holds.
#[derive(Debug, Default)]
struct Log {
    first: Option<u64>,
    last: Option<u64>,
    frames: u64,
    bytes: u64,
}

impl Log {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let mut log = Self::default();
        for frame in LogReader::open(dir)? {
            let frame = frame?;
            log.first = Some(log.first.map_or(frame.epoch.0, |first| first.min(frame.epoch.0)));
            log.last = Some(log.last.map_or(frame.epoch.0, |last| last.max(frame.epoch.0)));
            log.frames += 1;
            log.bytes += frame.payload.len() as u64;
        }
        Ok(log)
    }
}

/// Reads the log and every checkpoint with their checksums, and looks at the files of the sinks.
fn verify(dir: &Path) -> anyhow::Result<String> {
    let log = Log::read(dir)?;
    let mut text = format!("log: {} frames, {}: right\n", numbers::grouped(log.frames), numbers::bytes(log.bytes));
    let mut damaged = 0;
    let checkpoints = dir.join("checkpoint");
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(&checkpoints) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u64>().is_ok()));
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match CheckpointReader::open(&path).and_then(|reader| reader.verify().map(|()| reader)) {
            Ok(reader) => {
                let manifest = reader.manifest();
                text.push_str(&format!(
                    "checkpoint {name}: {} segments, {}: right\n",
                    manifest.segments.len(),
                    numbers::bytes(manifest.bytes())
                ));
            }
            Err(error) => {
                damaged += 1;
                text.push_str(&format!("checkpoint {name}: DAMAGED: {error}\n"));
            }
        }
    }
    let wrong = verify_sinks(dir, &mut text)?;
    let failure = match (damaged, wrong) {
        (0, 0) => return Ok(text),
        (0, _) => format!("the output of {wrong} sinks of \"{}\" is not what its log says", dir.display()),
        _ => format!("{damaged} checkpoints of \"{}\" are damaged", dir.display()),
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Err(Failure::failed(failure).into())
}

/// Compares the directories of file sinks with their manifests and the log; how many are not right.
fn verify_sinks(dir: &Path, text: &mut String) -> anyhow::Result<usize> {
    let places = match SinkPlaces::read(dir) {
        Ok(places) => places,
        // Without a checkpoint nobody knows what the sinks are; it has its own line.
        Err(EngineError::State(_)) => return Ok(0),
        Err(error) => return Err(error.into()),
    };
    let pipeline = std::fs::read_to_string(dir.join("ID")).unwrap_or_default();
    let mut wrong = 0;
    for (name, path) in &places.paths {
        let shown = path.display();
        let found = match inspect(path, name, pipeline.trim(), places.newest) {
            Ok(Some(found)) => found,
            Ok(None) => {
                text.push_str(&format!("sink {name}: not looked at, \"{shown}\" is not its directory here\n"));
                continue;
            }
            Err(error) => {
                wrong += 1;
                text.push_str(&format!("sink {name}: DAMAGED: {error}\n"));
                continue;
            }
        };
        let state = if found.problems.is_empty() { "right" } else { "WRONG" };
        let removed =
            if found.removed > 0 { format!(" (and {} that somebody has removed)", numbers::grouped(found.removed)) } else { String::new() };
        let (files, rows) = (numbers::grouped(found.files), numbers::grouped(found.rows));
        text.push_str(&format!("sink {name}: {files} files{removed}, {rows} rows in \"{shown}\": {state}\n"));
        found.problems.iter().for_each(|problem| text.push_str(&format!("    {problem}\n")));
        wrong += usize::from(!found.problems.is_empty());
    }
    Ok(wrong)
}
