//! What is shown against a naive model, over random changes, with a restored copy now and then.

use crate::test_util::*;
use arrow::array::Int64Array;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::logical_expr::expr::Sort;
use datafusion::prelude::col;
use millstream_plan::graph::{Bucket, Graph, Op, Ranking};
use millstream_types::delta::DeltaBatch;
use millstream_types::{Classified, ErrorKind};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;

fn input_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("name", DataType::Utf8View), ("v", DataType::Int64), ("x", DataType::Float64), ("ts", TIMESTAMP)])
}

fn random_row(rng: &mut SmallRng, time: i64) -> Row {
    let mut value = |range: std::ops::Range<i64>, nulls: f64| (!rng.random_bool(nulls)).then(|| rng.random_range(range));
    vec![value(0..4, 0.1), value(0..3, 0.1), value(-5..5, 0.2), value(-2000..2000, 0.2), value(time..time + 3, 0.0)]
}

#[derive(Clone)]
struct Case {
    partition: Option<usize>,
    /// By v, descending, NULL first or last.
    nulls_first: bool,
    ranking: Ranking,
    skip: u64,
    fetch: u64,
    rest: bool,
    numbered: bool,
    append_only: bool,
    bounded: bool,
}

const NAMES: [&str; 5] = ["k", "name", "v", "x", "ts"];

fn graph(case: &Case) -> Graph {
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &input_schema(), case.append_only);
    let mut fields: Vec<(&str, DataType)> =
        input_schema().fields().iter().zip(NAMES).map(|(field, name)| (name, field.data_type().clone())).collect();
    if case.numbered {
        fields.push(("number", DataType::Int64));
    }
    let op = Op::TopN {
        partition: case.partition.iter().map(|column| col(NAMES[*column])).collect(),
        order: vec![Sort::new(col("v"), false, case.nulls_first)],
        ranking: case.ranking,
        skip: case.skip,
        fetch: case.fetch,
        rest: case.rest,
        numbered: case.numbered,
        bucket: case.bounded.then(|| Bucket { column: 0, bound: watermark_bound() }),
    };
    let top = builder.add(op, &[input], &schema(&fields), false);
    builder.finish(top)
}

/// NULL last, ascending.
fn ascending(value: Option<i64>) -> (bool, Option<i64>) {
    (value.is_none(), value)
}

fn expected(input: &Bag, case: &Case) -> Bag {
    let mut partitions: BTreeMap<Option<Option<i64>>, Vec<Row>> = BTreeMap::new();
    for row in expanded(input) {
        partitions.entry(case.partition.map(|column| row[column])).or_default().push(row);
    }
    let mut shown = vec![];
    for mut rows in partitions.into_values() {
        let key = |row: &Row| match row[2] {
            None => (!case.nulls_first, 0),
            Some(v) => (case.nulls_first, -v),
        };
        rows.sort_by_key(|row| (key(row), row.iter().map(|value| ascending(*value)).collect::<Vec<_>>()));
        let (mut rank, mut dense) = (0, 0);
        for (place, row) in rows.iter().enumerate() {
            if place == 0 || key(&rows[place - 1]) != key(row) {
                (rank, dense) = (place as u64 + 1, dense + 1);
            }
            let number = match case.ranking {
                Ranking::RowNumber => place as u64 + 1,
                Ranking::Rank => rank,
                Ranking::DenseRank => dense,
            };
            if (number > case.skip && number <= case.skip + case.fetch) != case.rest {
                let mut row = row.clone();
                row.extend(case.numbered.then_some(Some(number as i64)));
                shown.push(row);
            }
        }
    }
    bag(shown)
}

#[tokio::test]
async fn what_is_shown_follows_every_change() {
    let mut seed = 0;
    for ranking in [Ranking::RowNumber, Ranking::Rank, Ranking::DenseRank] {
        for (append_only, numbered) in [(true, false), (true, true), (false, false), (false, true)] {
            let places = [
                (None, 0, 3, false),
                (None, 2, 4, false),
                (Some(0), 0, 1, false),
                (Some(1), 1, 2, false),
                (None, 0, 100, false),
                (Some(0), 0, 0, false),
                (None, 0, 3, true),
                (None, 0, 25, true),
            ];
            for (partition, skip, fetch, rest) in places {
                if rest && (numbered || ranking != Ranking::RowNumber) {
                    continue;
                }
                seed += 1;
                let nulls_first = seed % 2 == 0;
                let case = Case { partition, nulls_first, ranking, skip, fetch, rest, numbered, append_only, bounded: false };
                let mut runner = Runner::new(graph(&case));
                let mut rng = rng(seed);
                let (mut input, mut result) = (Bag::new(), Bag::new());
                for epoch in 0..40 {
                    let delta = random_delta(&mut rng, &input_schema(), &input, !append_only, |rng| random_row(rng, 0));
                    add(&mut input, &delta);
                    let change = runner.step(&[("t", delta)], 0).await.unwrap();
                    assert!(listed(&change).iter().map(|(_, weight)| *weight > 0).is_sorted(), "retractions come first");
                    add(&mut result, &change);
                    assert_eq!(result, expected(&input, &case), "seed {seed} epoch {epoch}");
                    let rows = runner.flow.operator_stats()[1].state_rows;
                    if !append_only {
                        assert_eq!(rows, input.len());
                    } else if ranking == Ranking::RowNumber && partition.is_none() {
                        assert!(rows as u64 <= skip + fetch);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn partitions_below_the_bound_are_dropped() {
    for append_only in [true, false] {
        let case = Case {
            partition: Some(4),
            nulls_first: false,
            ranking: Ranking::RowNumber,
            skip: 0,
            fetch: 2,
            rest: false,
            numbered: true,
            append_only,
            bounded: true,
        };
        let mut runner = Runner::new(graph(&case));
        let mut rng = rng(9);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        let mut watermark = 0;
        for _ in 0..60 {
            let open: Bag = input.iter().filter(|(row, _)| row[4] >= Some(watermark)).map(|(row, weight)| (row.clone(), *weight)).collect();
            let delta = random_delta(&mut rng, &input_schema(), &open, !append_only, |rng| random_row(rng, watermark));
            add(&mut input, &delta);
            watermark += rng.random_range(0..2);
            add(&mut result, &runner.step(&[("t", delta)], watermark).await.unwrap());
            assert_eq!(result, expected(&input, &case));
            let open = input.keys().filter(|row| row[4] >= Some(watermark)).count();
            assert!(runner.flow.operator_stats()[1].state_rows <= open);
        }
        let row = batch(&input_schema(), &[vec![Some(1), None, Some(9), None, Some(watermark - 1)]]);
        assert!(runner.step(&[("t", vec![DeltaBatch::insertions(row)])], watermark).await.unwrap().is_empty());
        assert_eq!(runner.flow.operator_stats()[1].dropped_rows, 1);
    }
}

#[tokio::test]
async fn a_row_that_is_not_there_cannot_be_taken_back() {
    let case = Case {
        partition: None,
        nulls_first: false,
        ranking: Ranking::RowNumber,
        skip: 0,
        fetch: 2,
        rest: false,
        numbered: false,
        append_only: false,
        bounded: false,
    };
    let mut runner = Runner::new(graph(&case));
    let row = batch(&input_schema(), &[vec![Some(3), None, Some(1), None, Some(0)]]);
    let gone = DeltaBatch::weighted(row, Int64Array::from(vec![-1]));
    let error = runner.step(&[("t", vec![gone])], 0).await.unwrap_err();
    assert!(error.to_string().starts_with("relation \"TopN #1\" would hold the row (k = 3, name = NULL, v = 1"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Data);
}
