//! Work in a task of its own, which ends when nobody waits for it any more.

use millstream_engine::EngineError;
use std::future::Future;
use tokio::task::JoinSet;

/// Runs work in a task of its own: work that computes without a pause would keep its connection from seeing a request to cancel.
///
/// # Errors
/// The work's.
pub(crate) async fn aside<T: Send + 'static, E: Send + From<EngineError> + 'static>(
    work: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E> {
    let mut tasks = JoinSet::new();
    tasks.spawn(work);
    match tasks.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) => Err(EngineError::Internal(format!("the statement's task failed: {error}")).into()),
        None => Err(EngineError::Internal("the statement's task is gone".into()).into()),
    }
}
