//! Tests of `postrider dlq redrive --wait`: it prints the outcome of each letter, and its exit code
//! tells whether all were published.

use postrider::dev::servers::NatsOptions;
use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, app, daemon,
    daemon::Finished,
    eventually,
    letters::{dead, number, refused},
    toml::Toml,
};

/// Removes the wrong subject of which these letters died.
async fn cure(client: &Client, ids: &str) {
    let cure = format!(r#"UPDATE "postrider".letter SET subject = NULL WHERE id IN ({ids})"#);
    client.batch_execute(&cure).await.unwrap();
}

async fn redrive(toml: &Toml, args: &[&str]) -> Finished {
    let wait = ["dlq", "redrive", "--wait", "--timeout", "20s"];
    daemon::run(toml, &[&wait, args].concat()).await
}

#[tokio::test]
async fn a_redrive_that_waits_prints_each_outcome_and_its_exit_code_says_them() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let client = dead(&fixture, 5).await;
    cure(&client, "1, 2, 4").await;
    let _daemon = fixture.daemon().allow_log("became a dead letter").start();
    let all = redrive(&toml, &["1", "2"]).await;
    assert_eq!(all.code, Some(0), "{all:?}");
    assert!(all.stdout.starts_with("redriven 2 dead letters\n"), "{all:?}");
    for id in [1, 2] {
        let line = format!("letter {id}: published, stream sequence ");
        assert!(all.stdout.contains(&line), "{all:?}");
    }
    assert_eq!(fixture.read_stream().await.len(), 2, "it waited until the stream had them");

    let again = redrive(&toml, &["--all", "--yes"]).await;
    assert_eq!(again.code, Some(65), "{again:?}");
    assert!(again.stdout.contains("letter 4: published, stream sequence "), "{again:?}");
    for id in [3, 5] {
        let line = format!("letter {id}: dead again, subject_outside_prefix: subject ");
        assert!(again.stdout.contains(&line), "{again:?}");
    }
    // A letter that the command left alone is reported as without `--wait`.
    let left = redrive(&toml, &["1"]).await;
    assert_eq!((left.code, left.stdout.as_str()), (Some(1), "redriven 0 dead letters\n"));
}

#[tokio::test]
async fn a_redrive_that_waits_ends_at_its_deadline_when_no_relay_runs() {
    let fixture = Fixture::new().await;
    let client = dead(&fixture, 2).await;
    let command = ["dlq", "redrive", "1", "2", "--wait", "--timeout", "300ms"];
    let finished = daemon::run(&fixture.toml(), &command).await;
    assert_eq!(finished.code, Some(75), "{finished:?}");
    let lines = "redriven 2 dead letters\nletter 1: no outcome yet\nletter 2: no outcome yet\n";
    assert_eq!(finished.stdout, lines);
    assert!(finished.stderr.contains("does a relay run? see `postrider status`"), "{finished:?}");
    let retrying = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'retrying'"#;
    assert_eq!(number(&client, retrying).await, 2);
    let (code, stderr) =
        refused(&fixture.toml(), &["dlq", "redrive", "1", "--timeout", "3s"]).await;
    assert!(code == Some(2) && stderr.contains("--wait"), "{stderr}");
}

/// The relay will not try a letter behind a dead one of its key, so the command has nothing to wait
/// for.
#[tokio::test]
async fn a_letter_behind_a_dead_one_of_its_key_is_an_outcome() {
    let fixture = Fixture::new().await;
    let client = dead(&fixture, 2).await;
    let one_key = r#"UPDATE "postrider".letter SET aggregate_id = 'o-1', subject = NULL"#;
    client.batch_execute(one_key).await.unwrap();
    let _daemon = fixture.daemon().start();
    let finished = redrive(&fixture.toml(), &["2"]).await;
    assert_eq!(finished.code, Some(65), "{finished:?}");
    let line = "letter 2: held behind dead letter 1 of its key\n";
    assert!(finished.stdout.ends_with(line), "{finished:?}");
    let both = redrive(&fixture.toml(), &["1"]).await;
    assert_eq!(both.code, Some(0), "{both:?}");
    assert_eq!(fixture.wait_stored(2, DEADLINE).await.len(), 2);
}

#[tokio::test]
async fn a_letter_that_fails_once_more_and_is_tried_again_is_an_outcome_that_needs_time() {
    let extra = "authorization { users: [
        { user: everyone, password: everything }
        { user: relay, password: secret, permissions { subscribe: [\">\"],
          publish: { allow: [\">\"], deny: [\"*.denied\"] } } }
        ] }\nno_auth_user: everyone\n";
    let options = NatsOptions { extra: extra.to_owned(), ..NatsOptions::default() };
    let fixture = Fixture::with(None, Some(options)).await;
    let client = fixture.connect().await;
    let _daemon = fixture
        .daemon()
        .set("nats.user", "relay")
        .set("nats.password", "secret")
        .set("route.on_denied", "retry")
        .set("route.delay", "5m")
        .set("route.max_delay", "5m")
        .allow_log("the broker refused a message for now; the relay tries it again")
        .start();
    app::emit(&client, "denied", Some(("order", "o-1")), "{}").await;
    let retrying = r#"SELECT count(*) FROM "postrider".letter WHERE state = 'retrying'"#;
    eventually("a letter", DEADLINE, async || number(&client, retrying).await == 1).await;
    let finished = redrive(&fixture.toml(), &["--retrying", "--all", "--yes"]).await;
    assert_eq!(finished.code, Some(75), "{finished:?}");
    assert!(finished.stdout.contains("letter 1: retrying, permission_denied: "), "{finished:?}");
    assert!(finished.stdout.contains(", next attempt 20"), "{finished:?}");
}
