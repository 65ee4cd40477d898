//! TopN: the first rows of an order, of all rows or per partition, at a cost proportional to the rows that come and to what is shown.
//!
//! ```sql
//! SELECT player, points FROM scores ORDER BY points DESC LIMIT 10
//! SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC) AS place FROM bids) WHERE place <= 3
//! ```
//! ```text
//!   order of a partition     a b c | d e f        3 are shown
//!   x comes between a and b  a x b | c d e f      + x, - c; with numbers also - (b, 2), + (b, 3)
//! ```
//! **In**: any schema. **Out**: the same rows, with `row_number`, `rank` or `dense_rank` as a last column if it is asked for. Rows that the
//! sort keys do not distinguish are in the order of all their columns, so which of them are shown does not depend on how they arrived.
//! With `rest` all other rows are handed out, those after an OFFSET without LIMIT: the input's change less that of the first rows.
//! **Changelog**: the difference of what is shown; retractions first. **Append-only output**: where each partition comes as a whole and is
//! final when it comes.
//!
//! **State**: rows in order, encoded (`rows`: the columns, `__weight`). Over append-only input only those that are shown or skipped;
//! others are refused by their sort keys before they are encoded. **Dropped**: partitions below the bound of their bucket column. Rows
//! that come below the bound of an earlier epoch are counted as dropped. **Errors**: what sort keys report; a row that becomes negative.

mod places;
#[cfg(test)]
mod tests;

use crate::bucket::{BucketColumn, BucketKey, Buckets, Floor};
use crate::columns::{describe_row, evaluate, make_batch, take_columns};
use crate::error::{DataflowError, Result};
use crate::key_index::{EncodedKeys, KeyIndex};
use crate::operator::{Operator, Saved, StateStats, StepContext};
use crate::operators::aggregate::interner::{Interner, Numbered};
use crate::operators::registry::BuildContext;
use crate::ordered::{self, Entry, Ordered, Size};
use crate::zset::{with_weights, without_weights};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use async_trait::async_trait;
use datafusion::physical_plan::PhysicalExpr;
use millstream_plan::compile::{compile, compile_all};
use millstream_plan::graph::{Node, Op};
use millstream_types::delta::{Delta, DeltaBatch, consolidate};
use millstream_types::row_key::{canonical_floats, types_of};
use places::{Places, Shown, difference};
use std::sync::Arc;

const FORMAT: u32 = 1;
const CHECKPOINT_ROWS: usize = 64 * 1024;

/// The operator.
pub(crate) struct TopN {
    schema: SchemaRef,
    input: SchemaRef,
    partition: Vec<Arc<dyn PhysicalExpr>>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    places: Places,
    /// All rows but those at the places are handed out.
    rest: bool,
    append_only: bool,
    /// Encodes sort keys, with their directions; `None` without any.
    key_encoder: Option<RowConverter>,
    /// Encodes whole rows, and decodes them. `None` for rows without columns.
    row_encoder: Option<RowConverter>,
    /// Numbers the partitions of a delta.
    interner: Interner,
    index: KeyIndex,
    /// By the slot of the partition.
    partitions: Vec<Ordered>,
    bucket: Option<(BucketColumn, Buckets)>,
    size: Size,
    touched_keys: u64,
    dropped_rows: u64,
}

/// A part of a delta with its encodings.
struct Part {
    delta: DeltaBatch,
    keys: Option<Rows>,
    /// By row: the number of its partition.
    partitions: Vec<usize>,
    /// By row: its place in `rows`; `u32::MAX` where it cannot be shown.
    places: Vec<u32>,
    rows: Option<Rows>,
}

