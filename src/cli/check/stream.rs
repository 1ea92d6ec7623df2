//! Compares the stream with the relay's record of it: whether it still exists, was not created
//! anew, and did not go back to an earlier sequence.

use super::{CheckItem, broker::SeenStream};
use crate::{
    cli::exit::Exit,
    config::{Config, Heal},
    nats,
    outbox::RelayProgress,
};

const STREAM: &str = "stream";

/// Longest time in seconds, inclusive, between reading the stream and reading the relay's position.
/// A position written within this time may contain acknowledgements from after the reading of the
/// stream, so its sequence is not compared.
const READINGS_WITHIN_SECONDS: f64 = 30.0;

/// The finding about a stream that is missing, was created anew or went back. `None` when the
/// stream agrees with the record.
pub(super) fn finding(
    config: &Config,
    progress: Option<&RelayProgress>,
    seen: &SeenStream,
) -> Option<CheckItem> {
    let stream = &config.stream;
    let name = &stream.name;
    // The recorded sequence counts only if it belongs to the configured stream.
    let before = progress.filter(|it| it.stream.as_ref() == Some(name) && it.stream_seq > 0);
    match (seen, before) {
        (SeenStream::Missing, Some(_)) => {
            let error = nats::gone(stream);
            let finding = CheckItem::refused(STREAM, Exit::Configuration, error.to_string());
            Some(finding.hint(error.hint()))
        }
        (SeenStream::Missing, None) if stream.create => Some(CheckItem::fine(
            STREAM,
            format!("{name} does not exist; `postrider run` creates it"),
        )),
        (SeenStream::Missing, None) => {
            let error = nats::missing(name);
            let finding = CheckItem::refused(STREAM, Exit::Configuration, error.to_string());
            Some(finding.hint(error.hint()))
        }
        (SeenStream::Exists(_), None) => None,
        (SeenStream::Exists(facts), Some(before)) => {
            let created = before.stream_created.zip(facts.identity);
            let text = if created.is_some_and(|(before, now)| before != now) {
                format!("{name} was created anew since events were published to it")
            } else if facts.last_seq < before.stream_seq.unsigned_abs()
                && before.updated_seconds_ago > READINGS_WITHIN_SECONDS
            {
                let (now, then) = (facts.last_seq, before.stream_seq);
                format!("{name} went back to sequence {now}; it had acknowledged {then}")
            } else {
                return None;
            };
            Some(CheckItem::risky(STREAM, text).hint(match stream.heal {
                Heal::Auto => "`postrider run` publishes again what the outbox has of what is gone",
                Heal::Manual => {
                    "postrider reconcile --dry-run shows what is missing; then postrider reconcile"
                }
            }))
        }
    }
}
