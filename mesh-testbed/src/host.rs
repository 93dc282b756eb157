//! One host of the cluster: a namespace on the underlay with a runtime and an agent.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::{Mutex, atomic::AtomicU32},
    time::Duration,
};

use ipnet::Ipv4Net;
use mesh_proto::mesh::{
    GetStatusRequest, GetStatusResponse, ListPeersRequest, ListPeersResponse,
    mesh_dataplane_client::MeshDataplaneClient,
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use tonic::transport::Channel;

use crate::{
    control_plane::{causes, lock},
    deadline::Deadline,
    error::{Error, Result},
    grpc,
    link::{KernelRoute, Links},
    netns::NetNs,
    process::{self, DaemonOptions, Launch, Privileges, Process},
};

/// The runtime's gRPC port, on each host's own loopback.
pub const RUNTIME_PORT: u16 = 50051;

/// The bridge that containers are enslaved to unless told otherwise.
pub const BRIDGE: &str = "quilt0";

/// The daemons of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Daemon {
    /// `quilt-runtime`.
    Runtime,
    /// `quilt-mesh-agent`.
    Agent,
}

impl Daemon {
    /// The binary's file name.
    pub fn binary(self) -> &'static str {
        match self {
            Self::Runtime => "quilt-runtime",
            Self::Agent => "quilt-mesh-agent",
        }
    }
}

/// A host. Its processes are started by [`start`](Self::start); it always has a namespace
/// with `eth0` on the underlay, a bpffs of its own and directories for state and logs.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: NetNs,
    address: Mutex<Ipv4Addr>,
    prefix_len: u8,
    dir: PathBuf,
    control_plane_url: String,
    bpffs: bool,
    runtime: Slot,
    agent: Slot,
    pub(crate) container_addresses: Mutex<BTreeSet<Ipv4Addr>>,
    pub(crate) containers: AtomicU32,
}

#[derive(Debug, Default)]
struct Slot {
    process: Mutex<Option<Process>>,
    last_options: Mutex<DaemonOptions>,
}

pub(crate) struct HostPlan {
    pub(crate) name: String,
    pub(crate) namespace: NetNs,
    pub(crate) address: Ipv4Net,
    pub(crate) dir: PathBuf,
    pub(crate) control_plane_url: String,
    pub(crate) bpffs: bool,
}

impl Host {
    pub(crate) fn create(plan: HostPlan) -> Result<Self> {
        let host = Self {
            name: plan.name,
            namespace: plan.namespace,
            address: Mutex::new(plan.address.addr()),
            prefix_len: plan.address.prefix_len(),
            dir: plan.dir,
            control_plane_url: plan.control_plane_url,
            bpffs: plan.bpffs,
            runtime: Slot::default(),
            agent: Slot::default(),
            container_addresses: Mutex::default(),
            containers: AtomicU32::new(0),
        };
        let bpffs = host.bpffs_dir();
        for dir in [
            &bpffs,
            &host.state_dir(Daemon::Runtime),
            &host.state_dir(Daemon::Agent),
        ] {
            fs::create_dir_all(dir)
                .map_err(|error| Error::system("create", dir.display().to_string(), error))?;
        }
        if host.bpffs {
            host.namespace.registration().mount(&bpffs)?;
            mount(
                Some("bpf"),
                &bpffs,
                Some("bpf"),
                MsFlags::empty(),
                Some("mode=0700"),
            )
            .map_err(|error| Error::system("mount bpffs on", bpffs.display().to_string(), error))?;
        }
        Ok(host)
    }

