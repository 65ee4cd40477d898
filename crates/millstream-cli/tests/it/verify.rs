//! `millstream verify`: what it compares, what it finds, and that the queries we ship agree with their batch answers.

use crate::{directory, run, stderr, stdout};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Output;

/// Words out of order and twice, accounts that change, and every kind of query over them.
fn pipeline(directory: &Path) {
    for (path, content) in [
        ("words/a.csv", "word,n,ts\nx,1,2024-05-01T00:00:10Z\ny,2,2024-05-01T00:01:10Z\nbroken,notanumber,\nx,4,2024-05-01T00:03:00Z\n"),
        ("words/b.csv", "word,n,ts\nx,1,2024-05-01T00:00:20Z\ny,2,2024-05-01T00:03:10Z\n"),
        (
            "accounts/a.json",
            "{\"op\":\"r\",\"id\":1,\"city\":\"Oslo\",\"balance\":10}\n{\"op\":\"c\",\"id\":2,\"city\":\"Rome\",\"balance\":5}\n\
             {\"op\":\"u\",\"id\":1,\"city\":\"Rome\",\"balance\":7}\n{\"op\":\"d\",\"id\":2}\n{\"op\":\"c\",\"id\":3,\"city\":\"Oslo\",\"balance\":1}\n",
        ),
    ] {
        std::fs::create_dir_all(directory.join(path).parent().unwrap()).unwrap();
        std::fs::write(directory.join(path), content).unwrap();
    }
    let sql = "CREATE STREAM words (
    word VARCHAR, n BIGINT, ts TIMESTAMP NOT NULL, file VARCHAR METADATA FROM 'name', twice BIGINT AS n * 2, seen TIMESTAMP AS PROCTIME(),
    WATERMARK FOR ts AS ts - INTERVAL '1 minute'
) WITH (connector = 'files', path = 'words', format = 'csv', order = 'name', max_files_per_epoch = '1');
CREATE STREAM accounts (id BIGINT NOT NULL, city VARCHAR, balance BIGINT, PRIMARY KEY (id))
    WITH (connector = 'files', path = 'accounts', format = 'json', op_column = 'op');
CREATE STREAM pushed (x BIGINT);
CREATE TABLE weights (word VARCHAR, weight BIGINT);
INSERT INTO weights VALUES ('x', 10), ('y', 100);
INSERT INTO pushed VALUES (1), (1), (2);
CREATE VIEW weighted AS SELECT s.word, s.n * w.weight AS n FROM words s JOIN weights w ON s.word = w.word;
CREATE MATERIALIZED VIEW totals AS SELECT word, sum(n) AS total FROM weighted GROUP BY word;
CREATE MATERIALIZED VIEW largest AS SELECT max(total) AS total FROM totals;
CREATE MATERIALIZED VIEW per_minute AS
    SELECT window_start, count(*) AS n, sum(twice) AS twice FROM TUMBLE(words, ts, INTERVAL '1 minute') GROUP BY window_start
    EMIT ON WINDOW CLOSE;
CREATE MATERIALIZED VIEW arrivals AS
    SELECT window_start, file, count(*) AS n FROM TUMBLE(words, seen, INTERVAL '2 seconds') GROUP BY window_start, file;
CREATE MATERIALIZED VIEW recent AS SELECT count(*) AS n FROM words WHERE ts > now() - INTERVAL '1 hour';
CREATE MATERIALIZED VIEW cities AS SELECT city, count(*) AS n, sum(balance) AS balance FROM accounts GROUP BY city;
CREATE SINK city_changes FROM cities WITH (connector = 'json', path = 'out/cities', mode = 'changelog');
CREATE SINK copies AS SELECT x, count(*) AS n FROM pushed GROUP BY x WITH (connector = 'json', path = 'out/copies', mode = 'changelog');
SELECT * FROM totals;
";
    std::fs::write(directory.join("p.sql"), sql).unwrap();
}

