//! Records the commit the program is built from, for `millstream --version`.

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=../../.git/HEAD");
    println!("cargo:rerun-if-changed=../../.git/logs/HEAD");
    let hash = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string())
        .unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=MILLSTREAM_COMMIT={hash}");
    println!("cargo:rustc-env=MILLSTREAM_TARGET={}", std::env::var("TARGET").unwrap_or_default());
    println!("cargo:rustc-env=MILLSTREAM_PROFILE={}", std::env::var("PROFILE").unwrap_or_default());
}
