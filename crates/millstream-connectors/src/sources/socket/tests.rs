//! Over real connections on the loopback interface.

use super::SocketSource;
use crate::conformance::{self, RangeRows, limits, read_range, source_context, start_clock};
use crate::source::{ReadRequest, Source};
use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int64Type};
use millstream_types::{Clock, ManualClock, PartitionRange};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

fn socket(columns: &[(&str, DataType)], options: &[(&str, &str)], clock: &Arc<ManualClock>) -> SocketSource {
    let mut context = source_context(columns, options, clock);
    context.metadata = vec![("partition".into(), "peer".into()), ("offset".into(), "at".into()), ("timestamp".into(), "arrived".into())];
    let source = SocketSource::new(&mut context).unwrap();
    context.options.finish().unwrap();
    source
}

const LINE: [(&str, DataType); 1] = [("line", DataType::Utf8View)];

/// Waits until so many rows are buffered.
async fn wait_for(source: &mut dyn Source, rows: u64) {
    while source.backlog().await.unwrap().rows < Some(rows) {
        source.wake().notified().await;
    }
}

async fn take(source: &mut dyn Source, clock: &ManualClock) -> (Vec<PartitionRange>, Vec<RangeRows>) {
    let ranges = source.plan(&limits(clock.now())).await.unwrap().unwrap();
    let mut rows = Vec::new();
    for range in &ranges {
        rows.push(read_range(&source.reader(), range, &ReadRequest::default()).await);
    }
    (ranges, rows)
}

fn lines(rows: &RangeRows) -> Vec<&str> {
    rows.batch.column(0).as_string_view().iter().flatten().collect()
}

#[tokio::test]
async fn a_client_reads_lines_and_connects_again() {
    let clock = start_clock();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut source = socket(&LINE, &[("host", "127.0.0.1"), ("port", &port)], &clock);
    source.open(None, &[]).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.write_all(b"to be\r\nor not\nunfin").await.unwrap();
    wait_for(&mut source, 2).await;
    let (first, rows) = take(&mut source, &clock).await;
    assert_eq!(lines(&rows[0]), ["to be", "or not"]);
    assert_eq!(rows[0].batch.column_by_name("at").unwrap().as_primitive::<Int64Type>().values(), &[0, 1]);
    peer.write_all(b"ished").await.unwrap();
    drop(peer);
    wait_for(&mut source, 1).await;
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.write_all(b"again\n").await.unwrap();
    wait_for(&mut source, 2).await;
    let (second, rows) = take(&mut source, &clock).await;
    assert_eq!(lines(&rows[0]), ["unfinished", "again"]);
    assert_eq!((second[0].partition.as_str(), second[0].range.start), ("", first[0].range.end));
}

