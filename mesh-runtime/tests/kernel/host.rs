//! A host for one test: a network namespace with an underlay interface.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use mesh_proto::{
    mesh::{
        AttachEndpointRequest, DetachEndpointRequest, GetStatusRequest, GetStatusResponse, Peer,
        SyncPeersRequest, SyncPeersResponse, mesh_dataplane_client::MeshDataplaneClient,
    },
    quilt::{
        ConfigureNodeSubnetRequest, InjectRouteRequest, RemoveRouteRequest,
        quilt_runtime_client::QuiltRuntimeClient,
    },
};
use mesh_testbed::{Entrance, NetNs, Signal};
use nix::{mount::MntFlags, unistd::Pid};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// The longest a test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The host's address on the underlay.
pub(crate) const ADDRESS: &str = "192.0.2.1";

/// A host with an underlay interface `eth0`, without a default route.
pub(crate) struct Host {
    pub(crate) netns: NetNs,
    pub(crate) dir: TempDir,
}

impl Host {
    pub(crate) async fn new(label: &str) -> Self {
        let host = Self {
            netns: namespace(label).await,
            dir: TempDir::new().unwrap(),
        };
        host.plug_in().await;
        host
    }

    /// As after a reboot: nothing of the kernel's state is left, and all of the disk's. The
    /// daemon must have ended.
    pub(crate) async fn reboot(&mut self) {
        self.unmount();
        self.netns = namespace("reboot").await;
        self.plug_in().await;
    }

    async fn plug_in(&self) {
        self.ip("link add eth0 type veth peer name eth0-far");
        self.ip(&format!("address add {ADDRESS}/24 dev eth0"));
        self.ip("link set eth0 up");
        self.ip("link set eth0-far up");
        self.eventually("the carrier", |host| {
            host.ip("link show eth0").contains("state UP")
        })
        .await;
    }

    fn unmount(&self) {
        // There is nothing to unmount unless the daemon used the fast path.
        let _ = nix::mount::umount2(&self.bpffs(), MntFlags::MNT_DETACH);
    }

