//! Fault P11: millions of rows pass through one outbox, with retention, and with autovacuum first
//! off and then on.
//!
//! The relay's reading (finding the next rows, finding due letters) must stay as cheap as in a
//! fresh table. Each strike is 20,000 rows.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant},
};

use async_nats::jetstream::{consumer::pull::OrderedConfig, stream::Stream};
use futures_util::StreamExt as _;
use postrider::outbox::{SESSION_SETTINGS, with_columns};
use tokio_postgres::{Client, Statement, types::ToSql};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    fault::{Fault, Set, Tally},
    scene::{daemon, look_at_resources},
    support::{
        DEADLINE, Fixture,
        daemon::Daemon,
        eventually, let_pass,
        postgres::{connect, create_migrated},
    },
};

pub(crate) const FAULTS: &[Fault] = &[Fault {
    id: "P11",
    what: "20,000 rows churned through the outbox, autovacuum off and then on",
    pr: 2,
    nightly: 500,
    set: 100,
    inflict: |set| Box::pin(churn(set)),
}];

/// Number of rows of one strike, and of one transaction.
const ROWS: u64 = 20_000;
const BATCH: u64 = 2_000;

const KEYS: u64 = 1_000;

/// Number of letters that are tried again in vain in each strike. Their table gets UPDATEs, unlike
/// the outbox.
const LETTERS: i64 = 200;

const RETAIN: &str = r#"SELECT emptied FROM "postrider".retain('0 s')"#;

/// Number of rows that wait while the relay's statements are measured, and number of measurements.
const WAITING: u64 = 200;
const SAMPLES: usize = 500;

const POLL: &str = include_str!("../../../src/outbox/sql/poll_outbox_late.sql");
const PAGE: &str = include_str!("../../../src/outbox/sql/read_page.sql");
const DUE: &str = include_str!("../../../src/outbox/sql/find_due_letters.sql");

/// Largest factor by which the relay's reading may be slower than in a fresh table.
const SLOWER_MAX: f64 = 2.0;

/// Time that a busy machine may add to that, for the median and the 99th percentile. Four faults on
/// two cores delay one statement in a hundred by many milliseconds, in either table. The median and
/// the number of blocks decide.
const MEDIAN_NOISE: Duration = Duration::from_micros(500);
const P99_NOISE: Duration = Duration::from_millis(20);

/// Number of blocks that a statement may read more than in a fresh table.
const BLOCKS_MORE: u64 = 20;

/// Number of tried letters for which loading may read one more block while nothing is vacuumed.
/// Really one block is added for 200 letters or more.
const TRIED_A_BLOCK: u64 = 100;

/// Largest size of the outbox, in bytes, after everything is settled and retention has run.
const OUTBOX_BYTES_MAX: i64 = 4 << 20;

/// Largest size of the position table, in bytes. Its one row is updated ten times a second.
const POSITION_BYTES_MAX: i64 = 128 << 10;

async fn churn(set: Set) -> Tally {
    let fixture = Fixture::own_postgres().await;
    let client = fixture.connect().await;
    let daemon = daemon(&fixture).set("route.on_dead", "skip");
    let daemon = daemon.allow_log("became a dead letter").start();
    let mut numbers = Numbers::new();
    let mut tally = Tally { strikes: set.strikes, ..Tally::default() };
    set_autovacuum(&client, "off").await;
    insert_letters(&client).await;
    numbers.insert(&client, KEYS).await;
    look_at_stream(&fixture, &mut numbers, &mut tally).await;
    let fresh = fresh_reader(&fixture).await;
    for strike in 0..set.strikes {
        let done = CancellationToken::new();
        let inserting = async {
            try_letters_again(&client).await;
            numbers.insert(&client, ROWS).await;
            done.cancel();
        };
        // Retention stops with the inserts, so that the last settled rows are still there when the
        // reading is measured.
        tokio::join!(inserting, retain(&fixture, &done));
        let began = Instant::now();
        look_at_stream(&fixture, &mut numbers, &mut tally).await;
        tally.recovery = tally.recovery.max(began.elapsed());
        // In the first half of the strikes nothing is vacuumed. In the second half autovacuum runs.
        let is_half = strike + 1 == set.strikes.div_ceil(2);
        let is_last = strike + 1 == set.strikes;
        if is_half || is_last {
            let (churned, fresh) = measure(&fixture, &daemon, &mut numbers, &fresh).await;
            let state = if is_half { "off" } else { "on" };
            println!("torture: P11  autovacuum {state}: {churned}; fresh: {fresh}");
            // Trying a letter leaves dead entries in its indexes until a vacuum.
            let tried = if is_half { LETTERS.unsigned_abs() * u64::from(strike + 1) } else { 0 };
            tally.complain(churned.complaint(&fresh, state, tried / TRIED_A_BLOCK));
        }
        if is_half {
            set_autovacuum(&client, "on").await;
        }
    }
    look_at_stream(&fixture, &mut numbers, &mut tally).await;
    look_at_tables(&client, &mut tally).await;
    look_at_resources(&daemon, &mut tally);
    tally
}

