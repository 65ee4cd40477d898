//! The source edge: the one place where rows of a stream are completed, judged and counted.
//!
//! ```text
//!   decoded rows ─► computed columns ─► NULL checks ─► late? future? ─► op column, keys ─► accepted delta (+ hidden columns)
//!                        │ fails             │ bad          │ late             │ bad
//!                        └──────────────► dead letters, counted ◄─────────────┘
//! ```
//!
//! Rows in = rows used + bad + late, per stream and epoch. Lateness uses the watermark at the start of the epoch; the watermark
//! moves after the epoch. Everything here is a pure function of the rows, the epoch, its clock and that watermark, so
//! that recovery and back-fill get the same accepted rows from the same ranges.

mod changelog;
mod computed;

mod lateness;
#[cfg(test)]
mod tests;
mod versions;

pub use changelog::ChangelogState;
pub(crate) use computed::plan_expression as plan_computed;
pub use lateness::{PartitionState, WatermarkState};

use crate::catalog::object::{ColumnOrigin, EPOCH_COLUMN, EPOCH_TIME_COLUMN, RowPolicy, StreamDef, StreamShape};
use crate::error::{EngineError, Result};
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema, SchemaRef};
use changelog::Changelog;
use computed::Computed;
use datafusion::execution::SessionState;
use millstream_connectors::source::{BadRow, ExpectedTimes, RowPlaces, SourceBatch};
use millstream_types::delta::consolidate;
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime, Offset};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many bad rows a message about too many of them shows.
const BAD_EXAMPLES_MAX: usize = 5;

/// What one epoch brought of one stream.
#[derive(Debug, Clone, Default)]
pub struct Accepted {
    /// The accepted rows.
    pub delta: Delta,
    /// The changes of a keyed stream one by one, where a query reads its versions.
    pub versions: Delta,
    /// Rows read, bad ones included.
    pub rows_in: u64,
    /// Rows accepted.
    pub rows_used: u64,
    /// Rows that could not be decoded or completed.
    pub rows_bad: u64,
    /// Rows below the watermark.
    pub rows_late: u64,
    /// Accepted rows that lie too far in the future to move the watermark.
    pub rows_future: u64,
    /// Encoded bytes read.
    pub bytes: u64,
    /// Place and reason of the first bad rows, whatever becomes of them.
    pub bad_examples: Vec<String>,
    /// The rows refused, as far as the policies keep them.
    pub dead_letters: Vec<DeadLetter>,
}

/// A refused row.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DeadLetter {
    /// `bad`, `late` or `future`.
    pub kind: String,
    /// The row.
    #[serde(flatten)]
    pub row: BadRow,
}

/// The facts of an epoch that the edge needs.
#[derive(Debug, Clone, Copy)]
pub struct EdgeEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// The reading of its clock.
    pub clock: EventTime,
    /// The stream's watermark when it started.
    pub watermark_start: EventTime,
}

/// The edge of one stream.
#[derive(Debug)]
pub struct Edge {
    def: Arc<StreamDef>,
    /// What the source decodes, in order: physical columns, then the op field if it is not a column.
    decode_schema: SchemaRef,
    metadata: Vec<(String, String)>,
    computed: Computed,
    changelog: Option<Changelog>,
    /// Columns that somebody reads; `None` for all.
    needed: Option<BTreeSet<String>>,
    /// Watermark and partitions.
    pub watermark: WatermarkState,
}

impl Edge {
    /// The edge of a stream.
    ///
    /// # Errors
    /// When a computed column does not compile.
    pub fn new(def: Arc<StreamDef>, state: &SessionState) -> Result<Self> {
        let fields = decode_fields(&def);
        let metadata = def
            .columns
            .iter()
            .filter_map(|column| match &column.origin {
                ColumnOrigin::Metadata(key) => Some((key.clone(), column.field.name().clone())),
                _ => None,
            })
            .collect();
        let computed = Computed::compile(&def, state)?;
        let changelog = Changelog::new(&def)?;
        Ok(Self {
            decode_schema: Arc::new(Schema::new(fields)),
            metadata,
            computed,
            changelog,
            needed: None,
            watermark: WatermarkState::default(),
            def,
        })
    }

