//! A gate before a host's runtime: what a plugin calls stands there until the test says what becomes of it, so that
//! something else happens in between.

use std::path::PathBuf;

use mesh_client::mesh::{
    AttachEndpointRequest, DetachEndpointRequest, ListAddressesRequest, Owner,
};
use mesh_proto::mesh::{
    AllocateAddressRequest, AllocateAddressResponse, AttachEndpointResponse,
    DetachEndpointResponse, GetCapabilitiesRequest, GetCapabilitiesResponse, GetStatusRequest,
    GetStatusResponse, ListAddressesResponse, ListPeersRequest, ListPeersResponse,
    ProbePeersRequest, ProbePeersResponse, PublishPortsRequest, PublishPortsResponse,
    ReleaseAddressRequest, ReleaseAddressResponse, SyncPeersRequest, SyncPeersResponse,
    mesh_dataplane_client::MeshDataplaneClient,
    mesh_dataplane_server::{MeshDataplane, MeshDataplaneServer},
};
use mesh_testbed::Host;
use serde_json::{Value, json};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server},
};

use crate::{
    engine::{list, quilt},
    mesh::SOON,
};

/// A socket that plugins take for the runtime's. ATTACH and DETACH stand before it; lists are passed on at once.
pub(crate) struct Gate {
    socket: PathBuf,
    calls: mpsc::UnboundedReceiver<Call>,
    server: JoinHandle<()>,
}

/// A call that stands before the gate.
pub(crate) struct Call {
    /// `attach` or `detach`.
    pub(crate) what: &'static str,
    owner: Owner,
    verdict: oneshot::Sender<Verdict>,
}

/// A call that the runtime has answered, and the caller does not know it yet.
pub(crate) struct Answered(oneshot::Sender<()>);

enum Verdict {
    Pass,
    Hold {
        answered: oneshot::Sender<()>,
        told: oneshot::Receiver<()>,
    },
    Fail(Status),
}

impl Gate {
    /// Beside the host's runtime.
    pub(crate) async fn before(host: &Host) -> Self {
        let socket = host.dir().join("gate.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let behind = format!("unix:{}", host.runtime_socket().display());
        let behind = Endpoint::from_shared(behind).unwrap().connect_lazy();
        let (tell, calls) = mpsc::unbounded_channel();
        let keeper = Keeper {
            behind: MeshDataplaneClient::new(behind),
            tell,
        };
        let server = Server::builder()
            .add_service(MeshDataplaneServer::new(keeper))
            .serve_with_incoming(UnixListenerStream::new(listener));
        Self {
            socket,
            calls,
            server: tokio::spawn(async move { server.await.unwrap() }),
        }
    }

    /// The list of [`alone`](crate::engine::alone), for an engine whose plugin goes through the gate.
    pub(crate) fn list(&self, host: &Host) -> Value {
        let mut plugin = quilt(host, "podman");
        plugin["socket"] = json!(self.socket);
        list("quilt", "1.1.0", [plugin])
    }

    /// The next call, which has to be this one of this container.
    pub(crate) async fn next(&mut self, what: &str, container: &str) -> Call {
        let next = timeout(SOON, self.calls.recv()).await;
        let call = next.unwrap_or_else(|_| panic!("no {what} of {container} comes"));
        let call = call.unwrap();
        assert_eq!((call.what, &*call.owner.container), (what, container));
        call
    }

    /// Has the runtime answer whatever comes from now on.
    pub(crate) fn open(&mut self) {
        let (_, none) = mpsc::unbounded_channel();
        let mut calls = std::mem::replace(&mut self.calls, none);
        // It ends with the server.
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                call.pass();
            }
        });
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Call {
    /// Has the runtime answer it.
    pub(crate) fn pass(self) {
        self.decide(Verdict::Pass);
    }

    /// Has the runtime answer it, and keeps what it answers.
    pub(crate) async fn hold(self) -> Answered {
        let (answered, is_answered) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        self.decide(Verdict::Hold { answered, told });
        timeout(SOON, is_answered).await.unwrap().unwrap();
        Answered(tell)
    }

    /// Answers in the runtime's place, which never hears of it.
    pub(crate) fn fail(self, status: Status) {
        self.decide(Verdict::Fail(status));
    }

    fn decide(self, verdict: Verdict) {
        assert!(self.verdict.send(verdict).is_ok(), "the caller has gone");
    }
}

impl Answered {
    pub(crate) fn tell(self) {
        self.0.send(()).unwrap();
    }
}

struct Keeper {
    behind: MeshDataplaneClient<Channel>,
    tell: mpsc::UnboundedSender<Call>,
}

impl Keeper {
    /// Asks the test, then the runtime.
    async fn ask<T>(
        &self,
        what: &'static str,
        owner: Option<Owner>,
        runtime: impl AsyncFnOnce(MeshDataplaneClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<Response<T>, Status> {
        let owner = owner.ok_or_else(|| Status::invalid_argument("no owner"))?;
        let (verdict, decided) = oneshot::channel();
        let call = Call {
            what,
            owner,
            verdict,
        };
        let over = || Status::unavailable("the test is over");
        self.tell.send(call).map_err(|_| over())?;
        match decided.await.map_err(|_| over())? {
            Verdict::Fail(status) => Err(status),
            Verdict::Pass => runtime(self.behind.clone()).await,
            Verdict::Hold { answered, told } => {
                let answer = runtime(self.behind.clone()).await;
                let _ = answered.send(());
                told.await.map_err(|_| over())?;
                answer
            }
        }
    }
}

fn nobody_asks<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no plugin calls this"))
}

#[tonic::async_trait]
impl MeshDataplane for Keeper {
    async fn attach_endpoint(
        &self,
        request: Request<AttachEndpointRequest>,
    ) -> Result<Response<AttachEndpointResponse>, Status> {
        let request = request.into_inner();
        let owner = request.owner.clone();
        let runtime =
            async |mut it: MeshDataplaneClient<Channel>| it.attach_endpoint(request).await;
        self.ask("attach", owner, runtime).await
    }

    async fn detach_endpoint(
        &self,
        request: Request<DetachEndpointRequest>,
    ) -> Result<Response<DetachEndpointResponse>, Status> {
        let request = request.into_inner();
        let owner = request.owner.clone();
        let runtime =
            async |mut it: MeshDataplaneClient<Channel>| it.detach_endpoint(request).await;
        self.ask("detach", owner, runtime).await
    }

    async fn list_addresses(
        &self,
        request: Request<ListAddressesRequest>,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        self.behind
            .clone()
            .list_addresses(request.into_inner())
            .await
    }

    async fn sync_peers(
        &self,
        _: Request<SyncPeersRequest>,
    ) -> Result<Response<SyncPeersResponse>, Status> {
        nobody_asks()
    }

    async fn list_peers(
        &self,
        _: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, Status> {
        nobody_asks()
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        nobody_asks()
    }

    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        nobody_asks()
    }

    async fn probe_peers(
        &self,
        _: Request<ProbePeersRequest>,
    ) -> Result<Response<ProbePeersResponse>, Status> {
        nobody_asks()
    }

    async fn publish_ports(
        &self,
        _: Request<PublishPortsRequest>,
    ) -> Result<Response<PublishPortsResponse>, Status> {
        nobody_asks()
    }

    async fn allocate_address(
        &self,
        _: Request<AllocateAddressRequest>,
    ) -> Result<Response<AllocateAddressResponse>, Status> {
        nobody_asks()
    }

    async fn release_address(
        &self,
        _: Request<ReleaseAddressRequest>,
    ) -> Result<Response<ReleaseAddressResponse>, Status> {
        nobody_asks()
    }
}
