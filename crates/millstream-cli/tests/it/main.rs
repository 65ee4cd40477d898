//! The program as its users meet it: arguments in, standard output, standard error and exit codes out.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod clients;
mod endings;
mod load;
mod serve;
mod story;
mod verify;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn millstream(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command
        .args(args)
        .current_dir(directory)
        .env("HOME", directory)
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null());
    command
}

fn run(directory: &Path, args: &[&str]) -> Output {
    millstream(directory, args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A pipeline over two CSV files in `in/`, with a Parquet sink in `out/`.
fn pipeline(directory: &Path) {
    std::fs::create_dir_all(directory.join("in")).unwrap();
    std::fs::write(directory.join("in/a.csv"), "word,n\nx,1\ny,2\nbroken,notanumber\n").unwrap();
    std::fs::write(directory.join("in/b.csv"), "word,n\nx,3\n").unwrap();
    let sql = "CREATE STREAM words (word VARCHAR, n BIGINT) WITH (connector = 'files', path = 'in', format = 'csv');
CREATE MATERIALIZED VIEW totals AS SELECT word, sum(n) AS total FROM words GROUP BY word;
CREATE SINK copy AS SELECT word, n FROM words WITH (connector = 'parquet', path = 'out');
SELECT * FROM totals ORDER BY word;
";
    std::fs::write(directory.join("p.sql"), sql).unwrap();
}

#[test]
fn statements_give_rows_in_every_format() {
    let directory = directory();
    let sql = "SELECT 1 AS a, 'x,y' AS b UNION ALL SELECT 2, NULL ORDER BY a";
    let csv = run(directory.path(), &["-c", sql]);
    assert_eq!((stdout(&csv).as_str(), csv.status.code()), ("a,b\n1,\"x,y\"\n2,\n", Some(0)), "{}", stderr(&csv));
    let json = run(directory.path(), &["-c", sql, "--format", "ndjson"]);
    assert_eq!(stdout(&json), "{\"a\":1,\"b\":\"x,y\"}\n{\"a\":2,\"b\":null}\n");
    let table = run(directory.path(), &["-c", sql, "--format", "table"]);
    assert_eq!(stdout(&table), " a | b\n---+------\n 1 | x,y\n 2 | NULL\n");
}

#[test]
fn failures_have_their_exit_code_and_their_place() {
    let directory = directory();
    let wrong = run(directory.path(), &["-c", "SELEC 1"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(stderr(&wrong).starts_with("error: "), "{}", stderr(&wrong));
    std::fs::write(directory.path().join("s.sql"), "SELECT 1 AS a;\n\nSELECT * FROM nosuch;\n").unwrap();
    let script = run(directory.path(), &["-f", "s.sql"]);
    assert_eq!((script.status.code(), stdout(&script).as_str()), (Some(3), "a\n1\n"));
    assert!(stderr(&script).contains("s.sql") && stderr(&script).contains('3'), "{}", stderr(&script));
    assert_eq!(run(directory.path(), &["--nosuch"]).status.code(), Some(2));
    assert_eq!(run(directory.path(), &["run", "missing.sql"]).status.code(), Some(2));
    let unknown = millstream(directory.path(), &["-c", "SELECT 1"]).env("MILLSTREAM__OUTPUT__FROMAT", "csv").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("Did you mean \"output.format\"?"), "{}", stderr(&unknown));
}

#[test]
fn a_failing_pipeline_says_so_once() {
    let directory = directory();
    std::fs::create_dir(directory.path().join("in")).unwrap();
    std::fs::write(directory.path().join("in/a.csv"), "n\n0\n").unwrap();
    let sql = "CREATE STREAM numbers (n BIGINT) WITH (connector = 'files', path = 'in', format = 'csv', bounded = 'true');
CREATE SINK quotients AS SELECT 10 / n AS q FROM numbers WITH (connector = 'blackhole');
";
    std::fs::write(directory.path().join("p.sql"), sql).unwrap();
    for trigger in ["10ms", "available"] {
        let failed = run(directory.path(), &["run", "p.sql", "--in-memory", "--trigger", trigger]);
        let text = stderr(&failed);
        assert_eq!(failed.status.code(), Some(1), "{text}");
        assert_eq!(text.to_lowercase().matches("divide by zero").count(), 1, "with trigger {trigger}:\n{text}");
    }
}

#[test]
fn a_query_of_a_pipeline_file_that_fails_is_shown_where_it_stands() {
    let directory = directory();
    std::fs::create_dir(directory.path().join("in")).unwrap();
    std::fs::write(directory.path().join("in/a.csv"), "id\n1\n2\n").unwrap();
    let sql = "CREATE STREAM s (id BIGINT) WITH (connector = 'files', path = 'in', format = 'csv');
CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s;
CREATE SINK k AS SELECT id FROM s WITH (connector = 'csv', path = 'out');
SELECT n FROM v;
  SELECT 1 / (id - id) AS q FROM s;
SELECT 'never';
";
    std::fs::write(directory.path().join("p.sql"), sql).unwrap();
    let args = ["run", "p.sql", "--state-dir", "state", "--trigger", "available", "--report", "r.json"];
    for rows in [2, 0] {
        let failed = run(directory.path(), &args);
        let text = stderr(&failed);
        assert_eq!((failed.status.code(), stdout(&failed).as_str()), (Some(3), "n\n2\n"), "{text}");
        assert!(text.to_lowercase().contains("divide by zero"), "{text}");
        assert!(text.contains("p.sql:5:1\n") && text.contains(" 5 | SELECT 1 / (id - id) AS q FROM s"), "{text}");
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(directory.path().join("r.json")).unwrap()).unwrap();
        assert_eq!(report["rows_in"], rows, "{report}");
        assert!(report["error"].as_str().unwrap().contains("p.sql:5:1"), "{report}");
        // The stop is a clean one: what the sink has buffered is a file.
        let files = std::fs::read_dir(directory.path().join("out"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".csv"));
        assert_eq!(files.count(), 1);
    }
    std::fs::write(directory.path().join("p.sql"), sql.replace("(id - id)", "id").replace("SELECT 'never';\n", "")).unwrap();
    let done = run(directory.path(), &args);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(directory.path().join("r.json")).unwrap()).unwrap();
    assert_eq!(report.get("error"), None);
}

#[test]
fn what_a_pipeline_file_has_lost_is_named_with_the_way_out() {
    let directory = directory();
    let stream = "CREATE STREAM s (id BIGINT);\n";
    let all = format!("{stream}CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s;\nCREATE VIEW \"W 1\" AS SELECT n FROM v;\n");
    let run_file = |sql: &str| {
        std::fs::write(directory.path().join("p.sql"), sql).unwrap();
        run(directory.path(), &["run", "p.sql", "--state-dir", "state", "--trigger", "available"])
    };
    assert_eq!(run_file(&all).status.code(), Some(0));
    let refused = run_file(stream);
    let text = stderr(&refused);
    assert_eq!(refused.status.code(), Some(3), "{text}");
    let message = "the state directory has the materialized view \"v\" and 1 more, which p.sql does not define";
    assert!(text.contains(message) && !text.contains("-->"), "{text}");
    let drops = "DROP VIEW \"W 1\"; DROP MATERIALIZED VIEW v";
    assert!(text.contains(&format!("-c '{drops}'")), "{text}");
    let dropped = run(directory.path(), &["--state-dir", "state", "-c", drops]);
    assert_eq!(dropped.status.code(), Some(0), "{}", stderr(&dropped));
    assert_eq!(run_file(stream).status.code(), Some(0));
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let directory = directory();
    std::fs::write(directory.path().join("millstream.toml"), "[output]\nformat = 'tsv'\n").unwrap();
    let file = run(directory.path(), &["-c", "SELECT 1 AS a, 2 AS b"]);
    assert_eq!(stdout(&file), "a\tb\n1\t2\n");
    let environment = |args: &[&str]| millstream(directory.path(), args).env("MILLSTREAM__OUTPUT__FORMAT", "ndjson").output().unwrap();
    assert_eq!(stdout(&environment(&["-c", "SELECT 1 AS a, 2 AS b"])), "{\"a\":1,\"b\":2}\n");
    assert_eq!(stdout(&environment(&["-c", "SELECT 1 AS a, 2 AS b", "--format", "csv"])), "a,b\n1,2\n");
}

#[test]
fn standard_input_is_a_script_and_variables_are_replaced() {
    let directory = directory();
    let mut child =
        millstream(directory.path(), &["-v", "n=5", "-v", "name=it's"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT :n AS n, :'name' AS name;").unwrap();
    assert_eq!(stdout(&child.wait_with_output().unwrap()), "n,name\n5,it's\n");
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let directory = directory();
    let sql = "SELECT unnest(range(0, 1000000)) AS n";
    let mut child = millstream(directory.path(), &["-c", sql]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
}

#[test]
fn a_pipeline_file_runs_and_running_it_again_adds_nothing() {
    let directory = directory();
    pipeline(directory.path());
    let args = ["run", "p.sql", "--trigger", "available", "--report", "report.json"];
    let first = run(directory.path(), &args);
    assert_eq!((stdout(&first).as_str(), first.status.code()), ("word,total\nx,4\ny,2\n", Some(0)), "{}", stderr(&first));
    assert!(stderr(&first).contains(".millstream/p"), "{}", stderr(&first));
    let report: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(directory.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["rows_in"], &report["rows_used"], &report["rows_bad"]), (&4.into(), &3.into(), &1.into()), "{report}");
    let second = run(directory.path(), &args);
    assert_eq!((stdout(&second).as_str(), second.status.code()), ("word,total\nx,4\ny,2\n", Some(0)), "{}", stderr(&second));
    let written = run(directory.path(), &["-c", "SELECT count(*) AS n FROM 'out/*.parquet'"]);
    if written.status.success() {
        assert_eq!(stdout(&written), "n\n3\n");
    }
    let state = run(directory.path(), &["state", "verify", ".millstream/p"]);
    assert_eq!(state.status.code(), Some(0), "{}", stderr(&state));
    assert!(
        stdout(&run(directory.path(), &["state", "show", ".millstream/p"])).contains("newest committed epoch")
            || !stdout(&state).is_empty()
    );
}

#[test]
fn state_verify_looks_at_the_files_of_sinks() {
    let directory = directory();
    pipeline(directory.path());
    let run_once = || run(directory.path(), &["run", "p.sql", "--trigger", "available"]);
    assert_eq!(run_once().status.code(), Some(0));
    let verify = || run(directory.path(), &["state", "verify", ".millstream/p"]);
    let output = verify();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stdout(&output).ends_with("sink copy: 1 files, 3 rows in \"out\": right\n"), "{}", stdout(&output));

    // The log and the checkpoints from before the run.
    let (state, file) = (directory.path().join(".millstream/p"), std::fs::read_dir(directory.path().join("out")).unwrap());
    let file = file.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).unwrap();
    for part in ["log", "checkpoint"] {
        std::fs::remove_dir_all(state.join(part)).unwrap();
        std::fs::create_dir(state.join(part)).unwrap();
    }
    assert_eq!(verify().status.code(), Some(0), "nobody knows the sinks");
    let refused = run_once();
    assert_eq!(refused.status.code(), Some(3), "{}", stderr(&refused));
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    assert!(stderr(&refused).contains("holds output of epoch") && stderr(&refused).contains(&name), "{}", stderr(&refused));

    std::fs::remove_file(&file).unwrap();
    assert_eq!(run_once().status.code(), Some(0));
    let written = std::fs::read_dir(directory.path().join("out")).unwrap().map(|entry| entry.unwrap().path());
    let written = written.into_iter().find(|path| path.extension().is_some()).unwrap();
    std::fs::write(written, "short").unwrap();
    let output = verify();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("\"out\": WRONG\n") && stdout(&output).contains("has 5 bytes"), "{}", stdout(&output));
    assert!(stderr(&output).contains("the output of 1 sinks of"), "{}", stderr(&output));
}

