//! How many threads can run at once.

use std::sync::OnceLock;

/// Number of cores that this process may use. Asking the system reads several files, so it is asked once.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}
