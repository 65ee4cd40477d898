//! CPU time of the process.

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

/// Seconds of all threads since the start, in user and system mode; 0 where it is not known.
pub(crate) fn seconds() -> f64 {
    let of = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| of(usage.user_time()) + of(usage.system_time()))
}
