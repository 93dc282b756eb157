//! What the services ask of the reconciler.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use mesh_ipam::Lease;
use mesh_problems::Finding;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    ebpf::{FastPathReport, PeerCounters},
    metrics::Measured,
    observed::namespace::Namespace,
    probe::{
        ProbeStart,
        path::{Ground as PathGround, ask::FastCounts},
    },
    reconcile::{
        firewall_check::FirewallCheck,
        monitor::{Look, Looking},
    },
    trace::{Question, Trace},
    wanted::{endpoint_request::EndpointRequest, node_settings::NodeSettings, peer::Peer},
};

/// A request, with the place its answer goes to.
#[derive(Debug)]
pub(crate) enum Command {
    ConfigureSubnet {
        subnet: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    InjectRoute {
        destination: String,
        via: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    RemoveRoute {
        destination: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    SyncPeers {
        sync: Sync,
        reply: oneshot::Sender<SyncAnswer>,
    },
    AttachEndpoint {
        request: EndpointRequest,
        reply: oneshot::Sender<Result<EndpointView, Refusal>>,
    },
    DetachEndpoint {
        interface: String,
        address: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// What a container's interface is made on.
    Ground {
        reply: oneshot::Sender<Result<Ground, Refusal>>,
    },
    /// Makes the interface of a lease's endpoint.
    MakeEndpoint {
        lease: Box<Lease>,
        /// `None`: its engine moves it into one.
        namespace: Option<Namespace>,
        reply: oneshot::Sender<Result<Made, Refusal>>,
    },
    /// Lets an endpoint that is made send, by the name of its interface.
    RaiseEndpoint {
        link: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Deletes the interface of an endpoint, by its name.
    UnmakeEndpoint {
        link: String,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// What the kernel shows of leases.
    Shown {
        reply: oneshot::Sender<Shown>,
    },
    ListPeers {
        reply: oneshot::Sender<PeerList>,
    },
    GetStatus {
        reply: oneshot::Sender<Status>,
    },
    ListRoutes {
        reply: oneshot::Sender<Vec<RouteView>>,
    },
    /// What a scrape shows. The kernel is not read for it, but for the maps.
    Measure {
        reply: oneshot::Sender<Box<Measured>>,
    },
    /// Whether the loop knows what the kernel has; it answers, at any rate.
    Health {
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// News of that.
    WatchHealth {
        reply: oneshot::Sender<watch::Receiver<bool>>,
    },
    /// The first half of a probe, which itself does not hold up anybody.
    StartProbe {
        /// As the caller wrote them; empty for all peers.
        subnets: Vec<String>,
        reply: oneshot::Sender<ProbeStart>,
    },
    /// What would become of a packet.
    Trace {
        question: Question,
        reply: oneshot::Sender<Result<Trace, Refusal>>,
    },
    /// Lets somebody look at what becomes of packets, until what is answered is dropped.
    Monitor {
        look: Look,
        reply: oneshot::Sender<Result<Looking, Refusal>>,
    },
    /// When each of these peers was heard last, as far as the programs counted.
    LastSeen {
        peers: Vec<Ipv4Net>,
        reply: oneshot::Sender<BTreeMap<Ipv4Net, Instant>>,
    },
    /// What asking along the way to a target begins with, or why nobody is meant.
    PathGround {
        /// As the caller wrote it.
        target: String,
        reply: oneshot::Sender<Result<Box<PathGround>, String>>,
    },
    /// Looks at the packet filter.
    CheckFirewall {
        reply: oneshot::Sender<Result<FirewallCheck, Refusal>>,
    },
    /// Forgets the node's subnet and all peers.
    Forget {
        subnet: String,
        reply: oneshot::Sender<Result<Forgotten, Refusal>>,
    },
    /// What the programs have counted of a peer.
    FastCounts {
        peer: Ipv4Net,
        reply: oneshot::Sender<FastCounts>,
    },
}

/// What became of what was made for the mesh, when the node was none any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forgotten {
    /// One line for each thing that was removed.
    pub(crate) removed: Vec<String>,
    /// One line for each thing that was left, with the reason.
    pub(crate) kept: Vec<String>,
}

/// What a container's interface is made on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground {
    pub(crate) subnet: Ipv4Net,
    pub(crate) cluster: Ipv4Net,
    /// The overlay's, in bytes.
    pub(crate) mtu: u32,
    /// The UDP port that is nobody's to publish.
    pub(crate) vxlan_port: u16,
}

/// An endpoint whose interface is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Made {
    /// Index of the host's end.
    pub(crate) port: u32,
    /// Whether this call made it.
    pub(crate) new: bool,
    /// Whether programs and rules know it.
    pub(crate) guarded: bool,
}

/// What the kernel shows of leases.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// Names of the host's interfaces.
    pub(crate) links: BTreeSet<String>,
    /// How long the other ends of registered containers' ports have been on the host, by the names of the ports.
    pub(crate) handed_over: BTreeMap<String, Duration>,
    /// Addresses that containers at the bridge hold.
    pub(crate) held: BTreeSet<Ipv4Addr>,
    /// The address that this node itself has for probes, or is to have.
    pub(crate) probe_address: Option<Ipv4Addr>,
}

/// The whole peer set.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) generation: u64,
    pub(crate) host_address: String,
    pub(crate) peers: Vec<mesh_proto::mesh::Peer>,
    /// `None`, from an agent that knows of none.
    pub(crate) node_settings: Option<mesh_proto::mesh::NodeSettings>,
}

/// Why a request was refused or could not be carried out, in words for its caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Refusal {
    text: String,
    /// Whether the same request may succeed a little later, without anybody changing it.
    pub(crate) for_now: bool,
}

impl Refusal {
    /// A refusal that stays one as long as nobody changes anything.
    pub(crate) fn new(text: String) -> Self {
        Self {
            text,
            for_now: false,
        }
    }

