//! A throwaway Postgres cluster, which tests start, break and start again with the same port and
//! data.

use std::{path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::NoTls;

use super::{ServerError, Signal, port, postgres_bin, sandbox::Sandbox};

const PROGRAM: &str = "postgres";
const START_DEADLINE: Duration = Duration::from_mins(1);

/// Settings of a throwaway Postgres.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// Whether commits are synced to the disk. Without it the server is quicker; a benchmark needs
    /// it. Default off.
    pub fsync: bool,
    /// The setting `max_connections`. Default 200.
    pub max_connections: u32,
    /// The setting `max_prepared_transactions`. Default 20, so that tests may use two-phase commit.
    pub max_prepared_transactions: u32,
    /// Further settings of the server, by name.
    pub settings: Vec<(String, String)>,
    /// The port to listen on if it is free. Default: any free port.
    pub port: Option<u16>,
    /// The directory in which the server's temporary directory is made. Default: the system's
    /// directory for temporary files.
    pub parent: Option<PathBuf>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            fsync: false,
            max_connections: 200,
            max_prepared_transactions: 20,
            settings: Vec::new(),
            port: None,
            parent: None,
        }
    }
}

/// A running (or deliberately broken) throwaway Postgres.
#[derive(Debug)]
pub struct Postgres {
    sandbox: Sandbox,
    program: PathBuf,
    options: PostgresOptions,
    port: u16,
}

impl Postgres {
    /// Makes a cluster and starts it on a free port; returns once it takes connections.
    ///
    /// # Errors
    /// When Postgres is not installed, or does not start; the text has the end of its log.
    ///
    /// # Cancel safety
    /// Dropping the future stops the server and removes what was made.
    pub async fn start(options: PostgresOptions) -> Result<Self, ServerError> {
        let bin = postgres_bin()?;
        let sandbox = Sandbox::create(options.parent.as_deref(), Signal::Quit)?;
        let mut initdb = sandbox.command(&bin.join("initdb"))?;
        initdb
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            .args(["--locale=C", "--no-instructions", "--pgdata"])
            .arg(sandbox.directory().join("data"));
        sandbox.run("initdb", initdb)?;
        let mut server = Self { sandbox, program: bin.join("postgres"), options, port: 0 };
        // Another process may take the port before the server binds it.
        let mut result = Ok(());
        let mut wanted = server.options.port;
        for _ in 0..5 {
            server.port = port(wanted.take())?;
            result = server.launch().await;
            if !matches!(result, Err(ServerError::Ended { .. })) {
                break;
            }
        }
        result.map(|()| server)
    }

    /// Starts a stopped server again: same port, same data.
    ///
    /// # Errors
    /// When the server does not start within a minute.
    ///
    /// # Cancel safety
    /// The server may be starting when the future is dropped; calling again waits for it.
    pub async fn start_again(&mut self) -> Result<(), ServerError> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            let result = self.launch().await;
            // After kill -9 the orphaned backends hold the shared memory for a moment.
            if matches!(result, Err(ServerError::Ended { .. })) && Instant::now() < deadline {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            return result;
        }
    }

    async fn launch(&mut self) -> Result<(), ServerError> {
        if self.sandbox.has_ended() {
            let args = self.arguments();
            self.sandbox.spawn(&self.program, args)?;
        }
        let deadline = Instant::now() + START_DEADLINE;
        let mut config = tokio_postgres::Config::new();
        // The socket is in a directory of this server, so no other server can answer there.
        config.host_path(self.sandbox.directory()).port(self.port).user("postgres");
        config.dbname("postgres");
        loop {
            if let Ok(Ok(_)) = timeout(Duration::from_secs(2), config.connect(NoTls)).await {
                return Ok(());
            }
            if self.sandbox.has_ended() {
                return Err(ServerError::Ended { program: PROGRAM, log: self.sandbox.log_tail() });
            }
            if Instant::now() > deadline {
                return Err(ServerError::Silent {
                    program: PROGRAM,
                    seconds: START_DEADLINE.as_secs(),
                    log: self.sandbox.log_tail(),
                });
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn arguments(&self) -> Vec<String> {
        let directory = self.sandbox.directory().display();
        let on_off = if self.options.fsync { "on" } else { "off" };
        let mut settings = vec![
            ("listen_addresses".to_owned(), "127.0.0.1".to_owned()),
            ("port".to_owned(), self.port.to_string()),
            ("unix_socket_directories".to_owned(), directory.to_string()),
            ("fsync".to_owned(), on_off.to_owned()),
            ("max_connections".to_owned(), self.options.max_connections.to_string()),
            (
                "max_prepared_transactions".to_owned(),
                self.options.max_prepared_transactions.to_string(),
            ),
            ("timezone".to_owned(), "UTC".to_owned()),
        ];
        settings.extend(self.options.settings.iter().cloned());
        let mut arguments = vec!["-D".to_owned(), format!("{directory}/data")];
        for (name, value) in settings {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        arguments
    }

    /// The URL of a database, as the superuser `postgres`, over loopback TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port on 127.0.0.1, the same for the server's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.sandbox.pid()
    }

    /// The server's log file.
    pub fn log_path(&self) -> PathBuf {
        self.sandbox.log_path()
    }

    /// The options; changes count from the next [`start_again`](Self::start_again).
    pub fn options_mut(&mut self) -> &mut PostgresOptions {
        &mut self.options
    }

    /// Runs statements in a database on a connection of their own.
    ///
    /// # Errors
    /// When the server is down or refuses a statement.
    ///
    /// # Cancel safety
    /// The statements may or may not have run.
    pub async fn execute(&self, database: &str, statements: &str) -> Result<(), ServerError> {
        let failed = |source| ServerError::Statement { statement: statements.to_owned(), source };
        let url = self.url(database);
        let (client, mut connection) =
            tokio_postgres::connect(&url, NoTls).await.map_err(failed)?;
        let mut work = Box::pin(client.batch_execute(statements));
        tokio::select! { biased;
            result = &mut work => return result.map_err(failed),
            // The connection ended before the answer came, so it is broken, and the statement below
            // fails.
            _ = &mut connection => {}
        }
        work.await.map_err(failed)
    }

    /// Stops the server with a fast shutdown: sessions are cut, a checkpoint is written.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    ///
    /// # Cancel safety
    /// The server stops also when the future is dropped.
    pub async fn stop_fast(&mut self) -> Result<(), ServerError> {
        self.sandbox.stop(Signal::Interrupt).await
    }

    /// Stops the server with an immediate shutdown: no checkpoint is written, so the next start
    /// recovers from the WAL.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    ///
    /// # Cancel safety
    /// The server stops also when the future is dropped.
    pub async fn stop_immediate(&mut self) -> Result<(), ServerError> {
        self.sandbox.stop(Signal::Quit).await
    }

    /// Kills the postmaster with `kill -9`. Its backends notice that and end by themselves.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill9(&mut self) -> Result<(), ServerError> {
        self.sandbox.kill()
    }
}
