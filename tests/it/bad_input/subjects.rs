//! Tests B1 to B6 of `docs/bad-input.md`: rows whose NATS subject would be invalid, or would belong
//! to somebody else.

use super::{Row, Scene, refuses};
use crate::support::Fixture;

const TYPE: &str = "event_type";

fn of_types(types: &[&str]) -> Vec<(Row, &'static str)> {
    types.iter().map(|it| (Row::new().text(TYPE, it), "invalid_subject")).collect()
}

#[tokio::test]
async fn b01_an_empty_token_is_refused_wherever_it_stands() {
    let mut scene = Scene::new().await;
    let own = |rest: &str| {
        (Row::new().text("subject", &format!("{}.{rest}", scene.fixture.prefix)), "invalid_subject")
    };
    let mut rows = of_types(&["", ".", "a..b", ".a", "a."]);
    rows.extend([own(""), own("a..b"), own("a.")]);
    rows.push((Row::new().text("aggregate_type", ""), "missing_field"));
    rows.push((Row::new().text("aggregate_id", ""), "missing_field"));
    rows.push((Row::new().with("aggregate_type", "NULL"), "missing_field"));
    scene.refuses(rows).await;
    for call in ["emit('', '1')", "emit(NULL, '1')"] {
        scene.emit_refuses(call, "name the event").await;
    }
    for call in ["emit('a..b', '1')", "emit('.a', '1')", "emit('a', '1', subject => 'a.')"] {
        scene.emit_refuses(call, "single dots").await;
    }
    for call in ["emit('a', '1', '', 'x')", "emit('a', '1', 'x', '')", "emit('a', '1', 'x')"] {
        scene.emit_refuses(call, "give both").await;
    }
}

#[tokio::test]
async fn b01_an_empty_field_of_the_template_is_refused() {
    let fixture = Fixture::new().await;
    let subject = fixture.subject("{source}.{kind}");
    let mut scene = Scene::on(fixture, |daemon| daemon.set("route.subject", subject)).await;
    let rows = [Row::new().text("kind", ""), Row::new().text("source", "")];
    scene.refuses(rows.map(|row| (row, "invalid_subject")).to_vec()).await;
}

#[tokio::test]
async fn b02_a_wildcard_in_an_event_type_is_refused() {
    let mut scene = Scene::new().await;
    let prefix = scene.fixture.prefix.clone();
    let mut rows = of_types(&["*", ">", "a.*", "a.>", "a*b", "a.b>"]);
    rows.push((Row::new().text("subject", &format!("{prefix}.>")), "invalid_subject"));
    scene.refuses(rows).await;
    for call in ["emit('a.*', '1')", "emit('a.>', '1')", "emit('a', '1', subject => 'a.*')"] {
        scene.emit_refuses(call, "without *").await;
    }
}

#[tokio::test]
async fn b02_a_wildcard_in_an_id_is_encoded_and_can_be_read_back() {
    let fixture = Fixture::new().await;
    let subject = fixture.subject("{aggregate_type}.{aggregate_id}");
    let mut scene = Scene::on(fixture, |daemon| daemon.set("route.subject", subject)).await;
    let ids = ["a.b", "*", ">", "50%", "a b\t\r\nc", "\u{85}\u{2028}\u{fffd}", "$JS.API", "größe"];
    let rows = ids.map(|id| Row::new().text("aggregate_type", "a.*").text("aggregate_id", id));
    let messages = scene.publishes(rows.to_vec()).await;
    for (id, message) in ids.iter().zip(messages) {
        let tokens: Vec<&str> = message.subject.split('.').collect();
        assert_eq!((tokens.len(), tokens[1]), (3, "a%2E%2A"), "{}", message.subject);
        assert!(!tokens[2].contains(['*', '>', ' ', '\r', '\n']));
        assert_eq!(decoded(tokens[2]), *id);
        assert_eq!(decoded(message.header("ce-subject").unwrap()), *id);
    }
}

