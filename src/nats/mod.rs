//! NATS: connections, the stream and its verification, publishing, and the meaning of each answer.
//! No other module names the client library.

mod account;
mod answer;
mod batch;
mod capacity;
mod connect;
mod connect_error;
mod denial;
mod fault;
mod headers;
mod live;
mod permission;
mod publish;
mod scan;
mod sink;
mod stored_message;
mod stream;
mod stream_info;
mod unanswered;
mod version;

pub use account::obstacles;
pub use answer::ExpectedStream;
pub use capacity::{Capacity, Used, capacity};
pub use connect::{ConnectionState, Connector, NatsConnection, keep_connected};
pub use connect_error::NatsConnectError;
pub use fault::{gone, missing};
pub use permission::{
    Reply, Request, Taker, ask, ask_account, ask_overlapping, ask_taker, is_clustered, stream_names,
};
pub use publish::Publisher;
pub use scan::{StreamScan, identity};
pub use sink::JetStreamSink;
pub use stored_message::{kept, message_at};
pub use stream::verify;
