//! TLS handshakes of callers: so many at a time, and none for long.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Interval, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::tls::Credentials;

/// Handshakes at a time. One is a few round trips; what stays longer in the middle of one makes room for others.
const AT_A_TIME: usize = 128;
/// The longest that one may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long nothing is accepted where the system has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Failed handshakes are said this often at most, and counted meanwhile.
const SAY_INTERVAL: Duration = Duration::from_secs(60);

/// How often it is looked at again whether a caller that is there would be let in.
const AGAIN: Duration = Duration::from_secs(5);

/// A caller that has shown its certificate. It is there as long as it would be let in: until that expires, or nobody is
/// trusted any more who has signed it.
#[derive(Debug)]
pub(crate) struct Caller {
    stream: TlsStream<TcpStream>,
    credentials: Arc<Credentials>,
    again: Interval,
}

impl Caller {
    fn new(stream: TlsStream<TcpStream>, credentials: Arc<Credentials>) -> Self {
        let mut again = interval_at(tokio::time::Instant::now() + AGAIN, AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stream,
            credentials,
            again,
        }
    }

    fn look_again(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while self.again.poll_tick(context).is_ready() {
            let (socket, connection) = self.stream.get_ref();
            let shown = connection.peer_certificates().unwrap_or_default();
            if let Err(error) = self.credentials.still_takes(shown) {
                let source = socket
                    .peer_addr()
                    .map_or_else(|_| String::new(), |it| it.to_string());
                tracing::info!(name: "caller-connection-tcp-door-ends",
                    source,
                    %error,
                    "a caller's connection to the TCP door ends: its certificate would not be taken now"
                );
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
            }
        }
        Ok(())
    }
}

/// Accepts callers and has them shake hands, until `stop`. Those that have go to `ready`.
pub(crate) async fn run(
    listener: &TcpListener,
    credentials: &Arc<Credentials>,
    ready: &mpsc::Sender<io::Result<Caller>>,
    stop: &CancellationToken,
) {
    let mut under_way = UnderWay::default();
    let mut failures = Failures::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            Some((source, ended)) = under_way.next() => {
                if let Err(reason) = ended {
                    failures.note(source, &reason);
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, source)) => {
                let (credentials, ready) = (Arc::clone(credentials), ready.clone());
                under_way.add(source, shake_hands(stream, credentials, ready));
            }
            Err(error) => {
                tracing::debug!(name: "cannot-accept-caller", %error, "cannot accept a caller");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(PAUSE) => {}
                }
            }
        }
    }
}

async fn shake_hands(
    stream: TcpStream,
    credentials: Arc<Credentials>,
    ready: mpsc::Sender<io::Result<Caller>>,
) -> Result<(), String> {
    let handshake = async {
        stream.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(credentials.for_next().await);
        acceptor.accept(stream).await
    };
    match timeout(DEADLINE, handshake).await {
        // Nobody takes it once the server has ended.
        Ok(Ok(stream)) => {
            let _ = ready.send(Ok(Caller::new(stream, credentials))).await;
            Ok(())
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("not done within {DEADLINE:?}")),
    }
}

/// The handshakes under way. Dropping it ends them.
#[derive(Debug, Default)]
struct UnderWay {
    tasks: JoinSet<Result<(), String>>,
    /// Whose they are, the oldest first.
    callers: Vec<(SocketAddr, AbortHandle)>,
}

impl UnderWay {
    /// Begins one. Where there are too many, the oldest of the address with the most makes room: whoever opens them by
    /// the thousand drives out his own.
    fn add(
        &mut self,
        source: SocketAddr,
        handshake: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        if self.callers.len() >= AT_A_TIME
            && let Some(place) = to_end(self.callers.iter().map(|(source, _)| source.ip()))
        {
            let (_, task) = self.callers.remove(place);
            task.abort();
        }
        let task = self.tasks.spawn(handshake);
        self.callers.push((source, task));
    }

    /// The next that has ended; `None` while there are none. Cancel safe.
    async fn next(&mut self) -> Option<(Option<SocketAddr>, Result<(), String>)> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let place = self.callers.iter().position(|(_, task)| task.id() == id);
        let source = place.map(|place| self.callers.remove(place).0);
        match ended {
            Ok((_, result)) => Some((source, result)),
            Err(error) if error.is_cancelled() => {
                Some((source, Err("too many were begun at a time".to_owned())))
            }
            Err(error) => Some((source, Err(error.to_string()))),
        }
    }
}

/// Which of the handshakes, the oldest first, makes room.
fn to_end(sources: impl Iterator<Item = IpAddr>) -> Option<usize> {
    let mut of_each = BTreeMap::<IpAddr, (usize, usize)>::new();
    for (place, source) in sources.enumerate() {
        let (_, count) = of_each.entry(source).or_insert((place, 0));
        *count += 1;
    }
    let most = of_each.values().map(|&(_, count)| count).max()?;
    let first_of_most = of_each.values().filter(|&&(_, count)| count == most);
    first_of_most.map(|&(place, _)| place).min()
}

/// What is said of handshakes that failed.
#[derive(Debug, Default)]
struct Failures {
    said: Option<Instant>,
    since: u64,
}

impl Failures {
    fn note(&mut self, source: Option<SocketAddr>, reason: &str) {
        self.since += 1;
        if self.said.is_some_and(|it| it.elapsed() < SAY_INTERVAL) {
            return;
        }
        let source = source.map_or_else(String::new, |source| source.to_string());
        tracing::warn!(name: "caller-tcp-door-shown-no",
            source,
            reason,
            count = self.since,
            "a caller of the TCP door has shown no certificate of the CA in --tls-ca"
        );
        *self = Self {
            said: Some(Instant::now()),
            since: 0,
        };
    }
}

impl Connected for Caller {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.get_ref().0.connect_info()
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.look_again(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ended(last: &[u8]) -> Option<usize> {
        to_end(
            last.iter()
                .map(|&last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last))),
        )
    }

    #[test]
    fn the_oldest_of_the_address_with_the_most_makes_room() {
        assert_eq!(ended(&[]), None);
        assert_eq!(ended(&[1]), Some(0));
        assert_eq!(ended(&[1, 2, 2]), Some(1));
        assert_eq!(ended(&[1, 2, 3, 3, 1, 1]), Some(0));
        // Of several with as many, the oldest of all.
        assert_eq!(ended(&[3, 1, 1, 2, 2]), Some(1));
        assert_eq!(ended(&[9, 2, 1, 2, 1]), Some(1));
    }
}
