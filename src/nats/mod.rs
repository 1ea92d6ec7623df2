//! The broker: connect, verify the stream, publish, classify what it answers.

mod batch;
mod connect;
mod error;
mod failure;
mod info;
mod look_up;
mod publish;
mod room;
mod scan;
mod sent;
mod stream;
mod version;

pub use connect::{Connection, Connector, Standing, keep_connected};
pub use error::SUBJECT_FULL;
pub use failure::ConnectError;
pub use look_up::{Held, held_at, kept};
pub use publish::{Absorbed, NotSent, Publisher};
pub use room::{Probe, Room, Used, probe, room};
pub use scan::{SIGHTINGS_MAX, Scan, Sighting, identity};
pub use stream::{Cause, Copies, Facts, Keeps, StreamError, Warning, gone, verify};
