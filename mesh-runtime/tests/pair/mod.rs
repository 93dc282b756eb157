//! Two hosts whose runtimes know each other as peers, with a container each: the smallest
//! network in which a packet can go wrong. No agent and no control plane: the tests make the
//! gRPC calls themselves.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod meshctl;
pub(crate) mod runtimes;

use std::{net::Ipv4Addr, time::Duration};

use mesh_proto::{
    mesh::{
        GetStatusResponse, NodeSettings, Peer, PeerStatus, SyncPeersRequest, SyncPeersResponse,
        mesh_dataplane_client::MeshDataplaneClient,
    },
    quilt::{
        ConfigureNodeSubnetRequest, InjectRouteRequest, quilt_runtime_client::QuiltRuntimeClient,
    },
};
use mesh_testbed::{Container, DaemonOptions, Host, Testbed, wait_reachable, wait_until};

/// How long a test waits for what should take milliseconds.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Pair {
    pub(crate) testbed: Testbed,
    pub(crate) a: Container,
    pub(crate) b: Container,
}

impl Pair {
    /// Hosts 0 and 1 run the runtime with `options` and serve 10.42.1.0/24 and 10.42.2.0/24;
    /// host 2 runs nothing and is nobody's peer. The containers reach each other.
    pub(crate) async fn start(options: &DaemonOptions) -> Self {
        Self::start_mixed(options, options).await
    }

    /// The same with different options for either host.
    pub(crate) async fn start_mixed(on_a: &DaemonOptions, on_b: &DaemonOptions) -> Self {
        let testbed = Testbed::builder().hosts(3).build().await.unwrap();
        Self::start_on(testbed, on_a, on_b).await
    }

    /// The same on hosts that the test has made and prepared.
    pub(crate) async fn start_on(
        testbed: Testbed,
        on_a: &DaemonOptions,
        on_b: &DaemonOptions,
    ) -> Self {
        start_runtimes_on(&testbed, on_a, on_b).await;
        let a = testbed.hosts()[0].add_container().await.unwrap();
        let b = testbed.hosts()[1].add_container().await.unwrap();
        introduce(&testbed, 1).await;
        let pair = Self { testbed, a, b };
        wait_reachable(pair.a.netns(), pair.b.address(), SOON)
            .await
            .unwrap();
        wait_reachable(pair.b.netns(), pair.a.address(), SOON)
            .await
            .unwrap();
        pair
    }

    pub(crate) fn host_a(&self) -> &Host {
        &self.testbed.hosts()[0]
    }

    pub(crate) fn host_b(&self) -> &Host {
        &self.testbed.hosts()[1]
    }

    pub(crate) fn stranger(&self) -> &Host {
        &self.testbed.hosts()[2]
    }

    /// Tells either runtime of the other.
    pub(crate) async fn sync(&self, generation: u64) {
        introduce(&self.testbed, generation).await;
    }

    /// Waits until either host's programs are attached and know its container.
    pub(crate) async fn wait_fast(&self) {
        self.wait_endpoint(self.host_a(), &self.a).await;
        self.wait_endpoint(self.host_b(), &self.b).await;
    }

    /// Waits until the programs of `host` are attached and know `container`.
    pub(crate) async fn wait_endpoint(&self, host: &Host, container: &Container) {
        let address = container.address().to_string();
        let port = format!("{}: encapsulate", container.host_interface());
        wait_until("the fast path of the container", SOON, || async {
            let status = host.status().await.map_err(|error| error.to_string())?;
            let fast_path = status.fast_path.unwrap_or_default();
            let attached = fast_path.attachments.contains(&port);
            let known = status.endpoints.iter().any(|it| it.address == address);
            match attached && known {
                true => Ok(()),
                false => Err(format!("{:?} {fast_path:?}", status.endpoints)),
            }
        })
        .await
        .unwrap();
    }
}

/// Three hosts, the first two with a runtime and a subnet, which know of no peer yet.
pub(crate) async fn start_runtimes(on_a: &DaemonOptions, on_b: &DaemonOptions) -> Testbed {
    let testbed = Testbed::builder().hosts(3).build().await.unwrap();
    start_runtimes_on(&testbed, on_a, on_b).await;
    testbed
}

/// The same on hosts that exist.
async fn start_runtimes_on(testbed: &Testbed, on_a: &DaemonOptions, on_b: &DaemonOptions) {
    for (host, own, subnet) in [(0, on_a, "10.42.1.0/24"), (1, on_b, "10.42.2.0/24")] {
        let host = &testbed.hosts()[host];
        let options = own.clone().binary(env!("CARGO_BIN_EXE_quilt-runtime"));
        host.start_runtime(&options).await.unwrap();
        configure(host, subnet).await;
    }
}

/// Tells either runtime of the other.
pub(crate) async fn introduce(testbed: &Testbed, generation: u64) {
    let [a, b, ..] = testbed.hosts() else {
        panic!("two hosts are needed");
    };
    for (host, peer, subnet) in [(a, b, "10.42.2.0/24"), (b, a, "10.42.1.0/24")] {
        let answer = sync_peers(host, generation, vec![peer_of(peer, subnet)]).await;
        assert!(answer.success, "{}", answer.error);
        assert!(answer.rejected.is_empty(), "{:?}", answer.rejected);
    }
}

