//! Kills a process at every fail point, starts it again, and compares what it wrote with an uninterrupted run, row for row.
//!
//! The process is this very test binary: [`child`] does nothing in a normal run and runs the pipeline when its directory is in
//! the environment. So the sweep needs no other program, and goes through every name in `failpoint::ALL`.

use crate::slt::content;
use crate::support::{self, output};
use arrow::array::RecordBatch;
use millstream::{Engine, EngineError, ManualClock, Stop};
use millstream_state::{LogReader, failpoint};
use millstream_types::Classified;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Names the directory of a child's pipeline.
const DIRECTORY: &str = "MILLSTREAM_CRASH_DIRECTORY";
const FILES: usize = 6;

/// Rows by the name of what holds them.
type Tables = BTreeMap<String, Vec<String>>;

const SIGKILL: i32 = 9;

/// Fail points that the pipeline below does not come by, each with its reason.
const NOT_REACHED: &[(&str, &str)] = &[
    ("log.roll.after_create", "a segment is 64 MB; the tests of millstream-state make smaller ones"),
    ("log.roll.after_end", "as log.roll.after_create"),
    ("log.roll.before", "as log.roll.after_create"),
    ("sink.prepare", "file sinks have finer points of their own"),
    ("sink.stage", "file sinks have finer points of their own"),
];

/// A stateless query, a windowed one, changes, a whole result, a table, a view, joins that share rows: every kind of state and of sink.
fn definitions(dir: &Path) -> Vec<String> {
    let dir = dir.display();
    vec![
        // The clock moves by a millisecond per epoch: a checkpoint every other one leaves some to replay.
        "SET checkpoint_interval = '2 ms'".to_string(),
        format!(
            "CREATE STREAM events (id BIGINT, k VARCHAR, v BIGINT, ts TIMESTAMP NOT NULL, \
             WATERMARK FOR ts AS ts - INTERVAL '2 seconds') WITH (connector = 'files', path = '{dir}/in/', format = 'csv', \
             order = 'name', max_files_per_epoch = '1', settle = '0s', discovery_interval = '0s', on_late = 'dead_letter')"
        ),
        format!(
            "CREATE SINK passed AS SELECT id, k, v * 2 AS v FROM events WHERE v >= 0 \
             WITH (connector = 'parquet', path = '{dir}/out/passed/', roll_interval = '0s')"
        ),
        format!("CREATE SINK rolled AS SELECT id FROM events WITH (connector = 'parquet', path = '{dir}/out/rolled/', roll_rows = '7')"),
        format!(
            "CREATE SINK closed AS SELECT window_end, k, count(*) AS n, sum(v) AS v \
             FROM TUMBLE(events, ts, INTERVAL '5 seconds') GROUP BY window_end, k EMIT ON WINDOW CLOSE \
             WITH (connector = 'parquet', path = '{dir}/out/closed/', roll_interval = '0s')"
        ),
        "CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n, sum(v) AS v, max(v) AS most FROM events GROUP BY k".to_string(),
        format!(
            "CREATE SINK changes FROM totals \
             WITH (connector = 'json', path = '{dir}/out/changes/', mode = 'changelog', roll_interval = '0s')"
        ),
        format!(
            "CREATE SINK whole FROM totals \
             WITH (connector = 'parquet', path = '{dir}/out/whole/', mode = 'complete', roll_interval = '0s')"
        ),
        format!(
            "CREATE SINK joined AS SELECT e.id, t.n FROM events e JOIN totals t ON e.k = t.k \
             WITH (connector = 'json', path = '{dir}/out/joined/', mode = 'changelog', roll_rows = '11')"
        ),
        format!(
            "CREATE SINK also_joined AS SELECT e.id, max(t.n) AS n FROM events e JOIN totals t ON e.k = t.k GROUP BY e.id \
             WITH (connector = 'json', path = '{dir}/out/also_joined/', mode = 'changelog', roll_interval = '0s')"
        ),
    ]
}

/// Names the pipeline of a child that works off a backlog: few of its epochs are seen by anybody, so that they share syncs of the log.
const BACKLOG: &str = "backlog";

