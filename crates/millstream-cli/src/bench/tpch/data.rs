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

/// The rows of a table at a scale.
///
/// # Errors
/// When Arrow refuses the columns, which would be a bug.
pub(crate) fn generate(table: Table, scale: f64) -> anyhow::Result<RecordBatch> {
    match table {
        Table::Region => rows(RegionArrow::new(RegionGenerator::new(scale, 1, 1))),
        Table::Nation => rows(NationArrow::new(NationGenerator::new(scale, 1, 1))),
        Table::Supplier => rows(SupplierArrow::new(SupplierGenerator::new(scale, 1, 1))),
        Table::Part => rows(PartArrow::new(PartGenerator::new(scale, 1, 1))),
        Table::PartSupp => rows(PartSuppArrow::new(PartSuppGenerator::new(scale, 1, 1))),
        Table::Customer => rows(CustomerArrow::new(CustomerGenerator::new(scale, 1, 1))),
        Table::Orders => rows(OrderArrow::new(OrderGenerator::new(scale, 1, 1))),
        Table::LineItem => rows(LineItemArrow::new(LineItemGenerator::new(scale, 1, 1))),
    }
}

fn rows(reader: impl arrow::array::RecordBatchReader) -> anyhow::Result<RecordBatch> {
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>()?;
    Ok(concat_batches(&schema, &batches)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_the_sizes_of_their_scale() {
        let rows = |table| generate(table, 0.001).unwrap().num_rows();
        let sizes = Table::ALL.map(rows);
        assert_eq!(sizes[..7], [5, 25, 10, 200, 800, 150, 1500]);
        assert!(sizes[7] > 5_000, "{sizes:?}");
    }
}
