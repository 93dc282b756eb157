//! One host of the cluster: a namespace on the underlay with a runtime and an agent.

use std::{
    collections::BTreeSet,
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, Weak, atomic::AtomicU32},
};

use ipnet::Ipv4Net;
use mesh_client::{AgentClient, AgentClientError};
use mesh_proto::mesh::{
    AgentStatus, GetStatusRequest, GetStatusResponse, ListPeersRequest, ListPeersResponse,
    mesh_dataplane_client::MeshDataplaneClient,
};
use mesh_rest::client::with_causes;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tonic::transport::Channel;

use crate::{
    control_plane::{ControlPlane, lock},
    daemons::{Daemon, Slot},
    doors::Doors,
    error::{Error, Result},
    grpc,
    link::{KernelRoute, Links},
    netns::NetNs,
    process,
};

/// The runtime's gRPC port, on each host's own loopback.
pub const RUNTIME_PORT: u16 = 50051;

/// The bridge that containers are enslaved to unless told otherwise.
pub const BRIDGE: &str = "quilt0";

/// A host. Its processes are started by [`spawn`](Self::spawn); it always has a namespace
/// with `eth0` on the underlay, a bpffs of its own and directories for state and logs.
#[derive(Debug)]
pub struct Host {
    name: String,
    namespace: NetNs,
    address: Mutex<Ipv4Addr>,
    prefix_len: u8,
    dir: PathBuf,
    pub(crate) control: Arc<ControlPlane>,
    bpffs: bool,
    pub(crate) runtime: Arc<Slot>,
    /// Where its runtime runs, if not among ours.
    pub(crate) runtime_doors: Mutex<Weak<Doors>>,
    pub(crate) agent: Slot,
    pub(crate) container_addresses: Mutex<BTreeSet<Ipv4Addr>>,
    /// Those that a container has now.
    pub(crate) addresses_in_use: Arc<Mutex<BTreeSet<Ipv4Addr>>>,
    pub(crate) containers: AtomicU32,
}

pub(crate) struct HostPlan {
    pub(crate) name: String,
    pub(crate) namespace: NetNs,
    pub(crate) address: Ipv4Net,
    pub(crate) dir: PathBuf,
    pub(crate) control: Arc<ControlPlane>,
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
            control: plan.control,
            bpffs: plan.bpffs,
            runtime: Arc::default(),
            runtime_doors: Mutex::default(),
            agent: Slot::default(),
            container_addresses: Mutex::default(),
            addresses_in_use: Arc::default(),
            containers: AtomicU32::new(0),
        };
        let bpffs = host.bpffs_dir();
        for dir in [&bpffs, &host.state_dir()] {
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

    /// The agent's state directory, which outlives it.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("agent")
    }

    /// The runtime's state directory, which outlives it and the kernel's state.
    pub fn runtime_state_dir(&self) -> PathBuf {
        self.dir.join("runtime")
    }

    /// The runtime's Unix socket.
    pub fn runtime_socket(&self) -> PathBuf {
        self.dir.join("runtime.sock")
    }

    /// The agent's Unix socket.
    pub fn agent_socket(&self) -> PathBuf {
        self.dir.join("agent.sock")
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

    /// A channel to the runtime; its sockets are made inside the host's namespace.
    ///
    /// # Errors
    ///
    /// [`Error::Grpc`] when there is nobody to connect to.
    pub async fn runtime_channel(&self) -> Result<Channel> {
        grpc::channel(&self.namespace, RUNTIME_PORT)
            .await
            .map_err(|error| self.grpc("connect", with_causes(&error)))
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

    /// The agent's `GetStatus`, over a new connection.
    ///
    /// # Errors
    ///
    /// [`Error::Grpc`].
    pub async fn agent_status(&self) -> Result<AgentStatus> {
        let failed =
            |error: AgentClientError| self.grpc("GetStatus of the agent", error.to_string());
        let mut agent = AgentClient::connect(&self.agent_socket())
            .await
            .map_err(failed)?;
        agent.status().await.map_err(failed)
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
