//! Tests B22 to B24 of `docs/bad-input.md`: event ids, keys and times that are meaningless or too
//! large.

use uuid::Uuid;

use super::{Row, Scene, letter, one};
use crate::support::{Fixture, app::StoredMessage, daemon::DaemonBuilder};

const NIL: &str = "00000000-0000-0000-0000-000000000000";

#[tokio::test]
async fn b22_an_event_id_of_zeros_is_refused() {
    let mut scene = Scene::new().await;
    let row = Row::new().text("event_id", NIL);
    let letters = scene.refuses(vec![(row, "missing_field")]).await;
    assert!(letters[0].error.contains("event_id"), "{}", letters[0].error);
    scene.emit_refuses(&format!("emit('a', '1', event_id => '{NIL}')"), "leave it out").await;
    let call = format!("emit_binary('a', '', event_id => '{NIL}')");
    scene.emit_refuses(&call, "leave it out").await;
    let call = format!(r#"emit_many('[{{"event_type": "a", "event_id": "{NIL}"}}]')"#);
    scene.emit_refuses(&call, "leave it out").await;
    // A plain INSERT without an id gets one by default, and an explicit null fails in Postgres
    // itself.
    let null = "INSERT INTO postrider.outbox (event_type, event_id) VALUES ('a', NULL)";
    let error = scene.client.batch_execute(null).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23502");
    let id: Uuid =
        one(&scene.client, "SELECT postrider.emit('a', '1', event_id => NULL)", &[]).await;
    assert_eq!(id.get_version_num(), 7);
    scene.goes_on().await;
}

#[tokio::test]
async fn b22_an_id_that_comes_twice_is_stored_once() {
    let mut scene = Scene::new().await;
    let id = Uuid::now_v7();
    let row = Row::new().text("event_id", &id.to_string());
    // The same id comes twice in one call, in another transaction, with another key, and after the
    // first row was deleted.
    let twice = format!(
        r#"emit_many('[{{"event_type": "a", "event_id": "{id}"}},
                       {{"event_type": "b", "event_id": "{id}"}}]')"#
    );
    scene.emit_refuses(&twice, "an id of its own").await;
    row.insert(&scene.client).await;
    row.insert(&scene.client).await;
    scene.settle().await;
    row.clone().text("aggregate_id", "other").insert(&scene.client).await;
    scene.client.batch_execute("DELETE FROM postrider.outbox").await.unwrap();
    row.insert(&scene.client).await;
    let stored = scene.settle().await;
    assert_eq!(stored.iter().map(StoredMessage::id).collect::<Vec<_>>(), [id]);
    assert_eq!(letter(&scene.client, id).await, None);
    scene.goes_on().await;
}

#[tokio::test]
async fn b22_an_id_that_comes_again_with_something_else_is_a_collision_and_lost_to_nobody() {
    let mut scene = Scene::new().await;
    let id = Uuid::now_v7();
    let row = Row::new().text("event_id", &id.to_string());
    row.insert(&scene.client).await;
    assert_eq!(scene.settle().await.len(), 1);
    let others = [
        row.clone().text("aggregate_id", "payload").text("payload", r#"{"another": "payload"}"#),
        row.clone().text("aggregate_id", "subject").text("event_type", "another.subject"),
    ];
    for other in others {
        scene.daemon.allow_log("became a dead letter");
        other.insert(&scene.client).await;
        let stored = scene.settle().await;
        assert_eq!(stored.iter().map(StoredMessage::id).collect::<Vec<_>>(), [id]);
        let letter = letter(&scene.client, id).await.expect("a letter");
        assert_eq!((letter.state.as_str(), letter.code.as_str()), ("dead", "msg_id_collision"));
        scene.client.batch_execute("DELETE FROM postrider.letter").await.unwrap();
    }
    scene.goes_on().await;
}

#[tokio::test]
async fn b23_an_ordering_key_that_is_too_long_is_refused_at_the_insert() {
    let mut scene = Scene::new().await;
    for call in [
        "emit('a', '1', 'order', repeat('k', 1000000))",
        "emit('a', '1', 'order', repeat('k', 1025))",
        "emit('a', '1', repeat('k', 1025), 'x')",
        "emit_many(jsonb_build_array(jsonb_build_object(
            'event_type', 'a', 'aggregate_type', 'x', 'aggregate_id', repeat('k', 1025))))",
    ] {
        scene.emit_refuses(call, "keep each within 1024 bytes").await;
    }
    let call = "emit('a', '1', 'order', repeat('ö', 512), actor => 'x')";
    scene.client.batch_execute(&format!("SELECT postrider.{call}")).await.unwrap();
    let call = "emit('a', '1', repeat('ö', 500), repeat('ö', 500))";
    scene.emit_refuses(call, "counts three times").await;
    // Without `emit` the limit is that of Postgres: the row has to fit into one page of 8 KiB.
    let megabyte = "INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id)
        VALUES ('a', 'order', repeat('k', 1000000))";
    let error = scene.client.batch_execute(megabyte).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "54000");
    assert!(error.message().starts_with("row is too big"), "{}", error.message());
    scene.goes_on().await;
}

