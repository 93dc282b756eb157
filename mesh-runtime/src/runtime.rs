//! A running node runtime, for a daemon or for a container runtime that embeds it.

use std::{
    error::Error,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use mesh_ipam::Ipam;
use mesh_proto::{
    mesh::{
        mesh_dataplane_server::MeshDataplaneServer, mesh_inspect_server::MeshInspectServer,
        mesh_maintenance_server::MeshMaintenanceServer,
    },
    quilt::quilt_runtime_server::QuiltRuntimeServer,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::{
    api::{
        command::{Command, Commands},
        dataplane::DataplaneService,
        inspect::InspectService,
        maintenance::MaintenanceService,
        quilt::QuiltService,
        tcp_address::TcpAddress,
    },
    ebpf::{FastPath, FastPathError},
    instance_lock::{InstanceLock, LockError},
    metrics::RuntimeMetrics,
    options::{FastPathMode, OptionsError, RuntimeOptions},
    privileges::{self, MissingPrivilege},
    reconcile::{FastPathSlot, Reconciler, StateWriter, fast_path_options},
    wanted::{
        registry::{Registry, Sweeper},
        state::{Directory, StateDirError, current_life},
        subnet::Cluster,
    },
};

/// Calls that wait for their turn at a time; more wait in their connections.
const WAITING_CALLS: usize = 64;

/// The largest message of the three calls: a subnet and an interface name.
const QUILT_MESSAGE_LIMIT: usize = 64 * 1024;

/// The largest sync: 65,536 peers with host names.
const DATAPLANE_MESSAGE_LIMIT: usize = 16 * 1024 * 1024;

/// Why calls of the registry are refused to whom the kernel does not name.
const NOT_HERE: &str = "this call is served on the runtime's Unix socket alone (/run/quilt-mesh/runtime.sock, \
                        or as --socket says)";

/// Threads for files, nft and the attaching of programs.
const BLOCKING_THREADS: usize = 4;

/// How long a shutdown waits for the change that is under way.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// How long a start waits for the file system of the state directory.
const OPEN_DEADLINE: Duration = Duration::from_secs(10);

/// Why a runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Options that contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A privilege is missing.
    #[error(transparent)]
    Privilege(#[from] MissingPrivilege),
    /// Another runtime is there.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Another runtime keeps its state in the state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// No thread for the loop.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    /// No connection to the kernel.
    #[error("cannot talk to the kernel over netlink: {0}")]
    Netlink(#[source] io::Error),
    /// The fast path is required and not to be had.
    #[error("the fast path is required (--fast-path required) and not available: {0}")]
    FastPath(#[from] FastPathError),
}

/// A running node runtime: it keeps the kernel as its callers want it until it is dropped
/// or shut down. The data plane stays in the kernel either way and goes on working.
///
/// ```no_run
/// # async fn serve(mine: tonic::service::Routes) -> Result<(), Box<dyn std::error::Error>> {
/// use mesh_runtime::{MeshRuntime, RuntimeOptions};
///
/// let mesh = MeshRuntime::start(RuntimeOptions::default()).await?;
/// tonic::transport::Server::builder()
///     .add_service(mesh.quilt_runtime())
///     .serve("127.0.0.1:50051".parse()?)
///     .await?;
/// mesh.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MeshRuntime {
    commands: Commands,
    registry: Result<Registry, String>,
    tcp_address: TcpAddress,
    /// Cancelled when nobody is to look any more.
    looking: CancellationToken,
    /// Ends with it.
    _sweeper: Option<Sweeper>,
    /// Cancelled when its thread has ended.
    ended: CancellationToken,
    stop: DropGuard,
}

impl MeshRuntime {
    /// Starts a runtime in this process's network namespace. Calls are served on the current Tokio runtime; what
    /// changes the kernel has a thread of its own.
    ///
    /// It returns as soon as calls are accepted; what an earlier run left in the kernel is
    /// taken over before the first of them is answered.
    ///
    /// # Errors
    ///
    /// Options that contradict each other, a missing privilege, another runtime in this
    /// network namespace or with the same state directory, and with [`FastPathMode::Required`] a fast path that is not to be
    /// had.
    pub async fn start(options: RuntimeOptions) -> Result<Self, StartError> {
        options.check()?;
        privileges::check()?;
        let lock = InstanceLock::take()?;
        let (state_writer, addresses) = open_state(&options).await?;
        let ipam = addresses.as_ref().ok().cloned();
        let tombstones = options.tombstones.clone();
        let cluster = options.cluster_cidr;
        let (commands, queue) = mpsc::channel(WAITING_CALLS);
        let stop = CancellationToken::new();
        let thread = Start {
            options,
            state_writer,
            addresses: ipam,
            commands: queue,
            stop: stop.clone(),
            lock,
        };
        // From here on, it also ends if this is given up.
        let stop = stop.drop_guard();
        let ended = thread.spawn().await?;
        let life = current_life().to_string();
        let registry =
            addresses.map(|ipam| Registry::new(ipam, commands.clone(), cluster, &life, tombstones));
        let sweeper = registry.as_ref().ok().cloned().map(Sweeper::start);
        Ok(Self {
            commands,
            registry,
            tcp_address: TcpAddress::default(),
            looking: CancellationToken::new(),
            _sweeper: sweeper,
            ended,
            stop,
        })
    }

    /// The service `quilt.QuiltRuntime`: the three calls every container runtime serves.
    pub fn quilt_runtime(&self) -> QuiltRuntimeServer<QuiltService> {
        QuiltRuntimeServer::new(QuiltService::new(self.commands.clone()))
            .max_decoding_message_size(QUILT_MESSAGE_LIMIT)
    }

    /// The service `mesh.MeshDataplane`: the whole peer set in one call, and the data
    /// plane's state. Without it the agent goes on with the three calls alone. The calls that lease
    /// addresses and make endpoints are refused: any local process may be calling.
    pub fn mesh_dataplane(&self) -> MeshDataplaneServer<DataplaneService> {
        self.dataplane(Err(Status::permission_denied(NOT_HERE)))
    }

    /// The service `mesh.MeshDataplane` with all its calls. Whoever reaches it can do to this host's network
    /// what root can: serve it on a Unix socket that is for those who may.
    ///
    /// A container runtime that embeds this one calls it without a socket:
    ///
    /// ```no_run
    /// # async fn attach(mesh: &mesh_runtime::MeshRuntime) -> Result<(), mesh_client::ClientError> {
    /// use mesh_client::{Client, mesh::{AttachEndpointRequest, Owner}};
    ///
    /// let mut client = Client::new(mesh.local_dataplane());
    /// let attached = client
    ///     .attach(AttachEndpointRequest {
    ///         owner: Some(Owner {
    ///             engine: "mine".into(),
    ///             network: "quilt".into(),
    ///             container: "web".into(),
    ///             interface: "eth0".into(),
    ///         }),
    ///         network_namespace: "/proc/4711/ns/net".into(),
    ///         default_route: true,
    ///         ..Default::default()
    ///     })
    ///     .await?;
    /// println!("{}", attached.inside.address);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_dataplane(&self) -> MeshDataplaneServer<DataplaneService> {
        let registry = self.registry.clone();
        self.dataplane(registry.map_err(Status::failed_precondition))
    }

    /// The service `mesh.MeshInspect`: what `meshctl` asks of a node. It tells what containers send to each other: serve it
    /// where [`local_dataplane`](Self::local_dataplane) is served.
    pub fn inspect(&self) -> MeshInspectServer<InspectService> {
        let looking = self.looking.clone();
        MeshInspectServer::new(InspectService::new(self.commands.clone(), looking))
    }

    /// The service `mesh.MeshMaintenance`: it decides what becomes of this host's containers. Serve it where
    /// [`local_dataplane`](Self::local_dataplane) is served.
    pub fn maintenance(&self) -> MeshMaintenanceServer<MaintenanceService> {
        let addresses = self.addresses().cloned().map_err(str::to_owned);
        MeshMaintenanceServer::new(MaintenanceService::new(addresses, self.commands.clone()))
            .max_decoding_message_size(QUILT_MESSAGE_LIMIT)
    }

    /// Ends the calls of [`inspect`](Self::inspect) that go on until their caller ends: whoever waits for calls that are
    /// under way ends these first.
    pub fn end_looking(&self) {
        self.looking.cancel();
    }

    /// What the runtime measures, and whether it does its work: for whoever serves that.
    pub fn metrics(&self) -> RuntimeMetrics {
        RuntimeMetrics::new(self.commands.clone())
    }

    fn dataplane(
        &self,
        registry: Result<Registry, Status>,
    ) -> MeshDataplaneServer<DataplaneService> {
        let (commands, tcp_address) = (self.commands.clone(), self.tcp_address.clone());
        let pool = self.addresses().ok().cloned();
        MeshDataplaneServer::new(DataplaneService::new(commands, registry, pool, tcp_address))
            .max_decoding_message_size(DATAPLANE_MESSAGE_LIMIT)
    }

    /// The pool of the node's addresses, for a container runtime that makes its containers' interfaces
    /// itself.
    ///
    /// # Errors
    ///
    /// Why there is none: leases are durable, so it needs a state directory.
    pub fn addresses(&self) -> Result<&Ipam, &str> {
        match &self.registry {
            Ok(registry) => Ok(registry.ipam()),
            Err(reason) => Err(reason),
        }
    }

    /// Where the runtime is served over TCP, for its status: whoever serves it says so.
    pub fn tcp_address(&self) -> TcpAddress {
        self.tcp_address.clone()
    }

    /// Waits until the runtime has ended, which it does by itself only if it failed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Ends the runtime after the change that is under way. The kernel's state stays.
    pub async fn shutdown(self) {
        drop(self.stop);
        let ended = tokio::time::timeout(SHUTDOWN_DEADLINE, self.ended.cancelled()).await;
        if ended.is_err() {
            tracing::warn!(name: "change-not-come-end-time", "a change did not come to an end in time and is not waited for");
        }
    }
}

/// What the thread of the loop begins with.
struct Start {
    options: RuntimeOptions,
    state_writer: StateWriter,
    addresses: Option<Ipam>,
    commands: mpsc::Receiver<Command>,
    stop: CancellationToken,
    lock: InstanceLock,
}

impl Start {
    /// Starts the thread, in the network namespace of this one, and returns once calls are accepted.
    ///
    /// The loop has a thread of its own: it waits for the kernel in system calls, and what it and its sockets say to
    /// each other wakes nobody else. Whoever embeds a runtime has none of that among his tasks.
    async fn spawn(self) -> Result<CancellationToken, StartError> {
        let (started, starting) = oneshot::channel();
        let ended = CancellationToken::new();
        let ending = ended.clone();
        std::thread::Builder::new()
            .name("reconcile".to_owned())
            .spawn(move || {
                // Also by a panic.
                let _ending = ending.drop_guard();
                self.run(started);
            })
            .map_err(StartError::Thread)?;
        match starting.await {
            Ok(started) => started.map(|()| ended),
            Err(_) => Err(StartError::Thread(io::Error::other("it ended early"))),
        }
    }

    fn run(self, started: oneshot::Sender<Result<(), StartError>>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                // Whoever started it has gone, if not told.
                let _ = started.send(Err(StartError::Thread(error)));
                return;
            }
        };
        let work = async move {
            let Self {
                options,
                state_writer,
                addresses,
                commands,
                stop,
                lock,
            } = self;
            match open(options, state_writer, addresses).await {
                Ok(reconciler) => {
                    let _ = started.send(Ok(()));
                    reconciler.run(commands, stop).await;
                    drop(lock);
                }
                Err(error) => {
                    // Whoever hears of it may start another.
                    drop(lock);
                    let _ = started.send(Err(error));
                }
            }
        };
        let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
        if ended.is_err() {
            tracing::error!(name: "loop-panicked",
                "the loop has panicked: this is a defect, and what it said of it is on standard error"
            );
        }
        // A file system that does not answer keeps a thread, and shall not keep this one.
        runtime.shutdown_background();
    }
}

