//! Numbers the distinct keys of a delta: row by row a dense number, and the keys by number.

use crate::error::Result;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use std::sync::{Arc, Mutex, PoisonError};

/// Keys beyond which the interner gives its memory back after the step.
const KEEP: usize = 64 * 1024;

/// The interner. It is empty between steps.
pub(crate) struct Interner {
    /// `None` without key columns: all rows have the one key. The mutex is never locked: it makes the operator `Sync`.
    values: Option<Mutex<Box<dyn GroupValues>>>,
}

/// The key columns of a part of a delta, with canonical floats, and its number of rows.
pub(crate) type PartKeys = (Vec<ArrayRef>, usize);

/// Keys by number, in the order in which they occur first.
pub(crate) struct Numbered {
    /// Key columns.
    pub(crate) keys: Vec<ArrayRef>,
    /// How many keys.
    pub(crate) count: usize,
    /// By part and row: the number of its key.
    pub(crate) rows: Vec<Vec<usize>>,
}

impl Interner {
    /// An interner of keys with these column types.
    pub(crate) fn new(key_types: &[DataType]) -> Result<Self> {
        if key_types.is_empty() {
            return Ok(Self { values: None });
        }
        let fields: Vec<Field> = key_types.iter().enumerate().map(|(n, t)| Field::new(format!("k{n}"), t.clone(), true)).collect();
        let values = new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?;
        Ok(Self { values: Some(Mutex::new(values)) })
    }

    /// Whether there are no key columns.
    pub(crate) fn is_unit(&self) -> bool {
        self.values.is_none()
    }

    /// Numbers the keys of parts.
    pub(crate) fn number(&mut self, parts: &[PartKeys]) -> Result<Numbered> {
        let Some(values) = &mut self.values else {
            return Ok(Numbered { keys: vec![], count: 1, rows: parts.iter().map(|(_, rows)| vec![0; *rows]).collect() });
        };
        if parts.is_empty() {
            return Ok(Numbered { keys: vec![], count: 0, rows: vec![] });
        }
        let values = values.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut rows = Vec::with_capacity(parts.len());
        for (columns, _) in parts {
            let mut numbers = vec![];
            values.intern(columns, &mut numbers)?;
            rows.push(numbers);
        }
        let count = values.len();
        let keys = values.emit(EmitTo::All)?;
        // Not every kind of interner forgets its keys when it hands them out.
        values.clear_shrink(if count > KEEP { 0 } else { count });
        Ok(Numbered { keys, count, rows })
    }
}