fn decoded(token: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = token.as_bytes().iter();
    while let Some(byte) = rest.next() {
        let mut digit = || char::from(*rest.next().unwrap()).to_digit(16).unwrap();
        bytes.push(match byte {
            b'%' => u8::try_from(digit() * 16 + digit()).unwrap(),
            byte => *byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn b03_white_space_and_line_breaks_in_a_subject_are_refused() {
    let mut scene = Scene::new().await;
    let breaking = "order 1\r\nPUB x 0\r\n";
    let types = ["order placed", " ", "a\tb", "a\rb", "a\nb", breaking, "a\u{a0}b", "a\u{3000}b"];
    scene.refuses(of_types(&types)).await;
    for event_type in types {
        let call = format!("emit({}, '1')", super::quoted(event_type));
        scene.emit_refuses(&call, "white space").await;
        let call = format!("emit('a', '1', subject => {})", super::quoted(event_type));
        scene.emit_refuses(&call, "white space").await;
    }
}

#[tokio::test]
async fn b04_control_characters_and_broken_text_in_a_subject_are_refused() {
    let mut scene = Scene::new().await;
    let types = ["a\u{1}b", "a\u{1b}[31m", "a\u{7f}", "a\u{85}b", "a\u{9b}b", "a\u{fffd}b"];
    scene.refuses(of_types(&types)).await;
    for event_type in types {
        let call = format!("emit({}, '1')", super::quoted(event_type));
        scene.emit_refuses(&call, "control characters").await;
    }
    // Postgres itself refuses texts that contain NUL or are not valid UTF-8, so the relay never
    // gets them.
    for call in ["emit(E'a\\x00b', '1')", "emit(E'a\\xff', '1')"] {
        let error = scene.client.batch_execute(&format!("SELECT postrider.{call}")).await;
        assert_eq!(error.unwrap_err().code().unwrap().code(), "22021", "{call}");
    }
    scene.goes_on().await;
}

#[tokio::test]
async fn b05_a_subject_that_would_cost_the_connection_is_refused() {
    let mut scene = Scene::new().await;
    let room = 512 - scene.fixture.prefix.len() - 1;
    let long = |bytes: usize| Row::new().with(TYPE, format!("repeat('o', {bytes})"));
    // The NATS server ends the connection when a protocol line exceeds 4,096 bytes.
    let rows = [long(room + 1), long(1_024), long(4_096), long(7_800)];
    scene.refuses(rows.map(|row| (row, "subject_too_long")).to_vec()).await;
    let messages = scene.publishes(vec![long(room).text("aggregate_id", "just")]).await;
    assert_eq!(messages[0].subject.len(), 512);
    assert!(!scene.daemon.log().contains("lost the connection"));
    scene.emit_refuses("emit(repeat('o', 513), '1')", "at most 512 bytes").await;
    scene.emit_refuses("emit(repeat('ö', 257), '1')", "at most 512 bytes").await;
    let call = "emit('a', '1', subject => repeat('o', 513))";
    scene.emit_refuses(call, "at most 512 bytes").await;
}

#[tokio::test]
async fn b06_a_row_cannot_command_the_server() {
    let mut scene = Scene::new().await;
    let purge = format!("$JS.API.STREAM.PURGE.{}", scene.fixture.stream);
    scene.publishes(vec![Row::new().text("aggregate_id", "first")]).await;
    let rows = [purge.as_str(), "$SYS.REQ.SERVER.PING", "_INBOX.x", "elsewhere.order", ""]
        .map(|subject| (Row::new().text("subject", subject), "subject_outside_prefix"));
    scene.refuses(rows.to_vec()).await;
    // Below the relay's own prefix such a name is harmless, and the aggregate's type becomes a
    // single token.
    let stored = scene.settle().await.len();
    let Scene { fixture, daemon, .. } = scene;
    drop(daemon);
    let template = fixture.subject("{aggregate_type}.{event_type}");
    let mut scene = Scene::on(fixture, |daemon| daemon.set("route.subject", template)).await;
    let rows = vec![
        Row::new().text("aggregate_type", &purge).text("aggregate_id", "a"),
        Row::new().text(TYPE, &purge).text("aggregate_id", "b"),
    ];
    let messages = scene.publishes(rows).await;
    for message in &messages {
        assert!(message.subject.starts_with(&format!("{}.", scene.fixture.prefix)));
    }
    assert!(messages[0].subject.contains(".$JS%2EAPI%2ESTREAM%2EPURGE%2E"));
    let all = scene.settle().await;
    assert!(all.len() > stored && all[0].seq == 1, "something was purged");
    for call in [format!("emit('{purge}', '1')"), format!("emit('a', '1', subject => '{purge}')")] {
        scene.emit_refuses(&call, "without $ or _INBOX").await;
    }
    scene.emit_refuses("emit('a', '1', subject => '_INBOX.a')", "without $ or _INBOX").await;
}

#[tokio::test]
async fn b06_a_template_without_a_literal_prefix_does_not_start() {
    let fixture = Fixture::new().await;
    for template in ["{event_type}", "$JS.API.{event_type}", "{aggregate_type}.x", "_INBOX.{kind}"]
    {
        let toml = fixture.toml().set("route.subject", template);
        let finished = crate::support::daemon::run(&toml, &["run"]).await;
        assert_eq!(finished.code, Some(78), "{template}: {finished:?}");
        assert!(finished.stderr.contains("route.subject"), "{template}: {finished:?}");
    }
    refuses(&fixture.connect().await, "emit('$x', '1')", "without $").await;
}
