//! Changes of tables: INSERT, UPDATE, DELETE and TRUNCATE, each one epoch, whose rows dependent views follow.
//!
//! ```text
//!   UPDATE t SET a = a + 1 WHERE a < 3      t:  a = 1 ─┐            delta:  -1 (1)   +1 (2)
//!                                               a = 2 ─┼─ snapshot ─►        -1 (2)   +1 (3)
//!                                               a = 5  ┘
//! ```
//! A change is computed from a snapshot beside the pipeline, which goes on meanwhile. Where it depends on what the table held (rows
//! that go, keys that must be unique) it carries the epoch of that snapshot; the pipeline takes it only if the table has not
//! changed since, and else it is computed again. So changes of one table are serial, and readers never wait.

use super::Session;
use crate::catalog::object::{ObjectKind, TableDef};
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use crate::inserts::InsertNote;
use crate::pipeline::command::{Basis, Changed, Command, TableChange};
use crate::pipeline::repeated_key;
use crate::result::StatementResult;
use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, SchemaRef};
use datafusion::prelude::DataFrame;
use millstream_sql::Statement;
use millstream_sql::statement::InsertInto;
use millstream_sql::visit::any_expr;
use millstream_types::row_key::RowKeyEncoder;
use millstream_types::{Delta, DeltaBatch, Epoch, delta};
use sqlparser::ast::{self, AssignmentTarget, FromTable, ObjectName, TableFactor, TableWithJoins};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How often a change is computed again because the table has changed under it.
const ATTEMPTS: usize = 100;

/// A change that is computed but not committed.
struct Computed {
    table: String,
    change: TableChange,
    /// Rows inserted, updated or deleted.
    rows: usize,
}

/// What changes tables.
pub(super) enum Change<'a> {
    /// INSERT, UPDATE, DELETE or TRUNCATE.
    Statement {
        /// The statement.
        statement: &'a Statement,
        /// What the commit record says of it.
        note: Option<InsertNote>,
    },
    /// Rows with all columns of a table.
    Rows {
        /// The table.
        target: String,
        /// The rows.
        rows: Vec<RecordBatch>,
        /// What the commit record says of them.
        note: Option<InsertNote>,
    },
}

impl Session {
    /// Carries out INSERT, UPDATE, DELETE or TRUNCATE of tables: at once, or within the open transaction with its COMMIT.
    pub(super) async fn change(&self, statement: &Statement, note: Option<InsertNote>) -> Result<StatementResult> {
        let (tag, _) = self.change_by(Change::Statement { statement, note }).await?;
        Ok(StatementResult::done(tag, Vec::new()))
    }

    /// As [`Session::change`], for rows that are there already too. Gives the tag, and what became of it; `None`: nothing is committed.
    pub(super) async fn change_by(&self, change: Change<'_>) -> Result<(String, Option<Changed>)> {
        let (Change::Statement { note, .. } | Change::Rows { note, .. }) = &change;
        let note = *note;
        for _ in 0..ATTEMPTS {
            let computed = self.compute(&change).await?;
            let rows: usize = computed.iter().map(|computed| computed.rows).sum();
            let tag = match &change {
                Change::Rows { .. } | Change::Statement { statement: Statement::InsertInto(_), .. } => format!("INSERT {rows}"),
                Change::Statement { statement: Statement::Update(_), .. } => format!("UPDATE {rows}"),
                Change::Statement { statement: Statement::Delete(_), .. } => format!("DELETE {rows}"),
                Change::Statement { .. } => "TRUNCATE".to_string(),
            };
            let tables: BTreeMap<String, TableChange> = computed.into_iter().map(|computed| (computed.table, computed.change)).collect();
            if self.buffer(&tables) || (rows == 0 && note.is_none()) {
                return Ok((tag, None));
            }
            let command = |answer| Command::Change { tables, note, answer };
            match self.engine.request(command).await? {
                Changed::Stale => {}
                changed => return Ok((tag, Some(changed))),
            }
        }
        Err(EngineError::invalid("the table changes too often for this statement to get through", "Try again when less is written."))
    }