/// Query and cut of the lines with this verdict.
fn with_verdict(output: &Output, verdict: &str) -> BTreeSet<(String, String)> {
    let lines = stdout(output);
    let words = |line: &str| line.split_whitespace().take(3).map(str::to_string).collect::<Vec<_>>();
    let lines = lines.lines().filter(|line| !line.starts_with(' ')).map(words);
    lines.filter(|words| words.len() == 3 && words[2] == verdict).map(|words| (words[0].clone(), words[1].clone())).collect()
}

#[test]
fn queries_of_a_file_agree_under_every_cut() {
    let directory = directory();
    pipeline(directory.path());
    let output = run(directory.path(), &["verify", "p.sql"]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    let agreed = with_verdict(&output, "agrees");
    for query in ["totals", "largest", "per_minute", "arrivals", "cities", "city_changes", "copies"] {
        for cut in ["one", "row", "random"] {
            assert!(agreed.contains(&(query.into(), cut.into())), "{query} {cut}\n{}", stdout(&output));
        }
    }
    let text = stdout(&output);
    assert!(text.contains("recent") && text.contains("skipped: it reads now()"), "{text}");
    // One row per epoch lets the watermark pass before the last file's first row comes; in one epoch nothing is late.
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_string();
    assert!(line("totals        one").contains("13 rows in, 1 epoch") && line("totals        row").contains("1 late"), "{text}");
    assert!(stderr(&output).contains("21 comparisons agree, 1 query skipped"), "{}", stderr(&output));
    // Nothing is written, neither state nor output.
    let left: BTreeSet<String> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(left, ["accounts", "p.sql", "words"].map(str::to_string).into());
}

#[test]
fn earlier_rows_are_deleted_when_asked_for() {
    let directory = directory();
    pipeline(directory.path());
    let args = ["verify", "p.sql", "--deletions", "0.5", "--query", "totals,copies,cities", "--seed", "3"];
    let output = run(directory.path(), &args);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("of them deletions"), "{}", stdout(&output));
    assert_eq!(with_verdict(&output, "agrees").len(), 9);
    assert_eq!(stdout(&output), stdout(&run(directory.path(), &args)), "a seed repeats everything");
}

