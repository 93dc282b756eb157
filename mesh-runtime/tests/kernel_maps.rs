//! What the maps show when not everything fits them, or when somebody takes entries away. Needs root and bpftool.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;
use mesh_layout::{VNI, VXLAN_PORT, bridge_mac, map_names, overlay_mac};
use mesh_runtime::ebpf::{
    AttachMode, EndpointPath, FastPath, FastPathOptions, FastPathState, OwnDevice, PeerPath,
};
use mesh_testbed::{Daemon, DaemonOptions, NetNs, wait_reachable, wait_until};

mod pair;
use pair::{Pair, SOON};

/// Containers that the map has room for.
const MOST: u32 = 4096;

fn subnet(third: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(10, 42, third, 0), 18)
}

fn device(index: u32, mac: [u8; 6]) -> OwnDevice {
    OwnDevice {
        index,
        name: format!("device{index}"),
        mac,
    }
}

/// A node with one peer and more containers than the map holds.
fn crowded(peer: Ipv4Net) -> FastPathState {
    let own = subnet(0).network();
    let first = u32::from(own) + 2;
    let container = |address: u32| {
        let path = EndpointPath {
            link: 9,
            mac: [2, 0, 0, 0, 0, 1],
            held: true,
        };
        (Ipv4Addr::from(address), path)
    };
    let path = PeerPath {
        address: Ipv4Addr::new(192, 0, 2, 3),
        mtu: 0,
        kernel: false,
        multipath: false,
    };
    FastPathState {
        generation: 1,
        subnet: subnet(0),
        host_address: Ipv4Addr::new(192, 0, 2, 2),
        overlay: device(4, overlay_mac(own.octets())),
        overlay_mtu: 1450,
        bridge: device(3, bridge_mac(own.octets())),
        port: VXLAN_PORT,
        vni: VNI,
        peers: BTreeMap::from([(peer, path)]).into(),
        underlay: BTreeMap::from([(2, "eth0".to_owned())]),
        ports: BTreeMap::new(),
        endpoints: (first..=first + MOST).map(container).collect(),
        macs: BTreeMap::from([([2, 0, 0, 0, 0, 1], 9)]),
        strict_ports: BTreeSet::new(),
        shaped_ports: BTreeSet::new(),
        filters_vlans: false,
        forwarding: true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_too_many_is_told_of_and_keeps_no_peer_from_being_written() {
    let namespace = NetNs::new("crowded").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = FastPathOptions {
        bpffs: directory.path().join("bpf"),
        max_peers: 16,
        attach: AttachMode::Auto,
        log_programs: false,
    };
    let peer = subnet(64);
    let mut state = crowded(peer);
    let mut fast_path = namespace
        .run_blocking({
            let options = options.clone();
            let runtime = tokio::runtime::Handle::current();
            move || {
                let _entered = runtime.enter();
                FastPath::open(&options)
            }
        })
        .await
        .unwrap()
        .unwrap();

    let error = fast_path.show_maps(&state, false).unwrap_err();
    assert!(error.to_string().contains("endpoints"), "{error}");
    let shown = fast_path.peer_counters().unwrap();
    assert_eq!(shown.into_keys().collect::<Vec<_>>(), [peer]);

    // Once it is gone there is nothing to be told of.
    state.endpoints.pop_last();
    fast_path.show_maps(&state, false).unwrap();

    drop(fast_path);
    mesh_runtime::ebpf::detach_leftovers(&options.bpffs, &[], true).unwrap();
}

/// Whose containers a peer's are is known by the map: without the entry their packets are refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_is_refused_has_the_maps_looked_at() {
    let pair = Pair::start(&DaemonOptions::new()).await;
    pair.wait_fast().await;
    let b = pair.host_b();
    let map = b.bpffs_dir().join("quilt-mesh").join(map_names::PEERS);
    let words = format!("map delete pinned {} key 10 42 1 0", map.display());
    // A comparison of the clock's may come first, and says nothing of it.
    wait_until("a look because of a refused packet", SOON, || async {
        let mut command = b.netns().command("bpftool");
        let deleted = command.args(words.split_whitespace()).output().unwrap();
        assert!(deleted.status.success(), "{words}: {deleted:?}");
        wait_reachable(pair.a.netns(), pair.b.address(), SOON)
            .await
            .unwrap();
        let log = std::fs::read_to_string(b.log(Daemon::Runtime)).unwrap();
        match log.contains("somebody changed the fast path's maps") {
            true => Ok(()),
            false => Err(log),
        }
    })
    .await
    .unwrap();
}
