//! Settings from the configuration file and the environment.
//!
//! ```toml
//! [output]
//! format = "box"          # as --format
//! null = "∅"
//! expanded = "auto"       # on, off, auto
//!
//! [shell]
//! timing = true
//!
//! [serve]
//! pg = "127.0.0.1:6543"   # as --pg
//!
//! [pipeline]              # every pipeline option, as SET takes it
//! trigger = "1s"
//! ```
//! The environment overrides the file: `MILLSTREAM__OUTPUT__FORMAT=csv`. An unknown name is an error that suggests the
//! nearest known one, never silence. The engine itself checks the names under `pipeline`.

use crate::args::{ListenAt, LogFormat, address};
use crate::failure::Failure;
use crate::output::{Expanded, Format};
use millstream_types::options::{parse_bytes, parse_duration};
use millstream_types::suggest::nearest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The names outside `pipeline`, each with what it is for.
pub(crate) const KNOWN: [(&str, &str); 28] = [
    ("log.filter", "what is logged, as --log"),
    ("log.format", "text or json, as --log-format"),
    (
        "otel.endpoint",
        "the collector that services export to over gRPC, such as http://127.0.0.1:4317, where OTEL_EXPORTER_OTLP_ENDPOINT is not set",
    ),
    ("otel.filter", "the spans that are exported, such as millstream=info"),
    ("otel.service_name", "what the service is called there, where OTEL_SERVICE_NAME is not set"),
    ("output.expanded", "on, off or auto: rows one column per line"),
    ("output.format", "box, table, expanded, csv, tsv, json, ndjson or markdown, as --format"),
    ("output.null", "what stands for NULL in tables"),
    ("output.pager", "on or off: show what is longer than the window in $PAGER"),
    ("serve.allow_host", "hosts that statements may name, separated by commas or as a list, as --allow-host"),
    ("serve.allow_path", "directories that statements may name, separated by commas or as a list, as --allow-path"),
    ("serve.connections", "connections of all protocols at a time"),
    ("serve.flight", "where `serve` speaks Arrow Flight SQL, or none, as --flight"),
    ("serve.http", "where `serve` speaks HTTP, or none, as --http"),
    ("serve.insecure", "on or off: serve whoever comes, as --insecure"),
    ("serve.memory", "memory that a statement of a client may take, such as 1 GB"),
    ("serve.message_bytes", "bytes of a statement or request at most, such as 64 MB"),
    ("serve.pg", "where `serve` speaks the PostgreSQL protocol, or none, as --pg"),
    ("serve.rows", "rows that a query of a client may give"),
    ("serve.statement_timeout", "how long a statement of a client may run; 0 for any time"),
    ("serve.stop_timeout", "how long a stopping server waits for statements that run"),
    ("serve.tls_cert", "the server's certificate, as --tls-cert"),
    ("serve.tls_key", "the certificate's key, as --tls-key"),
    ("serve.users", "who may connect, as --users"),
    ("shell.history_file", "where the shell keeps its history; empty for none"),
    ("shell.history_size", "statements the shell remembers"),
    ("shell.live", "table, changelog or append: how SELECT ... EMIT CHANGES is shown"),
    ("shell.timing", "on or off: print how long each statement took"),
];

/// The section whose names the engine knows.
const PIPELINE: &str = "pipeline.";

/// How `SELECT ... EMIT CHANGES` is shown on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Live {
    /// A table that is updated in place; lines when the query only appends.
    Table,
    /// `+I -U +U -D` lines.
    Changelog,
    /// The new rows only, as lines; refused for a query that takes rows back.
    Append,
}

