//! Streams whose rows change a relation: upserts by key, and bags of full rows with `+` and `-`.
//!
//! Op values: `+ +I +U c r u` insert or update, `- -U -D d` take away. A keyed stream keeps key → last row to turn an upsert
//! into -old +new; a bag stream with `verify` keeps row → weight, so that a `-` without its row is a bad row. A change is late
//! when its before- or after-image is below the watermark; it is dropped and counted as a whole.
//!
//! The ingest columns of a row, `PROCTIME()` columns among them, are set once, when it comes, so they are kept with it: a row leaves with
//! those it came with. They do not tell the rows of a bag apart: of those that are equal otherwise the oldest leaves first. Without
//! `verify` nothing is known of rows that came, so that such a stream has no ingest columns to read.

use super::RowOffsets;
use super::computed::proctime;
use super::versions::{Version, Versions};
use crate::catalog::object::{ColumnOrigin, EPOCH_COLUMN, EPOCH_TIME_COLUMN, StreamDef, StreamShape, ingest_fields};
use crate::error::{EngineError, Result};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use millstream_connectors::source::BadRow;
use millstream_types::row_key::{RowKeyEncoder, types_of};
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// What a keyed or bag stream keeps, for a checkpoint.
#[derive(Debug, Clone)]
pub struct ChangelogState {
    /// Keyed: the last row per key. Bag: rows. With when they came, and their weights in the last column `__weight`.
    pub rows: RecordBatch,
}

/// What a batch of changes came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) delta: Delta,
    /// The changes one by one, where somebody reads them.
    pub(crate) versions: Option<RecordBatch>,
    pub(crate) bad: Vec<BadRow>,
    pub(crate) late: Vec<BadRow>,
    pub(crate) used: u64,
    pub(crate) newest: Option<EventTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Insert,
    Delete,
}

/// What an op value says. The letters of change data capture replace and remove rows by key, so they need one.
fn change_of(op: &str, keyed: bool) -> Result<Change, String> {
    match op.trim() {
        "+" | "+I" | "+U" => Ok(Change::Insert),
        "-" | "-U" | "-D" => Ok(Change::Delete),
        "c" | "u" | "r" if keyed => Ok(Change::Insert),
        "d" if keyed => Ok(Change::Delete),
        "c" | "u" | "r" | "d" => Err(format!("op '{op}' changes rows by key, and the stream has no PRIMARY KEY")),
        _ if keyed => Err(format!("unknown op '{op}'; expected one of +, -, +I, -U, +U, -D, c, r, u, d")),
        _ => Err(format!("unknown op '{op}'; expected one of +, -, +I, -U, +U, -D")),
    }
}

/// The state and rules of one changelog stream.
#[derive(Debug)]
pub(crate) struct Changelog {
    stream: String,
    schema: SchemaRef,
    op_column: Option<String>,
    event_time: Option<String>,
    /// Places of the `PROCTIME()` columns.
    clocks: Vec<usize>,
    kind: Kind,
    rows: RowConverter,
    versions: Versions,
    /// Somebody reads the changes one by one.
    keeps_versions: bool,
}

/// The epoch in which a row came, and its clock: the values of the ingest columns.
pub(crate) type Arrival = (Epoch, EventTime);

/// The bytes of a row, and when it came how often, oldest first.
#[derive(Debug)]
struct BagRow {
    bytes: Box<[u8]>,
    arrivals: VecDeque<(Arrival, i64)>,
}

#[derive(Debug)]
enum Kind {
    Keyed { columns: Vec<usize>, encoder: RowKeyEncoder, last: HashMap<Box<[u8]>, StoredRow> },
    Bag { columns: Vec<usize>, encoder: RowKeyEncoder, rows: Option<HashMap<Box<[u8]>, BagRow>> },
}

impl Kind {
    /// What tells rows apart: the key, or all columns that are not set at arrival.
    fn keys(&self, columns: &[ArrayRef]) -> Result<Rows> {
        let (Kind::Keyed { columns: key, encoder, .. } | Kind::Bag { columns: key, encoder, .. }) = self;
        Ok(encoder.encode(&key.iter().map(|&column| Arc::clone(&columns[column])).collect::<Vec<_>>())?)
    }
}

