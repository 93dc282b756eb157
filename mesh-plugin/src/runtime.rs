//! The runtime behind its socket.

use std::{io, path::Path, time::Duration};

use backon::{ExponentialBuilder, Retryable as _};
use mesh_client::{Client, ClientError};

/// How long a runtime that is being restarted is waited for by who adds a container.
pub const RESTART: Duration = Duration::from_secs(2);

/// Connects, and goes on trying for `patience` while nobody serves.
///
/// # Errors
///
/// [`ClientError::Connect`], with what to do.
pub async fn connect(socket: &Path, patience: Duration) -> Result<Client, ClientError> {
    let tries = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_millis(200))
        .without_max_times()
        .with_total_delay(Some(patience))
        .with_jitter();
    let connect = || Client::connect(socket);
    connect.retry(tries).when(is_absent).await
}

/// Whether it is only that nobody serves.
fn is_absent(error: &ClientError) -> bool {
    let ClientError::Connect { reason, .. } = error else {
        return false;
    };
    matches!(
        reason.kind(),
        // The last: more are waiting to connect than the kernel keeps.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
    )
}
