//! Tests that `emit()` accepts every type that drivers send, and untyped literals and parameters.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tokio_postgres::{Client, error::SqlState};

use crate::support::Fixture;

const DOCUMENT: &str = r#"{"b": 1e2,  "a": [1, 2]}"#;
/// `DOCUMENT` in the form in which jsonb stores it.
const AS_JSONB: &str = r#"{"a": [1, 2], "b": 100}"#;
const UUID: &str = "0d9c5f3c-6f0e-4f0a-9a0e-0d7c4ef4b3a1";

/// Payloads as SQL, each with the text that has to be stored.
fn payloads() -> Vec<(String, Option<&'static str>)> {
    let quoted = |cast: &str| format!("'{DOCUMENT}'{cast}");
    vec![
        (quoted(""), Some(DOCUMENT)),
        (quoted("::text"), Some(DOCUMENT)),
        (quoted("::varchar"), Some(DOCUMENT)),
        (quoted("::json"), Some(DOCUMENT)),
        (quoted("::jsonb"), Some(AS_JSONB)),
        ("NULL".to_owned(), None),
    ]
}

/// Keys as SQL, each with the text that has to be stored.
fn keys() -> Vec<(String, &'static str)> {
    let uuid = |cast: &str| format!("'{UUID}'{cast}");
    let number = |cast: &str| format!("42{cast}");
    vec![
        ("'42'".to_owned(), "42"),
        ("'o-1'::text".to_owned(), "o-1"),
        ("'o-1'::varchar".to_owned(), "o-1"),
        (number(""), "42"),
        (number("::smallint"), "42"),
        (number("::bigint"), "42"),
        ("9223372036854775807".to_owned(), "9223372036854775807"),
        (uuid(""), UUID),
        (uuid("::uuid"), UUID),
    ]
}

const HEADERS: [&str; 6] = ["", "NULL", "'{\"h\": 1}'", "'{\"h\": 1}'::text", "json", "jsonb"];

/// The last argument of a call, by position or with its name.
fn headers(of: &str, name: &str) -> String {
    match of {
        "" => String::new(),
        "json" | "jsonb" => format!(", {name}'{{\"h\": 1}}'::{of}"),
        text => format!(", {name}{text}"),
    }
}

