//! Bytes that lie where they are kept while they are few, and in an allocation that is shared when they are more.
//!
//! The encodings of one or two numbers are short: without an allocation of their own, to look at them costs one memory access less, which
//! is most of what an epoch pays where millions of them are kept.

use std::ops::Deref;
use std::sync::Arc;

/// As many bytes need no allocation.
const INLINE_MAX: usize = 30;
/// What an allocation takes beside its bytes: two counts.
const HEAD: usize = 16;

/// The bytes.
#[derive(Clone, Debug)]
pub(crate) enum ShortBytes {
    Inline { len: u8, bytes: [u8; INLINE_MAX] },
    Shared(Arc<[u8]>),
}

impl ShortBytes {
    /// Memory that as many bytes take beside the value itself.
    pub(crate) fn allocated(len: usize) -> usize {
        if len <= INLINE_MAX { 0 } else { len + HEAD }
    }
}

impl From<&[u8]> for ShortBytes {
    fn from(from: &[u8]) -> Self {
        if from.len() > INLINE_MAX {
            return Self::Shared(Arc::from(from));
        }
        let mut bytes = [0; INLINE_MAX];
        bytes[..from.len()].copy_from_slice(from);
        Self::Inline { len: from.len() as u8, bytes }
    }
}

impl Deref for ShortBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Shared(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_are_kept() {
        assert_eq!(size_of::<ShortBytes>(), 32);
        for len in [0, 1, INLINE_MAX, INLINE_MAX + 1, 1_000] {
            let bytes: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let kept = ShortBytes::from(bytes.as_slice());
            assert_eq!(&*kept.clone(), bytes.as_slice());
            assert_eq!(ShortBytes::allocated(len) > 0, matches!(kept, ShortBytes::Shared(_)));
        }
    }
}
