//! Many clients at once: they transfer between accounts, read, follow views, insert and make and drop views, and the total of all accounts
//! never wavers, in no read and in no epoch of any subscription.
//!
//! As a test it is short, by count. `LOAD_CLIENTS=200 LOAD_SECONDS=300 cargo test --release -p millstream-cli load:: -- --nocapture` is the
//! long form, which reports what reads, deliveries and inserts take. There each client pauses for `LOAD_PAUSE` milliseconds after each
//! operation (200 unless told; 0 to see what happens when every client asks without end), and the pace of inserts is taken once more
//! among 100 readers that do not pause.

use super::directory;
use super::serve::Serving;
use millstream_engine::Stopwatch;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const ACCOUNTS: i64 = 50;
const BALANCE: i64 = 1_000;
const TOTAL: i64 = ACCOUNTS * BALANCE;

const BANK: &str = "CREATE TABLE accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL);
CREATE STREAM ticks (client BIGINT, n BIGINT);
CREATE MATERIALIZED VIEW total AS SELECT count(*) AS accounts, sum(balance)::BIGINT AS total FROM accounts;
CREATE MATERIALIZED VIEW balances AS SELECT id, balance FROM accounts;
CREATE MATERIALIZED VIEW newest AS SELECT client, count(*) AS ticks, max(n) AS n FROM ticks GROUP BY client;
";

/// How much is done.
#[derive(Debug, Clone, Copy)]
struct Amount {
    clients: usize,
    /// Operations of each client, unless there is a time.
    operations: u64,
    time: Option<Duration>,
    /// What a client waits after each operation.
    pause: Duration,
    /// Readers that do not pause, beside which the pace of inserts is taken.
    busy_readers: usize,
}

impl Amount {
    fn asked_for() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let clients = number("LOAD_CLIENTS").map_or(20, |clients| usize::try_from(clients).unwrap_or(usize::MAX));
        let time = number("LOAD_SECONDS").map(Duration::from_secs);
        let pause = time.map_or(Duration::ZERO, |_| Duration::from_millis(number("LOAD_PAUSE").unwrap_or(200)));
        Self { clients, operations: 15, time, pause, busy_readers: if time.is_some() { 100 } else { 5 } }
    }
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    port: u16,
    amount: Amount,
    clock: Stopwatch,
    begun: Mutex<Duration>,
    reads: Mutex<Vec<Duration>>,
    /// When the insert of a client's tick was answered.
    committed: Mutex<HashMap<(i64, i64), Duration>>,
    deliveries: Mutex<Vec<Duration>>,
    transfers: AtomicU64,
    ticks: AtomicI64,
    repeated: AtomicU64,
    checked: AtomicU64,
    busy_reads: AtomicU64,
}

impl Shared {
    fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether a client that has done so many operations does another one.
    fn goes_on(&self, done: u64) -> bool {
        match self.amount.time {
            Some(time) => self.now() < *self.begun.lock().unwrap() + time,
            None => done < self.amount.operations,
        }
    }

    /// Waits until a client's next operation.
    async fn pause(&self) {
        if !self.amount.pause.is_zero() {
            tokio::time::sleep(self.amount.pause).await;
        }
    }

