//! Whether anything is exported, and where to: the standard variables of the environment, and defaults for what they leave open.
//!
//! | variable | |
//! | --- | --- |
//! | `OTEL_SDK_DISABLED` | `true`: nothing is exported |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `.._TRACES_ENDPOINT`, `.._METRICS_ENDPOINT` | the collector; without any, and without a default, nothing is exported |
//! | `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` | `otlp` or `none` |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL` and those of each signal | `grpc` |
//!
//! The rest is read by the exporters themselves: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, headers, time-outs, sampling, queues
//! and intervals.

/// What is exported, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub(crate) spans: Option<To>,
    pub(crate) metrics: Option<To>,
    pub(crate) service_name: Option<String>,
    pub(crate) version: &'static str,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct To {
    /// `None`: the exporter finds it in the environment.
    pub(crate) endpoint: Option<String>,
}

/// Why nothing can be exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TelemetryError {
    /// What is wrong.
    pub message: String,
}

impl Options {
    /// What the environment asks for; `None` for no export. `endpoint` and `service_name` hold where it says nothing.
    ///
    /// # Errors
    /// A variable has a value that is not served here.
    pub fn from_env(
        env: impl Fn(&str) -> Option<String>,
        endpoint: Option<&str>,
        service_name: &str,
        version: &'static str,
    ) -> Result<Option<Self>, TelemetryError> {
        // An empty variable counts as none.
        let env = |name: &str| env(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        if env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let to = |signal: &str| {
            let exporter = format!("OTEL_{signal}_EXPORTER");
            match env(&exporter).as_deref() {
                None | Some("otlp") => {}
                Some("none") => return Ok(None),
                Some(other) => return Err(not_served(&exporter, other, "otlp or none")),
            }
            let given = [format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"), "OTEL_EXPORTER_OTLP_ENDPOINT".to_string()];
            let to = match (given.iter().any(|name| env(name).is_some()), endpoint) {
                (true, _) => To { endpoint: None },
                (false, Some(endpoint)) => To { endpoint: Some(endpoint.to_string()) },
                (false, None) => return Ok(None),
            };
            for protocol in [format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL".to_string()] {
                match env(&protocol).as_deref() {
                    None => continue,
                    Some("grpc") => break,
                    Some(other) => return Err(not_served(&protocol, other, "grpc; the port of a collector for it is 4317")),
                }
            }
            Ok(Some(to))
        };
        let (spans, metrics) = (to("TRACES")?, to("METRICS")?);
        if spans.is_none() && metrics.is_none() {
            return Ok(None);
        }
        let named = env("OTEL_SERVICE_NAME").is_some()
            || env("OTEL_RESOURCE_ATTRIBUTES")
                .is_some_and(|attributes| attributes.split(',').any(|one| one.trim().starts_with("service.name=")));
        let service_name = (!named).then(|| service_name.to_string());
        Ok(Some(Self { spans, metrics, service_name, version }))
    }
}

fn not_served(variable: &str, value: &str, choices: &str) -> TelemetryError {
    TelemetryError { message: format!("{variable} is \"{value}\", and only {choices} is served") }
}
