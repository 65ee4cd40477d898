//! BEGIN, COMMIT, ROLLBACK: reads of one epoch, and changes of several tables that become one epoch.
//!
//! BEGIN takes a snapshot of everything; until COMMIT every query of the session sees it and nothing else, its own changes
//! included. INSERT, UPDATE, DELETE and TRUNCATE are computed and kept; COMMIT hands them to the pipeline as one epoch. If a table whose
//! content they depend on has changed since BEGIN, COMMIT fails and nothing has happened. A statement that fails leaves
//! the transaction as it was before. What is not a query and not a change of tables is refused inside.

use super::Session;
use crate::catalog::Catalog;
use crate::catalog::resolve::fold;
use crate::error::{EngineError, Result};
use crate::notice::Notice;
use crate::pipeline::command::{Basis, Changed, Command, TableChange};
use crate::pipeline::snapshot::{Snapshot, SnapshotRequest};
use crate::result::StatementResult;
use millstream_sql::Statement;
use millstream_sql::statement::{Emit, QueryStatement};
use millstream_types::Delta;
use sqlparser::ast;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a session keeps between BEGIN and COMMIT.
#[derive(Debug)]
pub(super) struct Transaction {
    catalog: Arc<Catalog>,
    snapshot: Arc<Snapshot>,
    tables: BTreeMap<String, TableChange>,
    /// What was kept when a savepoint was set, by its name; the newest last.
    savepoints: Vec<(String, BTreeMap<String, TableChange>)>,
}

impl Session {
    pub(super) async fn begin(&self) -> Result<StatementResult> {
        if self.transaction.lock().is_some() {
            let notice = Notice::warning("there is a transaction already", "COMMIT or ROLLBACK ends it.");
            return Ok(StatementResult::done("BEGIN", vec![notice]));
        }
        let catalog = self.engine.shared().catalog.read().clone();
        let names = catalog.objects().iter().map(|object| object.name.clone()).collect();
        let request = SnapshotRequest { names, figures: true };
        let snapshot = Arc::new(self.engine.request(|answer| Command::Snapshot { request, answer }).await?);
        *self.transaction.lock() = Some(Transaction { catalog, snapshot, tables: BTreeMap::new(), savepoints: Vec::new() });
        Ok(StatementResult::done("BEGIN", Vec::new()))
    }

    pub(super) async fn commit(&self) -> Result<StatementResult> {
        let Some(transaction) = self.transaction.lock().take() else { return Ok(none_open("COMMIT")) };
        if transaction.tables.values().all(|change| change.changes.is_empty()) {
            return Ok(StatementResult::done("COMMIT", Vec::new()));
        }
        if self.engine.shared().paused.load(Ordering::Acquire) {
            return Err(EngineError::invalid(
                "tables cannot be changed while the pipeline is paused; the transaction was rolled back",
                "RESUME PIPELINE lets it go on.",
            ));
        }
        let tables = transaction.tables;
        let names: Vec<String> = tables.keys().map(|name| format!("\"{name}\"")).collect();
        match self.engine.request(|answer| Command::Change { tables, note: None, answer }).await? {
            Changed::Committed(_) | Changed::Repeated(_) => Ok(StatementResult::done("COMMIT", Vec::new())),
            Changed::Stale => Err(EngineError::invalid(
                format!("the transaction was rolled back: {} changed since BEGIN", names.join(" or ")),
                "Run it again.",
            )),
        }
    }

    pub(super) fn rollback(&self) -> StatementResult {
        match self.transaction.lock().take() {
            Some(_) => StatementResult::done("ROLLBACK", Vec::new()),
            None => none_open("ROLLBACK"),
        }
    }

    /// SAVEPOINT, RELEASE SAVEPOINT and ROLLBACK TO SAVEPOINT; `None` for any other statement. Outside a transaction they change nothing.
    pub(super) fn savepoint(&self, statement: &Statement) -> Option<Result<StatementResult>> {
        let Statement::Other(statement) = statement else { return None };
        let datafusion::sql::parser::Statement::Statement(statement) = statement.as_ref() else { return None };
        let (tag, name) = match statement.as_ref() {
            ast::Statement::Savepoint { name } => ("SAVEPOINT", fold(name)),
            ast::Statement::ReleaseSavepoint { name } => ("RELEASE", fold(name)),
            ast::Statement::Rollback { savepoint: Some(name), .. } => ("ROLLBACK", fold(name)),
            _ => return None,
        };
        let mut open = self.transaction.lock();
        let Some(transaction) = open.as_mut() else { return Some(Ok(none_open(tag))) };
        if tag == "SAVEPOINT" {
            transaction.savepoints.push((name, transaction.tables.clone()));
            return Some(Ok(StatementResult::done(tag, Vec::new())));
        }
        let Some(at) = transaction.savepoints.iter().rposition(|(known, _)| *known == name) else {
            return Some(Err(EngineError::invalid(format!("savepoint \"{name}\" does not exist"), "")));
        };
        match tag {
            "ROLLBACK" => {
                // The savepoint itself stays.
                transaction.savepoints.truncate(at + 1);
                transaction.tables = transaction.savepoints[at].1.clone();
            }
            _ => transaction.savepoints.truncate(at),
        }
        Some(Ok(StatementResult::done(tag, Vec::new())))
    }

