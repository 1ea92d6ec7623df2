//! Tests of the admin listener of the real program: health, metrics and status while servers come
//! and go.

use std::net::TcpListener;

use postrider::dev::servers::{NatsOptions, free_port};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, DaemonBuilder},
    eventually,
    toml::Toml,
};

/// A configuration whose Postgres and NATS do not exist.
fn toml() -> Toml {
    Toml::default()
        .set("database.url", "postgresql://postgres@127.0.0.1:1/postgres")
        .set("nats.url", "nats://127.0.0.1:1")
        .set("stream.name", "NOWHERE")
        .set("stream.subjects", vec!["events.>"])
}

/// The program with its admin listener. The warning about a stream with one replica is expected.
fn relay(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().admin().allow_log("one replica")
}

/// Waits until `/readyz` answers with this status and text. `/livez` must answer 200 all the time.
async fn wait_ready(daemon: &Daemon, status: u16, text: &str) {
    eventually(format!("/readyz {status} {text}"), DEADLINE, async || {
        if let Some(alive) = daemon.get("/livez").await {
            assert_eq!((alive.status, alive.body.as_str()), (200, "ok\n"));
        }
        let ready = daemon.get("/readyz").await;
        ready.is_some_and(|ready| ready.status == status && ready.body.contains(text))
    })
    .await;
}

async fn json(daemon: &Daemon, path: &str) -> Value {
    serde_json::from_str(&daemon.get(path).await.unwrap().body).unwrap()
}

#[tokio::test]
async fn readiness_follows_postgres_and_liveness_does_not() {
    let mut fixture = Fixture::own_postgres().await;
    let daemon = relay(&fixture)
        .allow_log("the relay stopped leading")
        .allow_log("waiting for Postgres")
        .start();
    wait_ready(&daemon, 200, "ready").await;
    assert!(
        daemon.metric(r#"postrider_dependency_up{route="default",dependency="postgres"}"#).await
            > 0.0
    );

    fixture.postgres.own().stop_fast().await.unwrap();
    wait_ready(&daemon, 503, "postgres_down").await;
    let verbose = json(&daemon, "/readyz?verbose").await;
    let detail = verbose["dependencies"][0]["detail"].as_str().unwrap();
    assert!(!detail.is_empty(), "{verbose}");
    assert!(
        daemon.metric(r#"postrider_dependency_up{route="default",dependency="postgres"}"#).await
            < 1.0
    );

    fixture.postgres.own().start_again().await.unwrap();
    wait_ready(&daemon, 200, "ready").await;
    let reconnects =
        r#"postrider_dependency_reconnects_total{route="default",dependency="postgres"}"#;
    assert!(daemon.metric(reconnects).await >= 1.0);
}

#[tokio::test]
async fn readiness_follows_nats_and_liveness_does_not() {
    let mut fixture = Fixture::with(None, Some(NatsOptions::default())).await;
    let daemon = relay(&fixture).allow_log("NATS").start();
    wait_ready(&daemon, 200, "ready").await;

    fixture.nats.own().kill9().unwrap();
    wait_ready(&daemon, 503, "nats").await;

    fixture.nats.own().start_again().await.unwrap();
    wait_ready(&daemon, 200, "ready").await;
}

#[tokio::test]
async fn program_without_any_server_lives_and_says_what_it_waits_for() {
    let (postgres, nats) = (free_port().unwrap(), free_port().unwrap());
    let daemon = DaemonBuilder::new(toml())
        .set("database.url", format!("postgresql://app:s3cret@127.0.0.1:{postgres}/app"))
        .set("nats.url", format!("nats://app:s3cret@127.0.0.1:{nats}"))
        .admin()
        .allow_log("waiting for Postgres")
        .allow_log("contains a secret")
        .start();
    wait_ready(&daemon, 503, "postgres_down").await;
    let verbose = daemon.get("/readyz?verbose").await.unwrap().body;
    assert!(verbose.contains(&format!("127.0.0.1:{postgres}: ")), "{verbose}");
    let status = daemon.get("/api/v1/status").await.unwrap().body;
    let metrics = daemon.get("/metrics").await.unwrap().body;
    for text in [verbose, status, metrics, daemon.log()] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test]
async fn metrics_count_what_was_published() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 250, 10).await;
    let daemon = relay(&fixture).start();
    fixture.wait_stored(250, DEADLINE).await;
    let published = r#"postrider_messages_published_total{route="default"}"#;
    eventually("250 confirmations", DEADLINE, async || daemon.metric(published).await >= 250.0)
        .await;
    for (series, least) in [
        (r#"postrider_rows_fetched_total{route="default",table="outbox"}"#, 250.0),
        (r#"postrider_publish_duration_seconds_count{route="default"}"#, 250.0),
        (r#"postrider_delivery_latency_seconds_count{route="default"}"#, 250.0),
        (r#"postrider_last_published_timestamp_seconds{route="default"}"#, 1.0),
        (r#"postrider_batch_messages_count{route="default"}"#, 1.0),
        (r#"postrider_database_query_duration_seconds_count{query="fetch"}"#, 2.0),
        (r#"postrider_database_query_duration_seconds_count{query="settle"}"#, 1.0),
        (r#"postrider_database_query_duration_seconds_count{query="lock"}"#, 2.0),
        (r#"postrider_database_query_duration_seconds_count{query="depth"}"#, 1.0),
        (r#"postrider_database_query_duration_seconds_count{query="retention"}"#, 1.0),
        (r#"postrider_leader{route="default"}"#, 1.0),
        (r#"postrider_dependency_up{route="default",dependency="nats"}"#, 1.0),
        (r#"postrider_circuit_state{route="default",dependency="nats",state="closed"}"#, 1.0),
        ("process_resident_memory_bytes", 1.0),
    ] {
        eventually((series, least), DEADLINE, async || daemon.metric(series).await >= least).await;
    }
    let status = json(&daemon, "/api/v1/status").await;
    assert_eq!(status["phase"], "relaying", "{status}");
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn only_our_own_names_are_answered() {
    let fixture = Fixture::new().await;
    let port = free_port().unwrap();
    let daemon = relay(&fixture)
        .set("admin.listen", format!("127.0.0.1:{port}"))
        .set("admin.hosts", vec!["relay.internal"])
        .start();
    let ask = async |host: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        answer.split_whitespace().nth(1).map(str::to_owned)
    };
    eventually("the listener", DEADLINE, async || ask("localhost").await).await;
    assert_eq!(ask("localhost").await.as_deref(), Some("200"));
    assert_eq!(ask(&format!("127.0.0.1:{port}")).await.as_deref(), Some("200"));
    assert_eq!(ask(&format!("relay.internal:{port}")).await.as_deref(), Some("200"));
    assert_eq!(ask("rebound.example").await.as_deref(), Some("421"));
    drop(daemon);
}

// Former defect: when the port was taken, the program exited with a code after which systemd does
// not start it again.
#[tokio::test]
async fn taken_port_delays_no_event_and_is_bound_once_it_is_free() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 10, 10).await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut daemon = relay(&fixture)
        .listening(address.port())
        .allow_log("health and metrics are not served; trying again")
        .start();
    let line = daemon.wait_log("health and metrics are not served", DEADLINE).await;
    assert!(line.contains(&format!("admin.listen {address}: ")), "{line}");
    assert!(line.contains("another process listens there"), "{line}");
    fixture.wait_stored(10, DEADLINE).await;
    drop(taken);
    wait_ready(&daemon, 200, "ready").await;
}
