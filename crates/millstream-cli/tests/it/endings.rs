//! How the program ends, and that it goes on where it should: failures at the last moment, moved directories, streams that have ended,
//! statements and files that libraries choke on.

use super::{directory, millstream, pipeline, run, stderr, stdout};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// What the state directory calls the pipeline in the files of its sinks.
fn id(state: &Path) -> String {
    std::fs::read_to_string(state.join("ID")).unwrap().trim().to_string()
}

#[test]
fn a_file_that_cannot_be_written_at_the_end_is_a_failure() {
    let directory = directory();
    let place = directory.path();
    std::fs::create_dir(place.join("in")).unwrap();
    let sql = "CREATE STREAM s (id BIGINT) WITH (connector = 'files', path = 'in', format = 'csv');
CREATE SINK k AS SELECT * FROM s WITH (connector = 'parquet', path = 'out');
SELECT count(*) AS n FROM s;
";
    std::fs::write(place.join("p.sql"), sql).unwrap();
    let args = ["run", "p.sql", "--trigger", "available"];
    assert_eq!(run(place, &args).status.code(), Some(0));
    // Every name that its first file may get is taken.
    for (first, last, part) in (1..9).flat_map(|first| (first..9).flat_map(move |last| (0..2).map(move |part| (first, last, part)))) {
        let name = format!("out/k-{}-{first}-{last}-{part}.parquet", id(&place.join(".millstream/p")));
        std::fs::create_dir_all(place.join(name)).unwrap();
    }
    std::fs::write(place.join("in/a.csv"), "id\n1\n").unwrap();
    let failed = run(place, &args);
    assert_eq!((failed.status.code(), stdout(&failed).as_str()), (Some(1), ""), "{}", stderr(&failed));
    assert!(stderr(&failed).contains(".parquet"), "{}", stderr(&failed));
}

#[test]
fn a_project_can_be_moved_and_a_lost_state_is_noticed() {
    let directory = directory();
    let (here, there) = (directory.path().join("here"), directory.path().join("there"));
    std::fs::create_dir(&here).unwrap();
    pipeline(&here);
    let args = ["run", "p.sql", "--trigger", "available"];
    assert_eq!(run(&here, &args).status.code(), Some(0));
    std::fs::rename(&here, &there).unwrap();
    std::fs::write(there.join("in/c.csv"), "word,n\nz,5\n").unwrap();
    let moved = run(&there, &args);
    assert_eq!((moved.status.code(), stdout(&moved).as_str()), (Some(0), "word,total\nx,4\ny,2\nz,5\n"), "{}", stderr(&moved));
    let rows = run(&there, &["-c", "SELECT count(*) AS n FROM 'out/*.parquet'"]);
    assert_eq!(stdout(&rows), "n\n4\n", "{}", stderr(&rows));
    std::fs::remove_dir_all(there.join(".millstream")).unwrap();
    let lost = run(&there, &args);
    assert!(!lost.status.success() && stderr(&lost).contains("state directory was lost"), "{}", stderr(&lost));
}

#[test]
fn a_sink_does_not_replace_the_files_of_another_one() {
    let directory = directory();
    let place = directory.path();
    pipeline(place);
    let args = ["run", "p.sql", "--trigger", "available"];
    assert_eq!(run(place, &args).status.code(), Some(0));
    let sql = std::fs::read_to_string(place.join("p.sql")).unwrap();
    let second = "CREATE SINK second AS SELECT word, n FROM words WITH (connector = 'parquet', path = 'out', on_existing = 'replace');\n";
    std::fs::write(place.join("p.sql"), format!("{sql}{second}")).unwrap();
    let refused = run(place, &args);
    assert!(stderr(&refused).contains("belongs to sink \"copy\" of the same pipeline"), "{}", stderr(&refused));
    std::fs::write(place.join("p.sql"), sql).unwrap();
    assert_eq!(run(place, &args).status.code(), Some(0));
    assert_eq!(stdout(&run(place, &["-c", "SELECT count(*) AS n FROM 'out/*.parquet'"])), "n\n3\n");
}

#[test]
fn a_statement_over_an_earlier_pipeline_sees_what_has_come_since() {
    let directory = directory();
    let place = directory.path();
    pipeline(place);
    assert_eq!(run(place, &["run", "p.sql", "--trigger", "available"]).status.code(), Some(0));
    std::fs::write(place.join("in/c.csv"), "word,n\nz,5\n").unwrap();
    let seen = run(place, &["--state-dir", ".millstream/p", "-c", "SELECT * FROM totals ORDER BY word"]);
    assert_eq!(stdout(&seen), "word,total\nx,4\ny,2\nz,5\n", "{}", stderr(&seen));
}

