//! Tests of what a refusal by the broker affects: one subject, one request, one JetStream domain,
//! or everything.

use async_nats::jetstream::stream::Config;
use postrider::dev::servers::{Nats, NatsOptions, free_port};

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, DaemonBuilder, run},
    disk::SmallDisk,
    eventually, nats,
};

fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().set("stream.create", false).admin()
}

async fn emit(fixture: &Fixture, event_type: &str, key: &str, count: usize) {
    let client = fixture.connect().await;
    for _ in 0..count {
        app::emit(&client, event_type, Some(("order", key)), "{}").await;
    }
}

async fn wait_ready(daemon: &Daemon, body: &str) {
    eventually(format!("{body:?} of /readyz"), DEADLINE, async || {
        daemon.get("/readyz").await.is_some_and(|answer| answer.body.contains(body))
    })
    .await;
}

/// Waits until `/readyz` answers 200, whatever findings there are.
async fn wait_flowing(daemon: &Daemon) {
    eventually("readiness", DEADLINE, async || {
        daemon.get("/readyz").await.is_some_and(|answer| answer.status == 200)
    })
    .await;
}

/// Former defect: one full subject closed the publishing gate for all subjects.
#[tokio::test]
async fn a_full_subject_makes_only_its_own_events_wait() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    let config = Config {
        max_messages_per_subject: 10,
        discard_new_per_subject: true,
        ..fixture.stream_config()
    };
    let stream = jetstream.create_stream(config).await.unwrap();
    let mut daemon = daemon(&fixture)
        .set("route.attempts", 2)
        .allow_log("the broker refused a message for now; the relay tries it again")
        .start();
    emit(&fixture, "narrow", "n-1", 15).await;
    for n in 0..5 {
        emit(&fixture, "wide", &format!("w-{n}"), 2).await;
    }
    let line = daemon.wait_log("messages per subject", DEADLINE).await;
    assert!(line.contains(&fixture.subject("narrow")), "{line}");
    // Events of other subjects are stored. The waiting events are retrying letters, and never die
    // however often they are tried.
    fixture.wait_stored(20, DEADLINE).await;
    let client = fixture.connect().await;
    let tried = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'retrying'
        AND error_code = 'subject_full' AND last_failed_at > first_failed_at + interval '2 s'"#;
    eventually("a letter that was tried again and again", DEADLINE, async || {
        client.query_one(tried, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let dead = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'dead'"#;
    assert_eq!(client.query_one(dead, &[]).await.unwrap().get::<_, i64>(0), 0);
    wait_flowing(&daemon).await;
    assert!(!daemon.log().contains("nothing can be published"), "{}", daemon.log());

    stream.purge().filter(fixture.subject("narrow")).await.unwrap();
    eventually("all of them", DEADLINE, async || {
        stream.get_info().await.unwrap().state.last_sequence == 25
    })
    .await;
    assert!(fixture.wait_drained(DEADLINE).await);
}

/// Configuration of a NATS server with two users: one for the tests, who may do everything, and one
/// for the program.
fn accounts(denied: &str) -> String {
    format!(
        "authorization {{ users: [\n\
         {{ user: everyone, password: everything }}\n\
         {{ user: relay, password: secret, permissions {{ publish: {{ deny: [{denied}] }} }} }}\n\
         ] }}\nno_auth_user: everyone\n"
    )
}

async fn with_denied(denied: &str) -> Fixture {
    let options = NatsOptions { extra: accounts(denied), ..NatsOptions::default() };
    Fixture::with(None, Some(options)).await
}

fn as_relay(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().admin().set("nats.user", "relay").set("nats.password", "secret")
}

/// Former defect: a denied request to JetStream closed the publishing gate, even when no event
/// depended on that request.
#[tokio::test]
async fn a_denied_request_that_is_not_needed_is_named_and_stops_nothing() {
    let mut fixture = with_denied("\"$JS.API.STREAM.MSG.GET.>\", \"$JS.API.DIRECT.GET.>\"").await;
    let mut daemon = as_relay(&fixture)
        .allow_log("forbids a request of the relay")
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .start();
    emit(&fixture, "order.placed", "o-1", 5).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    // After a reconnection the relay compares the last acknowledged message, and its user may not
    // read it.
    fixture.nats.own().stop().await.unwrap();
    fixture.nats.own().start_again().await.unwrap();
    let line = daemon.wait_log("forbids a request of the relay", DEADLINE).await;
    assert!(line.contains("MSG.GET") || line.contains("DIRECT.GET"), "{line}");
    emit(&fixture, "order.placed", "o-1", 5).await;
    fixture.wait_stored(10, DEADLINE).await;
    wait_flowing(&daemon).await;
    assert!(!daemon.log().contains("nothing can be published"), "{}", daemon.log());
}

#[tokio::test]
async fn a_denied_request_that_is_needed_is_named_at_once() {
    let mut fixture = with_denied("\"$JS.API.CONSUMER.CREATE.>\"").await;
    // The stream has messages and the events are not settled, so the relay has to scan the stream
    // first.
    emit(&fixture, "order.placed", "o-1", 5).await;
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    let published = jetstream.publish(fixture.subject("of.others"), "{}".into()).await.unwrap();
    published.await.unwrap();
    let mut daemon = as_relay(&fixture)
        .allow_log("nothing can be published just now")
        .allow_log("lost the connection to NATS")
        .start();
    let line = daemon.wait_log("nothing can be published just now", DEADLINE).await;
    assert!(line.contains("permission_denied"), "{line}");
    assert!(line.contains("$JS.API.CONSUMER.CREATE") && line.contains("allow this user"), "{line}");
    wait_ready(&daemon, "permission_denied").await;
    fixture.nats.own().options_mut().extra = accounts("\"nothing.at.all\"");
    fixture.nats.reload().await.unwrap();
    fixture.wait_stored(6, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
}

/// Former defect: the broker's disk was full for minutes and no publish was answered, but no
/// problem was reported.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stores_nothing_although_it_answers_closes_a_gate_of_its_own() {
    let disk = SmallDisk::mount("32m").expect("root, to mount a file system");
    let options = NatsOptions { parent: Some(disk.path().to_owned()), ..NatsOptions::default() };
    let mut fixture = Fixture::with(None, Some(options)).await;
    let mut daemon = fixture
        .daemon()
        .admin()
        .set("nats.ack_timeout", "1s")
        .allow_log("nothing can be published just now")
        .allow_log("lost the connection to NATS")
        .allow_log("waiting for NATS")
        .allow_log("the broker has lost events")
        .allow_log("publishing again from a checkpoint")
        .start();
    emit(&fixture, "order.placed", "o-1", 5).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let filler = disk.fill();
    let client = fixture.connect().await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(100_000));
    for n in 0..50 {
        app::emit(&client, "order.placed", Some(("order", &format!("o-{n}"))), &large).await;
    }
    let line = daemon.wait_log("nothing can be published just now", DEADLINE).await;
    assert!(line.contains("store_stalled") && line.contains("disk"), "{line}");
    wait_ready(&daemon, "store_stalled").await;
    let note = r#"SELECT note LIKE 'store_stalled%' FROM "postrider".position"#;
    eventually("a note for status", DEADLINE, async || {
        client.query_one(note, &[]).await.unwrap().get::<_, Option<bool>>(0) == Some(true)
    })
    .await;
    let check = run(&fixture.toml(), &["status", "--check"]).await;
    assert_eq!(check.code, Some(2), "{check:?}");
    assert!(check.stdout.contains(", store_stalled: "), "{check:?}");

    std::fs::remove_file(filler).unwrap();
    fixture.nats.own().kill9().unwrap();
    fixture.nats.own().start_again().await.unwrap();
    fixture.wait_stored(55, DEADLINE).await;
    wait_flowing(&daemon).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    drop(daemon);
    drop(fixture);
}

/// Messages that a leaf node forwards to its hub.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HandsOn {
    Everything,
    /// All messages but the events.
    Requests,
}