#[derive(Debug, Clone)]
struct StoredRow {
    bytes: Box<[u8]>,
    time: Option<i64>,
    arrival: Arrival,
}

impl BagRow {
    /// The row came so often.
    fn add(&mut self, arrival: Arrival, weight: i64) {
        match self.arrivals.back_mut().filter(|(last, _)| *last == arrival) {
            Some((_, count)) => *count += weight,
            None => self.arrivals.push_back((arrival, weight)),
        }
    }

    /// The oldest one leaves: when it had come.
    fn remove(&mut self) -> Option<Arrival> {
        let (arrival, count) = self.arrivals.front_mut()?;
        let arrival = *arrival;
        *count -= 1;
        if *count == 0 {
            self.arrivals.pop_front();
        }
        Some(arrival)
    }

    /// One that had come then leaves.
    fn remove_arrival(&mut self, arrival: Arrival) {
        if let Some(place) = self.arrivals.iter().position(|(other, _)| *other == arrival) {
            self.arrivals[place].1 -= 1;
            if self.arrivals[place].1 == 0 {
                self.arrivals.remove(place);
            }
        }
    }
}

impl Changelog {
    /// `None` for append-only streams.
    pub(crate) fn new(def: &StreamDef) -> Result<Option<Self>> {
        let schema = def.schema();
        let is_clock = |column: &usize| def.columns[*column].origin == ColumnOrigin::Proctime;
        let (clocks, others): (Vec<usize>, Vec<usize>) = (0..def.columns.len()).partition(is_clock);
        let (kind, op_column) = match &def.shape {
            StreamShape::Append => return Ok(None),
            StreamShape::Upsert { key, op_column } => {
                let columns = key.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
                let encoder = RowKeyEncoder::new(columns.iter().map(|&column| schema.field(column).data_type().clone()))?;
                (Kind::Keyed { columns, encoder, last: HashMap::new() }, op_column.clone())
            }
            StreamShape::Bag { op_column, verify } => {
                let encoder = RowKeyEncoder::new(others.iter().map(|&column| schema.field(column).data_type().clone()))?;
                (Kind::Bag { columns: others, encoder, rows: verify.then(HashMap::new) }, Some(op_column.clone()))
            }
        };
        let rows = RowConverter::new(types_of(schema.fields()).into_iter().map(SortField::new).collect())?;
        let event_time = def.watermark.as_ref().map(|(column, _)| column.clone());
        let versions = Versions::new(def);
        Ok(Some(Self { stream: def.name.clone(), schema, op_column, event_time, clocks, kind, rows, versions, keeps_versions: false }))
    }

    /// Tells whether the changes are read one by one.
    pub(crate) fn keep_versions(&mut self, keep: bool) {
        self.keeps_versions = keep;
    }

    /// Whether the changes are read one by one.
    pub(crate) fn keeps_versions(&self) -> bool {
        self.keeps_versions
    }

