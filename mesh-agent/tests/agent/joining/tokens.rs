//! By what a host joins.

use super::*;

#[test]
fn a_host_joins_with_a_token_and_is_the_node_of_its_certificate_from_then_on() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let mut agent = host.joined(&control);
    let node_key = host.read("node-key").trim().to_owned();
    {
        let mesh = control.mesh();
        assert_eq!(mesh.joins.len(), 1);
        assert_eq!(mesh.joins[0].node_key.as_ref(), Some(&node_key));
        assert!(
            mesh.shown.len() >= 2,
            "each call of the node shows its certificate"
        );
    }
    assert_eq!(control.state().registrations[0]["node_key"], *node_key);
    for name in ["node.key", "node.pem", "ca.pem"] {
        let mode = fs::metadata(host.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    without_a_gap(&control, &agent);
    assert!(agent.terminate().success());
    assert_eq!(control.state().deregistered, ["own-1"]);
    // The token is in nobody's log.
    let token = control.mesh().joins[0].token.clone();
    let secret = token.rsplit('.').next().unwrap();
    assert_eq!(agent.logged(secret), 0);

    // With the certificate it is not looked at any more, whatever became of it.
    for arguments in [
        &["--join", &token][..],
        &[],
        &["--join", "nonsense"],
        &["--join-file", "/nonexistent"],
    ] {
        let before = control.registrations();
        let mut agent = host.agent(&control, arguments);
        agent.until("a registration", || control.registrations() > before);
        agent.until_logged("registered node_id");
        without_a_gap(&control, &agent);
        assert!(agent.terminate().success());
    }
    assert_eq!(control.mesh().joins.len(), 1);
}

#[test]
fn a_host_waits_for_a_control_plane_that_starts_later_and_says_so_once() {
    let (mut control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    control.stop();
    let agent = host.agent(&control, &["--join", &token]);
    agent.until_logged("cannot join; trying again");
    control.resume();
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    assert_eq!(agent.logged("cannot join"), 1, "{:#?}", agent.log());
    assert_eq!(agent.logged("cannot register"), 0, "{:#?}", agent.log());
}

#[test]
fn a_token_that_is_refused_is_said_once_and_another_one_in_the_file_is_taken() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let used = control.mesh().token(0);
    let file = host.path("token");
    fs::write(&file, format!("{used}\n")).unwrap();
    let agent = host.agent(&control, &["--join-file", file.to_str().unwrap()]);
    agent.until_logged("the token was used already");
    agent.until_logged("does not take the join token; make another there");
    let other = control.mesh().token(1);
    fs::write(&file, other).unwrap();
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    assert_eq!(agent.logged("was used already"), 1, "{:#?}", agent.log());
    assert_eq!(
        control.mesh().joins.len(),
        2,
        "nobody is asked again and again"
    );
}

#[test]
fn a_token_that_was_cut_or_is_missing_is_refused_before_anybody_is_asked() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    let cut = &token[..token.len() - 1];
    refuses(
        host.agent(&control, &["--join", cut]),
        &["--join", "was it cut?"],
    );
    fs::write(host.path("token"), cut).unwrap();
    let file = host.path("token");
    let file = file.to_str().unwrap();
    refuses(
        host.agent(&control, &["--join-file", file]),
        &[file, "was it cut?"],
    );
    let missing = ["--join-file", "/nonexistent/token"];
    refuses(
        host.agent(&control, &missing),
        &["/nonexistent/token", "No such file"],
    );
    refuses(host.agent(&control, &[]), &["--join TOKEN", "token create"]);
    let words = control.mesh().joins.len();
    assert_eq!(words, 0);
}

#[test]
fn a_token_of_another_mesh_is_told_apart_before_it_is_shown() {
    let (control, other, host) = (
        FakeControlPlane::with_authority(),
        FakeControlPlane::with_authority(),
        Host::new(),
    );
    let token = other.mesh().token(1);
    let agent = host.agent(&control, &["--join", &token]);
    agent.until_logged("is this the mesh that the token was made in");
    assert!(control.mesh().joins.is_empty());
    drop(agent);

    // A member is not moved behind the operator's back.
    drop(host.joined(&control));
    let agent = host.agent(&other, &["--join", &token]);
    refuses(
        agent,
        &[
            "To move it to another mesh",
            "remove node.key, node.pem and ca.pem",
        ],
    );
    assert!(other.mesh().joins.is_empty(), "the token was shown");
    for name in ["node.key", "node.pem", "ca.pem"] {
        fs::remove_file(host.path(name)).unwrap();
    }
    let agent = host.agent(&other, &["--join", &token]);
    agent.until("a heartbeat there", || other.heartbeats() >= 1);
}

#[test]
fn an_answer_that_is_not_for_this_host_is_not_taken() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(9);
    control.mesh().forged = Some(|joined| joined.node_id = "somebody".to_owned());
    let agent = host.agent(&control, &["--join", &token]);
    agent.until_logged("is of no use: its certificate is for the node own-1");
    assert!(!host.path("node.pem").exists());
    control.mesh().forged = None;
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    drop(agent);

    // Neither is the registration of another node.
    let answer = r#"{"node_id": "somebody", "subnet": "10.42.9.0/24"}"#;
    control.state().register_answer = crate::fake_control_plane::Answer::Body(answer.to_owned());
    let agent = host.agent(&control, &[]);
    agent.until_logged("this host's certificate is of own-1");
    assert_eq!(host.runtime.state().subnet, subnet(1));
}
