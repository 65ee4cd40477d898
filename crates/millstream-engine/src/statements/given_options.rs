//! The options an object is made with: its `WITH` clause, what is replaced from outside, and the environment.
//!
//! `${NAME}` in a value is replaced here, when the object is made, and nowhere else: the catalog, `SHOW CREATE` and
//! the log hold the statement with its reference, never the value. After a restart the reference is looked up again.

use crate::error::{EngineError, Result};
use millstream_connectors::reach::check_options;
use millstream_sql::variables::{expand_env, expand_options};
use millstream_types::{Classified, Reach};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Gives the value of an environment variable.
pub type EnvironmentLookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where the options of streams, sinks and tables come from, beside their statements.
#[derive(Clone)]
pub struct GivenOptions {
    /// `--set object.option=value`.
    pub overrides: BTreeMap<(String, String), String>,
    /// What `${NAME}` stands for.
    pub environment: EnvironmentLookup,
    /// Which files and hosts the options may name.
    pub reach: Reach,
}

impl std::fmt::Debug for GivenOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GivenOptions").finish_non_exhaustive()
    }
}

impl Default for GivenOptions {
    fn default() -> Self {
        Self { overrides: BTreeMap::new(), environment: Arc::new(|_| None), reach: Reach::default() }
    }
}

impl GivenOptions {
    /// The options of an object; `owner` names it in messages (`stream "s"`).
    ///
    /// # Errors
    /// When an option is given twice, names an environment variable that is not set, or a file or host that statements may not reach.
    pub fn of(&self, name: &str, owner: &str, written: &[(String, String)]) -> Result<BTreeMap<String, String>> {
        let mut options: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in written {
            if options.insert(key.clone(), value.clone()).is_some() {
                return Err(EngineError::invalid(format!("option \"{key}\" of {owner} is given twice"), "Leave out one of them."));
            }
        }
        for ((object, key), value) in &self.overrides {
            if object == name {
                options.insert(key.clone(), value.clone());
            }
        }
        let mut options: Vec<(String, String)> = options.into_iter().collect();
        let expanded = expand_options(&mut options, &*self.environment);
        expanded.map_err(|error| EngineError::invalid(format!("{owner}: {}", error.message), error.hint().unwrap_or_default()))?;
        let options: BTreeMap<String, String> = options.into_iter().collect();
        check_options(&self.reach, owner, &options).map_err(|error| EngineError::connector(owner, error))?;
        Ok(options)
    }

    /// One value with its references replaced.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn expanded(&self, owner: &str, value: &str) -> Result<String> {
        expand_env(value, &*self.environment)
            .map_err(|error| EngineError::invalid(format!("{owner}: {}", error.message), error.hint().unwrap_or_default()))
    }
}
