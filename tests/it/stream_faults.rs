//! Tests of a stream that is missing, full, or configured so that it would lose events.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, Source, StorageType};
use postrider::dev::servers::NatsOptions;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, DaemonBuilder},
    eventually,
    toml::Toml,
};

/// Changes a stream's configuration from the default.
type Change<'a> = &'a dyn Fn(Config) -> Config;

/// The program, which does not create the stream itself.
fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture.daemon().set("stream.create", false)
}

async fn emit_many(fixture: &Fixture, count: usize) {
    let client = fixture.connect().await;
    for _ in 0..count {
        app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    }
}

async fn wait_ready(daemon: &Daemon, body: &str) {
    eventually(format!("{body:?} of /readyz"), DEADLINE, async || {
        daemon.get("/readyz").await.is_some_and(|answer| answer.body.contains(body))
    })
    .await;
}

async fn dead_letters(fixture: &Fixture) -> i64 {
    let client = fixture.connect().await;
    client.query_one(r#"SELECT count(*) FROM "postrider".letter"#, &[]).await.unwrap().get(0)
}

/// Asserts that the stream has this many events in the order of their emission, and that none is a
/// dead letter.
async fn assert_in_order(fixture: &Fixture, count: usize) {
    let messages = fixture.read_stream().await;
    assert_eq!(messages.len(), count);
    let sequences: Vec<_> = messages.iter().map(|m| m.header("ce-sequence").unwrap()).collect();
    assert!(sequences.is_sorted(), "{sequences:?}");
    assert_eq!(dead_letters(fixture).await, 0);
}

/// Former defect: the hint was to check whether the stream had a leader, but the stream did not
/// exist.
#[tokio::test]
async fn a_stream_that_finds_no_room_names_the_key_to_lower() {
    let options = NatsOptions { jetstream: "max_file_store: 1GB".into(), ..NatsOptions::default() };
    let fixture = Fixture::with(None, Some(options)).await;
    let large = |toml: Toml| toml.set("stream.max_bytes", "2GiB");
    let mut daemon =
        fixture.daemon().config(large).allow_log("nothing can be published just now").start();
    let line = daemon.wait_log("nothing can be published just now", DEADLINE).await;
    assert!(line.contains("10047") && line.contains("lower stream.max_bytes"), "{line}");
}

#[tokio::test]
async fn a_stream_that_is_created_has_the_limits_of_the_configuration() {
    let cases = [
        (None, None, 7 * 24 * 3600, 4_i64 << 30),
        (Some("1h"), Some("1MiB"), 3600, 1 << 20),
        (Some("0s"), Some("0B"), 0, -1),
    ];
    for (age, bytes, expected_age, expected_bytes) in cases {
        let fixture = Fixture::own_nats().await;
        let daemon = fixture.daemon().config(|toml| {
            let mut toml = toml.unset("stream.max_bytes");
            for (key, value) in [("stream.max_age", age), ("stream.max_bytes", bytes)] {
                if let Some(value) = value {
                    toml = toml.set(key, value);
                }
            }
            toml
        });
        let mut daemon = daemon.start();
        let line = daemon.wait_log("stream created", DEADLINE).await;
        assert!(line.contains("max_age") && line.contains("max_bytes"), "{line}");
        let stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
        let config = &stream.cached_info().config;
        assert_eq!(config.max_age.as_secs(), expected_age);
        assert_eq!(config.max_bytes, expected_bytes);
    }
}

#[tokio::test]
async fn a_missing_stream_is_waited_for_and_used_once_it_is_there() {
    let fixture = Fixture::new().await;
    let mut daemon = daemon(&fixture).allow_log("does not exist").admin().start();
    emit_many(&fixture, 20).await;
    let line = daemon.wait_log("does not exist", DEADLINE).await;
    assert!(line.contains(&fixture.stream) && line.contains("create = true"), "{line}");
    wait_ready(&daemon, "misconfigured").await;

    fixture.jetstream().await.create_stream(fixture.stream_config()).await.unwrap();
    fixture.wait_stored(20, DEADLINE).await;
    wait_ready(&daemon, "ready\n").await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_in_order(&fixture, 20).await;
}

#[tokio::test]
async fn a_stream_deleted_under_way_is_not_made_again_but_healed_once_it_is() {
    for create in [false, true] {
        let fixture = Fixture::new().await;
        let jetstream = fixture.jetstream().await;
        jetstream.create_stream(fixture.stream_config()).await.unwrap();
        let mut daemon = daemon(&fixture)
            .set("stream.create", create)
            .allow_log("nothing can be published just now")
            .allow_log("the broker has lost events")
            .allow_log("publishing again from a checkpoint")
            .start();
        emit_many(&fixture, 5).await;
        assert!(fixture.wait_drained(DEADLINE).await);
        jetstream.delete_stream(&fixture.stream).await.unwrap();
        emit_many(&fixture, 20).await;
        let line = daemon.wait_log("nothing can be published just now", DEADLINE).await;
        assert!(line.contains("stream_unavailable"), "{line}");
        // The relay does not create the missing stream, because an empty one would hide that five
        // events are lost.
        let line = daemon.wait_log("does not exist", DEADLINE).await;
        assert!(line.contains("for a person to restore or to create anew"), "{line}");
        jetstream.create_stream(fixture.stream_config()).await.unwrap();
        let line = daemon.wait_log("the broker has lost events", DEADLINE).await;
        assert!(line.contains("was created anew"), "{line}");
        fixture.wait_stored(25, DEADLINE).await;
        assert!(fixture.wait_drained(DEADLINE).await);
        assert_in_order(&fixture, 25).await;
    }
}

#[tokio::test]
async fn a_full_stream_closes_the_gate_and_takes_the_rest_in_order_once_there_is_room() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    jetstream.create_stream(Config { max_messages: 100, ..fixture.stream_config() }).await.unwrap();
    let mut daemon = daemon(&fixture).allow_log("maximum messages exceeded").admin().start();
    emit_many(&fixture, 300).await;
    let line = daemon.wait_log("maximum messages exceeded", DEADLINE).await;
    assert!(line.contains("has no room"), "{line}");
    wait_ready(&daemon, "stream_unavailable").await;
    // A restart does not turn the waiting event into a dead letter.
    daemon.kill9();
    daemon.start_again();
    daemon.wait_log("maximum messages exceeded", DEADLINE).await;
    assert_eq!(fixture.read_stream().await.len(), 100);

    jetstream
        .update_stream(Config { max_messages: 1_000, ..fixture.stream_config() })
        .await
        .unwrap();
    fixture.wait_stored(300, DEADLINE).await;
    wait_ready(&daemon, "ready\n").await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_in_order(&fixture, 300).await;
}