    async fn compute(&self, change: &Change<'_>) -> Result<Vec<Computed>> {
        if self.engine.shared().paused.load(Ordering::Acquire) {
            return Err(EngineError::invalid("tables cannot be changed while the pipeline is paused", "RESUME PIPELINE lets it go on."));
        }
        let statement = match change {
            Change::Statement { statement, .. } => *statement,
            Change::Rows { target, rows, .. } => {
                let def = self.table(&ObjectName::from(vec![ast::Ident::with_quote('"', target)]), "INSERT INTO")?;
                return Ok(vec![self.compute_insertion(&def, rows.clone()).await?]);
            }
        };
        match statement {
            Statement::InsertInto(insert) => Ok(vec![self.compute_insert(insert).await?]),
            Statement::Update(update) => match update.as_ref() {
                ast::Statement::Update(update) => Ok(vec![self.compute_update(update).await?]),
                _ => Err(EngineError::Internal("an UPDATE that is none".into())),
            },
            Statement::Delete(delete) => match delete.as_ref() {
                ast::Statement::Delete(delete) => Ok(vec![self.compute_delete(delete).await?]),
                _ => Err(EngineError::Internal("a DELETE that is none".into())),
            },
            Statement::Truncate(truncate) => match truncate.as_ref() {
                ast::Statement::Truncate(truncate) => self.compute_truncate(truncate).await,
                _ => Err(EngineError::Internal("a TRUNCATE that is none".into())),
            },
            other => Err(EngineError::Internal(format!("no change of a table: {other}"))),
        }
    }

    async fn compute_insert(&self, insert: &InsertInto) -> Result<Computed> {
        let def = self.table(&insert.target, "INSERT INTO")?;
        let rows = self.rows_for(insert, &def.name, &def.schema).await?;
        self.compute_insertion(&def, rows).await
    }

    async fn compute_insertion(&self, def: &TableDef, rows: Vec<RecordBatch>) -> Result<Computed> {
        let count = rows.iter().map(RecordBatch::num_rows).sum();
        // Outside a transaction the pipeline looks keys up when it takes the rows, whatever has come meanwhile.
        let based_on = match self.in_transaction() && !def.key.is_empty() {
            true => Basis::Content(self.check_keys(def, &[], &rows).await?),
            false => Basis::Nothing,
        };
        let changes = rows.into_iter().filter(|batch| batch.num_rows() > 0).map(DeltaBatch::insertions).collect();
        Ok(Computed { table: def.name.clone(), change: TableChange { changes, based_on }, rows: count })
    }

