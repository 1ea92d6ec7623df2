//! Tests of a stream that was deleted, sealed or changed while the relay runs: the suggested
//! command fits the cause.

use std::time::Duration;

use async_nats::jetstream::stream::Config;
use serde_json::Value;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{self, Daemon, DaemonBuilder},
    eventually,
    letters::json,
};

/// Changes the configuration of a stream.
type Change = fn(Config) -> Config;

/// Starts a relay and publishes five events to its stream.
async fn started(fixture: &Fixture, builder: DaemonBuilder) -> Daemon {
    fixture.jetstream().await.create_stream(fixture.stream_config()).await.unwrap();
    let daemon = builder
        .admin()
        .allow_log("nothing can be published just now")
        .allow_log("the broker has lost events")
        .allow_log("publishing again from a checkpoint")
        .allow_log("waiting for Postgres")
        .start();
    app::insert_backlog(&fixture.connect().await, 5, 5).await;
    fixture.wait_stored(5, DEADLINE).await;
    assert!(fixture.wait_drained(DEADLINE).await);
    daemon
}

/// Finding of `status` about the stream, once its suggested command contains this text.
async fn wait_next(fixture: &Fixture, next: &str) -> Value {
    eventually(format!("a finding whose next command has {next:?}"), DEADLINE, async || {
        let status = json(&fixture.toml(), &["status"]).await;
        let findings = status["findings"].as_array().unwrap().clone();
        let is_it = |it: &Value| it["next"].as_str().unwrap().contains(next);
        findings.into_iter().find(|it| it["code"] == "misconfigured" && is_it(it))
    })
    .await
}

/// Former defect: `check` said "ok" because `run` would create the stream, while the running relay
/// refused to.
#[tokio::test]
async fn a_deleted_stream_that_was_published_to_is_for_a_person_to_restore() {
    let fixture = Fixture::new().await;
    let mut daemon = started(&fixture, fixture.daemon()).await;
    fixture.jetstream().await.delete_stream(&fixture.stream).await.unwrap();
    app::insert_backlog(&fixture.connect().await, 5, 5).await;
    let add = format!("nats stream add {} --subjects \"{}.>\"", fixture.stream, fixture.prefix);
    let finding = wait_next(&fixture, &add).await;
    assert!(finding["next"].as_str().unwrap().contains("nats stream restore"), "{finding}");
    let gone = "does not exist, and events were published to it";
    assert!(finding["cause"].as_str().unwrap().contains(gone), "{finding}");
    let check = async || {
        let check = daemon::run(&fixture.toml(), &["check"]).await;
        assert!(check.stdout.contains(gone) && check.stdout.contains(&add), "{check:?}");
        assert!(!check.stdout.contains("`postrider run` creates it"), "{check:?}");
        check.code
    };
    check().await;
    // After a restart the relay still knows that events were published to the deleted stream.
    daemon.kill9();
    daemon.start_again();
    wait_next(&fixture, &add).await;
    daemon.stop().await;
    assert_eq!(check().await, Some(78));

    // A person creates the stream anew, as the command says. `check` has to report that, before the
    // next start heals the stream.
    fixture.jetstream().await.create_stream(fixture.stream_config()).await.unwrap();
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert!(check.stdout.contains("was created anew since events were published"), "{check:?}");
    daemon.start_again();
    fixture.wait_stored(10, DEADLINE).await;
}

/// A stream that never existed is still created by `run`.
#[tokio::test]
async fn a_stream_of_another_name_is_created_although_the_position_knows_one() {
    let fixture = Fixture::new().await;
    let daemon = started(&fixture, fixture.daemon()).await;
    drop(daemon);
    let toml = fixture
        .toml()
        .set("stream.name", format!("{}_NEW", fixture.stream))
        .set("stream.subjects", vec![format!("{}_new.>", fixture.prefix)])
        .set("route.subject", format!("{}_new.{{event_type}}", fixture.prefix));
    let check = daemon::run(&toml, &["check"]).await;
    assert!(check.stdout.contains("`postrider run` creates it"), "{check:?}");
}

#[tokio::test]
async fn a_sealed_stream_and_other_subjects_say_what_to_do_about_just_that() {
    let changes: [(Change, &str); 3] = [
        (|sound| Config { subjects: vec![format!("other.{}", sound.name)], ..sound }, "--subjects"),
        (|sound| Config { duplicate_window: Duration::from_secs(1), ..sound }, "--dupe-window"),
        (
            |sound| Config { sealed: true, deny_delete: true, deny_purge: true, ..sound },
            "it stays sealed: name another stream in [stream] name",
        ),
    ];
    for (change, next) in changes {
        let fixture = Fixture::new().await;
        let daemon = started(&fixture, fixture.daemon()).await;
        fixture.jetstream().await.update_stream(change(fixture.stream_config())).await.unwrap();
        // A restarted relay and `check` have to name the same command.
        drop(daemon);
        let daemon = fixture.daemon().allow_log(" ERROR ").allow_log(" WARN ").start();
        let mut daemon = daemon;
        assert_eq!(daemon.wait_exit(DEADLINE).await, Some(78), "{}", daemon.log());
        assert!(daemon.log().contains(next), "{next}: {}", daemon.log());
        let check = daemon::run(&fixture.toml(), &["check"]).await;
        assert!(check.code == Some(78) && check.stdout.contains(next), "{next}: {check:?}");
    }
    // The stream is changed while the relay runs.
    for (change, next) in changes {
        if next == "--dupe-window" {
            // No refusal reveals this change. Only the verification once a minute finds it, for
            // which the test does not wait.
            continue;
        }
        let fixture = Fixture::new().await;
        let _daemon = started(&fixture, fixture.daemon()).await;
        fixture.jetstream().await.update_stream(change(fixture.stream_config())).await.unwrap();
        app::insert_backlog(&fixture.connect().await, 5, 5).await;
        wait_next(&fixture, next).await;
    }
}
