//! Tests of applications that cannot insert events: `status` and `check` name the missing
//! privilege, or the session that holds the lock.

use tokio_postgres::Client;

use super::support::{
    DEADLINE, Fixture, Login, daemon, eventually, letters::json, postgres::connect, toml::Toml,
};

/// Statements of an application. Each is run in a transaction that is rolled back.
const STATEMENTS: [&str; 3] = [
    "INSERT INTO postrider.outbox (event_type) VALUES ('order.placed')",
    "SELECT postrider.emit('order.placed', '{}', 'order', 'o-1', headers => '{\"tenant\": \"a\"}')",
    "SELECT postrider.emit_many('[{\"event_type\": \"order.placed\"}]')",
];

/// Name and connection of a login in the role `postrider_producer`, as the documentation sets it
/// up.
async fn producer(fixture: &Fixture) -> (String, Client) {
    let Login { name, url } = fixture.login("producer").await;
    (name, connect(&url).await)
}

/// Statements that Postgres refuses with 42501, for want of a privilege.
async fn refused(client: &Client) -> Vec<&'static str> {
    let mut refused = Vec::new();
    for statement in STATEMENTS {
        client.batch_execute("BEGIN").await.unwrap();
        if let Err(error) = client.batch_execute(statement).await {
            assert_eq!(error.code().unwrap().code(), "42501", "{statement}: {error:?}");
            refused.push(statement);
        }
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    refused
}

/// Findings of `status` about applications that cannot insert.
async fn findings(toml: &Toml) -> Vec<serde_json::Value> {
    let status = json(toml, &["status"]).await;
    let findings = status["findings"].as_array().unwrap().clone();
    findings.into_iter().filter(|finding| finding["code"] == "producers_hindered").collect()
}

/// SQL that gives the wake-up function an owner who is no superuser, as in most databases. The
/// function runs with its owner's rights.
const OWNED: &str = "CREATE ROLE %_owner;
    GRANT USAGE ON SCHEMA postrider TO %_owner;
    GRANT SELECT, UPDATE ON SEQUENCE postrider.gate, postrider.wake_until TO %_owner;
    ALTER FUNCTION postrider.wake() OWNER TO %_owner";

/// Former defect: all inserts failed with 42501 inside the trigger, and Postrider reported no
/// problem.
#[tokio::test]
async fn a_function_that_the_trigger_calls_and_was_revoked_from_everybody_is_named() {
    let fixture = Fixture::new().await;
    let (toml, admin) = (fixture.toml(), fixture.connect().await);
    admin.batch_execute(&OWNED.replace('%', &fixture.database)).await.unwrap();
    let (_, shop) = producer(&fixture).await;
    let refusal = "every insert into the outbox is refused while the relay sleeps";
    let mut daemon = fixture.daemon().admin().allow_log(refusal).start();
    fixture.wait_gate_open(&admin).await;
    assert!(refused(&shop).await.is_empty());
    assert!(findings(&toml).await.is_empty());

    admin
        .batch_execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC")
        .await
        .unwrap();
    eventually("refused inserts", DEADLINE, async || refused(&shop).await.len() == 3).await;
    let finished = daemon::run(&toml, &["status", "--check"]).await;
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let grant = format!(
        "as a superuser: GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text,text) TO {}_owner",
        fixture.database
    );
    assert!(finished.stdout.contains(&grant), "{finished:?}");
    let check = daemon::run(&toml, &["check"]).await;
    assert_eq!(check.code, Some(77), "{check:?}");
    assert!(check.stdout.contains(refusal) && check.stdout.contains(&grant), "{check:?}");
    daemon.wait_log(refusal, DEADLINE).await;
    let metric = r#"postrider_finding{route="default",code="producers_hindered"}"#;
    eventually("the metric", DEADLINE, async || daemon.metric(metric).await > 0.0).await;

    admin.batch_execute(grant.strip_prefix("as a superuser: ").unwrap()).await.unwrap();
    fixture.wait_gate_open(&admin).await;
    assert!(refused(&shop).await.is_empty());
    eventually("no finding", DEADLINE, async || findings(&toml).await.is_empty()).await;
    eventually("the metric", DEADLINE, async || daemon.metric(metric).await < 1.0).await;
}

