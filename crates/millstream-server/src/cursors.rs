//! Cursors of SQL: the rows of a query or a subscription, which a session takes in parts.
//!
//! ```text
//!   DECLARE c CURSOR FOR SUBSCRIBE TO v
//!   FETCH 10 FROM c WITH (timeout = '1s')     what is there, or what comes within the time
//!   MOVE ALL FROM c                           passes over what is there
//!   CLOSE c
//! ```
//! Every protocol that has sessions has them here. A cursor ends with CLOSE, with its transaction if it was declared in one without
//! WITH HOLD, and with its session. A FETCH that nobody waits for any more has taken nothing. One that fails ends its cursor: what has
//! come by then must not look like all there is.

use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::rows::{Present, RowSource};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_engine::catalog::resolve::fold;
use millstream_engine::{EngineError, Notice, Session};
use millstream_sql::statement::{DeclareCursor, Fetch};
use parking_lot::Mutex;
use sqlparser::ast::Ident;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Rows that MOVE takes at a time.
const PASSED_ROWS: usize = 65_536;

/// The cursors of a session.
pub(crate) struct Cursors {
    by_name: Mutex<HashMap<String, Cursor>>,
    most: usize,
}

#[derive(Clone)]
struct Cursor {
    columns: SchemaRef,
    /// Outlives the transaction.
    holds: bool,
    rows: Arc<tokio::sync::Mutex<RowSource>>,
}

/// What a FETCH or a MOVE gives.
pub(crate) enum Fetched {
    /// The rows.
    Rows(RowSource),
    /// How many rows were passed over.
    Moved(u64),
}

impl Cursors {
    /// None yet, and so many at most.
    pub(crate) fn new(most: usize) -> Self {
        Self { by_name: Mutex::default(), most }
    }

