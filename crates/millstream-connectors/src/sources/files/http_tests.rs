//! The `files` source over `http://`: listing by PROPFIND, reading by ranges, from a server on the loopback interface.

use super::tests::{Place, n, read};
use super::*;
use crate::source::EpochLimits;
use ::arrow::array::{ArrayRef, Int64Array, RecordBatch};
use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Serves objects by their paths: `PROPFIND`, `HEAD`, `GET` with a range, `DELETE`. One request per connection.
#[derive(Clone, Default)]
struct Server {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it; gives its address.
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = self.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let server = server.clone();
                std::thread::spawn(move || server.answer(connection.unwrap()));
            }
        });
        address
    }

    fn put(&self, path: &str, content: impl Into<Vec<u8>>) {
        self.objects.lock().unwrap().insert(path.to_string(), content.into());
    }

    fn answer(&self, mut connection: TcpStream) {
        let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
        let request = lines.next().unwrap().unwrap();
        let headers: BTreeMap<String, String> = lines
            .map(|line| line.unwrap())
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_string())))
            .collect();
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap().to_string(), words.next().unwrap().to_string());
        self.requests.lock().unwrap().push(format!("{method} {path}"));
        let mut objects = self.objects.lock().unwrap();
        let (status, body, more) = match (method.as_str(), objects.get(&path)) {
            ("PROPFIND", _) => {
                ("207 Multi-Status", listing(&objects, path.trim_end_matches('/'), &headers["depth"]).into_bytes(), String::new())
            }
            ("DELETE", Some(_)) => {
                objects.remove(&path);
                ("204 No Content", Vec::new(), String::new())
            }
            ("GET" | "HEAD", Some(content)) => match headers.get("range").and_then(|range| range.strip_prefix("bytes=")) {
                None => ("200 OK", content.clone(), String::new()),
                Some(range) => {
                    let (start, last) = range.split_once('-').unwrap();
                    let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
                    let last = last.min(content.len() - 1);
                    let more = format!("Content-Range: bytes {start}-{last}/{}\r\n", content.len());
                    ("206 Partial Content", content[start..=last].to_vec(), more)
                }
            },
            _ => ("404 Not Found", Vec::new(), String::new()),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n{more}Connection: close\r\n\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).unwrap();
        if method != "HEAD" {
            connection.write_all(&body).unwrap();
        }
        connection.flush().unwrap();
    }
}

