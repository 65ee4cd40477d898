//! What the benchmark prints.

use super::data::Input;
use super::incremental::{Measured, Refused};
use super::queries::{OutputMode, Query};
use crate::numbers;
use crate::output::table::{Drawing, Grid, Lines, draw};
use crate::terminal::Terminal;
use millstream_connectors::sources::nexmark::NexmarkTable;
use millstream_engine::PhaseTimes;
use serde::Serialize;

/// Whether the results of both ways are the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Agreement {
    /// They are.
    Yes,
    /// They are not.
    No,
    /// Not looked at.
    Unknown,
}

/// The figures of one query.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Measurement {
    /// The query.
    pub(crate) query: &'static str,
    /// How its result was written.
    pub(crate) output: Option<OutputMode>,
    /// Rows of the tables it reads.
    pub(crate) rows: u64,
    /// Rows it wrote.
    pub(crate) rows_out: u64,
    /// Seconds as one batch.
    pub(crate) batch_seconds: Option<f64>,
    /// Seconds through the engine.
    pub(crate) incremental_seconds: f64,
    /// CPU time of the process as one batch, seconds.
    pub(crate) batch_cpu_seconds: Option<f64>,
    /// CPU time of the process through the engine, seconds.
    pub(crate) incremental_cpu_seconds: f64,
    /// Epochs it took.
    pub(crate) epochs: u64,
    /// Half of the epochs took at most this long, in milliseconds.
    pub(crate) epoch_p50_ms: f64,
    /// 99 of 100 epochs.
    pub(crate) epoch_p99_ms: f64,
    /// Where the time of the epochs went; reading runs beside the other phases.
    pub(crate) phases_ms: PhaseTimes,
    /// Largest resident set of the incremental run.
    pub(crate) peak_memory_bytes: u64,
    /// Rows of state at the end.
    pub(crate) state_rows: u64,
    /// Bytes of state at the end.
    pub(crate) state_bytes: u64,
    /// Whether the results agree.
    pub(crate) agreement: Agreement,
    /// Why it failed, or was refused.
    pub(crate) error: Option<String>,
    /// The engine does not take the query.
    pub(crate) refused: bool,
}

impl Measurement {
    /// The figures of an incremental run.
    pub(crate) fn incremental(query: &Query, input: &Input, measured: Measured, peak_memory_bytes: u64) -> Self {
        let tables = NexmarkTable::ALL.into_iter().filter(|table| query.reads(table.name()));
        let report = measured.report;
        Self {
            query: query.name,
            output: Some(measured.output),
            rows: tables.map(|table| input.rows(table)).sum(),
            rows_out: report.rows_out,
            batch_seconds: None,
            incremental_seconds: measured.seconds,
            batch_cpu_seconds: None,
            incremental_cpu_seconds: 0.0,
            epochs: report.epochs,
            epoch_p50_ms: report.epoch_latency_ms.p50,
            epoch_p99_ms: report.epoch_latency_ms.p99,
            phases_ms: report.phases_ms,
            peak_memory_bytes,
            state_rows: report.state_rows,
            state_bytes: report.state_bytes,
            agreement: Agreement::Unknown,
            error: None,
            refused: false,
        }
    }

    /// A query that failed.
    pub(crate) fn failed(query: &'static str, error: &anyhow::Error) -> Self {
        Self {
            query,
            output: None,
            rows: 0,
            rows_out: 0,
            batch_seconds: None,
            incremental_seconds: 0.0,
            batch_cpu_seconds: None,
            incremental_cpu_seconds: 0.0,
            epochs: 0,
            epoch_p50_ms: 0.0,
            epoch_p99_ms: 0.0,
            phases_ms: PhaseTimes::default(),
            peak_memory_bytes: 0,
            state_rows: 0,
            state_bytes: 0,
            agreement: Agreement::Unknown,
            error: Some(format!("{error:#}")),
            refused: error.chain().any(|cause| cause.is::<Refused>()),
        }
    }

    /// The query failed or gave other rows. A refusal is an answer.
    pub(crate) fn is_wrong(&self) -> bool {
        self.error.is_some() && !self.refused || self.agreement == Agreement::No
    }

    /// Batch time by incremental time: 1 is as fast as batch.
    fn ratio(&self) -> Option<f64> {
        self.batch_seconds.filter(|_| self.incremental_seconds > 0.0).map(|batch| batch / self.incremental_seconds)
    }

    /// Progress on standard error: one line when the query is done.
    pub(crate) fn line(&self) -> String {
        match (&self.error, self.ratio()) {
            (Some(error), _) => format!("{}: {error}", self.query),
            (None, Some(ratio)) => format!("{}: {:.2} s, ratio {ratio:.2}", self.query, self.incremental_seconds),
            (None, None) => format!("{}: {:.2} s", self.query, self.incremental_seconds),
        }
    }

