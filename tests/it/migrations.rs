//! Tests of `pg::migrate`: one replica migrates at a time, versions only go up, and the printed SQL
//! gives the same schema.

use postrider::{
    dev::servers::{Postgres, PostgresOptions},
    pg::{
        error::Class,
        migrate::{MigrateError, SchemaVersion, migrate, print, version},
        schema::Schema,
    },
};
use tokio_postgres::Client;

use crate::support::{DEADLINE, Fixture, app, daemon, postgres};

fn schema(name: &str) -> Schema {
    Schema::parse(name).unwrap()
}

/// Creates a database without Postrider's schema. Returns its URL.
async fn empty(fixture: &Fixture) -> String {
    let database = format!("{}_empty", fixture.database);
    let create = format!("CREATE DATABASE {database}");
    fixture.postgres.execute("postgres", &create).await.unwrap();
    fixture.postgres.url(&database)
}

async fn rows(client: &Client, table: &str) -> i64 {
    let count = format!("SELECT count(*) FROM {table}");
    client.query_one(&count, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn of_two_replicas_at_once_one_migrates_and_the_other_finds_nothing_to_do() {
    let fixture = Fixture::new().await;
    let url = empty(&fixture).await;
    let (mut one, mut other) = (postgres::connect(&url).await, postgres::connect(&url).await);
    let schema = schema("postrider");
    assert_eq!(version(&one, &schema).await.unwrap(), SchemaVersion::Missing);
    let (first, second) = tokio::join!(migrate(&mut one, &schema), migrate(&mut other, &schema));
    let (first, second) = (first.unwrap(), second.unwrap());
    let applied = [first.applied.len(), second.applied.len()];
    let all = usize::try_from(first.version).unwrap();
    assert!(applied == [all, 0] || applied == [0, all], "{applied:?}");
    assert_eq!(version(&one, &schema).await.unwrap(), SchemaVersion::Current(first.version));
    assert!(migrate(&mut one, &schema).await.unwrap().applied.is_empty());
}

#[tokio::test]
async fn the_printed_text_leaves_nothing_to_migrate() {
    let fixture = Fixture::new().await;
    let mut client = postgres::connect(&empty(&fixture).await).await;
    let schema = schema("orders_outbox");
    client.batch_execute(&print(&schema, 0).unwrap()).await.unwrap();
    assert!(matches!(version(&client, &schema).await.unwrap(), SchemaVersion::Current(_)));
    assert!(migrate(&mut client, &schema).await.unwrap().applied.is_empty());
    client.batch_execute("SELECT orders_outbox.emit('order.placed', '{}')").await.unwrap();
    assert_eq!(rows(&client, "orders_outbox.outbox").await, 1);
}

#[tokio::test]
async fn two_schemas_share_a_database() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    migrate(&mut client, &schema("second")).await.unwrap();
    client.batch_execute("SELECT second.emit('order.placed', '{}')").await.unwrap();
    assert_eq!(rows(&client, "second.outbox").await, 1);
    assert_eq!(rows(&client, "postrider.outbox").await, 0);
    // The second schema does not depend on the first.
    client.batch_execute("DROP SCHEMA postrider CASCADE").await.unwrap();
    client.batch_execute("SELECT second.emit('order.placed', '{}')").await.unwrap();
}

#[tokio::test]
async fn a_schema_of_a_newer_program_is_left_alone() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    let schema = schema("postrider");
    let newer = "INSERT INTO postrider.migration VALUES (999, 'later', '', '1')";
    client.batch_execute(newer).await.unwrap();
    let error = migrate(&mut client, &schema).await.unwrap_err();
    assert!(matches!(error, MigrateError::Newer { have: 999, .. }), "{error:?}");
    assert!(error.to_string().contains("update the program"), "{error}");
    let found = version(&client, &schema).await.unwrap();
    assert!(matches!(found, SchemaVersion::Newer { have: 999, .. }), "{found:?}");
}

#[tokio::test]
async fn a_migration_that_was_applied_with_another_text_is_refused() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    let change = "UPDATE postrider.migration SET checksum = '1' WHERE version = 2";
    client.batch_execute(change).await.unwrap();
    let error = migrate(&mut client, &schema("postrider")).await.unwrap_err();
    assert!(matches!(error, MigrateError::Changed { .. }), "{error:?}");
    assert!(error.to_string().contains("2 relay"), "{error}");
}

