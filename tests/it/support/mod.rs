//! What every test of this crate uses: one way to start an engine, to write rows down and to read them back.

pub(crate) mod input;
pub(crate) mod instance;
pub(crate) mod output;
pub(crate) mod stateful;

use std::future::Future;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie directly under the root").to_path_buf()
}

/// What the main thread of a program has. The test harness and the runtime give their threads a quarter of it, which is too
/// little for planning in a build without optimization.
const STACK_BYTES: usize = 8 << 20;

/// Runs a test on a runtime of its own.
pub(crate) fn block_on<T: Send>(test: impl Future<Output = T> + Send) -> T {
    block_on_runtime(tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_stack_size(STACK_BYTES), test)
}

/// As [`block_on`], with everything on one thread: nothing goes on but what the test waits for, so that it decides what comes first.
pub(crate) fn block_on_one_thread<T: Send>(test: impl Future<Output = T> + Send) -> T {
    block_on_runtime(&mut tokio::runtime::Builder::new_current_thread(), test)
}

fn block_on_runtime<T: Send>(builder: &mut tokio::runtime::Builder, test: impl Future<Output = T> + Send) -> T {
    let runtime = builder.enable_all().build().expect("a runtime starts");
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || runtime.block_on(test));
        thread.expect("a thread starts").join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A directory that is gone when the test is over.
pub(crate) fn scratch_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary directory can be written")
}

/// Whether expectations are to be rewritten instead of checked.
pub(crate) fn blessing() -> bool {
    std::env::var_os("BLESS").is_some_and(|value| value != "0")
}
