//! TouchedKeys: a plan in which rows of different keys do not meet, run again for the keys that a change touches.
//!
//! ```sql
//! SELECT item, median(price) FROM stock GROUP BY item
//! SELECT *, lag(price) OVER (PARTITION BY item ORDER BY ts) FROM stock
//! ```
//! ```text
//!   delta ─▶ keys (KeyIndex) ─▶ rows by key ─┐
//!                                            ▼  rows of the touched keys
//!                                          plan ─▶ new results ─┬─▶ results by key
//!                                                               ▼
//!                              old results of the touched keys ─▶ - what went, + what came
//! ```
//! **In**: any schema. **Out**: the columns of the plan; every key is one of them. Rows come to the plan repeated by their weight, in
//! the order of their arrival.
//! **Changelog** (`Emit::Changes`): retractions first, then insertions; a row that stays as it is does not occur. **Append-only output**
//! (`Emit::OnClose`): the results of a key once, when the bound of the bucket column has passed it, in the order of the buckets.
//! **Cost**: the plan over the rows of the touched keys; when these are more than three tenths of all rows, over all rows in place,
//! which saves gathering them. Where the plan is nothing but window functions that look back, rows that come behind all others of
//! their key cost only themselves (`tails.rs`), and are handed out after everything else. Where they see a fixed number of rows on both
//! sides, the plan is run for the last rows of the key, before and after. **State**: the rows of the input (`rows`) and,
//! unless on close, the results (`results`), by key. The results are kept, not run again from the old rows: a plan may choose between
//! ties in another way when it runs beside other keys. **Dropped**: keys whose bucket is below the bound. Where the plan tells each row the
//! time of the next of its key (`versions.rs`), the rows before the last one below the bound, with their results, when the key is
//! touched. Rows that come below the bound of an earlier epoch are counted as dropped.
//! **Errors**: what the plan reports; a row that is taken back and is not there.

mod rows;
mod tails;
#[cfg(test)]
mod tests;
mod versions;

use crate::bucket::{BucketColumn, BucketKey, Buckets, Floor};
use crate::columns::{evaluate, make_batch};
use crate::error::{DataflowError, Result};
use crate::key_index::KeyIndex;
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::fragment::Fragment;
use crate::operators::registry::BuildContext;
use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, filter, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::compile;
use millstream_plan::graph::{Emit, Node, Op};
use millstream_types::delta::{Delta, DeltaBatch, consolidate};
use millstream_types::row_key::canonical_floats;
use rows::KeyedRows;
use std::collections::BTreeSet;
use std::sync::Arc;
use tails::{Sorted, Tails};
use versions::Horizon;

const FORMAT: u32 = 1;
/// Equal results are one row with a weight.
const FORMAT_OF_REACH: u32 = 2;
/// Tenths of the rows from which on a run over all of them is cheaper than gathering those of the touched keys.
const TENTHS: usize = 3;

/// The operator.
pub(crate) struct TouchedKeys {
    schema: SchemaRef,
    input_schema: SchemaRef,
    retracting: bool,
    keys: Keys,
    fragment: Fragment,
    /// By key: it has changed in this epoch.
    is_touched: Vec<bool>,
    rows: KeyedRows,
    /// `None` when results are handed out on close.
    results: Option<KeyedRows>,
    horizon: Option<Horizon>,
    tails: Option<Tails>,
    touched_keys: u64,
    read_rows: u64,
    dropped_rows: u64,
}

/// Which keys there are, and when they close.
struct Keys {
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    types: Vec<DataType>,
    /// By key: the output column with its value.
    columns: Vec<usize>,
    index: KeyIndex,
    /// Its column counts keys, not output columns.
    bucket: Option<(BucketColumn, Buckets)>,
}

/// A key that has changed.
struct Touched {
    key: u32,
    bucket: Option<BucketKey>,
}

/// Rows behind all others of their keys, with their slots.
struct Behind {
    sorted: Sorted,
    slots: Vec<u32>,
}

