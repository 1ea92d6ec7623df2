//! Tests of log lines about dead letters: each letter gets a line of its own, or is counted in a
//! summary.

use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, eventually,
    letters::{POISON, done, number},
};

const DIED: &str = "an event became a dead letter";
const SUMMARY: &str = "more events each became a dead letter";

async fn wait_dead(client: &Client, count: i64) {
    let dead = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'dead'"#;
    eventually(format!("{count} dead letters"), DEADLINE, async || {
        number(client, dead).await == count
    })
    .await;
}

/// Number after `count=` in a log line.
fn count(line: &str) -> u64 {
    let (_, rest) = line.split_once("count=").expect(line);
    rest.split_whitespace().next().unwrap().parse().expect(line)
}

/// Former defect: of several dead letters within a second only the first was logged, as a warning
/// and without its number.
#[tokio::test]
async fn each_dead_letter_has_an_error_line_with_its_number_type_key_and_code() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().allow_log(DIED).start();
    client.execute(POISON, &[&5_i64]).await.unwrap();
    let without_key = r#"INSERT INTO "postrider".outbox (event_type, subject, payload)
        VALUES ('a.hidden', 'no subject', '{"secret": "swordfish"}')"#;
    client.batch_execute(without_key).await.unwrap();
    wait_dead(&client, 6).await;
    let letters = r#"SELECT id, event_type, coalesce(aggregate_type || '/' || aggregate_id, '-'),
        error_code FROM "postrider".letter ORDER BY id"#;
    let mut again = 0;
    for row in client.query(letters, &[]).await.unwrap() {
        let (id, code): (i64, String) = (row.get(0), row.get(3));
        let (event_type, key): (String, String) = (row.get(1), row.get(2));
        let line = daemon.wait_log(&format!("letter={id} "), DEADLINE).await;
        for part in [
            " ERROR ".to_owned(),
            format!("code=\"{code}\""),
            format!("event_type=\"{event_type}\""),
            format!("key=\"{key}\""),
            format!("postrider dlq show {id}"),
        ] {
            assert!(line.contains(&part), "{part} is not in {line}");
        }
        again = id;
    }
    // A retrying letter that dies again is logged by another part of the program.
    done(&fixture.toml(), &["dlq", "redrive", &again.to_string(), "--force"]).await;
    eventually("a second line of one letter", DEADLINE, async || {
        daemon.log().matches(&format!("letter={again} ")).count() == 2
    })
    .await;
    assert!(!daemon.log().contains("swordfish"));
}

#[tokio::test]
async fn of_very_many_dead_letters_one_line_has_how_many_and_which_codes() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().allow_log("became a dead letter").start();
    client.execute(POISON, &[&300_i64]).await.unwrap();
    let others = r#"INSERT INTO "postrider".outbox (event_type, payload)
        SELECT '', '{}' FROM generate_series(1, 2)"#;
    client.batch_execute(others).await.unwrap();
    wait_dead(&client, 302).await;
    let line = daemon.wait_log(SUMMARY, DEADLINE).await;
    assert!(line.contains(" ERROR ") && line.contains("subject_outside_prefix: "), "{line}");
    daemon.stop().await;
    let log = daemon.log();
    let summed: u64 = log.lines().filter(|line| line.contains(SUMMARY)).map(count).sum();
    let named = log.lines().filter(|line| line.contains(DIED)).count() as u64;
    // The log names up to 20 letters in ten seconds. A busy machine may need more than one such
    // period.
    assert!((20..=60).contains(&named), "{named} lines");
    assert_eq!(named + summed, 302);
}

/// Dead letters that still wait for the summary, which comes every ten seconds, are logged when the
/// relay stops.
#[tokio::test]
async fn a_stop_leaves_no_dead_letter_unsaid() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    client.execute(POISON, &[&100_i64]).await.unwrap();
    let mut daemon = fixture.daemon().allow_log(" WARN ").allow_log("became a dead letter").start();
    wait_dead(&client, 100).await;
    daemon.stop().await;
    let log = daemon.log();
    let summed: u64 = log.lines().filter(|line| line.contains(SUMMARY)).map(count).sum();
    // A busy machine may lose a session meanwhile. The new session then logs some letters a second
    // time.
    assert!(log.matches(DIED).count() as u64 + summed >= 100, "{log}");
}

/// The session is lost before the answer arrives that contains the numbers of the letters.
#[tokio::test]
async fn a_session_lost_while_letters_are_written_is_logged_with_their_codes() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().allow_log(" WARN ").allow_log(DIED).start();
    daemon.wait_log("relaying", DEADLINE).await;
    let mut other = fixture.connect().await;
    let lock = other.transaction().await.unwrap();
    lock.batch_execute(r#"LOCK TABLE "postrider".letter IN SHARE MODE"#).await.unwrap();
    client.execute(POISON, &[&3_i64]).await.unwrap();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'postrider/relay/default'
            AND wait_event_type = 'Lock' AND query LIKE '%letter%'";
    eventually("a settlement that waits", DEADLINE, async || number(&client, end).await > 0).await;
    let line = daemon.wait_log("the session ended while so many events", DEADLINE).await;
    assert!(line.contains("count=3") && line.contains("subject_outside_prefix: 3"), "{line}");
    lock.rollback().await.unwrap();
    wait_dead(&client, 3).await;
    eventually("three lines", DEADLINE, async || daemon.log().matches(DIED).count() == 3).await;
}
