//! The file sinks: conformance, contents of every format, rolling, modes, recovery, ownership.

use super::*;
use crate::conformance::{self, SinkCase, append_epochs, sample_epochs, sample_schema};
use crate::sink::{CommittedFile, SinkCommit, SinkEpoch, TransactionalSink};
use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use futures::FutureExt;
use millstream_types::{Classified, DeltaBatch, Epoch, EventTime, Options};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

struct Place {
    directory: TempDir,
    schema: SchemaRef,
    mode: SinkMode,
    partition_by: Vec<String>,
    order_by: Vec<(String, bool)>,
    key: Vec<String>,
    event_time: Option<usize>,
    options: Vec<(String, String)>,
    scratch: bool,
    writer: u64,
    pipeline: String,
}

impl Place {
    fn new(schema: SchemaRef, mode: SinkMode, options: &[(&str, &str)]) -> Place {
        let options = options.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Place {
            directory: tempfile::tempdir().unwrap(),
            schema,
            mode,
            partition_by: Vec::new(),
            order_by: Vec::new(),
            key: Vec::new(),
            event_time: None,
            options,
            scratch: true,
            writer: 1,
            pipeline: "00c0ffee".into(),
        }
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    fn try_make(&self) -> Result<FileSink> {
        let mut options = self.options.clone();
        options.push(("path".into(), self.out().display().to_string()));
        let mut context = SinkContext {
            sink: "k".into(),
            schema: Arc::clone(&self.schema),
            partition_by: self.partition_by.clone(),
            order_by: self.order_by.clone(),
            key: self.key.clone(),
            mode: self.mode,
            event_time: self.event_time,
            pipeline: self.pipeline.clone(),
            writer: self.writer,
            scratch: self.scratch.then(|| self.directory.path().join("scratch")),
            options: Options::new("sink \"k\"", options),
        };
        let format = context.options.choice("format", FileFormat::CHOICES)?.unwrap();
        let sink = build(&mut context, format)?;
        context.options.finish()?;
        Ok(sink)
    }

    /// To take lines out, as if the writer had died before it wrote them.
    fn manifest(&self) -> manifest::ManifestLog {
        manifest::ManifestLog::open(&self.out().join("_millstream"), false).unwrap()
    }

    fn make(&self) -> FileSink {
        self.try_make().unwrap()
    }

    async fn opened(&self) -> FileSink {
        let mut sink = self.make();
        sink.open(None).await.unwrap();
        sink
    }

    /// Everything a reader that skips hidden names sees.
    fn visible(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        if self.out().exists() {
            list(&self.out(), "", &mut files, false);
        }
        files
    }

    fn hidden(&self) -> Vec<String> {
        let mut files = BTreeMap::new();
        list(&self.out(), "", &mut files, true);
        files.into_keys().filter(|name| name.ends_with(".tmp")).collect()
    }
}

fn list(path: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>, hidden: bool) {
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with('_') || (name.starts_with('.') && !hidden) || entry.file_type().unwrap().is_symlink() {
            continue;
        }
        let name = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            list(&entry.path(), &format!("{name}/"), files, hidden);
        } else {
            files.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

fn at(number: u64) -> SinkEpoch {
    SinkEpoch { epoch: Epoch(number), clock: EventTime(number as i64 * 1_000_000), roll: false }
}

fn rolling(number: u64) -> SinkEpoch {
    SinkEpoch { roll: true, ..at(number) }
}

async fn commit(sink: &mut FileSink, epoch: SinkEpoch, changes: &[DeltaBatch]) -> SinkCommit {
    sink.stage(epoch, changes).await.unwrap();
    let commit = sink.prepare(epoch).await.unwrap();
    sink.publish(&commit).await.unwrap();
    commit
}

fn numbers(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let values: Int64Array = values.into_iter().collect();
    let names: StringViewArray = values.values().iter().map(|value| Some(format!("name of number {value}"))).collect();
    RecordBatch::try_new(sample_schema(), vec![Arc::new(values), Arc::new(names)]).unwrap()
}

fn rows(values: impl IntoIterator<Item = i64>) -> Vec<DeltaBatch> {
    vec![DeltaBatch::insertions(numbers(values))]
}

fn read_parquet(bytes: &[u8]) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(bytes)).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<RecordBatch> = reader.build().unwrap().collect::<std::result::Result<_, _>>().unwrap();
    concat_batches(&schema, &batches).unwrap()
}

