//! `FROM 'path'`: files that a query names without a definition.
//!
//! ```sql
//! SELECT count(*) FROM 'data/2026-*.parquet';
//! ```
//! The path is a file, a directory (its files) or a glob; the names tell the format. Parquet is read by DataFusion, which skips row
//! groups and columns; the other formats go through the `files` source, with its inference of columns and its strict decoding,
//! so that a row that does not fit is an error that names file and line. Columns are those of the oldest file.

use crate::catalog::object::Shown;
use crate::error::{EngineError, Result};
use crate::pipeline::accepted::AcceptedRows;
use crate::statements::create_stream;
use crate::statements::given_options::GivenOptions;
use crate::stream_scan;
use datafusion::catalog::TableProvider;
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionState;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use millstream_connectors::ConnectorError;
use millstream_connectors::formats::Format;
use millstream_connectors::sources::files::{FilesAtRest, files_at_rest};
use millstream_sql::statement::CreateStream;
use millstream_types::Clock;
use sqlparser::ast::{self, ObjectName};
use std::sync::Arc;

/// The rows of the files of `path` as they are now.
///
/// # Errors
/// When there is no such file, its format is unknown, or it cannot be read.
pub(crate) async fn provider(path: &str, base: &SessionState, clock: &Arc<dyn Clock>) -> Result<Arc<dyn TableProvider>> {
    let FilesAtRest { format, paths } = files_at_rest(path, &crate::reach::of(base)).await.map_err(|error| failed(path, error))?;
    if format == Format::Parquet {
        let options = ParquetReadOptions { file_extension: "", ..ParquetReadOptions::default() };
        let rows = SessionContext::new_with_state(base.clone()).read_parquet(paths, options).await?;
        return Ok(Arc::new(ViewTable::new(rows.into_unoptimized_plan(), None)));
    }
    let mut options =
        vec![("connector", "files"), ("path", path), ("format", format.name()), ("order", "name"), ("settle", "0s"), ("on_error", "fail")];
    if path.contains(".tsv") {
        options.push(("delimiter", "\\t"));
    }
    let definition = CreateStream {
        or_replace: false,
        if_not_exists: false,
        name: ObjectName::from(vec![ast::Ident::with_quote('"', path)]),
        columns: Vec::new(),
        watermark: None,
        primary_key: Vec::new(),
        append_only: false,
        options: options.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        as_select: None,
    };
    let def = Arc::new(create_stream::define(&definition, &GivenOptions::default(), None, base).await?);
    let rows = AcceptedRows::of_source(def, base, clock).await?;
    stream_scan::provider(rows, Shown::Declared, base, true)
}

fn failed(path: &str, error: ConnectorError) -> EngineError {
    match error {
        ConnectorError::Invalid { message, hint } => EngineError::Invalid { message, hint },
        ConnectorError::Refused { message, hint } => EngineError::denied(message, hint),
        other => EngineError::connector(format!("\"{path}\""), other),
    }
}
