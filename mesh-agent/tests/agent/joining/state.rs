//! What is kept, and what becomes of a host whose files are damaged.

use mesh_problems::catalog::agent::CERTIFICATE_NOT_KEPT;

use super::*;

#[test]
fn a_host_that_cannot_keep_a_certificate_is_refused_before_it_uses_up_its_token() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    let missing = ["--join", &token, "--state-dir", "/nonexistent"];
    refuses(
        host.agent(&control, &missing),
        &["/nonexistent does not exist", "has to be kept"],
    );
    // Nothing can be made below a file, whoever one is.
    let file = host.path("file");
    fs::write(&file, "").unwrap();
    let below = file.to_str().unwrap();
    let agent = host.agent(&control, &["--join", &token, "--state-dir", below]);
    refuses(agent, &["has to be kept"]);
    let agent = in_mounts(
        &host,
        &control,
        "mount -o bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"",
        &token,
    );
    refuses(
        agent,
        &["Read-only file system", "make the state directory writable"],
    );
    // There is room for the node key of old, and for nothing else.
    let agent = in_mounts(
        &host,
        &control,
        "mount -t tmpfs -o size=4k tmpfs \"$0\"",
        &token,
    );
    refuses(agent, &["No space left on device", "has to be kept"]);
    assert!(control.mesh().joins.is_empty());
}

#[test]
fn a_disk_that_is_full_when_the_certificate_comes_does_not_keep_the_host_from_its_mesh() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    let agent = in_mounts(
        &host,
        &control,
        "mount -t tmpfs -o size=8k tmpfs \"$0\"",
        &token,
    );
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    agent.until_logged("the certificate cannot be kept: until it is");
    let observed = agent.until_found(&CERTIFICATE_NOT_KEPT);
    assert!(observed.contains("No space left on device"), "{observed}");
    let beats = control.heartbeats();
    agent.until("heartbeats", || control.heartbeats() > beats + 5);
    assert_eq!(control.mesh().refusals, 0);
}

/// An agent with other mounts, which end with it.
pub(super) fn in_mounts(
    host: &Host,
    control: &FakeControlPlane,
    mount: &str,
    token: &str,
) -> Agent {
    let socket = host.run.path().join("agent.sock");
    let socket = socket.to_str().unwrap();
    let inner = host.command(control, &["--join", token, "--socket", socket]);
    let mut command = Command::new("/usr/bin/unshare");
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg(format!("{mount} && exec \"$@\""))
        .arg(host.state.path())
        .arg(inner.get_program())
        .args(inner.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Agent::spawn(command)
}

#[test]
fn two_agents_that_start_at_once_on_one_directory_share_what_one_of_them_joined_for() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    let token = control.mesh().token(1);
    let agents = [(); 2].map(|()| host.agent(&control, &["--join", &token]));
    for agent in &agents {
        agent.until_logged("registered node_id=\"own-1\"");
    }
    let mesh = control.mesh();
    let keys = mesh
        .joins
        .iter()
        .map(|join| Request::read(&join.request).unwrap().key);
    let keys: std::collections::BTreeSet<_> = keys.collect();
    assert_eq!(keys.len(), 1, "they made one key");
}

#[test]
fn an_agent_that_was_killed_while_it_joined_joins_with_the_key_that_it_has() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    let key = host.read("node.key");
    // The authorities are written first.
    for leftovers in [&["node.pem"][..], &["node.pem", "ca.pem"]] {
        for name in leftovers {
            let _gone = fs::remove_file(host.path(name));
        }
        fs::write(host.path(".node.pem.5b2f"), "half of").unwrap();
        let token = control.mesh().token(1);
        let (agent, before) = (
            host.agent(&control, &["--join", &token]),
            control.registrations(),
        );
        agent.until("a registration", || control.registrations() > before);
        assert_eq!(host.read("node.key"), key);
        refuses_without_token(&control, &host, &[]);
    }
}

/// With what is there now, an agent without a token starts.
fn refuses_without_token(control: &FakeControlPlane, host: &Host, why: &[&str]) {
    if why.is_empty() {
        let before = control.registrations();
        let agent = host.agent(control, &[]);
        agent.until("a registration", || control.registrations() > before);
        return;
    }
    refuses(host.agent(control, &[]), why);
}

#[test]
fn files_that_are_damaged_or_gone_are_named_and_a_token_made_for_the_node_lets_it_in_again() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    let damage: &[(&str, Option<&str>, &str)] = &[
        (
            "node.pem",
            Some("-----BEGIN CERTIFICATE-----\nnonsense"),
            "is of no use",
        ),
        ("node.pem", Some(""), "is of no use"),
        ("ca.pem", Some("nothing"), "its authorities"),
        ("ca.pem", None, "ca.pem beside it is gone"),
        ("node.key", None, "node.key beside it is gone"),
    ];
    for (name, text, why) in damage {
        match text {
            Some(text) => fs::write(host.path(name), text).unwrap(),
            None => fs::remove_file(host.path(name)).unwrap(),
        }
        refuses(
            host.agent(&control, &[]),
            &[why, "token create --node NAME"],
        );
        let token = control.mesh().token(1);
        let (agent, before) = (
            host.agent(&control, &["--join", &token]),
            control.registrations(),
        );
        agent.until_logged("the host joins again, with the join token");
        agent.until("a registration", || control.registrations() > before);
        refuses_without_token(&control, &host, &[]);
    }
}

#[test]
fn a_key_that_is_damaged_or_open_to_others_is_left_as_it_is() {
    let (control, host) = (FakeControlPlane::with_authority(), Host::new());
    drop(host.joined(&control));
    let token = control.mesh().token(1);
    let path = host.path("node.key");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    refuses(
        host.agent(&control, &["--join", &token]),
        &["may be read by others", "chmod 600"],
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, "no key").unwrap();
    let agent = host.agent(&control, &["--join", &token]);
    refuses(
        agent,
        &["does not hold a private key", "with a token made for it"],
    );
    assert_eq!(host.read("node.key"), "no key");
    assert_eq!(control.mesh().joins.len(), 1);
}
