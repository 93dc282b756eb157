//! A host that joins, and the control plane's own command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mesh_credentials::control_plane_check::{ControlPlaneCheck, KnownBy};
use mesh_credentials::join_token::JoinToken;
use mesh_credentials::node_key_pair::NodeKeyPair;
use mesh_credentials::tls;
use mesh_credentials::trust::Trust;
use mesh_rest::join::Joined;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::access::client::{Answer, Connection, request, with_json};
use crate::process::{ControlPlane, Setup};
use crate::stepped_clock::machine_seconds;

/// What `quilt-mesh-control` says, told this, where `setup` serves. An error: what it says when it refuses.
pub(crate) fn told(setup: &Setup, words: &[&str]) -> Result<String, String> {
    let said = tell(setup, words);
    match said.status.success() {
        true => Ok(String::from_utf8(said.stdout).unwrap()),
        false => Err(String::from_utf8(said.stderr).unwrap()),
    }
}

/// The same, with all that it says beside it.
pub(crate) fn tell(setup: &Setup, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quilt-mesh-control"))
        .args(words)
        .arg("--state-dir")
        .arg(setup.folder())
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub(crate) fn token(setup: &Setup, more: &[&str]) -> JoinToken {
    let words = [&["token", "create"], more].concat();
    told(setup, &words).unwrap().trim().parse().unwrap()
}

/// A host, with what it keeps on its disk.
pub(crate) struct Host {
    pub(crate) key: NodeKeyPair,
    pub(crate) joined: Option<Joined>,
    pub(crate) clock: Clock,
    /// The address that it connects from; `None`: whichever the kernel chooses.
    pub(crate) from: Option<Ipv4Addr>,
}

/// A host's clock: so many seconds before the machine's.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock(pub(crate) i64);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(machine_seconds() + self.0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            key: NodeKeyPair::make().unwrap(),
            joined: None,
            clock: Clock::default(),
            from: None,
        }
    }

    /// Asks over TLS. An error: the connection did not come to be, or ended.
    pub(crate) async fn ask(
        &self,
        address: SocketAddr,
        known_by: KnownBy,
        request: &str,
    ) -> std::io::Result<Answer> {
        let mut connection = self.connect(address, known_by).await?;
        connection.send(request).await?;
        connection.answer().await
    }

    /// A connection as the node that it is.
    pub(crate) async fn connected(
        &self,
        control: &ControlPlane,
    ) -> Connection<TlsStream<TcpStream>> {
        let authorities = &self.joined.as_ref().unwrap().authorities;
        let known_by = KnownBy::Trust(Trust::from_pem(authorities).unwrap());
        self.connect(control.address(), known_by).await.unwrap()
    }

    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
        known_by: KnownBy,
    ) -> std::io::Result<Connection<TlsStream<TcpStream>>> {
        let check = Arc::new(ControlPlaneCheck::new(known_by));
        let key = self.key.pem();
        let identity = self
            .joined
            .as_ref()
            .map(|joined| (joined.certificate.as_str(), key.as_str()));
        let mut config = tls::client(check, identity).unwrap();
        config.time_provider = Arc::new(self.clock);
        let config = Arc::new(config);
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        let stream = socket.connect(address).await?;
        let name = address.ip().into();
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        Ok(Connection::new(stream))
    }

    /// Asks as the node that it is.
    pub(crate) async fn call(&self, control: &ControlPlane, path: &str, body: &Value) -> Answer {
        self.try_call(control, path, body).await.unwrap()
    }

    pub(crate) async fn get(&self, control: &ControlPlane, path: &str) -> Answer {
        let authorities = &self.joined.as_ref().unwrap().authorities;
        let known_by = KnownBy::Trust(Trust::from_pem(authorities).unwrap());
        let asked = request("GET", path, "");
        self.ask(control.address(), known_by, &asked).await.unwrap()
    }

    pub(crate) async fn try_call(
        &self,
        control: &ControlPlane,
        path: &str,
        body: &Value,
    ) -> std::io::Result<Answer> {
        let authorities = &self.joined.as_ref().unwrap().authorities;
        let known_by = KnownBy::Trust(Trust::from_pem(authorities).unwrap());
        let request = with_json("POST", path, "", body);
        self.ask(control.address(), known_by, &request).await
    }

    pub(crate) async fn try_join(
        &mut self,
        control: &ControlPlane,
        token: &JoinToken,
        node_key: Option<&str>,
    ) -> Result<(), Answer> {
        let request = self.key.request().unwrap();
        let mut body = json!({"token": token.to_string(), "request": request});
        if let Some(node_key) = node_key {
            body["node_key"] = node_key.into();
        }
        let known_by = KnownBy::Key(token.authority);
        self.joined = None;
        let request = with_json("POST", "/api/join", "", &body);
        let answer = self.ask(control.address(), known_by, &request);
        let answer = answer.await.unwrap();
        if answer.status != 200 {
            return Err(answer);
        }
        self.joined = Some(serde_json::from_str(&answer.body).unwrap());
        Ok(())
    }

    pub(crate) async fn join(control: &ControlPlane, token: &JoinToken) -> Self {
        let mut host = Self::new();
        host.try_join(control, token, None).await.unwrap();
        host
    }

    /// Joins as a host that registered with this key before it had a certificate.
    pub(crate) async fn join_with_key(
        control: &ControlPlane,
        token: &JoinToken,
        node_key: &str,
    ) -> Self {
        let mut host = Self::new();
        let joined = host.try_join(control, token, Some(node_key)).await;
        joined.unwrap();
        host
    }

    pub(crate) async fn renew(&mut self, control: &ControlPlane) -> Answer {
        let request = self.key.request().unwrap();
        let answer = self
            .call(control, "/api/renew", &json!({"request": request}))
            .await;
        if answer.status == 200 {
            self.joined = Some(serde_json::from_str(&answer.body).unwrap());
        }
        answer
    }

    /// The request by which its certificate is renewed.
    pub(crate) fn renewal(&self) -> Value {
        json!({"request": self.key.request().unwrap()})
    }

    pub(crate) fn node_id(&self) -> &str {
        &self.joined.as_ref().unwrap().node_id
    }

    pub(crate) fn mesh_id(&self) -> &str {
        &self.joined.as_ref().unwrap().mesh_id
    }

    /// Registers, and returns its subnet.
    pub(crate) async fn register(
        &self,
        control: &ControlPlane,
        hostname: &str,
        host_ip: &str,
    ) -> String {
        let answer = self
            .try_register(control, hostname, host_ip, json!({}))
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["node_id"], self.node_id());
        body["subnet"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn try_register(
        &self,
        control: &ControlPlane,
        hostname: &str,
        host_ip: &str,
        more: Value,
    ) -> Answer {
        let mut body = json!({"hostname": hostname, "host_ip": host_ip});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        self.call(control, "/api/nodes/register", &body).await
    }

    pub(crate) async fn beat(&self, control: &ControlPlane) -> Answer {
        let path = format!("/api/nodes/{}/heartbeat", self.node_id());
        self.call(control, &path, &json!({})).await
    }
}