/// Connects to the kernel, with the programs loaded where they are required.
async fn open(
    options: RuntimeOptions,
    state_writer: StateWriter,
    addresses: Option<Ipam>,
) -> Result<Reconciler, StartError> {
    let fast_path = match options.fast_path {
        FastPathMode::Required => FastPathSlot::open(FastPath::open(&fast_path_options(&options))?),
        FastPathMode::Auto | FastPathMode::Off => FastPathSlot::Unopened,
    };
    Reconciler::new(options, fast_path, state_writer, addresses).map_err(StartError::Netlink)
}

/// Opens the state directory, and the leases in it. One that cannot be used keeps nobody from working: that is
/// reported, the state is kept in the kernel alone, and leases are read, if they can be, so that containers keep
/// what they have.
async fn open_state(
    options: &RuntimeOptions,
) -> Result<(StateWriter, Result<Ipam, String>), StateDirError> {
    let Some(path) = options.state_dir.clone() else {
        let reason = "addresses are leased with a state directory alone (--state-dir)".to_owned();
        return Ok((StateWriter::new(None), Err(reason)));
    };
    let cluster = Cluster::from(options);
    let open = move || {
        let life = current_life().to_string();
        match Directory::open(&path, cluster) {
            Ok(directory) => {
                // Under its lock.
                let opened = Ipam::open(&path, &life);
                let addresses = opened.or_else(|error| read_leases(&path, &life, &error));
                Ok((StateWriter::new(Some(Ok(directory))), addresses))
            }
            Err(error @ StateDirError::InUse { .. }) => Err(error),
            Err(error) => {
                let addresses = read_leases(&path, &life, &error);
                Ok((StateWriter::new(Some(Err(error))), addresses))
            }
        }
    };
    let opening = tokio::task::spawn_blocking(open);
    match tokio::time::timeout(OPEN_DEADLINE, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => Ok((StateWriter::new(None), Err(error.to_string()))),
        Err(_) => {
            let reason = format!(
                "the state directory's file system does not answer within {} s",
                OPEN_DEADLINE.as_secs()
            );
            tracing::error!(name: "no-addresses-leased", reason, "no addresses are leased");
            Ok((StateWriter::new(None), Err(reason)))
        }
    }
}

/// Reads the leases that cannot be written.
fn read_leases(
    path: &Path,
    life: &str,
    why: &(dyn Error + Send + Sync + 'static),
) -> Result<Ipam, String> {
    let source = why
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>());
    let kind = source.map_or(io::ErrorKind::Other, io::Error::kind);
    let reason = why.to_string();
    match Ipam::open_to_read(path, life, &io::Error::new(kind, reason.clone())) {
        Ok(ipam) => {
            tracing::error!(name: "leases-can-read-not-written",
                reason,
                "leases can be read and not written: containers keep what they have, and nothing is leased, \
                 attached or detached until that is mended and the runtime is started anew"
            );
            Ok(ipam)
        }
        Err(error) => {
            tracing::error!(name: "leases-can-neither-written-nor",
                reason,
                %error,
                "leases can neither be written nor read: what was attached loses its published ports and may \
                 take other addresses, until that is mended and the runtime is started anew"
            );
            Err(reason)
        }
    }
}
