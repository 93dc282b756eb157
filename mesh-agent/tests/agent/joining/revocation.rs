//! A node that the control plane does not take any more.

use super::*;

#[test]
fn a_node_whose_certificate_is_revoked_keeps_its_peers_says_what_to_do_and_asks_slowly() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    control.add_peer(2);
    let mut agent = host.joined(&control);
    agent.until("the route", || host.runtime.routes() == [2]);
    control.mesh().nodes.insert("own-1".to_owned(), None);
    agent.until_logged("the data plane stays as it is. To let the node in again");
    assert_eq!(
        agent.logged("quilt-mesh-control token create --node node1"),
        1
    );
    // Calls as a node end; only renewal is asked for, ever more seldom.
    agent.until("further renewals", || control.mesh().renewals >= 3);
    let refusals = control.mesh().refusals;
    agent.until("one more", || control.mesh().renewals >= 4);
    assert_eq!(control.mesh().refusals, refusals, "{:#?}", agent.log());
    assert_eq!(host.runtime.routes(), [2]);
    assert_eq!(
        agent.logged("To let the node in again"),
        1,
        "{:#?}",
        agent.log()
    );
    assert_eq!(control.registrations(), 1);
    assert!(agent.terminate().success());

    // With a token it is back, though its certificate has days to live.
    let token = control.mesh().token(1);
    let beats = control.heartbeats();
    let agent = host.agent(&control, &["--join", &token]);
    agent.until("heartbeats", || control.heartbeats() > beats + 2);
    assert_eq!(host.runtime.routes(), [2]);
    agent.until_logged("joined the mesh node_id=\"own-1\"");
}

#[test]
fn a_replica_that_is_late_to_know_a_node_costs_it_moments() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    // A token that would let it join once more is not used for that: it could be another node by it.
    let token = control.mesh().token(9);
    let agent = host.agent(&control, &["--join", &token]);
    agent.until("a heartbeat", || control.heartbeats() >= 1);
    let known = control.mesh().nodes["own-1"];
    control.mesh().nodes.insert("own-1".to_owned(), None);
    agent.until_logged("does not take this node's certificate");
    control.mesh().nodes.insert("own-1".to_owned(), known);
    agent.until_logged("the certificate was renewed");
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() > beats + 2);
    assert_eq!(control.registrations(), 1, "{:#?}", agent.log());
    assert_eq!(control.mesh().joins.len(), 1, "{:#?}", agent.log());
}

#[test]
fn a_node_whose_authority_is_not_trusted_any_more_says_what_to_do() {
    let (mut control, host) = (FakeControlPlane::with_authority(), Host::new());
    let agent = host.joined(&control);
    // The control plane lost its authority, and made another; what it shows is still trusted here.
    let mut mesh = control.mesh();
    mesh.add_authority();
    let old = mesh.authorities.remove(0);
    mesh.impostor = Some(old);
    drop(mesh);
    control.stop();
    control.resume();
    agent.until_logged("it does not take the certificate of this host");
    agent.until_logged("To let the node in again");
}
