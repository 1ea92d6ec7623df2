//! Tests of `postrider dlq edit`, which corrects a dead letter in place and gives its event a new
//! id.

use std::fs;

use super::support::{Fixture, letters::Letters};

const ROW: &str = r#"SELECT concat_ws('|', state, dead_at IS NOT NULL, resolution IS NULL, event_type,
        subject, headers, payload::text, encode(payload_binary, 'escape'), payload_size,
        payload_omitted)
    FROM "postrider".letter WHERE id = 1"#;

#[tokio::test]
async fn an_edit_changes_what_it_names_under_a_new_id_and_the_letter_stays_dead() {
    let fixture = Fixture::new().await;
    let poison = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, subject, headers, payload)
        VALUES ('order..placed', 'order', 'o-1', 'no subject', '{"Nats-TTL": "1", "n": 1.50}',
            '{"old": true}')"#;
    let letters = Letters::make(&fixture, poison, 1).await;
    let id = r#"SELECT event_id::text FROM "postrider".letter"#;
    let old = letters.text(id).await;
    let before = letters.everything().await;
    let subject = format!("{}.order.placed", fixture.prefix);
    let edit = [
        "dlq",
        "edit",
        "1",
        "--event-type",
        "order.placed",
        "--subject",
        &subject,
        "--remove-header",
        "Nats-TTL",
        "--header",
        "tenant=acme",
        "--payload",
        "{ \"new\": 1e400 }",
        "--reason",
        "a typing error",
        "--actor",
        "ann",
    ];
    let rehearsed = letters.done(&[&edit[..], &["--dry-run"]].concat()).await;
    assert_eq!(rehearsed, "would change letter 1\n");
    assert_eq!(letters.everything().await, before);

    let out = letters.done(&edit).await;
    let new = letters.text(id).await;
    assert_ne!(new, old);
    assert_eq!(new.as_bytes()[14], b'7', "a version 7 UUID: {new}");
    let expected =
        format!("changed letter 1: event {new} replaces {old}\nnext: postrider dlq redrive 1\n");
    assert_eq!(out, expected);
    let expected = format!(
        "dead|t|t|order.placed|{subject}|{{\"n\": 1.50, \"tenant\": \"acme\"}}|\
         {{ \"new\": 1e400 }}|16|f"
    );
    assert_eq!(letters.text(ROW).await, expected);
    assert_eq!(letters.text(r#"SELECT replaces::text FROM "postrider".letter"#).await, old);

    let audit = r#"SELECT concat_ws('|', actor, action, reason, event_id, before ->> 'event_id',
            after ->> 'event_id', after ->> 'replaces', before ->> 'subject', before ->> 'event_type',
            before ->> 'payload_size', after ->> 'payload_size',
            before ->> 'payload_sha256' = encode(sha256('{"old": true}'), 'hex'),
            after ->> 'payload_sha256' = encode(sha256('{ "new": 1e400 }'), 'hex'))
        FROM "postrider".audit"#;
    let size = r#"SELECT (before -> 'payload_size')::bigint FROM "postrider".audit"#;
    let sizes = letters.number(size).await;
    let expected = format!(
        "ann|edit|a typing error|{old}|{old}|{new}|{old}|no subject|order..placed|{sizes}|16|t|t"
    );
    assert_eq!(letters.text(audit).await, expected);
    let all = r#"SELECT string_agg(before::text || after, '') FROM "postrider".audit"#;
    let all = letters.text(all).await;
    assert!(!all.contains("old\": true") && !all.contains("1e400"), "a payload: {all}");
}

#[tokio::test]
async fn a_second_edit_links_to_the_first_and_is_audited_with_what_it_changed_alone() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 1).await;
    let id = r#"SELECT event_id::text FROM "postrider".letter"#;
    letters.edit("1", &["--subject", ""]).await;
    let new = letters.text(id).await;
    letters.done(&["dlq", "edit", "1", "--header", "a=b", "--reason", "again"]).await;
    assert_eq!(letters.text(r#"SELECT replaces::text FROM "postrider".letter"#).await, new);
    let columns = r#"SELECT string_agg(key, ' ' ORDER BY key)
        FROM (SELECT after FROM "postrider".audit ORDER BY id DESC LIMIT 1) AS a,
             jsonb_object_keys(after) AS key"#;
    assert_eq!(letters.text(columns).await, "event_id headers replaces");
    let shown = letters.show("1").await;
    assert!(shown.contains(&format!("replaces       {new}")), "{shown}");
}

#[tokio::test]
async fn an_edit_may_redrive_at_once() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 1).await;
    let out = letters.edit("1", &["--subject", "", "--redrive"]).await;
    assert!(out.ends_with("\nredriven 1 dead letter\n"), "{out}");
    let row = r#"SELECT concat_ws('|', state, dead_at IS NULL, attempts, subject IS NULL,
            next_attempt_at <= clock_timestamp())
        FROM "postrider".letter"#;
    assert_eq!(letters.text(row).await, "retrying|t|0|t|t");
    let actions = r#"SELECT string_agg(action, ' ' ORDER BY id) FROM "postrider".audit"#;
    assert_eq!(letters.text(actions).await, "edit redrive");
    // A retrying letter cannot be edited, because its message may be in flight.
    let (code, stderr) = letters.edit_refused("1", &["--payload", "{}"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("letter 1 is retrying; only dead letters can be edited"), "{stderr}");
}

