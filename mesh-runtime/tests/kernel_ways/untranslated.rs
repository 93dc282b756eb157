//! What the way out does not translate: it leaves the node for nobody, or it is none of ours.

use std::net::{Ipv6Addr, UdpSocket};

use mesh_testbed::NetNs;

use crate::{
    inside::ip,
    pair::SOON,
    scene::{MODES, Plan, in_modes},
};

const SERVICE: u16 = 8000;

/// The mesh carries none: whoever has given containers addresses of it, and their host a way, has their way.
#[tokio::test(flavor = "multi_thread")]
async fn ipv6_of_a_container_goes_out_as_it_is() {
    in_modes(MODES, Plan::default(), async |scene| {
        let (home, stranger) = (scene.home().netns(), scene.pair.stranger().netns());
        let container = scene.attacker.netns();
        for netns in [home, stranger, container] {
            netns.sysctl("net/ipv6/conf/all/disable_ipv6", "0").unwrap();
        }
        for (netns, words) in [
            (home, "address add fd00:42::1/64 dev quilt0 nodad"),
            (home, "address add fd00:2::2/64 dev eth0 nodad"),
            (stranger, "address add fd00:2::4/64 dev eth0 nodad"),
            (stranger, "route add fd00:42::/64 via fd00:2::2"),
            (container, "address add fd00:42::2/64 dev eth0 nodad"),
            (container, "route add default via fd00:42::1"),
        ] {
            ip(netns, &format!("-6 {words}"));
        }
        home.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let server = udp(stranger);
        let client = udp(container);
        let to: Ipv6Addr = "fd00:2::4".parse().unwrap();
        let mut seen = None;
        for _ in 0..40 {
            client.send_to(b"who am I?", (to, SERVICE)).unwrap();
            seen = server.recv_from(&mut [0; 64]).ok();
            if seen.is_some() {
                break;
            }
        }
        let (_, seen) = seen.unwrap_or_else(|| panic!("nothing arrived in {SOON:?}"));
        assert_eq!(seen.ip(), "fd00:42::2".parse::<Ipv6Addr>().unwrap());
    })
    .await;
}

/// A socket that waits for a fortieth of [`SOON`].
fn udp(netns: &NetNs) -> UdpSocket {
    let bound = netns.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, SERVICE)));
    let socket = bound.unwrap().unwrap();
    socket.set_read_timeout(Some(SOON / 40)).unwrap();
    socket
}