/// Turns autovacuum on or off for the whole server. Its system tables matter too, because a
/// TRUNCATE leaves dead rows there.
async fn set_autovacuum(client: &Client, on_off: &str) {
    for (name, value) in [("autovacuum", on_off), ("autovacuum_naptime", "1s")] {
        client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).await.unwrap();
    }
    client.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

/// Record of the rows that were committed, rolled back and stored. A row's number is its event id.
struct Numbers {
    /// Whether the row with this number was committed. Number 0 is not used.
    committed: Vec<bool>,
    stored: Vec<bool>,
    last_of_key: HashMap<u64, u64>,
}

impl Numbers {
    fn new() -> Self {
        Self { committed: vec![false], stored: vec![false], last_of_key: HashMap::new() }
    }

    /// Inserts and commits rows. Every fourth transaction is followed by one that is rolled back.
    async fn insert(&mut self, client: &Client, rows: u64) {
        let insert = r#"INSERT INTO "postrider".outbox
                (event_id, event_type, aggregate_type, aggregate_id, payload)
            SELECT lpad(to_hex(n), 32, '0')::uuid, 'load.made', 'load', (n % $3::bigint)::text,
                json_build_object('n', n, 'pad', repeat('x', 80))
            FROM generate_series($1::bigint, $2::bigint) AS n"#;
        let mut left = rows;
        while left > 0 {
            let count = left.min(BATCH);
            left -= count;
            let is_fourth = (left / BATCH).is_multiple_of(4);
            for is_committed in [true, false].into_iter().take(1 + usize::from(is_fourth)) {
                let first = self.committed.len() as u64;
                let bounds = [first, first + count - 1, KEYS].map(|n| i64::try_from(n).unwrap());
                client.batch_execute("BEGIN").await.unwrap();
                client.execute(insert, &[&bounds[0], &bounds[1], &bounds[2]]).await.unwrap();
                let end = if is_committed { "COMMIT" } else { "ROLLBACK" };
                client.batch_execute(end).await.unwrap();
                self.committed.resize(usize::try_from(first + count).unwrap(), is_committed);
                self.stored.resize(self.committed.len(), false);
            }
        }
    }

    /// Records a message of the stream, and counts phantoms, duplicates and inversions.
    fn store(&mut self, id: Uuid, tally: &mut Tally) {
        let number = id.as_u64_pair().1;
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if self.committed.get(index) != Some(&true) {
            tally.phantom += 1;
            return;
        }
        tally.duplicates += u64::from(std::mem::replace(&mut self.stored[index], true));
        let before = self.last_of_key.insert(number % KEYS, number);
        tally.inversions += u64::from(before > Some(number));
    }

    fn count(&self) -> u64 {
        self.committed.iter().filter(|is_committed| **is_committed).count() as u64
    }

    fn lost(&self) -> u64 {
        let pairs = self.committed.iter().zip(&self.stored);
        pairs.filter(|(is_committed, is_stored)| **is_committed && !**is_stored).count() as u64
    }
}

/// Waits until everything is settled, records the messages of the stream, and purges them. Ten
/// million messages would fill the disk.
async fn look_at_stream(fixture: &Fixture, numbers: &mut Numbers, tally: &mut Tally) {
    let drained = fixture.wait_drained(Duration::from_mins(4)).await;
    tally.complain((!drained).then(|| "not drained after four minutes".to_owned()));
    let mut stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    if state.messages > 0 {
        for id in read_ids(&stream, state.last_sequence).await {
            numbers.store(id, tally);
        }
        stream.purge().sequence(state.last_sequence + 1).await.unwrap();
    }
    (tally.committed, tally.lost) = (numbers.count(), numbers.lost());
}

/// Ids of all messages up to the sequence `last`, in the order of the stream.
async fn read_ids(stream: &Stream, last: u64) -> Vec<Uuid> {
    let config = OrderedConfig { headers_only: true, ..OrderedConfig::default() };
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let mut ids = Vec::new();
    loop {
        let next = tokio::time::timeout(DEADLINE, messages.next()).await.expect("a message");
        let message = next.expect("an endless reader").unwrap();
        let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
        ids.push(id.and_then(|id| id.as_str().parse().ok()).unwrap_or_default());
        if message.info().unwrap().stream_sequence >= last {
            return ids;
        }
    }
}

