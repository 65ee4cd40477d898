//! `cargo xtask soak`: kills running pipelines at random times until they have finished, and compares what they wrote with an
//! uninterrupted run, row for row. The fail-point sweep of the tests is exact and short; this one is blind and long.

#![expect(clippy::disallowed_methods, reason = "moments of real time are the point here")]

use crate::process;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Events of the input, and events per file: one file is one epoch.
const EVENTS: u64 = 4_000_000;
const EVENTS_PER_FILE: u64 = 1_000;

const STREAM: &str = "auction BIGINT NOT NULL, bidder BIGINT NOT NULL, price BIGINT NOT NULL, date_time TIMESTAMP NOT NULL, \
                      extra VARCHAR NOT NULL, WATERMARK FOR date_time AS date_time - INTERVAL '4 seconds'";

/// A pipeline under attack.
struct Pipeline {
    name: &'static str,
    query: &'static str,
    /// The columns of the result.
    columns: &'static str,
}

const PIPELINES: [Pipeline; 2] = [
    Pipeline {
        name: "stateless",
        query: "SELECT auction, bidder, price * 2 AS price, date_time, extra FROM bid WHERE auction % 3 <> 0",
        columns: "auction, bidder, price, date_time, extra",
    },
    Pipeline {
        name: "windowed",
        query: "SELECT auction, window_start, count(*) AS n, sum(price) AS price \
                FROM TUMBLE(bid, date_time, INTERVAL '2 seconds') GROUP BY auction, window_start, window_end EMIT ON WINDOW CLOSE",
        columns: "auction, window_start, n, price",
    },
];

/// Runs every pipeline with `kills` kills, at times drawn from `seed`.
pub(crate) fn run(root: &Path, kills: u64, seed: u64) -> Result<(), String> {
    process::cargo(root, &["build", "--release", "--locked", "--package", "millstream-cli"])?;
    let home = root.join("target/soak");
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let soak = Soak { binary: root.join("target/release/millstream"), data: home.join("data"), home };
    soak.make_data()?;
    let mut random = Random(seed);
    PIPELINES.iter().try_for_each(|pipeline| soak.attack(pipeline, kills, &mut random))
}

struct Soak {
    binary: PathBuf,
    home: PathBuf,
    data: PathBuf,
}

impl Soak {
    fn make_data(&self) -> Result<(), String> {
        let (events, rows) = (EVENTS.to_string(), EVENTS_PER_FILE.to_string());
        let data = self.data.display().to_string();
        let arguments = ["bench", "nexmark", "--queries", "q0", "--no-compare", "--events", &events, "--epoch-rows", &rows, "--dir", &data];
        succeeded(Command::new(&self.binary).args(arguments).status(), "generating the input")
    }

    fn attack(&self, pipeline: &Pipeline, kills: u64, random: &mut Random) -> Result<(), String> {
        let (whole, attacked) = (self.dir(pipeline, "whole"), self.dir(pipeline, "attacked"));
        let watch = Instant::now();
        succeeded(self.start(pipeline, &whole)?.wait(), "the uninterrupted run")?;
        let seconds = watch.elapsed().as_secs_f64();
        // Long enough to get past recovery, short enough that the run does not end before its time.
        let longest = (2.0 * seconds / kills as f64).max(0.5);
        let mut finished = 0;
        for _ in 0..kills {
            let mut child = self.start(pipeline, &attacked)?;
            std::thread::sleep(Duration::from_secs_f64(0.02 + longest * random.next()));
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => finished += 1,
                Some(status) => return Err(format!("{}: ended with {status}; see {}", pipeline.name, attacked.join("log").display())),
                None => {
                    child.kill().map_err(|error| error.to_string())?;
                    child.wait().map_err(|error| error.to_string())?;
                }
            }
        }
        succeeded(self.start(pipeline, &attacked)?.wait(), "the last run")?;
        let differing = self.compare(pipeline, &whole, &attacked)?;
        println!(
            "{}: {} kills, {finished} runs that ended before theirs, uninterrupted {seconds:.1} s, {differing}",
            pipeline.name,
            kills - finished
        );
        Ok(())
    }

    fn dir(&self, pipeline: &Pipeline, run: &str) -> PathBuf {
        self.home.join(format!("{}-{run}", pipeline.name))
    }

    fn start(&self, pipeline: &Pipeline, dir: &Path) -> Result<Child, String> {
        let text = format!(
            "SET checkpoint_interval = '700 ms';\n\
             CREATE STREAM bid ({STREAM}) WITH (connector = 'files', path = '{}/bid/', format = 'parquet', order = 'name', \
             max_files_per_epoch = '1', bounded = 'true');\n\
             CREATE SINK out AS {} WITH (connector = 'parquet', path = '{}/out/', roll_interval = '500 ms');\n",
            self.data.display(),
            pipeline.query,
            dir.display()
        );
        let file = dir.join("pipeline.sql");
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        std::fs::create_dir_all(dir).map_err(failed)?;
        std::fs::write(&file, text).map_err(failed)?;
        let log = File::options().create(true).append(true).open(dir.join("log")).map_err(failed)?;
        let errors = log.try_clone().map_err(failed)?;
        Command::new(&self.binary)
            .arg("run")
            .arg(&file)
            .arg("--state-dir")
            .arg(dir.join("state"))
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.binary.display()))
    }

    /// An error when a row is in one result more often than in the other.
    fn compare(&self, pipeline: &Pipeline, whole: &Path, attacked: &Path) -> Result<String, String> {
        let table = |name: &str, dir: &Path| format!("CREATE EXTERNAL TABLE {name} STORED AS PARQUET LOCATION '{}/out/';", dir.display());
        let columns = pipeline.columns;
        let sql = format!(
            "{} {} SELECT count(*) FROM (SELECT {columns} FROM (SELECT {columns}, 1 AS w FROM whole UNION ALL SELECT {columns}, -1 FROM \
             attacked) GROUP BY {columns} HAVING sum(w) <> 0); SELECT count(*) FROM attacked;",
            table("whole", whole),
            table("attacked", attacked),
        );
        let output = Command::new(&self.binary).args(["--format", "csv", "-c", &sql]).output().map_err(|error| error.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<&str> = text.lines().filter(|line| line.chars().all(|c| c.is_ascii_digit()) && !line.is_empty()).collect();
        match numbers[..] {
            ["0", rows] => Ok(format!("all {rows} rows equal")),
            [different, _] => Err(format!("{}: {different} rows differ; both results are under {}", pipeline.name, self.home.display())),
            _ => Err(format!("comparing {} gave {text}", pipeline.name)),
        }
    }
}

fn succeeded(status: std::io::Result<std::process::ExitStatus>, what: &str) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{what} ended with {status}")),
        Err(error) => Err(format!("{what}: {error}")),
    }
}

/// SplitMix64: random enough to choose moments, and the same for the same seed.
struct Random(u64);

impl Random {
    /// A number in `0..1`.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
