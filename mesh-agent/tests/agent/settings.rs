//! What all nodes have in common, and what each says of itself: between control planes and runtimes of this
//! version and of earlier ones.

use mesh_proto::mesh::NodeSettings;

use crate::{
    fake_control_plane::FakeControlPlane,
    fake_runtime::{FakeRuntime, subnet},
    process::Agent,
};

fn settings(vxlan_port: u32, vni: u32) -> Option<NodeSettings> {
    Some(NodeSettings { vxlan_port, vni })
}

fn capable(runtime: &FakeRuntime) {
    let names = ["vxlan-port", "vni", "peer-mtu"];
    runtime.state().capabilities = Some(names.map(str::to_owned).to_vec());
}

#[test]
fn a_capable_runtime_is_told_the_settings_and_told_again_when_they_change() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    capable(&runtime);
    control.state().overlay = Some((8472, 7));
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    assert_eq!(runtime.state().settings, settings(8472, 7));
    // As a control plane that was restarted with others: the node stays registered.
    let registrations = control.registrations();
    control.state().overlay = Some((4790, 9));
    agent.until("the other settings", || {
        runtime.state().settings == settings(4790, 9)
    });
    assert_eq!(control.registrations(), registrations);
    assert_eq!(runtime.routes(), [2]);
}

#[test]
fn an_older_control_plane_means_port_4789_and_vni_100() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    capable(&runtime);
    control.state().overlay = None;
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    assert_eq!(runtime.state().settings, settings(4789, 100));
}

#[test]
fn an_older_runtime_works_with_the_settings_of_old_and_is_told_none() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::from_before());
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    agent.until("two more syncs", || runtime.syncs_since(0, 1) >= 3);
    assert_eq!(runtime.state().settings, None);
    assert_eq!(agent.logged("no peers are set up"), 0, "{:#?}", agent.log());
}

#[test]
fn an_older_runtime_that_cannot_follow_gets_no_peers_and_is_complained_about_once() {
    for three_calls in [false, true] {
        let (control, mut runtime) = (
            FakeControlPlane::start(),
            match three_calls {
                true => FakeRuntime::with_three_calls(),
                false => FakeRuntime::from_before(),
            },
        );
        control.state().overlay = Some((8472, 100));
        control.add_peer(2);
        let agent = Agent::start(&control, &runtime, &[]);
        agent.until_logged("UDP port 8472 with VNI 100");
        agent.until_logged("upgrade quilt-runtime");
        let (beats, lists) = (control.heartbeats(), control.lists());
        agent.until("heartbeats and lists go on", || {
            control.heartbeats() >= beats + 5 && control.lists() >= lists + 5
        });
        assert_eq!(agent.logged("no peers are set up"), 1, "{:#?}", agent.log());
        assert_eq!(runtime.state().subnet, subnet(1));
        assert_eq!(runtime.routes(), [0; 0]);
        assert_eq!(runtime.syncs_since(0, 1), 0);
        // It is upgraded.
        runtime.stop();
        runtime.state().serves_sync = true;
        capable(&runtime);
        runtime.resume();
        agent.until("the route", || runtime.routes() == [2]);
        assert_eq!(runtime.state().settings, settings(8472, 100));
    }
}

#[test]
fn settings_that_cannot_be_are_no_answer_and_change_nothing() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    capable(&runtime);
    control.add_peer(2);
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("the route", || runtime.routes() == [2]);
    control.state().overlay = Some((0, 100));
    agent.until_logged("vxlan_port 0 is not one of 1 to 65535");
    assert_eq!(runtime.state().settings, settings(4789, 100));
    assert_eq!(runtime.routes(), [2]);
}

#[test]
fn the_runtime_s_mtu_is_told_at_registration_and_with_every_heartbeat() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("a heartbeat with it", || {
        let carried = control.state().carried.clone();
        carried.is_some_and(|carried| carried["overlay_mtu"] == 1450)
    });
    assert_eq!(control.state().registrations[0]["overlay_mtu"], 1450);
    runtime.state().overlay_mtu = 1350;
    agent.until("the next one", || {
        let carried = control.state().carried.clone();
        carried.is_some_and(|carried| carried["overlay_mtu"] == 1350)
    });
    // A runtime whose overlay is not there.
    runtime.state().overlay_mtu = 0;
    agent.until("one without", || {
        let carried = control.state().carried.clone();
        carried.is_some_and(|carried| carried.get("overlay_mtu").is_none())
    });
}

#[test]
fn a_peer_s_mtu_is_passed_on_when_it_changes_and_nonsense_is_not() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    control.add_peer(3);
    control.set(3, "overlay_mtu", 1400);
    let agent = Agent::start(&control, &runtime, &[]);
    let mtus = || -> Vec<u32> {
        let state = runtime.state();
        state.entries.iter().map(|peer| peer.mtu).collect()
    };
    agent.until("what was told", || mtus() == [0, 1400]);
    control.set(2, "overlay_mtu", 8950);
    agent.until("the change", || mtus() == [8950, 1400]);
    control.set(3, "overlay_mtu", "plenty");
    agent.until("as if not told", || mtus() == [8950, 0]);
    assert_eq!(runtime.peers(), [2, 3], "nobody is dropped for it");
}

#[test]
fn a_restarted_agent_keeps_the_mtu_of_a_peer_that_is_not_listed_any_more() {
    let (control, runtime) = (FakeControlPlane::start(), FakeRuntime::start());
    control.add_peer(2);
    control.set(2, "overlay_mtu", 1400);
    let mut agent = Agent::start(&control, &runtime, &[]);
    agent.until("the peer", || runtime.peers() == [2]);
    assert!(agent.terminate().success());
    control.wipe();
    runtime.state().alive.insert(subnet(2));
    let mark = runtime.calls();
    let agent = Agent::start(&control, &runtime, &[]);
    agent.until("a sync of the new life", || {
        runtime.syncs_since(mark, 1) >= 2
    });
    assert_eq!(runtime.state().entries[0].mtu, 1400);
}
