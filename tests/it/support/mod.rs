//! Shared support of the tests: servers, a database and a stream for each test, and the program.

pub(crate) mod app;
pub(crate) mod audit;
pub(crate) mod daemon;
pub(crate) mod disk;
pub(crate) mod letters;
pub(crate) mod nats;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod sandbox;
pub(crate) mod stopwatch;
pub(crate) mod store;
pub(crate) mod toml;

use std::{fmt::Debug, ops::Deref, time::Duration};

use postrider::dev::servers::{
    Nats, NatsOptions, Pgbouncer, PgbouncerOptions, Postgres, PostgresOptions,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use daemon::DaemonBuilder;
use toml::Toml;

/// Deadline for waiting on a busy machine. Only a test that fails waits for so long.
pub(crate) const DEADLINE: Duration = Duration::from_mins(3);

/// A migrated database and a stream name that no other test uses, with the servers of both.
pub(crate) struct Fixture {
    pub(crate) postgres: Server<Postgres>,
    pub(crate) nats: Server<Nats>,
    pub(crate) database: String,
    pub(crate) stream: String,
    /// First token of every subject of this test.
    pub(crate) prefix: String,
}

impl Fixture {
    /// Makes a fixture on the servers that all tests of this run share.
    pub(crate) async fn new() -> Self {
        Self::with(None, None).await
    }

    /// Makes a fixture with a Postgres of its own, which the test may stop and kill.
    pub(crate) async fn own_postgres() -> Self {
        Self::with(Some(postgres::without_two_phase_commit()), None).await
    }

    /// Makes a fixture with a Postgres that allows prepared transactions. The relay gets no
    /// wake-ups there, because such transactions must not notify.
    pub(crate) async fn two_phase_commit() -> Self {
        Self::with(Some(PostgresOptions::default()), None).await
    }

    /// Makes a fixture with a nats-server of its own, which the test may stop and kill.
    pub(crate) async fn own_nats() -> Self {
        Self::with(None, Some(NatsOptions::default())).await
    }

    /// Makes a fixture with a server of its own where options are given, and else with the shared
    /// one.
    pub(crate) async fn with(postgres: Option<PostgresOptions>, nats: Option<NatsOptions>) -> Self {
        let id = Uuid::new_v4().simple().to_string();
        let database = format!("t_{id}");
        let postgres = match postgres {
            Some(options) => {
                let server = Postgres::start(options).await.unwrap();
                postgres::create_migrated(&server, &database).await;
                Server::Own(Box::new(server))
            }
            None => Server::Shared(postgres::shared_with(&database).await),
        };
        let nats = match nats {
            Some(options) => Server::Own(Box::new(Nats::start(options).await.unwrap())),
            None => Server::Shared(nats::shared().await),
        };
        Self { postgres, nats, database, stream: format!("T_{id}"), prefix: format!("t{id}") }
    }

    /// URL of this test's database.
    pub(crate) fn database_url(&self) -> String {
        self.postgres.url(&self.database)
    }

    /// Opens a session in this test's database.
    pub(crate) async fn connect(&self) -> tokio_postgres::Client {
        postgres::connect(&self.database_url()).await
    }

    /// Creates a login for this test with the rights of a role of the migrations: `relay`,
    /// `operator` or `producer`.
    pub(crate) async fn login(&self, role: &str) -> Login {
        let name = format!("{}_{role}", self.database);
        let create = format!("CREATE ROLE {name} LOGIN IN ROLE postrider_{role}");
        self.postgres.execute("postgres", &create).await.unwrap();
        let url = self.database_url().replace("postgres@", &format!("{name}@"));
        Login { name, url }
    }

    /// Starts a PgBouncer for this test in front of this fixture's Postgres. It serves all
    /// databases of the server.
    ///
    /// `pooler.url(&fixture.database)` is the URL of the test's database through the pooler. A
    /// relay behind the pooler has `fixture.toml().set("database.url",
    /// pooler.url(&fixture.database))`.
    pub(crate) async fn pooler(&self, options: PgbouncerOptions) -> Pgbouncer {
        Pgbouncer::start(self.postgres.port(), options).await.unwrap()
    }

    /// Makes a JetStream client.
    pub(crate) async fn jetstream(&self) -> async_nats::jetstream::Context {
        nats::connect(&self.nats.url()).await
    }

    /// Subject to which the relay publishes events of this type.
    pub(crate) fn subject(&self, event_type: &str) -> String {
        format!("{}.{event_type}", self.prefix)
    }

    /// Smallest working configuration for this test.
    pub(crate) fn toml(&self) -> Toml {
        Toml::default()
            .set("database.url", self.database_url())
            .set("nats.url", self.nats.url())
            // The timeout is long, because all tests share the server and a busy machine answers
            // late.
            .set("nats.connect_timeout", "30s")
            .set("stream.name", self.stream.as_str())
            .set("stream.subjects", vec![format!("{}.>", self.prefix)])
            .set("stream.create", true)
            // The server reserves space for each stream's limit, and it has the streams of all
            // tests.
            .set("stream.max_bytes", "0B")
            .set("route.subject", self.subject("{event_type}"))
            .set("admin.listen", "off")
    }

    /// Makes a builder for the program with the smallest configuration. The warning about a stream
    /// with one replica is expected, because a single server has no more.
    pub(crate) fn daemon(&self) -> DaemonBuilder {
        DaemonBuilder::new(self.toml()).allow_log("the stream has one replica")
    }

    /// Subscribes to all subjects of this test. The subscriber gets every message from now on,
    /// whether or not a stream stores it.
    pub(crate) async fn watch(&self) -> async_nats::Subscriber {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let watching = client.subscribe(format!("{}.>", self.prefix)).await.unwrap();
        client.flush().await.unwrap();
        watching
    }

    /// Waits until the relay has opened the wake-up gate: it sleeps, or is about to sleep.
    pub(crate) async fn wait_gate_open(&self, client: &tokio_postgres::Client) {
        let statement = r#"SELECT coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0)
            > 3 AND coalesce(pg_sequence_last_value('"postrider".wake_until'::regclass), 0)
            > date_part('epoch', clock_timestamp())"#;
        eventually("an open wake-up gate", DEADLINE, async || {
            client.query_one(statement, &[]).await.unwrap().get::<_, bool>(0)
        })
        .await;
    }

    /// Reads all messages of the stream without the program under test.
    pub(crate) async fn read_stream(&self) -> Vec<app::StoredMessage> {
        app::read_stream(&self.nats.url(), &self.stream).await
    }

    /// Waits until the stream has at least `count` messages, and then reads all of them.
    pub(crate) async fn wait_stored(
        &self,
        count: u64,
        deadline: Duration,
    ) -> Vec<app::StoredMessage> {
        app::wait_stored(&self.nats.url(), &self.stream, count, deadline).await;
        self.read_stream().await
    }
}

/// A user of the database server.
pub(crate) struct Login {
    pub(crate) name: String,
    /// URL of the test's database for this user.
    pub(crate) url: String,
}

/// A server that all tests share, or one that belongs to the test and may be stopped.
pub(crate) enum Server<T: 'static> {
    Shared(&'static T),
    Own(Box<T>),
}

impl<T> Server<T> {
    /// The test's own server, to be stopped and started. Panics when the server is shared.
    pub(crate) fn own(&mut self) -> &mut T {
        match self {
            Self::Own(server) => server,
            Self::Shared(_) => panic!("other tests use this server: take a fixture with its own"),
        }
    }
}

impl<T> Deref for Server<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(server) => server,
            Self::Shared(server) => server,
        }
    }
}

/// Result of a check that [`eventually`] repeats. `true` and `Some` end the waiting.
pub(crate) trait Condition {
    type Value;
    fn met(self) -> Option<Self::Value>;
}

impl Condition for bool {
    type Value = ();

    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn met(self) -> Self {
        self
    }
}

/// Waits until no other session is open in the database. Postgres may still execute a statement of
/// a program after that program was killed.
pub(crate) async fn wait_for_other_sessions_to_end(client: &tokio_postgres::Client) {
    eventually("the end of the other sessions", DEADLINE, async || {
        let sessions = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        client.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

/// Repeats a check until its condition is met. The test fails at the deadline.
pub(crate) async fn eventually<C: Condition>(
    what: impl Debug,
    deadline: Duration,
    mut condition: impl AsyncFnMut() -> C,
) -> C::Value {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition().await.met() {
            return value;
        }
        assert!(Instant::now() < end, "not within {deadline:?}: {what:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Sleeps for this time, to place a fault or to measure over a time. Waiting for a condition is
/// done with [`eventually`].
pub(crate) async fn let_pass(time: Duration) {
    sleep(time).await;
}
