//! Whose files are in a directory. `_millstream/pipeline` names the pipeline and sink that own it and the columns of its files.
//!
//! ```text
//!   marker is ours ─► same columns? go on : refuse                 (on_existing = 'replace': start anew)
//!   no marker, no data files but ours ─► write the marker
//!   data files or a marker of others ─► on_existing = 'append': add to them, keep the manifest in a directory of our own
//!                                       on_existing = 'replace': remove them
//!                                       neither: refuse
//! ```

use super::config::{Config, OnExisting};
use super::format::FileFormat;
use super::layout::Layout;
use super::{io_error, naming, parquet, state_error, version};
use crate::error::{ConnectorError, Result};
use arrow::datatypes::DataType;
use millstream_state::durable_put;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Directory of the marker and the manifest.
pub(crate) const HOME: &str = "_millstream";
const MARKER: &str = "pipeline";
const MARKER_FORMAT: u32 = 1;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    pipeline: String,
    sink: String,
    file_format: String,
    /// Names and types, in order.
    columns: Vec<(String, String)>,
    partition_by: Vec<String>,
}

/// A directory that belongs to a sink.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// Where its manifest is.
    pub(crate) home: PathBuf,
    /// The sink has left nothing there: it is new, or everything was removed.
    pub(crate) is_new: bool,
}

/// Makes the directory of a sink its own.
pub(crate) fn claim(config: &Config, layout: &Layout, format: FileFormat, durable: bool) -> Result<Claimed> {
    let root = &config.path;
    // Without the slash at its end, which a file does not have.
    let exists = std::fs::symlink_metadata(root.components().collect::<PathBuf>()).is_ok();
    if exists && !root.is_dir() {
        return Err(ConnectorError::invalid(
            format!("sink \"{}\" cannot write to \"{}\", which is not a directory", layout.sink, root.display()),
            "Give the path of a directory; the sink names the files in it.",
        ));
    }
    durable_put::create_dir(root).map_err(state_error(root))?;
    let ours = marker(layout, format);
    let home = root.join(HOME);
    let joined = joined(&home, &layout.sink, &layout.pipeline);
    let found = read(&home)?;
    let replace = config.on_existing == Some(OnExisting::Replace);
    for (place, marker) in [(&home, found.as_ref()), (&joined, read(&joined)?.as_ref())] {
        let Some(marker) = marker.filter(|marker| marker.pipeline == ours.pipeline && marker.sink == ours.sink) else { continue };
        // A pipeline in memory begins anew each time; a durable one replaces only what no longer fits.
        if *marker != ours && !replace {
            return Err(other_columns(layout, root, &ours.columns, &marker.columns));
        }
        if replace && (*marker != ours || !durable) {
            break;
        }
        return Ok(Claimed { home: place.clone(), is_new: false });
    }
    // Files that bear our name are ours, also where the marker was removed.
    let is_ours = |name: &str| layout.names.epochs_of(name, &layout.sink, &layout.pipeline).is_some();
    let existing = first_data_file(root, &layout.names.ending(), is_ours)?;
    if found.is_none() && existing.is_none() {
        return Ok(Claimed { home: write(&home, &ours)?, is_new: true });
    }
    // A sink that exists keeps what it has committed.
    if let Some(marker) = found.as_ref().filter(|marker| replace && marker.pipeline == ours.pipeline && marker.sink != ours.sink) {
        return Err(ConnectorError::invalid(
            format!(
                "directory \"{}\" of sink \"{}\" belongs to sink \"{}\" of the same pipeline",
                root.display(),
                layout.sink,
                marker.sink
            ),
            "Choose another path, or DROP the other sink and remove its files by hand.",
        ));
    }
    match config.on_existing {
        Some(OnExisting::Replace) => {
            remove_data_files(root, &layout.names.ending())?;
            if home.exists() {
                std::fs::remove_dir_all(&home).map_err(io_error("removing", &home))?;
            }
            Ok(Claimed { home: write(&home, &ours)?, is_new: false })
        }
        Some(OnExisting::Append) => {
            if let Some(file) = existing {
                compare_columns(layout, format, root, &ours, &file)?;
            }
            let home = write(if found.is_some() { &joined } else { &home }, &ours)?;
            Ok(Claimed { home, is_new: true })
        }
        None => {
            let whose = match (&found, &existing) {
                (Some(marker), _) => format!("belongs to sink \"{}\" of pipeline {}", marker.sink, marker.pipeline),
                (None, Some(file)) => format!("holds files that this pipeline did not write, such as \"{}\"", file.display()),
                (None, None) => "is in use".to_string(),
            };
            Err(ConnectorError::invalid(
                format!("directory \"{}\" of sink \"{}\" {whose}", root.display(), layout.sink),
                "Choose another path, or set on_existing = 'append' to add to the files or on_existing = 'replace' to DELETE them. If this pipeline \
                 wrote them and its state directory was lost, bring that back: with a new one it starts from the beginning.",
            ))
        }
    }
}

