//! Tests of a URL, a connection string, the environment and the files of libpq together.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;
use crate::config::secret::SecretUrl;

fn target(url: &str, variables: &[(&str, &str)]) -> Result<Target, UrlError> {
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let environment: Vec<_> = variables.iter().map(pair).collect();
    let url = SecretUrl::new(url.to_owned());
    Target::of(&DatabaseConfig { url, libpq: Libpq::of(&environment), ..DatabaseConfig::default() })
}

fn names(url: &str) -> Vec<(String, Distance)> {
    let target = target(url, &[]).unwrap();
    target.endpoints.into_iter().map(|endpoint| (endpoint.name, endpoint.distance)).collect()
}

fn refusal(url: &str) -> UrlError {
    target(url, &[]).err().unwrap()
}

fn password(target: &Target) -> Option<&str> {
    target.endpoints[0].driver.get_password().map(|it| str::from_utf8(it).unwrap())
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn each_host_becomes_an_endpoint_that_knows_how_far_it_is() {
    assert_eq!(
        names("postgresql://app:pw@db1:6000,localhost,[::1]:7000/app?sslmode=disable"),
        [
            ("db1:6000".to_owned(), Distance::Remote),
            ("localhost:5432".to_owned(), Distance::Loopback),
            ("::1:7000".to_owned(), Distance::Loopback),
        ]
    );
    assert_eq!(
        names("postgres:///app?host=/run/postgresql&port=5433"),
        [("/run/postgresql/.s.PGSQL.5433".to_owned(), Distance::Socket)]
    );
    assert_eq!(
        names("postgres://%2Frun%2Fpostgresql/app"),
        [("/run/postgresql/.s.PGSQL.5432".to_owned(), Distance::Socket)]
    );
    assert_eq!(names("postgresql://h/?hostaddr=127.0.0.1")[0].1, Distance::Loopback);
}

#[test]
fn parameters_are_decoded_and_have_the_meaning_of_libpq() {
    let url = "postgresql://u@h/d?sslmode=verify-ca&sslrootcert=%2Fetc%2Fca%20x.pem\
               &gssencmode=disable&application_name=a%20b&target_session_attrs=primary\
               &connect_timeout=1";
    let target = target(url, &[]).unwrap();
    assert_eq!(target.tls.mode, Some(SslMode::VerifyCa));
    assert_eq!(target.tls.roots, Some(Roots::File(PathBuf::from("/etc/ca x.pem"))));
    assert_eq!(target.connect_timeout, Some(Duration::from_secs(2)));
    let driver = &target.endpoints[0].driver;
    assert_eq!(driver.get_application_name(), Some("a b"));
    assert_eq!(driver.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
}

#[test]
fn connection_string_says_the_same_as_a_url() {
    let text = r"host=db port = 6000 user='a b' password='it\'s \\ x' dbname=app sslmode=require";
    let found = target(text, &[]).unwrap();
    assert_eq!(found.endpoints[0].name, "db:6000");
    assert_eq!(found.endpoints[0].driver.get_user(), Some("a b"));
    assert_eq!(password(&found), Some(r"it's \ x"));
    assert_eq!(found.tls.mode, Some(SslMode::Require));
    for text in ["host=db password='open", "host=db user", "host=db = x"] {
        assert!(target(text, &[]).is_err(), "{text}");
    }
}

#[test]
fn environment_completes_what_is_open_and_replaces_nothing() {
    let variables = [
        ("PGHOST", "db"),
        ("PGPORT", "6000"),
        ("PGUSER", "other"),
        ("PGPASSWORD", "pw"),
        ("PGDATABASE", "app"),
        ("PGSSLMODE", "verify-ca"),
        ("PGSSLROOTCERT", "/ca.pem"),
        ("PGAPPNAME", "mine"),
        ("PGOPTIONS", "-c geqo=off"),
        ("PGCHANNELBINDING", "require"),
        ("PGTARGETSESSIONATTRS", "any"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGSSLCRL", "/crl.pem"),
    ];
    let found = target("postgresql://me@/?sslmode=require", &variables).unwrap();
    assert_eq!(found.endpoints[0].name, "db:6000");
    assert_eq!(found.tls.mode, Some(SslMode::Require));
    assert_eq!(found.tls.roots, Some(Roots::File("/ca.pem".into())));
    assert_eq!(found.tls.revoked, Some("/crl.pem".into()));
    assert_eq!(found.connect_timeout, Some(Duration::from_secs(7)));
    let driver = &found.endpoints[0].driver;
    assert_eq!((driver.get_user(), driver.get_dbname()), (Some("me"), Some("app")));
    assert_eq!(driver.get_application_name(), Some("mine"));
    assert_eq!(driver.get_options(), Some("-c geqo=off"));
    assert_eq!(driver.get_channel_binding(), ChannelBinding::Require);
    assert_eq!(driver.get_target_session_attrs(), TargetSessionAttrs::Any);
    assert_eq!(password(&found), Some("pw"));
    // The environment alone is enough.
    assert_eq!(target("", &variables).unwrap().endpoints[0].name, "db:6000");
    assert_eq!(target("", &[("PGUSER", "me")]).err(), Some(UrlError::Missing));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name_and_with_a_remedy() {
    for (url, variables, text) in [
        ("postgresql://h/d", &[("PGREQUIREPEER", "x")][..], "environment variable PGREQUIREPEER"),
        ("postgresql://h/d", &[("PGSSLMODE", "ful")], "sslmode (environment variable PGSSLMODE)"),
        ("postgresql://h/d?gssencmode=require", &[], "use sslmode=verify-full"),
        ("postgresql://h/d?sslcrldir=x", &[], "name it with sslcrl"),
        ("postgresql://u@h/d?schema=public", &[], "the parameter schema, which is Prisma's"),
        ("postgresql://u@h/d?currentSchema=x", &[], "JDBC's"),
        ("postgresql://u@h/d?wonderful=x", &[], "the unknown parameter wonderful; remove it"),
        ("postgresql://u@h/d?sslmod=require", &[], "sslmod; did you mean sslmode?"),
        ("postgresql://h/d?sslnegotiation=direct", &[], "sslnegotiation=direct needs"),
        ("postgresql://h/d?target_session_attrs=standby", &[], "the relay writes"),
        ("postgresql://h:0/d", &[], "an invalid port; it takes a number from 1 to 65535"),
        (
            "postgresql://h/d?service=lost",
            &[],
            "connection service lost, which is in none of the files",
        ),
        ("postgresql:///app", &[], "names no host"),
    ] {
        let error = target(url, variables).err().unwrap_or_else(|| panic!("{url}")).to_string();
        assert!(error.contains(text), "{url}: {error}");
    }
    let jdbc = target("postgresql://h/d?ssl=true", &[]).unwrap();
    assert_eq!(jdbc.tls.mode, Some(SslMode::Require));
}

#[test]
fn service_and_password_file_come_after_the_text() {
    let home = tempfile::tempdir().unwrap();
    let home_text = home.path().to_str().unwrap();
    let services = "# ours\n[other]\nhost=wrong\n\n[orders]\nhost=db\nport=6000\nuser=app\n";
    write(&home.path().join(".pg_service.conf"), services, 0o644);
    let passwords = "# host:port:database:user:password\n\
                     db:6000:else:app:wrong\n\
                     *:6000:a\\:b:app:p\\:w\\\\:rest\n";
    write(&home.path().join(".pgpass"), passwords, 0o600);
    let variables = [("HOME", home_text), ("PGSERVICE", "orders"), ("PGPORT", "7000")];
    let found = target("postgresql:///a%3Ab", &variables).unwrap();
    assert_eq!(found.endpoints[0].name, "db:6000");
    assert_eq!(password(&found), Some(r"p:w\"));
    // The text wins over the service, and a password over the file.
    let found = target("service=orders port=8000 password=x", &[("HOME", home_text)]).unwrap();
    assert_eq!(found.endpoints[0].name, "db:8000");
    assert_eq!(password(&found), Some("x"));
    // As in libpq, a file that others can read is ignored.
    write(&home.path().join(".pgpass"), passwords, 0o640);
    assert_eq!(password(&target("postgresql:///a%3Ab", &variables).unwrap()), None);
}

// A password that was not percent-encoded is cut at its special character, and its rest then
// stands where a host, a port or a parameter is expected.
#[test]
fn no_part_of_a_password_is_in_an_error() {
    for url in [
        "postgresql://app:s3cr?et4=x@h/d",
        "postgresql://app:s3cr?et4@h/d",
        "postgresql://app:s3cr?et4=x",
        "postgresql://app:s3cr@et4@h/d",
        "postgresql://app:s3cr@et4:et4/d",
        "postgresql://app:s3cr/et4@h/d",
        "postgresql://app:s3cr%ff@h:et4/d?hostaddr=et4",
        "postgresql://app:s3cr%zz@h/d",
        "postgresql://app:s3cr@h/d?sslmode=et4",
        "postgresql://app:s3cr@h/d?connect_timeout=et4",
        "mysql://app:s3cr:et4@h/d",
        "host=h password=s3cr et4=x",
        "host=h password='s3cr et4",
    ] {
        let text = refusal(url).to_string();
        assert!(!text.contains("s3cr") && !text.contains("et4"), "{text}");
    }
}
