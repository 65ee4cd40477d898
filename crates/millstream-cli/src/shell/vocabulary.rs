//! The words the shell knows: fixed ones of the dialect, and those of the catalog, refreshed after every statement.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};

/// Keywords, for highlighting and completion.
pub(crate) const KEYWORDS: &[&str] = &[
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "ANTI",
    "AS",
    "ASC",
    "ASOF",
    "BEGIN",
    "BETWEEN",
    "BY",
    "CASCADE",
    "CASE",
    "CAST",
    "CHANGES",
    "CHECKPOINT",
    "CLOSE",
    "COMMIT",
    "CONNECTORS",
    "COPY",
    "CREATE",
    "CROSS",
    "CURRENT",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "EMIT",
    "END",
    "EPOCH",
    "ESCAPE",
    "EXCEPT",
    "EXECUTE",
    "EXISTS",
    "EXPLAIN",
    "EXTERNAL",
    "EXTRACT",
    "FALSE",
    "FETCH",
    "FILTER",
    "FINAL",
    "FIRST",
    "FOLLOWING",
    "FOR",
    "FROM",
    "FULL",
    "FUNCTION",
    "FUNCTIONS",
    "GROUP",
    "GROUPING",
    "HAVING",
    "IF",
    "ILIKE",
    "IN",
    "INCREMENTAL",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LAST",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MATCH_CONDITION",
    "MATERIALIZED",
    "METADATA",
    "NATURAL",
    "NOT",
    "NULL",
    "NULLS",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "PARTITION",
    "PARTITIONED",
    "PAUSE",
    "PERIODIC",
    "PIPELINE",
    "PRECEDING",
    "PREPARE",
    "PRIMARY",
    "QUALIFY",
    "QUERIES",
    "RANGE",
    "RECURSIVE",
    "REFRESH",
    "REPLACE",
    "RESET",
    "RESUME",
    "RIGHT",
    "ROLLUP",
    "ROW",
    "ROWS",
    "SELECT",
    "SEMI",
    "SET",
    "SHOW",
    "SIMILAR",
    "SINK",
    "SINKS",
    "SOURCE",
    "START",
    "STOP",
    "STORED",
    "STREAM",
    "STREAMS",
    "SUBSCRIBE",
    "SYSTEM_TIME",
    "TABLE",
    "TABLES",
    "THEN",
    "TIES",
    "TO",
    "TRUE",
    "TRUNCATE",
    "UNBOUNDED",
    "UNION",
    "UNNEST",
    "UPDATE",
    "USING",
    "VALUES",
    "VERBOSE",
    "VIEW",
    "VIEWS",
    "WATERMARK",
    "WHEN",
    "WHERE",
    "WINDOW",
    "WITH",
];

/// Names of types, highlighted like keywords.
pub(crate) const TYPES: &[&str] = &[
    "ARRAY",
    "BIGINT",
    "BOOLEAN",
    "BYTEA",
    "CHAR",
    "DATE",
    "DECIMAL",
    "DOUBLE",
    "FLOAT",
    "INT",
    "INTEGER",
    "MAP",
    "NUMERIC",
    "PRECISION",
    "REAL",
    "SMALLINT",
    "STRING",
    "STRUCT",
    "TEXT",
    "TIME",
    "TIMESTAMP",
    "TIMESTAMPTZ",
    "TINYINT",
    "VARCHAR",
];

/// Window table functions and the like, which the catalog's list of functions does not hold.
pub(crate) const TABLE_FUNCTIONS: &[&str] = &["CUMULATE", "HOP", "PROCTIME", "SESSION", "TUMBLE"];

/// Options of `WITH (...)`, of every connector and format.
pub(crate) const OPTIONS: &[&str] = &[
    "bounded",
    "compression",
    "connector",
    "delimiter",
    "discovery_interval",
    "epoch_name",
    "file_name",
    "format",
    "header",
    "host",
    "idle_timeout",
    "interval",
    "limit",
    "listen",
    "max_bad_rows",
    "max_bytes_per_epoch",
    "max_files_per_epoch",
    "max_future",
    "max_rows_per_epoch",
    "max_rows_per_second",
    "mode",
    "on_change",
    "on_error",
    "on_existing",
    "on_future",
    "on_late",
    "on_missing",
    "op_column",
    "op_name",
    "order",
    "path",
    "port",
    "recursive",
    "retention",
    "roll_interval",
    "roll_rows",
    "roll_size",
    "row_limit",
    "rows_per_second",
    "seed",
    "settle",
    "start_from",
    "timestamp_format",
    "validate",
    "verify",
];

/// Connectors, for `connector = '`.
pub(crate) const CONNECTORS: &[&str] = &[
    "arrow",
    "blackhole",
    "console",
    "csv",
    "files",
    "generator",
    "json",
    "memory",
    "nexmark",
    "parquet",
    "socket",
    "stdin",
    "text",
    "timer",
];

/// A relation of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Relation {
    /// Its name.
    pub(crate) name: String,
    /// What it is: stream, table, view, materialized view, sink.
    pub(crate) kind: String,
    /// Its columns with their SQL types.
    pub(crate) columns: Vec<(String, String)>,
}

/// What the catalog holds now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vocabulary {
    /// Streams, tables, views and sinks.
    pub(crate) relations: Vec<Relation>,
    /// Functions.
    pub(crate) functions: BTreeSet<String>,
    /// Options of SET, each with its documentation.
    pub(crate) settings: Vec<(String, String)>,
}

impl Vocabulary {
    /// The relation of that name.
    pub(crate) fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.iter().find(|relation| relation.name.eq_ignore_ascii_case(name))
    }
}

/// The vocabulary, shared between the shell's loop and the editor.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedVocabulary(Arc<RwLock<Vocabulary>>);

impl SharedVocabulary {
    /// Replaces it.
    pub(crate) fn replace(&self, vocabulary: Vocabulary) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = vocabulary;
    }

    /// Reads it.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Vocabulary) -> T) -> T {
        read(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}
