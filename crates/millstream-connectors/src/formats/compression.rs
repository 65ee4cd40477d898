//! Compression by suffix: `gz`, `zst`, `bz2`, `xz`, decompressed as a stream with a bound on how far it may expand.
//!
//! Rows are cut from the stream as it comes, so a bomb cannot take memory; the bound keeps it from taking the day.

use flate2::read::MultiGzDecoder;
use std::io::{self, Read};

/// Bytes that may come out whatever went in.
const FREE_BYTES: u64 = 1 << 30;
/// After that, how many bytes may come out for each that went in. Deflate reaches 1,032 at most on a single repeated byte; logs reach 50.
const EXPANSION_MAX: u64 = 1_000;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// gzip, several members allowed.
    Gzip,
    /// Zstandard, several frames allowed.
    Zstd,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
}

impl Compression {
    /// A path without its compression suffix, and what that suffix stands for.
    pub fn strip_suffix(path: &str) -> (&str, Option<Compression>) {
        let Some((stem, suffix)) = path.rsplit_once('.') else { return (path, None) };
        match suffix.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => (stem, Some(Compression::Gzip)),
            "zst" | "zstd" => (stem, Some(Compression::Zstd)),
            "bz2" => (stem, Some(Compression::Bzip2)),
            "xz" => (stem, Some(Compression::Xz)),
            _ => (path, None),
        }
    }

    /// The decompressed bytes of `input`, whose compressed length is `compressed_bytes`; `max_bytes` bounds what comes out.
    ///
    /// # Errors
    /// When the decompressor cannot be set up; damage shows while reading, as `InvalidData` or `UnexpectedEof`.
    pub fn reader(self, input: Box<dyn Read + Send>, compressed_bytes: u64, max_bytes: Option<u64>) -> io::Result<Box<dyn Read + Send>> {
        let inner: Box<dyn Read + Send> = match self {
            Compression::Gzip => Box::new(MultiGzDecoder::new(input)),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(input)?),
            Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(input)),
            Compression::Xz => Box::new(liblzma::read::XzDecoder::new_multi_decoder(input)),
        };
        let limit = max_bytes.unwrap_or_else(|| FREE_BYTES.saturating_add(compressed_bytes.saturating_mul(EXPANSION_MAX)));
        Ok(Box::new(Bounded { inner, left: limit, limit }))
    }
}

/// Fails once more than `limit` bytes have come out.
struct Bounded {
    inner: Box<dyn Read + Send>,
    left: u64,
    limit: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            let message = format!("it expands to more than {} bytes; raise max_decompressed_bytes if that is right", self.limit);
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn stops_bombs_and_reads_members() {
        let mut packed = Vec::new();
        for part in [&b"one\n"[..], b"two\n"] {
            let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
            encoder.write_all(part).unwrap();
            encoder.finish().unwrap();
        }
        let mut text = String::new();
        let reader = |max| Compression::Gzip.reader(Box::new(io::Cursor::new(packed.clone())), packed.len() as u64, max).unwrap();
        reader(None).read_to_string(&mut text).unwrap();
        assert_eq!(text, "one\ntwo\n");
        assert_eq!(reader(Some(5)).read_to_string(&mut text).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(Compression::strip_suffix("a/b.csv.ZST"), ("a/b.csv", Some(Compression::Zstd)));
    }
}
