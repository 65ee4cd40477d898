//! Tests of the parser: statements with their canonical text, and errors as they are printed.

use super::*;
use crate::statement::{ColumnKind, Emit, SubscribeSource};
use std::time::Duration;

/// The canonical text, after checking that it is a fixed point.
fn canonical(text: &str) -> String {
    let statement = parse_statement(text).unwrap_or_else(|error| panic!("{}", error.render(text, None, 1)));
    let canonical = statement.canonical_text();
    let again = parse_statement(&canonical).unwrap_or_else(|error| panic!("{}", error.render(&canonical, None, 1)));
    assert_eq!(again.canonical_text(), canonical, "the canonical text of {text} is not stable");
    canonical
}

/// The error as it is printed.
fn error(text: &str) -> String {
    match parse_statement(text) {
        Ok(statement) => panic!("{text} is a statement: {statement:?}"),
        Err(error) => error.render(text, None, 1),
    }
}

#[test]
fn streams() {
    for (text, expected) in [
        (
            "create stream if not exists Bids ( auction BIGINT NOT NULL, -- key\n price bigint, ts TIMESTAMP NOT NULL, arrived AS PROCTIME(),
              file VARCHAR METADATA FROM 'path', key VARCHAR METADATA, WATERMARK FOR ts AS ts - INTERVAL '5 seconds', PRIMARY KEY (auction)
            ) with (connector = 'files', 'Path' = 's3://b/', format = PARQUET, max_rows = 10, flag = true, scan.startup.mode = 'earliest')",
            "CREATE STREAM IF NOT EXISTS bids (auction BIGINT NOT NULL, price BIGINT, ts TIMESTAMP NOT NULL, arrived AS proctime(), \
             file VARCHAR METADATA FROM 'path', key VARCHAR METADATA FROM 'key', WATERMARK FOR ts AS ts - INTERVAL '5 seconds', \
             PRIMARY KEY (auction)) WITH (connector = 'files', path = 's3://b/', format = 'parquet', max_rows = '10', flag = 'true', \
             scan.startup.mode = 'earliest')",
        ),
        ("CREATE OR REPLACE SOURCE s (a INT, APPEND ONLY)", "CREATE OR REPLACE STREAM s (a INT, APPEND ONLY)"),
        ("CREATE STREAM s (a INT) APPEND ONLY WITH ()", "CREATE STREAM s (a INT, APPEND ONLY)"),
        (
            "CREATE TABLE s (a INT PRIMARY KEY NOT ENFORCED, ts TIMESTAMP_LTZ(3), WATERMARK FOR ts) WITH ('connector' = 'kafka')",
            "CREATE STREAM s (a INT, ts TIMESTAMP(3) WITH TIME ZONE, WATERMARK FOR ts AS ts, PRIMARY KEY (a)) WITH (connector = 'kafka')",
        ),
        (
            "CREATE STREAM s (j JSON, t STRING, l STRUCT<a INT, b TEXT>, total AS a + 1 NOT NULL, x INT AS (a) VIRTUAL)",
            "CREATE STREAM s (j VARCHAR, t VARCHAR, l STRUCT<a INT, b VARCHAR>, total AS a + 1 NOT NULL, x INT AS (a))",
        ),
        ("CREATE STREAMING TABLE s (a INT) WITH (connector = 'memory')", "CREATE STREAM s (a INT) WITH (connector = 'memory')"),
        ("CREATE STREAMING TABLE s AS SELECT 1", "CREATE MATERIALIZED VIEW s AS SELECT 1"),
        (
            "CREATE STREAM d (WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE) AS SELECT * FROM raw EMIT CHANGES",
            "CREATE STREAM d (WATERMARK FOR ts AS ts - INTERVAL '1 minute') AS SELECT * FROM raw",
        ),
        (
            "CREATE UNBOUNDED EXTERNAL TABLE t (a INT NOT NULL, b STRING) STORED AS CSV LOCATION '/in/' OPTIONS ('format.has_header' 'true')",
            "CREATE STREAM t (a INT NOT NULL, b VARCHAR) WITH (connector = 'files', path = '/in/', format = 'csv', format.has_header = 'true')",
        ),
        (
            "CREATE EXTERNAL TABLE t (a INT, p VARCHAR) STORED AS parquet PARTITIONED BY (p) LOCATION '/x' OPTIONS (REFRESH = 'every epoch')",
            "CREATE EXTERNAL TABLE t (a INT, p VARCHAR) STORED AS PARQUET PARTITIONED BY (p) LOCATION '/x' OPTIONS (refresh = 'every epoch')",
        ),
        ("CREATE TABLE t (a INT, b DECIMAL(10, 2), PRIMARY KEY (a, b))", "CREATE TABLE t (a INT, b DECIMAL(10,2), PRIMARY KEY (a, b))"),
        ("CREATE TABLE t AS SELECT 1 AS a", "CREATE TABLE t AS SELECT 1 AS a"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn views_and_sinks() {
    for (text, expected) in [
        ("CREATE VIEW v (x, y) AS SELECT a, b FROM t", "CREATE VIEW v (x, y) AS SELECT a, b FROM t"),
        (
            "CREATE MATERIALIZED TABLE v WITH (state_ttl = '1 hour') AS SELECT count(*) FROM t EMIT FINAL",
            "CREATE MATERIALIZED VIEW v WITH (state_ttl = '1 hour') AS SELECT count(*) FROM t EMIT ON WINDOW CLOSE",
        ),
        (
            "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT 1 FROM t EMIT PERIODIC INTERVAL '60' SECONDS",
            "CREATE OR REPLACE MATERIALIZED VIEW v AS SELECT 1 FROM t EMIT PERIODIC INTERVAL '1 minute'",
        ),
        (
            "CREATE SINK k FROM v WITH (connector = 'parquet', retention = INTERVAL '10' MINUTE, limit = -1)",
            "CREATE SINK k FROM v WITH (connector = 'parquet', retention = '10 minutes', limit = '-1')",
        ),
        (
            "CREATE SINK k AS SELECT a FROM t WHERE a > 1 EMIT ON WINDOW CLOSE PARTITION BY (day) ORDER BY (a DESC) WITH (path = '/out')",
            "CREATE SINK k AS SELECT a FROM t WHERE a > 1 EMIT ON WINDOW CLOSE PARTITIONED BY (day) ORDER BY a DESC WITH (path = '/out')",
        ),
        (
            "CREATE SINK k (a INT, b) PRIMARY KEY (a) PARTITIONED BY (b) FROM v EMIT CHANGES WITH (mode = 'upsert')",
            "CREATE SINK k (a INT, b) FROM v EMIT CHANGES PRIMARY KEY (a) PARTITIONED BY (b) WITH (mode = 'upsert')",
        ),
        (
            "CREATE SINK k AS SELECT * FROM t ORDER BY a LIMIT 3 WITH (path = 'x')",
            "CREATE SINK k AS SELECT * FROM t ORDER BY a LIMIT 3 WITH (path = 'x')",
        ),
        ("CREATE SINK k WITH (path = 'it''s')", "CREATE SINK k WITH (path = 'it''s')"),
        (
            "CREATE FUNCTION f(a BIGINT, b STRING) RETURNS BIGINT LANGUAGE SQL IMMUTABLE AS $$ SELECT a + 1 $$",
            "CREATE FUNCTION f(a BIGINT, b VARCHAR) RETURNS BIGINT RETURN a + 1",
        ),
        ("INSERT INTO k AS q SELECT * FROM v EMIT CHANGES", "INSERT INTO k AS q SELECT * FROM v EMIT CHANGES"),
        ("INSERT INTO TABLE t (a, b) VALUES (1, 'x'), (2, NULL)", "INSERT INTO t (a, b) VALUES (1, 'x'), (2, NULL)"),
        ("INSERT INTO t (SELECT 1)", "INSERT INTO t (SELECT 1)"),
        ("INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x", "INSERT INTO t WITH x AS (SELECT 1) SELECT * FROM x"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn the_rest() {
    for (text, expected) in [
        ("select  Count(*)  from T where X = 'A;' ;", "SELECT count(*) FROM t WHERE x = 'A;'"),
        ("SELECT \"Aa\" FROM t EMIT CHANGES LIMIT 5", "SELECT \"Aa\" FROM t EMIT CHANGES LIMIT 5"),
        ("SELECT a FROM t LIMIT 3 EMIT CHANGES", "SELECT a FROM t LIMIT 3 EMIT CHANGES"),
        ("SELECT emit, t.emit FROM t", "SELECT emit, t.emit FROM t"),
        ("(SELECT 1) UNION ALL (SELECT 2)", "(SELECT 1) UNION ALL (SELECT 2)"),
        ("FROM t", "FROM t"),
        ("SELECT * FROM s FOR EPOCH BETWEEN 1 AND 5", "SELECT * FROM s FOR SYSTEM_TIME AS OF epoch_between(1, 5)"),
        ("SELECT * FROM s FOR EPOCH 3 AS x", "SELECT * FROM s AS x FOR SYSTEM_TIME AS OF epoch_between(3, 3)"),
        ("SELECT * FROM s AS x FOR EPOCH 3", "SELECT * FROM s AS x FOR SYSTEM_TIME AS OF epoch_between(3, 3)"),
        ("SELECT * FROM 'a.parquet'", "SELECT * FROM 'a.parquet'"),
        (
            "SELECT * FROM SESSION(s PARTITION BY (a, b), ts, INTERVAL '1' MINUTE)",
            "SELECT * FROM session(partitioned(s, a, b), ts, INTERVAL '1' MINUTE)",
        ),
        ("DROP STREAM IF EXISTS a, b CASCADE", "DROP STREAM IF EXISTS a, b CASCADE"),
        ("DROP MATERIALIZED VIEW a.b RESTRICT", "DROP MATERIALIZED VIEW a.b"),
        ("SHOW streams", "SHOW STREAMS"),
        ("SHOW TABLES LIKE 'a%'", "SHOW TABLES LIKE 'a%'"),
        ("SHOW server_version", "SHOW server_version"),
        ("SHOW TRANSACTION ISOLATION LEVEL", "SHOW transaction_isolation"),
        ("SHOW COLUMNS FROM t", "SHOW COLUMNS FROM t"),
        ("SHOW CREATE MATERIALIZED VIEW v", "SHOW CREATE v"),
        ("SHOW CREATE view", "SHOW CREATE view"),
        ("DESC TABLE t", "DESCRIBE t"),
        ("SET trigger = '1s'", "SET trigger = '1s'"),
        ("SET SESSION TimeZone TO UTC", "SET timezone = 'UTC'"),
        ("SET TIME ZONE 'Europe/Berlin'", "SET timezone = 'Europe/Berlin'"),
        ("SET 'table.exec.state.ttl' = '1 h'", "SET table.exec.state.ttl = '1 h'"),
        ("SET search_path = a, 'B'", "SET search_path = 'a, B'"),
        ("SET retention = INTERVAL '1 hour'", "SET retention = '1 hour'"),
        ("RESET trigger", "RESET trigger"),
        ("RESET ALL", "RESET ALL"),
        ("EXPLAIN SELECT 1", "EXPLAIN SELECT 1"),
        ("EXPLAIN (SELECT 1)", "EXPLAIN (SELECT 1)"),
        ("EXPLAIN (ANALYZE, VERBOSE) SELECT 1", "EXPLAIN ANALYZE SELECT 1"),
        (
            "EXPLAIN INCREMENTAL CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT FINAL",
            "EXPLAIN INCREMENTAL CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT ON WINDOW CLOSE",
        ),
        ("SUBSCRIBE v", "SUBSCRIBE TO v"),
        (
            "SUBSCRIBE TO (SELECT * FROM v) WITH (snapshot = false, progress = on) AS OF EPOCH 5 UP TO EPOCH 9",
            "SUBSCRIBE TO (SELECT * FROM v) WITH (snapshot = 'false', progress = 'true') AS OF EPOCH 5 UP TO EPOCH 9",
        ),
        ("COPY t TO 'x.parquet'", "COPY t TO 'x.parquet'"),
        (
            "COPY (SELECT 1) TO 'x' STORED AS parquet PARTITIONED BY (a) OPTIONS ('compression' 'zstd')",
            "COPY (SELECT 1) TO 'x' STORED AS PARQUET PARTITIONED BY (a) OPTIONS (compression = 'zstd')",
        ),
        (
            "COPY (SELECT 1) TO STDOUT WITH (FORMAT csv, HEADER, DELIMITER ';')",
            "COPY (SELECT 1) TO STDOUT STORED AS CSV OPTIONS (header = 'true', delimiter = ';')",
        ),
        ("COPY (SUBSCRIBE v) TO STDOUT", "COPY (SUBSCRIBE TO v) TO STDOUT"),
        ("CHECKPOINT", "CHECKPOINT"),
        ("START PIPELINE", "START PIPELINE"),
        ("pause pipeline;", "PAUSE PIPELINE"),
        ("ALTER SINK k PAUSE", "ALTER SINK k PAUSE"),
        ("ALTER PIPELINE SET trigger = '5s'", "ALTER PIPELINE SET (trigger = '5s')"),
        ("ALTER MATERIALIZED VIEW v SET (state_ttl = '1h', a = 1)", "ALTER MATERIALIZED VIEW v SET (state_ttl = '1h', a = '1')"),
        ("ALTER STREAM s RESET (a, b)", "ALTER STREAM s RESET (a, b)"),
        ("ALTER VIEW v RENAME TO w", "ALTER VIEW v RENAME TO w"),
        ("REFRESH TABLE t", "REFRESH TABLE t"),
        ("CANCEL QUERY 12", "CANCEL QUERY '12'"),
        ("BEGIN", "BEGIN"),
        ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN"),
        ("END", "COMMIT"),
        ("ABORT WORK", "ROLLBACK"),
        ("UPDATE t SET a = 1 WHERE b = 2", "UPDATE t SET a = 1 WHERE b = 2"),
        ("DELETE FROM t WHERE a = 1", "DELETE FROM t WHERE a = 1"),
        ("TRUNCATE TABLE t", "TRUNCATE TABLE t"),
        ("PREPARE p AS SELECT $1", "PREPARE p AS SELECT $1"),
        ("CREATE SCHEMA s", "CREATE SCHEMA s"),
        ("DISCARD ALL", "DISCARD ALL"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn parts() {
    let Statement::CreateStream(stream) = parse_statement(
        "CREATE STREAM s (a INT, ts TIMESTAMP AS to_timestamp(a), f VARCHAR METADATA FROM 'path', WATERMARK FOR ts AS ts - INTERVAL '1' MINUTE)",
    )
    .expect("a stream") else {
        panic!("no stream")
    };
    assert_eq!(stream.watermark.expect("a watermark").delay, Duration::from_secs(60));
    assert!(matches!(stream.columns[1].kind, ColumnKind::Computed(_)));
    assert_eq!(stream.columns[2].kind, ColumnKind::Metadata("path".to_owned()));

    let Statement::Explain(explain) = parse_statement("EXPLAIN ANALYZE SELECT 1 EMIT CHANGES").expect("explain") else {
        panic!("no explain")
    };
    assert!(matches!(*explain.statement, Statement::Query(QueryStatement { emit: Emit::Changes { limit: None }, .. })));

    let Statement::Subscribe(subscribe) = parse_statement("SUBSCRIBE (SELECT 1)").expect("subscribe") else { panic!("no subscription") };
    assert!(subscribe.snapshot && !subscribe.progress && matches!(subscribe.source, SubscribeSource::Query(_)));

    let Statement::Copy(copy) = parse_statement("COPY t TO 'x' STORED AS CSV").expect("copy") else { panic!("no copy") };
    assert_eq!(copy.to_datafusion().expect("a file").stored_as.as_deref(), Some("CSV"));
}

#[test]
fn errors_point_at_the_place() {
    for (text, expected) in [
        (
            "CRAETE STREAM s",
            "expected an SQL statement, found \"CRAETE\"\n  --> line 1:1\n   |\n 1 | CRAETE STREAM s\n   | ^^^^^^\n   = hint: Did you mean CREATE?",
        ),
        (
            "CREATE STRAEM s (a INT)",
            "cannot create a \"STRAEM\"\n  --> line 1:8\n   |\n 1 | CREATE STRAEM s (a INT)\n   |        ^^^^^^\n   = hint: Did you mean STREAM?",
        ),
        (
            "SELECT a\n  FORM t WHERE x",
            "expected the end of the query, found \"t\"\n  --> line 2:8\n   |\n 2 |   FORM t WHERE x\n   |        ^",
        ),
        (
            "SELECT a FROM t WHERE",
            "expected an expression, found the end of the statement\n  --> line 1:22\n   |\n 1 | SELECT a FROM t WHERE\n   |                      ^",
        ),
        (
            "SELECT a FROM t EMIT CHANGS",
            "expected ON WINDOW CLOSE, CHANGES or PERIODIC after EMIT, found \"CHANGS\"\n  --> line 1:22\n   |\n 1 | SELECT a FROM t EMIT CHANGS\n   |                      ^^^^^^\n   = hint: Write EMIT ON WINDOW CLOSE, EMIT CHANGES [LIMIT n] or EMIT PERIODIC INTERVAL '1 minute'.",
        ),
        (
            "CREATE STREAM s (a INT, WATERMARK FOR ts AS now())",
            "the watermark of \"ts\" is not the column less an interval\n  --> line 1:45\n   |\n 1 | CREATE STREAM s (a INT, WATERMARK FOR ts AS now())\n   |                                             ^^^\n   = hint: Write `WATERMARK FOR ts AS ts - INTERVAL '5 seconds'`, or `WATERMARK FOR ts` when rows come in order.",
        ),
        (
            "CREATE STREAM s (a INT, a INT)",
            "column \"a\" is declared twice\n  --> line 1:25\n   |\n 1 | CREATE STREAM s (a INT, a INT)\n   |                         ^",
        ),
        ("SELECT 'abc", "unterminated string literal\n  --> line 1:8\n   |\n 1 | SELECT 'abc\n   |        ^"),
        (
            "SELECT count(*) FROM s WINDOW TUMBLING (SIZE 10 SECONDS) GROUP BY k",
            "WINDOW TUMBLING (...) is not known here\n  --> line 1:24\n   |\n 1 | SELECT count(*) FROM s WINDOW TUMBLING (SIZE 10 SECONDS) GROUP BY k\n   |                        ^^^^^^\n   = hint: Windows are table functions: `FROM TUMBLE(s, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end`.",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn refusals() {
    for (text, message) in [
        ("", "there is no statement"),
        ("SELECT 1; SELECT 2", "expected the end of the statement, found \"SELECT\""),
        ("CREATE SINK k FROM v FORMAT PLAIN ENCODE JSON", "FORMAT ... ENCODE is not known here"),
        ("SELECT * FROM t WHERE ts > mz_now()", "mz_now() is not known here"),
        ("CREATE STREAM s (a INT, APPEND ONLY, PRIMARY KEY (a))", "stream s has both PRIMARY KEY and APPEND ONLY"),
        ("CREATE STREAM s (a INT PRIMARY KEY, PRIMARY KEY (a))", "PRIMARY KEY is given twice"),
        ("CREATE STREAM s (a)", "column \"a\" has no type"),
        ("CREATE STREAM s (a INT DEFAULT 1)", "column \"a\" has a DEFAULT, which is not supported"),
        ("CREATE STREAM s (a INT, CHECK (a > 1))", "the constraint \"CHECK\" is not supported"),
        ("CREATE STREAM s WITH (a = 1, A = 2)", "option \"a\" is given twice"),
        ("CREATE STREAM s AS SELECT 1 EMIT FINAL", "stream s passes rows on as they come and takes no EMIT"),
        ("CREATE TABLE t (ts TIMESTAMP, WATERMARK FOR ts)", "table t has a watermark but no connector"),
        ("CREATE TABLE t AS SELECT 1 EMIT CHANGES", "table t is one snapshot of its query and takes no EMIT"),
        ("CREATE VIEW v AS SELECT 1 EMIT CHANGES", "view v is not kept and takes no EMIT"),
        ("CREATE SINK k EMIT CHANGES WITH (a = 1)", "sink k has EMIT but nothing to emit"),
        ("CREATE SECRET s", "CREATE SECRET is not in this build"),
        ("INSERT INTO t VALUES (1) EMIT CHANGES", "INSERT ... VALUES runs once and takes neither a query name nor EMIT"),
        ("INSERT OVERWRITE t SELECT 1", "INSERT OVERWRITE is not supported"),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "INSERT stands after WITH"),
        ("EXPLAIN DROP VIEW v", "DROP has no plan to explain"),
        ("EXPLAIN EXPLAIN SELECT 1", "EXPLAIN has no plan to explain"),
        ("BEGIN STATEMENT SET", "statement sets are not needed here"),
        ("SUBSCRIBE v WITH (snapshto = true)", "SUBSCRIBE has no option \"snapshto\""),
        ("SUBSCRIBE v AS OF EPOCH 5 UP TO EPOCH 4", "the subscription ends at epoch 4, before it begins at epoch 5"),
        ("PAUSE", "expected PIPELINE, found the end of the statement"),
        ("SELECT 1 EMIT PERIODIC INTERVAL '1 month'", "the interval '1 month' has no fixed length"),
        ("SELECT * FROM s FOR EPOCH x", "the bounds of a slice are literals"),
        ("ALTER SINK k EXPLODE", "expected PAUSE, RESUME, SET, RESET or RENAME TO, found \"EXPLODE\""),
        ("SET a", "expected \"=\" or TO, found the end of the statement"),
    ] {
        let error = parse_statement(text).expect_err(text);
        assert_eq!(error.message, message, "{text}");
    }
}

#[test]
fn scripts_are_read_one_by_one() {
    let text = "-- first\nCREATE VIEW v AS SELECT 1; SELECT * FROM v;\n\nSELECT 1 +; SELECT 2";
    let mut script = parse_script(text);
    let first = script.next().expect("a statement").expect("valid");
    assert_eq!((first.first_line, first.first_column, first.text), (2, 1, "CREATE VIEW v AS SELECT 1"));
    let second = script.next().expect("a statement").expect("valid");
    assert_eq!((second.first_line, second.first_column), (2, 28));
    let located = second.locate(SqlError { start: Some(Position { line: 1, column: 15 }), ..SqlError::new("no") });
    assert_eq!(located.start, Some(Position { line: 2, column: 42 }));
    let error = script.next().expect("a statement").expect_err("broken");
    assert_eq!(
        error.render(text, Some("p.sql")),
        "expected an expression, found the end of the statement\n  --> p.sql:4:11\n   |\n 4 | SELECT 1 +; SELECT 2\n   |           ^"
    );
    assert_eq!(error.statement_index, 2);
    assert!(script.next().is_none());
    assert!(parse_script("SELECT 1; SELECT 'x").collect::<Result<Vec<_>, _>>().is_err());
    assert_eq!(parse_script(" ; -- nothing\n").count(), 0);
}

#[test]
fn deep_nesting_is_an_error() {
    let text = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(parse_statement(&text).expect_err("too deep").message, "the statement is nested too deeply: more than 1000 levels");
}

#[test]
fn users_and_grants() {
    for (text, expected) in [
        (
            "create user if not exists Ada with login encrypted password 's3cret' role Admin limits (rows = 10, statement_timeout = '5s')",
            "CREATE USER IF NOT EXISTS ada PASSWORD '***' ROLE admin LIMITS (rows = '10', statement_timeout = '5s')",
        ),
        ("CREATE USER \"Ada\"", "CREATE USER \"Ada\""),
        ("ALTER USER ada PASSWORD NULL CONNECTION LIMIT 3", "ALTER USER ada PASSWORD NULL LIMITS (connections = '3')"),
        ("DROP USER IF EXISTS a, b", "DROP USER IF EXISTS a, b"),
        ("grant all privileges on schema public to a", "GRANT ALL ON SCHEMA public TO a"),
        ("GRANT INSERT, select, SELECT ON TABLE t, millstream.epochs TO a, b", "GRANT SELECT, INSERT ON t, millstream.epochs TO a, b"),
        ("GRANT SELECT ON MATERIALIZED VIEW v TO a", "GRANT SELECT ON v TO a"),
        ("GRANT SELECT ON view TO a", "GRANT SELECT ON view TO a"),
        ("REVOKE UPDATE, DELETE, TRUNCATE ON t FROM a CASCADE", "REVOKE UPDATE, DELETE, TRUNCATE ON t FROM a"),
        ("SHOW USERS", "SHOW USERS"),
        ("show grants for ada", "SHOW GRANTS FOR ada"),
    ] {
        assert_eq!(canonical(text), expected, "{text}");
    }
}

#[test]
fn passwords_are_not_shown() {
    let statement = parse_statement("ALTER USER ada PASSWORD 's3cret'").unwrap();
    assert!(!format!("{statement:?} {statement}").contains("s3cret"));
    for text in ["CREATE USER ada PASSWORD s3cret", "CREATE USER ada PASSWORD \"s3cret\"", "CREATE USER ada PASSWORD 's3cret' ROLE boss"] {
        assert!(!error(text).contains("s3cret"), "{}", error(text));
    }
}

#[test]
fn wrong_grants_say_what_to_write() {
    for (text, expected) in [
        ("GRANT admin TO ada", "expected SELECT, INSERT, UPDATE, DELETE, TRUNCATE or ALL, found \"admin\""),
        ("GRANT SELECT ON ALL TABLES IN SCHEMA public TO a", "ALL TABLES IN SCHEMA is not supported"),
        ("GRANT SELECT ON t TO a WITH GRANT OPTION", "WITH GRANT OPTION is not supported"),
        ("CREATE USER a ROLE boss", "role \"boss\" does not exist"),
        ("CREATE USER a ROLE reader ROLE admin", "ROLE is given twice"),
        ("ALTER USER a", "ALTER USER changes nothing"),
        ("CREATE ROLE a", "roles cannot be created"),
    ] {
        assert!(error(text).starts_with(expected), "{}", error(text));
    }
}