/// Files that wait, a sink that rolls now and then, and a view.
fn backlog_definitions(dir: &Path) -> Vec<String> {
    let dir = dir.display();
    vec![
        format!(
            "CREATE STREAM events (id BIGINT, k VARCHAR, v BIGINT) WITH (connector = 'files', path = '{dir}/{BACKLOG}/', format = 'csv', \
             order = 'name', max_files_per_epoch = '1', settle = '0s', discovery_interval = '0s')"
        ),
        format!(
            "CREATE SINK rolled AS SELECT id, v FROM events WITH (connector = 'parquet', path = '{dir}/out/rolled/', roll_rows = '17')"
        ),
        "CREATE MATERIALIZED VIEW totals AS SELECT k, count(*) AS n, sum(v) AS v FROM events GROUP BY k".to_string(),
        format!(
            "CREATE SINK changes FROM totals \
             WITH (connector = 'json', path = '{dir}/out/changes/', mode = 'changelog', roll_rows = '40')"
        ),
    ]
}

/// The stream of the recovery table: one file per interval.
fn table_definitions(dir: &Path) -> Vec<String> {
    vec![
        format!(
            "CREATE STREAM lines (line VARCHAR) WITH (connector = 'files', path = '{}/lines/', format = 'text', \
             max_files_per_epoch = '1', settle = '0s', discovery_interval = '0s')",
            dir.display()
        ),
        "CREATE MATERIALIZED VIEW counts AS SELECT _epoch, count(*) AS n FROM lines GROUP BY _epoch".to_string(),
    ]
}

/// What the files hold does not depend on anything but their number.
fn write_input(dir: &Path) {
    fs::create_dir_all(dir.join("in")).expect("the directory can be written");
    for file in 0..FILES {
        let mut text = String::from("id,k,v,ts\n");
        for row in 0..5 {
            let id = file * 5 + row;
            let (key, value) = (["a", "b", "c"][id % 3], (id as i64 * 7) % 11 - 2);
            // Duplicates, so that multiplicities count.
            let id = if row == 4 { id - 1 } else { id };
            text += &format!("{id},{key},{value},2000-01-01 00:00:{:02}\n", file * 5 + row);
        }
        // A bad row in each file, and a late one in each but the first.
        text += &format!("{file},x,many,2000-01-01 00:00:30\n100,x,{file},2000-01-01 00:00:00\n");
        fs::write(dir.join(format!("in/{file:03}.csv")), text).expect("the directory can be written");
    }
}

/// Files that have been there for long.
fn write_backlog(dir: &Path) {
    fs::create_dir_all(dir.join(BACKLOG)).expect("the directory can be written");
    for file in 0..4 * FILES {
        let rows: String = (0..3).map(|row| format!("{},{},{}\n", file * 3 + row, ["a", "b"][row % 2], file)).collect();
        fs::write(dir.join(format!("{BACKLOG}/{file:03}.csv")), format!("id,k,v\n{rows}")).expect("the directory can be written");
    }
}

/// The pipeline of a child process; nothing without its directory in the environment.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let result = support::block_on(async {
        failpoint::init_from_env().map_err(|error| error.to_string())?;
        let ran = if dir.join(BACKLOG).exists() { run_backlog(&dir).await } else { run_pipeline(&dir).await };
        ran.map_err(|error| format!("{error}\nhint: {}", error.hint().unwrap_or_default()))
    });
    if let Err(error) = result {
        eprintln!("child: {error}");
        std::process::exit(1);
    }
}

async fn run_pipeline(dir: &Path) -> Result<(), EngineError> {
    let engine = open(dir).await?;
    let (statements, query) = match dir.join("lines").exists() {
        true => (table_definitions(dir), "SELECT n FROM counts ORDER BY _epoch"),
        false => (definitions(dir), "SELECT * FROM totals ORDER BY k"),
    };
    engine.apply_pipeline_file(&statements.join(";\n"), None).await.map_err(|failure| failure.error)?;
    while engine.run_epoch().await?.is_some() {}
    engine.checkpoint().await?;
    let view = engine.sql(query).await?.collect().await?;
    fs::write(dir.join("view.txt"), lines(&view).join("\n")).expect("the directory can be written");
    let refused = engine.sql("SELECT stream, epoch, kind, reason, raw FROM millstream.dead_letters").await?.collect().await?;
    fs::write(dir.join("refused.txt"), lines(&refused).join("\n")).expect("the directory can be written");
    engine.stop(Stop::Drain).await
}

