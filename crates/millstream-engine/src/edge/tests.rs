//! The changes of keyed streams one by one.

use super::*;
use crate::context::base_state;
use crate::statements::create_stream;
use crate::statements::given_options::GivenOptions;
use arrow::array::StringArray;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_plan::functions::EpochClock;
use millstream_plan::process::StatefulFunctions;
use millstream_sql::Statement;

const STREAM: &str = "CREATE STREAM rates (k VARCHAR, ts TIMESTAMP, v BIGINT NOT NULL, PRIMARY KEY (k), WATERMARK FOR ts AS ts) \
                      WITH (connector = 'memory', op_column = 'op')";

async fn edge(sql: &str) -> Edge {
    let state = base_state(&EpochClock::new(EventTime(0)), None, StatefulFunctions::default()).expect("a session");
    let Statement::CreateStream(create) = millstream_sql::parse_statement(sql).expect("SQL") else { panic!("not a stream") };
    let def = create_stream::define(&create, &GivenOptions::default(), None, &state).await.expect("a stream");
    let mut edge = Edge::new(Arc::new(def), &state).expect("an edge");
    edge.keep_versions(true);
    edge
}

/// What an edge makes of changes: op, key, second and value.
fn accept(edge: &mut Edge, epoch: u64, watermark: i64, changes: &[(&str, &str, Option<i64>, Option<i64>)]) -> Accepted {
    let second = |second: i64| second * 1_000_000;
    let column = |name: &str| -> ArrayRef {
        match name {
            "op" => Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.0))),
            "k" => Arc::new(StringArray::from_iter_values(changes.iter().map(|change| change.1))),
            "ts" => Arc::new(changes.iter().map(|change| change.2.map(second)).collect::<TimestampMicrosecondArray>()),
            _ => Arc::new(changes.iter().map(|change| change.3).collect::<Int64Array>()),
        }
    };
    let schema = edge.decode_schema();
    let columns = schema.fields().iter().map(|field| arrow::compute::cast(&column(field.name()), field.data_type()).expect("a type"));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect()).expect("a batch");
    let batch = SourceBatch { batch, sequence: epoch, rows: None, first_row: 0, bad: vec![], places: None, bytes: 0, event_times: None };
    let at = EdgeEpoch { epoch: Epoch(epoch), clock: EventTime(second(100)), watermark_start: EventTime(second(watermark)) };
    let mut accepted = Accepted::default();
    edge.accept("", batch, at, &mut accepted).expect("rows");
    accepted
}

/// Versions as `key second value epoch.position`, deletions with a minus.
fn versions(accepted: &Accepted) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let mut lines = vec![];
    for part in &accepted.versions {
        for row in 0..part.num_rows() {
            let value = |name: &str| ArrayFormatter::try_new(&part.batch[name], &options).expect("a column").value(row).to_string();
            let minus = if value("__deleted") == "true" { "-" } else { "" };
            let (ts, v) = (value("ts"), value("v"));
            lines.push(format!("{minus}{} {} {v} {}.{}", value("k"), &ts[ts.len() - 2..], value("_epoch"), value("__position")));
        }
    }
    lines
}

#[tokio::test]
async fn changes_within_an_epoch_are_all_versions() {
    let mut edge = edge(STREAM).await;
    let changes =
        [("u", "a", Some(10), Some(1)), ("u", "a", Some(20), Some(2)), ("u", "b", Some(5), Some(3)), ("u", "a", Some(20), Some(4))];
    let accepted = accept(&mut edge, 1, 0, &changes);
    assert_eq!(versions(&accepted), ["a 10 1 1.0", "a 20 2 1.1", "b 05 3 1.2", "a 20 4 1.3"]);
    assert_eq!(millstream_types::delta::num_rows(&accepted.delta), 2, "the relation has the last row of each key");
    // Places go on within an epoch and begin anew in the next.
    assert_eq!(versions(&accept(&mut edge, 1, 0, &[("u", "a", Some(30), Some(5))])), ["a 30 5 1.4"]);
    assert_eq!(versions(&accept(&mut edge, 2, 0, &[("u", "a", Some(30), Some(5))])), ["a 30 5 2.0"]);
}

#[tokio::test]
async fn a_deletion_has_its_own_time_or_that_of_the_row() {
    let mut edge = edge(STREAM).await;
    let insert = |second: i64| ("+I", "a", Some(second), Some(second));
    assert_eq!(versions(&accept(&mut edge, 1, 0, &[insert(20), ("-D", "a", Some(25), None)])), ["a 20 20 1.0", "-a 25 20 1.1"]);
    assert_eq!(versions(&accept(&mut edge, 2, 0, &[insert(30), ("-D", "a", None, None)])), ["a 30 30 2.0", "-a 30 30 2.1"]);
    // One that the watermark has passed counts as none, so that no version lies below it.
    assert_eq!(versions(&accept(&mut edge, 3, 35, &[insert(40), ("-D", "a", Some(34), None)])), ["a 40 40 3.0", "-a 40 40 3.1"]);
    // A deletion that came out of order ends what was before it.
    assert_eq!(versions(&accept(&mut edge, 4, 35, &[insert(50), ("-D", "a", Some(45), None)])), ["a 50 50 4.0", "-a 45 50 4.1"]);
}

#[tokio::test]
async fn late_and_bad_changes_are_no_versions() {
    let mut edge = edge(STREAM).await;
    let changes = [("u", "a", Some(10), Some(1)), ("d", "x", None, None), ("?", "a", Some(20), Some(2)), ("u", "b", None, Some(3))];
    let accepted = accept(&mut edge, 1, 5, &changes);
    assert_eq!((accepted.rows_used, accepted.rows_bad, versions(&accepted)), (1, 3, vec!["a 10 1 1.0".to_string()]));
    let accepted = accept(&mut edge, 2, 15, &[("u", "a", Some(20), Some(2)), ("u", "c", Some(14), Some(1)), ("u", "c", Some(15), Some(2))]);
    assert_eq!((accepted.rows_used, accepted.rows_late, versions(&accepted)), (1, 2, vec!["c 15 2 2.0".to_string()]));
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_a_version() {
    let mut edge = edge(STREAM).await;
    accept(&mut edge, 1, 0, &[("u", "a", Some(10), Some(1))]);
    let accepted = accept(&mut edge, 2, 0, &[("u", "a", Some(10), Some(1))]);
    assert_eq!(versions(&accepted), ["a 10 1 2.0"]);
    edge.keep_versions(false);
    assert!(accept(&mut edge, 3, 0, &[("u", "a", Some(20), Some(2))]).versions.is_empty(), "nobody reads them");
}

#[tokio::test]
async fn a_log_without_the_versions_that_are_read_is_damaged() {
    let mut edge = edge(STREAM).await;
    let mut logged = accept(&mut edge, 1, 0, &[("u", "a", Some(10), Some(1))]);
    let mut other = self::edge(STREAM).await;
    let mut accepted = Accepted::default();
    other.accept_logged(logged.delta.clone(), std::mem::take(&mut logged.versions), &mut accepted).expect("versions are there");
    assert_eq!(versions(&accepted), ["a 10 1 1.0"]);
    let error = other.accept_logged(logged.delta, vec![], &mut accepted).expect_err("no versions");
    assert!(error.to_string().contains("have no versions"), "{error}");
}
