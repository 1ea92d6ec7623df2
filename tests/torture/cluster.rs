//! A cluster of three nats-servers, with one stream on all of them.

use std::time::Duration;

use async_nats::jetstream;
use postrider::dev::{
    random::Random,
    servers::{Nats, NatsOptions, free_port},
};
use uuid::Uuid;

use super::support::{DEADLINE, Fixture, Server, daemon::DaemonBuilder, eventually, nats};

/// Three nats-servers. The first one is the server of the fixture.
pub(crate) struct Cluster {
    pub(crate) fixture: Fixture,
    others: Vec<Nats>,
}

impl Cluster {
    /// Starts three servers and a database, and waits until the servers have a leader.
    pub(crate) async fn start() -> Self {
        let name = Uuid::new_v4().simple().to_string();
        let ports: Vec<u16> = (0..3).map(|_| free_port().unwrap()).collect();
        let routes: Vec<String> =
            ports.iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let routes = routes.join(", ");
        let options = |port: &u16| NatsOptions {
            extra: format!(
                "cluster {{ name: \"{name}\", listen: \"127.0.0.1:{port}\", routes: [{routes}] }}"
            ),
            ..NatsOptions::default()
        };
        let mut nodes = Vec::new();
        for port in &ports {
            nodes.push(Nats::start(options(port)).await.unwrap());
        }
        let fixture =
            Fixture { nats: Server::Own(Box::new(nodes.remove(0))), ..Fixture::new().await };
        let cluster = Self { fixture, others: nodes };
        cluster.wait_ready().await;
        cluster
    }

    /// Waits until the servers have elected a leader.
    async fn wait_ready(&self) {
        let jetstream = nats::connect(&self.fixture.nats.url()).await;
        eventually("a leader of the cluster", DEADLINE, async || {
            jetstream.query_account().await.is_ok()
        })
        .await;
    }

    /// The program, connected to all three servers, with three replicas of its stream.
    pub(crate) fn daemon(&self) -> DaemonBuilder {
        super::scene::daemon(&self.fixture).set("nats.url", self.urls()).set("stream.replicas", 3)
    }

    /// URLs of the three servers, separated by commas.
    pub(crate) fn urls(&self) -> String {
        let mut urls = vec![self.fixture.nats.url()];
        urls.extend(self.others.iter().map(Nats::url));
        urls.join(",")
    }

    /// Server with this number, from 0 to 2.
    pub(crate) fn node(&mut self, number: usize) -> &mut Nats {
        match number.checked_sub(1) {
            None => self.fixture.nats.own(),
            Some(other) => &mut self.others[other],
        }
    }

    /// A server of the three, chosen at random.
    pub(crate) fn any(&mut self, random: &mut Random) -> &mut Nats {
        self.node(random.below(3) as usize)
    }

    /// Waits until the stream has a leader and both other copies follow it.
    pub(crate) async fn wait_healed(&self) {
        let jetstream = nats::connect(&self.fixture.nats.url()).await;
        eventually("a whole cluster", DEADLINE, async || {
            let stream = jetstream.get_stream(&self.fixture.stream).await.ok()?;
            let cluster = stream.cached_info().cluster.clone()?;
            let whole = cluster.replicas.len() == 2
                && cluster.replicas.iter().all(|replica| replica.current && !replica.offline);
            (cluster.leader.is_some() && whole).then_some(())
        })
        .await;
    }
}

/// Asks the leader of a stream to give up its leadership, so that another server becomes the
/// leader.
pub(crate) async fn step_down(client: &async_nats::Client, stream: &str) {
    let request = client.request(format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}"), "".into());
    // The answer is ignored: a stream without a leader gives none, and the test goes on all the
    // same.
    drop(tokio::time::timeout(Duration::from_secs(1), request).await);
}

/// Connects a client that knows all servers, also when some of them are down.
pub(crate) async fn client(urls: &str) -> async_nats::Client {
    jetstream::new(async_nats::connect(urls.split(',').collect::<Vec<_>>()).await.unwrap()).client()
}
