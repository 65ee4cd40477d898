//! The rules that no compiler checks.
//!
//! - Lines are at most 140 characters, without blanks at the end; a file ends with one newline.
//! - Every Rust file opens with `//!`; nothing is left as `todo!`, `unimplemented!` or an ignored test.
//! - What `ARCHITECTURE.md` names in backticks exists: paths in the tree, types in the sources; it names every crate.
//! - Links between the documents resolve.
//! - Every connector of the registry has its docs page and its script.
//! - Every program under `sql-examples/` and every script says at its top what it shows.

use crate::process;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LINE_LENGTH_MAX: usize = 140;

/// Checks all rules and reports every violation, not only the first.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let files = files(root)?;
    let mut problems = Vec::new();
    let mut sources = String::new();
    for path in &files {
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("rs") => {
                check_text(path, &text, Some(LINE_LENGTH_MAX), &mut problems);
                check_rust(path, &text, &mut problems);
                sources.push_str(&text);
            }
            Some("md") => {
                check_text(path, &text, None, &mut problems);
                check_links(root, path, &text, &mut problems);
            }
            Some("slt" | "sql") => {
                check_text(path, &text, None, &mut problems);
                check_opening(path, &text, &mut problems);
            }
            Some("toml") => check_text(path, &text, None, &mut problems),
            _ => {}
        }
    }
    check_architecture(root, &files, &sources, &mut problems);
    check_connectors(root, &mut problems);
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => {
            println!("tidy: {} files are in order", files.len());
            Ok(())
        }
        1 => Err("tidy: 1 problem".into()),
        count => Err(format!("tidy: {count} problems")),
    }
}

/// Files of the repository: tracked ones and new ones that are not ignored.
fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = process::git(root, &["ls-files", "--cached", "--others", "--exclude-standard"])?;
    let unique: BTreeSet<PathBuf> = listed.lines().map(PathBuf::from).collect();
    Ok(unique.into_iter().filter(|path| root.join(path).is_file()).collect())
}

fn check_text(path: &Path, text: &str, line_length_max: Option<usize>, problems: &mut Vec<String>) {
    for (index, line) in text.lines().enumerate() {
        let place = format!("{}:{}", path.display(), index + 1);
        if line.ends_with([' ', '\t']) {
            problems.push(format!("{place}: blanks at the end of the line"));
        }
        // A text or a table cannot be broken; rustfmt leaves them alone too.
        let row = line.trim_start().trim_start_matches("//!").trim_start();
        let unbreakable = line.contains('"') || row.starts_with(['|', '+']);
        if !unbreakable && line_length_max.is_some_and(|limit| line.chars().count() > limit) {
            problems.push(format!("{place}: the line is longer than {LINE_LENGTH_MAX} characters"));
        }
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        problems.push(format!("{}: the file does not end with exactly one newline", path.display()));
    }
}

fn check_rust(path: &Path, text: &str, problems: &mut Vec<String>) {
    if !text.starts_with("//!") {
        problems.push(format!("{}: the file does not open with `//!`: say what it is for", path.display()));
    }
    // The words are put together here, so that this file does not find itself.
    let forbidden = [
        (["todo", "!("].concat(), "write it"),
        (["unimplemented", "!("].concat(), "write it"),
        (["#[", "ignore"].concat(), "assert today's answer and say why it is wrong"),
        (["TO", "DO"].concat(), "do it, or name the issue as TO-DO(#123)"),
        (["FIX", "ME"].concat(), "fix it"),
    ];
    for (index, line) in text.lines().enumerate() {
        for (word, instead) in &forbidden {
            if line.contains(word.as_str()) && !line.contains(&format!("{word}(#")) {
                problems.push(format!("{}:{}: `{word}`: {instead}", path.display(), index + 1));
            }
        }
    }
}

/// Programs and scripts open with a comment that says what they show.
fn check_opening(path: &Path, text: &str, problems: &mut Vec<String>) {
    if !text.starts_with("--") && !text.starts_with('#') {
        problems.push(format!("{}: the file does not open with a comment that says what it shows", path.display()));
    }
}

/// Links of the form `](target)` point at files that exist.
fn check_links(root: &Path, path: &Path, text: &str, problems: &mut Vec<String>) {
    let folder = root.join(path).parent().map(Path::to_path_buf).unwrap_or_default();
    for (index, line) in text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !folder.join(target).exists() {
                problems.push(format!("{}:{}: the link to `{target}` leads nowhere", path.display(), index + 1));
            }
        }
    }
}

