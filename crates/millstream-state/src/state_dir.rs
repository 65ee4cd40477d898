//! The state directory: its format, who is live on it, and who owns it.
//!
//! ```text
//!   open:  FORMAT is known ─► flock "lock" (or --takeover) ─► writer/<n> put-if-absent ─► predecessors sealed ─► ready
//! ```
//!
//! The flock says that an instance is *live* on this machine; the writer number says who *owns* the directory. A takeover leaves the
//! old instance its lock on the old file and puts a new, locked file in its place, so that the directory stays locked when the old
//! instance ends.

use crate::durable_put::{self, Put, put_new};
use crate::error::{Result, StateError};
use crate::log::seal;
use crate::{blob::BlobStore, document, failpoint, writer_number};
use millstream_types::EventTime;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::{File, OpenOptions as FileOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The process that runs on a state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Name of the machine.
    pub host: String,
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started: EventTime,
}

impl fmt::Display for InstanceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on host \"{}\", started at {}", self.pid, self.host, self.started)
    }
}

/// How to open a state directory.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Take the directory from an instance that is live on it.
    pub takeover: bool,
    /// Who opens it.
    pub instance: InstanceInfo,
}

/// Versions of the formats in a state directory. Each grows on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FormatVersions {
    pub(crate) directory: u32,
    pub(crate) log: u32,
    pub(crate) checkpoint: u32,
}

const CURRENT: FormatVersions = FormatVersions { directory: 1, log: 1, checkpoint: 1 };

const DIRECTORIES: [&str; 6] = ["writer", "log", "checkpoint", "tables", "parts", "deadletter"];

/// An open state directory. Dropping it ends the lock.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    id: String,
    writer: u64,
    instance: InstanceInfo,
    _lock: Flock<File>,
}

impl StateDir {
    /// Opens or creates the state directory at `path`, takes the next writer number and seals what earlier writers left.
    ///
    /// # Errors
    /// [`StateError::Live`] when another instance runs on it and `takeover` is not set, [`StateError::NewerFormat`],
    /// [`StateError::NotAStateDirectory`], [`StateError::Corrupt`] when a predecessor's log is damaged, and I/O errors.
    pub fn open(path: impl Into<PathBuf>, options: OpenOptions) -> Result<StateDir> {
        let path = path.into();
        durable_put::create_dir(&path)?;
        check_format(&path)?;
        let lock = lock(&path, &options)?;
        let id = identity(&path, &options.instance)?;
        create_directories(&path)?;
        let writer = writer_number::take(&path.join("writer"), &options.instance)?;
        failpoint::hit("state.open.after_writer")?;
        seal::seal_predecessors(&path.join("log"), writer)?;
        failpoint::hit("state.open.after_seal")?;
        tracing::debug!(writer, path = %path.display(), "state directory opened");
        Ok(StateDir { path, id, writer, instance: options.instance, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Eight hexadecimal digits made up when the directory was created. It keeps them wherever it is moved; another directory in its place
    /// has others.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number of this writer, part of the names of whatever it writes.
    pub fn writer(&self) -> u64 {
        self.writer
    }

    /// Who opened it.
    pub fn instance(&self) -> &InstanceInfo {
        &self.instance
    }

    /// Whether this instance still owns the directory. Called after every durable commit, before anything is published or
    /// acknowledged; costs one system call.
    ///
    /// # Errors
    /// [`StateError::Fenced`], which names the new owner.
    pub fn check_fenced(&self) -> Result<()> {
        match writer_number::successor(&self.path.join("writer"), self.writer)? {
            None => Ok(()),
            Some(by) => Err(StateError::Fenced { path: self.path.clone(), by: by.map(Box::new) }),
        }
    }

    /// The log's directory.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The directory of checkpoints, for [`CheckpointWriter`](crate::CheckpointWriter) and [`CheckpointReader`](crate::CheckpointReader).
    pub fn checkpoint_path(&self) -> PathBuf {
        self.path.join("checkpoint")
    }

    /// Content of at-rest tables.
    pub fn blobs(&self) -> BlobStore {
        BlobStore::new(self.path.join("tables"))
    }

    /// Rows that streams have refused.
    pub fn dead_letters(&self) -> BlobStore {
        BlobStore::new(self.path.join("deadletter"))
    }

    /// The directory in which a sink keeps parts of files that are not rolled yet; created if needed.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn parts_path(&self, sink: &str) -> Result<PathBuf> {
        let path = self.path.join("parts").join(crate::checkpoint::file_name_of(sink));
        durable_put::create_dir(&path)?;
        Ok(path)
    }
}

/// Creates the directories that are missing, durably. A predecessor may have died in those that are there, between a rename and its sync;
/// what is read from here on must stay.
fn create_directories(path: &Path) -> Result<()> {
    for directory in DIRECTORIES.map(|name| path.join(name)) {
        match std::fs::create_dir(&directory) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => durable_put::sync_dir(&directory)?,
            Err(error) => return Err(StateError::Io { action: "creating", path: directory, source: error }),
        }
    }
    durable_put::sync_dir(path)
}

fn check_format(path: &Path) -> Result<()> {
    let file = path.join("FORMAT");
    let found: FormatVersions = match std::fs::read(&file) {
        Ok(bytes) => document::decode(&file, &bytes)?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            refuse_foreign_content(path)?;
            match put_new(&file, &document::encode(&CURRENT)?)? {
                Put::Created => CURRENT,
                Put::Exists => document::read(&file)?,
            }
        }
        Err(error) => return Err(StateError::Io { action: "reading", path: file, source: error }),
    };
    for (part, found, supported) in [
        ("directory", found.directory, CURRENT.directory),
        ("log", found.log, CURRENT.log),
        ("checkpoint", found.checkpoint, CURRENT.checkpoint),
    ] {
        if found > supported {
            return Err(StateError::NewerFormat { path: path.to_path_buf(), part, found, supported });
        }
    }
    Ok(())
}

