//! Changes of a query, epoch by epoch, as an embedding program or a client sees them.

use crate::change_queue::{EpochChanges, Tap};
use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_types::{Epoch, Weights};
use std::collections::VecDeque;
use std::future::pending;
use tokio::sync::{mpsc, watch};

/// Part of a query's change in one epoch.
#[derive(Debug, Clone)]
pub struct Change {
    /// The epoch after which the query has this change.
    pub epoch: Epoch,
    /// Rows, with the query's columns.
    pub batch: RecordBatch,
    /// One weight per row: how often it was added, or taken away if negative.
    pub weights: Weights,
    /// Part of the rows the query had when the subscription began.
    pub snapshot: bool,
    /// No rows; everything of this epoch has been sent.
    pub progress: bool,
}

/// A running subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    schema: SchemaRef,
    append_only: bool,
    epoch: Epoch,
    origin: Origin,
    remaining: Option<u64>,
    /// What it ends without.
    right: Option<Watched>,
}

/// What a subscription ends without. Subscriptions know no sessions: those know the engine, whose commands carry subscriptions.
pub(crate) trait LastingRight: std::fmt::Debug + Send + Sync {
    /// Tells when it may have been lost.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Looks at it.
    ///
    /// # Errors
    /// When it is lost.
    fn check(&self) -> Result<()>;
}

/// A right that is looked at again when something has changed.
#[derive(Debug)]
pub(crate) struct Watched {
    right: Box<dyn LastingRight>,
    changes: watch::Receiver<u64>,
}

impl Watched {
    pub(crate) fn new(right: Box<dyn LastingRight>) -> Self {
        Self { changes: right.changes(), right }
    }

    /// Returns when it is lost. Whoever stops waiting misses nothing.
    async fn lost(&mut self) -> EngineError {
        loop {
            if self.changes.has_changed().unwrap_or(false) {
                self.changes.mark_unchanged();
                if let Err(error) = self.right.check() {
                    return error;
                }
            }
            if self.changes.clone().changed().await.is_err() {
                // The engine is gone, and with it whatever is followed.
                return pending().await;
            }
        }
    }
}

/// Where changes come from.
#[derive(Debug)]
enum Origin {
    Pipeline {
        tap: Tap,
        /// What is left of the epoch that was taken last.
        current: VecDeque<Change>,
        /// A mark is wanted after every epoch.
        progress: bool,
    },
    Elsewhere(mpsc::Receiver<Result<Change>>),
    /// It is over.
    Nowhere,
}

impl Origin {
    async fn next(&mut self, schema: &SchemaRef) -> Option<Result<Change>> {
        match self {
            Origin::Nowhere => None,
            Origin::Elsewhere(receiver) => receiver.recv().await,
            Origin::Pipeline { tap, current, progress } => loop {
                if let Some(change) = current.pop_front() {
                    return Some(Ok(change));
                }
                match tap.next().await? {
                    Ok(changes) => current.extend(parts(&changes, schema, *progress)),
                    Err(error) => return Some(Err(error)),
                }
            },
        }
    }
}

impl Subscription {
    /// A subscription over changes that come from elsewhere, from a server for instance. `schema` has the query's columns; `epoch` is the
    /// one it begins after.
    pub fn of_changes(schema: SchemaRef, append_only: bool, epoch: Epoch, receiver: mpsc::Receiver<Result<Change>>) -> Self {
        Self { schema, append_only, epoch, origin: Origin::Elsewhere(receiver), remaining: None, right: None }
    }

    pub(crate) fn new(schema: SchemaRef, append_only: bool, epoch: Epoch, tap: Tap, progress: bool, limit: Option<u64>) -> Self {
        let origin = Origin::Pipeline { tap, current: VecDeque::new(), progress };
        Self { schema, append_only, epoch, origin, remaining: limit, right: None }
    }

    /// The same subscription, which ends with an error when this right is lost.
    pub(crate) fn last_as_long_as(&mut self, right: Option<Watched>) {
        self.right = right;
    }

    /// Columns of the query.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// The epoch it begins after: the rows the query had then are its snapshot.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// No row is ever taken back.
    pub fn append_only(&self) -> bool {
        self.append_only
    }

    /// The next part; `None` when the pipeline has stopped or the limit of the subscription is reached.
    ///
    /// # Errors
    /// The query failed, the subscriber fell too far behind, or its user may not read this any more; the subscription is over then.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        if self.remaining == Some(0) {
            return None;
        }
        let next = match &mut self.right {
            None => self.origin.next(&self.schema).await?,
            Some(right) => tokio::select! {
                biased;
                // Also what has come already is not given to who may not have it any more.
                error = right.lost() => Err(error),
                next = self.origin.next(&self.schema) => next?,
            },
        };
        if next.is_err() {
            // The pipeline keeps nothing for it any more.
            self.origin = Origin::Nowhere;
            self.right = None;
        }
        Some(next.map(|change| self.limited(change)))
    }

    fn limited(&mut self, mut change: Change) -> Change {
        if let Some(remaining) = &mut self.remaining {
            let rows = (change.batch.num_rows() as u64).min(*remaining) as usize;
            if rows < change.batch.num_rows() {
                change.batch = change.batch.slice(0, rows);
                if let Weights::I64(weights) = &change.weights {
                    change.weights = Weights::I64(weights.slice(0, rows));
                }
            }
            *remaining -= rows as u64;
        }
        change
    }
}

/// The changes of an epoch in their parts, with a mark at the end of a snapshot, or where one is wanted.
fn parts<'a>(changes: &'a EpochChanges, schema: &SchemaRef, progress: bool) -> impl Iterator<Item = Change> + use<'a> {
    let (epoch, snapshot) = (changes.epoch, changes.snapshot);
    let parts = changes.parts.iter().map(move |(batch, weights)| Change {
        epoch,
        batch: batch.clone(),
        weights: weights.clone(),
        snapshot,
        progress: false,
    });
    let batch = RecordBatch::new_empty(SchemaRef::clone(schema));
    parts.chain((progress || snapshot).then_some(Change { epoch, batch, weights: Weights::Ones, snapshot, progress: true }))
}
