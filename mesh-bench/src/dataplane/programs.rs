//! What each eBPF program costs by itself, run by the kernel on packets made here
//! (`BPF_PROG_TEST_RUN`).
//!
//! One packet per call: the kernel repeats a program on the packet as the last run left it,
//! and a packet that has been encapsulated or decapsulated once is another packet. So a call's
//! duration includes what it costs the kernel to look at its clock, which is measured as well
//! and taken off.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context as _, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, HashMap, MapData},
    programs::{ProgramError, SchedClassifier, TestRunResult},
};
use ipnet::Ipv4Net;
use mesh_layout::{
    Config, ENDPOINT_HELD, Endpoint, EndpointKey, Peer, PeerKey, TRANSPORT_VXLAN, Underlay,
    UnderlayKey, VNI, VXLAN_PORT, Vtep, VtepKey, bridge_mac, map_names, overlay_mac, program_names,
};
use mesh_model::{Frame, VxlanFrame};
use mesh_testbed::{Links, NetNs};
use serde::Serialize;

use super::{
    statistics::{self, Spread},
    traffic::{
        SMALL,
        cpus::{self, Cpus},
    },
};

/// How many peers the programs know: a cluster with the default CIDR, and the largest.
pub(crate) const PEERS: [u32; 2] = [254, 65_536];
/// The same for people.
pub(crate) const PEERS_TITLES: [&str; 2] = ["254 peers", "65,536 peers"];
/// To and from how many peers packets go, of those there are, when they do not go to all.
const ACTIVE: u32 = 254;

/// How often programs with few and with many peers take turns.
const TURNS: u32 = 15;
/// Packets of each turn that are not measured: every active peer twice, so that the caches
/// hold what they would hold of a busy node's peers.
const WARM_UP: u32 = 2 * ACTIVE;
/// Packets of each turn that are.
const MEASURED: u32 = 2048;

/// What 1500 bytes of the underlay leave.
const OVERLAY_MTU: u32 = 1450;
const UNDERLAY_MTU: u32 = 1500;
/// The gateway to all peers.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
const GATEWAY_MAC: &str = "0e:00:00:00:00:fe";
/// The network of their addresses (RFC 2544).
const HOSTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const OWN_SUBNET: [u8; 4] = [172, 16, 1, 0];
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 16, 1, 2);
const CONTAINER_MAC: [u8; 6] = [0x0a, 0, 0, 0, 0, 2];
const UNDERLAY_MACS: [[u8; 6]; 2] = [[0x0e, 0, 0, 0, 0, 3], [0x0e, 0, 0, 0, 0, 2]];
/// Index of the loopback interface in every namespace (LOOPBACK_IFINDEX, net/flow.h).
const LOOPBACK: u32 = 1;
/// `TC_ACT_REDIRECT` and `TC_ACT_UNSPEC` of linux/pkt_cls.h.
const REDIRECTED: u32 = 7;
const LEFT_ALONE: u32 = u32::MAX;

/// What a program costs per packet.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProgramCost {
    pub(crate) program: &'static str,
    /// Whether packets went to or came from all peers in turn, each time another, instead of
    /// a few of them: the caches of the CPU then hold none of their entries.
    pub(crate) all_peers_active: bool,
    /// Nanoseconds with so many peers as [`PEERS`] says, the clock's part taken off.
    pub(crate) ns: Vec<Spread>,
}

impl ProgramCost {
    /// For people: to and from whom the packets go.
    pub(crate) fn packets_of(&self) -> &'static str {
        match self.all_peers_active {
            true => "all peers in turn",
            false => "254 peers in turn",
        }
    }

    /// How much more a packet costs with the most peers than with the fewest.
    pub(crate) fn growth(&self) -> Option<f64> {
        Some(self.ns.last()?.median / self.ns.first()?.median)
    }
}

/// Measures every program.
pub(crate) async fn measure(cpus: &Cpus) -> anyhow::Result<Vec<ProgramCost>> {
    let namespace = NetNs::new("programs").await?;
    let links = Links::of(&namespace)?;
    links.add_bridge("overlay", OVERLAY_MTU).await?;
    let overlay = links.index("overlay").await?.context("no overlay device")?;
    let underlay = underlay(&namespace, &links).await?;
    let cpu = cpus.sending[0];
    namespace
        .run_blocking(move || {
            cpus::pin(cpu)?;
            costs([overlay, underlay])
        })
        .await?
}

