//! A broker that forbids something: the gate closes and says so, and nothing becomes a dead letter.

use postrider::dev::servers::NatsOptions;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{Daemon, DaemonBuilder},
    eventually, let_pass,
};

const GRANTED: &str = "permissions { publish: [\">\"], subscribe: [\">\"] }";

/// Two users: the tests', who may do everything, and the program's.
fn accounts(permissions: &str) -> String {
    format!(
        "authorization {{ users: [\n\
         {{ user: everyone, password: everything }}\n\
         {{ user: relay, password: secret, {permissions} }}\n\
         ] }}\nno_auth_user: everyone\n"
    )
}

async fn fixture(permissions: &str) -> Fixture {
    let options = NatsOptions { extra: accounts(permissions), ..NatsOptions::default() };
    Fixture::with(None, Some(options)).await
}

fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .set("nats.user", "relay")
        .set("nats.password", "secret")
        .set("nats.ack_timeout", "500ms")
        .allow_log("nothing can be published just now")
        .allow_log("lost the connection to NATS")
        .admin()
}

async fn emit(fixture: &Fixture, count: usize) {
    let client = fixture.connect().await;
    for _ in 0..count {
        app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    }
}

/// What `/readyz?verbose` says of the gate.
async fn gate(daemon: &Daemon) -> Option<serde_json::Value> {
    let answer = daemon.get("/readyz?verbose").await?;
    let body: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
    body.get("gate").filter(|gate| !gate.is_null()).cloned()
}

async fn wait_denied(daemon: &Daemon, subject: &str) {
    eventually("a gate closed for want of permission", DEADLINE, async || {
        gate(daemon).await.is_some_and(|gate| gate["kind"] == "permission_denied")
    })
    .await;
    // It stays so: an answer that does not come is no other trouble.
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(3);
    while tokio::time::Instant::now() < end {
        let gate = gate(daemon).await.expect("a closed gate");
        assert_eq!(gate["kind"], "permission_denied", "{gate}");
        assert!(gate["text"].as_str().is_some_and(|text| text.contains(subject)), "{gate}");
        let_pass(std::time::Duration::from_millis(50)).await;
    }
}

async fn assert_goes_on(fixture: &mut Fixture) {
    fixture.nats.own().options_mut().extra = accounts(GRANTED);
    fixture.nats.reload().unwrap();
    fixture.wait_stored(20, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let messages = fixture.read_stream().await;
    let sequences: Vec<_> = messages.iter().map(|m| m.header("ce-sequence").unwrap()).collect();
    assert!(sequences.is_sorted() && sequences.len() == 20, "{sequences:?}");
    let client = fixture.connect().await;
    let letters = client.query(r#"SELECT FROM "postrider".letter"#, &[]).await.unwrap();
    assert!(letters.is_empty());
}

#[tokio::test]
async fn a_user_that_may_not_publish_the_events_waits_for_the_permission() {
    let mut fixture = fixture("permissions { publish: [\"$JS.API.>\"] }").await;
    let mut daemon = daemon(&fixture).start();
    emit(&fixture, 20).await;
    let line = daemon.wait_log("Permissions Violation for Publish", DEADLINE).await;
    assert!(line.contains("allow this user to publish"), "{line}");
    wait_denied(&daemon, &fixture.subject("order.placed")).await;
    assert_goes_on(&mut fixture).await;
}

#[tokio::test]
async fn a_user_that_may_not_ask_for_the_stream_waits_for_the_permission() {
    let mut fixture = fixture("permissions { publish: { deny: [\"$JS.API.>\"] } }").await;
    let mut daemon = daemon(&fixture).start();
    emit(&fixture, 20).await;
    daemon.wait_log("Permissions Violation for Publish", DEADLINE).await;
    wait_denied(&daemon, "$JS.API.STREAM.INFO").await;
    assert_goes_on(&mut fixture).await;
}

#[tokio::test]
async fn a_user_that_may_not_subscribe_to_its_inbox_waits_for_the_permission() {
    let mut fixture = fixture("permissions { subscribe: { deny: [\"_INBOX.>\"] } }").await;
    let mut daemon = daemon(&fixture).start();
    emit(&fixture, 20).await;
    daemon.wait_log("Permissions Violation for Subscription", DEADLINE).await;
    wait_denied(&daemon, "_INBOX").await;
    assert_goes_on(&mut fixture).await;
}

#[tokio::test]
async fn wrong_credentials_are_named_and_never_shown() {
    let mut fixture = fixture("permissions { publish: [\">\"] }").await;
    let mut daemon = daemon(&fixture)
        .set("nats.password", "not-the-secret")
        .allow_log("waiting for NATS")
        .allow_log("authorization violation")
        .start();
    emit(&fixture, 20).await;
    daemon.wait_log("waiting for NATS", DEADLINE).await;
    daemon.wait_log("authorization violation", DEADLINE).await;
    eventually("an answer that names NATS", DEADLINE, async || {
        daemon.get("/readyz").await.is_some_and(|a| a.status == 503 && a.body.contains("nats"))
    })
    .await;
    assert!(!daemon.log().contains("not-the-secret"));
    let extra = accounts(GRANTED).replace("password: secret", "password: not-the-secret");
    fixture.nats.own().options_mut().extra = extra;
    fixture.nats.reload().unwrap();
    fixture.wait_stored(20, DEADLINE).await;
}
