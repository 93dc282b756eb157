//! A container runtime that embeds the node runtime beside its own gRPC services.
//!
//! ```console
//! $ sudo cargo run -p mesh-runtime --example embed
//! $ quilt-mesh-agent --quilt-runtime http://127.0.0.1:50051 …
//! ```

use mesh_runtime::{MeshRuntime, RuntimeOptions};
use tonic::transport::Server;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // This container runtime's own service; here its health.
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;

    let mesh = MeshRuntime::start(RuntimeOptions::default()).await?;
    Server::builder()
        .add_service(health_service)
        // The three calls of quilt.proto: all that the agent needs.
        .add_service(mesh.quilt_runtime())
        // Optional: whole peer sets in one call, counters and status.
        .add_service(mesh.mesh_dataplane())
        .serve_with_shutdown("127.0.0.1:50051".parse()?, async {
            // A signal handler that cannot be installed ends the server at once.
            let _ = tokio::signal::ctrl_c().await;
        })
        .await?;
    // The data plane stays in the kernel; the next start takes it over.
    mesh.shutdown().await;
    Ok(())
}