#[tokio::test]
async fn a_user_whose_name_cannot_stand_for_a_role_learns_what_a_dba_has_to_run() {
    // Roles belong to the cluster, so this test needs a cluster in which nobody has migrated. A
    // user with an ordinary name migrates without the roles: see single_user.rs.
    let server = Postgres::start(PostgresOptions::default()).await.unwrap();
    let admin = postgres::connect(&server.url("postgres")).await;
    admin.batch_execute("CREATE ROLE \"o'wner\" LOGIN").await.unwrap();
    admin.batch_execute("CREATE DATABASE app OWNER \"o'wner\"").await.unwrap();
    let mut client = postgres::connect(&server.url("app")).await;
    client.batch_execute("SET SESSION AUTHORIZATION \"o'wner\"").await.unwrap();
    let error = migrate(&mut client, &schema("postrider")).await.unwrap_err();
    assert_eq!(error.class(), Class::Permission);
    let text = error.to_string();
    assert!(text.contains("CREATE ROLE postrider_producer NOLOGIN;"), "{text}");
    let roles = "CREATE ROLE postrider_producer; CREATE ROLE postrider_consumer; \
                 CREATE ROLE postrider_relay; CREATE ROLE postrider_operator";
    admin.batch_execute(roles).await.unwrap();
    migrate(&mut client, &schema("postrider")).await.unwrap();
}

/// Former defect: a dump that is restored into a cluster without the roles loses all grants to
/// them. `migrate` then ended with 78, and its hint was to run `migrate`.
#[tokio::test]
async fn after_a_restore_without_the_roles_a_migration_says_what_to_do_and_that_helps() {
    let fixture = Fixture::own_postgres().await;
    let admin = fixture.connect().await;
    app::emit(&admin, "order.placed", Some(("order", "o-1")), "{}").await;
    let gone =
        "DROP OWNED BY postrider_producer, postrider_consumer, postrider_relay, postrider_operator;
        DROP ROLE postrider_producer, postrider_consumer, postrider_relay, postrider_operator";
    admin.batch_execute(gone).await.unwrap();
    let migrated = daemon::run(&fixture.toml(), &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(migrated.stdout.contains("is already at version"), "{migrated:?}");
    for said in ["have no right in this schema", "restore the dump once more", "postrider check"] {
        assert!(migrated.stderr.contains(said), "{said}: {migrated:?}");
    }
    // The statements that the hints name are enough to make the relay work.
    let login = "CREATE ROLE relay_login LOGIN IN ROLE postrider_relay";
    admin.batch_execute(login).await.unwrap();
    let url = fixture.database_url().replace("postgres@", "relay_login@");
    let toml = fixture.toml().set("database.url", url.as_str());
    for _ in 0..3 {
        let check = daemon::run(&toml, &["check"]).await;
        let grants =
            check.stdout.lines().filter_map(|line| line.split_once("as the schema's owner: "));
        let grants: Vec<_> = grants.map(|(_, grants)| grants.to_owned()).collect();
        for grant in &grants {
            admin.batch_execute(grant).await.unwrap();
        }
        if grants.is_empty() {
            break;
        }
    }
    let mut relay = fixture.daemon().set("database.url", url).start();
    relay.wait_log("relaying", DEADLINE).await;
    assert_eq!(fixture.wait_stored(1, DEADLINE).await.len(), 1);
    let again = daemon::run(&fixture.toml(), &["migrate"]).await;
    assert!(!again.stderr.contains("postrider_relay"), "{again:?}");
}

#[tokio::test]
async fn the_relays_role_may_read_the_version() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    client.batch_execute("SET ROLE postrider_relay").await.unwrap();
    let found = version(&client, &schema("postrider")).await.unwrap();
    assert!(matches!(found, SchemaVersion::Current(_)), "{found:?}");
    client.batch_execute("SET ROLE postrider_producer").await.unwrap();
    let error = version(&client, &schema("postrider")).await.unwrap_err();
    assert_eq!(error.class(), Class::Permission);
}

/// Former defect: a migration that was killed between its last file and the grant had nothing to do
/// when it ran again. The relay then waited for a right that no migration gave.
#[tokio::test]
async fn a_right_that_a_killed_migration_did_not_give_is_given_by_the_next_one() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    let revoke = r#"REVOKE SELECT ON "postrider".migration FROM postrider_relay"#;
    client.batch_execute(revoke).await.unwrap();
    assert!(migrate(&mut client, &schema("postrider")).await.unwrap().applied.is_empty());
    client.batch_execute("SET ROLE postrider_relay").await.unwrap();
    let found = version(&client, &schema("postrider")).await.unwrap();
    assert!(matches!(found, SchemaVersion::Current(_)), "{found:?}");
}

