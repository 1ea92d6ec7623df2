//! Tests of stopping: events that were committed before the stop are published first, and events
//! that cannot be published do not delay the stop.

use std::time::Duration;

use postrider::dev::{random::Random, stream_reader::count_messages};

use super::support::{DEADLINE, Fixture, app, eventually, let_pass, stopwatch::Stopwatch};

/// Longest time for a stop. It is far more than the last sweep takes, and far less than
/// `shutdown.grace` and `idle_interval`.
const SOON: Duration = Duration::from_secs(4);

#[tokio::test]
async fn a_stop_publishes_what_was_committed_before_it_and_is_quick() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let jetstream = fixture.jetstream().await;
    let mut random = Random::new(11);
    let mut daemon = fixture.daemon().admin().set("relay.idle_interval", "10s").start();
    for round in 1..=25 {
        daemon.wait_ready().await;
        // The relay is busy, falling asleep or asleep at the moment of the stop.
        let_pass(Duration::from_micros(random.between(0, 200_000).into())).await;
        app::insert_backlog(&client, 100, 10).await;
        daemon.terminate();
        let watch = Stopwatch::start();
        assert_eq!(daemon.wait_exit(DEADLINE).await, Some(0));
        let took = watch.stop();
        assert!(took < SOON, "round {round}: stopped after {took:?}");
        let stored = count_messages(&jetstream, &fixture.stream).await.unwrap();
        assert_eq!(stored, round * 100, "round {round}");
        assert_eq!(fixture.unsettled(&client).await, Some(0), "round {round}");
        daemon.start_again();
    }
}

#[tokio::test]
async fn a_stop_during_a_backlog_ends_within_its_grace_and_the_next_run_goes_on() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 200_000, 1_000).await;
    let jetstream = fixture.jetstream().await;
    let count = async || count_messages(&jetstream, &fixture.stream).await.unwrap();
    let mut daemon =
        fixture.daemon().set("shutdown.grace", "1s").allow_log("shutdown.grace is over").start();
    eventually("a first few", DEADLINE, async || count().await > 2_000).await;
    daemon.terminate();
    let watch = Stopwatch::start();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(0));
    let took = watch.stop();
    assert!(took < SOON, "stopped after {took:?}");
    assert!(count().await < 200_000, "the machine is too quick for this test");

    daemon.start_again();
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(count().await, 200_000);
}

#[tokio::test]
async fn a_stop_while_nats_is_down_does_not_wait_for_it() {
    let mut fixture = Fixture::own_nats().await;
    let client = fixture.connect().await;
    let mut daemon = fixture
        .daemon()
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .start();
    app::insert_backlog(&client, 100, 10).await;
    assert!(fixture.wait_drained(DEADLINE).await || fixture.wait_drained(DEADLINE).await);
    fixture.nats.own().kill9().unwrap();
    app::insert_backlog(&client, 100, 10).await;
    daemon.wait_log("lost the connection to NATS", DEADLINE).await;
    daemon.terminate();
    let watch = Stopwatch::start();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(0));
    let took = watch.stop();
    assert!(took < SOON, "stopped after {took:?}");

    fixture.nats.own().start_again().await.unwrap();
    daemon.start_again();
    assert_eq!(fixture.wait_stored(200, DEADLINE).await.len(), 200);
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let fixture = Fixture::own_nats().await;
    let client = fixture.connect().await;
    let mut daemon = fixture
        .daemon()
        .set("nats.ack_timeout", "60s")
        .set("nats.ping_interval", "60s")
        .set("shutdown.grace", "10m")
        .allow_log("stopping at once")
        .start();
    app::insert_backlog(&client, 100, 10).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    fixture.nats.freeze().unwrap();
    app::insert_backlog(&client, 100, 10).await;
    daemon.terminate();
    daemon.wait_log("a second signal stops at once", DEADLINE).await;
    // The relay waits for acknowledgements that the frozen broker does not send.
    let_pass(Duration::from_secs(1)).await;
    daemon.wait_log("stopping", DEADLINE).await;
    daemon.terminate();
    let watch = Stopwatch::start();
    let code = daemon.wait_exit(DEADLINE).await;
    let took = watch.stop();
    assert!(took < SOON, "stopped after {took:?}");
    assert!(code.is_some(), "it ended by itself, not by the signal");

    fixture.nats.thaw().unwrap();
    daemon.start_again();
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(fixture.read_stream().await.len(), 200);
}