/// Where the manifest of a sink is, if the directory is or has been its own.
pub(super) fn home_of(root: &Path, sink: &str, pipeline: &str) -> Result<Option<PathBuf>> {
    let home = root.join(HOME);
    for place in [joined(&home, sink, pipeline), home] {
        if read(&place)?.is_some_and(|marker| marker.pipeline == pipeline && marker.sink == sink) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// A second sink in a directory keeps its list apart.
fn joined(home: &Path, sink: &str, pipeline: &str) -> PathBuf {
    home.join(format!("{}files", naming::prefix(sink, pipeline)))
}

fn marker(layout: &Layout, format: FileFormat) -> Marker {
    let column = |index: &usize| layout.output.field(*index).name().clone();
    Marker {
        format: MARKER_FORMAT,
        pipeline: layout.pipeline.clone(),
        sink: layout.sink.clone(),
        file_format: format.name().to_string(),
        columns: layout.output.fields().iter().map(|field| (field.name().clone(), type_name(field.data_type()))).collect(),
        partition_by: layout.partition_columns.iter().map(column).collect(),
    }
}

/// The type without what is only a matter of memory layout.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8View | DataType::Utf8 | DataType::LargeUtf8 => "Utf8".into(),
        DataType::BinaryView | DataType::Binary | DataType::LargeBinary => "Binary".into(),
        DataType::Dictionary(_, values) => type_name(values),
        other => other.to_string(),
    }
}

fn read(home: &Path) -> Result<Option<Marker>> {
    let path = home.join(MARKER);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("reading", &path)(error)),
    };
    let damaged = |problem: String| ConnectorError::Corrupt { place: format!("\"{}\"", path.display()), problem };
    let marker: Marker = serde_json::from_slice(&text).map_err(|error| damaged(format!("cannot be read ({error})")))?;
    if marker.format > MARKER_FORMAT {
        return Err(damaged(format!("has format {}, and this build reads up to {MARKER_FORMAT}", marker.format)));
    }
    Ok(Some(marker))
}

fn write(home: &Path, marker: &Marker) -> Result<PathBuf> {
    durable_put::create_dir(home).map_err(state_error(home))?;
    let text = serde_json::to_vec_pretty(marker).map_err(|error| ConnectorError::internal("writing the marker of a sink failed", error))?;
    let path = home.join(MARKER);
    durable_put::put_new(&path, &text).map_err(state_error(&path))?;
    Ok(home.to_path_buf())
}

fn other_columns(layout: &Layout, root: &Path, ours: &[(String, String)], theirs: &[(String, String)]) -> ConnectorError {
    let list = |columns: &[(String, String)]| {
        let columns: Vec<String> = columns.iter().map(|(name, data_type)| format!("{name} {data_type}")).collect();
        columns.join(", ")
    };
    let what = if ours == theirs {
        "another format or partitioning than the files in".to_string()
    } else {
        format!("the columns ({}), which differ from those ({}) of the files in", list(ours), list(theirs))
    };
    ConnectorError::invalid(
        format!("sink \"{}\" has {what} \"{}\"", layout.sink, root.display()),
        "Choose another path, or set on_existing = 'replace' to remove the files first.",
    )
}

/// Compares the columns with those of a file of others, for formats that tell.
fn compare_columns(layout: &Layout, format: FileFormat, root: &Path, ours: &Marker, file: &Path) -> Result<()> {
    let theirs: Vec<(String, DataType)> = match format {
        FileFormat::Parquet => parquet::columns_of(file)?,
        FileFormat::Arrow => {
            let opened = std::fs::File::open(file).map_err(io_error("opening", file))?;
            let reader = arrow::ipc::reader::FileReader::try_new(opened, None)
                .map_err(|error| ConnectorError::unavailable("reading", format!("\"{}\"", file.display()), error))?;
            reader.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect()
        }
        _ => return Ok(()),
    };
    let theirs: Vec<(String, String)> = theirs.into_iter().map(|(name, data_type)| (name, type_name(&data_type))).collect();
    let in_file: Vec<(String, String)> = ours.columns.iter().filter(|(name, _)| !ours.partition_by.contains(name)).cloned().collect();
    debug_assert_eq!(in_file.len(), layout.file.fields().len());
    if theirs == in_file { Ok(()) } else { Err(other_columns(layout, root, &in_file, &theirs)) }
}

/// A data file of others in the directory, its partitions and versions, if there is one.
fn first_data_file(root: &Path, ending: &str, is_ours: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let mut first: Option<PathBuf> = None;
    walk(root, &mut |path, name| {
        if !name.starts_with(['.', '_']) && name.ends_with(ending) && !is_ours(name) {
            first = Some(path.to_path_buf());
        }
        Ok(first.is_none())
    })?;
    Ok(first)
}

fn remove_data_files(root: &Path, ending: &str) -> Result<()> {
    let pointer = root.join(version::POINTER);
    if pointer.is_symlink() {
        std::fs::remove_file(&pointer).map_err(io_error("removing", &pointer))?;
    }
    walk(root, &mut |path, name| {
        if !name.starts_with(['.', '_']) && name.ends_with(ending) {
            std::fs::remove_file(path).map_err(io_error("removing", path))?;
        }
        Ok(true)
    })?;
    Ok(())
}

/// Calls `visit` for every file below `root` that a sink may have written, hidden ones too, until it returns false: files in the directory
/// itself, in partitions (`k=v`) and in versions (`v-<epoch>`).
pub(crate) fn walk(root: &Path, visit: &mut dyn FnMut(&Path, &str) -> Result<bool>) -> Result<bool> {
    for entry in std::fs::read_dir(root).map_err(io_error("listing", root))? {
        let entry = entry.map_err(io_error("listing", root))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let kind = entry.file_type().map_err(io_error("reading", &entry.path()))?;
        let go_on = if kind.is_dir() {
            let is_ours = !name.starts_with(['.', '_']) && (name.contains('=') || version::epoch_of(name).is_some());
            !is_ours || walk(&entry.path(), visit)?
        } else {
            visit(&entry.path(), name)?
        };
        if !go_on {
            return Ok(false);
        }
    }
    Ok(true)
}