pub(crate) fn peer_of(host: &Host, subnet: &str) -> Peer {
    Peer {
        subnet: subnet.into(),
        host_address: host.address().to_string(),
        hostname: host.name().into(),
        ..Peer::default()
    }
}

pub(crate) async fn configure(host: &Host, subnet: &str) {
    let channel = host.runtime_channel().await.unwrap();
    let answer = QuiltRuntimeClient::new(channel)
        .configure_node_subnet(ConfigureNodeSubnetRequest {
            subnet: subnet.into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert!(answer.success, "{}", answer.error);
}

pub(crate) async fn inject(host: &Host, destination: &str) {
    let channel = host.runtime_channel().await.unwrap();
    let answer = QuiltRuntimeClient::new(channel)
        .inject_route(InjectRouteRequest {
            destination: destination.into(),
            via_interface: "vxlan100".into(),
        })
        .await
        .unwrap()
        .into_inner();
    assert!(answer.success, "{}", answer.error);
}

pub(crate) async fn sync_peers(
    host: &Host,
    generation: u64,
    peers: Vec<Peer>,
) -> SyncPeersResponse {
    sync_with(host, generation, peers, None).await
}

pub(crate) async fn sync_with(
    host: &Host,
    generation: u64,
    peers: Vec<Peer>,
    node_settings: Option<NodeSettings>,
) -> SyncPeersResponse {
    let channel = host.runtime_channel().await.unwrap();
    MeshDataplaneClient::new(channel)
        .sync_peers(SyncPeersRequest {
            generation,
            host_address: host.address().to_string(),
            peers,
            node_settings,
        })
        .await
        .unwrap()
        .into_inner()
}

/// What `host` counted of its only peer.
pub(crate) async fn counters(host: &Host) -> PeerStatus {
    let mut peers = host.peers().await.unwrap().peers;
    assert_eq!(peers.len(), 1, "{peers:?}");
    peers.remove(0)
}

/// Waits until `host` has dropped or passed at least `count` packets for `reason`.
pub(crate) async fn wait_counted(host: &Host, reason: &str, count: u64) -> GetStatusResponse {
    wait_until(
        &format!("{count} packets counted as {reason}"),
        SOON,
        || async {
            let status = host.status().await.map_err(|error| error.to_string())?;
            let seen = status.drops.get(reason).or(status.passes.get(reason));
            match seen.is_some_and(|seen| *seen >= count) {
                true => Ok(status),
                false => Err(format!(
                    "drops {:?}, passes {:?}",
                    status.drops, status.passes
                )),
            }
        },
    )
    .await
    .unwrap()
}

/// A VXLAN packet as it goes into a UDP datagram.
pub(crate) struct Forged {
    pub(crate) flags: u8,
    pub(crate) vni: u32,
    pub(crate) ethertype: u16,
    pub(crate) source: Ipv4Addr,
    pub(crate) target: Ipv4Addr,
    pub(crate) ttl: u8,
    pub(crate) port: u16,
    pub(crate) payload: Vec<u8>,
}

impl Forged {
    /// A packet as the peer itself would send it.
    pub(crate) fn proper(source: Ipv4Addr, target: Ipv4Addr, port: u16, payload: &[u8]) -> Self {
        Self {
            flags: mesh_layout::VXLAN_FLAG_VNI,
            vni: mesh_layout::VNI,
            ethertype: mesh_layout::ETHERTYPE_IPV4,
            source,
            target,
            ttl: 64,
            port,
            payload: payload.to_vec(),
        }
    }

    /// VXLAN header, inner Ethernet, IPv4 and UDP headers, payload.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let udp_len = u16::try_from(8 + self.payload.len()).unwrap();
        let mut ip = vec![0x45, 0];
        ip.extend((20 + udp_len).to_be_bytes());
        ip.extend([0, 1, 0, 0, self.ttl, 17, 0, 0]);
        ip.extend(self.source.octets());
        ip.extend(self.target.octets());
        let sum: u32 = ip
            .chunks(2)
            .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        ip[10..12].copy_from_slice(&sum.to_be_bytes());

        let subnet = |address: Ipv4Addr| {
            let [a, b, c, _] = address.octets();
            [a, b, c, 0]
        };
        let mut packet = vec![self.flags, 0, 0, 0];
        packet.extend((self.vni << 8).to_be_bytes());
        packet.extend(mesh_layout::overlay_mac(subnet(self.target)));
        packet.extend(mesh_layout::overlay_mac(subnet(self.source)));
        packet.extend(self.ethertype.to_be_bytes());
        packet.extend(ip);
        packet.extend(4444_u16.to_be_bytes());
        packet.extend(self.port.to_be_bytes());
        packet.extend(udp_len.to_be_bytes());
        // No inner checksum.
        packet.extend([0, 0]);
        packet.extend(&self.payload);
        packet
    }
}