impl Live {
    /// Every choice with its name.
    pub(crate) const ALL: [(&'static str, Live); 3] = [("table", Live::Table), ("changelog", Live::Changelog), ("append", Live::Append)];
}

/// One setting as `config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `section.name`.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: String,
    /// Where it comes from: a file or the environment.
    pub(crate) origin: String,
}

/// The settings in force.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// `output.format`.
    pub(crate) format: Option<Format>,
    /// `output.null`.
    pub(crate) null: Option<String>,
    /// `output.expanded`.
    pub(crate) expanded: Option<Expanded>,
    /// `output.pager`.
    pub(crate) pager: Option<bool>,
    /// `shell.history_file`.
    pub(crate) history_file: Option<PathBuf>,
    /// `shell.history_size`.
    pub(crate) history_size: Option<usize>,
    /// `shell.live`.
    pub(crate) live: Option<Live>,
    /// `shell.timing`.
    pub(crate) timing: Option<bool>,
    /// `log.filter`.
    pub(crate) log_filter: Option<String>,
    /// `log.format`.
    pub(crate) log_format: Option<LogFormat>,
    /// `serve.*`.
    pub(crate) serve: ServeSettings,
    /// `otel.*`.
    pub(crate) otel: OtelSettings,
    /// Options of the pipeline.
    pub(crate) pipeline: BTreeMap<String, String>,
    /// All of them as they were given.
    pub(crate) entries: Vec<Entry>,
}

/// The collector that services export to.
#[derive(Debug, Clone, Default)]
pub(crate) struct OtelSettings {
    /// `otel.endpoint`.
    pub(crate) endpoint: Option<String>,
    /// `otel.filter`.
    pub(crate) filter: Option<String>,
    /// `otel.service_name`.
    pub(crate) service_name: Option<String>,
}

/// The settings of `millstream serve`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ServeSettings {
    /// `serve.pg`.
    pub(crate) pg: Option<ListenAt>,
    /// `serve.flight`.
    pub(crate) flight: Option<ListenAt>,
    /// `serve.http`.
    pub(crate) http: Option<ListenAt>,
    /// `serve.users`.
    pub(crate) users: Option<PathBuf>,
    /// `serve.tls_cert`.
    pub(crate) tls_cert: Option<PathBuf>,
    /// `serve.tls_key`.
    pub(crate) tls_key: Option<PathBuf>,
    /// `serve.insecure`.
    pub(crate) insecure: Option<bool>,
    /// `serve.allow_path`.
    pub(crate) allow_path: Option<Vec<PathBuf>>,
    /// `serve.allow_host`.
    pub(crate) allow_host: Option<Vec<String>>,
    /// `serve.memory`.
    pub(crate) memory: Option<u64>,
    /// `serve.rows`.
    pub(crate) rows: Option<u64>,
    /// `serve.connections`.
    pub(crate) connections: Option<usize>,
    /// `serve.message_bytes`.
    pub(crate) message_bytes: Option<usize>,
    /// `serve.statement_timeout`.
    pub(crate) statement_timeout: Option<Duration>,
    /// `serve.stop_timeout`.
    pub(crate) stop_timeout: Option<Duration>,
}

/// Reads the settings: `file` where one is named (it must exist), else the first of the default files that exists.
///
/// # Errors
/// When a file cannot be read, or a name or a value is wrong.
pub(crate) fn load(file: Option<&Path>) -> Result<Settings, Failure> {
    let file = match file {
        Some(file) if !file.is_file() => return Err(Failure::usage(format!("configuration file \"{}\" does not exist", file.display()))),
        Some(file) => Some(file.to_path_buf()),
        None => default_files().into_iter().find(|file| file.is_file()),
    };
    let mut builder = config::Config::builder();
    if let Some(file) = &file {
        builder = builder.add_source(config::File::from(file.as_path()).format(config::FileFormat::Toml));
    }
    builder = builder.add_source(config::Environment::with_prefix("MILLSTREAM").prefix_separator("__").separator("__"));
    let invalid = |error: config::ConfigError| Failure::usage(format!("configuration: {error}"));
    let table = builder.build().map_err(invalid)?.cache.into_table().map_err(invalid)?;
    let mut entries = Vec::new();
    flatten("", table, &mut entries)?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    interpret(entries)
}

/// Where a configuration file is looked for.
pub(crate) fn default_files() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("millstream.toml")];
    files.extend(user_directory("XDG_CONFIG_HOME", ".config").map(|directory| directory.join("config.toml")));
    files
}

/// The user's directory for files of this program, such as `~/.config/millstream`.
pub(crate) fn user_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(variable).or_else(|| absolute("HOME").map(|home| home.join(below_home))).map(|base| base.join("millstream"))
}

