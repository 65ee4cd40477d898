//! How many clients there may be at a time, whatever protocol they speak.
//!
//! | limit | counts | refused with |
//! | --- | --- | --- |
//! | `serve.connections` | connections of all protocols, from their first byte | 53300, HTTP 503, `RESOURCE_EXHAUSTED` |
//! | `connections` of a user | PostgreSQL connections, requests over HTTP until their answer is sent, sessions of Flight SQL whose client is connected | 53300, HTTP 429, `RESOURCE_EXHAUSTED` |
//!
//! As many connections again are let in to be told that there is no place, to be asked for their health, or to cancel a statement. One of
//! them that asks again later is given a place if there is one by then. Beyond that a connection is closed before anything is read from it.

use crate::error::{RequestError, codes};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who is there.
#[derive(Debug)]
pub(crate) struct Admission {
    most: usize,
    places: Arc<Semaphore>,
    let_in: Arc<Semaphore>,
    by_user: Mutex<HashMap<String, u64>>,
    /// Connections and users' requests that were refused.
    pub(crate) refused: AtomicU64,
}

/// A connection that was let in.
#[derive(Debug)]
pub(crate) struct Place {
    admission: Arc<Admission>,
    taken: Mutex<Option<OwnedSemaphorePermit>>,
    _let_in: OwnedSemaphorePermit,
}

/// A connection, request or session of a user, until it is dropped.
#[derive(Debug)]
pub(crate) struct UserConnection {
    admission: Arc<Admission>,
    name: String,
    is_counted: AtomicBool,
}

impl Admission {
    /// Nobody yet, of so many connections at most.
    pub(crate) fn new(most: usize) -> Arc<Self> {
        // More than a semaphore has is no limit.
        let permits = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self {
            most,
            places: permits(most),
            let_in: permits(most.saturating_mul(2).saturating_add(16)),
            by_user: Mutex::default(),
            refused: AtomicU64::new(0),
        })
    }

    /// Lets a new connection in; `None`: it is closed without a word.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Arc<Place>> {
        let Ok(let_in) = Arc::clone(&self.let_in).try_acquire_owned() else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let taken = Mutex::new(Arc::clone(&self.places).try_acquire_owned().ok());
        Some(Arc::new(Place { admission: Arc::clone(self), taken, _let_in: let_in }))
    }

    /// Counts something of a user who may have `most` at a time.
    ///
    /// # Errors
    /// When there are as many.
    pub(crate) fn count(self: &Arc<Self>, user: &str, most: Option<u64>) -> Result<UserConnection, RequestError> {
        let mut by_user = self.by_user.lock();
        let count = by_user.get(user).copied().unwrap_or_default();
        if let Some(most) = most
            && count >= most
        {
            drop(by_user);
            self.refused.fetch_add(1, Ordering::Relaxed);
            let message = format!("user \"{user}\" has {count} connections already, of {most} over all protocols");
            return Err(RequestError::new(codes::TOO_MANY_CONNECTIONS, message, "Close some, or try again."));
        }
        by_user.insert(user.to_string(), count + 1);
        Ok(UserConnection { admission: Arc::clone(self), name: user.to_string(), is_counted: AtomicBool::new(true) })
    }
}

impl Place {
    /// Takes the place that the connection needs for whatever it asks, unless it has it.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn take(&self) -> Result<(), RequestError> {
        let mut taken = self.taken.lock();
        if taken.is_none() {
            *taken = Arc::clone(&self.admission.places).try_acquire_owned().ok();
        }
        if taken.is_some() {
            return Ok(());
        }
        self.admission.refused.fetch_add(1, Ordering::Relaxed);
        let most = self.admission.most;
        let message = format!("the server has {most} connections already, over all protocols");
        Err(RequestError::new(codes::TOO_MANY_CONNECTIONS, message, "Close some, or try again."))
    }
}

impl UserConnection {
    /// It is over, whoever still holds on to this.
    pub(crate) fn release(&self) {
        if !self.is_counted.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut by_user = self.admission.by_user.lock();
        if let Some(count) = by_user.get_mut(&self.name) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                by_user.remove(&self.name);
            }
        }
    }

    /// It is not over.
    pub(crate) fn is_counted(&self) -> bool {
        self.is_counted.load(Ordering::Acquire)
    }

    /// Hands on a part of what is counted.
    pub(crate) fn pass<T>(&self, part: T) -> T {
        part
    }
}

impl Drop for UserConnection {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_as_they_become_free() {
        let admission = Admission::new(1);
        let (first, second) = (admission.enter().unwrap(), admission.enter().unwrap());
        assert!(first.take().is_ok());
        assert_eq!(second.take().unwrap_err().message, "the server has 1 connections already, over all protocols");
        drop(first);
        assert!(second.take().is_ok() && second.take().is_ok());
        let others: Vec<_> = std::iter::from_fn(|| admission.enter()).collect();
        assert_eq!(others.len(), 17, "let in to be told");
        assert_eq!(admission.refused.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_a_user_has_is_counted_once() {
        let admission = Admission::new(1);
        let first = admission.count("ada", Some(2)).unwrap();
        let second = admission.count("ada", Some(2)).unwrap();
        assert!(admission.count("ada", Some(2)).is_err() && admission.count("bob", Some(1)).is_ok());
        first.release();
        assert!(!first.is_counted());
        let third = admission.count("ada", Some(2)).unwrap();
        drop(first);
        assert!(admission.count("ada", Some(2)).is_err(), "given back once");
        drop((second, third));
        assert!(admission.by_user.lock().is_empty());
    }
}
