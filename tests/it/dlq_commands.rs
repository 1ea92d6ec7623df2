//! Tests of `postrider dlq` without a running relay: the letters that an operator sees, and the
//! commands on single letters.

use std::time::{Duration, SystemTime};

use futures_util::{FutureExt as _, StreamExt as _, stream::poll_fn};
use postrider::dev::servers::free_port;
use serde_json::{Value, json};
use tokio_postgres::{AsyncMessage, NoTls, error::SqlState};

use super::support::{
    DEADLINE, Fixture, Login,
    letters::{Letters, done, refused},
    postgres::connect,
};

/// Rows of which four become dead letters of two causes. One of the dead has a key in which another
/// event waits.
const MIXED: &str = r#"
    INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, subject, headers)
    VALUES ('order.placed', 'order', 'a/1', 'no subject', '{}'),
           ('order.paid', 'order', 'a/1', NULL, '{}'),
           ('order.placed', 'order', 'b', 'no subject', '{}'),
           ('invoice.sent', 'invoice', 'a/1', NULL, '{"Nats-TTL": "1"}'),
           ('invoice.sent', NULL, NULL, NULL, '{"Nats-TTL": "1"}')"#;

fn seqs(page: &Value) -> Vec<i64> {
    page["letters"].as_array().unwrap().iter().map(|it| it["seq"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn lists_are_narrowed_by_what_the_operator_knows() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let letters = Letters::make(&fixture, MIXED, 5).await;
    let fingerprint = r#"SELECT fingerprint FROM "postrider".letter WHERE seq = 4"#;
    let fingerprint = letters.text(fingerprint).await;
    let expected: [(&[&str], &[i64]); 12] = [
        (&[], &[1, 3, 4, 5]),
        (&["--type", "order.placed"], &[1, 3]),
        (&["--type", "order"], &[]),
        (&["--key", "order/a/1"], &[1]),
        (&["--key", "invoice/a/1"], &[4]),
        (&["--code", "reserved_header"], &[4, 5]),
        (&["--code", "reserved_header", "--type", "order.placed"], &[]),
        (&["--fingerprint", &fingerprint], &[4, 5]),
        (&["--state", "held"], &[2]),
        (&["--state", "held", "--key", "order/b"], &[]),
        (&["--state", "retrying"], &[]),
        (&["--since", "2h"], &[1, 3, 4, 5]),
    ];
    for (filters, expected) in expected {
        let mut found = seqs(&letters.json(&[&["dlq", "list"], filters].concat()).await);
        found.sort_unstable();
        assert_eq!(found, expected, "{filters:?}");
    }

    let aged = r#"UPDATE "postrider".letter SET dead_at = dead_at - interval '3 hours'
        WHERE seq = 1"#;
    letters.client.batch_execute(aged).await.unwrap();
    let young = letters.json(&["dlq", "list", "--since", "2h"]).await;
    assert_eq!(seqs(&young).len(), 3);
    let hour_ago = jiff::Timestamp::try_from(SystemTime::now() - Duration::from_hours(1)).unwrap();
    let young = letters.json(&["dlq", "list", "--since", &hour_ago.to_string()]).await;
    assert_eq!(seqs(&young).len(), 3);
    let old = letters.json(&["dlq", "list", "--since", "4h"]).await;
    assert_eq!(seqs(&old).len(), 4);
    // Letters of another relay are not shown.
    let other = toml.clone().set("relay.name", "other");
    assert_eq!(done(&other, &["dlq", "list"]).await, "no dead letters\n");
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended_whatever_the_state() {
    let fixture = Fixture::new().await;
    let rows = r#"INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, subject)
        SELECT 'order.placed', 'order', (n % 3)::text, CASE WHEN n < 3 THEN 'no subject' END
        FROM generate_series(0, 9) AS n"#;
    let letters = Letters::make(&fixture, rows, 10).await;
    for (state, total) in [("dead", 3), ("held", 7)] {
        let (mut found, mut after): (_, Vec<String>) = (Vec::new(), Vec::new());
        loop {
            let page = ["dlq", "list", "--state", state, "--limit", "2"];
            let again: Vec<&str> = after.iter().map(String::as_str).collect();
            let page = letters.json(&[&page, again.as_slice()].concat()).await;
            found.extend(seqs(&page));
            if page["next"].is_null() {
                break;
            }
            after = vec!["--after".to_owned(), page["next"].to_string()];
        }
        let mut distinct = found.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!((found.len(), distinct.len()), (total, total), "{state}: {found:?}");
    }
    let text = letters.done(&["dlq", "list", "--state", "held", "--limit", "1"]).await;
    assert!(text.ends_with("more: the same command with --after 10\n"), "{text}");
}

#[tokio::test]
async fn show_prints_everything_of_a_letter() {
    let fixture = Fixture::new().await;
    let rows = r#"
        INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id, payload, subject,
            headers, correlation_id, causation_id, actor, source, aggregate_version)
        VALUES ('order.placed', 'order', 'o-1', '{"n":  1}', 'no subject',
            '{"tenant": "acme", "retries": 3}', 'corr', 'cause', 'ann', '/shop', 7);
        INSERT INTO "postrider".outbox (event_type, aggregate_type, aggregate_id)
        SELECT 'order.paid', 'order', 'o-1' FROM generate_series(1, 3)"#;
    let letters = Letters::make(&fixture, rows, 4).await;
    let shown = letters.show("1").await;
    let event_id = letters.text(r#"SELECT event_id::text FROM "postrider".letter WHERE id = 1"#);
    let event_id = event_id.await;
    for line in [
        "letter         1 of relay default",
        "state          dead",
        "error          subject_outside_prefix: subject \"no subject\"",
        "attempts       1",
        "held behind it 3",
        &format!("event          {event_id}"),
        "type           order.placed (version 1)",
        "key            order/o-1",
        "key version    7",
        "source         /shop",
        "subject        no subject",
        "correlation    corr",
        "causation      cause",
        "actor          ann",
        "header         retries: 3",
        "header         tenant: acme",
        "payload        json, 9 bytes",
    ] {
        assert!(shown.lines().any(|it| it.starts_with(line)), "{line:?} in\n{shown}");
    }
    assert!(shown.ends_with("\n\n{\"n\":  1}\n"), "{shown}");
    let held = letters.show("3").await;
    assert!(held.contains("\nstate          held, behind letter 1\n"), "{held}");
    assert!(held.contains("\npayload        none"), "{held}");

    let letter = letters.show_json("1").await;
    assert_eq!(letter["payload"], "{\"n\":  1}");
    assert_eq!(letter["headers"], json!({ "tenant": "acme", "retries": 3 }));
    assert_eq!((&letter["behind"], &letter["payload_truncated"]), (&json!(3), &json!(false)));
    let (code, stderr) = letters.refused(&["dlq", "show", "99"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.starts_with("error: there is no letter 99\n hint: "), "{stderr}");
}

#[tokio::test]
async fn payloads_are_shown_as_what_they_are_and_only_their_beginning() {
    let fixture = Fixture::new().await;
    let rows = r#"
        INSERT INTO "postrider".outbox (event_type, subject, payload_binary, content_type)
        VALUES ('a', 'no subject', '\xff00fe', 'application/octet-stream'),
               ('a', 'no subject', convert_to(E'plain \x1b[2J text', 'UTF8'), 'text/plain');
        INSERT INTO "postrider".outbox (event_type, subject, payload)
        VALUES ('a', 'no subject', to_json(repeat('ä', 5000))),
               ('a', NULL, to_json(repeat('x', 1100000)))"#;
    let letters = Letters::make(&fixture, rows, 4).await;
    let omitted = r#"SELECT count(*) FROM "postrider".letter WHERE payload_omitted"#;
    assert_eq!(letters.number(omitted).await, 1, "the last payload is too large for a letter");

    let binary = letters.show("1").await;
    assert!(binary.ends_with("payload        binary, 3 bytes\n\nff 00 fe\n"), "{binary}");
    let binary = letters.show_json("1").await;
    assert_eq!(binary["payload_base64"], "/wD+");
    assert_eq!(binary.get("payload"), None);
    let plain = letters.show("2").await;
    assert!(plain.ends_with("\n\nplain \\u{1b}[2J text\n"), "{plain}");

    let long = letters.show_json("3").await;
    assert_eq!(long["payload"].as_str().unwrap().len(), 4_095, "no half character");
    assert_eq!(long["payload_truncated"], true);
    let long = letters.json(&["dlq", "show", "3", "--full"]).await;
    assert_eq!(long["payload"].as_str().unwrap().len(), 10_002);
    let title = "payload        json, 10,002 bytes, the first 4,095; --full shows all\n";
    assert!(letters.show("3").await.contains(title));

    // The payload was left in the outbox, so the command reads it there.
    let large = letters.json(&["dlq", "show", "4", "--full"]).await;
    assert_eq!(large["payload"].as_str().unwrap().len(), 1_100_002);
    assert_eq!(large["payload_in_outbox"], true);
}

#[tokio::test]
async fn what_a_row_holds_cannot_command_the_terminal() {
    let fixture = Fixture::new().await;
    let evil = r#"INSERT INTO "postrider".outbox
            (event_type, aggregate_type, aggregate_id, subject, headers, correlation_id, payload)
        VALUES (E'a\x1b[31m\nb', E'or\x1b]0;x\x07der', E'o\r\n1', E'no\x1b[2J subject',
            jsonb_build_object(E'x\x1b[1m', E'\x1b[5mv\x07'), E'c\x1b[8m',
            to_json(E'\u202e\u0085\u009b31m'::text))"#;
    let letters = Letters::make(&fixture, evil, 1).await;
    let commands: [&[&str]; 5] = [
        &["dlq", "list"],
        &["dlq", "show", "1"],
        &["dlq", "redrive", "--all", "--dry-run"],
        &["dlq", "list", "--json"],
        &["why", "or\u{1b}]0;x\u{7}der/o\r\n1"],
    ];
    for command in commands {
        let output = letters.done(command).await;
        let obeyed =
            |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        let json = command.contains(&"--json");
        assert!(!output.contains('\u{1b}') && (json || !output.contains(obeyed)), "{output:?}");
        assert!(output.contains("u{1b}") || json, "{output}");
    }
}

#[tokio::test]
async fn a_redrive_by_id_says_of_each_letter_why_it_was_left_alone() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let letters = Letters::make(&fixture, MIXED, 5).await;
    let before = letters.everything().await;
    let out = letters.redrive(&["1", "3", "--dry-run"]).await;
    assert_eq!(out, "would redrive 2 dead letters\n");
    assert_eq!(letters.everything().await, before);

    assert_eq!(letters.redrive(&["1", "--actor", "ann"]).await, "redriven 1 dead letter\n");
    let row = r#"SELECT concat_ws('|', state, dead_at IS NULL, attempts, holds, resolution IS NULL,
            next_attempt_at BETWEEN clock_timestamp() - interval '1 minute' AND clock_timestamp())
        FROM "postrider".letter WHERE id = 1"#;
    assert_eq!(letters.text(row).await, "retrying|t|0|t|t|t");
    let audit = r#"SELECT concat_ws('|', actor, database_user, action, reason, letter_id, seq, relay,
            before ->> 'state', after ->> 'state', before ->> 'attempts', after ->> 'attempts',
            (before ->> 'dead_at')::timestamptz < acted_at, after -> 'dead_at',
            event_id = (SELECT event_id FROM "postrider".letter WHERE id = 1))
        FROM "postrider".audit"#;
    let expected = "ann|postgres|redrive|1|1|default|dead|retrying|1|0|t|null|t";
    assert_eq!(letters.text(audit).await, expected);

    letters.discard(&["4", "--actor", "bob"]).await;
    let (code, stderr) = letters.refused(&["dlq", "redrive", "5", "2", "3", "4", "99"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(
        stderr,
        "letter 5: it can never be published as it is (reserved_header): edit or discard it, or say \
         --force\n\
         letter 2: not dead: it waits behind an earlier letter of its key\n\
         letter 4: already discarded by bob\n\
         letter 99: there is none\n"
    );
    let retrying = letters.json(&["dlq", "list", "--state", "retrying"]).await;
    assert_eq!(seqs(&retrying), [3, 1]);

    let other = toml.clone().set("relay.name", "other");
    let (code, stderr) = refused(&other, &["dlq", "redrive", "5"]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("letter 5: belongs to relay default"), "{stderr}");
}

#[tokio::test]
async fn a_discard_says_who_and_why_and_leaves_the_letter_where_it_died() {
    let fixture = Fixture::new().await;
    let letters = Letters::make(&fixture, MIXED, 5).await;
    let reason = "sent by hand, see ticket 17";
    let discard = ["dlq", "discard", "1", "--reason", reason, "--actor", "ann"];
    assert_eq!(letters.done(&discard).await, "discarded 1 dead letter\n");
    let row = r#"SELECT concat_ws('|', state, dead_at IS NOT NULL, resolution, resolved_by, reason,
            attempts, resolved_at <= clock_timestamp(), next_attempt_at <= clock_timestamp())
        FROM "postrider".letter WHERE id = 1"#;
    let expected = format!("dead|t|discarded|ann|{reason}|1|t|t");
    assert_eq!(letters.text(row).await, expected);
    let audit = r#"SELECT concat_ws('|', actor, action, reason, before -> 'resolution',
            after ->> 'resolution', after ->> 'resolved_by', after ->> 'reason')
        FROM "postrider".audit"#;
    let expected = format!("ann|discard|{reason}|null|discarded|ann|{reason}");
    assert_eq!(letters.text(audit).await, expected);
    // The held letter is not released by the command. The relay does that later.
    assert_eq!(seqs(&letters.json(&["dlq", "list", "--state", "held"]).await), [2]);
    let shown = letters.show("1").await;
    assert!(shown.contains("state          resolved (was dead)"), "{shown}");
    assert!(shown.contains(&format!("because        {reason}\n")), "{shown}");
    assert!(shown.contains("discard by ann (database user postgres)"), "{shown}");
}

#[tokio::test]
async fn the_relay_is_woken_by_what_changes_and_not_by_a_rehearsal() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 3).await;
    let (client, mut connection) =
        tokio_postgres::connect(&fixture.database_url(), NoTls).await.unwrap();
    let mut messages = poll_fn(move |context| connection.poll_message(context));
    let listen = client.batch_execute("LISTEN postrider_postrider");
    tokio::select! {
        answer = listen => answer.unwrap(),
        message = messages.next() => panic!("{:?}", message.map(|message| message.is_ok())),
    }
    letters.redrive(&["--all", "--dry-run"]).await;
    letters.redrive(&["1"]).await;
    letters.discard(&["2"]).await;
    letters.edit("3", &["--subject", "", "--redrive"]).await;
    for action in ["redrive", "discard", "edit"] {
        let message = tokio::time::timeout(DEADLINE, messages.next()).await.expect(action);
        match message {
            Some(Ok(AsyncMessage::Notification(sent))) => assert_eq!(sent.payload(), "letters"),
            _ => panic!("{action}: no notification"),
        }
    }
    // A command that changes no letter must not notify the relay.
    letters.refused(&["dlq", "redrive", "2"]).await;
    letters.redrive(&["--all", "--yes"]).await;
    assert!(messages.next().now_or_never().is_none());
}

