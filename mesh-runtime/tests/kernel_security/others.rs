//! VXLAN under a peer's own address from what else a host has: containers of another network
//! without a bridge, virtual machines.

use std::{
    fs::File,
    io::{self, Write as _},
    net::Ipv4Addr,
    os::fd::AsRawFd as _,
};

use mesh_testbed::NetNs;

use crate::{
    frames::{self, IPV4, Mac},
    inside::{ip, mac, pinned},
    packet_socket::PacketSocket,
    pair::Forged,
    scene::{HOST_MODES, Plan, Scene, in_modes},
    vxlan::VXLAN,
    witness::{FORGED, Listener, PORT, TIMES, sees_no},
};

const ATTACKERS_MAC: Mac = [2, 0, 0, 0, 0, 0x77];

/// What the peer itself would send, to an interface of the attacked host.
fn as_peer(scene: &Scene, interface: &str, to: Ipv4Addr) -> Vec<u8> {
    let (far, sibling) = (scene.far().address(), scene.sibling().address());
    let inner = Forged::proper(far, sibling, PORT, FORGED);
    let peer = (scene.away().address(), 50_000);
    let packet = frames::udp_packet(peer, (to, VXLAN), &inner.bytes());
    let next_hop = mac(scene.home().netns(), interface);
    frames::ethernet(next_hop, ATTACKERS_MAC, IPV4, &packet)
}

/// Runs an attack on the sibling, which hears only what really is the peer's.
async fn unheard(attack: impl AsyncFn(&Scene)) {
    in_modes(HOST_MODES, Plan::default(), async |scene| {
        let sibling = scene.sibling();
        let listener = Listener::on(sibling.netns());
        attack(scene).await;
        sees_no(FORGED, &listener, |marker| {
            Scene::marker(scene.home().netns(), sibling.address())(marker);
            Scene::marker(scene.far().netns(), sibling.address())(marker);
        });
    })
    .await;
}

/// The namespace that plays the others' container: the control plane's, which does nothing here.
fn attacker(scene: &Scene) -> &NetNs {
    scene.pair.testbed.control().netns()
}

/// A cable into it, whose end here may be given a bridge.
fn cable(scene: &Scene, interface: &str) {
    let home = scene.home().netns();
    ip(
        home,
        &format!("link add {interface} type veth peer name far0"),
    );
    let netns = attacker(scene).path().display().to_string();
    ip(home, &format!("link set far0 netns {netns}"));
    trust(home, interface);
    ip(home, &format!("link set {interface} up"));
    ip(attacker(scene), "link set far0 up");
}

/// Reverse path filters are off, as overlay networks have them.
fn trust(netns: &NetNs, interface: &str) {
    for name in ["all", interface] {
        netns
            .sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "0")
            .unwrap();
    }
}

fn send(scene: &Scene, frame: Vec<u8>) {
    let from = attacker(scene);
    PacketSocket::open(from, "far0").send(from, &vec![frame; TIMES]);
}

/// As Calico connects a container: by a route to its address, and no address on this end.
fn routed_container(scene: &Scene) {
    let home = scene.home().netns();
    cable(scene, "cali0");
    home.sysctl("net/ipv4/conf/cali0/proxy_arp", "1").unwrap();
    ip(home, "route add 192.168.77.2/32 dev cali0");
    ip(attacker(scene), "address add 192.168.77.2/32 dev far0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_container_without_a_bridge_cannot_send_vxlan_as_a_peer() {
    unheard(async |scene| {
        routed_container(scene);
        send(scene, as_peer(scene, "cali0", scene.home().address()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routed_container_without_a_bridge_cannot_send_vxlan_as_a_peer_to_the_gateway() {
    unheard(async |scene| {
        routed_container(scene);
        send(scene, as_peer(scene, "cali0", scene.gateway()));
    })
    .await;
}

/// The bridge of virtual machines.
fn virtual_bridge(scene: &Scene) {
    let home = scene.home().netns();
    ip(home, "link add virbr0 type bridge");
    ip(home, "address add 192.168.122.1/24 dev virbr0");
    trust(home, "virbr0");
    ip(home, "link set virbr0 up");
}

/// Both addresses of the host that the machine knows.
fn targets(scene: &Scene) -> [Ipv4Addr; 2] {
    [scene.home().address(), Ipv4Addr::new(192, 168, 122, 1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_on_the_bridge_of_virtual_machines_cannot_send_vxlan_as_a_peer() {
    unheard(async |scene| {
        virtual_bridge(scene);
        cable(scene, "vnet0");
        ip(scene.home().netns(), "link set vnet0 master virbr0");
        for target in targets(scene) {
            send(scene, as_peer(scene, "virbr0", target));
        }
    })
    .await;
}

/// What a hypervisor has of a virtual machine's card: what is written comes in on the interface.
fn tap(netns: &NetNs, name: &str) -> File {
    /// `TUNSETIFF` of linux/if_tun.h.
    const SET: libc::c_ulong = 0x4004_54ca;
    let mut request = [0_u8; 40];
    request[..name.len()].copy_from_slice(name.as_bytes());
    // Ethernet frames, with nothing before them.
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request[16..18].copy_from_slice(&i16::try_from(flags).unwrap().to_ne_bytes());
    let made = netns.run(|| {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/net/tun")?;
        // SAFETY: the request is a struct ifreq of 40 bytes.
        match unsafe { libc::ioctl(file.as_raw_fd(), SET, request.as_mut_ptr()) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(file),
        }
    });
    made.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_cannot_send_vxlan_as_a_peer() {
    unheard(async |scene| {
        virtual_bridge(scene);
        let home = scene.home().netns();
        let mut machine = tap(home, "vnet0");
        ip(home, "link set vnet0 master virbr0 up");
        for target in targets(scene) {
            let frame = as_peer(scene, "virbr0", target);
            pinned(home, || {
                for _ in 0..TIMES {
                    machine.write_all(&frame).unwrap();
                }
            });
        }
    })
    .await;
}

/// The same without a bridge, by a route to the machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_routed_virtual_machine_cannot_send_vxlan_as_a_peer() {
    unheard(async |scene| {
        let home = scene.home().netns();
        let mut machine = tap(home, "vnet0");
        trust(home, "vnet0");
        ip(home, "link set vnet0 up");
        ip(home, "route add 192.168.77.2/32 dev vnet0");
        let frame = as_peer(scene, "vnet0", scene.home().address());
        pinned(home, || {
            for _ in 0..TIMES {
                machine.write_all(&frame).unwrap();
            }
        });
    })
    .await;
}
