//! Checks what the leader reports, and finds positions and letters of relays that nobody runs.

use super::CheckItem;
use crate::{
    cli::{exit::Exit, status::ago},
    config::Config,
    findings::{self, Code, is_obstacle},
    operate::leadership::Leadership,
    outbox::{Inspection, RelayProgress, RelayRow},
    pg::error::QueryError,
};

const RELAY: &str = "relay";

/// The findings about the relay's leadership.
///
/// # Errors
/// [`QueryError`]: a statement failed.
pub(super) async fn findings(
    inspection: &Inspection,
    config: &Config,
) -> Result<Vec<CheckItem>, QueryError> {
    let relay = config.relay.name.as_str();
    let leadership = Leadership::ask(inspection, relay).await?;
    let mut found: Vec<_> = findings::of(&leadership.facts())
        .into_iter()
        // A check may run before the first start, so a relay that does not run is no finding.
        .filter(|finding| {
            leadership.is_run() || !matches!(finding.code, Code::NeverStarted | Code::NoLeader)
        })
        .map(|finding| {
            let (code, cause) = (finding.code.as_str(), &finding.cause);
            let is_seen_here =
                matches!(finding.code, Code::NeverStarted | Code::NoLeader | Code::Starting);
            let text = if is_seen_here {
                format!("{code}: {cause}")
            } else {
                format!("{relay} reports {code}: {cause}")
            };
            let is_blocked = is_obstacle(&finding);
            let said = if is_blocked {
                CheckItem::refused(RELAY, Exit::Unavailable, text)
            } else {
                CheckItem::risky(RELAY, text)
            };
            said.hint(findings::within_check(&finding.next))
        })
        .collect();
    let progress = leadership.progress.as_ref();
    let (relays, ours) = (inspection.relays().await?, &config.relay.siblings);
    found.extend(relays.iter().filter(|row| row.is_left(ours)).map(|row| left(row, progress)));
    let stranded = relays.iter().filter(|row| row.has_stranded_letters(ours));
    found.extend(stranded.map(|row| {
        let finding = findings::stranded(&row.relay, row.letters);
        CheckItem::risky(RELAY, finding.cause).hint(finding.next)
    }));
    Ok(found)
}

fn left(row: &RelayRow, ours: Option<&RelayProgress>) -> CheckItem {
    let RelayRow { relay, idle_seconds, behind_at_most, .. } = row;
    let text = format!(
        "nobody runs {relay}, which last wrote {} and is {behind_at_most} events behind at most; its \
         rows stay in the outbox",
        ago(*idle_seconds)
    );
    let hint = if ours.is_none() {
        format!(
            "is relay.name right? a new name begins at the first row; or give that one up: postrider relay forget {relay}"
        )
    } else {
        format!("start it, or give it up: postrider relay forget {relay}")
    };
    CheckItem::risky(RELAY, text).hint(hint)
}
