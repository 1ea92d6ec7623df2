//! A table that is the outbox's twin but for the wake-up gate: same columns, defaults, indexes and
//! leaves, and a constant where the outbox asks the gate.

use anyhow::Result;
use tokio_postgres::Client;

/// Its name.
pub(crate) const TWIN: &str = "twin";

const CREATE: &str = "
    CREATE TABLE twin (LIKE postrider.outbox INCLUDING ALL) PARTITION BY LIST (slot);
    ALTER TABLE twin ALTER COLUMN slot SET DEFAULT 0;
    DO $body$
    BEGIN
        FOR slot IN 0..7 LOOP
            EXECUTE format(
                'CREATE TABLE twin_%1$s PARTITION OF twin FOR VALUES IN (%1$s) '
                'WITH (autovacuum_vacuum_insert_threshold = -1, '
                'toast.autovacuum_vacuum_insert_threshold = -1)', slot);
        END LOOP;
    END
    $body$";

/// Makes it.
pub(crate) async fn create(client: &Client) -> Result<()> {
    Ok(client.batch_execute(CREATE).await?)
}