/// The answer to a PROPFIND: everything below a collection, or only what lies directly in it.
fn listing(objects: &BTreeMap<String, Vec<u8>>, collection: &str, depth: &str) -> String {
    let mut text = String::from("<?xml version=\"1.0\"?><D:multistatus xmlns:D=\"DAV:\">");
    let mut entry = |href: &str, properties: String| {
        text += &format!(
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{properties}\
             <D:getlastmodified>Sat, 01 Jan 2000 00:00:00 GMT</D:getlastmodified></D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        );
    };
    let directory = || "<D:resourcetype><D:collection/></D:resourcetype>".to_string();
    entry(&format!("{collection}/"), directory());
    let mut collections = std::collections::BTreeSet::new();
    for (path, content) in objects.iter().filter(|(path, _)| path.starts_with(&format!("{collection}/"))) {
        match path[collection.len() + 1..].split_once('/') {
            Some((below, _)) if depth == "1" => drop(collections.insert(format!("{collection}/{below}/"))),
            _ => entry(path, format!("<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>", content.len())),
        }
    }
    collections.iter().for_each(|href| entry(href, directory()));
    text + "</D:multistatus>"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_files_from_a_web_server() {
    let server = Server::default();
    server.put("/data/a.csv", "n\n1\n2\nthree\n");
    server.put("/data/b.csv", "n\n4\n");
    server.put("/data/_hidden.csv", "n\n9\n");
    server.put("/data/below/c.csv", "n\n5\n");
    server.put("/other/d.csv", "n\n6\n");
    let address = server.start();
    let place = Place::new();
    let open = async |path: &str, more: &[(&str, &str)]| {
        let mut options = vec![("format", "csv"), ("order", "name"), ("discovery_interval", "1s")];
        options.extend(more);
        let mut context = place.context("unused", &n(), &options);
        context.options.take("path");
        context.options.set_default("path", format!("{address}{path}"));
        let mut source = create(&mut context).unwrap();
        context.options.finish().unwrap();
        source.open(None, &[]).await.unwrap();
        source
    };
    let mut source = open("/data/", &[]).await;
    let limits = EpochLimits { max_files: 1, ..place.limits() };
    let first = source.plan(&limits).await.unwrap().unwrap().remove(0);
    assert_eq!(first.detail["files"][0]["path"], format!("{address}/data/a.csv"));
    assert_eq!(read(&mut source, &first).await, ["0:0 1", "0:1 2", "0:2 bad a.csv:4 column \"n\": 'three' is not a valid BIGINT"]);
    let second = source.plan(&limits).await.unwrap().unwrap().remove(0);
    assert_eq!(read(&mut source, &second).await, ["1:0 4"]);
    assert!(source.plan(&limits).await.unwrap().is_none());

    // A file that comes later is found by the next listing; a logged range is read again.
    server.put("/data/e.csv", "n\n7\n");
    place.advance(1);
    let third = source.plan(&place.limits()).await.unwrap().unwrap().remove(0);
    assert_eq!(read(&mut source, &third).await, ["2:0 7"]);
    assert_eq!(read(&mut source, &second).await, ["1:0 4"]);

    let mut deep = open("/data/*/*.csv", &[("after_read", "delete")]).await;
    let range = deep.plan(&place.limits()).await.unwrap().unwrap().remove(0);
    assert_eq!(read(&mut deep, &range).await, ["0:0 5"]);
    deep.acknowledge(&[range]).await.unwrap();
    assert!(server.requests.lock().unwrap().contains(&"DELETE /data/below/c.csv".to_string()));
}

/// The requests that reading a thousand rows takes, in pages of so many.
async fn requests_for(page_rows: usize) -> Vec<String> {
    let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..1_000)) as ArrayRef)]).unwrap();
    let properties =
        WriterProperties::builder().set_data_page_row_count_limit(page_rows).set_write_batch_size(page_rows).set_dictionary_enabled(false);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build())).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let server = Server::default();
    server.put("/data/a.parquet", bytes);
    let address = server.start();
    let place = Place::new();
    let mut context = place.context("unused", &n(), &[("format", "parquet")]);
    context.options.take("path");
    context.options.set_default("path", format!("{address}/data/"));
    let mut source = create(&mut context).unwrap();
    source.open(None, &[]).await.unwrap();
    let range = source.plan(&place.limits()).await.unwrap().unwrap().remove(0);
    server.requests.lock().unwrap().clear();
    assert_eq!(read(&mut source, &range).await.len(), 1_000);
    server.requests.lock().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_column_chunk_is_fetched_at_once_whatever_its_pages() {
    assert_eq!(requests_for(10).await, requests_for(1_000).await);
}

#[tokio::test]
async fn urls_name_their_store() {
    let place = Place::new();
    let location = |path: &str| {
        let mut context =
            place.context("unused", &n(), &[("format", "csv"), ("aws_region", "eu-north-1"), ("azure_storage_account_name", "a")]);
        context.options.take("path");
        config::Location::parse(path, &mut context.options).map(|location| (location.storage, location.base, location.pattern))
    };
    for (path, root, base, pattern) in [
        ("s3://bucket/in/2024/", "s3://bucket", "in/2024", None),
        ("s3://bucket/in/*/x-*.csv", "s3://bucket", "in", Some("in/*/x-*.csv")),
        ("gs://bucket/in", "gs://bucket", "in", None),
        ("az://container/in", "az://container", "in", None),
        ("https://example.com/a/b.csv", "https://example.com", "a/b.csv", None),
    ] {
        let (storage, found_base, found_pattern) = location(path).unwrap();
        let storage::Storage::Object { root: found_root, .. } = storage else { panic!("{path} is a local path") };
        assert_eq!((found_root.as_str(), found_base.as_str(), found_pattern.as_deref()), (root, base, pattern), "{path}");
    }
    assert!(location("ftp://host/in").unwrap_err().to_string().contains("unknown scheme \"ftp\""));
}