    /// The stream.
    pub fn def(&self) -> &Arc<StreamDef> {
        &self.def
    }

    /// What the source has to decode.
    pub fn decode_schema(&self) -> SchemaRef {
        Arc::clone(&self.decode_schema)
    }

    /// (key, column) of the metadata columns the source has to add.
    pub fn metadata(&self) -> Vec<(String, String)> {
        self.metadata.clone()
    }

    /// Tells which columns are read; rows keep only these (and what is needed to judge them).
    pub fn set_needed(&mut self, needed: Option<BTreeSet<String>>) {
        self.needed = needed;
    }

    /// Whether rows are neither completed nor matched with earlier ones.
    pub fn is_plain(&self) -> bool {
        self.changelog.is_none() && !self.computed.names().any(|column| self.computes(column))
    }

    /// Whether a computed column is evaluated: somebody reads it, or rows are judged by it.
    fn computes(&self, column: &str) -> bool {
        // Keyed and bag streams identify rows by all their columns.
        let judged = self.judged().filter(|_| self.def.shape == StreamShape::Append);
        judged.is_none_or(|judged| judged.contains(column) || self.def.watermark.as_ref().is_some_and(|(time, _)| time == column))
    }

    /// Tells whether a query reads the versions of a keyed stream.
    pub fn keep_versions(&mut self, keep: bool) {
        if let Some(changelog) = &mut self.changelog {
            changelog.keep_versions(keep);
        }
    }

    /// The columns by which rows are judged; `None` for all.
    pub fn judged(&self) -> Option<&BTreeSet<String>> {
        self.needed.as_ref().filter(|_| !self.def.options.validate_all)
    }

    /// Indices into [`Edge::decode_schema`] that must be read for the needed columns; `None` for all.
    pub fn projection(&self) -> Option<Vec<usize>> {
        // Keyed and bag streams identify rows by all their columns.
        if self.def.shape != StreamShape::Append {
            return None;
        }
        let needed = self.judged()?;
        let mut names: BTreeSet<&str> = needed.iter().map(String::as_str).collect();
        names.extend(self.computed.inputs_of(needed));
        if let Some((column, _)) = &self.def.watermark {
            names.insert(column);
            let column: BTreeSet<String> = [column.clone()].into();
            names.extend(self.computed.inputs_of(&column));
        }
        let indices: Vec<usize> = self
            .decode_schema
            .fields()
            .iter()
            .enumerate()
            .filter(|(_, field)| names.contains(field.name().as_str()))
            .map(|(index, _)| index)
            .collect();
        (indices.len() < self.decode_schema.fields().len()).then_some(indices)
    }

    /// The event-time column, if the source may vouch for its values instead of decoding them: nobody reads it, and no row can turn
    /// out to be bad later, so that every row counts.
    pub fn expected_times(&self, epoch: EdgeEpoch) -> Option<ExpectedTimes> {
        let (column, _) = self.def.watermark.as_ref().filter(|_| self.def.shape == StreamShape::Append)?;
        let needed = self.judged()?;
        if needed.contains(column) || !self.computed.inputs_of(needed).is_empty() {
            return None;
        }
        let column = self.decode_schema.index_of(column).ok()?;
        Some(ExpectedTimes { column, first: epoch.watermark_start, last: self.horizon(epoch) })
    }

    /// Event times after this one are too far in the future.
    fn horizon(&self, epoch: EdgeEpoch) -> EventTime {
        self.def.options.max_future.map_or(EventTime::MAX, |distance| epoch.clock.plus(distance))
    }