/// Makes the way to all peers: over one interface, by a gateway that is known there. Its index.
async fn underlay(namespace: &NetNs, links: &Links) -> anyhow::Result<u32> {
    links.add_bridge("underlay", UNDERLAY_MTU).await?;
    links
        .add_address("underlay", Ipv4Net::new(HOST, 24)?)
        .await?;
    let index = links.index("underlay").await?.context("no underlay")?;
    links.add_route(Ipv4Net::new(HOSTS, 15)?, GATEWAY).await?;
    let neighbour =
        format!("neigh replace {GATEWAY} lladdr {GATEWAY_MAC} dev underlay nud permanent");
    let status = namespace
        .command("ip")
        .args(neighbour.split(' '))
        .status()
        .context("cannot run ip")?;
    ensure!(status.success(), "ip {neighbour}: {status}");
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    Ok(index)
}

fn costs(links: [u32; 2]) -> anyhow::Result<Vec<ProgramCost>> {
    let mut programs = PEERS
        .iter()
        .map(|peers| Programs::load(links, *peers))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut costs = Vec::new();
    for case in Case::ALL {
        let mut ns = vec![Vec::new(); programs.len()];
        // In turns, as everything here is compared.
        for turn in 0..TURNS {
            for (programs, ns) in programs.iter_mut().zip(&mut ns) {
                let first = turn * (WARM_UP + MEASURED);
                let measured = first + WARM_UP;
                programs.run(case, first..measured)?;
                let durations = programs.run(case, measured..measured + MEASURED)?;
                let floor = programs.floor()?;
                let median = statistics::quantile(&durations, 0.5).context("no packets")?;
                ns.push(median - floor);
            }
        }
        costs.push(ProgramCost {
            program: case.name,
            all_peers_active: case.all_peers,
            ns: ns.iter().filter_map(|ns| Spread::of(ns)).collect(),
        });
    }
    Ok(costs)
}

/// A program and the packets it gets.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    all_peers: bool,
    /// What it answers when it does its work.
    action: u32,
}

impl Case {
    const ALL: [Self; 6] = {
        const fn case(name: &'static str, all_peers: bool, action: u32) -> Case {
            Case {
                name,
                all_peers,
                action,
            }
        }
        [
            case(program_names::ENCAPSULATE, false, REDIRECTED),
            case(program_names::ENCAPSULATE, true, REDIRECTED),
            case(program_names::DECAPSULATE, false, REDIRECTED),
            case(program_names::DECAPSULATE, true, REDIRECTED),
            case(program_names::SAFETY_NET, false, REDIRECTED),
            case(program_names::COUNT_EGRESS, false, LEFT_ALONE),
        ]
    };

    /// The packet that goes to or comes from a peer.
    fn packet(self, peer: u32) -> Vec<u8> {
        let remote = container_of(peer);
        let own_macs = [CONTAINER_MAC, bridge_mac(OWN_SUBNET)];
        let overlay_macs = [overlay_mac(subnet(peer)), overlay_mac(OWN_SUBNET)];
        let data = [0x51; SMALL];
        let out = Frame::udp(own_macs, [CONTAINER, remote], [4444, 7777], &data);
        let inner = Frame::udp(overlay_macs, [remote, CONTAINER], [7777, 4444], &data);
        match self.name {
            program_names::ENCAPSULATE | program_names::COUNT_EGRESS => out.bytes(),
            program_names::SAFETY_NET => inner.bytes(),
            _ => {
                let addresses = [host_of(peer), HOST];
                VxlanFrame::proper(UNDERLAY_MACS, addresses, inner.bytes()).bytes()
            }
        }
    }
}

/// The object in the kernel, with the maps of a node that has peers.
struct Programs {
    ebpf: Ebpf,
    peers: u32,
}

