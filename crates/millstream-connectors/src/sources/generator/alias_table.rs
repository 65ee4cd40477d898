//! Draws from a fixed discrete distribution in constant time.
//!
//! **Reference**: M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE TSE 17 (1991).

use crate::sources::random::{mix, scale};

/// Each cell holds its own index with the chance `threshold / 2^64`, else its alias.
#[derive(Debug, Clone)]
pub(super) struct AliasTable {
    cells: Vec<(u64, u32)>,
}

/// More outcomes would cost more memory than a generator should.
pub(super) const MAX_OUTCOMES: u64 = 1 << 20;

impl AliasTable {
    /// The distribution of these weights; at least one must be positive.
    pub(super) fn new(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight * weights.len() as f64 / total).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0..weights.len() as u32).partition(|index| shares[*index as usize] < 1.0);
        let mut cells: Vec<(u64, u32)> = (0..weights.len() as u32).map(|index| (u64::MAX, index)).collect();
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            cells[poor as usize] = ((shares[poor as usize] * u64::MAX as f64) as u64, rich);
            shares[rich as usize] -= 1.0 - shares[poor as usize];
            if shares[rich as usize] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { cells }
    }

    /// Weights `1 / rank^exponent` of `outcomes` ranks.
    pub(super) fn zipf(outcomes: u64, exponent: f64) -> Self {
        Self::new(&(1..=outcomes).map(|rank| (rank as f64).powf(-exponent)).collect::<Vec<_>>())
    }

    /// Number of outcomes.
    pub(super) fn len(&self) -> u64 {
        self.cells.len() as u64
    }

    /// The outcome of these random bits.
    #[inline]
    pub(super) fn draw(&self, bits: u64) -> u32 {
        let index = scale(bits, self.cells.len() as u64);
        let (threshold, alias) = self.cells[index as usize];
        if mix(bits) <= threshold { index as u32 } else { alias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::random::Noise;

    #[test]
    fn draws_with_the_given_weights() {
        let table = AliasTable::new(&[5.0, 0.0, 3.0, 2.0]);
        let noise = Noise::new(1, "x");
        let mut counts = [0u32; 4];
        (0..100_000).for_each(|n| counts[table.draw(noise.bits(n)) as usize] += 1);
        assert_eq!(counts[1], 0);
        for (count, expected) in counts.iter().zip([50_000i64, 0, 30_000, 20_000]) {
            assert!((i64::from(*count) - expected).abs() < 1_000, "{counts:?}");
        }
    }

    #[test]
    fn zipf_halves_with_the_second_rank() {
        let table = AliasTable::zipf(1_000, 1.0);
        let noise = Noise::new(2, "x");
        let mut counts = vec![0u32; 1_000];
        (0..200_000).for_each(|n| counts[table.draw(noise.bits(n)) as usize] += 1);
        let ratio = f64::from(counts[0]) / f64::from(counts[1]);
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
    }
}
