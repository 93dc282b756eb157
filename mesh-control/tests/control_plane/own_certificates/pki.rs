//! An authority of one's own, and hosts with its certificates.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use mesh_credentials::tls;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, SanType, SignatureAlgorithm,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::access::client::{Answer, Connection, with_json};
use crate::process::{ControlPlane, Setup};

/// An authority, and what a host that is signed by it shows between.
pub(crate) struct Pki {
    issuer: CertifiedIssuer<'static, KeyPair>,
    root: String,
    between: String,
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// With this common name and nothing else.
pub(crate) fn named(common: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common);
    params
}

/// For a client with this common name and these other names.
pub(crate) fn client(common: &str, names: Vec<SanType>) -> CertificateParams {
    let mut params = named(common);
    params.subject_alt_names = names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub(crate) fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

/// A key. ring makes none of RSA, so that there is one for all.
fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    const RSA: &str = include_str!("rsa_2048.pem");
    match *algorithm == PKCS_RSA_SHA256 {
        true => KeyPair::from_pkcs8_pem_and_sign_algo(RSA, algorithm).unwrap(),
        false => KeyPair::generate_for(algorithm).unwrap(),
    }
}

impl Pki {
    pub(crate) fn new() -> Self {
        Self::called("root")
    }

    pub(crate) fn called(name: &str) -> Self {
        Self::with_keys(name, &PKCS_ECDSA_P256_SHA256)
    }

    fn with_keys(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = key(algorithm);
        let issuer = CertifiedIssuer::self_signed(authority_params(name), key).unwrap();
        Self {
            root: issuer.pem(),
            issuer,
            between: String::new(),
        }
    }

    /// With RSA keys.
    pub(crate) fn of_rsa() -> Self {
        Self::with_keys("root", &PKCS_RSA_SHA256)
    }

    /// With other keys, and two authorities between the root and the hosts.
    pub(crate) fn of_three() -> Self {
        let mut pki = Self::with_keys("root", &PKCS_ECDSA_P384_SHA384);
        for name in ["first between", "second between"] {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
            let params = authority_params(name);
            pki.issuer = CertifiedIssuer::signed_by(params, key, &pki.issuer).unwrap();
            pki.between = pki.issuer.pem() + &pki.between;
        }
        pki
    }

    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Certificate, with those between, and key.
    fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = key(self.issuer.key().algorithm());
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem() + &self.between, key.serialize_pem())
    }

    /// A host that shows this, to a control plane that shows a certificate of the same authority.
    pub(crate) fn host(&self, params: &CertificateParams) -> Host {
        let (certificate, key) = self.sign(params);
        Host {
            shown: Some((certificate, key)),
            root: self.root.clone(),
        }
    }

    /// The same, without what is between.
    pub(crate) fn host_alone(&self, params: &CertificateParams) -> Host {
        let mut host = self.host(params);
        if let Some((certificate, _)) = &mut host.shown {
            certificate.truncate(certificate.len() - self.between.len());
        }
        host
    }

    /// A host that shows nothing.
    pub(crate) fn stranger(&self) -> Host {
        Host {
            shown: None,
            root: self.root.clone(),
        }
    }

    /// Writes what a control plane is given: its certificate by this authority, and `clients` as the one of hosts.
    pub(crate) fn write(&self, folder: &Path, clients: &Self) {
        let mut params = named("control plane");
        let loopback = SanType::IpAddress(Ipv4Addr::LOCALHOST.into());
        params.subject_alt_names = vec![loopback];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let (certificate, key) = self.sign(&params);
        write(&folder.join("own.key"), &key, 0o600);
        write(&folder.join("own.pem"), &certificate, 0o644);
        write(&folder.join("own-ca.pem"), &clients.root, 0o644);
    }

    /// Control planes that show a certificate of this authority, and take those that it signs.
    pub(crate) fn of(&self, mut setup: Setup) -> Setup {
        self.write(setup.folder(), self);
        for (option, file) in [
            ("--tls-cert", "own.pem"),
            ("--tls-key", "own.key"),
            ("--tls-ca", "own-ca.pem"),
        ] {
            let path = setup.folder().join(file);
            setup.set(option, path.to_str().unwrap());
        }
        setup
    }
}

/// Puts a file in the place of another, as a whole.
pub(crate) fn write(path: &Path, text: &str, mode: u32) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(new, path).unwrap();
}

/// A host with a certificate of one's own.
pub(crate) struct Host {
    shown: Option<(String, String)>,
    root: String,
}

impl Host {
    /// Knows the control plane by this root from now on.
    pub(crate) fn trusting(mut self, pki: &Pki) -> Self {
        self.root = pki.root.clone();
        self
    }

    /// An error: the connection did not come to be, or ended.
    pub(crate) async fn try_call(
        &self,
        control: &ControlPlane,
        path: &str,
        body: &Value,
    ) -> io::Result<Answer> {
        let mut connection = self.connect(control).await?;
        connection.send(&with_json("POST", path, "", body)).await?;
        connection.answer().await
    }

    pub(crate) async fn connect(
        &self,
        control: &ControlPlane,
    ) -> io::Result<Connection<TlsStream<TcpStream>>> {
        let shown = self.shown.as_ref().map(|(a, b)| (a.as_str(), b.as_str()));
        let config = tls::client_of_own_authority(&self.root, shown).unwrap();
        let stream = TcpStream::connect(control.address()).await?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(control.address().ip().into(), stream)
            .await?;
        Ok(Connection::new(stream))
    }

    pub(crate) async fn call(&self, control: &ControlPlane, path: &str, body: &Value) -> Answer {
        self.try_call(control, path, body).await.unwrap()
    }

    pub(crate) async fn try_register(
        &self,
        control: &ControlPlane,
        hostname: &str,
        host_ip: &str,
        node_key: &str,
    ) -> Answer {
        let body = json!({"hostname": hostname, "host_ip": host_ip, "node_key": node_key});
        self.call(control, "/api/nodes/register", &body).await
    }

    /// Registers; its id and subnet.
    pub(crate) async fn register(
        &self,
        control: &ControlPlane,
        hostname: &str,
        host_ip: &str,
    ) -> (String, String) {
        let key = format!("key-of-{hostname}");
        let answer = self.try_register(control, hostname, host_ip, &key).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        let text = |member: &str| body[member].as_str().unwrap().to_owned();
        (text("node_id"), text("subnet"))
    }

    /// The status of the answer to a heartbeat for a node.
    pub(crate) async fn beat(&self, control: &ControlPlane, node_id: &str) -> u16 {
        let path = format!("/api/nodes/{node_id}/heartbeat");
        self.call(control, &path, &json!({})).await.status
    }
}
