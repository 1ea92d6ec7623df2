//! Tests of the SQL functions of the schema: they are the same however they were installed, are
//! replaced as a whole, and never by older ones.

use postrider::pg::{
    migrate::{MigrateError, SchemaVersion, changed_functions, migrate, print, version},
    schema::Schema,
};
use tokio_postgres::Client;

use crate::support::{DEADLINE, Fixture, app, daemon, postgres::connect};

/// Number of the last migration that was released before functions had files of their own.
const RELEASED: usize = 9;

/// Text between one numbered migration and the next in the printed SQL.
const NEXT: &str = "\nBEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;\n";

fn schema() -> Schema {
    Schema::parse("postrider").unwrap()
}

/// Parts of the printed SQL: its head, the numbered migrations, and the functions.
fn printed() -> (String, Vec<String>, String) {
    let text = print(&schema(), 0).unwrap();
    let mut parts = text.split(NEXT);
    let head = parts.next().unwrap().to_owned();
    let mut numbered: Vec<String> = parts.map(|part| format!("{NEXT}{part}")).collect();
    let functions = numbered.pop().unwrap();
    (head, numbered, functions)
}

/// A database with the first `count` numbered migrations, and without the function files.
async fn migrated_to(fixture: &Fixture, count: usize) -> Client {
    let database = format!("{}_{count}", fixture.database);
    let create = format!("CREATE DATABASE {database}");
    fixture.postgres.execute("postgres", &create).await.unwrap();
    let client = connect(&fixture.postgres.url(&database)).await;
    if count > 0 {
        let (head, numbered, _) = printed();
        client.batch_execute(&head).await.unwrap();
        for migration in numbered.iter().take(count) {
            client.batch_execute(migration).await.unwrap();
        }
    }
    client
}

