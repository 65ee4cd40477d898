//! The three tables: their columns, and batches of their rows.

use super::model::{AUCTIONS, BIDS, Events, GROUP, PERSONS};
use super::words::{WORDS, Words, letters};
use crate::error::{ConnectorError, Result};
use crate::sources::columns::batch_of;
use crate::sources::random::{Noise, mix, scale};
use crate::sources::schedule::Share;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, StringViewBuilder, TimestampMicrosecondArray};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use std::fmt::Write;
use std::sync::Arc;

/// A table of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NexmarkTable {
    /// People who offer and bid.
    Person,
    /// Items under auction.
    Auction,
    /// Bids for items.
    Bid,
}

impl NexmarkTable {
    /// All tables, in the order of their events.
    pub const ALL: [NexmarkTable; 3] = [NexmarkTable::Person, NexmarkTable::Auction, NexmarkTable::Bid];

    /// The value of the option `table`.
    pub fn name(self) -> &'static str {
        match self {
            NexmarkTable::Person => "person",
            NexmarkTable::Auction => "auction",
            NexmarkTable::Bid => "bid",
        }
    }

    /// Which of the events are rows of this table.
    pub(crate) fn share(self) -> Share {
        let (first, count) = match self {
            NexmarkTable::Person => (0, PERSONS),
            NexmarkTable::Auction => (PERSONS, AUCTIONS),
            NexmarkTable::Bid => (PERSONS + AUCTIONS, BIDS),
        };
        Share { first, count, of: GROUP }
    }

    /// Rows of this table among the first `events` events.
    pub fn rows_among(self, events: u64) -> u64 {
        self.share().rows_before(events)
    }

    /// Usual size of a row in bytes.
    pub(crate) fn row_bytes(self) -> u64 {
        match self {
            NexmarkTable::Person => 200,
            NexmarkTable::Auction => 500,
            NexmarkTable::Bid => 100,
        }
    }

    fn columns(self) -> &'static [(&'static str, Value)] {
        match self {
            NexmarkTable::Person => &[
                ("id", Value::Integer(Events::person_id)),
                ("name", Value::Text(person_name)),
                ("email_address", Value::Text(email_address)),
                ("credit_card", Value::Text(credit_card)),
                ("city", Value::Text(city)),
                ("state", Value::Text(state)),
                ("date_time", Value::Time(Events::time)),
                ("extra", Value::Text(person_extra)),
            ],
            NexmarkTable::Auction => &[
                ("id", Value::Integer(Events::auction_id)),
                ("item_name", Value::Text(item_name)),
                ("description", Value::Text(description)),
                ("initial_bid", Value::Integer(Events::price)),
                ("reserve", Value::Integer(Events::reserve)),
                ("date_time", Value::Time(Events::time)),
                ("expires", Value::Time(Events::expires)),
                ("seller", Value::Integer(Events::seller)),
                ("category", Value::Integer(Events::category)),
                ("extra", Value::Text(auction_extra)),
            ],
            NexmarkTable::Bid => &[
                ("auction", Value::Integer(Events::bid_auction)),
                ("bidder", Value::Integer(Events::bidder)),
                ("price", Value::Integer(Events::price)),
                ("channel", Value::Text(channel)),
                ("url", Value::Text(url)),
                ("date_time", Value::Time(Events::time)),
                ("extra", Value::Text(bid_extra)),
            ],
        }
    }
}

/// How a column is made of event numbers.
#[derive(Clone, Copy)]
enum Value {
    Integer(fn(&Events, u64) -> i64),
    Time(fn(&Events, u64) -> i64),
    Text(fn(&Events, &[u64]) -> Result<ArrayRef, ArrowError>),
}