/// Calls `emit`, and returns the payload, key and headers of the new row.
async fn emitted(client: &Client, call: &str) -> (Option<String>, Option<String>, String) {
    let statement = format!("SELECT postrider.{call}");
    client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{call}: {error:?}"));
    let last = "SELECT coalesce(payload::text, encode(payload_binary, 'hex')), aggregate_id,
        headers::text FROM postrider.outbox ORDER BY seq DESC LIMIT 1";
    let row = client.query_one(last, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test]
async fn emit_takes_every_mixture_of_types_by_place_and_by_name() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for (payload, stored_payload) in payloads() {
        let short = emitted(&client, &format!("emit('a', {payload})")).await;
        assert_eq!(short, (stored_payload.map(str::to_owned), None, "{}".to_owned()), "{payload}");
        for (key, stored_key) in keys() {
            for of in HEADERS {
                let stored_headers =
                    if of.is_empty() || of == "NULL" { "{}" } else { r#"{"h": 1}"# };
                let expected = (
                    stored_payload.map(str::to_owned),
                    Some(stored_key.to_owned()),
                    stored_headers.to_owned(),
                );
                let by_place = format!("emit('a', {payload}, 'order', {key}{})", headers(of, ""));
                let by_name = format!(
                    "emit(aggregate_id => {key}, aggregate_type => 'order', payload => {payload},
                        event_type => 'a'{})",
                    headers(of, "headers => ")
                );
                for call in [by_place, by_name] {
                    assert_eq!(emitted(&client, &call).await, expected, "{call}");
                }
            }
        }
    }
    let no_key = emitted(&client, "emit('a', '1', NULL, NULL, '{\"h\": 1}')").await;
    assert_eq!(no_key, (Some("1".to_owned()), None, r#"{"h": 1}"#.to_owned()));
}

#[tokio::test]
async fn emit_binary_takes_every_type_of_key_and_headers() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    for (key, stored_key) in keys() {
        for of in HEADERS {
            let more = headers(of, "headers => ");
            let call = format!(
                "emit_binary('a', '\\x00ff', 'image/png', aggregate_type => 'order',
                    aggregate_id => {key}{more})"
            );
            let stored_headers = if of.is_empty() || of == "NULL" { "{}" } else { r#"{"h": 1}"# };
            let expected =
                (Some("00ff".to_owned()), Some(stored_key.to_owned()), stored_headers.to_owned());
            assert_eq!(emitted(&client, &call).await, expected, "{call}");
        }
    }
    let short = emitted(&client, "emit_binary('a', '\\x00')").await;
    assert_eq!(short, (Some("00".to_owned()), None, "{}".to_owned()));
}

#[tokio::test]
async fn emit_many_and_context_take_text_json_and_jsonb() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let event = format!(
        r#"{{"event_type": "a", "aggregate_type": "order", "aggregate_id": 42, "payload": {DOCUMENT}}}"#
    );
    for (cast, payload) in
        [("", DOCUMENT), ("::text", DOCUMENT), ("::json", DOCUMENT), ("::jsonb", AS_JSONB)]
    {
        let call = format!("emit_many('[{{\"event_type\": \"b\"}}, {event}]'{cast})");
        let expected = (Some(payload.to_owned()), Some("42".to_owned()), "{}".to_owned());
        assert_eq!(emitted(&client, &call).await, expected, "{call}");

        let set = format!("SELECT postrider.context('{{\"headers\": {{\"h\": 1}}}}'{cast})");
        client.batch_execute(&format!("BEGIN; {set}")).await.unwrap();
        let (.., headers) = emitted(&client, "emit('a', '1')").await;
        assert_eq!(headers, r#"{"h": 1}"#, "{set}");
        client.batch_execute("COMMIT").await.unwrap();
    }
}

#[tokio::test]
async fn a_parameter_without_a_type_is_text() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    // The parameters have no types, as from a driver that leaves them to the server.
    let statement = client.prepare("SELECT postrider.emit($1, $2, $3, $4, $5)").await.unwrap();
    let types: Vec<_> = statement.params().iter().map(tokio_postgres::types::Type::name).collect();
    assert_eq!(types, ["text"; 5]);
    let parameters = ["a", DOCUMENT, "order", "42", r#"{"h": 1}"#];
    let [event_type, payload, aggregate, key, headers] = &parameters;
    client.query_one(&statement, &[event_type, payload, aggregate, key, headers]).await.unwrap();
}

#[tokio::test]
async fn a_text_that_is_no_document_and_a_kind_that_is_unknown_are_refused() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let kind = SqlState::INVALID_PARAMETER_VALUE;
    let json = SqlState::INVALID_TEXT_REPRESENTATION;
    let cases = [
        ("emit('a', '{oops')", &json, "invalid input syntax for type json"),
        ("emit('a', '{oops'::text, 'order', 42)", &json, "invalid input syntax for type json"),
        ("emit('a', '')", &json, "invalid input syntax for type json"),
        ("emit('a', '1', headers => 'tenant')", &json, "invalid input syntax for type json"),
        ("emit_many('[')", &json, "invalid input syntax for type json"),
        ("emit('a', '1', headers => 5)", &kind, "not an object"),
        ("emit('a', '1', kind => 'event')", &kind, "kind \"event\" is unknown"),
        ("emit('a', '1', kind => '')", &kind, "kind \"\" is unknown"),
        ("emit('a', '1', 'order', 42, kind => 'DOMAIN')", &kind, "kind \"DOMAIN\" is unknown"),
        ("emit_binary('a', '', kind => 'event')", &kind, "kind \"event\" is unknown"),
        (
            r#"emit_many('[{"event_type": "a", "kind": "event"}]')"#,
            &kind,
            "kind \"event\" is unknown",
        ),
    ];
    for (call, code, text) in cases {
        let error = client.batch_execute(&format!("SELECT postrider.{call}")).await;
        let error = error.expect_err(call);
        let error = error.as_db_error().unwrap_or_else(|| panic!("{call}: {error:?}"));
        assert_eq!(error.code(), code, "{call}: {error:?}");
        assert!(error.message().contains(text), "{call}: {error:?}");
    }
    for known in ["domain", "integration", "command", "notification", "system"] {
        emitted(&client, &format!("emit('a', '1', kind => '{known}')")).await;
    }
}

#[tokio::test]
async fn every_function_for_applications_is_granted_to_producers_and_to_nobody_else() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let rows = client
        .query(
            "SELECT p.oid::regprocedure::text, has_function_privilege('postrider_producer', p.oid, 'EXECUTE'),
                has_function_privilege('public', p.oid, 'EXECUTE')
            FROM pg_proc AS p WHERE p.pronamespace = 'postrider'::regnamespace
                AND p.proname IN ('emit', 'emit_binary', 'emit_many', 'context', 'check_kind')",
            &[],
        )
        .await
        .unwrap();
    assert_eq!(rows.len(), 9 + 3 + 3 + 3 + 1);
    for row in rows {
        let (name, producer, public): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
        assert!(producer && !public, "{name}: producer {producer}, public {public}");
    }
}

/// Runs a driver's script with the Python environment of the examples, which has the drivers
/// installed.
fn run_driver(script: &str, url: &str) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(project.join(".tools/venv/bin/python"))
        .arg(project.join("tests/drivers/python").join(script))
        .env("DATABASE_URL", url)
        .stdin(Stdio::null())
        .output()
        .expect("no Python in .tools/venv: run deploy/dev/install-services.sh examples");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{script}: {text}");
    assert!(text.contains(" calls, every row as sent"), "{script}: {text}");
}

#[tokio::test]
async fn the_python_drivers_emit_in_their_own_types() {
    for script in ["with_psycopg.py", "with_asyncpg.py", "with_sqlalchemy.py"] {
        let fixture = Fixture::new().await;
        run_driver(script, &fixture.database_url());
    }
}
