//! Installs the SQL functions of the schema, one file each, and records which are installed.
//!
//! A numbered migration changes tables and is never edited. A function's file is edited in place.
//! When the record, the catalog and the files disagree, all functions are replaced in one
//! transaction. Concurrent callers get the old or the new function.

use std::collections::BTreeSet;

use refinery_core::Migration;
use tokio_postgres::{Client, Row, error::SqlState};

use super::{
    error::{MigrateError, because, failed},
    roles::{OWN, Roles},
};
use crate::pg::schema::Schema;

/// Pairs each name with the text of its file.
macro_rules! files {
    ($($name:literal)*) => {
        [$(($name, include_str!(concat!("../../../migrations/functions/", $name, ".sql")))),*]
    };
}

/// The function files, each named like the function that it defines. A function in the language SQL
/// comes after those that it calls, because Postgres resolves them when it is created.
const FILES: [(&str, &str); 46] = files![
    "sequence_value" "first_gate" "wake" "uuid7"
    "unseen" "encoded_bytes" "check_kind" "check_header_value" "check_headers" "check_texts"
    "check_event" "context" "emit" "emit_binary" "emit_many"
    "processed_slot" "claim" "processed_maintain"
    "turn_settled" "retain" "forget"
    "legible" "next_damaged" "salvage"
    "broken_contract" "repair_contract" "adopt_rows" "fits_here" "rescan"
    "takes" "passed_over" "note_filter"
    "is_led" "is_rival" "forget_relay" "unrestorable" "acknowledge_loss"
    "is_hopeless" "reread" "operator_redrive" "operator_discard" "operator_edit"
    "operator_reconcile" "operator_heal" "operator_erase"
    "function_digests"
];

/// The version of this program, which is recorded beside each function.
const PROGRAM: &str = env!("CARGO_PKG_VERSION");

/// Result of comparing the recorded functions with the files of this program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recorded {
    /// The record matches the files of this program.
    Same,
    /// The record differs from the files, or is empty: install the functions.
    Other,
    /// The record differs from the files, and a newer program wrote it.
    Newer {
        /// Version of the newer program that recorded its functions.
        program: String,
    },
}

/// A function whose catalog entry differs from what `postrider migrate` installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFunction {
    /// Name of the function and the types of its parameters.
    pub signature: String,
    /// Kind of the difference.
    pub change: FunctionChange,
}

/// Difference between a function in the catalog and its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FunctionChange {
    /// The function was dropped.
    Missing,
    /// The function was replaced or altered.
    Altered,
    /// A role that was granted the function may not execute it.
    Ungranted,
}

/// Compares the record of installed functions with the files of this program. The table of the
/// record must exist.
pub(super) async fn recorded(client: &Client, schema: &Schema) -> Result<Recorded, MigrateError> {
    let select = "SELECT DISTINCT file, checksum, program FROM \"postrider\".installed_function";
    let rows = client
        .query_typed(&schema.apply(select), &[])
        .await
        .map_err(failed("read the record of the functions"))?;
    let rows: Vec<[String; 3]> =
        rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect();
    Ok(compare(&rows, &checksums(schema)?))
}

/// The functions that differ from their record.
///
/// # Errors
///
/// The errors of the session; class `Schema` when the schema was not migrated by this program.
///
/// # Cancel safety
///
/// Only reads.
pub async fn changed_functions(
    client: &Client,
    schema: &Schema,
) -> Result<Vec<ChangedFunction>, MigrateError> {
    let select = schema.apply(include_str!("../sql/find_changed_functions.sql"));
    let rows = client
        .query_typed(&select, &[])
        .await
        .map_err(failed("compare the functions with their record"))?;
    let read = |row: &Row| ChangedFunction {
        signature: row.get(0),
        change: match row.get::<_, &str>(1) {
            "missing" => FunctionChange::Missing,
            "altered" => FunctionChange::Altered,
            _ => FunctionChange::Ungranted,
        },
    };
    Ok(rows.iter().map(read).collect())
}

