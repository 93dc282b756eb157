//! Two containers and one address: who held it first keeps it, until it no longer does.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use mesh_proto::mesh::{AttachEndpointRequest, mesh_dataplane_client::MeshDataplaneClient};
use mesh_testbed::{NetNs, wait_until};

use crate::{
    frames::announcements,
    inside::{ip, mac},
    packet_socket::PacketSocket,
    pair::SOON,
    scene::{ALIVE, Plan, Scene, in_modes},
    witness::{Listener, Witness as _},
};

/// An address that moves between containers.
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 100);

/// Long enough for a runtime to have looked.
const WHILE: Duration = Duration::from_millis(1500);

/// Says to everybody that the namespace has the address, as keepalived does.
fn announce(scene: &Scene, netns: &NetNs, address: Ipv4Addr) {
    let own = mac(netns, "eth0");
    let gateway = (scene.gateway_mac(), scene.gateway());
    PacketSocket::open(netns, "eth0").send(netns, &announcements(own, address, gateway));
}

/// Adds an address without more ado.
fn add(netns: &NetNs, address: Ipv4Addr) {
    ip(netns, &format!("address add {address}/24 dev eth0"));
}

fn remove(netns: &NetNs, address: Ipv4Addr) {
    ip(netns, &format!("address delete {address}/24 dev eth0"));
}

/// Waits until what another node sends to `address` arrives at `holder`.
async fn arrives_at(scene: &Scene, address: Ipv4Addr, holder: &NetNs) {
    let listener = Listener::on(holder);
    let what = format!("what is sent to {address} in {}", holder.name());
    wait_until(&what, SOON, || async {
        Scene::marker(scene.far().netns(), address)(b"for the holder");
        let got = listener.next(Duration::from_millis(100));
        got.map(drop).ok_or("nothing")
    })
    .await
    .unwrap();
}

/// Waits for exactly one problem that names the address, and for no other.
async fn contested(scene: &Scene, address: Ipv4Addr) {
    wait_until("one problem of the contested address", SOON, || async {
        let status = scene.home().status().await;
        let problems = status.map_err(|error| error.to_string())?.problems();
        match problems.as_slice() {
            [problem] if problem.contains(&address.to_string()) => Ok(()),
            _ => Err(format!("{problems:?}")),
        }
    })
    .await
    .unwrap();
}

async fn uncontested(scene: &Scene) {
    wait_until("no problem", SOON, || async {
        let status = scene.home().status().await;
        let problems = status.map_err(|error| error.to_string())?.problems();
        problems
            .is_empty()
            .then_some(())
            .ok_or(format!("{problems:?}"))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_held_an_address_first_keeps_it_and_the_contest_is_one_problem() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let address = scene.sibling().address();
        let attacker = scene.attacker.netns();
        add(attacker, address);
        announce(scene, attacker, address);
        contested(scene, address).await;
        let thief = Listener::on(attacker);
        arrives_at(scene, address, scene.sibling().netns()).await;
        assert_eq!(thief.next(Duration::from_millis(1)), None);
        remove(attacker, address);
        uncontested(scene).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_holder_keeps_its_address_over_a_restart_of_the_runtime() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let address = scene.sibling().address();
        let attacker = scene.attacker.netns();
        add(attacker, address);
        contested(scene, address).await;
        crate::scene::kill(&scene.pair).await;
        announce(scene, attacker, address);
        scene.revive().await;
        announce(scene, attacker, address);
        contested(scene, address).await;
        let thief = Listener::on(attacker);
        arrives_at(scene, address, scene.sibling().netns()).await;
        assert_eq!(thief.next(Duration::from_millis(1)), None);
    })
    .await;
}

