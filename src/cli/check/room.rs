//! Checks whether the stream and its account have room for further messages.

use super::CheckItem;
use crate::{
    cli::{exit::Exit, print::number},
    nats::{self, Capacity, Used},
};

const STREAM: &str = "stream";

/// Share of a limit, inclusive, from which it is nearly used up.
const NEARLY: f64 = 0.8;

/// Share of a limit, inclusive, from which the next message may be refused.
const FULL: f64 = 0.99;

/// The findings about the room in a stream whose settings fit.
pub(super) async fn findings(connection: &nats::NatsConnection, stream: &str) -> Vec<CheckItem> {
    match nats::capacity(&connection.jetstream, stream).await {
        Ok(capacity) => about(stream, &capacity),
        Err(error) => {
            vec![
                CheckItem::refused(STREAM, Exit::Unavailable, error.to_string()).hint(error.hint()),
            ]
        }
    }
}

fn about(stream: &str, capacity: &Capacity) -> Vec<CheckItem> {
    let mut findings: Vec<_> =
        capacity.used.iter().filter_map(|used| limited(stream, capacity, *used)).collect();
    if capacity.is_counter {
        let text = format!("{stream} is a counter (allow_msg_counter) and takes no events");
        let hint = "name another stream in [stream] name";
        findings.push(CheckItem::refused(STREAM, Exit::Configuration, text).hint(hint));
    }
    if capacity.refuses_per_subject {
        let text = format!(
            "{stream} refuses messages of a subject that is full (discard_new_per_subject)"
        );
        let hint =
            "the events of such a subject wait: raise max_msgs_per_subject, or set it to false";
        findings.push(CheckItem::risky(STREAM, text).hint(hint));
    }
    findings
}

fn limited(stream: &str, capacity: &Capacity, Used { what, used, max }: Used) -> Option<CheckItem> {
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    let share = used as f64 / max as f64;
    let counts_consumers = what.starts_with("consumers");
    // A stream that drops its oldest messages is never full. Another finding warns of such a
    // stream.
    let is_concerned = capacity.refuses || counts_consumers || what.contains("account");
    if share < NEARLY || !is_concerned {
        return None;
    }
    let figures = format!("{} of {} {what}", number(used), number(max));
    let is_full = if counts_consumers { used >= max } else { share >= FULL };
    if !is_full {
        let text = format!("{stream} is nearly full: {figures}");
        return Some(CheckItem::risky(STREAM, text).hint("raise the limit, or make room in time"));
    }
    let (text, hint) = if counts_consumers {
        (
            format!("{stream} has no room for another consumer: {figures}"),
            "the relay reads the stream through one at each start: remove one, or raise max_consumers",
        )
    } else {
        (
            format!("{stream} is full: {figures}; it refuses what comes, and events wait"),
            "raise max_bytes, max_msgs or the account's limit, or purge what consumers do not need",
        )
    };
    Some(CheckItem::refused(STREAM, Exit::Unavailable, text).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::CheckResult;

    fn judge(capacity: &Capacity) -> Vec<CheckResult> {
        about("EVENTS", capacity).into_iter().map(|finding| finding.result).collect()
    }

    fn used(what: &'static str, used: u64, max: u64) -> Capacity {
        Capacity { used: vec![Used { what, used, max }], refuses: true, ..Capacity::default() }
    }

    #[test]
    fn what_is_used_up_is_refused_and_what_nearly_is_is_warned_of() {
        let full = CheckResult::Refused(Exit::Unavailable);
        assert_eq!(judge(&used("bytes", 799, 1_000)), []);
        assert_eq!(judge(&used("bytes", 800, 1_000)), [CheckResult::Risky]);
        assert_eq!(judge(&used("bytes", 995, 1_000)), [full]);
        assert_eq!(judge(&used("consumers", 9, 10)), [CheckResult::Risky]);
        assert_eq!(judge(&used("consumers", 10, 10)), [full]);
        let drops = Capacity { refuses: false, ..used("bytes", 1_000, 1_000) };
        assert_eq!(judge(&drops), []);
        let account = "bytes of the account's storage";
        assert_eq!(judge(&Capacity { refuses: false, ..used(account, 1_000, 1_000) }), [full]);
        let counter = Capacity { is_counter: true, ..Capacity::default() };
        assert_eq!(judge(&counter), [CheckResult::Refused(Exit::Configuration)]);
    }
}
