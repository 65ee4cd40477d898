//! `--connect`: finds out who we are and connects to a server.
//!
//! The password is the address's, else that of `MILLSTREAM_PASSWORD`, else it is asked for where a person sits at the terminal; it is
//! not shown while it is typed, and never part of the history.

use crate::connection::{Address, Remote};
use crate::failure::Failure;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::io::{BufRead, IsTerminal, Write};

/// Connects to the server that an address names.
///
/// # Errors
/// When the address is none, or the server cannot be reached or does not let us in.
pub(crate) async fn connect(address: &str) -> Result<Remote, Failure> {
    let mut address = Address::parse(address)?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let token = variable("MILLSTREAM_TOKEN");
    if let (None, Some(user), None) = (&token, &address.user, &address.password) {
        address.password = match variable("MILLSTREAM_PASSWORD") {
            Some(password) => Some(password),
            None if std::io::stdin().is_terminal() => Some(asked(user)?),
            None => None,
        };
    }
    Remote::connect(&address, token).await
}

/// The password that a person types, which the terminal does not show.
fn asked(user: &str) -> Result<String, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format!("the password cannot be read: {error}"));
    let stdin = std::io::stdin().lock();
    let before = tcgetattr(&stdin).map_err(|error| failed(&error))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    silent.local_flags.insert(LocalFlags::ECHONL);
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent).map_err(|error| failed(&error))?;
    eprint(&format!("password for {user}: "));
    let mut password = String::new();
    let mut stdin = stdin;
    let read = stdin.read_line(&mut password);
    // The terminal shows what is typed again, also when nothing could be read.
    tcsetattr(&stdin, SetArg::TCSAFLUSH, &before).map_err(|error| failed(&error))?;
    read.map_err(|error| failed(&error))?;
    Ok(password.trim_end_matches(['\n', '\r']).to_string())
}

fn eprint(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
