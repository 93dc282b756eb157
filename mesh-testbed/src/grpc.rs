//! gRPC to a server on a namespace's loopback.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::netns::NetNs;

/// Nothing is lost on loopback, and where nobody listens the kernel says so at once: what takes longer than a blink is
/// an emulated machine beside others.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to a port of the namespace's loopback. The channel reconnects there by itself.
pub(crate) async fn channel(
    namespace: &NetNs,
    port: u16,
) -> Result<Channel, tonic::transport::Error> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let entrance = namespace.entrance();
    let connect = move |_: Uri| {
        let entrance = entrance.clone();
        async move {
            let stream = entrance
                .run_blocking(move || {
                    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    Ok::<_, std::io::Error>(stream)
                })
                .await
                .map_err(std::io::Error::other)??;
            tokio::net::TcpStream::from_std(stream).map(TokioIo::new)
        }
    };
    Endpoint::try_from(format!("http://{address}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .connect_with_connector(tower::service_fn(connect))
        .await
}

/// Asks the health service about the whole server; the error says what it answers instead.
pub(crate) async fn check_serving(channel: Channel) -> Result<(), String> {
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel)
        .check(request)
        .await
        .map_err(|error| format!("its health service answers {error}"))?;
    match answer.into_inner().status() {
        ServingStatus::Serving => Ok(()),
        other => Err(format!(
            "its health service answers {}",
            other.as_str_name()
        )),
    }
}