    /// "host1", "host2", …: also the name it registers with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &NetNs {
        &self.namespace
    }

    /// Its address on the underlay.
    pub fn address(&self) -> Ipv4Addr {
        *lock(&self.address)
    }

    /// Its directory: state, logs, bpffs.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its bpffs is mounted. The pins are in `quilt-mesh` below it.
    pub fn bpffs_dir(&self) -> PathBuf {
        self.dir.join("bpf")
    }

    /// A daemon's state directory, which outlives the daemon.
    pub fn state_dir(&self, daemon: Daemon) -> PathBuf {
        self.dir.join(match daemon {
            Daemon::Runtime => "runtime",
            Daemon::Agent => "agent",
        })
    }

    /// A daemon's log, over all its starts.
    pub fn log(&self, daemon: Daemon) -> PathBuf {
        self.dir.join(format!("{}.log", daemon.binary()))
    }

    /// Moves the host to another address of the underlay's network, as a DHCP server would.
    /// Daemons that run keep the address they were started with.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn change_address(&self, address: Ipv4Addr) -> Result<()> {
        let links = Links::of(&self.namespace)?;
        let net = |address| {
            Ipv4Net::new(address, self.prefix_len).map_err(|error| Error::Invalid {
                value: format!("{address}/{}", self.prefix_len),
                rule: error.to_string(),
            })
        };
        links.delete_address("eth0", net(self.address())?).await?;
        links.add_address("eth0", net(address)?).await?;
        *lock(&self.address) = address;
        Ok(())
    }

    /// Starts the runtime. See [`spawn`](Self::spawn).
    ///
    /// # Errors
    ///
    /// A missing binary, or [`Error::Deadline`] with its last log lines.
    pub async fn start_runtime(&self, options: &DaemonOptions) -> Result<()> {
        self.spawn(Daemon::Runtime, options)?;
        self.wait_serving(Duration::from_secs(20)).await
    }

    /// Starts the agent and waits until it has joined: the runtime must be running.
    ///
    /// # Errors
    ///
    /// A missing binary, or [`Error::Deadline`] with its last log lines.
    pub async fn start_agent(&self, options: &DaemonOptions) -> Result<()> {
        self.spawn(Daemon::Agent, options)?;
        self.wait_joined(Duration::from_secs(20)).await
    }

    /// Starts a daemon without waiting for anything.
    ///
    /// # Errors
    ///
    /// A missing binary, or one that is running already.
    pub fn spawn(&self, daemon: Daemon, options: &DaemonOptions) -> Result<()> {
        let slot = self.slot(daemon);
        let mut process = lock(&slot.process);
        if let Some(process) = process.as_mut()
            && process.exit_status()?.is_none()
        {
            return Err(self.state(daemon, "is running already"));
        }
        *lock(&slot.last_options) = options.clone();
        *process = Some(Process::start(Launch {
            name: daemon.binary(),
            place: &self.name,
            namespace: &self.namespace,
            args: self.arguments(daemon),
            log: self.log(daemon),
            privileges: match daemon {
                Daemon::Runtime => Privileges::Root,
                Daemon::Agent => Privileges::None,
            },
            options,
        })?);
        Ok(())
    }

    fn arguments(&self, daemon: Daemon) -> Vec<OsString> {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, RUNTIME_PORT));
        let options: Vec<(&str, OsString)> = match daemon {
            Daemon::Runtime => vec![
                ("--grpc-addr", loopback.to_string().into()),
                ("--bpffs", self.bpffs_dir().into()),
                ("--state-dir", self.state_dir(daemon).into()),
                ("--log-level", "info".into()),
            ],
            Daemon::Agent => vec![
                ("--control-plane", self.control_plane_url.clone().into()),
                ("--quilt-runtime", format!("http://{loopback}").into()),
                ("--host-ip", self.address().to_string().into()),
                ("--hostname", self.name.clone().into()),
                ("--state-dir", self.state_dir(daemon).into()),
                ("--log-level", "info".into()),
            ],
        };
        options
            .into_iter()
            .flat_map(|(option, value)| [option.into(), value])
            .collect()
    }

    /// Sends a daemon a signal without waiting for what follows.
    ///
    /// # Errors
    ///
    /// The kernel's answer, or when it was never started.
    pub fn kill(&self, daemon: Daemon, signal: Signal) -> Result<()> {
        match lock(&self.slot(daemon).process).as_mut() {
            Some(process) => process.signal(signal),
            None => Err(self.state(daemon, "is not running")),
        }
    }

    /// Sends a daemon a signal that ends it and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with its last log lines when it goes on.
    pub async fn stop(
        &self,
        daemon: Daemon,
        signal: Signal,
        within: Duration,
    ) -> Result<ExitStatus> {
        let taken = lock(&self.slot(daemon).process).take();
        let mut process = taken.ok_or_else(|| self.state(daemon, "is not running"))?;
        process.signal(signal)?;
        process.wait_exit(within).await
    }

    /// Kills a daemon by SIGKILL and starts it with the options of its last start, without
    /// waiting for it to be ready.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn).
    pub fn restart(&self, daemon: Daemon) -> Result<()> {
        let slot = self.slot(daemon);
        drop(lock(&slot.process).take());
        let options = lock(&slot.last_options).clone();
        self.spawn(daemon, &options)
    }

    /// Kills both daemons by SIGKILL, as a power cut does.
    pub fn kill_all(&self) {
        drop(lock(&self.agent.process).take());
        drop(lock(&self.runtime.process).take());
    }

    /// Whether a daemon runs.
    pub fn is_running(&self, daemon: Daemon) -> bool {
        lock(&self.slot(daemon).process)
            .as_mut()
            .is_some_and(|process| matches!(process.exit_status(), Ok(None)))
    }

    /// How a daemon ended, or `None` while it runs or if it was never started.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub fn exit_status(&self, daemon: Daemon) -> Result<Option<ExitStatus>> {
        match lock(&self.slot(daemon).process).as_mut() {
            Some(process) => process.exit_status(),
            None => Ok(None),
        }
    }

    /// A daemon's process id.
    pub fn pid(&self, daemon: Daemon) -> Option<u32> {
        lock(&self.slot(daemon).process).as_ref().map(Process::pid)
    }

    /// A daemon's resident memory in bytes.
    ///
    /// # Errors
    ///
    /// When it is not running.
    pub fn resident_bytes(&self, daemon: Daemon) -> Result<u64> {
        match lock(&self.slot(daemon).process).as_ref() {
            Some(process) => process.resident_bytes(),
            None => Err(self.state(daemon, "is not running")),
        }
    }

    /// Waits until the daemons that were started are ready: the runtime serves, the agent
    /// has joined.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with the last log lines and how to look inside.
    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        let deadline = Deadline::after(within);
        self.wait_serving(within).await?;
        match self.pid(Daemon::Agent) {
            Some(_) => self.wait_joined(deadline.remaining()).await,
            None => Ok(()),
        }
    }

    /// Waits until the runtime's health service answers SERVING.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`], at once when the runtime has ended.
    pub async fn wait_serving(&self, within: Duration) -> Result<()> {
        self.wait_for(Daemon::Runtime, "a serving runtime", within, async || {
            let channel = self
                .runtime_channel()
                .await
                .map_err(|error| error.to_string())?;
            grpc::check_serving(channel).await
        })
        .await
    }

    /// Waits until the agent has given the runtime its subnet and its peers.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`], at once when the agent has ended.
    pub async fn wait_joined(&self, within: Duration) -> Result<()> {
        self.wait_for(Daemon::Agent, "a joined agent", within, async || {
            let status = self.status().await.map_err(|error| error.to_string())?;
            match !status.subnet.is_empty() && status.generation > 0 {
                true => Ok(()),
                false => Err(format!(
                    "the runtime shows subnet {:?} and generation {}",
                    status.subnet, status.generation
                )),
            }
        })
        .await
    }

    /// Waits until the runtime shows exactly `peers` peers, all with their kernel path.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with the peers seen last.
    pub async fn wait_peers(&self, peers: usize, within: Duration) -> Result<()> {
        let what = format!("{peers} peers on the runtime");
        self.wait_for(Daemon::Agent, &what, within, async || {
            let list = self.peers().await.map_err(|error| error.to_string())?.peers;
            match list.len() == peers && list.iter().all(|peer| peer.kernel_path_ready) {
                true => Ok(()),
                false => Err(format!("its peers are {list:?}")),
            }
        })
        .await
    }

    async fn wait_for(
        &self,
        daemon: Daemon,
        what: &str,
        within: Duration,
        mut look: impl AsyncFnMut() -> Result<(), String>,
    ) -> Result<()> {
        let deadline = Deadline::after(within);
        loop {
            let ended = self.exit_status(daemon)?.is_some();
            let seen = match look().await {
                Ok(()) => return Ok(()),
                Err(seen) => seen,
            };
            if ended || deadline.pause().await.is_err() {
                let what = format!("{what} on {}", self.name);
                let state = format!("{seen}\n{}", self.describe());
                return Err(deadline.missed(what, state));
            }
        }
    }

    /// State and last log lines of both daemons, and how to look inside.
    pub fn describe(&self) -> String {
        [Daemon::Runtime, Daemon::Agent]
            .map(|daemon| match lock(&self.slot(daemon).process).as_mut() {
                Some(process) => process.describe(),
                None => format!("{} on {} is not running\n", daemon.binary(), self.name),
            })
            .concat()
    }

    /// A channel to the runtime; its sockets are made inside the host's namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Grpc`] when there is nobody to connect to.
    pub async fn runtime_channel(&self) -> Result<Channel> {
        grpc::channel(&self.namespace, RUNTIME_PORT)
            .await
            .map_err(|error| self.grpc("connect", causes(&error)))
    }

    /// The runtime's `GetStatus`.
    ///
    /// # Errors
    ///
    /// [`Error::Grpc`].
    pub async fn status(&self) -> Result<GetStatusResponse> {
        MeshDataplaneClient::new(self.runtime_channel().await?)
            .get_status(GetStatusRequest {})
            .await
            .map(tonic::Response::into_inner)
            .map_err(|error| self.grpc("GetStatus", error.to_string()))
    }

    /// The runtime's `ListPeers`.
    ///
    /// # Errors
    ///
    /// [`Error::Grpc`].
    pub async fn peers(&self) -> Result<ListPeersResponse> {
        MeshDataplaneClient::new(self.runtime_channel().await?)
            .list_peers(ListPeersRequest {})
            .await
            .map(tonic::Response::into_inner)
            .map_err(|error| self.grpc("ListPeers", error.to_string()))
    }

    /// The kernel's IPv4 routes, read over netlink.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn routes(&self) -> Result<Vec<KernelRoute>> {
        Links::of(&self.namespace)?.routes().await
    }

    /// Whether the kernel has a route to exactly this destination.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn has_route(&self, destination: Ipv4Net) -> Result<bool> {
        Ok(self
            .routes()
            .await?
            .iter()
            .any(|route| route.destination == destination))
    }

    /// The subnet of the bridge's address, which is the node's subnet once it has joined.
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`] when there is no such bridge or it has no address yet.
    pub async fn bridge_address(&self, bridge: &str) -> Result<Ipv4Net> {
        let missing = || Error::NoInterface {
            namespace: self.namespace.name().into(),
            interface: bridge.into(),
            hint: "start the runtime and the agent, which make the bridge and give it an \
                   address, or use Host::add_bridge",
        };
        let links = Links::of(&self.namespace)?;
        if links.index(bridge).await?.is_none() {
            return Err(missing());
        }
        let addresses = links.addresses(bridge).await?;
        addresses.first().copied().ok_or_else(missing)
    }

    /// Makes a bridge with an address, as a container engine does, for hosts without runtime.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn add_bridge(&self, name: &str, address: Ipv4Net, mtu: u32) -> Result<()> {
        let links = Links::of(&self.namespace)?;
        links.add_bridge(name, mtu).await?;
        links.add_address(name, address).await
    }

    /// The command that dumps a pinned map: [`bpftool_dump`](Self::bpftool_dump) runs it.
    pub fn bpftool_dump_command(&self, map: &str) -> Vec<String> {
        let pin = self.bpffs_dir().join("quilt-mesh").join(map);
        [
            "bpftool",
            "map",
            "dump",
            "pinned",
            &pin.display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// What `bpftool map dump pinned` prints for one of the runtime's maps.
    ///
    /// # Errors
    ///
    /// When bpftool is missing, or there is no such map.
    pub fn bpftool_dump(&self, map: &str) -> Result<String> {
        let words = self.bpftool_dump_command(map);
        let program = ["/usr/sbin/bpftool", "/sbin/bpftool", "/usr/bin/bpftool"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .unwrap_or("bpftool");
        let mut command = self.namespace.command(program);
        command.args(&words[1..]);
        process::output(command)
    }

    fn slot(&self, daemon: Daemon) -> &Slot {
        match daemon {
            Daemon::Runtime => &self.runtime,
            Daemon::Agent => &self.agent,
        }
    }

    fn state(&self, daemon: Daemon, problem: &'static str) -> Error {
        Error::DaemonState {
            daemon: daemon.binary(),
            place: self.name.clone(),
            problem,
        }
    }

    fn grpc(&self, call: &'static str, reason: String) -> Error {
        Error::Grpc {
            call,
            host: self.name.clone(),
            reason,
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.namespace.registration().is_kept() {
            return;
        }
        self.kill_all();
        if self.bpffs {
            let _ = umount2(&self.bpffs_dir(), MntFlags::MNT_DETACH);
        }
    }
}