    /// Judges the rows of one batch and adds what is accepted to `accepted`.
    ///
    /// # Errors
    /// When a policy is `fail` and a row does not fit, or an expression cannot be evaluated at all.
    pub fn accept(&mut self, partition: &str, batch: SourceBatch, epoch: EdgeEpoch, accepted: &mut Accepted) -> Result<()> {
        let offsets = RowOffsets { sequence: batch.sequence, first: batch.first_row, rows: batch.rows, places: batch.places };
        accepted.rows_in += (batch.batch.num_rows() + batch.bad.len()) as u64;
        accepted.bytes += batch.bytes;
        for row in batch.bad {
            self.bad(|| row, accepted)?;
        }
        if batch.batch.num_rows() == 0 {
            return Ok(());
        }
        let (rows, offsets) = self.complete(batch.batch, offsets, epoch, accepted)?;
        let (rows, offsets) = self.check_nulls(rows, offsets, accepted)?;
        let Some(changelog) = &mut self.changelog else {
            let rows = match batch.event_times {
                Some((_, newest)) => {
                    self.watermark.observe(partition, newest, epoch.clock);
                    rows
                }
                None => self.judge_time(partition, rows, offsets, epoch, accepted)?,
            };
            if rows.num_rows() > 0 {
                accepted.rows_used += rows.num_rows() as u64;
                accepted.delta.push(DeltaBatch::insertions(self.finish(rows, epoch)?));
            }
            return Ok(());
        };
        let outcome = changelog.apply(rows, &offsets, epoch.watermark_start, (epoch.epoch, epoch.clock))?;
        for row in outcome.bad {
            self.bad(|| row, accepted)?;
        }
        for row in outcome.late {
            self.late(|| row, accepted)?;
        }
        accepted.rows_used += outcome.used;
        if let Some(newest) = outcome.newest {
            self.watermark.observe(partition, newest, epoch.clock);
        } else {
            self.watermark.touch(partition, epoch.clock);
        }
        accepted.versions.extend(outcome.versions.map(DeltaBatch::insertions));
        // After the columns that nobody reads have gone, so that a row which only differs in these is no change.
        let finished = outcome.delta.into_iter().map(|part| Ok(part.with_batch(self.finish(part.batch.clone(), epoch)?)));
        let finished = finished.collect::<Result<Delta>>()?;
        if let Some(first) = finished.first() {
            accepted.delta.extend(consolidate(first.batch.schema_ref(), &finished)?);
        }
        Ok(())
    }

    /// Rows that the write-ahead part of a commit record holds: accepted already, hidden columns included. `versions`: the changes one
    /// by one, where they were read.
    ///
    /// # Errors
    /// When they have other columns than the stream.
    pub fn accept_logged(&mut self, batches: Delta, versions: Delta, accepted: &mut Accepted) -> Result<()> {
        if let Some(changelog) = &mut self.changelog {
            if changelog.keeps_versions() && versions.is_empty() && !batches.is_empty() {
                let stream = &self.def.name;
                return Err(EngineError::Corrupt(format!("logged rows of stream \"{stream}\" have no versions, which a query reads")));
            }
            changelog.absorb(&batches)?;
        }
        accepted.rows_used += batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>();
        accepted.rows_in = accepted.rows_used;
        accepted.delta.extend(batches);
        accepted.versions.extend(versions);
        Ok(())
    }

    /// The state of a keyed or bag stream, for a checkpoint.
    pub fn changelog_state(&self) -> Option<ChangelogState> {
        self.changelog.as_ref().map(Changelog::state)
    }

    /// Restores what [`Edge::changelog_state`] returned.
    ///
    /// # Errors
    /// When the columns differ.
    pub fn restore_changelog(&mut self, state: ChangelogState) -> Result<()> {
        match &mut self.changelog {
            Some(changelog) => changelog.restore(state),
            None => Ok(()),
        }
    }

    /// Rows and bytes the edge keeps for a keyed or bag stream.
    pub fn state_size(&self) -> (u64, u64) {
        self.changelog.as_ref().map_or((0, 0), Changelog::size)
    }

