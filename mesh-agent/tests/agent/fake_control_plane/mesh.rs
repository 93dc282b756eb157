//! What a control plane with an authority of its own does beside: lets hosts join, and knows them by certificates.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Json, Router,
    extract::{ConnectInfo, Request, State as Shared, connect_info::Connected},
    http::{HeaderValue, Method, header::DATE},
    middleware::Next,
    response::{IntoResponse as _, Response},
    routing::{get, post},
    serve::{IncomingStream, Listener},
};
use mesh_credentials::{
    authority::{self, Authority, GRACE},
    certificate::Presented,
    join_token::JoinToken,
    key_digest::KeyDigest,
    name::{MeshId, Name},
    node_check::NodeCheck,
    secret::Secret,
    tls,
    trust::Trust,
};
use mesh_rest::{
    join::{AUTHORITIES_HEADER, AuthorityList, Join, Joined, Renew},
    problem::ProblemDocument,
    problem_kind::Kind,
};
use rustls::{ServerConfig, pki_types::CertificateDer};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Unix seconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// What a fake control plane has that has an authority.
pub(crate) struct Mesh {
    /// All that are trusted.
    pub(crate) authorities: Vec<Authority>,
    /// Which of them signs.
    pub(crate) signs: usize,
    /// By how much its clock is ahead, in seconds: that of its certificate and of its answers.
    pub(crate) clock_ahead: i64,
    /// How long ago the next certificates for nodes were signed, in seconds; those after them now.
    pub(crate) signed_ago: VecDeque<i64>,
    /// It shows the certificate of the right authority, and its own is signed by this one.
    pub(crate) impostor: Option<Authority>,
    /// Uses left of each join token.
    pub(crate) tokens: BTreeMap<String, u32>,
    /// By which key a node is known; none: it was revoked.
    pub(crate) nodes: BTreeMap<String, Option<KeyDigest>>,
    /// The nodes that had a node key before.
    pub(crate) node_keys: BTreeMap<String, String>,
    /// What becomes of answers that let a host join.
    pub(crate) forged: Option<fn(&mut Joined)>,
    /// What renewals are refused with.
    pub(crate) renewals_refused: Option<Kind>,
    pub(crate) joins: Vec<Join>,
    pub(crate) renewals: usize,
    /// The expiry of the certificate that each call of a node was made with.
    pub(crate) shown: Vec<i64>,
    /// Calls of nodes that were refused.
    pub(crate) refusals: usize,
}

impl Mesh {
    fn new() -> Self {
        let first = Authority::make(MeshId::make(), now()).unwrap();
        Self {
            authorities: vec![first],
            signs: 0,
            clock_ahead: 0,
            signed_ago: VecDeque::new(),
            impostor: None,
            tokens: BTreeMap::new(),
            nodes: BTreeMap::new(),
            node_keys: BTreeMap::new(),
            forged: None,
            renewals_refused: None,
            joins: Vec::new(),
            renewals: 0,
            shown: Vec::new(),
            refusals: 0,
        }
    }

    fn now(&self) -> i64 {
        now() + self.clock_ahead
    }

    pub(crate) fn signing(&self) -> &Authority {
        &self.authorities[self.signs]
    }

    /// Another authority of the same mesh, which does not sign yet.
    pub(crate) fn add_authority(&mut self) {
        let mesh = self.signing().mesh().clone();
        self.authorities.push(Authority::make(mesh, now()).unwrap());
    }

    fn trust(&self) -> Trust {
        let trusted = self.authorities.iter().map(|of| of.trusted().clone());
        Trust::new(trusted.collect()).unwrap()
    }

    fn digest(&self) -> String {
        self.trust().digest(self.signing().trusted().key())
    }

    /// A token that lets so many hosts join.
    pub(crate) fn token(&mut self, uses: u32) -> String {
        let token = JoinToken {
            authority: self.signing().trusted().key(),
            id: format!("t{}", self.tokens.len()),
            secret: Secret::make().unwrap(),
        };
        self.tokens.insert(token.to_string(), uses);
        token.to_string()
    }

