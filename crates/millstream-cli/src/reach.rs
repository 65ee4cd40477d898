//! Which files and hosts clients of `serve` may name in statements.
//!
//! Directories come from `--allow-path` (or `serve.allow_path`); without it there is one, that of the pipeline file. What the pipeline
//! file itself names is allowed as well, for its author runs the server. Hosts come from `--allow-host` and the file. Closed for all of
//! them are the state directory and the files with keys and users that the server is started with: who could read those would need no
//! grant any more.

use crate::failure::Failure;
use crate::pipeline_file::default_state_dir;
use crate::script::Script;
use millstream_connectors::reach::resolved;
use millstream_sql::Statement;
use millstream_sql::variables::expand_env;
use millstream_types::Reach;
use millstream_types::reach::{Allowed, HostPattern};
use std::path::{Path, PathBuf};

/// What the flags and settings say.
#[derive(Debug, Default)]
pub(crate) struct Given<'a> {
    /// Directories; `None` where nothing is said.
    pub(crate) paths: Option<Vec<PathBuf>>,
    /// Hosts.
    pub(crate) hosts: Vec<String>,
    /// The pipeline file.
    pub(crate) file: Option<(&'a Path, &'a Script)>,
    /// The state directory, where it is not the default.
    pub(crate) state_dir: Option<&'a Path>,
    /// Files that nobody may read.
    pub(crate) closed: Vec<&'a Path>,
}

/// The reach of statements.
///
/// # Errors
/// A usage error for a directory that does not exist, or a host that is none.
pub(crate) fn reach(given: Given<'_>) -> Result<Reach, Failure> {
    let mut allowed = Allowed::default();
    let directory = |file: &Path| match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let paths = match (given.paths, given.file) {
        (Some(paths), _) => paths,
        (None, Some((file, _))) if file != Path::new("-") => vec![directory(file)],
        (None, _) => Vec::new(),
    };
    for path in paths {
        let whole = std::fs::canonicalize(&path)
            .map_err(|error| Failure::usage(format!("allowed path \"{}\" cannot be used: {error}", path.display())))?;
        allowed.roots.push(whole);
    }
    for host in given.hosts {
        let hint = "Write for example example.org, *.example.org, 10.0.0.1:9000 or s3://bucket.";
        let pattern =
            HostPattern::parse(&host).ok_or_else(|| Failure::usage(format!("allowed host \"{host}\" is no host\nhint: {hint}")))?;
        allowed.hosts.push(pattern);
    }
    let mut closed: Vec<PathBuf> = given.closed.iter().map(|path| path.to_path_buf()).collect();
    closed.extend(given.state_dir.map(Path::to_path_buf));
    if let Some((file, script)) = given.file {
        closed.push(default_state_dir(file));
        named_by(script, &mut allowed);
    }
    // What cannot be resolved is not there, and nobody can make it: its directory is missing.
    allowed.closed = closed.iter().filter_map(|path| resolved(path).ok()).collect();
    Ok(Reach::limited(allowed))
}

/// Adds what the statements of a pipeline file name.
fn named_by(script: &Script, allowed: &mut Allowed) {
    let environment = |name: &str| std::env::var(name).ok();
    for statement in millstream_sql::parse_script(&script.text).flatten() {
        let mut statement = statement.statement;
        let mut places = Vec::new();
        if let Statement::CreateExternalTable(table) = &statement {
            places.extend(table.definition.locations.iter().cloned());
        }
        let options = statement.options_mut().map(std::mem::take).unwrap_or_default();
        let get = |wanted: &str| options.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        places.extend(["path", "archive_path", "location"].iter().filter_map(|name| get(name)));
        places.extend(
            options.iter().filter(|(name, value)| name.ends_with("endpoint") && value.contains("://")).map(|(_, value)| value.clone()),
        );
        for place in places {
            if let Ok(place) = expand_env(&place, &environment) {
                add_place(&place, allowed);
            }
        }
        if get("connector").as_deref() == Some("socket")
            && let Some(port) = get("port")
        {
            let host = get("host").unwrap_or_else(|| "127.0.0.1".to_string());
            let (host, port) = (expand_env(&host, &environment), expand_env(&port, &environment));
            if let (Ok(host), Ok(port)) = (host, port) {
                let host = if host.contains(':') { format!("[{}]", host.trim_matches(['[', ']'])) } else { host };
                allowed.hosts.extend(HostPattern::parse(&format!("{host}:{port}")));
            }
        }
    }
}

fn add_place(place: &str, allowed: &mut Allowed) {
    let fixed = match place.find(['*', '?', '[']) {
        None => place,
        Some(at) => place[..at].rfind('/').map_or(".", |slash| &place[..=slash]),
    };
    match fixed.split_once("://") {
        None => allowed.roots.extend(resolved(Path::new(fixed))),
        Some(("file", path)) => allowed.roots.extend(resolved(Path::new(path))),
        Some((scheme @ ("http" | "https"), rest)) => {
            let host = rest.split('/').next().unwrap_or_default();
            let host = host.rsplit('@').next().unwrap_or_default();
            let port = if scheme == "http" { 80 } else { 443 };
            let with_port = HostPattern::parse(host).map(|pattern| pattern.to_string());
            allowed.hosts.extend(match with_port {
                Some(shown) if host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()) => HostPattern::parse(&shown),
                Some(_) => HostPattern::parse(&format!("{host}:{port}")),
                None => None,
            });
        }
        Some((scheme, rest)) => {
            allowed.hosts.extend(HostPattern::parse(&format!("{scheme}://{}", rest.split('/').next().unwrap_or_default())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_names_is_allowed_and_keys_are_closed() {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(directory.path()).unwrap();
        let (pipeline, elsewhere) = (root.join("pipeline"), root.join("elsewhere"));
        std::fs::create_dir_all(&pipeline).unwrap();
        std::fs::create_dir_all(&elsewhere).unwrap();
        let text = format!(
            "CREATE STREAM s (a INT) WITH (connector = 'files', path = '{}/in/*.csv', format = 'csv');\n\
             CREATE STREAM t (a INT) WITH (connector = 'socket', host = 'example.org', port = 7000);\n\
             CREATE SINK k AS SELECT 1 AS a WITH (connector = 'parquet', path = 'relative')",
            elsewhere.display()
        );
        let script = Script { text, name: None };
        let (file, users) = (pipeline.join("p.sql"), pipeline.join("users.toml"));
        let given = Given { file: Some((file.as_path(), &script)), closed: vec![users.as_path()], ..Given::default() };
        let allowed = reach(given).unwrap();
        for path in [pipeline.join("x.csv"), elsewhere.join("in/y.csv"), std::env::current_dir().unwrap().join("relative/z")] {
            assert!(allowed.allows_path(&path), "{}", path.display());
        }
        for path in [elsewhere.join("other"), users.clone(), pipeline.join(".millstream/p/log"), root.join("x")] {
            assert!(!allowed.allows_path(&path), "{}", path.display());
        }
        assert!(allowed.allows_host("example.org", Some(7000)) && !allowed.allows_host("example.org", Some(22)));
        let given = Given { paths: Some(vec![elsewhere.clone()]), file: Some((file.as_path(), &script)), ..Given::default() };
        let chosen = reach(given).unwrap();
        assert!(chosen.allows_path(&elsewhere.join("other")) && !chosen.allows_path(&pipeline.join("x.csv")));
        assert!(reach(Given { paths: Some(vec![root.join("nosuch")]), ..Given::default() }).is_err());
        assert!(!reach(Given::default()).unwrap().allows_path(Path::new("/etc/passwd")));
    }
}
