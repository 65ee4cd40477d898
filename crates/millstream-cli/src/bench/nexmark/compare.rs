//! Whether two results hold the same rows with the same multiplicities, whatever their order.
//!
//! Each row counts with the sum of a 128-bit hash of its canonical encoding, times its weight: equal sums and counts of
//! millions of rows mean equal multisets.

use super::queries::OutputMode;
use crate::canonical::Canonical;
use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// A multiset of rows, boiled down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Fingerprint {
    rows: i64,
    sum: u128,
}

/// Compares the files of a sink with one Parquet file.
///
/// # Errors
/// When a file cannot be read, or the columns differ.
pub(crate) fn agree(sink: &Path, file: &Path, output: OutputMode) -> anyhow::Result<bool> {
    let expected = fingerprint(std::slice::from_ref(&file.to_path_buf()), false, None)?;
    let schema = ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.schema().clone();
    let found = fingerprint(&parquet_files(sink)?, output == OutputMode::Changelog, Some(&schema))?;
    Ok(expected == found)
}

fn parquet_files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(['.', '_']));
        if !hidden && path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn fingerprint(files: &[PathBuf], changelog: bool, target: Option<&SchemaRef>) -> anyhow::Result<Fingerprint> {
    let mut result = Fingerprint::default();
    for file in files {
        for batch in ParquetRecordBatchReaderBuilder::try_new(File::open(file)?)?.build()? {
            add(&mut result, &batch?, changelog, target)?;
        }
    }
    Ok(result)
}

fn add(result: &mut Fingerprint, batch: &RecordBatch, changelog: bool, target: Option<&SchemaRef>) -> anyhow::Result<()> {
    let schema = batch.schema();
    let ops = if changelog { Some(cast(batch.column(schema.index_of("op")?), &DataType::Utf8)?) } else { None };
    let ops: Option<&StringArray> = ops.as_ref().map(|ops| ops.as_string());
    let kept: Vec<usize> =
        (0..schema.fields().len()).filter(|&index| !(changelog && matches!(schema.field(index).name().as_str(), "op" | "epoch"))).collect();
    let kept_schema = Arc::new(schema.project(&kept)?);
    let columns: Vec<ArrayRef> = kept.iter().map(|&index| Arc::clone(batch.column(index))).collect();
    let canonical = Canonical::new(target.unwrap_or(&kept_schema))?;
    let rows = canonical.encode(&canonical.columns(&columns)?)?;
    for index in 0..batch.num_rows() {
        let taken_back = ops.is_some_and(|ops| ops.value(index).starts_with('-'));
        let hash = xxh3_128(rows.row(index).as_ref());
        if taken_back {
            result.rows -= 1;
            result.sum = result.sum.wrapping_sub(hash);
        } else {
            result.rows += 1;
            result.sum = result.sum.wrapping_add(hash);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray};

    fn batch(rows: &[(&str, i64)], ops: Option<&[&str]>) -> RecordBatch {
        let words: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows.iter().map(|(word, _)| *word)));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, n)| *n)));
        let mut columns = vec![("word", words), ("n", numbers)];
        if let Some(ops) = ops {
            columns.push(("op", Arc::new(StringArray::from(ops.to_vec()))));
        }
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn of(batches: &[RecordBatch], changelog: bool) -> Fingerprint {
        let mut result = Fingerprint::default();
        batches.iter().for_each(|batch| add(&mut result, batch, changelog, None).unwrap());
        result
    }

    #[test]
    fn order_does_not_matter_and_multiplicity_does() {
        let one = of(&[batch(&[("a", 1), ("b", 2), ("b", 2)], None)], false);
        assert_eq!(one, of(&[batch(&[("b", 2)], None), batch(&[("b", 2), ("a", 1)], None)], false));
        assert_ne!(one, of(&[batch(&[("a", 1), ("b", 2)], None)], false));
        assert_ne!(one, of(&[batch(&[("a", 1), ("a", 1), ("b", 2)], None)], false));
    }

    #[test]
    fn a_changelog_adds_up_to_its_rows() {
        let log = batch(&[("a", 1), ("a", 1), ("a", 2)], Some(&["+I", "-U", "+U"]));
        assert_eq!(of(&[log], true), of(&[batch(&[("a", 2)], None)], false));
    }
}
