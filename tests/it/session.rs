//! Tests of a Postgres session: its settings, its end, and the errors that a caller gets.

use std::time::Duration;

use postrider::{
    config::{DatabaseConfig, secret::SecretUrl, value::HumanDuration},
    dev::servers::{Postgres, PostgresOptions, free_port},
    pg::{
        connect::{Connection, connect},
        error::{Class, QueryError},
    },
};
use tokio::{
    net::TcpListener,
    sync::OnceCell,
    time::{Instant, timeout},
};

use crate::support::{
    DEADLINE, eventually, postgres,
    proxy::{Mode, Modes, Proxy},
};

fn config(url: impl Into<String>) -> DatabaseConfig {
    DatabaseConfig { url: SecretUrl::new(url.into()), ..DatabaseConfig::default() }
}

/// A shared server whose settings no test changes. Its guard stops it when the test program ends.
pub(crate) async fn plain_server() -> &'static Postgres {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_init(start).await
}

async fn start() -> Postgres {
    Postgres::start(PostgresOptions::default()).await.unwrap()
}

async fn backend(connection: &Connection) -> i32 {
    let asked = "SELECT pg_catalog.pg_backend_pid()";
    connection.query(asked, &[]).await.unwrap()[0].get(0)
}

async fn setting(connection: &Connection, name: &str) -> String {
    let asked = "SELECT pg_catalog.current_setting($1::text)";
    connection.query(asked, &[&name]).await.unwrap()[0].get(0)
}

#[tokio::test]
async fn session_has_its_limits_and_a_name_that_dbas_see() {
    let server = plain_server().await;
    let connection =
        connect(&config(server.url("postgres")), "relay", &[("synchronous_commit", "off")])
            .await
            .unwrap();
    for (name, value) in [
        ("application_name", "postrider/relay"),
        ("search_path", "\"\""),
        ("statement_timeout", "5s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
        ("client_encoding", "UTF8"),
        ("synchronous_commit", "off"),
    ] {
        let found = setting(&connection, name).await;
        // An empty path is shown with or without quotes, depending on the version of Postgres.
        assert!(found == value || (found.is_empty() && value == "\"\""), "{name}: {found}");
    }
    let named = config(format!("{}?application_name=mine", server.url("postgres")));
    let connection = connect(&named, "relay", &[("statement_timeout", "0")]).await.unwrap();
    assert_eq!(setting(&connection, "application_name").await, "mine");
    assert_eq!(setting(&connection, "statement_timeout").await, "0");
}

#[tokio::test]
async fn notification_reaches_who_waits() {
    let server = plain_server().await;
    let connection = connect(&config(server.url("postgres")), "relay", &[]).await.unwrap();
    connection.execute("LISTEN bell").await.unwrap();
    let waiting = connection.notified.notified();
    server.execute("postgres", "NOTIFY bell").await.unwrap();
    timeout(DEADLINE, waiting).await.unwrap();
}

#[tokio::test]
async fn terminated_session_is_noticed_without_a_statement() {
    let server = plain_server().await;
    let connection = connect(&config(server.url("postgres")), "relay", &[]).await.unwrap();
    let terminate = format!("SELECT pg_terminate_backend({})", backend(&connection).await);
    server.execute("postgres", &terminate).await.unwrap();
    timeout(DEADLINE, connection.closed()).await.unwrap();
    assert!(connection.ending().unwrap().contains("57P01"), "{:?}", connection.ending());
    let error = connection.execute("SELECT 1").await.unwrap_err();
    assert_eq!(error.class(), Class::SessionLost, "{error}");
}

#[tokio::test]
async fn slow_statement_is_given_up_by_the_server_and_the_session_lives() {
    let server = plain_server().await;
    let query_timeout = HumanDuration(Duration::from_millis(200));
    let config = DatabaseConfig { query_timeout, ..config(server.url("postgres")) };
    let connection = connect(&config, "relay", &[]).await.unwrap();
    let error = connection.execute("SELECT pg_catalog.pg_sleep(60)").await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(error.to_string().contains("57014"), "{error}");
    assert!(connection.execute("SELECT 1").await.is_ok());
}

// A driver that waits for its server would keep the session for ever, and with it the relay's
// leadership.
#[tokio::test]
async fn silent_server_costs_the_session_and_our_side_lets_go_of_it() {
    let server = plain_server().await;
    let proxy = Proxy::start(server.port()).await.unwrap();
    let url = format!("postgresql://postgres@127.0.0.1:{}/postgres", proxy.port());
    let query_timeout = HumanDuration(Duration::from_millis(200));
    let config = DatabaseConfig { query_timeout, ..config(url) };
    let connection = connect(&config, "relay", &[]).await.unwrap();

    // From here on no bytes pass in either direction.
    proxy.set(Modes::both(Mode::Hold));
    let error = connection.execute("SELECT 1").await.unwrap_err();
    drop(connection);

    assert!(matches!(error, QueryError::Timeout { .. }), "{error}");
    assert_eq!(error.class(), Class::SessionLost);
    eventually("the end of our side", DEADLINE, async || proxy.clients() == 0).await;
}

#[tokio::test]
async fn host_that_cannot_write_is_passed_over() {
    let standby = start().await;
    postgres::alter_system(&standby, &[("default_transaction_read_only", "on")]).await;
    let observer = postgres::connect(&standby.url("postgres")).await;
    eventually("the setting", DEADLINE, async || {
        let shown = observer.query_one("SHOW default_transaction_read_only", &[]).await.unwrap();
        shown.get::<_, &str>(0) == "on"
    })
    .await;
    let primary = plain_server().await;
    let (nobody, first, second) = (free_port().unwrap(), standby.port(), primary.port());
    let url = format!(
        "postgresql://postgres@127.0.0.1:{nobody},127.0.0.1:{first},127.0.0.1:{second}/postgres"
    );
    let connection = connect(&config(url), "relay", &[]).await.unwrap();
    let port: i32 = setting(&connection, "port").await.parse().unwrap();
    assert_eq!(port, i32::from(second));

    let url = format!("postgresql://postgres@127.0.0.1:{nobody},127.0.0.1:{first}/postgres");
    let error = connect(&config(url), "relay", &[]).await.err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&format!("127.0.0.1:{nobody}: error connecting to server: ")), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{first}: server is a standby or read-only")));
    assert!(error.hint().unwrap().contains("primary"));
}