#[tokio::test]
async fn a_server_has_a_partition_per_connection() {
    let clock = start_clock();
    let mut source = socket(&[("id", DataType::Int64)], &[("listen", "true"), ("port", "0"), ("format", "json")], &clock);
    source.open(None, &[]).await.unwrap();
    let address = source.local_address().unwrap();
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"{\"id\": 1}\n{\"id\": \"x\"}\n").await.unwrap();
    wait_for(&mut source, 2).await;
    let mut second = TcpStream::connect(address).await.unwrap();
    second.write_all(b"{\"id\": 3}\n").await.unwrap();
    wait_for(&mut source, 3).await;
    let (ranges, rows) = take(&mut source, &clock).await;
    assert_eq!(ranges.iter().map(|range| range.partition.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(rows[0].batch.column(0).as_primitive::<Int64Type>().values(), &[1]);
    assert_eq!(rows[0].bad.len(), 1);
    assert_eq!(rows[0].bad[0].place, format!("{} line 2", first.local_addr().unwrap()));
    assert_eq!(rows[1].batch.column_by_name("peer").unwrap().as_string_view().value(0), "2");
    // The connection is gone, its number is not used again, not even after a restart.
    drop((first, second));
    while !source.backlog().await.unwrap().latest.is_empty() {
        source.wake().notified().await;
    }
    source.stop().await;
    let mut restarted = socket(&[("id", DataType::Int64)], &[("listen", "true"), ("port", "0"), ("format", "json")], &clock);
    restarted.open(Some(source.position()), &[]).await.unwrap();
    let mut third = TcpStream::connect(restarted.local_address().unwrap()).await.unwrap();
    third.write_all(b"{\"id\": 4}\n").await.unwrap();
    wait_for(&mut restarted, 1).await;
    assert_eq!(take(&mut restarted, &clock).await.0[0].partition, "3");
}

#[tokio::test]
async fn conforms_as_a_server() {
    let clock = start_clock();
    // Every source listens on the same port, one after the other.
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    let make = || Box::new(socket(&LINE, &[("listen", "true"), ("port", &port.to_string())], &clock)) as Box<dyn Source>;
    let feed = async |source: &mut dyn Source| {
        let mut peer = TcpStream::connect(address).await.unwrap();
        peer.write_all(b"one\ntwo\nthree\nfour\nfive\n").await.unwrap();
        drop(peer);
        wait_for(source, 5).await;
    };
    conformance::source(make, &clock, feed).await;
}

#[tokio::test]
async fn a_bounded_stream_ends_with_its_peer() {
    let clock = start_clock();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let options = [("host", "127.0.0.1"), ("port", port.as_str()), ("bounded", "true"), ("format", "csv"), ("header", "true")];
    let mut source = socket(&[("a", DataType::Int64), ("b", DataType::Int64)], &options, &clock);
    source.open(None, &[]).await.unwrap();
    let (mut peer, _) = listener.accept().await.unwrap();
    peer.write_all(b"b,a\n1,2\n3,4").await.unwrap();
    drop(peer);
    wait_for(&mut source, 2).await;
    let (_, rows) = take(&mut source, &clock).await;
    assert_eq!(rows[0].batch.column(0).as_primitive::<Int64Type>().values(), &[2, 4]);
    while !source.backlog().await.unwrap().ended {
        source.wake().notified().await;
    }
}

#[tokio::test]
async fn a_full_buffer_stops_reading_from_the_peer() {
    let clock = start_clock();
    let mut source = socket(&LINE, &[("listen", "true"), ("port", "0"), ("buffer_bytes", "100kB")], &clock);
    source.open(None, &[]).await.unwrap();
    let peer = TcpStream::connect(source.local_address().unwrap()).await.unwrap();
    let line = format!("{}\n", "x".repeat(999));
    let total = 50_000_000 / line.len() as u64;
    let sending = tokio::spawn({
        let chunk = line.repeat(100);
        async move {
            let mut peer = peer;
            for _ in 0..total / 100 {
                peer.write_all(chunk.as_bytes()).await.unwrap();
            }
        }
    });
    let mut seen = 0;
    while seen < total {
        wait_for(&mut source, 1).await;
        let ranges = source.plan(&limits(clock.now())).await.unwrap().unwrap();
        let rows: u64 = ranges.iter().map(|range| range.range.end.row - range.range.start.row).sum();
        assert!(rows <= 400, "{rows} lines were buffered");
        assert!(seen > 0 || !sending.is_finished(), "the peer was not slowed down");
        seen += rows;
        source.acknowledge(&ranges).await.unwrap();
    }
    sending.await.unwrap();
}

#[test]
fn options_are_checked() {
    let clock = start_clock();
    let refused = |options: &[(&str, &str)]| SocketSource::new(&mut source_context(&LINE, options, &clock)).unwrap_err().to_string();
    assert_eq!(refused(&[("port", "1")]), "stream \"s\" needs the option \"host\"");
    assert_eq!(refused(&[("host", "h")]), "stream \"s\" needs the option \"port\"");
    assert_eq!(refused(&[("host", "h"), ("port", "65536")]), "option \"port\" of stream \"s\" is '65536', not a port number");
    assert_eq!(
        refused(&[("host", "h"), ("port", "1"), ("format", "avro")]),
        "option \"format\" of stream \"s\" is 'avro', not one of 'text', 'json', 'csv', 'raw': rows arrive as lines"
    );
    let two = [("a", DataType::Utf8View), ("b", DataType::Utf8View)];
    assert!(SocketSource::new(&mut source_context(&two, &[("host", "h"), ("port", "1")], &clock)).is_err(), "text has one column");
}

#[tokio::test]
async fn a_port_in_use_is_an_error_at_once() {
    let clock = start_clock();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = taken.local_addr().unwrap();
    let mut source = socket(&LINE, &[("listen", "true"), ("port", &place.port().to_string())], &clock);
    assert_eq!(source.open(None, &[]).await.unwrap_err().to_string(), format!("listening on {place} failed"));
    assert_eq!(conformance::START, clock.now());
}
