//! The clients that the tests of the server use: psql and promtool from the distribution, drivers from PyPI in an environment of their own.

use crate::process;
use std::path::Path;
use std::process::{Command, Stdio};

/// The environment with the drivers, under the root.
const ENVIRONMENT: &str = "target/clients";
/// The drivers and their versions.
const REQUIREMENTS: &str = "crates/millstream-cli/tests/clients/requirements.txt";

/// Installs what is missing.
pub(crate) fn install(root: &Path) -> Result<(), String> {
    for (program, package) in [("psql", "postgresql-client"), ("promtool", "prometheus")] {
        if !answers(program) {
            let installed = process::run(root, "apt-get", &["update"])
                .and_then(|()| process::run(root, "apt-get", &["install", "--yes", "--no-install-recommends", package]));
            installed.map_err(|error| format!("{program} is missing and cannot be installed: {error}"))?;
        }
    }
    if !root.join(ENVIRONMENT).join("bin/pip").exists() && process::run(root, "python3", &["-m", "venv", "--clear", ENVIRONMENT]).is_err() {
        // Debian has the module in a package of its own.
        process::run(root, "apt-get", &["update"])?;
        process::run(root, "apt-get", &["install", "--yes", "--no-install-recommends", "python3-venv"])?;
        process::run(root, "python3", &["-m", "venv", "--clear", ENVIRONMENT])?;
    }
    // Not its `pip`, which names the Python of the place where the environment was made.
    let python = format!("{ENVIRONMENT}/bin/python");
    process::run(
        root,
        &root.join(python).to_string_lossy(),
        &["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", REQUIREMENTS],
    )
}

fn answers(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
