//! Brings the schema to the latest version, and reads the version that it has.
//!
//! Numbered migrations make the tables. They only go forward, and a shipped file never changes: its
//! checksum is stored beside the tables. Each is a separate transaction, so that it holds its locks
//! only briefly. Then all functions are replaced in one transaction (`functions`). Several replicas
//! may migrate at once: an advisory lock lets one in at a time, and the others find nothing to do.

mod error;
mod functions;
mod lock;
mod roles;

use std::time::Duration;

use refinery_core::{Migration, Runner, error::Kind};
use tokio_postgres::{Client, types::Type};

use crate::failpoint;

use super::schema::Schema;
use error::{because, failed};
use functions::Recorded;
use lock::take_lock;
use roles::{Granting, OWN, Roles, powerless};

pub use error::MigrateError;
pub use functions::{ChangedFunction, FunctionChange, changed_functions};

/// Migrations in the order in which they are applied. The database stores their names: never change
/// one.
const FILES: [(&str, &str); 16] = [
    ("V1__outbox", include_str!("../../../migrations/0001_outbox.sql")),
    ("V2__relay", include_str!("../../../migrations/0002_relay.sql")),
    ("V3__emit", include_str!("../../../migrations/0003_emit.sql")),
    ("V4__processed", include_str!("../../../migrations/0004_processed.sql")),
    ("V5__retention", include_str!("../../../migrations/0005_retention.sql")),
    ("V6__letters", include_str!("../../../migrations/0006_letters.sql")),
    ("V7__refusals", include_str!("../../../migrations/0007_refusals.sql")),
    ("V8__operator", include_str!("../../../migrations/0008_operator.sql")),
    ("V9__reconcile", include_str!("../../../migrations/0009_reconcile.sql")),
    ("V10__lease", include_str!("../../../migrations/0010_lease.sql")),
    ("V11__stream", include_str!("../../../migrations/0011_stream.sql")),
    ("V12__contract", include_str!("../../../migrations/0012_contract.sql")),
    ("V13__letters", include_str!("../../../migrations/0013_letters.sql")),
    ("V14__functions", include_str!("../../../migrations/0014_functions.sql")),
    ("V15__operator", include_str!("../../../migrations/0015_operator.sql")),
    ("V16__routes", include_str!("../../../migrations/0016_routes.sql")),
];

/// Maximum wait for another replica's migration. Migrations take seconds, so a longer one needs an
/// operator.
pub const LOCK_WAIT: Duration = Duration::from_mins(1);

/// Interval at which the lock is tried. A blocking wait would be ended by `statement_timeout`.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// Table of the applied migrations, with the columns that the migration library needs.
const HISTORY: &str = "\"postrider\".migration";

/// Table of the installed functions (`migrations/0014_functions.sql`).
const RECORD: &str = "\"postrider\".installed_function";

/// The oldest server that the migrations and statements work with.
const POSTGRES_MAJOR_MIN: i32 = 14;

/// Settings that pin the meaning of a migration's text, whatever the database or role sets.
///
/// A comment of the first file contains a character that a database without Unicode lacks and would
/// refuse. Such a database receives the text without conversion.
const SESSION: &str = "SELECT pg_catalog.set_config('statement_timeout', '0', false),
    pg_catalog.set_config('standard_conforming_strings', 'on', false),
    pg_catalog.set_config('check_function_bodies', 'on', false),
    pg_catalog.set_config('default_table_access_method', 'heap', false),
    pg_catalog.set_config('default_transaction_isolation', 'read committed', false),
    pg_catalog.set_config('quote_all_identifiers', 'off', false),
    pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false),
    pg_catalog.set_config('client_encoding', CASE pg_catalog.getdatabaseencoding()
        WHEN 'UTF8' THEN 'UTF8' ELSE 'SQL_ASCII' END, false)";

/// Beginning of each transaction in the text for `psql`. It pins the meaning of the migration's
/// text.
const PRINTED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL standard_conforming_strings = on;
SET LOCAL check_function_bodies = on;
SET LOCAL default_table_access_method = heap;
SET LOCAL quote_all_identifiers = off;
SET LOCAL search_path = pg_catalog, pg_temp;
";

/// Result of `migrate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    /// Numbers and names of the applied migrations; empty when none was missing.
    pub applied: Vec<String>,
    /// Number of replaced functions: all of them, or 0 when they were current.
    pub functions: usize,
    /// Version of the schema after the run.
    pub version: i32,
    /// Roles that do not exist and that this user may not create. The schema's owner works without
    /// them.
    pub without_roles: Vec<&'static str>,
    /// Roles of Postrider that exist and have no right in the schema, as after a restore on a
    /// server where they were missing.
    pub powerless: Vec<String>,
}

