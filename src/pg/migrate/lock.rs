//! The lock under which one session at a time migrates a schema.

use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::{
    LOCK_POLL, LOCK_WAIT,
    error::{MigrateError, failed},
};

/// Acquires the lock, waiting at most [`LOCK_WAIT`].
pub(super) async fn take_lock(client: &Client, lock: &str) -> Result<(), MigrateError> {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        let row = client
            .query_one("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", &[&lock])
            .await
            .map_err(failed("take the migration lock"))?;
        if row.get(0) {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(MigrateError::Locked { holder: lock_holder(client, lock).await? });
        }
        sleep(LOCK_POLL).await;
    }
}

async fn lock_holder(client: &Client, lock: &str) -> Result<String, MigrateError> {
    let row = client
        .query_opt(
            "SELECT format('process %s, %s', l.pid, coalesce(nullif(a.application_name, ''), \
             'without a name')) FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid) \
             WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted \
             AND (l.classid::bigint << 32) | l.objid::bigint = hashtextextended($1, 0)",
            &[&lock],
        )
        .await
        .map_err(failed("find the holder of the migration lock"))?;
    Ok(row.map_or_else(|| "it has just ended".to_owned(), |row| row.get(0)))
}
