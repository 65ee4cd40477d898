//! Options of a stream that the engine reads itself; what is left over goes to the connector.

use crate::catalog::object::{RowPolicy, StreamOptions, StreamShape};
use crate::error::{EngineError, Result};
use millstream_connectors::source::{DEFAULT_EPOCH_BYTES, DEFAULT_EPOCH_FILES};
use millstream_types::Options;
use std::collections::BTreeMap;
use std::time::Duration;

/// Options the engine takes before the connector sees the rest.
pub const ENGINE_OPTIONS: &[&str] = &[
    "backpressure",
    "idle_timeout",
    "max_bad_rows",
    "max_bytes_per_epoch",
    "max_files_per_epoch",
    "max_future",
    "max_rows_per_epoch",
    "max_rows_per_second",
    "on_error",
    "on_future",
    "on_late",
    "op_column",
    "retention",
    "validate",
    "verify",
];

/// Splits the options of a stream: the engine's, its shape, and the connector's.
///
/// # Errors
/// When an engine option has an illegal value.
pub fn take(
    owner: &str,
    connector: &str,
    key: Vec<String>,
    append_only: bool,
    mut all: BTreeMap<String, String>,
) -> Result<(StreamOptions, StreamShape, BTreeMap<String, String>)> {
    let own: BTreeMap<String, String> = ENGINE_OPTIONS.iter().filter_map(|name| all.remove_entry(*name)).collect();
    let mut options = Options::new(owner, own);
    let policies = [("dead_letter", RowPolicy::DeadLetter), ("skip", RowPolicy::Skip), ("fail", RowPolicy::Fail)];
    let future = [("flow", RowPolicy::Flow), ("skip", RowPolicy::Skip), ("dead_letter", RowPolicy::DeadLetter), ("fail", RowPolicy::Fail)];
    // A finite or made-up history may lie anywhere in time; only live input is compared with the clock by default.
    let live = matches!(connector, "socket") && all.get("bounded").is_none_or(|bounded| bounded != "true");
    let max_future = match options.peek("max_future") {
        Some("off") => {
            options.take("max_future");
            None
        }
        _ => options.duration("max_future")?.or(live.then_some(Duration::from_secs(86_400))),
    };
    let (retention_bytes, retention_time) = retention(&mut options)?;
    let max_files = options.parse::<u64>("max_files_per_epoch", "a number of files")?;
    let parsed = StreamOptions {
        on_error: options.choice("on_error", &policies)?.unwrap_or(RowPolicy::DeadLetter),
        validate_all: options.choice("validate", &[("used", false), ("all", true)])?.unwrap_or(false),
        max_bad_rows: options.parse("max_bad_rows", "a number of rows")?,
        on_late: options.choice("on_late", &policies)?.unwrap_or(RowPolicy::Skip),
        max_future,
        on_future: options.choice("on_future", &future)?.unwrap_or(RowPolicy::Flow),
        idle_timeout: options.duration("idle_timeout")?,
        max_rows_per_epoch: positive(&mut options, "max_rows_per_epoch", "a number of rows")?,
        max_bytes_per_epoch: options.bytes("max_bytes_per_epoch")?.unwrap_or(if max_files.is_some() {
            u64::MAX
        } else {
            DEFAULT_EPOCH_BYTES
        }),
        max_files_per_epoch: max_files.unwrap_or(DEFAULT_EPOCH_FILES).max(1),
        max_rows_per_second: positive(&mut options, "max_rows_per_second", "a number of rows per second")?,
        backpressure: options.boolean("backpressure")?,
        retention_bytes,
        retention_time,
    };
    let op_column = options.take("op_column");
    let verify = options.boolean("verify")?;
    let shape = match (key.is_empty(), op_column) {
        (true, None) => StreamShape::Append,
        (false, op_column) => StreamShape::Upsert { key, op_column },
        (true, Some(op_column)) => StreamShape::Bag { op_column, verify: verify.unwrap_or(true) },
    };
    if append_only && shape != StreamShape::Append {
        return Err(EngineError::invalid(format!("{owner} is APPEND ONLY but has a key or an op column"), "Leave out one of them."));
    }
    options.finish()?;
    Ok((parsed, shape, all))
}

fn positive(options: &mut Options, name: &str, expected: &str) -> Result<Option<u64>> {
    match options.parse::<u64>(name, expected)? {
        Some(0) => Err(EngineError::invalid(format!("option \"{name}\" of {} is 0", options.owner()), "Leave it out for no limit.")),
        value => Ok(value),
    }
}

/// `retention`: a duration, a size, or `'all'`. Default: 10 minutes or 64 MB.
fn retention(options: &mut Options) -> Result<(u64, Duration)> {
    const BYTES: u64 = 64_000_000;
    const TIME: Duration = Duration::from_secs(600);
    match options.peek("retention") {
        None => Ok((BYTES, TIME)),
        Some("all") => {
            options.take("retention");
            Ok((u64::MAX, Duration::MAX))
        }
        Some(text) if millstream_types::options::parse_duration(text).is_some() => {
            let time = options.duration("retention")?.unwrap_or(TIME);
            Ok((u64::MAX, time))
        }
        Some(_) => Ok((options.bytes("retention")?.unwrap_or(BYTES), Duration::MAX)),
    }
}
