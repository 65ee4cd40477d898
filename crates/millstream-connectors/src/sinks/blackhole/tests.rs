//! A blackhole counts what was committed, and nothing else.

use super::BlackholeSink;
use crate::conformance::{self, SinkCase, sink_epoch};
use crate::sink::TransactionalSink;
use std::collections::BTreeMap;

#[tokio::test]
async fn conforms() {
    conformance::transactional_sink(SinkCase {
        make: &|| Box::new(BlackholeSink::default()),
        visible: &BTreeMap::new,
        epochs: conformance::sample_epochs(),
    })
    .await;
}

#[tokio::test]
async fn counts_committed_rows_by_weight() {
    let epochs = conformance::sample_epochs();
    let mut sink = BlackholeSink::default();
    sink.open(None).await.unwrap();
    sink.stage(sink_epoch(1), &epochs[0]).await.unwrap();
    sink.abort(sink_epoch(1)).await.unwrap();
    for (index, changes) in epochs.iter().enumerate() {
        sink.stage(sink_epoch(index as u64 + 1), changes).await.unwrap();
        let commit = sink.prepare(sink_epoch(index as u64 + 1)).await.unwrap();
        sink.publish(&commit).await.unwrap();
        sink.publish(&commit).await.unwrap();
    }
    assert_eq!(sink.rows(), 9);
}