    /// Applies changes in the order they came. The rows of the delta have the ingest columns last.
    pub(crate) fn apply(&mut self, batch: RecordBatch, offsets: &RowOffsets, watermark: EventTime, now: Arrival) -> Result<Outcome> {
        let count = batch.num_rows();
        let ops = match &self.op_column {
            None => None,
            Some(name) => {
                let column =
                    batch.column_by_name(name).ok_or_else(|| EngineError::Internal(format!("the op column \"{name}\" was not read")))?;
                let text = cast(column, &DataType::Utf8)?;
                Some(text.as_string::<i32>().clone())
            }
        };
        let columns: Vec<ArrayRef> = self
            .schema
            .fields()
            .iter()
            .map(|field| {
                batch
                    .column_by_name(field.name())
                    .cloned()
                    .ok_or_else(|| EngineError::Internal(format!("column \"{}\" was not read", field.name())))
            })
            .collect::<Result<_>>()?;
        let nullable: Vec<Field> = self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let full = RecordBatch::try_new(Arc::new(Schema::new(nullable)), columns.clone())?;
        let times = match &self.event_time {
            Some(column) => Some(super::lateness::event_times(&full, column)?),
            None => None,
        };
        let mut outcome = Outcome::default();
        // Rows of the delta in order: where each is found, its weight and when it came.
        let mut taken: Vec<(Taken, i64, Arrival)> = Vec::with_capacity(count);
        let mut changes: Vec<Changed> = Vec::new();
        let stream = self.stream.clone();
        let bad = |row: usize, reason: String| offsets.bad_row(row, reason, &full, &stream);
        let encoded_rows = self.rows.convert_columns(&columns)?;
        let keys = self.kind.keys(&columns)?;
        let set_at_arrival = self.clocks.iter().any(|&clock| self.event_time.as_ref() == Some(self.schema.field(clock).name()));
        for row in 0..count {
            let change = match &ops {
                None => Change::Insert,
                Some(ops) if ops.is_null(row) => {
                    outcome.bad.push(bad(row, "the op is NULL".into()));
                    continue;
                }
                Some(ops) => match change_of(ops.value(row), matches!(self.kind, Kind::Keyed { .. })) {
                    Ok(change) => change,
                    Err(reason) => {
                        outcome.bad.push(bad(row, reason));
                        continue;
                    }
                },
            };
            let time = times.as_ref().and_then(|times| times.is_valid(row).then(|| times.value(row)));
            let key_only = change == Change::Delete && matches!(self.kind, Kind::Keyed { .. });
            if !key_only {
                let missing = self.schema.fields().iter().enumerate().find(|(index, field)| {
                    (!field.is_nullable() || self.event_time.as_deref() == Some(field.name().as_str())) && columns[*index].is_null(row)
                });
                if let Some((_, field)) = missing {
                    outcome.bad.push(bad(row, format!("column \"{}\" is NULL but must not be", field.name())));
                    continue;
                }
            }
            let key: &[u8] = keys.row(row).data();
            match &mut self.kind {
                Kind::Keyed { columns: key_columns, last, .. } => {
                    if let Some(&column) = key_columns.iter().find(|&&column| columns[column].is_null(row)) {
                        outcome.bad.push(bad(row, format!("key column \"{}\" is NULL", self.schema.field(column).name())));
                        continue;
                    }
                    let before = last.get(key).cloned();
                    let before_late = before.as_ref().and_then(|stored| stored.time).is_some_and(|time| time < watermark.0);
                    let after_late = change == Change::Insert && time.is_some_and(|time| time < watermark.0);
                    if before_late || after_late {
                        let image = if before_late { "before" } else { "after" };
                        outcome.late.push(bad(row, format!("the row {image} the change is below the watermark {watermark}")));
                        continue;
                    }
                    match (change, before) {
                        (Change::Delete, None) => {
                            outcome.bad.push(bad(row, "delete of a key that does not exist".into()));
                            continue;
                        }
                        (Change::Delete, Some(stored)) => {
                            last.remove(key);
                            if self.keeps_versions {
                                changes.push(Changed::Deleted {
                                    taken: taken.len(),
                                    time: time.filter(|time| *time >= watermark.0).map(|_| row as u32),
                                });
                            }
                            taken.push((Taken::Stored(stored.bytes), -1, stored.arrival));
                        }
                        (Change::Insert, before) => {
                            if let Some(stored) = before {
                                taken.push((Taken::Stored(stored.bytes), -1, stored.arrival));
                            }
                            last.insert(key.into(), StoredRow { bytes: encoded_rows.row(row).data().into(), time, arrival: now });
                            if self.keeps_versions {
                                changes.push(Changed::Inserted(row as u32));
                            }
                            taken.push((Taken::Batch(row as u32), 1, now));
                        }
                    }
                }
                Kind::Bag { rows, .. } => {
                    let time = match rows {
                        Some(rows) if set_at_arrival && change == Change::Delete => {
                            rows.get(key).and_then(|row| row.arrivals.front()).map(|((_, clock), _)| clock.0)
                        }
                        _ => time,
                    };
                    if time.is_some_and(|time| time < watermark.0) {
                        outcome.late.push(bad(row, format!("the row is below the watermark {watermark}")));
                        continue;
                    }
                    let weight = if change == Change::Insert { 1 } else { -1 };
                    let mut arrival = now;
                    match rows {
                        Some(rows) if change == Change::Insert => {
                            let new = || BagRow { bytes: encoded_rows.row(row).data().into(), arrivals: VecDeque::with_capacity(1) };
                            rows.entry(key.into()).or_insert_with(new).add(now, 1);
                        }
                        Some(rows) => {
                            let Some(oldest) = rows.get_mut(key).and_then(BagRow::remove) else {
                                outcome.bad.push(bad(row, "takes away a row that does not exist".into()));
                                continue;
                            };
                            arrival = oldest;
                            if rows.get(key).is_some_and(|row| row.arrivals.is_empty()) {
                                rows.remove(key);
                            }
                        }
                        None => {}
                    }
                    taken.push((Taken::Batch(row as u32), weight, arrival));
                }
            }
            outcome.used += 1;
            if change == Change::Insert {
                outcome.newest = outcome.newest.max(time.map(EventTime));
            }
        }
        if taken.is_empty() {
            return Ok(outcome);
        }
        let stored: Vec<&[u8]> =
            taken.iter().filter_map(|(taken, ..)| if let Taken::Stored(bytes) = taken { Some(bytes.as_ref()) } else { None }).collect();
        let stored_batch = self.decode(&full.schema(), &stored)?;
        let joined = arrow::compute::concat_batches(&full.schema(), [&stored_batch, &full])?;
        let first_new = stored.len() as u32;
        let mut next_stored = 0u32;
        let mut indices = Vec::with_capacity(taken.len());
        for (taken, ..) in &taken {
            indices.push(match taken {
                Taken::Stored(_) => {
                    next_stored += 1;
                    next_stored - 1
                }
                Taken::Batch(row) => first_new + row,
            });
        }
        if !changes.is_empty() {
            let versions: Vec<Version> = changes.iter().map(|change| change.version(&indices, first_new)).collect();
            outcome.versions = Some(self.versions.of(&joined, &versions, now)?);
        }
        outcome.delta = self.delta(&joined, indices, &taken)?;
        Ok(outcome)
    }