    /// What the open transaction sees.
    pub(super) fn pinned(&self) -> Option<(Arc<Catalog>, Arc<Snapshot>)> {
        self.transaction.lock().as_ref().map(|transaction| (Arc::clone(&transaction.catalog), Arc::clone(&transaction.snapshot)))
    }

    /// Keeps changes for COMMIT. `false`: no transaction is open.
    pub(super) fn buffer(&self, changes: &BTreeMap<String, TableChange>) -> bool {
        let mut transaction = self.transaction.lock();
        let Some(transaction) = transaction.as_mut() else { return false };
        for (table, change) in changes {
            match transaction.tables.get_mut(table) {
                Some(kept) => {
                    kept.changes.extend(change.changes.iter().cloned());
                    if kept.based_on == Basis::Nothing {
                        kept.based_on = change.based_on;
                    }
                }
                None => drop(transaction.tables.insert(table.clone(), change.clone())),
            }
        }
        true
    }

    /// The changes of a table that wait for COMMIT.
    pub(super) fn buffered(&self, table: &str) -> Delta {
        let transaction = self.transaction.lock();
        let change = transaction.as_ref().and_then(|transaction| transaction.tables.get(table));
        change.map_or_else(Delta::new, |change| change.changes.clone())
    }

    /// A statement that takes rows away would not see what the transaction did to the table before.
    pub(super) fn refuse_second(&self, table: &str) -> Result<()> {
        if self.buffered(table).is_empty() {
            return Ok(());
        }
        Err(EngineError::invalid(
            format!("this transaction has changed table \"{table}\" already and does not see its own changes"),
            "COMMIT first, or say it in one statement.",
        ))
    }

    /// Refuses what a transaction cannot hold.
    pub(super) fn check_transaction(&self, statement: &Statement) -> Result<()> {
        if self.transaction.lock().is_none() {
            return Ok(());
        }
        let fits = match statement {
            Statement::Query(QueryStatement { emit, .. }) => *emit == Emit::None,
            Statement::InsertInto(insert) => insert.emit == Emit::None,
            Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Truncate(_)
            | Statement::Begin
            | Statement::Commit
            | Statement::Rollback
            | Statement::Show(_)
            | Statement::ShowCreate(_)
            | Statement::Describe(_)
            | Statement::Explain(_)
            | Statement::Copy(_) => true,
            other => accepted_harmlessly(other),
        };
        if fits { Ok(()) } else { self.refuse_in_transaction() }
    }

    /// Refuses a statement while a transaction is open.
    pub(super) fn refuse_in_transaction(&self) -> Result<()> {
        match self.transaction.lock().is_none() {
            true => Ok(()),
            false => Err(EngineError::invalid(
                "a transaction holds only queries and changes of tables",
                "COMMIT or ROLLBACK first; a client that opens transactions by itself has a switch called autocommit.",
            )),
        }
    }
}

/// Statements of PostgreSQL clients that are accepted and change nothing: a statement that fails leaves no trace in a transaction, so
/// that a savepoint has nothing to keep.
pub fn accepted_harmlessly(statement: &Statement) -> bool {
    let Statement::Other(statement) = statement else { return false };
    let datafusion::sql::parser::Statement::Statement(statement) = statement.as_ref() else { return false };
    matches!(
        statement.as_ref(),
        ast::Statement::Savepoint { .. }
            | ast::Statement::ReleaseSavepoint { .. }
            | ast::Statement::Rollback { savepoint: Some(_), .. }
            | ast::Statement::Discard { .. }
            | ast::Statement::LISTEN { .. }
            | ast::Statement::UNLISTEN { .. }
    )
}

fn none_open(tag: &str) -> StatementResult {
    StatementResult::done(tag, vec![Notice::warning("there is no transaction", "BEGIN opens one.")])
}
