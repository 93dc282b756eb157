//! Joining a mesh, and staying a member of it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mesh_credentials::authority::Request;
use mesh_credentials::node_key_pair::NodeKeyPair;
use mesh_rest::problem_kind::Kind;
use tempfile::TempDir;

use crate::{
    fake_control_plane::{FakeControlPlane, mesh::now},
    fake_runtime::{FakeRuntime, subnet},
    process::{Agent, BINARY, HOST_IP},
};

mod again;
mod clocks;
mod found;
mod impostors;
mod own;
mod real;
mod renewal;
mod revocation;
mod state;
mod tokens;

const DAY: i64 = 24 * 60 * 60;

/// A host that may join.
struct Host {
    runtime: FakeRuntime,
    state: TempDir,
    /// Beside it, for where that is another one to the agent.
    run: TempDir,
}

impl Host {
    fn new() -> Self {
        Self {
            runtime: FakeRuntime::start(),
            state: tempfile::tempdir().unwrap(),
            run: tempfile::tempdir().unwrap(),
        }
    }

    fn command(&self, control: &FakeControlPlane, arguments: &[&str]) -> Command {
        let path = Path::new(BINARY);
        let mut command = Agent::command(path, control, &self.runtime, self.state.path());
        command.args(["--host-ip", HOST_IP]).args(arguments);
        command
    }

    fn agent(&self, control: &FakeControlPlane, arguments: &[&str]) -> Agent {
        Agent::spawn(self.command(control, arguments))
    }

    /// An agent that has joined and registered.
    fn joined(&self, control: &FakeControlPlane) -> Agent {
        let token = control.mesh().token(1);
        let agent = self.agent(control, &["--join", &token]);
        agent.until("its subnet", || self.runtime.state().subnet == subnet(1));
        agent.until("a heartbeat", || control.heartbeats() >= 1);
        agent
    }

    fn path(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Has the certificate be one that was signed so many days ago.
    fn age(&self, control: &FakeControlPlane, days: i64) {
        let key = NodeKeyPair::read(&self.path("node.key")).unwrap().unwrap();
        let request = Request::read(&key.request().unwrap()).unwrap();
        let signed = now() - days * DAY;
        let mesh = control.mesh();
        let node_id = mesh.nodes.keys().next().unwrap();
        let certificate = mesh.signing().sign_node(&request, node_id, signed).unwrap();
        fs::write(self.path("node.pem"), certificate).unwrap();
    }
}

/// Waits for the end of an agent that cannot go on, which says why.
fn refuses(mut agent: Agent, why: &[&str]) {
    assert!(!agent.wait().success());
    let log = agent.log().join("\n");
    for why in why {
        assert!(log.contains(why), "{why:?} in {log}");
    }
}

/// Nothing was refused to the agent as a node, and it noticed nothing.
fn without_a_gap(control: &FakeControlPlane, agent: &Agent) {
    assert_eq!(control.mesh().refusals, 0, "{:#?}", agent.log());
    for failure in ["heartbeat failed", "no node list", "cannot", " ERROR "] {
        assert_eq!(agent.logged(failure), 0, "{failure}: {:#?}", agent.log());
    }
}
