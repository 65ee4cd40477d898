//! `cargo xtask ci`: every step, in the order that fails soonest.

use crate::{clients, process, tidy};
use std::path::Path;

/// The workspace with everything in it that is optional. Lints, tests and docs have the same one, so that its dependencies are compiled
/// once.
const WHOLE: [&str; 3] = ["--workspace", "--features", "millstream-cli/otel,millstream-telemetry/otel"];

/// Runs all steps and stops at the first that fails.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let before = changes(root)?;
    step("format");
    process::cargo(root, &["fmt", "--all", "--check"])?;
    step("tidy");
    tidy::run(root)?;
    step("clippy");
    process::cargo(root, &[&["clippy", "--locked"][..], &WHOLE, &["--all-targets", "--", "-D", "warnings"]].concat())?;
    step("clients");
    clients::install(root)?;
    step("test");
    process::cargo(root, &[&["test", "--locked"][..], &WHOLE].concat())?;
    // On its own: the libraries of the stores would be compiled into everything above.
    step("test of object stores");
    process::cargo(root, &["test", "--locked", "-p", "millstream-connectors", "--features", "object-store-cloud", "--lib"])?;
    step("docs");
    process::cargo_with(root, &[&["doc", "--locked", "--no-deps"][..], &WHOLE].concat(), &[("RUSTDOCFLAGS", "-D warnings")])?;
    step("nothing changed");
    if changes(root)? != before {
        process::git(root, &["status", "--short"]).map(|status| print!("{status}"))?;
        return Err("the steps above changed files; run `cargo xtask bless` or `cargo xtask docs` and commit the result".into());
    }
    println!("\nci: all steps passed");
    Ok(())
}

fn step(name: &str) {
    println!("\n=== {name}");
}

/// What differs from the last commit, so that a run in a changed tree can tell its own changes from those.
fn changes(root: &Path) -> Result<String, String> {
    let status = process::git(root, &["status", "--porcelain"])?;
    let tracked = process::git(root, &["diff", "--no-ext-diff"])?;
    Ok(status + &tracked)
}
