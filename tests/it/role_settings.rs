//! Tests with settings of a role or a database that change the meaning of statements. Postrider has
//! to work all the same.

use tokio_postgres::Client;

use crate::support::{DEADLINE, Fixture, app, daemon, letters::done, postgres, toml::Toml};

/// A schema that comes before `pg_catalog`, with functions and operators of the same names but
/// other meanings.
const HOSTILE: &str = "
    CREATE SCHEMA hostile;
    CREATE FUNCTION hostile.octet_length(text) RETURNS integer LANGUAGE sql AS 'SELECT 1000000';
    CREATE FUNCTION hostile.concat(text, text, text, text, text) RETURNS text LANGUAGE plpgsql
        AS $$BEGIN RAISE 'hostile'; END$$;
    CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql
        AS $$SELECT 'infinity'::timestamptz$$;
    CREATE FUNCTION hostile.current_setting(text, boolean) RETURNS text LANGUAGE sql
        AS $$SELECT '{\"headers\": {\"hostile\": \"yes\"}}'$$;
    CREATE FUNCTION hostile.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT';
    CREATE FUNCTION hostile.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = text, RIGHTARG = text);
    CREATE OPERATOR hostile.~ (FUNCTION = hostile.never, LEFTARG = text, RIGHTARG = text);
    CREATE FUNCTION hostile.never(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE OPERATOR hostile.= (FUNCTION = hostile.never, LEFTARG = bigint, RIGHTARG = bigint);
    GRANT USAGE ON SCHEMA hostile TO PUBLIC";

/// Settings to test, each with whether the application's own session can insert events under it.
const SETTINGS: [(&str, bool); 4] = [
    ("default_transaction_read_only = on", false),
    ("default_tablespace = nowhere", true),
    ("search_path = hostile, pg_catalog, public", true),
    ("session_replication_role = replica", true),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    Role,
    Database,
}

/// Creates an empty database with a user of its own, for whom the setting is in force.
async fn set_up(fixture: &Fixture, setting: &str, on: On) -> (String, Toml) {
    let database = format!("{}_set", fixture.database);
    let execute = async |database: &str, sql: String| {
        fixture.postgres.execute(database, &sql).await.unwrap();
    };
    execute("postgres", format!("DROP DATABASE IF EXISTS {database}")).await;
    execute("postgres", format!("CREATE DATABASE {database}")).await;
    execute(&database, HOSTILE.to_owned()).await;
    let role = format!("{}_{}", fixture.database, uuid::Uuid::new_v4().simple());
    execute("postgres", format!("CREATE ROLE {role} LOGIN SUPERUSER")).await;
    let whom = match on {
        On::Role => format!("ROLE {role} IN DATABASE {database}"),
        On::Database => format!("DATABASE {database}"),
    };
    execute("postgres", format!("ALTER {whom} SET {setting}")).await;
    let url = fixture.postgres.url(&database).replace("postgres@", &format!("{role}@"));
    let toml = fixture.toml().set("database.url", url.as_str());
    (url, toml)
}

async fn setting_of(client: &Client, setting: &str) -> String {
    let name = setting.split(' ').next().unwrap();
    client.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn settings_of_a_role_or_a_database_change_nothing_for_migrate_run_emit_and_commands() {
    for (setting, may_write) in SETTINGS {
        for on in [On::Role, On::Database] {
            let mut fixture = Fixture::new().await;
            let (url, toml) = set_up(&fixture, setting, on).await;
            let migrated = daemon::run(&toml, &["migrate"]).await;
            assert_eq!(migrated.code, Some(0), "{setting} {on:?}: {migrated:?}");
            let client = postgres::connect(&url).await;
            assert!(setting.contains(&setting_of(&client, setting).await), "{setting} {on:?}");
            if !may_write {
                let error = client.batch_execute("SELECT postrider.emit('a.b', '{}')").await;
                let error = error.unwrap_err();
                assert_eq!(
                    error.code().map(tokio_postgres::error::SqlState::code),
                    Some("25006"),
                    "{error:?}"
                );
                client.batch_execute("SET default_transaction_read_only = off").await.unwrap();
            }
            let relay = fixture.daemon().config(|_| toml.clone());
            let mut relay = relay.allow_log("became a dead letter").start();
            relay.wait_log("relaying", DEADLINE).await;
            app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
            client
                .batch_execute(
                    "SELECT postrider.emit('order.placed', '{}', headers => '{\"a\": \"b\"}');
                     SELECT postrider.emit_binary('order.placed', '\\x00');
                     SELECT postrider.emit_many('[{\"event_type\": \"order.placed\"}]');
                     SELECT postrider.claim('shop', '01a1fd49-64ef-71c0-95f9-688b2002ce40')",
                )
                .await
                .unwrap_or_else(|error| panic!("{setting} {on:?}: {error:?}"));
            let refused = client.batch_execute("SELECT postrider.emit('a b', '{}')").await;
            assert!(refused.is_err(), "{setting} {on:?}");
            let poison = "INSERT INTO postrider.outbox (event_type) VALUES ('order.*')";
            client.batch_execute(poison).await.unwrap();
            let stored = fixture.wait_stored(4, DEADLINE).await;
            assert!(stored.iter().all(|message| message.header("hostile").is_none()), "{setting}");
            done(&toml, &["check"]).await;
            done(&toml, &["status"]).await;
            done(&toml, &["dlq", "list"]).await;
            done(&toml, &["dlq", "discard", "--all", "--yes", "--reason", "a test"]).await;
            done(&toml, &["why", "order/o-1"]).await;
            done(&toml, &["audit"]).await;
            relay.terminate();
            assert_eq!(relay.wait_exit(DEADLINE).await, Some(0), "{setting} {on:?}");
            fixture.stream.push('x');
        }
    }
}

/// The SQL of `migrate --print` has to work under such settings too, when a DBA runs it.
#[tokio::test]
async fn settings_of_a_role_change_nothing_for_the_printed_migrations() {
    let serializable = ("default_transaction_isolation = serializable", true);
    for (setting, _) in SETTINGS.into_iter().chain([serializable]) {
        let fixture = Fixture::new().await;
        let (url, toml) = set_up(&fixture, setting, On::Role).await;
        let printed = done(&toml, &["migrate", "--print"]).await;
        let client = postgres::connect(&url).await;
        client.batch_execute(&printed).await.unwrap_or_else(|error| panic!("{setting}: {error:?}"));
        let migrated = done(&toml, &["migrate"]).await;
        assert!(migrated.contains("is already at version"), "{setting}: {migrated}");
        assert!(!migrated.contains("replaced"), "{setting}: {migrated}");
    }
}
