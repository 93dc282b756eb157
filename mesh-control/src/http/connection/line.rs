//! A connection without hyper: the stream, and what was read from it and not used.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::timeout;

/// How much is read at a time: more than an agent's question has.
const PIECE: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct Line<S> {
    stream: S,
    unread: Vec<u8>,
}

impl<S> Line<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    /// What has arrived and was not used.
    pub(super) fn unread(&self) -> &[u8] {
        &self.unread
    }

    pub(super) fn stream(&mut self) -> &mut S {
        &mut self.stream
    }

    pub(super) fn stream_ref(&self) -> &S {
        &self.stream
    }

    /// Uses the first bytes.
    pub(super) fn use_up(&mut self, count: usize) {
        match self.unread.get(count..) {
            // A vector that was emptied still has its room.
            None | Some([]) => self.unread = Vec::new(),
            Some(rest) => self.unread = rest.to_vec(),
        }
    }

    /// Puts bytes before those that have arrived.
    pub(super) fn put_before(&mut self, bytes: &[u8]) {
        self.unread = [bytes, &self.unread].concat();
    }

    /// Puts other bytes in the place of those that have arrived.
    pub(super) fn replace_unread(&mut self, bytes: &[u8]) {
        self.unread = bytes.to_vec();
    }
}

impl<S: AsyncRead + Unpin> Line<S> {
    /// Reads more, up to `most` bytes in all, which there are not yet. False: there is nothing more to come.
    pub(super) async fn read(&mut self, most: usize) -> bool {
        let room = PIECE.min(most.saturating_sub(self.unread.len()));
        poll_fn(|cx| {
            // Not in the future, where it would stay for as long as the connection is idle.
            let mut piece = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut piece[..room]);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece));
            let piece = piece.filled();
            self.unread.reserve_exact(piece.len());
            self.unread.extend_from_slice(piece);
            Poll::Ready(read.is_ok() && !piece.is_empty())
        })
        .await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Ends the connection so that the client reads all that was sent to it before: what it still sends itself, at
    /// most so much for so long, is thrown away.
    pub(super) async fn close(mut self, most: usize, deadline: Duration) {
        let ending = async {
            self.stream.shutdown().await.ok()?;
            let mut piece = vec![0; 2 * PIECE];
            let mut left = most;
            while left > 0 {
                let count = self.stream.read(&mut piece).await.ok()?;
                left = match count {
                    0 => 0,
                    count => left.saturating_sub(count),
                };
            }
            Some(())
        };
        let _ = timeout(deadline, ending).await;
    }
}
