//! A container that says by ARP that it is the gateway, or its sibling.

use std::{
    fs, io,
    net::Ipv4Addr,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use mesh_layout::map_names;
use mesh_proto::mesh::fast_path_status::State;
use mesh_testbed::{Daemon, DaemonOptions, Host, PingOptions, Signal, ping};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::runtime::Handle;

use crate::{
    frames::{self, IPV4, Mac, announcements},
    inside::{ip, mac, run},
    nft_program::Programs,
    packet_socket::PacketSocket,
    pair::SOON,
    rules::settled,
    scene::{LOADING, MODES, Mode, Plan, Scene, bridge_has_program, guarded, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, Witness as _, contains, sees_no},
};

/// What an ARP packet says of its sender: what a forged one is recognised by.
fn words(sender: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut words = sender.to_vec();
    words.extend(address.octets());
    words
}

/// The MAC that a namespace has for an address, as `ip neighbour` prints it.
fn neighbour(netns: &mesh_testbed::NetNs, interface: &str, address: Ipv4Addr) -> String {
    ip(netns, &format!("neighbour show {address} dev {interface}"))
}

fn printed(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What a namespace learns of its neighbours, also where a runtime has it forget that at once.
struct Learnt(Socket);

impl Learnt {
    fn listen(netns: &mesh_testbed::NetNs) -> Self {
        let listen = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind(&SocketAddr::new(0, 1 << (libc::RTNLGRP_NEIGH - 1)))?;
            socket.set_non_blocking(true)?;
            io::Result::Ok(socket)
        };
        Self(netns.run(listen).unwrap().unwrap())
    }

    /// Whether it has learnt, since the last call, that the address is at that MAC address.
    fn has(&self, mac: Mac, address: Ipv4Addr) -> bool {
        let mut found = false;
        loop {
            let mut notification = Vec::with_capacity(4096);
            match self.0.recv(&mut notification, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return found,
                Err(error) => panic!("{error}"),
            }
            found |= contains(&notification, &mac) && contains(&notification, &address.octets());
        }
    }
}

/// The attacker announces `address` as its own; nobody on the bridge hears it.
fn announced_to_nobody(scene: &Scene, address: Ipv4Addr, to: &mesh_testbed::Container) {
    let attacker = scene.attacker.netns();
    let own = mac(attacker, "eth0");
    let sniffer = PacketSocket::open(to.netns(), "eth0");
    let socket = PacketSocket::open(attacker, "eth0");
    // The victim knows the true one, which is what an announcement would overwrite.
    let victim = (mac(to.netns(), "eth0"), to.address());
    for _ in 0..TIMES {
        socket.send(attacker, &announcements(own, address, victim));
    }
    let marker = Scene::marker(attacker, to.address());
    sees_no(&words(own, address), &sniffer, marker);
    let known = neighbour(to.netns(), "eth0", address);
    assert!(!known.contains(&printed(own)), "{known}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_is_announced_to_no_sibling() {
    in_modes(MODES, Plan::default(), async |scene| {
        announced_to_nobody(scene, scene.gateway(), scene.sibling());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_packets_to_other_nodes_all_arrive_while_the_gateway_is_announced() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let own = mac(attacker, "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        let victim = (mac(sibling.netns(), "eth0"), sibling.address());
        let frames = announcements(own, scene.gateway(), victim);
        let once = PingOptions {
            count: 1,
            ..PingOptions::default()
        };
        for number in 0..TIMES {
            socket.send(attacker, &frames);
            let report = ping(sibling.netns(), scene.far().address(), once).await;
            assert!(report.unwrap().is_complete(), "packet {number} was lost");
        }
    })
    .await;
}

/// A reply under the gateway's own MAC, from the wrong port: the bridge would learn it there.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_address_with_its_mac_is_announced_to_no_sibling() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let gateway = (scene.gateway_mac(), scene.gateway());
        let needle = words(gateway.0, gateway.1);
        // The gateway speaks for itself now and then: told apart by the target.
        let target = ([0; 6], Ipv4Addr::new(10, 42, 1, 254));
        let packet = frames::arp(frames::ARP_REPLY, gateway, target);
        let frame = frames::ethernet(frames::BROADCAST, gateway.0, frames::ARP, &packet);
        let mut whole = needle;
        whole.extend(target.0);
        whole.extend(target.1.octets());
        let sniffer = PacketSocket::open(sibling.netns(), "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        socket.send(attacker, &vec![frame; TIMES]);
        sees_no(&whole, &sniffer, Scene::marker(attacker, sibling.address()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_siblings_address_is_announced_to_nobody_on_the_bridge() {
    in_modes(MODES, Plan::default(), async |scene| {
        announced_to_nobody(scene, scene.sibling().address(), &scene.other);
    })
    .await;
}

async fn the_host_learns_no_siblings_address_from_the_attacker(modes: &[Mode]) {
    in_modes(modes, Plan::default(), async |scene| {
        let (host, attacker) = (scene.home().netns(), scene.attacker.netns());
        let own = mac(attacker, "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        let (gateway, sibling) = (scene.gateway(), scene.sibling().address());
        let frames = announcements(own, sibling, (scene.gateway_mac(), gateway));
        let learnt = Learnt::listen(host);
        for _ in 0..TIMES {
            socket.send(attacker, &frames);
        }
        let listener = Listener::on(host);
        let marker = Scene::marker(attacker, gateway);
        sees_no(b"nothing of this kind", &listener, marker);
        let known = neighbour(host, "quilt0", sibling);
        assert!(!known.contains(&printed(own)), "{known}");
        assert!(!learnt.has(own, sibling), "it was learnt, and forgotten");
        // Whoever listens does hear what is learnt.
        let free = Ipv4Addr::new(10, 42, 1, 250);
        let entry = format!("{free} lladdr {} dev quilt0 nud stale", printed(own));
        ip(host, &format!("neighbour replace {entry}"));
        assert!(learnt.has(own, free), "nothing is heard");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_does_not_learn_a_siblings_address_from_the_attacker() {
    the_host_learns_no_siblings_address_from_the_attacker(MODES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_does_not_learn_a_siblings_address_while_programs_are_being_loaded() {
    the_host_learns_no_siblings_address_from_the_attacker(LOADING).await;
}

/// Has the attacker say without a pause, by ARP and IP, that it is its sibling, while `meanwhile` takes its
/// course; the host does not hear it, and never learns where it says the sibling is.
async fn the_host_learns_nothing_meanwhile(scene: &Scene, meanwhile: impl Future<Output = ()>) {
    let (home, attacker) = (scene.home(), scene.attacker.netns());
    let own = mac(attacker, "eth0");
    let (gateway, sibling) = (scene.gateway(), scene.sibling().address());
    let mut frames = announcements(own, sibling, (scene.gateway_mac(), gateway));
    let packet = frames::udp_packet((sibling, 4444), (gateway, PORT), FORGED);
    frames.push(frames::ethernet(scene.gateway_mac(), own, IPV4, &packet));
    let socket = PacketSocket::open(attacker, "eth0");
    let (learnt, listener) = (Learnt::listen(home.netns()), Listener::on(home.netns()));
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let ended = std::thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                socket.send(attacker, &frames);
                rounds.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let meanwhile = AssertUnwindSafe(meanwhile).catch_unwind();
        let ended = tokio::task::block_in_place(|| Handle::current().block_on(meanwhile));
        stop.store(true, Ordering::Relaxed);
        ended
    });
    ended.unwrap_or_else(|panic| resume_unwind(panic));
    println!("{:?}: {rounds:?} rounds", scene.mode);
    sees_no(FORGED, &listener, Scene::marker(attacker, gateway));
    assert!(!learnt.has(own, sibling), "it was learnt");
}

/// Kills the runtime, if it runs, and starts it in another way.
async fn start_anew(home: &Host, options: DaemonOptions) {
    let options = options.binary(env!("CARGO_BIN_EXE_quilt-runtime"));
    if home.is_running(Daemon::Runtime) {
        let killed = home.stop(Daemon::Runtime, Signal::SIGKILL, SOON).await;
        killed.unwrap();
    }
    home.start_runtime(&options).await.unwrap();
}

/// In every moment of runtimes that load their programs, are killed, started in another way, and have their
/// rules destroyed.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_does_not_learn_a_siblings_address_while_its_runtime_comes_and_goes() {
    let modes = [Mode::Loading, Mode::Fast, Mode::MadeWhileDead];
    in_modes(&modes, Plan::default(), async |scene| {
        let home = scene.home();
        the_host_learns_nothing_meanwhile(scene, async {
            if scene.mode == Mode::Loading {
                scene.go_on_loading();
                guarded(home, &scene.attacker).await;
            }
            let starts: [&[&str]; _] = [&["--fast-path", "off"], &["--attach", "clsact"], &[]];
            for words in starts {
                start_anew(home, DaemonOptions::new().args(words.to_vec())).await;
                bridge_has_program(home).await;
            }
            guarded(home, &scene.attacker).await;
            for damage in ["delete table bridge quilt_mesh", "flush ruleset"] {
                run(home.netns(), "nft", damage);
                settled(home.netns()).await;
            }
        })
        .await;
    })
    .await;
}

/// Where a map of an earlier run should be is none, so that there are no programs any more: the earlier run's go, and
/// not before the rules stand in for them, whatever time `nft` takes.
#[tokio::test(flavor = "multi_thread")]
async fn the_host_does_not_learn_a_siblings_address_while_its_programs_go() {
    in_modes(&[Mode::MadeWhileDead], Plan::default(), async |scene| {
        let home = scene.home();
        let maps = home.bpffs_dir().join("quilt-mesh");
        let version = format!("v{}", mesh_layout::LAYOUT_VERSION);
        let map = maps.join(version).join(map_names::PEERS);
        fs::remove_file(&map).unwrap();
        fs::create_dir(&map).unwrap();
        let slow = Programs::slow();
        the_host_learns_nothing_meanwhile(scene, async {
            start_anew(home, DaemonOptions::new().env("PATH", slow.path())).await;
            guarded(home, &scene.attacker).await;
            let fast_path = home.status().await.unwrap().fast_path.unwrap();
            assert_eq!(fast_path.state(), State::Unavailable, "{fast_path:?}");
        })
        .await;
    })
    .await;
}

/// An address outside the subnet, with which the attacker would be another network's router.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_outside_the_subnet_is_announced_to_no_sibling() {
    in_modes(MODES, Plan::default(), async |scene| {
        let outside = Ipv4Addr::new(192, 0, 2, 3);
        announced_to_nobody(scene, outside, scene.sibling());
    })
    .await;
}

/// The attacker has its sibling's address too, answers for it and announces it; what another
/// node sends to the address is the sibling's all the same.
#[tokio::test(flavor = "multi_thread")]
async fn who_adds_a_siblings_address_gets_nothing_from_another_node() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let stolen = sibling.address();
        ip(attacker, &format!("address add {stolen}/24 dev eth0"));
        let own = mac(attacker, "eth0");
        let gateway = (scene.gateway_mac(), scene.gateway());
        let socket = PacketSocket::open(attacker, "eth0");
        let thief = Listener::on(attacker);
        let owner = Listener::on(sibling.netns());
        let send = Scene::marker(scene.far().netns(), stolen);
        for number in 0..4 * TIMES {
            socket.send(attacker, &announcements(own, stolen, gateway));
            // The announcement has been taken in when this has.
            Scene::marker(attacker, scene.gateway())(b"after it");
            let payload = format!("packet {number}");
            send(payload.as_bytes());
            let got = owner.next(SOON / 10);
            let stolen = thief.next(Duration::from_millis(1));
            assert_eq!(stolen, None, "the thief got it");
            assert_eq!(got.as_deref(), Some(payload.as_bytes()));
        }
    })
    .await;
}

/// The same for what comes from the host itself, and from a container on the bridge.
#[tokio::test(flavor = "multi_thread")]
async fn who_adds_a_siblings_address_gets_nothing_from_its_host_and_its_bridge() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (attacker, sibling) = (scene.attacker.netns(), scene.sibling());
        let stolen = sibling.address();
        ip(attacker, &format!("address add {stolen}/24 dev eth0"));
        let own = mac(attacker, "eth0");
        let socket = PacketSocket::open(attacker, "eth0");
        let thief = Listener::on_port(attacker, PORT);
        let owner = Listener::on(sibling.netns());
        let neighbours = [
            (scene.home().netns(), scene.gateway_mac(), scene.gateway()),
            (
                scene.other.netns(),
                mac(scene.other.netns(), "eth0"),
                scene.other.address(),
            ),
        ];
        for number in 0..2 * TIMES {
            for (from, mac, address) in neighbours {
                socket.send(attacker, &announcements(own, stolen, (mac, address)));
                let payload = format!("packet {number} of {address}");
                Scene::marker(from, stolen)(payload.as_bytes());
                let got = owner.next(SOON / 10);
                let stolen = thief.next(Duration::from_millis(1));
                assert_eq!(stolen, None, "the thief got it");
                assert_eq!(got.as_deref(), Some(payload.as_bytes()));
            }
        }
    })
    .await;
}
