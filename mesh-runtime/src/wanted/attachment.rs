//! What a call to attach a container asks for, and what is left to its caller. Pure.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_ipam::{
    EndpointPlan, Lease, NamedLabels, NetworkNamespace, Owner, Protocol, Published, gateway,
};

use crate::{api::command::Ground, diff::change::DisplayMac, ebpf::Mac};

/// The smallest MTU: what every IPv4 host takes (RFC 791).
const MIN_MTU: u32 = 576;

/// A container that is to have an interface.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) owner: Owner,
    /// Path of its network namespace; `None` where its engine moves its end there by itself.
    pub(crate) namespace: Option<String>,
    /// The process that asks, if it is known: the path is one of its own file systems.
    pub(crate) caller: Option<i32>,
    pub(crate) wished: Option<Ipv4Addr>,
    /// `None`: it follows from the address.
    pub(crate) mac: Option<Mac>,
    /// `None`: the overlay's.
    pub(crate) mtu: Option<u32>,
    pub(crate) default_route: bool,
    pub(crate) published: Vec<Published>,
    /// Whether it is the engine that listens there.
    pub(crate) ports_held: bool,
    pub(crate) named: NamedLabels,
}

/// Why a container cannot be attached. Each names the value and the rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum AttachmentError {
    #[error("mtu {given} is not between {MIN_MTU} and {largest}, the overlay's")]
    Mtu { given: u32, largest: u32 },
    #[error("published ports {0}: UDP port {1} of a node is that of the mesh's own VXLAN")]
    Vxlan(Published, u16),
    #[error(
        "{owner} is attached already with {what} {held}, not {given}: detach it first, or attach another \
         under a name of its own"
    )]
    Other {
        owner: String,
        what: &'static str,
        held: String,
        given: String,
    },
}

impl Attachment {
    /// The endpoint that is wanted, in the namespace that `named` is; without one its engine moves it there.
    pub(crate) fn plan(
        &self,
        ground: &Ground,
        named: Option<&NetworkNamespace>,
    ) -> Result<EndpointPlan, AttachmentError> {
        let mtu = self.mtu.unwrap_or(ground.mtu);
        if !(MIN_MTU..=ground.mtu).contains(&mtu) {
            return Err(AttachmentError::Mtu {
                given: mtu,
                largest: ground.mtu,
            });
        }
        check_vxlan(&self.published, ground.vxlan_port)?;
        Ok(EndpointPlan {
            link: self.owner.link_name(),
            mac: self.mac,
            mtu,
            default_route: self.default_route,
            published: self.published.clone(),
            namespace: named.cloned(),
            moved_by_engine: named.is_none(),
        })
    }

    /// Whether what the owner has already is what is asked for, in the namespace that `named` is. A lease without an endpoint
    /// may get any.
    pub(crate) fn check_same(
        &self,
        lease: &Lease,
        named: Option<&NetworkNamespace>,
    ) -> Result<(), AttachmentError> {
        let Some(endpoint) = &lease.endpoint else {
            return Ok(());
        };
        let differs = |what, held: String, given: String| {
            (held != given).then(|| AttachmentError::Other {
                owner: self.owner.to_string(),
                what,
                held,
                given,
            })
        };
        // One namespace may have several paths, and by one path there may be another than before.
        let path = |named: Option<&NetworkNamespace>| match named {
            Some(named) => named.path.display().to_string(),
            None => String::new(),
        };
        let namespace = match (endpoint.namespace.as_ref(), named) {
            (Some(held), Some(named)) if held.inode == named.inode => path(Some(named)),
            (held, _) => path(held),
        };
        let list = |published: &[Published]| {
            let texts: Vec<String> = published.iter().map(Published::to_string).collect();
            format!("[{}]", texts.join(", "))
        };
        let (held, given) = (endpoint.mac, self.mac.unwrap_or(endpoint.mac));
        let mtu = self.mtu.unwrap_or(endpoint.mtu);
        // Who says them apart (PublishPorts) says none here.
        let published = match &self.published[..] {
            [] if named.is_none() => &endpoint.published[..],
            given => given,
        };
        let differences = [
            differs(
                "moved_by_engine",
                endpoint.moved_by_engine.to_string(),
                named.is_none().to_string(),
            ),
            differs("the namespace", namespace, path(named)),
            differs(
                "the MAC address",
                DisplayMac(held).to_string(),
                DisplayMac(given).to_string(),
            ),
            differs("the MTU", endpoint.mtu.to_string(), mtu.to_string()),
            differs(
                "default_route",
                endpoint.default_route.to_string(),
                self.default_route.to_string(),
            ),
            differs("the ports", list(&endpoint.published), list(published)),
        ];
        match differences.into_iter().flatten().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Refuses ranges with the port by which nodes reach each other.
pub(crate) fn check_vxlan(published: &[Published], port: u16) -> Result<(), AttachmentError> {
    match published.iter().find(|range| takes_vxlan(range, port)) {
        Some(range) => Err(AttachmentError::Vxlan(range.clone(), port)),
        None => Ok(()),
    }
}

/// Whether a range has the port by which nodes reach each other.
fn takes_vxlan(range: &Published, port: u16) -> bool {
    let first = range.host_port;
    range.protocol == Protocol::Udp
        && (first..=first.saturating_add(range.count.saturating_sub(1))).contains(&port)
}

/// Name that the container's end is made with.
pub(crate) fn inside_name(owner: &Owner, moved_by_engine: bool) -> String {
    match moved_by_engine {
        true => owner.handed_over_name(),
        false => owner.interface().to_owned(),
    }
}

/// What is left to do inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inside {
    pub(crate) interface: String,
    pub(crate) address: Ipv4Net,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) routes: Vec<Ipv4Net>,
    pub(crate) mtu: u32,
    pub(crate) mac: Mac,
}