/// Starts a hub with a JetStream domain, and a leaf node in front of it with a domain of its own.
async fn hub_and_leaf(hands_on: HandsOn) -> (Fixture, Nats) {
    let port = free_port().unwrap();
    let hub = NatsOptions {
        jetstream: "domain: hub".to_owned(),
        extra: format!("leafnodes {{ listen: \"127.0.0.1:{port}\" }}"),
        ..NatsOptions::default()
    };
    let fixture = Fixture::with(None, Some(hub)).await;
    let kept = match hands_on {
        HandsOn::Everything => String::new(),
        HandsOn::Requests => format!(", deny_exports: [\"{}.>\"]", fixture.prefix),
    };
    let leaf = NatsOptions {
        jetstream: "domain: leaf".to_owned(),
        extra: format!(
            "leafnodes {{ remotes: [ {{ url: \"nats-leaf://127.0.0.1:{port}\"{kept} }} ] }}"
        ),
        ..NatsOptions::default()
    };
    let leaf = Nats::start(leaf).await.unwrap();
    (fixture, leaf)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_another_domain_is_published_to_through_a_leaf_node() {
    let (fixture, leaf) = hub_and_leaf(HandsOn::Everything).await;
    let stream = fixture.jetstream().await.create_stream(fixture.stream_config()).await.unwrap();
    let _daemon = daemon(&fixture)
        .set("nats.url", leaf.url())
        .set("nats.domain", "hub")
        .allow_log("nothing can be published just now")
        .start();
    emit(&fixture, "order.placed", "o-1", 20).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(stream.get_info().await.unwrap().state.messages, 20);
}

/// Former defect: both domains have a stream that captures the subject. The nearer stream answered
/// first, and its acknowledgement was taken for that of the right one.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_of_another_domain_is_not_taken_for_ours() {
    let (fixture, leaf) = hub_and_leaf(HandsOn::Requests).await;
    fixture.jetstream().await.create_stream(fixture.stream_config()).await.unwrap();
    let near = nats::connect(&leaf.url()).await;
    near.create_stream(fixture.stream_config()).await.unwrap();
    let mut daemon = daemon(&fixture)
        .set("nats.url", leaf.url())
        .set("nats.domain", "hub")
        .allow_log("nothing can be published just now")
        .start();
    emit(&fixture, "order.placed", "o-1", 3).await;
    let line = daemon.wait_log("nothing can be published just now", DEADLINE).await;
    assert!(line.contains("domain \"leaf\"") && line.contains("domain \"hub\""), "{line}");
    assert!(line.contains(&fixture.subject("order.placed")), "{line}");
    let position = r#"SELECT stream_seq FROM "postrider".position"#;
    let client = fixture.connect().await;
    assert_eq!(client.query_one(position, &[]).await.unwrap().get::<_, i64>(0), 0);
}
