//! The brokers of a stage: one server, one that syncs before it acknowledges, or three that keep a
//! stream together.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream;
use postrider::{
    config::{self, secret::SecretUrl},
    dev::servers::{Nats, NatsOptions, free_port},
};
use tokio::time::sleep;

use crate::proc;

const DEADLINE: Duration = Duration::from_mins(1);

/// What the relay publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One server with its defaults: it acknowledges what the kernel has taken.
    Plain,
    /// One server with `sync_interval: always`: it acknowledges what the disk has taken.
    Fsyncing,
    /// Three servers, and each stream on all of them.
    Cluster,
}

/// The servers.
pub(crate) struct Brokers {
    pub(crate) kind: Kind,
    servers: Vec<Nats>,
}

impl Brokers {
    pub(crate) async fn start(kind: Kind) -> Result<Self> {
        let servers = match kind {
            Kind::Plain => vec![Nats::start(NatsOptions::default()).await?],
            Kind::Fsyncing => {
                let sync_interval = Some("always".to_owned());
                vec![Nats::start(NatsOptions { sync_interval, ..Default::default() }).await?]
            }
            Kind::Cluster => start_cluster().await?,
        };
        let brokers = Self { kind, servers };
        brokers.wait_ready().await?;
        Ok(brokers)
    }

    /// The servers' URLs, with commas between.
    pub(crate) fn url(&self) -> String {
        self.servers.iter().map(Nats::url).collect::<Vec<_>>().join(",")
    }

    /// The URL of one of them.
    pub(crate) fn first_url(&self) -> Result<String> {
        Ok(self.servers.first().context("there is a server")?.url())
    }

    /// How the publisher learns of them.
    pub(crate) fn config(&self) -> config::NatsConfig {
        config::NatsConfig { url: SecretUrl::new(self.url()), ..Default::default() }
    }

    /// Copies that each stream has.
    pub(crate) fn replicas(&self) -> u8 {
        if self.kind == Kind::Cluster { 3 } else { 1 }
    }

    /// A client of all.
    pub(crate) async fn connect(&self) -> Result<jetstream::Context> {
        let urls: Vec<String> = self.servers.iter().map(Nats::url).collect();
        Ok(jetstream::new(async_nats::connect(urls).await?))
    }

    /// Seconds of processor time, all together.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.servers.iter().map(|server| proc::cpu_seconds(server.pid().context("runs")?)).sum()
    }

    /// Waits until somebody leads.
    async fn wait_ready(&self) -> Result<()> {
        let jetstream = self.connect().await?;
        let deadline = Instant::now() + DEADLINE;
        while jetstream.query_account().await.is_err() {
            ensure!(Instant::now() < deadline, "the nats-servers do not agree on a leader");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until a stream has all its copies; the first messages would have to wait for them.
    pub(crate) async fn wait_whole(
        &self,
        jetstream: &jetstream::Context,
        stream: &str,
    ) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.kind == Kind::Cluster && !is_whole(jetstream, stream).await {
            ensure!(Instant::now() < deadline, "the stream does not get its copies");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

async fn is_whole(jetstream: &jetstream::Context, stream: &str) -> bool {
    let Ok(stream) = jetstream.get_stream(stream).await else { return false };
    stream.cached_info().cluster.as_ref().is_some_and(|cluster| {
        let follow = |replica: &jetstream::stream::PeerInfo| replica.current && !replica.offline;
        cluster.leader.is_some()
            && cluster.replicas.len() == 2
            && cluster.replicas.iter().all(follow)
    })
}

async fn start_cluster() -> Result<Vec<Nats>> {
    let ports = [free_port()?, free_port()?, free_port()?];
    let routes = ports.map(|port| format!("nats-route://127.0.0.1:{port}")).join(", ");
    let mut servers = Vec::new();
    for port in ports {
        let extra =
            format!("cluster {{ name: bench, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}");
        servers.push(Nats::start(NatsOptions { extra, ..Default::default() }).await?);
    }
    Ok(servers)
}