impl Keys {
    /// The keys of input rows.
    fn of_input(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.exprs.iter().map(|expr| Ok(canonical_floats(&evaluate(expr, batch)?)?)).collect()
    }

    /// The slots of the keys of results; every one is known.
    fn of_results(&self, batch: &RecordBatch) -> Result<Vec<u32>> {
        let columns = self.columns.iter().zip(&self.types).map(|(column, data_type)| {
            let column = canonical_floats(batch.column(*column))?;
            Ok(if column.data_type() == data_type { column } else { cast(&column, data_type)? })
        });
        let encoded = self.index.encode(&columns.collect::<Result<Vec<_>>>()?)?;
        let find = |row| self.index.find(&encoded, row).ok_or_else(|| DataflowError::internal("a result has a key that no row has"));
        (0..batch.num_rows()).map(find).collect()
    }

    /// The slots of the keys of rows, new ones included, and the values of the bucket column.
    fn insert(&mut self, columns: &[ArrayRef], rows: usize) -> Result<(Vec<u32>, Option<Vec<BucketKey>>)> {
        let encoded = self.index.encode(columns)?;
        let values = self.bucket.as_ref().map(|(column, _)| column.keys(&columns[column.column])).transpose()?;
        let mut slots = Vec::with_capacity(rows);
        for row in 0..rows {
            self.index.read_ahead(&encoded, row, rows);
            let (slot, new) = self.index.find_or_insert(&encoded, row);
            if new && let (Some((_, buckets)), Some(values)) = (&mut self.bucket, &values) {
                buckets.insert(&values[row], slot);
            }
            slots.push(slot);
        }
        Ok((slots, values))
    }

    /// Forgets a key that has no rows any more.
    fn remove(&mut self, touched: &Touched) {
        if let (Some((_, buckets)), Some(value)) = (&mut self.bucket, &touched.bucket) {
            buckets.remove(value, touched.key);
        }
        self.index.remove(touched.key);
    }

    /// Forgets the keys below the floor and remembers it. Their slots stay taken until [`release`](Self::release).
    fn pop_passed(&mut self, floor: Floor) -> Vec<u32> {
        let Some((column, buckets)) = &mut self.bucket else { return vec![] };
        let slots = buckets.pop_passed(&floor);
        column.floor = floor;
        slots
    }

    fn release(&mut self, slots: &[u32]) {
        self.index.remove_all(slots);
    }

    fn bytes(&self) -> usize {
        self.index.bytes() + self.bucket.as_ref().map_or(0, |(_, buckets)| buckets.bytes())
    }
}

