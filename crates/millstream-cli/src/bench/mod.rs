//! `millstream bench`: what the engine costs on this machine. The queries and data of the benchmarks serve `millstream verify` too.

mod epoch;
pub(crate) mod nexmark;
pub(crate) mod parquet_file;
mod state;
pub(crate) mod tpch;

pub(crate) use epoch::epoch;
pub(crate) use state::state;

use crate::failure::Failure;
use anyhow::Context;
use millstream_types::suggest::nearest;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// The queries with these names, in the order of the names; all of them for none. `which` says what names there are.
///
/// # Errors
/// A usage error for an unknown name.
pub(crate) fn named<'a, T>(all: &'a [T], names: &[String], name_of: fn(&T) -> &str, which: &str) -> Result<Vec<&'a T>, Failure> {
    if names.is_empty() {
        return Ok(all.iter().collect());
    }
    let find = |name: &String| {
        let found = all.iter().find(|query| name_of(query).eq_ignore_ascii_case(name.trim()));
        found.ok_or_else(|| {
            let near = nearest(name, all.iter().map(name_of));
            let hint = near.map_or(which.to_string(), |near| format!("Did you mean {near}?"));
            Failure::usage(format!("unknown query \"{name}\"\nhint: {hint}"))
        })
    };
    names.iter().map(find).collect()
}

/// The time that `percent` of the epochs did not exceed.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or_default()
}

/// A new directory under this one, which goes with the value.
fn temporary_under(dir: &Path) -> anyhow::Result<TempDir> {
    std::fs::create_dir_all(dir).with_context(|| format!("making \"{}\"", dir.display()))?;
    tempfile::tempdir_in(dir).with_context(|| format!("making a temporary directory in \"{}\"", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::quantile;
    use std::time::Duration;

    #[test]
    fn quantiles_are_those_of_the_sorted_times() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_millis).collect();
        for (percent, expected) in [(0, 1), (50, 100), (99, 198), (100, 200)] {
            assert_eq!(quantile(&times, percent), Duration::from_millis(expected), "{percent} %");
        }
    }
}
