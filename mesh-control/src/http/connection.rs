//! One connection: with hyper while there is something to do, and without it while there is not.
//!
//! hyper has two buffers of 8 KiB for a connection as long as it has the connection, and axum a few KiB more for a
//! request that is under way. Ten thousand agents that wait for news, and as many connections that are idle between
//! two heartbeats, would take some hundred megabytes for nothing. So hyper gets a connection when bytes have arrived,
//! and gives it back when what they asked for is answered. And a question that has to wait for news waits before
//! hyper reads it: it is looked at where it is, in the kernel's buffer, and stays there.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::api;
use crate::api::feed_query::FeedQuery;
use crate::http::bare_answer::WithProblems;
use crate::registry::Registry;
use exchange::{Exchange, Exchanging, Wire};

mod exchange;
mod question;

/// How long a client may take for the head of a request; it also ends idle connections. Three times the
/// interval of an agent's heartbeat, so that an agent can keep its connection.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// How much of a request is looked at before it is read: an agent's question has less than 300 bytes. A longer one
/// waits with hyper.
const LONGEST_LOOK: usize = 2048;

/// Goes with a question to the change feed that has waited already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waited;

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Site {
    registry: Arc<Registry>,
    app: Router,
    http: http1::Builder,
    stop: CancellationToken,
}

impl Site {
    /// The API on `registry`, served until `stop`.
    pub(crate) fn new(registry: Arc<Registry>, stop: CancellationToken) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE);
        Self {
            app: api::router(Arc::clone(&registry)),
            registry,
            http,
            stop,
        }
    }
}

/// Serves a connection until it ends, or is idle for too long, or the site stops.
pub(crate) async fn live(mut stream: TcpStream, site: &Site) {
    // Answers are small and complete; waiting for more to send only delays them. A socket that refuses
    // the option still works.
    let _ = stream.set_nodelay(true);
    let mut unread = Bytes::new();
    loop {
        let mut waited = false;
        // What hyper has read already cannot be looked at; the client sent it before its last request was answered.
        if unread.is_empty() {
            match first_look(&stream, site).await {
                Look::Request => {}
                Look::Question(query) => {
                    if !wait_for_news(&stream, site, query).await {
                        return;
                    }
                    waited = true;
                }
                Look::Nothing => return,
            }
        }
        // In a box, so that a connection without hyper has no room for it.
        let served = Box::pin(serve(stream, unread, waited, site));
        let Some(left) = served.await else { return };
        (stream, unread) = left;
    }
}

/// What arrived on a connection without hyper.
enum Look {
    /// Something for hyper.
    Request,
    /// A question that may have to wait.
    Question(Box<FeedQuery>),
    /// Nothing: the connection is closed, or idle for too long, or the site stops.
    Nothing,
}

/// Waits until the client sends something, and looks at it without reading it.
async fn first_look(stream: &TcpStream, site: &Site) -> Look {
    let look = poll_fn(|cx| {
        let mut room = [MaybeUninit::uninit(); LONGEST_LOOK];
        let mut seen = ReadBuf::uninit(&mut room);
        ready!(stream.poll_peek(cx, &mut seen))?;
        let head = seen.filled();
        Poll::Ready(io::Result::Ok(match question::at_the_feed(head) {
            Some(query) => Look::Question(Box::new(query)),
            None if head.is_empty() => Look::Nothing,
            None => Look::Request,
        }))
    });
    tokio::select! {
        look = timeout(HEAD_DEADLINE, look) => match look {
            Ok(Ok(look)) => look,
            Ok(Err(_)) | Err(_) => Look::Nothing,
        },
        () = site.stop.cancelled() => Look::Nothing,
    }
}

/// Waits until the question can be answered. Whether the client is still there by then.
async fn wait_for_news(stream: &TcpStream, site: &Site, query: Box<FeedQuery>) -> bool {
    tokio::select! {
        // Why it cannot be answered is found out again by the one who answers.
        _ = site.registry.wait_for_news(&query) => true,
        // Not that there is something to read, which there is: only the end of the connection.
        _ = stream.ready(Interest::PRIORITY) => false,
    }
}

/// Lets hyper serve what has arrived, `unread` first, until everything is answered. Gives back the connection,
/// with what the client sent of its next request; `None`: the connection is over.
async fn serve(
    stream: TcpStream,
    unread: Bytes,
    waited: bool,
    site: &Site,
) -> Option<(TcpStream, Bytes)> {
    let exchange = Arc::<Exchange>::default();
    let wire = Wire::new(stream, unread, Arc::clone(&exchange));
    let service = Exchanging::new(site.app.clone(), waited, Arc::clone(&exchange));
    let io = TokioIo::new(WithProblems::new(wire));
    let mut connection = site.http.serve_connection(io, service);
    let mut stopping = pin!(site.stop.cancelled());
    let (mut stopped, mut told) = (false, false);
    let ended = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                return Poll::Ready(Some(ended));
            }
            stopped = stopped || stopping.as_mut().poll(cx).is_ready();
            // Told so before it has read the request, hyper would close the connection without an answer.
            if stopped && !told && (exchange.has_begun() || !waited) {
                told = true;
                Pin::new(&mut connection).graceful_shutdown();
                continue;
            }
            return match exchange.is_over() && !told {
                true => Poll::Ready(None),
                false => Poll::Pending,
            };
        }
    })
    .await;
    match ended {
        None => {
            let parts = connection.into_parts();
            let stream = parts.io.into_inner().into_inner().into_stream();
            // Even an empty rest holds on to the whole of hyper's buffer.
            let unread = match parts.read_buf {
                rest if rest.is_empty() => Bytes::new(),
                rest => rest,
            };
            Some((stream, unread))
        }
        Some(Ok(())) => None,
        Some(Err(error)) => {
            debug!(%error, "a connection ended early");
            None
        }
    }
}
