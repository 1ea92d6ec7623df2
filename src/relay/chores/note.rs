//! Note for `postrider status`: this instance's own findings, and a sign of life.

use std::time::Instant;

use serde_json::json;

use crate::{
    findings::Code,
    outbox::Upkeep,
    pg::error::QueryError,
    relay::report::status::{GateStatus, Status},
};

/// Writes the note. Returns its summary.
pub(super) async fn write(session: &Upkeep, status: &Status) -> Result<String, QueryError> {
    let note = text_of(status);
    let findings = status.findings(Instant::now());
    let findings: Vec<_> = findings
        .iter()
        .filter(|finding| is_ours(finding.code))
        .map(|finding| {
            json!({
                "code": finding.code.as_str(),
                "severity": finding.severity.as_str(),
                "cause": session.storable(&finding.cause),
                "next": session.storable(&finding.next),
            })
        })
        .collect();
    let report = json!({ "term": status.term, "findings": findings }).to_string();
    let kind = status.gate.as_ref().map(|gate| gate.kind);
    session.note(status.term, kind.map(|kind| (kind, note.as_str())), &report).await?;
    Ok(summary(status))
}

/// Whether a finding belongs in the note: only this instance can make it, while a reader of the
/// database cannot.
fn is_ours(code: Code) -> bool {
    !matches!(
        code,
        Code::Lagging
            | Code::LettersRetrying
            | Code::DeadLetters
            | Code::PositionAbandoned
            | Code::ProducersHindered
    )
}

/// Text of the publishing gate for `postrider status`; empty while events flow.
fn text_of(status: &Status) -> String {
    let text = |gate: &GateStatus| format!("{}: {} ({})", gate.kind, gate.text, gate.hint);
    status.gate.as_ref().map(text).unwrap_or_default()
}

/// Summary of the note. A note whose summary has changed is written at once. So the summary has no
/// times, which change always.
pub(super) fn summary(status: &Status) -> String {
    let findings = status.findings(Instant::now());
    let codes = findings.iter().filter(|finding| is_ours(finding.code));
    let codes: Vec<_> = codes.map(|finding| finding.code.as_str()).collect();
    // The term is part of the summary, because readers ignore a note of an earlier term: each term
    // writes a note.
    format!("{} {} {}", status.term, codes.join(","), text_of(status))
}
