//! The calls on the runtime's Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use mesh_proto::mesh::{
    AddressLease, AllocateAddressRequest, AllocateAddressResponse, AttachEndpointRequest,
    DetachEndpointRequest, Endpoint, GetStatusRequest, GetStatusResponse, InsideContainer,
    ListAddressesRequest, ListAddressesResponse, ListPeersRequest, ListPeersResponse, Owner,
    PublishPortsRequest, PublishedPort, ReleaseAddressRequest,
    mesh_dataplane_client::MeshDataplaneClient, mesh_inspect_client::MeshInspectClient,
};
use tokio::net::UnixStream;
use tonic::{
    Code, Status,
    client::GrpcService,
    codegen::{Body, Bytes, StdError},
    transport::{self, Channel, Uri},
};

use crate::inside::{self, InsideError};

/// Where the runtime serves unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/quilt-mesh/runtime.sock";

/// The longest it takes to connect: the runtime accepts at once.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// The longest a call takes; the runtime's own deadline is shorter and says more.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(20);

/// The largest answer: a list of 65,534 leases with names and labels.
pub(crate) const ANSWER_LIMIT: usize = 64 << 20;

/// Why a call did not do what it asks.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("no connection to the runtime's socket {path}: {reason}; {hint}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
        /// The kernel's reason.
        reason: io::Error,
    },
    /// The call failed; whether it did anything is not known. Repeating it is safe.
    #[error("the runtime failed ({}): {}", .0.code(), .0.message())]
    Failed(Status),
    /// No answer in the time that it was waited for: it hangs, or was stopped. Whether the call did anything is not known;
    /// repeating it is safe.
    #[error("the runtime does not answer within {} s: see whether it runs, and what its log says last", .0.as_secs())]
    Silent(Duration),
    /// The runtime refuses, and says why.
    #[error("{0}")]
    Refused(String),
    /// The runtime refuses for now, and says why: the same call may succeed in a moment.
    #[error("{0}")]
    NotYet(String),
    /// What is to be done inside the container could not be done; what was made outside is undone.
    #[error(transparent)]
    Inside(#[from] InsideError),
    /// An answer that lacks what it promises.
    #[error("the runtime's answer has no {0}: are runtime and client of one version?")]
    Incomplete(&'static str),
}

// No `#[from]`: the message says all that the status does.
impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        match status.code() {
            // What the deadline of the connection makes of a call.
            Code::Cancelled if status.message().contains("Timeout expired") => {
                Self::Silent(CALL_DEADLINE)
            }
            _ => Self::Failed(status),
        }
    }
}

/// A container that is on the mesh.
#[derive(Clone, Debug)]
pub struct Attached {
    /// The endpoint, as the host sees it.
    pub endpoint: Endpoint,
    /// What was done inside the container.
    pub inside: InsideContainer,
    /// Whether this call made the interface; it was there already otherwise.
    pub new: bool,
}

/// A container that is on the mesh once its engine has moved its interface into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// Name of the container's end on the host, where it is down until the engine takes it.
    pub interface: String,
    /// Address that the engine gives it, with the prefix length, e.g. "10.42.1.2/24".
    pub address: String,
    /// Next hop of its routes, e.g. "10.42.1.1".
    pub gateway: String,
    /// Destinations that lead there, e.g. "0.0.0.0/0" and "10.42.0.0/16".
    pub routes: Vec<String>,
    /// The most that it sends at once, in bytes of IPv4. It has that already.
    pub mtu: u32,
    /// Its MAC address, which it has already, and with no other of which it is heard.
    pub mac: String,
    /// Whether this call made it; it was there already otherwise, and the engine may have taken it.
    pub new: bool,
}

/// The runtime of this host: behind its socket, to which it connects anew by itself after a restart of the
/// runtime, or in this process, `T` being the runtime's service itself.
#[derive(Clone, Debug)]
pub struct Client<T = Channel> {
    runtime: MeshDataplaneClient<T>,
}

impl Client {
    /// Connects to the runtime's socket.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`], with what to do.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let endpoint = runtime().timeout(CALL_DEADLINE);
        Ok(Self::new(channel(socket, endpoint).await?))
    }
}

/// What a person asks of a node. Its calls have no deadline of their own: some go on as long as the caller likes.
///
/// # Errors
///
/// [`ClientError::Connect`], with what to do.
pub async fn inspect(socket: &Path) -> Result<MeshInspectClient<Channel>, ClientError> {
    let channel = channel(socket, runtime()).await?;
    Ok(MeshInspectClient::new(channel).max_decoding_message_size(ANSWER_LIMIT))
}

