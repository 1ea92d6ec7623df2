//! A throwaway PgBouncer in front of a Postgres on loopback, which tests start, disturb, stop and
//! start again.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::{ServerError, Signal, free_port, pgbouncer as program, sandbox::Sandbox};

const PROGRAM: &str = "pgbouncer";
const START_DEADLINE: Duration = Duration::from_mins(1);
/// Longest time for a command of the admin console. `PAUSE` needs it, because it waits for open
/// transactions.
const CONSOLE_DEADLINE: Duration = Duration::from_secs(30);
/// The user of the admin console; no role of this name exists in Postgres.
const ADMIN: &str = "pooler_admin";
const ADMIN_PASSWORD: &str = "console";

/// The moment at which PgBouncer takes a server session away from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// At the end of each transaction. The next client finds the session state that the last one
    /// left.
    Transaction,
    /// When the client disconnects.
    Session,
}

impl fmt::Display for PoolMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transaction => "transaction",
            Self::Session => "session",
        })
    }
}

/// Settings of a throwaway PgBouncer.
#[derive(Debug, Clone)]
pub struct PgbouncerOptions {
    /// When a client gives up its server session. Default [`PoolMode::Transaction`].
    pub pool_mode: PoolMode,
    /// Server sessions of one database and user at most. Default 2.
    pub pool_size: u32,
    /// The users that may connect. Default `postgres`, without a password.
    ///
    /// PgBouncer accepts no other users. When every password is empty it asks for none (`auth_type
    /// = trust`); otherwise each client proves its password by SCRAM. Postgres is asked in the same
    /// way, but the throwaway one trusts everybody.
    pub users: Vec<(String, String)>,
    /// Further settings of the `[pgbouncer]` section, by name. They override the other fields.
    pub settings: Vec<(String, String)>,
}

impl Default for PgbouncerOptions {
    fn default() -> Self {
        Self {
            pool_mode: PoolMode::Transaction,
            pool_size: 2,
            users: vec![("postgres".to_owned(), String::new())],
            settings: Vec::new(),
        }
    }
}

/// A row of the console's answer: a column's name and its text.
pub type ConsoleRow = BTreeMap<String, String>;

/// A running (or deliberately disturbed) throwaway PgBouncer.
///
/// The pooler serves every database of its Postgres, so several tests may share one.
#[derive(Debug)]
pub struct Pgbouncer {
    sandbox: Sandbox,
    program: PathBuf,
    options: PgbouncerOptions,
    postgres_port: u16,
    port: u16,
}

impl Pgbouncer {
    /// Starts a pooler on a free port, in front of the Postgres on `postgres_port` of loopback.
    ///
    /// # Errors
    /// When PgBouncer is not installed, or does not start; the text has the end of its log.
    ///
    /// # Cancel safety
    /// Dropping the future stops the pooler and removes what was made.
    pub async fn start(postgres_port: u16, options: PgbouncerOptions) -> Result<Self, ServerError> {
        let program = program()?;
        let sandbox = Sandbox::create(None, Signal::Terminate)?;
        let mut pooler = Self { sandbox, program, options, postgres_port, port: 0 };
        // Another process may take the port before the server binds it.
        let mut result = Ok(());
        for _ in 0..5 {
            pooler.port = free_port()?;
            result = pooler.start_again().await;
            if !matches!(result, Err(ServerError::Ended { .. })) {
                break;
            }
        }
        result.map(|()| pooler)
    }

