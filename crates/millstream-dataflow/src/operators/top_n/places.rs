//! Which rows of a partition are shown, and with which number.

use crate::ordered::{Entry, Ordered};
use millstream_plan::graph::Ranking;
use std::cmp::Ordering;

/// The places that are shown: those after the first `skip`, `fetch` of them; for ranks, the ranks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) ranking: Ranking,
    pub(super) skip: u64,
    pub(super) fetch: u64,
    /// Rows are shown with their number: then every copy of a row counts by itself.
    pub(super) numbered: bool,
}

/// A row that is shown, as often as its weight says.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) entry: Entry,
    /// Zero where numbers are not shown.
    pub(super) number: u64,
    pub(super) weight: i64,
}

impl Places {
    /// The last place that is shown.
    pub(super) fn end(&self) -> u64 {
        self.skip.saturating_add(self.fetch)
    }

    /// The rows of a partition that are shown, in order.
    pub(super) fn shown(&self, rows: &Ordered) -> Vec<Shown> {
        let mut shown = vec![];
        let mut numbers = Numbers::new(self.ranking);
        for (entry, weight) in rows.iter() {
            let (first, last) = numbers.next(entry, weight);
            if first > self.end() {
                break;
            }
            match self.ranking {
                Ranking::RowNumber => {
                    let (first, last) = (first.max(self.skip + 1), last.min(self.end()));
                    if first > last {
                        continue;
                    }
                    if self.numbered {
                        shown.extend((first..=last).map(|number| Shown { entry: entry.clone(), number, weight: 1 }));
                    } else {
                        shown.push(Shown { entry: entry.clone(), number: 0, weight: (last - first + 1) as i64 });
                    }
                }
                Ranking::Rank | Ranking::DenseRank if first > self.skip => {
                    shown.push(Shown { entry: entry.clone(), number: if self.numbered { first } else { 0 }, weight });
                }
                Ranking::Rank | Ranking::DenseRank => {}
            }
        }
        shown
    }

    /// The rows that can never be shown while rows only come: of each, how many copies too many there are.
    pub(super) fn surplus(&self, rows: &Ordered) -> Vec<(Entry, i64)> {
        let mut surplus = vec![];
        let mut numbers = Numbers::new(self.ranking);
        for (entry, weight) in rows.iter() {
            let (first, last) = numbers.next(entry, weight);
            let excess = match self.ranking {
                Ranking::RowNumber if last > self.end() => weight.min((last - self.end()) as i64),
                Ranking::Rank | Ranking::DenseRank if first > self.end() => weight,
                _ => 0,
            };
            if excess > 0 {
                surplus.push((entry.clone(), excess));
            }
        }
        surplus
    }

    /// The sort keys beyond which a further row cannot be shown while rows only come; `None` if there is room.
    pub(super) fn threshold<'r>(&self, rows: &'r Ordered) -> Option<&'r Entry> {
        let mut numbers = Numbers::new(self.ranking);
        for (entry, weight) in rows.iter() {
            numbers.next(entry, weight);
        }
        // A row after all others would have the next number.
        let full = match self.ranking {
            Ranking::RowNumber | Ranking::Rank => numbers.rows >= self.end(),
            Ranking::DenseRank => numbers.number >= self.end(),
        };
        rows.last().filter(|_| full)
    }
}

/// Counts along the order.
struct Numbers<'r> {
    ranking: Ranking,
    /// Rows so far.
    rows: u64,
    /// Number of the last key.
    number: u64,
    key: Option<&'r Entry>,
}

impl<'r> Numbers<'r> {
    fn new(ranking: Ranking) -> Self {
        Self { ranking, rows: 0, number: 0, key: None }
    }

    /// The numbers of the first and the last copy of the next entry.
    fn next(&mut self, entry: &'r Entry, weight: i64) -> (u64, u64) {
        let before = self.rows;
        self.rows = self.rows.saturating_add(weight.unsigned_abs());
        if self.ranking == Ranking::RowNumber {
            return (before + 1, self.rows);
        }
        if self.key.is_none_or(|key| key.key() != entry.key()) {
            self.number = if self.ranking == Ranking::Rank { before + 1 } else { self.number + 1 };
            self.key = Some(entry);
        }
        (self.number, self.number)
    }
}

/// What has to go and what has to come so that `old` becomes `new`; both are in order.
pub(super) fn difference(old: &[Shown], new: &[Shown], mut go: impl FnMut(Shown), mut come: impl FnMut(Shown)) {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.entry.cmp(&new.entry).then(old.number.cmp(&new.number)),
        };
        match order {
            Ordering::Less => old.next().cloned().into_iter().for_each(&mut go),
            Ordering::Greater => new.next().cloned().into_iter().for_each(&mut come),
            Ordering::Equal => {
                if let (Some(old), Some(new)) = (old.next(), new.next()) {
                    let change = new.weight - old.weight;
                    match change.cmp(&0) {
                        Ordering::Less => go(Shown { weight: -change, ..old.clone() }),
                        Ordering::Greater => come(Shown { weight: change, ..new.clone() }),
                        Ordering::Equal => {}
                    }
                }
            }
        }
    }
}
