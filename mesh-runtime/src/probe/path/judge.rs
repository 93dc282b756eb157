//! What is wrong with a way, from what came of asking along it. Pure.

use std::net::Ipv4Addr;

use mesh_problems::{
    Problem, Severity,
    catalog::path::{
        FAST_PATH_SILENT, KERNEL_PATH_SILENT, NO_PROBE_ENDPOINT, NO_SUCH_ENDPOINT, OUTER_FRAGMENTS,
        PATH_LOSSY, PATH_MTU_SMALL, PATH_NOT_FAST, PEER_HOST_SILENT, PEER_NOT_SET_UP,
        PEER_PORT_UNSERVED, PEER_WITHOUT_PROBES, VXLAN_NOT_THROUGH,
    },
};

use super::seen::{HostSeen, Leg};

/// What VXLAN puts before a packet, in bytes.
pub(super) const ENCAPSULATION: u32 = mesh_layout::ENCAPSULATION_LEN as u32;

/// What a node knows of the way to a peer without asking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerFacts {
    /// Its host name, or its subnet.
    pub(crate) name: String,
    pub(crate) host: Option<Ipv4Addr>,
    /// Why the kernel's entries for it are not in place; `None` if they are.
    pub(crate) unready: Option<String>,
    /// Why the programs do not carry what is for it; `None` if they do.
    pub(crate) without_fast_path: Option<String>,
    pub(crate) vxlan_port: u16,
    /// The interface by which its host is reached.
    pub(crate) interface: String,
    /// MTU of the overlay, as it has told.
    pub(crate) mtu: Option<u32>,
}

/// All that is known of a way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Way {
    pub(crate) address: Option<Ipv4Addr>,
    /// Whether the address is the one that peers have for probes.
    pub(crate) probe_endpoint: bool,
    /// `None` for an address of this node.
    pub(crate) peer: Option<PeerFacts>,
    /// Why this node has no endpoint for probes.
    pub(crate) no_endpoint: Option<String>,
    /// MTU of the overlay here.
    pub(crate) mtu: u32,
    /// As containers send.
    pub(crate) container: Leg,
    /// By the kernel path.
    pub(crate) kernel: Leg,
    pub(crate) host: HostSeen,
    /// How many questions were asked before, and how many answered.
    pub(crate) asked: Option<(u32, u32)>,
    /// Whether the largest packets were looked for.
    pub(crate) searched: bool,
}

impl Way {
    /// The largest packet that containers of both ends may send each other.
    pub(crate) fn expected_mtu(&self) -> u32 {
        let peer = self.peer.as_ref().and_then(|peer| peer.mtu);
        peer.map_or(self.mtu, |mtu| mtu.min(self.mtu))
    }

    fn name(&self) -> String {
        let address = self.address.map_or_else(String::new, |it| it.to_string());
        match &self.peer {
            Some(peer) if peer.name.is_empty() => address,
            Some(peer) => peer.name.clone(),
            None => address,
        }
    }
}

/// What is wrong, the gravest first.
pub(crate) fn judge(way: &Way) -> Vec<Problem> {
    let mut problems = match &way.peer {
        Some(peer) => of_peer(way, peer),
        None => of_this_node(way),
    };
    problems.extend(loss(way));
    if let Some(why) = &way.no_endpoint {
        problems.push(Problem::new(
            &NO_PROBE_ENDPOINT,
            format!("this node has no endpoint for probes: {why}"),
        ));
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.kind.severity));
    problems
}

/// Whether nothing among them keeps packets from their way.
pub(crate) fn is_fine(problems: &[Problem]) -> bool {
    problems
        .iter()
        .all(|problem| problem.kind.severity == Severity::Notice)
}

fn of_this_node(way: &Way) -> Vec<Problem> {
    if way.container.sent == 0 || !way.container.answers.is_empty() {
        return Vec::new();
    }
    let observed = format!("nobody answers at {} on this node", way.name());
    let remedy =
        "see who has the address (meshctl addresses); a container may also drop pings itself";
    vec![Problem::new(&NO_SUCH_ENDPOINT, observed).remedied_by(remedy)]
}

fn of_peer(way: &Way, peer: &PeerFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (container, kernel) = (&way.container, &way.kernel);
    let there = !container.answers.is_empty() || !kernel.answers.is_empty();
    let gateway = container.gateway || kernel.gateway;
    if let Some(why) = &peer.unready {
        problems.push(Problem::new(
            &PEER_NOT_SET_UP,
            format!(
                "{} is a peer, and this node has no way there yet: {why}",
                way.name()
            ),
        ));
    }
    if !there && !gateway {
        if peer.unready.is_none() {
            problems.push(silent(way, peer));
        }
        return problems;
    }
    if !there {
        problems.push(nobody_there(way));
    }
    let by_containers = !container.answers.is_empty() || container.gateway;
    let by_kernel = !kernel.answers.is_empty() || kernel.gateway;
    if container.error.is_none() && (!by_containers || container.answers.is_empty() && there) {
        problems.push(Problem::new(
            &FAST_PATH_SILENT,
            format!(
                "{} answers what this host sends by the kernel path, and not what is sent as containers send",
                way.name()
            ),
        ));
    }
    if kernel.error.is_none() && (!by_kernel || kernel.answers.is_empty() && there) {
        problems.push(Problem::new(
            &KERNEL_PATH_SILENT,
            format!(
                "{} does not answer what this host sends by the kernel path",
                way.name()
            ),
        ));
    }
    if let Some(why) = &peer.without_fast_path {
        problems.push(Problem::new(
            &PATH_NOT_FAST,
            format!("what is for {} takes the kernel path: {why}", way.name()),
        ));
    }
    problems.extend(mtu(way, peer));
    problems
}