fn ids(batch: &RecordBatch) -> Vec<i64> {
    batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

fn text(files: &BTreeMap<String, Vec<u8>>, name: &str) -> String {
    String::from_utf8(files[name].clone()).unwrap()
}

async fn conform(place: &Place, epochs: Vec<Vec<DeltaBatch>>) {
    let make = || Box::new(place.make()) as Box<dyn TransactionalSink>;
    conformance::transactional_sink(SinkCase { make: &make, visible: &|| place.visible(), epochs }).await;
}

#[tokio::test]
async fn every_format_and_mode_conforms() {
    for format in ["parquet", "csv", "json", "arrow"] {
        for interval in ["0", "1 hour"] {
            for (mode, epochs) in
                [(SinkMode::Append, append_epochs()), (SinkMode::Changelog, sample_epochs()), (SinkMode::Complete, append_epochs())]
            {
                let mut place =
                    Place::new(sample_schema(), mode, &[("format", format), ("roll_interval", interval), ("row_group_rows", "2")]);
                if mode == SinkMode::Complete {
                    place.options.push(("keep_versions".into(), "3".into()));
                }
                conform(&place, epochs.clone()).await;
                place = Place { directory: tempfile::tempdir().unwrap(), partition_by: vec!["name".into()], ..place };
                conform(&place, epochs.clone()).await;
                place = Place { directory: tempfile::tempdir().unwrap(), order_by: vec![("id".into(), true)], ..place };
                conform(&place, epochs.clone()).await;
                place = Place { directory: tempfile::tempdir().unwrap(), scratch: false, ..place };
                conform(&place, epochs).await;
            }
        }
    }
}

#[tokio::test]
async fn a_row_of_weight_n_is_n_rows() {
    let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "csv"), ("roll_interval", "0")]);
    let mut sink = place.opened().await;
    for (index, changes) in append_epochs().iter().enumerate() {
        commit(&mut sink, at(index as u64 + 1), changes).await;
    }
    let files = place.visible();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["k-00c0ffee-1-1-0.csv", "k-00c0ffee-2-2-0.csv", "k-00c0ffee-3-3-0.csv"]);
    assert_eq!(text(&files, "k-00c0ffee-2-2-0.csv"), "id,name\n7,\n4,four\n4,four\n");
}

