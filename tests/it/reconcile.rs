//! What the stream has lost is found, told and published again, in order and under the same ids.

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use serde_json::Value;

use super::support::{DEADLINE, Fixture, app, daemon::run, eventually, nats, toml::Toml};

async fn emit(fixture: &Fixture, keys: usize, count: usize) {
    let client = fixture.connect().await;
    for n in 0..count {
        let key = format!("o-{}", n % keys);
        app::emit(&client, "order.placed", Some(("order", &key)), "{}").await;
    }
}

/// What a command prints as JSON, and its exit code.
async fn told(toml: &Toml, command: &[&str]) -> (Option<i32>, Value) {
    let finished = run(toml, command).await;
    let value = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", finished.stdout, finished.stderr));
    (finished.code, value)
}

/// Every event once, and those of a key in the order of the outbox; but for those that were lost,
/// which come again behind what was stored meanwhile.
async fn assert_whole(fixture: &Fixture, count: usize, lost: &[u64]) {
    let messages = fixture.read_stream().await;
    let seq = |message: &app::StoredMessage| {
        message.header("ce-sequence").unwrap().parse::<u64>().unwrap()
    };
    let mut all: Vec<u64> = messages.iter().map(seq).collect();
    for is_lost in [false, true] {
        let some = messages.iter().filter(|message| lost.contains(&seq(message)) == is_lost);
        let mut by_key: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
        for message in some {
            let key = message.header("ce-subject").unwrap().to_owned();
            let before = by_key.insert(key, seq(message)).unwrap_or(0);
            assert!(before < seq(message), "{} follows {before}", seq(message));
        }
    }
    all.sort_unstable();
    assert_eq!(all, (1..=count as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn messages_that_are_gone_are_missed_by_the_audit_and_come_back_by_reconcile() {
    let fixture = Fixture::new().await;
    let builder = fixture.toml();
    // A short window: while it lasts the broker does not take an id again, although it lost the rest.
    let daemon = fixture
        .daemon()
        .set("nats.ack_timeout", "500ms")
        .set("stream.duplicate_window", "3s")
        .set("route.max_delay", "1s")
        .allow_log("still recognises its id")
        .start();
    emit(&fixture, 7, 100).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let (code, audit) = told(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
    assert_eq!((&audit["committed"], &audit["stream"]["held"]), (&100.into(), &100.into()));

    let lost: Vec<u64> = (20..60).collect();
    let stream = fixture.jetstream().await.get_stream(&fixture.stream).await.unwrap();
    for seq in &lost {
        stream.delete_message(*seq).await.unwrap();
    }
    let (code, audit) = told(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["stream"]["missing"]), (Some(1), &40.into()), "{audit}");
    let (code, dry) = told(&builder, &["reconcile", "--dry-run", "--json"]).await;
    assert_eq!((code, &dry["missing"], &dry["published_again"]), (Some(1), &40.into(), &0.into()));
    assert_eq!(fixture.read_stream().await.len(), 60);

    let (code, done) = told(&builder, &["reconcile", "--json", "--actor", "ann"]).await;
    assert_eq!((code, &done["published_again"]), (Some(0), &40.into()), "{done}");
    assert_eq!(fixture.wait_stored(100, DEADLINE).await.len(), 100);
    assert_whole(&fixture, 100, &lost).await;
    let (code, audit) = told(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
    let client = fixture.connect().await;
    let recorded = r#"SELECT count(*) FROM "postrider".audit
        WHERE action = 'reconcile' AND actor = 'ann'"#;
    assert_eq!(client.query_one(recorded, &[]).await.unwrap().get::<_, i64>(0), 40);
    drop(daemon);
}

#[tokio::test]
async fn with_manual_healing_nothing_goes_before_an_operator_says_so() {
    let fixture = Fixture::new().await;
    let builder = fixture.toml();
    let mut daemon = fixture
        .daemon()
        .set("stream.heal", "manual")
        .admin()
        .allow_log("the broker has lost events")
        .allow_log("nothing can be published just now")
        .allow_log("healing")
        .start();
    emit(&fixture, 7, 100).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let jetstream = fixture.jetstream().await;
    let config = jetstream.get_stream(&fixture.stream).await.unwrap().cached_info().config.clone();
    jetstream.delete_stream(&fixture.stream).await.unwrap();
    jetstream.create_stream(config).await.unwrap();
    // Noticed within a minute, or as soon as something is published.
    emit(&fixture, 7, 1).await;
    let line = daemon.wait_log("the broker has lost events", DEADLINE).await;
    assert!(line.contains("postrider reconcile"), "{line}");
    emit(&fixture, 7, 10).await;
    eventually("a gate that says why", DEADLINE, async || {
        let answer = daemon.get("/readyz?verbose").await;
        answer.is_some_and(|answer| answer.body.contains("broker_regressed"))
    })
    .await;
    assert!(fixture.read_stream().await.len() <= 1);

    let (code, done) = told(&builder, &["reconcile", "--json"]).await;
    assert_eq!(code, Some(0), "{done}");
    assert_eq!(fixture.wait_stored(111, DEADLINE).await.len(), 111);
    assert!(fixture.wait_drained(DEADLINE).await);
    let (code, audit) = told(&builder, &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
}

#[tokio::test]
async fn what_a_stream_drops_by_its_limits_is_not_missing() {
    let fixture = Fixture::new().await;
    let jetstream = fixture.jetstream().await;
    nats::create_stream(&jetstream, &fixture.stream, &format!("{}.>", fixture.prefix)).await;
    let config = jetstream.get_stream(&fixture.stream).await.unwrap().cached_info().config.clone();
    let short = Config { max_messages: 30, discard: DiscardPolicy::Old, ..config };
    jetstream.update_stream(short).await.unwrap();
    let _daemon =
        fixture.daemon().set("stream.create", false).allow_log("drops its oldest messages").start();
    let client = fixture.connect().await;
    let checkpoints = r#"SELECT count(*) FROM "postrider".checkpoint"#;
    for count in 1..=2 {
        emit(&fixture, 7, 50).await;
        assert!(fixture.wait_drained(DEADLINE).await);
        eventually("a checkpoint", DEADLINE, async || {
            client.query_one(checkpoints, &[]).await.unwrap().get::<_, i64>(0) >= count
        })
        .await;
    }
    let (code, audit) = told(&fixture.toml(), &["audit", "--json"]).await;
    assert_eq!((code, &audit["fine"]), (Some(0), &Value::Bool(true)), "{audit}");
    let stream = &audit["stream"];
    assert_eq!((&stream["held"], &stream["dropped"]), (&30.into(), &70.into()), "{audit}");
}
