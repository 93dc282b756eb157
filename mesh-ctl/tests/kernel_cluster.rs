//! What an operator asks of the cluster with `meshctl`, against real daemons. What it prints is shown with `--nocapture`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "functions of tests, which may panic like tests"
)]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Output,
    time::Duration,
};

use mesh_rest::{status::Status, subnets::SubnetState};
use mesh_testbed::{Daemon, DaemonOptions, Host, Signal, Testbed, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

/// A mesh of two nodes, and what an operator who is elsewhere has.
struct Mesh {
    testbed: Testbed,
    ca: PathBuf,
}

impl Mesh {
    async fn new() -> Self {
        let testbed = Testbed::builder().hosts(2).build().await.unwrap();
        let control = testbed.control();
        control.start(&DaemonOptions::new()).await.unwrap();
        for host in testbed.hosts() {
            host.start_runtime(&DaemonOptions::new()).await.unwrap();
            host.start_agent(&DaemonOptions::new()).await.unwrap();
        }
        testbed.wait_converged(SOON).await.unwrap();
        let ca = testbed.dir().join("ca.pem");
        fs::write(&ca, control.told(&["ca", "show", "--pem"]).unwrap()).unwrap();
        Self { testbed, ca }
    }

    fn hosts(&self) -> [&Host; 2] {
        let [one, two] = self.testbed.hosts() else {
            panic!("two hosts are needed");
        };
        [one, two]
    }

    /// A file with the token of an operator who may do that.
    fn token(&self, role: &str) -> PathBuf {
        let words = ["operator", "create", role, "--role", role];
        let token = self.testbed.control().told(&words).unwrap();
        let path = self.testbed.dir().join(format!("token-{role}"));
        fs::write(&path, token).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// From a host. Its agent knows where the control plane is, but a token is shown to who is named alone.
    fn over_rest(&self, token: Option<&PathBuf>, words: &str) -> Output {
        let host = self.hosts()[0];
        let mut command = host.netns().command(env!("CARGO_BIN_EXE_meshctl"));
        command.args(words.split_whitespace());
        command.arg("--agent-socket").arg(host.agent_socket());
        command.arg("--control-ca").arg(&self.ca);
        command.args(["--control", &self.testbed.control().url()]);
        if let Some(token) = token {
            command.arg("--control-token-file").arg(token);
        }
        shown(words, command.output().unwrap())
    }

    /// On the control plane's own host.
    fn over_socket(&self, words: &str) -> Output {
        let control = self.testbed.control();
        let mut command = control.netns().command(env!("CARGO_BIN_EXE_meshctl"));
        command.args(words.split_whitespace());
        command
            .arg("--control-socket")
            .arg(control.dir().join("admin.sock"));
        shown(words, command.output().unwrap())
    }
}

fn shown(words: &str, output: Output) -> Output {
    println!(
        "$ meshctl {words}\n{}{}({:?})",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        output.status.code()
    );
    output
}

fn text(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What it complains of, ending with this code.
fn complaint(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nodes_are_seen_by_either_door_and_what_is_wrong_with_one_of_them_counts() {
    let mesh = Mesh::new().await;
    let reader = mesh.token("read");
    let names = mesh.testbed.hosts().iter().map(Host::name);
    let names: Vec<String> = names.map(ToString::to_string).collect();
    // Each node's first report says of which version it is.
    let table = wait_until("two nodes that have reported", SOON, async || {
        let table = mesh.over_rest(Some(&reader), "nodes");
        match String::from_utf8_lossy(&table.stdout).contains("unknown") {
            false => Ok(text(&table)),
            true => Err(format!("{table:?}")),
        }
    })
    .await
    .unwrap();
    for name in &names {
        let row = table
            .lines()
            .find(|row| row.trim_start().starts_with(name.as_str()));
        let row = row.unwrap_or_else(|| panic!("{table}"));
        for words in [" up ", "10.42.", " ago", env!("CARGO_PKG_VERSION"), "none"] {
            assert!(row.contains(words), "{words}: {row}");
        }
    }
    let document = text(&mesh.over_socket("nodes --json"));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["healthy"], true);
    assert_eq!(document["nodes"][0]["name"], names[0].as_str());

    // A node that was stopped is not up.
    let away = mesh.hosts()[1];
    away.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let control = mesh.testbed.control();
    control
        .wait_status(&names[1], Status::Down, SOON)
        .await
        .unwrap();
    let wrong = mesh.over_rest(Some(&reader), "nodes");
    assert_eq!(wrong.status.code(), Some(1), "{wrong:?}");
    let wrong = String::from_utf8(wrong.stdout).unwrap();
    assert!(
        wrong.contains(" stopped ") && wrong.contains("(nodes-stopped)"),
        "{wrong}"
    );

    // Nobody is told without a token, and with nobody there nothing can be told.
    let refused = complaint(&mesh.over_rest(None, "nodes"), 2);
    assert!(refused.contains("--control-token-file"), "{refused}");
    let mut unnamed = mesh.hosts()[0]
        .netns()
        .command(env!("CARGO_BIN_EXE_meshctl"));
    let unnamed = unnamed.args(["nodes", "--control-token-file"]).arg(&reader);
    let refused = complaint(&unnamed.output().unwrap(), 2);
    assert!(refused.contains("needs --control URL"), "{refused}");
    let open = mesh.testbed.dir().join("token-open");
    fs::write(&open, "qmo1.a.b").unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    let refused = complaint(&mesh.over_rest(Some(&open), "nodes"), 2);
    assert!(refused.contains("may be read by others"), "{refused}");
    control.stop(Signal::SIGKILL, SOON).await.unwrap();
    let nobody = complaint(&mesh.over_rest(Some(&reader), "nodes"), 2);
    assert!(nobody.contains("is the control plane running"), "{nobody}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_made_shown_and_ended_by_whoever_may_and_by_nobody_else() {
    let mesh = Mesh::new().await;
    let (reader, operator) = (mesh.token("read"), mesh.token("operate"));
    let refused = complaint(&mesh.over_rest(Some(&reader), "token create"), 1);
    assert!(
        refused.contains("may look, and change nothing") && refused.contains("--role operate"),
        "{refused}"
    );
    // The admin socket is root's, and the control plane's user's.
    let control = mesh.testbed.control();
    let mut stranger = control.netns().command("setpriv");
    stranger.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    stranger.arg(env!("CARGO_BIN_EXE_meshctl"));
    stranger.args(["token", "create", "--control-socket"]);
    stranger.arg(control.dir().join("admin.sock"));
    let refused = complaint(&shown("token create", stranger.output().unwrap()), 1);
    assert!(refused.contains("it is for root"), "{refused}");
    for by_rest in [true, false] {
        let ask = |words: &str| match by_rest {
            true => mesh.over_rest(Some(&operator), words),
            false => mesh.over_socket(words),
        };
        let made = text(&ask("token create --ttl 30m --uses 2"));
        assert!(made.starts_with("qm1."), "{made}");
        let document: Value = serde_json::from_str(&text(&ask("token create --json"))).unwrap();
        let id = document["id"].as_str().unwrap();
        let row = |words: &str| {
            let list = text(&ask(words));
            let row = list.lines().find(|row| row.trim_start().starts_with(id));
            row.unwrap_or_else(|| panic!("{list}")).to_owned()
        };
        assert!(row("token list").contains("0 of 1"));
        assert_eq!(text(&ask(&format!("token revoke {id}"))), "");
        assert!(row("token list").contains("revoked"));
        let list: Value = serde_json::from_str(&text(&ask("token list --json"))).unwrap();
        assert!(list["tokens"].as_array().unwrap().len() >= 2, "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_removed_has_nothing_any_more_and_one_that_is_up_stays() {
    let mesh = Mesh::new().await;
    let operator = mesh.token("operate");
    let [home, away] = mesh.hosts();
    let name = away.name().to_string();
    let subnet = away.status().await.unwrap().subnet;
    let remove = format!("node remove {name}");
    let refused = complaint(&mesh.over_rest(Some(&operator), &remove), 1);
    assert!(
        refused.contains("is up") && refused.contains("--force"),
        "{refused}"
    );
    away.stop(Daemon::Agent, Signal::SIGTERM, SOON)
        .await
        .unwrap();
    let control = mesh.testbed.control();
    control
        .wait_status(&name, Status::Down, SOON)
        .await
        .unwrap();
    let reader = mesh.token("read");
    complaint(&mesh.over_rest(Some(&reader), &remove), 1);
    let said = text(&mesh.over_rest(Some(&operator), &remove));
    assert!(
        said.contains("credentials are revoked")
            && said.contains(&format!("its subnet {subnet} is free again")),
        "{said}"
    );
    let again = mesh.over_rest(Some(&operator), &remove);
    assert_eq!(text(&again), "");
    let document = text(&mesh.over_socket(&format!("{remove} --json")));
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["steps"].as_array().unwrap().len(), 0, "{document}");
    let subnets = control.call(async |client| client.subnets().await).await;
    let subnets = subnets.unwrap().subnets;
    let entry = subnets.iter().find(|it| it.subnet == subnet).unwrap();
    assert_eq!(entry.state, SubnetState::Released);
    // The others forget it, and it does not come back by itself.
    wait_until("a node that is no peer any more", SOON, async || match home
        .status()
        .await
        .map_err(|error| error.to_string())?
        .peers
    {
        0 => Ok(()),
        peers => Err(format!("{peers} peers")),
    })
    .await
    .unwrap();
    away.spawn(Daemon::Agent, &DaemonOptions::new()).unwrap();
    wait_until("a word of the agent that was refused", SOON, async || {
        let log = fs::read_to_string(away.log(Daemon::Agent)).unwrap_or_default();
        match log.contains("revoked") {
            true => Ok(()),
            false => Err(log.lines().last().unwrap_or_default().to_owned()),
        }
    })
    .await
    .unwrap();
    let nodes = control.nodes().await.unwrap();
    assert!(nodes.iter().all(|node| node.hostname != name), "{nodes:?}");
}