#[tokio::test]
async fn a_changelog_pairs_updates_of_a_key() {
    let changes = |rows: &[(i64, &str, i64)]| {
        let ids: Int64Array = rows.iter().map(|row| row.0).collect();
        let names = StringViewArray::from_iter_values(rows.iter().map(|row| row.1));
        let batch = RecordBatch::try_new(sample_schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap();
        vec![DeltaBatch::weighted(batch, rows.iter().map(|row| row.2).collect())]
    };
    let mixed = changes(&[(1, "old", -1), (3, "gone", -1), (1, "new", 1), (2, "first", 1), (4, "more", 2), (4, "less", -1)]);
    let mut place = Place::new(sample_schema(), SinkMode::Changelog, &[("format", "csv"), ("roll_interval", "0"), ("op_name", "change")]);
    place.key = vec!["id".into()];
    let mut sink = place.opened().await;
    commit(&mut sink, at(5), &mixed).await;
    let expected = "id,name,change,epoch\n1,old,-U,5\n1,new,+U,5\n3,gone,-D,5\n2,first,+I,5\n4,less,-U,5\n4,more,+U,5\n4,more,+I,5\n";
    assert_eq!(text(&place.visible(), "k-00c0ffee-5-5-0.csv"), expected);

    let place = Place { directory: tempfile::tempdir().unwrap(), key: Vec::new(), ..place };
    let mut sink = place.opened().await;
    commit(&mut sink, at(5), &mixed).await;
    let expected = "id,name,change,epoch\n1,old,-D,5\n3,gone,-D,5\n4,less,-D,5\n1,new,+I,5\n2,first,+I,5\n4,more,+I,5\n4,more,+I,5\n";
    assert_eq!(text(&place.visible(), "k-00c0ffee-5-5-0.csv"), expected);
}

#[tokio::test]
async fn parts_are_joined_into_one_file_of_row_groups() {
    let options = [("format", "parquet"), ("roll_interval", "1 hour"), ("row_group_rows", "100"), ("bloom_filter", "id")];
    let place = Place::new(sample_schema(), SinkMode::Append, &options);
    let mut sink = place.opened().await;
    for epoch in 0..7 {
        commit(&mut sink, at(epoch as u64 + 1), &rows(epoch * 50..epoch * 50 + 50)).await;
        assert!(place.visible().is_empty());
    }
    assert_eq!(sink.status().buffered_rows, 350);
    let buffered = sink.buffered().await.unwrap();
    assert_eq!(buffered.iter().map(RecordBatch::num_rows).sum::<usize>(), 350);
    let commit = commit(&mut sink, rolling(8), &[]).await;
    assert_eq!(commit.cause, "end");
    assert_eq!((commit.files[0].first_epoch, commit.files[0].last_epoch, commit.files[0].rows), (Epoch(1), Epoch(7), 350));
    let files = place.visible();
    let bytes = &files["k-00c0ffee-1-7-0.parquet"];
    assert_eq!(commit.files[0].bytes, bytes.len() as u64);
    assert_eq!(commit.files[0].crc32, crc32fast::hash(bytes));
    assert_eq!(read_parquet(bytes), numbers(0..350).with_schema(Arc::clone(read_parquet(bytes).schema_ref())).unwrap());
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(
        bytes::Bytes::copy_from_slice(bytes),
        ::parquet::arrow::arrow_reader::ArrowReaderOptions::new()
            .with_page_index_policy(::parquet::file::metadata::PageIndexPolicy::Required),
    )
    .unwrap();
    let metadata = reader.metadata();
    let groups: Vec<i64> = metadata.row_groups().iter().map(|group| group.num_rows()).collect();
    assert_eq!(groups, [100, 100, 100, 50]);
    assert_eq!(metadata.column_index().unwrap().len(), 4);
    assert!(metadata.row_groups()[1].column(0).bloom_filter_offset().is_some());
    let pairs = metadata.file_metadata().key_value_metadata().unwrap();
    assert!(pairs.iter().any(|pair| pair.key == "millstream.last_epoch" && pair.value.as_deref() == Some("7")));
    assert!(pairs.iter().any(|pair| pair.key == "ARROW:schema"));
    // Nothing referred to the parts, so none is left.
    assert_eq!(std::fs::read_dir(place.directory.path().join("scratch")).unwrap().count(), 0);
}

#[tokio::test]
async fn files_roll_by_size_rows_and_interval() {
    let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "csv"), ("roll_size", "2000"), ("row_group_rows", "50")]);
    let mut sink = place.opened().await;
    // Each part is about 1,200 bytes. The parts of epoch 1 are measured when epoch 2 ends.
    assert!(commit(&mut sink, at(1), &rows(0..120)).await.files.is_empty());
    let second = commit(&mut sink, at(2), &rows(120..130)).await;
    assert_eq!(second.cause, "size");
    let sizes: Vec<u64> = second.files.iter().map(|file| file.rows).collect();
    assert_eq!(sizes, [50, 80], "files end before a part would exceed the limit");
    assert_eq!(second.files[1].name, "k-00c0ffee-1-2-1.csv");

    let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "csv"), ("roll_rows", "100")]);
    let mut sink = place.opened().await;
    assert!(commit(&mut sink, at(1), &rows(0..60)).await.files.is_empty());
    let second = commit(&mut sink, at(2), &rows(60..210)).await;
    assert_eq!(second.cause, "rows");
    assert_eq!(second.files.iter().map(|file| file.rows).collect::<Vec<_>>(), [100, 100, 10]);

    let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "csv"), ("roll_interval", "5 seconds")]);
    let mut sink = place.opened().await;
    assert_eq!(sink.next_roll(), None);
    assert!(commit(&mut sink, at(3), &rows(0..1)).await.files.is_empty());
    assert_eq!(sink.next_roll(), Some(EventTime(8_000_000)));
    assert!(commit(&mut sink, at(7), &rows(1..2)).await.files.is_empty());
    let rolled = commit(&mut sink, at(8), &[]).await;
    assert_eq!((rolled.cause.as_str(), rolled.files.len(), sink.next_roll()), ("interval", 1, None));
    assert!(commit(&mut sink, at(20), &[]).await.files.is_empty(), "an empty epoch writes nothing");
}

