//! A whole cluster: the underlay, its hosts, and one control plane.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use ipnet::Ipv4Net;

use crate::{
    control_plane::ControlPlane,
    daemons::Daemon,
    deadline::Deadline,
    error::{Error, Result},
    host::{Host, HostPlan},
    link::{Links, VethPair},
    netns::NetNs,
    offload::enable_nic_offloads,
    process::DaemonOptions,
    reaper::{ROOT, Registration},
};

/// The underlay: TEST-NET-1 of RFC 5737.
const UNDERLAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const UNDERLAY_PREFIX: u8 = 24;
/// Hosts are 192.0.2.2 and up, the control plane is 192.0.2.1.
const FIRST_HOST: u8 = 2;
/// How many hosts the underlay has addresses for, with room for one to move to.
pub const MAX_HOSTS: usize = 250;

const SWITCH_BRIDGE: &str = "br0";

/// A cluster on one machine. Dropping it removes everything; so does the end of the
/// process, however it comes.
#[derive(Debug)]
pub struct Testbed {
    name: String,
    hosts: Vec<Host>,
    control: Arc<ControlPlane>,
    switch: NetNs,
    dir: TestbedDir,
    registration: Registration,
}

/// What the cluster consists of.
#[derive(Debug, Clone)]
pub struct TestbedBuilder {
    hosts: usize,
    underlay_mtu: u32,
    bpffs: bool,
}

impl Testbed {
    /// Three hosts on a 1500-byte underlay unless told otherwise.
    pub fn builder() -> TestbedBuilder {
        TestbedBuilder {
            hosts: 3,
            underlay_mtu: 1500,
            bpffs: true,
        }
    }

    /// The name that all its namespaces begin with, e.g. "qm-4711-0".
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory: one below for each host and for the control plane.
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// The hosts: `hosts()[0]` is named "host1".
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The control plane.
    pub fn control(&self) -> &ControlPlane {
        &self.control
    }

    /// The namespace of the underlay's switch: bridge `br0` with a port per host, named like
    /// the host, and the port `control`.
    pub fn switch(&self) -> &NetNs {
        &self.switch
    }

    /// Starts the control plane, all runtimes and all agents with default options, and waits
    /// until every node has every other one as its peer.
    ///
    /// # Errors
    ///
    /// A missing binary, or [`Error::Deadline`] with the last log lines of who is late.
    pub async fn start(&self) -> Result<()> {
        let none = DaemonOptions::default();
        self.start_with(&none, &none, &none).await
    }

    /// As [`start`](Self::start), with options for each kind of daemon.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(
        &self,
        control: &DaemonOptions,
        runtime: &DaemonOptions,
        agent: &DaemonOptions,
    ) -> Result<()> {
        for host in &self.hosts {
            host.spawn(Daemon::Runtime, runtime)?;
        }
        self.control.start(control).await?;
        // In order, so that host1 gets the first subnet: people expect it.
        for host in &self.hosts {
            host.wait_serving(Duration::from_secs(20)).await?;
            host.spawn(Daemon::Agent, agent)?;
            host.wait_joined(Duration::from_secs(20)).await?;
        }
        self.wait_converged(Duration::from_secs(30)).await
    }

    /// Waits until every host with a running agent has all the others as peers.
    ///
    /// # Errors
    ///
    /// [`Error::Deadline`] with the state of one that has not.
    pub async fn wait_converged(&self, within: Duration) -> Result<()> {
        let deadline = Deadline::after(within);
        let running: Vec<&Host> = self
            .hosts
            .iter()
            .filter(|host| host.is_running(Daemon::Agent))
            .collect();
        let peers = running.len().saturating_sub(1);
        let waits = running
            .iter()
            .map(|host| host.wait_peers(peers, deadline.remaining()));
        try_join_all(waits).await.map(drop)
    }

    /// Gives a host one more network card, without an address, on the same underlay.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn add_card(&self, host: &Host, name: &str, mtu: u32) -> Result<()> {
        let links = Links::of(&self.switch)?;
        let port = format!("{}-{name}", host.name());
        links
            .add_veth(&VethPair {
                name: &port,
                peer: name,
                peer_namespace: host.netns(),
                mtu,
            })
            .await?;
        links.enslave(&port, SWITCH_BRIDGE).await?;
        enable_nic_offloads(host.netns(), name)
    }

    /// Unplugs a host: its carrier is gone, as when a cable is pulled.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn underlay_cut(&self, host: &Host) -> Result<()> {
        Links::of(&self.switch)?.down(host.name()).await
    }

    /// Cuts a host off without it noticing: its carrier stays, its packets go nowhere, as
    /// when a switch further on fails.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn underlay_partition(&self, host: &Host) -> Result<()> {
        Links::of(&self.switch)?.release(host.name()).await
    }

    /// Undoes [`underlay_cut`](Self::underlay_cut) and
    /// [`underlay_partition`](Self::underlay_partition).
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn underlay_restore(&self, host: &Host) -> Result<()> {
        let links = Links::of(&self.switch)?;
        links.enslave(host.name(), SWITCH_BRIDGE).await?;
        links.up(host.name()).await
    }

    /// Changes the MTU of the whole underlay, in bytes.
    ///
    /// # Errors
    ///
    /// The kernel's answer.
    pub async fn set_underlay_mtu(&self, mtu: u32) -> Result<()> {
        let links = Links::of(&self.switch)?;
        for host in &self.hosts {
            links.set_mtu(host.name(), mtu).await?;
            Links::of(host.netns())?.set_mtu("eth0", mtu).await?;
        }
        links.set_mtu(SWITCH_BRIDGE, mtu).await
    }

    /// Leaves the cluster running when this process ends; drop the values as usual. It is
    /// removed by [`remove_kept_testbed`](crate::remove_kept_testbed) with its name.
    ///
    /// # Errors
    ///
    /// When what there is to remove cannot be written down; then nothing is kept.
    pub fn keep(&self) -> Result<PathBuf> {
        self.registration.keep(&self.dir.0)
    }
}