/// `migrate --print --after VERSION` prints only what a schema of that version lacks, for a DBA to
/// run.
#[tokio::test]
async fn the_text_after_a_version_is_what_an_older_schema_lacks() {
    let fixture = Fixture::new().await;
    let older = RELEASED + 3;
    let mut client = migrated_to(&fixture, older).await;
    let text = print(&schema(), i32::try_from(older).unwrap()).unwrap();
    assert!(text.contains(&format!("For a schema of version {older}")), "{text}");
    let too_late = print(&schema(), i32::try_from(older).unwrap() + 1).unwrap();
    for other in [print(&schema(), 0).unwrap(), too_late] {
        let error = client.batch_execute(&other).await.unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert!(message.contains("and it has another"), "{message}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
    client.batch_execute(&text).await.unwrap();
    let report = migrate(&mut client, &schema()).await.unwrap();
    assert!(report.applied.is_empty() && report.functions == 0, "{report:?}");
}

/// Description of the schema, with a line for each object or grant in which two databases may
/// differ.
async fn catalog(client: &Client) -> Vec<String> {
    let statement = r"
        WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname = 'postrider')
        SELECT concat_ws(' | ', 'function', pg_get_functiondef(p.oid), obj_description(p.oid),
                         (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(p.proacl) AS a))
        FROM pg_proc AS p WHERE p.pronamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws(' | ', 'relation', c.relname, c.relkind, c.reloptions, obj_description(c.oid),
                         (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(c.relacl) AS a),
                         CASE WHEN c.relkind IN ('i', 'I') THEN pg_get_indexdef(c.oid) END)
        FROM pg_class AS c WHERE c.relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws(' | ', 'column', a.attrelid::regclass, a.attnum, a.attname,
                         format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attstorage,
                         pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum),
                         (SELECT string_agg(x::text, ' ' ORDER BY x::text) FROM unnest(a.attacl) AS x))
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE c.relnamespace IN (SELECT oid FROM ours) AND c.relkind IN ('r', 'p') AND a.attnum > 0
        UNION ALL
        SELECT concat_ws(' | ', 'constraint', c.conrelid::regclass, c.conname,
                         pg_get_constraintdef(c.oid))
        FROM pg_constraint AS c WHERE c.connamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws(' | ', 'trigger', t.tgrelid::regclass, pg_get_triggerdef(t.oid), t.tgenabled)
        FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
        WHERE c.relnamespace IN (SELECT oid FROM ours)
        UNION ALL
        SELECT concat_ws(' | ', 'installed', f.signature, f.file, f.checksum, f.digest, f.postgres, f.roles, f.program)
        FROM postrider.installed_function AS f
        ORDER BY 1";
    let rows = client.query(statement, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

fn assert_same(found: &[String], expected: &[String], of: &str) {
    let only = |one: &[String], other: &[String]| -> Vec<String> {
        one.iter().filter(|line| !other.contains(line)).cloned().collect()
    };
    let (more, fewer) = (only(found, expected), only(expected, found));
    assert!(more.is_empty() && fewer.is_empty(), "{of}\nmore: {more:#?}\nfewer: {fewer:#?}");
}

/// Calls that an application makes, with its roles and with arguments that every released version
/// accepted.
async fn work_of_an_application(client: &Client, when: &str) {
    let calls = [
        "SET ROLE postrider_producer",
        "SELECT postrider.emit('order.placed', '{}'::json, 'order', 'o-1')",
        "SELECT postrider.emit(event_type => 'a', payload => '{}'::json, headers => '{\"a\": \"b\"}'::jsonb)",
        "SELECT postrider.emit_binary('order.placed', 'x'::bytea, 'text/plain', 'order', 'o-1')",
        "SELECT postrider.context('{\"actor\": \"ann\"}'::jsonb)",
        "SELECT postrider.emit_many('[{\"event_type\": \"a\"}, {\"event_type\": \"b\"}]'::jsonb)",
        "INSERT INTO postrider.outbox (event_type) VALUES ('order.placed')",
        "SET ROLE postrider_consumer",
        "SELECT postrider.claim('billing', gen_random_uuid())",
        // The wake-up gate is open here, as when the relay sleeps. The insert then fires the
        // trigger that notifies.
        "SET ROLE postrider_relay",
        "SELECT setval('postrider.gate', 4), setval('postrider.wake_until', 1)",
        "SET ROLE postrider_producer",
        "INSERT INTO postrider.outbox (event_type) VALUES ('order.placed')",
        "RESET ROLE",
    ];
    for call in calls {
        client
            .batch_execute(call)
            .await
            .unwrap_or_else(|error| panic!("{when}: {call}: {error:?}"));
    }
    let gate = "SELECT last_value FROM postrider.gate";
    let gate: i64 = client.query_one(gate, &[]).await.unwrap().get(0);
    assert_eq!(gate, 0, "{when}: the trigger has closed the gate");
}

/// Pretends that this program has recorded another text for the function file.
async fn change_checksum(client: &Client, file: &str, program: &str) {
    let change = "UPDATE postrider.installed_function SET checksum = '1', program = $2
        WHERE file = $1";
    assert!(client.execute(change, &[&file, &program]).await.unwrap() > 0);
}

async fn exists(client: &Client, signature: &str) -> bool {
    let statement = "SELECT to_regprocedure($1) IS NOT NULL";
    client.query_one(statement, &[&signature]).await.unwrap().get(0)
}

#[tokio::test]
async fn every_database_that_is_migrated_ends_in_the_same_catalog() {
    let fixture = Fixture::new().await;
    let (_, numbered, _) = printed();
    let mut fresh = migrated_to(&fixture, 0).await;
    migrate(&mut fresh, &schema()).await.unwrap();
    let expected = catalog(&fresh).await;
    assert!(expected.iter().any(|line| line.contains("FUNCTION postrider.claim(")));
    assert!(expected.iter().any(|line| line.contains("Adds an event to the outbox.")));
    for count in [1, RELEASED, RELEASED + 1, numbered.len() - 1, numbered.len()] {
        let mut client = migrated_to(&fixture, count).await;
        let report = migrate(&mut client, &schema()).await.unwrap();
        assert_eq!(report.applied.len(), numbered.len() - count);
        assert!(report.functions > 40, "{report:?}");
        assert_same(&catalog(&client).await, &expected, &format!("from version {count}"));
        let again = migrate(&mut client, &schema()).await.unwrap();
        assert_eq!((again.applied.len(), again.functions), (0, 0));
    }
    let printed = connect(&fixture.postgres.url(&fixture.database)).await;
    printed.batch_execute("DROP SCHEMA postrider CASCADE").await.unwrap();
    printed.batch_execute(&print(&schema(), 0).unwrap()).await.unwrap();
    assert_same(&catalog(&printed).await, &expected, "printed");
}

/// Numbered migrations are committed before the functions are replaced, and the machine may die
/// between the two.
#[tokio::test]
async fn what_an_application_calls_works_after_each_numbered_migration() {
    let fixture = Fixture::new().await;
    let client = migrated_to(&fixture, RELEASED).await;
    let (_, numbered, functions) = printed();
    work_of_an_application(&client, "as released").await;
    for (number, migration) in numbered.iter().enumerate().skip(RELEASED) {
        client.batch_execute(migration).await.unwrap();
        work_of_an_application(&client, &format!("after migration {}", number + 1)).await;
    }
    client.batch_execute(&functions).await.unwrap();
    work_of_an_application(&client, "after the functions").await;
}

#[tokio::test]
async fn a_migration_that_is_killed_before_its_functions_is_finished_by_the_next_one() {
    if !cfg!(feature = "failpoints") {
        return;
    }
    let fixture = Fixture::new().await;
    let client = migrated_to(&fixture, RELEASED).await;
    let url = fixture.postgres.url(&format!("{}_{RELEASED}", fixture.database));
    let toml = fixture.toml().set("database.url", url.as_str());
    let kill = [("FP", "migrate-functions:1")];
    let died = daemon::run_with(&toml, &["migrate"], &kill).await;
    assert_eq!(died.code, None, "{died:?}");
    work_of_an_application(&client, "between tables and functions").await;
    assert_eq!(version(&client, &schema()).await.unwrap(), SchemaVersion::OtherFunctions);
    let check = daemon::run(&toml, &["check"]).await;
    assert_eq!(check.code, Some(78), "{check:?}");
    assert!(check.stdout.contains("does not have the functions of this program"), "{check:?}");

    let mut relay = fixture.daemon().set("database.url", url.as_str());
    relay = relay.allow_log("without the functions of this program");
    let mut relay = relay.start();
    let line = relay.wait_log("without the functions of this program", DEADLINE).await;
    assert!(line.contains("run `postrider migrate`"), "{line}");
    let again = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("replaced the "), "{again:?}");
    assert!(again.stdout.contains("is already at version"), "{again:?}");
    relay.wait_log("relaying", DEADLINE).await;
    app::emit(&client, "order.placed", Some(("order", "o-1")), "{}").await;
    assert!(fixture.wait_stored(1, DEADLINE).await.len() > 1);
}

#[tokio::test]
async fn a_function_that_was_changed_by_hand_is_named_and_installed_again() {
    let fixture = Fixture::new().await;
    let client = fixture.connect().await;
    let before = catalog(&client).await;
    let quiet = daemon::run(&fixture.toml(), &["check"]).await;
    assert!(!quiet.stdout.contains("by hand"), "{}", quiet.stdout);
    let changes = [
        ("DROP FUNCTION postrider.emit_many(json)", "emit_many(json) was dropped"),
        (
            "CREATE OR REPLACE FUNCTION postrider.is_led(relay text) RETURNS boolean
             LANGUAGE sql AS 'SELECT true'",
            "is_led(text) was changed by hand",
        ),
        (
            "ALTER FUNCTION postrider.retain(interval) RESET search_path",
            "retain(interval) was changed by hand",
        ),
        // The function has another return type, so it cannot be replaced and has to be dropped
        // first.
        (
            "DROP FUNCTION postrider.claim(text, uuid);
             CREATE FUNCTION postrider.claim(text, uuid) RETURNS text LANGUAGE sql AS 'SELECT $1'",
            "claim(text, uuid) was changed by hand",
        ),
    ];
    for (change, said) in changes {
        client.batch_execute(change).await.unwrap();
        let check = daemon::run(&fixture.toml(), &["check"]).await;
        assert_eq!(check.code, Some(0), "{check:?}");
        let name = format!("postrider.{said} since it was installed");
        assert!(check.stdout.contains(&name), "{change}: {}", check.stdout);
        assert!(check.stdout.contains("run `postrider migrate`: it installs the function again"));
        let migrated = daemon::run(&fixture.toml(), &["migrate"]).await;
        assert_eq!(migrated.code, Some(0), "{change}: {migrated:?}");
        assert!(migrated.stdout.contains("replaced the "), "{change}: {migrated:?}");
        assert_same(&catalog(&client).await, &before, change);
    }
    // The dropped function is the one with which `migrate` and `check` compare the others.
    client.batch_execute("DROP FUNCTION postrider.function_digests()").await.unwrap();
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert_eq!(check.code, Some(78), "{check:?}");
    let migrated = daemon::run(&fixture.toml(), &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert_same(&catalog(&client).await, &before, "function_digests");
}

/// A dump contains the text of a function as Postgres prints it, without the layout of our file.
#[tokio::test]
async fn a_function_that_came_through_a_dump_counts_as_unchanged() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    let restore = "DO $$
        DECLARE
            function oid;
        BEGIN
            FOR function IN SELECT p.oid FROM pg_proc AS p
                            WHERE p.pronamespace = 'postrider'::regnamespace LOOP
                EXECUTE pg_get_functiondef(function);
            END LOOP;
        END $$";
    client.batch_execute(restore).await.unwrap();
    assert_eq!(changed_functions(&client, &schema()).await.unwrap(), []);
    assert_eq!(migrate(&mut client, &schema()).await.unwrap().functions, 0);
    // Another major version of Postgres may print some functions differently, and so give another
    // digest.
    let upgraded = "UPDATE postrider.installed_function SET postgres = 13, digest = 'another'";
    client.batch_execute(upgraded).await.unwrap();
    assert_eq!(changed_functions(&client, &schema()).await.unwrap(), []);
    assert!(migrate(&mut client, &schema()).await.unwrap().functions > 0);
    assert_eq!(migrate(&mut client, &schema()).await.unwrap().functions, 0);
}

#[tokio::test]
async fn a_recorded_signature_that_no_file_defines_is_dropped_and_no_other() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    let before = catalog(&client).await;
    // The schema has an old signature of one file, a function of a removed file, and functions of
    // somebody else.
    let set_up = "
        CREATE FUNCTION postrider.claim(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION postrider.gone(integer, timestamptz) RETURNS boolean LANGUAGE sql
            RETURN postrider.claim('x');
        INSERT INTO postrider.installed_function (
            signature, file, checksum, digest, postgres, roles, program)
        VALUES ('claim(text)', 'claim', '1', '1', 0, '{}', '0.0.1'),
               ('gone(integer, timestamp with time zone)', 'gone', '1', '1', 0, '{}', '0.0.1'),
               ('never(text)', 'never', '1', '1', 0, '{}', '0.0.1');
        CREATE FUNCTION postrider.claim(integer) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        CREATE FUNCTION postrider.mine() RETURNS boolean LANGUAGE sql AS 'SELECT true'";
    client.batch_execute(set_up).await.unwrap();
    assert_eq!(version(&client, &schema()).await.unwrap(), SchemaVersion::OtherFunctions);
    migrate(&mut client, &schema()).await.unwrap();
    for gone in ["postrider.claim(text)", "postrider.gone(integer, timestamptz)"] {
        assert!(!exists(&client, gone).await, "{gone}");
    }
    for kept in ["postrider.claim(integer)", "postrider.mine()"] {
        assert!(exists(&client, kept).await, "{kept}");
    }
    let clean = "DROP FUNCTION postrider.claim(integer), postrider.mine()";
    client.batch_execute(clean).await.unwrap();
    assert_same(&catalog(&client).await, &before, "once the others are gone");
}

/// Dropping the function would drop a view too, so the whole replacement is rolled back.
#[tokio::test]
async fn a_function_that_something_else_needs_is_not_dropped() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    let set_up = "
        CREATE FUNCTION postrider.claim(text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
        INSERT INTO postrider.installed_function (
            signature, file, checksum, digest, postgres, roles, program)
        VALUES ('claim(text)', 'claim', '1', '1', 0, '{}', '0.0.1');
        CREATE VIEW public.claims AS SELECT postrider.claim('x')";
    client.batch_execute(set_up).await.unwrap();
    let before = catalog(&client).await;
    let error = migrate(&mut client, &schema()).await.unwrap_err();
    assert!(error.to_string().contains("claim(text)"), "{error}");
    assert_same(&catalog(&client).await, &before, "after the refusal");
}

#[tokio::test]
async fn functions_of_a_newer_program_are_left_alone() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    // A newer program has installed functions with the same text, so nothing differs.
    let newer = "UPDATE postrider.installed_function SET program = '999.0.0'";
    client.batch_execute(newer).await.unwrap();
    assert!(matches!(version(&client, &schema()).await.unwrap(), SchemaVersion::Current(_)));
    change_checksum(&client, "claim", "999.0.0").await;
    let before = catalog(&client).await;
    let error = migrate(&mut client, &schema()).await.unwrap_err();
    assert!(matches!(&error, MigrateError::NewerFunctions { program } if program == "999.0.0"));
    assert!(error.to_string().contains("update the program"), "{error}");
    assert_same(&catalog(&client).await, &before, "after the refusal");
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert_eq!(check.code, Some(78), "{check:?}");
    assert!(check.stdout.contains("has the functions of postrider 999.0.0"), "{check:?}");
    let mut relay = fixture.daemon().allow_log("install the newer postrider").start();
    assert_eq!(relay.wait_exit(DEADLINE).await, Some(78));
    let said = "are those of postrider 999.0.0: install the newer postrider";
    assert!(relay.log().contains(said), "{}", relay.log());
}

