//! The resident set of the process: how large it is, and how large it was since a moment (Linux).

/// Starts measuring anew; where the system cannot, peaks cover the whole process.
pub(crate) fn reset_peak() {
    // 5 resets the peak (see proc(5), clear_refs).
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident set since the reset; 0 where it is not known.
pub(crate) fn peak_bytes() -> u64 {
    figure("VmHWM:")
}

/// The resident set; 0 where it is not known.
pub(crate) fn resident_bytes() -> u64 {
    figure("VmRSS:")
}

fn figure(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    figure_of(&status, name).unwrap_or(0)
}

fn figure_of(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn figures_are_read() {
        assert_eq!(super::figure_of("VmPeak:\t 9 kB\nVmHWM:\t    2048 kB\n", "VmHWM:"), Some(2_097_152));
        assert_eq!(super::figure_of("", "VmRSS:"), None);
    }
}
