//! The rows of an epoch by key: sorted once, so that the rows of a key are a slice.

use crate::columns::{evaluate, take_rows};
use crate::error::Result;
use crate::zset::expand;
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortOptions, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::physical_plan::PhysicalExpr;
use millstream_types::delta::DeltaBatch;
use millstream_types::row_key::{RowKeyEncoder, canonical_floats};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Sorts rows by key, then by ORDER BY, then as they came.
pub(super) struct Sorter {
    key: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<Arc<dyn PhysicalExpr>>,
    /// `None` without key columns.
    keys: Option<RowKeyEncoder>,
    /// `None` without ORDER BY.
    orders: Option<RowConverter>,
}

/// Rows in order.
pub(super) struct Sorted {
    /// All rows.
    pub(super) rows: RecordBatch,
    /// Key columns, one row per key, in order.
    pub(super) keys: Vec<ArrayRef>,
    /// The rows of each key.
    pub(super) ranges: Vec<Range<usize>>,
}

impl Sorter {
    pub(super) fn new(
        key: Vec<Arc<dyn PhysicalExpr>>,
        key_types: &[DataType],
        order: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
        input: &SchemaRef,
    ) -> Result<Self> {
        let fields = order.iter().map(|(expr, options)| Ok(SortField::new_with_options(expr.data_type(input)?, *options)));
        let fields = fields.collect::<Result<Vec<SortField>>>()?;
        Ok(Self {
            key,
            order: order.into_iter().map(|(expr, _)| expr).collect(),
            keys: if key_types.is_empty() { None } else { Some(RowKeyEncoder::new(key_types.iter().cloned())?) },
            orders: if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) },
        })
    }

    /// Byte strings that order like the keys; `None` without key columns.
    pub(super) fn encode_keys(&self, keys: &[ArrayRef]) -> Result<Option<Rows>> {
        Ok(self.keys.as_ref().map(|encoder| encoder.encode(keys)).transpose()?)
    }

    /// The rows of an append-only change, which are not none.
    pub(super) fn sort(&self, schema: &SchemaRef, delta: &[DeltaBatch]) -> Result<Sorted> {
        let parts = delta.iter().map(|part| expand(schema, part)).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(schema, &parts)?;
        let columns = self.key.iter().map(|expr| evaluate(expr, &all)).collect::<Result<Vec<_>>>()?;
        let keys = self.encode_keys(&columns)?;
        let orders = match &self.orders {
            Some(converter) => {
                let columns = self.order.iter().map(|expr| Ok(canonical_floats(&evaluate(expr, &all)?)?)).collect::<Result<Vec<_>>>()?;
                Some(converter.convert_columns(&columns)?)
            }
            None => None,
        };
        let compare_in = |rows: &Option<Rows>, a: u32, b: u32| match rows {
            Some(rows) => rows.row(a as usize).cmp(&rows.row(b as usize)),
            None => Ordering::Equal,
        };
        let mut indices: Vec<u32> = (0..all.num_rows() as u32).collect();
        indices.sort_unstable_by(|a, b| compare_in(&keys, *a, *b).then_with(|| compare_in(&orders, *a, *b)).then(a.cmp(b)));
        let mut starts: Vec<usize> = vec![];
        for (place, index) in indices.iter().enumerate() {
            if place == 0 || compare_in(&keys, indices[place - 1], *index) != Ordering::Equal {
                starts.push(place);
            }
        }
        let firsts = UInt32Array::from_iter_values(starts.iter().map(|place| indices[*place]));
        let keys = crate::columns::take_columns(&columns, &firsts)?;
        let keys = keys.iter().map(canonical_floats).collect::<std::result::Result<Vec<_>, _>>()?;
        let ends = starts.iter().skip(1).copied().chain([indices.len()]);
        let ranges = starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
        Ok(Sorted { rows: take_rows(&all, &UInt32Array::from(indices))?, keys, ranges })
    }
}
