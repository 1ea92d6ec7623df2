//! Unexplained duplicates: events that the stream calls repeated although no earlier attempt explains
//! it. Each is compared with the message that the stream contains in its place.

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

/// Reading of a log that recognises an id and does not contain the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::relay) enum Absence {
    /// The message was there, and was consumed or dropped since.
    WasThere,
    /// The message is to be there again, as an operator or a healing wants it.
    IsWanted,
}

/// A reading of one message of the log.
type MessageRequest = BoxFuture<'static, Result<Option<StoredMessage>, BrokerError>>;

/// The comparisons on their way; there are never more than messages may be.
#[derive(Default)]
pub(in crate::relay) struct Duplicates {
    checks: FuturesUnordered<BoxFuture<'static, (Ticket, Outcome)>>,
}

impl Duplicates {
    /// Compares this message with the one that the stream contains where it says that it does.
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

    /// The outcome of a comparison, as soon as there is one.
    ///
    /// # Cancel safety
    /// What is on its way stays there when this is dropped.
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

/// Judges an unexplained duplicate: the same message, stored by an earlier run or by a copy of this
/// database; or another one under the same id, in whose place this one would be lost.
fn judge(
    message: &Message,
    stream_seq: u64,
    held: Result<Option<StoredMessage>, BrokerError>,
    gone: Absence,
) -> Outcome {
    let known = Outcome::Acked { stream_seq, duplicate: true };
    let held = match held {
        Ok(None) if gone == Absence::WasThere => return known,
        Ok(None) => {
            let text =
                "the stream does not hold the event and still recognises its id; it takes the \
                        event once its duplicate window is over"
                    .to_owned();
            let reason = Rejection { code: "still_recognised", text };
            return Outcome::Busy { reason, attempt: Attempt::IsFree };
        }
        Ok(Some(held)) => held,
        Err(error) => {
            // The answer concerns this event alone; what concerns the others too shows when they
            // go.
            let text = format!("{error}; the stream has its id, and what else has to be compared");
            let reason = Rejection { code: "unverified_duplicate", text };
            return Outcome::Busy { reason, attempt: Attempt::CountsAsWait };
        }
    };
    let differs = if held.subject != message.subject.as_str() {
        format!("subject \"{}\"", held.subject.escape_debug())
    } else if held.payload != message.payload {
        "another payload".to_owned()
    } else {
        return known;
    };
    let text = format!(
        "the stream holds another message under this event's id, at sequence {stream_seq} with \
         {differs}: two rows have one event_id; edit this one to give it an id of its own"
    );
    Outcome::Rejected(Rejection { code: "msg_id_collision", text })
}
