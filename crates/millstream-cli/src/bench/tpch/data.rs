//! The tables, from the generator `tpchgen`: the same rows for the same scale.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator, RegionGenerator,
    SupplierGenerator,
};
use tpchgen_arrow::{CustomerArrow, LineItemArrow, NationArrow, OrderArrow, PartArrow, PartSuppArrow, RegionArrow, SupplierArrow};

/// A table of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Five regions, at rest.
    Region,
    /// 25 nations, at rest.
    Nation,
    /// Suppliers of parts.
    Supplier,
    /// Parts.
    Part,
    /// Which supplier has which part, for how much.
    PartSupp,
    /// Customers.
    Customer,
    /// Orders.
    Orders,
    /// The lines of the orders.
    LineItem,
}

impl Table {
    /// All tables; referenced ones first.
    pub(crate) const ALL: [Table; 8] =
        [Table::Region, Table::Nation, Table::Supplier, Table::Part, Table::PartSupp, Table::Customer, Table::Orders, Table::LineItem];

    /// Its name in SQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Region => "region",
            Table::Nation => "nation",
            Table::Supplier => "supplier",
            Table::Part => "part",
            Table::PartSupp => "partsupp",
            Table::Customer => "customer",
            Table::Orders => "orders",
            Table::LineItem => "lineitem",
        }
    }

    /// It never changes.
    pub(crate) fn is_at_rest(self) -> bool {
        matches!(self, Table::Region | Table::Nation)
    }
}

/// The first `rows_max` rows of a table at a scale.
///
/// # Errors
/// When Arrow refuses the columns, which would be a bug.
pub(crate) fn generate(table: Table, scale: f64, rows_max: usize) -> anyhow::Result<RecordBatch> {
    match table {
        Table::Region => rows(RegionArrow::new(RegionGenerator::new(scale, 1, 1)), rows_max),
        Table::Nation => rows(NationArrow::new(NationGenerator::new(scale, 1, 1)), rows_max),
        Table::Supplier => rows(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1)), rows_max),
        Table::Part => rows(PartArrow::new(PartGenerator::new(scale, 1, 1)), rows_max),
        Table::PartSupp => rows(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1)), rows_max),
        Table::Customer => rows(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1)), rows_max),
        Table::Orders => rows(OrderArrow::new(OrderGenerator::new(scale, 1, 1)), rows_max),
        Table::LineItem => rows(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1)), rows_max),
    }
}

fn rows(reader: impl arrow::array::RecordBatchReader, rows_max: usize) -> anyhow::Result<RecordBatch> {
    let schema = reader.schema();
    let (mut batches, mut count) = (Vec::new(), 0);
    for batch in reader {
        let batch = batch?;
        let kept = batch.num_rows().min(rows_max - count);
        batches.push(batch.slice(0, kept));
        count += kept;
        if count == rows_max {
            break;
        }
    }
    Ok(concat_batches(&schema, &batches)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_sizes_of_their_scale() {
        let rows = |table| generate(table, 0.001, usize::MAX).unwrap().num_rows();
        let sizes = Table::ALL.map(rows);
        assert_eq!(sizes[..7], [5, 25, 10, 200, 800, 150, 1500]);
        assert!(sizes[7] > 5_000, "{sizes:?}");
        assert_eq!(generate(Table::LineItem, 0.001, 7).unwrap().num_rows(), 7);
    }
}