#[tokio::test]
async fn b23_a_key_that_no_header_can_hold_is_a_dead_letter_also_after_a_restart() {
    let mut scene = Scene::new().await;
    let long = Row::new().with("aggregate_id", "repeat('k', 7000)");
    scene.refuses(vec![(long.clone(), "invalid_header")]).await;
    scene.daemon.kill9();
    scene.daemon.start_again();
    let late = long.insert(&scene.client).await;
    scene.settle().await;
    assert_eq!(letter(&scene.client, late).await.unwrap().state, "held");
    scene.goes_on().await;
}

#[tokio::test]
async fn b23_texts_that_no_header_can_hold_are_refused() {
    let mut scene = Scene::new().await;
    let names = ["kind", "source", "correlation_id", "causation_id", "actor"];
    let mut rows = Vec::new();
    for name in names {
        for (value, is_long) in
            [("repeat('x', 4097)", true), ("repeat('ö', 683)", true), ("repeat('x', 4096)", false)]
        {
            let (emit, many) = (
                format!("emit('a', '1', {name} => {value})"),
                format!(
                    "emit_many(jsonb_build_array(jsonb_build_object('event_type', 'a',
                     '{name}', {value})))"
                ),
            );
            let binary = format!("emit_binary('a', '', {name} => {value})");
            for call in [emit, many, binary] {
                if name == "kind" {
                    scene.emit_refuses(&call, "use domain, integration").await;
                } else if is_long {
                    scene.emit_refuses(&call, "keep it within 4096").await;
                } else {
                    scene.client.batch_execute(&format!("SELECT postrider.{call}")).await.unwrap();
                }
            }
            if is_long {
                rows.push((Row::new().with(name, value), "invalid_header"));
            }
        }
    }
    scene.refuses(rows).await;
    // Each text is small enough alone, but all of them together do not fit into a row.
    let all = "emit('a', '1', actor => repeat('x', 4000), source => repeat('x', 4000))";
    scene.emit_refuses(all, "7500 bytes").await;
    let most = "emit('a', payload => to_json(repeat('x', 100000)), headers => (
        SELECT jsonb_object_agg('h' || n, repeat('x', 4000)) FROM generate_series(1, 8) AS n),
        actor => repeat('x', 4000), source => repeat('x', 3493))";
    scene.client.batch_execute(&format!("SELECT postrider.{most}")).await.unwrap();
    let context = format!(r#"context('{{"actor": "{}"}}')"#, "x".repeat(5_000));
    let transaction = scene.client.transaction().await.unwrap();
    transaction.batch_execute(&format!("SELECT postrider.{context}")).await.unwrap();
    let error = transaction.batch_execute("SELECT postrider.emit('a', '1')").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22023");
    transaction.rollback().await.unwrap();
    scene.goes_on().await;
}

/// `kind` and `content_type` only inform consumers: `emit` refuses unknown kinds, and a plain
/// INSERT may write any.
#[tokio::test]
async fn labels_of_a_plain_insert_are_published_as_they_are() {
    let mut scene = Scene::new().await;
    scene.emit_refuses("emit('a', '1', kind => 'Domain')", "use domain, integration").await;
    let row = Row::new().with("kind", "'Domain'").with("content_type", "'text/odd'");
    row.with("event_version", "-7").insert(&scene.client).await;
    let stored = scene.settle().await;
    let headers = ["ce-kind", "ce-datacontenttype"].map(|name| stored[0].header(name));
    assert_eq!(headers, [Some("Domain"), Some("text/odd")], "{:?}", stored[0].headers);
    scene.goes_on().await;
}

