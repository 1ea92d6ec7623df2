//! Maps the error code of a letter to the change that lets another attempt succeed.

/// The change that a letter with this error code needs before it is tried again. `None` for a code
/// whose own text names the change, and for a code that needs nothing but another attempt.
pub fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "subject_outside_prefix" => {
            "let [route] subject begin as the event's subject does, or edit the event's subject"
        }
        "subject_not_captured" => {
            "add the subject to [stream] subjects and to the stream, or edit the event"
        }
        "invalid_subject" | "subject_too_long" => {
            "change [route] subject so that it fits the event, or edit the event"
        }
        "payload_too_large" => {
            "raise max_msg_size of the stream or max_payload of the server, or edit the payload"
        }
        "unrouted" => {
            "let a [[route]] take its type, and run postrider reconcile --route NAME; then discard it"
        }
        "subject_full" => "purge the subject, or raise max_msgs_per_subject of the stream",
        "permission_denied" => "allow the subject to the relay's user of NATS",
        "busy" => "make room in the stream, or raise its limits: postrider check names them",
        "rejected" => "change the stream so that it takes the message: postrider check",
        "still_recognised" => {
            "nothing: the stream takes the event when its duplicate window is over"
        }
        _ => return None,
    })
}