impl TouchedKeys {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::TouchedKeys { plan, keys, emit, bucket, versions, tail, reach } = &node.op else {
            return Err(DataflowError::internal("expected a plan by keys"));
        };
        if keys.is_empty() && tail.is_none() && reach.is_none() && versions.is_none() {
            return Err(DataflowError::internal("a plan by keys has none"));
        }
        let input = context.input(node, 0);
        let exprs = keys.iter().map(|key| Ok(compile(&key.expr, &input.df_schema, context.state)?)).collect::<Result<Vec<_>>>()?;
        let types: Vec<DataType> = exprs.iter().map(|expr| expr.data_type(&input.schema)).collect::<datafusion::common::Result<_>>()?;
        let columns: Vec<usize> = keys.iter().map(|key| key.column).collect();
        let bucket = match bucket {
            Some(bucket) => {
                let key = columns.iter().position(|column| *column == bucket.column);
                let key = key.ok_or_else(|| DataflowError::internal("the bucket is not a key"))?;
                Some((BucketColumn::new(key, Arc::clone(&bucket.bound), &types[key])?, Buckets::default()))
            }
            None if *emit == Emit::OnClose => return Err(DataflowError::internal("keys can only close by a bucket column")),
            None => None,
        };
        let retracting = !input.properties.append_only;
        let horizon = match versions {
            Some(_) if retracting || *emit == Emit::OnClose => {
                return Err(DataflowError::internal("only versions that come one by one and stay are forgotten"));
            }
            Some(versions) => Some(Horizon::new(versions, &input.schema)?),
            None => None,
        };
        if (tail.is_some() || reach.is_some()) && (horizon.is_some() || *emit == Emit::OnClose) {
            return Err(DataflowError::internal("only results that are kept go on from their end"));
        }
        let tails = match (tail, reach) {
            (Some(tail), _) => Some(Tails::new(tail, &input.schema, &node.schema, context.state)?),
            (None, Some(reach)) => Some(Tails::of_reach(reach, &input.schema, &node.schema, context.state)?),
            (None, None) => None,
        };
        Ok(Self {
            horizon,
            tails,
            schema: Arc::clone(&node.schema),
            input_schema: Arc::clone(&input.schema),
            retracting,
            fragment: Fragment::new(plan, 1, &node.schema, context.state),
            is_touched: vec![],
            rows: KeyedRows::new(&input.schema, retracting)?,
            results: match emit {
                Emit::Changes => Some(KeyedRows::new(&node.schema, reach.is_some())?),
                Emit::OnClose => None,
            },
            keys: Keys { index: KeyIndex::new(&types)?, exprs, types, columns, bucket },
            touched_keys: 0,
            read_rows: 0,
            dropped_rows: 0,
        })
    }

    fn format(&self) -> u32 {
        if self.tails.as_ref().is_some_and(Tails::runs_plan) { FORMAT_OF_REACH } else { FORMAT }
    }

    /// Adds a change to the rows; returns its keys, those without rows now included, and the rows whose results follow from the ends of
    /// their keys. Rows of keys that were dropped in an earlier epoch are left out.
    fn arrange(&mut self, delta: &[DeltaBatch]) -> Result<(Vec<Touched>, Option<Behind>)> {
        let delta = if self.retracting { consolidate(&self.input_schema, delta)? } else { delta.to_vec() };
        let (mut touched, mut parts) = (vec![], vec![]);
        for mut part in delta {
            let mut columns = self.keys.of_input(&part.batch)?;
            if let Some((column, _)) = &self.keys.bucket
                && let Some(open) = column.open(&columns[column.column])?
            {
                let late = open.len() - open.true_count();
                self.dropped_rows += late as u64;
                tracing::warn!(rows = late, "rows below the bound were dropped");
                part = part.filter(&open)?;
                columns = columns.iter().map(|column| filter(column, &open)).collect::<std::result::Result<_, _>>()?;
            }
            if part.num_rows() == 0 {
                continue;
            }
            let (keys, buckets) = self.keys.insert(&columns, part.num_rows())?;
            for (row, &key) in keys.iter().enumerate() {
                if self.is_touched.len() <= key as usize {
                    self.is_touched.resize(key as usize + 1, false);
                }
                if !std::mem::replace(&mut self.is_touched[key as usize], true) {
                    touched.push(Touched { key, bucket: buckets.as_ref().map(|buckets| buckets[row].clone()) });
                }
            }
            parts.push((part, keys));
        }
        self.touched_keys += touched.len() as u64;
        let behind = match &self.tails {
            Some(tails) if !parts.is_empty() => Some(tails.behind(&parts, &self.rows)?),
            _ => None,
        };
        let slots = parts.iter().map(|(part, keys)| self.rows.apply(part, keys)).collect::<Result<Vec<_>>>()?;
        let behind =
            behind.map(|(sorted, origins)| Behind { sorted, slots: origins.into_iter().map(|(part, row)| slots[part][row]).collect() });
        Ok((touched, behind))
    }

    /// Hands out the results of rows behind all others of their keys.
    fn append(&mut self, behind: &Behind) -> Result<Option<DeltaBatch>> {
        let (Some(tails), Some(results)) = (&mut self.tails, &mut self.results) else { return Ok(None) };
        if behind.slots.is_empty() {
            return Ok(None);
        }
        let added = DeltaBatch::insertions(tails.advance(&behind.sorted, &behind.slots, &self.rows)?);
        let keys: Vec<u32> = behind.sorted.segments.iter().flat_map(|(key, range)| std::iter::repeat_n(*key, range.len())).collect();
        results.apply(&added, &keys)?;
        self.read_rows += keys.len() as u64;
        Ok(Some(added))
    }

    /// As [`append`](Self::append), where the results of the last rows before them change, too. The plan is run for these with and without
    /// the new rows: what else it says of them is the same twice.
    async fn extend(&mut self, behind: &Behind, task: &Arc<TaskContext>) -> Result<Delta> {
        let (Some(tails), Some(results)) = (&mut self.tails, &mut self.results) else { return Ok(vec![]) };
        if behind.slots.is_empty() {
            return Ok(vec![]);
        }
        let before = tails.last_rows(&behind.sorted, &self.rows)?;
        let mut delta = vec![];
        if before.num_rows() > 0 {
            let old = self.fragment.run(vec![vec![before.clone()]], task).await?;
            delta.extend(old.into_iter().map(|batch| DeltaBatch::insertions(batch).negated()));
        }
        self.read_rows += (2 * before.num_rows() + behind.slots.len()) as u64;
        let after = concat_batches(&self.input_schema, [&before, behind.sorted.rows()])?;
        delta.extend(self.fragment.run(vec![vec![after]], task).await?.into_iter().map(DeltaBatch::insertions));
        let delta = consolidate(&self.schema, &delta)?;
        for part in &delta {
            results.apply(part, &self.keys.of_results(&part.batch)?)?;
        }
        tails.pass(&behind.sorted, &behind.slots);
        Ok(delta)
    }

    /// Runs the plan for keys. With `whole` over all rows, whose results may be of any key.
    async fn run(&mut self, keys: &[u32], whole: bool, task: &Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
        let batches = if whole { self.rows.all()? } else { self.rows.of(keys)? };
        let read: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if read == 0 {
            return Ok(vec![]);
        }
        self.read_rows += read as u64;
        self.fragment.run(vec![batches], task).await
    }

    /// Replaces the results of keys, and hands out the difference.
    async fn change(&mut self, keys: &[u32], task: &Arc<TaskContext>) -> Result<Delta> {
        if keys.is_empty() {
            return Ok(vec![]);
        }
        let touched: usize = keys.iter().map(|key| self.rows.len_of(*key)).sum();
        let whole = touched * 10 > self.rows.len() * TENTHS;
        let mut new = vec![];
        for mut batch in self.run(keys, whole, task).await? {
            let mut slots = self.keys.of_results(&batch)?;
            if whole && keys.len() < self.keys.index.len() {
                let is_touched = |slot: &u32| self.is_touched.get(*slot as usize).copied().unwrap_or(false);
                let mask = BooleanArray::from_iter(slots.iter().map(|slot| Some(is_touched(slot))));
                batch = filter_record_batch(&batch, &mask)?;
                slots.retain(is_touched);
            }
            if batch.num_rows() > 0 {
                new.push((batch, slots));
            }
        }
        let Some(results) = &mut self.results else { return Err(DataflowError::internal("results on close have no changes")) };
        let mut delta: Delta = results.of(keys)?.into_iter().map(|batch| DeltaBatch::insertions(batch).negated()).collect();
        delta.extend(new.iter().map(|(batch, _)| DeltaBatch::insertions(batch.clone())));
        let delta = consolidate(&self.schema, &delta)?;
        if !delta.is_empty() {
            results.remove(keys)?;
            for (batch, slots) in new {
                results.apply(&DeltaBatch::insertions(batch), &slots)?;
            }
        }
        Ok(delta)
    }

    /// The results of keys that have closed, in the order of their buckets.
    async fn closed(&mut self, keys: &[u32], task: &Arc<TaskContext>) -> Result<Delta> {
        let batches = self.run(keys, keys.len() == self.keys.index.len(), task).await?;
        let Some((column, _)) = &self.keys.bucket else { return Ok(vec![]) };
        let all = concat_batches(&self.schema, &batches)?;
        let values = column.keys(all.column(self.keys.columns[column.column]))?;
        if values.is_sorted() {
            return Ok(vec![DeltaBatch::insertions(all)]);
        }
        let mut order: Vec<u32> = (0..all.num_rows() as u32).collect();
        order.sort_by(|a, b| values[*a as usize].cmp(&values[*b as usize]));
        Ok(vec![DeltaBatch::insertions(all).take(&UInt32Array::from(order))?])
    }
}

