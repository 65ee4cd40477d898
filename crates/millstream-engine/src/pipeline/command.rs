//! What others ask of the pipeline's task, and how it answers.

use super::live::LiveRequest;
use super::log_replay::LoggedEpoch;
use super::snapshot::{Snapshot, SnapshotRequest};
use super::{Draining, Pipeline, epoch::EpochWork};
use crate::error::{EngineError, Result};
use crate::inserts::InsertNote;
use crate::notice::Notice;
use crate::subscription::Subscription;
use millstream_connectors::sinks::callback::Callback;
use millstream_sql::Statement;
use millstream_types::{Delta, Epoch, Offset};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// How to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Process everything received first, then as `Finish`.
    Drain,
    /// Finish the running epoch, roll files, checkpoint.
    Finish,
    /// At once; the next start recovers.
    Now,
}

/// The statement of several that failed; nothing of them took effect.
#[derive(Debug)]
pub struct FailedStatement {
    /// Which, from 0.
    pub index: usize,
    /// Why.
    pub error: EngineError,
}

/// The answer to a command.
pub type Answer<T> = oneshot::Sender<Result<T>>;

/// A change of one table.
#[derive(Debug, Clone, Default)]
pub struct TableChange {
    /// Rows that come and go, with the columns of the table.
    pub changes: Delta,
    /// What it was computed from.
    pub based_on: Basis,
}

/// What must still be as it was when a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Basis {
    /// Nothing.
    #[default]
    Nothing,
    /// The rows that go; others may have changed.
    Rows,
    /// The whole content after this epoch.
    Content(Epoch),
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// This epoch committed it.
    Committed(Epoch),
    /// A table is not any more what the change was computed from; nothing has happened.
    Stale,
    /// It came with a key, and this epoch committed the rows that came with it first; nothing has happened now.
    Repeated(Epoch),
}

/// A request to the pipeline's task.
pub enum Command {
    /// A statement that changes the catalog, or a whole pipeline file's; one epoch.
    Ddl {
        /// The statements.
        statements: Vec<Statement>,
        /// The answer; a failure of a statement says which one it was.
        answer: Answer<Result<Vec<Notice>, FailedStatement>>,
    },
    /// Changes of tables; one epoch.
    Change {
        /// The changes, by table.
        tables: BTreeMap<String, TableChange>,
        /// What the commit record says of it.
        note: Option<InsertNote>,
        /// The answer.
        answer: Answer<Changed>,
    },
    /// Rows were pushed to a stream: process them at once.
    Take {
        /// The stream.
        stream: String,
        /// The offset after the last of them.
        end: Offset,
        /// The answer: whether they are committed or will be without further ado.
        answer: Answer<bool>,
    },
    /// The content of relations after the newest epoch, consistently.
    Snapshot {
        /// Which.
        request: SnapshotRequest,
        /// The answer.
        answer: Answer<Snapshot>,
    },
    /// The plan of a continuous query, without making it.
    Explain {
        /// The statement.
        statement: Box<Statement>,
        /// The answer: text.
        answer: Answer<String>,
    },
    /// A live query.
    Subscribe {
        /// What.
        request: LiveRequest,
        /// The answer.
        answer: Answer<Subscription>,
    },
    /// A callback for a sink.
    Callback {
        /// The sink.
        sink: String,
        /// What to call.
        callback: Callback,
        /// The answer.
        answer: Answer<()>,
    },
    /// Start the clock.
    Start {
        /// The answer.
        answer: Answer<()>,
    },
    /// Take no new input, or go on.
    Pause {
        /// Pause or go on.
        pause: bool,
        /// The answer.
        answer: Answer<()>,
    },
    /// Runs an epoch of another log.
    RunLogged {
        /// The epoch.
        logged: Box<LoggedEpoch>,
        /// The answer.
        answer: Answer<Option<Epoch>>,
    },
    /// Run one epoch now, if there is something to do.
    RunEpoch {
        /// The answer.
        answer: Answer<Option<Epoch>>,
    },
    /// `available` or `once`.
    Drain {
        /// In one epoch.
        once: bool,
        /// The answer, when all is committed.
        answer: Answer<()>,
    },
    /// Answer when nothing waits.
    WaitIdle {
        /// The answer.
        answer: Answer<()>,
    },
    /// Roll files and make a checkpoint.
    Checkpoint {
        /// The answer.
        answer: Answer<Epoch>,
    },
    /// Stop.
    Stop {
        /// How.
        how: Stop,
        /// The answer.
        answer: Answer<()>,
    },
}