    /// The rows of the delta with the ingest columns; `indices` are their places in `joined`.
    fn delta(&self, joined: &RecordBatch, indices: Vec<u32>, taken: &[(Taken, i64, Arrival)]) -> Result<Delta> {
        let rows = take_record_batch(joined, &UInt32Array::from(indices))?;
        let mut fields: Vec<FieldRef> = self.schema.fields().iter().cloned().collect();
        let mut columns = rows.columns().to_vec();
        let arrived = || TimestampMicrosecondArray::from_iter_values(taken.iter().map(|(_, _, (_, clock))| clock.0));
        for &column in &self.clocks {
            columns[column] = proctime(fields[column].data_type(), arrived());
        }
        for field in ingest_fields() {
            let of = |(_, _, (epoch, clock)): &(Taken, i64, Arrival)| if field.name() == EPOCH_COLUMN { epoch.0 as i64 } else { clock.0 };
            let values = taken.iter().map(of);
            columns.push(match field.name().as_str() {
                EPOCH_COLUMN => Arc::new(Int64Array::from_iter_values(values)),
                _ => Arc::new(TimestampMicrosecondArray::from_iter_values(values)),
            });
            fields.push(Arc::new(field));
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
        let weights = Int64Array::from_iter_values(taken.iter().map(|(_, weight, _)| *weight));
        Ok(vec![DeltaBatch::weighted(rows, weights)])
    }

    fn decode(&self, schema: &SchemaRef, rows: &[&[u8]]) -> Result<RecordBatch> {
        if rows.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(schema)));
        }
        let parser = self.rows.parser();
        let columns = self.rows.convert_rows(rows.iter().map(|bytes| parser.parse(bytes)))?;
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// Takes over changes that were accepted before: what a commit record logged.
    pub(crate) fn absorb(&mut self, changes: &[DeltaBatch]) -> Result<()> {
        // Retractions first: an update takes the old row and brings the new one under the same key.
        for negative in [true, false] {
            for part in changes {
                let columns: Vec<ArrayRef> = self
                    .schema
                    .fields()
                    .iter()
                    .map(|field| part.batch.column_by_name(field.name()).cloned())
                    .collect::<Option<_>>()
                    .ok_or_else(|| EngineError::Corrupt(format!("logged rows of stream \"{}\" have other columns", self.stream)))?;
                let encoded = self.rows.convert_columns(&columns)?;
                let arrivals = arrivals_of(&part.batch)
                    .ok_or_else(|| EngineError::Corrupt(format!("logged rows of stream \"{}\" have no ingest columns", self.stream)))?;
                let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns.clone())?;
                let times = match &self.event_time {
                    Some(column) => Some(super::lateness::event_times(&batch, column)?),
                    None => None,
                };
                let keys = self.kind.keys(&columns)?;
                for row in (0..part.num_rows()).filter(|&row| (part.weights.value(row) < 0) == negative) {
                    let (key, weight) = (keys.row(row).data(), part.weights.value(row));
                    let bytes = || encoded.row(row).data().into();
                    match &mut self.kind {
                        Kind::Keyed { last, .. } if negative => drop(last.remove(key)),
                        Kind::Keyed { last, .. } => {
                            let time = times.as_ref().and_then(|times| times.is_valid(row).then(|| times.value(row)));
                            last.insert(key.into(), StoredRow { bytes: bytes(), time, arrival: arrivals[row] });
                        }
                        Kind::Bag { rows: Some(rows), .. } if negative => {
                            if let Some(stored) = rows.get_mut(key) {
                                (0..-weight).for_each(|_| stored.remove_arrival(arrivals[row]));
                                if stored.arrivals.is_empty() {
                                    rows.remove(key);
                                }
                            }
                        }
                        Kind::Bag { rows: Some(rows), .. } => {
                            let new = || BagRow { bytes: bytes(), arrivals: VecDeque::with_capacity(1) };
                            rows.entry(key.into()).or_insert_with(new).add(arrivals[row], weight);
                        }
                        Kind::Bag { rows: None, .. } => {}
                    }
                }
            }
        }
        Ok(())
    }

    /// Everything kept, in key order.
    pub(crate) fn state(&self) -> ChangelogState {
        let mut rows: Vec<(&[u8], &[u8], Arrival, i64)> = match &self.kind {
            Kind::Keyed { last, .. } => last.iter().map(|(key, stored)| (key.as_ref(), stored.bytes.as_ref(), stored.arrival, 1)).collect(),
            Kind::Bag { rows, .. } => {
                let mut kept = Vec::new();
                for (key, row) in rows.iter().flatten() {
                    kept.extend(row.arrivals.iter().map(|(arrival, weight)| (key.as_ref(), row.bytes.as_ref(), *arrival, *weight)));
                }
                kept
            }
        };
        // Stable: the arrivals of a row stay in their order.
        rows.sort_by_key(|(key, ..)| *key);
        let [epoch, clock] = ingest_fields();
        let row = Field::new("row", DataType::Binary, false);
        let schema = Schema::new(vec![row, epoch, clock, Field::new("__weight", DataType::Int64, false)]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(BinaryArray::from_iter_values(rows.iter().map(|(_, bytes, ..)| *bytes))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, _, (epoch, _), _)| epoch.0 as i64))),
            Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|(_, _, (_, clock), _)| clock.0))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|(.., weight)| *weight))),
        ];
        ChangelogState { rows: RecordBatch::try_new(Arc::new(schema), columns).expect("four columns of one length") }
    }

    /// Takes over what [`Changelog::state`] gave.
    pub(crate) fn restore(&mut self, state: ChangelogState) -> Result<()> {
        let corrupt = || EngineError::Corrupt(format!("the stored rows of stream \"{}\" have another shape", self.stream));
        let bytes = state.rows.column_by_name("row").and_then(|column| column.as_binary_opt::<i32>()).ok_or_else(corrupt)?.clone();
        let weights = state.rows.column_by_name("__weight").and_then(|column| column.as_primitive_opt::<Int64Type>());
        let weights = weights.ok_or_else(corrupt)?.clone();
        let arrivals = arrivals_of(&state.rows).ok_or_else(corrupt)?;
        let rows: Vec<&[u8]> = (0..bytes.len()).map(|row| bytes.value(row)).collect();
        let nullable: Vec<Field> = self.schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
        let decoded = self.decode(&Arc::new(Schema::new(nullable)), &rows)?;
        let times = match &self.event_time {
            Some(column) => Some(super::lateness::event_times(&decoded, column)?),
            None => None,
        };
        let keys = self.kind.keys(decoded.columns())?;
        match &mut self.kind {
            Kind::Keyed { last, .. } => {
                let stored = |(row, bytes): (usize, &&[u8])| {
                    let time = times.as_ref().and_then(|times| times.is_valid(row).then(|| times.value(row)));
                    (keys.row(row).data().into(), StoredRow { bytes: (*bytes).into(), time, arrival: arrivals[row] })
                };
                *last = rows.iter().enumerate().map(stored).collect();
            }
            Kind::Bag { rows: Some(known), .. } => {
                for (row, bytes) in rows.iter().enumerate() {
                    let new = || BagRow { bytes: (*bytes).into(), arrivals: VecDeque::with_capacity(1) };
                    known.entry(keys.row(row).data().into()).or_insert_with(new).add(arrivals[row], weights.value(row));
                }
            }
            Kind::Bag { rows: None, .. } => {}
        }
        Ok(())
    }

    /// Rows and bytes kept.
    pub(crate) fn size(&self) -> (u64, u64) {
        match &self.kind {
            Kind::Keyed { last, .. } => {
                let entry = size_of::<(Box<[u8]>, StoredRow)>() + 1;
                (last.len() as u64, last.iter().map(|(key, stored)| (key.len() + stored.bytes.len() + entry) as u64).sum())
            }
            Kind::Bag { rows, .. } => {
                let entry = size_of::<(Box<[u8]>, BagRow)>() + 1;
                let (mut count, mut bytes) = (0, 0);
                for (key, row) in rows.iter().flatten() {
                    count += 1;
                    bytes += (key.len() + row.bytes.len() + size_of::<(Arrival, i64)>() * row.arrivals.capacity() + entry) as u64;
                }
                (count, bytes)
            }
        }
    }
}

