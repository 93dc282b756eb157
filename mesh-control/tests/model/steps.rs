//! What can happen to a control plane, and how sequences of it are made.

use std::net::Ipv4Addr;

use proptest::prelude::*;

/// Underlay addresses that the hosts share, so that they get into each other's way.
const ADDRESSES: u8 = 5;

/// Hosts 0 to 3 have keys, two each, hosts 4 to 6 have none.
const HOSTS: u8 = 7;
const HOSTS_WITH_KEY: u8 = 4;

/// Hosts that register in crowds; each has a key and an address that nobody else wants.
const GUESTS: u8 = 12;

/// The cluster CIDR of the test and its node prefix: 7 subnets, fewer than nodes that want one, so that
/// most sequences come to those that were released.
pub(crate) const CLUSTER_CIDR: &str = "10.42.0.0/16";
pub(crate) const NODE_PREFIX: u8 = 19;
pub(crate) const SUBNETS: u8 = 7;

/// A registration, as one host sends it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) hostname: String,
    pub(crate) host_ip: Ipv4Addr,
    pub(crate) key: Option<String>,
    /// The number of the subnet that it says it holds.
    pub(crate) holds: Option<u8>,
}

impl Claim {
    /// A host that lost its state at some time, or got it back from a backup, comes with its second key.
    fn host(host: u8, address: u8, second_key: bool, holds: Option<u8>) -> Self {
        let key = if second_key { "second-key" } else { "key" };
        Self {
            hostname: format!("host-{host}"),
            host_ip: Ipv4Addr::new(192, 0, 2, address + 1),
            key: (host < HOSTS_WITH_KEY).then(|| format!("{key}-of-host-{host}")),
            holds,
        }
    }

    /// The host of a node that had `key` comes with the other one of its two. `None`: it is a host without keys, or a
    /// guest, which has one key.
    pub(crate) fn after_losing_its_state(
        hostname: &str,
        host_ip: Ipv4Addr,
        key: Option<&str>,
    ) -> Option<Self> {
        let host: u8 = hostname.strip_prefix("host-")?.parse().ok()?;
        let second_key = !key?.starts_with("second");
        let claim = Self::host(host, 0, second_key, None);
        Some(Self { host_ip, ..claim })
    }

    fn guest(guest: u8) -> Self {
        Self {
            hostname: format!("guest-{guest}"),
            host_ip: Ipv4Addr::new(198, 51, 100, guest + 1),
            key: Some(format!("key-of-guest-{guest}")),
            holds: None,
        }
    }
}

/// Of several things there are, one: taken modulo how many there are when the step is made.
pub(crate) type Pick = u8;

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A host registers.
    Register { claim: Claim, replica: Pick },
    /// The host of a node lost its state, and registers anew; maybe its agent deregistered before.
    LoseState {
        node: Pick,
        deregisters: bool,
        replica: Pick,
    },
    /// A node sends a heartbeat.
    Heartbeat { node: Pick, replica: Pick },
    /// A node deregisters.
    Deregister { node: Pick, replica: Pick },
    /// Nobody sends heartbeats until every node is down.
    Silence,
    /// An operator takes a node's subnet away.
    Release { node: Pick, replica: Pick },
    /// Nodes leave for good, one after the other: each deregisters, and an operator takes its subnet away.
    Retire { nodes: Vec<(Pick, Pick)> },
    /// An operator reserves one subnet, or two that lie together.
    Reserve {
        subnet: u8,
        two: bool,
        replica: Pick,
    },
    /// An operator gives up a reservation.
    Unreserve { reservation: Pick, replica: Pick },
    /// Many register at once, some of them through several replicas at the same time.
    Crowd {
        crowd: Vec<(Claim, Pick)>,
        kill: Option<Kill>,
    },
    /// SIGKILL of a replica that is at rest, and a new start.
    Crash { replica: Pick },
    /// SIGTERM and a new start.
    Restart { replica: Pick },
    /// SIGKILL of the database server and a new start; nothing where there is none.
    CrashDatabase,
}

/// SIGKILL of a replica while a crowd registers, so many microseconds after the first was sent.
#[derive(Debug, Clone)]
pub(crate) struct Kill {
    pub(crate) replica: Pick,
    pub(crate) after_us: u16,
}

fn crowd() -> impl Strategy<Value = Vec<(Claim, Pick)>> {
    let guest = (0..GUESTS).prop_map(Claim::guest);
    prop::collection::vec((guest, any::<Pick>()), 1..16)
}

fn step() -> impl Strategy<Value = Step> {
    // Of the last some are free most of the time; number zero is none that is handed out.
    let holds = prop::option::weighted(0.3, 0..=SUBNETS);
    let second_key = prop::bool::weighted(0.3);
    let claim = (0..HOSTS, 0..ADDRESSES, second_key, holds).prop_map(
        |(host, address, second_key, holds)| Claim::host(host, address, second_key, holds),
    );
    let kill =
        (any::<Pick>(), 0..30_000_u16).prop_map(|(replica, after_us)| Kill { replica, after_us });
    let pair = || (any::<Pick>(), any::<Pick>());
    prop_oneof![
        10 => (claim, any::<Pick>()).prop_map(|(claim, replica)| Step::Register { claim, replica }),
        4 => (any::<Pick>(), any::<bool>(), any::<Pick>())
            .prop_map(|(node, deregisters, replica)| Step::LoseState { node, deregisters, replica }),
        4 => pair().prop_map(|(node, replica)| Step::Heartbeat { node, replica }),
        3 => pair().prop_map(|(node, replica)| Step::Deregister { node, replica }),
        1 => Just(Step::Silence),
        4 => pair().prop_map(|(node, replica)| Step::Release { node, replica }),
        2 => prop::collection::vec(pair(), 2..5).prop_map(|nodes| Step::Retire { nodes }),
        2 => (1..=SUBNETS, any::<bool>(), any::<Pick>())
            .prop_map(|(subnet, two, replica)| Step::Reserve { subnet, two, replica }),
        2 => pair().prop_map(|(reservation, replica)| Step::Unreserve { reservation, replica }),
        4 => (crowd(), prop::option::weighted(0.6, kill)).prop_map(|(crowd, kill)| Step::Crowd { crowd, kill }),
        1 => any::<Pick>().prop_map(|replica| Step::Crash { replica }),
        1 => any::<Pick>().prop_map(|replica| Step::Restart { replica }),
        1 => Just(Step::CrashDatabase),
    ]
}

/// Sequences of what happens to one cluster, from its first start on.
pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), most / 2..=most)
}
