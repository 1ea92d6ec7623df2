//! A throwaway nats-server with a JetStream file store, which tests start, break and start again.

use std::{io::ErrorKind, path::PathBuf, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{ServerError, Signal, nats_server, port, sandbox::Sandbox};

const PROGRAM: &str = "nats-server";
const START_DEADLINE: Duration = Duration::from_mins(1);
const RELOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Settings of a throwaway nats-server.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// Bytes of one message at most. Default 1 MiB, which is the server's own default.
    pub max_payload: u64,
    /// Interval at which the server syncs its store to the disk: a duration, or `always`. Default:
    /// the server's own default.
    pub sync_interval: Option<String>,
    /// Lines for the `jetstream` block, for instance `max_file_store: 1MB`.
    pub jetstream: String,
    /// Lines for the end of the configuration file, for instance an `authorization` block.
    pub extra: String,
    /// The port to listen on if it is free. Default: any free port.
    pub port: Option<u16>,
    /// The directory in which the server's temporary directory is made. Default: the system's
    /// directory for temporary files.
    pub parent: Option<PathBuf>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            max_payload: 1 << 20,
            sync_interval: None,
            jetstream: String::new(),
            extra: String::new(),
            port: None,
            parent: None,
        }
    }
}

/// A running (or deliberately broken) throwaway nats-server.
#[derive(Debug)]
pub struct Nats {
    sandbox: Sandbox,
    program: PathBuf,
    options: NatsOptions,
    name: String,
    port: u16,
}

impl Nats {
    /// Starts a server on a free port; returns once the server accepts connections and has
    /// JetStream enabled.
    ///
    /// # Errors
    /// When nats-server is not installed, or does not start; the text has the end of its log.
    ///
    /// # Cancel safety
    /// Dropping the future stops the server and removes what was made.
    pub async fn start(options: NatsOptions) -> Result<Self, ServerError> {
        let program = nats_server()?;
        let sandbox = Sandbox::create(options.parent.as_deref(), Signal::Kill)?;
        let name = format!("postrider-{}", Uuid::new_v4().simple());
        let mut server = Self { sandbox, program, options, name, port: 0 };
        // Another process may take the port before the server binds it.
        let mut result = Ok(());
        let mut wanted = server.options.port;
        for _ in 0..5 {
            server.port = port(wanted.take())?;
            result = server.start_again().await;
            if !matches!(result, Err(ServerError::Ended { .. })) {
                break;
            }
        }
        result.map(|()| server)
    }

    /// Starts a stopped server again: same port, same store.
    ///
    /// # Errors
    /// When the server does not start within a minute.
    ///
    /// # Cancel safety
    /// The server may be starting when the future is dropped; calling again waits for it.
    pub async fn start_again(&mut self) -> Result<(), ServerError> {
        if self.sandbox.has_ended() {
            self.spawn()?;
        }
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if self.greets().await {
                return Ok(());
            }
            if self.sandbox.has_ended() {
                return Err(ServerError::Ended { program: PROGRAM, log: self.sandbox.log_tail() });
            }
            if Instant::now() > deadline {
                return Err(self.silent(START_DEADLINE));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn silent(&self, waited: Duration) -> ServerError {
        let log = self.sandbox.log_tail();
        ServerError::Silent { program: PROGRAM, seconds: waited.as_secs(), log }
    }

    fn spawn(&mut self) -> Result<(), ServerError> {
        let config = self.sandbox.write("nats.conf", &self.config())?;
        let args = ["--config".into(), config.into_os_string()];
        match self.sandbox.spawn(&self.program, &args) {
            Err(ServerError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                self.program = self.sandbox.copy_program(&self.program)?;
                self.sandbox.spawn(&self.program, &args)
            }
            result => result,
        }
    }

    fn config(&self) -> String {
        let Self { options, name, port, .. } = self;
        let store = self.sandbox.directory().join("store");
        let sync = options
            .sync_interval
            .as_ref()
            .map_or(String::new(), |interval| format!("    sync_interval: {interval}\n"));
        format!(
            "server_name: \"{name}\"\n\
             listen: \"127.0.0.1:{port}\"\n\
             max_payload: {payload}\n\
             jetstream {{\n    store_dir: \"{store}\"\n{sync}    {jetstream}\n}}\n\
             {extra}\n",
            payload = options.max_payload,
            store = store.display(),
            jetstream = options.jetstream,
            extra = options.extra,
        )
    }

    /// Whether the process on the port is this server, by the INFO line that it sends, and has
    /// JetStream enabled.
    async fn greets(&self) -> bool {
        let greeting = async {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).await.map(|_| line)
        };
        let line = timeout(Duration::from_secs(2), greeting).await;
        matches!(line, Ok(Ok(line)) if line.contains(&self.name) && line.contains("\"jetstream\":true"))
    }

    /// The URL at which clients connect to this server.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
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

    /// The options; changes count from the next [`start_again`](Self::start_again), or from
    /// [`reload`](Self::reload) as far as the server can reload them.
    pub fn options_mut(&mut self) -> &mut NatsOptions {
        &mut self.options
    }

    /// Writes the configuration file anew, signals the server to read it, and waits until the
    /// server's log says that it has read it. The signal alone does not tell when that happens.
    ///
    /// # Errors
    /// When the file cannot be written, the server refuses it, or says nothing for 30 s.
    ///
    /// # Cancel safety
    /// The server reads the file also when the future is dropped.
    pub async fn reload(&self) -> Result<(), ServerError> {
        let before = self.sandbox.log().len();
        self.sandbox.write("nats.conf", &self.config())?;
        self.sandbox.signal(Signal::HangUp)?;
        let deadline = Instant::now() + RELOAD_DEADLINE;
        loop {
            let log = self.sandbox.log();
            let answer = log.get(before..).unwrap_or_default();
            if answer.contains("Reloaded server configuration") {
                return Ok(());
            }
            if answer.contains("Failed to reload server configuration") {
                return Err(ServerError::Refused {
                    program: PROGRAM,
                    log: self.sandbox.log_tail(),
                });
            }
            if Instant::now() > deadline {
                return Err(self.silent(RELOAD_DEADLINE));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the server in an orderly way.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    ///
    /// # Cancel safety
    /// The server stops also when the future is dropped.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        self.sandbox.stop(Signal::Terminate).await
    }

    /// Ends the server with `kill -9`.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill9(&mut self) -> Result<(), ServerError> {
        self.sandbox.kill()
    }

    /// Freezes the server: connections stay open, and the server answers nothing.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn freeze(&self) -> Result<(), ServerError> {
        self.sandbox.signal(Signal::Stop)
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn thaw(&self) -> Result<(), ServerError> {
        self.sandbox.signal(Signal::Continue)
    }
}