fn flatten(prefix: &str, table: config::Map<String, config::Value>, entries: &mut Vec<Entry>) -> Result<(), Failure> {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        let origin = value.origin().unwrap_or("the environment").to_string();
        match value.kind {
            config::ValueKind::Table(inner) => flatten(&format!("{name}."), inner, entries)?,
            config::ValueKind::Array(items) => {
                let items = items.into_iter().map(config::Value::into_string).collect::<Result<Vec<_>, _>>();
                let items = items.map_err(|_| Failure::usage(format!("setting \"{name}\" ({origin}) must be a list of texts")))?;
                entries.push(Entry { name, value: items.join(","), origin });
            }
            _ => {
                let value = value
                    .into_string()
                    .map_err(|_| Failure::usage(format!("setting \"{name}\" ({origin}) must be a text, a number or true or false")))?;
                entries.push(Entry { name, value, origin });
            }
        }
    }
    Ok(())
}

fn interpret(entries: Vec<Entry>) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    for entry in &entries {
        if let Some(option) = entry.name.strip_prefix(PIPELINE) {
            settings.pipeline.insert(option.to_string(), entry.value.clone());
            continue;
        }
        match entry.name.as_str() {
            "log.filter" => settings.log_filter = Some(entry.value.clone()),
            "log.format" => settings.log_format = Some(choice(entry, &[("text", LogFormat::Text), ("json", LogFormat::Json)])?),
            "otel.endpoint" => settings.otel.endpoint = Some(entry.value.clone()),
            "otel.filter" => settings.otel.filter = Some(entry.value.clone()),
            "otel.service_name" => settings.otel.service_name = Some(entry.value.clone()),
            "output.expanded" => settings.expanded = Some(choice(entry, &EXPANDED)?),
            "output.format" => settings.format = Some(choice(entry, &Format::ALL)?),
            "output.null" => settings.null = Some(entry.value.clone()),
            "output.pager" => settings.pager = Some(choice(entry, &SWITCH)?),
            "serve.allow_host" => settings.serve.allow_host = Some(list(entry).map(str::to_string).collect()),
            "serve.allow_path" => settings.serve.allow_path = Some(list(entry).map(PathBuf::from).collect()),
            "serve.memory" => settings.serve.memory = Some(parse_bytes(&entry.value).ok_or_else(|| wrong(entry, "a size such as 1 GB"))?),
            "serve.rows" => settings.serve.rows = Some(entry.value.parse().map_err(|_| wrong(entry, "a number of rows"))?),
            "serve.connections" => {
                let count = entry.value.parse().ok().filter(|count| *count > 0).ok_or_else(|| wrong(entry, "a number above 0"))?;
                settings.serve.connections = Some(count);
            }
            "serve.flight" => settings.serve.flight = Some(address(&entry.value).map_err(|_| wrong(entry, "an address, or none"))?),
            "serve.http" => settings.serve.http = Some(address(&entry.value).map_err(|_| wrong(entry, "an address, or none"))?),
            "serve.insecure" => settings.serve.insecure = Some(choice(entry, &SWITCH)?),
            "serve.message_bytes" => {
                let bytes = parse_bytes(&entry.value).and_then(|bytes| usize::try_from(bytes).ok()).filter(|bytes| *bytes >= 1_000);
                settings.serve.message_bytes = Some(bytes.ok_or_else(|| wrong(entry, "a size of 1,000 bytes or more"))?);
            }
            "serve.pg" => settings.serve.pg = Some(address(&entry.value).map_err(|_| wrong(entry, "an address, or none"))?),
            "serve.statement_timeout" => settings.serve.statement_timeout = Some(duration(entry)?),
            "serve.stop_timeout" => settings.serve.stop_timeout = Some(duration(entry)?),
            "serve.tls_cert" => settings.serve.tls_cert = Some(entry.value.clone().into()),
            "serve.tls_key" => settings.serve.tls_key = Some(entry.value.clone().into()),
            "serve.users" => settings.serve.users = Some(entry.value.clone().into()),
            "shell.history_file" => settings.history_file = Some(entry.value.clone().into()),
            "shell.history_size" => {
                let size = entry.value.parse().map_err(|_| wrong(entry, "a number"))?;
                settings.history_size = Some(size);
            }
            "shell.live" => settings.live = Some(choice(entry, &Live::ALL)?),
            "shell.timing" => settings.timing = Some(choice(entry, &SWITCH)?),
            unknown => {
                let names = KNOWN.iter().map(|(name, _)| *name);
                let hint = match nearest(unknown, names.clone()) {
                    Some(name) => format!("Did you mean \"{name}\"?"),
                    None => format!("Known settings: {}, pipeline.*.", names.collect::<Vec<_>>().join(", ")),
                };
                return Err(Failure::usage(format!("unknown setting \"{unknown}\" ({})\nhint: {hint}", entry.origin)));
            }
        }
    }
    settings.entries = entries;
    Ok(settings)
}

