//! The sessions of one key: disjoint stretches of time, further apart than the gap, in ascending order.

use std::ops::Range;

/// Stands for the NULL of a time: rows without a time are a session of their own, after all others.
pub(super) const NULL_TIME: i64 = i64::MAX;

/// A session, from its first to its last row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) start: i64,
    pub(super) last: i64,
    /// Where its state is.
    pub(super) slot: u32,
}

/// What rows have made of sessions.
#[derive(Debug)]
pub(super) struct Merged<'a> {
    /// The rows that came, a range of those added.
    pub(super) rows: Range<usize>,
    pub(super) start: i64,
    pub(super) last: i64,
    /// The sessions that it replaces, in ascending order.
    pub(super) old: &'a [Interval],
}

/// The sessions of a key. Most keys have one.
#[derive(Debug, Default)]
pub(super) enum Intervals {
    #[default]
    None,
    One(Interval),
    Many(Vec<Interval>),
}

impl Intervals {
    pub(super) fn as_slice(&self) -> &[Interval] {
        match self {
            Intervals::None => &[],
            Intervals::One(only) => std::slice::from_ref(only),
            Intervals::Many(all) => all,
        }
    }

    /// Memory beyond the value itself, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Intervals::Many(all) => all.capacity() * size_of::<Interval>(),
            _ => 0,
        }
    }

    /// Adds rows with ascending `times`. `keep` is called for every session that they start or extend and says in which slot its state
    /// will be, or `None` if it is not kept.
    pub(super) fn add<E>(&mut self, times: &[i64], gap: i64, mut keep: impl FnMut(Merged<'_>) -> Result<Option<u32>, E>) -> Result<(), E> {
        let mut row = 0;
        while row < times.len() {
            let first = row;
            let (mut start, mut last) = (times[row], times[row]);
            row += 1;
            let stored = self.as_slice();
            // Whether a session that ends with `last` goes on at `time`. NULL times are equal to each other alone.
            let reaches = |last: i64, time: i64| (last == NULL_TIME) == (time == NULL_TIME) && time <= last.saturating_add(gap);
            let from = stored.partition_point(|old| old.last < start && !reaches(old.last, start));
            let mut to = from;
            loop {
                if let Some(next) = stored.get(to).filter(|next| reaches(last, next.start)) {
                    (start, last) = (start.min(next.start), last.max(next.last));
                    to += 1;
                } else if times.get(row).is_some_and(|time| reaches(last, *time)) {
                    last = last.max(times[row]);
                    row += 1;
                } else {
                    break;
                }
            }
            let slot = keep(Merged { rows: first..row, start, last, old: &stored[from..to] })?;
            self.replace(from..to, slot.map(|slot| Interval { start, last, slot }));
        }
        Ok(())
    }

    /// Adds a session after all others.
    pub(super) fn push(&mut self, interval: Interval) {
        let end = self.as_slice().len();
        self.replace(end..end, Some(interval));
    }

    /// Puts sessions that came in any order into theirs.
    pub(super) fn sort(&mut self) {
        if let Intervals::Many(all) = self {
            all.sort_unstable_by_key(|interval| interval.start);
        }
    }

    /// Keeps the sessions for which `keep` is true.
    pub(super) fn retain(&mut self, keep: impl Fn(&Interval) -> bool) {
        match self {
            Intervals::Many(all) => all.retain(keep),
            Intervals::One(only) if !keep(only) => *self = Intervals::None,
            _ => {}
        }
        self.settle();
    }

    fn replace(&mut self, range: Range<usize>, new: Option<Interval>) {
        match (&mut *self, new) {
            (Intervals::None, None) => {}
            (Intervals::None, Some(new)) => *self = Intervals::One(new),
            (Intervals::One(old), Some(new)) if range.len() == 1 => *old = new,
            (Intervals::One(_), None) if range.len() == 1 => *self = Intervals::None,
            (Intervals::One(_), None) => {}
            (Intervals::One(old), Some(new)) => {
                let all = if range.start == 0 { vec![new, *old] } else { vec![*old, new] };
                *self = Intervals::Many(all);
            }
            (Intervals::Many(all), new) => {
                all.splice(range, new);
                self.settle();
            }
        }
    }

    fn settle(&mut self) {
        if let Intervals::Many(all) = self {
            match all.as_slice() {
                [] => *self = Intervals::None,
                [only] => *self = Intervals::One(*only),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_util::rng;
    use rand::Rng;

    /// First and last times of the sessions of sorted times.
    fn naive(times: &[i64], gap: i64) -> Vec<(i64, i64)> {
        let mut sessions: Vec<(i64, i64)> = vec![];
        for time in times {
            match sessions.last_mut() {
                Some(session) if *time <= session.1.saturating_add(gap) && (session.1 == NULL_TIME) == (*time == NULL_TIME) => {
                    session.1 = *time;
                }
                _ => sessions.push((*time, *time)),
            }
        }
        sessions
    }

    #[test]
    fn random_rows_make_the_sessions_of_all_rows() {
        let mut rng = rng(3);
        for gap in [1, 4, 15] {
            let mut intervals = Intervals::default();
            let mut all: Vec<i64> = vec![];
            let mut slots = 0;
            for _ in 0..200 {
                let mut times: Vec<i64> = (0..rng.random_range(1..5))
                    .map(|_| if rng.random_bool(0.05) { NULL_TIME } else { rng.random_range(0..2000) })
                    .collect();
                times.sort_unstable();
                let before = intervals.as_slice().to_vec();
                let mut seen = 0;
                let mut gone: Vec<Interval> = vec![];
                intervals
                    .add(&times, gap, |merged| {
                        assert_eq!(merged.rows.start, seen);
                        seen = merged.rows.end;
                        gone.extend(merged.old);
                        slots += 1;
                        Ok::<_, ()>(Some(slots))
                    })
                    .unwrap();
                assert_eq!(seen, times.len());
                assert!(gone.iter().all(|old| before.contains(old)));
                all.extend(&times);
                all.sort_unstable();
                let found: Vec<(i64, i64)> = intervals.as_slice().iter().map(|interval| (interval.start, interval.last)).collect();
                assert_eq!(found, naive(&all, gap));
                // Sometimes the earliest are dropped.
                if rng.random_bool(0.1) {
                    let floor = rng.random_range(0..1000);
                    intervals.retain(|interval| interval.last.saturating_add(gap) >= floor);
                    all = all
                        .iter()
                        .copied()
                        .filter(|time| intervals.as_slice().iter().any(|i| i.start <= *time && *time <= i.last))
                        .collect();
                }
            }
        }
    }

    #[test]
    fn sessions_that_are_not_kept_leave_nothing() {
        let mut intervals = Intervals::default();
        intervals.add(&[1, 2, 20], 5, |merged| Ok::<_, ()>((merged.last > 10).then_some(7))).unwrap();
        assert_eq!(intervals.as_slice(), [Interval { start: 20, last: 20, slot: 7 }]);
        intervals.add(&[22], 5, |merged| Ok::<_, ()>((merged.old.len() != 1).then_some(8))).unwrap();
        assert_eq!(intervals.as_slice(), []);
    }
}