    fn server(&self) -> ServerConfig {
        let signing = self.signing();
        let signed_by = self.impostor.as_ref().unwrap_or(signing);
        let address = [Ipv4Addr::LOCALHOST.into()];
        let identity = signed_by.sign_control_plane(&[], &address, self.now());
        let identity = identity.unwrap();
        let mut chain = tls::certificates(&identity.certificate).unwrap();
        chain.push(signing.trusted().der.clone());
        ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(NodeCheck::new(self.trust())))
            .with_single_cert(chain, tls::private_key(&identity.key).unwrap())
            .unwrap()
    }

    fn joined(&mut self, request: &authority::Request, node_id: &str) -> Joined {
        let signed = self.now() - self.signed_ago.pop_front().unwrap_or(0);
        let certificate = self.signing().sign_node(request, node_id, signed).unwrap();
        let mut joined = Joined {
            node_id: node_id.to_owned(),
            mesh_id: self.signing().mesh().to_string(),
            certificate,
            authorities: self.trust().pem(),
            authorities_digest: self.digest(),
            time: self.now(),
        };
        if let Some(forge) = self.forged {
            forge(&mut joined);
        }
        joined
    }

    /// Who asks, if that is a node.
    fn judge(&self, peer: &Peer, renews: bool) -> Result<String, Kind> {
        let Some(shown) = &peer.0 else {
            return Err(Kind::Unauthorized);
        };
        let Name::Node { node_id, .. } = &shown.name else {
            return Err(Kind::Unauthorized);
        };
        if self.nodes.get(node_id) != Some(&Some(shown.key)) {
            return Err(Kind::Unauthorized);
        }
        if self.now() < shown.not_before {
            return Err(Kind::Clock);
        }
        let grace = if renews { GRACE } else { 0 };
        if self.now() > shown.not_after + grace {
            return Err(Kind::CertificateExpired);
        }
        Ok(node_id.clone())
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer(Option<Presented>);

/// The node of the certificate that a request was made with.
#[derive(Debug, Clone)]
pub(super) struct NodeOfCertificate(pub(super) String);

pub(crate) type SharedMesh = Arc<Mutex<Mesh>>;

pub(super) fn mesh() -> SharedMesh {
    Arc::new(Mutex::new(Mesh::new()))
}

/// The routes of nodes behind the mesh's door, and those that lead through it.
pub(super) fn guarded(routes: Router, mesh: &SharedMesh) -> Router {
    let admission = axum::middleware::from_fn_with_state(Arc::clone(mesh), admit);
    let words = axum::middleware::from_fn_with_state(Arc::clone(mesh), beside);
    Router::new()
        .route("/api/join", post(join))
        .route("/api/ca", get(authorities))
        .route("/api/renew", post(renew))
        .with_state(Arc::clone(mesh))
        .merge(routes.layer(admission))
        .layer(words)
}

fn lock(mesh: &SharedMesh) -> MutexGuard<'_, Mesh> {
    mesh.lock().unwrap()
}

fn problem(kind: Kind, detail: &str) -> Response {
    let status = axum::http::StatusCode::from_u16(kind.status()).unwrap();
    (status, Json(ProblemDocument::new(kind, detail))).into_response()
}

async fn admit(Shared(mesh): Shared<SharedMesh>, mut request: Request, next: Next) -> Response {
    let ConnectInfo(peer) = request
        .extensions()
        .get::<ConnectInfo<Peer>>()
        .unwrap()
        .clone();
    let judged = {
        let mut mesh = lock(&mesh);
        let judged = mesh.judge(&peer, false).and_then(|node_id| {
            let path = request.uri().path();
            let others = path.starts_with("/api/nodes/") && path != "/api/nodes/register";
            match others && !path.contains(&format!("/{node_id}/")) {
                true => Err(Kind::Forbidden),
                false => Ok(node_id),
            }
        });
        match &judged {
            Ok(_) => mesh.shown.extend(peer.0.map(|shown| shown.not_after)),
            Err(_) => mesh.refusals += 1,
        }
        judged
    };
    match judged {
        Ok(node_id) => {
            request.extensions_mut().insert(NodeOfCertificate(node_id));
            next.run(request).await
        }
        Err(kind) => problem(kind, "the fake does not know you"),
    }
}

