//! The servers of one part of the benchmark, and what is put on them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use postrider::{
    dev::servers::{Nats, NatsOptions, Postgres, PostgresOptions},
    pg::{migrate::migrate, schema::Schema},
    tasks,
};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use crate::{daemon::Daemon, proc};

/// How many keys the events are spread over.
pub(crate) const KEYS: u32 = 10_000;

/// Bytes of every payload.
pub(crate) const PAYLOAD_BYTES: usize = 500;

/// The type of every event; its subject is `events.order.placed`.
pub(crate) const EVENT_TYPE: &str = "order.placed";

/// The type of every event's aggregate.
pub(crate) const AGGREGATE_TYPE: &str = "order";

/// What every stream captures; there is one stream at a time.
pub(crate) const SUBJECTS: &str = "events.>";

/// Rows of one inserting transaction of a backlog.
const CHUNK: u64 = 5_000;

const DEADLINE: Duration = Duration::from_mins(1);

/// A Postgres and a nats-server of our own.
pub(crate) struct Stage {
    pub(crate) postgres: Postgres,
    pub(crate) nats: Nats,
    pub(crate) jetstream: jetstream::Context,
}

impl Stage {
    /// Starts both, with the settings of a plain installation.
    pub(crate) async fn start() -> Result<Self> {
        let options = PostgresOptions {
            fsync: true,
            max_prepared_transactions: 0,
            settings: vec![("shared_buffers".to_owned(), "256MB".to_owned())],
            ..PostgresOptions::default()
        };
        let postgres = Postgres::start(options).await?;
        let nats = Nats::start(NatsOptions::default()).await?;
        let jetstream = jetstream::new(async_nats::connect(nats.url()).await?);
        Ok(Self { postgres, nats, jetstream })
    }

    /// Makes a database and migrates it. Returns a session in it.
    pub(crate) async fn database(&self, name: &str) -> Result<Client> {
        self.postgres.execute("postgres", &format!("CREATE DATABASE {name}")).await?;
        let mut client = self.connect(name).await?;
        migrate(&mut client, &schema()?).await?;
        Ok(client)
    }

    /// Removes a database that nobody uses any more.
    pub(crate) async fn drop_database(&self, name: &str) -> Result<()> {
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        Ok(self.postgres.execute("postgres", &drop).await?)
    }

    /// A session of ours.
    pub(crate) async fn connect(&self, database: &str) -> Result<Client> {
        connect(&self.postgres.url(database)).await
    }

    /// Writes everything to disk now, so that it need not happen while something is measured.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        Ok(self.postgres.execute("postgres", "CHECKPOINT").await?)
    }

    /// The program on a database and a stream that it may create.
    pub(crate) fn relay(&self, database: &str, stream: &str) -> Result<Daemon> {
        Daemon::start(&format!(
            "[database]\nurl = \"{}\"\n[nats]\nurl = \"{}\"\n\
             [stream]\nname = \"{stream}\"\nsubjects = [\"{SUBJECTS}\"]\ncreate = true\n\
             [admin]\nlisten = \"off\"\n",
            self.postgres.url(database),
            self.nats.url(),
        ))
    }

    /// Seconds of processor time of the nats-server.
    pub(crate) fn nats_cpu_seconds(&self) -> Result<f64> {
        proc::cpu_seconds(self.nats.pid().context("nats-server runs")?)
    }
}

/// The schema that is migrated.
pub(crate) fn schema() -> Result<Schema> {
    Schema::parse("postrider").context("a schema's name")
}

/// Opens a session.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // What breaks the connection is seen at the client.
    tasks::drive(async move { drop(connection.await) });
    Ok(client)
}

/// A payload of the size that all have.
pub(crate) fn payload() -> String {
    let around = r#"{"filler":""}"#.len();
    format!(r#"{{"filler":"{}"}}"#, "x".repeat(PAYLOAD_BYTES - around))
}

/// Commits `count` events, spread at random over the keys.
pub(crate) async fn insert_backlog(client: &Client, count: u64) -> Result<()> {
    let insert = client
        .prepare(
            "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload) \
             SELECT $1, $2, floor(random() * $3::integer)::integer::text, $4::text::json \
             FROM generate_series(1, $5::bigint)",
        )
        .await?;
    client.execute("SELECT setseed(0.5)", &[]).await?;
    let (keys, payload) = (i32::try_from(KEYS)?, payload());
    let mut left = count;
    while left > 0 {
        let rows = left.min(CHUNK);
        let rows_int = i64::try_from(rows)?;
        client
            .execute(&insert, &[&EVENT_TYPE, &AGGREGATE_TYPE, &keys, &payload, &rows_int])
            .await?;
        left -= rows;
    }
    Ok(())
}

/// The server's processes that work for the relay of this database.
pub(crate) async fn relay_backends(client: &Client) -> Result<Vec<u32>> {
    let statement = "SELECT pid FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name LIKE 'postrider/%'";
    let rows = client.query(statement, &[]).await?;
    rows.iter().map(|row| Ok(u32::try_from(row.try_get::<_, i32>(0)?)?)).collect()
}

/// Waits until the relay has both its sessions, and so relays.
pub(crate) async fn wait_for_relay(client: &Client, daemon: &mut Daemon) -> Result<Vec<u32>> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let backends = relay_backends(client).await?;
        if backends.len() >= 2 {
            return Ok(backends);
        }
        daemon.ensure_alive()?;
        ensure!(Instant::now() < deadline, "the relay does not begin; its log:\n{}", daemon.log());
        sleep(Duration::from_millis(10)).await;
    }
}
