//! Tests that the program connects exactly where psql connects, for each certificate and each
//! `sslmode`.
//!
//! Each row of [`CASES`] is a situation that both programs try in every mode against the same
//! server. Where Postrider is stricter on purpose, the row has those modes and the reason.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Stdio,
};

use postrider::{
    config::{DatabaseConfig, libpq::Libpq, secret::SecretUrl},
    dev::servers::{Postgres, PostgresOptions},
    pg::connect::connect,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use crate::support::{DEADLINE, eventually, postgres::alter_system};

const MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

/// Modes in which Postrider refuses a connection that psql accepts.
type Stricter = &'static [&'static str];

/// A situation. In `parameters`, `DIR` stands for the directory of the certificates.
struct Case {
    /// Name of the server's certificate.
    server: &'static str,
    host: &'static str,
    parameters: &'static str,
    stricter: Stricter,
    why: &'static str,
}

const fn case(server: &'static str, host: &'static str, parameters: &'static str) -> Case {
    // In these modes psql also verifies when it has roots, and falls back to no encryption when
    // that fails.
    let why = "roots beside a mode that does not insist on them are refused: they protect nothing";
    Case { server, host, parameters, stricter: &["allow", "prefer"], why }
}

const fn plain(server: &'static str, host: &'static str, parameters: &'static str) -> Case {
    Case { server, host, parameters, stricter: &[], why: "" }
}

const fn stricter(
    (server, host, parameters): (&'static str, &'static str, &'static str),
    stricter: Stricter,
    why: &'static str,
) -> Case {
    Case { server, host, parameters, stricter, why }
}

const ROOT: &str = "sslrootcert=DIR/root.pem";

const CASES: &[Case] = &[
    // Host names in the certificate.
    case("good", "localhost", ROOT),
    case("good", "127.0.0.1", ROOT),
    case("address", "127.0.0.1", ROOT),
    case("address", "localhost", ROOT),
    case("common-name", "localhost", ROOT),
    case("common-name", "127.0.0.1", ROOT),
    case("common-name-address", "127.0.0.1", ROOT),
    case("other-name", "localhost", ROOT),
    // Validity period and permitted uses of the certificate.
    case("expired", "localhost", ROOT),
    case("future", "localhost", ROOT),
    case("client-only", "localhost", ROOT),
    case("signs-only", "localhost", ROOT),
    // Authority that signed the certificate.
    case("good", "localhost", "sslrootcert=DIR/stranger.pem"),
    case("by-intermediate", "localhost", ROOT),
    case("by-intermediate", "localhost", "sslrootcert=DIR/root-and-intermediate.pem"),
    case("by-intermediate", "localhost", "sslrootcert=DIR/intermediate.pem"),
    case("chain", "localhost", ROOT),
    case("by-expired-root", "localhost", "sslrootcert=DIR/expired-root.pem"),
    case("by-future-root", "localhost", "sslrootcert=DIR/future-root.pem"),
    case("by-leaf", "localhost", "sslrootcert=DIR/self-signed-leaf.pem"),
    // Server's own certificate as a root.
    case("self-signed", "localhost", "sslrootcert=DIR/self-signed.pem"),
    case("self-signed", "127.0.0.1", "sslrootcert=DIR/self-signed.pem"),
    case("self-signed-authority", "localhost", "sslrootcert=DIR/self-signed-authority.pem"),
    case("self-signed-expired", "localhost", "sslrootcert=DIR/self-signed-expired.pem"),
    case("self-signed-future", "localhost", "sslrootcert=DIR/self-signed-future.pem"),
    case("self-signed-client", "localhost", "sslrootcert=DIR/self-signed-client.pem"),
    case("good", "localhost", "sslrootcert=DIR/good.pem"),
    case("good", "localhost", "sslrootcert=DIR/root-and-good.pem"),
    // Lists of revoked certificates.
    case("good", "localhost", "sslrootcert=DIR/root.pem&sslcrl=DIR/none-revoked.crl"),
    case("revoked", "localhost", "sslrootcert=DIR/root.pem&sslcrl=DIR/revoked.crl"),
    case("good", "localhost", "sslrootcert=DIR/root.pem&sslcrl=DIR/revoked.crl"),
    case("good", "localhost", "sslrootcert=DIR/root.pem&sslcrl=DIR/expired.crl"),
    case("good", "localhost", "sslrootcert=DIR/root.pem&sslcrl=DIR/stranger.crl"),
    stricter(
        ("good", "localhost", "sslrootcert=DIR/root.pem&sslcrl=DIR/missing.crl"),
        &["allow", "prefer", "require", "verify-ca", "verify-full"],
        "psql ignores a list that it cannot read",
    ),
    // Missing roots.
    stricter(
        ("good", "localhost", "sslrootcert=DIR/missing.pem"),
        &["allow", "prefer", "require"],
        "psql ignores roots that it cannot read",
    ),
    plain("good", "localhost", "application_name=none"),
    plain("expired", "127.0.0.1", "application_name=none"),
    // Client certificates.
    plain("good", "localhost", "sslcert=DIR/client.pem&sslkey=DIR/client.key"),
    stricter(
        ("good", "localhost", "sslcert=DIR/client.pem&sslkey=DIR/group.key"),
        &["allow", "prefer"],
        "psql goes on without encryption when its key is of no use",
    ),
    stricter(
        ("good", "localhost", "sslcert=DIR/client.pem&sslkey=DIR/exposed.key"),
        &["allow", "prefer"],
        "psql goes on without encryption when its key is of no use",
    ),
    stricter(
        ("good", "localhost", "sslcert=DIR/missing.pem&sslkey=DIR/client.key"),
        &["allow", "prefer", "require"],
        "psql ignores a certificate that it cannot read",
    ),
    // Versions of TLS.
    plain("good", "localhost", "ssl_min_protocol_version=TLSv1.3"),
    plain("good", "localhost", "ssl_max_protocol_version=TLSv1.2"),
];

/// A Postgres whose certificate changes from case to case.
struct Server {
    postgres: Postgres,
    directory: PathBuf,
    /// Serial number of each certificate, by which the test recognises the one that the server
    /// presents.
    keys: BTreeMap<String, Vec<u8>>,
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(4000, 1, 1));
    params
}

