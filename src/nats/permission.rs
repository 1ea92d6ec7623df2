//! Checks the permissions and other conditions that a start needs, without changing anything.
//!
//! A server answers a permitted request and complains about a forbidden one. So each request is
//! sent with content that JetStream refuses: the refusal proves the permission, and nothing is
//! created, read or deleted. nats-server compares the stream's name in the subject and in the
//! content before any creation (`jsStreamCreateRequest`, `jsConsumerCreateRequest`). It refuses to
//! read the message of sequence 0 (`jsMsgGetRequest`), refuses a message that expects another
//! stream (`processJetStreamMsg`), and finds no consumer of a random name.

use async_nats::{Event, HeaderMap, Request as Message, RequestErrorKind, ServerError};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    NatsConnection,
    answer::{ApiError, ExpectedStream, PubAck},
    denial::{denied_subject, is_denial},
    stream_info::API_TIMEOUT,
};

/// Name of a stream that cannot be ours, for requests that JetStream has to refuse.
const NO_STREAM: &str = "postrider-check-stores-nothing";

/// Request of the relay to JetStream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Reads the description of the stream.
    Info,
    /// Creates the stream.
    Create,
    /// Creates the consumer that a scan reads through.
    CreateConsumer,
    /// Creates the scan's consumer again, to resume a scan that was interrupted.
    ResumeConsumer,
    /// Asks the scan's consumer for messages.
    Next,
    /// Deletes the scan's consumer.
    DeleteConsumer,
    /// Reads one message.
    Read,
}

/// Reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// JetStream has answered, so the request is permitted.
    Answered(Bytes),
    /// The request is permitted, and nobody listens on its subject.
    Nobody,
    /// The server forbids the request, in these words.
    Denied(String),
    /// Neither an answer nor a complaint came in time.
    Silent,
}

impl Request {
    /// Subject of the request as a permission has to allow it, without the prefix of the JetStream
    /// API (`$JS.API.`).
    pub fn subject(self, stream: &str) -> String {
        match self {
            Self::Info => format!("STREAM.INFO.{stream}"),
            Self::Create => format!("STREAM.CREATE.{stream}"),
            Self::CreateConsumer => format!("CONSUMER.CREATE.{stream}"),
            Self::ResumeConsumer => format!("CONSUMER.CREATE.{stream}.>"),
            Self::Next => format!("CONSUMER.MSG.NEXT.{stream}.>"),
            Self::DeleteConsumer => format!("CONSUMER.DELETE.{stream}.>"),
            Self::Read => format!("STREAM.MSG.GET.{stream}"),
        }
    }