fn check_architecture(root: &Path, files: &[PathBuf], sources: &str, problems: &mut Vec<String>) {
    const MAP: &str = "ARCHITECTURE.md";
    let Ok(text) = fs::read_to_string(root.join(MAP)) else {
        problems.push(format!("{MAP} is missing"));
        return;
    };
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        for name in line.split('`').skip(1).step_by(2) {
            let place = format!("{MAP}:{}", index + 1);
            if looks_like_path(name) {
                if !path_exists(root, files, name) {
                    problems.push(format!("{place}: `{name}` does not exist"));
                }
            } else if looks_like_type(name) && !declares_type(sources, name) {
                problems.push(format!("{place}: no type `{name}` is declared in the sources"));
            }
        }
    }
    for krate in crates(root) {
        if !text.contains(&format!("`{krate}`")) {
            problems.push(format!("{MAP}: the code map does not name the crate `{krate}`"));
        }
    }
}

fn looks_like_path(name: &str) -> bool {
    let legal = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_-.*".contains(c));
    let ending = [".rs", ".md", ".slt", ".toml", ".sql"].iter().any(|ending| name.ends_with(ending));
    legal && !name.starts_with('/') && (ending || name.contains('/'))
}

/// A path from the root or from `crates/`; a bare file name must exist somewhere; `*` stands for anything.
fn path_exists(root: &Path, files: &[PathBuf], name: &str) -> bool {
    if name.contains('*') {
        let start = name.split('*').next().unwrap_or_default();
        let end = name.rsplit('*').next().unwrap_or_default();
        return files.iter().filter_map(|file| file.to_str()).any(|file| {
            let file = file.strip_prefix("crates/").filter(|_| !start.starts_with("crates/")).unwrap_or(file);
            file.starts_with(start) && file.ends_with(end)
        });
    }
    root.join(name).exists()
        || root.join("crates").join(name).exists()
        || (!name.contains('/') && files.iter().any(|file| file.file_name().is_some_and(|last| last == name)))
}

/// `DeltaBatch`, `Weights::Ones`; not `SELECT`, not `count(*)`.
fn looks_like_type(name: &str) -> bool {
    let first = name.split("::").next().unwrap_or_default();
    first.starts_with(|c: char| c.is_ascii_uppercase())
        && first.chars().any(|c| c.is_ascii_lowercase())
        && first.chars().all(|c| c.is_ascii_alphanumeric())
}

fn declares_type(sources: &str, name: &str) -> bool {
    let first = name.split("::").next().unwrap_or_default();
    ["struct", "enum", "trait", "type"].iter().any(|keyword| {
        let declaration = format!("{keyword} {first}");
        sources
            .match_indices(&declaration)
            .any(|(at, found)| !sources[at + found.len()..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
    }) || is_foreign_type(first)
}

/// Types of the libraries underneath that the map may name.
fn is_foreign_type(name: &str) -> bool {
    ["RecordBatch", "LogicalPlan", "SessionContext", "DataFusion", "Arrow", "Parquet", "Rust", "PhysicalExpr", "ExecutionPlan"]
        .contains(&name)
}

fn crates(root: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(root.join("crates"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("Cargo.toml").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every connector has a docs page and a script: adding one means its folder, one line in the list, and these two.
fn check_connectors(root: &Path, problems: &mut Vec<String>) {
    const REGISTRY: &str = "crates/millstream-connectors/src/registry.rs";
    let Ok(text) = fs::read_to_string(root.join(REGISTRY)) else {
        problems.push(format!("{REGISTRY} is missing"));
        return;
    };
    let names = connector_names(&text);
    if names.is_empty() {
        problems.push(format!("{REGISTRY}: found no connector; tidy looks for lines with `name: \"...\"`"));
    }
    for name in names {
        for needed in [format!("docs/reference/connectors/{name}.md"), format!("tests/slt/connectors/{name}.slt")] {
            if !root.join(&needed).exists() {
                problems.push(format!("{REGISTRY}: the connector \"{name}\" has no {needed}"));
            }
        }
    }
}

fn connector_names(registry: &str) -> BTreeSet<String> {
    registry
        .lines()
        .map(str::trim)
        .filter_map(|line| line.split_once("name: \"").map(|(_, rest)| rest))
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_string)
        .collect()
}
