//! How the changes of the streams are cut into epochs.

use crate::args::Cut;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::ops::Range;

/// About so many epochs a random cut makes.
const RANDOM_EPOCHS: usize = 12;

/// What an epoch takes: changes of streams, by the stream's index.
pub(super) type EpochParts = Vec<(usize, Range<usize>)>;

/// The changes of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Length {
    /// How many there are.
    pub(super) changes: usize,
    /// Where rows come one by one, these are all there before.
    pub(super) comes_first: bool,
}

impl Cut {
    /// Its name in the output.
    pub(super) fn name(self) -> &'static str {
        match self {
            Cut::One => "one",
            Cut::Row => "row",
            Cut::Random => "random",
        }
    }

    /// The epochs of streams with so many changes.
    pub(super) fn epochs(self, streams: &[Length], seed: u64) -> Vec<EpochParts> {
        let lengths: Vec<usize> = streams.iter().map(|stream| stream.changes).collect();
        match self {
            Cut::One => whole(&lengths),
            Cut::Row => {
                let first: Vec<usize> = streams.iter().map(|stream| if stream.comes_first { stream.changes } else { 0 }).collect();
                let rest: Vec<usize> = lengths.iter().zip(&first).map(|(length, first)| length - first).collect();
                whole(&first).into_iter().chain(by_turns(&rest)).collect()
            }
            Cut::Random => random(&lengths, &mut SmallRng::seed_from_u64(seed)),
        }
    }
}

/// Everything in one epoch, if there is anything.
fn whole(lengths: &[usize]) -> Vec<EpochParts> {
    let all: EpochParts =
        lengths.iter().enumerate().filter(|(_, length)| **length > 0).map(|(stream, length)| (stream, 0..*length)).collect();
    if all.is_empty() { Vec::new() } else { vec![all] }
}

/// One change per epoch; every stream advances in proportion to its length.
fn by_turns(lengths: &[usize]) -> Vec<EpochParts> {
    let mut all: Vec<(f64, usize, usize)> = Vec::with_capacity(lengths.iter().sum());
    for (stream, &length) in lengths.iter().enumerate() {
        all.extend((0..length).map(|change| ((change as f64 + 0.5) / length as f64, stream, change)));
    }
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| (a.1, a.2).cmp(&(b.1, b.2))));
    all.into_iter().map(|(_, stream, change)| vec![(stream, change..change + 1)]).collect()
}

/// Epochs of random sizes: of each stream nothing, one change, or up to twice its usual share.
fn random(lengths: &[usize], random: &mut SmallRng) -> Vec<EpochParts> {
    let mut taken = vec![0; lengths.len()];
    let mut epochs = Vec::new();
    while taken.iter().zip(lengths).any(|(taken, length)| taken < length) {
        let mut epoch = EpochParts::new();
        for (stream, &length) in lengths.iter().enumerate() {
            let size = match random.random_range(0..5) {
                0 => 0,
                1 => 1,
                _ => random.random_range(1..=2 * length.div_ceil(RANDOM_EPOCHS).max(1)),
            };
            let end = length.min(taken[stream] + size);
            if end > taken[stream] {
                epoch.push((stream, taken[stream]..end));
                taken[stream] = end;
            }
        }
        if !epoch.is_empty() {
            epochs.push(epoch);
        }
    }
    epochs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(lengths: &[usize]) -> Vec<Length> {
        lengths.iter().map(|&changes| Length { changes, comes_first: false }).collect()
    }

    #[test]
    fn every_cut_takes_every_change_once_and_in_order() {
        for lengths in [&[5, 0, 3][..], &[1], &[0], &[], &[1000, 10]] {
            for cut in [Cut::One, Cut::Row, Cut::Random] {
                let mut next = vec![0; lengths.len()];
                for (stream, range) in cut.epochs(&streams(lengths), 3).into_iter().flatten() {
                    assert_eq!(range.start, next[stream], "{cut:?} {lengths:?}");
                    assert!(range.end > range.start);
                    next[stream] = range.end;
                }
                assert_eq!(next, lengths, "{cut:?}");
            }
        }
    }

    #[test]
    fn rows_come_one_by_one_and_streams_by_turns() {
        let order = |streams: &[Length]| -> Vec<usize> { Cut::Row.epochs(streams, 0).into_iter().map(|epoch| epoch[0].0).collect() };
        assert_eq!(order(&streams(&[4, 2])), [0, 1, 0, 0, 1, 0]);
        let first = Length { changes: 5, comes_first: true };
        assert_eq!(
            Cut::Row.epochs(&[Length { changes: 2, comes_first: false }, first], 0),
            [vec![(1, 0..5)], vec![(0, 0..1)], vec![(0, 1..2)]]
        );
        assert_eq!(Cut::One.epochs(&streams(&[4, 2]), 0).len(), 1);
        let random = Cut::Random.epochs(&streams(&[1_000, 10]), 7);
        assert!((5..60).contains(&random.len()), "{} epochs", random.len());
        assert_eq!(random, Cut::Random.epochs(&streams(&[1_000, 10]), 7));
    }
}
