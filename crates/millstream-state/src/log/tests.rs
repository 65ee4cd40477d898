//! The log against damage: whatever happens to its bytes, what it gives back is a prefix of what was appended, or `Corrupt`.

use super::*;
use crate::error::StateError;
use crate::ipc::Compression;
use crate::state_dir::{InstanceInfo, OpenOptions, StateDir};
use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_types::{Epoch, EventTime};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::path::Path;
use std::sync::Arc;

const SMALL: LogOptions = LogOptions { segment_bytes: 600, preallocate_bytes: 100 };
const ONE_SEGMENT: LogOptions = LogOptions { segment_bytes: 1 << 20, preallocate_bytes: 64 };

fn open(path: &Path, takeover: bool) -> StateDir {
    let instance = InstanceInfo { host: "box".into(), pid: 1, started: EventTime(0) };
    StateDir::open(path, OpenOptions { takeover, instance }).unwrap()
}

fn payload(rng: &mut SmallRng) -> Vec<u8> {
    let length = rng.random_range(0..80);
    (0..length).map(|_| rng.random()).collect()
}

fn read(log: &Log) -> crate::Result<Vec<(u64, Vec<u8>)>> {
    log.frames()?.map(|frame| frame.map(|frame| (frame.epoch.0, frame.payload))).collect()
}

fn read_path(path: &Path) -> crate::Result<Vec<(u64, Vec<u8>)>> {
    LogReader::open(path)?.map(|frame| frame.map(|frame| (frame.epoch.0, frame.payload))).collect()
}

/// Appends `count` frames, synced in groups of one to three; returns all, and how many were synced.
fn fill(log: &mut Log, rng: &mut SmallRng, first_epoch: u64, count: u64) -> Vec<(u64, Vec<u8>)> {
    let mut appended = Vec::new();
    let mut unsynced = 0;
    for epoch in first_epoch..first_epoch + count {
        let bytes = payload(rng);
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        log.append(1, Epoch(epoch), &[head, tail]).unwrap();
        appended.push((epoch, bytes));
        unsynced += 1;
        if unsynced == rng.random_range(1..=3) || epoch + 1 == first_epoch + count {
            log.sync().unwrap();
            unsynced = 0;
        }
    }
    appended
}

#[test]
fn frames_come_back_in_order_over_segments_and_writers() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let directory = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for start in 0..4 {
            let state = open(directory.path(), false);
            let mut log = Log::open(&state, SMALL).unwrap();
            assert_eq!(read(&log).unwrap(), expected, "seed {seed} start {start}");
            let count = rng.random_range(0..30);
            expected.extend(fill(&mut log, &mut rng, expected.len() as u64 + 1, count));
            assert_eq!(read(&log).unwrap(), expected, "seed {seed} start {start}");
            if rng.random_bool(0.5) {
                log.close().unwrap();
            }
        }
        assert_eq!(read_path(directory.path()).unwrap(), expected);
    }
}

#[test]
fn a_log_cut_at_any_byte_gives_a_prefix() {
    let mut rng = SmallRng::seed_from_u64(7);
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path(), false);
    let mut log = Log::open(&state, ONE_SEGMENT).unwrap();
    let expected = fill(&mut log, &mut rng, 1, 12);
    let path = directory.path().join("log/1-1");
    let good = std::fs::read(&path).unwrap();
    let mut longest = 0;
    for length in 0..=good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        match read_path(directory.path()) {
            Ok(found) => {
                assert_eq!(found[..], expected[..found.len()], "cut at {length}");
                assert!(found.len() >= longest);
                longest = found.len();
            }
            Err(StateError::Corrupt { .. }) => assert!(length < 64, "only the segment header is written in one piece, cut at {length}"),
            Err(other) => panic!("cut at {length}: {other}"),
        }
    }
    assert_eq!(longest, expected.len());
}