    fn complete(
        &self,
        batch: RecordBatch,
        offsets: RowOffsets,
        epoch: EdgeEpoch,
        accepted: &mut Accepted,
    ) -> Result<(RecordBatch, RowOffsets)> {
        if !self.computed.names().any(|column| self.computes(column)) {
            return Ok((batch, offsets));
        }
        let evaluate = |batch: &RecordBatch| self.computed.evaluate(batch, epoch.clock, |column| self.computes(column));
        match evaluate(&batch) {
            Ok(completed) => Ok((completed, offsets)),
            Err(error) if batch.num_rows() == 1 => {
                self.bad(|| offsets.bad_row(0, error.to_string(), &batch, &self.def.name), accepted)?;
                let empty = evaluate(&batch.slice(0, 0))?;
                Ok((empty, offsets.none()))
            }
            Err(_) => {
                // Halve until the rows that fail stand alone; the others are kept in order.
                let middle = batch.num_rows() / 2;
                let (left, left_offsets) = self.complete(batch.slice(0, middle), offsets.slice(0, middle), epoch, accepted)?;
                let rest = batch.num_rows() - middle;
                let (right, right_offsets) = self.complete(batch.slice(middle, rest), offsets.slice(middle, rest), epoch, accepted)?;
                let joined = arrow::compute::concat_batches(&left.schema(), [&left, &right])?;
                Ok((joined, left_offsets.joined(left.num_rows(), right_offsets, right.num_rows())))
            }
        }
    }

    /// A NULL in a NOT NULL computed column or in the event-time column makes a bad row.
    fn check_nulls(&self, rows: RecordBatch, offsets: RowOffsets, accepted: &mut Accepted) -> Result<(RecordBatch, RowOffsets)> {
        let event_time = self.def.watermark.as_ref().map(|(column, _)| column.as_str());
        let mut keep: Option<Vec<bool>> = None;
        for column in &self.def.columns {
            let name = column.field.name();
            let must = !column.field.is_nullable() || event_time == Some(name.as_str());
            let Some(array) = rows.column_by_name(name).filter(|array| must && array.null_count() > 0) else { continue };
            // In a key-only delete everything but the key is NULL; the changelog judges those rows.
            if self.changelog.is_some() {
                continue;
            }
            let keep = keep.get_or_insert_with(|| vec![true; rows.num_rows()]);
            for (row, kept) in keep.iter_mut().enumerate() {
                if *kept && array.is_null(row) {
                    *kept = false;
                    let reason = || format!("column \"{name}\" is NULL but must not be");
                    self.bad(|| offsets.bad_row(row, reason(), &rows, &self.def.name), accepted)?;
                }
            }
        }
        match keep {
            None => Ok((rows, offsets)),
            Some(keep) => Self::keep(rows, offsets, &keep),
        }
    }

    fn keep(rows: RecordBatch, offsets: RowOffsets, keep: &[bool]) -> Result<(RecordBatch, RowOffsets)> {
        let offsets = offsets.filtered(keep);
        let rows = arrow::compute::filter_record_batch(&rows, &BooleanArray::from(keep.to_vec()))?;
        Ok((rows, offsets))
    }