#[test]
fn differences_are_found_and_shown() {
    let directory = directory();
    pipeline(directory.path());
    let output = run(directory.path(), &["verify", "p.sql", "--query", "largest", "--cuts", "one,row", "--plant-difference"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(with_verdict(&output, "DIFFERS").len(), 2, "{}", stdout(&output));
    assert!(stdout(&output).contains("    expected 1 times, found 0 times: 400"), "{}", stdout(&output));
    assert!(stderr(&output).contains("2 of 2 comparisons failed: largest (one), largest (row)"), "{}", stderr(&output));
}

#[test]
fn queries_that_are_refused_or_fail_do_not_pass() {
    let directory = directory();
    let sql = "CREATE STREAM s (a BIGINT);
INSERT INTO s VALUES (1), (0);
CREATE MATERIALIZED VIEW open AS SELECT a FROM s EMIT ON WINDOW CLOSE;
CREATE MATERIALIZED VIEW fine AS SELECT count(*) AS n FROM s;
";
    std::fs::write(directory.path().join("refused.sql"), sql).unwrap();
    let output = run(directory.path(), &["verify", "refused.sql", "--cuts", "one"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((with_verdict(&output, "REFUSED").len(), with_verdict(&output, "agrees").len()), (1, 1), "{}", stdout(&output));
    let sql = "CREATE STREAM s (a BIGINT);\nINSERT INTO s VALUES (1), (0);\nCREATE MATERIALIZED VIEW v AS SELECT 1 / a AS b FROM s;\n";
    std::fs::write(directory.path().join("fails.sql"), sql).unwrap();
    let output = run(directory.path(), &["verify", "fails.sql"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(with_verdict(&output, "FAILED").len(), 3, "{}", stdout(&output));
}

#[test]
fn wrong_usage_is_told() {
    let directory = directory();
    pipeline(directory.path());
    let wrong = "CREATE STREAM s (a BIGINT);\nCREATE VIEW v AS\n  SELECT b FROM s;\nCREATE MATERIALIZED VIEW m AS SELECT * FROM v;\n";
    std::fs::write(directory.path().join("wrong.sql"), wrong).unwrap();
    std::fs::write(
        directory.path().join("endless.sql"),
        "CREATE STREAM s (line VARCHAR) WITH (connector = 'socket', port = '1', format = 'text');
CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s;",
    )
    .unwrap();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["verify"], 2, "FILE.sql"),
        (&["verify", "missing.sql"], 2, "missing.sql"),
        (&["verify", "p.sql", "--query", "totls"], 2, "Did you mean \"totals\"?"),
        (&["verify", "p.sql", "--cuts", "two"], 2, "one"),
        (&["verify", "p.sql", "--set", "wrds.path=x"], 2, "Did you mean \"words.path\"?"),
        (&["verify", "tpch", "--queries", "q23"], 2, "Did you mean"),
        (&["verify", "tpch", "--scale", "0"], 2, "between 0.001 and 1"),
        (&["verify", "wrong.sql"], 3, "wrong.sql:3:10"),
        (&["verify", "endless.sql"], 1, "nothing was compared, 1 query skipped"),
    ];
    for (args, code, text) in cases {
        let output = run(directory.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(text), "{args:?}: {}", stderr(&output));
    }
    // Of several files, one that is wrong does not keep the others from being compared.
    let output = run(directory.path(), &["verify", "wrong.sql", "p.sql", "--cuts", "one"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(with_verdict(&output, "agrees").len(), 7, "{}", stdout(&output));
}

/// The programs of `sql-examples/`, but for the one that reads what another has written.
#[test]
fn the_examples_agree_with_their_batch_answers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let entries = std::fs::read_dir(root.join("sql-examples")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut files: Vec<String> = entries.filter(|name| name.ends_with(".sql") && name != "replay.sql").collect();
    files.sort();
    let files: Vec<String> = files.iter().map(|name| format!("sql-examples/{name}")).collect();
    let args: Vec<&str> = ["verify"].into_iter().chain(files.iter().map(String::as_str)).chain(["--rows-max", "120"]).collect();
    let output = run(&root, &args);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
    assert!(stdout(&output).contains("skipped: stream \"lines\" has no input that can be read twice"), "{}", stdout(&output));
    assert!(with_verdict(&output, "agrees").len() >= 3 * files.len(), "{}", stdout(&output));
}

/// Every query must agree; one that the engine does not take must be listed as such.
fn suite(args: &[&str], refused: &[&str]) -> String {
    let output = run(directory().path(), args);
    let text = stdout(&output);
    for verdict in ["DIFFERS", "FAILED", "INPUT"] {
        assert!(with_verdict(&output, verdict).is_empty(), "{text}{}", stderr(&output));
    }
    let names: BTreeSet<String> = with_verdict(&output, "REFUSED").into_iter().map(|(query, _)| query).collect();
    assert!(names.iter().all(|name| refused.contains(&name.as_str())), "{text}{}", stderr(&output));
    assert_eq!(output.status.code(), Some(i32::from(!names.is_empty())), "{text}{}", stderr(&output));
    text
}

#[test]
fn nexmark_agrees_with_its_batch_answers() {
    let text = suite(&["verify", "nexmark", "--events", "300", "--rows-max", "120"], &["q11"]);
    assert!(text.lines().filter(|line| line.contains(" agrees ")).count() >= 3 * 24, "{text}");
}

#[test]
fn tpch_agrees_with_its_batch_answers_while_rows_are_deleted() {
    let whole = suite(&["verify", "tpch", "--rows-max", "2500", "--deletions", "0.1", "--cuts", "one,random"], &[]);
    let by_row = suite(&["verify", "tpch", "--rows-max", "20", "--deletions", "0.1", "--cuts", "row"], &[]);
    let agreed = |text: &str| text.lines().filter(|line| line.contains(" agrees ")).count();
    assert_eq!((agreed(&whole), agreed(&by_row)), (2 * 22, 22), "{whole}{by_row}");
    // Agreeing on nothing proves little: at this size most queries find rows.
    let empty = whole.lines().filter(|line| line.contains(" agrees   0 rows ")).count();
    assert!(empty <= 2 * 6, "{whole}");
}
