//! Which role each kind of statement takes, for users who have every privilege of their role.

use super::*;
use crate::Engine;

#[tokio::test(flavor = "multi_thread")]
async fn statements_take_the_role_they_need() {
    let engine = Engine::builder().manual().build().await.unwrap();
    for sql in ["CREATE TABLE t (a BIGINT)", "CREATE VIEW v AS SELECT a FROM t", "CREATE SINK k WITH (connector = 'console')"] {
        engine.sql(sql).await.unwrap();
    }
    let user = |role: Role| UserDef { name: role.word().into(), role, password: None, limits: UserLimits::default() };
    engine.bring_users(Role::ALL.map(user));
    for (sql, role) in [
        ("SELECT 1", Role::Reader),
        ("SELECT * FROM v, millstream.epochs, generate_series(1, 3)", Role::Reader),
        ("SUBSCRIBE TO v", Role::Reader),
        ("COPY v TO STDOUT", Role::Reader),
        ("SHOW TABLES", Role::Reader),
        ("SHOW QUERIES", Role::Reader),
        ("SHOW CREATE v", Role::Reader),
        ("SET search_path = public", Role::Reader),
        ("BEGIN", Role::Reader),
        ("SAVEPOINT s", Role::Reader),
        ("DECLARE c CURSOR FOR SELECT 1", Role::Reader),
        ("PREPARE p AS SELECT 1", Role::Reader),
        ("EXPLAIN INCREMENTAL SELECT 1", Role::Reader),
        ("INSERT INTO t VALUES (1)", Role::Writer),
        ("EXPLAIN INSERT INTO t VALUES (1)", Role::Writer),
        ("COPY t FROM STDIN", Role::Writer),
        ("UPDATE t SET a = 1", Role::Writer),
        ("DELETE FROM t", Role::Writer),
        ("TRUNCATE TABLE t", Role::Writer),
        ("INSERT INTO k SELECT a FROM t", Role::Admin),
        ("EXPLAIN INCREMENTAL CREATE VIEW w AS SELECT 1 AS a", Role::Admin),
        ("CREATE VIEW w AS SELECT 1 AS a", Role::Admin),
        ("CREATE USER eve", Role::Admin),
        ("GRANT SELECT ON t TO eve", Role::Admin),
        ("ALTER USER admin ROLE reader", Role::Admin),
        ("DROP TABLE t", Role::Admin),
        ("SET trigger = '1s'", Role::Admin),
        ("RESET ALL", Role::Admin),
        ("CHECKPOINT", Role::Admin),
        ("STOP PIPELINE", Role::Admin),
        ("COPY v TO 'x.csv'", Role::Admin),
        ("SELECT * FROM '/etc/passwd'", Role::Admin),
        ("SELECT (SELECT max(a) FROM 'f.parquet')", Role::Admin),
        ("WITH x AS (SELECT * FROM 'f.csv') SELECT * FROM x", Role::Admin),
        ("INSERT INTO t SELECT * FROM 'f.csv'", Role::Admin),
        ("DELETE FROM t WHERE a IN (SELECT a FROM 'f.csv')", Role::Admin),
        ("UPDATE t SET a = (SELECT max(a) FROM 'f.csv')", Role::Admin),
        ("EXPLAIN SELECT * FROM 'f.csv'", Role::Admin),
        ("COPY (SELECT * FROM 'f.csv') TO STDOUT", Role::Admin),
        ("SUBSCRIBE TO (SELECT * FROM 'f.csv')", Role::Admin),
        ("DECLARE c CURSOR FOR SELECT * FROM 'f.csv'", Role::Admin),
    ] {
        let statement = millstream_sql::parse_statement(sql).unwrap();
        for other in Role::ALL {
            let session = engine.session_of(SessionUser::Named(other.word().into()));
            let allowed = session.authorize(&statement);
            assert_eq!(allowed.is_ok(), other >= role, "{other}: {sql}: {allowed:?}");
            assert!(matches!(allowed, Ok(()) | Err(EngineError::Denied { .. })), "{other}: {sql}: {allowed:?}");
        }
        assert!(engine.session().authorize(&statement).is_ok());
        assert!(matches!(engine.session_of(SessionUser::Anybody).authorize(&statement), Err(EngineError::Denied { .. })));
    }
}
