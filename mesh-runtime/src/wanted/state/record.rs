//! The format of the state file.
//!
//! One line of header and a JSON document:
//!
//! ```text
//! quilt-mesh-runtime state v1 sha256=<64 hexadecimal digits> length=<bytes>
//! {"cluster":"10.42.0.0/16","node_prefix":24,"subnet":"10.42.1.0/24", …}
//! ```
//!
//! Length and checksum are those of everything after the header's line feed. Members may be
//! added to the document in this version; one that is missing has its default.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    net::Ipv4Addr,
    sync::Arc,
};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    ebpf::Mac,
    options::underlay_address,
    wanted::{
        Wanted,
        endpoint::AttachedEndpoint,
        node_settings::NodeSettings,
        peer::{MTU_RANGE, Peer},
        subnet::Cluster,
    },
};

/// The longest file that is read or written: four times what 65,536 peers with host names of
/// 63 characters take.
pub(super) const MAX_LEN: usize = 64 << 20;

const MAGIC: &str = "quilt-mesh-runtime state ";
const VERSION: &str = "v1";

/// Why a file is not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum RecordError {
    #[error("it does not begin with {MAGIC:?} and a version")]
    NoHeader,
    #[error("its version is {0:?}, this program reads {VERSION}")]
    Version(String),
    #[error("it is {len} bytes long, more than {MAX_LEN}")]
    TooLong { len: usize },
    #[error("its content does not have the length and the checksum that its first line names")]
    Checksum,
    #[error("its content cannot be read: {0}")]
    Content(String),
    #[error(
        "it is of cluster {given} with /{given_prefix} nodes, this one is {own} with /{own_prefix}"
    )]
    OtherCluster {
        given: Ipv4Net,
        given_prefix: u8,
        own: Ipv4Net,
        own_prefix: u8,
    },
    #[error("{0}")]
    Rule(String),
}

/// A network namespace in one life of its host: interface indexes mean nothing beyond it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Life {
    /// The kernel's random id of this boot.
    pub(crate) boot: String,
    /// Inode of the network namespace.
    pub(crate) namespace: u64,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.boot, self.namespace)
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    cluster: Ipv4Net,
    node_prefix: u8,
    #[serde(default)]
    subnet: Option<Ipv4Net>,
    #[serde(default)]
    host_address: Option<Ipv4Addr>,
    #[serde(default)]
    generation: u64,
    #[serde(default)]
    node_settings: SettingsRecord,
    #[serde(default)]
    peers: Vec<PeerRecord>,
    #[serde(default)]
    injected: Vec<Ipv4Net>,
    #[serde(default)]
    here: Here,
}

#[derive(Serialize, Deserialize)]
struct PeerRecord {
    subnet: Ipv4Net,
    host_address: Ipv4Addr,
    #[serde(default)]
    hostname: String,
    #[serde(default)]
    suspect: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
}

/// What all nodes share. A file from before has none, and a member that is missing is as
/// without settings.
#[derive(Serialize, Deserialize)]
#[serde(default)]
struct SettingsRecord {
    vxlan_port: u32,
    vni: u32,
}

impl From<NodeSettings> for SettingsRecord {
    fn from(settings: NodeSettings) -> Self {
        Self {
            vxlan_port: settings.vxlan_port.into(),
            vni: settings.vni,
        }
    }
}

impl Default for SettingsRecord {
    fn default() -> Self {
        NodeSettings::default().into()
    }
}

/// What holds for one life of the namespace.
#[derive(Default, Serialize, Deserialize)]
struct Here {
    life: Life,
    #[serde(default)]
    own_bridge: Option<u32>,
    #[serde(default)]
    endpoints: Vec<EndpointRecord>,
}

#[derive(Serialize, Deserialize)]
struct EndpointRecord {
    address: Ipv4Addr,
    link: u32,
    interface: String,
    mac: Option<Mac>,
}

/// The file that says `wanted`.
pub(super) fn encode(wanted: &Wanted, cluster: &Cluster, life: &Life) -> Vec<u8> {
    let body = Body {
        cluster: cluster.cidr,
        node_prefix: cluster.node_prefix,
        subnet: wanted.subnet,
        host_address: wanted.host_address,
        generation: wanted.generation,
        node_settings: wanted.node_settings.into(),
        peers: wanted
            .peers
            .iter()
            .map(|(&subnet, peer)| PeerRecord {
                subnet,
                host_address: peer.address,
                hostname: peer.hostname.clone(),
                suspect: peer.suspect,
                mtu: peer.mtu,
            })
            .collect(),
        injected: wanted.injected.iter().copied().collect(),
        here: Here {
            life: life.clone(),
            own_bridge: wanted.own_bridge,
            endpoints: wanted
                .endpoints
                .iter()
                .map(|(&address, endpoint)| EndpointRecord {
                    address,
                    link: endpoint.link,
                    interface: endpoint.interface.clone(),
                    mac: endpoint.mac,
                })
                .collect(),
        },
    };
    // Numbers, strings and lists of them: nothing that JSON cannot say.
    let content = serde_json::to_vec(&body).unwrap_or_default();
    let mut file = format!(
        "{MAGIC}{VERSION} sha256={} length={}\n",
        checksum(&content),
        content.len()
    )
    .into_bytes();
    file.extend(content);
    file
}

