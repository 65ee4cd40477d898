//! Records of fixed width, each in the place of its slot: states that are overwritten again and again.
//!
//! ```text
//!   slot ─▶ chunk, place      record: marks | column | column | ..      marks: in use, then a bit per column that is NULL
//! ```
//! Where the columns of a row lie together, a group among millions is one place in memory, whatever its aggregates are, and a new state
//! takes the place of the old one: nothing dies, nothing has to be merged. Rows with values of any length are for the
//! [row log](crate::row_log).

use crate::error::{DataflowError, Result};
use arrow::array::{Array, ArrayData, ArrayRef, AsArray, BooleanArray, NullBufferBuilder, make_array};
use arrow::buffer::{BooleanBuffer, MutableBuffer};
use arrow::datatypes::DataType;
use std::sync::Arc;

/// Slots of a chunk.
const CHUNK_SLOTS: usize = 4 * 1024;
/// Records that are read or written column by column: few enough to stay in the cache meanwhile.
const BLOCK: usize = 1024;
/// The first mark: somebody has written this record.
const IN_USE: u8 = 1;

#[derive(Debug)]
struct Column {
    data_type: DataType,
    width: usize,
    offset: usize,
    /// Byte and bit of its NULL mark.
    mark: (usize, u8),
}

#[derive(Debug, Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Records in use.
    live: usize,
}

/// The records.
#[derive(Debug)]
pub(crate) struct SlotRecords {
    columns: Vec<Column>,
    /// Bytes of marks.
    marks: usize,
    width: usize,
    chunks: Vec<Chunk>,
}

impl SlotRecords {
    /// No records yet, with these types of columns; `None` if one of them has no fixed width.
    pub(crate) fn new(types: &[DataType]) -> Option<Self> {
        let marks = types.len() / 8 + 1;
        let mut columns = Vec::with_capacity(types.len());
        let mut offset = marks;
        for (index, data_type) in types.iter().enumerate() {
            let width = if *data_type == DataType::Boolean { 1 } else { data_type.primitive_width()? };
            let bit = index + 1;
            columns.push(Column { data_type: data_type.clone(), width, offset, mark: (bit / 8, 1 << (bit % 8)) });
            offset += width;
        }
        Some(Self { columns, marks, width: offset, chunks: vec![] })
    }

