//! Real agents with two real replicas of the control plane, one of which is stopped in the middle of everything.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mesh_testbed::{Postgres, PostgresOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    process::{Agent, BINARY},
    wait::holds,
};

const NODES: u8 = 8;

/// Agents give one replica up after 5 s, and beat each 6 s.
const NODE_TIMEOUT: &str = "18s";

/// A minute, which is longer than three node timeouts.
const FROZEN: Duration = Duration::from_secs(62);

/// A control plane in a process of its own, which never outlives this one's test.
struct Replica {
    process: Child,
    port: u16,
}

impl Replica {
    fn start(database: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let program = PathBuf::from(BINARY).with_file_name("quilt-mesh-control");
        assert!(program.is_file(), "build the workspace's binaries first");
        let process = Command::new(program)
            .env_clear()
            .env("QUILT_MESH_METRICS_ADDR", "off")
            .env("QUILT_MESH_DATABASE_URL", database)
            .args(["--bind", &format!("127.0.0.1:{port}")])
            .args(["--node-timeout", NODE_TIMEOUT])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let replica = Self { process, port };
        let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(holds(listens), "the control plane listens");
        replica
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        kill(pid, signal).unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // Both fail only for a process that has been waited for.
        let _ended = self.process.kill();
        let _waited = self.process.wait();
    }
}

/// The node list as a replica tells it.
async fn list(client: &reqwest::Client, replica: &Replica) -> Value {
    let url = format!("{}/api/nodes", replica.url());
    let answer = client.get(url).send().await.unwrap();
    let text = answer.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn up(list: &Value) -> usize {
    let nodes = list["nodes"].as_array().unwrap();
    nodes.iter().filter(|node| node["status"] == "up").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_frozen_for_longer_than_the_node_timeout_takes_no_node_down() {
    let postgres = Postgres::new(&PostgresOptions::new()).await.unwrap();
    let database = postgres.create_database().unwrap();
    let replicas = [(); 2].map(|()| Replica::start(&database));
    let bases = replicas.each_ref().map(Replica::url).join(",");
    let state = tempfile::tempdir().unwrap();
    let agents: Vec<Agent> = (1..=NODES)
        .map(|n| {
            let directory = state.path().join(n.to_string());
            std::fs::create_dir(&directory).unwrap();
            let mut command = Command::new(BINARY);
            command
                .env_clear()
                .env("QUILT_MESH_METRICS_ADDR", "off")
                .args(["--socket", "off"])
                .args(["--control-plane", &bases, "--log-level", "debug"])
                // Nobody is there: the control plane is what this is about.
                .args(["--quilt-runtime", "http://127.0.0.1:9"])
                .args(["--hostname", &format!("host-{n}")])
                .args(["--host-ip", &format!("192.0.2.{n}"), "--state-dir"])
                .arg(directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            Agent::spawn(command)
        })
        .collect();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(mesh_rest::client::trusting_nobody())
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .unwrap();
    let all = usize::from(NODES);
    let deadline = Instant::now() + Duration::from_secs(60);
    while up(&list(&client, &replicas[1]).await) < all {
        assert!(Instant::now() < deadline, "they do not register");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let revision = list(&client, &replicas[1]).await["revision"].clone();

    replicas[0].signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    while frozen.elapsed() < FROZEN {
        let list = list(&client, &replicas[1]).await;
        assert_eq!(up(&list), all, "{list}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    replicas[0].signal(Signal::SIGCONT);
    let thawed = Instant::now();
    while thawed.elapsed() < Duration::from_secs(20) {
        for replica in &replicas {
            let list = list(&client, replica).await;
            // The one that was frozen refuses everybody until it has read what it missed.
            let refuses = list["type"] == "urn:quilt-mesh:problem:database-unavailable";
            assert!(refuses || up(&list) == all, "{list}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for replica in &replicas {
        assert_eq!(list(&client, replica).await["revision"], revision);
    }
    for agent in &agents {
        assert_eq!(agent.logged("registered node_id"), 1, "{:#?}", agent.log());
    }
}
