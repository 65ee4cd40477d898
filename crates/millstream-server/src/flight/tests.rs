//! The protocol as the client of `arrow-flight` speaks it, and requests that mean harm.

use crate::tests::server;
use crate::{Limits, Role, UserEntry};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Int64Type;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::sql::{
    Any, CommandGetPrimaryKeys, CommandGetTables, CommandPreparedStatementQuery, CommandPreparedStatementUpdate, CommandStatementIngest,
    CommandStatementQuery, CommandStatementUpdate, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    Action, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, FlightData, FlightDescriptor, FlightInfo, Ticket,
};
use futures::{StreamExt, TryStreamExt};
use prost::Message;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn channel(server: &crate::Server) -> Channel {
    Channel::from_shared(format!("http://{}", server.flight_address().unwrap())).unwrap().connect().await.unwrap()
}

async fn client(server: &crate::Server) -> FlightSqlServiceClient<Channel> {
    FlightSqlServiceClient::new(channel(server).await)
}

/// The status behind an error of the client, which tells it as text only, escaped.
fn text(error: impl std::fmt::Display) -> String {
    error.to_string().replace("\\\"", "\"").replace("\\n", "\n")
}

async fn rows_of(client: &mut FlightSqlServiceClient<Channel>, info: FlightInfo) -> Result<Vec<RecordBatch>, String> {
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    client.do_get(ticket).await.map_err(text)?.try_collect().await.map_err(text)
}