#[test]
fn a_changed_byte_gives_a_prefix_or_is_reported() {
    let mut rng = SmallRng::seed_from_u64(8);
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path(), false);
    let mut log = Log::open(&state, ONE_SEGMENT).unwrap();
    let mut expected = Vec::new();
    for epoch in 1..=12 {
        // Synced one by one: damage to any frame but the last is provable.
        expected.extend(fill(&mut log, &mut rng, epoch, 1));
    }
    let starts: Vec<u64> = log.frames().unwrap().map(|frame| frame.unwrap().offset).collect();
    let last = *starts.last().unwrap();
    let path = directory.path().join("log/1-1");
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << rng.random_range(0..8);
        std::fs::write(&path, &bad).unwrap();
        match read_path(directory.path()) {
            Ok(found) => {
                assert_eq!(found[..], expected[..found.len()], "byte {at}");
                assert!(found.len() == expected.len() || at as u64 >= last, "damage at {at} was taken for a torn tail");
            }
            Err(StateError::Corrupt { path: named, .. }) => assert_eq!(named, path),
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
}

#[test]
fn damage_behind_a_seal_or_an_end_frame_is_always_reported() {
    let mut rng = SmallRng::seed_from_u64(9);
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path(), false);
    let mut log = Log::open(&state, SMALL).unwrap();
    let expected = fill(&mut log, &mut rng, 1, 25);
    drop((log, state));
    let state = open(directory.path(), false);
    let log = Log::open(&state, SMALL).unwrap();
    assert_eq!(read(&log).unwrap(), expected);
    let mut extents: Vec<_> = reader::Extents::of(&directory.path().join("log")).unwrap().valid;
    extents.retain(|extent| extent.name.writer == 1);
    assert!(extents.len() > 1);
    for extent in extents {
        let path = directory.path().join("log").join(extent.name.to_string());
        let good = std::fs::read(&path).unwrap();
        let counted = if let reader::Bound::Length(length) = extent.bound { length as usize } else { good.len() };
        for at in 0..counted {
            let mut bad = good.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, &bad).unwrap();
            match read(&log) {
                Err(StateError::Corrupt { path: named, .. }) => assert_eq!(named, path, "byte {at}"),
                other => panic!("{} byte {at}: {other:?}", extent.name),
            }
        }
        std::fs::write(&path, &good).unwrap();
    }
}

#[test]
fn unsynced_frames_of_a_group_may_be_lost_in_any_order() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path(), false);
    let mut log = Log::open(&state, ONE_SEGMENT).unwrap();
    log.append(1, Epoch(1), &[b"durable"]).unwrap();
    log.sync().unwrap();
    let second = log.append(1, Epoch(2), &[b"never reached the disk"]).unwrap();
    log.append(1, Epoch(3), &[b"did"]).unwrap();
    let path = directory.path().join("log/1-1");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[second.offset as usize..second.offset as usize + 20].fill(0);
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(read_path(directory.path()).unwrap(), [(1, b"durable".to_vec())]);
    drop((log, state));
    let state = open(directory.path(), false);
    assert_eq!(read(&Log::open(&state, ONE_SEGMENT).unwrap()).unwrap().len(), 1);
}

#[test]
fn frames_of_a_fenced_writer_are_void() {
    let directory = tempfile::tempdir().unwrap();
    let old = open(directory.path(), false);
    let mut old_log = Log::open(&old, SMALL).unwrap();
    old_log.append(1, Epoch(1), &[b"counts"]).unwrap();
    old_log.sync().unwrap();
    let new = open(directory.path(), true);
    for epoch in 2..40 {
        old_log.append(1, Epoch(epoch), &[b"does not"]).unwrap();
        old_log.sync().unwrap();
    }
    assert!(old.check_fenced().is_err());
    let mut log = Log::open(&new, SMALL).unwrap();
    log.append(1, Epoch(2), &[b"counts too"]).unwrap();
    log.sync().unwrap();
    let expected = [(1, b"counts".to_vec()), (2, b"counts too".to_vec())];
    assert_eq!(read(&log).unwrap(), expected);
    assert_eq!(read_path(directory.path()).unwrap(), expected);
    // A third writer that starts later obeys the same seal.
    drop((log, new));
    let third = open(directory.path(), true);
    assert_eq!(read(&Log::open(&third, SMALL).unwrap()).unwrap(), expected);
}

