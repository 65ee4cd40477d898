//! `millstream serve` as a service: started, used over its protocols, by Arrow clients and by our own shell, stopped and started again.

use super::clients::installed;
use super::{directory, millstream};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub(super) const SHOP: &str = "CREATE STREAM sales (id BIGINT, colour VARCHAR, price DECIMAL(10, 2));
CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
CREATE MATERIALIZED VIEW per_colour AS SELECT colour, count(*) AS n, sum(price) AS total FROM sales GROUP BY colour;
CREATE VIEW rich AS SELECT id, balance FROM accounts WHERE balance > 100;
";

/// A server that is stopped with the test.
pub(super) struct Serving {
    child: Child,
    pub(super) pg: u16,
    pub(super) http: u16,
    pub(super) flight: u16,
}

impl Serving {
    pub(super) fn start(directory: &Path, args: &[&str]) -> Self {
        Self::start_with(directory, args, |_| {})
    }

    fn start_with(directory: &Path, args: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let common = ["serve", "--state-dir", "state", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0", "--flight", "127.0.0.1:0"];
        let mut command = millstream(directory, &[&common[..], args].concat());
        change(&mut command);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut serving, mut seen) = (Self { child, pg: 0, http: 0, flight: 0 }, String::new());
        let port = |line: &str| line.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(':').next()?.trim().parse().ok()).unwrap_or(0);
        for line in lines.by_ref() {
            let line = line.unwrap();
            if line.starts_with("serving PostgreSQL") {
                serving.pg = port(&line);
            } else if line.starts_with("serving HTTP") {
                serving.http = port(&line);
            } else if line.starts_with("serving Arrow Flight SQL") {
                serving.flight = port(&line);
                // What else it says is read, so that it never waits for us.
                std::thread::spawn(move || lines.for_each(drop));
                return serving;
            }
            seen.push_str(&line);
        }
        panic!("the server did not start: {seen}");
    }

    /// Memory that it holds, in kilobytes.
    pub(super) fn resident_kb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Stops it as a service manager does, and gives its exit code.
    pub(super) fn stop(mut self) -> Option<i32> {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap().code()
    }

    pub(super) fn psql(&self, input: &str) -> String {
        self.psql_as("me", "", input)
    }

    fn psql_as(&self, user: &str, password: &str, input: &str) -> String {
        let output = self.start_psql(user, password, input).wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    }

    /// psql with what it is to read.
    pub(super) fn start_psql(&self, user: &str, password: &str, input: &str) -> Child {
        let port = self.pg.to_string();
        let mut psql = Command::new("psql")
            .args(["-X", "-w", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-U", user, "-d", "millstream"])
            .env("PGPASSWORD", password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql runs; `cargo xtask clients` installs it");
        psql.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        psql
    }

    pub(super) fn http(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub(super) fn post(&self, path: &str, kind: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: {kind}\r\n{headers}Content-Length: {length}"
        );
        self.http(&format!("{head}\r\n\r\n{body}"))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // A test that failed leaves it running; one that did not has waited for it already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The story of docs/guide/serving.md.
#[test]
fn a_story_from_the_first_row_to_the_restart() {
    let directory = directory();
    std::fs::write(directory.path().join("shop.sql"), SHOP).unwrap();
    let server = Serving::start(directory.path(), &["shop.sql"]);
    assert_eq!(server.psql("INSERT INTO sales VALUES (1, 'red', 1.50), (2, 'blue', 2.25);"), "INSERT 0 2\n");
    let follow = "GET /api/v1/subscribe?query=SELECT%20*%20FROM%20per_colour HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut follower = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
    follower.write_all(follow.as_bytes()).unwrap();
    let mut events = BufReader::new(follower).lines().map(Result::unwrap);
    let mut until = |end: &str| -> Vec<String> {
        let mut seen = Vec::new();
        for line in events.by_ref() {
            seen.extend(line.starts_with("data: ").then(|| line.clone()));
            if line.starts_with(end) {
                break;
            }
        }
        seen
    };
    assert_eq!(until("id:").len(), 3, "two rows and a mark");
    let key = "Idempotency-Key: order-7\r\n";
    let row = r#"{"id":3,"colour":"red","price":3}"#;
    let inserted = server.post("/api/v1/streams/sales/rows", "application/x-ndjson", key, row);
    assert!(inserted.starts_with("HTTP/1.1 200") && inserted.contains(r#""rows":1"#), "{inserted}");
    let changes = until("id:").join("\n");
    assert!(changes.contains(r#""op":"-D","colour":"red","n":1"#) && changes.contains(r#""op":"+I","colour":"red","n":2"#), "{changes}");
    let answer = server.post("/api/v1/sql", "application/sql", "", "SELECT colour, n FROM per_colour ORDER BY colour");
    assert!(answer.contains(r#""rows":[{"colour":"blue","n":1},{"colour":"red","n":2}"#), "{answer}");
    let metrics = server.http("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let page = metrics.split_once("\r\n\r\n").unwrap().1.replace("\r\n", "\n");
    assert!(page.contains("millstream_source_rows_total{stream=\"sales\"} 3"), "{page}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs; `cargo xtask clients` installs it");
    promtool.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{complaints}\n{page}");
    assert_eq!(server.stop(), Some(0));

    let server = Serving::start(directory.path(), &["shop.sql"]);
    let again = server.post("/api/v1/streams/sales/rows", "application/x-ndjson", key, row);
    assert!(again.contains(r#""repeated":true"#), "{again}");
    assert_eq!(server.psql("SELECT * FROM per_colour ORDER BY colour;"), "blue|1|2.25\nred|2|4.50\n");
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn arrow_clients_get_right_types_and_values() {
    let directory = directory();
    std::fs::write(directory.path().join("shop.sql"), SHOP).unwrap();
    let server = Serving::start(directory.path(), &["shop.sql"]);
    flight_clients(&server, &[]);
    assert_eq!(server.stop(), Some(0));
}

/// Runs what ADBC, pyarrow and polars do; with a user, what they do to get in.
fn flight_clients(server: &Serving, user: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/flight.py");
    let output = Command::new(installed("bin/python")).arg(script).arg(server.flight.to_string()).args(user).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
}

#[test]
fn users_come_from_a_file_that_the_program_makes() {
    let directory = directory();
    let user = |name: &str, role: &str| {
        let mut child = millstream(directory.path(), &["user", name, "--role", role])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"a long password\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        (String::from_utf8(output.stdout).unwrap(), told.rsplit(' ').next().unwrap().trim().to_string())
    };
    let ((ada, token), (bob, _)) = (user("ada", "writer"), user("bob", "reader"));
    assert!(!ada.contains("a long password") && !ada.contains(&token));
    std::fs::write(directory.path().join("users.toml"), format!("{ada}\n{bob}")).unwrap();
    let server = Serving::start(directory.path(), &["--users", "users.toml"]);
    let denied = server.psql("SELECT 1;");
    assert!(denied.contains("no password supplied") || denied.contains("password authentication failed"), "{denied}");
    let authorized = server.post("/api/v1/sql", "application/sql", &format!("Authorization: Bearer {token}\r\n"), "SELECT 1 AS one");
    assert!(authorized.contains(r#""rows":[{"one":1}"#), "{authorized}");
    assert_eq!(server.psql_as("ada", "a long password", "SELECT 7;"), "7\n");
    flight_clients(&server, &["ada", "a long password", &token]);
    let connect = |user: &str, password: &str| {
        let url = format!("flight://{user}127.0.0.1:{}", server.flight);
        let mut command = millstream(directory.path(), &["--connect", &url, "-c", "SELECT 7 AS n"]);
        super::stdout(&command.env("MILLSTREAM_PASSWORD", password).output().unwrap())
    };
    assert_eq!(connect("ada@", "a long password"), "n\n7\n");
    assert_eq!((connect("ada@", "wrong"), connect("", "")), (String::new(), String::new()));
    let stranger = super::run(directory.path(), &["--connect", &format!("flight://127.0.0.1:{}", server.flight), "-c", "SELECT 1"]);
    assert!(super::stderr(&stranger).contains("hint: Say who you are"), "{}", super::stderr(&stranger));

    // The file is read again when it changes. One that cannot be used changes nothing.
    let (carol, _) = user("carol", "reader");
    std::fs::write(directory.path().join("users.toml"), format!("{carol}\n{bob}\n{bob}")).unwrap();
    assert!((0..60).all(|_| server.psql_as("ada", "a long password", "SELECT 7;") == "7\n"), "whoever was there stays");
    std::fs::write(directory.path().join("users.toml"), format!("{carol}\n{bob}")).unwrap();
    let carol_is_in = (0..200).any(|_| server.psql_as("carol", "a long password", "SELECT 7;") == "7\n");
    assert!(carol_is_in);
    let refused = server.psql_as("ada", "a long password", "SELECT 7;");
    assert!(refused.contains("password authentication failed"), "{refused}");
    assert_eq!(server.stop(), Some(0));
    let open = super::run(directory.path(), &["serve", "--in-memory", "--pg", "0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(2));
    assert!(super::stderr(&open).contains("can be reached from outside, but the server has no users and TLS"), "{}", super::stderr(&open));
}

/// `millstream --connect`: the shell's statements, at a server.
#[test]
fn statements_are_carried_out_at_a_server_as_they_are_here() {
    let directory = directory();
    std::fs::write(directory.path().join("shop.sql"), SHOP).unwrap();
    let server = Serving::start(directory.path(), &["shop.sql"]);
    let url = format!("flight://127.0.0.1:{}", server.flight);
    let at = |sql: &str, args: &[&str]| super::run(directory.path(), &[&["--connect", &url, "-c", sql], args].concat());
    let shown = |sql: &str| super::stdout(&at(sql, &[]));
    assert_eq!(shown("INSERT INTO sales VALUES (1, 'red', 1.50), (2, 'blue', 2.25); SELECT count(*) AS n FROM sales"), "n\n2\n");
    let typed = "SELECT 1::TINYINT AS i, 1.50::DECIMAL(10, 2) AS d, NULL AS x, ['a', 'b,c'] AS l, X'00ff' AS y, DATE '2024-02-29' AS da,
        TIMESTAMP '2024-01-01 00:00:00.000005' AS ts, INTERVAL '1 day' AS iv, true AS b, 0.1 AS f";
    for format in ["csv", "tsv", "json", "ndjson", "markdown", "table"] {
        let here = super::run(directory.path(), &["-c", typed, "--format", format]);
        let there = at(typed, &["--format", format]);
        assert_eq!(super::stdout(&there), super::stdout(&here), "{}", super::stderr(&there));
    }
    let wrong = "SELECT colour,\n  nosuch FROM sales";
    let there = at(wrong, &[]);
    assert_eq!(there.status.code(), Some(1));
    let told = super::stderr(&there);
    assert!(told.contains("column \"nosuch\" does not exist") && told.contains("line 2:3") && told.contains("nosuch FROM sales"), "{told}");
    assert!(shown("SELECT relname FROM pg_catalog.pg_class WHERE relname = 'sales'").ends_with("sales\n"));
    std::fs::write(directory.path().join("s.sql"), "SELECT 1 AS a;\n\nSELECT * FROM nosuch;\n").unwrap();
    let script = super::run(directory.path(), &["--connect", &url, "-f", "s.sql"]);
    assert_eq!((script.status.code(), super::stdout(&script).as_str()), (Some(3), "a\n1\n"));
    let live = at("SELECT colour, n FROM per_colour EMIT CHANGES LIMIT 2", &["--format", "ndjson"]);
    assert_eq!(super::stdout(&live).lines().count(), 2, "{}", super::stderr(&live));

    let mut following = millstream(directory.path(), &["--connect", &url, "-c", "SELECT colour, n FROM per_colour EMIT CHANGES"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().take(2).all(|line| line.contains("+I")));
    shown("INSERT INTO sales VALUES (3, 'red', 1)");
    assert!(lines.by_ref().take(2).any(|line| line.contains("-D")));
    let interrupted = Command::new("kill").args(["-INT", &following.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    assert_eq!(following.wait().unwrap().code(), Some(130));
    assert_eq!(server.stop(), Some(0));

    let gone = at("SELECT 1", &[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(super::stderr(&gone).contains("cannot connect to 127.0.0.1:"), "{}", super::stderr(&gone));
    let postgres = super::run(directory.path(), &["--connect", "postgres://me@localhost:6543", "-c", "SELECT 1"]);
    assert_eq!(postgres.status.code(), Some(2));
    assert!(super::stderr(&postgres).contains("flight://host:8081"), "{}", super::stderr(&postgres));
}

#[test]
fn the_shell_works_at_a_server() {
    let directory = directory();
    std::fs::write(directory.path().join("shop.sql"), SHOP).unwrap();
    let server = Serving::start(directory.path(), &["shop.sql"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/shell.py");
    let url = format!("flight://127.0.0.1:{}", server.flight);
    let mut shell = Command::new(installed("bin/python"));
    shell.arg(script).args([env!("CARGO_BIN_EXE_millstream"), &url]).current_dir(directory.path()).env("HOME", directory.path());
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let history = std::fs::read_to_string(directory.path().join(".local/state/millstream/history")).unwrap();
    assert!(history.contains("SELECT 7 AS seven") && !history.contains("a secret"), "{history}");
}

/// Users made by SQL, files that statements may reach, and what the service manager is told.
#[test]
fn users_grants_and_files_as_an_operator_has_them() {
    use std::os::unix::net::UnixDatagram;
    let directory = directory();
    std::fs::create_dir_all(directory.path().join("pipeline")).unwrap();
    std::fs::create_dir_all(directory.path().join("data")).unwrap();
    std::fs::write(directory.path().join("pipeline/shop.sql"), SHOP).unwrap();
    std::fs::write(directory.path().join("data/a.csv"), "n\n1\n2\n").unwrap();
    let socket = directory.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let told = |wanted: &str| {
        let mut buffer = [0; 300];
        loop {
            let length = manager.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with(wanted) {
                return;
            }
            assert_eq!(text, "WATCHDOG=1");
        }
    };

    // Before the server runs the first admin is made on the state directory.
    let made =
        millstream(directory.path(), &["--state-dir", "state", "-c", "CREATE USER ada PASSWORD 'long' ROLE admin"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let server = Serving::start_with(directory.path(), &["pipeline/shop.sql"], |command| {
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "20000000");
    });
    told("READY=1");
    told("WATCHDOG=1");
    assert!(server.psql_as("ada", "wrong", "SELECT 1;").contains("password authentication failed"));
    let users = "CREATE USER bob PASSWORD 'b';\nGRANT SELECT ON per_colour TO bob;\n";
    assert!(server.psql_as("ada", "long", users).contains("GRANT"));
    assert_eq!(server.psql_as("bob", "b", "SELECT count(*) FROM per_colour;"), "0\n");
    assert!(server.psql_as("bob", "b", "SELECT * FROM accounts;").contains("user \"bob\" may not read \"accounts\""));
    // Only the directory of the pipeline file can be reached, and nothing of the state directory.
    let data = directory.path().join("data/a.csv");
    let read = format!("SELECT * FROM '{}';", data.display());
    assert!(server.psql_as("ada", "long", &read).contains("outside of the directories that statements may reach"));
    let copied = format!("COPY (SELECT 1 AS a) TO '{}';", directory.path().join("pipeline/x.parquet").display());
    assert!(!server.psql_as("ada", "long", &copied).contains("ERROR"));
    assert_eq!(server.stop(), Some(0));
    told("STOPPING=1");

    let allow = ["pipeline/shop.sql", "--allow-path", "data", "--allow-path", "."];
    let server = Serving::start(directory.path(), &allow);
    assert_eq!(server.psql_as("ada", "long", &read), "1\n2\n");
    assert_eq!(server.psql_as("bob", "b", "SELECT count(*) FROM per_colour;"), "0\n");
    let state = format!(
        "CREATE STREAM x (line VARCHAR) WITH (connector = 'files', path = '{}', format = 'text');",
        directory.path().join("state").display()
    );
    assert!(server.psql_as("ada", "long", &state).contains("outside of the directories"));
    assert_eq!(server.stop(), Some(0));
}
