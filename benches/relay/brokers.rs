//! Starts the brokers of a stage: one server, one that syncs to disk before it acknowledges, or a
//! cluster of three.

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

/// Kind of broker that the relay publishes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A single server with its defaults. The server acknowledges a message once the kernel has
    /// taken it.
    Plain,
    /// A single server with `sync_interval: always`, which acknowledges a message once the disk has
    /// it.
    Fsyncing,
    /// Cluster of three servers, with a copy of each stream on every server.
    Cluster,
}

/// The running nats-servers of one kind.
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

    /// The URL of the first server.
    pub(crate) fn first_url(&self) -> Result<String> {
        Ok(self.servers.first().context("there is a server")?.url())
    }

    /// Configuration with which a publisher connects to these servers.
    pub(crate) fn config(&self) -> config::NatsConfig {
        config::NatsConfig { url: SecretUrl::new(self.url()), ..Default::default() }
    }

    /// Number of copies of each stream.
    pub(crate) fn replicas(&self) -> u8 {
        if self.kind == Kind::Cluster { 3 } else { 1 }
    }

    /// Connects a JetStream client that knows all servers.
    pub(crate) async fn connect(&self) -> Result<jetstream::Context> {
        let urls: Vec<String> = self.servers.iter().map(Nats::url).collect();
        Ok(jetstream::new(async_nats::connect(urls).await?))
    }

    /// Processor time that all servers together have used, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        self.servers.iter().map(|server| proc::cpu_seconds(server.pid().context("runs")?)).sum()
    }

    /// Waits until the servers answer JetStream requests; a cluster first has to elect a leader.
    async fn wait_ready(&self) -> Result<()> {
        let jetstream = self.connect().await?;
        let deadline = Instant::now() + DEADLINE;
        while jetstream.query_account().await.is_err() {
            ensure!(Instant::now() < deadline, "the nats-servers do not agree on a leader");
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Waits until all copies of a stream follow its leader. Otherwise the first messages would
    /// wait for the copies.
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
