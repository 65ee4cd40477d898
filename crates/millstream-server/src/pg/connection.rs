//! A connection: takes messages one after the other and answers them.
//!
//! A statement that fails costs only itself. In the extended protocol the messages up to the next `Sync` are skipped after a failure,
//! as the protocol has it; a transaction stays as it was before the statement. What is no message ends the connection.

use super::cancel::Registered;
use super::extended::{Portal, Sent};
use super::socket::{Broken, Reader, Writer};
use super::startup::report;
use super::values::encode::BatchEncoder;
use super::values::types::{Column, type_size};
use super::wire::{ColumnDescription, Message};
use crate::admission::UserConnection;
use crate::cursors::Cursors;
use crate::error::{RequestError, codes};
use crate::prepared::Statements;
use crate::rows::RowSource;
use crate::service::Service;
use arrow::array::RecordBatch;
use millstream_engine::notice::Severity;
use millstream_engine::{Notice, Session};
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

/// Why a request was not carried out.
#[derive(Debug)]
pub(super) enum Ended {
    /// It failed; the connection goes on.
    Failed(RequestError),
    /// It failed at this character of the statement, from 1.
    Placed(RequestError, usize),
    /// The server stops: the connection ends with this as its last word.
    Last(RequestError),
    /// The connection cannot go on.
    Broken(Broken),
}

impl From<Broken> for Ended {
    fn from(broken: Broken) -> Self {
        Ended::Broken(broken)
    }
}

impl<E: Into<RequestError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Ended::Failed(error.into())
    }
}

/// A session of a client.
pub(super) struct Connection {
    pub(super) service: Arc<Service>,
    pub(super) session: Session,
    registered: Registered,
    _counted: UserConnection,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) statements: Statements<Sent>,
    pub(super) cursors: Arc<Cursors>,
    pub(super) portals: HashMap<String, Portal>,
    /// What runs now, to be waited for with [`Connection::guarded`].
    guard: Guard,
    skipping: bool,
}

