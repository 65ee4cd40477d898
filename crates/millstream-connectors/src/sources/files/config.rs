//! The options of the `files` source.

use super::storage::Storage;
use crate::error::{ConnectorError, Result};
use crate::formats::{Compression, Format, FormatOptions};
use crate::source::DEFAULT_DISCOVERY_INTERVAL;
use millstream_types::{OptionError, Options, Reach};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// How long a local text file must stand still by default.
const DEFAULT_SETTLE: Duration = Duration::from_secs(2);
/// How often an object store is listed by default.
const OBJECT_DISCOVERY_INTERVAL: Duration = Duration::from_secs(10);
/// Characters that make a path a glob.
const GLOB_CHARACTERS: [char; 3] = ['*', '?', '['];

/// In which order files are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Modified,
    Name,
}

/// Which of the files that are there at the first start are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartFrom {
    Earliest,
    Latest,
    /// Files modified at or after this time, microseconds since 1970.
    Time(i64),
}

/// What to do about a taken file that is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnChange {
    Fail,
    Append,
    Warn,
    Reread,
}

/// What to do about a file that vanished before it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnMissing {
    Fail,
    Skip,
}

/// What happens to a file once its rows are safe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AfterRead {
    Keep,
    Delete,
    /// Moved below this path.
    Archive(String),
}

/// Where files are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Location {
    /// Access to them.
    pub storage: Storage,
    /// The option as written.
    pub written: String,
    /// The longest part without wildcards: a local directory or file, or an object prefix relative to the store's root.
    pub base: String,
    /// The whole path, where it has wildcards; relative to the root for object stores.
    pub pattern: Option<String>,
}

/// See the module documentation.
#[derive(Debug, Clone)]
pub(crate) struct FilesConfig {
    pub location: Location,
    pub format: FormatOptions,
    pub recursive: bool,
    pub order: Order,
    pub start_from: StartFrom,
    pub max_files_per_epoch: Option<u64>,
    pub settle: Duration,
    pub discovery_interval: Duration,
    /// `None`: append for uncompressed text, fail for everything else.
    pub on_change: Option<OnChange>,
    pub on_missing: OnMissing,
    pub after_read: AfterRead,
    pub bounded: bool,
    /// Unread files of the first start hold the watermark back.
    pub hold_watermark: bool,
    pub max_decompressed_bytes: Option<u64>,
}

impl FilesConfig {
    /// Takes the options of the source.
    pub(crate) fn take(options: &mut Options) -> Result<Self> {
        let written = options.require("path")?;
        let location = Location::parse(&written, options)?;
        let format = FormatOptions::take(options, Format::from_path(&written))?;
        let local = location.storage.is_local();
        let order = options.choice("order", &[("modified", Order::Modified), ("name", Order::Name)])?.unwrap_or(Order::Modified);
        let start_from = match options.take("start_from") {
            None => StartFrom::Earliest,
            Some(text) => parse_start_from(&text).ok_or_else(|| OptionError::Value {
                owner: options.owner().to_string(),
                name: "start_from".into(),
                value: text,
                expected: "'earliest', 'latest' or a timestamp such as '2024-05-01T00:00:00Z'".into(),
            })?,
        };
        let max_files_per_epoch = options.parse::<u64>("max_files_per_epoch", "a number of files")?;
        if max_files_per_epoch == Some(0) {
            return Err(ConnectorError::invalid(format!("option \"max_files_per_epoch\" of {} is 0", options.owner()), "Give at least 1."));
        }
        let settle = options.duration("settle")?;
        let settle = settle.unwrap_or(if local && format.format.is_text() { DEFAULT_SETTLE } else { Duration::ZERO });
        let discovery_interval = options.duration("discovery_interval")?;
        let default_interval = if local { DEFAULT_DISCOVERY_INTERVAL } else { OBJECT_DISCOVERY_INTERVAL };
        let on_change = options.choice(
            "on_change",
            &[("fail", OnChange::Fail), ("append", OnChange::Append), ("warn", OnChange::Warn), ("reread", OnChange::Reread)],
        )?;
        if on_change == Some(OnChange::Append) && !format.format.is_text() {
            return Err(ConnectorError::invalid(
                format!("option \"on_change\" of {} is 'append', but {} files cannot grow", options.owner(), format.format.name()),
                "Choose 'fail', 'warn' or 'reread'.",
            ));
        }
        let on_missing = options.choice("on_missing", &[("fail", OnMissing::Fail), ("skip", OnMissing::Skip)])?.unwrap_or(OnMissing::Fail);
        let recursive = options.boolean("recursive")?.unwrap_or(false);
        let after_read = take_after_read(options, &location, recursive)?;
        let in_order = options.choice("initial_files", &[("any_order", false), ("arrival_order", true)])?.unwrap_or(false);
        let max_decompressed_bytes = if format.format.is_text() { options.bytes("max_decompressed_bytes")? } else { None };
        Ok(Self {
            recursive,
            order,
            start_from,
            max_files_per_epoch,
            settle,
            discovery_interval: discovery_interval.unwrap_or(default_interval),
            on_change,
            on_missing,
            after_read,
            bounded: options.boolean("bounded")?.unwrap_or(false),
            hold_watermark: order != Order::Name && max_files_per_epoch.is_none() && !in_order,
            max_decompressed_bytes,
            location,
            format,
        })
    }

