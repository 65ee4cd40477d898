//! Which shard a row belongs to: that of its key's group.
//!
//! Keys are hashed as their canonical encoding has them, so equal keys are in the same shard, whichever input they come from. There
//! are 256 groups, and a shard has a range of them.

use crate::columns::{make_batch, take_rows};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::operators::key_exprs::KeyExprs;
use crate::operators::registry::BuildContext;
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::SchemaRef;
use millstream_plan::graph::{Node, Op};
use millstream_types::delta::DeltaBatch;
use std::sync::Arc;

/// Number of key groups.
const KEY_GROUPS: usize = 256;

/// The keys of an operator.
pub(super) struct Keys {
    /// Encodes keys; it holds none.
    encoder: KeyIndex,
    inputs: Vec<InputKeys>,
    saved: SavedKeys,
}

/// The keys of an input.
struct InputKeys {
    schema: SchemaRef,
    exprs: KeyExprs,
}

/// The keys of rows of state.
#[derive(Clone, Copy)]
enum SavedKeys {
    /// The first columns.
    First(usize),
    /// Rows begin with those of an input: of which one says their name.
    RowsOf(&'static [&'static str]),
}

/// Rows of a batch that belong to one shard.
pub(super) enum Picked<'a> {
    All(&'a DeltaBatch),
    Some(&'a DeltaBatch, UInt32Array),
}

impl Picked<'_> {
    /// The rows.
    pub(super) fn rows(&self) -> Result<DeltaBatch> {
        Ok(match self {
            Picked::All(part) => (*part).clone(),
            Picked::Some(part, rows) => part.take(rows)?,
        })
    }
}

impl Keys {
    /// The keys of a node whose state is divided by them; `None` if it is not.
    pub(super) fn of(node: &Node, context: &BuildContext<'_>) -> Result<Option<Self>> {
        let input = |place| context.input(node, place);
        let (exprs, saved) = match &node.op {
            Op::Aggregate { group, .. } if !group.is_empty() => {
                (vec![KeyExprs::new(group, input(0), context.state)?], SavedKeys::First(group.len()))
            }
            Op::TopN { partition, .. } if !partition.is_empty() => {
                (vec![KeyExprs::new(partition, input(0), context.state)?], SavedKeys::RowsOf(&["rows"]))
            }
            Op::Join { on, null_aware: false, one_copy: false, .. } if !on.is_empty() => {
                (KeyExprs::of_join(on, input(0), input(1), context.state)?.into(), SavedKeys::RowsOf(&crate::operators::join::SIDES))
            }
            _ => return Ok(None),
        };
        let encoder = KeyIndex::new(exprs[0].types())?;
        let inputs = exprs.into_iter().enumerate().map(|(place, exprs)| InputKeys { schema: Arc::clone(&input(place).schema), exprs });
        Ok(Some(Self { encoder, inputs: inputs.collect(), saved }))
    }

    /// Divides the rows of a change of an input among shards.
    pub(super) fn divide<'a>(&self, input: usize, delta: &'a [DeltaBatch], shards: usize) -> Result<Vec<Vec<Picked<'a>>>> {
        let mut divided: Vec<Vec<Picked<'a>>> = (0..shards).map(|_| vec![]).collect();
        for part in delta.iter().filter(|part| part.num_rows() > 0) {
            for (shard, rows) in
                self.rows_by_shard(&self.inputs[input].exprs.evaluate(&part.batch)?, part.num_rows(), shards)?.into_iter().enumerate()
            {
                if rows.len() == part.num_rows() {
                    divided[shard].push(Picked::All(part));
                } else if !rows.is_empty() {
                    divided[shard].push(Picked::Some(part, UInt32Array::from(rows)));
                }
            }
        }
        Ok(divided)
    }

    /// Divides a batch of saved state. `group`: what its rows are.
    pub(super) fn divide_saved(&self, group: &str, batch: &RecordBatch, shards: usize) -> Result<Vec<Option<RecordBatch>>> {
        let keys = match self.saved {
            SavedKeys::First(count) => batch.columns()[..count].to_vec(),
            SavedKeys::RowsOf(names) => {
                let input = names.iter().position(|name| *name == group);
                let input = input.ok_or_else(|| DataflowError::mismatch(format!("it has rows called \"{group}\"")))?;
                let InputKeys { schema, .. } = &self.inputs[input];
                let columns = batch.columns().iter().take(schema.fields().len()).cloned().collect();
                self.inputs[input].exprs.evaluate(&make_batch(schema, columns, batch.num_rows())?)?
            }
        };
        let by_shard = self.rows_by_shard(&keys, batch.num_rows(), shards)?;
        let rows = by_shard.into_iter().map(|rows| match rows.len() {
            0 => Ok(None),
            all if all == batch.num_rows() => Ok(Some(batch.clone())),
            _ => take_rows(batch, &UInt32Array::from(rows)).map(Some),
        });
        rows.collect()
    }

    fn rows_by_shard(&self, keys: &[ArrayRef], rows: usize, shards: usize) -> Result<Vec<Vec<u32>>> {
        let encoded = self.encoder.encode(keys)?;
        let mut by_shard: Vec<Vec<u32>> = (0..shards).map(|_| Vec::with_capacity(rows / shards + rows / 8)).collect();
        for row in 0..rows {
            let group = usize::from(encoded.key_group(row));
            by_shard[group * shards / KEY_GROUPS].push(row as u32);
        }
        Ok(by_shard)
    }
}
