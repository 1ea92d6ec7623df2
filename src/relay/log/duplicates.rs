//! Unexplained duplicates: the stream calls an event repeated, and no earlier attempt explains
//! that. Each is compared with the message that the stream contains.

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, pending, ready},
    stream::FuturesUnordered,
};

use crate::{
    broker::{BrokerError, StoredMessage},
    delivery::{Attempt, Outcome, Rejection, Ticket},
    wire::Message,
};

/// Conclusion when the log recognises the id of a message but does not contain the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Absence {
    /// The message was in the log, and was consumed or dropped since.
    WasThere,
    /// The log has to contain the message again, because an operator or a healing wants it there.
    IsWanted,
}

/// Reading of one message of the log.
type MessageRequest = BoxFuture<'static, Result<Option<StoredMessage>, BrokerError>>;

/// Comparisons in progress, at most as many as messages may be in flight.
#[derive(Default)]
pub(in crate::relay) struct Duplicates {
    checks: FuturesUnordered<BoxFuture<'static, (Ticket, Outcome)>>,
}

impl Duplicates {
    /// Compares this message with the one under the sequence that the stream has reported.
    pub(in crate::relay) fn check(
        &mut self,
        ticket: Ticket,
        message: Message,
        (stream_seq, reading): (u64, MessageRequest),
        gone: Absence,
    ) {
        let check = async move { (ticket, judge(&message, stream_seq, reading.await, gone)) };
        self.checks.push(check.boxed());
    }

    /// Reports a message that cannot be compared as unconfirmed, so that it is sent again.
    pub(in crate::relay) fn unconfirmed(&mut self, ticket: Ticket) {
        self.checks.push(ready((ticket, Outcome::Unconfirmed)).boxed());
    }

    /// Waits for the outcome of a comparison.
    ///
    /// # Cancel safety
    /// The comparisons go on when this future is dropped.
    pub(in crate::relay) async fn done(&mut self) -> (Ticket, Outcome) {
        match self.checks.next().await {
            Some(checked) => checked,
            None => pending().await,
        }
    }

    /// Drops all comparisons.
    pub(in crate::relay) fn forget(&mut self) {
        self.checks.clear();
    }
}

/// Judges an unexplained duplicate. The same message was stored by an earlier run, or by a copy of
/// this database. Another message under the same id means that this one would be lost.
fn judge(
    message: &Message,
    stream_seq: u64,
    stored: Result<Option<StoredMessage>, BrokerError>,
    gone: Absence,
) -> Outcome {
    let acked = Outcome::Acked { stream_seq, duplicate: true };
    let stored = match stored {
        Ok(None) if gone == Absence::WasThere => return acked,
        Ok(None) => {
            let text =
                "the stream does not contain the event and still recognises its id; it accepts the \
                        event once its duplicate window is over"
                    .to_owned();
            let reason = Rejection { code: "still_recognised", text };
            return Outcome::Busy { reason, attempt: Attempt::IsFree };
        }
        Ok(Some(stored)) => stored,
        Err(error) => {
            // The failed reading concerns this event alone. A fault that concerns others shows when
            // they are sent.
            let text = format!(
                "{error}; the stream recognises the id, so the messages have to be compared"
            );
            let reason = Rejection { code: "unverified_duplicate", text };
            return Outcome::Busy { reason, attempt: Attempt::CountsAsWait };
        }
    };
    let differs = if stored.subject != message.subject.as_str() {
        format!("subject \"{}\"", stored.subject.escape_debug())
    } else if stored.payload != message.payload {
        "another payload".to_owned()
    } else {
        return acked;
    };
    let text = format!(
        "the stream contains another message under this event's id, at sequence {stream_seq} with \
         {differs}: two rows have one event_id; edit this one to give it an id of its own"
    );
    Outcome::Rejected(Rejection { code: "msg_id_collision", text })
}