/// Whether the catalog contains the functions as the last migration recorded them, and the roles of
/// Postrider that exist may execute them.
pub(super) async fn are_intact(client: &Client, schema: &Schema) -> Result<bool, MigrateError> {
    let select = schema.apply(include_str!("../sql/check_role_grants.sql"));
    let row = client
        .query_typed_one(&select, &[])
        .await
        .map_err(failed("read the grants of the functions"))?;
    Ok(row.get(0) && changed_functions(client, schema).await?.is_empty())
}

/// Replaces all functions in one transaction. Returns their number.
pub(super) async fn install(
    client: &mut Client,
    schema: &Schema,
    roles: &Roles,
) -> Result<usize, MigrateError> {
    let texts = Texts::of(schema)?;
    let mut dropped_first = BTreeSet::new();
    loop {
        match replace(client, &texts, roles, &dropped_first).await {
            Ok(count) => return Ok(count),
            // The installed function has other result columns than the one of the file. Try again,
            // and drop the installed function first.
            Err((Some(name), error))
                if error.code() == Some(&SqlState::INVALID_FUNCTION_DEFINITION)
                    && dropped_first.insert(name) => {}
            Err((Some(name), error)) => {
                return Err(because(&format!("install the function {name}"), &error));
            }
            Err((None, error)) => return Err(because("install the functions", &error)),
        }
    }
}

/// Renders the replacement of all functions as text for `psql`. The caller puts it into a
/// transaction.
pub(super) fn print(schema: &Schema) -> Result<String, MigrateError> {
    let texts = Texts::of(schema)?;
    let files = texts.files.iter().map(|(_, file)| file.as_str());
    let parts = [texts.note.as_str()].into_iter().chain(files).chain([texts.record.as_str()]);
    Ok(parts.collect::<Vec<_>>().join("\n"))
}

