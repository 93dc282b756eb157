//! One topology, made and ready for traffic.

use std::{net::Ipv4Addr, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, ensure};
use ipnet::Ipv4Net;
use mesh_testbed::{
    BRIDGE, Container, ContainerOptions, Host, Links, NetNs, Testbed, wait_reachable,
};

use super::{
    Topology,
    cable::{self, UNDERLAY},
    flannel::{self, End},
    quilt, redirects, rules,
};
use crate::dataplane::traffic::Path;

/// The addresses of all containers.
const CLUSTER: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16);
/// How long the two ends of a fresh network may take to find each other.
const SETTLED: Duration = Duration::from_secs(20);
/// The smallest share of packets that must have gone through the programs for figures to be
/// the fast path's: what is missing is the first packets, before everything was attached.
const FAST_SHARE: f64 = 0.999;

/// Whether a bridge hands its packets to iptables as well (`bridge-nf-call-iptables`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BridgeNetfilter {
    /// As flannel and Kubernetes demand it, and as the kernel does by itself once the module
    /// is there
    On,
    /// As on a host that has neither
    Off,
}

/// Two hosts, and containers on them in pairs.
pub(crate) struct Bed {
    pub(crate) topology: Topology,
    testbed: Testbed,
    pairs: Vec<(Container, Container)>,
    /// Programs that are attached for as long as these are open.
    redirects: Vec<OwnedFd>,
}

impl Bed {
    /// Makes the topology with so many pairs of containers and sees that they reach each
    /// other. `before` is the quilt-runtime of an earlier build.
    pub(crate) async fn build(
        topology: Topology,
        pairs: usize,
        mtu: u32,
        bridge_netfilter: BridgeNetfilter,
        before: Option<&std::path::Path>,
    ) -> anyhow::Result<Self> {
        let testbed = Testbed::builder()
            .hosts(2)
            .underlay_mtu(mtu)
            .build()
            .await?;
        cable::replace_switch(&testbed, mtu).await?;
        let mut bed = Self {
            topology,
            testbed,
            pairs: Vec::new(),
            redirects: Vec::new(),
        };
        bed.connect(mtu - topology.overhead(), bridge_netfilter, before)
            .await?;
        if topology != Topology::BareUnderlay {
            bed.add_containers(pairs, mtu - topology.overhead()).await?;
        }
        if topology == Topology::BareRedirects {
            bed.redirects = redirects::attach_pairs(bed.ends()?, &bed.pairs).await?;
        }
        for path in bed.paths(pairs) {
            let from = bed.start_of(&path);
            wait_reachable(from, path.to_address, SETTLED).await?;
        }
        if topology.is_ours() {
            // The runtime learns a container's address from its first packet.
            let [a, b] = bed.hosts();
            for (on_a, on_b) in &bed.pairs {
                quilt::wait_fast(a, on_a).await?;
                quilt::wait_fast(b, on_b).await?;
            }
        }
        Ok(bed)
    }

    fn hosts(&self) -> [&Host; 2] {
        [&self.testbed.hosts()[0], &self.testbed.hosts()[1]]
    }

