//! Tests of the throwaway servers: they keep their port and data over restarts, and end when their
//! owner ends.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use postrider::dev::servers::{
    Guard, Nats, NatsOptions, Postgres, PostgresOptions, Signal, free_port,
};

use crate::support::{DEADLINE, app, eventually, nats, postgres};

#[tokio::test]
async fn postgres_keeps_port_and_data_through_every_kind_of_stop() {
    let mut server = Postgres::start(PostgresOptions::default()).await.unwrap();
    let port = server.port();
    server
        .execute("postgres", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
        .await
        .unwrap();

    server.kill9().unwrap();
    assert_eq!(server.pid(), None);
    server.start_again().await.unwrap();
    server.stop_fast().await.unwrap();
    server.start_again().await.unwrap();
    server.stop_immediate().await.unwrap();
    server.start_again().await.unwrap();

    assert_eq!(server.port(), port);
    let client = postgres::connect(&server.url("postgres")).await;
    let row = client.query_one("SELECT n FROM kept", &[]).await.unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
}

#[tokio::test]
async fn a_wanted_port_is_taken_while_it_is_free() {
    let port = free_port().unwrap();
    let wanted = || NatsOptions { port: Some(port), ..NatsOptions::default() };
    let first = Nats::start(wanted()).await.unwrap();
    assert_eq!(first.port(), port);
    let second = Nats::start(wanted()).await.unwrap();
    assert_ne!(second.port(), port);
}

#[tokio::test]
async fn nats_keeps_port_and_store_when_killed() {
    let mut server = Nats::start(NatsOptions::default()).await.unwrap();
    let jetstream = nats::connect(&server.url()).await;
    nats::create_stream(&jetstream, "KEPT", "kept.>").await;
    jetstream.publish("kept.one", "body".into()).await.unwrap().await.unwrap();

    let port = server.port();
    server.kill9().unwrap();
    server.start_again().await.unwrap();

    assert_eq!(server.port(), port);
    let messages = app::read_stream(&server.url(), "KEPT").await;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].subject, "kept.one");
    assert_eq!(messages[0].payload.as_ref(), b"body");
}

#[tokio::test]
async fn a_dropped_server_leaves_neither_process_nor_directory() {
    let server = Nats::start(NatsOptions::default()).await.unwrap();
    let log = server.log_path();
    let address = ("127.0.0.1", server.port());
    assert!(log.exists());
    drop(server);
    assert!(!log.parent().unwrap().exists());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[test]
fn the_guard_ends_what_it_watches_once_its_pipe_closes() {
    let directory = tempfile::tempdir().unwrap().keep();
    let mut guard = Guard::start(Signal::Terminate, &directory).unwrap();
    let mut sleep = Command::new("sleep");
    let mut child = sleep.arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    guard.watch(child.id()).unwrap();
    // Dropping the guard closes its pipe, as the kernel does when the owner is killed. The drop
    // waits until the child has ended, so another thread collects the child's exit code.
    let collector = std::thread::spawn(move || child.wait().unwrap());
    drop(guard);
    assert!(!collector.join().unwrap().success());
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_frozen_nats_server_is_silent_until_it_is_thawed() {
    let server = Nats::start(NatsOptions::default()).await.unwrap();
    let jetstream = nats::connect(&server.url()).await;
    server.freeze().unwrap();
    // The signal needs a moment to reach every thread of the server.
    eventually("a silent server", DEADLINE, async || {
        let answer = tokio::time::timeout(Duration::from_millis(200), jetstream.query_account());
        answer.await.is_err()
    })
    .await;
    server.thaw().unwrap();
    jetstream.query_account().await.unwrap();
}
