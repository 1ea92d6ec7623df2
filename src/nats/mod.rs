//! The broker: connect, verify the stream, publish, classify what it answers.

mod connect;
mod error;
mod publish;
mod stream;

pub use connect::{ConnectError, Connection, connect};
pub use publish::{Absorbed, NotSent, Publisher};
pub use stream::{Facts, StreamError, Warning, verify};
