//! The broker: connect, verify the stream, publish, classify what it answers.

mod account;
mod batch;
mod connect;
mod error;
mod failure;
mod info;
mod message;
mod permission;
mod publish;
mod room;
mod scan;
mod sent;
mod sink;
mod stream;
mod version;

pub use account::obstacles;
pub use connect::{Connection, ConnectionState, Connector, keep_connected};
pub use error::ExpectedStream;
pub use failure::ConnectError;
pub use message::{kept, message_at};
pub use permission::{
    Reply, Request, Taker, ask, ask_account, ask_overlapping, ask_taker, is_clustered, stream_names,
};
pub use publish::Publisher;
pub use room::{Room, Used, room};
pub use scan::{Scan, identity};
pub use sink::Sink;
pub use stream::{Fault, gone, missing, verify};
