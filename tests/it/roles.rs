//! Tests that the roles of the migrations are enough for the program and the application.

use tokio_postgres::Client;

use super::support::{DEADLINE, Fixture, app, daemon, let_pass, postgres::connect, toml::Toml};

async fn count(client: &Client, table: &str) -> i64 {
    let statement = format!(r#"SELECT count(*) FROM "postrider".{table}"#);
    client.query_one(&statement, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn the_relays_role_is_enough_for_everything_that_the_program_does() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let producer = connect(&fixture.login("producer").await.url).await;
    let mut daemon = fixture
        .daemon()
        .set("database.url", fixture.login("relay").await.url)
        .set("relay.retention", "1s")
        .allow_log("became a dead letter")
        .allow_log("accepted a restored database")
        .arg("--rescan")
        .start();

    // Events come while the relay is awake and asleep, by a plain INSERT and by `emit`. One of them
    // cannot be published.
    let insert = r#"INSERT INTO "postrider".outbox (event_type) VALUES ('order.placed')"#;
    for round in 0..3 {
        fixture.wait_gate_open(&admin).await;
        app::emit(&producer, "order.placed", Some(("order", "o-1")), "{}").await;
        producer.batch_execute(insert).await.unwrap();
        fixture.wait_stored(2 * round + 2, DEADLINE).await;
    }
    producer.batch_execute(&insert.replace("order.placed", "order.*")).await.unwrap();
    assert!(fixture.wait_drained(DEADLINE).await);
    assert_eq!(count(&admin, "letter").await, 1);

    // The program runs retention after each start, so it is restarted until the outbox is empty.
    // Then the database counts as restored.
    let restored = r#"UPDATE "postrider".position SET system_id = system_id + 1"#;
    for _ in 0..40 {
        daemon.stop().await;
        if count(&admin, "outbox").await == 0 {
            break;
        }
        daemon.start_again();
        daemon.wait_log("relaying", DEADLINE).await;
        let_pass(std::time::Duration::from_millis(400)).await;
    }
    assert_eq!(count(&admin, "outbox").await, 0, "retention has emptied nothing");
    admin.batch_execute(restored).await.unwrap();
    app::emit(&producer, "order.placed", Some(("order", "o-1")), "{}").await;
    daemon.start_again();
    daemon.wait_log("accepted a restored database", DEADLINE).await;
    assert_eq!(fixture.wait_stored(7, DEADLINE).await.len(), 7);
}

/// Former defect: the hint named the relay's role, which the user already had.
#[tokio::test]
async fn an_operators_command_as_the_relays_user_names_the_role_that_it_needs() {
    let fixture = Fixture::new().await;
    let toml = fixture.toml().set("database.url", fixture.login("relay").await.url);
    let finished = daemon::run(&toml, &["dlq", "redrive", "1", "--yes"]).await;
    assert_eq!(finished.code, Some(77), "{finished:?}");
    assert!(finished.stderr.contains("GRANT postrider_operator TO"), "{finished:?}");
    assert!(!finished.stderr.contains("grant postrider_relay"), "{finished:?}");
}

/// Former defect: in a database where functions are not executable by everybody, the relay never
/// ran, and `check` passed.
#[tokio::test]
async fn a_database_whose_functions_are_not_everybodys_serves_the_relay() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let harden = "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC";
    client.batch_execute(harden).await.unwrap();
    let toml = fixture.toml().set("database.schema", "hardened");
    let finished = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let url = fixture.login("relay").await.url;
    let hardened = |toml: Toml| toml.set("database.schema", "hardened").set("database.url", url);
    let _daemon = fixture.daemon().config(hardened).start();
    let emit = "SELECT hardened.emit('order.placed', '{}')";
    client.batch_execute(emit).await.unwrap();
    fixture.wait_stored(1, DEADLINE).await;
}