/// Neither address of the peer's answers over the overlay: its host tells why, if it answers at all.
fn silent(way: &Way, peer: &PeerFacts) -> Problem {
    let host = peer.host.map_or_else(String::new, |host| host.to_string());
    let over = match peer.interface.as_str() {
        "" => String::new(),
        interface => format!(" over {interface}"),
    };
    let port = peer.vxlan_port;
    if way.host.unserved {
        return Problem::new(
            &PEER_PORT_UNSERVED,
            format!(
                "the host of {} ({host}) says that nobody serves UDP port {port} there",
                way.name()
            ),
        );
    }
    match (way.host.round_trip, &way.host.error) {
        (Some(time), _) => Problem::new(
            &VXLAN_NOT_THROUGH,
            format!(
                "the host of {} ({host}) answers on the underlay{over} in {:.2} ms, and nothing comes back over the \
                 overlay: something swallows UDP port {port}",
                way.name(),
                time.as_secs_f64() * 1e3
            ),
        )
        .remedied_by(format!(
            "have UDP port {port} let through by hypervisor, security group and packet filters on the way and there, \
             or have all nodes use another port (--vxlan-port of the control plane); the agent there may also not have \
             heard of this node yet"
        )),
        (None, Some(error)) => Problem::new(
            &PEER_HOST_SILENT,
            format!("the host of {} ({host}) cannot be asked{over}: {error}", way.name()),
        ),
        (None, None) => Problem::new(
            &PEER_HOST_SILENT,
            format!(
                "the host of {} ({host}) answers neither on the underlay{over} nor over the overlay",
                way.name()
            ),
        ),
    }
}

/// The peer's bridge answers, and the address that was asked does not.
fn nobody_there(way: &Way) -> Problem {
    let address = way.address.map_or_else(String::new, |it| it.to_string());
    let kind = match way.probe_endpoint {
        true => &PEER_WITHOUT_PROBES,
        false => &NO_SUCH_ENDPOINT,
    };
    Problem::new(
        kind,
        format!(
            "{} answers over the overlay, but nobody has {address} there, or answers",
            way.name()
        ),
    )
}

fn mtu(way: &Way, peer: &PeerFacts) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !way.searched {
        return problems;
    }
    let expected = way.expected_mtu();
    let interface = match peer.interface.as_str() {
        "" => "the underlay's interface",
        interface => interface,
    };
    for (leg, how) in [
        (&way.container, "as containers send"),
        (&way.kernel, "by the kernel path"),
    ] {
        if leg.answers.is_empty() || leg.largest.is_some_and(|largest| largest >= expected) {
            continue;
        }
        let found = match leg.largest {
            Some(largest) => {
                format!("packets of more than {largest} bytes do not get there and back")
            }
            None => format!("packets of {SMALLEST} bytes and more do not get there and back"),
        };
        let outer = leg.largest.map_or(SMALLEST, |largest| largest) + ENCAPSULATION;
        problems.push(
            Problem::new(
                &PATH_MTU_SMALL,
                format!("{found} {how}, and containers here and on {} send up to {expected}", way.name()),
            )
            .remedied_by(format!(
                "raise the MTU between the hosts to {} bytes; or lower that of the interface on both (ip link set \
                 {interface} mtu {outer}): containers that start afterwards send smaller packets",
                expected + ENCAPSULATION
            )),
        );
        // The other says the same.
        break;
    }
    let needed = expected + ENCAPSULATION;
    if problems.is_empty()
        && way.host.round_trip.is_some()
        && way.host.largest.is_none_or(|largest| largest < needed)
    {
        let host = peer.host.map_or_else(String::new, |host| host.to_string());
        let largest = way.host.largest.unwrap_or(SMALLEST);
        problems.push(
            Problem::new(
                &OUTER_FRAGMENTS,
                format!(
                    "{host} takes packets of {largest} bytes whole, and VXLAN to {} needs {needed}: they are \
                     fragmented on the way",
                    way.name()
                ),
            )
            .remedied_by(format!(
                "raise the MTU between the hosts to {needed} bytes; or lower that of the interface on both (ip link set \
                 {interface} mtu {largest}): containers that start afterwards send smaller packets"
            )),
        );
    }
    problems
}

/// The smallest packet that the search for the largest tries: what every host has to take (RFC 791).
pub(crate) const SMALLEST: u32 = 576;

fn loss(way: &Way) -> Option<Problem> {
    let (asked, answered) = way.asked?;
    let now = !way.container.answers.is_empty() || !way.kernel.answers.is_empty();
    let lost = asked.saturating_sub(answered);
    (lost > 0 && (answered > 0 || now)).then(|| {
        Problem::new(
            &PATH_LOSSY,
            format!(
                "{lost} of {asked} questions to {} were not answered in time",
                way.name()
            ),
        )
    })
}

#[cfg(test)]
mod tests;
