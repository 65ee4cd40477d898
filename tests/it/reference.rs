//! The generated pages of `docs/reference`: connectors from their module documentation, settings from the engine.
//!
//! The pages are checked in; a test fails when one is out of date and `cargo xtask docs` writes them again.

use crate::support::{self, instance::Instance};
use millstream_connectors::registry::{SINKS, SOURCES};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn connectors() {
    let sources = support::root().join("crates/millstream-connectors/src");
    let names: BTreeSet<&str> = SOURCES.iter().map(|kind| kind.name).chain(SINKS.iter().map(|kind| kind.name)).collect();
    let mut index = String::from("# Connectors\n\n| connector | source | sink |\n|---|---|---|\n");
    for name in names {
        let source = SOURCES.iter().find(|kind| kind.name == name);
        let sink = SINKS.iter().find(|kind| kind.name == name);
        let mut page = format!("# {name}\n\n");
        let mut synonyms: BTreeSet<&str> = source.map(|kind| kind.synonyms).into_iter().flatten().copied().collect();
        synonyms.extend(sink.map(|kind| kind.synonyms).into_iter().flatten());
        if !synonyms.is_empty() {
            let list: Vec<String> = synonyms.iter().map(|name| format!("`{name}`")).collect();
            page += &format!("Other names: {}.\n\n", list.join(", "));
        }
        for (found, heading, folder) in [(source.is_some(), "Source", "sources"), (sink.is_some(), "Sink", "sinks")] {
            if found {
                let module = sources.join(folder).join(name).join("mod.rs");
                page += &format!("## {heading}\n\n{}\n", module_documentation(&module));
            }
        }
        page += "\nOptions of all streams, of files and of formats: [file-options.md](../file-options.md).\n";
        check(&format!("docs/reference/connectors/{name}.md"), &page);
        let cell = |text: Option<&str>| text.unwrap_or("none").to_string();
        let (source, sink) = (cell(source.map(|kind| kind.description)), cell(sink.map(|kind| kind.description)));
        index += &format!("| [{name}]({name}.md) | {source} | {sink} |\n");
    }
    check("docs/reference/connectors/README.md", &index);
}

#[test]
fn settings() {
    let settings = support::block_on(async {
        let instance = Instance::start(None).await.expect("an engine in memory starts");
        instance.engine().session().settings()
    });
    let mut page = String::from("# Settings\n\n`SET name = value`; `SHOW ALL` lists them with the values in force.\n\n");
    page += "| setting | default | meaning |\n|---|---|---|\n";
    for setting in settings {
        page += &format!("| `{}` | `{}` | {} |\n", setting.name, setting.default, setting.doc);
    }
    check("docs/reference/settings.md", &page);
}

/// The `//!` lines of a module as Markdown: links to code lose their targets, hidden lines of examples go.
fn module_documentation(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let mut page = String::new();
    let mut in_file_table = false;
    for line in lines.filter(|line| !line.starts_with("# ") && *line != "#") {
        // Which file of the folder does what is for readers of the code.
        in_file_table = line.starts_with("| file |") || (in_file_table && line.starts_with('|'));
        if !in_file_table {
            page += &unlink(line);
            page.push('\n');
        }
    }
    page
}

/// ``[`Options`](crate::Options)`` and ``[`Options`]`` become `Options` in backticks.
fn unlink(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = rest.find("[`") {
        let Some(end) = rest[at..].find("`]").map(|end| at + end) else { break };
        text += &rest[..at];
        text += &rest[at + 1..=end];
        rest = &rest[end + 2..];
        if rest.starts_with('(') {
            rest = rest.find(')').map_or("", |close| &rest[close + 1..]);
        }
    }
    text + rest
}

/// Compares a page with the file, or writes it.
fn check(path: &str, page: &str) {
    let file = support::root().join(path);
    let page = format!("{}\n", page.trim_end());
    let found = fs::read_to_string(&file).unwrap_or_default();
    if found == page {
        return;
    }
    if support::blessing() {
        fs::create_dir_all(file.parent().expect("a page lies in a folder")).expect("the folder can be made");
        fs::write(&file, page).expect("the page can be written");
        return;
    }
    panic!("{path} is out of date; run `cargo xtask docs`");
}

#[test]
fn links_to_code_lose_their_targets() {
    assert_eq!(unlink("see [`A::b`](crate::A) and [`C`]."), "see `A::b` and `C`.");
}
