//! The registry's place in the loop: what it says stands above what is found, and what it wants made
//! is made here, because nobody else changes the kernel.

mod pair;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use mesh_ipam::{Ipam, IpamError, Lease, Published};
use tokio::sync::{oneshot, watch};

use super::{Reconciler, probe_endpoint::OCCUPANT, waiting::Waiting};
use crate::{
    api::command::{Ground, Made, Refusal, Shown},
    apply::veth::{self, VethPair},
    ebpf::Mac,
    netlink::NetlinkError,
    observed::{Link, LinkKind, Observed, dirty::Dirty, namespace::Namespace},
    probe_endpoint,
    problem::Problem,
    wanted::{Wanted, attachment::inside_name, endpoint::AttachedEndpoint},
};

/// The most ports that a bridge has: numbers of ten bits (`BR_PORT_BITS`, net/bridge/br_private.h), of
/// which zero is none.
const MAX_PORTS: u32 = 1023;

/// The longest the loop waits for the disk.
const DISK_DEADLINE: Duration = Duration::from_secs(2);

/// What of the registry the loop goes by.
pub(super) struct Registered {
    addresses: Option<Addresses>,
    endpoints: Vec<RegisteredEndpoint>,
    /// The ports whose other ends are on this host, by their names, and since when that is known.
    handed_over: BTreeMap<String, Instant>,
    occupied: BTreeMap<Ipv4Addr, String>,
}

struct Addresses {
    ipam: Ipam,
    news: watch::Receiver<u64>,
}

/// An endpoint of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct RegisteredEndpoint {
    address: Ipv4Addr,
    link: String,
    mac: Mac,
    published: Vec<Published>,
}

impl Registered {
    pub(super) fn new(ipam: Option<Ipam>) -> Self {
        let mut registered = Self {
            addresses: ipam.map(|ipam| Addresses {
                news: ipam.subscribe(),
                ipam,
            }),
            endpoints: Vec::new(),
            handed_over: BTreeMap::new(),
            occupied: BTreeMap::new(),
        };
        registered.take(true);
        registered
    }

    /// The registry, where there is one.
    pub(super) fn ipam(&self) -> Option<&Ipam> {
        self.addresses.as_ref().map(|addresses| &addresses.ipam)
    }

    /// That nothing new is leased, where somebody has said so.
    pub(super) fn drained(&self) -> Option<Problem> {
        self.ipam()?.drained()?;
        Some(Problem::Drained)
    }

