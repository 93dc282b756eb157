//! A node with a certificate of one's own, at the real control plane.

use mesh_credentials::{authority::Authority, name::MeshId, secret_file};
use mesh_problems::catalog::agent::OWN_CERTIFICATE_UNUSABLE;

use super::*;
use crate::control::Control;

/// An authority that is none of the mesh's.
fn authority() -> Authority {
    Authority::make(MeshId::make(), now()).unwrap()
}

/// Has a host's certificate be one for this name that was signed now, for a new key.
fn give(host: &Host, authority: &Authority, name: &str) {
    let key = NodeKeyPair::make().unwrap();
    let request = Request::read(&key.request().unwrap()).unwrap();
    let signed = authority.sign_node(&request, name, now()).unwrap();
    secret_file::replace(&host.path("own.pem"), &signed).unwrap();
    secret_file::replace(&host.path("own.key"), &key.pem()).unwrap();
}

fn agent(host: &Host, control: &Control, scheme: &str, options: &[(&str, &Path)]) -> Agent {
    let url = format!("{scheme}://127.0.0.1:{}", control.port);
    let command = Command::new(BINARY);
    let mut command = Agent::options_at(command, &url, &host.runtime, host.state.path());
    command.args(["--host-ip", HOST_IP]);
    for (option, path) in options {
        command.arg(option).arg(path);
    }
    Agent::spawn(command)
}

/// The id that it registered with last.
fn node_id(agent: &Agent) -> String {
    let log = agent.log();
    let mut lines = log.iter().rev();
    let line = lines
        .find(|line| line.contains("registered node_id"))
        .unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

#[test]
fn a_node_moves_over_to_a_certificate_of_ones_own_and_shows_the_next_without_a_restart() {
    let (ours, host) = (authority(), Host::new());
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    let shown = ours.sign_control_plane(&[], &[loopback], now()).unwrap();
    for (name, text) in [
        ("own.pem", &shown.certificate),
        ("own.key", &shown.key),
        ("own-ca.pem", &ours.trusted().pem()),
    ] {
        secret_file::replace(&at(name), text).unwrap();
    }
    let [certificate, key, roots] = ["own.pem", "own.key", "own-ca.pem"].map(at);
    let options = [&certificate, &key, &roots].map(|path| path.to_str().unwrap());
    let [certificate, key, authorities] = options;
    let options = [
        "--tls-cert",
        certificate,
        "--tls-key",
        key,
        "--tls-ca",
        authorities,
    ];
    let mut control = Control::start_secured_with(directory.path(), None, &options);

    let before = agent(&host, &control, "http", &[]);
    before.until_logged("registered node_id");
    let id = node_id(&before);
    drop(before);

    give(&host, &ours, "host-1");
    let (own, own_key) = (host.path("own.pem"), host.path("own.key"));
    let files = [
        ("--tls-cert", own.as_path()),
        ("--tls-key", &own_key),
        ("--tls-ca", &roots),
    ];
    let agent = agent(&host, &control, "https", &files);
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    agent.until_logged("registered node_id");
    assert_eq!(node_id(&agent), id);
    agent.until("heartbeats", || agent.logged("heartbeat") >= 5);
    for failure in ["heartbeat failed", "no node list", "cannot", " ERROR "] {
        assert_eq!(agent.logged(failure), 0, "{failure}: {:#?}", agent.log());
    }

    // The next one, which connections show from then on.
    give(&host, &ours, "host-1");
    let port = control.port;
    control.kill();
    let control = Control::start_secured_with(directory.path(), Some(port), &options);
    agent.until_logged("own certificate was read again");
    let beats = agent.logged("DEBUG heartbeat: ");
    agent.until("more heartbeats", || {
        agent.logged("DEBUG heartbeat: ") >= beats + 5
    });

    // What it shows is told. A file that is of no use is found at the next connection, and is mended without one.
    let end = || {
        agent
            .status()
            .certificate
            .map(|it| (it.source, it.not_after))
    };
    let (source, before) = end().unwrap();
    assert_eq!(source, "own");
    assert!(
        before > now() + 6 * DAY && before <= now() + 7 * DAY,
        "{before}"
    );
    fs::write(&own, "nonsense").unwrap();
    let port = control.port;
    drop(control);
    let control = Control::start_secured_with(directory.path(), Some(port), &options);
    let observed = agent.until_found(&OWN_CERTIFICATE_UNUSABLE);
    assert!(observed.contains("--tls-cert"), "{observed}");
    assert_eq!(end().unwrap().1, before);
    give(&host, &ours, "host-1");
    agent.until_over(&OWN_CERTIFICATE_UNUSABLE);
    drop(agent);
    drop(control);
}

#[test]
fn a_key_that_others_may_read_is_refused_by_name() {
    let (ours, host) = (authority(), Host::new());
    let directory = tempfile::tempdir().unwrap();
    let control = Control::start_secured(directory.path(), None);
    let roots = directory.path().join("own-ca.pem");
    fs::write(&roots, ours.trusted().pem()).unwrap();
    give(&host, &ours, "host-1");
    let (own, key) = (host.path("own.pem"), host.path("own.key"));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let files = [
        ("--tls-cert", own.as_path()),
        ("--tls-key", &key),
        ("--tls-ca", &roots),
    ];
    let agent = agent(&host, &control, "https", &files);
    refuses(agent, &["--tls-key", "chmod 600"]);
}