fn expired(mut params: CertificateParams) -> CertificateParams {
    params.not_after = date_time_ymd(2021, 1, 1);
    params
}

fn future(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(3999, 1, 1);
    params
}

fn client(mut params: CertificateParams) -> CertificateParams {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn authority(mut params: CertificateParams) -> CertificateParams {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

type Authority = Issuer<'static, KeyPair>;

impl Server {
    async fn start() -> Self {
        let postgres = Postgres::start(PostgresOptions::default()).await.unwrap();
        let directory = postgres.log_path().parent().unwrap().to_owned();
        let mut server = Self { postgres, directory, keys: BTreeMap::new() };
        server.make_certificates();
        let hba = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
        fs::write(server.directory.join("data/pg_hba.conf"), hba).unwrap();
        server
    }

    fn make_certificates(&mut self) {
        let root = self.self_signed("root", authority(params(&[], "a root")));
        self.self_signed("stranger", authority(params(&[], "a stranger")));
        let local = || params(&["localhost"], "server");
        self.signed("good", local(), &root);
        self.signed("address", params(&["127.0.0.1"], "server"), &root);
        self.signed("common-name", params(&[], "localhost"), &root);
        self.signed("common-name-address", params(&[], "127.0.0.1"), &root);
        self.signed("other-name", params(&["db.example"], "localhost"), &root);
        self.signed("expired", expired(local()), &root);
        self.signed("future", future(local()), &root);
        self.signed("client-only", client(local()), &root);
        let mut signs = local();
        signs.key_usages = vec![KeyUsagePurpose::CrlSign];
        self.signed("signs-only", signs, &root);
        self.signed("revoked", local(), &root);
        self.signed("client", client(params(&[], "postgres")), &root);
        for (name, mode) in [("group", 0o640), ("exposed", 0o644)] {
            let key = fs::read_to_string(self.directory.join("client.key")).unwrap();
            self.write(&format!("{name}.key"), &key);
            let path = self.directory.join(format!("{name}.key"));
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }

        let intermediate = self.signed("intermediate", authority(params(&[], "in between")), &root);
        self.signed("by-intermediate", local(), &intermediate);
        self.joined("chain", &["by-intermediate", "intermediate"]);
        self.joined("root-and-intermediate", &["intermediate", "root"]);
        self.joined("root-and-good", &["good", "root"]);
        for (name, change) in
            [("expired", expired as fn(CertificateParams) -> _), ("future", future)]
        {
            let root = change(authority(params(&[], name)));
            let root = self.self_signed(&format!("{name}-root"), root);
            self.signed(&format!("by-{name}-root"), local(), &root);
        }
        let leaf = self.self_signed("self-signed-leaf", local());
        self.signed("by-leaf", local(), &leaf);
        self.self_signed("self-signed", local());
        self.self_signed("self-signed-authority", authority(local()));
        self.self_signed("self-signed-expired", expired(local()));
        self.self_signed("self-signed-future", future(local()));
        self.self_signed("self-signed-client", client(local()));

        let serial = SerialNumber::from_slice(&self.keys["revoked"]);
        self.revoke("none-revoked", (&root, None), 4000);
        self.revoke("revoked", (&root, Some(&serial)), 4000);
        self.revoke("expired", (&root, None), 2021);
        let other = self.self_signed("another", authority(params(&[], "another")));
        self.revoke("stranger", (&other, None), 4000);
    }

    fn serial(&mut self, name: &str) -> SerialNumber {
        let number = u8::try_from(self.keys.len() + 1).unwrap();
        self.keys.insert(name.to_owned(), vec![number]);
        SerialNumber::from_slice(&[number])
    }

    fn self_signed(&mut self, name: &str, mut params: CertificateParams) -> Authority {
        let key = KeyPair::generate().unwrap();
        params.serial_number = Some(self.serial(name));
        self.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        Issuer::new(params, key)
    }

    fn signed(&mut self, name: &str, mut params: CertificateParams, by: &Authority) -> Authority {
        let key = KeyPair::generate().unwrap();
        params.serial_number = Some(self.serial(name));
        self.write(&format!("{name}.pem"), &params.signed_by(&key, by).unwrap().pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
        Issuer::new(params, key)
    }

    /// Writes one file with several certificates, and the key of the first.
    fn joined(&mut self, name: &str, parts: &[&str]) {
        let read = |file: String| fs::read_to_string(self.directory.join(file)).unwrap();
        let all: Vec<String> = parts.iter().map(|part| read(format!("{part}.pem"))).collect();
        let key = read(format!("{}.key", parts[0]));
        self.write(&format!("{name}.pem"), &all.join(""));
        self.write(&format!("{name}.key"), &key);
        self.keys.insert(name.to_owned(), self.keys[parts[0]].clone());
    }

    fn revoke(&self, name: &str, (by, serial): (&Authority, Option<&SerialNumber>), until: i32) {
        let revoked = serial.map(|serial| RevokedCertParams {
            serial_number: serial.clone(),
            revocation_time: date_time_ymd(2020, 6, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 6, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from_slice(&[1]),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        self.write(&format!("{name}.crl"), &list.signed_by(by).unwrap().pem().unwrap());
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        let owner = fs::metadata(self.directory.join("data")).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// Gives the server another certificate, and waits until the server presents it.
    async fn present(&self, name: &str) {
        let directory = self.directory.display();
        let settings = [
            ("ssl_cert_file", format!("{directory}/{name}.pem")),
            ("ssl_key_file", format!("{directory}/{name}.key")),
            ("ssl", "on".to_owned()),
        ];
        alter_system(&self.postgres, &settings).await;
        eventually(("TLS with", name), DEADLINE, async || {
            let mut serial = tokio::process::Command::new("sh");
            let show = format!(
                "openssl s_client -starttls postgres -connect 127.0.0.1:{} </dev/null 2>/dev/null |
                 openssl x509 -noout -serial",
                self.postgres.port()
            );
            let shown = serial.args(["-c", &show]).output().await.unwrap();
            let wanted = format!("serial={:02X}", self.keys[name][0]);
            String::from_utf8_lossy(&shown.stdout).trim() == wanted
        })
        .await;
    }

    fn url(&self, case: &Case, mode: &str) -> String {
        let parameters = case.parameters.replace("DIR", self.directory.to_str().unwrap());
        let port = self.postgres.port();
        format!("postgresql://postgres@{}:{port}/postgres?sslmode={mode}&{parameters}", case.host)
    }

    async fn psql(&self, url: &str, home: &Path) -> Result<(), String> {
        let mut psql = tokio::process::Command::new("psql");
        psql.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home);
        psql.args(["-XAtq", "-c", "SELECT 1", url]).stdin(Stdio::null());
        let output = psql.output().await.unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
        if output.status.success() { Ok(()) } else { Err(complaint) }
    }
}

async fn postrider(url: &str, home: &Path) -> Result<(), String> {
    let libpq = Libpq::of(&[("HOME".into(), home.as_os_str().to_owned())]);
    let config =
        DatabaseConfig { url: SecretUrl::new(url.to_owned()), libpq, ..DatabaseConfig::default() };
    let session = Box::pin(connect(&config, "test", &[])).await;
    session.map(drop).map_err(|error| error.to_string())
}

// Former defect: an expired certificate that was pinned passed verify-full, and a leaf certificate
// was accepted as a root.
#[tokio::test]
async fn program_connects_where_psql_connects_and_nowhere_else() {
    let server = Server::start().await;
    let home = tempfile::tempdir().unwrap();
    let (mut tried, mut wrong, mut present) = (0, String::new(), "");
    for case in CASES {
        if present != case.server {
            server.present(case.server).await;
            present = case.server;
        }
        for mode in MODES {
            let without_roots = !case.parameters.contains("sslrootcert");
            if without_roots && mode == "verify-full" {
                // Here psql has no roots and Postrider uses those of the machine, so both refuse.
                let both = server.psql(&server.url(case, mode), home.path()).await;
                assert!(both.is_err());
            }
            let url = server.url(case, mode);
            let (theirs, ours) =
                tokio::join!(server.psql(&url, home.path()), postrider(&url, home.path()));
            let is_stricter = case.stricter.contains(&mode);
            let agree = match (&theirs, &ours) {
                // A row must not claim that Postrider is stricter when it is not.
                (Ok(()), Err(_)) => is_stricter,
                (Ok(()), Ok(())) => !is_stricter,
                (Err(_), Err(_)) => true,
                (Err(_), Ok(())) => false,
            };
            tried += 1;
            if !agree {
                let Case { server, host, parameters, why, .. } = case;
                writeln!(
                    wrong,
                    "{server} as {host}, sslmode={mode}&{parameters} (stricter: {is_stricter} {why})\
                     \n    psql: {theirs:?}\n    postrider: {ours:?}"
                )
                .unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "of {tried}:\n{wrong}");
    assert!(tried >= 84, "only {tried} were tried");
}

// The program reads the certificate files in the user's home directory as psql does.
#[tokio::test]
async fn roots_and_keys_in_the_home_directory_count_as_for_psql() {
    let server = Server::start().await;
    server.present("good").await;
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join(".postgresql");
    fs::create_dir(&place).unwrap();
    for root in ["root", "stranger"] {
        fs::copy(server.directory.join(format!("{root}.pem")), place.join("root.crt")).unwrap();
        for mode in ["require", "verify-ca", "verify-full"] {
            let url = server.url(&plain("good", "localhost", "connect_timeout=9"), mode);
            let theirs = server.psql(&url, home.path()).await;
            let ours = postrider(&url, home.path()).await;
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{root} {mode}: {theirs:?} {ours:?}");
            assert_eq!(ours.is_ok(), root == "root", "{mode}: {ours:?}");
        }
    }
}
