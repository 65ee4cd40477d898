//! How many connections there may be, whatever they speak, and users of the file that change while the server runs.

use crate::ending_tests::{flight, http, pg, read_until, with_users};
use crate::tests::server;
use crate::{Limits, Role, Server, UserEntry};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;

/// Tries until it works: the server notices a little later that a client is gone.
async fn soon<T, E: std::fmt::Debug>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> T {
    for _ in 0..500 {
        if let Ok(done) = attempt().await {
            return done;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    attempt().await.unwrap()
}

fn code<T>(refused: Result<T, tokio_postgres::Error>) -> SqlState {
    refused.err().expect("an error").code().cloned().expect("a code")
}

/// The answer to a request as `ada`, over a connection that is closed behind it.
async fn answer(server: &Server, path: &str) -> String {
    let mut stream = http(server, "ada", "a", path).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The answer to `SELECT 1` as `ada` over HTTP.
async fn select_over_http(server: &Server) -> String {
    let mut stream = TcpStream::connect(server.http_address().unwrap()).await.unwrap();
    let head =
        "Host: 127.0.0.1\r\nAuthorization: Basic YWRhOmE=\r\nConnection: close\r\nContent-Type: application/sql\r\nContent-Length: 8";
    stream.write_all(format!("POST /api/v1/sql HTTP/1.1\r\n{head}\r\n\r\nSELECT 1").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_all_protocols_count_together() {
    let (_engine, server) = with_users(|config| config.limits = Limits { connections: 3, ..Limits::default() }).await;
    let first = pg(&server, "ada", "a").await.unwrap();
    let mut client = flight(&server, "ada", "a").await.unwrap();
    let mut events = http(&server, "ada", "a", "/api/v1/subscribe?query=SELECT%20*%20FROM%20v").await;
    read_until(&mut events, "event: progress").await;

    assert_eq!(code(pg(&server, "boss", "b").await), SqlState::TOO_MANY_CONNECTIONS);
    let refused = flight(&server, "boss", "b").await.err().unwrap();
    assert!(refused.contains("53300") && refused.contains("the server has 3 connections already"), "{refused}");
    let refused = select_over_http(&server).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("53300") && refused.contains("retry-after: 1"), "{refused}");
    assert!(answer(&server, "/health/ready").await.starts_with("HTTP/1.1 200"), "health is told all the same");
    assert!(client.execute("SELECT 1".into(), None).await.is_ok(), "who is there stays");

    drop(first);
    soon(async || pg(&server, "boss", "b").await).await;
    drop(events);
    soon(async || match select_over_http(&server).await {
        answer if answer.starts_with("HTTP/1.1 200") => Ok(()),
        answer => Err(answer),
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_user_has_open_counts_together() {
    let (engine, server) = with_users(|_| {}).await;
    engine.sql("ALTER USER ada LIMITS (connections = 2)").await.unwrap();
    let first = pg(&server, "ada", "a").await.unwrap();
    let mut events = http(&server, "ada", "a", "/api/v1/subscribe?query=SELECT%20*%20FROM%20v").await;
    read_until(&mut events, "event: progress").await;

    assert_eq!(code(pg(&server, "ada", "a").await), SqlState::TOO_MANY_CONNECTIONS);
    let refused = select_over_http(&server).await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("user \\\"ada\\\" has 2 connections already"), "{refused}");
    let refused = flight(&server, "ada", "a").await.err().unwrap();
    assert!(refused.contains("53300"), "{refused}");
    assert!(pg(&server, "boss", "b").await.is_ok(), "others have their own");

    drop(events);
    // A session of Flight SQL counts while its client is connected.
    let mut client = soon(async || flight(&server, "ada", "a").await).await;
    client.execute("SELECT 1".into(), None).await.unwrap();
    assert_eq!(code(pg(&server, "ada", "a").await), SqlState::TOO_MANY_CONNECTIONS);
    drop(client);
    let second = soon(async || pg(&server, "ada", "a").await).await;
    drop((first, second));
    soon(async || match select_over_http(&server).await {
        answer if answer.starts_with("HTTP/1.1 200") => Ok(()),
        answer => Err(answer),
    })
    .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_the_file_come_and_go() {
    let entry = |name: &str| UserEntry::new(name, Role::Reader).with_password("a").with_token(&format!("token of {name}"));
    let boss = UserEntry::new("boss", Role::Admin).with_password("b");
    let (engine, server) = server(|config| config.users = vec![entry("ada"), boss.clone()]).await;
    engine.sql("CREATE TABLE t (id BIGINT)").await.unwrap();
    let ada = pg(&server, "ada", "a").await.unwrap();
    let with_token = async |name: &str| {
        let mut stream = TcpStream::connect(server.http_address().unwrap()).await.unwrap();
        let head = format!("Host: 127.0.0.1\r\nAuthorization: Bearer token of {name}\r\nConnection: close");
        stream.write_all(format!("GET /metrics HTTP/1.1\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_whitespace().nth(1).unwrap_or_default().to_string()
    };
    assert_eq!((with_token("ada").await.as_str(), with_token("bob").await.as_str()), ("200", "401"));

    let twice = [entry("bob"), entry("bob")];
    assert!(server.bring_users(&twice).is_err());
    assert_eq!(with_token("ada").await, "200", "the users before stay");

    server.bring_users(&[entry("bob"), boss.clone()]).unwrap();
    assert_eq!((with_token("ada").await.as_str(), with_token("bob").await.as_str()), ("401", "200"));
    soon(async || if ada.is_closed() { Ok(()) } else { Err("open") }).await;
    assert_eq!(code(pg(&server, "ada", "a").await), SqlState::INVALID_PASSWORD);
    let bob = pg(&server, "bob", "a").await.unwrap();
    let denied = bob.batch_execute("INSERT INTO t VALUES (1)").await;
    assert_eq!(code(denied), SqlState::INSUFFICIENT_PRIVILEGE);
    let names = bob.query("SELECT rolname FROM pg_catalog.pg_roles ORDER BY rolname", &[]).await.unwrap();
    assert_eq!(names.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>(), ["bob", "boss", "postgres"]);

    server.bring_users(&[UserEntry { role: Role::Writer, ..entry("bob") }, boss]).unwrap();
    bob.batch_execute("INSERT INTO t VALUES (1)").await.unwrap();
    server.stop().await;
}