#[tokio::test]
async fn what_would_die_again_is_refused_and_nothing_is_changed() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 1).await;
    let before = letters.everything().await;
    let header = format!("x={}", "v".repeat(4_097));
    let cases: [(&[&str], &str); 10] = [
        (&["--payload", "{}"], "subject \"no subject\" does not start with"),
        (&["--subject", "elsewhere.x"], "does not start with the route's prefix"),
        (&["--subject", "", "--event-type", "a..b"], "it has an empty token"),
        (&["--subject", "", "--event-type", "a.*"], "it has a wildcard"),
        (&["--subject", "", "--header", "Nats-Rollup=all"], "header \"Nats-Rollup\" is reserved"),
        (&["--subject", "", "--header", "a b=c"], "header \"a b\" is not valid"),
        (&["--subject", "", "--header", "x=a\r\nb"], "its value has a control character"),
        (&["--subject", "", "--header", &header], "longer than 4096 bytes"),
        (&["--subject", "", "--payload", "{\"a\": }"], "not valid JSON"),
        (&["--subject", "", "--remove-header", "x"], "the letter has no header x"),
    ];
    for (changes, expected) in cases {
        let (code, stderr) = letters.edit_refused("1", changes).await;
        assert_eq!(code, Some(1), "{changes:?}: {stderr}");
        assert!(stderr.contains(expected), "{changes:?}: {stderr}");
    }
    assert_eq!(letters.everything().await, before);
}

#[tokio::test]
async fn a_payload_keeps_its_kind_and_may_come_from_a_file() {
    let fixture = Fixture::new().await;
    let rows = r#"
        INSERT INTO "postrider".outbox (event_type, subject, payload_binary, content_type)
        VALUES ('a', 'no subject', '\xff', 'application/octet-stream');
        INSERT INTO "postrider".outbox (event_type, payload, payload_binary)
        VALUES ('a', '{}', '\xff');
        INSERT INTO "postrider".outbox (event_type, payload)
        VALUES ('a', to_json(repeat('x', 1100000)));
        INSERT INTO "postrider".outbox (event_type, headers) VALUES ('a', '["Tenant"]')"#;
    let letters = Letters::make(&fixture, rows, 4).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("payload");
    fs::write(&file, b"\xfe\x00\n").unwrap();
    let file = file.to_str().unwrap();
    let kind = |id: i64| {
        format!(
            r#"SELECT concat_ws('|', payload::text, encode(payload_binary, 'hex'), payload_size,
                payload_omitted) FROM "postrider".letter WHERE id = {id}"#
        )
    };
    letters.edit("1", &["--subject", "", "--payload-file", file]).await;
    assert_eq!(letters.text(&kind(1)).await, "fe000a|3|f");

    // A letter with both kinds of payload gets the new payload in the column that its media type
    // says.
    let (_, stderr) = letters.edit_refused("2", &["--header", "a=b"]).await;
    assert!(stderr.contains("both payload and payload_binary are set"), "{stderr}");
    let (_, stderr) = letters.edit_refused("2", &["--payload-file", file]).await;
    assert!(stderr.contains("not valid JSON"), "{stderr}");
    letters.edit("2", &["--payload", "3"]).await;
    assert_eq!(letters.text(&kind(2)).await, "3|1|f");

    // A payload that was left in the outbox is replaced by one in the letter. The outbox no longer
    // has to keep its row.
    letters.edit("3", &["--payload", "\"short\""]).await;
    assert_eq!(letters.text(&kind(3)).await, "\"short\"|7|f");
    let digest = r#"SELECT count(*) FROM "postrider".audit WHERE letter_id = 3
        AND before ->> 'payload_sha256'
            = encode(sha256(convert_to(to_json(repeat('x', 1100000))::text, 'UTF8')), 'hex')"#;
    assert_eq!(letters.number(digest).await, 1);

    letters.edit("4", &["--remove-header", "Tenant"]).await;
    assert_eq!(letters.show_json("4").await["headers"], serde_json::json!({}));
}