/// Takes the first holder's interface down for a while in which the other announces itself.
async fn keeps_it_while_down(down: fn(&Scene) -> (&NetNs, String)) {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let address = scene.sibling().address();
        let attacker = scene.attacker.netns();
        add(attacker, address);
        contested(scene, address).await;
        let (netns, interface) = down(scene);
        for _ in 0..2 {
            ip(netns, &format!("link set {interface} down"));
            let since = Instant::now();
            wait_until("a while", SOON, || async {
                announce(scene, attacker, address);
                (since.elapsed() > WHILE).then_some(()).ok_or("not yet")
            })
            .await
            .unwrap();
            ip(netns, &format!("link set {interface} up"));
            let back = scene.sibling().netns();
            wait_until("the interface", SOON, || async {
                let shown = ip(back, "link show eth0");
                shown.contains(" state UP ").then_some(()).ok_or(shown)
            })
            .await
            .unwrap();
            announce(scene, attacker, address);
            let thief = Listener::on(attacker);
            arrives_at(scene, address, back).await;
            assert_eq!(thief.next(Duration::from_millis(1)), None);
            contested(scene, address).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_holder_keeps_its_address_while_its_interface_is_down() {
    keeps_it_while_down(|scene| (scene.sibling().netns(), "eth0".to_owned())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_holder_keeps_its_address_while_its_port_is_down() {
    keeps_it_while_down(|scene| {
        let port = scene.sibling().host_interface().to_owned();
        (scene.home().netns(), port)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_first_holder_no_longer_has_it_the_address_is_the_seconds() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let sibling = scene.sibling();
        let (address, attacker) = (sibling.address(), scene.attacker.netns());
        add(attacker, address);
        contested(scene, address).await;
        ip(sibling.netns(), "address flush dev eth0");
        uncontested(scene).await;
        announce(scene, attacker, address);
        arrives_at(scene, address, attacker).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_first_holders_port_is_gone_the_address_is_the_seconds() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let (address, attacker) = (scene.sibling().address(), scene.attacker.netns());
        add(attacker, address);
        contested(scene, address).await;
        let port = scene.sibling().host_interface();
        ip(scene.home().netns(), &format!("link delete {port}"));
        uncontested(scene).await;
        announce(scene, attacker, address);
        arrives_at(scene, address, attacker).await;
    })
    .await;
}

/// VRRP: the address leaves one container and comes to another, which announces it.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_address_that_moves_is_followed_within_seconds() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let (first, second) = (scene.sibling().netns(), scene.attacker.netns());
        add(first, VIRTUAL);
        announce(scene, first, VIRTUAL);
        arrives_at(scene, VIRTUAL, first).await;
        for (from, to) in [(first, second), (second, first), (first, second)] {
            remove(from, VIRTUAL);
            add(to, VIRTUAL);
            announce(scene, to, VIRTUAL);
            let moved = Instant::now();
            arrives_at(scene, VIRTUAL, to).await;
            println!("{:?}: followed after {:?}", scene.mode, moved.elapsed());
        }
        uncontested(scene).await;
    })
    .await;
}

/// The other order, as when the old holder is slow: both have it for a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_address_that_two_have_for_a_moment_is_followed_too() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let (first, second) = (scene.sibling().netns(), scene.attacker.netns());
        add(first, VIRTUAL);
        announce(scene, first, VIRTUAL);
        arrives_at(scene, VIRTUAL, first).await;
        add(second, VIRTUAL);
        announce(scene, second, VIRTUAL);
        remove(first, VIRTUAL);
        arrives_at(scene, VIRTUAL, second).await;
        uncontested(scene).await;
    })
    .await;
}

/// A container may send from its virtual address as soon as it has it.
#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_a_virtual_address_sends_from_it() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let listener = Listener::on(scene.far().netns());
        let (first, second) = (scene.sibling().netns(), scene.attacker.netns());
        add(first, VIRTUAL);
        let target = (scene.far().address(), crate::witness::PORT);
        let send = |from: &NetNs, payload: &[u8]| {
            let socket = from.run(|| std::net::UdpSocket::bind((VIRTUAL, 0)));
            socket.unwrap().unwrap().send_to(payload, target).unwrap();
        };
        crate::witness::sees(b"first", &listener, |payload| send(first, payload));
        remove(first, VIRTUAL);
        add(second, VIRTUAL);
        announce(scene, second, VIRTUAL);
        crate::witness::sees(b"second", &listener, |payload| send(second, payload));
    })
    .await;
}

async fn attach(scene: &Scene, container: &mesh_testbed::Container) -> Result<(), String> {
    let channel = scene.home().runtime_channel().await.unwrap();
    let answer = MeshDataplaneClient::new(channel)
        .attach_endpoint(AttachEndpointRequest {
            interface: container.host_interface().into(),
            address: VIRTUAL.to_string(),
            mac: String::new(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner();
    answer.success.then_some(()).ok_or(answer.error)
}

/// A call takes an address from nobody who holds it; one that it gave, nobody takes.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_was_given_by_a_call_is_taken_by_nobody() {
    in_modes(ALIVE, Plan::default(), async |scene| {
        let (first, second) = (scene.sibling(), &scene.attacker);
        add(first.netns(), VIRTUAL);
        announce(scene, first.netns(), VIRTUAL);
        arrives_at(scene, VIRTUAL, first.netns()).await;
        let refused = attach(scene, second).await.unwrap_err();
        assert!(refused.contains(first.host_interface()), "{refused}");
        remove(first.netns(), VIRTUAL);
        attach(scene, second).await.unwrap();
        // By call it is the second's, although only the first holds it.
        add(first.netns(), VIRTUAL);
        announce(scene, first.netns(), VIRTUAL);
        add(second.netns(), VIRTUAL);
        announce(scene, second.netns(), VIRTUAL);
        arrives_at(scene, VIRTUAL, second.netns()).await;
        contested(scene, VIRTUAL).await;
    })
    .await;
}