    /// Memory in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Chunk>() * self.chunks.capacity() + self.chunks.iter().map(|chunk| chunk.bytes.capacity()).sum::<usize>()
    }

    /// Writes row `i` of `columns` to the record of `slots[i]`.
    pub(crate) fn write(&mut self, columns: &[ArrayRef], slots: &[u32]) {
        for slot in slots {
            self.open(*slot as usize);
        }
        let Self { columns: layout, width, chunks, .. } = self;
        let place = |slot: &u32| place(*slot as usize, *width);
        for (start, block) in (0..).step_by(BLOCK).zip(slots.chunks(BLOCK)) {
            for (column, array) in layout.iter().zip(columns) {
                let array = array.slice(start, block.len());
                match array.as_boolean_opt() {
                    Some(values) => {
                        for (slot, value) in block.iter().zip(values.values()) {
                            let (chunk, at) = place(slot);
                            chunks[chunk].bytes[at + column.offset] = u8::from(value);
                        }
                    }
                    None => {
                        let data = array.to_data();
                        let values = &data.buffers()[0].as_slice()[data.offset() * column.width..];
                        let places = block.iter().map(place);
                        match column.width {
                            1 => scatter::<1>(values, chunks, places, column.offset),
                            2 => scatter::<2>(values, chunks, places, column.offset),
                            4 => scatter::<4>(values, chunks, places, column.offset),
                            8 => scatter::<8>(values, chunks, places, column.offset),
                            16 => scatter::<16>(values, chunks, places, column.offset),
                            _ => scatter::<32>(values, chunks, places, column.offset),
                        }
                    }
                }
                if let Some(nulls) = array.nulls().filter(|nulls| nulls.null_count() > 0) {
                    for (slot, _) in block.iter().zip(nulls).filter(|(_, valid)| !valid) {
                        let (chunk, at) = place(slot);
                        chunks[chunk].bytes[at + column.mark.0] |= column.mark.1;
                    }
                }
            }
        }
    }

    /// Makes room for the record of a slot, which is in use from now on and has no NULL.
    fn open(&mut self, slot: usize) {
        let (chunk, at) = place(slot, self.width);
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, Chunk::default);
        }
        let Chunk { bytes, live } = &mut self.chunks[chunk];
        let end = at + self.width;
        if bytes.len() < end {
            if bytes.capacity() < end {
                let room = (2 * bytes.capacity()).min(CHUNK_SLOTS * self.width).max(end);
                bytes.reserve_exact(room - bytes.len());
            }
            bytes.resize(end, 0);
        }
        let marks = &mut bytes[at..at + self.marks];
        *live += usize::from(marks[0] & IN_USE == 0);
        marks.fill(0);
        marks[0] = IN_USE;
    }

    /// The columns of the records of `slots`, in their order.
    pub(crate) fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut values: Vec<MutableBuffer> =
            self.columns.iter().map(|column| MutableBuffer::from_len_zeroed(column.width * slots.len())).collect();
        let mut nulls: Vec<NullBufferBuilder> = self.columns.iter().map(|_| NullBufferBuilder::new(slots.len())).collect();
        for (start, block) in (0..).step_by(BLOCK).zip(slots.chunks(BLOCK)) {
            let records: Vec<&[u8]> = block.iter().map(|slot| self.record(*slot as usize)).collect();
            // All are asked for at once, so that the accesses to memory overlap; a record may lie in two cache lines.
            let ends = |record: &&[u8]| Some((*record.first()?, *record.last()?));
            let ends = records.iter().map(ends).fold((IN_USE, 0), |(all, any), ends| {
                let (first, last) = ends.unwrap_or_default();
                (all & first, any | last)
            });
            if std::hint::black_box(ends).0 == 0 {
                return Err(DataflowError::internal("a slot has no record"));
            }
            for (column, (values, nulls)) in self.columns.iter().zip(values.iter_mut().zip(&mut nulls)) {
                let values = &mut values.as_slice_mut()[start * column.width..];
                match column.width {
                    1 => collect::<1>(values, &records, column.offset),
                    2 => collect::<2>(values, &records, column.offset),
                    4 => collect::<4>(values, &records, column.offset),
                    8 => collect::<8>(values, &records, column.offset),
                    16 => collect::<16>(values, &records, column.offset),
                    _ => collect::<32>(values, &records, column.offset),
                }
                let (byte, bit) = column.mark;
                if records.iter().fold(0, |any, record| any | record[byte]) & bit == 0 {
                    nulls.append_n_non_nulls(block.len());
                } else {
                    records.iter().for_each(|record| nulls.append(record[byte] & bit == 0));
                }
            }
        }
        let arrays = self.columns.iter().zip(values.into_iter().zip(&mut nulls)).map(|(column, (values, nulls))| {
            let nulls = nulls.finish();
            if column.data_type == DataType::Boolean {
                let values = BooleanBuffer::from_iter(values.as_slice().iter().map(|value| *value != 0));
                return Ok(Arc::new(BooleanArray::new(values, nulls)) as ArrayRef);
            }
            let data = ArrayData::builder(column.data_type.clone()).len(slots.len()).add_buffer(values.into()).nulls(nulls);
            Ok(make_array(data.build()?))
        });
        arrays.collect()
    }

    /// The record of a slot; empty if there never was one.
    fn record(&self, slot: usize) -> &[u8] {
        let (chunk, at) = place(slot, self.width);
        self.chunks.get(chunk).and_then(|chunk| chunk.bytes.get(at..at + self.width)).unwrap_or_default()
    }

    /// Forgets the records of these slots, and gives up the memory of chunks that have none any more.
    pub(crate) fn remove(&mut self, slots: &[u32]) {
        for slot in slots {
            let (chunk, at) = place(*slot as usize, self.width);
            let Some(chunk) = self.chunks.get_mut(chunk) else { continue };
            let Some(mark) = chunk.bytes.get_mut(at).filter(|mark| **mark & IN_USE != 0) else { continue };
            *mark = 0;
            chunk.live -= 1;
            if chunk.live == 0 {
                *chunk = Chunk::default();
            }
        }
    }
}

/// The chunk of a slot, and where in its bytes the record begins.
fn place(slot: usize, width: usize) -> (usize, usize) {
    (slot / CHUNK_SLOTS, slot % CHUNK_SLOTS * width)
}