/// Former defect: `standard_conforming_strings = off` removed backslashes from string literals. A
/// migration stopped half-way, and `emit` accepted what its patterns have to refuse.
#[tokio::test]
async fn settings_of_a_database_change_neither_the_migrations_nor_what_emit_refuses() {
    let fixture = Fixture::new().await;
    let url = empty(&fixture).await;
    let database = format!("{}_empty", fixture.database);
    let hostile = [
        "standard_conforming_strings = off",
        "check_function_bodies = off",
        "default_transaction_isolation = 'serializable'",
        "quote_all_identifiers = on",
        "search_path = 'nowhere'",
        "\"DateStyle\" = 'SQL, DMY'",
        "\"IntervalStyle\" = 'sql_standard'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
        "array_nulls = off",
        "transform_null_equals = on",
        "xmloption = 'document'",
        "plpgsql.variable_conflict = 'use_column'",
        "plpgsql.extra_errors = 'all'",
        "lock_timeout = '1s'",
        "statement_timeout = '20s'",
        "row_security = off",
        "session_replication_role = 'replica'",
    ];
    for setting in hostile {
        let alter = format!("ALTER DATABASE {database} SET {setting}");
        fixture.postgres.execute("postgres", &alter).await.unwrap();
    }
    let toml = fixture.toml().set("database.url", url.as_str());
    let migrated = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    let client = postgres::connect(&url).await;
    for (event_type, subject) in
        [("a*b", None), ("a b", None), ("a", Some("x+>y")), ("a\u{7f}", None)]
    {
        let statement = "SELECT postrider.emit(event_type => $1::text, payload => '{}'::text::json,
            subject => $2::text)";
        let error = client.query(statement, &[&event_type, &subject]).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "22023", "{event_type:?} {subject:?}");
    }
    let header =
        "SELECT postrider.emit('a', '{}'::text::json, headers => '{\"x\": \"\\u0001\"}'::jsonb)";
    client.batch_execute("SET standard_conforming_strings = on").await.unwrap();
    let error = client.batch_execute(header).await.unwrap_err();
    assert_eq!(error.code().unwrap().code(), "22023", "{error:?}");
    client.batch_execute("RESET standard_conforming_strings").await.unwrap();
    let mut daemon = fixture.daemon().set("database.url", url.as_str()).start();
    daemon.wait_log("relaying", DEADLINE).await;
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    fixture.wait_stored(1, DEADLINE).await;
    let claim = "SELECT postrider.claim('billing', gen_random_uuid())";
    assert!(client.query_one(claim, &[]).await.unwrap().get::<_, bool>(0));
}

/// No function may contain a literal that some sessions read differently, or call names that the
/// caller's `search_path` could replace.
#[tokio::test]
async fn no_function_rests_on_settings_of_the_session() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let slack = r"
        SELECT p.oid::regprocedure::text FROM pg_proc AS p
        WHERE p.pronamespace = 'postrider'::regnamespace
          AND (p.prosrc ~ E'(^|[^E])''[^'']*\\\\'
               OR p.prosecdef AND NOT coalesce(p.proconfig::text ~ 'search_path=pg_catalog, ?pg_temp', false)
               OR p.prosrc ~ 'pg_sequence_last_value[(]')";
    let rows = client.query(slack, &[]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn a_user_who_may_not_migrate_learns_it_from_check_and_gets_one_hint() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let role = format!("{}_app", fixture.database);
    let behind = format!(
        "CREATE ROLE {role} LOGIN IN ROLE postrider_relay;
         DELETE FROM postrider.migration WHERE version > 1"
    );
    admin.batch_execute(&behind).await.unwrap();
    let url = fixture.database_url().replace("postgres@", &format!("{role}@"));
    let toml = fixture.toml().set("database.url", url);
    let check = daemon::run(&toml, &["check"]).await;
    assert_eq!(check.code, Some(78), "{check:?}");
    let hint = "hint: run `postrider migrate` as postgres: this user may not";
    assert!(check.stdout.contains(hint), "{}", check.stdout);
    let migrated = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(migrated.code, Some(77), "{migrated:?}");
    assert!(migrated.stderr.contains("run it as the owner of the schema"), "{}", migrated.stderr);
    assert_eq!(migrated.stderr.matches("hint:").count(), 1, "{}", migrated.stderr);
}