/// What ends a running statement from outside.
struct Guard {
    canceled: CancellationToken,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) fn new(
        service: Arc<Service>,
        session: Session,
        counted: UserConnection,
        registered: Registered,
        reader: Reader,
        writer: Writer,
    ) -> Self {
        let guard = Guard { canceled: CancellationToken::new(), deadline: None };
        let most = service.limits.prepared;
        Self {
            service,
            session,
            registered,
            _counted: counted,
            reader,
            writer,
            statements: Statements::new(most),
            cursors: Arc::new(Cursors::new(most)),
            portals: HashMap::new(),
            guard,
            skipping: false,
        }
    }

    /// Serves the session to its end.
    ///
    /// # Errors
    /// When the client is gone, sends what is no message, or does not read.
    pub(super) async fn run(mut self) -> Result<(), Broken> {
        let outcome = self.serve().await;
        let last = match outcome {
            Ok(None) => return Ok(()),
            Ok(Some(error)) => error,
            Err(Broken::Wire(error)) => RequestError::new(codes::PROTOCOL, error.to_string(), ""),
            Err(broken) => return Err(broken),
        };
        report(&mut self.writer.answers, b'E', "FATAL", &last, None);
        self.writer.flush().await?;
        self.writer.close().await;
        Ok(())
    }

    /// Takes messages until the client says goodbye, or the server stops or its user is gone: then with a last word.
    async fn serve(&mut self) -> Result<Option<RequestError>, Broken> {
        self.ready();
        self.writer.flush().await?;
        let (stopping, session) = (self.service.stopping.clone(), self.session.clone());
        loop {
            let message = tokio::select! {
                message = self.reader.message(self.service.limits.message_bytes) => message?,
                () = stopping.cancelled() => return Ok(Some(stopped())),
                error = session.user_gone() => return Ok(Some(RequestError { code: codes::BAD_AUTHORIZATION, ..error.into() })),
            };
            let answered = match message {
                Message::Terminate => return Ok(None),
                Message::Sync => {
                    self.skipping = false;
                    if !self.session.in_transaction() {
                        self.portals.clear();
                    }
                    self.ready();
                    self.writer.flush().await?;
                    continue;
                }
                Message::Query(text) => {
                    self.skipping = false;
                    self.portals.remove("");
                    let answered = self.simple_query(&text).await;
                    if let Some(last) = self.after(answered)? {
                        return Ok(Some(last));
                    }
                    self.skipping = false;
                    self.ready();
                    self.writer.flush().await?;
                    continue;
                }
                Message::Flush => {
                    self.writer.flush().await?;
                    continue;
                }
                Message::Password(_) => return Ok(Some(RequestError::new(codes::PROTOCOL, "unexpected password message", ""))),
                // What is left of a COPY that failed.
                Message::CopyData(_) | Message::CopyDone | Message::CopyFail(_) => continue,
                _ if self.skipping => continue,
                Message::Parse { name, text, types } => self.parse_message(name, text, &types).await,
                Message::Bind { portal, statement, formats, values, result_formats } => {
                    self.bind_message(portal, &statement, &formats, &values, result_formats).await
                }
                Message::Describe(target, name) => self.describe_message(target, &name),
                Message::Execute { portal, rows_max } => self.execute_message(&portal, rows_max).await,
                Message::Close(target, name) => {
                    self.close_message(target, &name);
                    Ok(())
                }
            };
            if let Some(last) = self.after(answered)? {
                return Ok(Some(last));
            }
            self.writer.flush_if_large().await?;
        }
    }

    /// Reports a failure. `Some`: the connection ends with this.
    fn after(&mut self, answered: Result<(), Ended>) -> Result<Option<RequestError>, Broken> {
        self.registered.running.end();
        match answered {
            Ok(()) => Ok(None),
            Err(Ended::Failed(error)) => {
                self.failed(&error, None);
                self.skipping = true;
                Ok(None)
            }
            Err(Ended::Placed(error, position)) => {
                self.failed(&error, Some(position));
                self.skipping = true;
                Ok(None)
            }
            Err(Ended::Last(error)) => Ok(Some(error)),
            Err(Ended::Broken(broken)) => Err(broken),
        }
    }

    /// Reports that a request failed.
    pub(super) fn failed(&mut self, error: &RequestError, position: Option<usize>) {
        self.service.figures.failed_statements.fetch_add(1, Ordering::Relaxed);
        report(&mut self.writer.answers, b'E', "ERROR", error, position);
    }

    fn ready(&mut self) {
        self.writer.answers.ready(if self.session.in_transaction() { b'T' } else { b'I' });
    }

    /// A statement begins: what cancels it and how long it may take is found out now.
    pub(super) fn begin_statement(&mut self) {
        self.service.figures.pg_statements.fetch_add(1, Ordering::Relaxed);
        let allowed = self.service.time_limit(&self.session);
        let deadline = allowed.map(|duration| Box::pin(tokio::time::sleep(duration)));
        self.guard = Guard { canceled: self.registered.running.begin(), deadline };
    }

    /// Waits for a part of the statement that has begun; its time limit, a request to cancel, the end of the client and the end of the
    /// server end the wait.
    pub(super) async fn guarded<T, E: Into<RequestError>>(&mut self, work: impl Future<Output = Result<T, E>>) -> Result<T, Ended> {
        guarded(&mut self.reader, &mut self.guard, &self.service.stopped, work).await
    }

    /// Waits for the next rows of a source. Changes come as long as the pipeline runs: no time limit is meant for that, and a server that
    /// stops does not wait for them.
    pub(super) async fn next_rows(&mut self, source: &mut RowSource, rows_max: usize) -> Result<Option<RecordBatch>, Ended> {
        let stopped = if source.follows() { &self.service.stopping } else { &self.service.stopped };
        if source.follows() {
            self.guard.deadline = None;
        }
        guarded(&mut self.reader, &mut self.guard, stopped, source.next(rows_max)).await
    }

    /// The next message of a COPY from the client.
    pub(super) async fn copy_message(&mut self) -> Result<Message, Ended> {
        tokio::select! {
            message = self.reader.message(self.service.limits.message_bytes) => Ok(message?),
            () = self.guard.canceled.cancelled() => Err(Ended::Failed(canceled())),
            () = self.service.stopped.cancelled() => Err(Ended::Last(stopped())),
        }
    }

    /// Sends rows, `rows_max` at most. `true`: there may be more.
    pub(super) async fn send_rows(&mut self, source: &mut RowSource, formats: &[i16], rows_max: Option<u64>) -> Result<(u64, bool), Ended> {
        let follows = source.follows();
        if follows {
            self.writer.flush().await?;
        }
        let mut sent = 0;
        while rows_max.is_none_or(|most| sent < most) {
            let most = rows_max.map_or(usize::MAX, |most| usize::try_from(most - sent).unwrap_or(usize::MAX));
            let Some(batch) = self.next_rows(source, most).await? else {
                self.notices(&source.late_notices());
                return Ok((sent, false));
            };
            let encoder = BatchEncoder::new(&batch, |column| is_binary(formats, column))?;
            let mut values = bytes::BytesMut::new();
            for row in 0..encoder.rows() {
                values.clear();
                encoder.row(row, &mut values)?;
                self.writer.answers.data_row(encoder.columns(), &values);
                self.writer.flush_if_large().await?;
            }
            sent += batch.num_rows() as u64;
            if follows {
                self.writer.flush().await?;
            }
        }
        Ok((sent, true))
    }

    /// Tells the columns of rows.
    pub(super) fn row_description(&mut self, columns: &[Column], formats: &[i16]) {
        let described = columns.iter().enumerate().map(|(index, column)| ColumnDescription {
            name: &column.name,
            type_oid: column.kind.oid(),
            type_size: type_size(&column.kind),
            modifier: column.modifier,
            format: i16::from(is_binary(formats, index)),
        });
        self.writer.answers.row_description(&described.collect::<Vec<_>>());
    }

    /// Tells what statements have to tell although they succeeded.
    pub(super) fn notices(&mut self, notices: &[Notice]) {
        for notice in notices {
            let (severity, code) = match notice.severity {
                Severity::Notice => ("NOTICE", "00000"),
                Severity::Warning => ("WARNING", "01000"),
            };
            let told = RequestError { code, message: notice.message.clone(), hint: notice.hint.clone(), place: None };
            report(&mut self.writer.answers, b'N', severity, &told, None);
        }
    }
}

