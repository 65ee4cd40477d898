//! Prepared statements, and the parameters that are bound to them.
//!
//! Parameters come as the rows of record batches, one column per parameter in order, whatever the columns are called. A query runs once
//! for each row, and its results follow each other. An update runs once for each row too; those of an INSERT are one
//! epoch, while UPDATE and DELETE are carried out row by row, since a transaction does not see its own changes; `INSERT INTO ..
//! VALUES ($1, $2, ..)`, which drivers send with thousands of rows, is one insertion, and so is `COPY t FROM STDIN`, whose rows they are.

use super::parameters::{literals, sent_as};
use super::session::FlightSession;
use super::statement::{Work, copied_columns, describe, no_rows, read, takes_rows, update, within};
use crate::aside::aside;
use crate::error::{RequestError, codes};
use crate::pg::Parsed;
use crate::prepared::bound;
use crate::service::Service;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::Described;
use millstream_engine::catalog::resolve::{fold, object_name};
use millstream_sql::Statement;
use millstream_sql::statement::InsertInto;
use parking_lot::Mutex;
use sqlparser::ast::{self, Expr, SetExpr};
use std::collections::VecDeque;
use std::sync::Arc;

/// Rows of parameters of one query.
const ROWS_MAX: usize = 100_000;

/// A prepared statement.
#[derive(Debug)]
pub(super) struct Prepared {
    text: String,
    parsed: Parsed,
    described: Described,
    bound: Mutex<Option<Bound>>,
}

/// Parameters that wait for the statement to be run.
#[derive(Debug, Clone)]
struct Bound {
    batches: Vec<RecordBatch>,
    rows: Vec<Vec<Expr>>,
    columns: Option<SchemaRef>,
}

impl Prepared {
    /// Reads a statement and finds out what it takes and gives.
    ///
    /// # Errors
    /// When it is none, or would fail already for what it names.
    pub(super) async fn new(service: &Arc<Service>, session: &FlightSession, text: String) -> Result<Self, RequestError> {
        let parsed = read(service, &text)?;
        let described = describe(service, session, &parsed, Vec::new()).await?;
        Ok(Self { text, parsed, described, bound: Mutex::new(None) })
    }

    /// Bytes that it counts with.
    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The columns of its rows, if it gives any.
    pub(super) fn columns(&self) -> Option<SchemaRef> {
        self.described.columns.clone()
    }

    /// Its parameters as columns.
    pub(super) fn parameters(&self) -> Schema {
        let fields = self.described.parameters.iter().enumerate();
        Schema::new(fields.map(|(index, data_type)| Field::new(format!("${}", index + 1), data_type.clone(), true)).collect::<Vec<_>>())
    }

    /// Takes parameters for the next time the statement is run.
    ///
    /// # Errors
    /// When there are not as many as it takes, or not of its types.
    pub(super) async fn bind(
        &self,
        service: &Arc<Service>,
        session: &FlightSession,
        batches: Vec<RecordBatch>,
    ) -> Result<(), RequestError> {
        let types = self.check(&batches)?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > ROWS_MAX {
            return Err(RequestError::new(codes::TOO_LARGE, format!("a query takes {ROWS_MAX} rows of parameters at most"), ""));
        }
        let columns = describe(service, session, &self.parsed, types).await?.columns;
        let rows = literals(&batches, &self.described.parameters)?;
        *self.bound.lock() = Some(Bound { batches, rows, columns });
        Ok(())
    }

    /// The types of the parameters as they are sent.
    fn check(&self, batches: &[RecordBatch]) -> Result<Vec<Option<DataType>>, RequestError> {
        let wanted = self.described.parameters.len();
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
        if schema.fields().len() != wanted {
            let message = format!("the statement takes {wanted} parameters, not {}", schema.fields().len());
            return Err(RequestError::new(codes::WRONG_PARAMETERS, message, "Each column of the batch is a parameter."));
        }
        Ok(schema.fields().iter().map(|field| sent_as(field.data_type())).collect())
    }

    /// What is to be carried out with the parameters that are bound.
    ///
    /// # Errors
    /// When it takes parameters and none are bound.
    pub(super) fn work(&self) -> Result<Work, RequestError> {
        let bound_rows = self.bound.lock().clone();
        let wanted = self.described.parameters.len();
        let (statements, columns) = match bound_rows {
            None if takes_rows(&self.parsed) => return Err(no_rows()),
            None if wanted > 0 => {
                let message = format!("the statement takes {wanted} parameters, and none are bound");
                return Err(RequestError::new(codes::WRONG_PARAMETERS, message, "Bind a batch with a column for each (DoPut)."));
            }
            None => (VecDeque::from([self.parsed.clone()]), self.described.columns.clone()),
            Some(Bound { rows, columns, .. }) if wanted > 0 => {
                let statements = rows.iter().map(|row| bound(&self.parsed, row)).collect::<Result<_, _>>()?;
                (statements, columns)
            }
            // Drivers bind a batch without columns where there are no parameters.
            Some(Bound { columns, .. }) => (VecDeque::from([self.parsed.clone()]), columns),
        };
        let bytes = self.bytes().saturating_mul(statements.len());
        Ok(Work { statements, schema: columns.unwrap_or_else(|| Arc::new(Schema::empty())), bytes, done: None })
    }

