//! The users file of `serve`: `[[user]]` with name, role, password, tokens and limits. It is read again when it changes.
//!
//! A file that cannot be used, also because it is being written just now or is gone, leaves the users as they were, and a warning in the
//! log says what is wrong with it.

use crate::failure::Failure;
use millstream_server::{Server, UserEntry};
use std::convert::Infallible;
use std::fmt::Display;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What tells a version of a file from another one: when it was written, how long it is, and which file it is.
type Written = Option<(SystemTime, u64, u64)>;

/// The file, as it was read last.
#[derive(Debug)]
pub(crate) struct UsersFile {
    path: PathBuf,
    written: Written,
}

impl UsersFile {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or has no users.
    pub(crate) fn read(path: &Path) -> Result<(Self, Vec<UserEntry>), Failure> {
        // Before it is read: what is written in between is seen as a change later.
        let file = Self { path: path.to_path_buf(), written: written(path) };
        let users = users(path).map_err(Failure::usage)?;
        Ok((file, users))
    }

    /// Gives a server the users of the file whenever it has changed.
    pub(crate) async fn follow(&mut self, server: &Server) -> Infallible {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            if let Some(read) = self.changed() {
                let taken = read.and_then(|users| match server.bring_users(&users) {
                    Ok(()) => Ok(users.len()),
                    Err(error) => Err(with_hint(&error, error.hint())),
                });
                match taken {
                    Ok(users) => tracing::info!(file = %self.path.display(), users, "the users file was read again"),
                    Err(error) => tracing::warn!(%error, "the changed users file cannot be used, the users before stay"),
                }
            }
        }
    }

    /// What the file has, if it has changed since it was read.
    fn changed(&mut self) -> Option<Result<Vec<UserEntry>, String>> {
        let now = written(&self.path);
        if now == self.written {
            return None;
        }
        self.written = now;
        Some(users(&self.path))
    }
}

fn written(path: &Path) -> Written {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

fn users(file: &Path) -> Result<Vec<UserEntry>, String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Contents {
        #[serde(default)]
        user: Vec<UserEntry>,
    }
    if !file.is_file() {
        return Err(format!("users file \"{}\" does not exist", file.display()));
    }
    let source = config::File::from(file).format(config::FileFormat::Toml);
    let read = config::Config::builder().add_source(source).build().and_then(config::Config::try_deserialize::<Contents>);
    let users = read.map_err(|error| format!("users file \"{}\": {error}", file.display()))?.user;
    if users.is_empty() {
        let hint = "\nhint: `millstream user NAME --role reader` prints one.";
        return Err(format!("users file \"{}\" has no users{hint}", file.display()));
    }
    Ok(users)
}

fn with_hint(error: &impl Display, hint: Option<&str>) -> String {
    hint.map_or_else(|| error.to_string(), |hint| format!("{error} ({hint})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        let entry = |name: &str| format!("[[user]]\nname = \"{name}\"\nrole = \"reader\"\n");
        assert!(UsersFile::read(&path).is_err());
        std::fs::write(&path, entry("ada")).unwrap();
        let (mut file, users) = UsersFile::read(&path).unwrap();
        assert_eq!(users.len(), 1);
        assert!(file.changed().is_none());
        std::fs::write(&path, entry("ada") + &entry("bob")).unwrap();
        assert_eq!(file.changed().unwrap().unwrap().len(), 2);
        for damaged in ["", "[[user]]\nname = 1", "[[user]"] {
            std::fs::write(&path, damaged).unwrap();
            assert!(file.changed().unwrap().is_err(), "{damaged}");
            assert!(file.changed().is_none(), "told once");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(file.changed().unwrap().unwrap_err().contains("does not exist"));
        std::fs::write(&path, entry("ada")).unwrap();
        assert!(file.changed().unwrap().is_ok());
    }
}