impl TestbedBuilder {
    /// How many hosts, at most [`MAX_HOSTS`].
    #[must_use]
    pub fn hosts(mut self, hosts: usize) -> Self {
        self.hosts = hosts;
        self
    }

    /// The MTU of the underlay in bytes.
    #[must_use]
    pub fn underlay_mtu(mut self, mtu: u32) -> Self {
        self.underlay_mtu = mtu;
        self
    }

    /// Whether the testbed mounts a bpffs for each host, or leaves that to the runtime.
    #[must_use]
    pub fn mount_bpffs(mut self, mount: bool) -> Self {
        self.bpffs = mount;
        self
    }

    /// Makes the namespaces and links; no daemon runs yet.
    ///
    /// # Errors
    ///
    /// [`Error::NotRoot`], more hosts than addresses, or the kernel's answer. What was made
    /// by then is removed.
    pub async fn build(self) -> Result<Testbed> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        if self.hosts > MAX_HOSTS {
            return Err(Error::Invalid {
                value: format!("{} hosts", self.hosts),
                rule: format!("the underlay has addresses for {MAX_HOSTS}"),
            });
        }
        let name = unique_name();
        let registration = Registration::new(&name);
        let dir = TestbedDir::create(Path::new(ROOT).join(&name), &registration)?;
        let namespace =
            async |label: &str| NetNs::create(&format!("{name}-{label}"), &registration).await;

        let switch = namespace("switch").await?;
        let links = Links::of(&switch)?;
        links.add_bridge(SWITCH_BRIDGE, self.underlay_mtu).await?;
        let plug = async |namespace: &NetNs, port: &str, address: Ipv4Net| -> Result<()> {
            links
                .add_veth(&VethPair {
                    name: port,
                    peer: "eth0",
                    peer_namespace: namespace,
                    mtu: self.underlay_mtu,
                })
                .await?;
            links.enslave(port, SWITCH_BRIDGE).await?;
            enable_nic_offloads(namespace, "eth0")?;
            Links::of(namespace)?.add_address("eth0", address).await
        };

        let control_netns = namespace("control").await?;
        let control_address = underlay_address(1)?;
        plug(&control_netns, "control", control_address).await?;
        let control_dir = dir.subdirectory("control")?;
        let control = ControlPlane::new(control_netns, control_address.addr(), control_dir);
        let control = Arc::new(control);

        let mut hosts = Vec::with_capacity(self.hosts);
        for (index, octet) in (FIRST_HOST..).take(self.hosts).enumerate() {
            let host_name = format!("host{}", index + 1);
            let host_netns = namespace(&host_name).await?;
            let address = underlay_address(octet)?;
            plug(&host_netns, &host_name, address).await?;
            hosts.push(Host::create(HostPlan {
                dir: dir.subdirectory(&host_name)?,
                name: host_name,
                namespace: host_netns,
                address,
                control: Arc::clone(&control),
                bpffs: self.bpffs,
            })?);
        }
        Ok(Testbed {
            name,
            hosts,
            control,
            switch,
            dir,
            registration,
        })
    }
}

/// The directory of a testbed, removed with it. Declared after the hosts, whose mounts are
/// inside.
#[derive(Debug)]
struct TestbedDir(PathBuf, Registration);

impl TestbedDir {
    fn create(path: PathBuf, registration: &Registration) -> Result<Self> {
        registration.dir(&path)?;
        // Another testbed that ends removes the parent if it is empty: once more then.
        let attempts = (0..10).map(|_| fs::create_dir_all(&path));
        let made = attempts
            .into_iter()
            .find(|made| !matches!(made, Err(error) if error.kind() == io::ErrorKind::NotFound));
        made.unwrap_or(Err(io::ErrorKind::NotFound.into()))
            .map_err(|error| Error::system("create", path.display().to_string(), error))?;
        Ok(Self(path, registration.clone()))
    }

    fn subdirectory(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::create_dir_all(&path)
            .map_err(|error| Error::system("create", path.display().to_string(), error))?;
        Ok(path)
    }
}

impl Drop for TestbedDir {
    fn drop(&mut self) {
        if self.1.is_kept() {
            return;
        }
        let _ = fs::remove_dir_all(&self.0);
        // Fails while other testbeds have theirs there.
        let _ = fs::remove_dir(ROOT);
    }
}

fn underlay_address(host: u8) -> Result<Ipv4Net> {
    let [a, b, c, _] = UNDERLAY.octets();
    Ipv4Net::new(Ipv4Addr::new(a, b, c, host), UNDERLAY_PREFIX).map_err(|error| Error::Invalid {
        value: UNDERLAY_PREFIX.to_string(),
        rule: error.to_string(),
    })
}

/// A name that no other testbed on this machine has, in this process or another.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("qm-{}-{number}", std::process::id())
}
