//! The server as its clients meet it: a PostgreSQL driver, raw bytes, users. Those of Arrow Flight SQL have tests of their own.

use crate::{Config, Limits, Role, Server, UserEntry};
use bytes::BytesMut;
use millstream_engine::Engine;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub(crate) async fn server(change: impl FnOnce(&mut Config)) -> (Engine, Server) {
    let engine = Engine::builder().build().await.unwrap();
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let mut config = Config { pg: Some(loopback), http: Some(loopback), flight: Some(loopback), ..Config::default() };
    change(&mut config);
    let server = Server::start(engine.clone(), config).await.unwrap();
    (engine, server)
}

async fn connect(server: &Server, options: &str) -> Result<Client, tokio_postgres::Error> {
    let address = server.pg_address().unwrap();
    let options = format!("host={} port={} user=me {options}", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&options, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn number(client: &Client, sql: &str) -> i64 {
    client.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_prepares_binds_and_reads_in_parts() {
    let (_engine, server) = server(|_| {}).await;
    let mut client = connect(&server, "").await.unwrap();
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR, at TIMESTAMP)").await.unwrap();
    let insert = client.prepare("INSERT INTO t VALUES ($1, $2, $3)").await.unwrap();
    assert_eq!(insert.params().iter().map(|kind| kind.name()).collect::<Vec<_>>(), ["int8", "text", "timestamp"]);
    for id in 0..10_i64 {
        assert_eq!(client.execute(&insert, &[&id, &format!("w'{id}"), &None::<std::time::SystemTime>]).await.unwrap(), 1);
    }
    let row = client.query_one("SELECT word, id + 1 AS next FROM t WHERE id = $1", &[&7_i64]).await.unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>("next")), ("w'7", 8));
    let updated = client.execute("UPDATE t SET word = $1 WHERE id < $2", &[&"x", &3_i64]).await.unwrap();
    assert_eq!((updated, number(&client, "SELECT count(*) FROM t WHERE word = 'x'").await), (3, 3));
    assert_eq!(client.execute("DELETE FROM t WHERE word = $1 AND id = $2", &[&"x", &0_i64]).await.unwrap(), 1);

    let transaction = client.transaction().await.unwrap();
    let portal = transaction.bind("SELECT id FROM t ORDER BY id", &[]).await.unwrap();
    let first: Vec<i64> = transaction.query_portal(&portal, 4).await.unwrap().iter().map(|row| row.get(0)).collect();
    let rest = transaction.query_portal(&portal, 0).await.unwrap();
    assert_eq!((first, rest.len()), (vec![1, 2, 3, 4], 5));
    transaction.commit().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_is_asked_again_sees_what_is_there_now() {
    let (_engine, server) = server(|_| {}).await;
    let client = connect(&server, "").await.unwrap();
    let define = "CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR, price DECIMAL(9, 2), day DATE);
        CREATE MATERIALIZED VIEW sums AS SELECT word, sum(id)::BIGINT AS total FROM t GROUP BY word;
        CREATE VIEW bigger AS SELECT * FROM sums WHERE total > 1";
    client.batch_execute(define).await.unwrap();
    let by_id = client.prepare("SELECT word FROM t WHERE id = $1").await.unwrap();
    let by_word = client.prepare("SELECT total + $2 FROM bigger WHERE word = $1 ORDER BY total LIMIT $3").await.unwrap();
    let by_day =
        client.prepare("SELECT count(*) FROM t WHERE day < $1::VARCHAR::DATE AND price > $2::VARCHAR::DECIMAL(9, 2)").await.unwrap();
    for (id, word) in [(1_i64, "a"), (2, "b"), (3, "a")] {
        let insert = format!("INSERT INTO t VALUES ({id}, '{word}', {id}.25, DATE '2026-01-0{id}')");
        client.batch_execute(&insert).await.unwrap();
        assert_eq!(client.query_one(&by_id, &[&id]).await.unwrap().get::<_, &str>(0), word);
    }
    let total = client.query_one(&by_word, &[&"a", &10_i64, &1_i64]).await.unwrap();
    assert_eq!(total.get::<_, i64>(0), 14);
    assert_eq!(client.query(&by_word, &[&"a", &10_i64, &0_i64]).await.unwrap().len(), 0);
    let days = client.query_one(&by_day, &[&"2026-01-03", &"1.5"]).await.unwrap();
    assert_eq!(days.get::<_, i64>(0), 1);
    assert!(client.query_one(&by_day, &[&"tomorrow", &"1.5"]).await.is_err(), "no day");

    client.batch_execute("UPDATE t SET word = 'c' WHERE id = 1").await.unwrap();
    assert_eq!(client.query_one(&by_id, &[&1_i64]).await.unwrap().get::<_, &str>(0), "c");
    client.batch_execute("BEGIN; INSERT INTO t VALUES (4, 'd', 0, NULL)").await.unwrap();
    assert_eq!(client.query(&by_id, &[&4_i64]).await.unwrap().len(), 0, "a transaction sees what was there at BEGIN");
    client.batch_execute("COMMIT").await.unwrap();
    assert_eq!(client.query_one(&by_id, &[&4_i64]).await.unwrap().get::<_, &str>(0), "d");
    assert_eq!(client.query(&by_id, &[&None::<i64>]).await.unwrap().len(), 0);

    // Another relation of the same name.
    client.batch_execute("DROP VIEW bigger; DROP MATERIALIZED VIEW sums; DROP TABLE t").await.unwrap();
    let gone = client.query(&by_id, &[&1_i64]).await.unwrap_err();
    assert_eq!(gone.code(), Some(&SqlState::UNDEFINED_TABLE));
    client.batch_execute("CREATE TABLE t (word VARCHAR, id BIGINT); INSERT INTO t VALUES ('new', 1), ('newer', 1)").await.unwrap();
    assert_eq!(client.query(&by_id, &[&1_i64]).await.unwrap().len(), 2);
    // What depends on the time of its call is never kept.
    let before: i64 = client.query_one("SELECT extract(epoch FROM now())::BIGINT + count(*) FROM t", &[]).await.unwrap().get(0);
    let later = "SELECT extract(epoch FROM now())::BIGINT + count(*) - $1 FROM t";
    for _ in 0..3 {
        let passed: i64 = client.query_one(later, &[&before]).await.unwrap().get(0);
        assert!((0..600).contains(&passed), "{passed}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_costs_only_its_statement() {
    let (_engine, server) = server(|_| {}).await;
    let client = connect(&server, "").await.unwrap();
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    let code = |error: tokio_postgres::Error| error.code().cloned().unwrap();
    assert_eq!(code(client.query("SELECT * FROM nosuch", &[]).await.unwrap_err()), SqlState::UNDEFINED_TABLE);
    assert_eq!(code(client.query("SELEC", &[]).await.unwrap_err()), SqlState::SYNTAX_ERROR);
    assert_eq!(code(client.query("SELECT 1 / 0", &[]).await.unwrap_err()), SqlState::DIVISION_BY_ZERO);
    let placed = client.query("SELECT 1,\n nosuch FROM t", &[]).await.unwrap_err();
    let database = placed.as_db_error().unwrap();
    assert_eq!(format!("{:?}", database.position()), "Some(Original(12))");

    client.batch_execute("BEGIN; INSERT INTO t VALUES (1); SAVEPOINT s; INSERT INTO t VALUES (2)").await.unwrap();
    assert!(client.batch_execute("INSERT INTO t VALUES (1)").await.is_err(), "a duplicate");
    client.batch_execute("ROLLBACK TO SAVEPOINT s; INSERT INTO t VALUES (3); COMMIT").await.unwrap();
    assert_eq!(number(&client, "SELECT sum(id)::BIGINT FROM t").await, 4);
    let messages = client.simple_query("SELECT 1; SELECT 1 / 0; SELECT 2").await;
    assert_eq!(code(messages.unwrap_err()), SqlState::DIVISION_BY_ZERO);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_stream_and_are_canceled() {
    let (engine, server) = server(|_| {}).await;
    engine.sql("CREATE STREAM s (n BIGINT)").await.unwrap();
    engine.sql("CREATE MATERIALIZED VIEW v AS SELECT sum(n) AS total FROM s").await.unwrap();
    let client = connect(&server, "").await.unwrap();
    client.batch_execute("INSERT INTO s VALUES (1); DECLARE c CURSOR FOR SUBSCRIBE TO v").await.unwrap();
    let ops = |messages: Vec<SimpleQueryMessage>| -> Vec<String> {
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(format!("{} {}", row.get("op").unwrap(), row.get("total").unwrap_or("-"))),
            _ => None,
        };
        messages.iter().filter_map(row).collect()
    };
    assert_eq!(ops(client.simple_query("FETCH ALL FROM c").await.unwrap()), ["+I 1", "= -"]);
    client.batch_execute("INSERT INTO s VALUES (2)").await.unwrap();
    assert_eq!(ops(client.simple_query("FETCH 2 FROM c WITH (timeout = '20s')").await.unwrap()), ["-D 1", "+I 3"]);
    assert_eq!(ops(client.simple_query("FETCH ALL FROM c").await.unwrap()), [""; 0]);
    client.batch_execute("INSERT INTO s VALUES (3); MOVE 2 FROM c WITH (timeout = '20s')").await.unwrap();
    assert_eq!(ops(client.simple_query("FETCH 1 FROM c").await.unwrap()), [""; 0]);

    let token = client.cancel_token();
    let (canceled, ()) = tokio::join!(client.simple_query("SUBSCRIBE TO v"), async {
        // Asked for until it is heard: the statement may not have begun yet.
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            token.cancel_query(NoTls).await.unwrap();
        }
    });
    assert_eq!(canceled.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    client.batch_execute("SET statement_timeout = '100ms'").await.unwrap();
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    assert_eq!(client.simple_query(endless).await.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    assert_eq!(number(&client, "SELECT 7::BIGINT").await, 7);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_get_in_with_their_password_and_do_what_their_role_allows() {
    let (engine, server) = server(|config| {
        config.users = vec![
            UserEntry::new("me", Role::Reader).with_password("se'cret").with_token("t-reader"),
            UserEntry::new("boss", Role::Admin).with_password("x"),
        ];
    })
    .await;
    engine.sql("CREATE TABLE t (id BIGINT)").await.unwrap();
    assert_eq!(connect(&server, "password=wrong").await.err().unwrap().code(), Some(&SqlState::INVALID_PASSWORD));
    let address = server.pg_address().unwrap();
    let nobody = format!("host={} port={} user=nobody password=x", address.ip(), address.port());
    assert_eq!(tokio_postgres::connect(&nobody, NoTls).await.err().unwrap().code(), Some(&SqlState::INVALID_PASSWORD));
    let client = connect(&server, r"password='se\'cret'").await.unwrap();
    assert_eq!(number(&client, "SELECT count(*) FROM t").await, 0);
    for sql in
        ["INSERT INTO t VALUES (1)", "CREATE VIEW v AS SELECT 1 AS a", "SELECT * FROM '/etc/passwd'", "SET trigger = '1s'", "CHECKPOINT"]
    {
        assert_eq!(client.batch_execute(sql).await.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}");
        assert!(client.prepare(sql).await.is_err(), "{sql}");
    }
    client.batch_execute("SET search_path = public").await.unwrap();

    let http = server.http_address().unwrap();
    assert!(http_get(http, "/metrics", "").await.starts_with("HTTP/1.1 401"));
    assert!(http_get(http, "/metrics", "Authorization: Bearer t-reader\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(http, "/health/live", "").await.starts_with("HTTP/1.1 200"));
    server.stop().await;
}

async fn http_get(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn http_post(address: SocketAddr, path: &str, kind: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Every type of SQL: a JSON value that a column takes, and one that it does not.
const KINDS: [(&str, &str, &str); 22] = [
    ("BOOLEAN", "true", "1"),
    ("TINYINT", "-128", "128"),
    ("SMALLINT", "7", "7.0"),
    ("INT", "7", "2147483648"),
    ("BIGINT", "9223372036854775807", "9223372036854775808"),
    ("TINYINT UNSIGNED", "255", "-1"),
    ("SMALLINT UNSIGNED", "7", "65536"),
    ("INT UNSIGNED", "7", "1e3"),
    ("BIGINT UNSIGNED", "18446744073709551615", "\"12\""),
    ("REAL", "1.5", "1e39"),
    ("DOUBLE", "0.1", "\"0.1\""),
    ("DECIMAL(6, 2)", "1.5", "1.234"),
    ("DECIMAL(50, 2)", "123456789012345678901234567890123456789012345678.25", "0.001"),
    ("VARCHAR", "\"a\"", "5"),
    ("BYTEA", "\"00ff\"", "\"xyz\""),
    ("DATE", "\"2024-02-29\"", "\"2023-02-29\""),
    ("TIME", "\"01:02:03.000004\"", "\"24:01\""),
    ("TIMESTAMP", "\"2024-05-01T12:00:00.000001\"", "\"2024-05-01T12:00:00.0000001\""),
    ("TIMESTAMP(9)", "\"2024-05-01T12:00:00.000000001\"", "1714557600"),
    ("TIMESTAMPTZ", "\"2024-05-01T12:00:00+02:00\"", "\"yesterday\""),
    ("INTERVAL", "\"1 day 2 hours\"", "\"soon\""),
    ("BIGINT[]", "[1,null]", "[9.5]"),
];

#[tokio::test(flavor = "multi_thread")]
async fn rows_over_http_fit_every_type_exactly_or_none_is_taken() {
    let (engine, server) = server(|_| {}).await;
    let http = server.http_address().unwrap();
    let columns: Vec<String> = KINDS.iter().enumerate().map(|(index, (kind, _, _))| format!("c{index} {kind}")).collect();
    let columns = columns.join(", ");
    engine.sql(&format!("CREATE TABLE t (id BIGINT NOT NULL, {columns})")).await.unwrap();
    engine.sql(&format!("CREATE STREAM s (id BIGINT NOT NULL, {columns})")).await.unwrap();
    let client = connect(&server, "").await.unwrap();
    let count = || number(&client, "SELECT (SELECT count(*) FROM t) + (SELECT count(*) FROM s)");
    let row = |id: &str, change: Option<(usize, &str)>| {
        let value = |(index, (_, value, _)): (usize, &(&str, &'static str, &str))| {
            let value = change.filter(|(changed, _)| *changed == index).map_or((*value).to_string(), |(_, value)| value.to_string());
            format!("\"c{index}\":{value}")
        };
        format!("{{\"id\":{id},{}}}\n", KINDS.iter().enumerate().map(value).collect::<Vec<_>>().join(","))
    };
    let mut expected = 0;
    for relation in ["t", "s"] {
        let path = format!("/api/v1/streams/{relation}/rows");
        let post = |kind: &'static str, body: String| {
            let path = path.clone();
            async move { http_post(http, &path, kind, body.as_bytes()).await }
        };
        let taken = post("application/x-ndjson", row("1", None) + "\n" + &row("2", None)).await;
        assert!(taken.starts_with("HTTP/1.1 200") && taken.contains("\"rows\":2"), "{taken}");
        expected += 2;
        for (index, (kind, _, wrong)) in KINDS.iter().enumerate() {
            let refused = post("application/x-ndjson", row("1", None) + "\n" + &row("2", Some((index, wrong)))).await;
            let named = format!("row 2 (line 3): column \\\"c{index}");
            assert!(refused.starts_with("HTTP/1.1 400") && refused.contains(&named), "{kind} {wrong}: {refused}");
            let array = format!("[{},{}]", row("1", None), row("2", Some((index, wrong))));
            let refused = post("application/json", array).await;
            let named = format!("row 2: column \\\"c{index}");
            assert!(refused.starts_with("HTTP/1.1 400") && refused.contains(&named), "{kind} {wrong}: {refused}");
            let quoted = kind.starts_with("BIGINT UNSIGNED") || kind.starts_with("DOUBLE") || kind.starts_with("VARCHAR");
            if !quoted && !kind.ends_with("[]") {
                let text = wrong.trim_matches('"');
                // What may be TRUE has more forms in CSV than in JSON, 1 is none of them.
                let refused = post("text/csv", format!("id,c{index}\n1,\n2,{text}\n")).await;
                let named = format!("row 2 (line 3): column \\\"c{index}");
                assert!(refused.starts_with("HTTP/1.1 400") && refused.contains(&named), "{kind} {text}: {refused}");
            }
        }
        for (kind, body, named) in [
            ("application/x-ndjson", "{\"id\":9.5}", "row 1 (line 1): column \\\"id\\\": '9.5' is not a valid BIGINT"),
            ("application/x-ndjson", "{\"id\":1}\n{}", "row 2 (line 2): column \\\"id\\\": the row has no such field"),
            ("application/x-ndjson", "{\"id\":1,\"nosuch\":2}", "row 1 (line 1): the field \\\"nosuch\\\" is no column"),
            ("text/csv", "id,nosuch\n1,2\n", "line 1: the header has \\\"nosuch\\\", which is no column"),
        ] {
            let refused = post(kind, body.to_string()).await;
            assert!(refused.starts_with("HTTP/1.1 400") && refused.contains(named), "{body}: {refused}");
        }
        assert_eq!(count().await, expected, "nothing of what was refused is there");
        let csv = post("text/csv", "id,c13,c4\n3,\"\",\n".into()).await;
        assert!(csv.starts_with("HTTP/1.1 200"), "{csv}");
        expected += 1;
        let empty = format!("SELECT count(*) FROM {relation} WHERE id = 3 AND c13 = '' AND c4 IS NULL");
        assert_eq!(number(&client, &empty).await, 1, "an empty text in quotes is no NULL");
    }
    assert_eq!(count().await, expected);
    server.stop().await;
}

/// Sends bytes and reads until the server closes, or says nothing for a moment.
async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(50), stream.read_to_end(&mut answer)).await;
    answer
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend((i32::try_from(body.len()).unwrap() + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn startup() -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 16, 0, 3, 0, 0];
    bytes.extend(b"user\0m\0\0");
    bytes[3] = u8::try_from(bytes.len()).unwrap();
    bytes
}

/// Requests that mean harm: each is refused or survived, and the server serves on.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_cost_only_their_connection() {
    use rand::{Rng, SeedableRng};
    let (_engine, server) = server(|config| config.limits = Limits { message_bytes: 100_000, prepared: 50, ..Limits::default() }).await;
    let (pg, http) = (server.pg_address().unwrap(), server.http_address().unwrap());
    let deep = format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000));
    let nested = format!("SELECT {}", "NOT ".repeat(20_000));
    let mut requests: Vec<Vec<u8>> = vec![
        vec![],
        vec![0],
        vec![0, 0, 0, 0],
        vec![0xff; 64],
        vec![0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        vec![0, 0, 0, 8, 4, 210, 22, 47],
        vec![0, 0, 0, 8, 0, 2, 0, 0],
        vec![0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2],
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
    ];
    let sessions: Vec<Vec<u8>> = vec![
        frame(b'Q', b"no end"),
        frame(b'Q', b"\xff\xfe\0"),
        b"Q\x7f\xff\xff\xff".to_vec(),
        b"Q\0\0\0\0".to_vec(),
        b"Q\xff\xff\xff\xff".to_vec(),
        frame(b'?', b""),
        frame(b'p', b"x\0"),
        frame(b'E', b"nosuch\0\0\0\0\0"),
        frame(b'B', b"\0nosuch\0\0\0\0\0\0\0"),
        frame(b'B', b"\0\0\xff\xff"),
        frame(b'D', b"Snosuch\0"),
        frame(b'C', b"Pnosuch\0"),
        frame(b'd', b"stray rows"),
        frame(b'c', b""),
        frame(b'f', b"stray\0"),
        frame(b'F', &[0; 12]),
        frame(b'Q', format!("{deep}\0").as_bytes()),
        frame(b'Q', format!("{nested}\0").as_bytes()),
        frame(b'Q', format!("SELECT {}\0", vec!["1"; 20_000].join("+")).as_bytes()),
        frame(b'Q', format!("SELECT version(), {}\0", vec!["1"; 20_000].join("+")).as_bytes()),
        frame(b'Q', format!("SELECT 1{}\0", "::int".repeat(10_000)).as_bytes()),
        frame(b'Q', format!("{}\0", vec!["SELECT 1"; 5_000].join(" UNION ALL ")).as_bytes()),
        frame(b'Q', b"COPY nosuch FROM STDIN\0"),
        frame(b'Q', b"SELECT '\0"),
        frame(b'Q', b"SELECT $$\0"),
        frame(b'Q', b"/* no end\0"),
        frame(b'Q', b"SELECT repeat('x', 1000000000000)\0"),
        frame(b'P', b"\0SELECT $99999999\0\0\0"),
        frame(b'P', b"\0SELECT 1; SELECT 2\0\0\0"),
        [frame(b'P', b"\0SELECT $1\0\0\x01\0\0\0\x14"), frame(b'B', b"\0\0\0\x01\0\x01\0\x01\0\0\0\x03abc\0\0"), frame(b'S', b"")].concat(),
        (0..200).flat_map(|n| frame(b'P', format!("s{n}\0SELECT 1\0\0\0").as_bytes())).collect(),
        frame(b'S', b"").repeat(1_000),
        frame(b'H', b"").repeat(1_000),
    ];
    requests.extend(sessions.iter().map(|session| [startup(), session.clone()].concat()));
    let mut random = rand::rngs::SmallRng::seed_from_u64(11);
    for _ in 0..80 {
        let mut bytes = startup();
        for _ in 0..random.random_range(1..6) {
            let body: Vec<u8> = (0..random.random_range(0..60)).map(|_| random.random()).collect();
            bytes.extend(frame(b"QPBDECHSXdcfFp"[random.random_range(0..14)], &body));
        }
        requests.push(bytes);
    }
    assert!(requests.len() > 100);
    for request in &requests {
        answer_to(pg, request).await;
    }
    let client = connect(&server, "").await.unwrap();
    assert_eq!(number(&client, "SELECT 1::BIGINT").await, 1, "after {} hostile requests", requests.len());

    let mut requests: Vec<Vec<u8>> = [
        "",
        "\r\n\r\n",
        "GET",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/v1/streams/..%2f..%2fetc/rows HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sql\r\nContent-Length: 99999999999999\r\n\r\n",
        "POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/sql\r\nContent-Length: -1\r\n\r\n",
        "POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nSELECT 1",
        "POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{\"query\":",
        "POST /api/v1/sql HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/sql\r\nContent-Length: 8\r\n\r\nSELECT 1",
        "POST /api/v1/sql HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "GET /api/v1/subscribe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/v1/subscribe?query=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /api/v1/subscribe?query=DROP%20TABLE%20t HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    .iter()
    .map(|request| request.as_bytes().to_vec())
    .collect();
    requests.push([b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 200_000]].concat());
    requests.push(frame(b'Q', b"SELECT 1\0"));
    for _ in 0..90 {
        let mut bytes = b"POST /api/v1/streams/s/rows HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n".to_vec();
        let body: Vec<u8> = (0..random.random_range(0..80)).map(|_| random.random()).collect();
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
        requests.push(bytes);
    }
    assert!(requests.len() > 100);
    for request in &requests {
        answer_to(http, request).await;
    }
    assert!(http_get(http, "/health/ready", "").await.starts_with("HTTP/1.1 200"));
    let refused = answer_to(http, &requests[8]).await;
    assert!(String::from_utf8_lossy(&refused).contains("a statement comes as application/sql or application/json"));
    let rebound = answer_to(http, &requests[10]).await;
    assert!(rebound.starts_with(b"HTTP/1.1 403"), "{}", String::from_utf8_lossy(&rebound));
    server.stop().await;
}

/// A client that does not read holds back its own rows, and nobody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_costs_nobody_else() {
    let (_engine, server) = server(|_| {}).await;
    let mut slow = TcpStream::connect(server.pg_address().unwrap()).await.unwrap();
    let endless = b"SELECT a.value, b.value FROM generate_series(1, 100000) a CROSS JOIN generate_series(1, 100000) b\0";
    slow.write_all(&[startup(), frame(b'Q', endless)].concat()).await.unwrap();
    let client = connect(&server, "").await.unwrap();
    for n in 0..20_i64 {
        assert_eq!(number(&client, &format!("SELECT {n}::BIGINT")).await, n);
    }
    drop(slow);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_says_so() {
    let (_engine, server) = server(|config| config.limits.grace = Duration::from_millis(100)).await;
    let mut idle = TcpStream::connect(server.pg_address().unwrap()).await.unwrap();
    idle.write_all(&startup()).await.unwrap();
    let mut greeting = BytesMut::new();
    while !greeting.ends_with(b"Z\0\0\0\x05I") {
        idle.read_buf(&mut greeting).await.unwrap();
    }
    let full = connect(&server, "").await.unwrap();
    let following = tokio::spawn(async move { full.simple_query("SUBSCRIBE TO (SELECT 1 AS one)").await });
    server.stop().await;
    let mut farewell = Vec::new();
    idle.read_to_end(&mut farewell).await.unwrap();
    assert!(String::from_utf8_lossy(&farewell).contains("57P01"));
    assert!(following.await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_the_catalog_get_in_and_reach_what_was_granted() {
    let (engine, server) = server(|_| {}).await;
    let first = connect(&server, "").await.unwrap();
    first.batch_execute("CREATE TABLE t (id BIGINT); CREATE TABLE hidden (id BIGINT)").await.unwrap();
    let refused = first.batch_execute("CREATE USER me PASSWORD 'x' ROLE reader").await.unwrap_err();
    assert!(refused.to_string().contains("db error") && refused.as_db_error().unwrap().message().contains("must be an admin"));
    first.batch_execute("CREATE USER boss PASSWORD 'b' ROLE admin").await.unwrap();
    // From now on a connection without a user may do nothing more.
    assert_eq!(first.batch_execute("SELECT 1").await.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    assert_eq!(connect(&server, "password=x").await.err().unwrap().code(), Some(&SqlState::INVALID_PASSWORD));
    let address = server.pg_address().unwrap();
    let boss = format!("host={} port={} user=boss password=b", address.ip(), address.port());
    let (boss, connection) = tokio_postgres::connect(&boss, NoTls).await.unwrap();
    tokio::spawn(connection);
    boss.batch_execute("CREATE USER me PASSWORD 's3cret'; GRANT SELECT ON t TO me").await.unwrap();

    let me = connect(&server, "password=s3cret").await.unwrap();
    assert_eq!(number(&me, "SELECT count(*) FROM t").await, 0);
    let code = |error: tokio_postgres::Error| error.code().cloned().unwrap();
    for sql in ["SELECT * FROM hidden", "INSERT INTO t VALUES (1)", "COPY hidden TO STDOUT", "DECLARE c CURSOR FOR SELECT * FROM hidden"] {
        assert_eq!(code(me.batch_execute(sql).await.unwrap_err()), SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
        assert_eq!(code(me.prepare(sql).await.unwrap_err()), SqlState::INSUFFICIENT_PRIVILEGE, "{sql}");
    }
    assert_eq!(code(me.batch_execute("COPY t FROM STDIN").await.unwrap_err()), SqlState::INSUFFICIENT_PRIVILEGE);
    let prepared = me.prepare("SELECT count(*) FROM t").await.unwrap();
    boss.batch_execute("REVOKE SELECT ON t FROM me").await.unwrap();
    assert_eq!(code(me.query(&prepared, &[]).await.unwrap_err()), SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(code(boss.batch_execute("DROP USER nobody").await.unwrap_err()), SqlState::UNDEFINED_OBJECT);
    let shown = format!("{:?}", boss.simple_query("SHOW USERS").await.unwrap());
    assert!(shown.contains("boss") && !shown.contains("SCRAM"), "{shown}");

    let http = server.http_address().unwrap();
    let basic = |name_and_password: &str| {
        use base64::Engine as _;
        format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(name_and_password))
    };
    assert!(http_get(http, "/metrics", &basic("boss:b")).await.starts_with("HTTP/1.1 200"));
    assert!(http_get(http, "/metrics", &basic("boss:x")).await.starts_with("HTTP/1.1 401"));
    assert!(http_get(http, "/metrics", &basic("nobody:b")).await.starts_with("HTTP/1.1 401"));
    assert!(http_get(http, "/metrics", &basic("me:s3cret")).await.starts_with("HTTP/1.1 403"), "it takes SELECT on millstream.epochs");
    let path = "/api/v1/subscribe?query=SELECT%20*%20FROM%20hidden";
    let refused = http_get(http, path, &basic("me:s3cret")).await;
    assert!(refused.starts_with("HTTP/1.1 403") && refused.contains("may not read"), "{refused}");
    assert!(engine.has_users());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_held_to_their_limits() {
    let (engine, server) = server(|config| config.limits.rows = Some(1_000)).await;
    let boss = engine.session();
    boss.execute("CREATE USER boss PASSWORD 'b' ROLE admin").await.unwrap();
    let limits = "rows = 100, memory = '1 MB', statement_bytes = '1 kB', connections = 1";
    boss.execute(&format!("CREATE USER me PASSWORD 'm' LIMITS ({limits})")).await.unwrap();
    let me = connect(&server, "password=m").await.unwrap();
    let code = |error: tokio_postgres::Error| error.code().cloned().unwrap();
    assert_eq!(number(&me, "SELECT count(*) FROM generate_series(1, 1000)").await, 1_000);
    assert_eq!(code(me.simple_query("SELECT * FROM generate_series(1, 101)").await.unwrap_err()).code(), "54000");
    assert_eq!(me.query("SELECT * FROM generate_series(1, 100)", &[]).await.unwrap().len(), 100);
    let join = "SELECT count(*) FROM generate_series(1, 300000) AS a JOIN generate_series(1, 300000) AS b ON a.value = b.value";
    assert_eq!(code(me.simple_query(join).await.unwrap_err()), SqlState::OUT_OF_MEMORY);
    boss.execute("ALTER USER me LIMITS (statement_timeout = '300ms')").await.unwrap();
    let endless = "SELECT count(*) FROM generate_series(1, 1000000000000)";
    assert_eq!(code(me.simple_query(endless).await.unwrap_err()), SqlState::QUERY_CANCELED);
    let long = format!("SELECT '{}'", "x".repeat(1_000));
    assert_eq!(code(me.simple_query(&long).await.unwrap_err()).code(), "54000");
    assert_eq!(code(me.prepare(&long).await.unwrap_err()).code(), "54000");
    assert_eq!(connect(&server, "password=m").await.err().unwrap().code(), Some(&SqlState::TOO_MANY_CONNECTIONS));

    // Another user has the server's limits alone, and does not notice.
    let address = server.pg_address().unwrap();
    let boss = format!("host={} port={} user=boss password=b", address.ip(), address.port());
    let (boss, connection) = tokio_postgres::connect(&boss, NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(number(&boss, join).await, 300_000);
    assert_eq!(code(boss.simple_query("SELECT * FROM generate_series(1, 1001)").await.unwrap_err()).code(), "54000");
    boss.batch_execute("ALTER USER me LIMITS (rows = none, connections = 2, statement_timeout = none)").await.unwrap();
    assert_eq!(me.query("SELECT * FROM generate_series(1, 1000)", &[]).await.unwrap().len(), 1_000);
    let second = connect(&server, "password=m").await.unwrap();
    assert_eq!(number(&second, "SELECT 1::BIGINT").await, 1);
    drop(second);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_is_watched_over_http() {
    let (engine, server) = server(|config| {
        config.users = vec![UserEntry::new("boss", Role::Admin).with_token("t"), UserEntry::new("file", Role::Reader).with_token("reader")];
    })
    .await;
    engine.sql("CREATE STREAM s (n BIGINT)").await.unwrap();
    engine.sql("CREATE SINK k AS SELECT n FROM s WITH (connector = 'blackhole')").await.unwrap();
    engine.sql("INSERT INTO s VALUES (1), (2)").await.unwrap();
    engine.sql("CREATE USER ann PASSWORD 'a' ROLE reader").await.unwrap();
    let http = server.http_address().unwrap();
    let get = async |path: &str| http_get(http, path, "Authorization: Bearer t\r\n").await;
    let body = |answer: String| -> serde_json::Value {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    assert_eq!(body(get("/api/v1/pipelines").await)[0]["name"], "main");
    let statistics = body(get("/api/v1/pipelines/main/statistics").await);
    assert_eq!((&statistics["numReceivers"], &statistics["numReceivedRecords"]), (&1.into(), &2.into()), "{statistics}");
    assert_eq!(body(get("/api/v1/pipelines/main/receivers").await)[0]["streamName"], "s");
    assert_eq!(body(get("/api/v1/pipelines/main/receivers/s").await)["numRecords"], 2);
    let batches = body(get("/api/v1/pipelines/main/batches").await);
    let epoch = batches.as_array().unwrap().iter().find(|batch| batch["inputSize"] == 2).unwrap()["batchId"].as_u64().unwrap();
    let of_epoch = format!("/api/v1/pipelines/main/batches/{epoch}");
    assert_eq!(body(get(&of_epoch).await)["status"], "COMPLETED");
    assert_eq!(body(get(&format!("{of_epoch}/operations")).await)[0]["name"], "k");
    assert_eq!(body(get(&format!("{of_epoch}/operations/k")).await)["numRecords"], 2);
    for table in ["queries", "epochs", "sources", "sinks", "operators", "checkpoints", "errors"] {
        let answer = get(&format!("/api/v1/pipelines/main/{table}")).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"columns\""), "{table}: {answer}");
    }
    for path in [
        "/api/v1/pipelines/other/epochs",
        "/api/v1/pipelines/main/nothing",
        "/api/v1/pipelines/main/receivers/x",
        "/api/v1/pipelines/main/batches/99999",
    ] {
        assert!(get(path).await.starts_with("HTTP/1.1 404"), "{path}");
    }
    let document = http_get(http, "/api/v1/openapi.json", "").await;
    assert!(document.contains("/api/v1/pipelines/{pipeline}/statistics"));
    // Who may not read the system tables sees nothing of it here either.
    use base64::Engine as _;
    let ann = format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode("ann:a"));
    for path in ["statistics", "receivers", "batches", "epochs", "queries"] {
        assert!(http_get(http, &format!("/api/v1/pipelines/main/{path}"), &ann).await.starts_with("HTTP/1.1 403"), "{path}");
    }
    assert!(http_get(http, "/api/v1/pipelines/main/epochs", "Authorization: Bearer reader\r\n").await.starts_with("HTTP/1.1 200"));
    assert!(http_get(http, "/api/v1/pipelines/main/epochs", "").await.starts_with("HTTP/1.1 401"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_have_cursors_and_prepared_statements() {
    let (_engine, server) = server(|_| {}).await;
    let client = connect(&server, "").await.unwrap();
    client.batch_execute("CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t SELECT value FROM generate_series(1, 9)").await.unwrap();
    client.execute("DECLARE c CURSOR FOR SELECT id FROM t WHERE id > $1 ORDER BY id", &[&3_i64]).await.unwrap();
    assert_eq!(client.execute("MOVE 2 FROM c", &[]).await.unwrap(), 2);
    assert_eq!(number(&client, "FETCH 1 FROM c").await, 6);
    client.batch_execute("PREPARE p AS FETCH 1 FROM c; PREPARE above AS SELECT id FROM t WHERE id > $1 ORDER BY id").await.unwrap();
    assert_eq!(number(&client, "EXECUTE p").await, 7);
    assert_eq!(client.query("EXECUTE above(5)", &[]).await.unwrap().len(), 4);
    let above = client.prepare("EXECUTE above($1)").await.unwrap();
    assert_eq!(client.query(&above, &[&7_i64]).await.unwrap().len(), 2);
    let code = |error: tokio_postgres::Error| error.code().cloned().unwrap();
    assert_eq!(code(client.query("EXECUTE nosuch", &[]).await.unwrap_err()), SqlState::INVALID_SQL_STATEMENT_NAME);
    assert_eq!(code(client.batch_execute("PREPARE p AS SELECT 1").await.unwrap_err()), SqlState::DUPLICATE_PSTATEMENT);
    assert_eq!(code(client.batch_execute("DECLARE c CURSOR FOR SELECT 1").await.unwrap_err()), SqlState::DUPLICATE_CURSOR);
    client.batch_execute("DISCARD ALL").await.unwrap();
    assert_eq!(code(client.batch_execute("FETCH 1 FROM c").await.unwrap_err()), SqlState::INVALID_CURSOR_NAME);
    assert_eq!(code(client.batch_execute("EXECUTE p").await.unwrap_err()), SqlState::INVALID_SQL_STATEMENT_NAME);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_over_http() {
    let (engine, server) = server(|_| {}).await;
    engine.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)").await.unwrap();
    engine.sql("INSERT INTO t VALUES (1, 'a'), (2, NULL)").await.unwrap();
    let address = server.http_address().unwrap();
    let sql = async |text: &str| http_post(address, "/api/v1/sql", "application/sql", text.as_bytes()).await;
    let rows = "COPY (SELECT * FROM t ORDER BY id) TO STDOUT";
    let json = sql(rows).await;
    // Where the rows end, a chunk of the body may end, too.
    assert!(json.contains(r#""rows":[{"id":1,"word":"a"},{"id":2,"word":null}"#), "{json}");
    let csv = sql(&format!("{rows} (FORMAT csv, HEADER)")).await;
    assert!(csv.contains("content-type: text/csv") && csv.contains("id,word\n1,a\n2,\n"), "{csv}");
    let text = sql(&format!("{rows} (FORMAT text)")).await;
    assert!(text.contains("content-type: text/plain") && text.contains("1\ta\n2\t\\N\n"), "{text}");
    assert!(sql("COPY (SELECT 1 / (id - 1) FROM t) TO STDOUT (FORMAT csv)").await.starts_with("HTTP/1.1 400"));
    for (statement, hint) in [
        ("COPY t FROM STDIN", "POST /api/v1/streams/t/rows"),
        ("DECLARE c CURSOR FOR SELECT 1", "A cursor needs a connection"),
        ("FETCH 1 FROM c", "A cursor needs a connection"),
        ("MOVE 1 FROM c", "A cursor needs a connection"),
        ("CLOSE c", "A cursor needs a connection"),
        ("PREPARE p AS SELECT 1", "parameters"),
        ("EXECUTE p", "parameters"),
        ("DEALLOCATE p", "parameters"),
        ("BEGIN", "A transaction needs a connection"),
    ] {
        let answer = sql(statement).await;
        assert!(answer.contains(r#""code":"0A000""#) && answer.contains(hint), "{statement}: {answer}");
    }
    server.stop().await;
}