/// Grants may be missing after a restore into a cluster whose roles were created later.
#[tokio::test]
async fn grants_that_are_missing_are_given_again_and_a_dbas_own_are_kept() {
    let fixture = Fixture::new().await;
    let mut client = fixture.connect().await;
    let role = format!("{}_app", fixture.database);
    let before = catalog(&client).await;
    let change = format!(
        "CREATE ROLE {role};
         GRANT EXECUTE ON FUNCTION postrider.retain(interval) TO {role};
         REVOKE EXECUTE ON FUNCTION postrider.claim(text, uuid) FROM postrider_consumer"
    );
    client.batch_execute(&change).await.unwrap();
    let check = daemon::run(&fixture.toml(), &["check"]).await;
    assert!(check.stdout.contains("grants of 1 functions are missing"), "{}", check.stdout);
    assert!(migrate(&mut client, &schema()).await.unwrap().functions > 0);
    let kept = "SELECT has_function_privilege($1, 'postrider.retain(interval)', 'EXECUTE')";
    assert!(client.query_one(kept, &[&role]).await.unwrap().get::<_, bool>(0));
    let take = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    client.batch_execute(&take).await.unwrap();
    assert_same(&catalog(&client).await, &before, "after the grants");
    assert_eq!(migrate(&mut client, &schema()).await.unwrap().functions, 0);
}

#[tokio::test]
async fn whoever_may_only_read_finds_an_up_to_date_schema() {
    let fixture = Fixture::new().await;
    let admin = fixture.connect().await;
    let url = fixture.login("relay").await.url;
    let toml = fixture.toml().set("database.url", url);
    let migrated = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    assert!(migrated.stdout.contains("is already at version"), "{migrated:?}");
    admin.batch_execute("DROP FUNCTION postrider.claim(text, uuid)").await.unwrap();
    let check = daemon::run(&toml, &["check"]).await;
    let said = "run `postrider migrate` as postgres: this user may not";
    assert!(check.stdout.contains(said), "{}", check.stdout);
    let migrated = daemon::run(&toml, &["migrate"]).await;
    assert_eq!(migrated.code, Some(77), "{migrated:?}");
    assert!(migrated.stderr.contains("run it as the owner of the schema"), "{}", migrated.stderr);
}
