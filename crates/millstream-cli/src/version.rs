//! What this program is: for `--version` and bug reports.

/// Version, commit, target and the version of DataFusion, as `--version` prints them.
pub(crate) fn long() -> String {
    format!(
        "{} ({})\ntarget: {} ({})\ndatafusion: {}\narrow: {}",
        env!("CARGO_PKG_VERSION"),
        env!("MILLSTREAM_COMMIT"),
        env!("MILLSTREAM_TARGET"),
        env!("MILLSTREAM_PROFILE"),
        datafusion::DATAFUSION_VERSION,
        arrow::ARROW_VERSION,
    )
}