/// The columns of a table: numbers BIGINT, times TIMESTAMP, texts VARCHAR, none of them NULL.
pub fn schema_of(table: NexmarkTable) -> SchemaRef {
    let fields = table.columns().iter().map(|(name, value)| {
        let data_type = match value {
            Value::Integer(_) => DataType::Int64,
            Value::Time(_) => DataType::Timestamp(TimeUnit::Microsecond, None),
            Value::Text(_) => DataType::Utf8View,
        };
        Field::new(*name, data_type, false)
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// One column of the rows that are these events.
pub(super) fn column(events: &Events, table: NexmarkTable, index: usize, numbers: &[u64]) -> Result<ArrayRef> {
    let made = match table.columns()[index].1 {
        Value::Integer(value) => Ok(Arc::new(Int64Array::from_iter_values(numbers.iter().map(|n| value(events, *n)))) as ArrayRef),
        Value::Time(value) => {
            Ok(Arc::new(TimestampMicrosecondArray::from_iter_values(numbers.iter().map(|n| value(events, *n)))) as ArrayRef)
        }
        Value::Text(value) => value(events, numbers),
    };
    made.map_err(|error| ConnectorError::internal("generating Nexmark events", error))
}

/// The rows of a table among a range of events.
pub(super) fn rows_among(events: &Events, table: NexmarkTable, first_event: u64, count: u64) -> Result<RecordBatch> {
    let share = table.share();
    let rows = share.rows_before(first_event)..share.rows_before(first_event.saturating_add(count));
    let numbers: Vec<u64> = rows.map(|row| share.event_of(row)).collect();
    let schema = schema_of(table);
    let columns = (0..schema.fields().len()).map(|index| column(events, table, index, &numbers)).collect::<Result<Vec<_>>>()?;
    batch_of(&schema, columns, numbers.len(), "generating Nexmark events")
}

fn pick(words: &StringViewArray, noise: Noise, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    take(words, &Words::picks(noise, numbers, words), None)
}

fn person_name(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    pick(&WORDS.names, events.noise("name"), numbers)
}

fn city(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    pick(&WORDS.cities, events.noise("city"), numbers)
}

fn state(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    pick(&WORDS.states, events.noise("state"), numbers)
}

fn email_address(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    let noise = events.noise("email_address");
    let mut builder = StringViewBuilder::with_capacity(numbers.len());
    let mut text = String::new();
    for n in numbers {
        let bits = noise.bits(*n);
        text.clear();
        text.extend(letters(bits).take(7));
        text.push('@');
        text.extend(letters(mix(bits)).take(5));
        text.push_str(".com");
        builder.append_value(&text);
    }
    Ok(Arc::new(builder.finish()))
}

fn credit_card(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    let noise = events.noise("credit_card");
    let mut builder = StringViewBuilder::with_capacity(numbers.len());
    let mut text = String::new();
    for n in numbers {
        let bits = noise.bits(*n);
        text.clear();
        for group in 0..4 {
            let separator = if group == 0 { "" } else { " " };
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}{:04}", ((bits >> (group * 16)) & 0xffff) % 10_000);
        }
        builder.append_value(&text);
    }
    Ok(Arc::new(builder.finish()))
}

fn channels(events: &Events, numbers: &[u64]) -> arrow::array::UInt32Array {
    let noise = events.noise("channel");
    arrow::array::UInt32Array::from_iter_values(numbers.iter().map(|n| Words::channel(noise.bits(*n))))
}

fn channel(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    take(&WORDS.channels, &channels(events, numbers), None)
}

fn url(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    take(&WORDS.urls, &channels(events, numbers), None)
}

/// Free text of `min` to `max` letters.
fn text(noise: Noise, numbers: &[u64], min: u32, max: u32) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(WORDS.texts(noise, numbers, |n| min + scale(mix(!noise.bits(n)), u64::from(max - min) + 1) as u32)?))
}

fn item_name(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    text(events.noise("item_name"), numbers, 3, 19)
}

fn description(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    text(events.noise("description"), numbers, 3, 99)
}

// The fillers bring a person to 200 bytes on average, an auction to 500 and a bid to 100, give or take a fifth of the filler.

fn person_extra(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    text(events.noise("person extra"), numbers, 102, 154)
}

fn auction_extra(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    text(events.noise("auction extra"), numbers, 310, 466)
}

fn bid_extra(events: &Events, numbers: &[u64]) -> Result<ArrayRef, ArrowError> {
    text(events.noise("bid extra"), numbers, 54, 82)
}
