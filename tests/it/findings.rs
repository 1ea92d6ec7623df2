//! Tests that no incident in which events stop flowing leaves readiness, `status --check` and the
//! metrics without a finding.

use std::time::Duration;

use serde_json::Value;

use super::support::{
    DEADLINE, Fixture, app,
    daemon::{self, Daemon},
    eventually, let_pass,
    letters::json,
    toml::Toml,
};

/// Waits until `postrider status` shows a finding with this code. Returns the finding.
async fn wait_finding(toml: &Toml, code: &str) -> Value {
    eventually(format!("a finding {code}"), DEADLINE, async || {
        let status = json(toml, &["status"]).await;
        let findings = status["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["code"] == code)
    })
    .await
}

async fn wait_no_finding(toml: &Toml) {
    // A chore that has failed several times waits for up to a minute before it runs again.
    eventually("no finding", 3 * DEADLINE, async || {
        json(toml, &["status"]).await["findings"].as_array().unwrap().is_empty()
    })
    .await;
}

/// Waits until `/readyz` answers 503 with this code. Returns the verbose answer.
async fn wait_not_ready(daemon: &Daemon, code: &str) -> Value {
    eventually(format!("not ready for {code}"), DEADLINE, async || {
        let plain = daemon.get("/readyz").await?;
        let verbose = daemon.get("/readyz?verbose").await?;
        let is_it = plain.status == 503 && plain.body.contains(code);
        is_it.then(|| serde_json::from_str(&verbose.body).unwrap())
    })
    .await
}

async fn check(toml: &Toml) -> (Option<i32>, String) {
    let finished = daemon::run(toml, &["status", "--check"]).await;
    (finished.code, finished.stdout)
}

/// Former defect: after 21 s without NATS, `status --check` said "running" and OK, and exited with
/// 0.
#[tokio::test]
async fn without_nats_no_relay_is_running_fine() {
    let mut fixture = Fixture::own_nats().await;
    let toml = fixture.toml();
    let client = fixture.connect().await;
    let mut daemon = fixture.daemon().admin().allow_log("NATS").start();
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    wait_no_finding(&toml).await;
    assert_eq!(check(&toml).await.0, Some(0));

    fixture.nats.own().kill9().unwrap();
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    let finding = wait_finding(&toml, "nats_down").await;
    assert_eq!(finding["severity"], "critical", "{finding}");
    let (code, line) = check(&toml).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(
        line.starts_with("POSTRIDER CRITICAL - relay default is blocked, nats_down: "),
        "{line}"
    );
    let why = json(&toml, &["why", "order/o-1"]).await;
    assert!(why["blocked"].as_str().unwrap().starts_with("nats_down: "), "{why}");
    assert_eq!(why["next"], finding["next"], "{why}");
    wait_not_ready(&daemon, "nats_down").await;
    assert!(daemon.metric(r#"postrider_finding{route="default",code="nats_down"}"#).await > 0.0);
    // An outage counts only after a second, so the test waits for longer than that.
    let_pass(Duration::from_millis(1_200)).await;

    fixture.nats.own().start_again().await.unwrap();
    wait_no_finding(&toml).await;
    assert!(daemon.metric(r#"postrider_finding{route="default",code="nats_down"}"#).await < 1.0);
    let line = daemon.wait_log("the outage is over after", DEADLINE).await;
    assert!(line.contains("nats_down") && line.contains("waited_at_least=1"), "{line}");
}

/// Former defect: while another session's lock stopped the relay, the metric froze and no output
/// named that session.
#[tokio::test]
async fn a_lock_names_the_session_that_holds_it() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let mut locker = fixture.connect().await;
    let mut daemon = fixture
        .daemon()
        .admin()
        .allow_log("trying again")
        .allow_log("another session holds a lock")
        .allow_log("a chore fails")
        .start();
    daemon.wait_log("relaying", DEADLINE).await;
    locker.batch_execute("SET application_name = 'alembic'").await.unwrap();
    let pid: i32 = locker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let lock = locker.transaction().await.unwrap();
    let statement = r#"LOCK TABLE "postrider".outbox IN ACCESS EXCLUSIVE MODE"#;
    lock.batch_execute(statement).await.unwrap();

    let line = daemon.wait_log("another session holds a lock", DEADLINE).await;
    assert!(line.contains(&format!("session {pid} ")) && line.contains("alembic"), "{line}");
    let verbose = wait_not_ready(&daemon, "postgres_locked").await;
    let cause = verbose["findings"][0]["cause"].as_str().unwrap();
    assert!(cause.starts_with(&format!("session {pid} (user postgres, application \"alembic\"")));
    let (code, line) = check(&toml).await;
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains(&format!("pg_terminate_backend({pid})")), "{line}");

    lock.rollback().await.unwrap();
    wait_no_finding(&toml).await;
    daemon.wait_ready().await;
}

/// Former defect: the finding said "postgres down", and its hint named neither the table nor the
/// privilege.
#[tokio::test]
async fn a_lost_grant_is_named_with_the_statement_that_grants_it() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let url = fixture.login("relay").await.url;
    let mut daemon = fixture
        .daemon()
        .admin()
        .set("database.url", url)
        .allow_log("permission denied")
        .allow_log("the relay stopped leading")
        .allow_log("waiting for Postgres")
        .allow_log("lacks a grant")
        .start();
    daemon.wait_log("stream verified", DEADLINE).await;
    client
        .batch_execute(r#"REVOKE SELECT ON "postrider".outbox FROM postrider_relay"#)
        .await
        .unwrap();
    app::emit(&client, "order.placed", None, "{}").await;
    let verbose = wait_not_ready(&daemon, "permission_missing").await;
    let next = verbose["findings"][0]["next"].as_str().unwrap();
    let grant = r#"GRANT SELECT ON TABLE "postrider".outbox TO postrider_relay"#;
    assert_eq!(next, format!("as the schema's owner: {grant}"), "{verbose}");

    client.batch_execute(grant).await.unwrap();
    fixture.wait_stored(1, DEADLINE).await;
    daemon.wait_ready().await;
}

/// Former defect: two standbys waited for a minute beside a frozen leader, and no output reported a
/// problem.
#[tokio::test]
async fn a_leader_that_is_frozen_is_critical_to_who_reads_the_database() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    // After the freeze the leader finds that its statements are late, and logs these warnings.
    let mut daemon = fixture
        .daemon()
        .allow_log("the relay stopped leading")
        .allow_log("trying again")
        .allow_log("waiting for Postgres")
        .start();
    daemon.wait_log("relaying", DEADLINE).await;
    wait_no_finding(&toml).await;
    daemon.freeze();
    let finding = eventually("a finding", DEADLINE, async || {
        let status = json(&toml, &["status"]).await;
        let findings = status["findings"].as_array().unwrap().clone();
        findings.into_iter().find(|finding| finding["severity"] == "critical")
    })
    .await;
    // The code depends on whether the leader's lease has ended by then.
    let code = finding["code"].as_str().unwrap();
    assert!(["leader_silent", "no_leader"].contains(&code), "{finding}");
    assert_eq!(check(&toml).await.0, Some(2));
    daemon.thaw();
    wait_no_finding(&toml).await;
}

/// Former defect: a standby reported that NATS was down, and showed figures of its own last time as
/// the leader, which was never.
#[tokio::test]
async fn a_standby_is_ready_names_the_leader_and_shows_what_waits() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let mut first =
        fixture.daemon().set("stream.create", false).allow_log("does not exist").start();
    first.wait_log("relaying", DEADLINE).await;
    let standby = fixture.daemon().set("stream.create", false).admin().start();
    eventually("a standby", DEADLINE, async || {
        let answer = standby.get("/readyz").await;
        answer.is_some_and(|answer| answer.body.starts_with("ready: standby"))
    })
    .await;
    app::insert_backlog(&client, 7, 7).await;
    let pending = r#"postrider_pending_messages{route="default",table="outbox"}"#;
    eventually("the backlog", DEADLINE, async || standby.metric(pending).await > 6.5).await;
    let up = r#"postrider_dependency_up{route="default",dependency="nats"}"#;
    eventually("a connection to NATS", DEADLINE, async || standby.metric(up).await > 0.0).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'postrider/%'";
    let sessions: i64 = client.query_one(sessions, &[]).await.unwrap().get(0);
    assert_eq!(sessions, 3, "two of the leader, one of the standby");
    let verbose: Value =
        serde_json::from_str(&standby.get("/readyz?verbose").await.unwrap().body).unwrap();
    assert!(verbose["leader"].as_str().is_some_and(|leader| !leader.is_empty()), "{verbose}");
    assert_eq!(verbose["dependencies"][1]["state"], "up", "{verbose}");
}

/// Former defect: an instance was ready as a standby, even when nobody led and it could not take
/// over.
#[tokio::test]
async fn a_standby_that_cannot_take_over_says_that_nobody_leads() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let url = fixture.login("relay").await.url;
    let toml = fixture.toml().set("database.url", url.as_str());
    let build = || {
        let daemon = fixture.daemon().set("database.url", url.as_str());
        daemon.set("relay.lease", "3s").allow_log(" WARN ").allow_log(" ERROR ")
    };
    let mut leader = build().start();
    leader.wait_log("relaying", DEADLINE).await;
    let mut standby = build().admin().start();
    standby.wait_log("standing by", DEADLINE).await;
    // This time is longer than a lease and a takeover, and the leader is alive.
    let_pass(Duration::from_millis(5_500)).await;
    let ready = standby.get("/readyz").await.unwrap();
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready: standby\n"));

    let revoke = r#"REVOKE UPDATE ON "postrider".position FROM postrider_relay"#;
    admin.batch_execute(revoke).await.unwrap();
    leader.kill9();
    let verbose = wait_not_ready(&standby, "no_leader").await;
    let findings = verbose["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["code"] == "no_leader").unwrap();
    let cause = finding["cause"].as_str().unwrap();
    assert!(cause.contains("this standby cannot take the lease over"), "{cause}");
    assert!(standby.metric(r#"postrider_finding{route="default",code="no_leader"}"#).await > 0.0);
    let (code, line) = check(&toml).await;
    assert!(code == Some(2) && line.contains("no_leader: "), "{line}");

    let grant = r#"GRANT UPDATE ON "postrider".position TO postrider_relay"#;
    admin.batch_execute(grant).await.unwrap();
    standby.wait_log("relaying", DEADLINE).await;
    eventually("a ready relay", DEADLINE, async || {
        standby.metric(r#"postrider_finding{route="default",code="no_leader"}"#).await < 1.0
            && standby.get("/readyz").await.unwrap().status == 200
    })
    .await;
}

/// Former defect: the advice was "start it", although an instance was running and could not take
/// the lease.
#[tokio::test]
async fn an_instance_that_cannot_lead_is_not_to_be_started() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let url = fixture.login("relay").await.url;
    // The status is read with another database user than the relay's, as the person on call does.
    let toml = fixture.toml().set("database.query_timeout", "30s");
    for (code, idle_next) in [("never_started", "postrider run"), ("no_leader", "start it: ")] {
        let finding = wait_finding(&toml, code).await;
        assert!(finding["next"].as_str().unwrap().starts_with(idle_next), "{finding}");
        let revoke = r#"REVOKE UPDATE ON "postrider".position FROM postrider_relay"#;
        admin.batch_execute(revoke).await.unwrap();
        let daemon = fixture.daemon().set("database.url", url.as_str());
        let mut daemon = daemon.allow_log(" WARN ").allow_log(" ERROR ").start();
        daemon.wait_log("permission denied", DEADLINE).await;
        eventually(format!("{code} that knows of the instance"), DEADLINE, async || {
            let finding = wait_finding(&toml, code).await;
            let cause = finding["cause"].as_str().unwrap();
            let is_known = cause.contains("connected (session ") && cause.contains("/default)");
            is_known && finding["next"].as_str().unwrap().contains("the log of that instance")
        })
        .await;
        app::emit(&admin, "order.placed", Some(("order", "o-1")), "{}").await;
        eventually("`why` and `check` that know of it", DEADLINE, async || {
            let why = json(&toml, &["why", "order/o-1"]).await;
            let checked = daemon::run(&toml, &["check"]).await;
            why["next"].as_str().unwrap().contains("the log of that instance")
                && checked.code == Some(69)
                && checked.stdout.contains(code)
        })
        .await;

        admin
            .batch_execute(&revoke.replace("REVOKE", "GRANT").replace("FROM", "TO"))
            .await
            .unwrap();
        daemon.wait_log("relaying", DEADLINE).await;
        wait_no_finding(&toml).await;
        daemon.stop().await;
    }
}

/// A running relay of another name does not count as an instance of this relay.
#[tokio::test]
async fn an_instance_of_another_relay_is_not_taken_for_one_of_this() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml();
    let mut other = fixture.daemon().set("relay.name", "other").start();
    other.wait_log("relaying", DEADLINE).await;
    let finding = wait_finding(&toml, "never_started").await;
    assert_eq!(finding["next"], "postrider run", "{finding}");
}

/// Former defect: monitoring saw only the worst finding, and the number of the others.
#[tokio::test]
async fn monitoring_sees_the_codes_of_a_loss_and_of_a_broken_contract_beside_the_worst() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let lost = r#"INSERT INTO "postrider".loss
        (relay, acknowledged_seq, last_seq, events_at_most) VALUES ('default', 9, 2, 7)"#;
    client.batch_execute(lost).await.unwrap();
    let broken = "ALTER TABLE postrider.outbox ALTER COLUMN tx DROP NOT NULL";
    client.batch_execute(broken).await.unwrap();
    let (code, line) = check(&fixture.toml()).await;
    assert_eq!(code, Some(2), "{line}");
    for code in ["never_started: ", "events_lost", "contract_broken"] {
        assert!(line.contains(code), "{code} in {line}");
    }
    assert_eq!(line.lines().count(), 1, "{line}");
}