/// Inserts events without a key that can never be published, and waits until they are dead letters.
async fn insert_letters(client: &Client) {
    let insert = r#"INSERT INTO "postrider".outbox (event_type, subject, payload)
        SELECT 'load.made', 'no subject', '{}' FROM generate_series(1, $1::bigint)"#;
    client.execute(insert, &[&LETTERS]).await.unwrap();
    eventually("letters", DEADLINE, async || {
        let count = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'dead'"#;
        client.query_one(count, &[]).await.unwrap().get::<_, i64>(0) == LETTERS
    })
    .await;
}

/// Redrives all dead letters, as `postrider dlq redrive` does.
async fn try_letters_again(client: &Client) {
    let redrive = r#"UPDATE "postrider".letter
        SET state = 'retrying', dead_at = NULL, attempts = 0, next_attempt_at = clock_timestamp()
        WHERE state = 'dead'"#;
    client.batch_execute(redrive).await.unwrap();
    client.batch_execute("NOTIFY postrider_postrider, 'letters'").await.unwrap();
}

/// Runs retention every 20 ms, far more often than the program does, until `done`.
async fn retain(fixture: &Fixture, done: &CancellationToken) {
    let client = fixture.connect().await;
    while !done.is_cancelled() {
        client.query_one(RETAIN, &[]).await.unwrap();
        let_pass(Duration::from_millis(20)).await;
    }
}

/// Cost of the relay's reading: of polling and reading the next rows (`claim`), and of finding due
/// letters (`due`).
#[derive(Clone, Copy, Default)]
struct Figures {
    claim: Cost,
    due: Cost,
}

#[derive(Clone, Copy, Default)]
struct Cost {
    median: Duration,
    p99: Duration,
    /// Number of blocks read.
    blocks: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "claim {}, due {}", self.claim, self.due)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, p99, blocks } = self;
        write!(f, "{median:.1?} (p99 {p99:.1?}, {blocks} blocks)")
    }
}

impl Figures {
    fn complaint(&self, fresh: &Self, autovacuum: &str, dead_blocks: u64) -> Option<String> {
        let is_worse =
            self.claim.is_worse(fresh.claim, 0) || self.due.is_worse(fresh.due, dead_blocks);
        is_worse.then(|| {
            format!("with autovacuum {autovacuum} reading costs {self}; in a fresh table {fresh}")
        })
    }
}

impl Cost {
    fn of(mut times: Vec<Duration>, blocks: u64) -> Self {
        times.sort_unstable();
        let at = |percent: usize| times.get(times.len() * percent / 100).copied();
        Self { median: at(50).unwrap_or_default(), p99: at(99).unwrap_or_default(), blocks }
    }

    fn is_worse(self, fresh: Self, dead_blocks: u64) -> bool {
        let is_slower =
            |now: Duration, then: Duration, noise| now > then.mul_f64(SLOWER_MAX) + noise;
        is_slower(self.median, fresh.median, MEDIAN_NOISE)
            || is_slower(self.p99, fresh.p99, P99_NOISE)
            || self.blocks > 2 * fresh.blocks + BLOCKS_MORE + dead_blocks
    }
}

/// A session that reads as the relay does, from a position that is not stored.
struct Reader {
    client: Client,
    poll: Statement,
    page: Statement,
    due: Statement,
    settled: String,
    floor: i64,
}

impl Reader {
    /// Makes a reader whose position has settled everything that is committed now.
    async fn new(client: Client) -> Self {
        for (name, value) in SESSION_SETTINGS {
            client.batch_execute(&format!("SET {name} = {value}")).await.unwrap();
        }
        let statement = r#"SELECT pg_current_snapshot()::text,
            coalesce(pg_sequence_last_value('"postrider".outbox_seq_seq'::regclass), 0)"#;
        let row = client.query_one(statement, &[]).await.unwrap();
        let [poll, page, due] = [POLL, PAGE, DUE].map(with_columns);
        let (poll, page, due) =
            tokio::try_join!(client.prepare(&poll), client.prepare(&page), client.prepare(&due))
                .unwrap();
        let (settled, floor) = (row.get(0), row.get(1));
        Self { client, poll, page, due, settled, floor }
    }

    /// Reads the next rows with a poll. Returns the snapshot up to which it read.
    async fn see(&self) -> String {
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.settled, &1_000_i64, &8_192_i32];
        let rows = self.client.query(&self.poll, &parameters).await.unwrap();
        assert_eq!(rows.len() as u64, 1 + WAITING, "the snapshot, and rows that wait");
        rows[0].get("event_type")
    }

    /// Reads the next rows with a poll, and once more as a page.
    async fn claim(&self) {
        let Self { settled, floor, .. } = self;
        let seen = self.see().await;
        let parameters: [&(dyn ToSql + Sync); 6] =
            [settled, &seen, &0_i64, floor, &1_000_i64, &8_192_i32];
        let rows = self.client.query(&self.page, &parameters).await.unwrap();
        assert_eq!(rows.len() as u64, WAITING, "rows that wait");
    }

    /// Finds the letters that are due.
    async fn find_due(&self) {
        self.client.query(&self.due, &[&"default", &64_i64, &60.0_f64]).await.unwrap();
    }

    /// Number of blocks that the reader reads for a poll with a page, and for due letters.
    async fn blocks(&self) -> (u64, u64) {
        let Self { settled, floor, .. } = self;
        let seen = self.see().await;
        let page = format!("'{settled}', '{seen}', 0, {floor}, 1000, 8192");
        let claim = blocks(&self.client, &with_columns(POLL), &format!("'{settled}', 1000, 8192"))
            .await
            + blocks(&self.client, &with_columns(PAGE), &page).await;
        (claim, blocks(&self.client, DUE, "'default', 64, 60").await)
    }
}