    /// What to do when the taken file `path` is not what it was.
    pub(crate) fn on_change(&self, path: &str) -> OnChange {
        self.on_change.unwrap_or(match self.can_grow(path) {
            true => OnChange::Append,
            false => OnChange::Fail,
        })
    }

    /// Whether rows appended to the file can be found.
    pub(crate) fn can_grow(&self, path: &str) -> bool {
        self.format.format.is_text() && Compression::strip_suffix(path).1.is_none()
    }

    /// How the file is compressed.
    pub(crate) fn compression(&self, path: &str) -> Option<Compression> {
        if self.format.format.is_text() { Compression::strip_suffix(path).1 } else { None }
    }
}

fn parse_start_from(text: &str) -> Option<StartFrom> {
    match text.trim() {
        "earliest" => Some(StartFrom::Earliest),
        "latest" => Some(StartFrom::Latest),
        time => crate::formats::parse_timestamp_micros(time).map(StartFrom::Time),
    }
}

fn take_after_read(options: &mut Options, location: &Location, recursive: bool) -> Result<AfterRead> {
    let chosen = options.choice("after_read", &[("keep", 0), ("delete", 1), ("archive", 2)])?.unwrap_or(0);
    let archive_path = options.take("archive_path");
    let owner = options.owner();
    match (chosen, archive_path) {
        (2, Some(target)) => {
            let target = target.trim_end_matches('/').to_string();
            if let Storage::Object { root, .. } = &location.storage
                && !target.starts_with(root.as_str())
            {
                return Err(ConnectorError::invalid(
                    format!("archive_path \"{target}\" of {owner} is not in the same store as the files"),
                    format!("Give a path below {root}."),
                ));
            }
            let inside = std::path::Path::new(&target).starts_with(&location.base);
            if inside && (recursive || location.pattern.is_some() || target == location.base.trim_end_matches('/')) {
                return Err(ConnectorError::invalid(
                    format!("archive_path \"{target}\" of {owner} lies where the source looks for files"),
                    "Give a directory outside, or its archived files would be read again.",
                ));
            }
            Ok(AfterRead::Archive(target))
        }
        (2, None) => Err(OptionError::Missing { owner: owner.to_string(), name: "archive_path".into() }.into()),
        (_, Some(_)) => Err(ConnectorError::invalid(
            format!("option \"archive_path\" of {owner} needs after_read = 'archive'"),
            "Add after_read = 'archive' or remove archive_path.",
        )),
        (1, None) => Ok(AfterRead::Delete),
        (_, None) => Ok(AfterRead::Keep),
    }
}

impl Location {
    /// Parses the option `path`; takes the options of the store it names.
    pub(crate) fn parse(written: &str, options: &mut Options) -> Result<Self> {
        crate::reach::check(options.reach(), options.owner(), written)?;
        match written.split_once("://") {
            None => Ok(Self::local(written, written, options.reach())),
            Some(("file", _)) => {
                let path = Url::parse(written).ok().and_then(|url| url.to_file_path().ok());
                let Some(path) = path.as_deref().and_then(std::path::Path::to_str) else {
                    return Err(ConnectorError::invalid(format!("path \"{written}\" of {} is no file URL", options.owner()), ""));
                };
                // Wildcards are percent-encoded in a parsed URL only where it must be so; they come back decoded.
                Ok(Self::local(written, path, options.reach()))
            }
            Some((scheme, _)) => Self::object(written, scheme, options),
        }
    }