/// Version of the schema in relation to this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaVersion {
    /// No migration was ever applied: run `postrider migrate`.
    Missing,
    /// Older than this program: run `postrider migrate`.
    Behind {
        /// The version of the schema.
        have: i32,
        /// The newest version that this program supports.
        supported: i32,
    },
    /// The latest version, but its functions are missing or those of another program, as after an
    /// interrupted migration: run `postrider migrate`.
    OtherFunctions,
    /// The latest version, with the functions of this program.
    Current(i32),
    /// Newer than this program: update it.
    Newer {
        /// The version of the schema.
        have: i32,
        /// The newest version that this program supports.
        supported: i32,
    },
    /// The latest version, with the functions of a newer program: update this one.
    NewerFunctions {
        /// Version of that program.
        program: String,
    },
}

/// Applies the missing migrations under the lock. Needs a separate session, because it removes that
/// session's `statement_timeout`. The user must own the schema.
///
/// # Errors
///
/// [`MigrateError::Newer`], [`MigrateError::NewerFunctions`] and [`MigrateError::Changed`] leave
/// everything as it is. After [`MigrateError::Failed`] run it again once the cause is gone.
///
/// # Cancel safety
///
/// Drop the session too: it may still hold the lock. No migration stays half applied.
pub async fn migrate(
    client: &mut Client,
    schema: &Schema,
) -> Result<MigrationReport, MigrateError> {
    refuse_old_server(client).await?;
    client.batch_execute(SESSION).await.map_err(failed("prepare the session"))?;
    let lock = format!("\"{}\" migrate", schema.as_str());
    take_lock(client, &lock).await?;
    let result = migrate_locked(client, schema).await;
    let unlocked = client
        .execute("SELECT pg_advisory_unlock(hashtextextended($1, 0))", &[&lock])
        .await
        .map_err(failed("release the migration lock"));
    let report = result?;
    unlocked?;
    Ok(report)
}

/// Reads the version of the schema, without changing anything.
///
/// # Errors
///
/// The class is `Permission` when the role may not read the schema.
///
/// # Cancel safety
///
/// Only reads.
pub async fn version(client: &Client, schema: &Schema) -> Result<SchemaVersion, MigrateError> {
    refuse_old_server(client).await?;
    let supported = latest();
    let applied = history(client, schema).await?;
    Ok(match applied.iter().map(|row| row.version).max() {
        None => SchemaVersion::Missing,
        Some(have) if have < supported => SchemaVersion::Behind { have, supported },
        Some(have) if have > supported => SchemaVersion::Newer { have, supported },
        Some(have) => match functions::recorded(client, schema).await? {
            Recorded::Same => SchemaVersion::Current(have),
            Recorded::Other => SchemaVersion::OtherFunctions,
            Recorded::Newer { program } => SchemaVersion::NewerFunctions { program },
        },
    })
}

/// Renders the migrations after a version as text for `psql`, for a DBA who applies them by hand.
/// `after` is 0 for an empty schema, which needs all of them. After the DBA has applied the text,
/// `postrider migrate` finds nothing to do.
///
/// # Errors
///
/// Never in a build whose tests have passed.
pub fn print(schema: &Schema, after: i32) -> Result<String, MigrateError> {
    let history = schema.apply(HISTORY);
    let from = match after {
        0 => "For an empty schema".to_owned(),
        version => format!("For a schema of version {version}"),
    };
    let mut text = format!(
        "-- Postrider {}: schema \"{}\", version {}. {from}; apply with\n\
         -- psql -v ON_ERROR_STOP=1 -f FILE\n\
         -- What a schema of an earlier version lacks: postrider migrate --print --after
         -- VERSION\n\n\
         BEGIN READ WRITE;\nSET LOCAL search_path = pg_catalog, pg_temp;\nCREATE SCHEMA IF NOT EXISTS \"{1}\";\n\
         CREATE TABLE IF NOT EXISTS {history} (\n    version int4 PRIMARY KEY,\n    \
         name varchar(255),\n    applied_on varchar(255),\n    checksum varchar(255));\n\
         DO $$ BEGIN IF (SELECT coalesce(max(version), 0) FROM {history}) <> {after} THEN\n    \
         RAISE EXCEPTION 'this text is for a schema of version {after}, and it has another'\n        \
         USING HINT = 'postrider check names the version: print the text --after that';\n\
         END IF; END $$;\nCOMMIT;\n",
        env!("CARGO_PKG_VERSION"),
        schema.as_str(),
        latest(),
    );
    let missing = migrations(schema)?.into_iter();
    for migration in missing.filter(|migration| migration.version() > after) {
        text.push('\n');
        text.push_str(PRINTED);
        text.push('\n');
        // Characters outside ASCII occur in comments only, and are left out here, because a
        // database without Unicode refuses them.
        text.extend(migration.sql().unwrap_or_default().chars().filter(char::is_ascii));
        let record = format!(
            "\nINSERT INTO {history} (version, name, applied_on, checksum)\n\
             VALUES ({}, '{}', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), \
             '{}');\n\nCOMMIT;\n",
            migration.version(),
            migration.name(),
            migration.checksum(),
        );
        text.push_str(&record);
    }
    let functions = functions::print(schema)?;
    let functions = format!("\n{PRINTED}\n{functions}\nCOMMIT;\n\nBEGIN READ WRITE;\n");
    text.push_str(&functions);
    text.push_str(&grant_history(schema, "postrider_relay, postrider_operator"));
    text.push_str("\nCOMMIT;\n");
    Ok(text)
}

