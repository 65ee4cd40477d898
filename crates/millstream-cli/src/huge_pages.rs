//! Huge pages for much state.
//!
//! The allocator asks for them for all memory (`.cargo/config.toml`): random accesses to gigabytes of state spend most of their time in
//! looking up small pages. But a huge page is held whole while a part of it is used, which a small process would feel. So the process
//! refuses them until it is large. **Errors**: none; where the system has no huge pages, or cannot refuse them, nothing changes.

use crate::memory;
use std::time::Duration;

/// A process of this size has state that profits.
const LARGE_BYTES: u64 = 384 << 20;
/// How often the size is looked at until it is reached.
const INTERVAL: Duration = Duration::from_millis(250);

/// Refuses huge pages until the process is large.
pub(crate) fn only_when_large() {
    if !refuse(true) {
        return;
    }
    tokio::spawn(async {
        while memory::resident_bytes() < LARGE_BYTES {
            tokio::time::sleep(INTERVAL).await;
        }
        refuse(false);
    });
}

#[cfg(target_os = "linux")]
fn refuse(refuse: bool) -> bool {
    nix::sys::prctl::set_thp_disable(refuse).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn refuse(_: bool) -> bool {
    false
}