/// What the directory is called in the files of its sinks.
fn identity(path: &Path, instance: &InstanceInfo) -> Result<String> {
    let file = path.join("ID");
    if !file.exists() {
        // It is there before anything else is: a new one would make the files of the pipeline's sinks those of a stranger.
        if path.join("log").exists() {
            let problem = "it is missing, and the files of the pipeline's sinks are known by what it says";
            return Err(StateError::corrupt(&file, None, problem));
        }
        let place = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let seed = format!("{} {} {} {}", place.display(), instance.host, instance.pid, instance.started);
        put_new(&file, format!("{:08x}\n", xxhash_rust::xxh3::xxh3_64(seed.as_bytes()) as u32).as_bytes())?;
    }
    let text = std::fs::read_to_string(&file).map_err(StateError::io("reading", &file))?;
    let id = text.trim();
    if id.len() != 8 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(StateError::corrupt(&file, None, format!("holds \"{id}\", not eight hexadecimal digits")));
    }
    Ok(id.to_string())
}

/// A directory without FORMAT may hold only what an interrupted first start leaves.
fn refuse_foreign_content(path: &Path) -> Result<()> {
    for entry in std::fs::read_dir(path).map_err(StateError::io("listing", path))? {
        let name = entry.map_err(StateError::io("listing", path))?.file_name();
        let name = name.to_string_lossy();
        if !durable_put::is_temporary(&name) && name != "FORMAT" && name != "lock" {
            return Err(StateError::NotAStateDirectory { path: path.to_path_buf() });
        }
    }
    Ok(())
}

fn lock(path: &Path, options: &OpenOptions) -> Result<Flock<File>> {
    let name = path.join("lock");
    loop {
        let file =
            FileOptions::new().read(true).write(true).create(true).truncate(false).open(&name).map_err(StateError::io("opening", &name))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut locked) => {
                // A takeover may have put another file in its place between open and lock.
                if same_file(&locked, &name)? {
                    write_instance(&mut locked, &name, &options.instance)?;
                    return Ok(locked);
                }
            }
            Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                let holder = read_instance(&mut file);
                if !options.takeover {
                    return Err(StateError::Live { path: path.to_path_buf(), holder: holder.map(Box::new) });
                }
                tracing::warn!(path = %path.display(), holder = ?holder, "taking the state directory over from a live instance");
                return take_lock_over(&name, &options.instance);
            }
            Err((_, error)) => return Err(StateError::Io { action: "locking", path: name, source: error.into() }),
        }
    }
}

