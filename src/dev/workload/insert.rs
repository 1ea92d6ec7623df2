//! Turns planned rows into the parameters that the statements of the workload take.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    Shared, expected,
    plan::{PlannedRow, Way},
};
use crate::dev::checker::Row;

/// Rows with their numbers within their keys, ready to be inserted.
pub(super) struct NumberedRows {
    pub(super) way: Way,
    /// The rows as they enter the ledger.
    pub(super) ledger: Vec<Row>,
    columns: EventColumns,
    /// All rows as one JSON array, for `emit_many` only.
    json: String,
}

#[derive(Default)]
struct EventColumns {
    ids: Vec<Uuid>,
    event_types: Vec<&'static str>,
    event_versions: Vec<i32>,
    aggregate_types: Vec<Option<&'static str>>,
    aggregate_ids: Vec<Option<String>>,
    aggregate_versions: Vec<Option<i64>>,
    payloads: Vec<Option<String>>,
    headers: Vec<String>,
    actors: Vec<Option<&'static str>>,
    correlation: String,
}

/// An element of the array that `emit_many` takes.
#[derive(Serialize)]
struct Element<'a> {
    event_id: Uuid,
    event_type: &'a str,
    event_version: i32,
    aggregate_type: Option<&'a str>,
    aggregate_id: Option<String>,
    aggregate_version: Option<i64>,
    payload: Option<&'a RawValue>,
    headers: BTreeMap<&'a str, &'a str>,
    actor: Option<&'a str>,
    correlation_id: &'a str,
}

impl NumberedRows {
    /// Gives the rows their numbers within their keys. With `Order::Serial` the caller has locked
    /// the keys.
    pub(super) fn number(planned: &[PlannedRow], way: Way, shared: &Shared) -> Self {
        let correlation = Uuid::now_v7();
        let correlation_text = correlation.to_string();
        let mut columns =
            EventColumns { correlation: correlation_text.clone(), ..EventColumns::default() };
        let mut ledger = Vec::with_capacity(planned.len());
        let mut elements = Vec::new();
        for row in planned {
            let key_seq = row.key.map_or(0, |key| shared.next_key_seq(key));
            ledger.push(expected::row(row, key_seq, correlation, &shared.options));
            let version = row.key.and_then(|_| i64::try_from(key_seq).ok());
            let aggregate_id = row.key.map(|key| expected::aggregate_id(&shared.options, key));
            if way == Way::EmitMany {
                elements.push(element(row, version, aggregate_id, &correlation_text));
            } else {
                columns.push(row, version, aggregate_id);
            }
        }
        let json = serde_json::to_string(&elements).unwrap_or_default();
        Self { way, ledger, columns, json }
    }

    /// The parameters of the statement that belongs to the rows' [`Way`].
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        match self.way {
            Way::EmitMany => vec![&self.json],
            Way::Emit | Way::Insert => {
                let columns = &self.columns;
                vec![
                    &columns.ids,
                    &columns.event_types,
                    &columns.event_versions,
                    &columns.aggregate_types,
                    &columns.aggregate_ids,
                    &columns.aggregate_versions,
                    &columns.payloads,
                    &columns.headers,
                    &columns.actors,
                    &columns.correlation,
                ]
            }
        }
    }
}

impl EventColumns {
    fn push(&mut self, row: &PlannedRow, version: Option<i64>, aggregate_id: Option<String>) {
        let headers: BTreeMap<&str, &str> = header_map(row);
        self.ids.push(row.id);
        self.event_types.push(row.event_type);
        self.event_versions.push(row.event_version);
        self.aggregate_types.push(row.key.map(|_| expected::AGGREGATE_TYPE));
        self.aggregate_ids.push(aggregate_id);
        self.aggregate_versions.push(version);
        self.payloads.push(row.payload.clone());
        self.headers.push(serde_json::to_string(&headers).unwrap_or_default());
        self.actors.push(row.actor);
    }
}

fn element<'a>(
    row: &'a PlannedRow,
    aggregate_version: Option<i64>,
    aggregate_id: Option<String>,
    correlation_id: &'a str,
) -> Element<'a> {
    Element {
        event_id: row.id,
        event_type: row.event_type,
        event_version: row.event_version,
        aggregate_type: row.key.map(|_| expected::AGGREGATE_TYPE),
        aggregate_id,
        aggregate_version,
        payload: row.payload.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        headers: header_map(row),
        actor: row.actor,
        correlation_id,
    }
}

fn header_map(row: &PlannedRow) -> BTreeMap<&str, &str> {
    row.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
}
