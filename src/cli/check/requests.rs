//! Checks the requests that a start sends to JetStream: whether our user may send them, and whether
//! a stream that does not exist yet could be created. Nothing is created: see `nats::ask`.

use super::CheckItem;
use crate::{
    broker::{BrokerError, LogFacts},
    cli::exit::Exit,
    config,
    nats::{self, ExpectedStream, Reply, Request, Taker},
};

const PERMISSIONS: &str = "permissions";
const STREAM: &str = "stream";

/// The finding that this user may not ask for the stream, which is the first request of a start.
/// `None` when the user may.
pub(super) async fn access(
    connection: &mut nats::NatsConnection,
    stream: &str,
) -> Option<CheckItem> {
    match nats::ask(connection, Request::Info, stream).await {
        // Only a missing permission makes this finding. Another check reports the other faults.
        Reply::Answered(_) | Reply::Nobody | Reply::Silent => None,
        Reply::Denied(text) => Some(denied(connection, Request::Info, stream, &text)),
    }
}

/// The findings about the further requests of a start when the stream exists.
pub(super) async fn findings(
    connection: &mut nats::NatsConnection,
    stream: &str,
    facts: &LogFacts,
) -> Vec<CheckItem> {
    let scan =
        [Request::CreateConsumer, Request::ResumeConsumer, Request::Next, Request::DeleteConsumer];
    let is_scanned = facts.keeps.can_be_scanned();
    let wanted = scan.into_iter().filter(|_| is_scanned).chain([Request::Read]);
    permitted(connection, stream, wanted).await
}

/// The findings about a stream that does not exist and that a start would create.
pub(super) async fn creation(
    connection: &mut nats::NatsConnection,
    stream: &config::StreamConfig,
) -> Vec<CheckItem> {
    let name = &stream.name;
    let wanted = [
        Request::Create,
        Request::CreateConsumer,
        Request::ResumeConsumer,
        Request::Next,
        Request::DeleteConsumer,
        Request::Read,
    ];
    let mut findings = permitted(connection, name, wanted.into_iter()).await;
    let mut unasked = Vec::new();
    for subject in &stream.subjects {
        let answer = nats::ask_overlapping(connection, subject).await;
        let Some(others) = answer_of(&answer).and_then(nats::stream_names) else {
            unasked.push("whether another stream has its subjects ($JS.API.STREAM.NAMES)");
            break;
        };
        let others = others.iter().filter(|other| *other != name);
        findings.extend(others.map(|it| overlap(name, subject, it)));
    }
    let answer = nats::ask_account(connection).await;
    match answer_of(&answer).and_then(|answer| nats::obstacles(answer, stream)) {
        Some(obstacles) => findings.extend(obstacles.iter().map(unusable)),
        None => unasked.push("whether the account has room for it ($JS.API.INFO)"),
    }
    if stream.replicas > 1 && !nats::is_clustered(connection) {
        let text = format!(
            "{name} cannot be created: it needs {} replicas, and the server is in no cluster",
            stream.replicas
        );
        findings.push(
            CheckItem::refused(STREAM, Exit::Configuration, text).hint("set stream.replicas to 1"),
        );
    }
    if !unasked.is_empty() {
        let text =
            format!("not checked, because this user may not ask: {}", unasked.join(", and "));
        findings.push(
            CheckItem::risky(STREAM, text).hint(
                "allow these two requests for the first start, or create the stream yourself",
            ),
        );
    }
    findings
}

/// The finding when the configured stream would not take a message to this subject: somebody else
/// takes it, publishing is forbidden, or nothing answers. `None` when the stream takes it, or when
/// nobody listens yet.
pub(super) async fn taker(
    connection: &mut nats::NatsConnection,
    subject: &str,
    wanted: ExpectedStream<'_>,
) -> Option<CheckItem> {
    let text_and_hint = match nats::ask_taker(connection, subject, wanted).await {
        Taker::Ours | Taker::Nobody => return None,
        Taker::Other(who) => (
            format!("{who} answers a message to {subject}, which is meant for {}", wanted.stream),
            "find who listens on that subject: the relay publishes nothing while somebody else takes \
             its events",
        ),
        Taker::Denied(text) => (
            format!("a publish to {subject} is forbidden: {text}"),
            "let the user publish to every subject that [route] subject can make",
        ),
        Taker::Silent => (
            format!("a publish to {subject} that the stream should refuse is not answered"),
            "check the free space of the broker's disk, and read its log",
        ),
    };
    let (text, hint) = text_and_hint;
    Some(CheckItem::risky(STREAM, text).hint(hint))
}

