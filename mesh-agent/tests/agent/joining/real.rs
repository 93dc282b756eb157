//! The same with the real control plane.

use mesh_admin::Door;
use mesh_credentials::authority_file;
use mesh_rest::join_token::CreatedToken;
use serde_json::json;

use super::*;
use crate::{control::Control, fake_control_plane::server, wait::holds};

/// A control plane that lets nobody in but whom it knows, and what it keeps.
pub(super) struct Real {
    control: Control,
    directory: TempDir,
}

impl Real {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let control = Control::start_secured(directory.path(), None);
        let real = Self { control, directory };
        assert!(holds(|| real.admin().is_there()), "it can be administered");
        real
    }

    fn admin(&self) -> Door {
        Door::at(self.directory.path().join("admin.sock"))
    }

    fn restart(&mut self) {
        self.control.kill();
        self.control = Control::start_secured(self.directory.path(), Some(self.control.port));
    }

    /// Has it start without the key of its authority, and make another.
    pub(super) fn lose_authority(&mut self) {
        self.control.kill();
        fs::remove_file(self.directory.path().join("authority.key.pem")).unwrap();
        let (folder, port) = (self.directory.path(), Some(self.control.port));
        self.control = Control::start_secured_with(folder, port, &["--new-authority"]);
        assert!(holds(|| self.admin().is_there()), "it can be administered");
    }

    pub(super) fn post(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        server().block_on(self.admin().post(path, body)).unwrap()
    }

    fn tell(&self, path: &str) {
        server().block_on(self.admin().post_nothing(path)).unwrap();
    }

    pub(super) fn token(&self, body: &serde_json::Value) -> String {
        let created: CreatedToken = serde_json::from_value(self.post("/api/tokens", body)).unwrap();
        created.token
    }

    fn command(&self, host: &Host, arguments: &[&str]) -> Command {
        let url = format!("https://127.0.0.1:{}", self.control.port);
        let command = Command::new(BINARY);
        let mut command = Agent::options_at(command, &url, &host.runtime, host.state.path());
        // Nothing that is tried here is a matter of how soon the real one answers.
        command.args(["--request-timeout", "30s"]);
        command.args(["--host-ip", HOST_IP]).args(arguments);
        command
    }

    pub(super) fn agent(&self, host: &Host, arguments: &[&str]) -> Agent {
        Agent::spawn(self.command(host, arguments))
    }

    /// Has a host's certificate be one that was signed so many days ago.
    fn age(&self, host: &Host, days: i64) {
        let file = self.directory.path().join("authority.key.pem");
        let authorities = authority_file::read(&file).unwrap();
        let key = NodeKeyPair::read(&host.path("node.key")).unwrap().unwrap();
        let request = Request::read(&key.request().unwrap()).unwrap();
        let [before] = mesh_credentials::tls::certificates(&host.read("node.pem"))
            .unwrap()
            .try_into()
            .unwrap();
        let before = mesh_credentials::certificate::Presented::read(&before).unwrap();
        let mesh_credentials::name::Name::Node { node_id, .. } = before.name else {
            panic!("no node: {before:?}");
        };
        let signed = now() - days * DAY;
        let aged = authorities[0]
            .sign_node(&request, &node_id, signed)
            .unwrap();
        fs::write(host.path("node.pem"), aged).unwrap();
    }
}

pub(super) fn no_failure(agent: &Agent) {
    for failure in [
        "heartbeat failed",
        "no node list",
        "cannot",
        " ERROR ",
        "lets in whoever",
    ] {
        assert_eq!(agent.logged(failure), 0, "{failure}: {:#?}", agent.log());
    }
}

#[test]
fn a_host_joins_the_real_control_plane_and_stays_its_node_over_restarts_of_both() {
    let (mut real, host) = (Real::start(), Host::new());
    let token = real.token(&json!({}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    agent.until("heartbeats", || agent.logged("heartbeat") >= 5);
    no_failure(&agent);
    real.restart();
    let beats = agent.logged("DEBUG heartbeat: ");
    agent.until("more heartbeats", || {
        agent.logged("DEBUG heartbeat: ") >= beats + 10
    });
    drop(agent);
    // The token was for one host, and stands in the unit file still.
    let agent = real.agent(&host, &["--join", &token]);
    agent.until_logged("registered node_id");
    no_failure(&agent);
    let other = Host::new();
    let agent = real.agent(&other, &["--join", &token]);
    agent.until_logged("does not take the join token");
}

#[test]
fn the_real_control_plane_renews_what_is_old_and_what_has_expired() {
    let (real, host) = (Real::start(), Host::new());
    let token = real.token(&json!({}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until_logged("registered node_id");
    drop(agent);
    for days in [6, 20] {
        real.age(&host, days);
        let agent = real.agent(&host, &[]);
        agent.until_logged("the certificate was renewed");
        agent.until_logged("registered node_id");
        let beats = agent.logged("DEBUG heartbeat: ");
        agent.until("heartbeats", || {
            agent.logged("DEBUG heartbeat: ") >= beats + 5
        });
        no_failure(&agent);
        drop(agent);
    }
    real.age(&host, 38);
    let agent = real.agent(&host, &[]);
    agent.until_logged("token create --node node1");
    assert_eq!(agent.logged("registered"), 0, "{:#?}", agent.log());
    drop(agent);
    let token = real.token(&json!({"node": "node1"}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until_logged("registered node_id");
    assert_eq!(host.runtime.state().subnet, subnet(1));
}

#[test]
fn a_node_that_the_real_control_plane_revoked_comes_back_by_a_token_made_for_it() {
    let (real, host) = (Real::start(), Host::new());
    let token = real.token(&json!({}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until("its subnet", || host.runtime.state().subnet == subnet(1));
    agent.until_logged("registered node_id");
    let log = agent.log();
    let joined = log
        .iter()
        .find(|line| line.contains("joined the mesh"))
        .unwrap();
    let node_id = joined.split("node_id=\"").nth(1).unwrap();
    let node_id = &node_id[..node_id.find('"').unwrap()];
    real.tell(&format!("/api/nodes/{node_id}/revoke"));
    agent.until_logged("the data plane stays as it is. To let the node in again");
    drop(agent);
    let token = real.token(&json!({"node": "node1"}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until_logged(&format!("registered node_id=\"{node_id}\""));
    assert_eq!(host.runtime.state().subnet, subnet(1));
}

#[test]
fn the_real_control_planes_authority_takes_the_place_of_another_without_a_gap() {
    let (real, host) = (Real::start(), Host::new());
    let token = real.token(&json!({}));
    let agent = real.agent(&host, &["--join", &token]);
    agent.until_logged("registered node_id");
    let authorities = || host.read("ca.pem").matches("BEGIN").count();
    for (step, trusted) in [("prepare", 2), ("activate", 2), ("finish", 1)] {
        let renewed = agent.logged("the certificate was renewed");
        real.post("/api/ca/rotate", &json!({"step": step}));
        agent.until(step, || {
            agent.logged("the certificate was renewed") > renewed && authorities() == trusted
        });
    }
    no_failure(&agent);
}
