//! A runtime that serves both protocols, or only the frozen one, and fails on request. It
//! checks at every call that no route points at nothing.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use mesh_proto::{
    mesh::{
        GetStatusRequest, GetStatusResponse, ListPeersRequest, ListPeersResponse, RejectedPeer,
        SyncPeersRequest, SyncPeersResponse,
        mesh_dataplane_server::{MeshDataplane, MeshDataplaneServer},
    },
    quilt::{
        ConfigureNodeSubnetRequest, ConfigureNodeSubnetResponse, InjectRouteRequest,
        InjectRouteResponse, RemoveRouteRequest, RemoveRouteResponse,
        quilt_runtime_server::{QuiltRuntime, QuiltRuntimeServer},
    },
};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::fake_control_plane::server;

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
    },
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// Every call, in order, over all lives of this runtime.
    pub(crate) calls: Vec<Call>,
    pub(crate) subnet: String,
    pub(crate) peers: BTreeSet<String>,
    pub(crate) routes: BTreeSet<String>,
    pub(crate) generation: u64,
    /// Moments at which a route pointed at nothing.
    pub(crate) violations: Vec<String>,
    pub(crate) hangs: bool,
    pub(crate) refuse_subnets: BTreeSet<String>,
    pub(crate) refuse_routes: BTreeSet<String>,
    pub(crate) reject_peers: BTreeSet<String>,
    pub(crate) serves_sync: bool,
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

pub(crate) struct FakeRuntime {
    address: SocketAddr,
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

    fn new(serves_sync: bool) -> Self {
        let state = State {
            serves_sync,
            ..State::default()
        };
        let mut runtime = Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            state: Arc::new(Mutex::new(state)),
            server: None,
        };
        runtime.resume();
        runtime
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
        let listener = server.block_on(TcpListener::bind(self.address)).unwrap();
        self.address = listener.local_addr().unwrap();
        let service = Service(Arc::clone(&self.state));
        let mesh = self.state().serves_sync;
        let routes = {
            let _guard = server.enter();
            Server::builder()
                .add_service(QuiltRuntimeServer::new(service.clone()))
                .add_optional_service(mesh.then(|| MeshDataplaneServer::new(service)))
        };
        server.spawn(routes.serve_with_incoming(TcpListenerStream::new(listener)));
        self.server = Some(server);
    }

    /// A crash that takes everything along, and a new start.
    pub(crate) fn restart_empty(&mut self) {
        self.stop();
        {
            let mut state = self.state();
            state.subnet.clear();
            state.peers.clear();
            state.routes.clear();
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
        let hangs = {
            let mut state = self.0.lock().unwrap();
            state.calls.push(call);
            state.hangs
        };
        if hangs {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl QuiltRuntime for Service {
    async fn configure_node_subnet(
        &self,
        request: Request<ConfigureNodeSubnetRequest>,
    ) -> Result<Response<ConfigureNodeSubnetResponse>, Status> {
        let subnet = request.into_inner().subnet;
        self.record(Call::Configure(subnet.clone())).await;
        let mut state = self.0.lock().unwrap();
        let success = !state.refuse_subnets.contains(&subnet);
        if success {
            state.subnet = subnet;
        }
        let error = if success { "" } else { "addresses in use" }.to_owned();
        Ok(Response::new(ConfigureNodeSubnetResponse {
            success,
            error,
        }))
    }

    async fn inject_route(
        &self,
        request: Request<InjectRouteRequest>,
    ) -> Result<Response<InjectRouteResponse>, Status> {
        let request = request.into_inner();
        let destination = request.destination.clone();
        self.record(Call::Inject(request.destination, request.via_interface))
            .await;
        let mut state = self.0.lock().unwrap();
        let success = !state.refuse_routes.contains(&destination);
        if success {
            if state.serves_sync && !state.peers.contains(&destination) {
                let violation = format!("route to {destination} before its peer");
                state.violations.push(violation);
            }
            state.routes.insert(destination);
        }
        let error = if success { "" } else { "foreign route" }.to_owned();
        Ok(Response::new(InjectRouteResponse { success, error }))
    }

    async fn remove_route(
        &self,
        request: Request<RemoveRouteRequest>,
    ) -> Result<Response<RemoveRouteResponse>, Status> {
        let destination = request.into_inner().destination;
        self.record(Call::Remove(destination.clone())).await;
        self.0.lock().unwrap().routes.remove(&destination);
        Ok(Response::new(RemoveRouteResponse {
            success: true,
            error: String::new(),
        }))
    }
}

#[tonic::async_trait]
impl MeshDataplane for Service {
    async fn sync_peers(
        &self,
        request: Request<SyncPeersRequest>,
    ) -> Result<Response<SyncPeersResponse>, Status> {
        let request = request.into_inner();
        let pair = |p: &mesh_proto::mesh::Peer| (p.subnet.clone(), p.host_address.clone());
        self.record(Call::Sync {
            generation: request.generation,
            host_address: request.host_address,
            peers: request.peers.iter().map(pair).collect(),
        })
        .await;
        let mut state = self.0.lock().unwrap();
        if request.generation < state.generation {
            return Ok(Response::new(SyncPeersResponse {
                success: false,
                error: "generation is too low".to_owned(),
                generation: state.generation,
                ..SyncPeersResponse::default()
            }));
        }
        let (rejected, taken): (Vec<_>, Vec<_>) = request
            .peers
            .into_iter()
            .partition(|peer| state.reject_peers.contains(&peer.subnet));
        let taken: BTreeSet<String> = taken.into_iter().map(|peer| peer.subnet).collect();
        let nothing: Vec<_> = state.routes.difference(&taken).cloned().collect();
        for destination in nothing {
            let violation = format!("peer of {destination} went before its route");
            state.violations.push(violation);
        }
        let added = taken.difference(&state.peers).count();
        let removed = state.peers.difference(&taken).count();
        state.generation = request.generation;
        state.peers = taken;
        Ok(Response::new(SyncPeersResponse {
            success: true,
            generation: request.generation,
            added: u32::try_from(added).unwrap(),
            removed: u32::try_from(removed).unwrap(),
            rejected: rejected
                .into_iter()
                .map(|peer| RejectedPeer {
                    peer: Some(peer),
                    reason: "outside the cluster CIDR".to_owned(),
                })
                .collect(),
            ..SyncPeersResponse::default()
        }))
    }

    async fn list_peers(
        &self,
        _: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn probe_peers(
        &self,
        _: Request<mesh_proto::mesh::ProbePeersRequest>,
    ) -> Result<Response<mesh_proto::mesh::ProbePeersResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn attach_endpoint(
        &self,
        _: Request<mesh_proto::mesh::AttachEndpointRequest>,
    ) -> Result<Response<mesh_proto::mesh::AttachEndpointResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn detach_endpoint(
        &self,
        _: Request<mesh_proto::mesh::DetachEndpointRequest>,
    ) -> Result<Response<mesh_proto::mesh::DetachEndpointResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }
}
