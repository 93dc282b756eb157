//! Who is not the mesh's control plane.

use std::net::TcpListener;

use mesh_credentials::{authority::Authority, name::MeshId};

use super::*;

#[test]
fn who_has_the_certificate_of_the_right_authority_and_not_its_key_gets_no_token() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    // It even says that it is of the same mesh.
    let mesh = control.mesh().signing().mesh().clone();
    control.mesh().impostor = Some(Authority::make(mesh, now()).unwrap());
    let agent = host.agent(&control, &["--join", &token]);
    agent.until_logged("was signed by nobody who is trusted here");
    assert!(control.mesh().joins.is_empty());
    control.mesh().impostor = None;
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
}

#[test]
fn a_member_says_nothing_to_a_control_plane_of_another_authority_and_keeps_its_peers() {
    let (mut control, host) = (FakeControlPlane::with_authority(), Host::new());
    control.add_peer(2);
    let agent = host.joined(&control);
    agent.until("the route", || host.runtime.routes() == [2]);
    control.mesh().impostor = Some(Authority::make(MeshId::make(), now()).unwrap());
    control.stop();
    let shown = control.mesh().shown.len();
    control.resume();
    agent.until_logged("was signed by nobody who is trusted here");
    agent.until_logged("heartbeat failed");
    agent.until_logged("no node list");
    assert_eq!(control.mesh().shown.len(), shown);
    control.mesh().impostor = None;
    agent.until_logged("heartbeats arrive again");
    agent.until_logged("node lists arrive again");
    assert_eq!(host.runtime.routes(), [2]);
    assert_eq!(control.registrations(), 1);
}

#[test]
fn a_node_s_certificate_does_not_pass_for_the_control_planes() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    // A node that turns server, with its own certificate and key.
    let (certificate, key) = (host.read("node.pem"), host.read("node.key"));
    let authority = control.mesh().signing().trusted().pem();
    let server =
        crate::fake_control_plane::mesh::serving(&format!("{certificate}{authority}"), &key);
    let victim = Host::new();
    let token = control.mesh().token(1);
    let url = format!("https://{}", server.address);
    let agent = victim.agent(&control, &["--control-plane", &url, "--join", &token]);
    // The last --control-plane is added to the first: only the second is to be asked.
    drop(agent);
    let mut command = Agent::options_at(
        Command::new(BINARY),
        &url,
        &victim.runtime,
        victim.state.path(),
    );
    command.args(["--host-ip", HOST_IP, "--join", &token]);
    let agent = Agent::spawn(command);
    agent.until_logged("cannot join");
    agent.until_logged("InvalidPurpose");
    drop(server);
}

#[test]
fn who_speaks_no_tls_is_named_so() {
    let (control, plain, host) = (
        FakeControlPlane::with_authority(),
        FakeControlPlane::start(),
        Host::new(),
    );
    let token = control.mesh().token(1);
    let url = plain.url().replace("http://", "https://");
    let mut command =
        Agent::options_at(Command::new(BINARY), &url, &host.runtime, host.state.path());
    command
        .args(["--host-ip", HOST_IP, "--join", &token])
        .stdin(Stdio::null());
    let agent = Agent::spawn(command);
    agent.until_logged("it does not speak TLS: is it http:// that is meant?");
    drop(agent);
    // Nor is anything there.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("https://127.0.0.1:{port}");
    let mut command =
        Agent::options_at(Command::new(BINARY), &url, &host.runtime, host.state.path());
    command.args(["--host-ip", HOST_IP, "--join", &token]);
    Agent::spawn(command).until_logged("Connection refused");
}

#[test]
fn a_control_plane_with_a_certificate_of_ones_own_is_checked_by_name() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let (ca, foreign) = (host.path("own-ca.pem"), host.path("foreign-ca.pem"));
    fs::write(&ca, control.mesh().signing().trusted().pem()).unwrap();
    let other = Authority::make(MeshId::make(), now()).unwrap();
    fs::write(&foreign, other.trusted().pem()).unwrap();
    let [ca, foreign] = [&ca, &foreign].map(|path| path.to_str().unwrap());
    let token = control.mesh().token(1);
    let agent = host.agent(&control, &["--join", &token, "--tls-ca", foreign]);
    agent.until_logged("was signed by nobody who is trusted here");
    assert!(control.mesh().joins.is_empty());
    drop(agent);
    // Its certificate names 127.0.0.1, and not localhost.
    let url = control.url().replace("127.0.0.1", "localhost");
    let mut command =
        Agent::options_at(Command::new(BINARY), &url, &host.runtime, host.state.path());
    command.args(["--host-ip", HOST_IP, "--join", &token, "--tls-ca", ca]);
    let agent = Agent::spawn(command);
    agent.until_logged("localhost");
    agent.until_logged("cannot join");
    assert!(control.mesh().joins.is_empty());
    drop(agent);
    let agent = host.agent(&control, &["--join", &token, "--tls-ca", ca]);
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    without_a_gap(&control, &agent);
    drop(agent);

    // The same with a certificate that was given, and not by joining.
    let identity =
        ["node.pem", "node.key"].map(|name| host.path(name).to_str().unwrap().to_owned());
    let given = Host::new();
    let own = [
        "--tls-ca",
        ca,
        "--tls-cert",
        &identity[0],
        "--tls-key",
        &identity[1],
    ];
    let agent = given.agent(&control, &own);
    agent.until("its subnet", || given.runtime.state().subnet == subnet(1));
    assert!(!given.path("node.key").exists());
    assert_eq!(control.mesh().joins.len(), 1);
}
