//! The join against nested loops, over random changes of both sides.

use crate::test_util::*;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, JoinType};
use datafusion::prelude::{col, lit};
use millstream_plan::graph::{Graph, Keep, Op};
use millstream_types::delta::{DeltaBatch, num_rows};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::HashMap;
use std::sync::Arc;

const KINDS: [JoinType; 10] = [
    JoinType::Inner,
    JoinType::Left,
    JoinType::Right,
    JoinType::Full,
    JoinType::LeftSemi,
    JoinType::RightSemi,
    JoinType::LeftAnti,
    JoinType::RightAnti,
    JoinType::LeftMark,
    JoinType::RightMark,
];

/// What a join does, and what its inputs may.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) join_type: JoinType,
    pub(super) keys: bool,
    pub(super) filter: bool,
    pub(super) null_equals_null: bool,
    pub(super) null_aware: bool,
    pub(super) append_only: [bool; 2],
}

pub(super) fn left_schema() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("v", DataType::Int64)])
}

pub(super) fn right_schema() -> SchemaRef {
    schema(&[("rk", DataType::Int64), ("rv", DataType::Int64)])
}

pub(super) fn both_sides() -> SchemaRef {
    schema(&[("k", DataType::Int64), ("v", DataType::Int64), ("rk", DataType::Int64), ("rv", DataType::Int64)])
}

pub(super) fn output_schema(join_type: JoinType) -> SchemaRef {
    let marked = |key, value| schema(&[(key, DataType::Int64), (value, DataType::Int64), ("mark", DataType::Boolean)]);
    match join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => both_sides(),
        JoinType::LeftSemi | JoinType::LeftAnti => left_schema(),
        JoinType::RightSemi | JoinType::RightAnti => right_schema(),
        JoinType::LeftMark => marked("k", "v"),
        JoinType::RightMark => marked("rk", "rv"),
    }
}

pub(super) fn random_pair(rng: &mut SmallRng) -> Row {
    let mut value = |range| (!rng.random_bool(0.15)).then(|| rng.random_range(range));
    vec![value(0..5), value(-4..4)]
}

/// The join by nested loops.
pub(super) fn naive(left: &Bag, right: &Bag, case: &Case) -> Bag {
    let (left, right) = (expanded(left), expanded(right));
    let filter = |l: &Row, r: &Row| !case.filter || matches!((l[1], r[1]), (Some(a), Some(b)) if a < b);
    let key = |l: &Row, r: &Row| {
        let unknown = l[0].is_none() || r[0].is_none();
        !case.keys || (case.null_aware && unknown) || ((case.null_equals_null || !unknown) && l[0] == r[0])
    };
    let meet = |l: &Row, r: &Row| key(l, r) && filter(l, r);
    let l_met = |l: &Row| right.iter().any(|r| meet(l, r));
    let r_met = |r: &Row| left.iter().any(|l| meet(l, r));
    let pairs = || {
        let right = &right;
        left.iter().flat_map(move |l| right.iter().filter(move |r| meet(l, r)).map(move |r| [l.clone(), r.clone()].concat()))
    };
    let nulls = || vec![None, None];
    let l_padded = || left.iter().filter(|l| !l_met(l)).map(|l| [l.clone(), nulls()].concat());
    let r_padded = || right.iter().filter(|r| !r_met(r)).map(|r| [nulls(), r.clone()].concat());
    let marked = |row: &Row, mark: bool| [row.clone(), vec![Some(i64::from(mark))]].concat();
    match case.join_type {
        JoinType::Inner => bag(pairs()),
        JoinType::Left => bag(pairs().chain(l_padded())),
        JoinType::Right => bag(pairs().chain(r_padded())),
        JoinType::Full => bag(pairs().chain(l_padded()).chain(r_padded())),
        JoinType::LeftSemi => bag(left.iter().filter(|l| l_met(l)).cloned()),
        JoinType::RightSemi => bag(right.iter().filter(|r| r_met(r)).cloned()),
        JoinType::LeftAnti => bag(left.iter().filter(|l| !l_met(l)).cloned()),
        JoinType::RightAnti => bag(right.iter().filter(|r| !r_met(r)).cloned()),
        JoinType::LeftMark => bag(left.iter().map(|l| marked(l, l_met(l)))),
        JoinType::RightMark => bag(right.iter().map(|r| marked(r, r_met(r)))),
    }
}

