//! Serves gRPC until a signal comes.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use mesh_metrics::Opened;
use mesh_runtime::{DataplaneService, MeshRuntime, Tombstones};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    service::InterceptorLayer,
    transport::{Server, server::Router},
};

use mesh_proto::mesh::mesh_dataplane_server::MeshDataplaneServer;
use tonic_health::pb::health_server::HealthServer;

use super::{
    health::NodeHealth,
    options::{DaemonOptions, GrpcAddress},
    socket::{Socket, find_group},
    tcp_door::TcpDoor,
};

/// How long calls that are under way may take once a signal has come.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// The longest a call may take; the services' own deadlines are shorter and say more, and so is that of mesh-client.
const CALL_DEADLINE: Duration = Duration::from_secs(25);
/// Calls at a time on one connection. One agent makes one.
const CALLS_PER_CONNECTION: usize = 32;
/// Where metrics are served on loopback unless told otherwise.
const METRICS_PORT: u16 = 9471;
/// Finds out that a peer has gone without a word.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Runs the daemon until SIGTERM or SIGINT.
pub(crate) async fn serve(options: &DaemonOptions) -> anyhow::Result<()> {
    // Before anything is touched: a signal that comes early must not leave half a start.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let group = options.socket_group.as_deref();
    let group = group.map(find_group).transpose()?;
    let door = match options.grpc_addr {
        GrpcAddress::At(address) => Some(TcpDoor::prepare(address, options.tls_files())?),
        GrpcAddress::Off => None,
    };
    let metrics = options.metrics.door(METRICS_PORT)?;
    let mesh = MeshRuntime::start(options.runtime_options()).await?;
    // Whoever is served on the port finds the socket as well.
    let (socket, callers) = Socket::bind(&options.socket, group)?;
    if let Err(error) = Tombstones::beside(&options.socket).make() {
        tracing::warn!(name: "no-place-for-tombstones", %error, socket = %options.socket.display(), "no place beside the socket for who removes containers while no runtime runs: their addresses stay leased");
    }
    // Before the first caller is served: what is in the way is said, and nothing was changed.
    let door = match door {
        Some(door) => {
            let listener = door.open().await?;
            Some((door, listener))
        }
        None => None,
    };

    let metrics = match metrics {
        Some(door) => Some(door.open().await?),
        None => None,
    };

    let stop = CancellationToken::new();
    let mut servers = JoinSet::new();
    let health = NodeHealth::service(mesh.metrics(), stop.clone());
    if let Some(Opened::At(door, listener)) = metrics {
        let source = Arc::new(mesh.metrics());
        let serving = mesh_metrics::serve(door, listener, source, stop.clone());
        servers.spawn(async {
            serving.await;
            Ok(())
        });
    }
    let address = match door {
        Some((door, listener)) => {
            let address = door.shown(listener.as_ref());
            let router = router(
                Server::builder(),
                mesh.mesh_dataplane(),
                &mesh,
                health.clone(),
            )?;
            let shown = mesh.tcp_address();
            shown.set(address.clone());
            let say = move |address| shown.set(address);
            servers.spawn(door.serve(listener, router, stop.clone(), say));
            address
        }
        None => {
            mesh.tcp_address().set("off".to_owned());
            "off".to_owned()
        }
    };
    let access = socket.access();
    let layer = InterceptorLayer::new(move |request| access.check(request));
    let builder = Server::builder().layer(layer);
    let router = router(builder, mesh.local_dataplane(), &mesh, health)?;
    let router = router.add_service(mesh.inspect());
    let router = router.add_service(mesh.maintenance());
    let stopped = stop.clone().cancelled_owned();
    servers.spawn(router.serve_with_incoming_shutdown(UnixListenerStream::new(callers), stopped));
    tracing::info!(name: "serving", %address, socket = %options.socket.display(), version = env!("CARGO_PKG_VERSION"), "serving");

    let ended = tokio::select! {
        name = signalled(&mut terminate, &mut interrupt) => {
            tracing::info!(name: "stopping-data-plane-stays-place", signal = name, "stopping; the data plane stays in place");
            None
        }
        result = servers.join_next() => result,
        () = mesh.ended() => bail!("the runtime ended by itself; this is a defect, the log says more"),
    };
    if let Some(result) = ended {
        result.context("a gRPC server ended early")??;
        bail!("a gRPC server ended by itself");
    }
    stop.cancel();
    mesh.end_looking();
    let drained = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_DEADLINE, drained).await.is_err() {
        tracing::warn!(name: "calls-under-way-not-come", "calls under way did not come to an end in time and are given up");
        servers.abort_all();
    }
    drop(socket);
    mesh.shutdown().await;
    Ok(())
}

async fn signalled(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// Builds a server with the runtime's services, health and reflection.
fn router<L: Clone>(
    server: Server<L>,
    dataplane: MeshDataplaneServer<DataplaneService>,
    mesh: &MeshRuntime,
    health: HealthServer<NodeHealth>,
) -> anyhow::Result<Router<L>> {
    let descriptors = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(mesh_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(server
        .timeout(CALL_DEADLINE)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .tcp_nodelay(true)
        .add_service(health)
        .add_service(descriptors().build_v1().map_err(io::Error::other)?)
        .add_service(descriptors().build_v1alpha().map_err(io::Error::other)?)
        .add_service(mesh.quilt_runtime())
        .add_service(dataplane))
}