impl Inside {
    /// What is left to do for an endpoint that was made on `ground`.
    pub(crate) fn of(lease: &Lease, ground: &Ground) -> Self {
        let endpoint = lease.endpoint.as_ref();
        let default_route = endpoint.is_some_and(|endpoint| endpoint.default_route);
        // The cluster has a route of its own in any case: the default route of a network that the container joins later
        // comes before ours. Through a second interface the cluster alone is reached.
        let outside = default_route.then(Ipv4Net::default);
        let routes = outside.into_iter().chain([ground.cluster]).collect();
        let prefix = ground.subnet.prefix_len();
        let moved = endpoint.is_some_and(|endpoint| endpoint.moved_by_engine);
        Self {
            interface: inside_name(&lease.owner, moved),
            address: Ipv4Net::new(lease.address, prefix).unwrap_or(lease.address.into()),
            gateway: gateway(ground.subnet),
            routes,
            mtu: endpoint.map_or(ground.mtu, |endpoint| endpoint.mtu),
            mac: endpoint.map_or_else(Mac::default, |endpoint| endpoint.mac),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_ipam::{Endpoint, Lifetime};

    use super::*;

    const GROUND: Ground = Ground {
        subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 1, 0), 24),
        cluster: Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16),
        mtu: 1450,
        vxlan_port: 4789,
    };

    fn attachment() -> Attachment {
        Attachment {
            owner: Owner::new("docker", "quilt", "web", "eth0").unwrap(),
            namespace: None,
            caller: None,
            wished: None,
            mac: None,
            mtu: None,
            default_route: true,
            published: Vec::new(),
            ports_held: false,
            named: NamedLabels::default(),
        }
    }

    fn lease(plan: EndpointPlan) -> Lease {
        Lease {
            address: [10, 42, 1, 2].into(),
            owner: attachment().owner,
            named: NamedLabels::default(),
            namespace: None,
            lifetime: Lifetime::Released,
            since: 0,
            endpoint: Some(Endpoint {
                link: plan.link,
                mac: [2, 0x53, 10, 42, 1, 2],
                mtu: plan.mtu,
                default_route: plan.default_route,
                published: plan.published,
                settled: true,
                namespace: plan.namespace,
                moved_by_engine: plan.moved_by_engine,
                leased_along: true,
            }),
        }
    }

    fn web() -> NetworkNamespace {
        NetworkNamespace {
            path: "/run/netns/web".into(),
            inode: 4_026_532_000,
        }
    }

    #[test]
    fn without_a_namespace_the_interface_is_for_the_engine_to_move_and_has_a_name_of_its_own() {
        let plan = attachment().plan(&GROUND, None).unwrap();
        assert!(plan.moved_by_engine && plan.namespace.is_none());
        let inside = Inside::of(&lease(plan), &GROUND);
        assert_eq!(inside.interface, attachment().owner.handed_over_name());

        let plan = attachment().plan(&GROUND, Some(&web())).unwrap();
        assert!(!plan.moved_by_engine);
        assert_eq!(plan.namespace, Some(web()));
        assert_eq!(Inside::of(&lease(plan), &GROUND).interface, "eth0");
    }

    #[test]
    fn ports_that_were_said_apart_are_no_other_ones_than_none() {
        let one = |host_port| Published {
            protocol: Protocol::Tcp,
            host_address: None,
            host_port,
            container_port: 80,
            count: 1,
        };
        let mut held = lease(attachment().plan(&GROUND, None).unwrap());
        held.endpoint.as_mut().unwrap().published = vec![one(8080)];
        let check = |published: Vec<Published>| {
            let wanted = Attachment {
                published,
                ..attachment()
            };
            wanted.check_same(&held, None).is_ok()
        };
        assert!(check(vec![]) && check(vec![one(8080)]));
        assert!(!check(vec![one(8081)]));
    }

    #[test]
    fn who_moves_the_interface_is_a_part_of_what_is_attached() {
        let held =
            |named: Option<&NetworkNamespace>| lease(attachment().plan(&GROUND, named).unwrap());
        let check = |held: &Lease, named: Option<&NetworkNamespace>| {
            attachment()
                .check_same(held, named)
                .map_err(|it| it.to_string())
        };
        let (moved, here) = (held(None), held(Some(&web())));
        assert_eq!(check(&moved, None), Ok(()));
        assert_eq!(check(&here, Some(&web())), Ok(()));
        for (held, named, words) in [
            (&moved, Some(&web()), "moved_by_engine true, not false"),
            (&here, None, "moved_by_engine false, not true"),
        ] {
            let error = check(held, named).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
