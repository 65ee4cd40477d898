//! StaticJoin: a changing input joined with a constant one.
//!
//! ```sql
//! SELECT b.*, c.name FROM bids b LEFT JOIN currencies c ON b.currency = c.code
//! ```
//! The constant right side is loaded once and clustered by key, so that a key's rows are one range:
//! ```text
//!   KeyIndex: key ─▶ slot ─▶ start..end        rows by slot │ rows with a NULL key
//! ```
//! A probe finds the ranges of all left rows first, then expands them to pairs of row numbers, at most 65536 at a time, and evaluates the
//! residual condition on the columns it reads.
//!
//! **In**: 0 the changing input, 1 the constant. **Out**: left columns, then right columns (inner, left), left columns (semi, anti), or
//! left columns and the mark. Left rows without a match follow the matches of their batch. **Changelog**: linear in the left input, weights
//! pass. **State**: the right side, computed again after a restart; nothing is saved. **Null-aware anti join** (`NOT IN`): a
//! left row passes
//! if no right row that meets the residual condition has its key or NULL, and, for a left key of NULL, if there is no such row at all.

use crate::columns::{make_batch, owned, take_rows};
use crate::error::{DataflowError, Result};
use crate::key_index::{EncodedKeys, KeyIndex};
use crate::operator::{Operator, StateStats, StepContext};
use crate::operators::join::PAIRS;
use crate::operators::join::keys::JoinKeys;
use crate::operators::join::residual::{Residual, retain};
use crate::operators::registry::BuildContext;
use crate::zset::expand;
use arrow::array::{BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::JoinType;
use millstream_plan::graph::{Node, Op};
use millstream_types::delta::{Delta, DeltaBatch};
use std::ops::Range;
use std::sync::Arc;

/// The operator.
pub(crate) struct StaticJoin {
    schema: SchemaRef,
    right_schema: SchemaRef,
    kind: Kind,
    left_keys: JoinKeys,
    right_keys: JoinKeys,
    residual: Option<Residual>,
    right: Right,
    touched_keys: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Inner,
    Left,
    Semi,
    Anti,
    NullAwareAnti,
    Mark,
}

/// The constant side.
struct Right {
    /// Clustered by slot; rows with a NULL key come last.
    batch: RecordBatch,
    index: KeyIndex,
    /// By slot: where its rows start; one more entry than slots.
    starts: Vec<u32>,
    /// Where the rows with a NULL key start.
    nulls: u32,
    bytes: usize,
}

/// Pairs of a left and a right row that have passed the residual condition.
struct Pairs {
    left: Vec<u32>,
    right: Vec<u32>,
}

impl StaticJoin {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::StaticJoin { join_type, on, filter, filter_schema, null_equals_null, null_aware } = &node.op else {
            return Err(DataflowError::internal("expected a join with a constant"));
        };
        let kind = match join_type {
            JoinType::Inner => Kind::Inner,
            JoinType::Left => Kind::Left,
            JoinType::LeftSemi => Kind::Semi,
            JoinType::LeftAnti if *null_aware => Kind::NullAwareAnti,
            JoinType::LeftAnti => Kind::Anti,
            JoinType::LeftMark => Kind::Mark,
            other => return Err(DataflowError::internal(format!("a {other} join cannot have its right side constant"))),
        };
        let (left, right) = (context.input(node, 0), context.input(node, 1));
        let [left_keys, right_keys] = JoinKeys::of_both(on, left, right, *null_equals_null, context.state)?;
        let residual = filter.as_ref().map(|filter| Residual::new(filter, filter_schema, left, right, context.state));
        let right_schema = Arc::clone(&right.schema);
        Ok(Self {
            schema: Arc::clone(&node.schema),
            kind,
            right: Right {
                batch: RecordBatch::new_empty(Arc::clone(&right_schema)),
                index: KeyIndex::new(right_keys.types())?,
                starts: vec![0],
                nulls: 0,
                bytes: 0,
            },
            left_keys,
            right_keys,
            residual: residual.transpose()?,
            right_schema,
            touched_keys: 0,
        })
    }

    /// Loads the constant side, all at once.
    fn load(&mut self, delta: &[DeltaBatch]) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        if self.right.batch.num_rows() > 0 {
            return Err(DataflowError::internal("the constant side of a join has changed"));
        }
        let parts = delta.iter().map(|part| expand(&self.right_schema, part)).collect::<Result<Vec<_>>>()?;
        let all = concat_batches(&self.right_schema, &parts)?;
        let keys = self.right_keys.evaluate(&all)?;
        let mut index = KeyIndex::new(self.right_keys.types())?;
        let encoded = index.encode(&keys.columns)?;
        let mut slots = Vec::with_capacity(all.num_rows());
        for row in 0..all.num_rows() {
            slots.push(match keys.is_null(row) {
                true => u32::MAX,
                false => index.find_or_insert(&encoded, row).0,
            });
        }
        // Counting sort by slot; rows of a slot keep their order.
        let count = index.len();
        let mut starts = vec![0u32; count + 1];
        for slot in slots.iter().filter(|slot| **slot != u32::MAX) {
            starts[*slot as usize + 1] += 1;
        }
        for slot in 0..count {
            starts[slot + 1] += starts[slot];
        }
        let nulls_start = starts[count];
        let mut next = starts.clone();
        let mut null_next = nulls_start;
        let mut order = vec![0u32; all.num_rows()];
        for (row, slot) in slots.iter().enumerate() {
            let place = if *slot == u32::MAX { &mut null_next } else { &mut next[*slot as usize] };
            order[*place as usize] = row as u32;
            *place += 1;
        }
        let batch = owned(&take_rows(&all, &UInt32Array::from(order))?)?;
        let bytes = batch.get_array_memory_size() + index.bytes() + 4 * starts.len();
        self.right = Right { batch, index, starts, nulls: nulls_start, bytes };
        Ok(())
    }

    /// Candidates of each left row: up to two ranges of right rows.
    fn candidates(&self, batch: &RecordBatch) -> Result<Vec<[Range<u32>; 2]>> {
        let keys = self.left_keys.evaluate(batch)?;
        let encoded = if batch.num_rows() == 0 { EncodedKeys::Unit } else { self.right.index.encode(&keys.columns)? };
        let rows = self.right.batch.num_rows() as u32;
        let range = |row: usize| {
            let is_null = keys.is_null(row);
            let of_nulls = self.right.nulls..rows;
            match self.kind {
                Kind::NullAwareAnti if is_null => [0..rows, 0..0],
                Kind::NullAwareAnti => [self.right.of_key(&encoded, row), of_nulls],
                _ if is_null => [0..0, 0..0],
                _ => [self.right.of_key(&encoded, row), 0..0],
            }
        };
        Ok((0..batch.num_rows()).map(range).collect())
    }

    /// Pairs that meet the residual condition.
    fn filtered(&self, batch: &RecordBatch, mut pairs: Pairs) -> Result<Pairs> {
        let Some(residual) = &self.residual else { return Ok(pairs) };
        if pairs.left.is_empty() {
            return Ok(pairs);
        }
        let columns = |batch: &RecordBatch, rows: &[u32], side: usize| {
            let rows = UInt32Array::from(rows.to_vec());
            let columns = residual.columns(side).iter().map(|column| take(batch.column(*column), &rows, None));
            columns.collect::<std::result::Result<Vec<_>, _>>()
        };
        let (left, right) = (columns(batch, &pairs.left, 0)?, columns(&self.right.batch, &pairs.right, 1)?);
        let mask = residual.mask(left, right, pairs.left.len())?;
        retain(&mut pairs.left, &mask);
        retain(&mut pairs.right, &mask);
        Ok(pairs)
    }

    fn join(&mut self, part: &DeltaBatch, output: &mut Delta) -> Result<()> {
        let rows = part.num_rows();
        let candidates = self.candidates(&part.batch)?;
        self.touched_keys += rows as u64;
        let pairwise = matches!(self.kind, Kind::Inner | Kind::Left);
        let mut matched = vec![false; rows];
        if !pairwise && self.residual.is_none() {
            for (matched, ranges) in matched.iter_mut().zip(&candidates) {
                *matched = ranges.iter().any(|range| !range.is_empty());
            }
        } else {
            let mut pairs = Pairs { left: vec![], right: vec![] };
            for (row, ranges) in candidates.iter().enumerate() {
                for range in ranges {
                    let mut range = range.clone();
                    // Without output of pairs one match is enough: no further chunk is looked at.
                    while !range.is_empty() && (pairwise || !matched[row]) {
                        let room = (PAIRS - pairs.left.len()) as u32;
                        let end = range.end.min(range.start.saturating_add(room));
                        pairs.left.extend(std::iter::repeat_n(row as u32, (end - range.start) as usize));
                        pairs.right.extend(range.start..end);
                        range.start = end;
                        if pairs.left.len() == PAIRS {
                            let full = std::mem::replace(&mut pairs, Pairs { left: vec![], right: vec![] });
                            self.take_pairs(part, full, pairwise, &mut matched, output)?;
                        }
                    }
                }
            }
            self.take_pairs(part, pairs, pairwise, &mut matched, output)?;
        }
        self.finish(part, &matched, output)
    }

    /// Filters pairs, notes which left rows have a match, and hands the pairs out if the join does.
    fn take_pairs(&self, part: &DeltaBatch, pairs: Pairs, hand_out: bool, matched: &mut [bool], output: &mut Delta) -> Result<()> {
        let pairs = self.filtered(&part.batch, pairs)?;
        for row in &pairs.left {
            matched[*row as usize] = true;
        }
        if hand_out && !pairs.left.is_empty() {
            let left = part.take(&UInt32Array::from(pairs.left))?;
            output.push(self.padded(left, &UInt32Array::from(pairs.right))?);
        }
        Ok(())
    }

    /// Left rows with the right rows at `right`; NULL indices give NULLs.
    fn padded(&self, left: DeltaBatch, right: &UInt32Array) -> Result<DeltaBatch> {
        let mut columns = left.batch.columns().to_vec();
        for column in self.right.batch.columns() {
            columns.push(take(column, right, None)?);
        }
        Ok(left.with_batch(make_batch(&self.schema, columns, left.num_rows())?))
    }

    /// What is known once all pairs of a batch are: rows without a match, semi and anti results, marks.
    fn finish(&self, part: &DeltaBatch, matched: &[bool], output: &mut Delta) -> Result<()> {
        let rows_where = |wanted: bool| -> Vec<u32> {
            matched.iter().enumerate().filter(|(_, matched)| **matched == wanted).map(|(row, _)| row as u32).collect()
        };
        match self.kind {
            Kind::Inner => {}
            Kind::Left => {
                let rows = rows_where(false);
                if !rows.is_empty() {
                    let nulls = UInt32Array::new_null(rows.len());
                    output.push(self.padded(part.take(&UInt32Array::from(rows))?, &nulls)?);
                }
            }
            Kind::Semi | Kind::Anti | Kind::NullAwareAnti => {
                let rows = rows_where(self.kind == Kind::Semi);
                let kept = match rows.len() {
                    0 => return Ok(()),
                    all if all == matched.len() => part.clone(),
                    _ => part.take(&UInt32Array::from(rows))?,
                };
                output.push(kept.with_batch(make_batch(&self.schema, kept.batch.columns().to_vec(), kept.num_rows())?));
            }
            Kind::Mark => {
                let mut columns = part.batch.columns().to_vec();
                columns.push(Arc::new(BooleanArray::from(matched.to_vec())));
                output.push(part.with_batch(make_batch(&self.schema, columns, part.num_rows())?));
            }
        }
        Ok(())
    }
}

impl Right {
    fn of_key(&self, encoded: &EncodedKeys, row: usize) -> Range<u32> {
        match self.index.find(encoded, row) {
            Some(slot) => self.starts[slot as usize]..self.starts[slot as usize + 1],
            None => 0..0,
        }
    }
}

#[async_trait]
impl Operator for StaticJoin {
    async fn step(&mut self, inputs: &[&[DeltaBatch]], _: &StepContext<'_>) -> Result<Delta> {
        self.load(inputs[1])?;
        let mut output = Vec::new();
        for part in inputs[0].iter().filter(|part| part.num_rows() > 0) {
            self.join(part, &mut output)?;
        }
        Ok(output)
    }

    fn load_constant(&mut self, input: usize, delta: &[DeltaBatch]) -> Result<()> {
        if input == 1 {
            return self.load(delta);
        }
        Ok(())
    }

    fn stats(&self) -> StateStats {
        let rows = self.right.batch.num_rows();
        StateStats { rows, bytes: self.right.bytes, touched_keys: self.touched_keys, ..StateStats::default() }
    }
}
