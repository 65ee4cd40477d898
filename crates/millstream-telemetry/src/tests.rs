//! The export as a collector sees it: one in process, one that is not there, and one that never answers.

use crate::{Figure, FigureKind, Figures, Options, Telemetry};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{MetricsService, MetricsServiceServer};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tracing_subscriber::layer::SubscriberExt;

#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.spans.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(&self, request: Request<ExportMetricsServiceRequest>) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

async fn collector() -> (Collector, SocketAddr) {
    let collector = Collector::default();
    // Taken and given back: the server binds it again.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector.clone()))
        .add_service(MetricsServiceServer::new(collector.clone()));
    tokio::spawn(server.serve(address));
    (collector, address)
}

fn options(address: SocketAddr) -> Options {
    Options::from_env(|_| None, Some(&format!("http://{address}")), "mill", "1.2.3").unwrap().unwrap()
}

struct Rows(AtomicU32);

impl Rows {
    fn figures(value: f64) -> Vec<Figure> {
        let labels = vec![("stream", "s".to_string())];
        let rows = Figure { name: "source_rows_total", help: "Rows.", kind: FigureKind::Counter, values: vec![(labels, value)] };
        let bytes = Figure { name: "state_bytes", help: "Bytes.", kind: FigureKind::Gauge, values: vec![(Vec::new(), value)] };
        vec![rows, bytes]
    }
}

impl Figures for Rows {
    fn read(&self) -> Vec<Figure> {
        Self::figures(f64::from(self.0.fetch_add(1, Ordering::Relaxed) + 1))
    }
}

fn spans(telemetry: &Telemetry) {
    let subscriber = tracing_subscriber::registry().with(telemetry.layer::<tracing_subscriber::Registry>());
    tracing::subscriber::with_default(subscriber, || {
        let epoch = tracing::info_span!("epoch", epoch = 7);
        epoch.in_scope(|| tracing::info_span!("commit").in_scope(|| ()));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_and_figures_arrive() {
    let (collector, address) = collector().await;
    let telemetry = Telemetry::start(&options(address)).unwrap();
    telemetry.observe(&Rows::figures(0.0), Arc::new(Rows(AtomicU32::new(0))));
    let durations = telemetry.durations("epoch_duration_seconds", "Time.", &[0.1, 1.0]).unwrap();
    durations.record(0.5, ("phase", "total"));
    spans(&telemetry);
    telemetry.stop(Duration::from_secs(20)).await;

    let requests = collector.spans.lock();
    let resource = requests[0].resource_spans[0].resource.as_ref().unwrap();
    let attribute = |name: &str| {
        let value = resource.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value?;
        if let Value::StringValue(text) = value { Some(text) } else { None }
    };
    assert_eq!((attribute("service.name").as_deref(), attribute("service.version").as_deref()), (Some("mill"), Some("1.2.3")));
    let spans: Vec<_> = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans).collect();
    let spans: Vec<_> = spans.iter().flat_map(|scope| &scope.spans).collect();
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    assert_eq!(named("commit").parent_span_id, named("epoch").span_id);
    assert!(named("epoch").attributes.iter().any(|attribute| attribute.key == "epoch"));

    let requests = collector.metrics.lock();
    let metrics: Vec<_> = requests[0].resource_metrics[0].scope_metrics.iter().flat_map(|scope| &scope.metrics).collect();
    let named = |name: &str| metrics.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{metrics:?}"));
    let Some(Data::Sum(rows)) = &named("millstream.source_rows").data else { panic!("no sum") };
    assert!(rows.is_monotonic && rows.data_points[0].attributes[0].key == "stream");
    let Some(Data::Gauge(bytes)) = &named("millstream.state").data else { panic!("no gauge") };
    assert_eq!(named("millstream.state").unit, "By");
    assert_eq!(bytes.data_points[0].value, Some(number_data_point::Value::AsDouble(1.0)), "one reading for both");
    assert_eq!(rows.data_points[0].value, bytes.data_points[0].value);
    let Some(Data::Histogram(times)) = &named("millstream.epoch_duration").data else { panic!("no histogram") };
    assert_eq!(times.data_points[0].bucket_counts, [0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_collector() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), nowhere] {
        let telemetry = Telemetry::start(&options(address)).unwrap();
        telemetry.observe(&Rows::figures(0.0), Arc::new(Rows(AtomicU32::new(0))));
        for _ in 0..10_000 {
            spans(&telemetry);
        }
        let stopped = telemetry.stop(Duration::from_millis(200));
        tokio::time::timeout(Duration::from_secs(20), stopped).await.expect("an end");
    }
}

#[test]
fn the_environment_decides() {
    let read = |variables: &[(&str, &str)], endpoint: Option<&str>| {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
        Options::from_env(env, endpoint, "mill", "1").map_err(|error| error.message)
    };
    let at = "http://127.0.0.1:4317";
    assert_eq!(read(&[], None), Ok(None));
    assert_eq!(read(&[("OTEL_SDK_DISABLED", "true")], Some(at)), Ok(None));
    let both = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", at)], Some("http://other")).unwrap().unwrap();
    assert!(both.spans.as_ref().is_some_and(|to| to.endpoint.is_none()) && both.metrics.is_some(), "the exporter reads it itself");
    let one = read(&[("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SERVICE_NAME", "x")], Some(at)).unwrap().unwrap();
    assert!(one.spans.is_none() && one.service_name.is_none());
    assert_eq!(one.metrics.unwrap().endpoint.as_deref(), Some(at));
    let one = read(&[("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", at)], None).unwrap().unwrap();
    assert!(one.spans.is_none() && one.metrics.is_some());
    let error = read(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], Some(at)).unwrap_err();
    assert!(error.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL is \"http/protobuf\""), "{error}");
    assert!(read(&[("OTEL_METRICS_EXPORTER", "prometheus")], Some(at)).is_err());
}
