//! Questions to the broker about what a start would need, none of which has an effect.
//!
//! A server answers a request that our user may send, and complains of one that it forbids. So each
//! request is sent with content that JetStream refuses: the answer that it is refused proves the
//! permission, and nothing is created, read or deleted. nats-server compares the name of the stream
//! in the subject and in the content before anything else of a creation (`jsStreamCreateRequest`,
//! `jsConsumerCreateRequest`), refuses to read the message of sequence 0 (`jsMsgGetRequest`) and a
//! message that expects another stream (`processJetStreamMsg`), and finds no consumer of a random
//! name.

use async_nats::{Event, HeaderMap, Request as Message, RequestErrorKind, ServerError};
use bytes::Bytes;
use uuid::Uuid;

use super::{
    NatsConnection,
    answer::{ApiError, ExpectedStream, PubAck},
    denial::{denied_subject, is_denial},
    stream_info::API_TIMEOUT,
};

/// The name of a stream that cannot be ours, in requests that are to be refused for it.
const NO_STREAM: &str = "postrider-check-stores-nothing";

/// A request of the relay to JetStream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Asks for the stream.
    Info,
    /// Creates the stream.
    Create,
    /// Creates the consumer that a scan reads through.
    CreateConsumer,
    /// Creates it once more under its name, to go on with a scan that was interrupted.
    ResumeConsumer,
    /// Asks that consumer for messages.
    Next,
    /// Deletes that consumer.
    DeleteConsumer,
    /// Reads one message.
    Read,
}

/// The fate of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// JetStream has answered, so that the request is permitted.
    Answered(Bytes),
    /// The request is permitted, and nobody listens on its subject.
    Nobody,
    /// The server forbids it, in these words.
    Denied(String),
    /// Neither an answer nor a complaint came in time.
    Silent,
}

impl Request {
    /// The subject behind the prefix of the API, as permissions name it.
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

    /// Content that JetStream refuses. A stream's name that is not the subject's, a sequence that
    /// no message has, and the name of a consumer that nobody has made each do.
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

/// Sends one of the relay's requests about a stream, with content that is refused.
pub async fn ask(connection: &mut NatsConnection, request: Request, stream: &str) -> Reply {
    let nobody = format!("postrider-check-{}", Uuid::new_v4().simple());
    let subject = request.subject(stream).replace('>', &nobody);
    ask_api(connection, &subject, request.content()).await
}

/// Asks for the account: its limits, and what it has of them.
pub async fn ask_account(connection: &mut NatsConnection) -> Reply {
    ask_api(connection, "INFO", String::new()).await
}

/// Asks which streams have a subject that overlaps this one.
pub async fn ask_overlapping(connection: &mut NatsConnection, subject: &str) -> Reply {
    let content = serde_json::json!({ "subject": subject }).to_string();
    ask_api(connection, "STREAM.NAMES", content).await
}

/// The names in an answer to [`ask_overlapping`]; `None` when it is none.
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

/// Whether the server is one of a cluster, or another JetStream domain than the server's is asked,
/// of which nothing is known.
pub fn is_clustered(connection: &NatsConnection) -> bool {
    connection.client.server_info().cluster.is_some() || connection.api_prefix != "$JS.API"
}

async fn ask_api(connection: &mut NatsConnection, request: &str, content: String) -> Reply {
    let subject = format!("{}.{request}", connection.api_prefix);
    let message = Message::new().payload(content.into()).timeout(Some(API_TIMEOUT));
    send(connection, subject, message).await
}

/// Taker of a message on a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taker {
    /// The stream.
    Ours,
    /// No one listens, as before the stream exists.
    Nobody,
    /// Another stream, or something that is not JetStream.
    Other(String),
    /// No one can, because the server forbids the message, in these words.
    Denied(String),
    /// Neither an answer nor a complaint came in time.
    Silent,
}

/// Asks who would take a message on this subject, with one that no stream stores: it expects a
/// stream that does not exist. Whoever subscribes to the subject without JetStream sees an empty
/// message.
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

/// The sender of an answer to a message that every stream refuses.
fn taker(payload: &[u8], wanted: ExpectedStream<'_>) -> Taker {
    match serde_json::from_slice::<PubAck<'_>>(payload) {
        Ok(PubAck { stream: Some(name), domain, .. }) if wanted.is(name, domain) => Taker::Ours,
        Ok(PubAck { stream: Some(name), domain: None, .. }) => {
            Taker::Other(format!("stream \"{name}\""))
        }
        Ok(PubAck { stream: Some(name), domain: Some(domain), .. }) => {
            Taker::Other(format!("stream \"{name}\" of JetStream domain \"{domain}\""))
        }
        // An error need not say whose it is.
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
            // The connection is gone.
            None => return Reply::Silent,
        }
    }
}

/// Whether a denial is about this subject, or about the inbox that the answer would come to.
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