    /// Whether there is one of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.by_name.lock().contains_key(name)
    }

    /// The columns of a cursor's rows.
    pub(crate) fn columns(&self, name: &str) -> Option<SchemaRef> {
        self.by_name.lock().get(name).map(|cursor| SchemaRef::clone(&cursor.columns))
    }

    /// The columns that a FETCH gives; a MOVE gives none.
    ///
    /// # Errors
    /// When there is no such cursor.
    pub(crate) fn describe(&self, fetch: &Fetch) -> Result<Option<SchemaRef>, RequestError> {
        let (_, cursor) = self.named(&fetch.cursor)?;
        Ok((!fetch.moves).then_some(cursor.columns))
    }

    /// `DECLARE`: begins a query or a subscription in a session, and gives what there is to tell.
    ///
    /// # Errors
    /// When the name is taken, there are as many as there may be, or the statement fails.
    pub(crate) async fn declare(&self, session: &Session, declare: DeclareCursor) -> Result<Vec<Notice>, RequestError> {
        let name = fold(&declare.name);
        self.check_new(&self.by_name.lock(), &name)?;
        let engine = session.clone();
        let result = aside(async move { engine.execute_parsed(*declare.statement).await }).await?;
        let Some(rows) = RowSource::of_output(result.output) else {
            return Err(EngineError::Internal("a query without rows".into()).into());
        };
        // Outside a transaction there is nothing that would end it.
        let holds = declare.hold || !session.in_transaction();
        let cursor = Cursor { columns: rows.schema(), holds, rows: Arc::new(tokio::sync::Mutex::new(rows)) };
        let mut by_name = self.by_name.lock();
        // Another request of the session may have been quicker.
        self.check_new(&by_name, &name)?;
        by_name.insert(name, cursor);
        Ok(result.notices)
    }

    fn check_new(&self, by_name: &HashMap<String, Cursor>, name: &str) -> Result<(), RequestError> {
        if by_name.contains_key(name) {
            return Err(RequestError::new(codes::DUPLICATE_CURSOR, format!("cursor \"{name}\" exists already"), "CLOSE it first."));
        }
        if by_name.len() >= self.most {
            let message = format!("the session has {} cursors already", self.most);
            return Err(RequestError::new(codes::TOO_LARGE, message, "Close those that are not used any more."));
        }
        Ok(())
    }

    /// `FETCH` and `MOVE`. Of a subscription they take what is there, or what comes within their time.
    ///
    /// # Errors
    /// When there is no such cursor, or its query fails.
    pub(crate) async fn fetch(&self, fetch: &Fetch) -> Result<Fetched, RequestError> {
        let (name, cursor) = self.named(&fetch.cursor)?;
        let mut rows = cursor.rows.lock().await;
        if fetch.count.is_none() && !fetch.moves && !rows.follows() {
            // All that are left; they need not be there at once.
            let nothing = RowSource::of_batches(cursor.columns, Vec::new());
            return Ok(Fetched::Rows(std::mem::replace(&mut *rows, nothing)));
        }
        let mut taking = Taking { rows: &mut rows, taken: Vec::new(), passed: fetch.moves.then_some(0) };
        match taking.take(fetch.count, fetch.timeout).await {
            Ok(()) => Ok(match taking.passed {
                Some(passed) => Fetched::Moved(passed),
                None => Fetched::Rows(RowSource::of_batches(cursor.columns, std::mem::take(&mut taking.taken))),
            }),
            Err(error) => {
                self.by_name.lock().retain(|other, found| *other != name || !Arc::ptr_eq(&found.rows, &cursor.rows));
                Err(error)
            }
        }
    }

    fn named(&self, name: &Ident) -> Result<(String, Cursor), RequestError> {
        let name = fold(name);
        let found = self.by_name.lock().get(&name).cloned();
        match found {
            Some(cursor) => Ok((name, cursor)),
            None => Err(no_cursor(&name)),
        }
    }

    /// `CLOSE`: one, or all.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn close(&self, name: Option<&Ident>) -> Result<(), RequestError> {
        match name.map(fold) {
            None => self.clear(),
            Some(name) if !self.remove(&name) => return Err(no_cursor(&name)),
            Some(_) => {}
        }
        Ok(())
    }

    /// Closes one, and says whether there was one.
    pub(crate) fn remove(&self, name: &str) -> bool {
        let removed = self.by_name.lock().remove(name);
        removed.is_some()
    }

    /// A transaction is over, however it ended: its cursors are closed.
    pub(crate) fn end_transaction(&self) {
        self.by_name.lock().retain(|_, cursor| cursor.holds);
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.by_name.lock());
        drop(all);
    }
}

/// Rows on their way out of a cursor, which go back when nobody takes them.
struct Taking<'a> {
    rows: &'a mut RowSource,
    taken: Vec<RecordBatch>,
    /// How many were passed over, where they are not wanted.
    passed: Option<u64>,
}

impl Taking<'_> {
    async fn take(&mut self, count: Option<u64>, timeout: Option<Duration>) -> Result<(), RequestError> {
        let mut left = count.unwrap_or(u64::MAX);
        let mut time = std::pin::pin!(tokio::time::sleep(timeout.unwrap_or_default()));
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let most = if self.passed.is_some() { most.min(PASSED_ROWS) } else { most };
            let next = if !self.rows.follows() {
                self.rows.next(most).await?
            } else {
                match self.rows.present(most)? {
                    Present::Rows(rows) => Some(rows),
                    Present::End => None,
                    Present::Nothing if timeout.is_none() => None,
                    Present::Nothing => tokio::select! {
                        next = self.rows.next(most) => next?,
                        () = &mut time => None,
                    },
                }
            };
            let Some(rows) = next else { break };
            left -= rows.num_rows() as u64;
            match &mut self.passed {
                Some(passed) => *passed += rows.num_rows() as u64,
                None => self.taken.push(rows),
            }
        }
        Ok(())
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        self.rows.put_back(std::mem::take(&mut self.taken));
    }
}

