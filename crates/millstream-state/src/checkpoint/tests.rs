//! Checkpoints: round trip, fallback, reuse, removal.

use super::*;
use crate::error::StateError;
use crate::state_dir::{InstanceInfo, OpenOptions, StateDir};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_types::{Epoch, EventTime};
use std::path::Path;
use std::sync::Arc;

fn open(path: &Path) -> StateDir {
    let instance = InstanceInfo { host: "box".into(), pid: 1, started: EventTime(0) };
    StateDir::open(path, OpenOptions { takeover: false, instance }).unwrap()
}

fn batch(values: impl IntoIterator<Item = i64>) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
}

fn write(state: &StateDir, epoch: u64) -> CheckpointReader {
    let mut writer = CheckpointWriter::begin(state, Epoch(epoch)).unwrap();
    let rows = batch(0..epoch as i64);
    writer.write_segment("view \"v\"/0", &rows.schema(), std::slice::from_ref(&rows)).unwrap();
    writer.write_shared_segment("shared/0", &rows.schema(), std::slice::from_ref(&rows)).unwrap();
    writer.write_segment("empty", &rows.schema(), &[]).unwrap();
    writer.finish(serde_json::json!({ "clock": epoch })).unwrap()
}

#[test]
fn comes_back_as_written() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    assert!(CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap().checkpoint.is_none());
    write(&state, 3);
    write(&state, 12);
    let recovered = CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap();
    assert!(recovered.damaged.is_empty());
    let checkpoint = recovered.checkpoint.unwrap();
    assert_eq!(checkpoint.epoch(), Epoch(12));
    assert_eq!(checkpoint.manifest().detail["clock"], 12);
    let (_, batches) = checkpoint.read_segment("view \"v\"/0").unwrap();
    assert_eq!(batches, [batch(0..12)]);
    assert_eq!(checkpoint.read_segment("shared/0").unwrap().1, [batch(0..12)]);
    let (schema, batches) = checkpoint.read_segment("empty").unwrap();
    assert_eq!((schema, batches.len()), (batch([]).schema(), 0));
    assert!(matches!(checkpoint.read_segment("other"), Err(StateError::NotFound { .. })));
}

#[test]
fn an_unfinished_checkpoint_is_not_seen() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    write(&state, 1);
    let mut writer = CheckpointWriter::begin(&state, Epoch(2)).unwrap();
    writer.write_segment("a", &batch([]).schema(), &[batch([1])]).unwrap();
    // As after a crash: the writer's clean-up does not run.
    std::mem::forget(writer);
    assert_eq!(CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap().checkpoint.unwrap().epoch(), Epoch(1));
    assert_eq!(std::fs::read_dir(state.checkpoint_path()).unwrap().count(), 2);
    let next = state.writer() + 1;
    assert_eq!(remove_older_than(&state.checkpoint_path(), 2, next).unwrap(), Some(Epoch(1)));
    assert_eq!(std::fs::read_dir(state.checkpoint_path()).unwrap().count(), 1);
}

#[test]
fn a_removal_that_was_interrupted_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    (1..=3).for_each(|epoch| drop(write(&state, epoch)));
    let checkpoints = state.checkpoint_path();
    // As killed between taking the checkpoint of epoch 1 away and deleting its files; as killed by an older build after its manifest.
    std::fs::rename(checkpoints.join("1"), checkpoints.join(format!(".1.{}.tmp", state.writer()))).unwrap();
    std::fs::remove_file(checkpoints.join("2/manifest")).unwrap();
    assert_eq!(CheckpointReader::newest_valid(&checkpoints).unwrap().checkpoint.unwrap().epoch(), Epoch(3));
    assert_eq!(remove_older_than(&checkpoints, 1, state.writer() + 1).unwrap(), Some(Epoch(3)));
    assert_eq!(std::fs::read_dir(&checkpoints).unwrap().count(), 1);
}

#[test]
fn any_changed_byte_falls_back_to_the_generation_before() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    write(&state, 1);
    write(&state, 2);
    let newest = state.checkpoint_path().join("2");
    let mut files = vec![newest.join("manifest")];
    files.extend(std::fs::read_dir(newest.join("segments")).unwrap().map(|entry| entry.unwrap().path()));
    for file in files {
        let good = std::fs::read(&file).unwrap();
        for at in (0..good.len() - 1).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&file, &bad).unwrap();
            let recovered = CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap();
            assert_eq!(recovered.checkpoint.unwrap().epoch(), Epoch(1), "{} byte {at}", file.display());
            assert_eq!(recovered.damaged[0].epoch, Epoch(2));
        }
        std::fs::write(&file, &good[..good.len() / 2]).unwrap();
        assert_eq!(CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap().damaged.len(), 1);
        std::fs::write(&file, &good).unwrap();
    }
    assert_eq!(CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap().checkpoint.unwrap().epoch(), Epoch(2));
}

#[test]
fn a_damaged_one_is_replaced_and_all_damaged_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    write(&state, 2);
    std::fs::write(state.checkpoint_path().join("2/manifest"), "{}").unwrap();
    let error = CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap_err();
    assert!(matches!(error, StateError::NoValidCheckpoint { count: 1, .. }), "{error}");
    write(&state, 2);
    assert_eq!(CheckpointReader::newest_valid(&state.checkpoint_path()).unwrap().checkpoint.unwrap().epoch(), Epoch(2));
    assert!(matches!(CheckpointWriter::begin(&state, Epoch(2)).unwrap().finish(serde_json::Value::Null), Err(StateError::Exists { .. })));
}

#[test]
fn unchanged_segments_are_shared_and_outlive_their_origin() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    let first = write(&state, 5);
    let mut writer = CheckpointWriter::begin(&state, Epoch(6)).unwrap();
    writer.reuse_segment("shared/0", &first).unwrap();
    assert!(matches!(writer.reuse_segment("view \"v\"/0", &first), Err(StateError::NotFound { .. })), "not meant to be shared");
    assert!(matches!(writer.write_segment("shared/0", &batch([]).schema(), &[]), Err(StateError::Exists { .. })));
    writer.finish(serde_json::Value::Null).unwrap();
    write(&state, 7);
    write(&state, 8);
    assert_eq!(remove_older_than(&state.checkpoint_path(), 3, state.writer()).unwrap(), Some(Epoch(6)));
    assert!(!state.checkpoint_path().join("5").exists());
    let six = CheckpointReader::open(&state.checkpoint_path().join("6")).unwrap();
    six.verify().unwrap();
    assert_eq!(six.read_segment("shared/0").unwrap().1, [batch(0..5)]);
}
