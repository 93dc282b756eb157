//! Whether hyper has anything left to do on a connection.
//!
//! hyper does not tell, so what goes in and out of it is watched: requests, their bodies, answers, and whether what
//! was written has left.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::Waited;

/// What is known of the requests that came over a connection since hyper has it.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    begun: AtomicBool,
    /// Requests whose answers hyper does not have in full.
    open: AtomicUsize,
    /// Everything that was written before is with the kernel.
    flushed: AtomicBool,
    /// Part of a request's body was not read, or hyper closes the connection: what follows is for hyper to decide.
    spoilt: AtomicBool,
}

impl Exchange {
    /// Whether a request has begun.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Whether every request that has begun, and one has, was read and answered to its end, and the answer is with
    /// the kernel. Right while hyper is not being polled.
    pub(super) fn is_over(&self) -> bool {
        self.has_begun()
            && self.open.load(Relaxed) == 0
            && self.flushed.load(Relaxed)
            && !self.spoilt.load(Relaxed)
    }

    fn begin(self: &Arc<Self>) -> Turn {
        self.begun.store(true, Relaxed);
        self.open.fetch_add(1, Relaxed);
        Turn(Arc::clone(self))
    }
}

/// A request whose answer hyper does not have in full.
struct Turn(Arc<Exchange>);

impl Drop for Turn {
    fn drop(&mut self) {
        // hyper has the end of the answer, and flushes next.
        self.0.flushed.store(false, Relaxed);
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The API, for one connection.
pub(super) struct Exchanging {
    app: TowerToHyperService<Router>,
    /// The next request is one that has waited.
    waited: AtomicBool,
    exchange: Arc<Exchange>,
}

impl Exchanging {
    pub(super) fn new(app: Router, waited: bool, exchange: Arc<Exchange>) -> Self {
        Self {
            app: TowerToHyperService::new(app),
            waited: AtomicBool::new(waited),
            exchange,
        }
    }
}

impl Service<Request<Incoming>> for Exchanging {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let turn = self.exchange.begin();
        let exchange = Arc::clone(&self.exchange);
        let mut request = request.map(|body| Body::new(Asked::new(body, exchange)));
        if self.waited.swap(false, Relaxed) {
            request.extensions_mut().insert(Waited);
        }
        let answer = self.app.call(request);
        answer
            .map(|answer| answer.map(|answer| answer.map(|body| Answer { body, _turn: turn })))
            .boxed()
    }
}

/// The body of a request. Dropped before its end it leaves a rest on the connection.
struct Asked {
    body: Incoming,
    ended: bool,
    exchange: Arc<Exchange>,
}

impl Asked {
    fn new(body: Incoming, exchange: Arc<Exchange>) -> Self {
        Self {
            ended: body.is_end_stream(),
            body,
            exchange,
        }
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // A body of unknown length ends with no frame, one of known length with its last.
        self.ended = frame.is_none() || self.body.is_end_stream();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.ended {
            self.exchange.spoilt.store(true, Relaxed);
        }
    }
}

/// The body of an answer. hyper drops it when it has all of it.
pub(super) struct Answer {
    body: Body,
    _turn: Turn,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The connection itself, as hyper has it.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    /// Was read from the stream before.
    unread: Bytes,
    exchange: Arc<Exchange>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, unread: Bytes, exchange: Arc<Exchange>) -> Self {
        Self {
            stream,
            unread,
            exchange,
        }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let fits = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread.split_to(fits));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
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
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.exchange.flushed.store(true, Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.exchange.spoilt.store(true, Relaxed);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
