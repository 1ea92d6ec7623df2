//! Tests of each `sslmode`, against a Postgres with certificates that the test makes.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::PathBuf,
};

use postrider::{
    config::{DatabaseConfig, secret::SecretUrl},
    dev::servers::{Postgres, PostgresOptions},
    pg::{
        connect::{ConnectError, Connection, connect},
        error::Class,
    },
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::sync::OnceCell;

use crate::{
    session::plain_server,
    support::{DEADLINE, eventually, postgres::alter_system},
};

/// Rules of the server: which users may connect with and without TLS, and how they log in.
const PG_HBA: &str = "
local     all all        trust
hostssl   all encrypted  127.0.0.1/32 trust
hostnossl all plain      127.0.0.1/32 trust
hostssl   all identified 127.0.0.1/32 cert
hostssl   all secretive  127.0.0.1/32 scram-sha-256
host      all postgres   127.0.0.1/32 trust
";

/// A Postgres with a certificate for `localhost`, signed by the authority in `authority.pem`.
struct TlsServer {
    postgres: Postgres,
    directory: PathBuf,
}

impl TlsServer {
    /// The server that all tests of this file share. Its guard stops it when the test program ends.
    async fn shared() -> &'static Self {
        static SHARED: OnceCell<TlsServer> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
        let directory = postgres.log_path().parent().unwrap().to_owned();
        let server = Self { postgres, directory };
        let (authority, authority_pem) = authority("our authority");
        server.write("authority.pem", &authority_pem);
        server.write("stranger.pem", &self::authority("a stranger").1);
        server.issue("server", "localhost", &authority);
        server.issue("client", "identified", &authority);
        for role in ["encrypted", "plain", "identified", "secretive"] {
            let create = format!("CREATE ROLE {role} LOGIN PASSWORD 's3cr#et'");
            server.postgres.execute("postgres", &create).await.unwrap();
        }
        fs::write(server.directory.join("data/pg_hba.conf"), PG_HBA).unwrap();
        server.encrypt("server.pem", "server.key").await;
        server
    }

    /// Turns TLS on with this certificate and key.
    async fn encrypt(&self, certificate: &str, key: &str) {
        let directory = self.directory.display();
        let settings = [
            ("ssl_cert_file", format!("{directory}/{certificate}")),
            ("ssl_key_file", format!("{directory}/{key}")),
            ("ssl_ca_file", format!("{directory}/authority.pem")),
            ("ssl", "on".to_owned()),
        ];
        alter_system(&self.postgres, &settings).await;
        let mark = format!("sslmode=verify-full&sslrootcert={directory}/authority.pem");
        eventually("TLS", DEADLINE, async || {
            self.connect("postgres@localhost", &mark).await.is_ok()
        })
        .await;
    }

    /// Signs a certificate with `name` as its common name and its host.
    fn issue(&self, file: &str, name: &str, authority: &Issuer<'_, KeyPair>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, authority).unwrap();
        self.write(&format!("{file}.pem"), &certificate.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    /// Writes a file that belongs to the server's user, as Postgres requires for keys.
    fn write(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        let owner = fs::metadata(self.directory.join("data")).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// Connects as `user@host` with these parameters, in which `DIR` stands for the directory of
    /// the certificates.
    async fn connect(&self, who: &str, parameters: &str) -> Result<Connection, ConnectError> {
        let directory = self.directory.to_str().unwrap();
        let parameters = parameters.replace("DIR", directory);
        let port = self.postgres.port();
        let url = format!("postgresql://{who}:{port}/postgres?{parameters}");
        let config = DatabaseConfig { url: SecretUrl::new(url), ..DatabaseConfig::default() };
        Box::pin(connect(&config, "test", &[])).await
    }

    /// Connects, and asks the server whether the session is encrypted.
    async fn is_encrypted(&self, who: &str, parameters: &str) -> Result<bool, ConnectError> {
        let connection = self.connect(who, parameters).await?;
        let asked =
            "SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_catalog.pg_backend_pid()";
        Ok(connection.query(asked, &[]).await.unwrap()[0].get(0))
    }

    async fn refusal(&self, who: &str, parameters: &str) -> ConnectError {
        self.connect(who, parameters).await.err().expect("no session")
    }
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    (Issuer::new(params, key), certificate.pem())
}

const LOCALHOST: &str = "postgres@localhost";
const ADDRESS: &str = "postgres@127.0.0.1";

#[tokio::test]
async fn each_mode_encrypts_and_verifies_as_libpq_says() {
    let server = TlsServer::shared().await;
    for (who, parameters, encrypted) in [
        (ADDRESS, "sslmode=disable", false),
        (ADDRESS, "sslmode=allow", false),
        (ADDRESS, "", true),
        (ADDRESS, "sslmode=prefer", true),
        (ADDRESS, "sslmode=require", true),
        (ADDRESS, "sslmode=require&sslrootcert=DIR/authority.pem", true),
        (ADDRESS, "sslmode=verify-ca&sslrootcert=DIR/authority.pem", true),
        (LOCALHOST, "sslmode=verify-full&sslrootcert=DIR/authority.pem", true),
        (LOCALHOST, "sslrootcert=DIR/authority.pem", true),
    ] {
        let found = server.is_encrypted(who, parameters).await.map_err(|error| error.to_string());
        assert_eq!(found, Ok(encrypted), "{who} {parameters}");
    }
}

#[tokio::test]
async fn impostor_is_refused_with_the_parameter_to_set() {
    let server = TlsServer::shared().await;
    for (who, parameters, text, hint) in [
        (
            LOCALHOST,
            "sslmode=verify-full&sslrootcert=DIR/stranger.pem",
            "server certificate not verified: ",
            "set sslrootcert=<its authority's certificate> or sslmode=require (unverified)",
        ),
        // A certificate that an authority signed is not accepted as a root, even when it is the
        // server's own certificate.
        (
            LOCALHOST,
            "sslmode=verify-full&sslrootcert=DIR/server.pem",
            "server certificate not verified: the file of sslrootcert contains no self-signed authority",
            "put the authority at the end of the chain into the file of sslrootcert",
        ),
        (
            ADDRESS,
            "sslmode=require&sslrootcert=DIR/stranger.pem",
            "server certificate not verified: ",
            "set sslrootcert=<its authority's certificate> or sslmode=require (unverified)",
        ),
        (
            LOCALHOST,
            "sslmode=verify-full",
            "server certificate not verified: ",
            "set sslrootcert=<its authority's certificate> or sslmode=require (unverified)",
        ),
        (
            ADDRESS,
            "sslmode=verify-full&sslrootcert=DIR/authority.pem",
            "server certificate names another host: ",
            "connect by a name that is in the certificate, or use sslmode=verify-ca",
        ),
    ] {
        let error = server.refusal(who, parameters).await;
        assert!(error.to_string().contains(text), "{who} {parameters}: {error}");
        assert_eq!(error.hint(), Some(hint), "{who} {parameters}: {error}");
        assert_eq!(error.class(), Class::Configuration, "{error}");
    }
}

#[tokio::test]
async fn weak_modes_take_what_the_server_lets_in() {
    let server = TlsServer::shared().await;
    for (who, parameters, encrypted) in [
        ("encrypted@127.0.0.1", "sslmode=allow", true),
        ("encrypted@127.0.0.1", "sslmode=prefer", true),
        ("plain@127.0.0.1", "sslmode=allow", false),
        ("plain@127.0.0.1", "sslmode=prefer", false),
    ] {
        let found = server.is_encrypted(who, parameters).await.map_err(|error| error.to_string());
        assert_eq!(found, Ok(encrypted), "{who} {parameters}");
    }
    for (who, parameters) in
        [("encrypted@127.0.0.1", "sslmode=disable"), ("plain@127.0.0.1", "sslmode=require")]
    {
        let error = server.refusal(who, parameters).await;
        assert!(error.to_string().contains("no pg_hba.conf entry"), "{error}");
    }
}

#[tokio::test]
async fn client_certificate_is_our_name() {
    let server = TlsServer::shared().await;
    let identity = "sslmode=require&sslcert=DIR/client.pem&sslkey=DIR/client.key";
    let session = server.is_encrypted("identified@127.0.0.1", identity).await;
    assert_eq!(session.map_err(|error| error.to_string()), Ok(true));

    let error = server.refusal("identified@127.0.0.1", "sslmode=require").await;
    assert!(error.to_string().contains("certificate"), "{error}");
    let half = server.refusal("identified@127.0.0.1", "sslmode=require&sslcert=DIR/client.pem");
    assert!(half.await.to_string().contains("sslcert and sslkey go together"));
}

#[tokio::test]
async fn password_is_bound_to_the_channel_and_never_shown() {
    let server = TlsServer::shared().await;
    let bound = "sslmode=require&channel_binding=require";
    let session = server.is_encrypted("secretive:s3cr%23et@127.0.0.1", bound).await;
    assert_eq!(session.map_err(|error| error.to_string()), Ok(true));

    let error = server.refusal("secretive:wr0ng@127.0.0.1", bound).await;
    assert_eq!(error.class(), Class::Configuration);
    assert!(error.to_string().contains("password authentication failed"), "{error}");
    assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
    // The server's error contains the database name, where a person may have put a password by
    // mistake.
    let error = server.refusal("postgres:app@127.0.0.1", "sslmode=require&dbname=app").await;
    assert!(error.to_string().contains("database \"***\" does not exist"), "{error}");
}

#[tokio::test]
async fn server_without_tls_says_so() {
    let postgres = plain_server().await;
    let config = |mode| {
        let url = format!("{}?sslmode={mode}", postgres.url("postgres"));
        DatabaseConfig { url: SecretUrl::new(url), ..DatabaseConfig::default() }
    };
    assert!(connect(&config("prefer"), "test", &[]).await.is_ok());
    let error = connect(&config("require"), "test", &[]).await.err().unwrap();
    let text = format!("127.0.0.1:{}: server does not speak TLS", postgres.port());
    assert_eq!(error.to_string(), text);
    assert!(error.hint().unwrap().contains("sslmode=disable"));
    // A Unix socket has no TLS and needs none, so the strictest mode is accepted.
    let log = postgres.log_path();
    let host = log.parent().unwrap().to_str().unwrap().replace('/', "%2F");
    let url =
        format!("postgresql://postgres@{host}:{}/postgres?sslmode=verify-full", postgres.port());
    let config = DatabaseConfig { url: SecretUrl::new(url), ..DatabaseConfig::default() };
    assert!(connect(&config, "test", &[]).await.is_ok());
}
