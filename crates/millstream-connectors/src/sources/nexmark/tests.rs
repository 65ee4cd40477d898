//! Proportions, references and skew of the events.

use super::{DEFAULT_BASE_TIME_US, NexmarkSource, NexmarkTable, generate, schema_of};
use crate::conformance::{self, limits, read_range, source_context, start_clock};
use crate::source::{EpochLimits, ReadRequest, Source};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use millstream_types::{Clock, ManualClock};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

fn nexmark(table: NexmarkTable, options: &[(&str, &str)], clock: &Arc<ManualClock>) -> NexmarkSource {
    let schema = schema_of(table);
    let columns: Vec<(&str, DataType)> = schema.fields().iter().map(|field| (field.name().as_str(), field.data_type().clone())).collect();
    let options: Vec<(&str, &str)> = options.iter().copied().chain([("table", table.name())]).collect();
    NexmarkSource::new(&mut source_context(&columns, &options, clock)).unwrap()
}

fn integers<'a>(batch: &'a RecordBatch, column: &str) -> &'a [i64] {
    batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values()
}

#[tokio::test]
async fn every_table_conforms() {
    for table in NexmarkTable::ALL {
        let clock = start_clock();
        let options = [("events_per_second", "1000")];
        conformance::source(|| Box::new(nexmark(table, &options, &clock)), &clock, async |_: &mut dyn Source| {}).await;
    }
}

#[test]
fn events_have_the_standard_proportions_and_ids() {
    let counts = NexmarkTable::ALL.map(|table| generate(table, 0, 5_000).unwrap().num_rows());
    assert_eq!(counts, [100, 300, 4_600]);
    let persons = generate(NexmarkTable::Person, 0, 5_000).unwrap();
    assert!(integers(&persons, "id").iter().copied().eq(1_000..1_100));
    let auctions = generate(NexmarkTable::Auction, 0, 5_000).unwrap();
    assert!(integers(&auctions, "id").iter().copied().eq(1_000..1_300));
    assert!(integers(&auctions, "category").iter().all(|category| (10..15).contains(category)));
    assert!(integers(&auctions, "reserve").iter().zip(integers(&auctions, "initial_bid")).all(|(reserve, initial)| reserve > initial));
    for table in NexmarkTable::ALL {
        let batch = generate(table, 0, 500).unwrap();
        assert_eq!(batch.schema(), schema_of(table));
        assert!(batch.columns().iter().all(|column| column.null_count() == 0));
    }
}

#[test]
fn events_are_a_function_of_their_number() {
    for table in NexmarkTable::ALL {
        let whole = generate(table, 0, 1_000).unwrap();
        let mut row = 0;
        for first in (0..1_000).step_by(37) {
            let part = generate(table, first, 37.min(1_000 - first)).unwrap();
            assert_eq!(part, whole.slice(row, part.num_rows()), "{table:?} {first}");
            row += part.num_rows();
        }
        assert_eq!(row, whole.num_rows());
    }
}