    async fn compute_update(&self, update: &ast::Update) -> Result<Computed> {
        let name = only_table(&update.table, "UPDATE")?;
        let def = self.table(name, "UPDATE")?;
        refuse(update.from.is_some(), "UPDATE ... FROM", "Take the values from a subquery: SET a = (SELECT ... WHERE ...).")?;
        refuse(update.returning.is_some() || update.output.is_some(), "UPDATE ... RETURNING", "SELECT the rows afterwards.")?;
        let limited = update.limit.is_some() || !update.order_by.is_empty() || update.or.is_some();
        refuse(limited, "UPDATE with OR, ORDER BY or LIMIT", "Say which rows with WHERE.")?;
        self.refuse_second(&def.name)?;
        let mut assigned: Vec<(usize, String)> = Vec::new();
        for assignment in &update.assignments {
            let column = match &assignment.target {
                AssignmentTarget::ColumnName(column) => object_name(column),
                AssignmentTarget::Tuple(_) => {
                    return Err(EngineError::invalid("SET (a, b) = (..) is not supported", "Write SET a = .., b = ...."));
                }
            };
            let Ok(index) = def.schema.index_of(&column) else {
                let columns: Vec<&str> = def.schema.fields().iter().map(|field| field.name().as_str()).collect();
                let hint = match millstream_types::suggest::nearest(&column, columns.iter().copied()) {
                    Some(near) => format!("Did you mean \"{near}\"?"),
                    None => format!("Its columns are {}.", columns.join(", ")),
                };
                return Err(EngineError::invalid(format!("table \"{}\" has no column \"{column}\"", def.name), hint));
            };
            if assigned.iter().any(|(other, _)| *other == index) {
                return Err(EngineError::invalid(format!("column \"{column}\" is assigned twice"), "Leave out one of them."));
            }
            assigned.push((index, assignment.value.to_string()));
        }
        let new = assigned.iter().enumerate().map(|(nth, (_, value))| format!(", ({value}) AS \"__new_{nth}\""));
        let (found, epoch) = self.matching(&def, &update.table, &new.collect::<String>(), update.selection.as_ref()).await?;
        let width = def.schema.fields().len();
        let (mut old_rows, mut new_rows) = (Vec::new(), Vec::new());
        for batch in found {
            let old = &batch.columns()[..width];
            let mut new = old.to_vec();
            for (nth, (index, _)) in assigned.iter().enumerate() {
                new[*index] = fitting(batch.column(width + nth), def.schema.field(*index), &def.name)?;
            }
            old_rows.push(RecordBatch::try_new(Arc::clone(&def.schema), old.to_vec())?);
            new_rows.push(RecordBatch::try_new(Arc::clone(&def.schema), new)?);
        }
        if self.in_transaction() && assigned.iter().any(|(index, _)| def.key.contains(def.schema.field(*index).name())) {
            self.check_keys(&def, &old_rows, &new_rows).await?;
        }
        let rows = old_rows.iter().map(RecordBatch::num_rows).sum();
        let changes: Delta = retractions(old_rows).chain(new_rows.into_iter().map(DeltaBatch::insertions)).collect();
        let changes = delta::consolidate(&def.schema, &changes)?;
        let based_on = self.basis(epoch, update.assignments.iter().map(|assignment| &assignment.value).chain(&update.selection));
        Ok(Computed { table: def.name.clone(), change: TableChange { changes, based_on }, rows })
    }