    fn ends(&self) -> anyhow::Result<[End<'_>; 2]> {
        let [a, b] = self.hosts();
        let end = |host, third| -> anyhow::Result<End<'_>> {
            let subnet = Ipv4Net::new(Ipv4Addr::new(10, 42, third, 0), 24)?;
            Ok(End { host, subnet })
        };
        Ok([end(a, 1)?, end(b, 2)?])
    }

    /// Everything on the hosts but the containers.
    async fn connect(
        &self,
        overlay_mtu: u32,
        bridge_netfilter: BridgeNetfilter,
        before: Option<&std::path::Path>,
    ) -> anyhow::Result<()> {
        let [a, b] = self.ends()?;
        for (own, peer) in [(a, b), (b, a)] {
            let namespace = own.host.netns();
            match self.topology {
                Topology::BareUnderlay => continue,
                Topology::BareRedirects => add_bridge(own, overlay_mtu).await?,
                Topology::PlainRouting => {
                    add_bridge(own, overlay_mtu).await?;
                    let links = Links::of(namespace)?;
                    links.add_route(peer.subnet, peer.host.address()).await?;
                }
                Topology::KernelVxlan | Topology::KernelVxlanWithRules => {
                    add_bridge(own, overlay_mtu).await?;
                    flannel::add(own, peer, overlay_mtu).await?;
                }
                Topology::QuiltMesh | Topology::QuiltMeshWithRules => {
                    quilt::start(own, peer, None).await?;
                }
                Topology::QuiltMeshBefore => {
                    let before = before.context("no earlier build to compare with")?;
                    quilt::start(own, peer, Some(before)).await?;
                }
            }
            let on = u8::from(bridge_netfilter == BridgeNetfilter::On).to_string();
            let key = "net/bridge/bridge-nf-call-iptables";
            match namespace.sysctl(key, &on) {
                // Without the module nothing is handed to iptables.
                Err(_) if !bridge_netfilter_is_there(namespace)? => {}
                other => other?,
            }
            if self.topology.has_rules() {
                rules::install(own.host, CLUSTER, own.subnet)?;
            }
        }
        Ok(())
    }

    async fn add_containers(&mut self, pairs: usize, mtu: u32) -> anyhow::Result<()> {
        let options = ContainerOptions {
            mtu,
            ..ContainerOptions::default()
        };
        for _ in 0..pairs {
            let [a, b] = self.hosts();
            let pair = (
                a.add_container_with(&options).await?,
                b.add_container_with(&options).await?,
            );
            self.pairs.push(pair);
        }
        Ok(())
    }

    /// The paths of so many pairs; several from host to host where there are no containers.
    pub(crate) fn paths(&self, pairs: usize) -> Vec<Path> {
        if self.topology == Topology::BareUnderlay {
            let [a, b] = self.hosts();
            let path = Path {
                from: a.netns().entrance(),
                to: b.netns().entrance(),
                to_address: b.address(),
            };
            return vec![path; pairs];
        }
        let path = |(from, to): &(Container, Container)| Path {
            from: from.netns().entrance(),
            to: to.netns().entrance(),
            to_address: to.address(),
        };
        self.pairs.iter().take(pairs).map(path).collect()
    }

    fn start_of(&self, path: &Path) -> &NetNs {
        self.pairs
            .iter()
            .map(|(from, _)| from.netns())
            .find(|namespace| namespace.name() == path.from.name())
            .unwrap_or_else(|| self.hosts()[0].netns())
    }

    /// Changes the MTU of the underlay, and with it that of overlay and containers.
    pub(crate) async fn set_mtu(&self, mtu: u32) -> anyhow::Result<()> {
        let overlay_mtu = mtu - self.topology.overhead();
        for host in self.hosts() {
            let links = Links::of(host.netns())?;
            links.set_mtu(UNDERLAY, mtu).await?;
            match self.topology {
                Topology::BareUnderlay => continue,
                Topology::BareRedirects | Topology::PlainRouting => {}
                Topology::KernelVxlan | Topology::KernelVxlanWithRules => {
                    links.set_mtu(flannel::DEVICE, overlay_mtu).await?;
                }
                Topology::QuiltMesh | Topology::QuiltMeshWithRules | Topology::QuiltMeshBefore => {
                    quilt::wait_mtu(host, overlay_mtu).await?;
                }
            }
            if !self.topology.is_ours() {
                links.set_mtu(BRIDGE, overlay_mtu).await?;
            }
        }
        for (index, host) in self.hosts().into_iter().enumerate() {
            let links = Links::of(host.netns())?;
            for (on_a, on_b) in &self.pairs {
                let container = if index == 0 { on_a } else { on_b };
                links
                    .set_mtu(container.host_interface(), overlay_mtu)
                    .await?;
                let inside = Links::of(container.netns())?;
                inside.set_mtu("eth0", overlay_mtu).await?;
            }
        }
        Ok(())
    }

    /// Sees that our figures are those of the fast path and not of the kernel's beneath it.
    pub(crate) async fn check_fast_path(&self) -> anyhow::Result<()> {
        if !self.topology.is_ours() {
            return Ok(());
        }
        for host in self.hosts() {
            let share = quilt::fast_share(host).await?;
            ensure!(
                share >= FAST_SHARE,
                "the fast path of {} carried only {share:.4} of its packets in {}: its figures \
                 would be the kernel path's",
                host.name(),
                self.topology.name()
            );
        }
        Ok(())
    }
}

/// What a container engine does: a bridge with the gateway's address, and forwarding.
async fn add_bridge(own: End<'_>, mtu: u32) -> anyhow::Result<()> {
    let gateway = own
        .subnet
        .hosts()
        .next()
        .context("a subnet without addresses")?;
    let address = Ipv4Net::new(gateway, own.subnet.prefix_len())?;
    own.host.add_bridge(BRIDGE, address, mtu).await?;
    own.host.netns().sysctl("net/ipv4/ip_forward", "1")?;
    Ok(())
}

fn bridge_netfilter_is_there(namespace: &NetNs) -> anyhow::Result<bool> {
    Ok(namespace.run(|| std::path::Path::new("/proc/sys/net/bridge").exists())?)
}
