//! The broker: connect, verify the stream, publish, classify what it answers.

mod batch;
mod connect;
mod error;
mod failure;
mod info;
mod message;
mod publish;
mod room;
mod scan;
mod sent;
mod sink;
mod stream;
mod version;

pub use connect::{Connection, Connector, Standing, keep_connected};
pub use failure::ConnectError;
pub use message::{kept, message_at};
pub use publish::Publisher;
pub use room::{Probe, Room, Used, probe, room};
pub use scan::{Scan, identity};
pub use sink::Sink;
pub use stream::{Fault, gone, missing, verify};
