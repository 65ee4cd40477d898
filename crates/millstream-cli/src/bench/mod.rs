//! `millstream bench`: what the engine costs on this machine. The queries and data of the benchmarks serve `millstream verify` too.

mod epoch;
pub(crate) mod nexmark;
pub(crate) mod parquet_file;
pub(crate) mod tpch;

pub(crate) use epoch::epoch;

use crate::failure::Failure;
use millstream_types::suggest::nearest;

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
