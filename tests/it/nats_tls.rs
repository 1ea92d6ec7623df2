//! Tests of how the program authenticates itself to NATS, and whether the connection is encrypted.

use std::{fs, os::unix::fs::PermissionsExt as _};

use postrider::dev::servers::{Nats, NatsOptions};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::support::{
    Fixture,
    daemon::{self, Finished},
    toml::Toml,
};

/// Files of a certificate authority, of another authority that nobody trusts, and of a certificate
/// for `localhost`.
struct Certificates(TempDir);

impl Certificates {
    fn make() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        // The server runs as another user, who has to read the files.
        fs::set_permissions(files.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut signed = CertificateParams::new(["localhost".to_owned()]).unwrap();
        signed.distinguished_name.push(DnType::CommonName, "server");
        for name in ["authority", "stranger"] {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.distinguished_name.push(DnType::CommonName, name);
            files.write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem());
            if name == "authority" {
                let (authority, key) = (Issuer::new(params, key), KeyPair::generate().unwrap());
                let certificate = signed.signed_by(&key, &authority).unwrap();
                files.write("server.pem", &certificate.pem());
                files.write("server.key", &key.serialize_pem());
            }
        }
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
        let path = self.0.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn tls(&self, more: &str) -> String {
        let (certificate, key) = (self.path("server.pem"), self.path("server.key"));
        format!("tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", {more} }}")
    }
}

async fn server(extra: String) -> Nats {
    Nats::start(NatsOptions { extra, ..NatsOptions::default() }).await.unwrap()
}

/// Runs `postrider check` against this NATS URL, with further settings.
async fn check(fixture: &Fixture, url: &str, more: impl FnOnce(Toml) -> Toml) -> Finished {
    let toml = fixture.toml().set("nats.url", url).set("nats.connect_timeout", "2s");
    daemon::run(&more(toml), &["check"]).await
}

#[tokio::test]
async fn login_in_the_url_is_sent() {
    let fixture = Fixture::new().await;
    for (extra, login) in [
        ("authorization { user: me, password: \"p@w:d\" }", "me:p%40w%3Ad"),
        ("authorization { token: \"t0k/en\" }", "t0k%2Fen"),
    ] {
        let server = server(extra.to_owned()).await;
        let right = format!("nats://{login}@127.0.0.1:{}", server.port());
        let found = check(&fixture, &right, |toml| toml).await;
        assert!(found.stdout.contains("ok     nats          version"), "{extra}: {found:?}");
        let wrong = format!("nats://{login}x@127.0.0.1:{}", server.port());
        let found = check(&fixture, &wrong, |toml| toml).await;
        assert_eq!(found.code, Some(77), "{extra}: {found:?}");
        assert!(found.stdout.contains("or the login in nats.url"), "{extra}: {found:?}");
        assert!(!found.stdout.contains("t0k") && !found.stdout.contains("p%40w"), "{found:?}");
    }
}

#[tokio::test]
async fn named_certificates_mean_that_nothing_is_sent_in_the_clear() {
    let (fixture, files) = (Fixture::new().await, Certificates::make());
    let login = "authorization { user: me, password: canary }".to_owned();
    let server = server(login).await;
    let url = format!("nats://me:canary@127.0.0.1:{}", server.port());
    for key in ["nats.tls_ca", "nats.tls_first"] {
        let found = check(&fixture, &url, |toml| match key {
            "nats.tls_ca" => toml.set(key, files.path("authority.pem")),
            _ => toml.set(key, true),
        });
        let found = found.await;
        assert_eq!(found.code, Some(78), "{key}: {found:?}");
        assert!(found.stdout.contains("the server does not speak TLS"), "{key}: {found:?}");
        assert!(found.stdout.contains("give nats-server a tls block"), "{key}: {found:?}");
    }
    assert!(check(&fixture, &url, |toml| toml).await.stdout.contains("ok     nats"));
}

#[tokio::test]
async fn bad_certificate_reads_as_one_and_names_the_key_to_set() {
    let (fixture, files) = (Fixture::new().await, Certificates::make());
    let server = server(files.tls("timeout: 5")).await;
    let (name, address) = (
        format!("nats://localhost:{}", server.port()),
        format!("nats://127.0.0.1:{}", server.port()),
    );
    let with = |file: &str| {
        let path = files.path(file);
        move |toml: Toml| toml.set("nats.tls_ca", path)
    };
    let found = check(&fixture, &name, with("authority.pem")).await;
    assert!(found.stdout.contains("ok     nats"), "{found:?}");
    for (url, file, text, hint) in [
        (&name, "stranger.pem", "is not verified", "set nats.tls_ca to the certificate"),
        (&address, "authority.pem", "names another host", "use a host name in nats.url"),
    ] {
        let found = check(&fixture, url, with(file)).await;
        assert_eq!(found.code, Some(78), "{file}: {found:?}");
        assert!(found.stdout.contains(text) && found.stdout.contains(hint), "{file}: {found:?}");
        assert!(!found.stdout.contains("is it running"), "{file}: {found:?}");
    }
    // The key file is readable by every user, so the program must refuse it.
    let found = check(&fixture, &name, |toml| {
        with("authority.pem")(toml)
            .set("nats.tls_cert", files.path("server.pem"))
            .set("nats.tls_key", files.path("server.key"))
    })
    .await;
    assert_eq!(found.code, Some(78), "{found:?}");
    assert!(found.stdout.contains("can be read by others, so it is not used"), "{found:?}");
}

#[tokio::test]
async fn handshake_comes_first_where_both_sides_say_so() {
    let (fixture, files) = (Fixture::new().await, Certificates::make());
    // After half a second without a handshake the server falls back to a plain greeting, for which
    // the test waits when it starts the server.
    let server = server(files.tls("handshake_first: \"500ms\"")).await;
    let url = format!("nats://localhost:{}", server.port());
    let authority = files.path("authority.pem");
    let found = check(&fixture, &url, |toml| {
        toml.set("nats.tls_ca", authority).set("nats.tls_first", true)
    });
    let found = found.await;
    assert!(found.stdout.contains("ok     nats"), "{found:?}");
}
