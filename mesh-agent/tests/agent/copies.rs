//! Hosts that were cloned with the state of their agent, against the real control plane.

use std::{fs, net::Ipv4Addr, path::Path};

use mesh_testbed::{Postgres, PostgresOptions};

use crate::{
    control::{Control, Node},
    fake_control_plane::server,
    fake_runtime::subnet,
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

#[test]
fn a_host_that_is_cloned_and_started_at_once_does_not_lose_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start_at(Ipv4Addr::LOCALHOST.into(), directory.path(), None, "30s");
    let [a, b, c] = [1, 2, 3].map(Node::new);
    let named = ["--hostname", "alpha"];
    let original = a.agent(&control, &named);
    original.until("its subnet", || a.runtime.state().subnet == subnet(1));
    let peer = c.agent(&control, &[]);
    original.until("a peer", || a.runtime.routes() == [2]);
    // Now it pauses, or its question waits: with the token that the clone has as well.
    copy_state(a.state(), b.state());
    let clone = b.agent(&control, &named);
    clone.until_logged("this host is a copy of a node that is alive");
    let entry = |node: &Node| node.runtime.state().entries.clone();
    peer.until("the original's address", || {
        entry(&c)
            .iter()
            .all(|peer| peer.host_address == "192.0.2.1")
    });
    original.until("a beat", || original.logged("heartbeat") >= 1);
    assert_eq!(original.logged("held off"), 0, "{:#?}", original.log());
    assert_eq!(a.runtime.routes(), [2]);
}

#[test]
fn a_host_that_moves_while_its_agent_is_killed_is_let_in_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start_at(Ipv4Addr::LOCALHOST.into(), directory.path(), None, "30s");
    let mut a = Node::new(1);
    for last in 2..6 {
        let agent = a.agent(&control, &["--hostname", "alpha"]);
        agent.until_logged("peers synchronised");
        // Killed while its question waits.
        drop(agent);
        a.move_to(last);
        let agent = a.agent(&control, &["--hostname", "alpha"]);
        agent.until_logged("registered node_id");
        assert_eq!(agent.logged("copy"), 0, "{:#?}", agent.log());
    }
}

/// Each replica hears of the other's tokens a moment later, and of the address with the change itself.
#[test]
fn a_host_that_is_cloned_and_started_at_another_replica_does_not_lose_its_place() {
    let options = PostgresOptions::new();
    let postgres = server().block_on(Postgres::new(&options)).unwrap();
    let database = postgres.create_database().unwrap();
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [here, there] = [0, 1]
        .map(|number: usize| Control::start_replica(&database, directories[number].path(), "30s"));
    let [a, b] = [1, 2].map(Node::new);
    let quick = ["--heartbeat-interval", "200ms", "--hostname", "alpha"];
    let original = a.agent(&here, &quick);
    original.until("its subnet", || a.runtime.state().subnet == subnet(1));
    let beats = original.logged("heartbeat");
    original.until("heartbeats", || original.logged("heartbeat") > beats + 3);
    copy_state(a.state(), b.state());
    let clone = b.agent(&there, &quick);
    clone.until_logged("this host is a copy of a node that is alive");
    original.until("its address", || original.logged("registered node_id") >= 2);
    let beats = original.logged("heartbeat");
    original.until("heartbeats", || original.logged("heartbeat") > beats + 20);
    // Heartbeats that it sends meanwhile may make the token outdated that its registration comes with, once.
    assert_eq!(original.logged("held off"), 0, "{:#?}", original.log());
    assert_eq!(original.logged("registered node_id"), 2);
    assert_eq!(clone.logged("registered node_id"), 1, "{:#?}", clone.log());
}
