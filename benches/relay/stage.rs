//! Starts the servers of one part of the benchmark, and creates databases, streams and relays on
//! them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use futures_util::{TryStreamExt as _, future::try_join};
use postrider::{
    dev::servers::{Postgres, PostgresOptions},
    pg::{migrate::migrate, schema::Schema},
    tasks,
};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use crate::{
    brokers::{Brokers, Kind},
    daemon::Daemon,
};

/// Subjects that every stream captures. Only one stream exists at a time.
pub(crate) const SUBJECTS: &str = "events.>";

const DEADLINE: Duration = Duration::from_mins(1);

/// A Postgres and a broker that the benchmark has started for itself.
pub(crate) struct Stage {
    pub(crate) postgres: Postgres,
    pub(crate) brokers: Brokers,
    pub(crate) jetstream: jetstream::Context,
}

impl Stage {
    /// Starts Postgres and the broker with nearly the settings of a plain installation.
    pub(crate) async fn start(kind: Kind) -> Result<Self> {
        let options = PostgresOptions {
            fsync: true,
            max_prepared_transactions: 0,
            settings: vec![("shared_buffers".to_owned(), "256MB".to_owned())],
            ..PostgresOptions::default()
        };
        let postgres = async { Ok(Postgres::start(options).await?) };
        let (postgres, brokers) = try_join(postgres, Brokers::start(kind)).await?;
        let jetstream = brokers.connect().await?;
        Ok(Self { postgres, brokers, jetstream })
    }

    /// Removes all streams, so that the next part can use the same servers.
    pub(crate) async fn clear(&self) -> Result<()> {
        let streams: Vec<String> = self.jetstream.stream_names().try_collect().await?;
        for stream in streams {
            self.jetstream.delete_stream(stream).await?;
        }
        Ok(())
    }

    /// Creates a database and its tables. Returns a session in the database.
    pub(crate) async fn database(&self, name: &str) -> Result<Client> {
        self.postgres.execute("postgres", &format!("CREATE DATABASE {name}")).await?;
        // The migration gets a session of its own, because it changes settings of its session.
        migrate(&mut self.connect(name).await?, &schema()?).await?;
        self.connect(name).await
    }

    /// Removes a database, and ends the sessions that still use it.
    pub(crate) async fn drop_database(&self, name: &str) -> Result<()> {
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        Ok(self.postgres.execute("postgres", &drop).await?)
    }

    /// Opens a session in this database.
    pub(crate) async fn connect(&self, database: &str) -> Result<Client> {
        connect(&self.postgres.url(database)).await
    }

    /// Makes Postgres write its dirty pages to disk now, and not while something is measured.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        Ok(self.postgres.execute("postgres", "CHECKPOINT").await?)
    }

    /// Starts the program on this database. It creates the stream when the stream does not exist.
    pub(crate) fn relay(&self, database: &str, stream: &str) -> Result<Daemon> {
        Daemon::start(&format!(
            "[database]\nurl = \"{}\"\n[nats]\nurl = \"{}\"\n\
             [stream]\nname = \"{stream}\"\nsubjects = [\"{SUBJECTS}\"]\ncreate = true\n\
             max_bytes = \"0B\"\nreplicas = {}\n[admin]\nlisten = \"off\"\n",
            self.postgres.url(database),
            self.brokers.url(),
            self.brokers.replicas(),
        ))
    }
}

/// The schema in which the tables are created.
fn schema() -> Result<Schema> {
    Schema::parse("postrider").context("a schema's name")
}

/// Opens a session with this URL.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    // An error of the connection is ignored here, because the client's next statement reports it.
    tasks::drive(async move { drop(connection.await) });
    Ok(client)
}

/// Process id of the Postgres backend of a session.
pub(crate) async fn backend(client: &Client) -> Result<u32> {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
    Ok(u32::try_from(row.try_get::<_, i32>(0)?)?)
}

/// Process ids of the Postgres backends of the relay on this database.
pub(crate) async fn relay_backends(client: &Client) -> Result<Vec<u32>> {
    let statement = "SELECT pid FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name LIKE 'postrider/%'";
    let rows = client.query(statement, &[]).await?;
    rows.iter().map(|row| Ok(u32::try_from(row.try_get::<_, i32>(0)?)?)).collect()
}

/// Waits until the relay has opened both of its sessions. Returns the process ids of their Postgres
/// backends.
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

/// Waits until Postgres has ended all sessions of a killed relay.
pub(crate) async fn wait_for_no_relay(client: &Client) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !relay_backends(client).await?.is_empty() {
        ensure!(Instant::now() < deadline, "a dead relay's sessions do not end");
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Waits until the relay has opened the wake-up gate, which it does before it sleeps.
pub(crate) async fn wait_asleep(client: &Client, daemon: &mut Daemon) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let statement = "SELECT coalesce(pg_sequence_last_value('postrider.gate'::regclass), 0) >= 4";
    while !client.query_one(statement, &[]).await?.try_get::<_, bool>(0)? {
        daemon.ensure_alive()?;
        ensure!(Instant::now() < deadline, "the relay finds no sleep; its log:\n{}", daemon.log());
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Opens a transaction that has written to a table of its own, outside the outbox. It stays open
/// until the client is dropped.
pub(crate) async fn open_transaction(stage: &Stage, database: &str) -> Result<Client> {
    let client = stage.connect(database).await?;
    client.batch_execute("CREATE TABLE IF NOT EXISTS elsewhere (number integer)").await?;
    client.batch_execute("BEGIN; INSERT INTO elsewhere VALUES (1)").await?;
    Ok(client)
}
