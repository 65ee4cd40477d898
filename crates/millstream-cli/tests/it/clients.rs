//! The clients that people have, against `millstream serve`: psql, drivers for Python, Java and Node, ADBC and polars, dbt.

use super::directory;
use super::serve::{SHOP, Serving};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The files of the clients beside the tests.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// What `cargo xtask clients` installs.
pub(super) fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients").join(path);
    assert!(path.exists(), "{} is missing: run `cargo xtask clients`", path.display());
    path
}

fn shop() -> (TempDir, Serving) {
    let directory = directory();
    std::fs::write(directory.path().join("shop.sql"), SHOP).unwrap();
    let server = Serving::start(directory.path(), &["shop.sql"]);
    (directory, server)
}

fn succeeds(command: &mut Command) {
    let output: Output = command.output().expect("the client runs; `cargo xtask clients` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn psql_looks_around_copies_and_sees_errors() {
    let directory = directory();
    std::fs::write(directory.path().join("shop.sql"), SHOP).unwrap();
    let server = Serving::start(directory.path(), &["shop.sql"]);
    let listed = server.psql("\\d\n\\d per_colour\n\\dt\n\\dv\n\\l\n\\dn\n");
    for expected in
        ["public|accounts|table", "public|per_colour|view", "public|sales|table", "n|bigint||not null|", "total|numeric(20,2)|||"]
    {
        assert!(listed.contains(expected), "{expected} is not in:\n{listed}");
    }
    assert!(!listed.contains("ERROR"), "{listed}");
    std::fs::write(directory.path().join("rows.csv"), "id,balance\n1,100\n2,200\n").unwrap();
    let file = directory.path().join("rows.csv").display().to_string();
    let copied = server.psql(&format!("\\copy accounts FROM '{file}' CSV HEADER\nCOPY rich TO STDOUT (FORMAT csv, HEADER);\n"));
    assert_eq!(copied, "COPY 2\nid,balance\n2,200\n");
    let wrong = server.psql("COPY accounts FROM STDIN;\n3\tx\n\\.\nSELECT count(*) FROM accounts;\n");
    assert!(wrong.starts_with("2\n") && wrong.contains("row 1 of the copy, column \"balance\""), "{wrong}");
    let error = server.psql("SELECT nosuch\nFROM accounts;\nSELECT 1;\n");
    assert!(
        error.starts_with("1\n") && error.contains("column \"nosuch\" does not exist") && error.contains("LINE 1: SELECT nosuch"),
        "{error}"
    );
    let transaction = server.psql("BEGIN;\nINSERT INTO accounts VALUES (7, 700);\nROLLBACK;\nSELECT count(*) FROM accounts;\n");
    assert_eq!(transaction, "BEGIN\nINSERT 0 1\nROLLBACK\n2\n");
    assert_eq!(server.stop(), Some(0));
}

/// All that psql lists, in its own words.
#[test]
fn psql_describes_everything() {
    let (_directory, server) = shop();
    for (command, expected) in [
        ("\\d accounts", "accounts_pkey|PRIMARY KEY, btree (id)"),
        ("\\d+ accounts", "id|bigint||not null||plain|"),
        ("\\d+ per_colour", "SELECT colour, count(*) AS n, sum(price) AS total FROM sales GROUP BY colour"),
        ("\\d+ sales", "price|numeric(10,2)||||main|"),
        ("\\d accounts_pkey", "id|bigint|yes|id"),
        ("\\dt+", "public|accounts|table|postgres|permanent||0 bytes|"),
        ("\\dv+", "public|rich|view|postgres|permanent|0 bytes|"),
        ("\\di", "public|accounts_pkey|index|postgres|accounts"),
        ("\\dn+", "public|postgres||"),
        ("\\du", "postgres|Superuser|{}"),
        ("\\dp", "public|accounts|table|||"),
        ("\\l+", "millstream|postgres|UTF-8"),
        ("\\sv rich", "SELECT id, balance FROM accounts WHERE balance > 100"),
        ("SELECT 1::INT AS a, 'x' AS b, 1.50::DECIMAL(10, 2) AS c \\gdesc", "a|integer\nb|text\nc|numeric(10,2)"),
        ("SELECT 1, 1, 2 AS a, 3 AS a;", "1|1|2|3"),
        ("SELECT *, id FROM millstream.public.accounts;", ""),
        ("SELECT column_name, ordinal_position FROM information_schema.key_column_usage;", "id|1"),
    ] {
        // Not rows alone: psql lists indexes and definitions below the columns.
        let shown = server.psql(&format!("\\t off\n{command}\n"));
        let shown = shown.replace("    \"accounts_pkey\" ", "accounts_pkey|");
        assert!(shown.contains(expected) && !shown.contains("ERROR"), "{command}: {expected} is not in\n{shown}");
    }
    for command in ["\\df", "\\df+", "\\dT", "\\dx", "\\db", "\\dD", "\\dF", "\\dd", "\\drds", "\\ddp", "\\do", "\\dm", "\\ds"] {
        let shown = server.psql(&format!("{command}\n"));
        assert!(!shown.contains("ERROR"), "{command}: {shown}");
    }
    assert_eq!(server.stop(), Some(0));
}

/// psql that is told to stop by Ctrl-C once it has said so many lines; what it said to both.
fn interrupted(server: &Serving, input: &str, lines: usize) -> String {
    let mut psql = server.start_psql("me", "", input);
    let mut output = BufReader::new(psql.stdout.take().unwrap());
    let mut said = String::new();
    for _ in 0..lines {
        output.read_line(&mut said).unwrap();
    }
    // Asked for until it is heard: the statement may not have begun yet.
    while psql.try_wait().unwrap().is_none() {
        let _ = Command::new("kill").args(["-INT", &psql.id().to_string()]).status().unwrap();
        let (_nobody, never) = std::sync::mpsc::channel::<()>();
        let _ = never.recv_timeout(std::time::Duration::from_millis(50));
    }
    output.read_to_string(&mut said).unwrap();
    psql.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    said
}

#[test]
fn psql_copies_watches_and_is_interrupted() {
    let (directory, server) = shop();
    let file = directory.path().join("rows").display().to_string();
    let input = format!(
        "INSERT INTO accounts VALUES (1, 100), (2, 200);\n\\copy accounts TO '{file}'\nDELETE FROM accounts;\n\\copy accounts FROM '{file}'\n\
         \\copy (SELECT id FROM accounts ORDER BY id) TO '{file}' CSV HEADER\n"
    );
    assert_eq!(server.psql(&input), "INSERT 0 2\nCOPY 2\nDELETE 2\nCOPY 2\nCOPY 2\n");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "id\n1\n2\n");
    let watched = interrupted(&server, "SELECT 'balance ' || sum(balance) FROM accounts \\watch 0.02\n", 8);
    assert!(watched.matches("balance 300").count() >= 2, "{watched}");
    // psql gives a script up where Ctrl-C comes between two statements; then it has not begun the one that is meant.
    let attempt = || interrupted(&server, "SELECT 'ready';\nSUBSCRIBE TO per_colour;\n", 1);
    let mut canceled = attempt();
    for _ in 0..10 {
        if canceled.contains("ERROR") {
            break;
        }
        canceled = attempt();
    }
    assert!(canceled.starts_with("ready\n") && canceled.contains("canceling statement due to user request"), "{canceled}");
    assert_eq!(server.psql("SELECT 7;\n"), "7\n");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn python_drivers_get_right_types_and_values() {
    let (_directory, server) = shop();
    succeeds(Command::new(installed("bin/python")).arg(clients().join("drivers.py")).arg(server.pg.to_string()));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn adbc_and_polars_read_and_write_arrow() {
    let (_directory, server) = shop();
    succeeds(Command::new(installed("bin/python")).arg(clients().join("arrow.py")).arg(server.pg.to_string()));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn node_postgres_gets_right_types_and_values() {
    let (_directory, server) = shop();
    let modules = installed("node/node_modules");
    succeeds(Command::new("node").env("NODE_PATH", modules).arg(clients().join("node.cjs")).arg(server.pg.to_string()));
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn pgjdbc_gets_right_types_and_values() {
    let (_directory, server) = shop();
    let mut java = Command::new("java");
    java.args(["-Xmx256m", "-cp", "/usr/share/java/postgresql.jar"]).arg(clients().join("Jdbc.java"));
    succeeds(java.arg(server.pg.to_string()));
    assert_eq!(server.stop(), Some(0));
}

/// Models are materialized views, made by a materialization of the project's own.
#[test]
fn dbt_makes_and_tests_models() {
    let (directory, server) = shop();
    server.psql("INSERT INTO sales VALUES (1, 'red', 1), (2, 'blue', 1), (3, 'red', 1);\n");
    let project = clients().join("dbt");
    let dbt = |arguments: &[&str]| {
        let mut dbt = Command::new(installed("dbt/bin/python"));
        dbt.args(["-c", "from dbt.cli.main import cli; cli()", "--no-send-anonymous-usage-stats", "--no-use-colors"]);
        dbt.env("MILLSTREAM_PORT", server.pg.to_string()).env("DBT_PROFILES_DIR", &project).args(arguments);
        dbt.args(["--project-dir".as_ref(), project.as_os_str()]);
        dbt.env("DBT_TARGET_PATH", directory.path().join("target")).env("DBT_LOG_PATH", directory.path().join("logs"));
        succeeds(dbt.current_dir(directory.path()));
    };
    dbt(&["debug"]);
    dbt(&["build"]);
    assert_eq!(server.psql("SELECT * FROM colours ORDER BY colour;\nSELECT * FROM many;\n"), "blue|1\nred|2\nred\n");
    assert_eq!(server.stop(), Some(0));
}