#[test]
fn a_live_query_ends_with_its_streams() {
    let directory = directory();
    let sql =
        "CREATE STREAM lines (line VARCHAR) WITH (connector = 'stdin'); SELECT line, count(*) AS n FROM lines GROUP BY line EMIT CHANGES";
    let mut child = millstream(directory.path(), &["-c", sql]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\na\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("a | 2"), "{}", stdout(&output));
}

#[test]
fn garbage_is_named_and_does_not_end_the_program() {
    let directory = directory();
    let place = directory.path();
    std::fs::write(place.join("g.parquet"), b"PAR1PAR1").unwrap();
    std::fs::write(place.join("h.parquet"), [b"PAR1".as_slice(), &[7; 100], &[0xff, 0xff, 0xff, 0x7f], b"PAR1"].concat()).unwrap();
    for name in ["g", "h"] {
        for sql in [
            format!("SELECT * FROM '{name}.parquet'"),
            format!("CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{name}.parquet'"),
            format!("CREATE EXTERNAL TABLE t (a BIGINT) STORED AS PARQUET LOCATION '{name}.parquet'"),
        ] {
            let failed = run(place, &["-c", &sql]);
            assert_eq!((failed.status.code(), stdout(&failed).as_str()), (Some(1), ""), "{sql}: {}", stderr(&failed));
            assert!(stderr(&failed).contains(&format!("{name}.parquet")), "{sql}: {}", stderr(&failed));
            assert!(!stderr(&failed).contains("panic"), "{sql}: {}", stderr(&failed));
        }
    }
}

#[test]
fn a_select_tells_of_bad_rows_that_nobody_else_tells_of() {
    let directory = directory();
    let place = directory.path();
    std::fs::write(place.join("a.csv"), "a,b\n1,2\nx,3\n4,9.5\n").unwrap();
    let stream = "CREATE STREAM s (a BIGINT, b BIGINT) WITH (connector = 'files', path = 'a.csv', format = 'csv')";
    let told = run(place, &["-c", &format!("{stream}; SELECT a FROM s")]);
    assert_eq!(stdout(&told), "a\n1\n");
    let warning = "warning: 2 bad rows of stream \"s\" were left out; the first: a.csv:3: column \"a\": 'x' is not a valid BIGINT";
    assert!(stderr(&told).contains(warning), "{}", stderr(&told));
    std::fs::write(place.join("a.csv"), "a,b\n1,2\n").unwrap();
    let told = run(place, &["-c", &format!("{stream}; SELECT a FROM s")]);
    assert_eq!((stdout(&told).as_str(), stderr(&told).as_str()), ("a\n1\n", ""));
}

#[test]
fn long_chains_of_operators_are_computed_or_refused() {
    let directory = directory();
    let count = |terms: usize| {
        let ors = (0..terms).map(|n| format!("a = {n}")).collect::<Vec<_>>().join(" OR ");
        let sql = format!("SELECT count(*) AS n FROM (SELECT unnest(range(0, 9000)) AS a) WHERE {ors};");
        std::fs::write(directory.path().join("or.sql"), sql).unwrap();
        run(directory.path(), &["-f", "or.sql"])
    };
    let computed = count(900);
    assert_eq!((computed.status.code(), stdout(&computed).as_str()), (Some(0), "n\n900\n"), "{}", stderr(&computed));
    let refused = count(5_000);
    assert!(!refused.status.success() && stderr(&refused).contains("Write `a IN (..)`"), "{}", stderr(&refused));
}

#[test]
fn check_points_at_the_mistake() {
    let directory = directory();
    let sql = "CREATE STREAM s (id BIGINT);\nCREATE MATERIALIZED VIEW v AS\n  SELECT count(*) AS n\n  FROM nope;\n";
    std::fs::write(directory.path().join("p.sql"), sql).unwrap();
    let wrong = run(directory.path(), &["check", "p.sql"]);
    assert!(stderr(&wrong).contains("p.sql:4:8"), "{}", stderr(&wrong));
}

#[test]
fn now_is_the_time_of_the_query() {
    let directory = directory();
    let asked = run(directory.path(), &["-c", "SELECT now() > TIMESTAMP '2020-01-01 00:00:00' AS late"]);
    assert_eq!(stdout(&asked), "late\ntrue\n", "{}", stderr(&asked));
}
