//! A host that joins again, with what it has, where its certificate leads to nothing any more.

use serde_json::json;

use super::{
    real::{Real, no_failure},
    *,
};

/// The node that an agent registered as last.
fn registered(agent: &Agent) -> String {
    let log = agent.log();
    let mut lines = log.iter().rev();
    let line = lines.find(|line| line.contains("registered node_id=\""));
    line.unwrap().split('"').nth(1).unwrap().to_owned()
}

/// A host that was the first to join, and its node.
fn joined(real: &Real) -> (Host, String) {
    let host = Host::new();
    let token = real.token(&json!({}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    agent.until_logged("registered node_id");
    let node_id = registered(&agent);
    (host, node_id)
}

#[test]
fn a_host_that_was_off_during_a_rotation_is_its_node_again_by_a_token_and_no_file_is_removed() {
    let real = Real::start();
    let (host, node_id) = joined(&real);
    let key = host.read("node.key");
    for step in ["prepare", "activate", "finish"] {
        real.post("/api/ca/rotate", &json!({"step": step, "force": true}));
    }
    let token = real.token(&json!({}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until_logged("registered node_id");
    assert_eq!(registered(&agent), node_id);
    assert_eq!(host.runtime.state().subnet, subnet(1));
    assert_eq!(host.read("node.key"), key);
    assert_eq!(agent.logged(" ERROR "), 0, "{:#?}", agent.log());
    drop(agent);
    // The token may stay where it is.
    let agent = real.agent(&host, &["--join", &token]);
    agent.until_logged("registered node_id");
    no_failure(&agent);
}

#[test]
fn a_node_of_a_mesh_whose_authority_was_lost_joins_again_while_it_runs_and_no_file_is_removed() {
    let mut real = Real::start();
    let (host, node_id) = joined(&real);
    let file = host.path("token");
    let arguments = ["--join-file", file.to_str().unwrap()];
    let agent = real.agent(&host, &arguments);
    agent.until_logged("registered node_id");
    real.lose_authority();
    agent.until_logged("was signed by nobody who is trusted here");
    assert_eq!(agent.logged("joined the mesh"), 0);
    fs::write(&file, real.token(&json!({"uses": 9}))).unwrap();
    agent.until_logged(&format!("joined the mesh node_id=\"{node_id}\""));
    let beats = agent.logged("DEBUG heartbeat: ");
    agent.until("heartbeats", || {
        agent.logged("DEBUG heartbeat: ") >= beats + 10
    });
    assert_eq!(host.runtime.state().subnet, subnet(1));
    drop(agent);
    let agent = real.agent(&host, &arguments);
    agent.until_logged("registered node_id");
    assert_eq!(registered(&agent), node_id);
    no_failure(&agent);
}

#[test]
fn a_token_that_was_given_for_a_revoked_node_is_used_at_once_and_nobody_is_told_to_give_one() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    control.mesh().nodes.insert("own-1".to_owned(), None);
    let renewals = control.mesh().renewals;
    let token = control.mesh().token(1);
    let agent = host.agent(&control, &["--join", &token]);
    agent.until_logged("joined the mesh node_id=\"own-1\"");
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() > beats + 2);
    assert_eq!(control.mesh().renewals, renewals + 1, "{:#?}", agent.log());
    assert_eq!(agent.logged(" ERROR "), 0, "{:#?}", agent.log());
}

#[test]
fn a_revoked_node_whose_token_is_refused_is_told_what_to_do() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    control.mesh().nodes.insert("own-1".to_owned(), None);
    let used = control.mesh().token(0);
    let agent = host.agent(&control, &["--join", &used]);
    agent.until_logged("does not take the join token");
    agent.until_logged("To let the node in again");
    let joins = control.mesh().joins.len();
    let renewals = control.mesh().renewals;
    agent.until("further renewals", || control.mesh().renewals > renewals);
    assert_eq!(control.mesh().joins.len(), joins, "nobody is asked again");
}

#[test]
fn a_member_goes_by_its_certificate_whatever_token_is_left_on_its_command_line() {
    let (control, other, host) = (
        FakeControlPlane::with_authority(),
        FakeControlPlane::with_authority(),
        Host::new(),
    );
    drop(host.joined(&control));
    let token = other.mesh().token(1);
    let before = control.heartbeats();
    let agent = host.agent(&control, &["--join", &token]);
    agent.until("heartbeats", || control.heartbeats() > before + 5);
    without_a_gap(&control, &agent);
    assert_eq!(control.mesh().joins.len(), 1);
}

#[test]
fn a_token_does_not_lead_to_who_has_not_the_authority_that_it_names() {
    let (mut control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    // A token of the mesh's next authority is at hand, and somebody else answers who says to be of the mesh.
    control.mesh().add_authority();
    control.mesh().signs = 1;
    let token = control.mesh().token(1);
    control.mesh().authorities.remove(0);
    control.mesh().signs = 0;
    let mesh = control.mesh().signing().mesh().clone();
    let impostor = mesh_credentials::authority::Authority::make(mesh, now()).unwrap();
    control.mesh().impostor = Some(impostor);
    control.stop();
    control.resume();
    let joins = control.mesh().joins.len();
    let agent = host.agent(&control, &["--join", &token]);
    agent.until_logged("cannot join");
    assert_eq!(control.mesh().joins.len(), joins, "no token was shown");
    control.mesh().impostor = None;
    agent.until_logged("joined the mesh node_id=\"own-1\"");
}
