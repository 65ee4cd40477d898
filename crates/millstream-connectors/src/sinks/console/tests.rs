//! What the console prints.

use super::{ConsoleSink, ConsoleWriter};
use crate::conformance::{self, sample_epochs, sample_schema, sink_epoch};
use crate::sink::{DeliveredSink, SinkContext, SinkMode};
use millstream_types::Options;
use parking_lot::Mutex;
use std::sync::Arc;

fn context(mode: SinkMode, key: &[&str], options: &[(&str, &str)]) -> SinkContext {
    let mut context = conformance::sink_context(sample_schema(), mode);
    context.key = key.iter().map(ToString::to_string).collect();
    context.options = Options::new("sink \"k\"", options.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    context
}

async fn printed(mut context: SinkContext, epochs: usize) -> String {
    let written: Arc<Mutex<Vec<u8>>> = Arc::default();
    let writer: ConsoleWriter = Arc::clone(&written) as ConsoleWriter;
    let mut sink = ConsoleSink::new(&mut context, writer).unwrap();
    context.options.finish().unwrap();
    sink.open().await.unwrap();
    for (index, changes) in sample_epochs().iter().take(epochs).enumerate() {
        sink.deliver(sink_epoch(index as u64 + 1), changes).await.unwrap();
    }
    let bytes = written.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn prints_a_table_with_ops() {
    let text = printed(context(SinkMode::Changelog, &["id"], &[]), 2).await;
    let expected = "\
-------- epoch 1, time 2000-01-01T00:00:01Z --------
+----+----+-------+
| op | id | name  |
+----+----+-------+
| +I | 1  | one   |
| +I | 2  | two   |
| +I | 3  | three |
+----+----+-------+
-------- epoch 2, time 2000-01-01T00:00:02Z --------
+----+----+------+
| op | id | name |
+----+----+------+
| -U | 2  | two  |
| +U | 2  | NULL |
| +I | 4  | four |
| +I | 4  | four |
+----+----+------+
";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn prints_lines_up_to_the_limit() {
    let text = printed(context(SinkMode::Changelog, &[], &[("format", "lines"), ("limit", "2")]), 2).await;
    let expected = "\
-------- epoch 1, time 2000-01-01T00:00:01Z --------
+I[1, one]
+I[2, two]
… 1 more row
-------- epoch 2, time 2000-01-01T00:00:02Z --------
-D[2, two]
+I[2, NULL]
… 2 more rows
";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn append_mode_has_no_ops_and_empty_epochs_print_nothing() {
    let text = printed(context(SinkMode::Append, &[], &[]), 1).await;
    assert!(text.contains("| id | name  |"), "{text}");
    let mut quiet = context(SinkMode::Append, &[], &[]);
    let written: Arc<Mutex<Vec<u8>>> = Arc::default();
    let writer: ConsoleWriter = Arc::clone(&written) as ConsoleWriter;
    let mut sink = ConsoleSink::new(&mut quiet, writer).unwrap();
    sink.deliver(sink_epoch(1), &[]).await.unwrap();
    assert!(written.lock().is_empty());
}

#[test]
fn options_are_checked() {
    let writer: ConsoleWriter = Arc::new(Mutex::new(Vec::new()));
    let mut wrong = context(SinkMode::Append, &[], &[("limit", "many")]);
    let error = ConsoleSink::new(&mut wrong, writer).unwrap_err();
    assert_eq!(error.to_string(), "option \"limit\" of sink \"k\" is 'many', not a number of rows");
}
