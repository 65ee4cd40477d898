//! Computed columns: deterministic expressions over the decoded columns, and `PROCTIME()`.

use crate::catalog::object::{ColumnOrigin, StreamDef};
use crate::error::{EngineError, Result};
use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::ExprSchemable;
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::with_checked_arithmetic;
use millstream_types::EventTime;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The computed columns of a stream, compiled.
#[derive(Debug)]
pub(crate) struct Computed {
    columns: Vec<ComputedColumn>,
}

#[derive(Debug)]
struct ComputedColumn {
    field: Field,
    /// `None` for `PROCTIME()`.
    expr: Option<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    expr: Arc<dyn PhysicalExpr>,
    /// The decoded columns it reads, in the order of its input batch.
    inputs: Vec<String>,
    schema: SchemaRef,
}

impl Computed {
    /// Compiles the computed columns of a definition.
    pub(crate) fn compile(def: &StreamDef, state: &SessionState) -> Result<Self> {
        let mut columns = Vec::new();
        for column in &def.columns {
            match &column.origin {
                ColumnOrigin::Proctime => columns.push(ComputedColumn { field: column.field.clone(), expr: None }),
                ColumnOrigin::Computed(expr) => {
                    let (logical, schema) = plan_expression(def, expr, state)?;
                    let mut inputs: Vec<String> = logical.column_refs().iter().map(|column| column.name.clone()).collect();
                    inputs.sort();
                    let fields: Vec<Field> = inputs
                        .iter()
                        .map(|name| schema.field_with_unqualified_name(name).map(|field| field.as_ref().clone()))
                        .collect::<Result<_, _>>()?;
                    let input_schema = Schema::new(fields);
                    let df_schema = DFSchema::try_from(input_schema.clone())?;
                    let cast = logical.cast_to(column.field.data_type(), &df_schema)?;
                    let expr = with_checked_arithmetic(state.create_physical_expr(cast, &df_schema)?)?;
                    columns.push(ComputedColumn {
                        field: column.field.clone(),
                        expr: Some(Compiled { expr, inputs, schema: Arc::new(input_schema) }),
                    });
                }
                ColumnOrigin::Physical | ColumnOrigin::Metadata(_) => {}
            }
        }
        Ok(Self { columns })
    }

    /// Names of the columns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.field.name().as_str())
    }

    /// The decoded columns that the computed ones among `needed` read.
    pub(crate) fn inputs_of(&self, needed: &BTreeSet<String>) -> Vec<&str> {
        let wanted = self.columns.iter().filter(|column| needed.contains(column.field.name().as_str()));
        wanted.filter_map(|column| column.expr.as_ref()).flat_map(|expr| expr.inputs.iter().map(String::as_str)).collect()
    }

    /// The batch with the `wanted` computed columns after its own.
    pub(crate) fn evaluate(&self, batch: &RecordBatch, clock: EventTime, wanted: impl Fn(&str) -> bool) -> Result<RecordBatch> {
        let mut fields: Vec<Field> = batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        for column in self.columns.iter().filter(|column| wanted(column.field.name())) {
            let array: ArrayRef = match &column.expr {
                None => proctime(column.field.data_type(), TimestampMicrosecondArray::from_value(clock.0, batch.num_rows())),
                Some(compiled) => {
                    let inputs: Option<Vec<ArrayRef>> = compiled.inputs.iter().map(|name| batch.column_by_name(name).cloned()).collect();
                    let inputs =
                        inputs.ok_or_else(|| EngineError::Internal(format!("{} has inputs that were not read", column.field.name())))?;
                    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                    let input = RecordBatch::try_new_with_options(Arc::clone(&compiled.schema), inputs, &options)?;
                    compiled.expr.evaluate(&input)?.into_array(batch.num_rows())?
                }
            };
            fields.push(column.field.clone().with_nullable(true));
            columns.push(array);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }
}

/// A `PROCTIME()` column from clocks.
pub(super) fn proctime(data_type: &DataType, clocks: TimestampMicrosecondArray) -> ArrayRef {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, Some(zone)) => Arc::new(clocks.with_timezone(Arc::clone(zone))),
        _ => Arc::new(clocks),
    }
}

/// Plans the expression of a computed column over the decoded columns of its stream.
///
/// # Errors
/// When it names a column that does not exist or is not deterministic.
pub(crate) fn plan_expression(
    def: &StreamDef,
    expr: &sqlparser::ast::Expr,
    state: &SessionState,
) -> Result<(datafusion::logical_expr::Expr, DFSchema)> {
    let decoded: Vec<Field> = def
        .columns
        .iter()
        .filter(|column| matches!(column.origin, ColumnOrigin::Physical | ColumnOrigin::Metadata(_)))
        .map(|column| column.field.clone())
        .collect();
    let schema = DFSchema::try_from(Schema::new(decoded))?;
    let logical = state.create_logical_expr(&expr.to_string(), &schema)?;
    if logical.is_volatile() {
        return Err(EngineError::invalid(
            format!("computed column of stream \"{}\" uses a volatile function: {expr}", def.name),
            "Only deterministic functions and PROCTIME() can be computed at arrival.",
        ));
    }
    Ok((logical, schema))
}
