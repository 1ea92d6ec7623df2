//! Tests of outages of NATS: the server is absent, dies or freezes. Events wait, none becomes a
//! dead letter, and all arrive in order.

use std::time::Duration;

use postrider::dev::{checker::Order, servers::NatsOptions, workload::Options};

use super::support::{
    DEADLINE, Fixture, app, audit::steady, daemon::DaemonBuilder, eventually, let_pass,
};

/// The program, which may log the warnings of an outage of NATS.
fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .allow_log("nothing can be published just now")
}

#[tokio::test]
async fn nats_that_is_down_at_the_start_is_waited_for_by_name() {
    let mut fixture = Fixture::own_nats().await;
    fixture.nats.own().kill9().unwrap();
    let mut daemon = daemon(&fixture).admin().start();
    let client = fixture.connect().await;
    for _ in 0..10 {
        app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    }
    daemon.wait_log("waiting for NATS", DEADLINE).await;
    eventually("an answer that names NATS", DEADLINE, async || {
        daemon.get("/readyz").await.is_some_and(|a| a.status == 503 && a.body.contains("nats"))
    })
    .await;
    assert_eq!(daemon.get("/livez").await.unwrap().status, 200);

    fixture.nats.own().start_again().await.unwrap();
    assert_eq!(fixture.wait_stored(10, DEADLINE).await.len(), 10);
    daemon.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_killed_and_started_again_under_load_costs_nothing() {
    let mut fixture = Fixture::own_nats().await;
    let daemon = daemon(&fixture).start();

    let kills = async |fixture: &mut Fixture| {
        let nats = fixture.nats.own();
        for _ in 0..8 {
            let_pass(Duration::from_millis(500)).await;
            nats.kill9().unwrap();
            let_pass(Duration::from_millis(100)).await;
            nats.start_again().await.unwrap();
        }
    };
    let (report, ()) = fixture.under_load(steady(1_000, 100), kills).await;

    assert!(report.committed > 2_000, "{report}");
    assert!(daemon.log().contains("lost the connection to NATS"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_and_the_program_killed_in_turn_cost_nothing() {
    let mut fixture = Fixture::own_nats().await;
    let mut daemon = daemon(&fixture).start();

    let kills = async |fixture: &mut Fixture| {
        let nats = fixture.nats.own();
        for _ in 0..6 {
            let_pass(Duration::from_millis(300)).await;
            nats.kill9().unwrap();
            let_pass(Duration::from_millis(200)).await;
            daemon.kill9();
            nats.start_again().await.unwrap();
            daemon.start_again();
        }
    };
    fixture.under_load(steady(1_000, 100), kills).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_nats_is_noticed_and_what_it_took_is_not_repeated() {
    let mut fixture = Fixture::own_nats().await;
    let daemon = daemon(&fixture)
        .set("nats.ack_timeout", "1s")
        .set("nats.ping_interval", "1s")
        .admin()
        .start();

    let freeze = async |fixture: &mut Fixture| {
        let_pass(Duration::from_millis(500)).await;
        fixture.nats.freeze().unwrap();
        eventually("an answer that is not ready", DEADLINE, async || {
            daemon.get("/readyz").await.is_some_and(|answer| answer.status == 503)
        })
        .await;
        // The freeze is longer than `nats.ack_timeout`, so every message in flight is sent again.
        let_pass(Duration::from_secs(3)).await;
        fixture.nats.thaw().unwrap();
        // The log is not checked here: whether answers or pings fail first is chance.
        daemon.wait_ready().await;
    };
    fixture.under_load(steady(1_000, 100), freeze).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_syncs_every_message_is_waited_for() {
    let nats = NatsOptions { sync_interval: Some("always".to_owned()), ..NatsOptions::default() };
    let fixture = Fixture::with(None, Some(nats)).await;
    let _daemon = daemon(&fixture).start();
    let ledger = fixture.work(Options { events: 1_000, ..Options::default() }).await;
    fixture.audit(&ledger, Order::Serial).await;
}

/// Messages that a frozen broker has not read yet are lost when it dies, so the outbox must still
/// have their events.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_and_not_acknowledged_outlives_both_the_broker_and_the_program() {
    let mut fixture = Fixture::own_nats().await;
    let mut daemon = daemon(&fixture).admin().start();
    let client = fixture.connect().await;
    app::emit(&client, "order.placed", Some(("order", "first")), "{}").await;
    assert_eq!(fixture.wait_stored(1, DEADLINE).await.len(), 1);

    fixture.nats.freeze().unwrap();
    // Ten events are fewer than the window of messages in flight with which a new connection
    // begins.
    for n in 0..10 {
        app::emit(&client, "order.placed", Some(("order", &n.to_string())), "{}").await;
    }
    eventually("ten messages on their way", DEADLINE, async || {
        let answer = daemon.get("/metrics").await;
        answer.is_some_and(|answer| {
            answer.body.contains("\npostrider_in_flight_messages{route=\"default\"} 10\n")
        })
    })
    .await;
    // A second is ten times as long as decided events wait for their settlement.
    let_pass(Duration::from_secs(1)).await;
    daemon.kill9();
    fixture.nats.own().kill9().unwrap();
    fixture.nats.own().start_again().await.unwrap();
    daemon.start_again();
    assert_eq!(fixture.wait_stored(11, DEADLINE).await.len(), 11);
}
