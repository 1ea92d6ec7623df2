//! Creates a copy of the outbox without the wake-up gate: same columns, defaults, indexes and
//! partitions. Its default for `slot` is a constant, where that of the outbox reads the gate.

use anyhow::Result;
use tokio_postgres::Client;

/// Name of the copied table.
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

/// Creates the copied table.
pub(crate) async fn create(client: &Client) -> Result<()> {
    Ok(client.batch_execute(CREATE).await?)
}
