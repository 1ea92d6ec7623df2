//! Tests of the sink that writes to standard output: one CloudEvents JSON line per event.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::pipe,
    time::Duration,
};

use serde_json::{Value, json};

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{DaemonBuilder, run},
    eventually,
};

/// A relay that needs no broker.
fn daemon(fixture: &Fixture) -> DaemonBuilder {
    let daemon = fixture.daemon().set("route.sink", "stdout");
    daemon.config(|toml| toml.unset("nats.url").unset("stream.name"))
}

/// Events of a file, one per line. A line that a crash has cut off is left out.
fn events(text: &str) -> Vec<Value> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn an_event_is_one_line_of_cloudevents_json() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let id = app::emit(&client, "order.placed", Some(("order", "o-1")), "{\n\"n\": 1e400}").await;
    let statement = r#"INSERT INTO "postrider".outbox (event_type, payload_binary, content_type)
        VALUES ('blob.stored', '\xff00', 'application/octet-stream'), ('note.made', 'hi', 'text/plain')"#;
    client.execute(statement, &[]).await.unwrap();
    let _daemon = daemon(&fixture).stdout(File::create(&path).unwrap()).start();
    let text = eventually("three lines", DEADLINE, async || {
        Some(fs::read_to_string(&path).unwrap()).filter(|text| text.lines().count() == 3)
    })
    .await;
    assert!(text.contains("1e400"), "the payload's numbers stay as they are: {text}");
    let lines: Vec<&str> = text.lines().collect();
    let start =
        format!(r#"{{"specversion":"1.0","id":"{id}","source":"postrider","type":"order.placed""#);
    assert!(lines[0].starts_with(&start), "{text}");
    assert!(lines[0].contains(r#""partitionkey":"order/o-1""#), "{text}");
    let blob: Value = serde_json::from_str(lines[1]).unwrap();
    assert_eq!((&blob["data_base64"], &blob["type"]), (&json!("/wA="), &json!("blob.stored")));
    let note: Value = serde_json::from_str(lines[2]).unwrap();
    assert_eq!((&note["data"], &note["sequence"]), (&json!("hi"), &json!(format!("{:020}", 3))));
}

#[tokio::test]
async fn a_crash_loses_no_line_and_the_first_copies_are_in_order() {
    const EVENTS: i64 = 60_000;
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let output = File::options().create(true).append(true).open(&path).unwrap();
    app::insert_backlog(&client, EVENTS, 50).await;
    let mut daemon = daemon(&fixture).stdout(output).start();
    let length = || fs::metadata(&path).unwrap().len();
    for _ in 0..4 {
        let before = length();
        eventually("more lines", DEADLINE, async || (length() > before).then_some(())).await;
        daemon.kill9();
        daemon.start_again();
    }
    let text = eventually("all events", DEADLINE, async || {
        let text = fs::read_to_string(&path).unwrap();
        let ids: HashSet<String> =
            events(&text).iter().map(|event| event["id"].to_string()).collect();
        (ids.len() == usize::try_from(EVENTS).unwrap()).then_some(text)
    })
    .await;
    let mut seen = HashSet::new();
    let mut last: HashMap<String, String> = HashMap::new();
    for event in events(&text) {
        if seen.insert(event["id"].to_string()) {
            let sequence = event["sequence"].to_string();
            let before = last.insert(event["partitionkey"].to_string(), sequence.clone());
            assert!(before.is_none_or(|before| before < sequence), "out of order: {event}");
        }
    }
}

/// The reader of the pipe is gone. No event may be settled, and the failure has to be reported.
#[tokio::test]
async fn a_standard_output_that_nobody_reads_settles_nothing_and_is_reported() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let builder = daemon(&fixture).stdout(writer).admin().allow_log("nothing can be published");
    let mut daemon = builder.start();
    daemon.wait_log("relaying", DEADLINE).await;
    app::insert_backlog(&client, 10, 10).await;
    daemon.wait_log("standard output cannot be asked for", DEADLINE).await;
    let ready = eventually("not ready", DEADLINE, async || {
        daemon.get("/readyz?verbose").await.filter(|answer| answer.status == 503)
    })
    .await;
    assert!(ready.body.contains("standard output"), "{}", ready.body);
    daemon.terminate();
    assert_eq!(daemon.wait_exit(DEADLINE + Duration::from_secs(10)).await, Some(0));

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("events");
    let _daemon = self::daemon(&fixture).stdout(File::create(&path).unwrap()).start();
    eventually("all events", DEADLINE, async || {
        (events(&fs::read_to_string(&path).unwrap()).len() == 10).then_some(())
    })
    .await;
}

#[tokio::test]
async fn check_needs_no_broker_and_a_comparison_says_that_there_is_none() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml().set("route.sink", "stdout").unset("nats.url").unset("stream.name");
    let check = run(&toml, &["check"]).await;
    assert_eq!(check.code, Some(0), "{check:?}");
    assert!(check.stdout.contains("standard output"), "{check:?}");
    let audit = run(&toml, &["audit"]).await;
    assert_eq!(audit.code, Some(78), "{audit:?}");
    assert!(audit.stderr.contains("--database-only"), "{audit:?}");
    assert_eq!(run(&toml, &["audit", "--database-only"]).await.code, Some(0));
}

/// Two programs run under one name. The second has to log why it prints no event.
#[tokio::test]
async fn a_second_program_of_the_same_name_says_that_it_stands_by() {
    let fixture = Fixture::new().await;
    let mut first = daemon(&fixture).start();
    first.wait_log("relaying", DEADLINE).await;
    let mut second = daemon(&fixture).start();
    let line = second.wait_log("another instance leads this relay; standing by", DEADLINE).await;
    assert!(line.contains("INFO") && line.contains("leader="), "{line}");
}