async fn run_backlog(dir: &Path) -> Result<(), EngineError> {
    let clock = Arc::new(ManualClock::new(support::instance::START));
    let engine = Engine::builder().clock(clock).option("trigger", "available").state_dir(dir.join("state")).build().await?;
    engine.apply_pipeline_file(&backlog_definitions(dir).join(";\n"), None).await.map_err(|failure| failure.error)?;
    engine.drain().await?;
    let view = engine.sql("SELECT * FROM totals ORDER BY k").await?.collect().await?;
    fs::write(dir.join("view.txt"), lines(&view).join("\n")).expect("the directory can be written");
    engine.stop(Stop::Finish).await
}

async fn open(dir: &Path) -> Result<Engine, EngineError> {
    let clock = Arc::new(ManualClock::new(support::instance::START));
    Engine::builder().clock(clock).manual().state_dir(dir.join("state")).build().await
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    output::rows(batches).expect("every SQL type has a text form")
}

/// Runs a child, with fail points armed.
fn run_child(dir: &Path, failpoints: &str) -> Output {
    child_command(dir, failpoints).output().expect("the test binary can be started")
}

fn child_command(dir: &Path, failpoints: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command.args(["crash::child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(DIRECTORY, dir).env(failpoint::VARIABLE, failpoints).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(SIGKILL)
}

/// Everything a pipeline made that somebody can read: rows per sink, and the view.
fn result(dir: &Path) -> Tables {
    let mut found = BTreeMap::new();
    for (sink, pattern) in [
        ("passed", "out/passed/*.parquet"),
        ("rolled", "out/rolled/*.parquet"),
        ("closed", "out/closed/*.parquet"),
        ("changes", "out/changes/*.json"),
        ("whole", "out/whole/current/*.parquet"),
        ("joined", "out/joined/*.json"),
        ("also joined", "out/also_joined/*.json"),
    ] {
        let mut rows = Vec::new();
        for path in content::files(dir, pattern) {
            rows.extend(content::rows(&path).unwrap_or_else(|problem| vec![format!("a damaged file: {problem}")]));
        }
        found.insert(sink.to_string(), output::sorted(rows));
    }
    for (name, file) in [("totals", "view.txt"), ("dead letters", "refused.txt")] {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        found.insert(name.to_string(), text.lines().map(str::to_string).collect());
    }
    found
}

/// How what a pipeline made differs from what it should be.
fn difference(expected: &Tables, dir: &Path, what: &str) -> Option<String> {
    let found = result(dir);
    expected
        .iter()
        .find(|(name, rows)| found[*name] != **rows)
        .map(|(name, rows)| format!("{what}: {name} differs from the uninterrupted run\n{}", output::difference(rows, &found[name])))
}

fn uninterrupted() -> Tables {
    let dir = support::scratch_dir();
    write_input(dir.path());
    finish(dir.path(), "an uninterrupted run");
    let result = result(dir.path());
    assert_eq!(result["rolled"].len(), FILES * 5 + 1, "the uninterrupted run itself is wrong");
    result
}

/// A run without fail points must end in an orderly way.
fn finish(dir: &Path, what: &str) {
    let output = run_child(dir, "");
    assert!(output.status.success(), "{what} fails:\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_kill_at_any_fail_point_loses_and_doubles_nothing() {
    let expected = uninterrupted();
    let slow = std::env::var_os("RUN_SLOW_TESTS").is_some();
    let hits: &[u64] = if slow { &[1, 2, 3, 4, 7, 12] } else { &[1, 4] };
    let sweep = |point: &'static str| -> (bool, Vec<String>) {
        let runs: Vec<_> = hits.iter().map(|hit| kill_and_compare(point, *hit, &expected)).collect();
        (runs.iter().any(|run| run.reached), runs.into_iter().filter_map(|run| run.problem).collect())
    };
    // The children are busy waiting for their disk; two at a time keep two cores occupied.
    let (one, other) = failpoint::ALL.split_at(failpoint::ALL.len() / 2);
    let results: Vec<(&str, (bool, Vec<String>))> = std::thread::scope(|scope| {
        let beside = scope.spawn(|| one.iter().map(|point| (*point, sweep(point))).collect::<Vec<_>>());
        let here: Vec<_> = other.iter().map(|point| (*point, sweep(point))).collect();
        beside.join().expect("the sweep itself does not panic").into_iter().chain(here).collect()
    });
    let problems: Vec<&String> = results.iter().flat_map(|(_, (_, problems))| problems).collect();
    assert!(problems.is_empty(), "{} problems\n\n{}", problems.len(), problems.iter().map(|p| p.as_str()).collect::<Vec<_>>().join("\n\n"));
    let not_reached: Vec<&str> = results.iter().filter(|(_, (reached, _))| !reached).map(|(point, _)| *point).collect();
    let known: Vec<&str> = NOT_REACHED.iter().map(|(point, _)| *point).collect();
    assert_eq!(not_reached, known, "fail points that no run came by");
}

/// The same while a backlog is worked off, whose epochs share syncs: what was appended and not synced was seen by nobody.
#[test]
fn a_kill_in_a_backlog_loses_and_doubles_nothing() {
    let dir = support::scratch_dir();
    write_backlog(dir.path());
    finish(dir.path(), "an uninterrupted run");
    let expected = result(dir.path());
    assert_eq!(expected["rolled"].len(), 12 * FILES, "the uninterrupted run itself is wrong");
    let points = ["commit.after_append", "commit.after_sync", "epoch.after_dataflow", "publish.before", "sink.publish.after_rename"];
    let mut killed = 0;
    for (point, hit) in points.iter().flat_map(|point| [1, 2, 5, 11, 19].map(|hit| (point, hit))) {
        let dir = support::scratch_dir();
        write_backlog(dir.path());
        killed += usize::from(was_killed(&run_child(dir.path(), &format!("{point}=kill@{hit}"))));
        let what = format!("{point}=kill@{hit} in a backlog");
        finish(dir.path(), &what);
        assert_eq!(difference(&expected, dir.path(), &what), None);
    }
    assert!(killed >= 10, "only {killed} kills");
}

/// What came of killing at one point.
struct Killed {
    reached: bool,
    problem: Option<String>,
}

/// Kills at the given hit of a point, during normal work and during the recovery from an earlier kill.
fn kill_and_compare(point: &str, hit: u64, expected: &Tables) -> Killed {
    let mut reached = false;
    for before in ["", "commit.after_sync=kill@3"] {
        let dir = support::scratch_dir();
        write_input(dir.path());
        if !before.is_empty() {
            run_child(dir.path(), before);
        }
        let killed = run_child(dir.path(), &format!("{point}=kill@{hit}"));
        let was_killed = was_killed(&killed);
        reached |= was_killed;
        let what = format!("{point}=kill@{hit} after `{before}`");
        let problem = match was_killed || killed.status.success() {
            // A third start finds nothing to do.
            true => ["the restart", "the second restart"].iter().find_map(|start| {
                let output = run_child(dir.path(), "");
                let failed = || format!("{what}: {start} fails:\n{}", String::from_utf8_lossy(&output.stderr));
                if output.status.success() { difference(expected, dir.path(), &format!("{what}: {start}")) } else { Some(failed()) }
            }),
            false => Some(format!("{what} fails:\n{}", String::from_utf8_lossy(&killed.stderr))),
        };
        if problem.is_some() {
            return Killed { reached, problem };
        }
    }
    Killed { reached, problem: None }
}

/// Kills at random times; whoever wants many sets `RUN_SLOW_TESTS`.
#[test]
fn kills_at_random_times_lose_and_double_nothing() {
    let expected = uninterrupted();
    let kills = if std::env::var_os("RUN_SLOW_TESTS").is_some() { 200 } else { 12 };
    let mut rng = SmallRng::seed_from_u64(7);
    let mut done = 0;
    while done < kills {
        let dir = support::scratch_dir();
        write_input(dir.path());
        for _ in 0..4 {
            let mut child = child_command(dir.path(), "").spawn().expect("the test binary can be started");
            wait(Duration::from_millis(rng.random_range(20..250)));
            child.kill().expect("the child can be killed");
            child.wait().expect("the child has ended");
            done += 1;
        }
        finish(dir.path(), &format!("the start after {done} kills"));
        assert_eq!(difference(&expected, dir.path(), &format!("after {done} kills")), None);
    }
}

/// Nothing will ever be sent: a wait that is not a sleep.
fn wait(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _ = receiver.recv_timeout(time);
}

/// The end of the newest log file is cut off, as after a power failure: what is missing is done again.
#[test]
fn a_torn_log_is_mended_or_refused() {
    let expected = uninterrupted();
    for cut in [1, 7, 64, 300] {
        let dir = support::scratch_dir();
        write_input(dir.path());
        assert!(was_killed(&run_child(dir.path(), "commit.after_append=kill@4")), "the child was not killed");
        let log = newest_log(dir.path());
        let bytes = fs::read(&log).expect("the log can be read");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut torn = bytes.clone();
        torn[used.saturating_sub(cut)..used].fill(0);
        fs::write(&log, torn).expect("the log can be written");
        check_damaged(dir.path(), &expected, &format!("a log that lacks its last {cut} bytes"));
    }
}

/// A bit in the middle of the log has changed: nothing that stands is deleted, and nothing wrong is used.
#[test]
fn a_flipped_bit_is_found() {
    let expected = uninterrupted();
    for place in [0.1, 0.5, 0.9] {
        let dir = support::scratch_dir();
        write_input(dir.path());
        assert!(was_killed(&run_child(dir.path(), "commit.after_sync=kill@5")), "the child was not killed");
        let log = newest_log(dir.path());
        let mut bytes = fs::read(&log).expect("the log can be read");
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        bytes[(used as f64 * place) as usize] ^= 0x10;
        fs::write(&log, bytes).expect("the log can be written");
        check_damaged(dir.path(), &expected, &format!("a log with a flipped bit at {place}"));
    }
}

/// Either the run ends with the right result, or it refuses with a message that names the damage, and has deleted nothing.
fn check_damaged(dir: &Path, expected: &Tables, what: &str) {
    let before = content::files(dir, "out/**/*.parquet");
    let output = run_child(dir, "");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{what}: {text}");
    if output.status.success() {
        assert_eq!(difference(expected, dir, what), None);
    } else {
        assert!(text.contains("log") || text.contains("damaged"), "{what}: the message does not say what is damaged: {text}");
        assert_eq!(before, content::files(dir, "out/**/*.parquet"), "{what}: files were deleted");
    }
}

/// The log loses records whose epochs had published files. The start is refused, for one sink after the other, until the files that it
/// names are out of the way; then the epochs run again, and nothing is doubled.
#[test]
fn output_ahead_of_the_log_is_not_written_twice() {
    let expected = uninterrupted();
    let slow = std::env::var_os("RUN_SLOW_TESTS").is_some();
    let hits: &[u64] = if slow { &[2, 3, 4, 5, 6, 7, 8, 9, 10] } else { &[3, 6, 8] };
    let mut refused = 0;
    for (point, lost) in [("source.acknowledge", 1), ("source.acknowledge", 3), ("sink.manifest.before_append", 1)] {
        for hit in hits {
            let what = format!("{lost} lost records after {point}=kill@{hit}");
            let dir = support::scratch_dir();
            write_input(dir.path());
            if !was_killed(&run_child(dir.path(), &format!("{point}=kill@{hit}"))) {
                continue;
            }
            cut_log(dir.path(), lost);
            let mut attempts = 0;
            while let Some(ahead) = refusal(dir.path(), &what) {
                refused += 1;
                attempts += 1;
                assert!(attempts < 20 && !ahead.is_empty(), "{what}: moving away what it names does not help");
                for path in ahead {
                    fs::remove_file(&path).unwrap_or_else(|error| panic!("{what}: {} cannot be removed: {error}", path.display()));
                }
            }
            assert_eq!(difference(&expected, dir.path(), &what), None);
        }
    }
    assert!(refused > 5, "only {refused} refusals");
}

/// Takes the last frames away.
fn cut_log(dir: &Path, lost: usize) {
    let frames: Vec<_> = LogReader::open(dir.join("state")).expect("there is a log").map(|frame| frame.expect("it is right")).collect();
    let last = frames.last().expect("there are frames");
    let frame = frames.iter().rev().take(lost).take_while(|frame| frame.segment == last.segment).last().unwrap_or(last);
    let path = dir.join(format!("state/log/{}-{}", frame.writer, frame.segment));
    let mut bytes = fs::read(&path).expect("the log can be read");
    bytes[frame.offset as usize..].fill(0);
    fs::write(&path, bytes).expect("the log can be written");
}

/// Runs the pipeline; the files that it wants out of the way, if it does.
fn refusal(dir: &Path, what: &str) -> Option<Vec<PathBuf>> {
    let before = content::files(dir, "out/**/*.*");
    let output = run_child(dir, "");
    if output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(before, content::files(dir, "out/**/*.*"), "{what}: files were deleted");
    let named = |text: &str| text.split('"').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>();
    let (message, hint) = text.split_once("\nhint: ").unwrap_or_else(|| panic!("{what}: no hint: {text}"));
    assert!(message.contains("and the log ends with epoch"), "{what}: {text}");
    let place = named(message).into_iter().find(|name| name.contains('/')).unwrap_or_else(|| panic!("{what}: no directory: {text}"));
    Some(named(hint).into_iter().map(|name| Path::new(&place).join(name)).collect())
}

fn newest_log(dir: &Path) -> PathBuf {
    let mut files = content::files(dir, "state/log/*");
    files.sort_by_key(|path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok());
    files.pop().expect("there is a log")
}

#[test]
fn a_second_instance_is_refused() {
    let dir = support::scratch_dir();
    write_input(dir.path());
    support::block_on(async {
        let first = open(dir.path()).await.expect("the first instance starts");
        let error = open(dir.path()).await.expect_err("the second instance is refused").to_string();
        assert!(
            error.contains("state") && error.contains(&std::process::id().to_string()),
            "who holds the directory is not named: {error}"
        );
        first.stop(Stop::Finish).await.expect("the first instance stops");
        open(dir.path()).await.expect("the directory is free again").stop(Stop::Finish).await.expect("it stops");
    });
}

/// One file of 10, 20, 30 ... lines per interval. The process dies while interval 4 runs and is started again when file 7 is
/// there: the outputs are 10, 20, 30, then 40, 50, 60, 70 in order, then 80.
#[test]
fn recovery_table() {
    let dir = support::scratch_dir();
    let path = dir.path();
    fs::create_dir_all(path.join("lines")).expect("the directory can be written");
    (1..=3).for_each(|number| write_lines(path, number));
    finish(path, "intervals 1 to 3");
    assert_eq!(counts(path), ["10", "20", "30"]);

    write_lines(path, 4);
    assert!(was_killed(&run_child(path, "epoch.after_dataflow=kill@1")), "interval 4 was not interrupted");

    (5..=7).for_each(|number| write_lines(path, number));
    finish(path, "the restart at 7");
    assert_eq!(counts(path), ["10", "20", "30", "40", "50", "60", "70"]);

    (8..=10).for_each(|number| write_lines(path, number));
    finish(path, "intervals 8 to 10");
    assert_eq!(counts(path), ["10", "20", "30", "40", "50", "60", "70", "80", "90", "100"]);
}

fn write_lines(dir: &Path, number: usize) {
    let text: String = (0..number * 10).map(|line| format!("line {line}\n")).collect();
    let path = dir.join(format!("lines/{number:03}.txt"));
    fs::write(&path, text).expect("the directory can be written");
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800 + number as u64);
    fs::File::options().append(true).open(path).and_then(|file| file.set_modified(modified)).expect("the time can be set");
}

/// The lines of each interval, as the view has them.
fn counts(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("view.txt")).unwrap_or_default();
    text.lines().map(str::to_string).collect()
}
