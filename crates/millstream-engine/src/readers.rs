//! Where statements that read are carried out: on threads of their own, if the program gives some.
//!
//! A query computes without a pause for as long as it has rows. On the threads that run epochs many of them would make every epoch wait
//! for its turn; on threads that the operating system ranks below those, epochs and acknowledgements come first and queries take what
//! is left. Without such threads a query runs wherever its session does.

use crate::error::{EngineError, Result};
use crate::guard::guarded;
use crate::result::{Output, Rows, StatementResult};
use futures::StreamExt;
use std::future::Future;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Batches that are computed ahead of whoever takes them.
const AHEAD: usize = 2;

/// The threads of statements that read.
#[derive(Debug, Clone, Default)]
pub struct Readers {
    runtime: Option<Handle>,
}

impl Readers {
    /// These threads.
    pub(crate) fn on(runtime: Handle) -> Self {
        Self { runtime: Some(runtime) }
    }

    /// Carries work out there, until nobody waits for it any more.
    ///
    /// # Errors
    /// The work's.
    pub async fn run<T: Send + 'static, E: From<EngineError> + Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        let Some(runtime) = &self.runtime else { return work.await };
        let mut task = JoinSet::new();
        task.spawn_on(work, runtime);
        match task.join_next().await {
            Some(Ok(done)) => done,
            Some(Err(error)) => Err(failed(&error.to_string()).into()),
            None => Err(failed("it is gone").into()),
        }
    }

    /// Carries a statement out there; its rows are computed there too, while they are taken.
    pub(crate) async fn statement(&self, work: impl Future<Output = Result<StatementResult>> + Send + 'static) -> Result<StatementResult> {
        let Some(runtime) = &self.runtime else { return work.await };
        let (tell, told) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn_on(
            async move {
                let mut result = match guarded("the statement", Box::pin(work)).await {
                    Ok(result) => result,
                    Err(error) => return drop(tell.send(Err(error))),
                };
                let rows = match std::mem::replace(&mut result.output, Output::None) {
                    Output::Rows(rows) => rows,
                    other => {
                        result.output = other;
                        return drop(tell.send(Ok((result, None))));
                    }
                };
                let (sender, batches) = mpsc::channel(AHEAD);
                if tell.send(Ok((result, Some((rows.schema(), rows.late_notices(), batches))))).is_err() {
                    return;
                }
                let mut rows = std::pin::pin!(rows.into_stream());
                while let Some(batch) = rows.next().await {
                    if sender.send(batch).await.is_err() {
                        return;
                    }
                }
            },
            runtime,
        );
        let (mut result, rows) = told.await.map_err(|_| failed("it ended without an answer"))??;
        if let Some((schema, late, batches)) = rows {
            // The task ends with the rows.
            let stream = futures::stream::unfold((batches, task), |(mut batches, task)| async move {
                let batch = batches.recv().await?;
                Some((batch, (batches, task)))
            });
            result.output = Output::Rows(Rows::of_stream(schema, stream).telling(late));
        }
        Ok(result)
    }
}

fn failed(why: &str) -> EngineError {
    EngineError::Internal(format!("the statement's task failed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::{Builder, Runtime};

    fn threads() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).thread_name("reader").build().unwrap()
    }

    async fn thread() -> Result<String> {
        Ok(std::thread::current().name().unwrap_or_default().to_string())
    }

    #[tokio::test]
    async fn work_is_carried_out_on_their_threads() {
        let runtime = threads();
        let readers = Readers::on(runtime.handle().clone());
        assert_eq!(readers.run(thread()).await.unwrap(), "reader");
        assert_ne!(Readers::default().run(thread()).await.unwrap(), "reader");
        let failed: Result<()> = readers.run(async { if true { panic!("range 3") } else { Ok(()) } }).await;
        assert!(failed.unwrap_err().to_string().contains("range 3"));
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn rows_are_computed_there_until_nobody_takes_them() {
        let runtime = threads();
        let engine = crate::Engine::builder().manual().readers(runtime.handle().clone()).build().await.unwrap();
        let rows = engine.sql("SELECT value FROM generate_series(1, 3)").await.unwrap().collect().await.unwrap();
        assert_eq!(rows.iter().map(arrow::array::RecordBatch::num_rows).sum::<usize>(), 3);
        // It would not end by itself.
        let endless = engine.sql("SELECT a.value FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b").await.unwrap();
        drop(endless);
        let failed = engine.sql("SELECT 1 / (value - 2) FROM generate_series(1, 3)").await.unwrap().collect().await.unwrap_err();
        assert!(failed.to_string().to_lowercase().contains("divide"), "{failed}");
        runtime.shutdown_background();
    }
}