#[tokio::test]
async fn the_operators_role_is_enough_and_no_more_than_that() {
    let fixture = Fixture::new().await;
    let Login { name: role, url } = fixture.login("operator").await;
    let letters = Letters::make(&fixture, MIXED, 5).await;
    let letters = letters.with(fixture.toml().set("database.url", url.as_str()));

    letters.done(&["dlq", "list"]).await;
    letters.show("1").await;
    letters.done(&["why", "order/a/1"]).await;
    letters.redrive(&["1"]).await;
    letters.redrive(&["--key", "order/b", "--yes"]).await;
    letters.discard(&["4"]).await;
    letters.edit("5", &["--remove-header", "Nats-TTL", "--payload", "{}"]).await;
    let audited = format!(
        "SELECT count(*) FROM postrider.audit WHERE database_user = '{role}' AND actor <> ''"
    );
    assert_eq!(letters.number(&audited).await, 4);

    let operator = connect(&url).await;
    for forbidden in [
        "DELETE FROM postrider.letter",
        "UPDATE postrider.letter SET error = 'none'",
        "UPDATE postrider.letter SET state = 'retrying'",
        "UPDATE postrider.letter SET payload = NULL",
        "INSERT INTO postrider.letter (relay) VALUES ('default')",
        "UPDATE postrider.position SET heal_requested_at = now()",
        "INSERT INTO postrider.audit (actor, action, relay, letter_id, seq, event_id, before, after) \
             VALUES ('a', 'b', 'c', 1, 1, gen_random_uuid(), '{}', '{}')",
        "SELECT postrider.reread('{1}')",
        "SELECT postrider.forget('0', '0', 1000)",
        "UPDATE postrider.letter SET seq = 1",
        "UPDATE postrider.audit SET actor = 'bob'",
        "DELETE FROM postrider.audit",
        "INSERT INTO postrider.audit (actor, action, relay, letter_id, seq, event_id, before, after, \
             database_user) VALUES ('a', 'b', 'c', 1, 1, gen_random_uuid(), '{}', '{}', 'bob')",
        "INSERT INTO postrider.outbox (event_type) VALUES ('a')",
        "UPDATE postrider.position SET term = 0",
    ] {
        let error = operator.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{forbidden}");
    }
    letters.client.batch_execute("SET ROLE postrider_relay").await.unwrap();
    for forbidden in ["SELECT FROM postrider.audit", "DELETE FROM postrider.audit"] {
        let error = letters.client.batch_execute(forbidden).await.expect_err(forbidden);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{forbidden}");
    }

    // A user who may read but is no operator gets an error that names the missing right.
    let role = format!("{}_reader", fixture.database);
    let create = format!(
        "RESET ROLE; CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA postrider TO {role};
         GRANT SELECT ON postrider.letter TO {role}"
    );
    letters.client.batch_execute(&create).await.unwrap();
    let url = fixture.database_url().replace("postgres@", &format!("{role}@"));
    let reader = fixture.toml().set("database.url", url);
    let (code, stderr) = refused(&reader, &["dlq", "redrive", "5"]).await;
    assert_eq!(code, Some(77), "{stderr}");
}

#[tokio::test]
async fn a_database_that_is_down_and_one_without_tables_are_distinguished() {
    let fixture = Fixture::new().await;
    let nobody = format!("postgresql://postgres@127.0.0.1:{}/x", free_port().unwrap());
    let down = fixture.toml().set("database.url", nobody);
    let nowhere = fixture.toml().set("database.schema", "nowhere");
    for command in [
        &["dlq", "show", "1"][..],
        &["dlq", "redrive", "1"],
        &["dlq", "discard", "--all", "--yes", "--reason", "x"],
        &["dlq", "edit", "1", "--payload", "{}", "--reason", "x"],
        &["why", "order/1"],
    ] {
        assert_eq!(refused(&down, command).await.0, Some(69), "{command:?}");
        let (code, stderr) = refused(&nowhere, command).await;
        assert_eq!(code, Some(78), "{command:?}: {stderr}");
        assert!(stderr.contains("hint: run `postrider migrate`"), "{stderr}");
    }
}