/// The role that may migrate this schema when the session's user may not; `None` when that user
/// may.
///
/// # Errors
///
/// The errors of the session.
///
/// # Cancel safety
///
/// Only reads.
pub async fn rightful(client: &Client, schema: &Schema) -> Result<Option<String>, MigrateError> {
    let statement = "SELECT coalesce(
            (SELECT CASE WHEN NOT pg_catalog.pg_has_role(n.nspowner, 'USAGE')
                         THEN pg_catalog.pg_get_userbyid(n.nspowner)::text ELSE '' END
             FROM pg_catalog.pg_namespace AS n WHERE n.nspname = $1),
            CASE WHEN pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')
                 THEN '' ELSE 'a user with CREATE on the database' END)";
    let row = client
        .query_typed_one(statement, &[(&schema.as_str(), Type::TEXT)])
        .await
        .map_err(failed("find the schema's owner"))?;
    let who: String = row.get(0);
    Ok(Some(who).filter(|who| !who.is_empty()))
}

async fn refuse_old_server(client: &Client) -> Result<(), MigrateError> {
    let statement = "SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
                     pg_catalog.current_setting('server_version')";
    let failed = failed("ask for the server's version");
    let row = client.query_typed_one(statement, &[]).await.map_err(failed)?;
    refuse_old(row.get(0), row.get(1))
}

/// Refuses a server by the number that Postgres itself compares: 140005 is 14.5.
fn refuse_old(number: i32, have: &str) -> Result<(), MigrateError> {
    if number / 10_000 < POSTGRES_MAJOR_MIN {
        return Err(MigrateError::OldServer { have: have.to_owned() });
    }
    Ok(())
}

/// A row of the migration table.
struct Applied {
    version: i32,
    name: String,
    checksum: String,
}

async fn migrate_locked(
    client: &mut Client,
    schema: &Schema,
) -> Result<MigrationReport, MigrateError> {
    let migrations = migrations(schema)?;
    let applied = history(client, schema).await?;
    verify(&applied, &migrations)?;
    let is_behind = applied.len() < migrations.len();
    let recorded =
        if is_behind { Recorded::Other } else { functions::recorded(client, schema).await? };
    if let Recorded::Newer { program } = recorded {
        return Err(MigrateError::NewerFunctions { program });
    }
    if is_behind {
        create_schema(client, schema).await?;
        failpoint::pass("migrate");
    }
    // Missing roles are created also when all migrations are applied: the schema may have been
    // restored on a server without them.
    let roles = Roles::establish(client).await.map_err(failed("create the roles"))?;
    let applied =
        if is_behind { run(client, schema, &migrations, &roles).await? } else { Vec::new() };
    failpoint::pass("migrate-functions");
    let is_done = recorded == Recorded::Same && functions::are_intact(client, schema).await?;
    let functions = if is_done { 0 } else { functions::install(client, schema, &roles).await? };
    failpoint::pass("migrated");
    let_read_history(client, schema).await?;
    let powerless = powerless(client, schema).await.map_err(failed("ask for rights"))?;
    let without_roles = roles.missing().to_vec();
    Ok(MigrationReport { applied, functions, version: latest(), without_roles, powerless })
}

async fn create_schema(client: &Client, schema: &Schema) -> Result<(), MigrateError> {
    let create = schema.apply(
        "DO $$ BEGIN IF to_regnamespace('\"postrider\"') IS NULL THEN \
         CREATE SCHEMA \"postrider\"; END IF; END $$",
    );
    client.batch_execute(&create).await.map_err(failed("create the schema"))
}

/// Applies the missing numbered migrations. Returns their names.
async fn run(
    client: &mut Client,
    schema: &Schema,
    migrations: &[Migration],
    roles: &Roles,
) -> Result<Vec<String>, MigrateError> {
    let mut runner = Runner::new(migrations);
    runner.set_migration_table_name(schema.apply(HISTORY));
    let mut session = Granting { client, roles, own: schema.apply(OWN) };
    let ran = runner.run_async(&mut session).await.map_err(|error| explain(&error))?;
    Ok(ran
        .applied_migrations()
        .iter()
        .map(|m| format!("{:04} {}", m.version(), m.name()))
        .collect())
}