#[tokio::test]
async fn partitions_are_directories_and_bounded() {
    let mut place = Place::new(sample_schema(), SinkMode::Append, &[("format", "parquet"), ("max_open_partitions", "2")]);
    place.partition_by = vec!["name".into()];
    let mut sink = place.opened().await;
    let named = |names: &[Option<&str>]| {
        let ids: Int64Array = (0..names.len() as i64).collect();
        let names: StringViewArray = names.iter().copied().collect();
        vec![DeltaBatch::insertions(RecordBatch::try_new(sample_schema(), vec![Arc::new(ids), Arc::new(names)]).unwrap())]
    };
    assert!(commit(&mut sink, at(1), &named(&[Some("a/b"), None, Some("a/b")])).await.files.is_empty());
    let second = commit(&mut sink, at(2), &named(&[Some("c"), None])).await;
    assert_eq!(second.cause, "partitions");
    assert_eq!(second.files[0].name, "name=a%2Fb/k-00c0ffee-1-1-0.parquet");
    assert_eq!(ids(&read_parquet(&place.visible()["name=a%2Fb/k-00c0ffee-1-1-0.parquet"])), [0, 2]);
    let buffered = sink.buffered().await.unwrap();
    let buffered = concat_batches(&buffered[0].schema(), &buffered).unwrap();
    assert_eq!(buffered.schema().field(1).name(), "name");
    assert_eq!(buffered.column(1).as_string_view().iter().filter(|name| name.is_none()).count(), 2);
    let state = sink.checkpoint().await.unwrap();
    drop(sink);
    let mut sink = place.make();
    sink.open(Some(state)).await.unwrap();
    let third = commit(&mut sink, rolling(3), &[]).await;
    let names: Vec<&str> = third.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["name=__HIVE_DEFAULT_PARTITION__/k-00c0ffee-1-2-0.parquet", "name=c/k-00c0ffee-2-2-0.parquet"]);
}

#[tokio::test]
async fn json_keeps_every_digit() {
    let fields = vec![
        Field::new("big", DataType::Int64, true),
        Field::new("price", DataType::Decimal128(20, 3), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("tz", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
        Field::new("f", DataType::Float64, true),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(i64::MAX), None])),
        Arc::new(Decimal128Array::from(vec![Some(12_345_678_901_234_567_890), None]).with_precision_and_scale(20, 3).unwrap()),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_000_001), Some(0)])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_120_000), None]).with_timezone("UTC")),
        Arc::new(Float64Array::from(vec![0.1, f64::NAN])),
    ];
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut place = Place::new(schema, SinkMode::Append, &[("format", "json"), ("roll_interval", "0")]);
    place.event_time = Some(2);
    let mut sink = place.opened().await;
    let commit = commit(&mut sink, at(1), &[DeltaBatch::insertions(batch)]).await;
    assert_eq!(commit.files[0].event_time, Some((0, 1_700_000_000_000_001)));
    let expected = concat!(
        r#"{"big":9223372036854775807,"price":12345678901234567.890,"at":"2023-11-14T22:13:20.000001Z","tz":"2023-11-14T22:13:20.120+00:00","f":0.1}"#,
        "\n",
        r#"{"big":null,"price":null,"at":"1970-01-01T00:00:00Z","tz":null,"f":null}"#,
        "\n"
    );
    assert_eq!(text(&place.visible(), "k-00c0ffee-1-1-0.json"), expected);
}

#[tokio::test]
async fn compressed_text_is_readable_across_parts() {
    use std::io::Read;
    let schema = Arc::new(Schema::new(vec![Field::new("line", DataType::Utf8View, true)]));
    let lines: StringViewArray = (0..10).map(|n| (n != 3).then(|| format!("line {n}"))).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(lines)]).unwrap();
    let options = [("format", "text"), ("compression", "gzip"), ("row_group_rows", "4"), ("file_name", "counts-{time_ms}.{ext}")];
    let place = Place::new(schema, SinkMode::Append, &options);
    let mut sink = place.opened().await;
    commit(&mut sink, rolling(2), &[DeltaBatch::insertions(batch)]).await;
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(place.visible()["counts-2000.txt.gz"].as_slice()).read_to_string(&mut text).unwrap();
    assert_eq!(text, "line 0\nline 1\nline 2\n\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n");
}

#[tokio::test]
async fn order_by_orders_each_file() {
    let options = [("format", "parquet"), ("row_group_rows", "3"), ("roll_interval", "1 hour")];
    let mut place = Place::new(sample_schema(), SinkMode::Append, &options);
    place.order_by = vec![("id".into(), true)];
    let mut sink = place.opened().await;
    commit(&mut sink, at(1), &rows([5, 1, 9, 4])).await;
    commit(&mut sink, rolling(2), &rows([7, 2])).await;
    let bytes = &place.visible()["k-00c0ffee-1-2-0.parquet"];
    assert_eq!(ids(&read_parquet(bytes)), [9, 7, 5, 4, 2, 1]);
}

