//! Ports that nobody guards yet: their containers are being made, or were made while no runtime ran.

use std::{
    net::{Ipv4Addr, UdpSocket},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use futures_util::future::join_all;
use mesh_testbed::NetNs;
use tokio::runtime::Handle;

use crate::{
    frames::{self, IPV4, announcements},
    inside::{ip, mac},
    packet_socket::PacketSocket,
    pair::SOON,
    scene::{ALIVE, Mode, Plan, Scene, guarded, in_modes},
    witness::{FORGED, Listener, PORT, sees, sees_no},
};

/// Containers that are made in one moment: the last one's program is attached when all others' are.
const CROWD: usize = 20;

/// From the first moment of its port on a container says that it is its sibling, in every way and
/// to everybody, until a program stands at the port.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_just_being_made_speaks_for_no_sibling() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let home = scene.home();
        let (sibling, other, far) = (scene.sibling(), &scene.other, scene.far());
        let (sibling_mac, other_mac) = (mac(sibling.netns(), "eth0"), mac(other.netns(), "eth0"));
        let gateway_mac = scene.gateway_mac();
        let witnesses = [
            PacketSocket::open(other.netns(), "eth0"),
            PacketSocket::open(far.netns(), "eth0"),
        ];
        let host = Listener::on(home.netns());
        // Both are known to each other, which is what an announcement would overwrite.
        let greet = |payload: &[u8]| Scene::marker(other.netns(), sibling.address())(payload);
        sees(b"greetings", &Listener::on(sibling.netns()), greet);

        let crowd = join_all((0..CROWD).map(|_| home.add_container())).await;
        let crowd: Vec<_> = crowd.into_iter().map(Result::unwrap).collect();
        let attacker = crowd.last().unwrap();
        let own_mac = mac(attacker.netns(), "eth0");
        let socket = PacketSocket::open(attacker.netns(), "eth0");
        let targets = [
            (other.address(), other_mac),
            (far.address(), gateway_mac),
            (scene.gateway(), gateway_mac),
        ];
        let claims = [
            (sibling.address(), own_mac),
            (sibling.address(), sibling_mac),
            (attacker.address(), sibling_mac),
        ];
        let mut forged = announcements(own_mac, sibling.address(), (other_mac, other.address()));
        for (target, next_hop) in targets {
            for (source, mac) in claims {
                let packet = frames::udp_packet((source, 4444), (target, PORT), FORGED);
                forged.push(frames::ethernet(next_hop, mac, IPV4, &packet));
            }
        }
        // Past the bridge to the host, and to whoever looks for a DHCP server.
        let past = frames::reserved_mac(0x0e);
        for target in [home.address(), scene.gateway()] {
            let packet = frames::udp_packet((sibling.address(), 4444), (target, PORT), FORGED);
            forged.push(frames::ethernet(past, own_mac, IPV4, &packet));
        }
        let offer = (Ipv4Addr::BROADCAST, 68);
        let offer = frames::udp_packet((attacker.address(), 67), offer, FORGED);
        forged.push(frames::ethernet(frames::BROADCAST, own_mac, IPV4, &offer));
        let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    socket.send(attacker.netns(), &forged);
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
            tokio::task::block_in_place(|| Handle::current().block_on(guarded(home, attacker)));
            stop.store(true, Ordering::Relaxed);
        });
        println!("{:?}: {rounds:?} rounds before a program stood", scene.mode);
        for (witness, target) in witnesses.iter().zip([other.address(), far.address()]) {
            sees_no(FORGED, witness, Scene::marker(attacker.netns(), target));
        }
        sees_no(
            FORGED,
            &host,
            Scene::marker(attacker.netns(), scene.gateway()),
        );
        let known = ip(
            other.netns(),
            &format!("neighbour show {}", sibling.address()),
        );
        let printed: Vec<String> = own_mac.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!known.contains(&printed.join(":")), "{known}");
    })
    .await;
}

/// Sends from an address of the namespace's.
fn send_from(netns: &NetNs, source: Ipv4Addr, target: Ipv4Addr, payload: &[u8]) {
    let socket = netns.run(|| UdpSocket::bind((source, 0))).unwrap().unwrap();
    socket.send_to(payload, (target, PORT)).unwrap();
}

/// A container takes the place of one that is gone, with its address and perhaps its MAC address,
/// while no runtime runs that could hear of it. To the host and to other nodes it is who it says.
async fn in_the_place_of_one_that_is_gone(with_its_mac: bool) {
    in_modes(&[Mode::MadeWhileDead], Plan::default(), async |scene| {
        let (gone, newcomer) = (scene.sibling(), scene.attacker.netns());
        let address = gone.address();
        let its_mac = mac(gone.netns(), "eth0")
            .map(|byte| format!("{byte:02x}"))
            .join(":");
        let port = gone.host_interface();
        ip(scene.home().netns(), &format!("link delete {port}"));
        if with_its_mac {
            ip(newcomer, "link set eth0 down");
            ip(newcomer, &format!("link set eth0 address {its_mac}"));
            ip(newcomer, "link set eth0 up");
            ip(
                newcomer,
                &format!("route replace default via {}", scene.gateway()),
            );
        }
        ip(newcomer, &format!("address add {address}/24 dev eth0"));
        for (netns, target) in [
            (scene.far().netns(), scene.far().address()),
            (scene.home().netns(), scene.gateway()),
        ] {
            let listener = Listener::on(netns);
            sees(b"from the newcomer", &listener, |payload| {
                send_from(newcomer, address, target, payload);
            });
            drop(listener);
            let listener = Listener::on(newcomer);
            sees(b"to the newcomer", &listener, Scene::marker(netns, address));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_in_the_place_of_one_that_is_gone_is_reached_without_a_runtime() {
    in_the_place_of_one_that_is_gone(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_with_the_mac_of_one_that_is_gone_is_reached_without_a_runtime() {
    in_the_place_of_one_that_is_gone(true).await;
}

/// What it has to wait for is its siblings: until a runtime has seen it, they do not hear it.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_in_the_place_of_one_that_is_gone_is_heard_by_its_siblings_with_a_runtime() {
    in_modes(&[Mode::MadeWhileDead], Plan::default(), async |scene| {
        let (gone, newcomer) = (scene.sibling(), scene.attacker.netns());
        let address = gone.address();
        ip(
            scene.home().netns(),
            &format!("link delete {}", gone.host_interface()),
        );
        ip(newcomer, &format!("address add {address}/24 dev eth0"));
        let witness = PacketSocket::open(scene.other.netns(), "eth0");
        send_from(newcomer, address, scene.other.address(), FORGED);
        let marker = Scene::marker(newcomer, scene.other.address());
        sees_no(FORGED, &witness, marker);
        for host in [scene.pair.host_a(), scene.pair.host_b()] {
            host.restart(mesh_testbed::Daemon::Runtime).unwrap();
            host.wait_serving(SOON).await.unwrap();
        }
        let listener = Listener::on(scene.other.netns());
        sees(b"with a runtime", &listener, |payload| {
            send_from(newcomer, address, scene.other.address(), payload);
        });
    })
    .await;
}