/// Lets the relay and the operators read the schema's version and the record of the functions,
/// unless they may already.
async fn let_read_history(client: &Client, schema: &Schema) -> Result<(), MigrateError> {
    let failed = failed("let the relay read the schema version");
    // The server may lack the roles (see roles.rs), so only existing ones are granted.
    let statement = "SELECT string_agg(rolname, ', ') FROM pg_catalog.pg_roles
        WHERE rolname IN ('postrider_relay', 'postrider_operator')
            AND NOT (has_table_privilege(oid, $1, 'SELECT')
                     AND has_table_privilege(oid, $2, 'SELECT'))";
    let (history, record) = (schema.apply(HISTORY), schema.apply(RECORD));
    let row = client.query_one(statement, &[&history, &record]).await.map_err(&failed)?;
    // When no grant is missing, nothing is granted. So a user without the right to grant does not
    // fail here.
    let Some(readers) = row.get::<_, Option<String>>(0) else { return Ok(()) };
    client.batch_execute(&grant_history(schema, &readers)).await.map_err(failed)
}

/// Refuses a schema newer than this program, and an applied migration with a text unlike ours.
fn verify(applied: &[Applied], migrations: &[Migration]) -> Result<(), MigrateError> {
    let supported = latest();
    if let Some(have) = applied.iter().map(|row| row.version).max().filter(|have| *have > supported)
    {
        return Err(MigrateError::Newer { have, supported });
    }
    for row in applied {
        let ours = migrations.iter().find(|migration| migration.version() == row.version);
        let is_same = ours.is_some_and(|migration| {
            migration.name() == row.name && migration.checksum().to_string() == row.checksum
        });
        if !is_same {
            return Err(MigrateError::Changed { name: format!("{} {}", row.version, row.name) });
        }
    }
    Ok(())
}

/// The applied migrations; empty when the table does not exist.
async fn history(client: &Client, schema: &Schema) -> Result<Vec<Applied>, MigrateError> {
    let doing = "read the schema version";
    // Unprepared, so that no statement is left on a session that a pooler lends.
    let exists: bool = client
        .query_typed_one(
            "SELECT to_regclass($1) IS NOT NULL",
            &[(&schema.apply(HISTORY), Type::TEXT)],
        )
        .await
        .map_err(failed(doing))?
        .get(0);
    if !exists {
        return Ok(Vec::new());
    }
    let select = schema.apply(
        "SELECT version, coalesce(name, ''), coalesce(checksum, '') \
         FROM \"postrider\".migration ORDER BY version",
    );
    let rows = client.query_typed(&select, &[]).await.map_err(failed(doing))?;
    Ok(rows
        .iter()
        .map(|row| Applied { version: row.get(0), name: row.get(1), checksum: row.get(2) })
        .collect())
}

fn migrations(schema: &Schema) -> Result<Vec<Migration>, MigrateError> {
    FILES
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, &schema.apply(sql)))
        .collect::<Result<_, _>>()
        .map_err(|error| MigrateError::Inconsistent(error.to_string()))
}

/// The version that this program migrates to. The files are numbered from 1 without gaps, which a
/// test verifies.
pub fn latest() -> i32 {
    i32::try_from(FILES.len()).unwrap_or(i32::MAX)
}

fn grant_history(schema: &Schema, readers: &str) -> String {
    schema.apply(&format!("GRANT SELECT ON {HISTORY}, {RECORD} TO {readers};"))
}

/// Extracts the driver's error from an error of the migration library.
fn explain(error: &refinery_core::Error) -> MigrateError {
    if let Kind::Connection(doing, cause) = error.kind()
        && let Some(cause) = cause.downcast_ref::<tokio_postgres::Error>()
    {
        return because(doing, cause);
    }
    MigrateError::Inconsistent(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::error::Class;

    #[test]
    fn servers_before_version_14_are_refused_by_name() {
        let refused = refuse_old(130_023, "13.23 (Debian)").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "PostgreSQL 13.23 (Debian) is too old: Postrider needs version 14 or later"
        );
        assert_eq!(refused.class(), Class::Configuration);
        refuse_old(140_000, "14.0").unwrap();
        refuse_old(180_004, "18.4").unwrap();
    }

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        let migrations = migrations(&Schema::parse("postrider").unwrap()).unwrap();
        let versions: Vec<_> = migrations.iter().map(Migration::version).collect();
        assert_eq!(versions, (1..=latest()).collect::<Vec<_>>());
    }
}
