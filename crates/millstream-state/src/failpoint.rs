//! Fail points: named places where a test makes the process die or an operation fail.
//!
//! `MILLSTREAM_FAILPOINTS="commit.after_sync=kill@3,sink.prepare=error"` kills the process by SIGKILL when it reaches
//! `commit.after_sync` for the third time, and makes the first `sink.prepare` fail. Always compiled, so that crash tests run
//! the very binary that users run; without a specification a [`hit`] is one relaxed load. The variable is read only by
//! [`init_from_env`], which a binary calls explicitly.

use crate::error::{Result, StateError};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Every fail point of the project, sorted. A crash test goes through all of them.
pub const ALL: &[&str] = &[
    "blob.after_temp",
    "checkpoint.before",
    "checkpoint.cleanup",
    "checkpoint.manifest",
    "checkpoint.remove.after_first",
    "checkpoint.remove.after_rename",
    "checkpoint.segment.after_write",
    "checkpoint.segments",
    "checkpoint.writer.before_rename",
    "commit.after_append",
    "commit.after_sync",
    "commit.before_append",
    "durable_put.after_link",
    "durable_put.after_temp",
    "epoch.after_dataflow",
    "epoch.after_read",
    "epoch.before_begin",
    "log.append.torn",
    "log.drop.after_first",
    "log.roll.after_create",
    "log.roll.after_end",
    "log.roll.before",
    "log.sync.after",
    "log.sync.before",
    "publish.after",
    "publish.after_first",
    "publish.before",
    "recovery.after_load",
    "recovery.after_replay",
    "recovery.before_orphans",
    "sink.file.after_write",
    "sink.manifest.before_append",
    "sink.part.after_write",
    "sink.pointer.before_rename",
    "sink.prepare",
    "sink.publish.after_rename",
    "sink.publish.before_rename",
    "sink.replay",
    "sink.stage",
    "source.acknowledge",
    "state.open.after_seal",
    "state.open.after_writer",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Error,
}

#[derive(Debug)]
struct Armed {
    action: Action,
    /// The hit that acts, from 1.
    at: u64,
    hits: u64,
}

static ACTIVE: AtomicBool = AtomicBool::new(false);
static ARMED: Mutex<Option<HashMap<String, Armed>>> = Mutex::new(None);

/// The environment variable that [`init_from_env`] reads.
pub const VARIABLE: &str = "MILLSTREAM_FAILPOINTS";

/// Arms the fail points that `MILLSTREAM_FAILPOINTS` names, if it is set.
///
/// # Errors
/// [`StateError::FailpointSpec`] when it cannot be read or names an unknown fail point.
pub fn init_from_env() -> Result<()> {
    match std::env::var(VARIABLE) {
        Ok(specification) => configure(&specification),
        Err(_) => Ok(()),
    }
}

/// Arms fail points; replaces what was armed. `""` disarms all.
///
/// # Errors
/// [`StateError::FailpointSpec`].
pub fn configure(specification: &str) -> Result<()> {
    let mut armed = HashMap::new();
    for text in specification.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let problem = |problem: &str| StateError::FailpointSpec { text: text.to_string(), problem: problem.to_string() };
        let (name, action) = text.split_once('=').ok_or_else(|| problem("has no action, for example \"commit.after_sync=kill@3\""))?;
        let (action, at) = action.split_once('@').unwrap_or((action, "1"));
        let action = match action.trim() {
            "kill" => Action::Kill,
            "error" => Action::Error,
            _ => return Err(problem("has an action that is neither \"kill\" nor \"error\"")),
        };
        let at = at.trim().parse().ok().filter(|at| *at > 0).ok_or_else(|| problem("does not count hits from 1"))?;
        let name = name.trim();
        if ALL.binary_search(&name).is_err() {
            let nearest = millstream_types::suggest::nearest(name, ALL.iter().copied());
            return Err(problem(&match nearest {
                Some(nearest) => format!("names an unknown fail point; did you mean \"{nearest}\"?"),
                None => "names an unknown fail point".to_string(),
            }));
        }
        armed.insert(name.to_string(), Armed { action, at, hits: 0 });
    }
    let mut guard = lock();
    ACTIVE.store(!armed.is_empty(), Ordering::SeqCst);
    *guard = Some(armed);
    Ok(())
}

/// The fail point `name` is reached.
///
/// # Errors
/// [`StateError::Injected`] when a test asked for it.
///
/// # Panics
/// In debug builds, when `name` is not in [`ALL`].
#[inline]
pub fn hit(name: &str) -> Result<()> {
    debug_assert!(ALL.binary_search(&name).is_ok(), "fail point \"{name}\" is not in failpoint::ALL");
    if !ACTIVE.load(Ordering::Relaxed) {
        return Ok(());
    }
    hit_slow(name)
}

/// Whether the next [`hit`] of `name` acts. For places that do something half before they fail, such as a torn write.
pub fn is_due(name: &str) -> bool {
    ACTIVE.load(Ordering::Relaxed) && lock().as_ref().and_then(|armed| armed.get(name)).is_some_and(|armed| armed.hits + 1 == armed.at)
}

#[cold]
fn hit_slow(name: &str) -> Result<()> {
    let action = {
        let mut guard = lock();
        let Some(armed) = guard.as_mut().and_then(|armed| armed.get_mut(name)) else { return Ok(()) };
        armed.hits += 1;
        if armed.hits != armed.at {
            return Ok(());
        }
        armed.action
    };
    match action {
        Action::Error => Err(StateError::Injected { name: name.to_string() }),
        Action::Kill => {
            // No destructor, no flush: what a power cut leaves of the process.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            std::process::abort()
        }
    }
}

fn lock() -> std::sync::MutexGuard<'static, Option<HashMap<String, Armed>>> {
    ARMED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_has_no_duplicates() {
        assert!(ALL.windows(2).all(|pair| pair[0] < pair[1]), "sort failpoint::ALL");
    }

    #[test]
    fn acts_at_the_given_hit_only() {
        // A name that no other test of this crate reaches: the registry is one per process.
        configure("source.acknowledge=error@2").unwrap();
        assert!(hit("source.acknowledge").is_ok());
        assert!(is_due("source.acknowledge"));
        assert!(matches!(hit("source.acknowledge"), Err(StateError::Injected { .. })));
        assert!(hit("source.acknowledge").is_ok());
        configure("").unwrap();
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = configure("commit.after_snyc=kill").unwrap_err();
        assert!(error.to_string().contains("did you mean \"commit.after_sync\""), "{error}");
        assert!(configure("commit.after_sync").is_err());
        assert!(configure("commit.after_sync=explode").is_err());
        assert!(configure("commit.after_sync=kill@0").is_err());
    }
}
