//! What is longer than the window goes through a pager.

use std::io::Write;
use std::process::{Command, Stdio};

/// Shows a text in `$MILLSTREAM_PAGER`, `$PAGER` or `less`. `false` when there is none that starts, or it is `cat`-like
/// (an empty name): then the caller prints the text itself.
pub(crate) fn show(text: &str) -> bool {
    let named = ["MILLSTREAM_PAGER", "PAGER"].iter().find_map(|name| std::env::var(name).ok());
    let command = named.unwrap_or_else(|| "less".into());
    let mut words = command.split_whitespace();
    let Some(program) = words.next() else { return false };
    let mut pager = Command::new(program);
    pager.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        // Quit if it fits, keep colours, do not clear the screen, cut long lines.
        pager.env("LESS", "FRXS");
    }
    let Ok(mut child) = pager.spawn() else { return false };
    if let Some(mut stdin) = child.stdin.take() {
        // The user may leave the pager before everything is written.
        let _ = stdin.write_all(text.as_bytes());
    }
    let _ = child.wait();
    true
}