    /// A refusal with the text of an error.
    pub(crate) fn because(error: impl std::fmt::Display) -> Self {
        Self::new(error.to_string())
    }

    /// A refusal of what is worth another try in a moment.
    pub(crate) fn for_now(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            for_now: true,
        }
    }
}

/// What became of a sync.
#[derive(Clone, Debug)]
pub(crate) struct SyncAnswer {
    pub(crate) outcome: Result<SyncCounts, Refusal>,
    /// The generation that is applied now.
    pub(crate) generation: u64,
    /// Peers that were refused, each with the reason.
    pub(crate) rejected: Vec<(mesh_proto::mesh::Peer, String)>,
}

/// How many peers a sync added, changed, removed and left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SyncCounts {
    pub(crate) added: u32,
    pub(crate) changed: u32,
    pub(crate) removed: u32,
    pub(crate) unchanged: u32,
}

/// The peers as the kernel shows them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerList {
    pub(crate) generation: u64,
    pub(crate) peers: BTreeMap<Ipv4Net, (Peer, PeerShown)>,
}

/// What kernel and programs show of one peer.
#[derive(Clone, Debug)]
pub(crate) struct PeerShown {
    pub(crate) counters: PeerCounters,
    pub(crate) kernel_path_ready: bool,
    pub(crate) fast_path_ready: bool,
}

/// The state of the node.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) subnet: Option<Ipv4Net>,
    pub(crate) host_address: Option<Ipv4Addr>,
    pub(crate) underlay_interface: String,
    pub(crate) overlay_mtu: u32,
    pub(crate) node_settings: NodeSettings,
    pub(crate) generation: u64,
    pub(crate) peers: usize,
    pub(crate) suspect_peers: usize,
    pub(crate) routes: usize,
    pub(crate) fast_path: FastPathView,
    pub(crate) endpoints: Vec<EndpointView>,
    /// The address of the endpoint for probes, while it is there.
    pub(crate) probe_endpoint: Option<Ipv4Addr>,
    pub(crate) findings: Vec<Finding>,
}

/// The state of the fast path.
#[derive(Clone, Debug)]
pub(crate) enum FastPathView {
    /// The programs guard alone.
    Off(Option<Box<FastPathReport>>),
    Unavailable(String),
    Waiting {
        reason: String,
        report: Option<Box<FastPathReport>>,
    },
    Active(Box<FastPathReport>),
}

/// A container of this node.
#[derive(Clone, Debug)]
pub(crate) struct EndpointView {
    pub(crate) address: Ipv4Addr,
    pub(crate) mac: String,
    pub(crate) interface: String,
    /// Whether somebody shapes or polices its packets, so that they take the kernel path.
    pub(crate) shaped: bool,
}

/// A route over the overlay that somebody wants.
#[derive(Clone, Debug)]
pub(crate) struct RouteView {
    pub(crate) destination: Ipv4Net,
    /// Name of the overlay device.
    pub(crate) interface: String,
    /// `None`: a call asked for it alone.
    pub(crate) peer: Option<Peer>,
    /// The largest packet that the peer takes, in bytes, where that is less than the overlay's MTU.
    pub(crate) mtu: Option<u32>,
    pub(crate) injected: bool,
    pub(crate) in_place: bool,
    /// What the kernel shows that is not ours; empty if nothing is.
    pub(crate) instead: String,
}

/// Where the services send their commands.
pub(crate) type Commands = mpsc::Sender<Command>;
