//! Redraws a block of lines in place: up to its first line, clear, write, all in one write.

use std::io::Write;

/// A block of lines that is drawn again and again.
pub(crate) struct Screen {
    lines: usize,
    cursor_hidden: bool,
}

impl Screen {
    /// Nothing is drawn yet.
    pub(crate) fn new() -> Self {
        Self { lines: 0, cursor_hidden: false }
    }

    /// Draws `text` in place of what was drawn before.
    ///
    /// # Errors
    /// When the terminal cannot be written.
    pub(crate) fn draw(&mut self, text: &str) -> std::io::Result<()> {
        let frame = self.frame(text);
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(frame.as_bytes())?;
        stdout.flush()
    }

    /// The bytes of the next frame. Terminals that know synchronized output (2026) show it without flicker.
    fn frame(&mut self, text: &str) -> String {
        let mut frame = String::with_capacity(text.len() + 64);
        frame.push_str("\x1b[?2026h");
        if !std::mem::replace(&mut self.cursor_hidden, true) {
            frame.push_str("\x1b[?25l");
        }
        if self.lines > 0 {
            frame.push_str(&format!("\x1b[{}A", self.lines));
        }
        frame.push_str("\r\x1b[J");
        frame.push_str(text);
        frame.push_str("\x1b[?2026l");
        self.lines = text.matches('\n').count();
        frame
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.cursor_hidden {
            // The terminal may be gone; then there is no cursor to show.
            let _ = std::io::stdout().lock().write_all(b"\x1b[?25h");
            let _ = std::io::stdout().flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_last_one() {
        let mut screen = Screen { lines: 0, cursor_hidden: false };
        assert!(screen.frame("a\nb\n").contains("\x1b[?25l\r\x1b[Ja\nb\n"));
        assert_eq!(screen.frame("c\n"), "\x1b[?2026h\x1b[2A\r\x1b[Jc\n\x1b[?2026l");
        screen.cursor_hidden = false;
    }
}
