//! A row group whose columns are encoded by several threads.
//!
//! ```text
//!   id, ts ──► thread 0 ──►┐
//!                          ├─► appended in order
//!   name   ──► thread 1 ──►┘
//! ```
//! For the rows that are left when a file is rolled: the end of a run waits for them. Full parts are encoded beside each other already. The
//! bytes are those that one thread makes.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use millstream_types::cores;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, compute_leaves};
use parquet::errors::{ParquetError, Result};
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// A thread is not worth its start for fewer rows.
const ROWS_MIN: usize = 16 * 1024;

/// How many threads should encode the columns of these rows.
pub(super) fn threads_for(schema: &Schema, rows: &[RecordBatch]) -> usize {
    match rows.iter().map(RecordBatch::num_rows).sum::<usize>() {
        ROWS_MIN.. => cores().min(schema.fields().len()).max(1),
        _ => 1,
    }
}

/// Writes the rows as the one row group of a file.
pub(super) fn encode<W: Write + Send>(writer: ArrowWriter<W>, schema: &Schema, rows: &[RecordBatch], threads: usize) -> Result<()> {
    let (mut file, factory) = writer.into_serialized_writer()?;
    // By column of the rows: the writers of its leaves.
    let mut columns: Vec<(usize, Vec<ArrowColumnWriter>)> = (0..schema.fields().len()).map(|column| (column, vec![])).collect();
    for (leaf, writer) in factory.create_column_writers(0)?.into_iter().enumerate() {
        columns[file.schema_descr().get_column_root_idx(leaf)].1.push(writer);
    }
    let waiting = Mutex::new(columns);
    let work = || {
        let mut done = vec![];
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some((column, leaves)) = next() {
            done.push((column, encode_column(schema, rows, column, leaves)));
        }
        done
    };
    let mut chunks = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().map_err(|_| ParquetError::General("a thread that encoded columns ended early".into()))?);
        }
        Ok::<_, ParquetError>(done)
    })?;
    chunks.sort_by_key(|(column, _)| *column);
    let mut group = file.next_row_group()?;
    for (_, leaves) in chunks {
        leaves?.into_iter().try_for_each(|leaf| leaf.append_to_row_group(&mut group))?;
    }
    group.close()?;
    file.close().map(drop)
}

fn encode_column(
    schema: &Schema,
    rows: &[RecordBatch],
    column: usize,
    mut leaves: Vec<ArrowColumnWriter>,
) -> Result<Vec<ArrowColumnChunk>> {
    for batch in rows.iter().filter(|batch| batch.num_rows() > 0) {
        let values = compute_leaves(schema.field(column), batch.column(column))?;
        leaves.iter_mut().zip(&values).try_for_each(|(writer, leaf)| writer.write(leaf))?;
    }
    leaves.into_iter().map(ArrowColumnWriter::close).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, ListArray, StringViewArray, StructArray};
    use arrow::datatypes::Int64Type;
    use parquet::file::properties::WriterProperties;
    use std::sync::Arc;

    fn rows(from: i64, count: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
        let names: ArrayRef = Arc::new(StringViewArray::from_iter((from..from + count).map(|n| (n % 3 > 0).then(|| format!("name {n}")))));
        let lists = (from..from + count).map(|n| (n % 5 > 0).then(|| (0..n % 4).map(Some).collect::<Vec<_>>()));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists));
        let both: ArrayRef = Arc::new(StructArray::try_from(vec![("number", Arc::clone(&numbers)), ("name", Arc::clone(&names))]).unwrap());
        RecordBatch::try_from_iter_with_nullable([
            ("number", numbers, false),
            ("name", names, true),
            ("list", lists, true),
            ("both", both, true),
        ])
        .unwrap()
    }

    #[test]
    fn threads_make_the_bytes_that_one_makes() {
        let batches = [rows(0, 10_000), rows(0, 0), rows(7, 10_000)];
        let schema = batches[0].schema();
        let properties = WriterProperties::builder().set_bloom_filter_enabled(true).build();
        let mut expected = Vec::new();
        let mut one = ArrowWriter::try_new(&mut expected, Arc::clone(&schema), Some(properties.clone())).unwrap();
        batches.iter().for_each(|batch| one.write(batch).unwrap());
        one.close().unwrap();
        for threads in [1, 2, 9] {
            let mut found = Vec::new();
            let writer = ArrowWriter::try_new(&mut found, Arc::clone(&schema), Some(properties.clone())).unwrap();
            encode(writer, &schema, &batches, threads).unwrap();
            assert!(found == expected, "{threads} threads");
        }
        assert_eq!(threads_for(&schema, &batches), cores().min(4));
        assert_eq!(threads_for(&schema, &batches[..1]), 1);
    }
}