/// The runtime's name is for the protocol's header; nobody looks it up.
pub(crate) fn runtime() -> transport::Endpoint {
    transport::Endpoint::from_static("http://runtime").connect_timeout(CONNECT_DEADLINE)
}

/// A channel to whoever serves on that socket.
pub(crate) async fn channel(
    socket: &Path,
    endpoint: transport::Endpoint,
) -> Result<Channel, ClientError> {
    // The first time by hand: of an error of the channel little is left.
    let failed = |reason: io::Error| ClientError::Connect {
        path: socket.to_owned(),
        hint: hint(&reason),
        reason,
    };
    let first = UnixStream::connect(socket).await.map_err(failed)?;
    let channel = going_on(first, socket, endpoint).await;
    channel.map_err(|error| failed(io::Error::other(error)))
}

/// A channel over this connection to a socket, and over others to it once this one has ended.
pub(crate) async fn going_on(
    first: UnixStream,
    socket: &Path,
    endpoint: transport::Endpoint,
) -> Result<Channel, transport::Error> {
    let (mut first, path) = (Some(first), socket.to_owned());
    let connect = move |_: Uri| {
        let (first, path) = (first.take(), path.clone());
        async move {
            let stream = match first {
                Some(first) => first,
                None => UnixStream::connect(path).await?,
            };
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    };
    let connector = tower::service_fn(connect);
    endpoint.connect_with_connector(connector).await
}

impl<T> Client<T>
where
    T: GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// Calls a service, such as that of a runtime in this process (`MeshRuntime::local_dataplane`), which takes
    /// neither a socket nor a connection.
    pub fn new(service: T) -> Self {
        Self {
            runtime: MeshDataplaneClient::new(service).max_decoding_message_size(ANSWER_LIMIT),
        }
    }

    /// Puts a container on the mesh: the runtime makes its interface, and this process, which has to be root
    /// over the namespace, does what is done inside. What fails half way is undone as far as this call made it.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn attach(
        &mut self,
        mut request: AttachEndpointRequest,
    ) -> Result<Attached, ClientError> {
        request.network_namespace = without_symlinks(request.network_namespace);
        let (owner, namespace) = (request.owner.clone(), request.network_namespace.clone());
        let answer = self.runtime.attach_endpoint(request).await?.into_inner();
        if !answer.success {
            return Err(refused(answer.try_again, answer.error));
        }
        let endpoint = answer.endpoint.ok_or(ClientError::Incomplete("endpoint"))?;
        let mut inside = answer.inside.ok_or(ClientError::Incomplete("inside"))?;
        match inside::configure(Path::new(&namespace), &inside).await {
            Ok(routes) => inside.routes = routes.iter().map(ToString::to_string).collect(),
            Err(error) => {
                if answer.new
                    && let Some(owner) = owner
                {
                    // It is swept up with the namespace otherwise; the first error is what counts.
                    let _ = self.detach(owner).await;
                }
                return Err(error.into());
            }
        }
        Ok(Attached {
            endpoint,
            inside,
            new: answer.new,
        })
    }

    /// Makes the interface of a container whose engine moves it there by itself and does what is done inside, as Docker
    /// does for network drivers. The request names no namespace.
    ///
    /// # Errors
    ///
    /// [`ClientError`]; what is done inside can fail for the engine alone, which then has it taken off.
    pub async fn attach_moved(
        &mut self,
        mut request: AttachEndpointRequest,
    ) -> Result<HandedOver, ClientError> {
        request.moved_by_engine = true;
        let answer = self.runtime.attach_endpoint(request).await?.into_inner();
        if !answer.success {
            return Err(refused(answer.try_again, answer.error));
        }
        let inside = answer.inside.ok_or(ClientError::Incomplete("inside"))?;
        Ok(HandedOver {
            interface: inside.interface,
            address: inside.address,
            gateway: inside.gateway,
            routes: inside.routes,
            mtu: inside.mtu,
            mac: inside.mac,
            new: answer.new,
        })
    }

    /// Takes a container off the mesh. One that is not on it is success.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn detach(&mut self, owner: Owner) -> Result<(), ClientError> {
        self.detach_if(owner, false).await
    }

    /// Takes a container off the mesh if [`Self::addresses`] would call its lease leaked; one in use stays, which is
    /// success.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn detach_if_leaked(&mut self, owner: Owner) -> Result<(), ClientError> {
        self.detach_if(owner, true).await
    }

    async fn detach_if(&mut self, owner: Owner, only_if_leaked: bool) -> Result<(), ClientError> {
        let request = DetachEndpointRequest {
            owner: Some(owner),
            only_if_leaked,
            ..Default::default()
        };
        let answer = self.runtime.detach_endpoint(request).await?.into_inner();
        match answer.success {
            true => Ok(()),
            false => Err(refused(answer.try_again, answer.error)),
        }
    }

    /// Makes these the ports by which an attached container is reached, instead of those that it has.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn publish(
        &mut self,
        owner: Owner,
        ports: Vec<PublishedPort>,
    ) -> Result<(), ClientError> {
        let owner = Some(owner);
        let request = PublishPortsRequest { owner, ports };
        let answer = self.runtime.publish_ports(request).await?.into_inner();
        match answer.success {
            true => Ok(()),
            false => Err(refused(answer.try_again, answer.error)),
        }
    }

    /// Leases an address, for an interface that somebody else makes.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn allocate(
        &mut self,
        request: AllocateAddressRequest,
    ) -> Result<AllocateAddressResponse, ClientError> {
        let answer = self.runtime.allocate_address(request).await?.into_inner();
        match answer.success {
            true => Ok(answer),
            false => Err(refused(answer.try_again, answer.error)),
        }
    }

    /// Gives an address back. One that is not leased is success.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn release(&mut self, owner: Owner) -> Result<(), ClientError> {
        let request = ReleaseAddressRequest {
            owner: Some(owner),
            address: String::new(),
        };
        let answer = self.runtime.release_address(request).await?.into_inner();
        settle(answer.success, answer.error)
    }

    /// The state of the node's data plane.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn status(&mut self) -> Result<GetStatusResponse, ClientError> {
        let status = self.runtime.get_status(GetStatusRequest {}).await?;
        Ok(status.into_inner())
    }

    /// The other nodes, as the kernel shows them.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn peers(&mut self) -> Result<ListPeersResponse, ClientError> {
        Ok(self
            .runtime
            .list_peers(ListPeersRequest {})
            .await?
            .into_inner())
    }

    /// The leased addresses.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn addresses(
        &mut self,
        request: ListAddressesRequest,
    ) -> Result<ListAddressesResponse, ClientError> {
        Ok(self.runtime.list_addresses(request).await?.into_inner())
    }

    /// The lease of an owner, if it has one.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn lease(&mut self, owner: &Owner) -> Result<Option<AddressLease>, ClientError> {
        let request = ListAddressesRequest {
            engine: owner.engine.clone(),
            network: owner.network.clone(),
        };
        let leases = self.addresses(request).await?.leases;
        let mut leases = leases.into_iter();
        Ok(leases.find(|lease| lease.owner.as_ref() == Some(owner)))
    }
}