/// Two streams whose files do not lie in the order of time.
fn history(directory: &Path) {
    let rows = |rows: &[(u32, &str)]| {
        let lines = rows.iter().map(|(id, time)| format!("{id},2024-05-01T00:{time}Z\n"));
        format!("id,ts\n{}", lines.collect::<String>())
    };
    for (path, content) in [
        ("clicks/a.csv", rows(&[(3, "02:10"), (1, "00:30")])),
        ("clicks/b.csv", rows(&[(2, "01:05")])),
        ("views/a.csv", rows(&[(5, "02:59"), (4, "00:10")])),
    ] {
        std::fs::create_dir_all(directory.join(path).parent().unwrap()).unwrap();
        std::fs::write(directory.join(path), content).unwrap();
    }
    let stream = |name: &str| {
        format!(
            "CREATE STREAM {name} (id BIGINT, ts TIMESTAMP, WATERMARK FOR ts AS ts) \
             WITH (connector = 'files', path = '{name}', format = 'csv', order = 'name', max_files_per_epoch = '1');\n"
        )
    };
    let view = "CREATE MATERIALIZED VIEW met AS SELECT 'click' AS what, id, _epoch_time AS at FROM clicks
UNION ALL SELECT 'view', id, _epoch_time FROM views;
CREATE MATERIALIZED VIEW per_minute AS
SELECT window_start, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute') GROUP BY window_start EMIT ON WINDOW CLOSE;
SELECT what, id, at FROM met ORDER BY at, what, id;
SELECT count(*) AS closed FROM per_minute;
";
    std::fs::write(directory.join("h.sql"), stream("clicks") + &stream("views") + view).unwrap();
}

