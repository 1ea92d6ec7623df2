//! Test B21 of `docs/bad-input.md`: databases whose encoding is not UTF-8.

use postrider::pg::connect::ENCODINGS;

use super::{Row, Scene, one};
use crate::support::{DEADLINE, Fixture, daemon};

/// A fixture with a database of this encoding, which is not migrated yet.
async fn with_encoding(encoding: &str) -> Fixture {
    let mut fixture = Fixture::new().await;
    let name = format!("{}_{}", fixture.database, encoding.to_lowercase());
    let create = format!(
        "CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    fixture.postgres.execute("postgres", &create).await.unwrap();
    fixture.database = name;
    fixture
}

async fn migrated(encoding: &str) -> Fixture {
    let fixture = with_encoding(encoding).await;
    let migrated = daemon::run(&fixture.toml(), &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    fixture
}

#[tokio::test]
async fn b21_every_byte_of_the_encodings_that_are_served_has_a_character_in_utf8() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for encoding in ENCODINGS.iter().filter(|encoding| **encoding != "UTF8") {
        let statement = "SELECT count(convert(set_byte('\\x00', 0, n), $1, 'UTF8'))
            FROM generate_series(1, 255) AS n";
        assert_eq!(one::<i64>(&client, statement, &[encoding]).await, 255, "{encoding}");
    }
}

#[tokio::test]
async fn b21_an_encoding_that_may_hold_no_unicode_is_refused_at_the_start() {
    for encoding in ["SQL_ASCII", "WIN1252", "EUC_JP"] {
        let fixture = with_encoding(encoding).await;
        let named = format!("the encoding {encoding}");
        for args in [&["migrate"][..], &["check"], &["status"], &["dlq", "list"]] {
            let finished = daemon::run(&fixture.toml(), args).await;
            let text = finished.stdout + &finished.stderr;
            assert!(text.contains(&named) && text.contains("ENCODING 'UTF8'"), "{args:?}: {text}");
            assert_ne!(finished.code, Some(0), "{args:?}");
        }
        let mut daemon = fixture.daemon().allow_log("waiting for Postgres").start();
        let line = daemon.wait_log("waiting for Postgres", DEADLINE).await;
        assert!(line.contains(&named) && line.contains("ENCODING 'UTF8'"), "{line}");
    }
}

#[tokio::test]
async fn b21_a_latin1_database_is_served_with_all_its_characters() {
    let fixture = migrated("LATIN1").await;
    let mut scene = Scene::on(fixture, |daemon| daemon).await;
    let row = Row::new().text("event_type", "größe.geändert").text("aggregate_id", "Ærø");
    let row = row.text("actor", "Zoë").with("payload", "'{\"a\": \"é \\u20ac\"}'");
    let row = row.with("headers", "'{\"Tenant\": \"Århus\"}'");
    let messages = scene.publishes(vec![row]).await;
    let message = &messages[0];
    assert_eq!(message.subject, scene.fixture.subject("größe.geändert"));
    assert_eq!(message.payload, r#"{"a": "é \u20ac"}"#.as_bytes());
    assert_eq!(message.header("Tenant"), Some("Århus"));
    assert_eq!(message.header("ce-subject"), Some("%C3%86r%C3%B8"));
    let emit =
        "SELECT postrider.emit('größe', '\"é\"', 'straße', 'ß', headers => '{\"a\": \"ö\"}')";
    scene.client.batch_execute(emit).await.unwrap();
    let every = "INSERT INTO postrider.outbox (event_type, actor, payload_binary)
        SELECT 'every', convert_from(set_byte('\\x00', 0, n), 'LATIN1'), set_byte('\\x00', 0, n)
        FROM generate_series(1, 255) AS n";
    scene.client.batch_execute(every).await.unwrap();
    scene.goes_on().await;
    // A character that the encoding lacks makes the application's own statement fail.
    let error = scene.client.batch_execute("SELECT postrider.emit('€', '1')").await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22P05");
    scene.goes_on().await;
}

// Former defect: the error text of such a letter ends in `…`, which LATIN1 lacks, so every
// settlement failed.
#[tokio::test]
async fn b21_a_letters_text_that_the_database_lacks_characters_for_is_escaped() {
    let fixture = migrated("LATIN1").await;
    let prefix = format!("событие-{}.", fixture.prefix);
    let (template, filter) = (format!("{prefix}{{event_type}}"), format!("{prefix}>"));
    let mut scene = Scene::on(fixture, |daemon| {
        daemon.set("route.subject", template).set("stream.subjects", vec![filter])
    })
    .await;
    let rows = vec![
        (Row::new().with("event_type", "repeat('a ', 100)"), "invalid_subject"),
        (Row::new().text("subject", "elsewhere"), "subject_outside_prefix"),
        (Row::new().with("headers", "jsonb_build_object(repeat('a b', 40), 1)"), "invalid_header"),
    ];
    let letters = scene.refuses(rows).await;
    assert!(letters[0].error.contains("\\u{2026}"), "{}", letters[0].error);
    assert!(letters[1].error.contains("\\u{441}"), "{}", letters[1].error);
    let listed = daemon::run(&scene.fixture.toml(), &["dlq", "list"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
}

#[tokio::test]
async fn b21_letters_of_a_database_that_has_them_where_others_have_controls_are_no_controls() {
    let fixture = migrated("KOI8R").await;
    let mut scene = Scene::on(fixture, |daemon| daemon).await;
    let calls = "SELECT postrider.emit('заказ.сделан', '\"да\"', 'заказ', 'Ё─▌', actor => 'Юля',
        headers => '{\"a\": \"░▒▓\"}')";
    scene.client.batch_execute(calls).await.unwrap();
    let stored = scene.settle().await;
    assert_eq!(stored[0].subject, scene.fixture.subject("заказ.сделан"));
    assert_eq!(stored[0].header("a"), Some("░▒▓"));
    scene.emit_refuses("emit(repeat('я', 257), '1')", "at most 512 bytes").await;
    let call = "emit('a', '1', 'я', repeat('я', 700))";
    scene.emit_refuses(call, "counts three times").await;
    scene.goes_on().await;
}
