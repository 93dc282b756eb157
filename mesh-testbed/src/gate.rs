//! A gate before a host's runtime: what a plugin calls stands there until the test says what becomes of it, so that
//! something else happens in between.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_proto::mesh::{
    AllocateAddressRequest, AllocateAddressResponse, AttachEndpointRequest, AttachEndpointResponse,
    CheckPeersRequest, CheckPeersResponse, DetachEndpointRequest, DetachEndpointResponse,
    GetCapabilitiesRequest, GetCapabilitiesResponse, GetStatusRequest, GetStatusResponse,
    ListAddressesRequest, ListAddressesResponse, ListPeersRequest, ListPeersResponse, Owner,
    ProbePeersRequest, ProbePeersResponse, PublishPortsRequest, PublishPortsResponse,
    ReleaseAddressRequest, ReleaseAddressResponse, SyncPeersRequest, SyncPeersResponse,
    mesh_dataplane_client::MeshDataplaneClient,
    mesh_dataplane_server::{MeshDataplane, MeshDataplaneServer},
};
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
    error::{Error, Result},
    host::Host,
};

/// The longest a call is waited for that a plugin makes at once.
const SOON: Duration = Duration::from_secs(20);

/// A socket that plugins take for the runtime's. What changes something stands before it: `attach`, `detach`, `publish`, `allocate`
/// and `release`; lists are passed on at once.
#[derive(Debug)]
pub struct Gate {
    socket: PathBuf,
    calls: mpsc::UnboundedReceiver<GateCall>,
    server: JoinHandle<()>,
}

/// A call that stands before the gate. Dropping it ends its connection without an answer.
#[derive(Debug)]
pub struct GateCall {
    /// Its name.
    pub what: &'static str,
    owner: Owner,
    verdict: oneshot::Sender<Verdict>,
}

/// A call that the runtime has answered, and the caller does not know it yet.
#[derive(Debug)]
pub struct GateAnswer(oneshot::Sender<()>);

#[derive(Debug)]
enum Verdict {
    Pass,
    Hold {
        answered: oneshot::Sender<()>,
        told: oneshot::Receiver<()>,
    },
    Fail(Status),
}

impl Gate {
    /// Beside a host's runtime.
    ///
    /// # Errors
    ///
    /// When its socket cannot be made.
    pub fn before(host: &Host) -> Result<Self> {
        let socket = host.dir().join("gate.sock");
        let failed = |error| Error::system("make", socket.display().to_string(), error);
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        let behind = format!("unix:{}", host.runtime_socket().display());
        let behind = Endpoint::from_shared(behind)
            .map_err(|error| failed(std::io::Error::other(error)))?
            .connect_lazy();
        let (tell, calls) = mpsc::unbounded_channel();
        let keeper = Keeper {
            behind: MeshDataplaneClient::new(behind),
            tell,
        };
        let server = Server::builder()
            .add_service(MeshDataplaneServer::new(keeper))
            .serve_with_incoming(UnixListenerStream::new(listener));
        Ok(Self {
            socket,
            calls,
            // It ends with the gate.
            server: tokio::spawn(async move { drop(server.await) }),
        })
    }

    /// The socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The next call, which has to be this one of this container.
    ///
    /// # Panics
    ///
    /// When it is another one, or none comes.
    pub async fn next(&mut self, what: &str, container: &str) -> GateCall {
        let call = self.any(what).await;
        assert_eq!((call.what, &*call.owner.container), (what, container));
        call
    }

    /// The next call of this name; those that come before it pass.
    ///
    /// # Panics
    ///
    /// When none comes.
    pub async fn next_of(&mut self, what: &str) -> GateCall {
        loop {
            let call = self.any(what).await;
            if call.what == what {
                return call;
            }
            call.pass_if_there();
        }
    }

    async fn any(&mut self, wanted: &str) -> GateCall {
        match timeout(SOON, self.calls.recv()).await {
            Ok(Some(call)) => call,
            _ => panic!("no {wanted} comes"),
        }
    }

    /// Has the runtime answer whatever comes until something is done.
    pub async fn passing<T>(&mut self, something: impl Future<Output = T>) -> T {
        tokio::pin!(something);
        loop {
            tokio::select! {
                done = &mut something => return done,
                Some(call) = self.calls.recv() => call.pass_if_there(),
            }
        }
    }

