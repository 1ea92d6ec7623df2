//! The broker: connect, verify the stream, publish, classify what it answers.

mod batch;
mod connect;
mod error;
mod failure;
mod look_up;
mod publish;
mod room;
mod stream;

pub use connect::{Connection, Connector, Standing, keep_connected};
pub use failure::ConnectError;
pub use look_up::{Held, LookedUp, held_at, identity, kept, look_up, read_headers};
pub use publish::{Absorbed, NotSent, Publisher};
pub use room::{Probe, Room, Used, probe, room};
pub use stream::{Copies, Facts, Keeps, StreamError, Warning, verify};
