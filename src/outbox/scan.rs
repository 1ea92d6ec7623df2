//! Tells which of the messages that a scan of the stream has seen are events of this outbox.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Outbox;
use crate::{event::AggregateKey, metrics::Query, pg::error::QueryError};

/// An event of this outbox among the messages that were seen.
#[derive(Debug, Clone)]
pub struct Ours {
    /// Which of them, counted from 0.
    pub place: usize,
    /// Its key, when it has one.
    pub key: Option<AggregateKey>,
}

impl Outbox {
    /// Takes the position over when its cluster became this one by `pg_upgrade`. Returns whether it
    /// did.
    ///
    /// # Errors
    /// As the session's.
    pub async fn take_over_upgrade(&self, term: i64) -> Result<bool, QueryError> {
        let statement = &self.statements.take_over_position;
        let row = self.connection.run_one(Query::Lock, statement, &[&self.relay, &term]).await?;
        Ok(row.try_get("taken")?)
    }

    /// The events of this outbox among these, each by its place in the outbox and its id, as far as
    /// they are not settled, or are letters that are not resolved.
    ///
    /// # Errors
    /// As the session's.
    pub async fn ours(&self, seqs: &[i64], ids: &[Uuid]) -> Result<Vec<Ours>, QueryError> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.relay, &seqs, &ids];
        let rows = self
            .connection
            .run(Query::Scan, &self.statements.recognise_events, &parameters)
            .await?;
        let mut ours = Vec::with_capacity(rows.len());
        for row in &rows {
            let place: i64 = row.try_get("place")?;
            let key = row.try_get::<_, Option<&str>>("aggregate_type")?;
            let key = key.zip(row.try_get::<_, Option<&str>>("aggregate_id")?);
            ours.push(Ours {
                place: usize::try_from(place - 1).unwrap_or_default(),
                key: key.map(|(aggregate_type, id)| AggregateKey::new(aggregate_type, id)),
            });
        }
        Ok(ours)
    }
}