    /// Has the runtime answer whatever comes from now on.
    pub fn open(&mut self) {
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

impl GateCall {
    /// Whose call it is.
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Has the runtime answer it.
    ///
    /// # Panics
    ///
    /// When whoever called has gone.
    pub fn pass(self) {
        self.decide(Verdict::Pass);
    }

    /// The same for a caller that may be killed at any time.
    fn pass_if_there(self) {
        let _ = self.verdict.send(Verdict::Pass);
    }

    /// Has the runtime answer it, and keeps what it answers.
    ///
    /// # Panics
    ///
    /// When the runtime does not answer, or whoever called has gone.
    pub async fn hold(self) -> GateAnswer {
        let (answered, is_answered) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        self.decide(Verdict::Hold { answered, told });
        match timeout(SOON, is_answered).await {
            Ok(Ok(())) => GateAnswer(tell),
            _ => panic!("the runtime does not answer"),
        }
    }

    /// Answers in the runtime's place, which never hears of it.
    ///
    /// # Panics
    ///
    /// When whoever called has gone.
    pub fn fail(self, status: Status) {
        self.decide(Verdict::Fail(status));
    }

    fn decide(self, verdict: Verdict) {
        assert!(self.verdict.send(verdict).is_ok(), "the caller has gone");
    }
}

impl GateAnswer {
    /// Tells whoever called, unless it has gone.
    pub fn tell(self) {
        let _ = self.0.send(());
    }
}

struct Keeper {
    behind: MeshDataplaneClient<Channel>,
    tell: mpsc::UnboundedSender<GateCall>,
}

impl Keeper {
    /// Asks the test, then the runtime.
    async fn ask<T>(
        &self,
        what: &'static str,
        owner: Option<Owner>,
        runtime: impl AsyncFnOnce(
            MeshDataplaneClient<Channel>,
        ) -> std::result::Result<Response<T>, Status>,
    ) -> std::result::Result<Response<T>, Status> {
        let owner = owner.ok_or_else(|| Status::invalid_argument("no owner"))?;
        let (verdict, decided) = oneshot::channel();
        let call = GateCall {
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

fn nobody_asks<T>() -> std::result::Result<Response<T>, Status> {
    Err(Status::unimplemented("no plugin calls this"))
}

#[tonic::async_trait]
impl MeshDataplane for Keeper {
    async fn attach_endpoint(
        &self,
        request: Request<AttachEndpointRequest>,
    ) -> std::result::Result<Response<AttachEndpointResponse>, Status> {
        let request = request.into_inner();
        let owner = request.owner.clone();
        let runtime =
            async |mut it: MeshDataplaneClient<Channel>| it.attach_endpoint(request).await;
        self.ask("attach", owner, runtime).await
    }

    async fn detach_endpoint(
        &self,
        request: Request<DetachEndpointRequest>,
    ) -> std::result::Result<Response<DetachEndpointResponse>, Status> {
        let request = request.into_inner();
        let owner = request.owner.clone();
        let runtime =
            async |mut it: MeshDataplaneClient<Channel>| it.detach_endpoint(request).await;
        self.ask("detach", owner, runtime).await
    }

    async fn list_addresses(
        &self,
        request: Request<ListAddressesRequest>,
    ) -> std::result::Result<Response<ListAddressesResponse>, Status> {
        self.behind
            .clone()
            .list_addresses(request.into_inner())
            .await
    }

    async fn check_peers(
        &self,
        _: Request<CheckPeersRequest>,
    ) -> std::result::Result<Response<CheckPeersResponse>, Status> {
        nobody_asks()
    }

    async fn sync_peers(
        &self,
        _: Request<SyncPeersRequest>,
    ) -> std::result::Result<Response<SyncPeersResponse>, Status> {
        nobody_asks()
    }

    async fn list_peers(
        &self,
        _: Request<ListPeersRequest>,
    ) -> std::result::Result<Response<ListPeersResponse>, Status> {
        nobody_asks()
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> std::result::Result<Response<GetStatusResponse>, Status> {
        nobody_asks()
    }

    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> std::result::Result<Response<GetCapabilitiesResponse>, Status> {
        nobody_asks()
    }

    async fn probe_peers(
        &self,
        _: Request<ProbePeersRequest>,
    ) -> std::result::Result<Response<ProbePeersResponse>, Status> {
        nobody_asks()
    }

    async fn publish_ports(
        &self,
        request: Request<PublishPortsRequest>,
    ) -> std::result::Result<Response<PublishPortsResponse>, Status> {
        let request = request.into_inner();
        let owner = request.owner.clone();
        let runtime = async |mut it: MeshDataplaneClient<Channel>| it.publish_ports(request).await;
        self.ask("publish", owner, runtime).await
    }

    async fn allocate_address(
        &self,
        request: Request<AllocateAddressRequest>,
    ) -> std::result::Result<Response<AllocateAddressResponse>, Status> {
        let request = request.into_inner();
        let owner = request.owner.clone();
        let runtime =
            async |mut it: MeshDataplaneClient<Channel>| it.allocate_address(request).await;
        self.ask("allocate", owner, runtime).await
    }

    async fn release_address(
        &self,
        request: Request<ReleaseAddressRequest>,
    ) -> std::result::Result<Response<ReleaseAddressResponse>, Status> {
        let request = request.into_inner();
        let owner = request.owner.clone();
        let runtime =
            async |mut it: MeshDataplaneClient<Channel>| it.release_address(request).await;
        self.ask("release", owner, runtime).await
    }
}