#[test]
fn bids_are_skewed_and_refer_to_known_auctions() {
    let (first, count) = (1_000_000, 50_000);
    let bids = generate(NexmarkTable::Bid, first, count).unwrap();
    let newest = (first + count) as i64 / 50 * 3 + 1_000;
    assert!(integers(&bids, "auction").iter().all(|auction| (1_000..newest + 10).contains(auction)));
    let hot = integers(&bids, "auction").iter().filter(|auction| **auction % 100 == 0).count() as f64 / bids.num_rows() as f64;
    assert!((0.49..0.53).contains(&hot), "{hot}");
    let hot = integers(&bids, "bidder").iter().filter(|bidder| **bidder % 100 == 1).count() as f64 / bids.num_rows() as f64;
    assert!((0.73..0.78).contains(&hot), "{hot}");
    assert!(integers(&bids, "price").iter().all(|price| (100..=100_000_000).contains(price)));
    let mut channels: HashMap<&str, usize> = HashMap::new();
    let channel = bids.column_by_name("channel").unwrap().as_string_view();
    channel.iter().flatten().for_each(|name| *channels.entry(name).or_default() += 1);
    let named = ["Google", "Facebook", "Baidu", "Apple"].iter().map(|name| channels[name]).sum::<usize>() as f64 / bids.num_rows() as f64;
    assert!((0.49..0.51).contains(&named), "{named}");
    let urls = bids.column_by_name("url").unwrap().as_string_view();
    assert!(urls.iter().flatten().all(|url| url.starts_with("https://www.nexmark.com/") && url.split('/').count() == 7));
    let with_id =
        (0..bids.num_rows()).filter(|row| channel.value(*row).starts_with("channel-") && urls.value(*row).contains("&channel_id=")).count();
    let unnamed = channel.iter().flatten().filter(|name| name.starts_with("channel-")).count();
    assert!((0.85..0.95).contains(&(with_id as f64 / unnamed as f64)));
    // A channel has one address.
    let pairs: HashSet<(&str, &str)> = channel.iter().flatten().zip(urls.iter().flatten()).collect();
    assert_eq!(pairs.len(), channels.len());
}

#[test]
fn times_are_evenly_spaced_and_auctions_expire_later() {
    let bids = generate(NexmarkTable::Bid, 0, 100).unwrap();
    let times = bids.column_by_name("date_time").unwrap().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.value(0), DEFAULT_BASE_TIME_US + 400);
    assert_eq!(times.value(46), DEFAULT_BASE_TIME_US + 5_400);
    let auctions = generate(NexmarkTable::Auction, 0, 50_000).unwrap();
    let start = auctions.column_by_name("date_time").unwrap().as_primitive::<TimestampMicrosecondType>();
    let end = auctions.column_by_name("expires").unwrap().as_primitive::<TimestampMicrosecondType>();
    let durations: Vec<i64> = start.values().iter().zip(end.values()).map(|(start, end)| end - start).collect();
    assert!(durations.iter().all(|duration| (1_000..=333_000).contains(duration)));
    let mean = durations.iter().sum::<i64>() / durations.len() as i64;
    assert!((155_000..180_000).contains(&mean), "{mean}");
}

#[tokio::test]
async fn the_source_yields_what_generate_does() {
    let clock = start_clock();
    let options = [("event_limit", "1000"), ("events_per_second", "10000")];
    let mut source = nexmark(NexmarkTable::Auction, &options, &clock);
    source.open(None, &[]).await.unwrap();
    source.mark_end().await.unwrap();
    let ranges = source.plan(&EpochLimits { draining: true, ..limits(clock.now()) }).await.unwrap().unwrap();
    let rows = read_range(&source.reader(), &ranges[0], &ReadRequest { projection: None, batch_size: 7, ..ReadRequest::default() }).await;
    assert_eq!(rows.batch.columns(), generate(NexmarkTable::Auction, 0, 1_000).unwrap().columns());
    assert!(source.backlog().await.unwrap().ended);
}

#[test]
fn options_and_columns_are_checked() {
    let clock = start_clock();
    let refused = |columns: &[(&str, DataType)], options: &[(&str, &str)]| {
        NexmarkSource::new(&mut source_context(columns, options, &clock)).unwrap_err().to_string()
    };
    assert_eq!(refused(&[], &[]), "stream \"s\" needs the option \"table\"");
    assert_eq!(refused(&[], &[("table", "offer")]), "option \"table\" of stream \"s\" is 'offer', not one of 'person', 'auction', 'bid'");
    assert_eq!(
        refused(&[("acution", DataType::Int64)], &[("table", "bid")]),
        "stream \"s\" declares the column \"acution\", which Nexmark's bid has not"
    );
    assert_eq!(
        refused(&[("price", DataType::Utf8View)], &[("table", "bid")]),
        "column \"price\" of stream \"s\" is declared Utf8View, but Nexmark's is Int64"
    );
}