    fn cells(&self) -> Vec<Option<String>> {
        if self.error.is_some() {
            let mut cells = vec![Some(self.query.to_string())];
            cells.resize(HEADER.len() - 1, None);
            cells.push(Some(if self.refused { "refused" } else { "failed" }.into()));
            return cells;
        }
        let rate = |seconds: f64| (seconds > 0.0).then(|| numbers::short(self.rows as f64 / seconds));
        let agreement = match self.agreement {
            Agreement::Yes => "yes",
            Agreement::No => "NO",
            Agreement::Unknown => "",
        };
        vec![
            Some(self.query.to_string()),
            self.output.map(|output| output.name().to_string()),
            Some(numbers::short(self.rows as f64)),
            Some(numbers::short(self.rows_out as f64)),
            self.batch_seconds.map(|seconds| format!("{seconds:.2}")),
            Some(format!("{:.2}", self.incremental_seconds)),
            self.batch_seconds.and_then(rate),
            rate(self.incremental_seconds),
            self.ratio().map(|ratio| format!("{ratio:.2}")),
            self.batch_cpu_seconds.map(|seconds| format!("{seconds:.2}")),
            Some(format!("{:.2}", self.incremental_cpu_seconds)),
            Some(format!("{:.1}", self.epoch_p50_ms)),
            Some(format!("{:.1}", self.epoch_p99_ms)),
            Some(numbers::bytes(self.peak_memory_bytes)),
            Some(numbers::short(self.state_rows as f64)),
            Some(numbers::bytes(self.state_bytes)),
            Some(agreement.to_string()),
        ]
    }
}

/// The round with the middle time, with the middle batch time beside it; the results differ if they do in any round.
pub(crate) fn median(mut rounds: Vec<Measurement>) -> Option<Measurement> {
    let middle = |value: fn(&Measurement) -> Option<f64>| {
        let mut values: Vec<f64> = rounds.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let (batch_seconds, batch_cpu_seconds) = (middle(|round| round.batch_seconds), middle(|round| round.batch_cpu_seconds));
    let peak_memory_bytes = rounds.iter().map(|round| round.peak_memory_bytes).max()?;
    let differs = rounds.iter().any(|round| round.agreement == Agreement::No);
    rounds.sort_by(|one, other| one.incremental_seconds.total_cmp(&other.incremental_seconds));
    let at = rounds.len() / 2;
    let chosen = rounds.swap_remove(at);
    let agreement = if differs { Agreement::No } else { chosen.agreement };
    Some(Measurement { batch_seconds, batch_cpu_seconds, peak_memory_bytes, agreement, ..chosen })
}

const HEADER: [&str; 17] = [
    "query",
    "output",
    "rows",
    "out",
    "batch s",
    "incr. s",
    "batch rows/s",
    "incr. rows/s",
    "ratio",
    "batch CPU s",
    "incr. CPU s",
    "p50 ms",
    "p99 ms",
    "peak RSS",
    "state rows",
    "state",
    "agree",
];

/// The table of all queries.
pub(crate) fn table(measurements: &[Measurement]) -> String {
    let terminal = Terminal::stdout();
    let mut right = vec![true; HEADER.len()];
    right[0] = false;
    right[1] = false;
    right[HEADER.len() - 1] = false;
    let mut grid = Grid::new(HEADER.map(String::from).to_vec(), right);
    grid.rows = measurements.iter().map(Measurement::cells).collect();
    let lines = if terminal.is_terminal { Lines::Box } else { Lines::Ascii };
    draw(&grid, Drawing { lines, width: None, null: "", color: terminal.color, marks: None }).text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_queries_stay_in_the_table() {
        let failed = Measurement::failed("q9", &anyhow::anyhow!("why"));
        assert!(failed.is_wrong());
        let text = table(&[failed]);
        assert!(text.contains("q9") && text.contains("failed"), "{text}");
    }

    #[test]
    fn rounds_are_boiled_down_to_their_medians() {
        let round = |incremental_seconds, batch_seconds, agreement| Measurement {
            incremental_seconds,
            batch_seconds: Some(batch_seconds),
            agreement,
            error: None,
            ..Measurement::failed("q2", &anyhow::anyhow!("replaced"))
        };
        let rounds = vec![round(3.0, 1.0, Agreement::Yes), round(1.0, 9.0, Agreement::No), round(2.0, 2.0, Agreement::Yes)];
        let median = median(rounds).unwrap();
        assert_eq!((median.incremental_seconds, median.batch_seconds, median.agreement), (2.0, Some(2.0), Agreement::No));
        assert!(super::median(Vec::new()).is_none());
    }
}
