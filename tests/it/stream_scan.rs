//! Tests of the scan of the stream: which events it finds, whose events count, and streams that
//! cannot be scanned.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::{
        Context,
        consumer::{AckPolicy, pull},
        message::PublishMessage,
        stream::{Config, DiscardPolicy, RetentionPolicy},
    },
};
use futures_util::StreamExt as _;
use uuid::Uuid;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::DaemonBuilder,
    eventually,
    postgres::{allow, refuse},
};

/// Argument of [`refuse`] that keeps every event from being settled.
const UNSETTLED: &str = r#"BEFORE UPDATE OF bookmark ON "postrider".position FOR EACH ROW"#;

/// Configuration of a stream as the program creates it, but with a duplicate window of three
/// seconds.
fn sound(fixture: &Fixture) -> Config {
    Config { duplicate_window: Duration::from_secs(3), ..fixture.stream_config() }
}

/// The program, which does not create the stream itself.
fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().set("stream.create", false).set("nats.ack_timeout", "500ms")
}

async fn emit(fixture: &Fixture, count: usize) {
    let client = fixture.connect().await;
    for n in 0..count {
        let key = format!("o-{}", n % 7);
        app::emit(&client, "order.placed", Some(("order", &key)), "{}").await;
    }
}

/// Publishes a message with this id, as another client would. Returns whether the stream recognised
/// the id as a duplicate.
async fn publish_as(jetstream: &Context, subject: String, id: &str) -> bool {
    let publish = PublishMessage::build().message_id(id);
    jetstream.send_publish(subject, publish).await.unwrap().await.unwrap().duplicate
}

/// Waits until the duplicate window is over for every id that the stream has seen so far.
async fn wait_window_over(fixture: &Fixture, jetstream: &Context) {
    let subject = fixture.subject("of.others");
    assert!(!publish_as(jetstream, subject.clone(), "sentinel").await);
    eventually("an id that is recognised no more", DEADLINE, async || {
        !publish_as(jetstream, subject.clone(), "sentinel").await
    })
    .await;
}

/// Former defect: a relay under a new name took the outbox for a new one. It published again what a
/// relay under another name had published.
#[tokio::test]
async fn what_another_name_has_published_is_not_published_again() {
    const ROWS: usize = 2_000;
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    jetstream.create_stream(sound(&fixture)).await.unwrap();
    app::insert_backlog(&fixture.connect().await, 2_000, 50).await;
    let mut first = daemon(&fixture).start();
    fixture.wait_stored(ROWS as u64, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    first.stop().await;
    wait_window_over(&fixture, &jetstream).await;

    let mut other = daemon(&fixture).set("relay.name", "other").start();
    let line = other.wait_log("scanned the stream", DEADLINE).await;
    assert!(line.contains("ours=2000"), "{line}");
    emit(&fixture, 1).await;
    fixture.wait_stored(ROWS as u64 + 3, DEADLINE).await;
    let mut stored = fixture.read_stream().await;
    stored.retain(|message| !message.subject.ends_with("of.others"));
    assert_eq!(stored.len(), ROWS + 1);
}

/// Former defect: the scan remembered the ids of every outbox's events. They filled its memory, and
/// our own ids were forgotten.
#[tokio::test]
async fn of_a_shared_stream_only_our_own_open_events_are_remembered() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    jetstream.create_stream(sound(&fixture)).await.unwrap();
    for seq in 1..=500 {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", Uuid::new_v4().to_string().as_str());
        headers.insert("ce-sequence", format!("{seq:020}").as_str());
        let subject = fixture.subject("of.another.outbox");
        let published = jetstream.publish_with_headers(subject, headers, "{}".into()).await;
        published.unwrap().await.unwrap();
    }
    let client = fixture.connect().await;
    let mut daemon = daemon(&fixture).allow_log("could not settle").start();
    refuse(&client, UNSETTLED).await;
    emit(&fixture, 40).await;
    fixture.wait_stored(540, DEADLINE).await;
    daemon.kill9();
    daemon.start_again();
    let line = daemon.wait_log("scanned the stream", DEADLINE).await;
    assert!(line.contains("messages=540") && line.contains("ours=40"), "{line}");
}