impl TopN {
    pub(crate) fn new(node: &Node, context: &BuildContext<'_>) -> Result<Self> {
        let Op::TopN { partition, order, ranking, skip, fetch, rest, numbered, bucket } = &node.op else {
            return Err(DataflowError::internal("expected a top-n"));
        };
        let input = context.input(node, 0);
        let types = |exprs: &[Arc<dyn PhysicalExpr>]| {
            exprs.iter().map(|expr| expr.data_type(&input.schema)).collect::<datafusion::common::Result<Vec<DataType>>>()
        };
        let partition = compile_all(partition, &input.df_schema, context.state)?;
        let partition_types = types(&partition)?;
        let keys = order.iter().map(|key| Ok(compile(&key.expr, &input.df_schema, context.state)?)).collect::<Result<Vec<_>>>()?;
        let key_fields: Vec<SortField> = types(&keys)?
            .into_iter()
            .zip(order)
            .map(|(data_type, key)| {
                SortField::new_with_options(data_type, SortOptions { descending: !key.asc, nulls_first: key.nulls_first })
            })
            .collect();
        // Ties are in the order of all columns, NULL last, as the planner's total order has it.
        let tie = SortOptions { descending: false, nulls_first: false };
        let row_fields: Vec<SortField> =
            types_of(input.schema.fields()).into_iter().map(|data_type| SortField::new_with_options(data_type, tie)).collect();
        let converter = |fields: Vec<SortField>| if fields.is_empty() { Ok(None) } else { RowConverter::new(fields).map(Some) };
        let bucket = match bucket {
            Some(bucket) => {
                let data_type = partition_types.get(bucket.column);
                let data_type = data_type.ok_or_else(|| DataflowError::internal("the bucket is not a partition column"))?;
                Some((BucketColumn::new(bucket.column, Arc::clone(&bucket.bound), data_type)?, Buckets::default()))
            }
            None => None,
        };
        Ok(Self {
            schema: Arc::clone(&node.schema),
            input: Arc::clone(&input.schema),
            interner: Interner::new(&partition_types)?,
            index: KeyIndex::new(&partition_types)?,
            partition,
            keys,
            places: Places { ranking: *ranking, skip: *skip, fetch: *fetch, numbered: *numbered },
            rest: *rest,
            append_only: input.properties.append_only,
            key_encoder: converter(key_fields)?,
            row_encoder: converter(row_fields)?,
            partitions: vec![],
            bucket,
            size: Size::default(),
            touched_keys: 0,
            dropped_rows: 0,
        })
    }

    fn evaluated(exprs: &[Arc<dyn PhysicalExpr>], batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        exprs.iter().map(|expr| Ok(canonical_floats(&evaluate(expr, batch)?)?)).collect()
    }

    /// Partitions and sort keys of the rows. Rows below the bound of an earlier epoch are left out.
    fn read(&mut self, delta: &[DeltaBatch]) -> Result<(Vec<Part>, Numbered)> {
        let consolidated = consolidate(&self.input, delta)?;
        let (mut parts, mut keys) = (vec![], vec![]);
        for part in consolidated.into_iter().filter(|part| part.num_rows() > 0) {
            let mut part = part;
            let mut columns = Self::evaluated(&self.partition, &part.batch)?;
            if let Some((bucket, _)) = &self.bucket
                && !bucket.none_passed(&columns[bucket.column])
            {
                let values = bucket.keys(&columns[bucket.column])?;
                let mask = BooleanArray::from_iter(values.iter().map(|key| Some(!bucket.floor.passed(key))));
                let late = mask.len() - mask.true_count();
                if late > 0 {
                    self.dropped_rows += late as u64;
                    tracing::warn!(rows = late, "rows below the bound were dropped");
                    part = part.filter(&mask)?;
                    columns = columns.iter().map(|column| arrow::compute::filter(column, &mask)).collect::<std::result::Result<_, _>>()?;
                }
            }
            if part.num_rows() == 0 {
                continue;
            }
            let sort_keys = match &self.key_encoder {
                Some(encoder) => Some(encoder.convert_columns(&Self::evaluated(&self.keys, &part.batch)?)?),
                None => None,
            };
            keys.push((columns, part.num_rows()));
            parts.push(Part { delta: part, keys: sort_keys, partitions: vec![], places: vec![], rows: None });
        }
        let mut numbered = self.interner.number(&keys)?;
        for (part, partitions) in parts.iter_mut().zip(std::mem::take(&mut numbered.rows)) {
            part.partitions = partitions;
        }
        Ok((parts, numbered))
    }

    /// Encodes the rows that may be shown. `slots`: those of the partitions that are known.
    fn encode(&self, parts: &mut [Part], slots: &[Option<u32>]) -> Result<()> {
        let thresholds: Vec<Option<&Entry>> = match self.append_only {
            true => slots.iter().map(|slot| self.places.threshold(&self.partitions[(*slot)? as usize])).collect(),
            false => vec![None; slots.len()],
        };
        for part in parts {
            let mut candidates: Vec<u32> = Vec::with_capacity(part.delta.num_rows());
            part.places = part
                .partitions
                .iter()
                .enumerate()
                .map(|(row, partition)| {
                    let beyond = thresholds[*partition].zip(part.keys.as_ref());
                    if beyond.is_some_and(|(entry, keys)| keys.row(row).as_ref() > entry.key()) {
                        return u32::MAX;
                    }
                    candidates.push(row as u32);
                    candidates.len() as u32 - 1
                })
                .collect();
            if let Some(encoder) = &self.row_encoder {
                let columns = match candidates.len() == part.delta.num_rows() {
                    true => part.delta.batch.columns().to_vec(),
                    false => take_columns(part.delta.batch.columns(), &UInt32Array::from(candidates))?,
                };
                let columns = columns.iter().map(canonical_floats).collect::<std::result::Result<Vec<_>, _>>()?;
                part.rows = Some(encoder.convert_columns(&columns)?);
            }
        }
        Ok(())
    }