/// Writes values, each to the record at its place.
fn scatter<const WIDTH: usize>(values: &[u8], chunks: &mut [Chunk], places: impl Iterator<Item = (usize, usize)>, offset: usize) {
    let (values, _) = values.as_chunks::<WIDTH>();
    for ((chunk, at), value) in places.zip(values) {
        chunks[chunk].bytes[at + offset..at + offset + WIDTH].copy_from_slice(value);
    }
}

/// Reads the value of each record.
fn collect<const WIDTH: usize>(values: &mut [u8], records: &[&[u8]], offset: usize) {
    let (values, _) = values.as_chunks_mut::<WIDTH>();
    for (value, record) in values.iter_mut().zip(records) {
        value.copy_from_slice(&record[offset..offset + WIDTH]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::rng;
    use arrow::array::{Decimal128Array, Float64Array, Int16Array, Int64Array};
    use rand::Rng;
    use rand::rngs::SmallRng;
    use std::collections::BTreeMap;

    type Row = (Option<i64>, Option<bool>, Option<i128>, Option<i16>);

    fn some<T>(rng: &mut SmallRng, value: T) -> Option<T> {
        rng.random_bool(0.8).then_some(value)
    }

    fn columns(rows: &[Row]) -> Vec<ArrayRef> {
        let decimals = Decimal128Array::from_iter(rows.iter().map(|row| row.2)).with_precision_and_scale(38, 2).unwrap();
        vec![
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.1))),
            Arc::new(decimals),
            Arc::new(Int16Array::from_iter(rows.iter().map(|row| row.3))),
        ]
    }

    #[test]
    fn random_writes_and_removals_agree_with_a_map() {
        let types = [DataType::Int64, DataType::Boolean, DataType::Decimal128(38, 2), DataType::Int16];
        let mut records = SlotRecords::new(&types).unwrap();
        let mut rng = rng(5);
        let mut model: BTreeMap<u32, Row> = BTreeMap::new();
        for step in 0..300 {
            let count = if step % 50 == 0 { 3_000 } else { rng.random_range(1..40) };
            let mut slots: Vec<u32> = (0..count).map(|_| rng.random_range(0..50_000)).collect();
            slots.sort_unstable();
            slots.dedup();
            if step % 3 == 2 {
                slots.retain(|slot| model.remove(slot).is_some());
                records.remove(&slots);
            } else {
                let row = |rng: &mut SmallRng| {
                    let number: i64 = rng.random_range(-9..9);
                    (some(rng, number), some(rng, number > 0), some(rng, i128::from(number) << 70), some(rng, number as i16))
                };
                let rows: Vec<Row> = slots.iter().map(|_| row(&mut rng)).collect();
                // Slices begin where they begin.
                let spare: Vec<Row> = rows.iter().take(3).chain(&rows).copied().collect();
                let sliced: Vec<ArrayRef> = columns(&spare).iter().map(|column| column.slice(rows.len().min(3), rows.len())).collect();
                records.write(&sliced, &slots);
                model.extend(slots.into_iter().zip(rows));
            }
            let (slots, rows): (Vec<u32>, Vec<Row>) = model.iter().rev().unzip();
            assert_eq!(format!("{:?}", records.gather(&slots).unwrap()), format!("{:?}", columns(&rows)), "step {step}");
        }
        assert!(records.gather(&[model.keys().next().copied().unwrap(), 49_999_999]).is_err());
        records.remove(&model.into_keys().collect::<Vec<_>>());
        assert_eq!(records.bytes(), size_of::<Chunk>() * records.chunks.capacity());
        assert!(records.gather(&[0]).is_err());
    }

    #[test]
    fn many_columns_have_a_mark_each() {
        let types = vec![DataType::Float64; 20];
        let mut records = SlotRecords::new(&types).unwrap();
        let columns: Vec<ArrayRef> = (0..20)
            .map(|column| Arc::new(Float64Array::from_iter((0..3).map(|row| (row != column % 4).then_some(0.5)))) as ArrayRef)
            .collect();
        records.write(&columns, &[7, 20_000, 0]);
        assert_eq!(records.gather(&[7, 20_000, 0]).unwrap(), columns);
        assert!(SlotRecords::new(&[DataType::Int64, DataType::Utf8View]).is_none());
    }
}
