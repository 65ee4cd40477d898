//! Tests of the `files` source: what is taken when, that a range yields the same rows again, and every kind of bad input.

use super::*;
use crate::ConnectorError;
use crate::source::{DEFAULT_EPOCH_BYTES, EpochLimits, ExpectedTimes, ReadRequest, Reader};
use ::arrow::array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use ::arrow::datatypes::{Field, Schema, SchemaRef};
use ::arrow::util::display::{ArrayFormatter, FormatOptions as Display};
use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use futures::TryStreamExt;
use millstream_types::{Classified, Clock, ErrorKind, EventTime, ManualClock, Offset, Options, PartitionRange};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

pub(super) struct Place {
    dir: TempDir,
    clock: Arc<ManualClock>,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), clock: Arc::new(ManualClock::new(EventTime(946_684_800_000_000))) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file whose modification time is `second`.
    fn write(&self, name: &str, second: u64, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        self.touch(name, second);
    }

    fn touch(&self, name: &str, second: u64) {
        set_modified(&self.path(name), second);
    }

    fn append(&self, name: &str, second: u64, content: &str) {
        fs::OpenOptions::new().append(true).open(self.path(name)).unwrap().write_all(content.as_bytes()).unwrap();
        self.touch(name, second);
    }

    pub(super) fn context(&self, path: &str, columns: &SchemaRef, more: &[(&str, &str)]) -> SourceContext {
        let path = self.path(path).to_str().unwrap().to_string();
        let pairs = more.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        SourceContext {
            stream: "s".into(),
            schema: Arc::clone(columns),
            metadata: Vec::new(),
            event_time: columns.index_of("ts").is_ok().then(|| "ts".into()),
            options: Options::new("stream \"s\"", pairs.chain([("path".to_string(), path)])),
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
        }
    }

    fn source(&self, path: &str, columns: &SchemaRef, more: &[(&str, &str)]) -> Box<dyn Source> {
        let mut context = self.context(path, columns, more);
        let source = create(&mut context).unwrap();
        context.options.finish().unwrap();
        source
    }

    async fn open(&self, path: &str, columns: &SchemaRef, more: &[(&str, &str)]) -> Box<dyn Source> {
        let mut source = self.source(path, columns, more);
        source.open(None, &[]).await.unwrap();
        source
    }

    pub(super) fn limits(&self) -> EpochLimits {
        let clock = self.clock.now();
        EpochLimits { max_rows: None, max_bytes: DEFAULT_EPOCH_BYTES, max_files: 1_000, clock, draining: false, until: None }
    }

    fn draining(&self) -> EpochLimits {
        EpochLimits { draining: true, ..self.limits() }
    }

    async fn plan(&self, source: &mut Box<dyn Source>) -> Option<PartitionRange> {
        source.plan(&self.limits()).await.unwrap().map(|mut ranges| ranges.remove(0))
    }

    /// Plans and reads.
    async fn rows(&self, source: &mut Box<dyn Source>) -> Vec<String> {
        match self.plan(source).await {
            Some(range) => read(source, &range).await,
            None => vec!["nothing".into()],
        }
    }

    pub(super) fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

fn set_modified(path: &Path, second: u64) {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(second);
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn columns(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), true)).collect::<Vec<_>>()))
}

pub(super) fn n() -> SchemaRef {
    columns(&[("n", DataType::Int64)])
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

async fn read_with(source: &dyn Source, range: &PartitionRange, request: ReadRequest) -> Result<Vec<String>> {
    read_from(source.reader().as_ref(), range, request).await
}

async fn read_from(reader: &dyn Reader, range: &PartitionRange, request: ReadRequest) -> Result<Vec<String>> {
    let batches: Vec<_> = reader.read(range.clone(), request).await?.try_collect().await?;
    let mut rows = Vec::new();
    for batch in batches {
        let mut offsets = batch.rows.clone().unwrap_or_else(|| (batch.first_row..).take(batch.batch.num_rows()).collect()).into_iter();
        assert!(batch.batch.num_rows() > 0 || !batch.bad.is_empty() || batch.rows.is_none());
        for row in 0..batch.batch.num_rows() {
            let values: Vec<String> = batch
                .batch
                .columns()
                .iter()
                .map(|column| {
                    ArrayFormatter::try_new(column.as_ref(), &Display::default().with_null("NULL")).unwrap().value(row).to_string()
                })
                .collect();
            rows.push(format!("{}:{} {}", batch.sequence, offsets.next().unwrap(), values.join(" ")));
        }
        for bad in batch.bad {
            let place = bad.place.rsplit('/').next().unwrap();
            rows.push(format!("{} bad {place} {}", bad.offset, bad.reason));
        }
    }
    Ok(rows)
}

fn small() -> ReadRequest {
    ReadRequest { projection: None, batch_size: 3, ..ReadRequest::default() }
}

/// Reads a range twice, in batches of different size, and checks that the rows are the same.
pub(super) async fn read(source: &mut Box<dyn Source>, range: &PartitionRange) -> Vec<String> {
    let rows = read_with(source.as_ref(), range, small()).await.unwrap();
    let again =
        read_with(source.as_ref(), range, ReadRequest { projection: None, batch_size: 8_192, ..ReadRequest::default() }).await.unwrap();
    let sorted = |rows: &[String]| {
        let mut rows = rows.to_vec();
        rows.sort();
        rows
    };
    assert_eq!(sorted(&again), sorted(&rows));
    rows
}

fn numbers(range: std::ops::Range<i64>) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, true), Field::new("s", DataType::Utf8, true)]));
    let names: Vec<String> = range.clone().map(|n| format!("s{n}")).collect();
    let array: ArrayRef = Arc::new(Int32Array::from_iter_values(range.map(|n| n as i32)));
    RecordBatch::try_new(schema, vec![array, Arc::new(StringArray::from(names))]).unwrap()
}

fn parquet_bytes(batch: &RecordBatch, group_rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes
}

fn number_and_text() -> SchemaRef {
    columns(&[("n", DataType::Int64), ("s", DataType::Utf8View)])
}

