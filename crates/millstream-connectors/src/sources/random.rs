//! Random numbers that are a function of a seed and a row number, so that any row can be made again without its predecessors.
//!
//! **Reference**: Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (SplitMix64), OOPSLA 2014.

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64: every bit of the input changes half of the output's bits.
#[inline]
pub(crate) fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// 53 random bits as a number in `[0, 1)`.
#[inline]
pub(crate) fn to_unit(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Random bits scaled to `[0, bound)`; 0 for a bound of 0.
#[inline]
pub(crate) fn scale(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// A random function from row numbers to bits; functions of different names are independent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    key: u64,
}

impl Noise {
    /// The function of this seed and name.
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        Self { key: mix(seed ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes())) }
    }

    /// The bits of row `n`.
    #[inline]
    pub(crate) fn bits(self, n: u64) -> u64 {
        mix(self.key.wrapping_add(n.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_uniform_and_independent_by_name() {
        let (a, b) = (Noise::new(1, "a"), Noise::new(1, "b"));
        assert_ne!(a.bits(0), b.bits(0));
        let mean = (0..100_000).map(|n| to_unit(a.bits(n))).sum::<f64>() / 100_000.0;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
        let mut counts = [0u32; 10];
        (0..100_000).for_each(|n| counts[scale(a.bits(n), 10) as usize] += 1);
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
    }
}
