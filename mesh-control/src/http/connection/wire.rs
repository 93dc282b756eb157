//! A connection as hyper has it: with one request on it, and a client that may not dawdle.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::exchange::Progress;
use super::line::Line;
use super::request_end::Extent;
use crate::http::answer;
use crate::http::concurrency::Room;
use crate::http::limits;

/// How often a client that keeps an answer waiting is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Where the end of the request may come, no more is read at a time: what is behind it has to be kept.
const PIECE: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Wire<S> {
    line: Line<S>,
    /// How much of what the line has unread hyper was given.
    given: usize,
    extent: Extent,
    progress: Arc<Progress>,
    room: &'static Room,
    written: u64,
    /// Since the first byte of the answer.
    writing: Option<Instant>,
    stalled: Option<Stalled>,
}

/// A client that takes nothing.
#[derive(Debug)]
struct Stalled {
    since: Instant,
    look: Pin<Box<Sleep>>,
}

impl<S> Wire<S> {
    pub(super) fn new(
        line: Line<S>,
        extent: Extent,
        progress: Arc<Progress>,
        room: &'static Room,
    ) -> Self {
        Self {
            line,
            given: 0,
            extent,
            progress,
            room,
            written: 0,
            writing: None,
            stalled: None,
        }
    }

    /// The connection, and whether the next request is what comes next on it. A rest of this one that hyper did not
    /// read is thrown away, as far as it is here.
    pub(super) fn into_line(mut self) -> (Line<S>, bool) {
        let rest = self.line.unread().get(self.given..).unwrap_or_default();
        self.given += self.extent.take(rest);
        self.line.use_up(self.given);
        (self.line, self.extent.is_over())
    }

    /// Ends the connection of a client that does not take its answer.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.stalled = None;
            return wrote;
        }
        let (writing, written) = (self.writing.unwrap_or_else(Instant::now), self.written);
        let stalled = self.stalled.get_or_insert_with(|| Stalled {
            since: Instant::now(),
            look: Box::pin(sleep(LOOK_INTERVAL)),
        });
        loop {
            let is_short = self.room.is_short() || answer::is_short();
            let deadline = match is_short {
                true => limits::STALL_WHILE_OTHERS_WAIT,
                false => limits::STALL,
            };
            if stalled.since.elapsed() > deadline || answer::is_too_slow(writing, written) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            ready!(stalled.look.as_mut().poll(cx));
            stalled.look = Box::pin(sleep(LOOK_INTERVAL));
        }
    }

    fn wrote(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &wrote {
            self.written += *count as u64;
            self.writing.get_or_insert_with(Instant::now);
        }
        self.watch(cx, wrote)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    /// Behind the end of the request nothing comes, and hyper is not told of it.
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.extent.is_over() {
            return Poll::Pending;
        }
        if let Some(rest) = this.line.unread().get(this.given..)
            && !rest.is_empty()
        {
            let fits = &rest[..rest.len().min(buffer.remaining())];
            let taken = this.extent.take(fits);
            buffer.put_slice(&fits[..taken]);
            this.given += taken;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        if buffer.remaining() as u64 <= this.extent.certain() {
            // Whatever comes is of this request.
            ready!(Pin::new(this.line.stream()).poll_read(cx, buffer))?;
            this.extent.take(&buffer.filled()[before..]);
            return Poll::Ready(Ok(()));
        }
        let mut piece = [MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(this.line.stream()).poll_read(cx, &mut piece))?;
        let taken = this.extent.take(piece.filled());
        let (this_request, next) = piece.filled().split_at(taken);
        buffer.put_slice(this_request);
        this.line.replace_unread(next);
        this.given = 0;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(self.line.stream()).poll_write(cx, bytes);
        self.wrote(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(self.line.stream()).poll_write_vectored(cx, slices);
        self.wrote(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.line.stream_ref().is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(self.line.stream()).poll_flush(cx);
        ready!(self.watch(cx, flushed))?;
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    /// hyper's last word. The connection is closed behind it, when the client has read it.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
