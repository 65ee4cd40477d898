//! What every test of this crate uses: one way to start an engine, to write rows down and to read them back.

pub(crate) mod input;
pub(crate) mod instance;
pub(crate) mod output;

use std::future::Future;
use std::path::{Path, PathBuf};

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie directly under the root").to_path_buf()
}

/// Runs a test on a runtime of its own.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs nothing that could be missing")
        .block_on(test)
}

/// A directory that is gone when the test is over.
pub(crate) fn scratch_dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("the temporary directory can be written")
}

/// Whether expectations are to be rewritten instead of checked.
pub(crate) fn blessing() -> bool {
    std::env::var_os("BLESS").is_some_and(|value| value != "0")
}