#[tokio::test]
async fn complete_writes_versions_and_turns_the_pointer() {
    let place = Place::new(sample_schema(), SinkMode::Complete, &[("format", "parquet"), ("roll_interval", "2 seconds")]);
    let mut sink = place.opened().await;
    commit(&mut sink, at(1), &rows([1, 2])).await;
    assert_eq!(sink.buffered().await.unwrap().len(), 1);
    assert_eq!(sink.committed_files(), Some(vec![]));
    commit(&mut sink, at(2), &rows([1, 2, 3])).await;
    assert!(!place.out().join("current").exists());
    let third = commit(&mut sink, at(3), &[]).await;
    let read = |place: &Place| {
        let mut files = BTreeMap::new();
        list(&place.out().join("current").canonicalize().unwrap(), "", &mut files, false);
        files.values().flat_map(|bytes| ids(&read_parquet(bytes))).collect::<Vec<_>>()
    };
    assert_eq!(read(&place), [1, 2, 3]);
    assert_eq!(sink.committed_files().unwrap().len(), 1);
    commit(&mut sink, rolling(4), &[DeltaBatch::insertions(numbers([]))]).await;
    assert_eq!(read(&place), [] as [i64; 0], "an empty result is a version, too");
    commit(&mut sink, rolling(5), &rows([9])).await;
    assert_eq!(read(&place), [9]);
    let versions: Vec<String> = place.visible().into_keys().collect();
    assert_eq!(versions, ["v-4/k-00c0ffee-4-4-0.parquet", "v-5/k-00c0ffee-5-5-0.parquet"], "two versions are kept");
    // Recovery from the start neither brings removed versions back nor turns the pointer back.
    let mut again = place.opened().await;
    for (epoch, values) in [(at(1), vec![1, 2]), (at(2), vec![1, 2, 3])] {
        again.replay(epoch, &rows(values), &SinkCommit::default()).await.unwrap();
    }
    again.replay(at(3), &[], &third).await.unwrap();
    assert_eq!(read(&place), [9]);
    assert_eq!(place.visible().into_keys().collect::<Vec<_>>(), versions);
}

#[tokio::test]
async fn recovery_writes_the_same_bytes_again() {
    for format in ["parquet", "csv", "arrow"] {
        let options = [("format", format), ("roll_rows", "250"), ("row_group_rows", "40"), ("roll_interval", "1 hour")];
        let mut place = Place::new(sample_schema(), SinkMode::Append, &options);
        let mut sink = place.opened().await;
        let mut commits = Vec::new();
        let mut states = Vec::new();
        for epoch in 1..=9 {
            commits.push(commit(&mut sink, at(epoch), &rows(epoch as i64 * 100..epoch as i64 * 100 + 90)).await);
            states.push(sink.checkpoint().await.unwrap());
            let keep = states.len().saturating_sub(3);
            states[..keep].iter_mut().for_each(|state| *state = crate::sink::SinkCheckpoint::default());
        }
        drop(sink);
        let expected = place.visible();
        assert!(expected.len() >= 3);
        // From each of the last three checkpoints; the files of the epochs after it are lost.
        for from in [7, 8, 9] {
            place.writer += 1;
            for file in commits[from..].iter().flat_map(|commit| &commit.files) {
                std::fs::remove_file(place.out().join(&file.name)).unwrap();
            }
            place.manifest().cut_after(Epoch(from as u64)).unwrap();
            std::fs::write(place.out().join(".k-00c0ffee-7-99-0.csv.1.tmp"), "half").unwrap();
            let mut sink = place.make();
            sink.open(Some(states[from - 1].clone())).await.unwrap();
            for epoch in from as u64 + 1..=9 {
                let changes = rows(epoch as i64 * 100..epoch as i64 * 100 + 90);
                sink.replay(at(epoch), &changes, &commits[epoch as usize - 1]).await.unwrap();
            }
            sink.remove_orphans().await.unwrap();
            assert_eq!(place.visible(), expected, "{format} from epoch {from}");
            assert!(place.hidden().is_empty());
        }
        let listed: Vec<String> =
            read_manifest(&place.out()).unwrap().into_iter().flat_map(|entry| entry.files).map(|file| file.name).collect();
        assert_eq!(listed, expected.into_keys().collect::<Vec<_>>(), "the manifest lists each file once");
    }
}