/// The choices of a switch.
pub(crate) const SWITCH: [(&str, bool); 4] = [("on", true), ("off", false), ("true", true), ("false", false)];

/// The choices of expansion.
pub(crate) const EXPANDED: [(&str, Expanded); 3] = [("on", Expanded::On), ("off", Expanded::Off), ("auto", Expanded::Auto)];

fn choice<T: Copy>(entry: &Entry, choices: &[(&str, T)]) -> Result<T, Failure> {
    choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&entry.value)).map(|(_, choice)| *choice).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("'{name}'")).collect();
        wrong(entry, &format!("one of {}", names.join(", ")))
    })
}

/// The parts of a list.
fn list(entry: &Entry) -> impl Iterator<Item = &str> {
    entry.value.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn duration(entry: &Entry) -> Result<Duration, Failure> {
    parse_duration(&entry.value).ok_or_else(|| wrong(entry, "a duration such as 30s"))
}

fn wrong(entry: &Entry, expected: &str) -> Failure {
    Failure::usage(format!("setting \"{}\" is '{}', not {expected} ({})", entry.name, entry.value, entry.origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, value: &str) -> Entry {
        Entry { name: name.into(), value: value.into(), origin: "test".into() }
    }

    #[test]
    fn known_settings_are_read() {
        let settings =
            interpret(vec![entry("output.format", "CSV"), entry("pipeline.trigger", "1s"), entry("shell.timing", "true")]).unwrap();
        assert_eq!(settings.format, Some(Format::Csv));
        assert_eq!(settings.timing, Some(true));
        assert_eq!(settings.pipeline["trigger"], "1s");
    }

    #[test]
    fn unknown_names_and_values_are_refused() {
        let error = interpret(vec![entry("output.fromat", "csv")]).unwrap_err();
        assert!(error.message.contains("Did you mean \"output.format\"?"), "{}", error.message);
        assert_eq!(error.code, crate::failure::USAGE);
        let error = interpret(vec![entry("shell.live", "fancy")]).unwrap_err();
        assert_eq!(error.message, "setting \"shell.live\" is 'fancy', not one of 'table', 'changelog', 'append' (test)");
    }

    #[test]
    fn lists_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, "[serve]\nallow_path = ['/a', '/b c']\nallow_host = 'x, y:1'\nrows = 5\nmemory = '1 MB'\n").unwrap();
        let settings = load(Some(&file)).unwrap().serve;
        assert_eq!(settings.allow_path, Some(vec![PathBuf::from("/a"), PathBuf::from("/b c")]));
        assert_eq!(settings.allow_host, Some(vec!["x".to_string(), "y:1".to_string()]));
        assert_eq!((settings.rows, settings.memory), (Some(5), Some(1_000_000)));
    }

    #[test]
    fn a_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        std::fs::write(&file, "[output]\nnull = '-'\n[shell]\nhistory_size = 10\n").unwrap();
        let settings = load(Some(&file)).unwrap();
        assert_eq!(settings.null.as_deref(), Some("-"));
        assert_eq!(settings.history_size, Some(10));
        assert!(load(Some(&directory.path().join("missing.toml"))).is_err());
    }
}