    /// Runs `ip` inside and returns what it printed.
    pub(crate) fn ip(&self, words: &str) -> String {
        let output = self.command("ip", words);
        assert!(
            output.status.success(),
            "ip {words}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `bridge` inside and returns what it printed.
    pub(crate) fn bridge(&self, words: &str) -> String {
        let output = self.command("bridge", words);
        assert!(output.status.success(), "bridge {words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn command(&self, program: &str, words: &str) -> Output {
        self.netns
            .command(program)
            .args(words.split_whitespace())
            .output()
            .unwrap_or_else(|error| panic!("{program} (of iproute2) is needed: {error}"))
    }

    /// The BPF file system this host's daemon mounts when it uses the fast path.
    pub(crate) fn bpffs(&self) -> PathBuf {
        self.dir.path().join("bpf")
    }

    /// Where this host's daemon keeps its state.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where this host's daemon serves every call.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("runtime.sock")
    }

    /// The daemon's command, without the fast path.
    pub(crate) fn daemon_command(&self, fast_path: &str, args: &[&str]) -> Command {
        let mut command = self.netns.command(env!("CARGO_BIN_EXE_quilt-runtime"));
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"QUILT_MESH_") {
                command.env_remove(name);
            }
        }
        let bpffs = self.bpffs();
        fs::create_dir_all(&bpffs).unwrap();
        command
            .args(["--log-level", "mesh_runtime=debug,info"])
            .args(["--fast-path", fast_path, "--bpffs"])
            .arg(bpffs)
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--socket")
            .arg(self.socket())
            // It comes a moment after the bridge and goes with the daemon, and what these tests count and compare is the rest.
            // tests/kernel_probe_endpoint is about it.
            .args(["--probe-endpoint", "off"])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    /// Starts the daemon without the fast path and waits until it serves.
    pub(crate) async fn start(&self) -> Daemon {
        self.start_with("off", &[]).await
    }

    /// Starts the daemon and waits until it serves.
    pub(crate) async fn start_with(&self, fast_path: &str, args: &[&str]) -> Daemon {
        self.start_command(self.daemon_command(fast_path, args))
            .await
    }

    /// Starts the daemon as a root that lacks capabilities, and waits until it serves.
    pub(crate) async fn start_without(
        &self,
        fast_path: &str,
        capabilities: &'static [libc::c_ulong],
    ) -> Daemon {
        let mut command = self.daemon_command(fast_path, &[]);
        let drop_capabilities = move || {
            for &capability in capabilities {
                // SAFETY: takes numbers and touches no memory of ours.
                if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
        unsafe { command.pre_exec(drop_capabilities) };
        self.start_command(command).await
    }

    /// Starts a daemon by its command and waits until it serves.
    pub(crate) async fn start_command(&self, mut command: Command) -> Daemon {
        let log = self.dir.path().join("log");
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command.stderr(file).spawn().unwrap();
        let mut daemon = Daemon {
            child,
            log,
            entrance: self.netns.entrance(),
        };
        let until = Instant::now() + DEADLINE;
        loop {
            if let Ok(channel) = connect(&self.netns.entrance()).await {
                drop(channel);
                return daemon;
            }
            if let Some(status) = daemon.child.try_wait().unwrap() {
                panic!("the daemon ended with {status}: {}", daemon.log());
            }
            assert!(Instant::now() < until, "not serving: {}", daemon.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Everything a refused request could have changed.
    pub(crate) fn state(&self) -> String {
        [
            self.ip("-oneline link show"),
            self.ip("address show"),
            self.ip("route show table all"),
            self.ip("neighbour show"),
        ]
        .concat()
    }

    /// Runs the daemon to its end, which must come by itself.
    pub(crate) async fn run_daemon(&self, args: &[&str]) -> (ExitStatus, String) {
        run_to_end(self.daemon_command("off", args)).await
    }

    /// Routes of the main table with our protocol number.
    pub(crate) fn own_routes(&self) -> Vec<String> {
        lines(&self.ip("route show proto 81"))
    }

    /// Waits until a condition holds.
    pub(crate) async fn eventually(&self, what: &str, mut condition: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + DEADLINE;
        while !condition(self) {
            assert!(
                Instant::now() < until,
                "{what} did not come about; links:\n{}routes:\n{}log:\n{}",
                self.ip("-details address show"),
                self.ip("route show"),
                fs::read_to_string(self.dir.path().join("log")).unwrap_or_default(),
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Host {
    /// Waits until a condition holds that has to be asked for.
    pub(crate) async fn eventually_async(
        &self,
        what: &str,
        mut condition: impl AsyncFnMut() -> bool,
    ) {
        let until = Instant::now() + DEADLINE;
        while !condition().await {
            assert!(Instant::now() < until, "{what} did not come about");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.unmount();
    }
}

async fn namespace(label: &str) -> NetNs {
    NetNs::new(label)
        .await
        .expect("these tests need root: run them with sudo, or `cargo xtask test`")
}

/// Runs a command to its end and returns its status and what it printed.
pub(crate) async fn run_to_end(mut command: Command) -> (ExitStatus, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > until {
            child.kill().unwrap();
            let output = child.wait_with_output().unwrap();
            panic!(
                "it did not end: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8(text).unwrap())
}

/// A running daemon; dropping it kills it.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    log: PathBuf,
    entrance: Entrance,
}

impl Daemon {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) async fn channel(&self) -> Channel {
        connect(&self.entrance).await.unwrap()
    }

    pub(crate) async fn quilt(&self) -> QuiltRuntimeClient<Channel> {
        QuiltRuntimeClient::new(self.channel().await)
    }

    pub(crate) async fn dataplane(&self) -> MeshDataplaneClient<Channel> {
        MeshDataplaneClient::new(self.channel().await)
    }

    /// `ConfigureNodeSubnet`: the reason if it is refused.
    pub(crate) async fn configure(&self, subnet: &str) -> Result<(), String> {
        let request = ConfigureNodeSubnetRequest {
            subnet: subnet.to_owned(),
        };
        let answer = self.quilt().await.configure_node_subnet(request).await;
        let answer = answer.expect("a refusal is gRPC OK").into_inner();
        outcome(answer.success, answer.error)
    }

    /// `InjectRoute`: the reason if it is refused.
    pub(crate) async fn inject(&self, destination: &str, via: &str) -> Result<(), String> {
        let request = InjectRouteRequest {
            destination: destination.to_owned(),
            via_interface: via.to_owned(),
        };
        let answer = self.quilt().await.inject_route(request).await;
        let answer = answer.expect("a refusal is gRPC OK").into_inner();
        outcome(answer.success, answer.error)
    }

    /// `RemoveRoute`: the reason if it is refused.
    pub(crate) async fn remove(&self, destination: &str) -> Result<(), String> {
        let request = RemoveRouteRequest {
            destination: destination.to_owned(),
        };
        let answer = self.quilt().await.remove_route(request).await;
        let answer = answer.expect("a refusal is gRPC OK").into_inner();
        outcome(answer.success, answer.error)
    }

    /// `SyncPeers` with `(subnet, address)` of each peer.
    pub(crate) async fn sync(&self, generation: u64, peers: &[(&str, &str)]) -> SyncPeersResponse {
        let request = SyncPeersRequest {
            generation,
            host_address: ADDRESS.to_owned(),
            peers: peers
                .iter()
                .map(|&(subnet, address)| Peer {
                    subnet: subnet.to_owned(),
                    host_address: address.to_owned(),
                    hostname: String::new(),
                    ..Peer::default()
                })
                .collect(),
            node_settings: None,
        };
        let answer = self.dataplane().await.sync_peers(request).await;
        answer.expect("a refusal is gRPC OK").into_inner()
    }

    /// `AttachEndpoint`: the endpoint, or the reason if it is refused.
    pub(crate) async fn attach(
        &self,
        interface: &str,
        address: &str,
        mac: &str,
    ) -> Result<mesh_proto::mesh::Endpoint, String> {
        let request = AttachEndpointRequest {
            interface: interface.to_owned(),
            address: address.to_owned(),
            mac: mac.to_owned(),
            ..Default::default()
        };
        let answer = self.dataplane().await.attach_endpoint(request).await;
        let answer = answer.expect("a refusal is gRPC OK").into_inner();
        outcome(answer.success, answer.error).map(|()| answer.endpoint.unwrap())
    }

    /// `DetachEndpoint`: the reason if it is refused.
    pub(crate) async fn detach(&self, interface: &str, address: &str) -> Result<(), String> {
        let request = DetachEndpointRequest {
            interface: interface.to_owned(),
            address: address.to_owned(),
            ..Default::default()
        };
        let answer = self.dataplane().await.detach_endpoint(request).await;
        let answer = answer.expect("a refusal is gRPC OK").into_inner();
        outcome(answer.success, answer.error)
    }

    pub(crate) async fn status(&self) -> GetStatusResponse {
        let answer = self.dataplane().await.get_status(GetStatusRequest {}).await;
        answer.unwrap().into_inner()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Stops the daemon's threads until SIGCONT.
    pub(crate) async fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        let until = Instant::now() + DEADLINE;
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
            // The state follows the name, which is in parentheses.
            if stat
                .rsplit(") ")
                .next()
                .is_some_and(|rest| rest.starts_with('T'))
            {
                return;
            }
            assert!(Instant::now() < until, "it did not stop: {stat}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the daemon by a signal and waits for it.
    pub(crate) async fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it did not end: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log());
        }
    }
}

fn outcome(success: bool, error: String) -> Result<(), String> {
    assert_eq!(success, error.is_empty(), "{error:?}");
    if success { Ok(()) } else { Err(error) }
}

async fn connect(entrance: &Entrance) -> Result<Channel, tonic::transport::Error> {
    let entrance = entrance.clone();
    let connect = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let entrance = entrance.clone();
        async move {
            let stream = entrance
                .run_blocking(|| {
                    let stream = std::net::TcpStream::connect("127.0.0.1:50051")?;
                    stream.set_nonblocking(true)?;
                    Ok::<_, std::io::Error>(stream)
                })
                .await
                .map_err(std::io::Error::other)??;
            Ok::<_, std::io::Error>(TokioIo::new(tokio::net::TcpStream::from_std(stream)?))
        }
    });
    Endpoint::from_static("http://127.0.0.1:50051")
        .timeout(DEADLINE)
        .connect_with_connector(connect)
        .await
}

/// The lines of a command's output without trailing blanks.
pub(crate) fn lines(text: &str) -> Vec<String> {
    text.lines().map(|line| line.trim().to_owned()).collect()
}
