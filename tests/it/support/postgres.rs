//! Starts the Postgres that all tests share, and creates a migrated database for each test.

use std::fmt::Display;

use postrider::dev::servers::{Postgres, PostgresOptions};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use super::{daemon, toml::Toml};

const TEMPLATE: &str = "postrider_template";

/// The shared server, once it is started. It is never dropped; its guard stops it when the test
/// program ends.
static SHARED: OnceCell<Postgres> = OnceCell::const_new();

/// Options of a server without two-phase commit, which is how most servers are set up. Where
/// two-phase commit is allowed, inserts do not notify the relay, and it polls.
pub(crate) fn without_two_phase_commit() -> PostgresOptions {
    PostgresOptions { max_prepared_transactions: 0, ..PostgresOptions::default() }
}

/// Creates a migrated database of this name on the shared server. Returns the server.
pub(crate) async fn shared_with(database: &str) -> &'static Postgres {
    let server = SHARED
        .get_or_init(|| async {
            let server = Postgres::start(without_two_phase_commit()).await.unwrap();
            create_migrated(&server, TEMPLATE).await;
            server
        })
        .await;
    let create = format!("CREATE DATABASE {database} TEMPLATE {TEMPLATE}");
    server.execute("postgres", &create).await.unwrap();
    server
}

/// Creates a database and runs `postrider migrate` on it.
pub(crate) async fn create_migrated(server: &Postgres, database: &str) {
    server.execute("postgres", &format!("CREATE DATABASE {database}")).await.unwrap();
    let toml = Toml::default()
        .set("database.url", server.url(database))
        .set("nats.url", "nats://127.0.0.1:1")
        .set("stream.name", "UNUSED")
        .set("stream.subjects", vec!["events.>"]);
    let migrated = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "postrider migrate: {migrated:?}");
}

/// Opens a session. A task drives its connection until the client is dropped.
#[expect(clippy::disallowed_methods, reason = "the program's tasks are not the tests' tasks")]
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    // An error of the connection is ignored here, because the client's next statement reports it.
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// Changes settings of the server, and asks it to reload them. The server does so a moment later.
pub(crate) async fn alter_system(server: &Postgres, settings: &[(&str, impl Display)]) {
    for (name, value) in settings {
        let set = format!("ALTER SYSTEM SET {name} = '{value}'");
        server.execute("postgres", &set).await.unwrap();
    }
    server.execute("postgres", "SELECT pg_reload_conf()").await.unwrap();
}

/// Makes Postgres refuse a kind of statement, with an error after which the relay tries again.
/// `when` is the head of a trigger, which selects the statement. [`allow`] undoes it.
pub(crate) async fn refuse(client: &Client, when: &str) {
    let statement = format!(
        "CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE 'not just now' USING ERRCODE = 'serialization_failure'; END$$;
        CREATE TRIGGER refused {when} EXECUTE FUNCTION public.refuse()"
    );
    client.batch_execute(&statement).await.unwrap();
}

/// Undoes [`refuse`].
pub(crate) async fn allow(client: &Client) {
    client.batch_execute("DROP FUNCTION public.refuse() CASCADE").await.unwrap();
}