    /// Content that JetStream refuses: another stream's name than that of the subject, a sequence
    /// that no message has, or the name of a consumer that does not exist.
    fn content(self) -> String {
        match self {
            Self::Create => format!(r#"{{"name":"{NO_STREAM}"}}"#),
            Self::CreateConsumer | Self::ResumeConsumer => {
                format!(r#"{{"stream_name":"{NO_STREAM}","config":{{"ack_policy":"none"}}}}"#)
            }
            Self::Next => r#"{"batch":1,"no_wait":true}"#.to_owned(),
            Self::Info | Self::DeleteConsumer => String::new(),
            Self::Read => r#"{"seq":0}"#.to_owned(),
        }
    }
}

/// Sends a request of the relay about a stream, with content that JetStream refuses.
pub async fn ask(connection: &mut NatsConnection, request: Request, stream: &str) -> Reply {
    let nobody = format!("postrider-check-{}", Uuid::new_v4().simple());
    let subject = request.subject(stream).replace('>', &nobody);
    ask_api(connection, &subject, request.content()).await
}

/// Asks for the account: its limits, and how much of them is in use.
pub async fn ask_account(connection: &mut NatsConnection) -> Reply {
    ask_api(connection, "INFO", String::new()).await
}

/// Asks which streams have a subject that overlaps with this one.
pub async fn ask_overlapping(connection: &mut NatsConnection, subject: &str) -> Reply {
    let content = serde_json::json!({ "subject": subject }).to_string();
    ask_api(connection, "STREAM.NAMES", content).await
}

/// Names in an answer to [`ask_overlapping`]; `None` when the answer is an error or cannot be read.
pub fn stream_names(answer: &[u8]) -> Option<Vec<String>> {
    #[derive(serde::Deserialize)]
    struct StreamNames {
        streams: Option<Vec<String>>,
        #[serde(default)]
        error: Option<ApiError>,
    }
    let names: StreamNames = serde_json::from_slice(answer).ok()?;
    names.error.is_none().then(|| names.streams.unwrap_or_default())
}

/// Whether the stream may have several replicas: the server belongs to a cluster, or the requests
/// go to another JetStream domain, whose servers are unknown.
pub fn is_clustered(connection: &NatsConnection) -> bool {
    connection.client.server_info().cluster.is_some() || connection.api_prefix != "$JS.API"
}

async fn ask_api(connection: &mut NatsConnection, request: &str, content: String) -> Reply {
    let subject = format!("{}.{request}", connection.api_prefix);
    let message = Message::new().payload(content.into()).timeout(Some(API_TIMEOUT));
    send(connection, subject, message).await
}

/// Taker of a message: who would store or receive it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taker {
    /// The expected stream.
    Ours,
    /// Nobody listens, as before the stream exists.
    Nobody,
    /// Another stream, or something that is not JetStream.
    Other(String),
    /// Nobody can take it, because the server forbids the message, in these words.
    Denied(String),
    /// Neither an answer nor a complaint came in time.
    Silent,
}

/// Asks who would take a message on this subject. The message expects a stream that does not exist,
/// so no stream stores it. A subscriber outside of JetStream sees an empty message.
pub async fn ask_taker(
    connection: &mut NatsConnection,
    subject: &str,
    wanted: ExpectedStream<'_>,
) -> Taker {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Stream", NO_STREAM);
    let message = Message::new().headers(headers).payload(Bytes::new()).timeout(Some(API_TIMEOUT));
    match send(connection, subject.to_owned(), message).await {
        Reply::Answered(payload) => taker(&payload, wanted),
        Reply::Nobody => Taker::Nobody,
        Reply::Denied(text) => Taker::Denied(text),
        Reply::Silent => Taker::Silent,
    }
}

/// Taker of the message, read from the answer to a message that every stream refuses.
fn taker(payload: &[u8], wanted: ExpectedStream<'_>) -> Taker {
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        Ok(PubAck { stream: Some(name), domain, .. }) if wanted.is(name, domain) => Taker::Ours,
        Ok(PubAck { stream: Some(name), domain: None, .. }) => {
            Taker::Other(format!("stream \"{name}\""))
        }
        Ok(PubAck { stream: Some(name), domain: Some(domain), .. }) => {
            Taker::Other(format!("stream \"{name}\" of JetStream domain \"{domain}\""))
        }
        // An error may leave out which stream it comes from.
        Ok(PubAck { stream: None, error: Some(_), .. }) => Taker::Ours,
        Ok(PubAck { stream: None, error: None, .. }) | Err(_) => {
            Taker::Other("something other than JetStream".to_owned())
        }
    }
}

/// Sends a request, and waits for its answer or for the server's complaint about it.
async fn send(connection: &mut NatsConnection, subject: String, message: Message) -> Reply {
    let client = connection.client.clone();
    let answer = client.send_request(subject.clone(), message);
    tokio::pin!(answer);
    loop {
        let event = tokio::select! {
            answer = &mut answer => {
                return match answer {
                    Ok(message) => Reply::Answered(message.payload),
                    Err(error) if error.kind() == RequestErrorKind::NoResponders => Reply::Nobody,
                    Err(_) => Reply::Silent,
                };
            }
            event = connection.events.recv() => event,
        };
        match event {
            Some(Event::ServerError(ServerError::Other(text)))
                if is_denial(&text) && concerns(&text, &subject) =>
            {
                return Reply::Denied(text);
            }
            Some(_) => {}
            // The connection to NATS ended before the server answered.
            None => return Reply::Silent,
        }
    }
}

/// Whether a denial is about this subject, or about the inbox for the answer.
fn concerns(denial: &str, subject: &str) -> bool {
    denied_subject(denial).is_none_or(|denied| denied == subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: ExpectedStream<'_> = ExpectedStream { stream: "EVENTS", domain: None };

    #[test]
    fn an_answer_says_who_takes_the_message() {
        let refused = r#""error":{"code":400,"err_code":10060,"description":"expected stream"}"#;
        let of = |stream: &str| taker(format!("{{{refused}{stream}}}").as_bytes(), EVENTS);
        assert_eq!(of(r#","stream":"EVENTS","seq":0"#), Taker::Ours);
        assert_eq!(of(""), Taker::Ours);
        let Taker::Other(text) = of(r#","stream":"OTHER","seq":0"#) else { panic!("ours") };
        assert_eq!(text, "stream \"OTHER\"");
        for stranger in ["", "pong", "{}"] {
            let found = taker(stranger.as_bytes(), EVENTS);
            assert_eq!(found, Taker::Other("something other than JetStream".to_owned()));
        }
    }

    #[test]
    fn a_denial_concerns_its_own_subject_and_that_of_an_inbox_everything() {
        let publish = "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.A\"";
        assert!(concerns(publish, "$JS.API.STREAM.INFO.A"));
        assert!(!concerns(publish, "$JS.API.STREAM.INFO.B"));
        let inbox = "Permissions Violation for Subscription to \"_INBOX.x.*\"";
        assert!(concerns(inbox, "$JS.API.STREAM.INFO.A"));
    }
}