#[tokio::test]
async fn parts_come_to_a_task_that_has_worked_for_long() {
    let options = [("format", "parquet"), ("row_group_rows", "10"), ("roll_interval", "1 hour")];
    let place = Place::new(sample_schema(), SinkMode::Append, &options);
    let mut sink = place.opened().await;
    commit(&mut sink, at(1), &rows(0..25)).await;
    // What a task waits for is only seen after it has let others run, once its budget is spent.
    while tokio::task::coop::has_budget_remaining() {
        let _ = tokio::task::coop::consume_budget().now_or_never();
    }
    assert_eq!(sink.buffered().await.unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 25);
    while tokio::task::coop::has_budget_remaining() {
        let _ = tokio::task::coop::consume_budget().now_or_never();
    }
    assert_eq!(sink.checkpoint().await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn parts_survive_as_long_as_a_checkpoint_may_refer_to_them() {
    let options = [("format", "parquet"), ("row_group_rows", "10"), ("roll_interval", "1 hour")];
    let place = Place::new(sample_schema(), SinkMode::Append, &options);
    let mut sink = place.opened().await;
    commit(&mut sink, at(1), &rows(0..25)).await;
    let parts = || std::fs::read_dir(place.directory.path().join("scratch")).unwrap().count();
    let state = sink.checkpoint().await.unwrap();
    assert_eq!(parts(), 2);
    let rolled = commit(&mut sink, rolling(2), &[]).await;
    sink.checkpoint().await.unwrap();
    assert_eq!(parts(), 2, "recovery may fall back one generation");
    let mut other = place.make();
    std::fs::remove_file(place.out().join(&rolled.files[0].name)).unwrap();
    place.manifest().cut_after(Epoch(1)).unwrap();
    other.open(Some(state)).await.unwrap();
    other.replay(rolling(2), &[], &rolled).await.unwrap();
    assert_eq!(crc32fast::hash(&place.visible()[&rolled.files[0].name]), rolled.files[0].crc32);
    for _ in 0..3 {
        sink.checkpoint().await.unwrap();
    }
    assert_eq!(parts(), 0);
}

#[tokio::test]
async fn files_ahead_of_the_log_stop_recovery_until_they_are_gone() {
    // With an unlisted file, too: its writer died before the manifest had its line.
    for is_listed in [true, false] {
        let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "parquet"), ("roll_interval", "1 hour")]);
        let mut sink = place.opened().await;
        commit(&mut sink, rolling(1), &rows(0..3)).await;
        commit(&mut sink, at(2), &rows(3..5)).await;
        let state = sink.checkpoint().await.unwrap();
        // The rows of epoch 2, rolled by an epoch that has none: the name does not tell it.
        let rolled = commit(&mut sink, rolling(3), &[]).await;
        let ahead = place.out().join(&rolled.files[0].name);
        assert!(rolled.files[0].name.contains("-2-2-0."));
        drop(sink);
        if !is_listed {
            place.manifest().cut_after(Epoch(2)).unwrap();
        }
        // The record of epoch 3 is lost.
        let mut sink = place.make();
        sink.open(Some(state.clone())).await.unwrap();
        let error = sink.check_published(Epoch(2)).await.unwrap_err();
        let expected = "holds output of epoch 3, and the log ends with epoch 2: its last records are damaged, or it is an older copy";
        assert!(error.to_string().ends_with(expected), "{error}");
        assert!(error.hint().unwrap().contains(&rolled.files[0].name), "{:?}", error.hint());
        assert_eq!(place.visible().len(), 2, "nothing is deleted");

        std::fs::remove_file(&ahead).unwrap();
        let mut sink = place.make();
        sink.open(Some(state)).await.unwrap();
        sink.check_published(Epoch(2)).await.unwrap();
        sink.remove_orphans().await.unwrap();
        assert_eq!(read_manifest(&place.out()).unwrap().len(), 1);
        commit(&mut sink, rolling(3), &rows(5..6)).await;
        assert_eq!(read_manifest(&place.out()).unwrap().last().unwrap().files[0].rows, 3, "the epochs write their rows again");
    }
}

#[tokio::test]
async fn a_look_from_outside_tells_what_is_wrong() {
    let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "parquet"), ("roll_interval", "1 hour")]);
    let look = |newest: u64| inspect(&place.out(), "k", "00c0ffee", Epoch(newest)).unwrap().unwrap();
    let mut sink = place.opened().await;
    let first = commit(&mut sink, rolling(1), &rows(0..3)).await;
    commit(&mut sink, at(2), &rows(3..5)).await;
    let state = sink.checkpoint().await.unwrap();
    commit(&mut sink, rolling(3), &[]).await;
    let found = look(3);
    assert_eq!((found.files, found.rows, found.removed), (2, 5, 0));
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert!(look(2).problems[0].starts_with("\"k-00c0ffee-2-2-0.parquet\" is ahead of the log, by epoch 3 where the log ends with 2"));
    drop(sink);

    // Written twice, as it happened before the start was refused.
    let mut sink = place.make();
    sink.open(Some(state)).await.unwrap();
    commit(&mut sink, rolling(4), &rows(5..6)).await;
    let problems = look(4).problems;
    assert!(
        problems[0].starts_with("rows of the epochs 2 to 2 are in \"k-00c0ffee-2-2-0.parquet\" and again in \"k-00c0ffee-2-4-0.parquet\"")
    );
    assert_eq!(problems.len(), 1);
    // Nor does it help that the manifest, which has each epoch once, does not list the second.
    place.manifest().cut_after(Epoch(3)).unwrap();
    assert_eq!(look(4).problems, problems);

    std::fs::remove_file(place.out().join("k-00c0ffee-2-2-0.parquet")).unwrap();
    std::fs::write(place.out().join(&first.files[0].name), "short").unwrap();
    let found = look(4);
    assert_eq!((found.files, found.removed), (1, 1));
    assert!(found.problems[0].contains("has 5 bytes, and") && found.problems.len() == 1, "{:?}", found.problems);
    assert!(inspect(&place.out(), "other", "00c0ffee", Epoch(4)).unwrap().is_none());
}

