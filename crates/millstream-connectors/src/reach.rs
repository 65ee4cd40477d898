//! Files and hosts that statements name, held against what they may reach ([`Reach`]).
//!
//! A path is looked at where its links lead, twice: when a statement names it, and again when a file is opened, by asking the operating
//! system which file that was. So a link that is changed in between opens nothing: what was opened is what is judged.

use crate::error::{ConnectorError, Result};
use millstream_types::Reach;
use millstream_types::reach::split_port;
use std::fs::File;
use std::io;
use std::path::{Component, Path, PathBuf};
use url::Url;

/// Characters with which a path begins to be a pattern.
const GLOB_CHARACTERS: [char; 3] = ['*', '?', '['];

/// Refuses a path or URL that may not be reached. What follows a wildcard is not looked at: files are when they are opened.
///
/// # Errors
/// `Invalid`, saying what would allow it.
pub fn check(reach: &Reach, owner: &str, written: &str) -> Result<()> {
    if reach.limits().is_none() {
        return Ok(());
    }
    match written.split_once("://") {
        None => check_path(reach, owner, Path::new(fixed_part(written))),
        Some(("file", _)) => match Url::parse(fixed_part(written)).ok().and_then(|url| url.to_file_path().ok()) {
            Some(path) => check_path(reach, owner, &path),
            None => Err(ConnectorError::invalid(format!("\"{written}\" of {owner} is no file URL"), "")),
        },
        Some((scheme, _)) => match Url::parse(fixed_part(written)) {
            Ok(url) if matches!(scheme, "http" | "https") => {
                check_host(reach, owner, url.host_str().unwrap_or_default(), url.port_or_known_default())
            }
            Ok(url) => check_host(reach, owner, &format!("{scheme}://{}", url.host_str().unwrap_or_default()), None),
            Err(error) => Err(ConnectorError::invalid(format!("\"{written}\" of {owner} is no URL: {error}"), "")),
        },
    }
}

/// The part of a path before its first wildcard, up to a directory.
fn fixed_part(written: &str) -> &str {
    match written.find(GLOB_CHARACTERS) {
        None => written,
        Some(at) => match written[..at].rfind('/') {
            Some(slash) => &written[..=slash],
            None => ".",
        },
    }
}

/// Refuses a local path that may not be reached.
///
/// # Errors
/// As [`check`].
pub fn check_path(reach: &Reach, owner: &str, path: &Path) -> Result<()> {
    if reach.limits().is_none() {
        return Ok(());
    }
    match resolved(path) {
        Ok(resolved) if reach.allows_path(&resolved) => Ok(()),
        // Where a link leads is not told: it may be nobody's business.
        _ => Err(refused_path(owner, path)),
    }
}

fn refused_path(owner: &str, path: &Path) -> ConnectorError {
    ConnectorError::Refused {
        message: format!("{owner} names \"{}\", which is outside of the directories that statements may reach", path.display()),
        hint: "Start the server with --allow-path DIR for a directory that holds it.".into(),
    }
}

/// Refuses a host that may not be reached.
///
/// # Errors
/// As [`check`].
pub fn check_host(reach: &Reach, owner: &str, host: &str, port: Option<u16>) -> Result<()> {
    if reach.allows_host(host, port) {
        return Ok(());
    }
    let shown = port.map_or_else(|| host.to_string(), |port| format!("{host}:{port}"));
    Err(ConnectorError::Refused {
        message: format!("{owner} names the host \"{shown}\", which statements may not reach"),
        hint: format!("Start the server with --allow-host {shown}."),
    })
}

/// Refuses options that name files or hosts that may not be reached.
///
/// # Errors
/// As [`check`].
pub fn check_options<'a>(reach: &Reach, owner: &str, options: impl IntoIterator<Item = (&'a String, &'a String)> + Clone) -> Result<()> {
    if reach.limits().is_none() {
        return Ok(());
    }
    let get = |name: &str| options.clone().into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    for (name, value) in options.clone() {
        match name.as_str() {
            "path" | "archive_path" | "location" => check(reach, owner, value)?,
            "host" => check_host(reach, owner, value, get("port").and_then(|port| port.trim().parse().ok()))?,
            // Where keys are read from.
            "google_application_credentials" | "google_service_account" => check_path(reach, owner, Path::new(value))?,
            name if name.ends_with("endpoint") && !value.contains("://") => match split_port(value) {
                Some((host, port)) => check_host(reach, owner, &host, port)?,
                None => check_host(reach, owner, value, None)?,
            },
            name if name.contains("format") || name == "delimiter" => {}
            _ if value.contains("://") => check(reach, owner, value)?,
            _ => {}
        }
    }
    Ok(())
}

/// Opens a file for reading, if it is one that may be reached.
///
/// # Errors
/// When it cannot be opened, or is another file than may be.
pub fn open(reach: &Reach, path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    let file = File::open(path)?;
    check_opened(reach, &file, path)?;
    Ok(file)
}

/// Refuses a file that was opened at `path` and may not be reached.
///
/// # Errors
/// When it may not be reached.
pub fn check_opened(reach: &Reach, file: &File, path: &Path) -> io::Result<()> {
    if reach.limits().is_some() && !reach.allows_path(&opened_path(file, path)?) {
        return Err(refused(path));
    }
    Ok(())
}

