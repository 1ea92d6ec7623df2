//! Tests of a database with a single user who may not create roles: everything works without the
//! roles.

use postrider::dev::servers::Postgres;

use crate::support::{
    DEADLINE, Fixture, Server, app, daemon, nats, postgres, postgres::connect, toml::Toml,
};

/// A Postgres without Postrider's roles, and a database in which `user` may create a schema.
async fn without_roles(user: &str) -> (Fixture, Toml) {
    let server = Postgres::start(postgres::without_two_phase_commit()).await.unwrap();
    let set_up = format!("CREATE ROLE \"{user}\" LOGIN; CREATE DATABASE single OWNER postgres");
    for statement in set_up.split("; ") {
        server.execute("postgres", statement).await.unwrap();
    }
    let grant = format!("GRANT CREATE ON DATABASE single TO \"{user}\"");
    server.execute("postgres", &grant).await.unwrap();
    let fixture = Fixture {
        postgres: Server::Own(Box::new(server)),
        nats: Server::Shared(nats::shared().await),
        database: "single".to_owned(),
        stream: format!("T_{}", uuid::Uuid::new_v4().simple()),
        prefix: format!("t{}", uuid::Uuid::new_v4().simple()),
    };
    let login = user.replace(' ', "%20");
    let url = fixture.database_url().replace("postgres@", &format!("{login}@"));
    let toml = fixture.toml().set("database.url", url);
    (fixture, toml)
}

/// Number of Postrider's roles in the cluster.
async fn roles(fixture: &Fixture) -> i64 {
    let count = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'postrider\\_%'";
    fixture.connect().await.query_one(count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_user_without_createrole_migrates_runs_and_emits() {
    for user in ["shop", "Shop of Ann"] {
        let (fixture, toml) = without_roles(user).await;
        let migrated = daemon::run(&toml, &["migrate"]).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        assert!(migrated.stdout.contains("without the roles postrider_producer"), "{migrated:?}");
        assert_eq!(roles(&fixture).await, 0);
        // The applied SQL has the same checksums as in every other database.
        let again = daemon::run(&toml, &["migrate"]).await;
        assert_eq!(again.code, Some(0), "{again:?}");
        assert!(again.stdout.contains("already at"), "{again:?}");

        let url =
            fixture.database_url().replace("postgres@", &format!("{}@", user.replace(' ', "%20")));
        let client = connect(&url).await;
        app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
        client
            .batch_execute("INSERT INTO postrider.outbox (event_type) VALUES ('order.*')")
            .await
            .unwrap();
        let relay = fixture.daemon().config(|_| toml.clone());
        let mut relay = relay.allow_log("became a dead letter").start();
        fixture.wait_stored(1, DEADLINE).await;
        relay.wait_log("dead letter", DEADLINE).await;
        assert!(fixture.wait_drained(DEADLINE).await);
        for command in [&["check"][..], &["status"], &["dlq", "list"], &["audit"]] {
            let done = daemon::run(&toml, command).await;
            assert_eq!(done.code, Some(0), "{command:?}: {done:?}");
        }
    }
}

#[tokio::test]
async fn roles_that_exist_get_their_grants_and_the_others_are_done_without() {
    let (fixture, toml) = without_roles("shop").await;
    let create = "CREATE ROLE postrider_producer NOLOGIN";
    fixture.postgres.execute("postgres", create).await.unwrap();
    let migrated = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(migrated.stdout.contains("without the roles postrider_consumer"), "{migrated:?}");
    let granted = "SELECT bool_and(has_function_privilege('postrider_producer', oid, 'EXECUTE'))
        FROM pg_proc WHERE proname = 'emit' AND pronamespace = 'postrider'::regnamespace";
    let row = fixture.connect().await.query_one(granted, &[]).await.unwrap();
    assert!(row.get::<_, bool>(0));
}

#[tokio::test]
async fn a_user_who_may_create_roles_gets_all_of_them() {
    let (fixture, toml) = without_roles("shop").await;
    fixture.postgres.execute("postgres", "ALTER ROLE shop CREATEROLE").await.unwrap();
    let migrated = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(!migrated.stdout.contains("without the roles"), "{migrated:?}");
    assert_eq!(roles(&fixture).await, 4);
}
