//! A registered container whose engine moves its interface there by itself, as Docker does for network drivers: it is
//! guarded before it is moved, and as all others from its first packet on, whether a runtime sees the move or not.

use crate::{
    pair::{SOON, counters},
    register::{ADDRESS, MAC, Registration, printed},
    registered::{
        LIVES, announces_only_itself, speaks_only_as_itself, without_programs, without_rules,
    },
    scene::{HOST_MODES, MODES, Mode, Plan, Scene, in_modes},
    taken::{LIVES_OF_OTHERS, nobody_else_speaks_as_it},
    witness::{Listener, Witness as _, sees},
};

/// Its interface lies on the host until the test has it moved: where a runtime was killed, nobody sees that.
fn unmoved() -> Plan {
    Plan {
        registered: Some(Registration {
            bare: true,
            moved: true,
            ..Registration::default()
        }),
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_speaks_as_a_container_whose_interface_lies_on_the_host() {
    in_modes(MODES, unmoved(), async |scene| {
        nobody_else_speaks_as_it(scene)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_speaks_as_one_whose_interface_lies_on_the_host_where_there_are_no_programs() {
    let plan = without_programs(unmoved());
    in_modes(LIVES_OF_OTHERS, plan, async |scene| {
        nobody_else_speaks_as_it(scene)
    })
    .await;
}

fn moved_it_speaks_only_as_itself(scene: &Scene) {
    scene.registered().bring_up();
    speaks_only_as_itself(scene);
    announces_only_itself(scene);
    nobody_else_speaks_as_it(scene);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_interface_was_moved_there_speaks_only_as_itself() {
    in_modes(HOST_MODES, unmoved(), async |scene| {
        moved_it_speaks_only_as_itself(scene)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_interface_was_moved_there_speaks_only_as_itself_where_there_are_no_programs() {
    in_modes(LIVES, without_programs(unmoved()), async |scene| {
        moved_it_speaks_only_as_itself(scene)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_whose_interface_was_moved_there_speaks_only_as_itself_where_there_are_no_rules() {
    in_modes(LIVES, without_rules(unmoved()), async |scene| {
        scene.registered().bring_up();
        speaks_only_as_itself(scene);
        announces_only_itself(scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_whose_interface_was_moved_there_reaches_and_is_reached() {
    in_modes(HOST_MODES, unmoved(), async |scene| {
        scene.registered().bring_up();
        let inside = scene.registered().netns();
        let (far, other) = (scene.far(), &scene.other);
        for (netns, address) in [
            (far.netns(), far.address()),
            (other.netns(), other.address()),
            (scene.home().netns(), scene.gateway()),
        ] {
            let listener = Listener::on(netns);
            sees(b"from it", &listener, Scene::marker(inside, address));
            let listener = Listener::on(inside);
            sees(b"to it", &listener, Scene::marker(netns, ADDRESS));
        }
        if scene.mode != Mode::Killed {
            let status = scene.home().status().await.unwrap();
            let spoofed = ["spoofed_address", "spoofed_mac"]
                .map(|reason| status.drops.get(reason).copied().unwrap_or_default());
            assert_eq!(spoofed, [0, 0], "of its own packets");
        }
    })
    .await;
}

/// Nothing is learnt of the move before: what comes for it is the first that is seen of it.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_packet_to_an_interface_that_was_moved_there_takes_the_fast_path() {
    in_modes(&[Mode::Fast], unmoved(), async |scene| {
        let (home, far) = (scene.home(), scene.far());
        let status = home.status().await.unwrap();
        let mut endpoints = status.endpoints.iter();
        let endpoint = endpoints.find(|it| it.address == ADDRESS.to_string());
        let endpoint = endpoint.expect("its entry is there before its interface is moved");
        assert_eq!(endpoint.mac, printed(MAC));
        let before = counters(home).await;
        scene.registered().bring_up();
        let listener = Listener::on(scene.registered().netns());
        Scene::marker(far.netns(), ADDRESS)(b"the first");
        let first = listener.next(SOON);
        assert_eq!(first.as_deref(), Some(b"the first".as_slice()));
        let after = counters(home).await;
        let fast = |it: &mesh_proto::mesh::PeerStatus| it.fast_path.unwrap_or_default().rx_packets;
        let kernel = |it: &mesh_proto::mesh::PeerStatus| it.kernel_path.unwrap_or_default();
        assert_eq!(fast(&after), fast(&before) + 1);
        assert_eq!(kernel(&after).rx_packets, kernel(&before).rx_packets);
    })
    .await;
}
