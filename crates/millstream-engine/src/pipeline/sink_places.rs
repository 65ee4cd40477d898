//! Where the sinks of a state directory write, read without owning it: for tools that compare their output with the log.

use super::record::{COMMIT_FRAME, CatalogChange, CheckpointHeader, CommitRecord};
use crate::catalog::resolve::object_name;
use crate::error::{EngineError, Result};
use millstream_sql::statement::ObjectKind;
use millstream_sql::{Statement, parse_statement};
use millstream_state::{CheckpointReader, LogReader};
use millstream_types::Epoch;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The sinks of a pipeline that have a path.
#[derive(Debug, Default)]
pub struct SinkPlaces {
    /// The newest epoch that a start would recover.
    pub newest: Epoch,
    /// The path of each, as its definition has it: a relative one begins where the pipeline was started.
    pub paths: BTreeMap<String, PathBuf>,
}

impl SinkPlaces {
    /// Those of a state directory.
    ///
    /// # Errors
    /// When its log or every checkpoint is damaged.
    pub fn read(directory: &Path) -> Result<Self> {
        let mut places = Self::default();
        if let Some(checkpoint) = CheckpointReader::newest_valid(&directory.join("checkpoint"))?.checkpoint {
            places.newest = checkpoint.epoch();
            CheckpointHeader::of(&checkpoint)?.catalog.iter().try_for_each(|sql| places.apply(sql))?;
        }
        for frame in LogReader::open(directory)? {
            let frame = frame?;
            if frame.kind != COMMIT_FRAME || frame.epoch <= places.newest {
                continue;
            }
            let (record, _) = CommitRecord::of_frame(&frame)?;
            places.newest = record.epoch;
            for change in &record.catalog {
                if let CatalogChange::Statement { sql } = change {
                    places.apply(sql)?;
                }
            }
        }
        Ok(places)
    }

    fn apply(&mut self, sql: &str) -> Result<()> {
        let statement =
            parse_statement(sql).map_err(|error| EngineError::Corrupt(format!("a stored statement does not parse: {error}")))?;
        match statement {
            Statement::CreateSink(sink) => {
                let name = object_name(&sink.name);
                match sink.options.into_iter().find(|(option, _)| option == "path") {
                    Some((_, path)) => self.paths.insert(name, path.into()),
                    None => self.paths.remove(&name),
                };
            }
            Statement::Drop(drop) if drop.kind == ObjectKind::Sink => {
                drop.names.iter().for_each(|name| {
                    self.paths.remove(&object_name(name));
                });
            }
            _ => {}
        }
        Ok(())
    }
}