impl Programs {
    fn load(links: [u32; 2], peers: u32) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        for name in [
            map_names::PEERS,
            map_names::VTEPS,
            map_names::PEER_STATS,
            map_names::PATHS,
        ] {
            // What the runtime gives a cluster of this size.
            loader.map_max_entries(name, peers.next_power_of_two());
        }
        let mut ebpf = loader
            .override_global(aya_log::LEVEL, &0_u8, true)
            .load(mesh_runtime::ebpf::OBJECT)
            .context("the kernel does not take the eBPF object")?;
        for name in program_names::ALL {
            program::<SchedClassifier>(&mut ebpf, name)?.load()?;
        }
        fill(&mut ebpf, links, peers)?;
        Ok(Self { ebpf, peers })
    }

    /// Nanoseconds of each run, as the kernel says, on packets with these numbers.
    fn run(&mut self, case: Case, numbers: std::ops::Range<u32>) -> anyhow::Result<Vec<f64>> {
        let among = if case.all_peers { self.peers } else { ACTIVE };
        numbers
            .map(|number| {
                // A step without a common factor: every peer once before one comes again, and
                // no two neighbours after each other.
                let peer = (number.wrapping_mul(40_503)) % among;
                let result = self.call(case.name, &case.packet(peer))?;
                ensure!(
                    result.return_value == case.action,
                    "{} answered {} for peer {peer} of {} and not {}: it did not do its work",
                    case.name,
                    result.return_value,
                    self.peers,
                    case.action
                );
                Ok(nanoseconds(result.duration))
            })
            .collect()
    }

    /// Nanoseconds of a call that does nothing: a program that leaves ARP alone after its
    /// first comparison.
    fn floor(&mut self) -> anyhow::Result<f64> {
        let mut arp = vec![0xff; 6];
        arp.extend(CONTAINER_MAC);
        arp.extend(0x0806_u16.to_be_bytes());
        arp.resize(60, 0);
        let durations = (0..1000)
            .map(|_| {
                let result = self.call(program_names::COUNT_EGRESS, &arp)?;
                Ok(nanoseconds(result.duration))
            })
            .collect::<anyhow::Result<Vec<f64>>>()?;
        statistics::quantile(&durations, 0.5).context("no packets")
    }

    fn call(&mut self, name: &'static str, packet: &[u8]) -> anyhow::Result<TestRunResult> {
        let run = |data_in| TestRunOptions {
            data_in: Some(data_in),
            ..TestRunOptions::new()
        };
        let result: Result<TestRunResult, ProgramError> =
            program::<SchedClassifier>(&mut self.ebpf, name)?.test_run(run(packet));
        result.with_context(|| format!("the kernel does not run {name}"))
    }
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .with_context(|| format!("the object has no program {name}"))?
        .try_into()
        .with_context(|| format!("{name} is of another kind"))
}

fn fill(ebpf: &mut Ebpf, [overlay, underlay]: [u32; 2], count: u32) -> anyhow::Result<()> {
    let mut map = |name| {
        ebpf.take_map(name)
            .with_context(|| format!("no map {name}"))
    };
    let mut config: Array<MapData, Config> = map(map_names::CONFIG)?.try_into()?;
    let mut peers: HashMap<MapData, PeerKey, Peer> = map(map_names::PEERS)?.try_into()?;
    let mut vteps: HashMap<MapData, VtepKey, Vtep> = map(map_names::VTEPS)?.try_into()?;
    let mut underlays: HashMap<MapData, UnderlayKey, Underlay> =
        map(map_names::UNDERLAYS)?.try_into()?;
    underlays.insert(UnderlayKey { link: underlay }, Underlay::default(), 0)?;
    let mut endpoints: HashMap<MapData, EndpointKey, Endpoint> =
        map(map_names::ENDPOINTS)?.try_into()?;
    config.set(
        0,
        Config {
            generation: 1,
            subnet: OWN_SUBNET,
            mask: [255, 255, 255, 0],
            host_address: HOST.octets(),
            vni: VNI,
            port: VXLAN_PORT.into(),
            overlay_link: overlay,
            overlay_mac: overlay_mac(OWN_SUBNET),
            bridge_mac: bridge_mac(OWN_SUBNET),
            overlay_mtu: OVERLAY_MTU,
            flags: 0,
            pad: [0; 4],
        },
        0,
    )?;
    let endpoint = Endpoint {
        // Where the kernel says that packets of a test run arrive: the container's own port.
        link: LOOPBACK,
        mac: CONTAINER_MAC,
        flags: ENDPOINT_HELD,
        identity: 0,
    };
    let address = CONTAINER.octets();
    endpoints.insert(EndpointKey { address }, endpoint, 0)?;
    for number in 0..count {
        let subnet = subnet(number);
        let address = host_of(number).octets();
        let peer = Peer {
            address,
            transport: TRANSPORT_VXLAN,
            flags: 0,
            reserved: [0; 2],
            mtu: 0,
            vni: VNI,
            counters: number,
            mac: overlay_mac(subnet),
            pad: [0; 2],
        };
        peers.insert(PeerKey { subnet }, peer, 0)?;
        vteps.insert(VtepKey { address }, Vtep { counters: number }, 0)?;
    }
    Ok(())
}

/// 10.0.0.0/24 to 10.255.255.0/24.
fn subnet(peer: u32) -> [u8; 4] {
    let [_, _, high, low] = peer.to_be_bytes();
    [10, high, low, 0]
}

fn container_of(peer: u32) -> Ipv4Addr {
    let [a, b, c, _] = subnet(peer);
    Ipv4Addr::new(a, b, c, 9)
}

/// In the range for benchmarks of RFC 2544.
fn host_of(peer: u32) -> Ipv4Addr {
    let [_, _, high, low] = peer.to_be_bytes();
    Ipv4Addr::new(198, 18, high, low)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}