fn replayed(directory: &Path, more: &[&str]) -> (String, serde_json::Value) {
    let args = [&["replay", "h.sql", "--report", "report.json"], more].concat();
    let output = run(directory, &args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = std::fs::read_to_string(directory.join("report.json")).unwrap();
    (stdout(&output), serde_json::from_str(&report).unwrap())
}

#[test]
fn a_replay_in_the_order_of_event_time_takes_the_same_slice_of_every_stream() {
    let directory = directory();
    history(directory.path());
    let expected = "what,id,at
click,1,2024-05-01 00:01:00
view,4,2024-05-01 00:01:00
click,2,2024-05-01 00:02:00
click,3,2024-05-01 00:03:00
view,5,2024-05-01 00:03:00
closed
3
";
    let (rows, report) = replayed(directory.path(), &[]);
    assert_eq!((rows.as_str(), &report["rows_late"]), (expected, &0.into()));
    // A second run finds everything done, and the files that came since are no part of the history.
    std::fs::write(directory.path().join("views/b.csv"), "id,ts\n6,2024-05-01T00:00:00Z\n").unwrap();
    assert_eq!(replayed(directory.path(), &[]).0, expected);
    std::fs::remove_file(directory.path().join("views/b.csv")).unwrap();
    // As files lie, click 2 comes after its time.
    let (_, report) = replayed(directory.path(), &["--order", "arrival", "--in-memory"]);
    assert_eq!((&report["rows_in"], &report["rows_late"]), (&5.into(), &1.into()), "{report}");
    // Without the end of history the last window stays open; rows outside the bounds are no input.
    let bounds = ["--in-memory", "--slice", "1 hour", "--from", "2024-05-01T00:00:20Z", "--to", "2024-05-01T00:02:30Z"];
    let (rows, report) = replayed(directory.path(), &bounds);
    let expected = "what,id,at
click,1,2024-05-01 01:00:00
click,2,2024-05-01 01:00:00
click,3,2024-05-01 01:00:00
closed
2
";
    assert_eq!((rows.as_str(), &report["rows_in"]), (expected, &3.into()));
    let closed = replayed(directory.path(), &[&bounds[..], &["--close-windows"]].concat()).0;
    assert!(closed.ends_with("closed\n3\n"), "{closed}");
}

#[test]
fn a_replay_of_the_log_runs_the_epochs_as_they_were() {
    let directory = directory();
    history(directory.path());
    let args = ["run", "h.sql", "--state-dir", "state", "--trigger", "available", "--set", "clicks.bounded=true"];
    let live = run(directory.path(), &args);
    assert_eq!(live.status.code(), Some(0), "{}", stderr(&live));
    // What came after the log is no part of it.
    std::fs::write(directory.path().join("clicks/c.csv"), "id,ts\n9,2024-05-01T00:09:00Z\n").unwrap();
    let (rows, report) = replayed(directory.path(), &["--order", "log", "--log-of", "state"]);
    assert_eq!(rows, stdout(&live), "the same epochs at the same times");
    assert_eq!((&report["rows_in"], &report["rows_late"]), (&5.into(), &1.into()), "{report}");
    let missing = run(directory.path(), &["replay", "h.sql", "--order", "log", "--log-of", "nowhere"]);
    assert_eq!(missing.status.code(), Some(2), "{}", stderr(&missing));
}

#[test]
fn a_mistake_in_a_pipeline_file_is_shown_where_it_stands() {
    let directory = directory();
    let text = "CREATE STREAM s (id BIGINT);\n-- the view\nCREATE MATERIALIZED VIEW v AS\n  SELECT idd FROM s;\n";
    std::fs::write(directory.path().join("p.sql"), text).unwrap();
    let output = run(directory.path(), &["run", "p.sql", "--in-memory"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("p.sql:4:10") && stderr(&output).contains("4 |   SELECT idd FROM s"), "{}", stderr(&output));
}

#[test]
fn options_take_values_from_the_environment() {
    let directory = directory();
    pipeline(directory.path());
    let text = std::fs::read_to_string(directory.path().join("p.sql")).unwrap().replace("path = 'in'", "path = '${WORDS_DIR}'");
    std::fs::write(directory.path().join("p.sql"), text).unwrap();
    let args = ["run", "p.sql", "--trigger", "available"];
    let unset = millstream(directory.path(), &args).env_remove("WORDS_DIR").output().unwrap();
    assert!(stderr(&unset).contains("environment variable \"WORDS_DIR\" is not set"), "{}", stderr(&unset));
    let set = millstream(directory.path(), &args).env("WORDS_DIR", "in").output().unwrap();
    assert_eq!(stdout(&set), "word,total\nx,4\ny,2\n", "{}", stderr(&set));
    let shown =
        millstream(directory.path(), &["--state-dir", ".millstream/p", "-c", "SHOW CREATE words"]).env("WORDS_DIR", "in").output().unwrap();
    assert!(stdout(&shown).contains("path = '${WORDS_DIR}'"), "{}{}", stdout(&shown), stderr(&shown));
}

#[test]
fn check_plans_without_touching_data() {
    let directory = directory();
    pipeline(directory.path());
    let good = run(directory.path(), &["check", "p.sql"]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    assert!(stdout(&good).contains("CREATE MATERIALIZED VIEW totals"), "{}", stdout(&good));
    assert!(!directory.path().join("out").exists() || std::fs::read_dir(directory.path().join("out")).unwrap().count() == 0);
    std::fs::write(directory.path().join("bad.sql"), "CREATE VIEW v AS SELECT * FROM nosuch;\nCREATE VIEW w AS SELECT 1 AS a;\n").unwrap();
    let bad = run(directory.path(), &["check", "bad.sql"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(stderr(&bad).contains("1 of 2 statements"), "{}", stderr(&bad));
}

#[test]
fn live_queries_are_change_lines_in_a_pipe() {
    let directory = directory();
    pipeline(directory.path());
    let sql = "CREATE STREAM words (word VARCHAR, n BIGINT) WITH (connector = 'files', path = 'in', format = 'csv', settle = '0');
SELECT word FROM words EMIT CHANGES LIMIT 2";
    let plain = run(directory.path(), &["-c", sql]);
    let text = stdout(&plain);
    assert_eq!(text.lines().count(), 2, "{text}{}", stderr(&plain));
    assert!(text.lines().all(|line| line.starts_with("+I ")), "{text}");
    let csv = run(directory.path(), &["-c", sql, "--format", "csv"]);
    assert!(stdout(&csv).starts_with("epoch,op,word\n"), "{}", stdout(&csv));
}

#[test]
fn completions_and_the_manual_are_printed() {
    let directory = directory();
    assert!(stdout(&run(directory.path(), &["completions", "bash"])).contains("millstream"));
    assert!(stdout(&run(directory.path(), &["man"])).contains(".TH millstream"));
    assert!(stdout(&run(directory.path(), &["--version"])).contains("datafusion: "));
}

#[test]
fn the_benchmark_compares_both_ways() {
    let directory = directory();
    let args = ["bench", "nexmark", "--queries", "q0,q1", "--events", "2000", "--epoch-rows", "500", "--dir", "data", "--json"];
    let output = run(directory.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    for line in stdout(&output).lines() {
        let figures: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&figures["agreement"], &figures["rows"]), (&"yes".into(), &1840.into()), "{line}");
    }
}

#[test]
fn inserts_of_a_pipeline_file_run_once_in_the_life_of_a_state_directory() {
    let directory = directory();
    let sql = "CREATE TABLE t (x BIGINT);
CREATE STREAM s (x BIGINT);
INSERT INTO t VALUES (1);
INSERT INTO s VALUES (1), (2);
CREATE MATERIALIZED VIEW v AS SELECT (SELECT count(*) FROM t) AS t, (SELECT count(*) FROM s) AS s;
SELECT * FROM v;
";
    std::fs::write(directory.path().join("p.sql"), sql).unwrap();
    for _ in 0..3 {
        let output = run(directory.path(), &["run", "p.sql", "--state-dir", "state", "--trigger", "available"]);
        assert_eq!(stdout(&output), "t,s\n1,2\n", "{}", stderr(&output));
    }
}
