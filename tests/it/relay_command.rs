//! Tests of `postrider relay`: it lists a position that no instance uses, and deletes it on
//! request.

use serde_json::{Value, json};
use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, app, eventually,
    letters::{done, json as json_of, refused},
};

const OLD: &str = r#"INSERT INTO "postrider".position
        (relay, term, holder, system_id, acquired_at, updated_at)
    VALUES ('old', 3, 'pid 1', 0, now() - interval '3 days', now() - interval '3 days')"#;

async fn codes(fixture: &Fixture) -> Vec<Value> {
    let status = json_of(&fixture.toml(), &["status"]).await;
    let findings = status["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["code"].clone()).collect()
}

/// A relay that has run, has one dead letter, and was stopped.
async fn with_a_letter(fixture: &Fixture) -> Client {
    let client = fixture.connect().await;
    let dying =
        r#"INSERT INTO "postrider".outbox (event_type, subject) VALUES ('a', 'no subject')"#;
    client.batch_execute(dying).await.unwrap();
    let mut daemon = fixture.daemon().allow_log("became a dead letter").start();
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon.stop().await;
    client
}

/// Former defect: a position that no instance uses stopped retention for ever, without any message.
/// The outbox grew until the disk was full.
#[tokio::test]
async fn a_position_that_nobody_holds_is_named_and_given_up_with_a_record() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = fixture.connect().await;
    app::insert_backlog(&client, 20, 5).await;
    client.batch_execute(OLD).await.unwrap();
    let mut daemon = fixture.daemon().admin().allow_log("nobody runs this relay").start();
    let line = daemon.wait_log("nobody runs this relay", DEADLINE).await;
    assert!(line.contains("relay=\"old\"") && line.contains("relay forget"), "{line}");
    let abandoned = r#"postrider_abandoned_positions{route="default"}"#;
    eventually("a gauge", DEADLINE, async || daemon.metric(abandoned).await > 0.0).await;
    assert!(codes(&fixture).await.contains(&json!("position_abandoned")));
    let relays = json_of(&toml, &["relay", "list"]).await;
    let states: Vec<_> = relays["relays"].as_array().unwrap().iter().map(|r| &r["state"]).collect();
    assert_eq!(states, [&json!("running"), &json!("abandoned")], "{relays}");

    let forget = ["relay", "forget", "old", "--yes", "--reason", "renamed", "--actor", "anna"];
    let held = ["relay", "forget", "default", "--yes"];
    let (_, text) = refused(&toml, &held).await;
    assert!(text.contains("an instance runs relay default"), "{text}");
    let (_, text) = refused(&toml, &["relay", "forget", "nobody", "--yes"]).await;
    assert!(text.contains("there is no relay nobody"), "{text}");
    let (_, text) = refused(&toml, &["relay", "forget", "old"]).await;
    assert!(text.contains("say --yes"), "{text}");
    let text = done(&toml, &forget).await;
    assert!(text.starts_with("relay old is given up; retention goes on"), "{text}");
    assert!(!codes(&fixture).await.contains(&json!("position_abandoned")));
    let audit = r#"SELECT actor, reason, relay, before ->> 'term' AS term FROM "postrider".audit
        WHERE action = 'forget_relay'"#;
    let row = client.query_one(audit, &[]).await.unwrap();
    let texts: Vec<String> = (0..4).map(|column| row.get(column)).collect();
    assert_eq!(texts, ["anna", "renamed", "old", "3"]);
}

#[tokio::test]
async fn a_relay_with_letters_is_not_given_up_before_somebody_decided_about_them() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = with_a_letter(&fixture).await;
    let (_, text) = refused(&toml, &["relay", "forget", "default", "--yes"]).await;
    assert!(text.contains("has 1 unresolved letters"), "{text}");
    let text = done(&toml, &["relay", "forget", "default", "--yes", "--discard-letters"]).await;
    assert!(text.contains("1 of its letters were discarded"), "{text}");
    let left = r#"SELECT (SELECT count(*) FROM "postrider".letter WHERE resolved_at IS NULL),
        (SELECT count(*) FROM "postrider".position),
        (SELECT count(*) FROM "postrider".audit)"#;
    let row = client.query_one(left, &[]).await.unwrap();
    assert_eq!([row.get::<_, i64>(0), row.get(1), row.get(2)], [0, 0, 2]);
    assert_eq!(json_of(&toml, &["status"]).await["state"], "never_started");
}

/// Former defect: no command showed letters of a relay whose name is no longer used.
#[tokio::test]
async fn letters_of_a_relay_that_nobody_runs_are_named() {
    let fixture = Fixture::new().await;
    with_a_letter(&fixture).await;
    let toml = fixture.toml().set("database.connect_timeout", "30s");
    let renamed = toml.clone().set("relay.name", "renamed");
    let named = "1 letter belongs to relay default, which nobody runs";
    for command in ["status", "check"] {
        let finished = crate::support::daemon::run(&renamed, &[command]).await;
        assert!(finished.stdout.contains(named), "{command}: {finished:?}");
        assert!(finished.stdout.contains("--route default"), "{command}: {finished:?}");
    }
    let listed = done(&renamed, &["dlq", "list"]).await;
    assert!(listed.starts_with("no dead letters\n") && listed.contains(named), "{listed}");
    assert!(listed.contains("postrider dlq list --route default"), "{listed}");
    let theirs = done(&renamed, &["dlq", "list", "--route", "default"]).await;
    assert!(theirs.contains("subject_outside_prefix"), "{theirs}");
    for command in [&["status"][..], &["dlq", "list"]] {
        let own = done(&toml, command).await;
        assert!(!own.contains("which nobody runs"), "{command:?}: {own}");
    }
}