#[tokio::test]
async fn takes_files_once_in_order() {
    let place = Place::new();
    place.write("in/b.csv", 1, "n\n1\n2\n");
    place.write("in/a.csv", 2, "n\n3\n");
    for name in ["in/.hidden.csv", "in/_SUCCESS", "in/c.csv.tmp", "in/d.csv.inprogress", "in/sub/e.csv"] {
        place.write(name, 0, "n\n9\n");
    }
    let mut source = place.open("in", &n(), &[("format", "csv")]).await;
    assert_eq!(source.backlog().await.unwrap().files, Some(2));
    assert_eq!(place.rows(&mut source).await, ["0:0 1", "0:1 2", "1:0 3"]);
    assert_eq!(place.rows(&mut source).await, ["nothing"]);
    let mut by_name = place.open("in", &n(), &[("format", "csv"), ("order", "name"), ("recursive", "true")]).await;
    assert_eq!(place.rows(&mut by_name).await, ["0:0 3", "1:0 1", "1:1 2", "2:0 9"]);
    let mut glob = place.open("in/*/*.csv", &n(), &[]).await;
    assert_eq!(place.rows(&mut glob).await, ["0:0 9"]);
    let mut directories = place.open("i*", &n(), &[("format", "csv"), ("max_files_per_epoch", "1")]).await;
    assert_eq!(place.rows(&mut directories).await, ["0:0 1", "0:1 2"]);
    assert_eq!(place.rows(&mut directories).await, ["1:0 3"]);
    let mut single = place.open("in/a.csv", &n(), &[]).await;
    assert_eq!(place.rows(&mut single).await, ["0:0 3"]);
}

#[tokio::test]
async fn settles_new_text_files() {
    let place = Place::new();
    place.write("in/a.csv", 1, "n\n1\n");
    let mut source = place.open("in", &n(), &[("format", "csv")]).await;
    assert_eq!(place.rows(&mut source).await, ["0:0 1"]);
    place.write("in/b.csv", 2, "n\n2\n");
    // Not listed yet, then listed, then written to again, then at rest for two seconds.
    for (seconds, change) in [(0, false), (1, false), (1, true), (1, false)] {
        place.advance(seconds);
        if change {
            place.append("in/b.csv", 3, "3\n");
        }
        assert_eq!(place.rows(&mut source).await, ["nothing"]);
        assert_eq!(source.backlog().await.unwrap().files, Some(0));
        assert!(source.backlog().await.unwrap().next_due.is_some());
    }
    place.advance(1);
    assert_eq!(source.backlog().await.unwrap().files, Some(1));
    assert_eq!(place.rows(&mut source).await, ["1:0 2", "1:1 3"]);
    // Draining does not wait.
    place.write("in/c.csv", 4, "n\n4");
    source.mark_end().await.unwrap();
    place.write("in/d.csv", 5, "n\n5");
    let range = source.plan(&place.draining()).await.unwrap().unwrap().remove(0);
    assert_eq!(read(&mut source, &range).await, ["2:0 4"]);
    assert_eq!(source.plan(&place.draining()).await.unwrap(), None);
}

