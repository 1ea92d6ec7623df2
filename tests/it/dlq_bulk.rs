//! Tests of `postrider dlq redrive` and `discard` for many letters: the command asks first, works
//! in batches, and handles each letter once.

use super::support::{DEADLINE, Fixture, daemon::Finished, eventually, letters::Letters};

const AUDITED: &str = r#"SELECT count(*) FROM "postrider".audit"#;
const AUDITED_ONCE: &str = r#"SELECT count(DISTINCT letter_id) FROM "postrider".audit"#;
const DEAD: &str = r#"SELECT count(*) FROM "postrider".letter
    WHERE state = 'dead' AND resolved_at IS NULL"#;
const RETRYING: &str = r#"SELECT count(*) FROM "postrider".letter
    WHERE state = 'retrying' AND dead_at IS NULL AND next_attempt_at IS NOT NULL"#;
const DISCARDED: &str = r#"SELECT count(*) FROM "postrider".letter
    WHERE resolution = 'discarded' AND state = 'dead' AND next_attempt_at IS NOT NULL"#;

/// Number of letters in the output, as in `redriven 1,234 dead letters`.
fn count_in(finished: &Finished) -> i64 {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let digits: String = finished.stdout.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[tokio::test]
async fn a_rehearsal_says_how_many_and_the_first_few_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 12).await;
    let before = letters.everything().await;
    let out = letters.redrive(&["--all", "--dry-run"]).await;
    assert!(out.starts_with("would redrive 12 dead letters, the first:\nid "), "{out}");
    assert_eq!(out.lines().count(), 7, "{out}");
    assert!(out.contains("order/o-1 (held)") && !out.contains("order/o-6"), "{out}");
    let discard = ["dlq", "discard", "--key", "order/o-3", "--dry-run", "--reason", "a test"];
    let out = letters.done(&discard).await;
    assert!(out.starts_with("would discard 1 dead letter, the first:\n"), "{out}");
    assert_eq!(letters.everything().await, before);
}

/// Former defect: the column said `- (held)`, as if other events waited behind an event without a
/// key.
#[tokio::test]
async fn a_letter_without_a_key_says_so_and_holds_nobody() {
    let fixture = Fixture::new().await;
    let insert = r#"INSERT INTO "postrider".outbox (event_type, subject)
        VALUES ('order.placed', 'no subject')"#;
    let letters = Letters::make(&fixture, insert, 1).await;
    let out = letters.done(&["dlq", "list"]).await;
    assert!(out.contains("  no key  ") && !out.contains("held"), "{out}");
    let shown = letters.show("1").await;
    assert!(!shown.contains("held"), "{shown}");
}

#[tokio::test]
async fn many_letters_want_a_terminal_or_a_yes() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 2).await;
    let before = letters.everything().await;
    for command in [
        &["dlq", "redrive", "--all"][..],
        &["dlq", "redrive", "--code", "invalid_subject"],
        &["dlq", "discard", "--all", "--reason", "a test"],
    ] {
        let (code, stderr) = letters.refused(command).await;
        assert_eq!(code, Some(2), "{command:?}: {stderr}");
        assert!(stderr.contains("--yes"), "{stderr}");
    }
    assert_eq!(letters.everything().await, before);
    let nothing = letters.redrive(&["--code", "unknown", "--yes"]).await;
    assert_eq!(nothing, "no dead letters like that\n");
}

#[tokio::test]
async fn a_filter_changes_what_it_lists_and_nothing_else() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 6).await;
    let change = r#"UPDATE "postrider".letter SET fingerprint = 'f' WHERE seq % 2 = 0;
        UPDATE "postrider".letter SET dead_at = dead_at - interval '1 day' WHERE seq = 2;
        UPDATE "postrider".letter SET dead_at = dead_at + interval '1 day' WHERE seq = 4"#;
    letters.client.batch_execute(change).await.unwrap();
    // The letter dated after the question is left alone, because the user was not asked about it.
    let out = letters.redrive(&["--fingerprint", "f", "--since", "2h", "--yes"]).await;
    assert_eq!(out, "redriven 1 dead letter\n");
    let redriven = r#"SELECT seq FROM "postrider".letter WHERE state = 'retrying'"#;
    assert_eq!(letters.number(redriven).await, 6);
    let out = letters.discard(&["--type", "order.placed", "--yes"]).await;
    assert_eq!(out, "discarded 4 dead letters\n");
    assert_eq!((letters.number(DEAD).await, letters.number(DISCARDED).await), (1, 4));
    assert_eq!(letters.number(AUDITED).await, 5);
}