    async fn compute_delete(&self, delete: &ast::Delete) -> Result<Computed> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [table] = from.as_slice() else {
            return Err(EngineError::invalid("DELETE FROM names one table", ""));
        };
        let def = self.table(only_table(table, "DELETE FROM")?, "DELETE FROM")?;
        let using = delete.using.is_some() || !delete.tables.is_empty();
        refuse(using, "DELETE ... USING", "Say which rows with a subquery: WHERE id IN (SELECT ...).")?;
        refuse(delete.returning.is_some() || delete.output.is_some(), "DELETE ... RETURNING", "SELECT the rows before.")?;
        refuse(delete.limit.is_some() || !delete.order_by.is_empty(), "DELETE with ORDER BY or LIMIT", "Say which rows with WHERE.")?;
        self.refuse_second(&def.name)?;
        let (found, epoch) = self.matching(&def, table, "", delete.selection.as_ref()).await?;
        gone(&def, found, self.basis(epoch, &delete.selection))
    }

    async fn compute_truncate(&self, truncate: &ast::Truncate) -> Result<Vec<Computed>> {
        let extra = truncate.partitions.is_some() || truncate.on_cluster.is_some() || truncate.identity.is_some();
        refuse(extra, "TRUNCATE with PARTITION, IDENTITY or ON CLUSTER", "Write TRUNCATE TABLE name.")?;
        let mut computed: Vec<Computed> = Vec::new();
        for target in &truncate.table_names {
            if truncate.if_exists && self.engine.shared().catalog.read().get(&object_name(&target.name)).is_none() {
                continue;
            }
            let def = self.table(&target.name, "TRUNCATE")?;
            if computed.iter().any(|other| other.table == def.name) {
                continue;
            }
            self.refuse_second(&def.name)?;
            let table = crate::pipeline::ddl::select_all(&target.name)?;
            let (resolved, epoch) = self.plan_at(&table).await?;
            let found = DataFrame::new(resolved.state, resolved.plan).collect().await?;
            computed.push(gone(&def, found, Basis::Content(epoch))?);
        }
        Ok(computed)
    }

    /// The table a statement changes.
    fn table(&self, name: &ObjectName, statement: &str) -> Result<Arc<TableDef>> {
        let name = object_name(name);
        let catalog = self.engine.shared().catalog.read().clone();
        match &catalog.require(&name)?.kind {
            ObjectKind::Table(def) => Ok(Arc::clone(def)),
            ObjectKind::ExternalTable(_) => Err(EngineError::invalid(
                format!("cannot {statement} \"{name}\", whose rows lie in files"),
                "Only tables made by CREATE TABLE can be changed.",
            )),
            other => Err(EngineError::invalid(
                format!("cannot {statement} {} \"{name}\"", other.word()),
                "Only tables made by CREATE TABLE can be changed.",
            )),
        }
    }

    /// What a change that was computed from the content of an epoch depends on. A statement whose expressions see one row at a time
    /// is right whatever happens to other rows; in a transaction everything is as it was at BEGIN, or COMMIT fails.
    fn basis<'a>(&self, epoch: Epoch, expressions: impl IntoIterator<Item = &'a ast::Expr>) -> Basis {
        let sees_others = |expression: &ast::Expr| {
            any_expr(expression, &mut |expression| match expression {
                ast::Expr::Subquery(_) | ast::Expr::InSubquery { .. } | ast::Expr::Exists { .. } => true,
                ast::Expr::AnyOp { right, .. } | ast::Expr::AllOp { right, .. } => matches!(**right, ast::Expr::Subquery(_)),
                _ => false,
            })
        };
        match self.in_transaction() || expressions.into_iter().any(sees_others) {
            true => Basis::Content(epoch),
            false => Basis::Rows,
        }
    }

    /// The rows of a table that a condition selects, with further expressions after their columns.
    async fn matching(
        &self,
        def: &TableDef,
        table: &TableWithJoins,
        expressions: &str,
        condition: Option<&ast::Expr>,
    ) -> Result<(Vec<RecordBatch>, Epoch)> {
        let condition = condition.map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        let query =
            format!("SELECT {}{expressions} FROM {table}{condition}", column_list(def.schema.fields().iter().map(|field| field.name())));
        let (resolved, epoch) = self.plan_at(millstream_sql::parse_query(&query)?.as_ref()).await?;
        Ok((DataFrame::new(resolved.state, resolved.plan).collect().await?, epoch))
    }

    /// Checks that keys stay unique when rows go and others come. Gives the epoch this holds for.
    async fn check_keys(&self, def: &TableDef, old: &[RecordBatch], new: &[RecordBatch]) -> Result<Epoch> {
        let indices = def.key.iter().map(|name| def.schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let encoder = RowKeyEncoder::new(indices.iter().map(|&index| def.schema.field(index).data_type().clone()))?;
        let keys_of = |batch: &RecordBatch| -> Vec<ArrayRef> { indices.iter().map(|&index| Arc::clone(batch.column(index))).collect() };
        let quoted = ObjectName::from(vec![ast::Ident::with_quote('"', &def.name)]);
        let query = millstream_sql::parse_query(&format!("SELECT {} FROM {quoted}", column_list(&def.key)))?;
        let (resolved, epoch) = self.plan_at(&query).await?;
        let existing = DataFrame::new(resolved.state, resolved.plan).collect().await?;
        let mut counts: HashMap<arrow::row::OwnedRow, i64> = HashMap::new();
        for batch in &existing {
            for row in &encoder.encode(batch.columns())? {
                *counts.entry(row.owned()).or_default() += 1;
            }
        }
        let going = old.iter().cloned().map(|batch| DeltaBatch::insertions(batch).negated());
        for part in self.buffered(&def.name).into_iter().chain(going) {
            for (index, row) in encoder.encode(&keys_of(&part.batch))?.iter().enumerate() {
                *counts.entry(row.owned()).or_default() += part.weights.value(index);
            }
        }
        for batch in new {
            let columns = keys_of(batch);
            for (index, row) in encoder.encode(&columns)?.iter().enumerate() {
                let count = counts.entry(row.owned()).or_default();
                *count += 1;
                if *count > 1 {
                    let text = |column: &ArrayRef| arrow::util::display::array_value_to_string(column, index);
                    let values = columns.iter().map(text).collect::<Result<Vec<_>, _>>()?;
                    return Err(repeated_key(def, &values));
                }
            }
        }
        Ok(epoch)
    }
}

