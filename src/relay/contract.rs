//! What the reader rests on: verified at each start and each minute, repaired, or refused by name.
//!
//! The sequence of `outbox.seq`, the defaults and the partitions of the table, its triggers and
//! indexes: `docs/guarantees.md` lists them. When one breaks while the relay runs, [`watch`] ends
//! the holding, and the next one finds the same thing broken and deals with it in [`verify`].

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::sleep};
use tracing::{debug, warn};

use super::{
    Settings,
    hold::NotYet,
    holding::Place,
    status::{Phase, Status},
};
use crate::{
    findings::{self, Finding, Severity},
    outbox::{Broken, Inspection, Outbox, Remedy, Repaired, SESSION_SETTINGS},
    pg::connect::connect,
    shutdown::Shutdown,
};

/// How often a running relay verifies what it rests on.
const INTERVAL: Duration = Duration::from_mins(1);

/// What verifying came to.
pub(super) enum Verdict {
    /// Every condition holds, or none that matters is broken.
    Sound,
    /// Something was repaired and the term is gone: acquire again, with another session.
    Repaired,
    /// An operator has to act; the text says what is wrong and what to do.
    Refused(String),
}

/// A condition that does not hold, as a finding.
pub fn finding(broken: &Broken) -> Finding {
    let severity = match broken.remedy {
        Remedy::Restore => Severity::Warning,
        Remedy::Repair | Remedy::Warn | Remedy::Refuse => Severity::Critical,
    };
    findings::contract(severity, &broken.problem, &broken.fix)
}

/// Shows in the status what the relay does not repair itself.
fn note(status: &watch::Sender<Status>, broken: &[Broken]) {
    let is_left = |it: &&Broken| matches!(it.remedy, Remedy::Warn | Remedy::Refuse);
    let findings: Vec<_> = broken.iter().filter(is_left).map(finding).collect();
    status.send_if_modified(|status| {
        let is_news = status.broken != findings;
        status.broken = findings;
        is_news
    });
}

/// Verifies the conditions before anything is read, and repairs what can be repaired.
pub(super) async fn verify(
    outbox: &Outbox,
    outside: &Place,
    settings: &Settings,
    status: &watch::Sender<Status>,
) -> Result<Verdict, NotYet> {
    let broken = outbox.verify_contract().await?;
    note(status, &broken);
    let refused = texts(&broken, Remedy::Refuse);
    if !refused.is_empty() {
        return Ok(Verdict::Refused(refused.join("; ")));
    }
    if settings.rescan && broken.iter().any(|it| it.code == Broken::FOREIGN_ROWS) {
        let adopted = outside.repair().await?.adopt_rows().await?;
        warn!(
            rows = adopted,
            "gave rows of another cluster numbers of this one; they are published"
        );
        return Ok(Verdict::Repaired);
    }
    for warning in texts(&broken, Remedy::Warn) {
        warn!("{warning}");
    }
    if !broken.iter().any(|it| it.remedy == Remedy::Repair) {
        if broken.iter().any(|it| it.remedy == Remedy::Restore) {
            outbox.restore_wake().await?;
            tell_restored(&broken);
        }
        return Ok(Verdict::Sound);
    }
    let Repaired { renumbered, put_back, uncertain } =
        outside.repair().await?.repair_contract().await?;
    for it in broken.iter().filter(|it| it.remedy == Remedy::Repair) {
        warn!(
            code = it.code,
            renumbered,
            read_again = ?put_back,
            "{}: repaired, and what was inserted since the last verification is read again",
            it.problem
        );
    }
    if !uncertain.is_empty() {
        warn!(
            relays = ?uncertain,
            hint = "run `postrider audit`; `postrider reconcile` publishes what the stream lacks",
            "events that were inserted while that was so may have been passed over"
        );
    }
    Ok(Verdict::Repaired)
}

fn tell_restored(broken: &[Broken]) {
    for it in broken.iter().filter(|it| it.remedy == Remedy::Restore) {
        warn!(code = it.code, "{}: repaired", it.problem);
    }
}

fn texts(broken: &[Broken], remedy: Remedy) -> Vec<String> {
    let text = |it: &Broken| format!("{}; fix: {}", it.problem, it.fix);
    broken.iter().filter(|it| it.remedy == remedy).map(text).collect()
}

/// Verifies the conditions each minute while the relay runs, in a session of a moment's life, and
/// wakes [`Settings::recheck`] when one is broken.
pub async fn watch(settings: Settings, status: Arc<watch::Sender<Status>>, shutdown: Shutdown) {
    let mut warned = Vec::new();
    loop {
        tokio::select! {
            () = sleep(INTERVAL) => {}
            () = shutdown.stopping() => return,
        }
        if status.borrow().phase != Phase::Relaying {
            continue;
        }
        match broken_now(&settings, &status, &mut warned).await {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => {
                warn!("{}; the relay starts anew to deal with it", problems.join("; "));
                settings.recheck.notify_one();
            }
            // The relay's own session shows what is the matter with Postgres.
            Err(error) => debug!(error, "could not verify what the relay rests on"),
        }
    }
}

/// What the relay has to deal with itself. A trigger is restored here, and a warning is given once.
async fn broken_now(
    settings: &Settings,
    status: &watch::Sender<Status>,
    warned: &mut Vec<String>,
) -> Result<Vec<String>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let connection = connect(&settings.database, "contract", &SESSION_SETTINGS)
        .await
        .map_err(|error| text(&error))?;
    let inspection = Inspection::new(connection, settings.schema.clone());
    let broken = inspection.verify_contract(&settings.relay).await.map_err(|error| text(&error))?;
    note(status, &broken);
    if broken.iter().any(|it| it.remedy == Remedy::Restore) {
        inspection.restore_wake().await.map_err(|error| text(&error))?;
        tell_restored(&broken);
    }
    let warnings = texts(&broken, Remedy::Warn);
    for warning in warnings.iter().filter(|it| !warned.contains(it)) {
        warn!("{warning}");
    }
    *warned = warnings;
    let is_ours = |it: &&Broken| matches!(it.remedy, Remedy::Repair | Remedy::Refuse);
    Ok(broken.iter().filter(is_ours).map(|it| it.problem.clone()).collect())
}
