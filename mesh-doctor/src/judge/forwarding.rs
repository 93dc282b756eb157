//! Whether the host forwards, and takes what comes. Pure.

use std::collections::BTreeSet;

use mesh_problems::{
    Problem,
    catalog::host::{FORWARDING_OFF, STRICT_FILTERING},
};

use super::some;
use crate::snapshot::{Mesh, Network, Ways};

/// `rp_filter` that drops what comes by another interface than its answer would take
/// (Documentation/networking/ip-sysctl.rst).
const STRICT: u32 = 1;

/// Settings of the host: `of(setting, interface)` is a number below `/proc/sys/net/ipv4/conf`, `None` where there is none.
pub(crate) fn judge(
    mesh: &Mesh,
    network: &Network,
    ways: &Ways,
    of: impl Fn(&str, &str) -> Option<u32>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    // Packets are forwarded if the interface by which they come says so (`ip_route_input_slow`, net/ipv4/route.c).
    // By the underlay come the answers to what containers send out, and what is for published ports.
    let outside = ways.outside.and_then(|way| way.link);
    let underlay = mesh.underlay(network).map(|held| held.link);
    let ours = mesh.bridge.into_iter().chain(mesh.overlay);
    let needed: BTreeSet<u32> = ours.chain(underlay).chain(outside).collect();
    let off: Vec<String> = needed
        .into_iter()
        .map(|index| network.name_of(index))
        .filter(|name| of("forwarding", name) == Some(0))
        .collect();
    if !off.is_empty() {
        let settings: Vec<String> = off
            .iter()
            .map(|name| format!("net.ipv4.conf.{}.forwarding=1", name.replace('.', "/")))
            .collect();
        problems.push(
            Problem::new(
                &FORWARDING_OFF,
                format!("IPv4 forwarding is off on {}", off.join(", ")),
            )
            .remedied_by(format!(
                "switch it on (sysctl -w {}), and what switched it off, off (/etc/sysctl.d)",
                settings.join(" ")
            )),
        );
    }
    problems.extend(filtering(mesh, network, ways, of));
    problems
}

/// Peers beside this host, which send to the interface that has its address, while the way back leads over another.
fn filtering(
    mesh: &Mesh,
    network: &Network,
    ways: &Ways,
    of: impl Fn(&str, &str) -> Option<u32>,
) -> Option<Problem> {
    let held = mesh.underlay(network)?;
    let name = network.name_of(held.link);
    // Of the two values of an interface and of all, the kernel heeds the larger.
    let strictness = of("rp_filter", &name).max(of("rp_filter", "all"));
    if strictness != Some(STRICT) {
        return None;
    }
    let beside = ways.back.iter().filter(|(address, way)| {
        held.address.contains(*address) && way.link.is_some_and(|link| link != held.link)
    });
    let (addresses, links): (Vec<_>, Vec<_>) = beside.map(|(it, way)| (*it, way.link)).unzip();
    let over = network.name_of(links.first().copied().flatten()?);
    Some(
        Problem::new(
            &STRICT_FILTERING,
            format!(
                "{name} filters strictly (rp_filter 1), and what comes there from {} has its way back over {over}",
                some(&addresses)
            ),
        )
        .remedied_by(format!(
            "filter loosely (sysctl -w net.ipv4.conf.{}.rp_filter=2), or delete what leads back over {over} (ip route get {})",
            name.replace('.', "/"),
            addresses.first()?
        )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        judge::tests::{ETH0, ETH1, mesh, network},
        snapshot::Way,
    };

    fn ways(back: u32) -> Ways {
        let way = |link| Way {
            link: Some(link),
            table: 254,
        };
        let peers = mesh().peers;
        Ways {
            back: [(peers[0].address, way(ETH0)), (peers[1].address, way(back))].into(),
            outside: Some(way(ETH0)),
            ..Ways::default()
        }
    }

    fn codes(back: u32, settings: &[(&str, &str, u32)]) -> Vec<&'static str> {
        let of = |setting: &str, interface: &str| {
            let mut found = settings.iter();
            let found = found.find(|it| (it.0, it.1) == (setting, interface));
            Some(found.map_or(u32::from(setting == "forwarding"), |it| it.2))
        };
        let problems = judge(&mesh(), &network(), &ways(back), of);
        problems.iter().map(|it| it.kind.code).collect()
    }

    #[test]
    fn forwarding_is_needed_where_containers_packets_come_in() {
        assert_eq!(codes(ETH0, &[]), [""; 0]);
        for interface in ["eth0", "quilt0", "vxlan100"] {
            let off = [("forwarding", interface, 0)];
            assert_eq!(codes(ETH0, &off), ["forwarding-off"], "{interface}");
        }
        assert_eq!(codes(ETH0, &[("forwarding", "eth1", 0)]), [""; 0]);
    }

    #[test]
    fn strict_filtering_is_told_only_where_it_drops_something() {
        let strict = [("rp_filter", "all", 1)];
        assert_eq!(codes(ETH0, &strict), [""; 0]);
        assert_eq!(codes(ETH1, &strict), ["strict-filtering"]);
        let loose = [("rp_filter", "all", 1), ("rp_filter", "eth0", 2)];
        assert_eq!(codes(ETH1, &loose), [""; 0]);
        assert_eq!(codes(ETH1, &[]), [""; 0]);
    }
}