#[tokio::test]
async fn two_operators_at_once_take_each_letter_once() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 5_000).await;
    let command = ["dlq", "redrive", "--all", "--yes"];
    let (one, other) = tokio::join!(letters.run(&command), letters.run(&command));
    assert_eq!(count_in(&one) + count_in(&other), 5_000, "{one:?} {other:?}");
    assert_eq!(letters.number(RETRYING).await, 5_000);
    assert_eq!(letters.number(AUDITED).await, 5_000);
    assert_eq!(letters.number(AUDITED_ONCE).await, 5_000);
}

#[tokio::test]
async fn a_command_that_was_killed_is_run_again_for_the_rest() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 6_000).await;
    // Another session locks a letter of the fourth batch, so that the kill comes when three batches
    // are done.
    let mut other = fixture.connect().await;
    let lock = other.transaction().await.unwrap();
    let open = r#"SELECT FROM "postrider".letter WHERE seq = 3500 FOR UPDATE"#;
    lock.batch_execute(open).await.unwrap();
    let command = ["dlq", "discard", "--all", "--yes", "--reason", "a test"];
    tokio::select! {
        // The command is killed when its future is dropped, once the other branch has completed.
        finished = letters.run(&command) => panic!("{finished:?}"),
        () = eventually("three batches", DEADLINE, async || {
            letters.number(DISCARDED).await == 3_000
        }) => {}
    }
    assert_eq!(letters.number(AUDITED).await, 3_000);
    lock.rollback().await.unwrap();
    // The session of the killed command may still complete the batch that it was working on.
    let again = letters.run(&command).await;
    assert!((2_000..=3_000).contains(&count_in(&again)), "{again:?}");
    assert_eq!(letters.number(DISCARDED).await, 6_000);
    assert_eq!(letters.number(AUDITED).await, 6_000);
    assert_eq!(letters.number(AUDITED_ONCE).await, 6_000);
    assert_eq!(letters.done(&command).await, "no dead letters\n");
}

#[tokio::test]
async fn a_letter_that_somebody_keeps_open_stops_a_batch_with_what_is_done_so_far() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 1_500)
        .await
        .with(fixture.toml().set("database.query_timeout", "500ms"));
    let mut other = fixture.connect().await;
    let lock = other.transaction().await.unwrap();
    let open = r#"SELECT FROM "postrider".letter WHERE seq = 1200 FOR UPDATE"#;
    lock.batch_execute(open).await.unwrap();
    let (code, stderr) = letters.refused(&["dlq", "redrive", "--all", "--yes"]).await;
    assert_eq!(code, Some(69), "{stderr}");
    let progress = "why: redriven 1,000 of 1,500; run the same again for the rest";
    assert!(stderr.contains(progress), "{stderr}");
    assert_eq!(letters.number(RETRYING).await, 1_000);
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn what_somebody_else_takes_in_the_same_moment_is_left_to_them_and_said() {
    let fixture = Fixture::new().await;
    let letters = Letters::dead(&fixture, 3).await;
    let mut other = fixture.connect().await;
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND application_name = 'postrider/dlq' AND wait_event_type = 'Lock'";
    let edit = ["dlq", "edit", "3", "--subject", "", "--reason", "a test"];
    let commands: [(&str, &[&str], &str, &str); 2] = [
        ("1", &["dlq", "redrive", "1", "2"], "redriven 1 dead letter\n", "letter 1: taken by"),
        ("3", &edit, "", "error: letter 3 was taken by"),
    ];
    for (id, command, stdout, stderr) in commands {
        let taking = other.transaction().await.unwrap();
        let take = format!(
            r#"UPDATE "postrider".letter SET state = 'retrying', dead_at = NULL WHERE id = {id}"#
        );
        taking.batch_execute(&take).await.unwrap();
        let (finished, ()) = tokio::join!(letters.run(command), async {
            eventually("a command that waits", DEADLINE, async || letters.number(waits).await == 1)
                .await;
            taking.commit().await.unwrap();
        });
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(1), stdout), "{finished:?}");
        let expected = format!("{stderr} somebody else meanwhile");
        assert!(finished.stderr.starts_with(&expected), "{finished:?}");
    }
    assert_eq!(letters.number(AUDITED).await, 1);
}
