//! How the changes of the streams are cut into epochs.

use crate::args::Cut;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::ops::Range;

/// About so many epochs a random cut makes.
const RANDOM_EPOCHS: usize = 12;

/// What an epoch takes: changes of streams, by the stream's index.
pub(super) type EpochParts = Vec<(usize, Range<usize>)>;

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
    pub(super) fn epochs(self, lengths: &[usize], seed: u64) -> Vec<EpochParts> {
        match self {
            Cut::One => {
                let all: EpochParts =
                    lengths.iter().enumerate().filter(|(_, length)| **length > 0).map(|(s, length)| (s, 0..*length)).collect();
                if all.is_empty() { Vec::new() } else { vec![all] }
            }
            Cut::Row => by_turns(lengths),
            Cut::Random => random(lengths, &mut SmallRng::seed_from_u64(seed)),
        }
    }
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

    #[test]
    fn every_cut_takes_every_change_once_and_in_order() {
        for lengths in [&[5, 0, 3][..], &[1], &[0], &[], &[1000, 10]] {
            for cut in [Cut::One, Cut::Row, Cut::Random] {
                let mut next = vec![0; lengths.len()];
                for (stream, range) in cut.epochs(lengths, 3).into_iter().flatten() {
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
        let streams: Vec<usize> = Cut::Row.epochs(&[4, 2], 0).into_iter().map(|epoch| epoch[0].0).collect();
        assert_eq!(streams, [0, 1, 0, 0, 1, 0]);
        assert_eq!(Cut::One.epochs(&[4, 2], 0).len(), 1);
        let random = Cut::Random.epochs(&[1_000, 10], 7);
        assert!((5..60).contains(&random.len()), "{} epochs", random.len());
        assert_eq!(random, Cut::Random.epochs(&[1_000, 10], 7));
    }
}
