//! A runtime with TLS.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use mesh_credentials::tls::{certificates, private_key, provider};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier, version::TLS13},
};

use crate::{
    fake_control_plane::server,
    fake_runtime::subnet,
    host::{Host, NOBODY, set_mode},
};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self {
            issuer,
            certificate,
        }
    }

    /// A certificate and its key.
    fn sign(&self, usage: ExtendedKeyUsagePurpose) -> [String; 2] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        [certificate.pem(), key.serialize_pem()]
    }

    /// What a server with TLS does that asks for certificates of this authority.
    fn acceptor(&self) -> TlsAcceptor {
        let [certificate, key] = self.sign(ExtendedKeyUsagePurpose::ServerAuth);
        let mut roots = RootCertStore::empty();
        roots
            .add(certificates(&self.certificate).unwrap().remove(0))
            .unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                certificates(&certificate).unwrap(),
                private_key(&key).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Gives an agent what it needs.
    fn equip(&self, directory: &Path) {
        let [certificate, key] = self.sign(ExtendedKeyUsagePurpose::ClientAuth);
        for (name, text) in [
            ("cert", certificate),
            ("key", key),
            ("ca", self.certificate.clone()),
        ] {
            let new = directory.join("new");
            fs::write(&new, text).unwrap();
            std::os::unix::fs::chown(&new, Some(NOBODY), None).unwrap();
            set_mode(&new, 0o600);
            fs::rename(new, directory.join(name)).unwrap();
        }
    }
}

/// A door with TLS before a runtime, until it is dropped. Returns where it is.
fn door(host: &Host, acceptor: TlsAcceptor, behind: SocketAddr) -> (Runtime, SocketAddr) {
    let start = || {
        let server = server();
        let listener = server
            .block_on(TcpListener::bind(("127.0.0.1", 0)))
            .unwrap();
        let address = listener.local_addr().unwrap();
        server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let mut runtime = TcpStream::connect(behind).await.ok()?;
                    copy_bidirectional(&mut stream, &mut runtime).await.ok()
                });
            }
        });
        (server, address)
    };
    host.netns.run(start).unwrap()
}

fn arguments(host: &Host, address: SocketAddr) -> Vec<String> {
    let file = |name: &str| host.run.path().join(name).to_str().unwrap().to_owned();
    let options = [
        ("--quilt-runtime", format!("https://{address}")),
        ("--runtime-tls-cert", file("cert")),
        ("--runtime-tls-key", file("key")),
        ("--runtime-tls-ca", file("ca")),
    ];
    let words = |(option, value): (&str, String)| [option.to_owned(), value];
    options.into_iter().flat_map(words).collect()
}

#[test]
fn a_runtime_with_tls_is_shown_a_certificate_and_new_files_need_no_restart() {
    let host = Host::new();
    let runtime = host.at_port(true);
    let (right, wrong) = (Authority::new(), Authority::new());
    let (_server, address) = door(&host, right.acceptor(), runtime.address());
    wrong.equip(host.run.path());
    let arguments = arguments(&host, address);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let agent = host.agent(NOBODY, &arguments);
    agent.until_logged("runtime lost");
    assert!(
        agent.logged("invalid peer certificate") > 0,
        "{:#?}",
        agent.log()
    );
    assert_eq!(runtime.calls(), 0);
    right.equip(host.run.path());
    agent.until("all of it", || {
        runtime.state().subnet == subnet(1) && runtime.routes() == [2]
    });
}

#[test]
fn files_of_no_use_end_the_agent_at_its_start_by_name() {
    let host = Host::new();
    let address = "127.0.0.1:50051".parse().unwrap();
    let arguments = arguments(&host, address);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let authority = Authority::new();
    for (name, option) in [
        ("cert", "--runtime-tls-cert"),
        ("key", "--runtime-tls-key"),
        ("ca", "--runtime-tls-ca"),
    ] {
        authority.equip(host.run.path());
        let path = host.run.path().join(name);
        fs::write(&path, "x").unwrap();
        let mut agent = host.agent(NOBODY, &arguments);
        assert!(!agent.wait().success());
        assert!(agent.logged(option) > 0, "{:#?}", agent.log());
    }
    authority.equip(host.run.path());
    set_mode(&host.run.path().join("key"), 0o644);
    let mut agent = host.agent(NOBODY, &arguments);
    assert!(!agent.wait().success());
    assert!(agent.logged("chmod 600") > 0, "{:#?}", agent.log());
}
