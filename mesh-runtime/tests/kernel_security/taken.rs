//! What is registered of a container is nobody else's: also while its interface is down and has no address,
//! and also if somebody else had it first.

use std::time::Duration;

use mesh_testbed::Container;

use crate::{
    frames::{self, IPV4},
    inside::{ip, mac},
    packet_socket::PacketSocket,
    register::{ADDRESS, MAC, Registration, printed},
    registered::{is_announced_to_nobody, is_heard_nowhere, without_programs},
    scene::{HOST_MODES, MODES, Mode, Plan, Scene, in_modes},
    witness::{FORGED, Listener, PORT, TIMES, Witness as _, sees, sees_no},
};

/// With a runtime and without, and for those whose port was made when there was none.
pub(crate) const LIVES_OF_OTHERS: &[Mode] = &[Mode::Fast, Mode::Killed, Mode::MadeWhileDead];

/// One whose container has done nothing yet: its interface is down, and has no address.
fn bare() -> Plan {
    Plan {
        registered: Some(Registration {
            bare: true,
            ..Registration::default()
        }),
        ..Plan::default()
    }
}

/// Address, MAC address, and both, of a registered container.
pub(crate) fn nobody_else_speaks_as_it(scene: &Scene) {
    let from = scene.attacker.netns();
    let own = (scene.attacker.address(), mac(from, "eth0"));
    for (source, mac) in [(ADDRESS, own.1), (own.0, MAC), (ADDRESS, MAC)] {
        is_heard_nowhere(scene, from, source, mac);
    }
    is_announced_to_nobody(scene, from, ADDRESS, own.1, own.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_speaks_as_a_registered_container_that_is_down_and_has_no_address_yet() {
    in_modes(MODES, bare(), async |scene| nobody_else_speaks_as_it(scene)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_speaks_as_one_that_is_down_where_there_are_no_programs() {
    let plan = without_programs(bare());
    in_modes(LIVES_OF_OTHERS, plan, async |scene| {
        nobody_else_speaks_as_it(scene)
    })
    .await;
}

/// The attacker has the address inside before the registered container is there.
fn has_it_first(attacker: &Container) {
    ip(
        attacker.netns(),
        &format!("address add {ADDRESS}/24 dev eth0"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_held_the_address_first_speaks_from_it_no_more_once_it_is_registered() {
    let plan = Plan {
        registered: Some(Registration {
            bare: true,
            first: Some(has_it_first),
            ..Registration::default()
        }),
        ..Plan::default()
    };
    in_modes(HOST_MODES, plan, async |scene| {
        nobody_else_speaks_as_it(scene);
        let registered = scene.registered();
        registered.bring_up();
        let listener = Listener::on(registered.netns());
        let thief = Listener::on(scene.attacker.netns());
        for (netns, what) in [
            (scene.far().netns(), b"from afar".as_slice()),
            (scene.home().netns(), b"from the host"),
            (scene.other.netns(), b"from a sibling"),
        ] {
            sees(what, &listener, Scene::marker(netns, ADDRESS));
        }
        assert_eq!(
            thief.next(Duration::from_millis(1)),
            None,
            "the thief got it"
        );
    })
    .await;
}

/// The attacker has address and MAC address before.
fn has_both_first(attacker: &Container) {
    let inside = attacker.netns();
    ip(inside, &format!("link set eth0 address {}", printed(MAC)));
    has_it_first(attacker);
    ip(inside, "route replace default via 10.42.1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_had_the_mac_first_speaks_with_it_no_more_once_it_is_registered() {
    let plan = Plan {
        registered: Some(Registration {
            bare: true,
            first: Some(has_both_first),
            ..Registration::default()
        }),
        ..Plan::default()
    };
    in_modes(HOST_MODES, plan, async |scene| {
        let attacker = scene.attacker.netns();
        let socket = PacketSocket::open(attacker, "eth0");
        let (far, other) = (scene.far(), &scene.other);
        let gateway_mac = scene.gateway_mac();
        for source in [scene.attacker.address(), ADDRESS] {
            for (netns, target, next_hop) in [
                (far.netns(), far.address(), gateway_mac),
                (other.netns(), other.address(), mac(other.netns(), "eth0")),
                (scene.home().netns(), scene.gateway(), gateway_mac),
            ] {
                let listener = Listener::on(netns);
                let packet = frames::udp_packet((source, 4444), (target, PORT), FORGED);
                let frame = frames::ethernet(next_hop, MAC, IPV4, &packet);
                socket.send(attacker, &vec![frame; TIMES]);
                let marker = Scene::marker(scene.sibling().netns(), target);
                sees_no(FORGED, &listener, marker);
            }
        }
        let registered = scene.registered();
        registered.bring_up();
        let listener = Listener::on(registered.netns());
        let thief = Listener::on(attacker);
        for netns in [far.netns(), scene.home().netns(), other.netns()] {
            sees(b"for it", &listener, Scene::marker(netns, ADDRESS));
        }
        assert_eq!(
            thief.next(Duration::from_millis(1)),
            None,
            "the thief got it"
        );
    })
    .await;
}
