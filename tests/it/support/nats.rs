//! Starts the nats-server that all tests share, and connects clients to it.

use std::time::Duration;

use async_nats::jetstream::{
    self, Context,
    stream::{Config, DiscardPolicy, StorageType},
};
use postrider::dev::servers::{Nats, NatsOptions};
use tokio::sync::OnceCell;

use super::Fixture;

/// The shared server, once it is started. It is never dropped; its guard stops it when the test
/// program ends.
static SHARED: OnceCell<Nats> = OnceCell::const_new();

/// Starts the shared server on the first call. Returns it.
pub(crate) async fn shared() -> &'static Nats {
    SHARED.get_or_init(|| async { Nats::start(NatsOptions::default()).await.unwrap() }).await
}

/// Connects a JetStream client.
pub(crate) async fn connect(url: &str) -> Context {
    jetstream::new(async_nats::connect(url).await.unwrap())
}

impl Fixture {
    /// Configuration of this test's stream as the program creates it.
    pub(crate) fn stream_config(&self) -> Config {
        Config {
            name: self.stream.clone(),
            subjects: vec![format!("{}.>", self.prefix)],
            storage: StorageType::File,
            discard: DiscardPolicy::New,
            duplicate_window: Duration::from_mins(10),
            allow_direct: true,
            ..Config::default()
        }
    }
}

/// Creates a stream with the program's settings, for tests that need it before the program starts.
pub(crate) async fn create_stream(jetstream: &Context, name: &str, subjects: &str) {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        allow_direct: true,
        ..Config::default()
    };
    jetstream.create_stream(config).await.unwrap();
}
