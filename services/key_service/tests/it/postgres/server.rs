//! What a server must be, and how a service shows it who it is.

use std::error::Error as _;
use std::os::unix::fs::PermissionsExt as _;

use key_service::app::StartError;
use test_port::free_port;

use crate::binary::issued;
use crate::support::postgres::{Cluster, Durability};
use crate::support::vault::Folder;

const SECRET: &str = "a-password-of-the-tests";

/// Why a vault with this section does not start; nothing if it does.
async fn refusal(section: &str) -> Option<String> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = Folder { database: section.to_owned(), ..Folder::in_a_file() };
    let error: StartError = folder.try_open().await.err()?;
    let (mut text, mut source) = (error.to_string(), error.source());
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Some(text)
}

/// A server on loopback with TLS and passwords; its port, and the PEM of its authority.
async fn over_tcp() -> (Cluster, u16, String) {
    let port = free_port();
    let mut cluster = Cluster::start(Durability::None);
    let mut connection = cluster.connect("public").await;
    let role =
        format!("CREATE ROLE vault LOGIN PASSWORD '{SECRET}'; GRANT CREATE ON DATABASE postgres TO vault");
    sqlx::raw_sql(sqlx::AssertSqlSafe(role)).execute(&mut connection).await.unwrap();
    cluster.stop();
    let data = cluster.folder().join("data");
    let (ca, certificate, key) = issued();
    std::fs::write(data.join("server.crt"), certificate).unwrap();
    write_key(&data.join("server.key"), &key);
    let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
    cluster.serve_over_tcp(port);
    (cluster, port, ca)
}

fn write_key(path: &std::path::Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    crate::support::postgres::own(path);
}

#[tokio::test]
async fn a_server_on_the_network_is_verified_and_asks_for_the_password() {
    let (_cluster, port, ca) = over_tcp().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let files =
        [("ca.pem", ca), ("other.pem", issued().0), ("right", SECRET.to_owned()), ("wrong", "no".to_owned())];
    for (name, text) in files {
        std::fs::write(path(name), text).unwrap();
        std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let section = |host: &str, password: &str, ca: &str| {
        format!(
            "[database]\nurl = \"postgres://vault@{host}:{port}/postgres\"\npassword_file = \"{}\"\n{ca}",
            path(password)
        )
    };
    let authority = |name: &str| format!("ca = \"{}\"\n", path(name));
    assert_eq!(refusal(&section("localhost", "right", &authority("ca.pem"))).await, None);
    let other_vault = section("127.0.0.1", "right", "schema = \"other\"\n");
    assert_eq!(refusal(&other_vault).await, None, "on this machine, without TLS");
    let cases = [
        (section("localhost", "right", &authority("other.pem")), "invalid peer certificate"),
        // The certificate is for another name.
        (section("127.0.0.1", "right", &authority("ca.pem")), "invalid peer certificate"),
        (section("localhost", "wrong", &authority("ca.pem")), "password authentication failed"),
    ];
    for (section, expected) in cases {
        let text = refusal(&section).await.expect("refused");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_fit_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere =
        format!("[database]\nurl = \"postgres:///postgres?user=keys&host={}\"\n", folder.path().display());
    let text = refusal(&nowhere).await.unwrap();
    assert!(text.contains("could not open the key database postgres://keys@"), "{text}");
    let cluster = Cluster::start(Durability::None);
    let mut connection = cluster.connect("public").await;
    let make = "CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0";
    sqlx::query(make).execute(&mut connection).await.unwrap();
    let latin = cluster.section("vault").replace("///postgres", "///latin");
    let text = refusal(&latin).await.unwrap();
    assert!(text.contains("server_encoding: expected UTF8, found LATIN1"), "{text}");
}
