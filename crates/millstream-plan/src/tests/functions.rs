//! Functions through SQL: types, folding, overflow.

use super::{optimized, state};
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;

async fn run(sql: &str) -> String {
    let context = SessionContext::new_with_state(state());
    let batches = context.sql(sql).await.unwrap().collect().await.unwrap();
    pretty_format_batches(&batches).unwrap().to_string()
}

async fn fails(sql: &str) -> String {
    let context = SessionContext::new_with_state(state());
    match context.sql(sql).await {
        Err(error) => error.to_string(),
        Ok(frame) => frame.collect().await.unwrap_err().to_string(),
    }
}

#[tokio::test]
async fn sums_of_all_types() {
    let sql =
        "SELECT sum(i) AS i, avg(i) AS a, sum(d::DECIMAL(5,1)) AS d, avg(d::DECIMAL(5,1)) AS ad, sum(f) AS f, arrow_typeof(sum(i)) AS t
        FROM (VALUES (1, '1.5', 0.5::DOUBLE), (2, '2.5', 'NaN'::DOUBLE), (NULL, NULL, NULL)) AS v(i, d, f)";
    assert_eq!(
        run(sql).await,
        "\
+---+-----+-----+---------+-----+-------+
| i | a   | d   | ad      | f   | t     |
+---+-----+-----+---------+-----+-------+
| 3 | 1.5 | 4.0 | 2.00000 | NaN | Int64 |
+---+-----+-----+---------+-----+-------+"
    );
}

#[tokio::test]
async fn sums_over_windows_slide() {
    let sql = "SELECT x, sum(x) OVER (ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s,
        avg(x) OVER (ORDER BY x ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS a FROM (VALUES (1), (2), (4)) AS v(x) ORDER BY x";
    assert_eq!(
        run(sql).await,
        "\
+---+---+-----+
| x | s | a   |
+---+---+-----+
| 1 | 1 | 1.0 |
| 2 | 3 | 1.5 |
| 4 | 6 | 3.0 |
+---+---+-----+"
    );
}

#[tokio::test]
async fn to_timestamp_is_microseconds() {
    let sql = "SELECT to_timestamp('2024-05-01T12:00:00.123456') AS s, to_timestamp(1.5) AS f, to_timestamp(-1) AS i,
        arrow_typeof(to_timestamp(1)) AS t";
    assert_eq!(
        run(sql).await,
        "\
+----------------------------+-------------------------+---------------------+---------------+
| s                          | f                       | i                   | t             |
+----------------------------+-------------------------+---------------------+---------------+
| 2024-05-01T12:00:00.123456 | 1970-01-01T00:00:01.500 | 1969-12-31T23:59:59 | Timestamp(µs) |
+----------------------------+-------------------------+---------------------+---------------+"
    );
}

#[tokio::test]
async fn proctime_says_where_it_belongs() {
    assert!(fails("SELECT proctime()").await.contains("define a column `arrived AS PROCTIME()` in CREATE STREAM"));
}

#[tokio::test]
async fn constants_are_folded_with_checks() {
    let error = optimized("SELECT price + (9223372036854775807 + 1) FROM bids").await.unwrap_err().to_string();
    assert!(error.contains("Overflow"), "{error}");
    let (plan, _) = optimized("SELECT price + (2 + 3 * 4) AS x FROM bids").await.unwrap();
    assert!(plan.to_string().contains("bids.price + Int64(14)"), "{plan}");
}

#[tokio::test]
async fn now_stays_in_continuous_plans() {
    let (plan, _) = optimized("SELECT price FROM bids WHERE ts > now()").await.unwrap();
    assert!(plan.to_string().contains("now()"), "{plan}");
}