/// Takes away each privilege that an insert or a function for applications needs. The finding has
/// to name it, with the statement that grants it again.
#[tokio::test]
async fn whatever_an_application_needs_and_lost_is_named_with_the_statement_that_grants_it() {
    let of_ours = [
        "USAGE ON SCHEMA postrider",
        "INSERT ON postrider.outbox",
        "INSERT (headers) ON postrider.outbox",
        "SELECT ON SEQUENCE postrider.gate",
        "EXECUTE ON FUNCTION postrider.uuid7()",
        "EXECUTE ON FUNCTION postrider.check_headers(jsonb)",
        "EXECUTE ON FUNCTION postrider.emit_many(text)",
        "EXECUTE ON ALL FUNCTIONS IN SCHEMA postrider",
    ];
    let of_all = [
        "postrider.first_gate()",
        "pg_current_xact_id()",
        "gen_random_uuid()",
        "pg_sequence_last_value(regclass)",
        "jsonb_typeof(jsonb)",
    ];
    let of_ours = of_ours.map(|privilege| format!("REVOKE {privilege} FROM postrider_producer"));
    let of_all = of_all.map(|name| format!("REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC"));
    for revoke in of_ours.iter().chain(&of_all) {
        let fixture = Fixture::new().await;
        let toml = fixture.toml().set("database.query_timeout", "30s");
        let admin = fixture.connect().await;
        let (name, shop) = producer(&fixture).await;
        assert!(refused(&shop).await.is_empty());
        let check = daemon::run(&toml, &["check"]).await.stdout;
        assert!(!check.contains("may insert into the outbox"), "{check}");

        admin.batch_execute(revoke).await.unwrap();
        // Open sessions keep plans from before the REVOKE, so a new session is needed.
        let url = fixture.database_url().replace("postgres@", &format!("{name}@"));
        let shop = connect(&url).await;
        let before = refused(&shop).await;
        assert!(!before.is_empty(), "{revoke}");
        let check = daemon::run(&toml, &["check"]).await;
        let mut lines = check.stdout.lines();
        let said = "postrider_producer may insert into the outbox, and is refused when it does";
        lines.find(|line| line.contains(said)).unwrap_or_else(|| panic!("{revoke}: {check:?}"));
        let hint = lines.next().unwrap();
        let (_, statement) =
            hint.split_once("as ").and_then(|(_, it)| it.split_once(": ")).unwrap();
        assert!(!findings(&toml).await.is_empty(), "{revoke}");

        admin.batch_execute(statement).await.unwrap();
        let shop = connect(&url).await;
        assert!(refused(&shop).await.is_empty(), "{revoke}: {statement} did not repair it");
        let check = daemon::run(&toml, &["check"]).await.stdout;
        assert!(!check.contains("may insert into the outbox"), "{revoke}: {check}");
    }
}

/// Former defect: inserts waited for a lock for which the relay does not wait, and no problem was
/// reported.
#[tokio::test]
async fn a_lock_that_keeps_applications_from_inserting_names_its_session() {
    // The locks are those of `CREATE INDEX` without CONCURRENTLY and of `ALTER SEQUENCE`.
    for lock in
        ["LOCK TABLE postrider.outbox IN SHARE MODE", "ALTER SEQUENCE postrider.gate CACHE 1"]
    {
        let fixture = Fixture::new().await;
        let toml = fixture.toml();
        let mut daemon = fixture.daemon().admin().allow_log("holds a lock").start();
        daemon.wait_log("relaying", DEADLINE).await;
        eventually("a quiet relay", DEADLINE, async || {
            daemon::run(&toml, &["status", "--check"]).await.code == Some(0)
        })
        .await;
        let mut locker = connect(&fixture.database_url()).await;
        let pid: i32 = locker.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
        let transaction = locker.transaction().await.unwrap();
        transaction.batch_execute(lock).await.unwrap();
        let (_, shop) = producer(&fixture).await;
        let inserting = shop.batch_execute(STATEMENTS[0]);
        let watching = async {
            let ends = format!("pg_terminate_backend({pid})");
            let finding = eventually("a finding", DEADLINE, async || {
                let status = json(&toml, &["status"]).await;
                let findings = status["findings"].as_array().unwrap().clone();
                findings.into_iter().find(|it| it["next"].as_str().unwrap().contains(&ends))
            })
            .await;
            assert_eq!(finding["severity"], "critical", "{lock}: {finding}");
            let (status, check) = tokio::join!(
                daemon::run(&toml, &["status", "--check"]),
                daemon::run(&toml, &["check"])
            );
            assert_eq!(status.code, Some(2), "{lock}: {status:?}");
            assert!(status.stdout.contains(&ends), "{lock}: {status:?}");
            assert!(check.code == Some(69) && check.stdout.contains(&ends), "{lock}: {check:?}");
            let line = daemon.wait_log("holds a lock", DEADLINE).await;
            assert!(line.contains(&pid.to_string()), "{lock}: {line}");
            transaction.rollback().await.unwrap();
        };
        let (inserted, ()) = tokio::join!(inserting, watching);
        inserted.unwrap();
        fixture.wait_stored(1, DEADLINE).await;
    }
}
