//! The clients that the tests of the server use: programs and pgjdbc from the distribution, drivers for Python from PyPI and for Node from
//! npm, each in a folder of its own under `target/clients`. What is there already is left as it is.

use crate::process;
use std::path::Path;
use std::process::{Command, Stdio};

/// Where the drivers are, under the root.
const ENVIRONMENT: &str = "target/clients";
/// Where the drivers for Node are.
const NODE: &str = "target/clients/node";
/// dbt has an environment of its own: it fixes the versions of much that others need too.
const DBT: &str = "target/clients/dbt";
/// What the tests have, with the versions of the drivers.
const TESTS: &str = "crates/millstream-cli/tests/clients";
/// The driver for Java, where Debian puts it.
const JDBC: &str = "/usr/share/java/postgresql.jar";

/// Installs what is missing.
pub(crate) fn install(root: &Path) -> Result<(), String> {
    let programs = [
        ("psql", "postgresql-client"),
        ("promtool", "prometheus"),
        ("curl", "curl"),
        ("javac", "default-jdk-headless"),
        ("node", "nodejs"),
        ("npm", "npm"),
    ];
    let missing = programs.iter().filter(|(program, _)| !answers(program)).map(|(_, package)| *package);
    let mut packages: Vec<&str> = missing.collect();
    if !Path::new(JDBC).exists() {
        packages.push("libpostgresql-jdbc-java");
    }
    apt(root, &packages)?;
    python(root, ENVIRONMENT, "requirements.txt")?;
    python(root, DBT, "requirements-dbt.txt")?;
    let node = root.join(NODE);
    std::fs::create_dir_all(&node).map_err(|error| format!("{NODE}: {error}"))?;
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(root.join(TESTS).join(file), node.join(file)).map_err(|error| format!("{NODE}/{file}: {error}"))?;
    }
    process::run(&node, "npm", &["ci", "--silent", "--no-audit", "--no-fund"])
}

fn apt(root: &Path, packages: &[&str]) -> Result<(), String> {
    if packages.is_empty() {
        return Ok(());
    }
    let install = [&["install", "--yes", "--no-install-recommends"], packages].concat();
    let installed = process::run(root, "apt-get", &["update"]).and_then(|()| process::run(root, "apt-get", &install));
    installed.map_err(|error| format!("{} cannot be installed: {error}", packages.join(", ")))
}

/// An environment for Python with what a file requires.
fn python(root: &Path, environment: &str, requirements: &str) -> Result<(), String> {
    let python = root.join(environment).join("bin/python");
    if !python.exists() && process::run(root, "python3", &["-m", "venv", "--clear", environment]).is_err() {
        // Debian has the module in a package of its own.
        apt(root, &["python3-venv"])?;
        process::run(root, "python3", &["-m", "venv", "--clear", environment])?;
    }
    let requirements = format!("{TESTS}/{requirements}");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", &requirements];
    process::run(root, &python.to_string_lossy(), &install)
}

fn answers(program: &str) -> bool {
    let status = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
