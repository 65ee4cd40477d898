//! Whether two results hold the same rows with the same multiplicities, whatever their order.
//!
//! Each row counts with the sum of a 128-bit hash of its canonical encoding, times its weight: equal sums and counts of
//! millions of rows mean equal multisets. Floating-point values are compared to twelve digits, since sums depend on order.

use super::queries::OutputMode;
use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use millstream_types::row_key::RowKeyEncoder;
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
    let types =
        target.map_or_else(|| common_types(&schema, &kept), |target| common_types(target, &(0..target.fields().len()).collect::<Vec<_>>()));
    anyhow::ensure!(types.len() == kept.len(), "the results have {} and {} columns", kept.len(), types.len());
    let columns: Vec<ArrayRef> = kept
        .iter()
        .zip(&types)
        .map(|(&index, data_type)| Ok(rounded(&cast(batch.column(index), data_type)?)))
        .collect::<anyhow::Result<_>>()?;
    let rows = RowKeyEncoder::new(types)?.encode(&columns)?;
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

/// One type for each kind of text, so that `VARCHAR` is `VARCHAR` however it is stored.
fn common_types(schema: &Schema, kept: &[usize]) -> Vec<DataType> {
    let common = |data_type: &DataType| match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Float32 => DataType::Float64,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            DataType::Int64
        }
        other => other.clone(),
    };
    kept.iter().map(|&index| common(schema.field(index).data_type())).collect()
}

fn rounded(column: &ArrayRef) -> ArrayRef {
    if column.data_type() != &DataType::Float64 {
        return Arc::clone(column);
    }
    let rounded: Float64Array = column.as_primitive::<Float64Type>().unary(|value| format!("{value:.11e}").parse().unwrap_or(value));
    Arc::new(rounded)
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

    #[test]
    fn the_last_digits_of_sums_do_not_count() {
        let column: ArrayRef = Arc::new(Float64Array::from(vec![0.1 + 0.2]));
        assert_eq!(rounded(&column).as_primitive::<Float64Type>().value(0), 0.3);
    }
}
