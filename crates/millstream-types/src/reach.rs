//! How far statements reach outside the engine: directories and hosts. Pure decisions; who opens files resolves paths first.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Which files and hosts statements may name. Everything, unless it is limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach(Option<Arc<Allowed>>);

/// What a limited reach has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Directories (with everything below) and files, resolved: absolute and without links.
    pub roots: Vec<PathBuf>,
    /// What no root opens: the state directory, files with keys. Resolved.
    pub closed: Vec<PathBuf>,
    /// Hosts.
    pub hosts: Vec<HostPattern>,
}

impl Reach {
    /// What is allowed and nothing else.
    pub fn limited(allowed: Allowed) -> Self {
        Self(Some(Arc::new(allowed)))
    }

    /// The limits, if there are any.
    pub fn limits(&self) -> Option<&Allowed> {
        self.0.as_deref()
    }

    /// Whether a resolved path may be opened.
    pub fn allows_path(&self, resolved: &Path) -> bool {
        let Some(allowed) = self.limits() else { return true };
        let is_clean =
            resolved.is_absolute() && !resolved.components().any(|part| matches!(part, Component::ParentDir | Component::CurDir));
        is_clean
            && allowed.roots.iter().any(|root| resolved.starts_with(root))
            && !allowed.closed.iter().any(|closed| resolved.starts_with(closed))
    }

    /// Whether a host may be reached at a port.
    pub fn allows_host(&self, host: &str, port: Option<u16>) -> bool {
        let Some(allowed) = self.limits() else { return true };
        allowed.hosts.iter().any(|pattern| pattern.matches(host, port))
    }
}

/// A host that may be reached: `example.org`, `*.example.org`, `10.0.0.1:9000`, `[::1]:80`, `s3://bucket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    host: String,
    port: Option<u16>,
}

impl HostPattern {
    /// Reads a pattern; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_lowercase();
        if let Some((scheme, bucket)) = text.split_once("://") {
            let bucket = bucket.trim_end_matches('/');
            let is_name = !bucket.is_empty() && !bucket.contains('/') && !["http", "https", "file"].contains(&scheme);
            return is_name.then(|| Self { host: format!("{scheme}://{bucket}"), port: None });
        }
        let (host, port) = split_port(&text)?;
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let is_name = !name.is_empty() && !name.contains(['*', '/', ' ', '@']);
        is_name.then_some(Self { host, port })
    }

    fn matches(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_lowercase();
        let fits = match self.host.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|before| before.ends_with('.') && before.len() > 1),
            None => host == self.host,
        };
        fits && self.port.is_none_or(|own| port == Some(own))
    }
}

/// Host and port of `host`, `host:port`, `[address]:port` or a bare IPv6 address; the host without brackets.
pub fn split_port(text: &str) -> Option<(String, Option<u16>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host.to_string(), Some(port.parse().ok()?))),
            None => rest.is_empty().then(|| (host.to_string(), None)),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host.to_string(), Some(port.parse().ok()?))),
        _ => Some((text.to_string(), None)),
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.contains(':') => write!(f, "[{}]:{port}", self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_allowed_below_roots() {
        let reach = Reach::limited(Allowed {
            roots: vec!["/data".into(), "/tmp/one.csv".into()],
            closed: vec!["/data/state".into(), "/data/keys.pem".into()],
            hosts: Vec::new(),
        });
        for path in ["/data", "/data/in/x.csv", "/data/statements", "/tmp/one.csv"] {
            assert!(reach.allows_path(Path::new(path)), "{path}");
        }
        for path in ["/", "/dat", "/data/../etc", "data/x", "/data/state", "/data/state/log", "/data/keys.pem", "/tmp/two.csv", "/database"]
        {
            assert!(!reach.allows_path(Path::new(path)), "{path}");
        }
        assert!(Reach::default().allows_path(Path::new("/etc")) && Reach::default().allows_host("x", None));
    }

    #[test]
    fn hosts_match_whole_names() {
        let patterns = ["example.org", "*.inner.net", "10.0.0.1:9000", "[::1]:80", "s3://bucket"];
        let hosts = patterns.iter().map(|text| HostPattern::parse(text).unwrap()).collect::<Vec<_>>();
        assert_eq!(hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), patterns);
        let reach = Reach::limited(Allowed { hosts, ..Allowed::default() });
        for (host, port) in [
            ("Example.org", Some(1)),
            ("a.inner.net", None),
            ("a.b.inner.net", None),
            ("10.0.0.1", Some(9000)),
            ("::1", Some(80)),
            ("s3://bucket", None),
        ] {
            assert!(reach.allows_host(host, port), "{host}");
        }
        for (host, port) in [
            ("example.org.evil", None),
            ("inner.net", None),
            ("xinner.net", None),
            ("10.0.0.1", Some(9001)),
            ("10.0.0.1", None),
            ("s3://bucket2", None),
        ] {
            assert!(!reach.allows_host(host, port), "{host}");
        }
        for wrong in ["", "*", "a/b", "x:y", "http://a", "s3://", "user@host", "*.*.x"] {
            assert_eq!(HostPattern::parse(wrong), None, "{wrong}");
        }
    }
}
