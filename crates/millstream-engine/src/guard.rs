//! Panics of libraries on damaged input, as errors: one statement fails, and the program goes on.

use crate::error::{EngineError, Result};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use std::any::Any;
use std::panic::AssertUnwindSafe;

/// The result of `work`, also when it panics. What it has changed must be of no use to anyone afterwards. It is boxed, since what is
/// guarded
/// is large, and would be on the stack once more.
pub(crate) async fn guarded<T>(what: &str, work: BoxFuture<'_, Result<T>>) -> Result<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => Err(panicked(what, panic.as_ref())),
    }
}

/// The items of a stream; a panic is its last one.
pub(crate) fn guarded_stream<T: Send>(
    what: &'static str,
    stream: impl Stream<Item = Result<T>> + Send,
) -> impl Stream<Item = Result<T>> + Send {
    let items = AssertUnwindSafe(stream).catch_unwind();
    items.map(move |item| item.unwrap_or_else(|panic| Err(panicked(what, panic.as_ref()))))
}

/// The error that a panic is.
pub(crate) fn panicked(what: &str, panic: &(dyn Any + Send)) -> EngineError {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    EngineError::Internal(format!("{what} made the program panic: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let failed = guarded("the statement", async { if true { panic!("range {}", 3) } else { Ok(()) } }.boxed()).await.unwrap_err();
        assert!(failed.to_string().contains("the statement made the program panic: range 3"), "{failed}");
        let stream = futures::stream::iter([1, 2]).map(|item| if item == 2 { panic!("two") } else { Ok(item) });
        let items: Vec<Result<i32>> = guarded_stream("the query", stream).collect().await;
        assert!(matches!(items.as_slice(), [Ok(1), Err(_)]), "{items:?}");
    }
}
