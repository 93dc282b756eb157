//! A container runtime that embeds the node runtime: `examples/container`.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use mesh_client::Client;
use mesh_testbed::{Signal, write_root};
use nix::{sys::signal::kill, unistd::Pid};

use crate::{
    attach::{leased, names},
    host::{Daemon, Host},
};

/// Pings another container until it answers, and waits until that has done the same.
const MEET: &str = r#"
read name < /proc/sys/kernel/hostname
until ping -c 1 -W 1 "$1"; do sleep 0.1; done
: > "/met-$name"
until [ -e "/met-$2" ]; do sleep 0.1; done
echo "$name has met $2 as process $$"
"#;

/// The example's binary, which `cargo test` builds unless it is told which tests to run.
fn example() -> PathBuf {
    let runtime = Path::new(env!("CARGO_BIN_EXE_quilt-runtime"));
    let profile = runtime.parent().unwrap();
    let binary = profile.join("examples/container");
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/container");
    let modified = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let is_newer = |source| modified(&sources.join(source)) > modified(&binary);
    if !binary.exists() || ["main.rs", "namespaces.rs"].into_iter().any(is_newer) {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "mesh-runtime"]);
        build.args(["--example", "container", "--target-dir"]);
        build.arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    }
    binary
}

/// The containers' root directory. Dropping it kills what runs in it.
struct Root(PathBuf);

impl Root {
    fn new(host: &Host) -> Self {
        let root = Self(host.dir.path().join("root"));
        write_root(&root.0).unwrap();
        fs::write(root.0.join("meet"), MEET).unwrap();
        root
    }

    /// The processes that have this root directory.
    fn processes(&self) -> Vec<Pid> {
        let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
        let own = file(&self.0).unwrap();
        let processes = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|process| file(&process.path().join("root")).is_ok_and(|root| root == own));
        let pid = |name: std::ffi::OsString| name.to_str()?.parse().ok();
        let pids = processes.filter_map(|process| pid(process.file_name()));
        pids.map(Pid::from_raw).collect()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for process in self.processes() {
            let _ = kill(process, Signal::SIGKILL);
        }
    }
}

/// Starts the example and gives its node a subnet.
async fn start(host: &Host, root: &Root) -> Daemon {
    fs::create_dir_all(host.bpffs()).unwrap();
    let mut command = host.netns.command(example());
    let output = File::create(host.dir.path().join("output")).unwrap();
    command.arg(&root.0).arg("--socket").arg(host.socket());
    command.arg("--state-dir").arg(host.state_dir());
    command.arg("--bpffs").arg(host.bpffs());
    command.stdin(Stdio::piped()).stdout(output);
    let daemon = host.start_command(command).await;
    daemon.configure("10.42.1.0/24").await.unwrap();
    daemon
}

fn container(daemon: &mut Daemon, line: &str) {
    let input = daemon.child.stdin.as_mut().unwrap();
    writeln!(input, "{line}").unwrap();
}

async fn said(host: &Host, words: &str) {
    let output = host.dir.path().join("output");
    let said = |_: &Host| fs::read_to_string(&output).unwrap().contains(words);
    host.eventually(words, said).await;
}

#[tokio::test]
async fn containers_of_the_example_meet_each_other_and_leave_nothing_behind() {
    let host = Host::new("embedded").await;
    let root = Root::new(&host);
    let mut daemon = start(&host, &root).await;
    let mut client = Client::connect(&host.socket()).await.unwrap();
    let before = names(&host.netns);
    container(&mut daemon, "web sh /meet 10.42.1.3 db");
    said(&host, "web: 10.42.1.2/24").await;
    container(&mut daemon, "db sh /meet 10.42.1.2 web");
    // Each has a host name and a process 1 of its own.
    said(&host, "web has met db as process 1").await;
    said(&host, "db has met web as process 1").await;
    said(&host, "ended with exit status: 0: web").await;
    said(&host, "ended with exit status: 0: db").await;
    assert_eq!(leased(&mut client).await, 0);
    assert_eq!(names(&host.netns), before);
    assert!(root.processes().is_empty());
    // With the end of its input it ends too.
    drop(daemon.child.stdin.take());
    assert!(daemon.child.wait().unwrap().success());
    assert!(!host.socket().exists());
}

#[tokio::test]
async fn an_interrupted_example_takes_its_containers_with_it() {
    let host = Host::new("interrupt").await;
    let root = Root::new(&host);
    let mut daemon = start(&host, &root).await;
    let before = names(&host.netns);
    container(&mut daemon, "web sleep 1000");
    said(&host, "web: 10.42.1.2/24").await;
    container(&mut daemon, "web sleep 1000");
    host.eventually("a refusal", |_| {
        daemon.log().contains("is attached already")
    })
    .await;
    container(&mut daemon, "db no-such-program");
    said(&host, "ended with exit status: 1: db").await;
    assert!(daemon.end(Signal::SIGINT).await.success());
    said(&host, "ended with signal: 9 (SIGKILL): web").await;
    assert_eq!(names(&host.netns), before);
    assert!(root.processes().is_empty());
    let _next = host.start().await;
    let mut client = Client::connect(&host.socket()).await.unwrap();
    assert_eq!(leased(&mut client).await, 0);
}