    /// Has the registry lease addresses of the node's subnet. Where the disk does not take that, the node works
    /// without, and [`catch_up`](Self::catch_up) tries again.
    pub(super) async fn serve(&self, subnet: Ipv4Net) -> Result<(), Refusal> {
        let Some(ipam) = self.ipam() else {
            return Ok(());
        };
        match tell(ipam, subnet).await {
            Err(error @ SubnetError::Registry(IpamError::Refused(_))) => {
                Err(Refusal::because(error))
            }
            Err(error) => {
                tracing::warn!(%error, "no addresses are leased until the disk takes the node's subnet");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Tells the registry the node's subnet, if it lacks it.
    pub(super) async fn catch_up(&self, wanted: &Wanted) {
        if let (Some(ipam), Some(subnet)) = (self.ipam(), wanted.subnet)
            && ipam.usage().subnet != Some(subnet)
            && let Err(error) = tell(ipam, subnet).await
        {
            tracing::debug!(%error, "no addresses are leased yet");
        }
    }

    /// Whether it says of an endpoint that it is published, whether its interface is there or not.
    pub(super) fn publishes(&self) -> bool {
        self.endpoints.iter().any(|it| !it.published.is_empty())
    }

    /// Takes over what the registry says now.
    fn take(&mut self, anew: bool) {
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        // A sender that is gone has nothing new to tell.
        if !anew && !addresses.news.has_changed().unwrap_or_default() {
            return;
        }
        addresses.news.mark_unchanged();
        let leases = addresses.ipam.leases();
        self.endpoints = leases.iter().filter_map(registered).collect();
    }

    /// Has `wanted` say what the registry says of the ports of the bridge.
    pub(super) fn show(&mut self, wanted: &mut Wanted, observed: &Observed, bridge: &str) {
        self.take(false);
        let links = ports(observed, bridge);
        wanted.published.clear();
        let known = std::mem::take(&mut self.handed_over);
        for endpoint in &self.endpoints {
            let Some(link) = links.get(endpoint.link.as_str()) else {
                continue;
            };
            if link.near_end.is_some() {
                let since = known.get(&endpoint.link).copied();
                let since = since.unwrap_or_else(Instant::now);
                self.handed_over.insert(endpoint.link.clone(), since);
            }
            let attached = AttachedEndpoint {
                link: link.index,
                interface: endpoint.link.clone(),
                mac: Some(endpoint.mac),
                strict: true,
            };
            wanted.endpoints.insert(endpoint.address, attached);
            let published = endpoint.published.iter().cloned();
            let published = published.map(|ports| (endpoint.address, ports));
            wanted.published.extend(published);
        }
    }

    /// How long the other ends of ports have been on this host, by the names of the ports.
    fn handed_over(&self) -> BTreeMap<String, Duration> {
        let all = self.handed_over.iter();
        all.map(|(port, since)| (port.clone(), since.elapsed()))
            .collect()
    }

    /// Tells the registry which addresses containers have that it knows nothing of.
    pub(super) fn occupy(&mut self, wanted: &Wanted, observed: &Observed) {
        let own: BTreeSet<&str> = self.endpoints.iter().map(|it| it.link.as_str()).collect();
        let occupied = occupied(&own, wanted, observed);
        if let Some(addresses) = &self.addresses
            && occupied != self.occupied
        {
            addresses.ipam.occupy(occupied.clone());
            self.occupied = occupied;
        }
    }
}

/// Why the registry does not have the node's subnet.
#[derive(Debug, thiserror::Error)]
enum SubnetError {
    #[error(transparent)]
    Registry(#[from] IpamError),
    #[error("the disk does not answer within {} s", DISK_DEADLINE.as_secs())]
    Slow,
}

async fn tell(ipam: &Ipam, subnet: Ipv4Net) -> Result<(), SubnetError> {
    match tokio::time::timeout(DISK_DEADLINE, ipam.set_subnet(subnet)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(SubnetError::Slow),
    }
}

fn registered(lease: &Lease) -> Option<RegisteredEndpoint> {
    let endpoint = lease.endpoint.as_ref()?;
    Some(RegisteredEndpoint {
        address: lease.address,
        link: endpoint.link.clone(),
        mac: endpoint.mac,
        published: endpoint.published.clone(),
    })
}

/// The veth ports of a bridge by their names.
fn ports<'a>(observed: &'a Observed, bridge: &str) -> BTreeMap<&'a str, &'a Link> {
    let Some(bridge) = observed.link_named(bridge) else {
        return BTreeMap::new();
    };
    observed
        .ports_of(bridge.index)
        .filter(|port| port.kind == LinkKind::Veth)
        .map(|port| (port.name.as_str(), port))
        .collect()
}

/// The addresses of containers behind other ports than `own`, with the names of the ports.
fn occupied(
    own: &BTreeSet<&str>,
    wanted: &Wanted,
    observed: &Observed,
) -> BTreeMap<Ipv4Addr, String> {
    let found = observed.containers.iter().flat_map(|(&port, container)| {
        let interface = container.interface.iter();
        interface.flat_map(move |it| it.addresses.iter().map(move |&address| (address, port)))
    });
    let told = wanted
        .endpoints
        .iter()
        .map(|(&address, endpoint)| (address, endpoint.link));
    found
        .chain(told)
        .map(|(address, port)| (address, observed.name_of(port)))
        .filter(|(_, name)| !own.contains(name.as_str()))
        .map(|(address, name)| match name.as_str() {
            probe_endpoint::NAME => (address, OCCUPANT.to_owned()),
            _ => (address, name),
        })
        .collect()
}

impl Reconciler {
    /// What a container's interface is made on.
    pub(super) fn ground(&self) -> Result<Ground, Refusal> {
        let subnet = self.wanted.subnet.ok_or_else(|| {
            Refusal::for_now("this node has no subnet yet: try again once its agent has joined")
        })?;
        let underlay = self.desired.underlay.as_ref().ok_or_else(|| {
            let problem = self.problems.first();
            let why = problem.map_or_else(String::new, |problem| format!(" ({problem})"));
            Refusal::for_now(format!(
                "this node's address on the underlay is not known yet, and with it the MTU of its \
                 containers{why}: try again once the agent has joined"
            ))
        })?;
        Ok(Ground {
            subnet,
            cluster: self.settings.cluster.cidr,
            mtu: underlay.overlay_mtu,
            vxlan_port: self.wanted.node_settings.vxlan_port,
        })
    }

    /// Makes the interface of a lease's endpoint, unless it is there, and answers once the guards know it.
    pub(super) async fn make_endpoint(
        &mut self,
        lease: &Lease,
        namespace: Option<&Namespace>,
        reply: oneshot::Sender<Result<Made, Refusal>>,
    ) {
        // Made for nobody, it would be in the way of the caller's next try.
        if reply.is_closed() {
            return;
        }
        match self.make_link(lease, namespace).await {
            Ok(made) => self.answer_when_shown(Waiting::for_endpoint(reply, made)),
            // A caller that has gone away meanwhile is no error.
            Err(refusal) => drop(reply.send(Err(refusal))),
        }
    }

    async fn make_link(
        &mut self,
        lease: &Lease,
        namespace: Option<&Namespace>,
    ) -> Result<Made, Refusal> {
        let endpoint = lease
            .endpoint
            .as_ref()
            .ok_or_else(|| Refusal::new(format!("{} has no endpoint to be made", lease.owner)))?;
        self.read(self.containers_unheard())
            .await
            .map_err(Refusal::because)?;
        let found = match namespace {
            Some(namespace) => self.find_in(&endpoint.link, namespace).await?,
            None => self.find_handed_over(&lease.owner)?,
        };
        if let Some(link) = found {
            let as_made = match self.inside_mac(link) {
                Some(mac) => mac == endpoint.mac,
                // One that its engine moves just now cannot be looked at.
                None => endpoint.moved_by_engine,
            };
            if as_made {
                self.round(Dirty::default()).await;
                return Ok(Made {
                    port: link,
                    new: false,
                    guarded: false,
                });
            }
            // Its container has changed it, or it is of a lease that is lost: nothing would come through.
            self.delete_link(link).await.map_err(Refusal::because)?;
        }
        let bridge = self
            .observed
            .link_named(&self.settings.bridge)
            .filter(|link| link.kind == LinkKind::Bridge)
            .map(|link| link.index)
            .ok_or_else(|| self.device_problem().unwrap_or_else(|| self.no_bridge()))?;
        let pair = VethPair {
            link: &endpoint.link,
            bridge,
            mtu: endpoint.mtu,
            inside: &inside_name(&lease.owner, endpoint.moved_by_engine),
            inside_mac: endpoint.mac,
            namespace: namespace.map(Namespace::as_fd),
            owner: lease.owner.to_string(),
        };
        veth::create(&self.netlink, &pair)
            .await
            .map_err(|error| self.explain(&error, lease, namespace))?;
        self.round(Dirty::default()).await;
        let made = self.observed.link_named(&endpoint.link);
        let port = made.map(|link| link.index).ok_or_else(|| {
            Refusal::for_now(format!(
                "interface {} is gone again: attach it anew",
                endpoint.link
            ))
        })?;
        Ok(Made {
            port,
            new: true,
            guarded: false,
        })
    }

    fn no_bridge(&self) -> Refusal {
        Refusal::for_now(format!(
            "the bridge {} is not there at the moment: try again",
            self.settings.bridge
        ))
    }

    fn explain(
        &self,
        error: &NetlinkError,
        lease: &Lease,
        namespace: Option<&Namespace>,
    ) -> Refusal {
        let bridge = &self.settings.bridge;
        let inside = inside_name(&lease.owner, namespace.is_none());
        let path = match namespace {
            Some(namespace) => namespace.path().display().to_string(),
            None => "this host".to_owned(),
        };
        Refusal::new(match error.errno() {
            Some(libc::EXFULL) => format!(
                "bridge {bridge} has all the {MAX_PORTS} ports that a bridge can have: detach containers, \
                 or attach new ones on another node"
            ),
            Some(libc::EEXIST) => {
                format!(
                    "{path} has an interface named {inside} already: detach or rename that first"
                )
            }
            _ => format!("cannot make interface {inside} in {path}: {error}"),
        })
    }

    /// Brings an endpoint's interface up. Not before rules and maps know it, and a program looks at what it sends, its
    /// own or the bridge's: whoever is root inside could send from what is not registered until then.
    pub(super) async fn raise_endpoint(&self, link: &str) -> Result<(), Refusal> {
        let found = ports(&self.observed, &self.settings.bridge)
            .get(link)
            .map(|port| port.index)
            .ok_or_else(|| {
                Refusal::for_now(format!("interface {link} is gone again: attach it anew"))
            })?;
        veth::raise(&self.netlink, found)
            .await
            .map_err(|error| Refusal::new(format!("cannot bring interface {link} up: {error}")))
    }

    /// Deletes the interface of an endpoint. One that is gone is success. Maps and rules follow with the next round,
    /// which the kernel's word of the deletion brings, and which comes before another gets the address.
    pub(super) async fn unmake_endpoint(&mut self, link: &str) -> Result<(), Refusal> {
        self.read(Dirty::default())
            .await
            .map_err(Refusal::because)?;
        // Also if somebody has taken it off the bridge. Nobody else's pair has a name made of an owner's.
        let found = self
            .observed
            .link_named(link)
            .filter(|found| found.kind == LinkKind::Veth)
            .map(|found| found.index);
        if let Some(index) = found {
            self.delete_link(index).await.map_err(|error| {
                Refusal::new(format!("cannot delete interface {link}: {error}"))
            })?;
        }
        Ok(())
    }

    /// Deletes the pair of a port, of which the next reading asks: the kernel tells of one that was never up a while
    /// after it is gone.
    async fn delete_link(&mut self, link: u32) -> Result<(), NetlinkError> {
        let deleted = veth::delete(link).await;
        self.outdated.add_fallen_link(link);
        deleted
    }

    /// What the kernel shows of leases: which interfaces are there, and which addresses are held.
    pub(super) fn shown(&self) -> Shown {
        let containers = self.observed.containers.values();
        let interfaces = containers.filter_map(|container| container.interface.as_ref());
        Shown {
            links: self
                .observed
                .links
                .values()
                .map(|link| link.name.clone())
                .collect(),
            handed_over: self.registered.handed_over(),
            held: interfaces
                .flat_map(|interface| interface.addresses.iter().copied())
                .chain(self.wanted.endpoints.keys().copied())
                .collect(),
            probe_address: self.probe_address(),
        }
    }
}