/// The ingest columns of each row.
fn arrivals_of(batch: &RecordBatch) -> Option<Vec<Arrival>> {
    let epochs = batch.column_by_name(EPOCH_COLUMN)?.as_primitive_opt::<Int64Type>()?;
    let clocks = batch.column_by_name(EPOCH_TIME_COLUMN)?.as_primitive_opt::<TimestampMicrosecondType>()?;
    Some(epochs.values().iter().zip(clocks.values()).map(|(epoch, clock)| (Epoch(*epoch as u64), EventTime(*clock))).collect())
}

#[derive(Debug)]
enum Taken {
    Stored(Box<[u8]>),
    Batch(u32),
}

/// A change of a keyed stream.
#[derive(Debug)]
enum Changed {
    /// A row of the batch.
    Inserted(u32),
    /// A row of the delta leaves; `time`: the row of the batch that says when.
    Deleted { taken: usize, time: Option<u32> },
}

impl Changed {
    /// The same as places in the stored rows with the batch after them, which begins at `first_new`; `indices`: those of the delta's rows.
    fn version(&self, indices: &[u32], first_new: u32) -> Version {
        match self {
            Changed::Inserted(row) => Version { row: first_new + row, time: first_new + row, deleted: false },
            Changed::Deleted { taken, time } => {
                let row = indices[*taken];
                Version { row, time: time.map_or(row, |time| first_new + time), deleted: true }
            }
        }
    }
}