async fn guarded<T, E: Into<RequestError>>(
    reader: &mut Reader,
    guard: &mut Guard,
    stopped: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Ended> {
    let expired = async {
        match &mut guard.deadline {
            Some(deadline) => deadline.as_mut().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        done = work => done.map_err(|error| Ended::Failed(error.into())),
        () = guard.canceled.cancelled() => Err(Ended::Failed(canceled())),
        () = expired => Err(Ended::Failed(RequestError::new(
            codes::CANCELED,
            "canceling statement due to statement timeout",
            "SET statement_timeout gives it more time, up to the server's own limit.",
        ))),
        () = reader.gone() => Err(Ended::Broken(Broken::Gone)),
        () = stopped.cancelled() => Err(Ended::Last(self::stopped())),
    }
}

fn canceled() -> RequestError {
    RequestError::new(codes::CANCELED, "canceling statement due to user request", "")
}

/// The last word of a server that stops.
fn stopped() -> RequestError {
    RequestError::new(codes::SHUTDOWN, "terminating connection due to administrator command", "")
}

/// Whether a column is wanted in binary: no format is text, one is for all.
pub(super) fn is_binary(formats: &[i16], column: usize) -> bool {
    match formats {
        [] => false,
        [one] => *one == 1,
        each => each.get(column) == Some(&1),
    }
}