#[tokio::test]
async fn server_that_accepts_and_says_nothing_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let connect_timeout = HumanDuration(Duration::from_millis(300));
    let url = format!("postgresql://postgres@{address}/postgres");
    let config = DatabaseConfig { connect_timeout, ..config(url) };
    let started = Instant::now();
    let error = connect(&config, "relay", &[]).await.err().unwrap();
    assert!(started.elapsed() < DEADLINE);
    assert_eq!(error.to_string(), format!("{address}: no session within 300ms"));
    assert_eq!(error.class(), Class::SessionLost);
}

#[tokio::test]
async fn missing_table_and_missing_grant_say_what_to_run() {
    let server = plain_server().await;
    server.execute("postgres", "CREATE ROLE nobody LOGIN; CREATE TABLE secret ()").await.unwrap();
    let url = server.url("postgres").replace("postgres@", "nobody@");
    let connection = connect(&config(url), "relay", &[]).await.unwrap();
    for (statement, class, text) in [
        ("SELECT FROM \"postrider\".outbox", Class::Schema, "42P01"),
        ("SELECT FROM public.secret", Class::Permission, "permission denied for table secret"),
    ] {
        let asked = connection.execute(statement).await;
        let error = asked.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert!(error.class().hint().unwrap().contains("postrider migrate"));
    }
}

// The DETAIL of a violated constraint contains the whole row, and with it the payload.
#[tokio::test]
async fn error_about_a_row_does_not_show_the_row() {
    let server = plain_server().await;
    server.execute("postgres", "CREATE TABLE kept (n int CHECK (n > 0))").await.unwrap();
    let connection = connect(&config(server.url("postgres")), "relay", &[]).await.unwrap();
    let insert = "INSERT INTO public.kept VALUES (-424242)";
    let error = connection.execute(insert).await.unwrap_err().to_string();
    assert_eq!(error, "constraint violated (23514) at public.kept.kept_n_check");
    let cast = "SELECT 's3cret'::int";
    let error = connection.execute(cast).await.unwrap_err().to_string();
    assert_eq!(error, "invalid data (22P02) at a value");
}

// Former defect: log and status said "connection closed", whatever reason the server had given.
#[tokio::test]
async fn session_that_the_server_ends_keeps_the_servers_reason() {
    let server = plain_server().await;
    let reason = "terminating connection due to administrator command (57P01)";
    for is_busy in [false, true] {
        let connection = connect(&config(server.url("postgres")), "ended", &[]).await.unwrap();
        let pid = backend(&connection).await;
        let end = format!("SELECT pg_terminate_backend({pid})");
        let ((), ended) = tokio::join!(
            async {
                if is_busy {
                    assert!(connection.execute("SELECT pg_catalog.pg_sleep(60)").await.is_err());
                }
                connection.closed().await;
            },
            async {
                let is_asleep = format!(
                    "SELECT 1 / count(*) FROM pg_stat_activity
                     WHERE pid = {pid} AND (wait_event = 'PgSleep') = {is_busy}"
                );
                eventually("its state", DEADLINE, async || {
                    server.execute("postgres", &is_asleep).await.is_ok()
                })
                .await;
                server.execute("postgres", &end).await
            }
        );
        ended.unwrap();
        assert_eq!(connection.ending(), Some(reason), "busy: {is_busy}");
    }
}