#[tokio::test]
async fn b23_no_key_many_keys_and_one_key_all_keep_their_order() {
    let mut scene = Scene::new().await;
    let insert = "
        INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'many', 'load', n, to_json(n) FROM generate_series(1, 20000) AS n;
        INSERT INTO postrider.outbox (event_type, aggregate_type, aggregate_id, payload)
        SELECT 'one', 'load', 'one', to_json(n) FROM generate_series(1, 1000) AS n;
        INSERT INTO postrider.outbox (event_type, payload)
        SELECT 'none', to_json(n) FROM generate_series(1, 1000) AS n";
    scene.client.batch_execute(insert).await.unwrap();
    let stored = scene.settle().await;
    assert_eq!(stored.len(), 22_000);
    let one: Vec<i64> = stored
        .iter()
        .filter(|message| message.header("ce-type") == Some("one"))
        .map(|message| message.json().as_i64().unwrap())
        .collect();
    assert_eq!(one, (1..=1000).collect::<Vec<_>>());
    let peak = super::large::memory_peak(&scene.daemon);
    assert!(peak < 64 << 20, "{peak}");
    scene.goes_on().await;
}

#[tokio::test]
async fn b24_times_that_no_text_can_say_are_left_out() {
    let mut scene = Scene::with(DaemonBuilder::admin).await;
    let times = [
        ("infinity", None),
        ("-infinity", None),
        ("294276-12-31 23:59:59.999999+00", None),
        ("10000-01-01 00:00:00+00", None),
        ("4713-01-01 00:00:00+00 BC", None),
        ("0002-12-31 00:00:00+00 BC", None),
        ("0001-01-01 00:00:00+00 BC", Some("0000-01-01T00:00:00Z")),
        ("0001-01-01 00:00:00+00", Some("0001-01-01T00:00:00Z")),
        ("1969-12-31 23:59:59.5+00", Some("1969-12-31T23:59:59.5Z")),
        ("2016-12-31 23:59:60+00", Some("2017-01-01T00:00:00Z")),
        ("9999-12-30 00:00:00+00", Some("9999-12-30T00:00:00Z")),
    ];
    let rows = times.map(|(time, _)| Row::new().text("occurred_at", time));
    let messages = scene.publishes(rows.to_vec()).await;
    for ((time, expected), message) in times.iter().zip(&messages) {
        assert_eq!(message.header("ce-time"), *expected, "{time}");
    }
    let null = "INSERT INTO postrider.outbox (event_type, occurred_at) VALUES ('a', NULL)";
    let error = scene.client.batch_execute(null).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "23502");

    // Dead letters keep these times too, so the commands that list letters have to read them.
    let rows: Vec<_> = times
        .iter()
        .map(|(time, _)| {
            (Row::new().text("occurred_at", time).text("event_type", ""), "invalid_subject")
        })
        .collect();
    scene.refuses(rows).await;
    let toml = scene.fixture.toml();
    let listed = crate::support::daemon::run(&toml, &["dlq", "list", "--json"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let status = crate::support::daemon::run(&toml, &["status"]).await;
    assert_eq!(status.stderr, "", "{status:?}");
    let metrics = scene.daemon.get("/metrics").await.unwrap();
    assert!(metrics.body.contains("postrider_oldest_pending_age_seconds"), "{}", metrics.body);
}

#[tokio::test]
async fn b24_the_age_of_a_backlog_with_odd_times_is_reported() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    // The relay has run once and is stopped now, so that only `status` reads the backlog.
    let mut scene = Scene::on(fixture, |daemon| daemon).await;
    scene.goes_on().await;
    scene.daemon.kill9();
    for time in ["infinity", "-infinity", "294276-12-31", "4713-01-01 BC"] {
        Row::new().text("occurred_at", time).insert(&client).await;
        let status =
            crate::support::daemon::run(&scene.fixture.toml(), &["status", "--json"]).await;
        assert_eq!(status.stderr, "", "{time}: {status:?}");
        assert!(status.stdout.contains("\"backlog\""), "{time}: {status:?}");
    }
}
