//! The story of docs/guide/serving.md, carried out as it stands there: its files are written, its commands run, what they print is
//! compared.
//!
//! A `sql` or `python` block is the file that is named before it. A line of a `console` block that begins with `$` is a command and what
//! follows is what it prints; the server, and whatever else ends with `&`, runs beside the others, and an `events` block is what the latter
//! prints next. The ports of the document are replaced by those that the server has.

use super::clients::installed;
use super::directory;
use super::serve::Serving;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const DOCUMENT: &str = include_str!("../../../../docs/guide/serving.md");

/// A block of the document: its language, the name that stands before it, its lines.
struct Block<'a> {
    language: &'a str,
    file: Option<&'a str>,
    lines: Vec<&'a str>,
}

/// The blocks of the section with the story.
fn blocks() -> Vec<Block<'static>> {
    let (_, story) = DOCUMENT.split_once("## From the first row to the restart").unwrap();
    let (story, _) = story.split_once("\n## ").unwrap();
    let (mut blocks, mut file, mut lines) = (Vec::new(), None, story.lines());
    while let Some(line) = lines.next() {
        match line.strip_prefix("```") {
            Some(language) => {
                let lines = lines.by_ref().take_while(|line| *line != "```").collect();
                blocks.push(Block { language, file: file.take(), lines });
            }
            None if line.is_empty() => {}
            None => file = line.strip_suffix("`:").and_then(|line| line.rsplit('`').next()),
        }
    }
    blocks
}

/// What prints beside the others.
struct Beside {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Beside {
    fn lines(&mut self, count: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for _ in 0..count {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended after {lines:?}");
            lines.push(line.trim_end_matches('\n').to_string());
        }
        lines
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(directory: &Path, command: &str) -> Command {
    let path = std::env::var("PATH").unwrap();
    let clients = installed("bin").canonicalize().unwrap().display().to_string();
    let mut shell = Command::new("bash");
    shell.args(["-c", command]).current_dir(directory).env("PATH", format!("{clients}:{path}"));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    shell
}

#[test]
fn the_story_of_the_guide_is_true() {
    let directory = directory();
    let (mut server, mut beside): (Option<Serving>, Option<Beside>) = (None, None);
    let mut commands = 0;
    for block in blocks() {
        if let "sql" | "python" = block.language {
            std::fs::write(directory.path().join(block.file.unwrap()), block.lines.join("\n") + "\n").unwrap();
            continue;
        }
        if block.language == "events" {
            assert_eq!(beside.as_mut().unwrap().lines(block.lines.len()), block.lines);
            continue;
        }
        let mut lines = block.lines.iter().peekable();
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("$ ").unwrap();
            let mut expected = Vec::new();
            while let Some(printed) = lines.next_if(|line| !line.starts_with("$ ")) {
                expected.push((*printed).to_string());
            }
            commands += 1;
            if let Some(arguments) = command.strip_prefix("millstream serve ") {
                // Where it keeps its state and where it listens are the test's own affair.
                let arguments: Vec<&str> = arguments.split(' ').take_while(|argument| *argument != "--state-dir").collect();
                server = Some(Serving::start(directory.path(), &arguments));
                continue;
            }
            if command == "kill %1" {
                drop(beside.take());
                assert_eq!(server.take().unwrap().stop(), Some(0));
                continue;
            }
            let running = server.as_ref().unwrap();
            let command = command.replace(":8080", &format!(":{}", running.http)).replace("port=6543", &format!("port={}", running.pg));
            let script = directory.path().join("totals.py");
            if let Ok(text) = std::fs::read_to_string(&script) {
                std::fs::write(&script, text.replace("port=6543", &format!("port={}", running.pg))).unwrap();
            }
            if let Some(command) = command.strip_suffix(" &") {
                let mut child = shell(directory.path(), &format!("exec {command}")).spawn().unwrap();
                let output = BufReader::new(child.stdout.take().unwrap());
                assert_eq!(beside.insert(Beside { child, output }).lines(expected.len()), expected, "{command}");
                continue;
            }
            let output = shell(directory.path(), &command).output().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
            assert_eq!(printed.lines().collect::<Vec<_>>(), expected, "{command}");
        }
    }
    assert!(commands >= 8, "the story has {commands} commands");
    assert_eq!(server.take().unwrap().stop(), Some(0));
}