    fn local(written: &str, path: &str, reach: &Reach) -> Self {
        let pattern = path.contains(GLOB_CHARACTERS).then(|| path.to_string());
        let base = match &pattern {
            None => path.to_string(),
            Some(pattern) => {
                let fixed = &pattern[..pattern.find(GLOB_CHARACTERS).unwrap_or(pattern.len())];
                match fixed.rfind('/') {
                    Some(0) => "/".to_string(),
                    Some(at) => fixed[..at].to_string(),
                    None => ".".to_string(),
                }
            }
        };
        Self { storage: Storage::Local(reach.clone()), written: written.to_string(), base, pattern }
    }

    fn object(written: &str, scheme: &str, options: &mut Options) -> Result<Self> {
        let owner = options.owner().to_string();
        const CLOUD: [&str; 12] = ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "wasb", "wasbs", "http", "https"];
        if !CLOUD.contains(&scheme) {
            return Err(ConnectorError::invalid(
                format!("path \"{written}\" of {owner} has the unknown scheme \"{scheme}\""),
                "Use a local path, or s3://, gs://, az:// or https:// with the feature object-store-cloud.",
            ));
        }
        if !cfg!(feature = "object-store-cloud") {
            return Err(ConnectorError::invalid(
                format!("path \"{written}\" of {owner} needs an object store, which is not in this build"),
                "Build with --features object-store-cloud, or use a local path.",
            ));
        }
        let bad_url = |error: String| ConnectorError::invalid(format!("path \"{written}\" of {owner} is no usable URL: {error}"), "");
        // A wildcard is not part of a URL: everything behind it is matched against the listing.
        let fixed = &written[..written.find(GLOB_CHARACTERS).unwrap_or(written.len())];
        let fixed = if fixed.len() == written.len() { fixed } else { &fixed[..fixed.rfind('/').map_or(fixed.len(), |at| at + 1)] };
        let url = Url::parse(fixed).map_err(|error| bad_url(error.to_string()))?;
        let mut given = store_options(options);
        // Whoever writes http:// does not ask for TLS.
        if scheme == "http" {
            given.insert(0, ("allow_http".to_string(), "true".to_string()));
        }
        let (store, prefix) = object_store::parse_url_opts(&url, given).map_err(|error| bad_url(error.to_string()))?;
        let root = fixed.trim_end_matches('/').strip_suffix(prefix.as_ref()).unwrap_or(fixed).trim_end_matches('/').to_string();
        let pattern = (fixed.len() != written.len()).then(|| written[root.len()..].trim_start_matches('/').to_string());
        let storage = Storage::Object { store: Arc::from(store), root };
        Ok(Self { storage, written: written.to_string(), base: prefix.to_string(), pattern })
    }
}

/// Options of object stores that may stand in a `WITH` list; the environment gives the rest.
const STORE_OPTIONS: &[&str] = &[
    "allow_http",
    "aws_access_key_id",
    "aws_allow_http",
    "aws_endpoint",
    "aws_region",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_skip_signature",
    "aws_virtual_hosted_style_request",
    "azure_container_name",
    "azure_endpoint",
    "azure_storage_account_key",
    "azure_storage_account_name",
    "azure_storage_sas_key",
    "azure_storage_token",
    "google_application_credentials",
    "google_service_account",
    "google_service_account_key",
    "google_skip_signature",
];

fn store_options(options: &mut Options) -> Vec<(String, String)> {
    let environment = std::env::vars().map(|(name, value)| (name.to_ascii_lowercase(), value));
    let mut pairs: Vec<_> =
        environment.filter(|(name, _)| ["aws_", "azure_", "google_"].iter().any(|prefix| name.starts_with(prefix))).collect();
    // Later pairs overrule earlier ones.
    pairs.extend(STORE_OPTIONS.iter().filter_map(|name| options.take(name).map(|value| ((*name).to_string(), value))));
    pairs
}
