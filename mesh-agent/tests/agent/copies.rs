//! Hosts that were cloned with the state of their agent, against the real control plane.

use std::{fs, path::Path};

use crate::{
    fake_runtime::subnet,
    real_control_plane::{Control, Node},
};

fn copy_state(from: &Path, to: &Path) {
    for name in ["node-key", "node-token"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_cloned_host_is_held_off_while_its_original_lives_and_takes_its_place_after() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path(), None);
    let [a, b] = [1, 2].map(Node::new);
    // The clone goes by the name of the original.
    let quick = ["--heartbeat-interval", "200ms", "--hostname", "alpha"];
    let original = a.agent(&control, &quick);
    original.until("its subnet", || a.runtime.state().subnet == subnet(1));
    original.until_logged("heartbeat");
    copy_state(a.state(), b.state());
    let token = fs::read(a.state().join("node-token")).unwrap();
    original.until("two more heartbeats", || {
        let beats = original.logged("heartbeat");
        beats >= 6 && fs::read(a.state().join("node-token")).unwrap() != token
    });

    let clone = b.agent(&control, &quick);
    clone.until_logged("this host is a copy of a node that is alive");
    original.until("heartbeats", || original.logged("heartbeat") >= 20);
    assert_eq!(original.logged("held off"), 0, "{:#?}", original.log());
    assert_eq!(b.runtime.calls(), 0, "{:#?}", clone.log());

    // Killed, the original is silent, and nobody else is there to be the node.
    drop(original);
    clone.until("its subnet", || b.runtime.state().subnet == subnet(1));
    clone.until("heartbeats", || clone.logged("heartbeat") >= 3);
    let again = a.agent(&control, &quick);
    again.until_logged("this host is a copy of a node that is alive");
    assert_eq!(clone.logged("held off"), 0, "{:#?}", clone.log());
}

#[test]
fn an_agent_that_is_killed_and_started_again_is_no_copy() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start(directory.path(), None);
    let a = Node::new(1);
    let quick = ["--heartbeat-interval", "50ms"];
    for _ in 0..8 {
        let agent = a.agent(&control, &quick);
        agent.until("its subnet", || a.runtime.state().subnet == subnet(1));
        agent.until("heartbeats", || agent.logged("heartbeat") >= 5);
        // Killed in the middle of whatever it does.
        drop(agent);
    }
    let agent = a.agent(&control, &quick);
    agent.until("heartbeats", || agent.logged("heartbeat") >= 5);
    assert_eq!(agent.logged("copy"), 0, "{:#?}", agent.log());
}
