//! `INSERT INTO`: rows for a table or a memory stream, or a continuous query for a sink.

use super::Session;
use super::change::{Change, fitting};
use super::literal_rows::literal_rows;
use crate::catalog::object::ObjectKind;
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::inserts::{InsertNote, Reservation, Reserved};
use crate::pipeline::command::Changed;
use crate::result::StatementResult;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::prelude::DataFrame;
use millstream_sql::Statement;
use millstream_sql::statement::InsertInto;
use millstream_types::Epoch;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What came of rows that were to be inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// How many were inserted.
    pub rows: usize,
    /// Their key had been used before; nothing was done.
    pub repeated: bool,
    /// The epoch that has them, or a later one where that is not known.
    pub epoch: Epoch,
}

impl Session {
    /// `INSERT INTO`: rows for a table or memory stream, or a continuous query for a sink.
    pub(crate) async fn insert(&self, insert: InsertInto, note: Option<InsertNote>) -> Result<StatementResult> {
        let name = object_name(&insert.target);
        let shared = self.engine.shared();
        let catalog = shared.catalog.read().clone();
        let object = Arc::clone(catalog.require(&name)?);
        if let ObjectKind::Table(_) = &object.kind {
            return self.change(&Statement::InsertInto(insert), note).await;
        }
        self.refuse_in_transaction()?;
        let schema = match &object.kind {
            ObjectKind::Sink(_) => {
                let notices = self.engine.ddl(vec![Statement::InsertInto(insert)]).await?;
                return Ok(StatementResult::done("INSERT", notices));
            }
            ObjectKind::Stream(def) if def.connector == "memory" => self.engine.memory_schema(&name)?,
            other => return Err(takes_no_rows(other, &name)),
        };
        self.refuse_while_paused(&name)?;
        let rows = self.rows_for(&insert, &name, &schema).await?;
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        let rows = arrow::compute::concat_batches(&schema, &rows)?;
        self.engine.memory_source(&name)?.push_noted(rows, note).await?.taken().await?;
        Ok(StatementResult::done(format!("INSERT {count}"), Vec::new()))
    }

    /// Inserts rows that are there as batches: into a table, or a memory stream. Returns after they are committed (in a transaction:
    /// after they are kept for COMMIT). Columns that the batches do not have are NULL. Rows with a key that was used before for the
    /// relation are not inserted again, also after a restart; the newest 100,000 keys are remembered.
    ///
    /// # Errors
    /// As for INSERT.
    pub async fn insert_rows(&self, target: &str, rows: Vec<RecordBatch>, key: Option<&str>) -> Result<Inserted> {
        let schema = self.insert_schema(target)?;
        let note = key.map(|key| InsertNote::keyed(target, key));
        if let Some(epoch) = note.and_then(|note| self.engine.shared().inserts.epoch_of(note)) {
            return Ok(Inserted { rows: 0, repeated: true, epoch });
        }
        let mut whole = Vec::with_capacity(rows.len());
        for batch in rows {
            let columns: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            check_columns(&columns, target, &schema)?;
            whole.push(whole_rows(&batch, &columns, target, &schema)?);
        }
        let count = whole.iter().map(RecordBatch::num_rows).sum();
        let is_table = matches!(self.engine.shared().catalog.read().require(target)?.kind, ObjectKind::Table(_));
        if !is_table || note.is_some() {
            self.refuse_in_transaction()?;
        }
        if is_table {
            return match self.change_by(Change::Rows { target: target.to_string(), rows: whole, note }).await?.1 {
                Some(Changed::Repeated(epoch)) => Ok(Inserted { rows: 0, repeated: true, epoch }),
                Some(Changed::Committed(epoch)) => Ok(Inserted { rows: count, repeated: false, epoch }),
                Some(Changed::Stale) | None => Ok(Inserted { rows: count, repeated: false, epoch: self.engine.epoch() }),
            };
        }
        self.refuse_while_paused(target)?;
        if count == 0 {
            return Ok(Inserted { rows: 0, repeated: false, epoch: self.engine.epoch() });
        }
        let reservation = match note.and_then(InsertNote::key) {
            Some(hash) => match self.reserve(hash, target).await? {
                Ok(reservation) => Some(reservation),
                Err(epoch) => return Ok(Inserted { rows: 0, repeated: true, epoch }),
            },
            None => None,
        };
        let pushed = self.engine.memory_source(target)?.push_noted(arrow::compute::concat_batches(&schema, &whole)?, note).await?;
        if let Some(reservation) = reservation {
            reservation.queued();
        }
        let committed = pushed.taken().await?;
        let epoch = note.and_then(|note| self.engine.shared().inserts.epoch_of(note)).unwrap_or(committed);
        Ok(Inserted { rows: count, repeated: false, epoch })
    }

