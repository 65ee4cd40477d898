//! What ends when the rights end that it began with: subscriptions over every protocol, and connections of users who are gone.

use crate::tests::server;
use crate::{Config, Server};
use arrow_flight::sql::client::FlightSqlServiceClient;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use millstream_engine::Engine;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tonic::transport::Channel;

/// How long something may take that happens at once.
const SOON: Duration = Duration::from_secs(20);

/// A server with the admin `boss`, and a view `v` that `ada` may read, who is a reader.
pub(crate) async fn with_users(change: impl FnOnce(&mut Config)) -> (Engine, Server) {
    let (engine, server) = server(change).await;
    for statement in [
        "CREATE STREAM s (n BIGINT)",
        "CREATE MATERIALIZED VIEW v AS SELECT sum(n) AS total FROM s",
        "CREATE USER boss PASSWORD 'b' ROLE admin",
        "CREATE USER ada PASSWORD 'a'",
        "GRANT SELECT ON v TO ada",
        "INSERT INTO s VALUES (1)",
    ] {
        engine.sql(statement).await.unwrap();
    }
    (engine, server)
}

pub(crate) async fn pg(server: &Server, user: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
    let address = server.pg_address().unwrap();
    let options = format!("host={} port={} user={user} password={password}", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&options, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

pub(crate) async fn flight(server: &Server, user: &str, password: &str) -> Result<FlightSqlServiceClient<Channel>, String> {
    let channel = Channel::from_shared(format!("http://{}", server.flight_address().unwrap())).unwrap().connect().await.unwrap();
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake(user, password).await.map_err(|error| error.to_string())?;
    Ok(client)
}

/// Sends a request over HTTP; what comes back can be read from the stream.
pub(crate) async fn http(server: &Server, user: &str, password: &str, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.http_address().unwrap()).await.unwrap();
    let credentials = STANDARD.encode(format!("{user}:{password}"));
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {credentials}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads until a text has come.
pub(crate) async fn read_until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&read).contains(wanted) {
        let count = tokio::time::timeout(SOON, stream.read(&mut buffer)).await.expect("soon enough").unwrap();
        assert!(count > 0, "the end, after: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..count]);
    }
    String::from_utf8_lossy(&read).into_owned()
}

fn told(error: &tokio_postgres::Error) -> (SqlState, String) {
    let error = error.as_db_error().expect("an error of the server");
    (error.code().clone(), error.message().to_string())
}

/// Follows `v` over every protocol, takes the right away, and sees all of them end.
async fn all_end(engine: &Engine, server: &Server, user: &str, password: &str, by: &str, wanted: &str) {
    let (followed, copied) = (pg(server, user, password).await.unwrap(), pg(server, user, password).await.unwrap());
    let cursors = pg(server, user, password).await.unwrap();
    cursors.batch_execute("DECLARE c CURSOR FOR SUBSCRIBE TO v").await.unwrap();
    assert_eq!(cursors.simple_query("FETCH 1 FROM c").await.unwrap().len(), 3);
    let mut copy = Box::pin(copied.copy_out("COPY (SUBSCRIBE TO v) TO STDOUT").await.unwrap());
    copy.next().await.unwrap().unwrap();
    let mut rows = Box::pin(followed.query_raw("SUBSCRIBE TO v", Vec::<i64>::new()).await.unwrap());
    rows.next().await.unwrap().unwrap();
    let mut events = http(server, user, password, "/api/v1/subscribe?query=SELECT%20*%20FROM%20v").await;
    read_until(&mut events, "event: progress").await;
    let mut client = flight(server, user, password).await.unwrap();
    let info = client.execute("SUBSCRIBE TO v".into(), None).await.unwrap();
    let mut batches = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    batches.next().await.unwrap().unwrap();
    client.execute_update("DECLARE c CURSOR FOR SUBSCRIBE TO v".into(), None).await.unwrap();

    engine.sql(by).await.unwrap();
    let ended = async {
        while let Some(row) = rows.next().await {
            let Err(error) = row else { continue };
            return told(&error);
        }
        panic!("an end without an error");
    };
    assert_eq!(tokio::time::timeout(SOON, ended).await.unwrap(), (SqlState::INSUFFICIENT_PRIVILEGE, wanted.to_string()));
    let ended = async {
        while let Some(row) = copy.next().await {
            let Err(error) = row else { continue };
            return told(&error);
        }
        panic!("an end without an error");
    };
    assert_eq!(tokio::time::timeout(SOON, ended).await.unwrap(), (SqlState::INSUFFICIENT_PRIVILEGE, wanted.to_string()));
    let text = read_until(&mut events, "event: error").await + &read_until_closed(&mut events).await;
    assert!(text.contains("42501") && text.contains(&wanted.replace('"', "\\\"")), "{text}");
    let ended = async {
        while let Some(batch) = batches.next().await {
            let Err(error) = batch else { continue };
            return error.to_string();
        }
        panic!("an end without an error");
    };
    let text = tokio::time::timeout(SOON, ended).await.unwrap();
    assert!(text.contains("42501") && text.contains("does not have permission"), "{text}");
    // A cursor says so when it is asked, and is closed then: that nothing comes must not look like its end.
    match cursors.simple_query("FETCH ALL FROM c").await {
        Err(error) if !error.is_closed() => assert!(told(&error).1.starts_with(wanted), "{error:?}"),
        other => assert!(wanted.contains("does not exist") && other.is_err(), "{other:?}"),
    }
    let fetched = async {
        let info = client.execute("FETCH ALL FROM c".into(), None).await.map_err(|error| error.to_string())?;
        client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.map(drop).map_err(|error| error.to_string())
    };
    let refused = fetched.await.unwrap_err();
    assert!(refused.contains("42501") || wanted.contains("does not exist"), "{refused}");
    if !wanted.contains("does not exist") {
        assert_eq!(told(&cursors.simple_query("FETCH ALL FROM c").await.unwrap_err()).0, SqlState::INVALID_CURSOR_NAME);
    }
}

async fn read_until_closed(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut text)).await.expect("soon enough").unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_is_not_followed_any_more() {
    let (engine, server) = with_users(|_| {}).await;
    engine.sql("CREATE USER carol PASSWORD 'c'").await.unwrap();
    engine.sql("GRANT SELECT ON SCHEMA public TO carol").await.unwrap();
    let other = pg(&server, "carol", "c").await.unwrap();
    other.batch_execute("DECLARE c CURSOR FOR SUBSCRIBE TO v WITH (snapshot = false)").await.unwrap();
    all_end(&engine, &server, "ada", "a", "REVOKE SELECT ON v FROM ada", "user \"ada\" may not read \"v\"").await;
    // Who may read on reads on.
    engine.sql("INSERT INTO s VALUES (2)").await.unwrap();
    assert_eq!(other.simple_query("FETCH 2 FROM c WITH (timeout = '20s')").await.unwrap().len(), 4);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lower_role_ends_what_the_higher_one_allowed() {
    let (engine, server) = with_users(|_| {}).await;
    engine.sql("CREATE USER bob PASSWORD 'x' ROLE admin").await.unwrap();
    all_end(&engine, &server, "bob", "x", "ALTER USER bob ROLE reader", "user \"bob\" may not read \"v\"").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_is_gone_can_do_nothing() {
    let (engine, server) = with_users(|_| {}).await;
    let idle = pg(&server, "ada", "a").await.unwrap();
    let mut held = flight(&server, "ada", "a").await.unwrap();
    held.execute("SELECT 1".into(), None).await.unwrap();
    all_end(&engine, &server, "ada", "a", "DROP USER ada", "user \"ada\" does not exist any more").await;
    for _ in 0..1_000 {
        if idle.is_closed() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(idle.is_closed(), "a connection without a user");
    // Somebody else of the same name does not come into what is open.
    for statement in ["CREATE USER ada PASSWORD 'a'", "GRANT SELECT ON v TO ada"] {
        engine.sql(statement).await.unwrap();
    }
    let refused = held.execute("SELECT * FROM v".into(), None).await.unwrap_err().to_string();
    assert!(refused.contains("does not exist any more"), "{refused}");
    assert!(pg(&server, "ada", "a").await.unwrap().simple_query("SELECT * FROM v").await.is_ok());
    server.stop().await;
}