/// Reads a file back. Whatever is in it obeys the rules that calls obey.
pub(super) fn decode(file: &[u8], cluster: &Cluster, life: &Life) -> Result<Wanted, RecordError> {
    if file.len() > MAX_LEN {
        return Err(RecordError::TooLong { len: file.len() });
    }
    let end = file.iter().position(|&byte| byte == b'\n');
    let header = end
        .and_then(|end| str::from_utf8(&file[..end]).ok())
        .and_then(|line| line.strip_prefix(MAGIC))
        .ok_or(RecordError::NoHeader)?;
    let content = &file[header.len() + MAGIC.len() + 1..];
    let expected = format!(
        "{VERSION} sha256={} length={}",
        checksum(content),
        content.len()
    );
    if header != expected {
        let version = header.split(' ').next().unwrap_or_default();
        return Err(if version == VERSION {
            RecordError::Checksum
        } else {
            RecordError::Version(version.chars().take(16).collect())
        });
    }
    let body: Body =
        serde_json::from_slice(content).map_err(|error| RecordError::Content(error.to_string()))?;
    check(body, cluster, life)
}

fn check(body: Body, cluster: &Cluster, life: &Life) -> Result<Wanted, RecordError> {
    if (body.cluster, body.node_prefix) != (cluster.cidr, cluster.node_prefix) {
        return Err(RecordError::OtherCluster {
            given: body.cluster,
            given_prefix: body.node_prefix,
            own: cluster.cidr,
            own_prefix: cluster.node_prefix,
        });
    }
    let subnets = body.subnet.into_iter().chain(body.injected.iter().copied());
    for subnet in subnets.chain(body.peers.iter().map(|peer| peer.subnet)) {
        if !cluster.is_node_subnet(subnet) {
            return Err(RecordError::Rule(format!("{subnet} is no node's subnet")));
        }
    }
    let hosts = body.peers.iter().map(|peer| peer.host_address);
    for address in hosts.chain(body.host_address) {
        underlay_address(address, cluster.cidr)
            .map_err(|what| RecordError::Rule(format!("{address} is {what}")))?;
    }
    for mtu in body.peers.iter().filter_map(|peer| peer.mtu) {
        if !MTU_RANGE.contains(&mtu) {
            return Err(RecordError::Rule(format!("{mtu} is no peer's MTU")));
        }
    }
    let node_settings = NodeSettings::new(body.node_settings.vxlan_port, body.node_settings.vni)
        .map_err(|error| RecordError::Rule(error.to_string()))?;
    let is_own = |subnet: &Ipv4Net| Some(*subnet) == body.subnet;
    let peers: BTreeMap<Ipv4Net, Peer> = body
        .peers
        .into_iter()
        .filter(|peer| !is_own(&peer.subnet))
        .map(|peer| {
            let value = Peer {
                address: peer.host_address,
                hostname: peer.hostname,
                suspect: peer.suspect,
                mtu: peer.mtu,
            };
            (peer.subnet, value)
        })
        .collect();
    let here = Some(body.here).filter(|here| here.life == *life);
    let here = here.unwrap_or_default();
    Ok(Wanted {
        subnet: body.subnet,
        host_address: body.host_address,
        node_settings,
        generation: body.generation,
        peers: Arc::new(peers),
        injected: body
            .injected
            .into_iter()
            .filter(|subnet| !is_own(subnet))
            .collect::<BTreeSet<_>>()
            .into(),
        endpoints: here
            .endpoints
            .into_iter()
            .map(|record| {
                let endpoint = AttachedEndpoint {
                    link: record.link,
                    interface: record.interface,
                    mac: record.mac,
                    // Whoever keeps the register says so anew.
                    strict: false,
                };
                (record.address, endpoint)
            })
            .collect(),
        published: BTreeSet::new(),
        own_bridge: here.own_bridge,
        // The kernel shows them as long as the bridge is there.
        bridge_ports: BTreeSet::new(),
    })
}

fn checksum(content: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