    /// The slot of a partition that has none yet.
    fn add_partition(&mut self, encoded: &EncodedKeys, number: usize, buckets: Option<&[BucketKey]>) -> u32 {
        let slot = self.index.insert(encoded, number);
        if self.partitions.len() <= slot as usize {
            self.partitions.resize_with(slot as usize + 1, Ordered::default);
        }
        if let (Some((_, tree)), Some(buckets)) = (&mut self.bucket, buckets) {
            tree.insert(&buckets[number], slot);
        }
        slot
    }

    /// Applies the rows partition by partition; returns what goes and what comes.
    fn apply(&mut self, parts: &mut [Part], numbered: &Numbered) -> Result<(Vec<Shown>, Vec<Shown>)> {
        let (mut go, mut come) = (vec![], vec![]);
        if parts.is_empty() {
            return Ok((go, come));
        }
        let encoded = if numbered.keys.is_empty() { EncodedKeys::Unit } else { self.index.encode(&numbered.keys)? };
        let slots = self.index.find_all(&encoded, numbered.count);
        ordered::read_ahead(&self.partitions, slots.iter().flatten());
        let buckets = self.bucket.as_ref().map(|(bucket, _)| bucket.keys(&numbered.keys[bucket.column])).transpose()?;
        self.encode(parts, &slots)?;
        let by_partition = group(parts, numbered.count);
        let mut bytes: Vec<u8> = vec![];
        for (number, slot) in slots.into_iter().enumerate() {
            let rows = &by_partition.rows[by_partition.starts[number]..by_partition.starts[number + 1]];
            if rows.is_empty() {
                continue;
            }
            self.touched_keys += 1;
            let slot = slot.unwrap_or_else(|| self.add_partition(&encoded, number, buckets.as_deref()));
            let before = self.places.shown(&self.partitions[slot as usize]);
            for (part, row) in rows {
                let part = &parts[*part as usize];
                bytes.clear();
                if let Some(keys) = &part.keys {
                    bytes.extend_from_slice(keys.row(*row as usize).as_ref());
                }
                let key_len = bytes.len() as u32;
                if let Some(rows) = &part.rows {
                    bytes.extend_from_slice(rows.row(part.places[*row as usize] as usize).as_ref());
                }
                let weight = part.delta.weights.value(*row as usize);
                if let Err(weight) = self.partitions[slot as usize].change(&bytes, key_len, weight, &mut self.size)? {
                    let row = describe_row(&self.input, part.delta.batch.columns(), *row as usize);
                    return Err(DataflowError::NegativeWeight { relation: String::new(), row, weight });
                }
            }
            let after = self.places.shown(&self.partitions[slot as usize]);
            difference(&before, &after, |row| go.push(row), |row| come.push(row));
            if self.append_only {
                for (entry, excess) in self.places.surplus(&self.partitions[slot as usize]) {
                    // It is there as often as that, so it cannot become negative.
                    let _ = self.partitions[slot as usize].change(&entry.bytes, entry.key_len, -excess, &mut self.size)?;
                }
            }
            if self.partitions[slot as usize].len() == 0 {
                if let (Some((_, tree)), Some(buckets)) = (&mut self.bucket, &buckets) {
                    tree.remove(&buckets[number], slot);
                }
                self.index.remove(slot);
            }
        }
        self.index.shrink();
        Ok((go, come))
    }

    /// Rows as they go out.
    fn output(&self, rows: &[Shown], sign: i64) -> Result<Option<DeltaBatch>> {
        if rows.is_empty() {
            return Ok(None);
        }
        let mut columns = self.decode(rows.iter().map(|shown| &shown.entry))?;
        if self.places.numbered {
            columns.push(Arc::new(UInt64Array::from_iter_values(rows.iter().map(|shown| shown.number))));
        }
        let batch = make_batch(&self.schema, columns, rows.len())?;
        if sign > 0 && rows.iter().all(|shown| shown.weight == 1) {
            return Ok(Some(DeltaBatch::insertions(batch)));
        }
        Ok(Some(DeltaBatch::weighted(batch, Int64Array::from_iter_values(rows.iter().map(|shown| sign * shown.weight)))))
    }

