//! Reads the schema's version and migrates it. An error names the session that holds a blocking
//! lock.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use super::{
    blocking::{LockWatch, SLOW},
    connect::Connection,
    error::Class,
    migrate::{self, ChangedFunction, MigrateError, MigrationReport, SchemaVersion},
    schema::Schema,
};

/// Reads the version of the schema. An error names the session that holds a blocking lock.
///
/// # Errors
///
/// The errors of [`migrate::version`].
///
/// # Cancel safety
///
/// Only reads.
pub async fn version(
    connection: &Connection,
    schema: &Schema,
) -> Result<SchemaVersion, MigrateError> {
    let lock_watch = connection.lock_watch.as_ref();
    watched(lock_watch, migrate::version(&connection.client, schema)).await
}

/// Reads the version of the schema within a limit of time; `None` when it is exceeded.
pub async fn version_within(
    connection: &Connection,
    schema: &Schema,
    limit: Duration,
) -> Option<Result<SchemaVersion, MigrateError>> {
    tokio::time::timeout(limit, version(connection, schema)).await.ok()
}

/// The functions that differ from what `postrider migrate` installed
/// ([`migrate::changed_functions`]).
///
/// # Errors
///
/// The errors of [`migrate::changed_functions`].
///
/// # Cancel safety
///
/// Only reads.
pub async fn changed_functions(
    connection: &Connection,
    schema: &Schema,
) -> Result<Vec<ChangedFunction>, MigrateError> {
    migrate::changed_functions(&connection.client, schema).await
}

/// The role that may migrate this schema when the session's user may not ([`migrate::rightful`]).
///
/// # Errors
///
/// The errors of the session.
///
/// # Cancel safety
///
/// Only reads.
pub async fn rightful(
    connection: &Connection,
    schema: &Schema,
) -> Result<Option<String>, MigrateError> {
    migrate::rightful(&connection.client, schema).await
}

/// Applies the missing migrations. An error names the session that holds a blocking lock.
///
/// # Errors
///
/// The errors of [`migrate::migrate`].
///
/// # Cancel safety
///
/// Drop the session too: it may still hold the migration lock. No migration stays half applied.
pub async fn migrate(
    connection: &mut Connection,
    schema: &Schema,
) -> Result<MigrationReport, MigrateError> {
    let Connection { client, lock_watch, .. } = connection;
    watched(lock_watch.as_ref(), migrate::migrate(client, schema)).await
}

/// Reads or changes the schema. If this fails after a wait for a lock, the error names the session
/// that holds the lock.
async fn watched<T>(
    lock_watch: Option<&LockWatch>,
    work: impl Future<Output = Result<T, MigrateError>>,
) -> Result<T, MigrateError> {
    let began = Instant::now();
    let mut work = pin!(work);
    if let Ok(done) = tokio::time::timeout(SLOW, &mut work).await {
        return done;
    }
    let slow = lock_watch.map(|lock_watch| (lock_watch, lock_watch.begin()));
    let result = work.await;
    let (
        Err(MigrateError::Failed { doing, class: Class::Transient, text }),
        Some((lock_watch, slow)),
    ) = (&result, &slow)
    else {
        return result;
    };
    match lock_watch.found(slow, began).await {
        Some(by) => Err(MigrateError::Failed {
            doing: doing.clone(),
            class: Class::Transient,
            text: format!(
                "{text}: {by} holds a lock that the statement waits for; hint: {}",
                by.hint()
            ),
        }),
        None => result,
    }
}