fn refused(try_again: bool, error: String) -> ClientError {
    match try_again {
        true => ClientError::NotYet(error),
        false => ClientError::Refused(error),
    }
}

/// The path of a namespace with the symbolic links on the way to it resolved: those of other file systems than the runtime's
/// own, such as /var/run, lead elsewhere there. The last part may be none (`/proc/4711/ns/net`), and stays.
fn without_symlinks(path: String) -> String {
    let resolve = || {
        let path = Path::new(&path);
        let resolved = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
        Some(resolved.to_str()?.to_owned())
    };
    resolve().unwrap_or(path)
}

fn settle(success: bool, error: String) -> Result<(), ClientError> {
    match success {
        true => Ok(()),
        false => Err(ClientError::Refused(error)),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "is quilt-runtime running, and with this --socket?",
        io::ErrorKind::ConnectionRefused => "quilt-runtime is not running: start it",
        io::ErrorKind::PermissionDenied => {
            "only root may call, and the group of the runtime's --socket-group"
        }
        _ => "is it the runtime's?",
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn links_on_the_way_to_a_namespace_are_resolved_and_its_own_name_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().canonicalize().unwrap();
        fs::create_dir_all(dir.join("run/netns")).unwrap();
        symlink("run", dir.join("relative")).unwrap();
        symlink(dir.join("relative/netns"), dir.join("absolute")).unwrap();
        symlink("/nonexistent", dir.join("run/netns/web")).unwrap();
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let resolved = ["run/netns/web", "relative/netns/web", "absolute/web"]
            .map(|name| without_symlinks(path(name)));
        // What is not there is as it was named: the runtime says what is wrong with it.
        let missing = [
            path("gone/web"),
            String::new(),
            "/".to_owned(),
            "web".to_owned(),
        ];
        let unchanged = missing.clone().map(without_symlinks);
        assert_eq!(resolved, [(); 3].map(|()| path("run/netns/web")));
        assert_eq!(unchanged, missing);
        let process = format!("/proc/{}/ns/net", std::process::id());
        assert_eq!(without_symlinks(process.clone()), process);
    }
}