    fn judge_time(
        &mut self,
        partition: &str,
        rows: RecordBatch,
        offsets: RowOffsets,
        epoch: EdgeEpoch,
        accepted: &mut Accepted,
    ) -> Result<RecordBatch> {
        let Some((column, _)) = self.def.watermark.clone() else { return Ok(rows) };
        if rows.num_rows() == 0 {
            return Ok(rows);
        }
        let times = lateness::event_times(&rows, &column)?;
        let (mut oldest, mut newest) = (i64::MAX, i64::MIN);
        for &time in times.values() {
            oldest = oldest.min(time);
            newest = newest.max(time);
        }
        let horizon = self.horizon(epoch).0;
        if oldest >= epoch.watermark_start.0 && newest <= horizon {
            self.watermark.observe(partition, EventTime(newest), epoch.clock);
            return Ok(rows);
        }
        let start = epoch.watermark_start;
        let late = BooleanArray::from_unary(&times, |time| time < start.0);
        let future = BooleanArray::from_unary(&times, |time| time > horizon);
        for row in late.values().set_indices() {
            let reason = |time: EventTime| format!("event time {time} is below the watermark {start}");
            self.late(|| offsets.bad_row(row, reason(EventTime(times.value(row))), &rows, &self.def.name), accepted)?;
        }
        for row in future.values().set_indices() {
            accepted.rows_future += 1;
            let reason = |time: EventTime| format!("event time {time} is too far after the clock {}", epoch.clock);
            let refused = || offsets.bad_row(row, reason(EventTime(times.value(row))), &rows, &self.def.name);
            match self.def.options.on_future {
                RowPolicy::Flow => {}
                RowPolicy::Skip | RowPolicy::DeadLetter => self.bad(refused, accepted)?,
                RowPolicy::Fail => self.refuse("future", RowPolicy::Fail, refused, accepted)?,
            }
        }
        let refused = if self.def.options.on_future == RowPolicy::Flow { late.values().clone() } else { late.values() | future.values() };
        let keep = BooleanArray::from(!&refused);
        let in_time = times.values().iter().filter(|time| (start.0..=horizon).contains(time));
        let newest = in_time.max().copied();
        match newest {
            Some(newest) => self.watermark.observe(partition, EventTime(newest), epoch.clock),
            None => self.watermark.touch(partition, epoch.clock),
        }
        Ok(arrow::compute::filter_record_batch(&rows, &keep)?)
    }

    /// Keeps the columns somebody reads, in declared order, and adds the ingest columns where the rows do not have them yet.
    fn finish(&self, rows: RecordBatch, epoch: EdgeEpoch) -> Result<RecordBatch> {
        let wanted = |name: &str| self.needed.as_ref().is_none_or(|needed| needed.contains(name));
        let count = rows.num_rows();
        let mut fields = Vec::with_capacity(self.def.columns.len() + 2);
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.def.columns.len() + 2);
        for column in &self.def.columns {
            if wanted(column.field.name())
                && let Some(array) = rows.column_by_name(column.field.name())
            {
                fields.push(column.field.clone());
                columns.push(Arc::clone(array));
            }
        }
        for field in crate::catalog::object::ingest_fields() {
            if self.needed.as_ref().is_some_and(|needed| !needed.contains(field.name().as_str())) {
                continue;
            }
            columns.push(match field.name().as_str() {
                name if rows.column_by_name(name).is_some() => Arc::clone(&rows[name]),
                EPOCH_COLUMN => Arc::new(Int64Array::from_value(epoch.epoch.0 as i64, count)),
                name => {
                    debug_assert_eq!(name, EPOCH_TIME_COLUMN);
                    Arc::new(TimestampMicrosecondArray::from_value(epoch.clock.0, count))
                }
            });
            fields.push(field);
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
    }

    /// Counts a bad row. `row` is only described where somebody will see it.
    fn bad(&self, row: impl FnOnce() -> BadRow, accepted: &mut Accepted) -> Result<()> {
        accepted.rows_bad += 1;
        let policy = self.def.options.on_error;
        if accepted.bad_examples.len() >= BAD_EXAMPLES_MAX {
            return self.refuse("bad", policy, row, accepted);
        }
        let row = row();
        accepted.bad_examples.push(format!("{}: {}", row.place, row.reason));
        self.refuse("bad", policy, || row, accepted)
    }

    /// Counts a late row, described as a bad one is.
    fn late(&self, row: impl FnOnce() -> BadRow, accepted: &mut Accepted) -> Result<()> {
        accepted.rows_late += 1;
        self.refuse("late", self.def.options.on_late, row, accepted)
    }

