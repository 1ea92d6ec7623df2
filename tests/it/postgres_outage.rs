//! Tests of outages of Postgres: it restarts, crashes, or ends sessions. No event is lost, repeated
//! or reordered.

use std::time::Duration;

use postrider::dev::servers::NatsOptions;

use super::support::{
    DEADLINE, Fixture, app,
    audit::awkward,
    daemon::DaemonBuilder,
    eventually, let_pass,
    postgres::{create_migrated, without_two_phase_commit},
};

/// The program, which may log the warnings of an outage of Postgres.
fn daemon(fixture: &Fixture) -> DaemonBuilder {
    fixture
        .daemon()
        .allow_log("the relay stopped leading")
        .allow_log("waiting for Postgres")
        .allow_log("trying again")
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarted_under_load_costs_nothing() {
    let mut fixture = Fixture::own_postgres().await;
    let _daemon = daemon(&fixture).start();

    let restarts = async |fixture: &mut Fixture| {
        let postgres = fixture.postgres.own();
        for _ in 0..4 {
            let_pass(Duration::from_millis(500)).await;
            postgres.stop_fast().await.unwrap();
            postgres.start_again().await.unwrap();
        }
    };
    let (report, ()) = fixture.under_load(awkward(1_000, 100), restarts).await;

    assert!(report.committed > 500, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_crashed_under_load_costs_nothing() {
    let mut fixture = Fixture::own_postgres().await;
    let _daemon = daemon(&fixture).start();

    let crashes = async |fixture: &mut Fixture| {
        let postgres = fixture.postgres.own();
        for round in 0..4 {
            let_pass(Duration::from_millis(500)).await;
            // Each of the two ends skips the checkpoint, so everything that was not flushed is
            // lost. The relay's position may be among it.
            if round % 2 == 0 {
                postgres.stop_immediate().await.unwrap();
            } else {
                postgres.kill9().unwrap();
            }
            postgres.start_again().await.unwrap();
        }
    };
    let (report, ()) = fixture.under_load(awkward(1_000, 100), crashes).await;

    assert!(report.committed > 500, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_connections_under_load_cost_nothing() {
    let mut fixture = Fixture::new().await;
    let daemon = daemon(&fixture).start();

    let terminate = async |fixture: &mut Fixture| {
        let client = fixture.connect().await;
        // Each round ends the sessions of the program and at most one of a writer.
        let statement = "SELECT pg_terminate_backend(pid) FROM (
                SELECT pid, application_name FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                ORDER BY application_name LIKE 'postrider/%' DESC, random() LIMIT 3
            ) AS victim";
        for _ in 0..12 {
            eventually("a program at work", DEADLINE, async || {
                client.query_one(HOLDS_LOCK, &[]).await.unwrap().get::<_, bool>(0)
            })
            .await;
            let_pass(Duration::from_millis(200)).await;
            client.query(statement, &[]).await.unwrap();
        }
    };
    fixture.under_load(awkward(1_000, 100), terminate).await;

    assert!(daemon.log().contains("the relay stopped leading"));
}

/// Whether the leader's session, as the position records it, is still open.
const HOLDS_LOCK: &str = r#"SELECT EXISTS (SELECT FROM "postrider".position AS p
    JOIN pg_stat_activity AS a ON a.pid = p.backend_pid AND a.backend_start = p.backend_start)"#;

#[tokio::test]
async fn a_statement_that_is_cancelled_is_tried_again() {
    let fixture = Fixture::new().await;
    let mut daemon = daemon(&fixture).set("database.query_timeout", "500ms").start();
    let mut locker = fixture.connect().await;
    let client = fixture.connect().await;
    app::insert_backlog(&client, 10, 10).await;
    fixture.wait_stored(10, DEADLINE).await;

    // The lock is one that a migration or a `VACUUM FULL` takes. Writers insert into another table
    // meanwhile, and the relay cannot read.
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute(r#"LOCK TABLE "postrider".outbox_5 IN ACCESS EXCLUSIVE MODE"#)
        .await
        .unwrap();
    app::insert_backlog(&client, 10, 10).await;
    daemon.wait_log("could not read the outbox", DEADLINE).await;
    lock.commit().await.unwrap();
    fixture.wait_stored(20, DEADLINE).await;

    // This lock keeps the relay from writing its position.
    let lock = locker.transaction().await.unwrap();
    lock.batch_execute(r#"LOCK TABLE "postrider".position IN EXCLUSIVE MODE"#).await.unwrap();
    app::insert_backlog(&client, 10, 10).await;
    daemon.wait_log("could not settle", DEADLINE).await;
    lock.commit().await.unwrap();
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(fixture.read_stream().await.len(), 30);
}

#[tokio::test]
async fn both_servers_down_at_the_start_are_waited_for_and_a_stop_is_obeyed() {
    let servers = (without_two_phase_commit(), NatsOptions::default());
    let mut fixture = Fixture::with(Some(servers.0), Some(servers.1)).await;
    let client = fixture.connect().await;
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    drop(client);
    fixture.postgres.own().stop_fast().await.unwrap();
    fixture.nats.own().kill9().unwrap();
    let mut daemon = daemon(&fixture).allow_log("waiting for NATS").admin().start();
    let line = daemon.wait_log("waiting for Postgres", DEADLINE).await;
    assert!(line.contains(&fixture.postgres.port().to_string()), "{line}");
    daemon.wait_log("waiting for NATS", DEADLINE).await;
    eventually("an answer that names both", DEADLINE, async || {
        let answer = daemon.get("/readyz").await;
        answer.is_some_and(|a| {
            a.status == 503 && a.body.contains("postgres") && a.body.contains("nats")
        })
    })
    .await;
    daemon.stop().await;

    daemon.start_again();
    daemon.wait_log("waiting for Postgres", DEADLINE).await;
    fixture.postgres.own().start_again().await.unwrap();
    fixture.nats.own().start_again().await.unwrap();
    fixture.wait_stored(1, DEADLINE).await;
}

#[tokio::test]
async fn a_database_without_the_schema_is_waited_for_with_what_to_do() {
    let fixture = Fixture::own_postgres().await;
    let bare = format!("{}_bare", fixture.database);
    fixture.postgres.execute("postgres", &format!("CREATE DATABASE {bare}")).await.unwrap();
    let mut daemon = daemon(&fixture).set("database.url", fixture.postgres.url(&bare)).start();
    let line = daemon.wait_log("waiting for Postgres", DEADLINE).await;
    assert!(line.contains("postrider migrate"), "{line}");
    // The database is replaced by a migrated one of the same name, and the relay must start to work
    // by itself.
    fixture
        .postgres
        .execute("postgres", &format!("DROP DATABASE {bare} WITH (FORCE)"))
        .await
        .unwrap();
    create_migrated(&fixture.postgres, &bare).await;
    daemon.wait_log("relaying", DEADLINE).await;
}
