//! Recognises events of this outbox among the messages of a stream scan.

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Outbox;
use crate::{event::AggregateKey, metrics::Query, pg::error::QueryError};

/// An event of this outbox among the scanned messages.
#[derive(Debug, Clone)]
pub struct RecognisedEvent {
    /// Index of the message, counted from 0.
    pub place: usize,
    /// Key of the event; `None` for an event without a key.
    pub key: Option<AggregateKey>,
}

impl Outbox {
    /// Finds the events of this outbox among scanned messages, each given by its `seq` and id.
    /// Settled events are left out, unless they are unresolved letters.
    ///
    /// # Errors
    /// The errors of the session.
    pub async fn recognise_events(
        &self,
        seqs: &[i64],
        ids: &[Uuid],
    ) -> Result<Vec<RecognisedEvent>, QueryError> {
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
            ours.push(RecognisedEvent {
                place: usize::try_from(place - 1).unwrap_or_default(),
                key: key.map(|(aggregate_type, id)| AggregateKey::new(aggregate_type, id)),
            });
        }
        Ok(ours)
    }
}
