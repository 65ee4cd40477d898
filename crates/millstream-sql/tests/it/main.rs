//! Rewritten queries run in DataFusion.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, ListBuilder, TimestampMicrosecondBuilder};
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit, TimestampMicrosecondType};
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement as DfStatement;
use millstream_sql::{RewriteContext, VersionTime, parse_query, rewrite_query};
use sqlparser::ast::Statement;

/// A session with `bids(auction, ts, tags)`, three rows within 15 seconds.
async fn session() -> SessionContext {
    let session = SessionContext::new();
    session
        .sql(
            "CREATE TABLE bids AS SELECT column1 AS auction, arrow_cast(column2, 'Timestamp(Microsecond, None)') AS ts, column3 AS tags FROM \
             (VALUES (1, '2020-01-01T00:00:01', ['a', 'b']), (2, '2020-01-01T00:00:09.999999', []), (3, '1969-12-31T23:59:58', NULL))",
        )
        .await
        .expect("a table");
    for name in ["hop_starts", "cumulate_ends"] {
        let time = DataType::Timestamp(TimeUnit::Microsecond, None);
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        session.register_udf(create_udf(
            name,
            vec![time.clone(), interval.clone(), interval.clone(), interval, DataType::Utf8],
            DataType::List(Arc::new(Field::new_list_field(time, true))),
            Volatility::Immutable,
            Arc::new(|args: &[ColumnarValue]| Ok(ColumnarValue::Array(second_and_the_one_before(&args[0].to_array(1)?)))),
        ));
    }
    session
}

/// For every time the whole second before it and the one before that: stands in for the functions that list windows.
fn second_and_the_one_before(times: &ArrayRef) -> ArrayRef {
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let mut lists = ListBuilder::new(TimestampMicrosecondBuilder::new());
    for row in 0..times.len() {
        let second = times.value(row).div_euclid(1_000_000) * 1_000_000;
        lists.append_value([Some(second - 1_000_000), Some(second)]);
    }
    Arc::new(lists.finish())
}

/// The rows of `sql` after the rewrite, as text.
async fn rows(sql: &str) -> Vec<String> {
    let mut query = parse_query(sql).expect("a query");
    rewrite_query(
        &mut query,
        &RewriteContext { is_stream: &|_| false, shows_hidden_columns: false, version_time: &|_| VersionTime::Unknown },
    )
    .expect("rewritten");
    let statement = DfStatement::Statement(Box::new(Statement::Query(query)));
    let session = session().await;
    let plan = session.state().statement_to_plan(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let batches =
        session.execute_logical_plan(plan).await.expect("planned").collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let table = datafusion::arrow::util::pretty::pretty_format_batches(&batches).expect("printed").to_string();
    let mut rows: Vec<String> = table
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(1)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>().join(" ").trim_end().to_owned())
        .collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn tumble_runs() {
    assert_eq!(
        rows("SELECT auction, window_start, window_end, window_time FROM TUMBLE(bids, ts, INTERVAL '10 seconds')").await,
        [
            "1 2020-01-01T00:00:00 2020-01-01T00:00:10 2020-01-01T00:00:09.999999",
            "2 2020-01-01T00:00:00 2020-01-01T00:00:10 2020-01-01T00:00:09.999999",
            "3 1969-12-31T23:59:50 1970-01-01T00:00:00 1969-12-31T23:59:59.999999",
        ]
    );
    assert_eq!(
        rows(
            "SELECT bids.auction, arrow_typeof(window_start), arrow_typeof(window_time) \
             FROM TABLE(TUMBLE(TABLE bids, DESCRIPTOR(ts), INTERVAL '10' SECOND)) WHERE auction = 2",
        )
        .await,
        ["2 Timestamp(µs) Timestamp(µs)"]
    );
}

#[tokio::test]
async fn hop_and_cumulate_run() {
    assert_eq!(
        rows("SELECT h.auction, window_start, window_end FROM HOP(bids, ts, INTERVAL '1 second', INTERVAL '2 seconds') AS h WHERE auction = 1")
            .await,
        ["1 2020-01-01T00:00:00 2020-01-01T00:00:02", "1 2020-01-01T00:00:01 2020-01-01T00:00:03"]
    );
    assert_eq!(
        rows("SELECT window_start, window_end, count(*) FROM CUMULATE((SELECT * FROM bids WHERE auction = 2), ts, '1 s', '1 day') GROUP BY 1, 2")
            .await,
        ["2020-01-01T00:00:00 2020-01-01T00:00:08 1", "2020-01-01T00:00:00 2020-01-01T00:00:09 1"]
    );
    assert_eq!(
        rows("SELECT HOP_START(ts, '1 s', '2 s') AS s, count(*) FROM bids GROUP BY HOP(ts, '1 s', '2 s') ORDER BY s LIMIT 2").await,
        ["1969-12-31T23:59:57 1", "1969-12-31T23:59:58 1"]
    );
}

#[tokio::test]
async fn group_windows_run() {
    assert_eq!(
        rows(
            "SELECT TUMBLE_END(b.ts, '10 seconds') AS e, count(*) FROM bids AS b WHERE b.auction < 3 \
             GROUP BY TUMBLE(b.ts, '10 seconds') HAVING TUMBLE_START(b.ts, '10 seconds') IS NOT NULL",
        )
        .await,
        ["2020-01-01T00:00:10 2"]
    );
    assert_eq!(
        rows("SELECT window.start, count(*) FROM bids GROUP BY window(ts, '1 day') ORDER BY window.start").await,
        ["1969-12-31T00:00:00 1", "2020-01-01T00:00:00 2"]
    );
}

#[tokio::test]
async fn unnest_runs() {
    assert_eq!(rows("SELECT auction, u.tag FROM bids CROSS JOIN UNNEST(bids.tags) AS u(tag)").await, ["1 a", "1 b"]);
    assert_eq!(rows("SELECT auction, u.tag FROM bids LEFT JOIN UNNEST(bids.tags) AS u(tag) ON true").await, ["1 a", "1 b", "2", "3"]);
}

#[tokio::test]
async fn comparisons_with_subqueries() {
    assert_eq!(rows("SELECT auction FROM bids WHERE auction >= ALL (SELECT auction FROM bids)").await, ["3"]);
    assert_eq!(rows("SELECT auction FROM bids WHERE auction = ANY (SELECT auction FROM bids WHERE auction > 1)").await, ["2", "3"]);
    assert_eq!(rows("SELECT auction FROM bids WHERE auction IS NOT DISTINCT FROM 2 AND tags IS NOT NULL").await, ["2"]);
}