/// Refuses to change a file whose directory may not be reached.
///
/// # Errors
/// When it may not be reached.
pub fn check_changed(reach: &Reach, path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    if reach.limits().is_none() {
        return Ok(());
    }
    // The file itself is removed or replaced, not what it links to.
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(refused(path)) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    match resolved(parent) {
        Ok(parent) if reach.allows_path(&parent.join(name)) => Ok(()),
        _ => Err(refused(path)),
    }
}

fn refused(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("\"{}\" is outside of the directories that statements may reach (--allow-path)", path.display()),
    )
}

/// The file that was opened.
#[cfg(target_os = "linux")]
fn opened_path(file: &File, _path: &Path) -> io::Result<PathBuf> {
    use std::os::fd::AsRawFd;
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The file that was opened, as far as its path tells: other systems have no way to ask.
#[cfg(not(target_os = "linux"))]
fn opened_path(_file: &File, path: &Path) -> io::Result<PathBuf> {
    std::fs::canonicalize(path)
}

/// The path without links and `..`. What does not exist yet keeps its name; it must not lead upwards.
///
/// # Errors
/// When its directory cannot be looked at.
pub fn resolved(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut there = absolute.as_path();
    let mut missing = Vec::new();
    loop {
        match std::fs::canonicalize(there) {
            Ok(mut whole) => {
                whole.extend(missing.into_iter().rev());
                return Ok(whole);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // A link to nothing would lead somewhere once it is there.
                if there.symlink_metadata().is_ok() {
                    return Err(error);
                }
                match (there.parent(), there.components().next_back()) {
                    (Some(parent), Some(Component::Normal(name))) => {
                        missing.push(name.to_os_string());
                        there = parent;
                    }
                    _ => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_types::reach::{Allowed, HostPattern};
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    fn limited(root: &Path, hosts: &[&str]) -> Reach {
        let hosts = hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect();
        Reach::limited(Allowed { roots: vec![std::fs::canonicalize(root).unwrap()], closed: Vec::new(), hosts })
    }

    #[test]
    fn links_and_dots_lead_nowhere_else() {
        let directory = tempfile::tempdir().unwrap();
        let (inside, outside) = (directory.path().join("in"), directory.path().join("out"));
        std::fs::create_dir_all(&inside).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(outside.join("secret.csv"), "a").unwrap();
        std::fs::write(inside.join("x.csv"), "b").unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        symlink(outside.join("secret.csv"), inside.join("y.csv")).unwrap();
        symlink(outside.join("nothing"), inside.join("dangling")).unwrap();
        symlink(inside.join("x.csv"), inside.join("z.csv")).unwrap();
        let reach = limited(&inside, &[]);
        let at = |path: &str| inside.join(path).to_str().unwrap().to_string();
        for path in ["x.csv", "z.csv", "new/dir/file.parquet", "*.csv", "./x.csv", "sub/../x.csv"] {
            let allowed = check(&reach, "stream \"s\"", &at(path));
            // `..` below what does not exist leads nowhere that is known.
            assert_eq!(allowed.is_ok(), path != "sub/../x.csv", "{path}: {allowed:?}");
        }
        for path in ["link/secret.csv", "link/new.csv", "y.csv", "dangling", "../out/secret.csv", "new/../../out/x", "link/*.csv"] {
            let error = check(&reach, "stream \"s\"", &at(path)).unwrap_err();
            assert!(error.to_string().contains("outside of the directories"), "{path}: {error}");
        }
        assert!(check(&reach, "s", &format!("file://{}", at("x.csv"))).is_ok());
        assert!(check(&reach, "s", "file:///etc/passwd").is_err());
        assert!(open(&reach, inside.join("x.csv")).is_ok() && open(&Reach::default(), inside.join("y.csv")).is_ok());
        assert_eq!(open(&reach, inside.join("y.csv")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert!(check_changed(&reach, inside.join("y.csv")).is_ok(), "the link itself may go");
        assert!(check_changed(&reach, inside.join("link/secret.csv")).is_err());
    }

    #[test]
    fn hosts_of_options_are_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let reach = limited(directory.path(), &["example.org:443", "127.0.0.1:7000", "s3://bucket"]);
        let may = |pairs: &[(&str, &str)]| {
            let options: BTreeMap<String, String> = pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
            check_options(&reach, "stream \"s\"", &options).is_ok()
        };
        assert!(may(&[("path", "https://example.org/x.csv")]) && may(&[("path", "s3://bucket/dir/*.parquet")]));
        assert!(may(&[("host", "127.0.0.1"), ("port", "7000")]));
        for refused in [
            &[("path", "http://example.org/x.csv")][..],
            &[("path", "s3://other/x")],
            &[("host", "127.0.0.1"), ("port", "22")],
            &[("path", "s3://bucket/x"), ("aws_endpoint", "http://evil:80")],
            &[("path", "s3://bucket/x"), ("aws_endpoint", "evil:80")],
            &[("archive_path", "/etc")],
        ] {
            assert!(!may(refused), "{refused:?}");
        }
    }
}