    /// Starts a stopped pooler again on the same port, with the options as they are now.
    ///
    /// # Errors
    /// When the pooler does not start within a minute.
    ///
    /// # Cancel safety
    /// The pooler may be starting when the future is dropped; calling again waits for it.
    pub async fn start_again(&mut self) -> Result<(), ServerError> {
        if self.sandbox.has_ended() {
            self.sandbox.write("users.txt", &self.users())?;
            let file = self.sandbox.write("pgbouncer.ini", &self.config())?;
            self.sandbox.spawn(&self.program, [file])?;
        }
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if self.console("SHOW VERSION").await.is_ok() {
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

    fn config(&self) -> String {
        let Self { options, postgres_port, port, .. } = self;
        let directory = self.sandbox.directory().display();
        let auth_type = if self.asks_for_passwords() { "scram-sha-256" } else { "trust" };
        let further = lines(options.settings.iter(), |(name, value)| format!("{name} = {value}"));
        format!(
            "[databases]\n\
             * = host=127.0.0.1 port={postgres_port}\n\
             \n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir = {directory}\n\
             auth_type = {auth_type}\n\
             auth_file = {directory}/users.txt\n\
             admin_users = {ADMIN}\n\
             pool_mode = {mode}\n\
             default_pool_size = {size}\n\
             max_client_conn = 500\n\
             {further}",
            mode = options.pool_mode,
            size = options.pool_size,
        )
    }

    fn users(&self) -> String {
        let quoted = |text: &str| text.replace('"', "\"\"");
        let admin = (ADMIN.to_owned(), ADMIN_PASSWORD.to_owned());
        lines(self.options.users.iter().chain([&admin]), |(name, password)| {
            format!("\"{}\" \"{}\"", quoted(name), quoted(password))
        })
    }

    fn asks_for_passwords(&self) -> bool {
        self.options.users.iter().any(|(_, password)| !password.is_empty())
    }

    /// The URL of a database, as the superuser `postgres`, through the pooler.
    ///
    /// When the pooler asks for passwords, the URL contains that of `postgres`.
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// The URL of a database through the pooler, as one of [`PgbouncerOptions::users`].
    pub fn url_as(&self, user: &str, database: &str) -> String {
        let password = self.options.users.iter().find(|(name, _)| name == user);
        let login = match password {
            Some((_, password)) if !password.is_empty() => format!("{user}:{password}"),
            _ => user.to_owned(),
        };
        format!("postgresql://{login}@127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port on 127.0.0.1, the same for the pooler's whole life.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The pooler's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.sandbox.pid()
    }

    /// The pooler's log file.
    pub fn log_path(&self) -> PathBuf {
        self.sandbox.log_path()
    }

    /// The options; changes count from the next [`start_again`](Self::start_again).
    pub fn options_mut(&mut self) -> &mut PgbouncerOptions {
        &mut self.options
    }

    /// Runs one command of the admin console, such as `SHOW STATS`, and returns its rows.
    ///
    /// # Errors
    /// When the pooler is down, refuses the command, or does not answer within 30 s.
    ///
    /// # Cancel safety
    /// The command may or may not have run.
    pub async fn console(&self, command: &str) -> Result<Vec<ConsoleRow>, ServerError> {
        let failed = |source| ServerError::Statement { statement: command.to_owned(), source };
        let work = async {
            let mut config = tokio_postgres::Config::new();
            // The socket is in a directory of this server, so no other pooler can answer there.
            config.host_path(self.sandbox.directory()).port(self.port).dbname("pgbouncer");
            config.user(ADMIN).password(ADMIN_PASSWORD);
            let (client, mut connection) = config.connect(NoTls).await.map_err(failed)?;
            // The console speaks the simple protocol only.
            let mut answer = Box::pin(client.simple_query(command));
            tokio::select! { biased;
                result = &mut answer => return result.map_err(failed),
                // The connection ended before the answer came, so it is broken, and the command
                // below fails.
                _ = &mut connection => {}
            }
            answer.await.map_err(failed)
        };
        let messages =
            timeout(CONSOLE_DEADLINE, work).await.map_err(|_| self.silent(CONSOLE_DEADLINE))??;
        Ok(messages.iter().filter_map(row).collect())
    }

    /// `SHOW POOLS`: one row a database and user, with `cl_active`, `cl_waiting`, `sv_active`, ….
    ///
    /// # Errors
    /// The errors of [`console`](Self::console).
    ///
    /// # Cancel safety
    /// Nothing changes.
    pub async fn pools(&self) -> Result<Vec<ConsoleRow>, ServerError> {
        self.console("SHOW POOLS").await
    }

    /// `SHOW SERVERS`: one row a server session, with `database`, `state`, `remote_pid`, ….
    ///
    /// # Errors
    /// The errors of [`console`](Self::console).
    ///
    /// # Cancel safety
    /// Nothing changes.
    pub async fn servers(&self) -> Result<Vec<ConsoleRow>, ServerError> {
        self.console("SHOW SERVERS").await
    }

    /// `RECONNECT`: each server session is closed at the end of its transaction; clients stay.
    ///
    /// # Errors
    /// The errors of [`console`](Self::console).
    ///
    /// # Cancel safety
    /// The sessions may be closed also when the future is dropped.
    pub async fn reconnect(&self) -> Result<(), ServerError> {
        self.console("RECONNECT").await.map(drop)
    }

    /// `PAUSE`: waits for open transactions, closes the database's server sessions, and makes new
    /// transactions wait until [`resume`](Self::resume). A client must have used the database.
    ///
    /// # Errors
    /// The errors of [`console`](Self::console), also when a transaction stays open for longer than
    /// 30 s.
    ///
    /// # Cancel safety
    /// The database may be paused also when the future is dropped.
    pub async fn pause(&self, database: &str) -> Result<(), ServerError> {
        self.console(&format!("PAUSE {database}")).await.map(drop)
    }

    /// `KILL`: cuts the database's clients and server sessions at once, in mid-transaction, and
    /// refuses new ones until [`resume`](Self::resume). A client must have used the database.
    ///
    /// # Errors
    /// The errors of [`console`](Self::console).
    ///
    /// # Cancel safety
    /// The sessions may be cut also when the future is dropped.
    pub async fn kill_sessions(&self, database: &str) -> Result<(), ServerError> {
        self.console(&format!("KILL {database}")).await.map(drop)
    }

    /// `RESUME`: ends a pause, or the refusal of sessions after
    /// [`kill_sessions`](Self::kill_sessions).
    ///
    /// # Errors
    /// The errors of [`console`](Self::console).
    ///
    /// # Cancel safety
    /// The database may be resumed also when the future is dropped.
    pub async fn resume(&self, database: &str) -> Result<(), ServerError> {
        self.console(&format!("RESUME {database}")).await.map(drop)
    }

    /// Stops the pooler at once; its clients and server sessions are cut.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    ///
    /// # Cancel safety
    /// The pooler stops also when the future is dropped.
    pub async fn stop(&mut self) -> Result<(), ServerError> {
        self.sandbox.stop(Signal::Terminate).await
    }

    /// Ends the pooler with `kill -9`.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill9(&mut self) -> Result<(), ServerError> {
        self.sandbox.kill()
    }

    /// Freezes the pooler: connections stay open, and the pooler answers nothing.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn freeze(&self) -> Result<(), ServerError> {
        self.sandbox.signal(Signal::Stop)
    }

    /// Lets a frozen pooler go on.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn thaw(&self) -> Result<(), ServerError> {
        self.sandbox.signal(Signal::Continue)
    }
}

/// A text with one line for each item.
fn lines<T>(items: impl Iterator<Item = T>, line: impl Fn(T) -> String) -> String {
    items.fold(String::new(), |text, item| text + &line(item) + "\n")
}

fn row(message: &SimpleQueryMessage) -> Option<ConsoleRow> {
    let SimpleQueryMessage::Row(row) = message else { return None };
    let columns = row.columns().iter().enumerate();
    let texts = columns.map(|(index, column)| {
        (column.name().to_owned(), row.get(index).unwrap_or_default().to_owned())
    });
    Some(texts.collect())
}
