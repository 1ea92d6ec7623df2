//! Measures the ceiling of reading: a session that reads all rows of a backlog and does nothing
//! else.

use std::{pin::pin, process, time::Instant};

use anyhow::{Result, ensure};
use futures_util::TryStreamExt as _;
use tokio_postgres::Client;

use crate::{
    measure::{Measure, float},
    proc,
    stage::{Stage, backend},
};

/// Rows per page, the same as the relay's default.
const PAGE: i64 = 1000;

/// Columns of an event, as the relay reads them.
const COLUMNS: &str = "seq, event_id, occurred_at, event_type, event_version, kind, \
    aggregate_type, aggregate_id, aggregate_version, source, subject, content_type, headers, \
    correlation_id, causation_id, actor, payload";

#[derive(Default)]
pub(crate) struct Readings {
    pages: Readers,
    copy: Readers,
}

#[derive(Default)]
struct Readers {
    rate: Vec<f64>,
    server_us: Vec<f64>,
    client_us: Vec<f64>,
}

impl Readings {
    /// Reads all rows of a database by pages and by COPY. The relay has read them before, so the
    /// cost of the first access to a new row is not included.
    pub(crate) async fn read(&mut self, stage: &Stage, database: &str, count: u64) -> Result<()> {
        let client = stage.connect(database).await?;
        self.pages.measure(&client, count, read_pages(&client)).await?;
        self.copy.measure(&client, count, copy(&client, count)).await
    }

    pub(crate) fn measures(self) -> Vec<Measure> {
        let mut measures = Vec::new();
        for (name, readers) in [("pages of 1,000", self.pages), ("binary COPY", self.copy)] {
            let name = |what: &str| format!("bare read, {name}{what}");
            measures.push(Measure::new(name(""), "rows/s", readers.rate));
            measures.push(Measure::new(name(": Postgres CPU"), "µs/row", readers.server_us));
            measures.push(Measure::new(name(": client CPU"), "µs/row", readers.client_us));
        }
        measures
    }
}

impl Readers {
    async fn measure(
        &mut self,
        client: &Client,
        count: u64,
        read: impl Future<Output = Result<u64>>,
    ) -> Result<()> {
        let backend = backend(client).await?;
        let server_before = proc::cpu_seconds(backend)?;
        let client_before = proc::cpu_seconds(process::id())?;
        let begun = Instant::now();
        let rows = read.await?;
        let seconds = begun.elapsed().as_secs_f64();
        ensure!(rows == count, "read {rows} rows, expected {count}");
        let per_row = |seconds: f64| seconds * 1e6 / float(count);
        self.rate.push(float(count) / seconds);
        self.server_us.push(per_row(proc::cpu_seconds(backend)? - server_before));
        self.client_us.push(per_row(proc::cpu_seconds(process::id())? - client_before));
        Ok(())
    }
}

/// Reads all rows by a prepared statement, a page at a time. Only the last `seq` of each page is
/// decoded.
async fn read_pages(client: &Client) -> Result<u64> {
    let statement =
        format!("SELECT {COLUMNS} FROM postrider.outbox WHERE seq > $1 ORDER BY seq LIMIT {PAGE}");
    let statement = client.prepare(&statement).await?;
    let (mut rows, mut cursor) = (0, 0_i64);
    loop {
        let mut page = pin!(client.query_raw(&statement, [cursor]).await?);
        let mut last = None;
        while let Some(row) = page.try_next().await? {
            rows += 1;
            last = Some(row);
        }
        let Some(last) = last else { return Ok(rows) };
        cursor = last.try_get(0)?;
    }
}

/// Reads all rows by one binary COPY. Each message is a row, except for the last, which ends the
/// data.
async fn copy(client: &Client, count: u64) -> Result<u64> {
    let statement =
        format!("COPY (SELECT {COLUMNS} FROM postrider.outbox) TO STDOUT (FORMAT binary)");
    let mut messages = pin!(client.copy_out(&statement).await?);
    let (mut rows, mut bytes) = (0_u64, 0_usize);
    while let Some(message) = messages.try_next().await? {
        rows += 1;
        bytes += message.len();
    }
    ensure!(bytes > 0, "COPY gave nothing");
    Ok(rows.min(count))
}