#[async_trait]
impl Operator for TouchedKeys {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        match &self.keys.bucket {
            Some((column, buckets)) if self.keys.index.len() > 0 => Ok(buckets.any_passed(&column.read(context.bounds)?)),
            _ => Ok(false),
        }
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let floor = match &self.keys.bucket {
            Some((column, _)) => column.read(context.bounds)?,
            None => Floor::Unknown,
        };
        let (touched, behind) = self.arrange(inputs[0])?;
        let mut delta = vec![];
        if self.results.is_some() {
            for (key, _) in behind.iter().flat_map(|behind| &behind.sorted.segments) {
                self.is_touched[*key as usize] = false;
            }
            let keys: Vec<u32> = touched.iter().map(|touched| touched.key).filter(|key| self.is_touched[*key as usize]).collect();
            delta = self.change(&keys, context.task).await?;
            if let Some(behind) = &behind {
                if self.tails.as_ref().is_some_and(Tails::runs_plan) {
                    delta.extend(self.extend(behind, context.task).await?);
                } else {
                    delta.extend(self.append(behind)?);
                }
            }
            if let Some(tails) = &mut self.tails {
                tails.rebuild(&keys, &self.rows)?;
            }
            self.forget_versions(&keys, context.bounds)?;
        }
        for touched in &touched {
            self.is_touched[touched.key as usize] = false;
            if self.rows.len_of(touched.key) == 0 {
                self.keys.remove(touched);
            }
        }
        let closed = self.keys.pop_passed(floor);
        if !closed.is_empty() {
            match &mut self.results {
                Some(results) => results.remove(&closed)?,
                None => delta = self.closed(&closed, context.task).await?,
            }
            self.rows.remove(&closed)?;
            if let Some(tails) = &mut self.tails {
                closed.iter().for_each(|key| tails.forget(*key));
            }
        }
        self.keys.release(&closed);
        Ok(delta)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let format = self.format();
        let mut groups = vec![("rows".to_string(), self.rows.checkpoint()?)];
        if let Some(results) = &mut self.results {
            groups.push(("results".to_string(), results.checkpoint()?));
        }
        let floor = self.keys.bucket.as_ref().map_or(Floor::Unknown, |(column, _)| column.floor.clone());
        Ok(Some(Saved { format, groups, detail: serde_json::json!({ "floor": floor }) }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(self.format())?;
        let floor: Floor = saved.detail("floor")?;
        if let Some((column, _)) = &mut self.keys.bucket {
            column.floor = floor;
        }
        let keys = &mut self.keys;
        let mut all = BTreeSet::new();
        self.rows.restore(saved.group("rows"), |batch| {
            let columns = keys.of_input(batch)?;
            let slots = keys.insert(&columns, batch.num_rows())?.0;
            all.extend(slots.iter().copied());
            Ok(slots)
        })?;
        if let Some(tails) = &mut self.tails {
            tails.rebuild(&all.into_iter().collect::<Vec<_>>(), &self.rows)?;
        }
        if let Some(results) = &mut self.results {
            results.restore(saved.group("results"), |batch| {
                let batch = make_batch(&self.schema, batch.columns().to_vec(), batch.num_rows())?;
                self.keys.of_results(&batch)
            })?;
        }
        Ok(())
    }

    fn stats(&self) -> StateStats {
        StateStats {
            rows: self.rows.len() + self.results.as_ref().map_or(0, KeyedRows::len),
            bytes: self.rows.bytes()
                + self.results.as_ref().map_or(0, KeyedRows::bytes)
                + self.keys.bytes()
                + self.tails.as_ref().map_or(0, Tails::bytes)
                + self.is_touched.capacity(),
            touched_keys: self.touched_keys,
            read_rows: self.read_rows,
            dropped_rows: self.dropped_rows,
            ..StateStats::default()
        }
    }
}