    async fn connect(&self) -> Client {
        let options = format!("host=127.0.0.1 port={} user=me dbname=millstream", self.port);
        let (client, connection) = tokio_postgres::connect(&options, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

async fn transfers(shared: Arc<Shared>, seed: u64) {
    let (client, mut random) = (shared.connect().await, SmallRng::seed_from_u64(seed));
    let transfer = "UPDATE accounts SET balance = balance + CASE WHEN id = $1 THEN $3 ELSE -$3 END WHERE id IN ($1, $2)";
    let transfer = client.prepare_typed(transfer, &[tokio_postgres::types::Type::INT8; 3]).await.unwrap();
    let mut done = 0;
    while shared.goes_on(done) {
        shared.pause().await;
        let from = random.random_range(0..ACCOUNTS);
        let to = (from + random.random_range(1..ACCOUNTS)) % ACCOUNTS;
        match client.execute(&transfer, &[&from, &to, &random.random_range(1..100_i64)]).await {
            Ok(rows) => {
                assert_eq!(rows, 2);
                shared.transfers.fetch_add(1, Ordering::Relaxed);
                done += 1;
            }
            // Another one came first.
            Err(error) if error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
                shared.repeated.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("a transfer failed: {error:?}"),
        }
    }
}

async fn reads(shared: Arc<Shared>, seed: u64) {
    let (client, mut random) = (shared.connect().await, SmallRng::seed_from_u64(seed));
    let point = client.prepare("SELECT balance FROM balances WHERE id = $1").await.unwrap();
    let mut done = 0;
    while shared.goes_on(done) {
        shared.pause().await;
        let before = shared.now();
        let row = client.query_one(&point, &[&random.random_range(0..ACCOUNTS)]).await.unwrap();
        let took = shared.now() - before;
        shared.reads.lock().unwrap().push(took);
        let _: i64 = row.get(0);
        let sql = ["SELECT total FROM total", "SELECT sum(balance)::BIGINT FROM accounts", "SELECT sum(balance)::BIGINT FROM balances"];
        let row = client.query_one(sql[random.random_range(0..sql.len())], &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), TOTAL, "a read sees one epoch");
        shared.checked.fetch_add(1, Ordering::Relaxed);
        done += 1;
    }
}

/// Follows all balances: after every epoch they are the total.
async fn follows(shared: Arc<Shared>, over: Arc<tokio_util::sync::CancellationToken>) {
    let client = shared.connect().await;
    let cancel = client.cancel_token();
    let rows = client.simple_query_raw("SUBSCRIBE TO balances WITH (progress = true)").await.unwrap();
    let mut rows = std::pin::pin!(rows);
    let mut balances: BTreeMap<i64, i64> = BTreeMap::new();
    let mut is_over = std::pin::pin!(over.cancelled());
    loop {
        let message = tokio::select! {
            message = futures::StreamExt::next(&mut rows) => message,
            () = &mut is_over => break,
        };
        let row = match message.expect("a subscription goes on").expect("no error") {
            SimpleQueryMessage::Row(row) => row,
            _ => continue,
        };
        let number = |name: &str| row.get(name).and_then(|text| text.parse::<i64>().ok());
        match (row.get("op").unwrap(), number("id"), number("balance")) {
            ("=", ..) => {
                assert_eq!(balances.values().sum::<i64>(), TOTAL, "every epoch has the total");
                shared.checked.fetch_add(1, Ordering::Relaxed);
            }
            (op, Some(id), Some(balance)) => *balances.entry(id).or_default() += if op == "+I" { balance } else { -balance },
            other => panic!("a row of another form: {other:?}"),
        }
    }
    cancel.cancel_query(NoTls).await.unwrap();
}

/// Follows the newest tick of every client, and notes how long after its commit each is there.
async fn notes_deliveries(shared: Arc<Shared>, over: Arc<tokio_util::sync::CancellationToken>) {
    let client = shared.connect().await;
    let cancel = client.cancel_token();
    let rows = client.simple_query_raw("SUBSCRIBE TO newest").await.unwrap();
    let mut rows = std::pin::pin!(rows);
    let mut is_over = std::pin::pin!(over.cancelled());
    loop {
        let message = tokio::select! {
            message = futures::StreamExt::next(&mut rows) => message,
            () = &mut is_over => break,
        };
        if let SimpleQueryMessage::Row(row) = message.expect("a subscription goes on").expect("no error")
            && row.get("op") == Some("+I")
        {
            let seen = shared.now();
            let number = |name: &str| row.get(name).unwrap().parse::<i64>().unwrap();
            let key = (number("client"), number("n"));
            let committed = shared.committed.lock().unwrap().remove(&key);
            // Who hears of it before the insert is answered has not waited at all.
            shared.deliveries.lock().unwrap().push(committed.map_or(Duration::ZERO, |committed| seen.saturating_sub(committed)));
        }
    }
    cancel.cancel_query(NoTls).await.unwrap();
}

async fn inserts(shared: Arc<Shared>, number: i64) {
    let client = shared.connect().await;
    let insert = client.prepare("INSERT INTO ticks VALUES ($1, $2)").await.unwrap();
    let mut done = 0;
    while shared.goes_on(done) {
        shared.pause().await;
        let n = i64::try_from(done).unwrap();
        assert_eq!(client.execute(&insert, &[&number, &n]).await.unwrap(), 1);
        shared.committed.lock().unwrap().insert((number, n), shared.now());
        shared.ticks.fetch_add(1, Ordering::Relaxed);
        done += 1;
    }
}

async fn defines(shared: Arc<Shared>, number: usize) {
    let client = shared.connect().await;
    let mut done = 0;
    while shared.goes_on(done) {
        shared.pause().await;
        let create =
            format!("CREATE MATERIALIZED VIEW own_{number} AS SELECT id % 7 AS k, sum(balance) AS part FROM accounts GROUP BY id % 7");
        client.batch_execute(&create).await.unwrap();
        let row = client.query_one(&format!("SELECT sum(part)::BIGINT FROM own_{number}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), TOTAL, "a new view is filled back exactly");
        client.batch_execute(&format!("DROP MATERIALIZED VIEW own_{number}")).await.unwrap();
        shared.checked.fetch_add(1, Ordering::Relaxed);
        done += 1;
    }
}

/// Reads without a pause until it is told to end.
async fn reads_on(shared: Arc<Shared>, over: Arc<tokio_util::sync::CancellationToken>, seed: u64) {
    let (client, mut random) = (shared.connect().await, SmallRng::seed_from_u64(seed));
    let point = client.prepare("SELECT balance FROM balances WHERE id = $1").await.unwrap();
    while !over.is_cancelled() {
        let row = client.query_one(&point, &[&random.random_range(0..ACCOUNTS)]).await.unwrap();
        let _: i64 = row.get(0);
        shared.busy_reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// Rows a second that one client inserts in batches; `clients` says whose they are.
async fn pace(shared: &Arc<Shared>, number: i64) -> f64 {
    let client = shared.connect().await;
    let (batches, rows) = if shared.amount.time.is_some() { (200, 1_000) } else { (3, 100) };
    let before = shared.now();
    for _ in 0..batches {
        let insert = format!("INSERT INTO ticks SELECT {number}, value FROM generate_series(1, {rows})");
        client.batch_execute(&insert).await.unwrap();
    }
    shared.ticks.fetch_add(batches * rows, Ordering::Relaxed);
    (batches * rows) as f64 / (shared.now() - before).as_secs_f64()
}

/// The pace of inserts while others read without a pause, and how many reads a second they had meanwhile.
async fn pace_beside_readers(shared: &Arc<Shared>) -> (f64, f64) {
    let over = Arc::new(tokio_util::sync::CancellationToken::new());
    let mut readers = JoinSet::new();
    for number in 0..shared.amount.busy_readers {
        readers.spawn(reads_on(Arc::clone(shared), Arc::clone(&over), number as u64));
    }
    let (begun, reads) = (shared.now(), shared.busy_reads.load(Ordering::Relaxed));
    let rows = pace(shared, -3).await;
    let reads = shared.busy_reads.load(Ordering::Relaxed) - reads;
    let reads = reads as f64 / (shared.now() - begun).as_secs_f64();
    over.cancel();
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    (rows, reads)
}

fn percentile(values: &mut [Duration], part: f64) -> Duration {
    values.sort_unstable();
    let index = ((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1));
    values.get(index).copied().unwrap_or_default()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

#[test]
fn many_clients_see_one_total() {
    let directory = directory();
    std::fs::write(directory.path().join("bank.sql"), BANK).unwrap();
    let server = Serving::start(directory.path(), &["bank.sql"]);
    let amount = Amount::asked_for();
    let shared = Arc::new(Shared {
        port: server.pg,
        amount,
        clock: Stopwatch::start(),
        begun: Mutex::default(),
        reads: Mutex::default(),
        committed: Mutex::default(),
        deliveries: Mutex::default(),
        transfers: AtomicU64::new(0),
        ticks: AtomicI64::new(0),
        repeated: AtomicU64::new(0),
        checked: AtomicU64::new(0),
        busy_reads: AtomicU64::new(0),
    });
    run(async {
        let client = shared.connect().await;
        let fill = format!("INSERT INTO accounts SELECT value, {BALANCE} FROM generate_series(0, {})", ACCOUNTS - 1);
        client.batch_execute(&fill).await.unwrap();
        let alone = pace(&shared, -1).await;
        let before = server.resident_kb();
        let beside_readers = pace_beside_readers(&shared).await;

        let over = Arc::new(tokio_util::sync::CancellationToken::new());
        let mut followers = JoinSet::new();
        followers.spawn(notes_deliveries(Arc::clone(&shared), Arc::clone(&over)));
        *shared.begun.lock().unwrap() = shared.now();
        let mut workers = JoinSet::new();
        // Of twenty: three transfer, nine read, four follow, three insert, one defines.
        for number in 0..amount.clients {
            let (shared, seed) = (Arc::clone(&shared), number as u64);
            match number % 20 {
                0..3 => drop(workers.spawn(transfers(shared, seed))),
                3..12 => drop(workers.spawn(reads(shared, seed))),
                12..16 => drop(followers.spawn(follows(shared, Arc::clone(&over)))),
                16..19 => drop(workers.spawn(inserts(shared, i64::try_from(number).unwrap()))),
                _ => drop(workers.spawn(defines(shared, number))),
            }
        }
        let busy = pace(&shared, -2).await;
        while let Some(ended) = workers.join_next().await {
            ended.unwrap();
        }
        over.cancel();
        while let Some(ended) = followers.join_next().await {
            ended.unwrap();
        }
        let after = server.resident_kb();

        let row = client.query_one("SELECT total, (SELECT sum(ticks)::BIGINT FROM newest) FROM total", &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (TOTAL, shared.ticks.load(Ordering::Relaxed)));
        let took = shared.now() - *shared.begun.lock().unwrap();
        let (mut reads, mut deliveries) = (shared.reads.lock().unwrap(), shared.deliveries.lock().unwrap());
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!("{} clients for {:.1} s", amount.clients, took.as_secs_f64());
        println!("totals checked             {}", count(&shared.checked));
        println!("transfers                  {} ({} begun again)", count(&shared.transfers), count(&shared.repeated));
        println!(
            "point reads                {}: p50 {:.2?}, p99 {:.2?}",
            reads.len(),
            percentile(&mut reads, 0.5),
            percentile(&mut reads, 0.99)
        );
        let (half, most) = (percentile(&mut deliveries, 0.5), percentile(&mut deliveries, 0.99));
        println!("commit to subscriber       {}: p50 {half:.2?}, p99 {most:.2?}", deliveries.len());
        let (beside, busy_reads) = beside_readers;
        println!("inserts by one client      {alone:.0} rows/s alone, {busy:.0} rows/s among the others");
        println!("beside {} busy readers    {beside:.0} rows/s, {busy_reads:.0} reads/s", amount.busy_readers);
        println!("memory                     {before} kB before, {after} kB after");
    });
    assert_eq!(server.stop(), Some(0));
}