#[tokio::test]
async fn a_version_ahead_of_the_log_gives_way_to_the_one_before() {
    let options = [("format", "parquet"), ("roll_interval", "0")];
    let place = Place::new(sample_schema(), SinkMode::Complete, &options);
    let mut sink = place.opened().await;
    commit(&mut sink, at(1), &rows(0..3)).await;
    let state = sink.checkpoint().await.unwrap();
    commit(&mut sink, at(2), &rows(0..5)).await;
    drop(sink);
    let reopened = async || {
        let mut sink = place.make();
        sink.open(Some(state.clone())).await.unwrap();
        sink
    };
    let error = reopened().await.check_published(Epoch(1)).await.unwrap_err();
    assert!(error.hint().unwrap().contains("\"current\", \"v-2/k-00c0ffee-2-2-0.parquet\""), "{:?}", error.hint());
    std::fs::remove_dir_all(place.out().join("v-2")).unwrap();
    let mut sink = reopened().await;
    sink.check_published(Epoch(1)).await.unwrap();
    sink.remove_orphans().await.unwrap();
    assert_eq!(version::current(&place.out()).unwrap(), Some(Epoch(1)));
    commit(&mut sink, at(2), &rows(0..4)).await;
    assert_eq!(version::current(&place.out()).unwrap(), Some(Epoch(2)));
}

#[tokio::test]
async fn published_files_that_somebody_removed_stay_away() {
    for (everything, only_the_marker) in [(false, false), (true, false), (false, true)] {
        let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "parquet"), ("roll_interval", "0")]);
        let mut sink = place.opened().await;
        commit(&mut sink, at(1), &rows(0..3)).await;
        let state = sink.checkpoint().await.unwrap();
        let second = commit(&mut sink, at(2), &rows(3..5)).await;
        let third = commit(&mut sink, at(3), &rows(5..6)).await;
        drop(sink);
        if everything {
            std::fs::remove_dir_all(place.out()).unwrap();
        } else {
            std::fs::remove_file(place.out().join(&second.files[0].name)).unwrap();
        }
        if only_the_marker {
            std::fs::remove_dir_all(place.out().join("_millstream")).unwrap();
        }
        let left = if everything { BTreeMap::new() } else { place.visible() };
        // Twice: the second recovery finds what the first one wrote to the manifest.
        for _ in 0..2 {
            let mut sink = place.make();
            sink.open(Some(state.clone())).await.unwrap();
            sink.replay(at(2), &rows(3..5), &second).await.unwrap();
            sink.replay(at(3), &rows(5..6), &third).await.unwrap();
            sink.check_published(Epoch(3)).await.unwrap();
            sink.remove_orphans().await.unwrap();
            assert_eq!(place.visible(), left);
        }
    }
}

#[tokio::test]
async fn files_are_never_replaced() {
    let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "csv"), ("roll_interval", "0")]);
    let mut sink = place.opened().await;
    std::fs::write(place.out().join("k-00c0ffee-1-1-0.csv"), "mine").unwrap();
    sink.stage(at(1), &rows(0..3)).await.unwrap();
    let commit = sink.prepare(at(1)).await.unwrap();
    let error = sink.publish(&commit).await.unwrap_err();
    assert!(error.to_string().contains("exists with other content"), "{error}");
    assert_eq!(text(&place.visible(), "k-00c0ffee-1-1-0.csv"), "mine");
}

