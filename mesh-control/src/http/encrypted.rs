//! A connection that begins as TLS does.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use mesh_rest::problem_kind::Kind;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::admission;
use super::connection::{self, Site};
use super::limits;
use crate::access::Refused;
use crate::access::caller::Shown;
use crate::access::origin::{Certificate, Origin, Source, Way};

/// The content type of a handshake, with which every connection over TLS begins (RFC 8446 section 5.1), and no request.
pub(super) const FIRST_BYTE: u8 = 0x16;

/// How long a handshake may take from its turn on.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often one that does not go on is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// After so many looks without a byte it may have to give way. A client on the other side of the world answers sooner.
const IDLE_LOOKS: u32 = 4;

/// How much of an answer is kept encrypted, in bytes: a record, and what is gathered behind it.
const MOST_BUFFERED: usize = 32 * 1024;

/// Serves a connection over TLS.
pub(super) async fn live(stream: TcpStream, peer: SocketAddr, site: &Site) {
    site.tls().look().await;
    let Some(config) = site.tls().config() else {
        debug!(name: "closed-connection-over-tls", %peer, "closed a connection over TLS: there is no certificate authority here, and no --tls-cert");
        return;
    };
    // From before the handshake on, which goes by the authorities that are trusted then.
    let mut taken_away = site.tls().taken_away();
    // Boxes, so that nothing of the handshake is kept, nor moved with the connection.
    let shaken = tokio::select! {
        shaken = Box::pin(shake_hands(stream, peer, config, site)) => shaken,
        () = site.stop().cancelled() => None,
    };
    let Some((stream, origin)) = shaken else {
        return;
    };
    let is_own = matches!(origin.certificate, Some(Certificate::Own(_)));
    let ended = async {
        // Whether there is one to come is the control plane's business; it has its end.
        if !is_own || taken_away.changed().await.is_err() {
            pending().await
        }
    };
    tokio::select! {
        () = connection::live(stream, Arc::new(origin), site) => {}
        () = ended => debug!(name: "closed-connection", %peer, "closed a connection: an authority of one's own is trusted no more"),
    }
}

async fn shake_hands(
    stream: TcpStream,
    peer: SocketAddr,
    config: Arc<ServerConfig>,
    site: &Site,
) -> Option<(Box<TlsStream<Watched>>, Origin)> {
    let turn = site.handshakes().turn(Source::of(peer.ip()));
    let turn = timeout(limits::IDLE_CONNECTION, turn).await.ok()?;
    // Where a whole cluster comes at once its agents give up after some seconds, and come anew: work for those that have
    // would keep the others waiting until they give up as well.
    if has_gone(&stream) {
        debug!(name: "closed-connection-whose-client-gone", %peer, "closed a connection whose client had gone before its turn for a TLS handshake");
        return None;
    }
    let began = Instant::now();
    let acceptor = TlsAcceptor::from(config);
    let mut handshake = acceptor.accept_with(Watched { stream, reads: 0 }, |connection| {
        connection.set_buffer_limit(Some(MOST_BUFFERED));
    });
    let (mut seen, mut looks) = (0, 0);
    let stream = loop {
        tokio::select! {
            // What has arrived counts, however long it had to wait for the processor.
            biased;
            done = &mut handshake => match done {
                Ok(stream) => break stream,
                Err(error) => {
                    note(&error, peer, site);
                    return None;
                }
            },
            () = sleep(LOOK_INTERVAL) => {
                let reads = handshake.get_ref().map_or(0, |watched| watched.reads);
                looks = if reads == seen { looks + 1 } else { 0 };
                seen = reads;
                if began.elapsed() >= HANDSHAKE || (looks >= IDLE_LOOKS && turn.gives_way()) {
                    debug!(name: "closed-connection-whose-tls-handshake", %peer, "closed a connection whose TLS handshake stopped half way");
                    return None;
                }
            }
        }
    };
    drop(turn);
    let shown = stream.get_ref().1.peer_certificates();
    let certificate = shown.and_then(|chain| site.tls().certificate(chain));
    let origin = Origin {
        peer: Some(peer),
        way: Way::Tls,
        certificate,
    };
    Some((Box::new(stream), origin))
}

/// Whether the client has closed the connection: it sends no more, which no handshake is without.
fn has_gone(stream: &TcpStream) -> bool {
    // What is known already; something had arrived, or there would have been no handshake to wait for.
    let ready = stream.ready(Interest::READABLE).now_or_never();
    ready.is_some_and(|ready| ready.is_ok_and(|ready| ready.is_read_closed()))
}

/// A client whose certificate is not taken is told so by an alert of TLS, and counts as one that was refused.
fn note(error: &io::Error, peer: SocketAddr, site: &Site) {
    let of_tls = error.get_ref().and_then(|error| error.downcast_ref());
    match of_tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::Other(_)) => {
            let origin = Origin {
                way: Way::Tls,
                ..Origin::plain(peer)
            };
            let refused = Refused::new(Kind::Unauthorized, error.to_string());
            let what = format!("a TLS handshake: {error}");
            // There is nobody to answer.
            let _ = admission::refuse(site.access(), &origin, &Shown::Nothing, &what, refused);
        }
        _ => debug!(name: "tls-handshake-failed", %peer, %error, "a TLS handshake failed"),
    }
}

/// A socket, and how often something was read from it.
#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    reads: u64,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.reads += 1;
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
