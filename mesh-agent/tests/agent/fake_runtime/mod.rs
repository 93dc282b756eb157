//! A runtime that serves both protocols, or only the frozen one, and fails on request. It
//! checks at every call that no route points at nothing.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use mesh_proto::{
    mesh::{NodeSettings, Peer, mesh_dataplane_server::MeshDataplaneServer},
    quilt::quilt_runtime_server::QuiltRuntimeServer,
};
use tokio::{
    net::{TcpListener, UnixListener},
    runtime::Runtime,
};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tonic::{Request, Status, transport::Server};

use crate::fake_control_plane::server;

mod mesh_dataplane;
mod quilt_runtime;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Configure(String),
    Inject(String, String),
    Remove(String),
    Sync {
        generation: u64,
        host_address: String,
        /// Subnet and address.
        peers: Vec<(String, String)>,
        /// Subnets of those that are suspect.
        suspects: Vec<String>,
    },
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Every call, in order, over all lives of this runtime.
    pub(crate) calls: Vec<Call>,
    pub(crate) subnet: String,
    pub(crate) peers: BTreeSet<String>,
    /// The peers', and those that were injected.
    pub(crate) routes: BTreeSet<String>,
    pub(crate) injected: BTreeSet<String>,
    pub(crate) generation: u64,
    /// Moments at which a route pointed at nothing.
    pub(crate) violations: Vec<String>,
    pub(crate) hangs: bool,
    pub(crate) refuse_subnets: BTreeSet<String>,
    pub(crate) refuse_routes: BTreeSet<String>,
    pub(crate) reject_peers: BTreeSet<String>,
    /// Whether it refuses whole peer sets.
    pub(crate) refuse_sync: bool,
    /// Whether it refuses to remove routes.
    pub(crate) keep_routes: bool,
    /// Whether probes fail.
    pub(crate) fail_probes: bool,
    /// How often it was told to ask its peers for a check.
    pub(crate) checks: usize,
    pub(crate) serves_sync: bool,
    /// What the last sync that was taken said.
    pub(crate) entries: Vec<Peer>,
    pub(crate) settings: Option<NodeSettings>,
    /// What it says that it can do; `None` is a runtime from before it was asked.
    pub(crate) capabilities: Option<Vec<String>>,
    /// The MTU of its overlay.
    pub(crate) overlay_mtu: u32,
    pub(crate) serves_probe: bool,
    /// Subnets of the peers that answer probes.
    pub(crate) alive: BTreeSet<String>,
    pub(crate) probes: usize,
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

pub(crate) struct FakeRuntime {
    address: SocketAddr,
    /// Where it serves instead.
    socket: Option<PathBuf>,
    /// Whether it serves the three calls.
    serves_agents: bool,
    /// Whether it refuses whoever calls.
    refuses: bool,
    state: Arc<Mutex<State>>,
    server: Option<Runtime>,
}

impl FakeRuntime {
    pub(crate) fn start() -> Self {
        Self::new(true)
    }

    /// One that knows only the three calls of quilt.proto.
    pub(crate) fn with_three_calls() -> Self {
        Self::new(false)
    }

    /// One that serves what runtimes did before there were settings and capabilities.
    pub(crate) fn from_before() -> Self {
        let runtime = Self::start();
        runtime.state().capabilities = None;
        runtime
    }

    fn new(serves_sync: bool) -> Self {
        let mut runtime = Self::stopped(serves_sync);
        runtime.resume();
        runtime
    }