async fn query(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<Vec<RecordBatch>, String> {
    let info = client.execute(sql.to_string(), None).await.map_err(text)?;
    rows_of(client, info).await
}

async fn number(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> i64 {
    query(client, sql).await.unwrap()[0].column(0).as_primitive::<Int64Type>().value(0)
}

fn people() -> RecordBatch {
    let columns: [(&str, ArrayRef); 2] =
        [("id", Arc::new(Int64Array::from(vec![1, 2]))), ("word", Arc::new(StringArray::from(vec![Some("a"), None])))];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_prepared_statements_and_the_catalog() {
    let (engine, server) = server(|_| {}).await;
    let mut client = client(&server).await;
    assert_eq!(client.execute_update("CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)".into(), None).await.unwrap(), -1);
    assert!(query(&mut client, "CREATE VIEW v AS SELECT id + 1 AS next FROM t").await.unwrap().is_empty(), "as ADBC sends it");
    assert_eq!(client.execute_update("INSERT INTO t VALUES (1, 'a'), (2, 'b')".into(), None).await.unwrap(), 2);
    assert_eq!(number(&mut client, "SELECT sum(next)::BIGINT FROM v").await, 5);
    let error = query(&mut client, "SELECT 1,\n nosuch FROM t").await.unwrap_err();
    assert!(error.contains("column \"nosuch\" does not exist") && error.contains("at line 2, column 2"), "{error}");

    let mut insert = client.prepare("INSERT INTO t VALUES ($1, $2)".into(), None).await.unwrap();
    let many = RecordBatch::try_from_iter([
        ("a", Arc::new(Int64Array::from_iter_values(10..1_010)) as ArrayRef),
        ("b", Arc::new(StringArray::from_iter_values((10..1_010).map(|n| format!("w'{n}")))) as ArrayRef),
    ])
    .unwrap();
    let before = engine.epoch();
    insert.set_parameters(many).unwrap();
    assert_eq!(insert.execute_update().await.unwrap(), 1_000);
    assert_eq!(engine.epoch().0, before.0 + 1, "one epoch for all");
    let mut update = client.prepare("UPDATE t SET word = $2 WHERE id = $1".into(), None).await.unwrap();
    update.set_parameters(people()).unwrap();
    assert_eq!(update.execute_update().await.unwrap(), 2);
    let mut select = client.prepare("SELECT id FROM t WHERE word = $1".into(), None).await.unwrap();
    assert_eq!(select.parameter_schema().unwrap().field(0).data_type(), &arrow::datatypes::DataType::Utf8);
    let words: ArrayRef = Arc::new(StringArray::from(vec!["w'10", "a"]));
    select.set_parameters(RecordBatch::try_from_iter([("p", words)]).unwrap()).unwrap();
    let info = select.execute().await.unwrap();
    let found: Vec<i64> = rows_of(&mut client, info)
        .await
        .unwrap()
        .iter()
        .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    assert_eq!(found, [10, 1], "a result for each row of parameters");
    select.close().await.unwrap();

    let tables = CommandGetTables { table_name_filter_pattern: Some("_".into()), include_schema: true, ..CommandGetTables::default() };
    let info = client.get_tables(tables).await.unwrap();
    let listed = rows_of(&mut client, info).await.unwrap();
    let names: Vec<_> =
        listed[0].column(2).as_string::<i32>().iter().flatten().zip(listed[0].column(3).as_string::<i32>().iter().flatten()).collect();
    assert_eq!(names, [("t", "TABLE"), ("v", "VIEW")]);
    let info = client.get_primary_keys(CommandGetPrimaryKeys { table: "t".into(), ..CommandGetPrimaryKeys::default() }).await.unwrap();
    assert_eq!(rows_of(&mut client, info).await.unwrap()[0].column(3).as_string::<i32>().value(0), "id");
    for statement in ["SHOW TABLES", "EXPLAIN SELECT 1", "SELECT relname FROM pg_catalog.pg_class WHERE relname = 't'", "DESCRIBE t"] {
        assert!(!query(&mut client, statement).await.unwrap().is_empty(), "{statement}");
    }
    query(&mut client, "BEGIN").await.unwrap();
    client.execute_update("INSERT INTO t VALUES (5000, 'x')".into(), None).await.unwrap();
    query(&mut client, "ROLLBACK").await.unwrap();
    assert_eq!(number(&mut client, "SELECT count(*) FROM t WHERE id = 5000").await, 0);
    server.stop().await;
}

/// The numbers of a query's last column.
async fn numbers(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Vec<i64> {
    let batches = query(client, sql).await.unwrap();
    batches.iter().flat_map(|batch| batch.columns().last().unwrap().as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// The texts of a query's only column.
async fn lines(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Vec<String> {
    let batches = query(client, sql).await.unwrap();
    batches.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter().flatten().map(str::to_string).collect::<Vec<_>>()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_its_cursors() {
    let (engine, server) = server(|_| {}).await;
    engine.sql("CREATE TABLE t (id BIGINT PRIMARY KEY)").await.unwrap();
    engine.sql("INSERT INTO t SELECT value FROM generate_series(1, 10)").await.unwrap();
    let (mut client, mut other) = (client(&server).await, client(&server).await);
    assert!(query(&mut client, "DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id").await.unwrap().is_empty());
    assert_eq!(numbers(&mut client, "FETCH 3 FROM c").await, [1, 2, 3]);
    let info = client.execute("FETCH 2 FROM c".into(), None).await.unwrap();
    assert_eq!(info.clone().try_decode_schema().unwrap().field(0).name(), "id");
    assert_eq!(numbers(&mut client, "FETCH NEXT FROM c").await, [4], "nothing was taken by what was not fetched");
    assert_eq!(rows_of(&mut client, info.clone()).await.unwrap()[0].num_rows(), 2);
    assert!(rows_of(&mut client, info).await.is_err(), "once per ticket");
    assert_eq!(client.execute_update("MOVE 2 FROM c".into(), None).await.unwrap(), 2);
    let mut prepared = client.prepare("FETCH 1 FROM c".into(), None).await.unwrap();
    assert_eq!(prepared.dataset_schema().unwrap().field(0).name(), "id");
    for expected in [1, 1, 0] {
        let info = prepared.execute().await.unwrap();
        let rows: usize = rows_of(&mut client, info).await.unwrap().iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, expected);
    }
    assert!(query(&mut other, "FETCH 1 FROM c").await.unwrap_err().contains("SQLSTATE: 34000"), "it is another session's");
    assert!(query(&mut client, "DECLARE c CURSOR FOR SELECT 1").await.unwrap_err().contains("42P03"));
    query(&mut client, "CLOSE c").await.unwrap();
    assert!(query(&mut client, "FETCH 1 FROM c").await.unwrap_err().contains("34000"));

    for sql in ["BEGIN", "DECLARE c CURSOR FOR SELECT id FROM t", "DECLARE d CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id"] {
        query(&mut client, sql).await.unwrap();
    }
    engine.sql("INSERT INTO t VALUES (0)").await.unwrap();
    query(&mut client, "COMMIT").await.unwrap();
    assert!(query(&mut client, "FETCH 1 FROM c").await.unwrap_err().contains("34000"), "it ended with its transaction");
    assert_eq!(numbers(&mut client, "FETCH ALL FROM d").await, (1..=10).collect::<Vec<i64>>());

    let mut declare = client.prepare("DECLARE c CURSOR FOR SELECT id FROM t WHERE id > $1 ORDER BY id".into(), None).await.unwrap();
    let above: ArrayRef = Arc::new(Int64Array::from(vec![8]));
    declare.set_parameters(RecordBatch::try_from_iter([("p", above)]).unwrap()).unwrap();
    declare.execute_update().await.unwrap();
    assert_eq!(numbers(&mut client, "FETCH ALL FROM c").await, [9, 10]);

    query(&mut client, "DECLARE s CURSOR FOR SUBSCRIBE TO t WITH (snapshot = false, progress = false)").await.unwrap();
    assert!(numbers(&mut client, "FETCH ALL FROM s").await.is_empty(), "it does not wait");
    let waiting = client.execute("FETCH 1 FROM s WITH (timeout = '20s')".into(), None).await.unwrap();
    let (rows, _) = tokio::join!(rows_of(&mut client, waiting), engine.sql("INSERT INTO t VALUES (11)"));
    assert_eq!(rows.unwrap()[0].column(2).as_primitive::<Int64Type>().values(), &[11]);
    query(&mut client, "DISCARD ALL").await.unwrap();
    assert!(query(&mut client, "FETCH ALL FROM s").await.unwrap_err().contains("34000"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_its_prepared_statements() {
    let (engine, server) = server(|_| {}).await;
    engine.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)").await.unwrap();
    let (mut client, mut other) = (client(&server).await, client(&server).await);
    query(&mut client, "PREPARE put AS INSERT INTO t VALUES ($1, $2)").await.unwrap();
    assert_eq!(client.execute_update("EXECUTE put(1, 'a')".into(), None).await.unwrap(), 1);
    assert!(query(&mut client, "EXECUTE put(2, 'b')").await.unwrap().is_empty());
    assert!(query(&mut client, "EXECUTE put(3)").await.unwrap_err().contains("takes 2 parameters, not 1"));
    query(&mut client, "PREPARE get AS SELECT word, id + 10 AS n FROM t WHERE id >= $1 ORDER BY id").await.unwrap();
    assert!(query(&mut client, "PREPARE get AS SELECT 1").await.unwrap_err().contains("42P05"));
    let info = client.execute("EXECUTE get(1)".into(), None).await.unwrap();
    assert_eq!(info.clone().try_decode_schema().unwrap().field(1).name(), "n");
    assert_eq!(rows_of(&mut client, info).await.unwrap()[0].num_rows(), 2);
    let mut execute = client.prepare("EXECUTE get($1)".into(), None).await.unwrap();
    assert_eq!(execute.parameter_schema().unwrap().field(0).data_type(), &arrow::datatypes::DataType::Int64);
    let least: ArrayRef = Arc::new(Int64Array::from(vec![2]));
    execute.set_parameters(RecordBatch::try_from_iter([("p", least)]).unwrap()).unwrap();
    let info = execute.execute().await.unwrap();
    assert_eq!(rows_of(&mut client, info).await.unwrap()[0].column(1).as_primitive::<Int64Type>().values(), &[12]);
    query(&mut client, "PREPARE follow AS SUBSCRIBE TO t UP TO EPOCH 1000000").await.unwrap();
    let info = client.execute("EXECUTE follow".into(), None).await.unwrap();
    assert_eq!(info.try_decode_schema().unwrap().field(1).name(), "op");
    assert!(query(&mut other, "EXECUTE get(1)").await.unwrap_err().contains("SQLSTATE: 26000"), "it is another session's");
    query(&mut client, "DEALLOCATE get").await.unwrap();
    assert!(query(&mut client, "EXECUTE get(1)").await.unwrap_err().contains("26000"));
    query(&mut client, "DEALLOCATE ALL").await.unwrap();
    assert!(query(&mut client, "EXECUTE put(5, 'x')").await.unwrap_err().contains("26000"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_go_both_ways() {
    let (engine, server) = server(|_| {}).await;
    engine.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR)").await.unwrap();
    let mut client = client(&server).await;
    for sql in ["COPY t FROM STDIN", "COPY t (id, nosuch) FROM STDIN", "COPY t FROM STDIN (FORMAT csv)"] {
        assert!(query(&mut client, sql).await.is_err(), "{sql}");
    }
    let refused = client.execute_update("COPY t FROM STDIN".into(), None).await.map_err(text).unwrap_err();
    assert!(refused.contains("adbc_ingest") && refused.contains("0A000"), "{refused}");
    let mut copy = client.prepare("COPY t (word, id) FROM STDIN".into(), None).await.unwrap();
    let names: Vec<_> = copy.parameter_schema().unwrap().fields().iter().map(|field| field.data_type().to_string()).collect();
    assert_eq!(names, ["Utf8", "Int64"]);
    let before = engine.epoch();
    copy.set_parameters(people().project(&[1, 0]).unwrap()).unwrap();
    assert_eq!(copy.execute_update().await.unwrap(), 2);
    assert_eq!(engine.epoch().0, before.0 + 1);

    let copied = query(&mut client, "COPY t TO STDOUT").await.unwrap();
    assert_eq!(copied[0].schema().fields().len(), 2, "rows, as of the query");
    assert_eq!(numbers(&mut client, "COPY (SELECT id FROM t ORDER BY id) TO STDOUT").await, [1, 2]);
    let csv = "COPY (SELECT * FROM t ORDER BY id) TO STDOUT (FORMAT csv, HEADER)";
    assert_eq!(lines(&mut client, csv).await, ["id,word", "1,a", "2,"]);
    assert_eq!(lines(&mut client, "COPY (SELECT * FROM t ORDER BY id) TO STDOUT (NULL 'none')").await, ["1\ta", "2\tnone"]);
    let binary = query(&mut client, "COPY t TO STDOUT (FORMAT binary)").await.unwrap();
    let bytes: Vec<u8> = binary.iter().flat_map(|batch| batch.column(0).as_binary::<i32>().iter().flatten().flatten().copied()).collect();
    assert!(bytes.starts_with(b"PGCOPY\n\xff\r\n\0") && bytes.ends_with(b"\xff\xff"));
    assert!(query(&mut client, "COPY t TO STDOUT (FORMAT parquet)").await.unwrap_err().contains("COPY has no format \"parquet\""));

    let changes = client.execute("COPY (SUBSCRIBE TO t) TO STDOUT (FORMAT csv)".into(), None).await.unwrap();
    let mut changes = client.do_get(changes.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch = changes.next().await.unwrap().unwrap();
        seen.extend(batch.column(0).as_string::<i32>().iter().flatten().map(|line| line.split(',').nth(1).unwrap().to_string()));
    }
    assert_eq!(seen, ["+I", "+I", "="]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_ingested_as_a_whole_or_not_at_all() {
    let (engine, server) = server(|_| {}).await;
    engine.sql("CREATE STREAM s (id BIGINT, word VARCHAR)").await.unwrap();
    engine.sql("CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM s").await.unwrap();
    let mut client = client(&server).await;
    let put = |mut client: FlightSqlServiceClient<Channel>, descriptor: FlightDescriptor, batch: RecordBatch| async move {
        let encoder = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor)).build(futures::stream::iter([Ok(batch)]));
        let messages: Vec<FlightData> = encoder.try_collect().await.unwrap();
        let done = client.do_put(futures::stream::iter(messages)).await.map_err(text)?;
        done.try_collect::<Vec<_>>().await.map(|results| results.len()).map_err(text)
    };
    let path = |name: &str| FlightDescriptor::new_path(vec![name.to_string()]);
    assert_eq!(put(client.clone(), path("s"), people()).await, Ok(1));
    assert_eq!(number(&mut client, "SELECT n FROM v").await, 2, "it is committed when it is answered");
    let wrong = RecordBatch::try_from_iter([("ident", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    assert!(put(client.clone(), path("s"), wrong).await.unwrap_err().contains("\"s\" has no column \"ident\""));
    let nearly: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![7.0, 9.5]));
    let nearly = RecordBatch::try_from_iter([("id", nearly)]).unwrap();
    let refused = put(client.clone(), path("s"), nearly.clone()).await.unwrap_err();
    assert!(refused.contains("row 2: column \"id\": '9.5' is not a valid BIGINT"), "{refused}");
    let texts = RecordBatch::try_from_iter([("id", Arc::new(StringArray::from(vec!["12"])) as ArrayRef)]).unwrap();
    let refused = put(client.clone(), path("s"), texts).await.unwrap_err();
    assert!(refused.contains("column \"id\" is sent as VARCHAR, which cannot become BIGINT without loss"), "{refused}");
    assert_eq!(put(client.clone(), path("s"), nearly.slice(0, 1)).await, Ok(1));
    assert_eq!(number(&mut client, "SELECT n FROM v").await, 3, "nothing of what was refused is there");
    assert_eq!(number(&mut client, "SELECT count(*) FROM s WHERE id = 7").await, 1);
    assert!(put(client.clone(), path("nosuch"), people()).await.unwrap_err().contains("relation \"nosuch\" does not exist"));
    let ingest = |table: &str, options: &[(&str, &str)]| {
        let options: HashMap<String, String> = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let command = CommandStatementIngest { table: table.into(), options, ..CommandStatementIngest::default() };
        FlightDescriptor::new_cmd(command.as_any().encode_to_vec())
    };
    for _ in 0..2 {
        put(client.clone(), ingest("s", &[("idempotency-key", "k")]), people()).await.unwrap();
    }
    assert!(put(client.clone(), ingest("s", &[("nosuch", "k")]), people()).await.is_err());
    assert_eq!(number(&mut client, "SELECT n FROM v").await, 5);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_stream_and_are_canceled() {
    let (engine, server) = server(|config| config.limits.grace = Duration::from_millis(100)).await;
    engine.sql("CREATE STREAM s (n BIGINT)").await.unwrap();
    engine.sql("CREATE MATERIALIZED VIEW v AS SELECT sum(n) AS total FROM s").await.unwrap();
    engine.sql("INSERT INTO s VALUES (1)").await.unwrap();
    let mut client = client(&server).await;
    let info = client.execute("SUBSCRIBE TO v".into(), None).await.unwrap();
    let names: Vec<String> = info.clone().try_decode_schema().unwrap().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["epoch", "op", "total"]);
    let mut changes = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    let mut ops = Vec::new();
    while ops.len() < 2 {
        let batch = changes.next().await.unwrap().unwrap();
        ops.extend(batch.column(1).as_string::<i32>().iter().flatten().map(str::to_string));
    }
    assert_eq!(ops, ["+I", "="]);
    engine.sql("INSERT INTO s VALUES (2)").await.unwrap();
    while ops.len() < 4 {
        let batch = changes.next().await.unwrap().unwrap();
        ops.extend(batch.column(1).as_string::<i32>().iter().flatten().map(str::to_string));
    }
    assert_eq!(ops, ["+I", "=", "-D", "+I"]);
    let again = client.do_get(info.endpoint[0].ticket.clone().unwrap()).await;
    assert!(text(again.err().unwrap()).contains("there is nothing of this handle"), "a ticket is good once");

    let action = Action::new("CancelFlightInfo", CancelFlightInfoRequest { info: Some(info) }.encode_to_vec());
    let mut plain = FlightServiceClient::new(channel(&server).await);
    let result = plain.do_action(action.clone()).await.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(CancelFlightInfoResult::decode(result.body).unwrap().status(), CancelStatus::Cancelled);
    let end = loop {
        match changes.next().await.unwrap() {
            Ok(_) => {}
            Err(error) => break text(error),
        }
    };
    assert!(end.contains("canceling statement due to user request"), "{end}");

    let live = client.execute("SELECT total FROM v EMIT CHANGES".into(), None).await.unwrap();
    let mut following = client.do_get(live.endpoint[0].ticket.clone().unwrap()).await.unwrap();
    following.next().await.unwrap().unwrap();
    server.stop().await;
    assert!(following.any(|change| async move { change.is_err() }).await, "a stopping server says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_get_in_with_a_password_or_a_token() {
    let (engine, server) = server(|config| {
        config.users = vec![
            UserEntry::new("ada", Role::Admin).with_password("se:cret"),
            UserEntry::new("bob", Role::Reader).with_password("x").with_token("t-bob"),
        ];
    })
    .await;
    engine.sql("CREATE TABLE t (id BIGINT, word VARCHAR)").await.unwrap();
    assert!(query(&mut client(&server).await, "SELECT 1").await.unwrap_err().contains("SQLSTATE: 28000"));
    for (name, password) in [("ada", "wrong"), ("nobody", "x"), ("", "")] {
        assert!(client(&server).await.handshake(name, password).await.is_err(), "{name}");
    }
    let mut ada = client(&server).await;
    ada.handshake("ada", "se:cret").await.unwrap();
    let mut select = ada.prepare("SELECT 7::BIGINT".into(), None).await.unwrap();
    let mut elsewhere = client(&server).await;
    elsewhere.set_token(ada.token().cloned().unwrap());
    let info = select.execute().await.unwrap();
    assert_eq!(rows_of(&mut elsewhere, info).await.unwrap().len(), 1, "its session, over another connection");

    let mut bob = client(&server).await;
    bob.set_token("t-bob".into());
    assert_eq!(number(&mut bob, "SELECT count(*) FROM t").await, 0);
    for sql in ["INSERT INTO t VALUES (1, 'x')", "CREATE VIEW v AS SELECT 1 AS a", "SELECT * FROM '/etc/passwd'", "CHECKPOINT"] {
        assert!(query(&mut bob, sql).await.unwrap_err().contains("42501"), "{sql}");
        assert!(bob.execute_update(sql.into(), None).await.is_err(), "{sql}");
        assert!(bob.prepare(sql.into(), None).await.is_err(), "{sql}");
    }
    let info = select.execute().await.unwrap();
    assert!(rows_of(&mut bob, info).await.unwrap_err().contains("there is nothing of this handle"), "it is another's");

    let mut plain = FlightServiceClient::new(channel(&server).await);
    let token = ada.token().cloned().unwrap();
    let mut close = tonic::Request::new(Action::new("CloseSession", Vec::new()));
    close.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    plain.do_action(close).await.unwrap();
    assert!(query(&mut ada, "SELECT 1").await.is_err(), "the token is worth nothing now");
    server.stop().await;
}

fn any(command: &impl ProstMessageExt) -> Vec<u8> {
    command.as_any().encode_to_vec()
}

/// Requests that mean harm: each is refused or survived, and the server serves on.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_cost_only_themselves() {
    let (engine, server) =
        server(|config| config.limits = Limits { message_bytes: 200_000, copy_bytes: 1_000_000, prepared: 50, ..Limits::default() }).await;
    engine.sql("CREATE TABLE t (id BIGINT, word VARCHAR)").await.unwrap();
    let mut plain = FlightServiceClient::new(channel(&server).await).max_encoding_message_size(usize::MAX);
    let mut random = rand::rngs::SmallRng::seed_from_u64(7);
    let mut noise = |most: usize| -> Vec<u8> { (0..random.random_range(0..most)).map(|_| random.random()).collect() };
    let statement = |query: String| any(&CommandStatementQuery { query, transaction_id: None });
    let forged = bytes::Bytes::from_static(b"../../etc/passwd");
    let mut commands: Vec<Vec<u8>> = vec![
        Vec::new(),
        vec![0xff; 64],
        statement(String::new()),
        statement("SELECT '".into()),
        statement("SELECT $$".into()),
        statement("SELECT $99999999".into()),
        statement("SELECT 1; SELECT 2".into()),
        statement(format!("SELECT {}1{}", "(".repeat(20_000), ")".repeat(20_000))),
        statement(format!("SELECT {}", "NOT ".repeat(20_000))),
        statement(format!("SELECT {}", vec!["1"; 20_000].join("+"))),
        statement(format!("SELECT 1{}", "::int".repeat(10_000))),
        statement(vec!["SELECT 1"; 5_000].join(" UNION ALL ")),
        statement("SELECT repeat('x', 1000000000000)".into()),
        statement("COPY t FROM STDIN".into()),
        statement("FETCH ALL FROM nosuch".into()),
        statement("PREPARE p AS ".repeat(20_000)),
        statement("EXPLAIN ".repeat(20_000)),
        statement("DECLARE c CURSOR FOR ".repeat(9_000)),
        statement("EXECUTE nosuch($1)".into()),
        statement("COPY t TO STDOUT (FORMAT csv, DELIMITER 'too long')".into()),
        statement("x".repeat(300_000)),
        any(&CommandStatementQuery { query: "SELECT 1".into(), transaction_id: Some(forged.clone()) }),
        any(&CommandPreparedStatementQuery { prepared_statement_handle: forged.clone() }),
        any(&CommandPreparedStatementUpdate { prepared_statement_handle: bytes::Bytes::new() }),
        any(&CommandGetTables { table_name_filter_pattern: Some("%".repeat(10_000)), ..CommandGetTables::default() }),
        any(&CommandGetTables { table_name_filter_pattern: Some("(((((\\".into()), ..CommandGetTables::default() }),
        any(&CommandStatementIngest { table: "../../etc/passwd".into(), ..CommandStatementIngest::default() }),
        any(&CommandStatementIngest { table: "t".into(), temporary: true, ..CommandStatementIngest::default() }),
        Any { type_url: "type.googleapis.com/evil.Command".into(), value: forged.clone() }.encode_to_vec(),
        Any { type_url: CommandStatementQuery::type_url().into(), value: vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f].into() }.encode_to_vec(),
    ];
    commands.extend((0..30).map(|_| noise(60)));
    commands.extend((0..30).map(|_| Any { type_url: CommandStatementQuery::type_url().into(), value: noise(40).into() }.encode_to_vec()));
    let mut count = 0;
    for command in &commands {
        let _ = plain.get_flight_info(FlightDescriptor::new_cmd(command.clone())).await;
        let _ = plain.get_schema(FlightDescriptor::new_cmd(command.clone())).await;
        let taken = plain.do_get(Ticket::new(command.clone())).await;
        assert!(taken.is_err() || !command.is_empty());
        let mut message = FlightData::new().with_descriptor(FlightDescriptor::new_cmd(command.clone()));
        message.data_header = noise(100).into();
        message.data_body = noise(100).into();
        let _ = plain.do_put(futures::stream::iter([message])).await;
        count += 4;
    }
    for name in ["", "Nosuch", "BeginTransaction", "CreatePreparedStatement", "CancelFlightInfo", "CancelQuery", "SetSessionOptions"] {
        for body in [Vec::new(), vec![0xff; 40], noise(200), commands[2].clone()] {
            let _ = plain.do_action(Action::new(name, body)).await;
            count += 1;
        }
    }
    for path in [&["..", "..", "etc", "passwd"][..], &["../../etc/passwd"], &["/etc/passwd"], &["'/etc/passwd'"], &[""], &[]] {
        let descriptor = FlightDescriptor::new_path(path.iter().map(ToString::to_string).collect());
        assert!(plain.get_flight_info(descriptor.clone()).await.is_err(), "{path:?}");
        let empty = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor)).build(futures::stream::iter([Ok(people())]));
        let messages: Vec<FlightData> = empty.try_collect().await.unwrap();
        assert!(plain.do_put(futures::stream::iter(messages)).await.is_err(), "{path:?}");
        count += 2;
    }
    // What Arrow's own encoder makes, bent in one place.
    let descriptor = FlightDescriptor::new_path(vec!["t".into()]);
    let sent = FlightDataEncoderBuilder::new().with_flight_descriptor(Some(descriptor)).build(futures::stream::iter([Ok(people())]));
    let sent: Vec<FlightData> = sent.try_collect().await.unwrap();
    for _ in 0..200 {
        let mut bent = sent.clone();
        let message = random.random_range(0..bent.len());
        let in_header = random.random_bool(0.8) || bent[message].data_body.is_empty();
        let part = if in_header { &mut bent[message].data_header } else { &mut bent[message].data_body };
        let mut bytes = part.to_vec();
        let place = random.random_range(0..bytes.len());
        bytes[place] = random.random();
        *part = bytes.into();
        let _ = plain.do_put(futures::stream::iter(bent)).await;
        count += 1;
    }
    let handle = TicketStatementQuery { statement_handle: forged };
    assert_eq!(plain.do_get(Ticket::new(any(&handle))).await.unwrap_err().code(), Code::NotFound);
    let mut without: Vec<FlightData> = sent.clone();
    without[0].flight_descriptor = None;
    assert!(plain.do_put(futures::stream::iter(without)).await.is_err());
    assert!(plain.do_put(futures::stream::iter(Vec::new())).await.is_err());
    let flood: Vec<FlightData> = std::iter::once(sent[0].clone()).chain(std::iter::repeat_n(large(), 30)).collect();
    let refused: Status = plain.do_put(futures::stream::iter(flood)).await.unwrap_err();
    assert!(refused.message().contains("bytes of rows at most"), "{refused}");
    let mut client = client(&server).await;
    for n in 0..60 {
        assert_eq!(client.prepare("SELECT 1".into(), None).await.is_ok(), n < 50, "{n}");
    }
    raw_bytes(&server).await;
    assert!(count > 400);
    assert_eq!(number(&mut client, "SELECT 1::BIGINT").await, 1, "after {count} hostile requests");
    let update = any(&CommandStatementUpdate { query: "INSERT INTO t VALUES (1, 'still here')".into(), transaction_id: None });
    let message = FlightData::new().with_descriptor(FlightDescriptor::new_cmd(update));
    plain.do_put(futures::stream::iter([message])).await.unwrap();
    server.stop().await;
}

/// A message of 100,000 bytes of rows.
fn large() -> FlightData {
    let words: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(100_000)]));
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("word", words)]).unwrap();
    let messages = arrow_flight::utils::batches_to_flight_data(&batch.schema(), vec![batch]).unwrap();
    messages[1].clone()
}

/// What is not even HTTP/2.
async fn raw_bytes(server: &crate::Server) {
    use tokio::io::AsyncWriteExt;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let frames: [&[u8]; 8] = [
        b"",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x00",
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\xff\xff\xff\x01\x05\x00\x00\x00\x01",
        b"\x00\x00\x08\x06\x00\x00\x00\x00\x00........",
        b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\xff\xff\xff",
        b"\x00\x00\x05\x01\x04\x00\x00\x00\x01\x00\x00\x00\x00\x00",
    ];
    for frame in frames {
        for start in [&b""[..], preface] {
            let mut stream = tokio::net::TcpStream::connect(server.flight_address().unwrap()).await.unwrap();
            let _ = stream.write_all(&[start, frame].concat()).await;
            let mut answer = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
            let _ = tokio::time::timeout(Duration::from_millis(20), read).await;
        }
    }
}
