//! `millstream user`: an entry of the users file, which has verifiers and hashes only. The token itself is shown once, on standard error.

use crate::args::{UserArgs, UserRole};
use crate::failure::{DONE, Failure};
use crate::message;
use millstream_server::{Role, UserEntry, new_token};
use std::io::{BufRead, IsTerminal, Write};

/// Prints the entry.
///
/// # Errors
/// When standard input has no password.
pub(crate) fn user(args: &UserArgs) -> anyhow::Result<u8> {
    let (role, word) = match args.role {
        UserRole::Reader => (Role::Reader, "reader"),
        UserRole::Writer => (Role::Writer, "writer"),
        UserRole::Admin => (Role::Admin, "admin"),
    };
    let token = new_token();
    let mut entry = UserEntry::new(&args.name, role).with_token(&token);
    if !args.no_password {
        if std::io::stdin().is_terminal() {
            message::line("password (it is shown while you type; pipe it in to avoid that):");
        }
        let mut password = String::new();
        std::io::stdin().lock().read_line(&mut password)?;
        let password = password.trim_end_matches(['\n', '\r']);
        if password.is_empty() {
            return Err(Failure::usage("standard input has no password\nhint: --no-password makes a user with a token only.").into());
        }
        entry = entry.with_password(password);
    }
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = format!("[[user]]\nname = {}\nrole = \"{word}\"\n", quoted(&entry.name));
    if let Some(password) = &entry.password {
        text.push_str(&format!("password = {}\n", quoted(password)));
    }
    let tokens: Vec<String> = entry.tokens.iter().map(|token| quoted(token)).collect();
    text.push_str(&format!("tokens = [{}]\n", tokens.join(", ")));
    std::io::stdout().lock().write_all(text.as_bytes())?;
    message::line(&format!("token for HTTP and Arrow Flight SQL, shown this once: {token}"));
    Ok(DONE)
}
