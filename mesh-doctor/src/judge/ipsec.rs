//! Whether IPsec's policies are about what the mesh sends. Pure.
//!
//! Of the policies that a packet meets the kernel heeds the one with the lowest priority number; one that allows and
//! transforms nothing is an exception from those behind it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_problems::{
    Problem,
    catalog::{dataplane::IPSEC_POLICY, host::IPSEC_OVERLAY},
};

use super::some;
use crate::snapshot::Mesh;

const UDP: u8 = 17;

/// Which packets a policy is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
    Forward,
}

/// A policy for IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) direction: Direction,
    pub(crate) source: Ipv4Net,
    pub(crate) destination: Ipv4Net,
    /// IP protocol; 0 for all.
    pub(crate) protocol: u8,
    /// Port that packets go to, in the bits of the mask.
    pub(crate) port: u16,
    pub(crate) port_mask: u16,
    /// The lowest is heeded.
    pub(crate) priority: u32,
    /// Whether it drops.
    pub(crate) blocks: bool,
    /// Whether it has templates.
    pub(crate) transforms: bool,
    /// Whether it is about packets without a mark, on any interface.
    pub(crate) of_all: bool,
}

/// Whether a part of what containers of two subnets exchange meets it, or all VXLAN between two hosts.
struct Flow {
    direction: Direction,
    source: Ipv4Net,
    destination: Ipv4Net,
    /// UDP port that it goes to; `None` for whatever containers send.
    port: Option<u16>,
}

impl Policy {
    fn meets(&self, flow: &Flow) -> bool {
        let overlap = |a: Ipv4Net, b: Ipv4Net| a.contains(&b) || b.contains(&a);
        let protocol = match flow.port {
            None => true,
            Some(port) => {
                [0, UDP].contains(&self.protocol)
                    && self.port & self.port_mask == port & self.port_mask
            }
        };
        self.of_all
            && self.direction == flow.direction
            && protocol
            && overlap(self.source, flow.source)
            && overlap(self.destination, flow.destination)
    }

    fn does_something(&self) -> bool {
        self.blocks || self.transforms
    }
}

/// The policy that is heeded, if it does something.
fn heeded<'a>(policies: &'a [Policy], flow: &Flow) -> Option<&'a Policy> {
    let met = policies.iter().filter(|policy| policy.meets(flow));
    met.min_by_key(|policy| policy.priority)
        .filter(|policy| policy.does_something())
}

/// What of the mesh meets policies.
pub(crate) fn judge(policies: &[Policy], mesh: &Mesh) -> Vec<Problem> {
    let mut vxlan = Vec::new();
    let mut overlay: Vec<String> = Vec::new();
    let mut blocks = false;
    for peer in &mesh.peers {
        let host = |address: Ipv4Addr| Ipv4Net::from(address);
        if let Some(own) = mesh.host_address {
            let flows = [
                (Direction::Out, own, peer.address),
                (Direction::In, peer.address, own),
            ];
            let met = flows.into_iter().any(|(direction, from, to)| {
                let flow = Flow {
                    direction,
                    source: host(from),
                    destination: host(to),
                    port: Some(mesh.port),
                };
                heeded(policies, &flow).is_some()
            });
            if met {
                vxlan.push(peer.name.clone());
            }
        }
        if let Some(own) = mesh.subnet {
            let flows = [
                (Direction::Out, own, peer.subnet),
                (Direction::Forward, own, peer.subnet),
                (Direction::Forward, peer.subnet, own),
            ];
            let met: Vec<_> = flows
                .into_iter()
                .filter_map(|(direction, source, destination)| {
                    let flow = Flow {
                        direction,
                        source,
                        destination,
                        port: None,
                    };
                    heeded(policies, &flow)
                })
                .collect();
            blocks |= met.iter().any(|policy| policy.blocks);
            if !met.is_empty() {
                overlay.push(format!("{} ({})", peer.name, peer.subnet));
            }
        }
    }
    let mut problems = Vec::new();
    if !vxlan.is_empty() {
        problems.push(Problem::new(
            &IPSEC_POLICY,
            format!(
                "an IPsec policy is about VXLAN to or from {} (ip xfrm policy)",
                some(&vxlan)
            ),
        ));
    }
    if let Some(subnet) = mesh.subnet
        && !overlay.is_empty()
    {
        let does = match blocks {
            true => "blocks",
            false => "transforms",
        };
        problems.push(Problem::new(
            &IPSEC_OVERLAY,
            format!(
                "an IPsec policy {does} what containers of {subnet} exchange with those of {} (ip xfrm policy)",
                some(&overlay)
            ),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::tests::mesh;

    fn policy(direction: Direction, source: &str, destination: &str) -> Policy {
        Policy {
            direction,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: 0,
            port: 0,
            port_mask: 0,
            priority: 100,
            blocks: false,
            transforms: true,
            of_all: true,
        }
    }

    fn codes(policies: &[Policy]) -> Vec<&'static str> {
        let problems = judge(policies, &mesh());
        problems.iter().map(|it| it.kind.code).collect()
    }

    #[test]
    fn what_meets_vxlan_or_containers_is_told_and_what_meets_others_is_not() {
        let all = policy(Direction::Out, "0.0.0.0/0", "0.0.0.0/0");
        assert_eq!(
            codes(std::slice::from_ref(&all)),
            ["ipsec-policy", "ipsec-overlay"]
        );
        let containers = policy(Direction::Out, "10.42.1.0/24", "10.42.2.0/25");
        assert_eq!(codes(&[containers]), ["ipsec-overlay"]);
        let hosts = policy(Direction::In, "192.0.2.3/32", "192.0.2.2/32");
        assert_eq!(codes(&[hosts]), ["ipsec-policy"]);
        let others = policy(Direction::Out, "192.0.2.2/32", "198.51.100.0/24");
        assert_eq!(codes(&[others]), [""; 0]);
        let dns = Policy {
            protocol: UDP,
            port: 53,
            port_mask: 0xffff,
            ..policy(Direction::Out, "192.0.2.2/32", "192.0.2.3/32")
        };
        assert_eq!(codes(&[dns]), [""; 0]);
    }

    #[test]
    fn an_exception_that_comes_first_and_policies_of_single_interfaces_are_in_nobodys_way() {
        let all = policy(Direction::Out, "0.0.0.0/0", "0.0.0.0/0");
        let exception = Policy {
            priority: 1,
            transforms: false,
            ..all.clone()
        };
        assert_eq!(codes(&[all.clone(), exception]), [""; 0]);
        let of_interface = Policy {
            of_all: false,
            ..all
        };
        assert_eq!(codes(&[of_interface]), [""; 0]);
    }
}