#[tokio::test]
async fn directories_of_others_are_refused() {
    let mut place = Place::new(sample_schema(), SinkMode::Append, &[("format", "csv"), ("roll_interval", "0")]);
    std::fs::create_dir_all(place.out().join("day=1")).unwrap();
    std::fs::write(place.out().join("day=1/theirs.csv"), "a\n1\n").unwrap();
    let error = place.make().open(None).await.unwrap_err();
    assert!(error.to_string().contains("did not write"), "{error}");
    assert!(error.hint().unwrap().contains("on_existing"));

    place.options.push(("on_existing".into(), "append".into()));
    let mut sink = place.opened().await;
    commit(&mut sink, at(1), &rows(0..3)).await;
    assert_eq!(place.visible().len(), 2);
    drop(sink);

    // Another pipeline: refused, then beside it, then instead of it.
    let options = std::mem::take(&mut place.options);
    place.options = options[..2].to_vec();
    place.pipeline = "0badcafe".into();
    let error = place.make().open(None).await.unwrap_err();
    assert!(error.to_string().contains("belongs to sink \"k\" of pipeline 00c0ffee"), "{error}");
    place.options = options[..2].to_vec();
    place.options.push(("on_existing".into(), "append".into()));
    let mut sink = place.opened().await;
    commit(&mut sink, at(1), &rows(0..3)).await;
    assert_eq!(sink.committed_files().unwrap().len(), 1);
    assert_eq!(place.visible().len(), 3);
    drop(sink);
    place.options[2].1 = "replace".into();
    place.pipeline = "12345678".into();
    let mut sink = place.opened().await;
    assert!(place.visible().is_empty());
    commit(&mut sink, at(1), &rows(0..3)).await;
    drop(sink);
    place.opened().await;
    assert_eq!(place.visible().len(), 1, "a restart replaces nothing");

    // Other columns.
    place.options.truncate(2);
    place.schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
    let error = place.make().open(None).await.unwrap_err();
    assert!(error.to_string().contains("the columns (id Int64), which differ from those (id Int64, name Utf8)"), "{error}");
}

#[tokio::test]
async fn the_manifest_goes_on_in_another_file() {
    let place = Place::new(sample_schema(), SinkMode::Append, &[("format", "csv"), ("roll_interval", "0")]);
    place.opened().await;
    let home = place.out().join("_millstream");
    let mut log = manifest::ManifestLog::open(&home, false).unwrap();
    let file = |epoch: u64| CommittedFile {
        name: format!("f-{epoch}"),
        temporary: String::new(),
        rows: 1,
        bytes: 1,
        crc32: 1,
        first_epoch: Epoch(epoch),
        last_epoch: Epoch(epoch),
        event_time: None,
    };
    let entry = |epoch: u64| ManifestEntry { epoch: Epoch(epoch), version: None, files: vec![(&file(epoch)).into()] };
    for epoch in 1..=2500 {
        log.append(&entry(epoch)).unwrap();
    }
    assert!(home.join("manifest-2").exists() && !home.join("manifest-3").exists());
    // A torn line is cut off and written again.
    let path = home.join("manifest-2");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    let mut log = manifest::ManifestLog::open(&home, false).unwrap();
    assert_eq!(log.last_epoch, Some(Epoch(2499)));
    log.append(&entry(2499)).unwrap();
    log.append(&entry(2500)).unwrap();
    let entries = read_manifest(&place.out()).unwrap();
    assert_eq!(entries.len(), 2500);
    assert!(entries.windows(2).all(|pair| pair[0].epoch < pair[1].epoch));
}

#[test]
fn definitions_that_cannot_work_are_refused() {
    let fails = |place: Place| place.try_make().unwrap_err();
    let parquet: [(&str, &str); 1] = [("format", "parquet")];
    let error = fails(Place::new(sample_schema(), SinkMode::Upsert, &parquet));
    assert!(error.to_string().contains("mode 'upsert'") && error.hint().unwrap().contains("'changelog'"));
    let error = fails(Place::new(sample_schema(), SinkMode::Append, &[("format", "text")]));
    assert!(error.to_string().contains("needs one VARCHAR column"), "{error}");
    let error = fails(Place::new(sample_schema(), SinkMode::Append, &[("format", "parquet"), ("header", "true")]));
    assert!(error.to_string().contains("unknown option \"header\""), "{error}");
    let error = fails(Place::new(sample_schema(), SinkMode::Append, &[("format", "parquet"), ("roll_rows", "0")]));
    assert!(error.to_string().contains("at least 1"), "{error}");
    let error = fails(Place { partition_by: vec!["nmae".into()], ..Place::new(sample_schema(), SinkMode::Append, &parquet) });
    assert_eq!(error.hint().unwrap(), "Did you mean \"name\"?");
    let error = fails(Place { partition_by: vec!["id".into(), "name".into()], ..Place::new(sample_schema(), SinkMode::Append, &parquet) });
    assert!(error.to_string().contains("nothing is left"), "{error}");
    let schema = Arc::new(Schema::new(vec![Field::new("op", DataType::Int64, true)]));
    let error = fails(Place::new(schema, SinkMode::Changelog, &parquet));
    assert!(error.hint().unwrap().contains("op_name"), "{error}");
}
