//! Spans of what is carried out, for whoever collects them.

use crate::error::Result;
use std::future::Future;
use tracing::{Instrument, Span};

/// Carries work out in a span that has a field `otel.status_code`, which says so if the work fails.
pub(crate) async fn noting_failure<T>(span: Span, work: impl Future<Output = Result<T>>) -> Result<T> {
    let carried_out = work.instrument(span.clone()).await;
    if carried_out.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    carried_out
}
