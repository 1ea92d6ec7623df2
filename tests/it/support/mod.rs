//! What every test starts from: servers, a database and a stream of its own, and the program.

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

/// Long enough for anything that works on a busy machine; only failures wait so long.
pub(crate) const DEADLINE: Duration = Duration::from_mins(3);

/// A migrated database and a stream name that no other test uses.
pub(crate) struct Fixture {
    pub(crate) postgres: Server<Postgres>,
    pub(crate) nats: Server<Nats>,
    pub(crate) database: String,
    pub(crate) stream: String,
    /// The first token of every subject of this test.
    pub(crate) prefix: String,
}

impl Fixture {
    /// On the servers that all tests of this run share.
    pub(crate) async fn new() -> Self {
        Self::with(None, None).await
    }

    /// With a Postgres that the test may stop and kill.
    pub(crate) async fn own_postgres() -> Self {
        Self::with(Some(postgres::without_two_phase_commit()), None).await
    }

    /// With a Postgres that allows prepared transactions, and so no wake-ups.
    pub(crate) async fn two_phase_commit() -> Self {
        Self::with(Some(PostgresOptions::default()), None).await
    }

    /// With a nats-server that the test may stop and kill.
    pub(crate) async fn own_nats() -> Self {
        Self::with(None, Some(NatsOptions::default())).await
    }

    /// With own servers where options are given, else with the shared ones.
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

    /// The URL of this test's database.
    pub(crate) fn database_url(&self) -> String {
        self.postgres.url(&self.database)
    }

    /// A new connection to this test's database.
    pub(crate) async fn connect(&self) -> tokio_postgres::Client {
        postgres::connect(&self.database_url()).await
    }

    /// A login of this test's own in one of the roles that the migrations make: `relay`,
    /// `operator`, `producer`.
    pub(crate) async fn login(&self, role: &str) -> Login {
        let name = format!("{}_{role}", self.database);
        let create = format!("CREATE ROLE {name} LOGIN IN ROLE postrider_{role}");
        self.postgres.execute("postgres", &create).await.unwrap();
        let url = self.database_url().replace("postgres@", &format!("{name}@"));
        Login { name, url }
    }

    /// A PgBouncer of the test's own before this fixture's Postgres; it takes all its databases.
    ///
    /// `pooler.url(&fixture.database)` is the test's database through it, so the daemon that goes
    /// through it has `fixture.toml().set("database.url", pooler.url(&fixture.database))`.
    pub(crate) async fn pooler(&self, options: PgbouncerOptions) -> Pgbouncer {
        Pgbouncer::start(self.postgres.port(), options).await.unwrap()
    }

    /// A new JetStream client.
    pub(crate) async fn jetstream(&self) -> async_nats::jetstream::Context {
        nats::connect(&self.nats.url()).await
    }

    /// The subject that the relay publishes an event type to.
    pub(crate) fn subject(&self, event_type: &str) -> String {
        format!("{}.{event_type}", self.prefix)
    }

    /// The smallest working configuration for this test.
    pub(crate) fn toml(&self) -> Toml {
        Toml::default()
            .set("database.url", self.database_url())
            .set("nats.url", self.nats.url())
            // All tests share the server, and a busy machine answers late.
            .set("nats.connect_timeout", "30s")
            .set("stream.name", self.stream.as_str())
            .set("stream.subjects", vec![format!("{}.>", self.prefix)])
            .set("stream.create", true)
            // The server reserves what a limit allows, and holds the streams of all tests.
            .set("stream.max_bytes", "0B")
            .set("route.subject", self.subject("{event_type}"))
            .set("admin.listen", "off")
    }

    /// The program with that configuration, not yet started. A stream with one replica is all
    /// that a single server has, so that warning is expected.
    pub(crate) fn daemon(&self) -> DaemonBuilder {
        DaemonBuilder::new(self.toml()).allow_log("the stream has one replica")
    }

    /// Sees every message of this test's subjects from now on, whether a stream takes it or not.
    pub(crate) async fn watch(&self) -> async_nats::Subscriber {
        let client = async_nats::connect(self.nats.url()).await.unwrap();
        let watching = client.subscribe(format!("{}.>", self.prefix)).await.unwrap();
        client.flush().await.unwrap();
        watching
    }

    /// Waits until the relay has opened the wake-up gate: it sleeps, or is about to.
    pub(crate) async fn wait_gate_open(&self, client: &tokio_postgres::Client) {
        let statement = r#"SELECT coalesce(pg_sequence_last_value('"postrider".gate'::regclass), 0)
            > 3 AND coalesce(pg_sequence_last_value('"postrider".wake_until'::regclass), 0)
            > date_part('epoch', clock_timestamp())"#;
        eventually("an open wake-up gate", DEADLINE, async || {
            client.query_one(statement, &[]).await.unwrap().get::<_, bool>(0)
        })
        .await;
    }

    /// The whole stream, read independently of the program under test.
    pub(crate) async fn read_stream(&self) -> Vec<app::StoredMessage> {
        app::read_stream(&self.nats.url(), &self.stream).await
    }

    /// Waits until the stream holds at least `count` messages, then reads all of it.
    pub(crate) async fn wait_stored(
        &self,
        count: u64,
        deadline: Duration,
    ) -> Vec<app::StoredMessage> {
        app::wait_stored(&self.nats.url(), &self.stream, count, deadline).await;
        self.read_stream().await
    }
}

/// A user of the database.
pub(crate) struct Login {
    pub(crate) name: String,
    /// The URL of the test's database for this user.
    pub(crate) url: String,
}

/// A server that all tests share, or one that is this test's to break.
pub(crate) enum Server<T: 'static> {
    Shared(&'static T),
    Own(Box<T>),
}

impl<T> Server<T> {
    /// The server, to be stopped and started.
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

/// What [`eventually`] waits for: `true`, or `Some` value.
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

/// Waits until the database has no session but this one. A statement of a killed program may be
/// executed after its death.
pub(crate) async fn wait_for_other_sessions_to_end(client: &tokio_postgres::Client) {
    eventually("the end of the other sessions", DEADLINE, async || {
        let sessions = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        client.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

/// Checks again and again until the condition is met; the test fails at the deadline.
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

/// Lets time pass, for a fault that strikes at a moment of its own and for a measure over a time.
/// What waits for something waits with [`eventually`].
pub(crate) async fn let_pass(time: Duration) {
    sleep(time).await;
}