    fn decode<'a>(&self, entries: impl Iterator<Item = &'a Entry>) -> Result<Vec<ArrayRef>> {
        let Some(encoder) = &self.row_encoder else { return Ok(vec![]) };
        let parser = encoder.parser();
        let entries: Vec<&Entry> = entries.collect();
        Ok(encoder.convert_rows(entries.iter().map(|entry| parser.parse(entry.row())))?)
    }

    /// Drops the partitions that `floor` has passed.
    fn drop_passed(&mut self, floor: Floor) {
        let Some((bucket, tree)) = &mut self.bucket else { return };
        let slots = tree.pop_passed(&floor);
        bucket.floor = floor;
        slots.iter().for_each(|slot| self.partitions[*slot as usize].clear(&mut self.size));
        self.index.remove_all(&slots);
    }
}

/// Rows by partition: part and row.
struct ByPartition {
    rows: Vec<(u32, u32)>,
    /// Where the rows of each partition start, and where the last end.
    starts: Vec<usize>,
}

/// Puts the rows of each of `count` partitions together, without those that cannot be shown.
fn group(parts: &[Part], count: usize) -> ByPartition {
    let rows = || {
        parts.iter().enumerate().flat_map(|(part, rows)| {
            let candidates = rows.partitions.iter().zip(&rows.places).enumerate();
            candidates.filter(|(_, (_, place))| **place != u32::MAX).map(move |(row, (partition, _))| (*partition, part as u32, row as u32))
        })
    };
    let mut starts = vec![0; count + 1];
    rows().for_each(|(partition, ..)| starts[partition + 1] += 1);
    for partition in 0..count {
        starts[partition + 1] += starts[partition];
    }
    let mut next = starts.clone();
    let mut grouped = vec![(0, 0); starts[count]];
    for (partition, part, row) in rows() {
        grouped[next[partition]] = (part, row);
        next[partition] += 1;
    }
    ByPartition { rows: grouped, starts }
}

#[async_trait]
impl Operator for TopN {
    fn needs_step(&self, context: &StepContext<'_>) -> Result<bool> {
        match &self.bucket {
            Some((bucket, tree)) if self.size.entries > 0 => Ok(tree.any_passed(&bucket.read(context.bounds)?)),
            _ => Ok(false),
        }
    }

    async fn step(&mut self, inputs: &[&[DeltaBatch]], context: &StepContext<'_>) -> Result<Delta> {
        let floor = match &self.bucket {
            Some((bucket, _)) => bucket.read(context.bounds)?,
            None => Floor::Unknown,
        };
        let (mut parts, numbered) = self.read(inputs[0])?;
        let (go, come) = self.apply(&mut parts, &numbered)?;
        let mut delta: Delta = self.output(&go, -1)?.into_iter().chain(self.output(&come, 1)?).collect();
        if self.rest {
            let all = inputs[0].iter().cloned();
            delta = consolidate(&self.schema, &all.chain(delta.iter().map(DeltaBatch::negated)).collect::<Delta>())?;
        }
        self.drop_passed(floor);
        Ok(delta)
    }

    fn checkpoint(&mut self) -> Result<Option<Saved>> {
        let floor = self.bucket.as_ref().map_or(Floor::Unknown, |(bucket, _)| bucket.floor.clone());
        let rows: Vec<(&Entry, i64)> = self.partitions.iter().flat_map(Ordered::iter).collect();
        let mut batches = vec![];
        for rows in rows.chunks(CHECKPOINT_ROWS) {
            let columns = self.decode(rows.iter().map(|(entry, _)| *entry))?;
            let batch = make_batch(&self.input, columns, rows.len())?;
            batches.push(with_weights(&batch, Int64Array::from_iter_values(rows.iter().map(|(_, weight)| *weight)))?);
        }
        let detail = serde_json::json!({ "floor": floor });
        Ok(Some(Saved { format: FORMAT, groups: vec![("rows".into(), batches)], detail }))
    }

    fn restore(&mut self, saved: &Saved) -> Result<()> {
        saved.expect_format(FORMAT)?;
        let floor: Floor = saved.detail("floor")?;
        let rows = saved.group("rows").iter().map(|batch| without_weights(&self.input, batch)).collect::<Result<Vec<_>>>()?;
        if rows.iter().any(|part| (0..part.num_rows()).any(|row| part.weights.value(row) < 1)) {
            return Err(DataflowError::mismatch("a row is there less than once"));
        }
        let (mut parts, numbered) = self.read(&rows)?;
        self.apply(&mut parts, &numbered)?;
        if let Some((bucket, _)) = &mut self.bucket {
            bucket.floor = floor;
        }
        Ok(())
    }

    fn stats(&self) -> StateStats {
        StateStats {
            rows: self.size.entries,
            bytes: self.size.bytes
                + self.index.bytes()
                + self.partitions.capacity() * size_of::<Ordered>()
                + self.bucket.as_ref().map_or(0, |(_, tree)| tree.bytes()),
            touched_keys: self.touched_keys,
            dropped_rows: self.dropped_rows,
            ..StateStats::default()
        }
    }
}