    fn stopped(serves_sync: bool) -> Self {
        let state = State {
            serves_sync,
            serves_probe: true,
            capabilities: Some(Vec::new()),
            overlay_mtu: 1450,
            ..State::default()
        };
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            socket: None,
            serves_agents: true,
            refuses: false,
            state: Arc::new(Mutex::new(state)),
            server: None,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Ends the server and every connection to it.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Serves, on the same port as before.
    pub(crate) fn resume(&mut self) {
        let server = server();
        let service = Service(Arc::clone(&self.state));
        let mesh = self.state().serves_sync;
        let (agents, refuses) = (self.serves_agents, self.refuses);
        let check = move |request: Request<()>| match refuses {
            true => Err(Status::permission_denied("not you")),
            false => Ok(request),
        };
        let routes = {
            let _guard = server.enter();
            Server::builder()
                .add_optional_service(
                    agents.then(|| QuiltRuntimeServer::with_interceptor(service.clone(), check)),
                )
                .add_optional_service(
                    mesh.then(|| MeshDataplaneServer::with_interceptor(service, check)),
                )
        };
        if let Some(path) = &self.socket {
            let listener = server.block_on(async { UnixListener::bind(path) }).unwrap();
            server.spawn(routes.serve_with_incoming(UnixListenerStream::new(listener)));
        } else {
            let listener = server.block_on(TcpListener::bind(self.address)).unwrap();
            self.address = listener.local_addr().unwrap();
            server.spawn(routes.serve_with_incoming(TcpListenerStream::new(listener)));
        }
        self.server = Some(server);
    }

    /// A crash that takes everything along, and a new start.
    pub(crate) fn restart_empty(&mut self) {
        self.stop();
        {
            let mut state = self.state();
            state.subnet.clear();
            state.peers.clear();
            state.entries.clear();
            state.routes.clear();
            state.injected.clear();
            state.generation = 0;
        }
        self.resume();
    }

    pub(crate) fn calls(&self) -> usize {
        self.state().calls.len()
    }

    pub(crate) fn calls_since(&self, mark: usize) -> Vec<Call> {
        self.state().calls[mark..].to_vec()
    }

    /// How many calls since `mark` are `SyncPeers` with `peers` peers.
    pub(crate) fn syncs_since(&self, mark: usize, peers: usize) -> usize {
        let calls = self.calls_since(mark);
        let is_sync =
            |call: &&Call| matches!(call, Call::Sync { peers: p, .. } if p.len() == peers);
        calls.iter().filter(is_sync).count()
    }

    /// The routes, as third octets.
    pub(crate) fn routes(&self) -> Vec<u8> {
        octets(&self.state().routes)
    }

    /// The peers, as third octets.
    pub(crate) fn peers(&self) -> Vec<u8> {
        octets(&self.state().peers)
    }
}

#[allow(dead_code, reason = "for tests of how an agent gets to its runtime")]
impl FakeRuntime {
    /// One that serves at an address.
    pub(crate) fn at(address: SocketAddr, serves_sync: bool) -> Self {
        let mut runtime = Self::stopped(serves_sync);
        runtime.address = address;
        runtime.resume();
        runtime
    }

    /// One that serves a Unix socket.
    pub(crate) fn at_socket(path: &Path) -> Self {
        let mut runtime = Self::stopped(true);
        runtime.socket = Some(path.to_owned());
        runtime.resume();
        runtime
    }

    /// One whose socket is for others than agents.
    pub(crate) fn at_socket_for_others(path: &Path) -> Self {
        let mut runtime = Self::stopped(true);
        runtime.socket = Some(path.to_owned());
        runtime.serves_agents = false;
        runtime.resume();
        runtime
    }

    /// One whose socket is for others than whoever calls.
    pub(crate) fn at_socket_of_others(path: &Path) -> Self {
        let mut runtime = Self::stopped(true);
        runtime.socket = Some(path.to_owned());
        runtime.refuses = true;
        runtime.resume();
        runtime
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for FakeRuntime {
    fn drop(&mut self) {
        self.stop();
    }
}

fn octets(subnets: &BTreeSet<String>) -> Vec<u8> {
    let third = |subnet: &String| subnet.split('.').nth(2).unwrap().parse().unwrap();
    let mut octets: Vec<u8> = subnets.iter().map(third).collect();
    octets.sort_unstable();
    octets
}

pub(crate) fn subnet(n: u8) -> String {
    format!("10.42.{n}.0/24")
}

pub(crate) fn inject(n: u8) -> Call {
    Call::Inject(subnet(n), "vxlan100".to_owned())
}

impl Service {
    async fn record(&self, call: Call) {
        self.0.lock().unwrap().calls.push(call);
        self.hang_if_told().await;
    }

    async fn hang_if_told(&self) {
        let hangs = self.0.lock().unwrap().hangs;
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}