pub(crate) fn no_cursor(name: &str) -> RequestError {
    RequestError::new(
        codes::NO_CURSOR,
        format!("cursor \"{name}\" does not exist"),
        "DECLARE it first; a transaction's cursors end with it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    use millstream_engine::Engine;
    use millstream_sql::{Statement, parse_statement};

    fn fetch(sql: &str) -> Fetch {
        let Ok(Statement::Fetch(fetch)) = parse_statement(sql) else { panic!("{sql}") };
        fetch
    }

    async fn declare(cursors: &Cursors, session: &Session, sql: &str) -> Result<(), RequestError> {
        let Ok(Statement::DeclareCursor(declare)) = parse_statement(sql) else { panic!("{sql}") };
        cursors.declare(session, declare).await.map(drop)
    }

    /// The numbers in the last column.
    async fn numbers(cursors: &Cursors, sql: &str) -> Vec<i64> {
        let Fetched::Rows(mut rows) = cursors.fetch(&fetch(sql)).await.unwrap() else { panic!("{sql}") };
        let mut numbers = Vec::new();
        while let Some(batch) = rows.next(usize::MAX).await.unwrap() {
            numbers.extend(batch.columns().last().unwrap().as_primitive::<Int64Type>().iter().flatten());
        }
        numbers
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_are_taken_in_parts() {
        let engine = Engine::builder().build().await.unwrap();
        let (session, cursors) = (engine.session(), Cursors::new(2));
        let series = "CURSOR FOR SELECT value::BIGINT AS n FROM generate_series(1, 10) ORDER BY n";
        declare(&cursors, &session, &format!("DECLARE c {series}")).await.unwrap();
        assert_eq!(declare(&cursors, &session, &format!("DECLARE c {series}")).await.unwrap_err().code, codes::DUPLICATE_CURSOR);
        assert_eq!(numbers(&cursors, "FETCH 3 FROM c").await, [1, 2, 3]);
        assert!(matches!(cursors.fetch(&fetch("MOVE 2 FROM c")).await, Ok(Fetched::Moved(2))));
        assert_eq!(numbers(&cursors, "FETCH c").await, [6]);
        assert_eq!(numbers(&cursors, "FETCH ALL FROM c").await, [7, 8, 9, 10]);
        assert_eq!(numbers(&cursors, "FETCH 2 FROM c").await, [0; 0]);
        assert!(matches!(cursors.fetch(&fetch("MOVE ALL FROM c")).await, Ok(Fetched::Moved(0))));

        session.execute("BEGIN").await.unwrap();
        declare(&cursors, &session, &format!("DECLARE d {series}")).await.unwrap();
        assert_eq!(declare(&cursors, &session, &format!("DECLARE e {series}")).await.unwrap_err().code, codes::TOO_LARGE);
        session.execute("COMMIT").await.unwrap();
        cursors.end_transaction();
        assert!(cursors.has("c") && !cursors.has("d"));
        assert!(cursors.close(Some(&Ident::new("d"))).is_err());
        cursors.close(None).unwrap();
        assert!(!cursors.has("c"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_fetch_that_is_given_up_takes_nothing_and_one_that_fails_ends_the_cursor() {
        let engine = Engine::builder().build().await.unwrap();
        let (session, cursors) = (engine.session(), Cursors::new(2));
        session.execute("CREATE TABLE t (n BIGINT)").await.unwrap();
        session.execute("INSERT INTO t VALUES (5)").await.unwrap();
        declare(&cursors, &session, "DECLARE c CURSOR FOR SUBSCRIBE TO t WITH (progress = false)").await.unwrap();
        let waiting = fetch("FETCH 3 FROM c WITH (timeout = '1h')");
        assert!(tokio::time::timeout(Duration::from_millis(100), cursors.fetch(&waiting)).await.is_err());
        assert_eq!(numbers(&cursors, "FETCH 3 FROM c WITH (timeout = '10ms')").await, [5]);

        declare(&cursors, &session, "DECLARE d CURSOR FOR SELECT 10 / (n - 5) FROM t").await.unwrap();
        assert_eq!(cursors.fetch(&fetch("FETCH 1 FROM d")).await.err().unwrap().code, "22012");
        assert!(cursors.has("c") && !cursors.has("d"));
    }
}
