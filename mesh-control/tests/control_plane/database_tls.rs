//! A PostgreSQL server that speaks TLS.

use std::fs;
use std::net::IpAddr;

use mesh_testbed::{Postgres, PostgresOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::answer::{Api, node};
use crate::process::Setup;

/// An authority of one's own.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Certificate and key for this address or name.
fn server(authority: &CertifiedIssuer<'_, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_postgresql_server_is_known_by_its_certificate_and_name() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let address: IpAddr = postgres.address().ip();
    let (ours, other) = (authority(), authority());
    let folder = tempfile::tempdir().unwrap();
    let root = |authority: &CertifiedIssuer<'_, KeyPair>, name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, authority.pem()).unwrap();
        path.display().to_string()
    };
    let (ours_file, other_file) = (root(&ours, "ours.pem"), root(&other, "other.pem"));
    let url = postgres.create_database().unwrap();
    let verified = |root: &str| format!("{url}?sslmode=verify-full&sslrootcert={root}");

    // It does not speak TLS at all.
    let said = Setup::new().on(&verified(&ours_file)).start_refused();
    assert!(said.contains("server does not support TLS"), "{said}");

    let (certificate, key) = server(&ours, "db.example");
    postgres.speak_tls(&certificate, &key).unwrap();
    let said = Setup::new().on(&verified(&ours_file)).start_refused();
    assert!(said.contains("not valid for name"), "{said}");

    let (certificate, key) = server(&ours, &address.to_string());
    postgres.speak_tls(&certificate, &key).unwrap();
    let said = Setup::new().on(&verified(&other_file)).start_refused();
    assert!(said.contains("invalid peer certificate"), "{said}");

    // Both what is stored, and what replicas tell each other.
    let replicas = [(); 2].map(|()| Setup::new().on(&verified(&ours_file)));
    let running = replicas.each_ref().map(Setup::start);
    let apis = running.each_ref().map(Api::of);
    apis[0]
        .register(node("alpha", "192.0.2.1"))
        .await
        .admitted();
    assert_eq!(apis[1].nodes().await.len(), 1);
    let plain = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                 WHERE NOT ssl AND datname LIKE 'test%'";
    assert_eq!(
        postgres.execute(&postgres.url(), plain).unwrap().trim(),
        "0"
    );
}