/// Sends each request, and returns a finding for each that our user may not send. It stops at the
/// first request without an answer.
async fn permitted(
    connection: &mut nats::NatsConnection,
    stream: &str,
    wanted: impl Iterator<Item = Request>,
) -> Vec<CheckItem> {
    let mut findings = Vec::new();
    for request in wanted {
        match nats::ask(connection, request, stream).await {
            Reply::Answered(_) => {}
            // The consumer does not exist, so nothing listens for the request.
            Reply::Nobody if request == Request::Next => {}
            Reply::Nobody => findings.push(unheard(connection, request, stream)),
            Reply::Denied(text) => findings.push(denied(connection, request, stream, &text)),
            Reply::Silent => {
                findings.push(unheard(connection, request, stream));
                return findings;
            }
        }
    }
    if findings.is_empty() {
        let text = "JetStream takes every request of a start (each was sent with content that it \
                    refuses, so nothing was made or read)";
        findings.push(CheckItem::fine(PERMISSIONS, text));
    }
    findings
}

fn denied(
    connection: &nats::NatsConnection,
    request: Request,
    stream: &str,
    complaint: &str,
) -> CheckItem {
    let text = format!("{}: {complaint}", need(request));
    let hint = if complaint.contains("Subscription") {
        "let the user subscribe to _INBOX.>, where answers arrive".to_owned()
    } else {
        let subject = request.subject(stream);
        format!("let the user publish to {}.{subject}", connection.api_prefix)
    };
    // Events flow without the permission for these three requests.
    let finding = match request {
        Request::Read | Request::DeleteConsumer | Request::ResumeConsumer => {
            CheckItem::risky(PERMISSIONS, text)
        }
        Request::Info | Request::Create | Request::CreateConsumer | Request::Next => {
            CheckItem::refused(PERMISSIONS, Exit::NoPermission, text)
        }
    };
    finding.hint(hint)
}

fn unheard(connection: &nats::NatsConnection, request: Request, stream: &str) -> CheckItem {
    let subject = request.subject(stream);
    let text =
        format!("{}, and nothing answers {}.{subject}", need(request), connection.api_prefix);
    CheckItem::refused(PERMISSIONS, Exit::Unavailable, text)
        .hint("does the stream have a leader, and is this request exported to the user's account?")
}

/// The reason for which a start sends this request, as text for the finding.
fn need(request: Request) -> &'static str {
    match request {
        Request::Info => "a start asks for the stream",
        Request::Create => "a start creates the stream (stream.create = true)",
        Request::CreateConsumer | Request::Next => "each start scans the stream through a consumer",
        Request::ResumeConsumer => "a scan that was interrupted goes on through a named consumer",
        Request::DeleteConsumer => {
            "a scan deletes its consumer, which ends by itself after 30 s otherwise"
        }
        Request::Read => "the relay compares single messages after odd answers",
    }
}

fn overlap(name: &str, subject: &str, other: &str) -> CheckItem {
    let text =
        format!("{name} cannot be created: its subject {subject} overlaps one of stream {other}");
    CheckItem::refused(STREAM, Exit::Configuration, text).hint(format!(
        "set [stream] name to \"{other}\" if that is the one, or change [stream] subjects and [route] \
         subject"
    ))
}

fn answer_of(reply: &Reply) -> Option<&[u8]> {
    match reply {
        Reply::Answered(payload) => Some(payload),
        Reply::Nobody | Reply::Denied(_) | Reply::Silent => None,
    }
}

/// Reason why a stream cannot be used.
pub(super) fn unusable(error: &BrokerError) -> CheckItem {
    let exit = match error {
        BrokerError::Unavailable { .. } => Exit::Unavailable,
        BrokerError::Missing { .. } | BrokerError::Refused { .. } => Exit::Configuration,
    };
    CheckItem::refused(STREAM, exit, error.to_string()).hint(error.hint())
}