/// SQL texts that replace all functions of one schema of the outbox.
struct Texts {
    note: String,
    files: Vec<(&'static str, String)>,
    record: String,
    drop: String,
    own: String,
    count: String,
}

impl Texts {
    fn of(schema: &Schema) -> Result<Self, MigrateError> {
        let record = schema.apply(include_str!("../sql/record_functions.sql"));
        let setting = |name: &str, value: &str| {
            format!("SELECT pg_catalog.set_config('postrider.{name}', '{value}', true);\n")
        };
        let files = checksums(schema)?.into_iter().map(|(name, checksum)| {
            serde_json::json!({ "file": name, "checksum": checksum, "program": PROGRAM })
        });
        let files = files.collect::<serde_json::Value>().to_string();
        Ok(Self {
            note: schema.apply(include_str!("../sql/note_functions.sql")),
            files: FILES.iter().map(|(name, file)| (*name, schema.apply(file))).collect(),
            record: setting("functions", &files) + &record,
            drop: schema.apply(include_str!("../sql/drop_functions.sql")),
            own: schema.apply(OWN),
            count: schema.apply("SELECT count(*) FROM \"postrider\".installed_function"),
        })
    }
}

/// Replaces all functions in one transaction. An error names the function file that failed; `None`
/// when another statement of the transaction failed.
async fn replace(
    client: &mut Client,
    texts: &Texts,
    roles: &Roles,
    dropped_first: &BTreeSet<&'static str>,
) -> Result<usize, (Option<&'static str>, tokio_postgres::Error)> {
    let unnamed = |error| (None, error);
    let transaction = client.transaction().await.map_err(unnamed)?;
    transaction.batch_execute(&texts.note).await.map_err(unnamed)?;
    for (name, file) in &texts.files {
        let named = |error| (Some(*name), error);
        if dropped_first.contains(name) {
            let choose = "SELECT set_config('postrider.functions_dropped', $1, true)";
            transaction.execute(choose, &[name]).await.map_err(named)?;
            transaction.batch_execute(&texts.drop).await.map_err(named)?;
        }
        transaction.batch_execute(&roles.apply(file)).await.map_err(named)?;
    }
    transaction.batch_execute(&texts.record).await.map_err(unnamed)?;
    if !roles.missing().is_empty() {
        transaction.batch_execute(&texts.own).await.map_err(unnamed)?;
    }
    let count: i64 = transaction.query_one(&texts.count, &[]).await.map_err(unnamed)?.get(0);
    transaction.commit().await.map_err(unnamed)?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// The files with their checksums, which are computed like those of the numbered migrations.
fn checksums(schema: &Schema) -> Result<Vec<(&'static str, String)>, MigrateError> {
    let checksum = |(name, file): &(&'static str, &str)| {
        let file = Migration::unapplied(&format!("V1__{name}"), &schema.apply(file));
        let file = file.map_err(|error| MigrateError::Inconsistent(error.to_string()))?;
        Ok((*name, file.checksum().to_string()))
    };
    FILES.iter().map(checksum).collect()
}

/// Compares rows of the record (file, checksum, program) with our files and their checksums.
fn compare(rows: &[[String; 3]], ours: &[(&'static str, String)]) -> Recorded {
    let recorded: BTreeSet<_> =
        rows.iter().map(|[file, checksum, _]| (file.as_str(), checksum.as_str())).collect();
    let ours: BTreeSet<_> = ours.iter().map(|(name, sum)| (*name, sum.as_str())).collect();
    if recorded == ours {
        return Recorded::Same;
    }
    let newest = rows.iter().map(|[_, _, program]| program).max_by_key(|program| numbers(program));
    match newest {
        Some(program) if numbers(program) > numbers(PROGRAM) => {
            Recorded::Newer { program: program.clone() }
        }
        _ => Recorded::Other,
    }
}

/// Numbers of a version: 1.2.3 of `1.2.3-rc.1`. Parts that are not a number count as zero, and so
/// as old.
fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or_default());
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn each_file_of_the_directory_is_installed_and_defines_the_function_of_its_name() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/functions");
        let mut there: Vec<String> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        let mut ours: Vec<String> = FILES.iter().map(|(name, _)| format!("{name}.sql")).collect();
        ours.sort();
        assert_eq!(there, ours);
        for (name, file) in FILES {
            let created = file.matches("CREATE OR REPLACE FUNCTION \"postrider\".").count();
            let named = format!("CREATE OR REPLACE FUNCTION \"postrider\".{name}(");
            assert!(created > 0 && file.matches(&named).count() == created, "{name}");
            assert!(file.starts_with(&format!("-- {name}(): ")), "{name}: say what it is");
        }
    }

    #[test]
    fn functions_of_a_newer_program_are_told_from_other_ones() {
        let row = |file: &str, sum: &str, program: &str| [file, sum, program].map(str::to_owned);
        let ours = [("claim", "1".to_owned()), ("emit", "2".to_owned())];
        let same = [row("claim", "1", "999.0.0"), row("emit", "2", "0.0.1")];
        assert_eq!(compare(&same, &ours), Recorded::Same);
        assert_eq!(compare(&[], &ours), Recorded::Other);
        assert_eq!(compare(&same[..1], &ours), Recorded::Newer { program: "999.0.0".to_owned() });
        for program in [PROGRAM, "0.0.1", "", "a build"] {
            let older = [row("claim", "1", program), row("emit", "3", program)];
            assert_eq!(compare(&older, &ours), Recorded::Other, "{program}");
        }
        let vanished = [&same[..], &[row("gone", "3", "0.0.1")]].concat();
        assert_ne!(compare(&vanished, &ours), Recorded::Same);
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.9"));
        assert!(numbers("1.0.0-rc.1") == numbers("1.0.0"));
        assert!(numbers("1.0") < numbers("1.0.1"));
    }
}