/// What stands beside the body.
async fn beside(Shared(mesh): Shared<SharedMesh>, request: Request, next: Next) -> Response {
    let waits = request.method() == Method::GET;
    let mut response = next.run(request).await;
    let mesh = lock(&mesh);
    let digest = HeaderValue::from_str(&mesh.digest()).unwrap();
    if !waits {
        response.headers_mut().insert(AUTHORITIES_HEADER, digest);
    }
    let at = UNIX_EPOCH + Duration::from_secs(mesh.now().unsigned_abs());
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(at)).unwrap();
    response.headers_mut().insert(DATE, date);
    response
}

async fn authorities(Shared(mesh): Shared<SharedMesh>) -> Json<AuthorityList> {
    Json(AuthorityList {
        mesh_id: lock(&mesh).signing().mesh().to_string(),
        authorities: Vec::new(),
    })
}

async fn join(Shared(mesh): Shared<SharedMesh>, Json(join): Json<Join>) -> Response {
    let mut mesh = lock(&mesh);
    mesh.joins.push(join.clone());
    match mesh.tokens.get_mut(&join.token) {
        None => return problem(Kind::TokenRefused, "there is no such token"),
        Some(0) => return problem(Kind::TokenRefused, "the token was used already"),
        Some(uses) => *uses -= 1,
    }
    let request = authority::Request::read(&join.request).unwrap();
    let new = format!("own-{}", mesh.nodes.len() + 1);
    let node_id = match &join.node_key {
        Some(key) => mesh.node_keys.entry(key.clone()).or_insert(new).clone(),
        None => new,
    };
    mesh.nodes.insert(node_id.clone(), Some(request.key));
    Json(mesh.joined(&request, &node_id)).into_response()
}

async fn renew(
    Shared(mesh): Shared<SharedMesh>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Json(renew): Json<Renew>,
) -> Response {
    let mut mesh = lock(&mesh);
    mesh.renewals += 1;
    if let Some(kind) = mesh.renewals_refused {
        return problem(kind, "the fake renews nothing");
    }
    let request = authority::Request::read(&renew.request).unwrap();
    match mesh.judge(&peer, true) {
        Ok(node_id) => Json(mesh.joined(&request, &node_id)).into_response(),
        Err(kind) => problem(kind, "the fake does not know you"),
    }
}

/// The registration's node is the certificate's.
pub(super) fn node_of(certificate: Option<Extension<NodeOfCertificate>>) -> Option<Value> {
    certificate.map(|Extension(NodeOfCertificate(node_id))| node_id.into())
}

/// Accepts connections, and speaks TLS on each as the mesh has it then.
pub(super) struct TlsListener {
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, Peer)>,
    acceptor: JoinHandle<()>,
}

impl TlsListener {
    pub(super) fn new(listener: TcpListener, mesh: SharedMesh) -> Self {
        let (done, accepted) = mpsc::channel(16);
        let acceptor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let config = lock(&mesh).server();
                let done = done.clone();
                tokio::spawn(async move {
                    let Ok(stream) = TlsAcceptor::from(Arc::new(config)).accept(stream).await
                    else {
                        return;
                    };
                    let shown = stream.get_ref().1.peer_certificates();
                    let shown = shown.and_then(<[CertificateDer<'_>]>::first);
                    let peer = Peer(shown.map(|der| Presented::read(der).unwrap()));
                    let _ended = done.send((stream, peer)).await;
                });
            }
        });
        Self { accepted, acceptor }
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = Peer;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(Peer(None))
    }
}

impl Connected<IncomingStream<'_, TlsListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Speaks TLS with a certificate and a key that somebody has, both in PEM.
pub(crate) struct Serving {
    pub(crate) address: std::net::SocketAddr,
    _server: tokio::runtime::Runtime,
}

pub(crate) fn serving(chain: &str, key: &str) -> Serving {
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            tls::certificates(chain).unwrap(),
            tls::private_key(key).unwrap(),
        )
        .unwrap();
    let server = super::server();
    let listener = server
        .block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    server.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ended = acceptor.accept(stream).await;
        }
    });
    Serving {
        address,
        _server: server,
    }
}
