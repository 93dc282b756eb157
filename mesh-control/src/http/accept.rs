//! Connections: taken up to a bound, given up when idle, finished when the server stops.
//!
//! `axum::serve` has neither a bound on connections nor on how long a client takes for its request's head,
//! so the loop is here, on hyper itself; what happens on a connection is in `connection`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::access::origin::Origin;
use crate::http::connection::{self, Site};
use crate::http::{encrypted, limits};

/// Connections that the kernel completes before they are accepted. All agents of a cluster connect at once
/// when it starts; one that finds the queue full tries again after a second, then two, four and so on. The
/// kernel allows no more than net.core.somaxconn, which is 4096 by default.
const BACKLOG: u32 = 4096;

/// How much of an answer the kernel takes beyond what it has sent, in bytes. It would take megabytes, of each
/// connection a copy of its own, where all that wait for one list share it here.
const MOST_UNSENT: u32 = 64 * 1024;

/// After a failed accept: most likely no file descriptor is free, and only time brings one.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens on `address`.
///
/// # Errors
///
/// The kernel's answer: the address is not this host's, or in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Connections that an earlier process closed do not keep its port.
    socket.set_reuseaddr(true)?;
    // Connections have it from the socket that listens. Where it cannot be set, the kernel takes more.
    let _ = SockRef::from(&socket).set_tcp_notsent_lowat(MOST_UNSENT);
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves the site on `listener` until it stops, then finishes the requests under way, for at most `grace`.
pub async fn serve(listener: TcpListener, site: Arc<Site>, grace: Duration) {
    let slots = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            () = site.stop().cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Answers are small and complete; waiting for more to send only delays them. A socket that refuses
                // the option still works.
                let _ = stream.set_nodelay(true);
                let site = Arc::clone(&site);
                connections.spawn(async move {
                    let _slot = slot;
                    // Dropping the connection closes it.
                    tokio::select! {
                        () = live(stream, peer, &site) => {}
                        () = site.give_up().cancelled() => {}
                    }
                });
            }
            // The client was gone before we were there.
            Err(error) if is_of_connection(&error) => {
                debug!(name: "connection-broke-off", %error, "a connection broke off")
            }
            Err(error) => {
                warn!(name: "cannot-accept-connections", %error, "cannot accept connections; is the limit of open files (ulimit -n) reached?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    finish(&connections, &site, grace).await;
}

/// Waits until the connections are over, and for no longer than `grace`.
pub(super) async fn finish(connections: &TaskTracker, site: &Site, grace: Duration) {
    connections.close();
    if timeout(grace, connections.wait()).await.is_err() {
        warn!(name: "giving-up-requests-not-finish",
            connections = connections.len(),
            "giving up requests that did not finish in time"
        );
        site.give_up().cancel();
        connections.wait().await;
    }
}

/// Serves a connection, plain or over TLS: the first byte tells.
async fn live(stream: TcpStream, peer: SocketAddr, site: &Site) {
    let mut first = [0];
    let peeked = tokio::select! {
        peeked = timeout(limits::IDLE_CONNECTION, stream.peek(&mut first)) => peeked,
        () = site.stop().cancelled() => return,
    };
    match peeked {
        Ok(Ok(1)) if first == [encrypted::FIRST_BYTE] => {
            Box::pin(encrypted::live(stream, peer, site)).await;
        }
        Ok(Ok(1)) => connection::live(stream, Arc::new(Origin::plain(peer)), site).await,
        _ => {}
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}
