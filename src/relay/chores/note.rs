//! Writes for `postrider status` why nothing is published just now, or that events flow.

use crate::{
    outbox::Upkeep,
    pg::error::QueryError,
    relay::status::{GateStatus, Status},
};

/// Writes the note. Returns what it says.
pub(super) async fn write(session: &Upkeep, status: &Status) -> Result<String, QueryError> {
    let text = text_of(status);
    session.note(status.term, (!text.is_empty()).then_some(&text)).await?;
    Ok(text)
}

/// What `postrider status` shows of the gate; nothing while events flow.
pub(super) fn text_of(status: &Status) -> String {
    let text = |gate: &GateStatus| format!("{}: {} ({})", gate.kind, gate.text, gate.hint);
    status.gate.as_ref().map(text).unwrap_or_default()
}
