//! A container runtime that embeds the node runtime. Each line of its input starts a container, with a root
//! directory, namespaces and an interface on the mesh. The end of the input waits for them, Ctrl-C ends them.
//!
//! ```console
//! # container /srv/busybox
//! web httpd -f -h /
//! test ping -c 3 10.42.1.2
//! ```

mod namespaces;

use std::{
    fs,
    io::{self, BufRead as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
};

use anyhow::{Context as _, anyhow};
use clap::Parser as _;
use mesh_client::{
    Client,
    mesh::{AttachEndpointRequest, Owner, mesh_dataplane_server::MeshDataplaneServer},
};
use mesh_runtime::{DataplaneService, MeshRuntime, RuntimeOptions};
use tokio::{io::AsyncWriteExt as _, net::UnixListener, sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// Runs containers on the mesh: each line of the input is `NAME COMMAND [ARGUMENT…]`.
#[derive(Clone, Debug, clap::Parser)]
struct Options {
    /// The containers' root directory, which they share.
    root: PathBuf,
    /// Unix socket for meshctl.
    #[arg(long, default_value = mesh_client::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Where leases are kept.
    #[arg(long, default_value = "/var/lib/quilt-mesh-runtime")]
    state_dir: PathBuf,
    /// Mount point of the BPF file system.
    #[arg(long, default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args();
    match words.next().as_deref() {
        Some(namespaces::INIT) => namespaces::init(&words.collect::<Vec<_>>()).await,
        _ => serve(Options::parse()).await,
    }
}

/// Serves the agent and meshctl, and runs containers, until there is nothing left to run.
async fn serve(options: Options) -> anyhow::Result<()> {
    let mesh = MeshRuntime::start(RuntimeOptions {
        state_dir: Some(options.state_dir),
        bpffs: options.bpffs,
        ..RuntimeOptions::default()
    })
    .await?;
    let agent = Server::builder()
        // The three calls of quilt.proto: all that the agent needs.
        .add_service(mesh.quilt_runtime())
        // Optional: whole peer sets in one call, counters and status.
        .add_service(mesh.mesh_dataplane())
        .serve("127.0.0.1:50051".parse()?);
    let meshctl = Server::builder()
        // Optional, and for root alone: all calls, and an agent of root's, which looks here first.
        .add_service(mesh.quilt_runtime())
        .add_service(mesh.local_dataplane())
        .serve_with_incoming(listen(&options.socket)?);
    let ended = tokio::select! {
        result = agent => result.context("cannot serve the agent"),
        result = meshctl => result.context("cannot serve meshctl"),
        result = run_all(&mesh, &options.root) => result,
    };
    let _ = fs::remove_file(&options.socket);
    // The data plane stays in the kernel; the next start takes it over.
    mesh.shutdown().await;
    ended
}

fn listen(socket: &Path) -> anyhow::Result<UnixListenerStream> {
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory)?;
    }
    // No other runtime is in this namespace: what has the name was left behind.
    let _ = fs::remove_file(socket);
    let listener = UnixListener::bind(socket)?;
    fs::set_permissions(socket, fs::Permissions::from_mode(0o600))?;
    Ok(UnixListenerStream::new(listener))
}

/// Runs a container for each line of the input, until all have ended.
async fn run_all(mesh: &MeshRuntime, root: &Path) -> anyhow::Result<()> {
    // The agent says the subnet, unless it has said it to an earlier run.
    let pool = mesh.addresses().map_err(|reason| anyhow!("{reason}"))?;
    let mut changes = pool.subscribe();
    let subnet = loop {
        match pool.usage().subnet {
            Some(subnet) => break subnet,
            None => changes.changed().await?,
        }
    };
    println!("containers have addresses of {subnet}");
    let (sender, mut lines) = mpsc::channel(1);
    // It ends with the input, or with the process.
    thread::spawn(move || {
        let mut lines = io::stdin().lock().lines().map_while(Result::ok);
        lines.try_for_each(|line| sender.blocking_send(line))
    });
    let stop = CancellationToken::new();
    let mut containers = JoinSet::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            let _ = tokio::signal::ctrl_c().await;
            stop.cancel();
        }
    });
    while let Some(Some(line)) = stop.run_until_cancelled(lines.recv()).await {
        let (root, stop) = (root.to_owned(), stop.clone());
        let client = Client::new(mesh.local_dataplane());
        containers.spawn(async move {
            match run(&line, &root, client, &stop).await {
                Ok(status) => println!("ended with {status}: {line}"),
                Err(error) => eprintln!("failed: {line}: {error:#}"),
            }
        });
    }
    while containers.join_next().await.is_some() {}
    Ok(())
}

/// Runs one container from its beginning to its end.
async fn run(
    line: &str,
    root: &Path,
    mut mesh: Client<MeshDataplaneServer<DataplaneService>>,
    stop: &CancellationToken,
) -> anyhow::Result<ExitStatus> {
    let (name, command) = line.split_once(' ').context("no command")?;
    let owner = Owner {
        engine: "example".to_owned(),
        network: "quilt".to_owned(),
        container: name.to_owned(),
        interface: "eth0".to_owned(),
    };
    // Killed when it is dropped.
    let mut first = namespaces::start(name, root, command)?;
    let pid = first.id().context("it has ended")?;
    // Outside: address, interface, guards. Inside: address, up, routes.
    let attached = mesh
        .attach(AttachEndpointRequest {
            owner: Some(owner.clone()),
            network_namespace: format!("/proc/{pid}/ns/net"),
            default_route: true,
            names: vec![name.to_owned()],
            ..Default::default()
        })
        .await?;
    println!("{name}: {}, process {pid}", attached.inside.address);
    let ended = async {
        let mut gate = first.stdin.take().context("it has no input")?;
        gate.write_all(b"\n").await?;
        drop(gate);
        if stop.run_until_cancelled(first.wait()).await.is_none() {
            first.kill().await?;
        }
        anyhow::Ok(first.wait().await?)
    }
    .await;
    mesh.detach(owner).await?;
    ended
}