pub(super) fn join(case: &Case, keep: [Keep; 2], shared: bool) -> Op {
    Op::Join {
        join_type: case.join_type,
        on: match (case.keys, shared) {
            (false, _) => vec![],
            (true, false) => vec![(col("k"), col("rk"))],
            (true, true) => vec![(col("k"), col("k"))],
        },
        filter: case.filter.then(|| col("v").lt(col("rv"))),
        filter_schema: Arc::new(DFSchema::try_from(both_sides()).unwrap()),
        null_equals_null: case.null_equals_null,
        null_aware: case.null_aware,
        keep: Box::new(keep),
        one_copy: shared,
        lookup: false,
        state_ttl_micros: [None; 2],
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![];
    for join_type in KINDS {
        for choice in 0..32 {
            let is = |bit: usize| choice & bit > 0;
            let (keys, filter, null_equals_null, append_only) = (is(1), is(2), is(4), [is(8), is(16)]);
            if null_equals_null && !keys {
                continue;
            }
            cases.push(Case { join_type, keys, filter, null_equals_null, null_aware: false, append_only });
            if join_type == JoinType::LeftAnti && keys && !null_equals_null {
                cases.push(Case { join_type, keys, filter, null_equals_null, null_aware: true, append_only });
            }
        }
    }
    cases
}

#[tokio::test]
async fn all_kinds_follow_random_changes() {
    for (number, case) in cases().iter().enumerate() {
        let monotone = matches!(case.join_type, JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi);
        let append_only_output = monotone && case.append_only == [true, true];
        let mut builder = GraphBuilder::default();
        let l = builder.input("l", &left_schema(), case.append_only[0]);
        let r = builder.input("r", &right_schema(), case.append_only[1]);
        // Most cases drop rows that have a match, where that is allowed.
        let unmatched = |side: usize| number % 3 > 0 && case.append_only[1 - side];
        let keep = match case.join_type {
            JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark if unmatched(0) => [Keep::Unmatched, Keep::Forever],
            JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark if unmatched(1) => [Keep::Forever, Keep::Unmatched],
            _ => [Keep::Forever, Keep::Forever],
        };
        let op = join(case, keep, false);
        let top = builder.add(op, &[l, r], &output_schema(case.join_type), append_only_output);
        let mut runner = Runner::new(builder.finish(top));
        let mut rng = rng(number as u64);
        let (mut left, mut right, mut result) = (Bag::new(), Bag::new(), Bag::new());
        for _ in 0..10 {
            let l = random_delta(&mut rng, &left_schema(), &left, !case.append_only[0], random_pair);
            let r = random_delta(&mut rng, &right_schema(), &right, !case.append_only[1], random_pair);
            // Often only one side changes, or nothing matches yet.
            let (l, r) = match rng.random_range(0..4) {
                0 => (l, vec![]),
                1 => (vec![], r),
                _ => (l, r),
            };
            add(&mut left, &l);
            add(&mut right, &r);
            let change = runner.step(&[("l", l), ("r", r)], 0).await.unwrap();
            assert!(!append_only_output || append_only(&change), "{case:?}");
            add(&mut result, &change);
            assert_eq!(result, naive(&left, &right, case), "{case:?}");
        }
    }
}

fn self_join(shared: bool, retracting: bool, filter: bool) -> (Graph, Case) {
    let case =
        Case { join_type: JoinType::Inner, keys: true, filter, null_equals_null: false, null_aware: false, append_only: [!retracting; 2] };
    let mut builder = GraphBuilder::default();
    let input = builder.input("t", &left_schema(), !retracting);
    let mut op = join(&case, [Keep::Forever, Keep::Forever], true);
    if let Op::Join { one_copy: found, .. } = &mut op {
        *found = shared;
    }
    let top = builder.add(op, &[input, input], &both_sides(), !retracting);
    (builder.finish(top), case)
}

#[tokio::test]
async fn self_joins_keep_one_or_two_copies() {
    for choice in 0..8 {
        let (shared, retracting, filter) = (choice & 1 > 0, choice & 2 > 0, choice & 4 > 0);
        let (graph, case) = self_join(shared, retracting, filter);
        let mut runner = Runner::new(graph);
        let mut rng = rng(choice);
        let (mut input, mut result) = (Bag::new(), Bag::new());
        for _ in 0..20 {
            let delta = random_delta(&mut rng, &left_schema(), &input, retracting, random_pair);
            add(&mut input, &delta);
            add(&mut result, &runner.step(&[("t", delta)], 0).await.unwrap());
            assert_eq!(result, naive(&input, &input, &case));
        }
        let known: i64 = input.iter().filter(|(row, _)| row[0].is_some()).map(|(_, weight)| if retracting { 1 } else { *weight }).sum();
        let copies = if shared { 1 } else { 2 };
        assert_eq!(runner.flow.operator_stats()[1].state_rows as i64, copies * known);
    }
}

/// Pairs per batch stay bounded, and rows of one key cost what they give.
#[tokio::test]
async fn one_key_comes_in_chunks() {
    let case =
        Case { join_type: JoinType::Inner, keys: true, filter: false, null_equals_null: false, null_aware: false, append_only: [true; 2] };
    let mut builder = GraphBuilder::default();
    let l = builder.input("l", &left_schema(), true);
    let r = builder.input("r", &right_schema(), true);
    let top = builder.add(join(&case, [Keep::Forever, Keep::Forever], false), &[l, r], &both_sides(), true);
    let mut runner = Runner::new(builder.finish(top));
    let rows =
        |schema: &SchemaRef, count| DeltaBatch::insertions(batch(schema, &(0..count).map(|n| vec![Some(7), Some(n)]).collect::<Vec<_>>()));
    assert!(runner.step(&[("r", vec![rows(&right_schema(), 1000)])], 0).await.unwrap().is_empty());
    let change = runner.step(&[("l", vec![rows(&left_schema(), 200)])], 0).await.unwrap();
    assert_eq!(change.iter().map(DeltaBatch::num_rows).collect::<Vec<_>>(), [65536, 65536, 65536, 3392]);
    assert!(append_only(&change));
}

/// Rows of the left side meet the right rows of the epoch before, once.
#[tokio::test]
async fn lookups_read_the_epoch_before() {
    for (number, case) in cases().iter().enumerate() {
        let by_left =
            matches!(case.join_type, JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark);
        if !by_left || !case.append_only[0] {
            continue;
        }
        let mut builder = GraphBuilder::default();
        let l = builder.input("l", &left_schema(), true);
        let r = builder.input("r", &right_schema(), case.append_only[1]);
        let mut op = join(case, [Keep::Never, Keep::Forever], false);
        if let Op::Join { lookup, .. } = &mut op {
            *lookup = true;
        }
        let top = builder.add(op, &[l, r], &output_schema(case.join_type), true);
        let graph = builder.finish(top);
        let mut runner = Runner::new(graph);
        let mut rng = rng(number as u64);
        let (mut right, mut kept) = (Bag::new(), 0);
        for step in 0..10 {
            let l = random_delta(&mut rng, &left_schema(), &Bag::new(), false, random_pair);
            let r = random_delta(&mut rng, &right_schema(), &right, !case.append_only[1], random_pair);
            let mut left = Bag::new();
            add(&mut left, &l);
            let change = runner.step(&[("l", l), ("r", r.clone())], 0).await.unwrap();
            assert!(append_only(&change), "{case:?}");
            let mut found = Bag::new();
            add(&mut found, &change);
            assert_eq!(found, naive(&left, &right, case), "{case:?}");
            add(&mut right, &r);
            if step == 5 {
                runner.restart().await;
            }
            let rows = runner.flow.operator_stats()[2].state_rows;
            assert!(rows <= expanded(&right).len(), "the left side keeps no rows");
            kept = kept.max(rows);
        }
        assert!(kept > 0);
    }
}

/// The clock of an epoch is its number, so this is a number of epochs.
const TTL: i64 = 3;

/// Rows with keys that no change of either side touches go, from the sides that say so, and what the input takes back of them later has no
/// effect.
#[tokio::test]
async fn keys_expire() {
    let mut gone = 0;
    for (number, case) in cases().iter().filter(|case| case.keys && !case.null_aware).enumerate() {
        for expires in [[true, false], [false, true], [true, true]] {
            let mut builder = GraphBuilder::default();
            let l = builder.input("l", &left_schema(), case.append_only[0]);
            let r = builder.input("r", &right_schema(), case.append_only[1]);
            let mut op = join(case, [Keep::Forever, Keep::Forever], false);
            if let Op::Join { state_ttl_micros, .. } = &mut op {
                *state_ttl_micros = expires.map(|expires| expires.then_some(TTL));
            }
            let top = builder.add(op, &[l, r], &output_schema(case.join_type), false);
            let mut runner = Runner::new(builder.finish(top));
            let mut rng = rng(number as u64);
            let schemas = [left_schema(), right_schema()];
            let (mut inputs, mut sides) = ([Bag::new(), Bag::new()], [Bag::new(), Bag::new()]);
            let mut result = Bag::new();
            let mut touched: HashMap<(Option<usize>, Option<i64>), i64> = HashMap::new();
            // NULL keys match nothing, so that only their own side touches them.
            let key_of = |side: usize, row: &Row| (Some(side).filter(|_| row[0].is_none() && !case.null_equals_null), row[0]);
            for epoch in 1..=20 {
                let mut deltas = vec![];
                for side in 0..2 {
                    let delta = match rng.random_bool(0.4) {
                        true => random_delta(&mut rng, &schemas[side], &inputs[side], !case.append_only[side], random_pair),
                        false => vec![],
                    };
                    add(&mut inputs[side], &delta);
                    let mut change = Bag::new();
                    add(&mut change, &delta);
                    for (row, weight) in change {
                        let there = sides[side].get(&row).copied().unwrap_or(0);
                        let weight = if expires[side] { weight.max(-there) } else { weight };
                        if weight != 0 {
                            touched.insert(key_of(side, &row), epoch);
                            *sides[side].entry(row).or_default() += weight;
                        }
                    }
                    sides[side].retain(|_, weight| *weight != 0);
                    deltas.push(delta);
                }
                for side in (0..2).filter(|side| expires[*side]) {
                    let before = sides[side].len();
                    sides[side].retain(|row, _| touched[&key_of(side, row)] + TTL > epoch);
                    gone += before - sides[side].len();
                }
                let right = deltas.pop().unwrap();
                let left = deltas.pop().unwrap();
                let change = runner.step(&[("l", left), ("r", right)], 0).await.unwrap();
                add(&mut result, &change);
                assert_eq!(result, naive(&sides[0], &sides[1], case), "epoch {epoch}, {expires:?}, {case:?}");
            }
        }
    }
    assert!(gone > 1000, "{gone}");
}

const SECOND: i64 = 1_000_000;

fn timed(key: &str, time: &str) -> SchemaRef {
    schema(&[(key, DataType::Int64), (time, TIMESTAMP)])
}

/// Rows on both sides with the same watermark. Joins on equal times, or where the left time is the greater one, drop what
/// can no longer match and give the same rows as without.
#[tokio::test]
async fn rows_below_the_bound_are_dropped() {
    for join_type in KINDS {
        for choice in 0..8 {
            let (equal, append_only) = (choice & 1 > 0, [choice & 2 > 0, choice & 4 > 0]);
            let (left_schema, right_schema) = (timed("k", "t"), timed("rk", "rt"));
            let both = schema(&[("k", DataType::Int64), ("t", TIMESTAMP), ("rk", DataType::Int64), ("rt", TIMESTAMP)]);
            let output = match join_type {
                JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => Arc::clone(&both),
                JoinType::LeftSemi | JoinType::LeftAnti => Arc::clone(&left_schema),
                JoinType::RightSemi | JoinType::RightAnti => Arc::clone(&right_schema),
                JoinType::LeftMark => schema(&[("k", DataType::Int64), ("t", TIMESTAMP), ("mark", DataType::Boolean)]),
                JoinType::RightMark => schema(&[("rk", DataType::Int64), ("rt", TIMESTAMP), ("mark", DataType::Boolean)]),
            };
            let until = |name: &str| Keep::Until { value: col(name), bound: watermark_bound() };
            let op = |keep| Op::Join {
                join_type,
                on: if equal { vec![(col("k"), col("rk")), (col("t"), col("rt"))] } else { vec![(col("k"), col("rk"))] },
                filter: (!equal).then(|| col("t").gt_eq(col("rt")).and(col("k").gt(lit(0i64)))),
                filter_schema: Arc::new(DFSchema::try_from(Arc::clone(&both)).unwrap()),
                null_equals_null: false,
                null_aware: false,
                keep: Box::new(keep),
                one_copy: false,
                lookup: false,
                state_ttl_micros: [None; 2],
            };
            let graph = |keep| {
                let mut builder = GraphBuilder::default();
                let l = builder.input("l", &left_schema, append_only[0]);
                let r = builder.input("r", &right_schema, append_only[1]);
                let top = builder.add(op(keep), &[l, r], &output, false);
                builder.finish(top)
            };
            let mut dropping = Runner::new(graph([until("t"), if equal { until("rt") } else { Keep::Forever }]));
            let mut keeping = Runner::new(graph([Keep::Forever, Keep::Forever]));
            let mut rng = rng(choice);
            let (mut left, mut right, mut result, mut expected) = (Bag::new(), Bag::new(), Bag::new(), Bag::new());
            let mut watermark = 0;
            for _ in 0..15 {
                let open = |bag: &Bag| -> Bag {
                    let open = bag.iter().filter(|(row, _)| row[1].is_none_or(|time| time >= watermark * SECOND));
                    open.map(|(row, weight)| (row.clone(), *weight)).collect()
                };
                let make = |rng: &mut SmallRng| {
                    let time = (!rng.random_bool(0.1)).then(|| (watermark + rng.random_range(0..6)) * SECOND);
                    vec![Some(rng.random_range(0..3)), time]
                };
                let l = random_delta(&mut rng, &left_schema, &open(&left), !append_only[0], make);
                let r = random_delta(&mut rng, &right_schema, &open(&right), !append_only[1], make);
                add(&mut left, &l);
                add(&mut right, &r);
                if rng.random_bool(0.6) {
                    watermark += rng.random_range(0..4);
                }
                let deltas = [("l", l), ("r", r)];
                add(&mut result, &dropping.step(&deltas, watermark * SECOND).await.unwrap());
                add(&mut expected, &keeping.step(&deltas, watermark * SECOND).await.unwrap());
                assert_eq!(result, expected, "{join_type} equal {equal} append-only {append_only:?}");
                let kept = |bag: &Bag, side: usize| {
                    let kept = bag.iter().filter(|(row, _)| row[1].is_some_and(|time| time >= watermark * SECOND));
                    kept.map(|(_, weight)| if append_only[side] { *weight } else { 1 }).sum::<i64>()
                };
                if equal {
                    let rows = dropping.flow.operator_stats()[2].state_rows as i64;
                    assert_eq!(rows, kept(&left, 0) + kept(&right, 1), "{join_type} append-only {append_only:?}");
                }
            }
            // The end of both streams empties the state without a change.
            let change = dropping.step(&[], i64::MAX).await.unwrap();
            assert_eq!(num_rows(&change), 0);
            if equal {
                assert_eq!(dropping.flow.operator_stats()[2].state_rows, 0);
            }
        }
    }
}

/// The other side never changes again, so its rows meet this side's as they come, and these are not kept.
#[tokio::test]
async fn nothing_is_kept_for_a_side_that_does_not_change() {
    for join_type in KINDS {
        let case = Case { join_type, keys: true, filter: true, null_equals_null: false, null_aware: false, append_only: [true, false] };
        let mut builder = GraphBuilder::default();
        let l = builder.input("l", &left_schema(), true);
        let r = builder.input("r", &right_schema(), false);
        let top = builder.add(join(&case, [Keep::Forever, Keep::Never], false), &[l, r], &output_schema(join_type), false);
        let mut runner = Runner::new(builder.finish(top));
        let mut rng = rng(5);
        let (mut left, mut right, mut result) = (Bag::new(), Bag::new(), Bag::new());
        for epoch in 0..20 {
            let l = if epoch == 0 { random_delta(&mut rng, &left_schema(), &left, false, random_pair) } else { vec![] };
            let r = random_delta(&mut rng, &right_schema(), &right, true, random_pair);
            add(&mut left, &l);
            add(&mut right, &r);
            add(&mut result, &runner.step(&[("l", l), ("r", r)], 0).await.unwrap());
            assert_eq!(result, naive(&left, &right, &case), "{join_type}");
        }
        assert!(runner.flow.operator_stats()[2].state_rows <= expanded(&left).len());
    }
}

#[tokio::test]
async fn rows_that_are_not_there_cannot_be_taken_back() {
    let (graph, _) = self_join(false, true, false);
    let mut runner = Runner::new(graph);
    let gone = DeltaBatch::insertions(batch(&left_schema(), &[vec![Some(1), Some(2)]])).negated();
    let error = runner.step(&[("t", vec![gone])], 0).await.unwrap_err();
    assert_eq!(error.to_string(), "relation \"Join #1\" would hold the row (k = 1, v = 2) -1 times");
}
