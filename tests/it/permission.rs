//! A broker that forbids something: the gate closes and says so, and nothing becomes a dead letter.

use postrider::dev::servers::NatsOptions;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::watch,
};
use uuid::Uuid;

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
    fixture.nats.reload().await.unwrap();
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
    fixture.nats.reload().await.unwrap();
    fixture.wait_stored(20, DEADLINE).await;
}

/// The complaint names a subject and no message. It counted as an answer to all of that subject that
/// was on its way: what had been taken before, and whose acknowledgement was still to come, could
/// become a dead letter too, or be stored again when it had been forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_before_a_permission_was_withdrawn_is_no_dead_letter() {
    let mut fixture = fixture(GRANTED).await;
    let between = Between::start(fixture.nats.port()).await;
    let daemon = daemon(&fixture)
        .set("nats.url", format!("nats://127.0.0.1:{}", between.port))
        .set("nats.ack_timeout", "3s")
        .set("nats.ping_interval", "60s")
        .set("route.on_denied", "retry")
        .set("route.attempts", 1)
        .allow_log("the broker asks for patience")
        .allow_log("became a dead letter")
        .start();
    let client = fixture.connect().await;
    let emit = async || app::emit(&client, "order.placed", None, "{}").await;
    let mut emitted = vec![emit().await];
    fixture.wait_stored(1, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);

    between.hold.send_replace(true);
    emitted.push(emit().await);
    let taken = fixture.wait_stored(2, DEADLINE).await;
    fixture.nats.own().options_mut().extra = accounts("permissions { publish: [\"$JS.API.>\"] }");
    fixture.nats.reload().await.unwrap();
    eventually("a complaint", DEADLINE, async || {
        emitted.push(emit().await);
        let_pass(std::time::Duration::from_millis(20)).await;
        daemon.log().contains("the broker asks for patience")
    })
    .await;
    between.hold.send_replace(false);

    let dead = async || -> Vec<Uuid> {
        let letters = r#"SELECT event_id FROM "postrider".letter WHERE state = 'dead'"#;
        client.query(letters, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
    };
    eventually("everything is in the stream or dead", DEADLINE, async || {
        fixture.read_stream().await.len() + dead().await.len() >= emitted.len()
    })
    .await;
    assert!(fixture.wait_drained(DEADLINE).await);
    let (dead, stored) = (dead().await, fixture.read_stream().await);
    let both: Vec<_> = stored.iter().filter(|message| dead.contains(&message.id())).collect();
    assert!(both.is_empty(), "stored and dead: {both:?}");
    assert!(!dead.is_empty() && stored.len() >= taken.len(), "{dead:?} {stored:?}");
    assert_eq!(stored.len() + dead.len(), emitted.len());
}

/// Between the program and the server: holds the messages to the program back while it is told to, and
/// lets everything else pass, the server's complaints among it.
struct Between {
    port: u16,
    hold: watch::Sender<bool>,
}

impl Between {
    #[expect(clippy::disallowed_methods, reason = "the program's tasks are not the tests' tasks")]
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (hold, is_held) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((program, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                let (mut from_program, to_program) = program.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    drop(tokio::io::copy(&mut from_program, &mut to_server).await);
                });
                tokio::spawn(pass(BufReader::new(from_server), to_program, is_held.clone()));
            }
        });
        Self { port, hold }
    }
}

/// One frame of the protocol after the other, from the server to the program.
async fn pass(
    mut from: impl AsyncBufRead + Unpin,
    mut to: OwnedWriteHalf,
    mut is_held: watch::Receiver<bool>,
) {
    let (mut frame, mut later) = (Vec::new(), Vec::new());
    loop {
        let read = tokio::select! {
            // What is read of a line stays in the frame when the other arm is first.
            read = from.read_until(b'\n', &mut frame) => read.unwrap_or(0),
            _ = is_held.changed() => {
                drop(to.write_all(&std::mem::take(&mut later)).await);
                continue;
            }
        };
        if read == 0 {
            return;
        }
        let is_message = frame.starts_with(b"MSG ") || frame.starts_with(b"HMSG ");
        if is_message {
            // The last word is the length of what follows, and a line's end comes after it.
            let line = String::from_utf8_lossy(&frame);
            let length: usize = line.split_whitespace().last().unwrap().parse().unwrap();
            let begin = frame.len();
            frame.resize(begin + length + 2, 0);
            from.read_exact(&mut frame[begin..]).await.unwrap();
        }
        if is_message && *is_held.borrow() {
            later.append(&mut frame);
        } else {
            drop(to.write_all(&std::mem::take(&mut frame)).await);
        }
    }
}
