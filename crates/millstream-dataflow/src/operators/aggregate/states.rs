//! The states of groups by slot: in place where their columns have a fixed width, otherwise in a row log.

use crate::columns::make_batch;
use crate::error::Result;
use crate::row_log::RowLog;
use crate::slot_records::SlotRecords;
use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use std::sync::Arc;

/// Chunks of the log are merged up to this many groups.
const CHUNK_ROWS: usize = 256 * 1024;

/// The states.
pub(super) enum States {
    /// A group is its key.
    None,
    Records(SlotRecords, SchemaRef),
    Log(RowLog),
}

impl States {
    /// No states yet, with these types of columns.
    pub(super) fn new(types: &[DataType]) -> Self {
        if types.is_empty() {
            return Self::None;
        }
        let field = |(index, data_type): (usize, &DataType)| Field::new(format!("s{index}"), data_type.clone(), true);
        let schema = Arc::new(Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>()));
        match SlotRecords::new(types) {
            Some(records) => Self::Records(records, schema),
            None => Self::Log(RowLog::new(schema, CHUNK_ROWS)),
        }
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Records(records, _) => records.bytes(),
            Self::Log(log) => log.bytes(),
        }
    }

    /// The columns of the states of `slots`.
    pub(super) fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        match self {
            Self::None => Ok(vec![]),
            Self::Records(records, _) => records.gather(slots),
            Self::Log(log) => log.gather(slots, 0..log.schema().fields().len()),
        }
    }

    /// Row `i` of `columns` is the state of `slots[i]` from now on; slots are distinct.
    pub(super) fn write(&mut self, columns: Vec<ArrayRef>, slots: &[u32]) -> Result<()> {
        match self {
            Self::None => {}
            Self::Records(records, schema) => records.write(make_batch(schema, columns, slots.len())?.columns(), slots),
            Self::Log(log) => log.append(&make_batch(&Arc::clone(log.schema()), columns, slots.len())?, slots)?,
        }
        Ok(())
    }

    /// Forgets the states of these slots.
    pub(super) fn remove(&mut self, slots: &[u32]) -> Result<()> {
        match self {
            Self::None => {}
            Self::Records(records, _) => records.remove(slots),
            Self::Log(log) => log.remove(slots)?,
        }
        Ok(())
    }
}
