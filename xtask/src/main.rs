//! Automation of the repository, in Rust so that it runs wherever the project builds.
//!
//! ```text
//! cargo xtask ci       what CI runs: format, tidy, clippy, tests, docs, nothing left changed
//! cargo xtask clients  install the clients that the tests of the server use
//! cargo xtask tidy     the rules that no compiler checks (see `tidy.rs`)
//! cargo xtask bless    run the scripts under tests/slt and rewrite what they expect
//! cargo xtask docs     rewrite the generated lists of docs/reference
//! cargo xtask soak     kill pipelines at random times (100 times each) and compare with uninterrupted runs
//! ```

mod ci;
mod clients;
mod process;
mod soak;
mod tidy;

use std::path::Path;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask ci | clients | tidy | bless [SCRIPT] | docs | soak [KILLS [SEED]]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies directly under the root");
    let result = match words.as_slice() {
        ["ci"] => ci::run(root),
        ["clients"] => clients::install(root),
        ["tidy"] => tidy::run(root),
        ["bless"] => bless(root, ""),
        ["bless", script] => bless(root, script),
        ["docs"] => docs(root),
        ["soak"] => soak::run(root, 100, 1),
        ["soak", kills] => number(kills).and_then(|kills| soak::run(root, kills, 1)),
        ["soak", kills, seed] => number(kills).and_then(|kills| soak::run(root, kills, number(seed)?)),
        _ => Err(USAGE.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not a whole number\n{USAGE}"))
}

/// Runs the scripts whose path contains `script` in the mode that rewrites their expectations.
fn bless(root: &Path, script: &str) -> Result<(), String> {
    let test = ["test", "--package", "millstream-tests", "--test", "it", "--", "slt::", "--nocapture"];
    process::cargo_with(root, &test, &[("BLESS", "1"), ("SLT", script)])?;
    println!("look at `git diff tests/slt` before you commit");
    Ok(())
}

/// Rewrites the lists that are generated from the registries of connectors, functions and settings.
fn docs(root: &Path) -> Result<(), String> {
    let test = ["test", "--package", "millstream-tests", "--test", "it", "--", "reference::", "--nocapture"];
    process::cargo_with(root, &test, &[("BLESS", "1")])
}
