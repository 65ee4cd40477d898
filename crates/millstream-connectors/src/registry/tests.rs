//! Names, synonyms, refusals.

use super::*;
use crate::conformance::{sample_schema, sink_context, source_context, start_clock};
use crate::sink::SinkMode;
use millstream_types::{Classified, ErrorKind};

fn hint(error: &ConnectorError) -> String {
    error.hint().unwrap_or_default()
}

#[test]
fn lists_are_sorted_and_names_unique() {
    assert!(SOURCES.is_sorted_by_key(|kind| kind.name));
    assert!(SINKS.is_sorted_by_key(|kind| kind.name));
    assert!(RESERVED.is_sorted());
    let mut all: Vec<&str> = SOURCES.iter().flat_map(|kind| names(kind.name, kind.synonyms)).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    for kind in SOURCES {
        let metadata = (kind.metadata)();
        assert!(metadata.is_sorted_by_key(|(key, _)| *key), "{}", kind.name);
    }
}

#[test]
fn synonyms_lead_to_their_connector() {
    assert_eq!(source_kind("datagen").unwrap().name, "generator");
    assert_eq!(source_kind("Memory").unwrap().name, "memory");
    assert_eq!(sink_kind("print").unwrap().name, "console");
}

#[test]
fn unknown_names_are_refused_helpfully() {
    let error = source_kind("kafka").unwrap_err();
    assert_eq!(error.to_string(), "the connector \"kafka\" is not in this build");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = source_kind("sockte").unwrap_err();
    assert_eq!(error.to_string(), "unknown source connector \"sockte\"");
    assert_eq!(hint(&error), "Did you mean \"socket\"?");
    let error = source_kind("console").unwrap_err();
    assert_eq!(error.to_string(), "the connector \"console\" is a sink, not a source");
    let error = sink_kind("nexmark").unwrap_err();
    assert_eq!(error.to_string(), "the connector \"nexmark\" is a source, not a sink");
}

#[test]
fn options_nobody_takes_are_refused() {
    let context = source_context(&[("a", DataType::Int64)], &[("bufer_rows", "1")], &start_clock());
    let error = create_source("memory", context).unwrap_err();
    assert_eq!(error.to_string(), "unknown option \"bufer_rows\" of stream \"s\"");
    assert_eq!(hint(&error), "Did you mean \"buffer_rows\"?");
    let mut context = sink_context(sample_schema(), SinkMode::Append);
    context.options = Options::new("sink \"k\"", [("limit".to_string(), "1".to_string())]);
    assert!(create_sink("blackhole", context).is_err());
}

#[test]
fn a_format_as_connector_settles_the_format() {
    let mut options = Options::new("stream \"s\"", []);
    settle_format("CSV", &mut options).unwrap();
    assert_eq!(options.peek("format"), Some("csv"));
    let mut options = Options::new("stream \"s\"", [("format".to_string(), "json".to_string())]);
    let error = settle_format("csv", &mut options).unwrap_err();
    assert_eq!(error.to_string(), "stream \"s\" has connector 'csv' and format 'json', which contradict each other");
}

#[tokio::test]
async fn columns_are_inferred_where_the_connector_knows_them() {
    let options =
        |pairs: &[(&str, &str)]| Options::new("stream \"s\"", pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())));
    let names = |schema: SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(",");
    assert_eq!(names(infer_schema("timer", &options(&[])).await.unwrap()), "tick,ts");
    assert_eq!(names(infer_schema("socket", &options(&[])).await.unwrap()), "line");
    let bid = infer_schema("nexmark", &options(&[("table", "bid")])).await.unwrap();
    assert_eq!(names(bid), "auction,bidder,price,channel,url,date_time,extra");
    assert!(infer_schema("generator", &options(&[])).await.is_err());
    assert!(infer_schema("socket", &options(&[("format", "json")])).await.is_err());
}

#[test]
fn metadata_is_typed_and_checked() {
    assert_eq!(metadata_type("datagen", "n").unwrap(), DataType::Int64);
    let error = metadata_type("generator", "path").unwrap_err();
    assert_eq!(error.to_string(), "the connector \"generator\" has no metadata \"path\"");
    assert_eq!(hint(&error), "It has n.");
}
