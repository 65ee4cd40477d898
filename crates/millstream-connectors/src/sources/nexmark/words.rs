//! The fixed texts of the benchmark, and a block of letters that all free text is cut from.

use crate::sources::random::{Noise, scale};
use arrow::array::{StringViewArray, StringViewBuilder, UInt32Array};
use arrow::buffer::Buffer;
use std::sync::LazyLock;

const FIRST_NAMES: [&str; 11] = ["Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter"];
const LAST_NAMES: [&str; 9] = ["Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris"];
const CITIES: [&str; 10] =
    ["Phoenix", "Los Angeles", "San Francisco", "Boise", "Portland", "Bend", "Redmond", "Seattle", "Kent", "Cheyenne"];
const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const HOT_CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
/// Channels besides the hot ones.
const CHANNELS: u32 = 10_000;
/// Letters to cut texts from, and how many more follow, so that a text may start anywhere in the first part.
const LETTER_STARTS: usize = 1 << 16;
const LONGEST_TEXT: usize = 1 << 10;

/// The texts that do not depend on the seed.
#[derive(Debug)]
pub(super) struct Words {
    /// Full names of persons.
    pub(super) names: StringViewArray,
    /// Cities.
    pub(super) cities: StringViewArray,
    /// States.
    pub(super) states: StringViewArray,
    /// Channels: the hot ones first.
    pub(super) channels: StringViewArray,
    /// The address of each channel.
    pub(super) urls: StringViewArray,
    letters: Buffer,
}

/// Made at first use and shared.
pub(super) static WORDS: LazyLock<Words> = LazyLock::new(Words::new);

impl Words {
    fn new() -> Self {
        let noise = Noise::new(0, "words");
        let letters: Vec<u8> =
            (0..(LETTER_STARTS + LONGEST_TEXT) as u64).map(|n| b"abcdefghijklmnopqrstuvwxyz "[scale(noise.bits(n), 27) as usize]).collect();
        let mut channels = StringViewBuilder::new();
        let mut urls = StringViewBuilder::new();
        let part = Noise::new(0, "url");
        for (index, name) in HOT_CHANNELS.iter().enumerate() {
            channels.append_value(name);
            urls.append_value(base_url(part, index as u64));
        }
        for channel in 0..CHANNELS {
            channels.append_value(format!("channel-{channel}"));
            let number = u64::from(channel) + HOT_CHANNELS.len() as u64;
            let base = base_url(part, number);
            match scale(Noise::new(0, "channel id").bits(number), 10) {
                0 => urls.append_value(base),
                // The bits are reversed so that ids do not look like the channel's number.
                _ => urls.append_value(format!("{base}&channel_id={}", (channel.reverse_bits() as i32).unsigned_abs())),
            }
        }
        let names: Vec<String> =
            FIRST_NAMES.iter().flat_map(|first| LAST_NAMES.iter().map(move |last| format!("{first} {last}"))).collect();
        Self {
            names: StringViewArray::from_iter_values(names),
            cities: StringViewArray::from_iter_values(CITIES),
            states: StringViewArray::from_iter_values(STATES),
            channels: channels.finish(),
            urls: urls.finish(),
            letters: Buffer::from(letters),
        }
    }

    /// The channel of these bits: a hot one half of the time.
    #[inline]
    pub(super) fn channel(bits: u64) -> u32 {
        let hot = HOT_CHANNELS.len() as u64;
        // The upper half of the range is hot; `low` is evenly distributed in either half.
        let low = bits << 1;
        if bits >> 63 == 1 { scale(low, hot) as u32 } else { (hot + scale(low, CHANNELS.into())) as u32 }
    }

    /// Texts of the given lengths, cut from the block of letters without copying.
    pub(super) fn texts(
        &self,
        noise: Noise,
        events: &[u64],
        length: impl Fn(u64) -> u32,
    ) -> Result<StringViewArray, arrow::error::ArrowError> {
        let mut builder = StringViewBuilder::with_capacity(events.len());
        let block = builder.append_block(self.letters.clone());
        for &event in events {
            let start = scale(noise.bits(event), LETTER_STARTS as u64) as u32;
            builder.try_append_view(block, start, length(event).min(LONGEST_TEXT as u32))?;
        }
        Ok(builder.finish())
    }

    /// Indices into one of the word lists.
    pub(super) fn picks(noise: Noise, events: &[u64], words: &StringViewArray) -> UInt32Array {
        let count = arrow::array::Array::len(words) as u64;
        UInt32Array::from_iter_values(events.iter().map(|event| scale(noise.bits(*event), count) as u32))
    }
}

/// `https://www.nexmark.com/<word>/<word>/<word>/item.htm?query=1`
fn base_url(noise: Noise, number: u64) -> String {
    let mut url = String::from("https://www.nexmark.com/");
    for part in 0..3 {
        let bits = noise.bits(number * 3 + part);
        url.extend(letters(bits).take(3 + scale(bits, 2) as usize));
        url.push('/');
    }
    url.push_str("item.htm?query=1");
    url
}

/// Up to twelve letters out of random bits.
pub(super) fn letters(bits: u64) -> impl Iterator<Item = char> {
    (0..12).map(move |index| char::from(b'a' + ((bits >> (index * 5)) % 26) as u8))
}
