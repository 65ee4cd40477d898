//! That users or privileges have changed: for whatever goes on over several statements, such as subscriptions and connections.
//!
//! Who watches looks at a number, and at rights themselves only where it has moved. A session belongs to the user who opened it, not to
//! one of the same name who came later: users who are gone are counted by name, and a session remembers the count it began with.

use parking_lot::RwLock;
use std::collections::HashMap;
use tokio::sync::watch;

/// Changes of users and privileges.
#[derive(Debug, Default)]
pub struct AccessWatch {
    version: watch::Sender<u64>,
    /// How many users of a name are gone.
    gone: RwLock<HashMap<String, u64>>,
}

impl AccessWatch {
    /// Users or privileges have changed; these users are gone.
    pub(crate) fn changed(&self, gone: impl IntoIterator<Item = String>) {
        let mut counts = self.gone.write();
        gone.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
        drop(counts);
        self.version.send_modify(|version| *version += 1);
    }

    /// How many users of this name are gone.
    pub(crate) fn gone(&self, name: &str) -> u64 {
        self.gone.read().get(name).copied().unwrap_or_default()
    }

    /// Tells of every change from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