fn take_lock_over(name: &Path, instance: &InstanceInfo) -> Result<Flock<File>> {
    let (temporary, file) = durable_put::create_temporary(name)?;
    let mut locked = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| StateError::Io {
        action: "locking",
        path: temporary.clone(),
        source: error.into(),
    })?;
    write_instance(&mut locked, &temporary, instance)?;
    std::fs::rename(&temporary, name).map_err(StateError::io("creating", name))?;
    durable_put::sync_parent(name)?;
    Ok(locked)
}

fn same_file(open: &File, name: &Path) -> Result<bool> {
    let open = open.metadata().map_err(StateError::io("reading", name))?;
    match std::fs::metadata(name) {
        Ok(named) => Ok(named.ino() == open.ino() && named.dev() == open.dev()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StateError::Io { action: "reading", path: name.to_path_buf(), source: error }),
    }
}

fn write_instance(file: &mut File, name: &Path, instance: &InstanceInfo) -> Result<()> {
    let bytes = document::encode(instance)?;
    file.set_len(0)
        .and_then(|()| file.seek(SeekFrom::Start(0)))
        .and_then(|_| file.write_all(&bytes))
        .map_err(StateError::io("writing", name))
}

fn read_instance(file: &mut File) -> Option<InstanceInfo> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(64 * 1024).read_to_end(&mut bytes).ok()?;
    document::decode(Path::new("lock"), &bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_types::Classified;

    fn options(pid: u32, takeover: bool) -> OpenOptions {
        OpenOptions { takeover, instance: InstanceInfo { host: "box".into(), pid, started: EventTime(0) } }
    }

    #[test]
    fn a_live_directory_is_refused_and_names_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let first = StateDir::open(&path, options(7, false)).unwrap();
        let error = StateDir::open(&path, options(8, false)).unwrap_err();
        assert!(error.to_string().ends_with("is in use by process 7 on host \"box\", started at 1970-01-01T00:00:00Z"), "{error}");
        assert!(error.hint().unwrap().contains("--takeover"));
        drop(first);
        assert_eq!(StateDir::open(&path, options(9, false)).unwrap().writer(), 2);
    }

    #[test]
    fn a_takeover_fences_the_other_and_keeps_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        let first = StateDir::open(&path, options(7, false)).unwrap();
        first.check_fenced().unwrap();
        let second = StateDir::open(&path, options(8, true)).unwrap();
        assert!(matches!(first.check_fenced().unwrap_err(), StateError::Fenced { by: Some(by), .. } if by.pid == 8));
        second.check_fenced().unwrap();
        drop(first);
        assert!(matches!(
            StateDir::open(&path, options(9, false)).unwrap_err(),
            StateError::Live { holder: Some(holder), .. } if holder.pid == 8
        ));
    }

    #[test]
    fn a_directory_keeps_its_identity_when_it_moves() {
        let place = tempfile::tempdir().unwrap();
        let (first, moved) = (place.path().join("first"), place.path().join("moved"));
        let id = StateDir::open(&first, options(1, false)).unwrap().id().to_string();
        std::fs::rename(&first, &moved).unwrap();
        assert_eq!(StateDir::open(&moved, options(2, false)).unwrap().id(), id);
        // Another one in its place is another one.
        assert_ne!(StateDir::open(&first, options(3, false)).unwrap().id(), id);
        std::fs::write(moved.join("ID"), "nonsense\n").unwrap();
        assert!(matches!(StateDir::open(&moved, options(4, false)), Err(StateError::Corrupt { .. })));
        std::fs::remove_file(moved.join("ID")).unwrap();
        let error = StateDir::open(&moved, options(5, false)).unwrap_err();
        assert!(error.to_string().contains("ID\" is damaged: it is missing"), "{error}");
    }

    #[test]
    fn newer_formats_and_foreign_directories_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let newer = FormatVersions { log: 9, ..CURRENT };
        std::fs::write(directory.path().join("FORMAT"), document::encode(&newer).unwrap()).unwrap();
        let error = StateDir::open(directory.path(), options(1, false)).unwrap_err();
        assert!(error.to_string().ends_with("has log format 9, and this build reads formats up to 1"), "{error}");

        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("thesis.txt"), "words").unwrap();
        assert!(matches!(StateDir::open(directory.path(), options(1, false)), Err(StateError::NotAStateDirectory { .. })));
    }
}