impl Pipeline {
    /// Carries out one command. `true`: the pipeline is done. An error stops the pipeline; errors of the request itself
    /// only go to the one who asked.
    pub(super) async fn handle(&mut self, command: Command) -> Result<bool> {
        match command {
            Command::Ddl { statements, answer } => {
                let result = self.ddl(statements).await;
                let fatal = match &result {
                    Err(error @ (EngineError::State(_) | EngineError::Corrupt(_)))
                    | Ok(Err(FailedStatement { error: error @ (EngineError::State(_) | EngineError::Corrupt(_)), .. })) => {
                        Some(error.clone())
                    }
                    _ => None,
                };
                let _ = answer.send(result);
                if let Some(error) = fatal {
                    return Err(error);
                }
            }
            Command::Change { tables, note, answer } => {
                let result = self.change(tables, note).await;
                let fatal = self.fatal(&result);
                let _ = answer.send(result);
                if let Some(error) = fatal {
                    return Err(error);
                }
            }
            Command::Take { stream, end, answer } => {
                let result = self.take(&stream, end).await;
                let fatal = result.as_ref().err().cloned();
                let _ = answer.send(result);
                if let Some(error) = fatal {
                    return Err(error);
                }
            }
            Command::Snapshot { request, answer } => {
                let _ = answer.send(self.snapshot(request).await);
            }
            Command::Explain { statement, answer } => {
                let _ = answer.send(self.explain(&statement).await);
            }
            Command::Subscribe { request, answer } => {
                let result = match self.settle().await {
                    Ok(()) => self.subscribe(request).await,
                    Err(error) => {
                        let _ = answer.send(Err(error.clone()));
                        return Err(error);
                    }
                };
                let _ = answer.send(result);
                self.backlog = true;
            }
            Command::Callback { sink, callback, answer } => {
                self.callbacks.insert(sink, callback);
                let _ = answer.send(Ok(()));
            }
            Command::Start { answer } => {
                let result = if self.queries.is_empty() {
                    Err(EngineError::invalid(
                        "nothing to run: the pipeline has no sink and no materialized view",
                        "Add CREATE SINK ... AS SELECT ... or CREATE MATERIALIZED VIEW ... AS SELECT ....",
                    ))
                } else {
                    self.running = true;
                    self.backlog = true;
                    Ok(())
                };
                let _ = answer.send(result);
            }
            Command::Pause { pause, answer } => {
                self.shared.paused.store(pause, Ordering::Release);
                self.backlog = true;
                let _ = answer.send(Ok(()));
            }
            Command::RunEpoch { answer } => {
                let result = self.try_epoch(false).await;
                let fatal = result.as_ref().err().cloned();
                let _ = answer.send(result);
                if let Some(error) = fatal {
                    return Err(error);
                }
            }
            Command::RunLogged { logged, answer } => {
                let result = self.run_logged(*logged).await;
                let fatal = result.as_ref().err().cloned();
                let _ = answer.send(result);
                if let Some(error) = fatal {
                    return Err(error);
                }
            }
            Command::Drain { once, answer } => self.drain(once, answer).await?,
            Command::WaitIdle { answer } => {
                if !self.manual && !self.may_run() {
                    // Nothing moves before it is started: what is committed is all there is.
                    let _ = answer.send(Ok(()));
                } else if self.manual {
                    let result = self.run_until_idle().await;
                    let fatal = result.as_ref().err().cloned();
                    let _ = answer.send(result);
                    if let Some(error) = fatal {
                        return Err(error);
                    }
                } else {
                    self.backlog = true;
                    self.waiting_idle.push(answer);
                }
            }
            Command::Checkpoint { answer } => {
                let result = self.roll_and_checkpoint().await;
                let fatal = result.as_ref().err().cloned();
                let _ = answer.send(result.map(|()| self.epoch));
                if let Some(error) = fatal {
                    return Err(error);
                }
            }
            Command::Stop { how, answer } => {
                let result = self.stop(how).await;
                let failed = result.as_ref().err().cloned();
                let _ = answer.send(result);
                return match failed {
                    Some(error) => Err(error),
                    None => Ok(true),
                };
            }
        }
        Ok(false)
    }

    /// Runs epochs until `stream` is committed up to `end`, as far as its limits allow now.
    async fn take(&mut self, stream: &str, end: Offset) -> Result<bool> {
        let reached = |shared: &super::Shared| shared.committed.borrow().offsets.get(stream).is_some_and(|offset| *offset >= end);
        while !reached(&self.shared) {
            if self.try_epoch(false).await?.is_none() {
                break;
            }
        }
        self.backlog = true;
        Ok(reached(&self.shared) || self.may_run())
    }

