//! What rows look like on their way from the query to a file: which columns go where.

use super::config::{Config, DEFAULT_ROW_GROUP_ROWS};
use super::naming::NameTemplate;
use crate::error::{ConnectorError, Result};
use crate::sink::{SinkContext, SinkMode};
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use millstream_types::suggest::nearest;
use std::sync::Arc;

/// The immutable facts of a sink.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) sink: String,
    pub(crate) pipeline: String,
    pub(crate) writer: u64,
    pub(crate) mode: SinkMode,
    /// Columns of rows as SELECT on the sink sees them: those of the query, then `op` and `epoch` in a changelog.
    pub(crate) output: SchemaRef,
    /// Columns in a file: those of `output` without the partition columns.
    pub(crate) file: SchemaRef,
    /// Where the columns of `file` are in `output`.
    pub(crate) file_columns: Vec<usize>,
    /// Where the partition columns are in `output`.
    pub(crate) partition_columns: Vec<usize>,
    /// The columns of the key in the query.
    pub(crate) key: Vec<usize>,
    /// The event-time column in `file`.
    pub(crate) event_time: Option<usize>,
    /// Columns of `file` by which the rows of a file are ordered, and whether descending.
    pub(crate) order: Vec<(usize, bool)>,
    /// Rows of a part.
    pub(crate) part_rows: usize,
    pub(crate) names: NameTemplate,
}

impl Layout {
    pub(crate) fn new(context: &SinkContext, config: &Config) -> Result<Layout> {
        // Whether an expression can be NULL is the planner's estimate and may change with a build; the files' schema does not.
        let mut fields: Vec<FieldRef> =
            context.schema.fields().iter().map(|field| Arc::new(Field::new(field.name(), field.data_type().clone(), true))).collect();
        if context.mode == SinkMode::Changelog {
            for (name, option) in [(&config.op_name, "op_name"), (&config.epoch_name, "epoch_name")] {
                if fields.iter().any(|field| field.name() == name) {
                    return Err(ConnectorError::invalid(
                        format!("sink \"{}\" adds a column \"{name}\", which the query has already", context.sink),
                        format!("Rename the query's column, or set {option} = '...'."),
                    ));
                }
            }
            fields.push(Arc::new(Field::new(&config.op_name, DataType::Utf8View, true)));
            fields.push(Arc::new(Field::new(&config.epoch_name, DataType::Int64, true)));
        }
        for (index, field) in fields.iter().enumerate() {
            if fields[..index].iter().any(|other| other.name() == field.name()) {
                return Err(ConnectorError::invalid(
                    format!("sink \"{}\" has two columns \"{}\"", context.sink, field.name()),
                    "Give one of them another name with AS.",
                ));
            }
        }
        let position = |name: &str, what: &str| {
            fields.iter().position(|field| field.name() == name).ok_or_else(|| {
                let hint = match nearest(name, fields.iter().map(|field| field.name().as_str())) {
                    Some(near) => format!("Did you mean \"{near}\"?"),
                    None => format!("Its columns are {}.", names(&fields)),
                };
                ConnectorError::invalid(format!("sink \"{}\" has no column \"{name}\" for its {what}", context.sink), hint)
            })
        };
        let partition_columns: Vec<usize> =
            context.partition_by.iter().map(|name| position(name, "PARTITIONED BY")).collect::<Result<_>>()?;
        for &column in &partition_columns {
            if fields[column].data_type().is_nested() {
                return Err(ConnectorError::invalid(
                    format!("sink \"{}\" cannot be partitioned by column \"{}\", which is nested", context.sink, fields[column].name()),
                    "Partition by a column with single values.",
                ));
            }
        }
        let file_columns: Vec<usize> = (0..fields.len()).filter(|column| !partition_columns.contains(column)).collect();
        if file_columns.is_empty() {
            return Err(ConnectorError::invalid(
                format!("sink \"{}\" is partitioned by all its columns, so that nothing is left for its files", context.sink),
                "Leave at least one column out of PARTITIONED BY.",
            ));
        }
        let in_file = |column: usize| file_columns.iter().position(|other| *other == column);
        let mut order = Vec::new();
        for (name, descending) in &context.order_by {
            // Within a file a partition column is constant.
            order.extend(in_file(position(name, "ORDER BY")?).map(|column| (column, *descending)));
        }
        let key = context.key.iter().map(|name| position(name, "PRIMARY KEY")).collect::<Result<_>>()?;
        let file = Arc::new(Schema::new(file_columns.iter().map(|column| Arc::clone(&fields[*column])).collect::<Vec<_>>()));
        Ok(Layout {
            sink: context.sink.clone(),
            pipeline: context.pipeline.clone(),
            writer: context.writer,
            mode: context.mode,
            event_time: context.event_time.and_then(in_file),
            part_rows: part_rows(config, &file),
            names: config.file_name.clone(),
            output: Arc::new(Schema::new(fields)),
            file,
            file_columns,
            partition_columns,
            key,
            order,
        })
    }

    /// Rows of the query as rows of `output`; only for modes that add no columns.
    pub(crate) fn output_rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        rows_of(&self.output, batch.columns().to_vec(), batch.num_rows())
    }

    /// The columns of `output` that go into a file.
    pub(crate) fn file_rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.file_columns.iter().map(|column| Arc::clone(batch.column(*column))).collect();
        rows_of(&self.file, columns, batch.num_rows())
    }
}

/// A batch of a schema.
pub(crate) fn rows_of(schema: &SchemaRef, columns: Vec<arrow::array::ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
        .map_err(|error| ConnectorError::internal("the rows of a sink do not have the sink's columns", error))
}

fn names(fields: &[FieldRef]) -> String {
    fields.iter().map(|field| format!("\"{}\"", field.name())).collect::<Vec<_>>().join(", ")
}

/// Rows of a part: as told, else so few that a small `roll_size` or `roll_rows` can be met at all.
fn part_rows(config: &Config, file: &Schema) -> usize {
    if let Some(rows) = config.row_group_rows {
        return rows;
    }
    let row_bytes: u64 = file.fields().iter().map(|field| field.data_type().primitive_width().unwrap_or(16) as u64).sum();
    let by_size = (config.roll_size / row_bytes.max(1)).max(1024);
    let by_rows = config.roll_rows.unwrap_or(u64::MAX);
    usize::try_from(by_size.min(by_rows)).unwrap_or(usize::MAX).min(DEFAULT_ROW_GROUP_ROWS)
}
