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
    wanted::{Wanted, endpoint::AttachedEndpoint, peer::Peer, subnet::Cluster},
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
        peers: wanted
            .peers
            .iter()
            .map(|(&subnet, peer)| PeerRecord {
                subnet,
                host_address: peer.address,
                hostname: peer.hostname.clone(),
                suspect: peer.suspect,
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
            };
            (peer.subnet, value)
        })
        .collect();
    let here = Some(body.here).filter(|here| here.life == *life);
    let here = here.unwrap_or_default();
    Ok(Wanted {
        subnet: body.subnet,
        host_address: body.host_address,
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
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::options::RuntimeOptions;

    fn cluster() -> Cluster {
        Cluster::from(&RuntimeOptions::default())
    }

    fn life() -> Life {
        Life {
            boot: "8c2f".to_owned(),
            namespace: 4_026_531_840,
        }
    }

    fn net(third: u8) -> Ipv4Net {
        Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 24)
    }

    prop_compose! {
        fn any_wanted()(
            subnet in prop::option::weighted(0.8, Just(net(1))),
            host_address in prop::option::of(Just(Ipv4Addr::new(192, 0, 2, 1))),
            generation: u64,
            peers in prop::collection::btree_map(2..60_u8, (".{0,12}", any::<bool>()), 0..8),
            injected in prop::collection::btree_set((2..60_u8).prop_map(net), 0..4),
            endpoints in prop::collection::btree_map(
                (2..250_u8).prop_map(|host| Ipv4Addr::new(10, 42, 1, host)),
                (any::<u32>(), ".{0,15}", any::<Option<Mac>>()),
                0..4,
            ),
            own_bridge: Option<u32>,
        ) -> Wanted {
            Wanted {
                subnet,
                host_address,
                generation,
                peers: peers
                    .into_iter()
                    .map(|(third, (hostname, suspect))| {
                        let address = Ipv4Addr::new(192, 0, 2, third);
                        (net(third), Peer { address, hostname, suspect })
                    })
                    .collect::<BTreeMap<_, _>>()
                    .into(),
                injected: Arc::new(injected),
                endpoints: endpoints
                    .into_iter()
                    .map(|(address, (link, interface, mac))| {
                        (address, AttachedEndpoint { link, interface, mac, strict: false })
                    })
                    .collect(),
                published: BTreeSet::new(),
                own_bridge,
                bridge_ports: BTreeSet::new(),
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_exactly(wanted in any_wanted()) {
            let file = encode(&wanted, &cluster(), &life());
            prop_assert_eq!(decode(&file, &cluster(), &life()), Ok(wanted));
        }

        #[test]
        fn no_truncation_is_taken_for_a_file(wanted in any_wanted(), at in any::<prop::sample::Index>()) {
            let file = encode(&wanted, &cluster(), &life());
            prop_assert!(decode(&file[..at.index(file.len())], &cluster(), &life()).is_err());
        }

        #[test]
        fn no_flipped_bit_is_taken_for_a_file(
            wanted in any_wanted(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
        ) {
            let mut file = encode(&wanted, &cluster(), &life());
            let at = at.index(file.len());
            file[at] ^= 1 << bit;
            prop_assert!(decode(&file, &cluster(), &life()).is_err());
        }

        #[test]
        fn nothing_that_follows_a_file_is_taken_for_part_of_it(
            wanted in any_wanted(), more in prop::collection::vec(any::<u8>(), 1..40),
        ) {
            let mut file = encode(&wanted, &cluster(), &life());
            file.extend(more);
            prop_assert_eq!(
                decode(&file, &cluster(), &life()),
                Err(RecordError::Checksum)
            );
        }

        #[test]
        fn no_bytes_make_the_reader_panic(file in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode(&file, &cluster(), &life()).is_err());
        }
    }

    /// A file whose checksum is right and whose content is somebody's idea.
    fn forged(content: &str) -> Result<Wanted, RecordError> {
        let header = format!(
            "{MAGIC}{VERSION} sha256={} length={}\n",
            checksum(content.as_bytes()),
            content.len()
        );
        decode(format!("{header}{content}").as_bytes(), &cluster(), &life())
    }

    #[test]
    fn interface_indexes_of_another_life_are_forgotten() {
        let endpoint = AttachedEndpoint {
            link: 7,
            interface: "veth7".to_owned(),
            mac: None,
            strict: false,
        };
        let wanted = Wanted {
            subnet: Some(net(1)),
            own_bridge: Some(3),
            endpoints: [(Ipv4Addr::new(10, 42, 1, 7), endpoint)].into(),
            ..Wanted::default()
        };
        let file = encode(&wanted, &cluster(), &life());
        let next = Life {
            boot: "another".to_owned(),
            ..life()
        };
        let read = decode(&file, &cluster(), &next).unwrap();
        assert_eq!(read.subnet, wanted.subnet);
        assert_eq!(read.own_bridge, None);
        assert!(read.endpoints.is_empty());
    }

    #[test]
    fn a_file_of_another_cluster_or_version_is_refused_by_name() {
        let file = encode(&Wanted::default(), &cluster(), &life());
        let other = Cluster {
            cidr: "172.16.0.0/12".parse().unwrap(),
            node_prefix: 24,
        };
        let error = decode(&file, &other, &life()).unwrap_err().to_string();
        assert!(
            error.contains("10.42.0.0/16") && error.contains("172.16.0.0/12"),
            "{error}"
        );
        let newer = String::from_utf8(file).unwrap().replacen(" v1 ", " v2 ", 1);
        assert_eq!(
            decode(newer.as_bytes(), &cluster(), &life()),
            Err(RecordError::Version("v2".to_owned()))
        );
    }

    #[test]
    fn members_that_are_missing_have_their_defaults_and_unknown_ones_are_passed_over() {
        let content = r#"{"cluster":"10.42.0.0/16","node_prefix":24,"later":[1]}"#;
        assert_eq!(forged(content), Ok(Wanted::default()));
    }

    #[test]
    fn what_no_call_could_have_made_is_refused() {
        for (members, rule) in [
            (r#""injected":["10.43.2.0/24"]"#, "no node's subnet"),
            (r#""subnet":"10.42.0.0/24""#, "no node's subnet"),
            (
                r#""peers":[{"subnet":"10.42.2.0/24","host_address":"127.0.0.1"}]"#,
                "loopback",
            ),
            (r#""peers":7"#, "cannot be read"),
        ] {
            let content = format!(r#"{{"cluster":"10.42.0.0/16","node_prefix":24,{members}}}"#);
            let error = forged(&content).unwrap_err().to_string();
            assert!(error.contains(rule), "{members}: {error}");
        }
    }
}