#[test]
fn discarded_frames_do_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path(), false);
    let mut log = Log::open(&state, ONE_SEGMENT).unwrap();
    log.append(1, Epoch(1), &[b"one"]).unwrap();
    log.sync().unwrap();
    log.append(1, Epoch(2), &[b"a failed epoch with a long record"]).unwrap();
    log.discard_unsynced().unwrap();
    assert_eq!(read_path(directory.path()).unwrap(), [(1, b"one".to_vec())]);
    log.append(1, Epoch(2), &[b"again"]).unwrap();
    log.sync().unwrap();
    assert_eq!(read_path(directory.path()).unwrap(), [(1, b"one".to_vec()), (2, b"again".to_vec())]);
}

#[test]
fn old_segments_are_dropped_whole() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path(), false);
    let mut log = Log::open(&state, SMALL).unwrap();
    for epoch in 1..=60 {
        log.append(1, Epoch(epoch), &[&[0; 50]]).unwrap();
        log.sync().unwrap();
    }
    let before = log.segments();
    assert!(before > 5);
    drop((log, state));
    let state = open(directory.path(), false);
    let mut log = Log::open(&state, SMALL).unwrap();
    let dropped = log.drop_before(Epoch(30)).unwrap();
    assert!(dropped > 1 && dropped < before);
    let left = read(&log).unwrap();
    assert!(left[0].0 <= 30 && left[0].0 > 15, "first epoch left: {}", left[0].0);
    assert_eq!(left.last().unwrap().0, 60);
    log.drop_before(Epoch(1000)).unwrap();
    assert_eq!(log.segments(), 1);
    assert!(read(&log).unwrap().is_empty());
    drop((log, state));
    let state = open(directory.path(), false);
    assert!(read(&Log::open(&state, SMALL).unwrap()).unwrap().is_empty());
}

#[test]
fn a_missing_segment_is_noticed() {
    for victim in ["1-2", "1-4"] {
        let directory = tempfile::tempdir().unwrap();
        let state = open(directory.path(), false);
        let mut log = Log::open(&state, SMALL).unwrap();
        while log.segments() < 4 {
            log.append(1, Epoch(1), &[&[1; 200]]).unwrap();
        }
        log.sync().unwrap();
        drop((log, state));
        let state = open(directory.path(), false);
        std::fs::remove_file(directory.path().join("log").join(victim)).unwrap();
        let error = Log::open(&state, SMALL).unwrap_err();
        assert!(error.to_string().contains("is missing"), "{error}");
    }
}

#[test]
fn an_absurd_length_takes_no_memory() {
    let place = frame::Place { writer: 1, segment: 1, offset: 64 };
    let header = frame::Header { kind: 1, length: u64::MAX, epoch: Epoch(1), durable: 64, payload_crc32: 0 };
    assert_eq!(frame::Header::decode(&header.encode(place), place), None);
    // Within the limit, but beyond the file.
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path(), false);
    let log = Log::open(&state, ONE_SEGMENT).unwrap();
    let header = frame::Header { length: MAX_PAYLOAD_BYTES, ..header };
    let path = directory.path().join("log/1-1");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[64..104].copy_from_slice(&header.encode(place));
    std::fs::write(&path, bytes).unwrap();
    assert!(read_path(directory.path()).unwrap().is_empty());
    drop(log);
}

#[test]
fn payloads_carry_batches() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
    let rows = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from_iter_values(0..1000))]).unwrap();
    let payload = FramePayload {
        header: br#"{"epoch":1}"#.to_vec(),
        attachments: vec![("wal/s".into(), vec![rows.clone(), rows.slice(3, 5)]), ("none".into(), vec![])],
    };
    for compression in [Compression::None, Compression::Lz4] {
        let bytes = payload.encode(compression).unwrap();
        assert_eq!(FramePayload::decode(&bytes).unwrap(), payload);
        for length in 0..bytes.len() {
            assert!(FramePayload::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
    }
}
