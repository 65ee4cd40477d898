//! The columns a source hands out: those asked for, then its metadata columns.

use crate::error::{ConnectorError, Result};
use crate::registry;
use crate::source::SourceContext;
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

/// The declared columns of a stream and the metadata columns behind them.
#[derive(Debug, Clone)]
pub(crate) struct SourceColumns {
    /// The decoded columns, in declared order.
    pub schema: SchemaRef,
    /// The metadata columns: key and field.
    pub metadata: Vec<(String, Field)>,
}

impl SourceColumns {
    /// The columns of a stream that `connector` feeds.
    pub(crate) fn new(connector: &str, context: &SourceContext) -> Result<Self> {
        let mut metadata = Vec::with_capacity(context.metadata.len());
        for (key, name) in &context.metadata {
            metadata.push((key.clone(), Field::new(name, registry::metadata_type(connector, key)?, false)));
        }
        Ok(Self { schema: Arc::clone(&context.schema), metadata })
    }

    /// The indices of the declared columns that a request asks for.
    pub(crate) fn selected(&self, projection: Option<&[usize]>) -> Vec<usize> {
        match projection {
            Some(indices) => indices.iter().copied().filter(|index| *index < self.schema.fields().len()).collect(),
            None => (0..self.schema.fields().len()).collect(),
        }
    }

    /// The schema of the batches that answer such a request.
    pub(crate) fn output_schema(&self, selected: &[usize]) -> SchemaRef {
        let decoded = selected.iter().map(|index| Arc::clone(&self.schema.fields()[*index]));
        let metadata = self.metadata.iter().map(|(_, field)| Arc::new(field.clone()));
        Arc::new(Schema::new(decoded.chain(metadata).collect::<Vec<_>>()))
    }
}

/// A batch of `rows` rows, also where it has no columns at all.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize, context: &str) -> Result<RecordBatch> {
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &RecordBatchOptions::new().with_row_count(Some(rows)))
        .map_err(|error| ConnectorError::internal(context, error))
}

/// The batch size of a request, or the default where it names none.
pub(crate) fn batch_size(requested: usize) -> u64 {
    const DEFAULT_BATCH_ROWS: u64 = 8_192;
    if requested == 0 { DEFAULT_BATCH_ROWS } else { requested as u64 }
}
