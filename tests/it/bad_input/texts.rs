//! Tests B28 and B29 of `docs/bad-input.md`: a broken trace context, and texts with control
//! characters for whoever displays them.

use serde_json::{Value, json};

use super::{Row, Scene, quoted};
use crate::support::{daemon, daemon::DaemonBuilder};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn with(headers: &Value) -> Row {
    Row::new().with("headers", format!("{}::jsonb", quoted(&headers.to_string())))
}

#[tokio::test]
async fn b28_a_broken_trace_context_is_left_out_and_counted() {
    let mut scene = Scene::with(DaemonBuilder::admin).await;
    let zeros = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
    let broken = [
        json!({ "traceparent": "junk" }),
        json!({ "traceparent": "" }),
        json!({ "traceparent": zeros }),
        json!({ "traceparent": TRACE.to_uppercase() }),
        json!({ "traceparent": format!("{TRACE}\r\nNats-Rollup: all") }),
        json!({ "traceparent": null }),
        json!({ "traceparent": { "a": 1 } }),
        json!({ "traceparent": [TRACE, TRACE] }),
        json!({ "Traceparent": "junk" }),
        json!({ "tracestate": "a=b\u{1}" }),
        json!({ "tracestate": 5, "baggage": "x".repeat(8_000) }),
        json!({ "baggage": format!("k={}", "v".repeat(8_000)) }),
        json!({ "baggage": ["a=b", null] }),
    ];
    let messages = scene.publishes(broken.iter().map(with).collect()).await;
    let count = messages.len();
    for (headers, message) in broken.iter().zip(messages) {
        for (name, value) in headers.as_object().unwrap() {
            let kept = value.as_i64().map(|number| number.to_string());
            assert_eq!(message.header(name), kept.as_deref(), "{headers}");
        }
        assert_eq!(message.header("Nats-Rollup"), None);
    }
    let metrics = scene.daemon.get("/metrics").await.unwrap().body;
    let counter = format!("postrider_trace_headers_left_out_total{{route=\"default\"}} {count}");
    assert!(metrics.contains(&counter), "{metrics}");

    // `emit` accepts broken trace headers, so that tracing never makes an application's transaction
    // fail.
    let before = scene.settle().await.len();
    for headers in &broken {
        let call = format!(
            "SELECT postrider.emit('a', '1', headers => {}::jsonb)",
            quoted(&headers.to_string())
        );
        scene.client.batch_execute(&call).await.unwrap();
    }
    assert_eq!(scene.settle().await.len(), before + count);
    let huge = json!({ "baggage": "x".repeat(9_000) });
    let call = format!("emit('a', '1', headers => '{huge}')");
    scene.emit_refuses(&call, "within 4096 bytes").await;
    scene.goes_on().await;
}

#[tokio::test]
async fn b28_a_good_trace_context_passes_untouched() {
    let mut scene = Scene::new().await;
    let later = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-09-of-a-later-version";
    for (parent, baggage) in [(TRACE, "k=v;p, l=w".to_owned()), (later, "v".repeat(4_096))] {
        let headers = json!({ "traceparent": parent, "tracestate": "a=b,c=d", "baggage": baggage });
        let messages = scene.publishes(vec![with(&headers)]).await;
        for (name, value) in headers.as_object().unwrap() {
            assert_eq!(messages[0].header(name), value.as_str());
        }
    }
}

/// Text with colours, a cursor movement, a forged log line, and characters that reverse the
/// direction of reading.
const HOSTILE: &str = "evil\u{1b}[31m\u{1b}[1A\u{9b}2J\r\n2026-11-21T10:00:00Z ERROR forged\u{202e}gpj\u{61c}\u{2066}\u{7}";

fn is_harmless(text: &str) -> bool {
    let commands = |c: char| c.is_control() && c != '\n' || "\u{202e}\u{61c}\u{2066}".contains(c);
    !text.contains(commands)
        && !text.lines().any(|line| line.starts_with("2026-11-21T10:00:00Z ERROR"))
}

async fn hostile_rows(scene: &mut Scene) {
    let prefix = scene.fixture.prefix.clone();
    let rows = vec![
        (Row::new().text("event_type", HOSTILE), "invalid_subject"),
        (Row::new().text("subject", HOSTILE), "subject_outside_prefix"),
        (Row::new().text("subject", &format!("{prefix}.{HOSTILE}")), "invalid_subject"),
        (with(&json!({ HOSTILE: "x" })), "invalid_header"),
        (with(&json!({ "a": HOSTILE })), "invalid_header"),
        (with(&json!({ format!("Nats-{HOSTILE}"): "x" })), "invalid_header"),
        (Row::new().text("aggregate_id", HOSTILE).text("event_type", "a b"), "invalid_subject"),
    ];
    for letter in scene.refuses(rows).await {
        assert!(is_harmless(&letter.error), "{:?}", letter.error);
    }
    // When the text is published, no part of it ends a header line or changes the value of another
    // header.
    let own = scene.fixture.subject("own");
    let row = Row::new().text("subject", &own).text("event_type", HOSTILE).text("actor", HOSTILE);
    let messages = scene.publishes(vec![row]).await;
    assert!(is_harmless(messages[0].header("ce-type").unwrap()));
}

#[tokio::test]
async fn b29_logs_and_lists_show_a_rows_text_without_obeying_it() {
    let mut scene = Scene::with(|daemon| daemon.env("RUST_LOG", "trace").admin()).await;
    hostile_rows(&mut scene).await;
    assert!(is_harmless(&scene.daemon.log()), "{}", scene.daemon.log());
    let toml = scene.fixture.toml();
    for args in [&["dlq", "list"][..], &["dlq", "list", "--json"], &["status"], &["check"]] {
        let finished = daemon::run(&toml, args).await;
        assert!(is_harmless(&finished.stdout), "{args:?}: {:?}", finished.stdout);
        assert!(is_harmless(&finished.stderr), "{args:?}: {:?}", finished.stderr);
    }
    let listed = daemon::run(&toml, &["dlq", "list", "--json"]).await.stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let letters = listed["letters"].as_array().unwrap();
    assert!(letters.iter().any(|letter| letter["event_type"] == HOSTILE), "{listed}");
    for path in ["/metrics", "/readyz?verbose"] {
        let answer = scene.daemon.get(path).await.unwrap();
        assert!(is_harmless(&answer.body), "{path}: {:?}", answer.body);
    }
    // Errors of `emit` reach the application's log without passing through Postrider, so their text
    // must be harmless itself.
    for call in [
        format!("emit({}, '1')", quoted(HOSTILE)),
        format!("emit('a', '1', subject => {})", quoted(HOSTILE)),
        format!("emit('a', '1', headers => {}::jsonb)", quoted(&json!({ HOSTILE: 1 }).to_string())),
        format!("emit_binary('a', '', {})", quoted(HOSTILE)),
    ] {
        let error = scene.client.batch_execute(&format!("SELECT postrider.{call}")).await;
        let text = error.unwrap_err().as_db_error().unwrap().message().to_owned();
        assert!(!text.contains(|c: char| c.is_ascii_control()), "{text:?}");
    }
}

#[tokio::test]
async fn b29_each_line_of_a_json_log_is_one_object() {
    let mut scene = Scene::with(|daemon| daemon.set("log.format", "json")).await;
    hostile_rows(&mut scene).await;
    let log = scene.daemon.log();
    assert!(is_harmless(&log), "{log}");
    for line in log.lines() {
        let object: Value = serde_json::from_str(line).expect(line);
        assert!(object.is_object());
    }
    assert!(log.contains("an event became a dead letter"));
}