    async fn run_until_idle(&mut self) -> Result<()> {
        while self.try_epoch(false).await?.is_some() {}
        Ok(())
    }

    async fn drain(&mut self, once: bool, answer: Answer<()>) -> Result<()> {
        self.running = true;
        self.settle().await?;
        if let Some(sources) = &mut self.sources
            && let Err(error) = sources.mark_end().await
        {
            let _ = answer.send(Err(error.clone()));
            return Err(error);
        }
        self.draining = Some(Draining { once, done: Some(answer) });
        if self.manual {
            loop {
                match self.try_epoch(once).await {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        if let Some(done) = self.draining.take().and_then(|draining| draining.done) {
                            let _ = done.send(Err(error.clone()));
                        }
                        return Err(error);
                    }
                }
            }
            if let Some(draining) = self.draining.take() {
                self.finish_drain(draining).await?;
            }
        }
        Ok(())
    }

    /// Finishes what runs and leaves a state from which the next start goes on at once.
    pub(super) async fn stop(&mut self, how: Stop) -> Result<()> {
        let stopped = self.finish(how).await;
        // Whoever waits for the answer may open the state directory next.
        self.release();
        stopped
    }

    async fn finish(&mut self, how: Stop) -> Result<()> {
        if how == Stop::Now {
            if let Some(prefetch) = self.prefetch.take() {
                prefetch.abort();
            }
            return Ok(());
        }
        self.settle().await?;
        if how == Stop::Drain {
            if let Some(sources) = &mut self.sources {
                sources.mark_end().await?;
            }
            self.draining = Some(Draining { once: false, done: None });
            while self.try_epoch(false).await?.is_some() {}
            self.draining = None;
        }
        self.roll_and_checkpoint().await?;
        if let Some(sources) = &mut self.sources {
            for stream in sources.streams.values_mut() {
                if let Some(source) = &mut stream.source {
                    source.stop().await;
                }
            }
        }
        self.running = false;
        Ok(())
    }

    async fn change(&mut self, tables: BTreeMap<String, TableChange>, note: Option<InsertNote>) -> Result<Changed> {
        self.settle().await?;
        // Whoever sent it before may be gone, and what was sent is carried out all the same.
        if let Some(epoch) = note.and_then(|note| self.shared.inserts.epoch_of(note)) {
            return Ok(Changed::Repeated(epoch));
        }
        for (name, change) in &tables {
            let Some(table) = self.tables.get(name) else { return Err(self.catalog.unknown(name)) };
            let replaced = change.changes.iter().any(|part| part.batch.schema_ref() != &table.def.schema);
            if replaced || !table.is_basis(change)? {
                return Ok(Changed::Stale);
            }
            table.refuse_duplicates(&change.changes)?;
        }
        let tables = tables.into_iter().map(|(name, change)| (name, change.changes)).collect();
        self.run_epoch_with(EpochWork { tables, inserts: note.into_iter().collect(), ..EpochWork::default() }).await.map(Changed::Committed)
    }

    /// Errors of the engine itself end it; errors of the request do not.
    fn fatal<T>(&self, result: &Result<T>) -> Option<EngineError> {
        match result {
            Err(error @ (EngineError::State(_) | EngineError::Corrupt(_) | EngineError::Query { .. } | EngineError::Connector { .. })) => {
                Some(error.clone())
            }
            _ => None,
        }
    }

    /// Answers a command after the end: reads still work, nothing else does.
    pub(super) async fn answer_stopped(&mut self, command: Command, error: Option<&EngineError>) {
        let stopped = || EngineError::Stopped(error.map(ToString::to_string));
        match command {
            Command::Snapshot { request, answer } => {
                let _ = answer.send(self.snapshot(request).await);
            }
            Command::Stop { answer, .. } => {
                let _ = answer.send(Ok(()));
            }
            Command::Ddl { answer, .. } => drop(answer.send(Err(stopped()))),
            Command::Change { answer, .. } => drop(answer.send(Err(stopped()))),
            Command::Take { answer, .. } => drop(answer.send(Err(stopped()))),
            Command::Explain { answer, .. } => drop(answer.send(Err(stopped()))),
            Command::Subscribe { answer, .. } => drop(answer.send(Err(stopped()))),
            Command::RunEpoch { answer } | Command::RunLogged { answer, .. } => drop(answer.send(Err(stopped()))),
            Command::Checkpoint { answer } => drop(answer.send(Err(stopped()))),
            Command::Callback { answer, .. }
            | Command::Start { answer }
            | Command::Pause { answer, .. }
            | Command::Drain { answer, .. }
            | Command::WaitIdle { answer } => drop(answer.send(Err(stopped()))),
        }
    }
}
