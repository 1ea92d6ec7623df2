//! Tests B16 to B20 of `docs/bad-input.md`: payloads that a program which parses them would break
//! on or change.

use std::fmt::Write as _;

use super::{Row, Scene, quoted};

fn of_json(text: &str) -> Row {
    Row::new().with("payload", format!("{}::json", quoted(text)))
}

fn of_bytes(bytes: &[u8]) -> Row {
    let mut hex = String::new();
    for byte in bytes {
        write!(hex, "{byte:02x}").unwrap();
    }
    Row::new().with("payload", "NULL").with("payload_binary", format!("'\\x{hex}'"))
}

/// Asserts that these JSON texts are published byte for byte, after a plain INSERT and after
/// `emit`.
async fn arrive_as_they_are(texts: &[&str]) {
    let mut scene = Scene::new().await;
    let messages = scene.publishes(texts.iter().map(|text| of_json(text)).collect()).await;
    for (text, message) in texts.iter().zip(messages) {
        assert_eq!(message.payload, text.as_bytes());
    }
    let before = scene.settle().await.len();
    for text in texts {
        let call = format!("SELECT postrider.emit('order.placed', {}::json)", quoted(text));
        scene.client.batch_execute(&call).await.unwrap();
    }
    let emitted = scene.settle().await.split_off(before);
    assert_eq!(emitted.len(), texts.len());
    for text in texts {
        assert!(emitted.iter().any(|message| message.payload == text.as_bytes()), "{text}");
    }
}

#[tokio::test]
async fn b16_no_payload_is_a_tombstone_and_an_empty_one_is_empty() {
    let mut scene = Scene::new().await;
    let rows = vec![
        Row::new().with("payload", "NULL"),
        of_bytes(b""),
        of_json("null"),
        of_json("\"\""),
        of_json(" {} "),
    ];
    let messages = scene.publishes(rows).await;
    let published: Vec<_> = messages
        .iter()
        .map(|it| (str::from_utf8(&it.payload).unwrap(), it.header("Postrider-Null")))
        .collect();
    let expected = [("", Some("true")), ("", None), ("null", None), ("\"\"", None), (" {} ", None)];
    assert_eq!(published, expected);
    // A row with two payloads is a dead letter, because nobody knows which one is meant.
    let both = Row::new().with("payload_binary", "'\\x00'");
    scene.refuses(vec![(both, "two_payloads")]).await;
    let call = r#"emit_many('[{"event_type": "a", "payload": 1, "payload_base64": ""}]')"#;
    scene.emit_refuses(call, "give one of them").await;
    // Text that is not JSON makes the INSERT itself fail.
    for text in ["", "{", "nul", "{'a': 1}", "NaN"] {
        let call = format!("SELECT postrider.emit('a', '{}')", text.replace('\'', "''"));
        let error = scene.client.batch_execute(&call).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22P02", "{text}");
    }
    let calls = "SELECT postrider.emit('a', NULL); SELECT postrider.emit_binary('a', NULL);
        SELECT postrider.emit_binary('a', '')";
    scene.client.batch_execute(calls).await.unwrap();
    scene.goes_on().await;
}

#[tokio::test]
async fn b17_json_of_any_depth_passes() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = format!("{}1{}", r#"{"a":"#.repeat(1_000), "}".repeat(1_000));
    arrive_as_they_are(&[&nested(129), &nested(1_000), &nested(5_000), &objects]).await;
}

#[tokio::test]
async fn b17_depth_that_postgres_cannot_read_fails_the_insert_alone() {
    let mut scene = Scene::new().await;
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let call = format!("SELECT postrider.emit('a', '{}')", nested(1_000_000));
    let error = scene.client.batch_execute(&call).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "54001");
    // The relay does not look into a payload of bytes, so its depth of nesting does not matter.
    let messages = scene.publishes(vec![of_bytes(nested(100_000).as_bytes())]).await;
    assert_eq!(messages[0].payload.len(), 200_000);
}

#[tokio::test]
async fn b18_numbers_and_keys_arrive_byte_for_byte() {
    arrive_as_they_are(&[
        r#"{"n": 1e400, "m": 18446744073709551617, "z": -0, "zero": 0.000, "e": 1E+05}"#,
        "1234567890123456789012345678901234567890.1234567890123456789012345678901234567890",
        r#"{"a": 1, "a": 2, "b": 1, "A": 3, "": 4}"#,
        "{ \"z\" : [ 1 ,\t2 ] ,\r\n\"a\"  : null }",
        &"9".repeat(10_000),
        r#""größe € 漢 \u00e9 \/ /""#,
    ])
    .await;
}

#[tokio::test]
async fn b19_escapes_that_are_no_text_pass_as_they_are() {
    arrive_as_they_are(&[
        r#""\u0000""#,
        r#"{"a\u0000b": "\u0000"}"#,
        r#""\ud800""#,
        r#""\udfff \ud800\u0041""#,
        r#""\ufffe\uffff""#,
    ])
    .await;
    // `emit_many` takes jsonb, which cannot contain the character NUL. The call fails with
    // Postgres' own error.
    let mut scene = Scene::new().await;
    let call = r#"SELECT postrider.emit_many('[{"event_type": "a", "payload": "\u0000"}]')"#;
    let error = scene.client.batch_execute(call).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22P05");
    scene.goes_on().await;
}

#[tokio::test]
async fn b20_bytes_that_are_no_text_are_published_as_they_are() {
    let mut scene = Scene::new().await;
    let every: Vec<u8> = (0..=255).collect();
    let samples: [&[u8]; 5] = [&every, b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\0\r\n\0"];
    let messages = scene.publishes(samples.iter().map(|it| of_bytes(it)).collect()).await;
    for (sample, message) in samples.iter().zip(messages) {
        assert_eq!(message.payload, *sample);
    }
    let before = scene.settle().await.len();
    let call = "SELECT postrider.emit_binary('image', '\\xc328ff00')";
    scene.client.batch_execute(call).await.unwrap();
    let emitted = scene.settle().await.split_off(before);
    assert_eq!(emitted[0].payload, &b"\xc3\x28\xff\x00"[..]);
    assert_eq!(emitted[0].header("ce-datacontenttype"), Some("application/octet-stream"));
}