#[tokio::test]
async fn a_stream_that_changes_its_subjects_under_way_closes_the_gate() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    jetstream.create_stream(fixture.stream_config()).await.unwrap();
    let mut daemon =
        daemon(&fixture).allow_log("nothing can be published just now").admin().start();
    emit_many(&fixture, 5).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let elsewhere = Config { subjects: vec!["elsewhere.>".to_owned()], ..fixture.stream_config() };
    jetstream.update_stream(elsewhere).await.unwrap();
    emit_many(&fixture, 20).await;
    daemon.wait_log("which", DEADLINE).await;
    wait_ready(&daemon, "misconfigured").await;
    jetstream.update_stream(fixture.stream_config()).await.unwrap();
    fixture.wait_stored(25, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_in_order(&fixture, 25).await;
}

/// Asserts that a start is refused with exit code 78, and that the log names the fault and the
/// remedy.
async fn assert_refused(fixture: &Fixture, fault: &str, hint: &str) {
    emit_many(fixture, 1).await;
    let mut daemon = daemon(fixture).allow_log("ERROR").start();
    let code = daemon.wait_exit(DEADLINE).await;
    let log = daemon.log();
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains(fault) && log.contains(hint), "{log}");
    assert_eq!(dead_letters(fixture).await, 0);
}

#[tokio::test]
async fn a_stream_that_would_lose_events_is_refused_with_what_to_do() {
    let cases: [(Change<'_>, &str, &str); 5] = [
        (
            &|sound| Config { subjects: vec![format!("{}.other.*", sound.name)], ..sound },
            "captures",
            "stream's subjects",
        ),
        (&|sound| Config { no_ack: true, ..sound }, "no_ack", "set no_ack to false"),
        (&|sound| Config { sealed: true, ..sound }, "is sealed", "name another stream"),
        (
            &|sound| Config {
                subjects: Vec::new(),
                duplicate_window: Duration::ZERO,
                mirror: Some(Source {
                    name: format!("{}_ORIGIN", sound.name),
                    ..Source::default()
                }),
                ..sound
            },
            "is a mirror",
            "name its origin",
        ),
        (
            &|sound| Config { duplicate_window: Duration::from_secs(5), ..sound },
            "forgets message ids after 5s",
            "raise its duplicate window",
        ),
    ];
    for (change, fault, hint) in cases {
        let fixture = Fixture::new().await;
        let jetstream = fixture.jetstream().await;
        let wanted = change(fixture.stream_config());
        if let Some(mirror) = &wanted.mirror {
            let origin = Config { name: mirror.name.clone(), ..fixture.stream_config() };
            jetstream.create_stream(origin).await.unwrap();
        }
        // JetStream seals a stream only by an update.
        jetstream.create_stream(Config { sealed: false, ..wanted.clone() }).await.unwrap();
        if wanted.sealed {
            let sealed = Config {
                discard: DiscardPolicy::New,
                deny_delete: true,
                deny_purge: true,
                ..wanted
            };
            jetstream.update_stream(sealed).await.unwrap();
        }
        assert_refused(&fixture, fault, hint).await;
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_created_is_refused_with_what_to_do() {
    let fixture = Fixture::new().await;
    let clash = Config { name: format!("{}_CLASH", fixture.stream), ..fixture.stream_config() };
    fixture.jetstream().await.create_stream(clash).await.unwrap();
    let mut daemon = fixture.daemon().allow_log("ERROR").start();
    assert_eq!(daemon.wait_exit(DEADLINE).await, Some(78));
    let log = daemon.log();
    assert!(log.contains("subjects overlap") && log.contains("they clash with"), "{log}");
}

#[tokio::test]
async fn a_stream_that_might_lose_events_is_used_with_a_warning() {
    let cases: [(Change<'_>, &str); 4] = [
        (&|sound| Config { storage: StorageType::Memory, ..sound }, "in memory only"),
        (
            &|sound| Config { discard: DiscardPolicy::Old, max_messages: 1_000, ..sound },
            "drops its oldest messages",
        ),
        (
            &|sound| Config { retention: RetentionPolicy::Interest, ..sound },
            "keeps only what a consumer waits for",
        ),
        (&|sound| Config { allow_rollup: true, ..sound }, "lets a message purge others"),
    ];
    for (change, warning) in cases {
        let fixture = Fixture::new().await;
        let wanted = change(fixture.stream_config());
        fixture.jetstream().await.create_stream(wanted).await.unwrap();
        let mut daemon = daemon(&fixture).allow_log(warning).start();
        let line = daemon.wait_log(warning, DEADLINE).await;
        assert!(line.contains("WARN") && line.contains("hint"), "{line}");
        emit_many(&fixture, 1).await;
        assert!(fixture.wait_drained(DEADLINE).await);
    }
}