    /// Takes a key for rows of a stream, or gives the epoch that committed rows with it. Waits while such rows are on their way.
    async fn reserve(&self, hash: u64, stream: &str) -> Result<std::result::Result<Reservation, Epoch>> {
        let shared = self.engine.shared();
        let mut committed = shared.committed.subscribe();
        loop {
            // Seen before the key is looked up, so that no commit in between is missed.
            if let Some(error) = committed.borrow_and_update().stopped_error() {
                return Err(error);
            }
            match shared.inserts.reserve(hash, stream) {
                Reserved::New(reservation) => return Ok(Ok(reservation)),
                Reserved::CarriedOut(epoch) => return Ok(Err(epoch)),
                Reserved::UnderWay => committed.changed().await.map_err(|_| EngineError::Stopped(None))?,
            }
        }
    }

    /// The columns of a table or memory stream that rows can be inserted into.
    ///
    /// # Errors
    /// When there is none of this name, or it takes no rows.
    pub fn insert_schema(&self, target: &str) -> Result<SchemaRef> {
        self.authorize_insert(target)?;
        let catalog = self.engine.shared().catalog.read().clone();
        match &catalog.require(target)?.kind {
            ObjectKind::Table(def) => Ok(Arc::clone(&def.schema)),
            ObjectKind::Stream(def) if def.connector == "memory" => self.engine.memory_schema(target),
            other => Err(takes_no_rows(other, target)),
        }
    }

    fn refuse_while_paused(&self, name: &str) -> Result<()> {
        match self.engine.shared().paused.load(Ordering::Acquire) {
            false => Ok(()),
            true => Err(EngineError::invalid(
                format!("cannot INSERT INTO \"{name}\" while the pipeline is paused"),
                "RESUME PIPELINE lets it go on.",
            )),
        }
    }

    /// The rows of an INSERT with the columns of its target; columns not named are NULL.
    pub(super) async fn rows_for(&self, insert: &InsertInto, target: &str, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
        let columns: Vec<String> = if insert.columns.is_empty() {
            schema.fields().iter().map(|field| field.name().clone()).collect()
        } else {
            insert.columns.iter().map(crate::catalog::resolve::fold).collect()
        };
        let fields = columns.iter().map(|column| schema.field_with_name(column)).collect::<Result<Vec<_>, _>>();
        if let Some(rows) = fields.ok().and_then(|fields| literal_rows(&insert.source, &fields)) {
            check_columns(&columns, target, schema)?;
            return Ok(vec![whole_rows(&rows, &columns, target, schema)?]);
        }
        let resolved = self.plan(&insert.source).await?;
        let given = resolved.plan.schema().fields().len();
        if given != columns.len() {
            return Err(EngineError::invalid(
                format!("INSERT INTO \"{target}\" gives {given} values for {} columns", columns.len()),
                format!("The columns are ({}).", columns.join(", ")),
            ));
        }
        check_columns(&columns, target, schema)?;
        let frame = DataFrame::new(resolved.state, resolved.plan);
        frame.collect().await?.iter().map(|batch| whole_rows(batch, &columns, target, schema)).collect()
    }
}

fn check_columns(columns: &[String], target: &str, schema: &SchemaRef) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        if schema.index_of(column).is_err() {
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let hint = match millstream_types::suggest::nearest(column, names) {
                Some(near) => format!("Did you mean \"{near}\"?"),
                None => String::new(),
            };
            return Err(EngineError::invalid(format!("\"{target}\" has no column \"{column}\""), hint));
        }
        if columns[..index].contains(column) {
            return Err(EngineError::invalid(format!("column \"{column}\" of \"{target}\" is given twice"), "Keep one of them."));
        }
    }
    Ok(())
}

fn takes_no_rows(kind: &ObjectKind, name: &str) -> EngineError {
    EngineError::invalid(
        format!("cannot INSERT INTO {} \"{name}\"", kind.word()),
        "Rows can be inserted into tables and memory streams, continuous queries into sinks.",
    )
}

/// Rows of some columns with all columns of the target.
fn whole_rows(batch: &RecordBatch, columns: &[String], target: &str, schema: &SchemaRef) -> Result<RecordBatch> {
    let mut arrays: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let array = match columns.iter().position(|column| column == field.name()) {
            Some(index) => Arc::clone(batch.column(index)),
            None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
        };
        arrays.push(fitting(&array, field, target)?);
    }
    Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
}