/// Former defect: such a stream refuses the scan's consumer, and publishing paused until the stream
/// was empty. One message that had reached its `max_deliver` kept it from ever being empty.
#[tokio::test]
async fn a_stream_that_removes_what_is_consumed_is_not_scanned_and_publishing_goes_on() {
    for retention in [RetentionPolicy::WorkQueue, RetentionPolicy::Interest] {
        let fixture = Fixture::new().await;
        let jetstream = fixture.jetstream().await;
        let window = Duration::from_mins(10);
        let config = Config { retention, duplicate_window: window, ..sound(&fixture) };
        let stream = jetstream.create_stream(config).await.unwrap();
        let worker = pull::Config {
            durable_name: Some("worker".to_owned()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_millis(100),
            max_deliver: 1,
            ..pull::Config::default()
        };
        let worker = stream.create_consumer(worker).await.unwrap();
        let mut daemon = daemon(&fixture).allow_log("could not settle").start();
        let client = fixture.connect().await;
        refuse(&client, UNSETTLED).await;
        emit(&fixture, 20).await;
        fixture.wait_stored_in(20).await;
        // A single message is delivered as often as it may be, and stays in the stream.
        let poisoned = eventually("a delivery", DEADLINE, async || {
            worker.fetch().max_messages(1).messages().await.unwrap().next().await
        })
        .await;
        poisoned.unwrap();
        daemon.kill9();
        allow(&client).await;
        daemon.start_again();
        let line = daemon.wait_log("it is not scanned", DEADLINE).await;
        assert!(line.contains("INFO"), "{line}");
        emit(&fixture, 20).await;
        fixture.wait_stored_in(40).await;
        assert!(fixture.wait_drained(DEADLINE).await);
    }
}

/// Former defect: whatever refused the scan's consumer, the message said that the user lacked a
/// right.
#[tokio::test]
async fn a_stream_without_room_for_a_consumer_says_so_and_goes_on_once_there_is_room() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    let stream =
        jetstream.create_stream(Config { max_consumers: 1, ..sound(&fixture) }).await.unwrap();
    let name = Some("only".to_owned());
    let only = pull::Config { durable_name: name, ..pull::Config::default() };
    stream.create_consumer(only).await.unwrap();
    let mut daemon = daemon(&fixture)
        .allow_log("nothing can be published just now")
        .allow_log("could not settle")
        .start();
    let client = fixture.connect().await;
    refuse(&client, UNSETTLED).await;
    emit(&fixture, 20).await;
    fixture.wait_stored_in(20).await;
    daemon.kill9();
    allow(&client).await;
    emit(&fixture, 20).await;
    daemon.start_again();
    let line = daemon.wait_log("nothing can be published just now", DEADLINE).await;
    assert!(line.contains("maximum consumers") && line.contains("raise max_consumers"), "{line}");
    assert!(!line.contains("user"), "{line}");
    stream.delete_consumer("only").await.unwrap();
    fixture.wait_stored_in(40).await;
    assert!(fixture.wait_drained(DEADLINE).await);
}

/// Former defect: after the broker was restored, versions 1 to 4 of a value were published after
/// version 5.
#[tokio::test]
async fn of_a_stream_of_last_values_no_old_value_is_published_on_top_of_a_new_one() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    let last =
        Config { max_messages_per_subject: 1, discard: DiscardPolicy::Old, ..sound(&fixture) };
    let stream = jetstream.create_stream(last).await.unwrap();
    let mut daemon = daemon(&fixture)
        .set("route.subject", format!("{}.{{aggregate_id}}", fixture.prefix))
        .allow_log("drops its oldest messages")
        .allow_log("could not settle")
        .start();
    let client = fixture.connect().await;
    // The refusal keeps all events unsettled although they are stored, so the next run reads all of
    // them again.
    refuse(&client, UNSETTLED).await;
    for version in 1..=5 {
        let payload = format!(r#"{{"version":{version}}}"#);
        app::emit(&client, "value.set", Some(("value", "v-1")), &payload).await;
    }
    eventually("the fifth version", DEADLINE, async || {
        stream.get_info().await.unwrap().state.last_sequence == 5
    })
    .await;
    daemon.kill9();
    allow(&client).await;
    wait_window_over(&fixture, &jetstream).await;
    app::emit(&client, "value.set", Some(("value", "v-2")), r#"{"version":1}"#).await;
    daemon.start_again();
    assert!(fixture.wait_drained(DEADLINE).await);
    let value = async |name: &str| {
        let subject = format!("{}.{name}", fixture.prefix);
        stream.get_last_raw_message_by_subject(&subject).await.unwrap()
    };
    assert_eq!(value("v-1").await.payload, r#"{"version":5}"#);
    assert_eq!(value("v-1").await.sequence, 5, "nothing was published again");
    assert_eq!(value("v-2").await.payload, r#"{"version":1}"#);
}

impl Fixture {
    /// Waits until the stream's last sequence reaches `last`. Messages cannot be counted, because
    /// consumed ones are gone.
    async fn wait_stored_in(&self, last: u64) {
        let stream = self.jetstream().await.get_stream(&self.stream).await.unwrap();
        eventually(format!("a last sequence of {last}"), DEADLINE, async || {
            stream.get_info().await.unwrap().state.last_sequence >= last
        })
        .await;
    }
}