#[tokio::test]
async fn resumes_and_replays() {
    let place = Place::new();
    for file in 0..5 {
        place.write(&format!("in/{file}.json"), file, format!("{{\"n\":{file}}}\n{{\"n\":\"x\"}}\n"));
    }
    let options = [("format", "json"), ("max_files_per_epoch", "2")];
    let mut source = place.open("in", &n(), &options).await;
    let first = place.plan(&mut source).await.unwrap();
    let position = source.position();
    let second = place.plan(&mut source).await.unwrap();
    let (first_rows, second_rows) = (read(&mut source, &first).await, read(&mut source, &second).await);
    assert_eq!(first_rows[..2], ["0:0 0", "0:1 bad 0.json:2 column \"n\": 'x' is not a valid BIGINT"]);
    assert_eq!((second.range.start.sequence, second.range.end.sequence), (2, 4));
    let third = place.rows(&mut source).await;

    // From the checkpoint and the log, from the log alone, and from a later checkpoint.
    let position_after = source.position();
    for (position, replayed, expected) in [
        (Some(position), vec![second.clone()], third.clone()),
        (None, vec![first.clone(), second.clone()], third),
        (Some(position_after), vec![], vec!["nothing".to_string()]),
    ] {
        let position = position.map(|position| serde_json::from_str(&position.to_string()).unwrap());
        let mut again = place.source("in", &n(), &options);
        again.open(position, &replayed).await.unwrap();
        assert_eq!(read(&mut again, &first).await, first_rows);
        assert_eq!(read(&mut again, &second).await, second_rows);
        assert_eq!(place.rows(&mut again).await, expected);
    }
    let error = place.source("in", &n(), &options).open(Some(serde_json::json!({"next": 1})), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn cuts_large_files_at_records() {
    let place = Place::new();
    let rows: String = (0..100).map(|n| format!("{n},\"line\nend {n}\"\n")).collect();
    place.write("in/a.csv", 1, format!("n,s\n{rows}"));
    place.write("in/b.csv", 2, "n,s\n100,x\n");
    let path = place.path("in/c.csv.gz");
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
    encoder.write_all(b"n,s\n101,y\n102,z\n").unwrap();
    encoder.finish().unwrap();
    set_modified(&path, 3);
    let mut source = place.open("in", &number_and_text(), &[("format", "csv"), ("on_change", "fail")]).await;
    let whole = place.plan(&mut source).await.unwrap();
    let expected: Vec<String> = read(&mut source, &whole).await;
    assert_eq!(expected.len(), 103);
    for limits in [
        EpochLimits { max_bytes: 400, ..place.limits() },
        EpochLimits { max_rows: Some(7), ..place.limits() },
        EpochLimits { max_bytes: 1, ..place.limits() },
    ] {
        let mut source = place.open("in", &number_and_text(), &[("format", "csv")]).await;
        let mut rows = Vec::new();
        let mut end = Offset::default();
        let mut epochs = 0;
        while let Some(mut ranges) = source.plan(&limits).await.unwrap() {
            let range = ranges.remove(0);
            assert_eq!(range.range.start, end);
            end = range.range.end;
            epochs += 1;
            let part = read(&mut source, &range).await;
            assert!(limits.max_rows.is_none_or(|max| part.len() as u64 <= max));
            rows.extend(part);
            // Every epoch after a restart.
            let position = source.position();
            source = place.source("in", &number_and_text(), &[("format", "csv")]);
            source.open(Some(position), &[]).await.unwrap();
        }
        assert!(epochs >= 4, "{epochs}");
        assert_eq!(rows, expected);
    }
    let mut whole_files = place.open("in", &number_and_text(), &[("format", "csv"), ("max_files_per_epoch", "1")]).await;
    let range = whole_files.plan(&EpochLimits { max_bytes: 1, ..place.limits() }).await.unwrap().unwrap().remove(0);
    assert_eq!(read(&mut whole_files, &range).await.len(), 100);
}

#[tokio::test]
async fn follows_files_that_grow() {
    let place = Place::new();
    place.write("in/log.txt", 1, "one\ntw");
    let line = columns(&[("line", DataType::Utf8View)]);
    let mut context = place.context("in", &line, &[("format", "text")]);
    context.metadata = vec![("row_number".into(), "number".into()), ("name".into(), "name".into())];
    let mut source = create(&mut context).unwrap();
    source.open(None, &[]).await.unwrap();
    // The unterminated line may still be in the writing.
    let first = place.plan(&mut source).await.unwrap();
    assert_eq!(read(&mut source, &first).await, ["0:0 one 1 log.txt"]);
    place.append("in/log.txt", 2, "o\nthree\nfo");
    assert_eq!(place.rows(&mut source).await, ["nothing"]);
    place.advance(1);
    let second = place.plan(&mut source).await.unwrap();
    assert_eq!(read(&mut source, &second).await, ["1:0 two 2 log.txt", "1:1 three 3 log.txt"]);
    // It stands still: the rest is a row.
    place.advance(1);
    assert_eq!(place.rows(&mut source).await, ["nothing"]);
    place.advance(2);
    assert_eq!(place.rows(&mut source).await, ["2:0 fo 4 log.txt"]);
    let mut taken_whole = place.open("in", &line, &[("format", "text")]).await;
    taken_whole.plan(&place.draining()).await.unwrap().unwrap();
    // Earlier ranges still are what they were, also for another reader.
    let mut again = create(&mut place.context("in", &line, &[("format", "text")])).unwrap();
    again.open(None, &[first.clone(), second.clone()]).await.unwrap();
    assert_eq!(read(&mut again, &first).await, ["0:0 one"]);
    assert_eq!(read(&mut again, &second).await, ["1:0 two", "1:1 three"]);
    // Only touched.
    place.touch("in/log.txt", 9);
    place.advance(1);
    assert_eq!(place.rows(&mut source).await, ["nothing"]);
    // Grown inside a line that was taken as it was.
    place.append("in/log.txt", 10, "ur\n");
    place.advance(1);
    let error = taken_whole.plan(&place.limits()).await.unwrap_err();
    assert!(error.to_string().contains("log.txt\" goes on inside its last line (byte 16)"), "{error}");
    // Rewritten.
    place.write("in/log.txt", 10, "ONE\ntwo\nthree\nfour\nfive\n");
    place.advance(1);
    let error = source.plan(&place.limits()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("log.txt\" was taken and has changed in other ways than growing"), "{error}");
    let error = read_with(source.as_ref(), &second, small()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn obeys_on_change() {
    let place = Place::new();
    for (policy, expected) in [("reread", vec!["1:0 5", "1:1 6"]), ("warn", vec!["nothing"])] {
        place.write("in/a.csv", 1, "n\n1\n");
        let mut source = place.open("in", &n(), &[("format", "csv"), ("on_change", policy), ("settle", "0")]).await;
        assert_eq!(place.rows(&mut source).await, ["0:0 1"]);
        place.write("in/a.csv", 2, "n\n5\n6\n");
        place.advance(1);
        assert_eq!(place.rows(&mut source).await, expected, "{policy}");
        place.advance(1);
        assert_eq!(place.rows(&mut source).await, ["nothing"]);
    }
    place.write("in/a.csv", 1, "n\n1\n");
    let mut source = place.open("in", &n(), &[("format", "csv"), ("on_change", "fail")]).await;
    assert_eq!(place.rows(&mut source).await, ["0:0 1"]);
    place.append("in/a.csv", 2, "2\n");
    place.advance(1);
    assert!(source.plan(&place.limits()).await.unwrap_err().to_string().contains("has changed since"));
    // A path that was absent from a listing and is back is a new file.
    let mut source = place.open("in", &n(), &[("format", "csv"), ("settle", "0")]).await;
    place.rows(&mut source).await;
    fs::remove_file(place.path("in/a.csv")).unwrap();
    place.advance(1);
    assert_eq!(place.rows(&mut source).await, ["nothing"]);
    place.write("in/a.csv", 1, "n\n1\n2\n");
    place.advance(1);
    assert_eq!(place.rows(&mut source).await, ["1:0 1", "1:1 2"]);
}

#[tokio::test]
async fn misses_vanished_files() {
    let place = Place::new();
    for policy in ["fail", "skip"] {
        place.write("in/a.csv", 1, "n\n1\n");
        place.write("in/b.csv", 2, "n\n2\n");
        let mut source = place.open("in", &n(), &[("format", "csv"), ("on_missing", policy)]).await;
        fs::remove_file(place.path("in/a.csv")).unwrap();
        match policy {
            "fail" => assert!(source.plan(&place.limits()).await.unwrap_err().to_string().contains("a.csv\" was there")),
            _ => assert_eq!(place.rows(&mut source).await, ["0:0 2"]),
        }
    }
}

#[tokio::test]
async fn starts_where_it_is_told() {
    let place = Place::new();
    place.write("in/a.csv", 100, "n\n1\n");
    place.write("in/b.csv", 200, "n\n2\n");
    let mut source = place.open("in", &n(), &[("format", "csv"), ("start_from", "1970-01-01T00:02:00Z")]).await;
    assert_eq!(place.rows(&mut source).await, ["0:0 2"]);
    let mut source = place.open("in", &n(), &[("format", "csv"), ("start_from", "latest"), ("settle", "0")]).await;
    assert_eq!(place.rows(&mut source).await, ["nothing"]);
    place.write("in/c.csv", 50, "n\n3\n");
    place.append("in/a.csv", 300, "4\n");
    place.advance(1);
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(read(&mut source, &range).await, ["0:0 3", "1:0 4"]);
    let mut again = place.source("in", &n(), &[("format", "csv"), ("start_from", "latest")]);
    again.open(None, &[range]).await.unwrap();
    assert_eq!(place.rows(&mut again).await, ["nothing"]);
}

#[tokio::test]
async fn bounded_takes_what_was_there() {
    let place = Place::new();
    place.write("in/a.csv", 1, "n\n1\n");
    place.write("in/b.csv", 2, "n\n2");
    let options = [("format", "csv"), ("bounded", "true"), ("max_files_per_epoch", "1")];
    let mut source = place.open("in", &n(), &options).await;
    assert!(source.properties().bounded && !source.backlog().await.unwrap().ended);
    let first = place.plan(&mut source).await.unwrap();
    place.write("in/c.csv", 3, "n\n3\n");
    place.advance(100);
    // A second start before the first checkpoint knows the same list from the log.
    let mut again = place.source("in", &n(), &options);
    again.open(None, &[first]).await.unwrap();
    for source in [&mut source, &mut again] {
        assert_eq!(place.rows(source).await, ["1:0 2"]);
        assert_eq!(place.rows(source).await, ["nothing"]);
        assert!(source.backlog().await.unwrap().ended);
        let position = source.position();
        let mut restarted = place.source("in", &n(), &options);
        restarted.open(Some(position), &[]).await.unwrap();
        assert!(restarted.backlog().await.unwrap().ended);
    }
}

#[tokio::test]
async fn puts_files_away_after_reading() {
    let place = Place::new();
    let archive = place.path("done").to_str().unwrap().to_string();
    place.write("in/a.csv", 1, "n\n1\n");
    place.write("in/b.csv", 2, "n\n2\n");
    let options = [("format", "csv"), ("after_read", "archive"), ("archive_path", archive.as_str())];
    let mut source = place.open("in", &n(), &options).await;
    let range = place.plan(&mut source).await.unwrap();
    place.append("in/b.csv", 3, "3\n");
    source.acknowledge(std::slice::from_ref(&range)).await.unwrap();
    source.acknowledge(&[range]).await.unwrap();
    assert_eq!(fs::read_to_string(place.path("done/a.csv")).unwrap(), "n\n1\n");
    // It grew since: there is something unread in it.
    assert!(!place.path("in/a.csv").exists() && place.path("in/b.csv").exists());
    place.advance(1);
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(read(&mut source, &range).await, ["2:0 3"]);
    source.acknowledge(&[range]).await.unwrap();
    assert!(!place.path("in/b.csv").exists());
    let inside = place.path("in/done").to_str().unwrap().to_string();
    let options = [("format", "csv"), ("after_read", "archive"), ("archive_path", inside.as_str()), ("recursive", "true")];
    let error = create(&mut place.context("in", &n(), &options)).unwrap_err();
    assert!(error.to_string().contains("lies where the source looks for files"));
}

#[tokio::test]
async fn reads_compressed_files() {
    let place = Place::new();
    let text = b"{\"n\":1}\n{\"n\":2}\n";
    place.write("in/a.json.zst", 1, zstd::encode_all(&text[..], 3).unwrap());
    let mut bz = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bz.write_all(text).unwrap();
    place.write("in/b.json.bz2", 2, bz.finish().unwrap());
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(text).unwrap();
    let mut packed = xz.finish().unwrap();
    place.write("in/c.json.xz", 3, &packed);
    let mut source = place.open("in", &n(), &[("format", "json")]).await;
    assert_eq!(place.rows(&mut source).await, ["0:0 1", "0:1 2", "1:0 1", "1:1 2", "2:0 1", "2:1 2"]);
    packed.truncate(packed.len() - 20);
    place.write("in/c.json.xz", 3, packed);
    let mut source = place.open("in/c.json.xz", &n(), &[]).await;
    let range = place.plan(&mut source).await.unwrap();
    let error = read_with(source.as_ref(), &range, small()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.to_string().contains("c.json.xz\" cannot be read"), "{error}");
    place.write("in/c.json.xz", 3, zstd::encode_all(&vec![b'\n'; 1 << 20][..], 3).unwrap());
    fs::rename(place.path("in/c.json.xz"), place.path("in/d.json.zst")).unwrap();
    let mut source = place.open("in/d.json.zst", &n(), &[("max_decompressed_bytes", "1 MB")]).await;
    let range = place.plan(&mut source).await.unwrap();
    assert!(read_with(source.as_ref(), &range, small()).await.unwrap_err().to_string().contains("expands to more than 1000000 bytes"));
}

#[tokio::test]
async fn hive_directories_and_metadata_become_columns() {
    let place = Place::new();
    place.write("in/day=2024-01-02/city=New%20York/a.csv", 86_400, "n\n1\nx\n3\n");
    place.write("in/day=__HIVE_DEFAULT_PARTITION__/city=Bern/b.csv", 86_401, "n\n4\n");
    let schema = columns(&[("day", DataType::Date32), ("n", DataType::Int64), ("city", DataType::Utf8View), ("gone", DataType::Int32)]);
    let mut context = place.context("in", &schema, &[("format", "csv"), ("recursive", "true")]);
    for key in ["name", "size", "modified_at", "row_number"] {
        context.metadata.push((key.into(), key.into()));
    }
    let mut source = create(&mut context).unwrap();
    source.open(None, &[]).await.unwrap();
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(
        read(&mut source, &range).await,
        [
            "0:0 2024-01-02 1 New York NULL a.csv 8 1970-01-02T00:00:00 1",
            "0:2 2024-01-02 3 New York NULL a.csv 8 1970-01-02T00:00:00 3",
            "0:1 bad a.csv:3 column \"n\": 'x' is not a valid BIGINT",
            "1:0 NULL 4 Bern NULL b.csv 4 1970-01-02T00:00:01 1",
        ]
    );
    let request = ReadRequest { projection: Some(vec![2]), batch_size: 10, ..ReadRequest::default() };
    let rows = read_with(source.as_ref(), &range, request).await.unwrap();
    assert_eq!(rows[0], "0:0 New York a.csv 8 1970-01-02T00:00:00 1");
    context = place.context("in", &schema, &[("format", "csv")]);
    context.metadata.push(("pth".into(), "p".into()));
    assert_eq!(create(&mut context).unwrap_err().hint().unwrap(), "Did you mean \"path\"?");
}

#[tokio::test]
async fn reads_parquet() {
    let place = Place::new();
    place.write("in/a.parquet", 1, parquet_bytes(&numbers(0..10), 4));
    place.write("in/b.parquet", 2, parquet_bytes(&numbers(10..12), 4));
    // The declared order differs from the file's, types are wider.
    let schema = columns(&[("s", DataType::Utf8View), ("more", DataType::Float64), ("n", DataType::Int64)]);
    let options = [("format", "parquet")];
    let mut source = place.open("in", &schema, &options).await;
    let whole = place.plan(&mut source).await.unwrap();
    let expected = read(&mut source, &whole).await;
    assert_eq!(expected.len(), 12);
    assert_eq!((expected[0].as_str(), expected[11].as_str()), ("0:0 s0 NULL 0", "1:1 s11 NULL 11"));
    let request = ReadRequest { projection: Some(vec![2]), batch_size: 100, ..ReadRequest::default() };
    assert_eq!(read_with(source.as_ref(), &whole, request).await.unwrap()[11], "1:1 11");
    let request = ReadRequest { projection: Some(vec![]), batch_size: 100, ..ReadRequest::default() };
    assert_eq!(read_with(source.as_ref(), &whole, request).await.unwrap().len(), 12);
    for (limits, sizes) in [
        (EpochLimits { max_rows: Some(3), ..place.limits() }, vec![3, 1, 3, 3, 2]),
        (EpochLimits { max_bytes: 1, ..place.limits() }, vec![4, 4, 2, 2]),
        (EpochLimits { max_rows: Some(8), ..place.limits() }, vec![8, 4]),
    ] {
        let mut source = place.open("in", &schema, &options).await;
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        while let Some(mut ranges) = source.plan(&limits).await.unwrap() {
            let part = read(&mut source, &ranges.remove(0)).await;
            found.push(part.len());
            rows.extend(part);
            let position = source.position();
            source = place.source("in", &schema, &options);
            source.open(Some(position), &[]).await.unwrap();
        }
        assert_eq!(rows, expected);
        assert_eq!(found, sizes);
    }
    // Replaced by something else: the logged range is damaged, and says so.
    place.write("in/a.parquet", 1, parquet_bytes(&numbers(5..15), 3));
    let error = read_with(source.as_ref(), &whole, small()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("a.parquet\" is not the file that was planned"), "{error}");
}

#[tokio::test]
async fn what_was_decoded_ahead_is_what_was_planned() {
    let place = Place::new();
    let schema = columns(&[("n", DataType::Int64), ("ts", timestamp())]);
    let times = |range: std::ops::Range<i64>| {
        let micros = TimestampMicrosecondArray::from_iter_values(range.clone().map(|second| second * 1_000_000));
        RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from_iter_values(range)), Arc::new(micros)]).unwrap()
    };
    for (file, from) in [("a", 0), ("b", 10), ("c", 20), ("d", 30), ("e", 40)] {
        place.write(&format!("in/{file}.parquet"), from as u64, parquet_bytes(&times(from..from + 10), 4));
    }
    let mut source = place.open("in", &schema, &[("format", "parquet"), ("max_files_per_epoch", "1")]).await;
    let reader = source.reader();
    // Event times are left out where they lie behind `first`.
    let after = |first: i64| {
        let expected = ExpectedTimes { column: 1, first: EventTime(first * 1_000_000), last: EventTime::MAX };
        ReadRequest { projection: Some(vec![0, 1]), batch_size: 3, event_times: Some(expected) }
    };
    let of_n = |sequence: u64, range: std::ops::Range<i64>| range.map(|n| format!("{sequence}:{} {n}", n % 10)).collect::<Vec<_>>();
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(read_from(reader.as_ref(), &range, after(0)).await.unwrap(), of_n(0, 0..10));
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(read_from(reader.as_ref(), &range, after(10)).await.unwrap(), of_n(1, 10..20));
    // The files are small, so that several are decoded.
    assert_eq!(source.backlog().await.unwrap().decoded, millstream_types::cores() > 1);
    // The watermark has passed the second row group since the file was decoded: the rest is read with the event times.
    let range = place.plan(&mut source).await.unwrap();
    let rows = read_from(reader.as_ref(), &range, after(25)).await.unwrap();
    assert_eq!(rows.len(), 10);
    assert_eq!((rows[0].as_str(), rows[9].as_str()), ("2:0 20 1970-01-01T00:00:20", "2:9 29"));
    // Other columns are asked for than before.
    let range = place.plan(&mut source).await.unwrap();
    let request = ReadRequest { projection: Some(vec![1]), batch_size: 3, event_times: None };
    assert_eq!(read_from(reader.as_ref(), &range, request.clone()).await.unwrap()[9], "3:9 1970-01-01T00:00:39");
    // The file was written again after it was listed, and decoded as it was.
    place.write("in/e.parquet", 77, parquet_bytes(&times(50..60), 4));
    place.advance(10);
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(read_from(reader.as_ref(), &range, request).await.unwrap()[9], "4:9 1970-01-01T00:00:59");
}

#[tokio::test]
async fn parquet_types_are_exact() {
    let place = Place::new();
    let schema = Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Nanosecond, None), true),
        Field::new("big", DataType::Int64, true),
    ]));
    let times: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![Some(1_000), Some(1_500), None, Some(-2_000)]));
    let big: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3_000_000_000, 4]));
    let batch = RecordBatch::try_new(schema, vec![times, big]).unwrap();
    place.write("in/a.parquet", 1, parquet_bytes(&batch, 100));
    let declared = columns(&[("ts", timestamp()), ("big", DataType::Int32)]);
    let mut source = place.open("in/a.parquet", &declared, &[]).await;
    assert_eq!(source.backlog().await.unwrap().min_unread_event_time, Some(EventTime(-2)));
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(source.backlog().await.unwrap().min_unread_event_time, None);
    let rows =
        read_with(source.as_ref(), &range, ReadRequest { projection: None, batch_size: 100, ..ReadRequest::default() }).await.unwrap();
    assert_eq!(
        rows,
        [
            "0:0 1970-01-01T00:00:00.000001 1",
            "0:3 1969-12-31T23:59:59.999998 4",
            "0:1 bad a.parquet:2 column \"ts\": '1970-01-01T00:00:00.000001500' has more decimal places than TIMESTAMP keeps",
            "0:2 bad a.parquet:3 column \"big\": '3000000000' is out of range for INTEGER",
        ]
    );
    for (declared, message) in [
        (columns(&[("big", DataType::Float64)]), "stores column \"big\" as BIGINT, which cannot become the declared DOUBLE without loss"),
        (columns(&[("Big", DataType::Int64)]), "has no column \"Big\", but \"big\"; names must match exactly"),
        (Arc::new(Schema::new(vec![Field::new("other", DataType::Int64, false)])), "has no column \"other\", which is NOT NULL"),
    ] {
        let mut source = place.open("in/a.parquet", &declared, &[]).await;
        let range = place.plan(&mut source).await.unwrap();
        let error = read_with(source.as_ref(), &range, small()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[tokio::test]
async fn damaged_parquet_is_refused() {
    let place = Place::new();
    let good = parquet_bytes(&numbers(0..1000), 100);
    let mut absurd = good.clone();
    let at = absurd.len() - 8;
    absurd[at..at + 4].copy_from_slice(&0x7FFF_FFFF_u32.to_le_bytes());
    let mut garbled = good.clone();
    let footer = garbled.len() - 300;
    garbled[footer..footer + 200].fill(0xFF);
    let inputs: Vec<(&str, Vec<u8>)> =
        vec![("magic", b"PAR1PAR1".to_vec()), ("absurd", absurd), ("garbled", garbled), ("text", b"n,s\n1,2\n3,4,5,6\n".to_vec())];
    for (name, bytes) in inputs {
        place.write("in/a.parquet", 1, bytes);
        let mut source = place.open("in", &number_and_text(), &[("format", "parquet"), ("bounded", "true")]).await;
        let error = source.plan(&place.limits()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{name}: {error}");
        assert!(error.to_string().contains("a.parquet\""), "{name}: {error}");
    }
    // Damage in the pages shows at reading, as an error and never as missing rows.
    let mut pages = good;
    pages[4..400].fill(0xAA);
    place.write("in/a.parquet", 1, pages);
    let mut source = place.open("in", &number_and_text(), &[("format", "parquet")]).await;
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!(read_with(source.as_ref(), &range, small()).await.unwrap_err().kind(), ErrorKind::Data);
    // An empty file may still be written; later it is an error.
    place.write("in/a.parquet", 1, "");
    let mut source = place.open("in", &number_and_text(), &[("format", "parquet")]).await;
    for _ in 0..2 {
        assert_eq!(place.rows(&mut source).await, ["nothing"]);
        assert_eq!(source.backlog().await.unwrap().files, Some(0));
        place.advance(1);
    }
    let error = source.plan(&place.limits()).await.unwrap_err();
    assert!(error.to_string().ends_with("a.parquet\" is empty"), "{error}");
}

#[tokio::test]
async fn reads_arrow_and_avro() {
    let place = Place::new();
    let batches = [numbers(0..5), numbers(5..9)];
    let mut file = Vec::new();
    let mut writer = ::arrow::ipc::writer::FileWriter::try_new(&mut file, &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    let mut stream = Vec::new();
    let mut writer = ::arrow::ipc::writer::StreamWriter::try_new(&mut stream, &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    let mut writer = arrow_avro::writer::AvroWriter::new(Vec::new(), batches[0].schema().as_ref().clone()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    let avro = writer.into_inner();
    for (name, format, bytes) in [("a.arrow", "arrow", file), ("b.arrows", "arrow", stream), ("c.avro", "avro", avro)] {
        place.write(name, 1, &bytes);
        let schema = columns(&[("s", DataType::Utf8View), ("n", DataType::Int64)]);
        let mut source = place.open(name, &schema, &[("format", format)]).await;
        let whole = place.plan(&mut source).await.unwrap();
        let expected = read(&mut source, &whole).await;
        assert_eq!((expected.len(), expected[8].as_str()), (9, "0:8 s8 8"), "{name}");
        let request = ReadRequest { projection: Some(vec![1]), batch_size: 100, ..ReadRequest::default() };
        assert_eq!(read_with(source.as_ref(), &whole, request).await.unwrap()[8], "0:8 8");
        let limits = EpochLimits { max_rows: Some(3), ..place.limits() };
        let mut source = place.open(name, &schema, &[("format", format)]).await;
        let mut rows = Vec::new();
        while let Some(mut ranges) = source.plan(&limits).await.unwrap() {
            rows.extend(read(&mut source, &ranges.remove(0)).await);
        }
        assert_eq!(rows, expected, "{name}");
        // Cut short and garbled files are refused, whatever the cut.
        for length in (1..bytes.len()).step_by(37) {
            place.write(name, 1, &bytes[..length]);
            let mut source = place.open(name, &schema, &[("format", format), ("bounded", "true")]).await;
            let outcome = match source.plan(&place.limits()).await {
                Ok(Some(mut ranges)) => read_with(source.as_ref(), &ranges.remove(0), small()).await,
                Ok(None) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
            // A stream that ends between two messages is a shorter stream.
            if name != "b.arrows" {
                assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Data, "{name} cut after {length}");
            }
        }
        place.write(name, 1, vec![0xFF; 500]);
        let mut source = place.open(name, &schema, &[("format", format), ("bounded", "true")]).await;
        assert_eq!(source.plan(&place.limits()).await.unwrap_err().kind(), ErrorKind::Data);
    }
}

#[tokio::test]
async fn survives_hostile_rows() {
    let place = Place::new();
    let mut text = b"n\n1\n".to_vec();
    text.extend(std::iter::repeat_n(b'7', 3_000_000));
    text.extend_from_slice(b"\n2\n\xff\xfe\n\"open\n");
    place.write("in/a.csv", 1, text);
    let mut source = place.open("in", &n(), &[("format", "csv"), ("max_row_bytes", "1 MB")]).await;
    assert_eq!(
        place.rows(&mut source).await,
        [
            "0:0 1",
            "0:1 bad a.csv:3 the row has 3000000 bytes, more than the limit \"max_row_bytes\" allows",
            "0:2 2",
            "0:3 bad a.csv:5 the row is not valid UTF-8 at byte 0",
            "0:4 bad a.csv:6 a quoted field has no end: its quote opens in line 6, which is left out alone",
        ]
    );
    place.write("in/a.csv", 1, "");
    let mut source = place.open("in", &n(), &[("format", "csv")]).await;
    // An empty file is a range without rows.
    let range = place.plan(&mut source).await.unwrap();
    assert_eq!((range.range.start.sequence, range.range.end.sequence), (0, 1));
    assert_eq!(read(&mut source, &range).await, [""; 0]);
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let place = Place::new();
    let error = place.source("nowhere", &n(), &[("format", "csv")]).open(None, &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().ends_with("nowhere\" of stream \"s\" does not exist") && error.hint().unwrap().contains("option path"));
    let refused = |more: &[(&str, &str)]| create(&mut place.context("in", &n(), more)).unwrap_err().to_string();
    assert_eq!(refused(&[]), "stream \"s\" needs the option \"format\"");
    assert!(refused(&[("format", "csv"), ("order", "size")]).contains("not one of 'modified', 'name'"));
    assert!(refused(&[("format", "csv"), ("start_from", "now")]).contains("not 'earliest', 'latest' or a timestamp"));
    assert!(refused(&[("format", "parquet"), ("on_change", "append")]).contains("parquet files cannot grow"));
    assert!(refused(&[("format", "csv"), ("after_read", "archive")]).contains("needs the option \"archive_path\""));
    let mut options = Options::new("stream \"s\"", [("path".to_string(), "s3://b/p".to_string()), ("format".into(), "csv".into())]);
    if !cfg!(feature = "object-store-cloud") {
        let error = config::FilesConfig::take(&mut options).unwrap_err();
        assert_eq!(error.hint().unwrap(), "Build with --features object-store-cloud, or use a local path.");
    }
    let duration = columns(&[("d", DataType::Duration(TimeUnit::Second))]);
    assert!(matches!(create(&mut place.context("in", &duration, &[("format", "csv")])), Err(ConnectorError::Invalid { .. })));
}

#[tokio::test]
async fn columns_are_inferred() {
    let place = Place::new();
    let infer = |path: &str| {
        let path = place.path(path).to_str().unwrap().to_string();
        infer_schema(&Options::new("stream \"s\"", [("path".to_string(), path)]))
    };
    let shown = |schema: SchemaRef| {
        schema
            .fields()
            .iter()
            .map(|field| format!("{} {}", field.name(), crate::formats::sql_type(field.data_type())))
            .collect::<Vec<_>>()
            .join(", ")
    };
    place.write("a.parquet", 1, parquet_bytes(&numbers(0..3), 10));
    assert_eq!(shown(infer("a.parquet").unwrap()), "n INTEGER, s VARCHAR");
    place.write("a.csv", 1, "n,when\n1,2024-01-01 00:00:00\n");
    assert_eq!(shown(infer("*.csv").unwrap()), "n BIGINT, when TIMESTAMP");
    assert!(infer("*.json").unwrap_err().to_string().contains("holds no file"));
    let mut options = Options::new("s", [("path".to_string(), place.path("a.csv").to_str().unwrap().to_string())]);
    assert_eq!(super::infer(&mut options).await.unwrap().fields().len(), 2);
    options.finish().unwrap();
    let views = StringViewArray::from(vec!["x"]);
    let batch = RecordBatch::try_from_iter([("v", Arc::new(views) as ArrayRef)]).unwrap();
    place.write("v.parquet", 1, parquet_bytes(&batch, 10));
    assert_eq!(shown(infer("v.parquet").unwrap()), "v VARCHAR");
}

#[tokio::test]
async fn conforms() {
    for format in ["csv", "json", "text", "parquet"] {
        let place = Place::new();
        fs::create_dir_all(place.path("in")).unwrap();
        let schema = if format == "text" { columns(&[("s", DataType::Utf8View)]) } else { number_and_text() };
        let files = std::cell::Cell::new(0_i64);
        let make = || place.source("in", &schema, &[("format", format), ("settle", "0")]);
        crate::conformance::source(make, &place.clock, async |_: &mut dyn Source| {
            let first = files.replace(files.get() + 10);
            let name = format!("in/{first:03}.{format}");
            let rows = first..first + 10;
            match format {
                "csv" => place.write(&name, 1, format!("n,s\n{}x,bad\n", rows.map(|n| format!("{n},s{n}\n")).collect::<String>())),
                "json" => place.write(&name, 1, rows.map(|n| format!("{{\"n\":{n},\"s\":{n}}}\n{{\"n\":{n}}}\n")).collect::<String>()),
                "text" => place.write(&name, 1, rows.map(|n| format!("{n}\n")).collect::<String>()),
                _ => place.write(&name, 1, parquet_bytes(&numbers(rows), 4)),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn reads_objects() {
    use object_store::{ObjectStore, ObjectStoreExt};
    let place = Place::new();
    let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let put = async |path: &str, bytes: Vec<u8>| store.put(&path.into(), bytes.into()).await.map(drop).unwrap();
    let source = |format: &str, pattern: Option<&str>, more: &[(&str, &str)]| {
        let pairs: Vec<_> = [("format", format), ("order", "name")].iter().chain(more).copied().collect();
        let mut context = place.context("unused", &number_and_text(), &pairs);
        let mut config = config::FilesConfig::take(&mut context.options).unwrap();
        config.location.storage = storage::Storage::Object { store: Arc::clone(&store), root: "mem://b".into() };
        config.location.base = "in".into();
        config.location.pattern = pattern.map(Into::into);
        Box::new(source::FilesSource::with_config(&context, config).unwrap()) as Box<dyn Source>
    };
    put("in/a.parquet", parquet_bytes(&numbers(0..10), 4)).await;
    put("in/b.parquet", parquet_bytes(&numbers(10..12), 4)).await;
    put("in/_tmp/c.parquet", b"no".to_vec()).await;
    put("in/sub/d.csv", b"n,s\n1,x\n2,y\n".to_vec()).await;
    let mut parquet = source("parquet", None, &[]);
    parquet.open(None, &[]).await.unwrap();
    let range = parquet.plan(&EpochLimits { max_rows: Some(9), ..place.limits() }).await.unwrap().unwrap().remove(0);
    assert_eq!(range.detail["files"][0]["path"], "mem://b/in/a.parquet");
    assert_eq!(read(&mut parquet, &range).await.len(), 8);
    let rest = place.plan(&mut parquet).await.unwrap();
    assert_eq!(read(&mut parquet, &rest).await, ["0:8 8 s8", "0:9 9 s9", "1:0 10 s10", "1:1 11 s11"]);
    let mut csv = source("csv", Some("in/*/*.csv"), &[("after_read", "delete"), ("discovery_interval", "1s")]);
    csv.open(None, &[]).await.unwrap();
    let range = place.plan(&mut csv).await.unwrap();
    assert_eq!(read(&mut csv, &range).await, ["0:0 1 x", "0:1 2 y"]);
    // An object that was written again is another one, whatever its size.
    put("in/sub/d.csv", b"n,s\n1,x\n2,z\n".to_vec()).await;
    assert_eq!(read_with(csv.as_ref(), &range, small()).await.unwrap_err().kind(), ErrorKind::Corrupt);
    csv.acknowledge(&[range]).await.unwrap();
    assert!(store.head(&"in/sub/d.csv".into()).await.is_ok(), "what changed is not deleted");
    place.advance(1);
    assert!(csv.plan(&place.limits()).await.unwrap_err().to_string().contains("d.csv\" was taken and has changed"));
    let mut again = source("csv", Some("in/*/*.csv"), &[("after_read", "delete")]);
    again.open(None, &[]).await.unwrap();
    let range = place.plan(&mut again).await.unwrap();
    again.acknowledge(&[range]).await.unwrap();
    assert!(store.head(&"in/sub/d.csv".into()).await.is_err());
}

#[tokio::test]
async fn lists_large_places_beside_the_epochs() {
    let place = Place::new();
    fs::create_dir_all(place.path("in")).unwrap();
    for file in 0..10_001 {
        fs::write(place.path(&format!("in/{file:05}")), "").unwrap();
    }
    let mut source = place.open("in", &n(), &[("format", "json"), ("order", "name"), ("settle", "0")]).await;
    assert_eq!(source.backlog().await.unwrap().files, Some(10_001));
    place.write("in/later", 1, "{\"n\":1}\n");
    place.advance(1);
    // The listing has begun; the epoch goes on with what is known.
    let range = source.plan(&EpochLimits { max_files: 10, ..place.limits() }).await.unwrap().unwrap().remove(0);
    assert_eq!(range.range.end.sequence, 10);
    source.wake().notified().await;
    while source.backlog().await.unwrap().files != Some(9_992) {
        tokio::task::yield_now().await;
    }
}

/// An Avro file with one block of two rows, after `change` of its parts: rows, data, marker.
fn avro_block(change: impl FnOnce(&mut (u8, Vec<u8>, Vec<u8>))) -> Vec<u8> {
    let schema = br#"{"type":"record","name":"r","fields":[{"name":"n","type":"long"}]}"#;
    let marker = *b"0123456789abcdef";
    let mut bytes = b"Obj\x01\x02\x16avro.schema".to_vec();
    // Lengths are zigzag variable-length integers.
    let length = (schema.len() * 2) as u8;
    assert!(schema.len() < 128);
    bytes.extend([length | 0x80, ((schema.len() * 2) >> 7) as u8]);
    bytes.extend(schema);
    bytes.push(0);
    bytes.extend(marker);
    let mut parts = (2_u8, vec![2_u8, 4], marker.to_vec());
    change(&mut parts);
    let (rows, data, end) = parts;
    bytes.extend([rows * 2, (data.len() * 2) as u8]);
    bytes.extend(data);
    bytes.extend(end);
    bytes
}

#[tokio::test]
async fn avro_blocks_that_contradict_themselves_are_refused() {
    let place = Place::new();
    let outcome = async |bytes: Vec<u8>| {
        place.write("in/a.avro", 1, bytes);
        let mut source = place.open("in", &n(), &[("format", "avro"), ("bounded", "true")]).await;
        match source.plan(&place.limits()).await {
            Ok(Some(mut ranges)) => read_with(source.as_ref(), &ranges.remove(0), small()).await,
            Ok(None) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    assert_eq!(outcome(avro_block(|_| ())).await.unwrap(), ["0:0 1", "0:1 2"]);
    let more = outcome(avro_block(|parts| parts.0 = 3)).await.unwrap_err();
    assert!(more.to_string().contains("is no valid Avro file"), "{more}");
    let other_marker = outcome(avro_block(|parts| parts.2[15] = b'x')).await.unwrap_err();
    assert!(other_marker.to_string().contains("does not end with the file's marker"), "{other_marker}");
    let none = outcome(avro_block(|parts| parts.0 = 0)).await.unwrap_err();
    assert!(none.to_string().contains("a number of rows that it cannot hold"), "{none}");
    let less = outcome(avro_block(|parts| parts.0 = 1)).await.unwrap_err();
    assert!(less.to_string().contains("has more rows than the 1 it announces"), "{less}");
    let rest = outcome(avro_block(|parts| parts.1.extend([0x80, 0x80, 0x80]))).await.unwrap_err();
    assert!(rest.to_string().contains("has more rows than the 2 it announces"), "{rest}");
}