/// A value for a column of a table: what does not fit exactly is an error, not NULL and not rounded.
pub(super) fn fitting(array: &ArrayRef, field: &Field, table: &str) -> Result<ArrayRef> {
    let array = strict_cast(array, field, table)?;
    if !field.is_nullable() && array.null_count() > 0 {
        return Err(EngineError::invalid(format!("column \"{}\" of \"{table}\" must not be NULL", field.name()), ""));
    }
    Ok(array)
}

fn strict_cast(array: &ArrayRef, field: &Field, target: &str) -> Result<ArrayRef> {
    if array.data_type() == field.data_type() {
        return Ok(Arc::clone(array));
    }
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    let cast = arrow::compute::cast_with_options(array, field.data_type(), &options).map_err(|error| {
        EngineError::invalid(format!("a value for column \"{}\" of \"{target}\" does not fit: {error}", field.name()), "")
    })?;
    if array.data_type().is_numeric() && field.data_type().is_integer() && !array.data_type().is_integer() {
        let back = arrow::compute::cast_with_options(&cast, array.data_type(), &options)?;
        let same = arrow::compute::kernels::cmp::not_distinct(&back, array)?;
        if same.false_count() > 0 {
            return Err(EngineError::invalid(
                format!("a value for column \"{}\" of \"{target}\" is not a whole number", field.name()),
                "Round it with round() or CAST it.",
            ));
        }
    }
    Ok(cast)
}

/// All of these rows go.
fn gone(def: &TableDef, found: Vec<RecordBatch>, based_on: Basis) -> Result<Computed> {
    let rows = found.iter().map(RecordBatch::num_rows).sum();
    let found =
        found.into_iter().filter(|batch| batch.num_rows() > 0).map(|batch| of_schema(&batch, &def.schema)).collect::<Result<_>>()?;
    let change = TableChange { changes: retractions(found).collect(), based_on };
    Ok(Computed { table: def.name.clone(), change, rows })
}

fn of_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?)
}

fn retractions(rows: Vec<RecordBatch>) -> impl Iterator<Item = DeltaBatch> {
    rows.into_iter().map(|batch| DeltaBatch::insertions(batch).negated())
}

/// The one table an UPDATE or DELETE names, with or without an alias.
fn only_table<'a>(table: &'a TableWithJoins, statement: &str) -> Result<&'a ObjectName> {
    match &table.relation {
        TableFactor::Table { name, args: None, .. } if table.joins.is_empty() => Ok(name),
        _ => Err(EngineError::invalid(format!("{statement} names one table, without joins"), "Use a subquery in SET or WHERE.")),
    }
}

fn refuse(given: bool, what: &str, hint: &str) -> Result<()> {
    if given { Err(EngineError::invalid(format!("{what} is not supported"), hint)) } else { Ok(()) }
}

/// `"a", "b"`.
fn column_list(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    names.into_iter().map(|name| quoted(name.as_ref())).collect::<Vec<_>>().join(", ")
}
