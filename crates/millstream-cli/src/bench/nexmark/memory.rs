//! The largest resident set of the process, measured anew for each query (Linux).

/// Starts measuring anew; where the system cannot, peaks cover the whole process.
pub(crate) fn reset_peak() {
    // 5 resets the peak (see proc(5), clear_refs).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident set since the reset; 0 where it is not known.
pub(crate) fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    peak_of(&status).unwrap_or(0)
}

fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_peak_is_read() {
        assert_eq!(super::peak_of("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n"), Some(2_097_152));
        assert_eq!(super::peak_of(""), None);
    }
}
