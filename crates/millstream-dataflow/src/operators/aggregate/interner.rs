//! Numbers the groups of an epoch by first occurrence, with DataFusion's own table of group values.

use crate::error::Result;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use std::sync::{Arc, Mutex, PoisonError};

/// Groups beyond which the table gives its memory back after the step.
const KEPT_MAX: usize = 64 * 1024;

/// See the module documentation. The mutex is never locked: it makes operators `Sync`.
pub(crate) struct Interner(Mutex<Box<dyn GroupValues>>);

impl Interner {
    /// A table for keys of these types; at least one.
    pub(crate) fn new(key_types: &[DataType]) -> Result<Self> {
        let fields: Vec<Field> = key_types.iter().enumerate().map(|(n, t)| Field::new(format!("k{n}"), t.clone(), true)).collect();
        Ok(Self(Mutex::new(new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?)))
    }

    /// Fills in the group of each row of some key columns; the number of groups and their keys. The table is empty again afterwards.
    pub(crate) fn number<'a>(
        &mut self,
        parts: impl Iterator<Item = (&'a mut Vec<usize>, &'a Vec<ArrayRef>)>,
    ) -> Result<(usize, Vec<ArrayRef>)> {
        let table = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (groups, columns) in parts {
            table.intern(columns, groups)?;
        }
        let count = table.len();
        let keys = table.emit(EmitTo::All)?;
        // Not every kind of table forgets its keys when it hands them out.
        table.clear_shrink(if count > KEPT_MAX { 0 } else { count });
        Ok((count, keys))
    }
}