/// Makes a reader in another database of the same server. Few rows were ever inserted there, and
/// some wait.
async fn fresh_reader(fixture: &Fixture) -> Reader {
    let database = format!("{}_fresh", fixture.database);
    create_migrated(&fixture.postgres, &database).await;
    let client = connect(&fixture.postgres.url(&database)).await;
    Numbers::new().insert(&client, WAITING * 5).await;
    let reader = Reader::new(client).await;
    Numbers::new().insert(&reader.client, WAITING).await;
    reader
}

/// Measures the relay's statements while the relay is frozen and rows wait. Readings of the churned
/// and the fresh table alternate, so that other work on the machine delays both.
async fn measure(
    fixture: &Fixture,
    daemon: &Daemon,
    numbers: &mut Numbers,
    fresh: &Reader,
) -> (Figures, Figures) {
    daemon.freeze();
    let mut churned = Reader::new(fixture.connect().await).await;
    numbers.insert(&churned.client, WAITING).await;
    // Everything was drained, so the target of the position is settled, even if the position is not
    // yet written so.
    let position = r#"SELECT target::text, target_floor FROM "postrider".position"#;
    let row = churned.client.query_one(position, &[]).await.unwrap();
    (churned.settled, churned.floor) = (row.get(0), row.get(1));
    let mut figures = [Figures::default(); 2];
    let mut times: [(Vec<Duration>, Vec<Duration>); 2] = Default::default();
    for _ in 0..SAMPLES {
        for (reader, (claims, loads)) in [&churned, fresh].into_iter().zip(&mut times) {
            let began = Instant::now();
            reader.claim().await;
            claims.push(began.elapsed());
            let began = Instant::now();
            reader.find_due().await;
            loads.push(began.elapsed());
        }
    }
    for ((reader, (claims, loads)), figures) in
        [&churned, fresh].into_iter().zip(times).zip(&mut figures)
    {
        let (claim_blocks, due_blocks) = reader.blocks().await;
        let claim = Cost::of(claims, claim_blocks);
        *figures = Figures { claim, due: Cost::of(loads, due_blocks) };
    }
    daemon.thaw();
    figures.into()
}

/// Number of blocks that a statement reads.
async fn blocks(client: &Client, text: &str, parameters: &str) -> u64 {
    client.batch_execute(&format!("PREPARE measured AS {text}")).await.unwrap();
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS) EXECUTE measured ({parameters})");
    let plan = client.query(&explain, &[]).await.unwrap();
    client.batch_execute("DEALLOCATE measured").await.unwrap();
    let lines: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let buffers = lines.iter().find(|line| line.contains("Buffers: shared"));
    let words = buffers.map(|line| line.split([' ', '=']).collect::<Vec<_>>()).unwrap_or_default();
    let after = |name: &str| {
        let at = words.iter().position(|word| *word == name);
        at.and_then(|at| words.get(at + 1)?.parse::<u64>().ok()).unwrap_or(0)
    };
    after("hit") + after("read")
}

/// Complains when retention leaves rows, or when the table of positions has grown too large.
async fn look_at_tables(client: &Client, tally: &mut Tally) {
    let rows = r#"SELECT count(*) FROM "postrider".outbox"#;
    eventually("an empty outbox", DEADLINE, async || {
        client.query_one(RETAIN, &[]).await.unwrap();
        client.query_one(rows, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    let sizes = r#"SELECT sum(pg_total_relation_size(relid))::bigint,
            pg_total_relation_size('"postrider".position'),
            pg_total_relation_size('"postrider".letter')
        FROM pg_partition_tree('"postrider".outbox')"#;
    let row = client.query_one(sizes, &[]).await.unwrap();
    let (outbox, position, letter): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    println!("torture: P11  outbox {outbox} bytes, position {position}, letter {letter}");
    let bounds = [("outbox", outbox, OUTBOX_BYTES_MAX), ("position", position, POSITION_BYTES_MAX)];
    for (table, bytes, most) in bounds {
        tally
            .complain((bytes > most).then(|| format!("{table} has {bytes} bytes, at most {most}")));
    }
}
