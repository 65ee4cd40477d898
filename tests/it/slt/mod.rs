//! Runs the scripts under `tests/slt`: SQL in, rows out. `tests/README.md` describes their format.
//!
//! Every script runs as it stands and once more with the engine started anew after every epoch (by turns stopped in an
//! orderly way and dropped). One that declares `mode recut` also runs with all its rows in one epoch, with one row per
//! epoch, and as batch queries, and all of them must agree. `SLT=words cargo test -p millstream-tests slt::` runs only the
//! scripts whose path contains the word; `BLESS=1` rewrites what they expect.

pub(crate) mod content;
pub(crate) mod document;
mod runner;
mod script;

use crate::support;
use runner::{Cut, Run};
use script::Script;
use std::fs;
use std::path::PathBuf;

/// One test per folder, so that folders run side by side.
macro_rules! folders {
    ($($folder:ident),* $(,)?) => {
        /// Every folder of `tests/slt`.
        const FOLDERS: &[&str] = &[$(stringify!($folder)),*];

        $(
            #[test]
            fn $folder() {
                run_folder(stringify!($folder));
            }
        )*
    };
}

folders! {
    access,
    aggregate,
    changelog,
    connectors,
    errors,
    join,
    pipeline,
    process,
    recovery,
    recursive,
    regressions,
    select,
    sink,
    time,
    view,
    window,
    window_function,
}

#[test]
fn every_folder_is_run() {
    let mut found: Vec<String> = fs::read_dir(folder_path(""))
        .expect("tests/slt exists")
        .map(|entry| entry.expect("a directory entry can be read").file_name().to_string_lossy().into_owned())
        .collect();
    found.sort();
    assert_eq!(found, FOLDERS, "add the folder to the list in tests/it/slt/mod.rs");
}

fn folder_path(folder: &str) -> PathBuf {
    support::root().join("tests/slt").join(folder)
}

fn run_folder(folder: &str) {
    let wanted = std::env::var("SLT").unwrap_or_default();
    let mut paths: Vec<PathBuf> = fs::read_dir(folder_path(folder))
        .expect("the folder exists")
        .map(|entry| entry.expect("a directory entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "slt"))
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .collect();
    paths.sort();
    let failures: Vec<String> = paths.into_iter().flat_map(|path| support::block_on(run_script(&path))).collect();
    assert!(failures.is_empty(), "\n\n{}\n", failures.join("\n"));
}

/// Runs a script in all its modes; what went wrong.
async fn run_script(path: &std::path::Path) -> Vec<String> {
    let script = Script::read(path).expect("the script can be read");
    let plain = Run::new(&script, Cut::AsWritten, false).execute().await;
    let mut failures = plain.failures;
    if support::blessing() && !plain.replacements.is_empty() {
        script.rewrite(plain.replacements).expect("the script can be written");
        return failures;
    }
    if !failures.is_empty() {
        return failures;
    }
    if !script.has_mode("no-restart") {
        failures.extend(Run::new(&script, Cut::AsWritten, true).execute().await.failures);
    }
    if script.has_mode("recut") {
        for cut in [Cut::OneEpoch, Cut::RowByRow] {
            let other = Run::new(&script, cut, false).execute().await;
            failures.extend(other.failures);
            if plain.views != other.views {
                failures.push(runner::disagreement(&script, cut, &plain.views, &other.views));
            }
        }
    }
    failures
}
