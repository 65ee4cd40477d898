//! The callback as a sink.

use crate::error::Result;
use crate::sink::{DeliveredSink, SinkEpoch};
use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use millstream_types::DeltaBatch;
use std::sync::Arc;

/// What is called for every committed epoch with changes.
pub type Callback = Arc<dyn Fn(SinkEpoch, Vec<DeltaBatch>) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// A sink that calls a function. See the module's documentation. Clones share the function.
#[derive(Clone)]
pub struct CallbackSink {
    callback: Callback,
}

impl CallbackSink {
    /// A sink that awaits `function` for every epoch.
    pub fn new<F, R>(function: F) -> Self
    where
        F: Fn(SinkEpoch, Vec<DeltaBatch>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<()>> + Send + 'static,
    {
        Self { callback: Arc::new(move |epoch, changes| function(epoch, changes).boxed()) }
    }

    /// A sink for a function that is already boxed.
    pub fn from_callback(callback: Callback) -> Self {
        Self { callback }
    }
}

impl std::fmt::Debug for CallbackSink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackSink")
    }
}

#[async_trait]
impl DeliveredSink for CallbackSink {
    async fn open(&mut self) -> Result<()> {
        Ok(())
    }

    async fn deliver(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<()> {
        (self.callback)(epoch, changes.to_vec()).await
    }
}