    /// Carries the statement out once for each row of parameters, and gives how many rows it changed.
    ///
    /// # Errors
    /// When it fails for a row; the message says whether the rows before it were carried out.
    pub(super) async fn update(
        &self,
        service: &Arc<Service>,
        session: &FlightSession,
        batches: Vec<RecordBatch>,
    ) -> Result<i64, RequestError> {
        // Some clients bind parameters first, and then update without any.
        let bound_before = self.bound.lock().as_ref().map(|bound| bound.batches.clone()).unwrap_or_default();
        let batches = if batches.is_empty() { bound_before } else { batches };
        self.check(&batches)?;
        if batches.is_empty() && takes_rows(&self.parsed) {
            return Err(no_rows());
        }
        if let Some((target, columns)) = self.insertion(session)
            && let Parsed::Engine(statement) = &self.parsed
            && !batches.is_empty()
        {
            session.session.authorize(statement)?;
            let named = batches.iter().map(|batch| renamed(batch, &columns)).collect::<Result<Vec<_>, _>>()?;
            let engine = session.session.clone();
            let inserted = within(service, session, aside(async move { engine.insert_rows(&target, named, None).await })).await?;
            return Ok(i64::try_from(inserted.rows).unwrap_or(i64::MAX));
        }
        if self.described.parameters.is_empty() {
            return update(service, session, self.parsed.clone()).await;
        }
        let rows = literals(&batches, &self.described.parameters)?;
        let several = rows.len() > 1 && self.inserts() && !session.session.in_transaction();
        if several {
            update(service, session, Parsed::Engine(Box::new(Statement::Begin))).await?;
        }
        let mut count = 0_i64;
        for (index, row) in rows.iter().enumerate() {
            let carried_out = match bound(&self.parsed, row) {
                Ok(parsed) => update(service, session, parsed).await,
                Err(error) => Err(error),
            };
            match carried_out {
                Ok(changed) => count = count.saturating_add(changed.max(0)),
                Err(mut error) => {
                    if several {
                        update(service, session, Parsed::Engine(Box::new(Statement::Rollback))).await?;
                    }
                    let before = if several || index == 0 { "nothing was changed" } else { "the rows before it were carried out" };
                    error.message = format!("row {} of the parameters: {} ({before})", index + 1, error.message);
                    return Err(error);
                }
            }
        }
        if several {
            update(service, session, Parsed::Engine(Box::new(Statement::Commit))).await?;
        }
        Ok(count)
    }

    fn inserts(&self) -> bool {
        let Parsed::Engine(statement) = &self.parsed else { return false };
        matches!(statement.as_ref(), Statement::InsertInto(_))
    }

    /// The target and the columns of `INSERT INTO target (columns) VALUES ($1, $2, ..)` and `COPY target (columns) FROM STDIN`, where rows
    /// can be inserted there as they are.
    fn insertion(&self, session: &FlightSession) -> Option<(String, Vec<String>)> {
        let Parsed::Engine(statement) = &self.parsed else { return None };
        if let Statement::CopyFrom(copy) = statement.as_ref() {
            let columns = copied_columns(session, copy).ok()?;
            return Some((object_name(&copy.target), columns.fields().iter().map(|field| field.name().clone()).collect()));
        }
        let Statement::InsertInto(insert) = statement.as_ref() else { return None };
        let target = object_name(&insert.target);
        let schema = session.session.insert_schema(&target).ok()?;
        let columns: Vec<String> = match insert.columns.as_slice() {
            [] => schema.fields().iter().map(|field| field.name().clone()).collect(),
            columns => columns.iter().map(fold).collect(),
        };
        let fits = takes_parameters_in_order(insert) && columns.len() == self.described.parameters.len();
        fits.then_some((target, columns))
    }
}

/// Whether an INSERT has one row, `$1`, `$2`, .. in order, and nothing else.
fn takes_parameters_in_order(insert: &InsertInto) -> bool {
    let query = &insert.source;
    let SetExpr::Values(values) = query.body.as_ref() else { return false };
    let [row] = values.rows.as_slice() else { return false };
    let plain = query.with.is_none() && query.order_by.is_none() && query.limit_clause.is_none();
    let in_order = row.content.iter().enumerate().all(|(index, expr)| match expr {
        Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), .. }) => {
            millstream_sql::parameters::index(name) == Some(index)
        }
        _ => false,
    });
    plain && in_order
}

/// A batch of parameters with the names of the columns they go to.
fn renamed(batch: &RecordBatch, columns: &[String]) -> Result<RecordBatch, RequestError> {
    let fields =
        batch.schema().fields().iter().zip(columns).map(|(field, name)| field.as_ref().clone().with_name(name)).collect::<Vec<_>>();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), batch.columns().to_vec())?)
}
