//! `millstream verify tpch`: the 22 queries over generated tables, each in a pipeline of its own.
//!
//! All large tables are streams, fed side by side, so that orders come before and after their lines and customers after their orders.
//! Only where rows come one by one do orders and lines find the other tables complete: a few rows of each would hardly ever meet.

use super::input::{Input, shape_of};
use super::pipeline::Pipeline;
use super::report::Report;
use super::verify_pipeline;
use crate::args::VerifyTpchArgs;
use crate::bench::parquet_file::write_parquet;
use crate::bench::tpch::data::{Table, generate};
use crate::bench::tpch::queries::{Query, chosen};
use crate::output::cells::sql_type;
use crate::script::Script;
use crate::settings::Settings;
use anyhow::Context;
use arrow::array::RecordBatch;
use std::collections::BTreeSet;
use std::path::Path;

/// Compares the queries.
///
/// # Errors
/// A usage error for an unknown query; when the data cannot be made.
pub(super) async fn verify(args: &VerifyTpchArgs, report: &mut Report, settings: &Settings) -> anyhow::Result<()> {
    let queries = chosen(&args.queries)?;
    let directory = tempfile::tempdir().context("making a temporary directory")?;
    let mut tables: Vec<(Table, RecordBatch)> = Vec::new();
    for table in Table::ALL {
        let rows = generate(table, args.scale)?;
        if table.is_at_rest() {
            write_parquet(&directory.path().join(format!("{}.parquet", table.name())), &rows)?;
        }
        tables.push((table, rows));
    }
    let width = queries.iter().map(|query| query.name.len()).max().unwrap_or(0);
    for query in queries {
        let read: Vec<&(Table, RecordBatch)> = tables.iter().filter(|(table, _)| query.reads(table.name())).collect();
        let pipeline = Pipeline::new(&Script { text: script(query, &read, directory.path()), name: None }, &[])?;
        let has_orders = read.iter().any(|(table, _)| is_of_orders(*table));
        let mut inputs = Vec::new();
        for ((_, stream), (table, rows)) in pipeline.sources().zip(read.iter().filter(|(table, _)| !table.is_at_rest())) {
            let (shape, deletions) = shape_of(stream, args.feeding.deletions, &BTreeSet::new());
            let comes_first = has_orders && !is_of_orders(*table);
            inputs.push(Input { name: table.name().into(), rows: rows.clone(), shape, deletions, comes_first });
        }
        verify_pipeline(&pipeline, &inputs, &args.feeding, report, settings, width).await?;
    }
    Ok(())
}

fn is_of_orders(table: Table) -> bool {
    matches!(table, Table::Orders | Table::LineItem)
}

/// The query's streams, its tables at rest, and a view.
fn script(query: &Query, tables: &[&(Table, RecordBatch)], directory: &Path) -> String {
    let mut text = String::new();
    for (table, rows) in tables {
        let name = table.name();
        if table.is_at_rest() {
            let path = directory.join(format!("{name}.parquet")).display().to_string().replace('\'', "''");
            text.push_str(&format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{path}';\n"));
        } else {
            let schema = rows.schema();
            let columns = schema.fields().iter().map(|field| format!("{} {} NOT NULL", field.name(), sql_type(field.data_type())));
            text.push_str(&format!("CREATE STREAM {name} ({});\n", columns.collect::<Vec<_>>().join(", ")));
        }
    }
    text.push_str(&format!("CREATE MATERIALIZED VIEW {} AS\n{};\n", query.name, query.sql()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tpch::queries::ALL;

    #[test]
    fn every_query_is_a_pipeline() {
        let tables: Vec<(Table, RecordBatch)> = Table::ALL.map(|table| (table, generate(table, 0.001).unwrap())).to_vec();
        for query in ALL {
            let read: Vec<&(Table, RecordBatch)> = tables.iter().filter(|(table, _)| query.reads(table.name())).collect();
            let pipeline = Pipeline::new(&Script { text: script(query, &read, Path::new("/data")), name: None }, &[]).unwrap();
            assert_eq!(pipeline.checked[0].name, query.name);
            assert_eq!(pipeline.sources().count(), read.iter().filter(|(table, _)| !table.is_at_rest()).count());
        }
    }
}
