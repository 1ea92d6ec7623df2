//! A stage: a throwaway Postgres, a throwaway nats-server, and a relay that carries events from one
//! to the other.

use std::{env, io, os::unix::fs::DirBuilderExt as _, path::PathBuf, time::Duration};

use futures_util::future::try_join;
use thiserror::Error;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{
    relay_process::{RelayProcess, run_command},
    servers::{Nats, NatsOptions, Postgres, PostgresOptions, ServerError, port},
};

/// The application's database.
pub const DATABASE: &str = "app";
/// The stream that the relay creates.
pub const STREAM: &str = "EVENTS";

/// The ports of [`Ports::Kept`], while they are free: a person finds the servers at the same ones
/// each time.
const POSTGRES_PORT: u16 = 15432;
const NATS_PORT: u16 = 14222;
const ADMIN_PORT: u16 = 18085;

const READY_DEADLINE: Duration = Duration::from_secs(30);

/// A throwaway Postgres, a throwaway nats-server, and the relay between them. Dropping it stops
/// them and removes what they wrote.
#[derive(Debug)]
pub struct Stage {
    // Fields are dropped in this order: the relay ends before its servers.
    /// The relay.
    pub relay: RelayProcess,
    postgres: Postgres,
    nats: Nats,
    admin_port: u16,
}

/// Reason why a stage could not be set up.
#[derive(Debug, Error)]
pub enum StageError {
    /// A server is missing or does not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The program cannot be run as a child, or its `migrate` failed.
    #[error("{doing}: {source}")]
    Program {
        /// The attempted step.
        doing: &'static str,
        /// Answer of the operating system, or what the command printed.
        source: io::Error,
    },
    /// The relay ended, or did not become ready in time.
    #[error("the relay is not ready; the end of its log:\n{log}")]
    NotReady {
        /// Last lines of the relay's log.
        log: String,
    },
}

/// The ports on which a stage listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Any free ports.
    Any,
    /// The same ports each time, unless another program listens on them.
    Kept,
}

impl Stage {
    /// Starts both servers, creates the schema, starts the relay, and waits until the relay is
    /// ready.
    ///
    /// `settings` are keys of the relay's configuration to set, such as `relay.batch_events=500`.
    ///
    /// # Errors
    /// When a server is not installed or anything does not start; the text says what to do.
    ///
    /// # Cancel safety
    /// Dropping the future stops what was started.
    pub async fn set_up(settings: &[String], ports: Ports) -> Result<Self, StageError> {
        // Where the server allows two-phase commit, transactions do not notify the relay. So it is
        // switched off, with 0 prepared transactions.
        let wanted = |port| (ports == Ports::Kept).then_some(port);
        let postgres = PostgresOptions {
            max_prepared_transactions: 0,
            port: wanted(POSTGRES_PORT),
            ..PostgresOptions::default()
        };
        let nats = NatsOptions { port: wanted(NATS_PORT), ..NatsOptions::default() };
        let servers = try_join(Postgres::start(postgres), Nats::start(nats));
        let (postgres, nats) = servers.await?;
        postgres.execute("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
        let admin_port = port(wanted(ADMIN_PORT))?;
        let toml = toml(&postgres.url(DATABASE), &nats.url(), admin_port);
        let home = make_home().map_err(failed("make a directory"))?;
        let migrated = run_command(&home, &toml, &["migrate"]);
        migrated.map_err(failed("run postrider migrate"))?;
        let relay = RelayProcess::start(&home, &toml, settings);
        let relay = relay.map_err(failed("run postrider run"))?;
        let mut stage = Self { relay, postgres, nats, admin_port };
        stage.wait_ready().await?;
        Ok(stage)
    }

    async fn wait_ready(&mut self) -> Result<(), StageError> {
        let deadline = Instant::now() + READY_DEADLINE;
        while !self.is_ready().await {
            if self.relay.has_ended() || Instant::now() > deadline {
                return Err(StageError::NotReady { log: self.relay.log_tail() });
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).await?;
            stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.map(|_| answer)
        };
        let answer: Result<io::Result<String>, _> = timeout(Duration::from_secs(2), ask).await;
        matches!(answer, Ok(Ok(text)) if text.split(' ').nth(1) == Some("200"))
    }

    /// The URL of the application's database.
    pub fn database_url(&self) -> String {
        self.postgres.url(DATABASE)
    }

    /// The URL of the broker.
    pub fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// The relay's configuration file, with which other commands of `postrider` can be run.
    pub fn config_path(&self) -> PathBuf {
        self.relay.config_path()
    }

    /// The address at which the relay answers health and metrics requests.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin_port)
    }
}

fn toml(database: &str, nats: &str, admin_port: u16) -> String {
    format!(
        "[database]\nurl = \"{database}\"\n\n[nats]\nurl = \"{nats}\"\n\n\
         [stream]\nname = \"{STREAM}\"\nsubjects = [\"events.>\"]\ncreate = true\n\
         # A limit would be reserved, and a small disk may not have it.\n\
         max_bytes = \"0B\"\n\n\
         [admin]\nlisten = \"127.0.0.1:{admin_port}\"\n"
    )
}

fn make_home() -> io::Result<PathBuf> {
    let home = env::temp_dir().join(format!("postrider-{}", Uuid::new_v4().simple()));
    std::fs::DirBuilder::new().mode(0o700).create(&home)?;
    Ok(home)
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> StageError {
    move |source| StageError::Program { doing, source }
}