    fn refuse(&self, kind: &str, policy: RowPolicy, row: impl FnOnce() -> BadRow, accepted: &mut Accepted) -> Result<()> {
        match policy {
            RowPolicy::Skip | RowPolicy::Flow => Ok(()),
            RowPolicy::DeadLetter => {
                accepted.dead_letters.push(DeadLetter { kind: kind.to_string(), row: row() });
                Ok(())
            }
            RowPolicy::Fail => {
                let option = match kind {
                    "late" => "on_late",
                    "future" => "on_future",
                    _ => "on_error",
                };
                let row = row();
                Err(EngineError::BadRows {
                    message: format!("stream \"{}\": {kind} row at {}: {}", self.def.name, row.place, row.reason),
                    hint: format!("Mend the row, or set {option} = 'dead_letter' for the stream to put such rows aside and go on."),
                })
            }
        }
    }
}

/// The columns a stream's source decodes: the physical ones, then the op field where it is none of them.
pub(crate) fn decode_fields(def: &StreamDef) -> Vec<Field> {
    let physical = def.columns.iter().filter(|column| column.origin == ColumnOrigin::Physical);
    let mut fields: Vec<Field> = physical.map(|column| column.field.clone()).collect();
    let op = match &def.shape {
        StreamShape::Upsert { op_column: Some(op), .. } | StreamShape::Bag { op_column: op, .. } => op,
        _ => return fields,
    };
    // A key-only delete leaves the other columns out; the edge checks NOT NULL for all other changes.
    fields = fields.into_iter().map(|field| field.with_nullable(true)).collect();
    if !fields.iter().any(|field| field.name() == op) {
        fields.push(Field::new(op, arrow::datatypes::DataType::Utf8View, true));
    }
    fields
}

/// Offsets of a batch's rows.
#[derive(Debug, Clone)]
pub(crate) struct RowOffsets {
    sequence: u64,
    first: u64,
    rows: Option<Vec<u64>>,
    places: Option<RowPlaces>,
}

impl RowOffsets {
    fn at(&self, row: usize) -> Offset {
        let row = match &self.rows {
            Some(rows) => rows.get(row).copied().unwrap_or(self.first),
            None => self.first + row as u64,
        };
        Offset { sequence: self.sequence, row }
    }

    /// The same without the rows' numbers, to be given others.
    fn unnumbered(&self) -> RowOffsets {
        RowOffsets { sequence: self.sequence, first: self.first, rows: None, places: self.places.clone() }
    }

    fn slice(&self, start: usize, len: usize) -> RowOffsets {
        match &self.rows {
            Some(rows) => RowOffsets { rows: Some(rows[start..start + len].to_vec()), ..self.unnumbered() },
            None => RowOffsets { first: self.first + start as u64, ..self.unnumbered() },
        }
    }

    fn none(&self) -> RowOffsets {
        RowOffsets { rows: Some(Vec::new()), ..self.unnumbered() }
    }

    fn filtered(&self, keep: &[bool]) -> RowOffsets {
        let rows = keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(row, _)| self.at(row).row).collect();
        RowOffsets { rows: Some(rows), ..self.unnumbered() }
    }

    fn joined(&self, len: usize, other: RowOffsets, other_len: usize) -> RowOffsets {
        let rows = (0..len).map(|row| self.at(row).row).chain((0..other_len).map(|row| other.at(row).row)).collect();
        RowOffsets { rows: Some(rows), ..self.unnumbered() }
    }

    fn bad_row(&self, row: usize, reason: String, rows: &RecordBatch, stream: &str) -> BadRow {
        let offset = self.at(row);
        let raw = row_text(rows, row);
        let place = self.places.as_ref().map_or_else(|| format!("{stream}@{offset}"), |places| places.place(offset.row));
        BadRow { offset, place, reason, raw }
    }
}

/// A row as `name=value, ...`, for dead letters of rows that were decoded but refused later.
fn row_text(rows: &RecordBatch, row: usize) -> String {
    let options = arrow::util::display::FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        if !text.is_empty() {
            text.push_str(", ");
        }
        let value = arrow::util::display::ArrayFormatter::try_new(column, &options).map(|formatter| formatter.value(row).to_string());
        text.push_str(&format!("{}={}", field.name(), value.unwrap_or_default()));
    }
    text
}
