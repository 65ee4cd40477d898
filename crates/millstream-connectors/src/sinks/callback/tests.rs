//! A callback gets epochs in order, and its errors come back.

use super::CallbackSink;
use crate::conformance;
use crate::error::ConnectorError;
use crate::sink::DeliveredSink;
use parking_lot::Mutex;
use std::sync::Arc;

#[tokio::test]
async fn calls_the_function_for_every_epoch() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let make = || {
        let seen = Arc::clone(&seen);
        let sink = CallbackSink::new(move |epoch, changes| {
            seen.lock().push((epoch.epoch.0, changes.iter().map(|change| change.num_rows()).sum::<usize>()));
            std::future::ready(Ok(()))
        });
        Box::new(sink) as Box<dyn DeliveredSink>
    };
    conformance::delivered_sink(make, &conformance::sample_epochs()).await;
    let calls = seen.lock().clone();
    assert_eq!(calls.first(), Some(&(1, 3)));
    assert!(calls.is_sorted_by_key(|(epoch, _)| *epoch), "{calls:?}");
}

#[tokio::test]
async fn errors_come_back() {
    let mut sink = CallbackSink::new(|_, _| std::future::ready(Err(ConnectorError::invalid("the dashboard is closed", ""))));
    sink.open().await.unwrap();
    let error = sink.deliver(conformance::sink_epoch(1), &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "the dashboard is closed");
}
