//! How a service asks the reconciler.

use std::time::Duration;

use tokio::sync::oneshot;
use tonic::Status;

use super::command::{Command, Commands};

/// The longest a call waits for its turn and its answer. A call takes milliseconds; only a
/// kernel whose network configuration somebody else holds makes it wait, as it does while it takes network
/// namespaces away, many in one go (`cleanup_net`, net/core/net_namespace.c).
const DEADLINE: Duration = Duration::from_secs(10);

/// Sends a command and waits for its answer.
pub(crate) async fn ask<T>(
    commands: &Commands,
    command: impl FnOnce(oneshot::Sender<T>) -> Command,
) -> Result<T, Status> {
    let (reply, answer) = oneshot::channel();
    let gone = || Status::unavailable("the runtime is shutting down");
    let exchange = async {
        commands.send(command(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    };
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .map_err(|_| {
            Status::deadline_exceeded(format!(
                "no answer within {} s: the node's kernel is busy, as while many network \
                 namespaces are removed; the state will follow",
                DEADLINE.as_secs()
            ))
        })?
}
