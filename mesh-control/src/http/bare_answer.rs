//! hyper's own answers, made problem documents.
//!
//! A request whose head cannot be read never reaches the API: hyper answers it itself, with a status and no body,
//! and closes the connection. It offers no way to say anything else. So what it writes is looked at on its way
//! out: an error without a body is hyper's, because every error of the API has one.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::api::problem::{Kind, Problem};

/// A connection whose bare answers are replaced.
#[derive(Debug)]
pub(crate) struct WithProblems<S> {
    stream: S,
    /// What stands in for a bare answer, and how much of it is written.
    instead: Option<(Vec<u8>, usize)>,
}

impl<S> WithProblems<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            instead: None,
        }
    }

    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

/// What to write instead of `answer`, if that is one of hyper's own.
fn instead_of(answer: &[u8]) -> Option<Vec<u8>> {
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let problem = match status {
        b"400" => Problem::new(
            Kind::Malformed,
            "the request line or a header is not HTTP/1.1 (RFC 9112)",
        ),
        b"414" => Problem::new(
            Kind::TargetTooLong,
            "the path and query are longer than 65,534 bytes",
        ),
        b"431" => Problem::new(
            Kind::HeadersTooLarge,
            "the request has more than 100 headers, or they are too large",
        ),
        _ => return None,
    };
    let head = std::str::from_utf8(answer).ok()?.strip_suffix("\r\n\r\n")?;
    let headers: Vec<&str> = head.split("\r\n").skip(1).collect();
    let is_empty = |line: &&str| line.eq_ignore_ascii_case("content-length: 0");
    if head.contains("\r\n\r\n") || !headers.iter().any(is_empty) {
        return None;
    }
    let status_line = head.split("\r\n").next()?;
    let body = problem.json();
    let length = body.len();
    let mut text = format!("{status_line}\r\n");
    for line in headers.iter().filter(|line| !is_empty(line)) {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str(&format!(
        "content-type: application/problem+json\r\ncontent-length: {length}\r\n\r\n"
    ));
    Some([text.into_bytes(), body].concat())
}

impl<S: AsyncWrite + Unpin> WithProblems<S> {
    /// Writes what stands in for a bare answer, if anything does.
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((text, written)) = &mut self.instead {
            if *written == text.len() {
                self.instead = None;
                break;
            }
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &text[*written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += count;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WithProblems<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        match instead_of(bytes) {
            Some(text) => {
                // Taken whole; it leaves with the next write, the flush or the shutdown.
                self.instead = Some((text, 0));
                Poll::Ready(Ok(bytes.len()))
            }
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // A bare answer has no body, so it comes in one piece.
        if let [only] = slices {
            return self.poll_write(cx, only);
        }
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WithProblems<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const BARE: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

    #[test]
    fn a_bare_error_keeps_its_status_and_headers_and_gets_a_body() {
        let text = String::from_utf8(instead_of(BARE.as_bytes()).unwrap()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(
                "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
            )
        );
        assert!(head.ends_with(&format!("content-length: {}", body.len())));
        assert!(head.contains("content-type: application/problem+json"));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["type"], "urn:quilt-mesh:problem:headers-too-large");
        assert_eq!(body["status"], 431);
    }

    #[test]
    fn answers_of_the_api_pass_as_they_are() {
        for passes in [
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n{}",
            "{\"nodes\":[]}",
            "",
        ] {
            assert_eq!(instead_of(passes.as_bytes()), None, "{passes}");
        }
    }

    /// Takes and gives back a few bytes at a time.
    async fn through(pieces: &[Vec<u8>], room: usize) -> Vec<u8> {
        let (near, mut far) = tokio::io::duplex(room);
        let mut near = WithProblems::new(near);
        let write = async {
            for piece in pieces {
                near.write_all(piece).await.unwrap();
            }
            near.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let (_, taken) = tokio::join!(write, far.read_to_end(&mut read));
        taken.unwrap();
        read
    }

    proptest! {
        #[test]
        fn whatever_the_connection_takes_at_a_time_nothing_is_lost_or_moved(
            before in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..4),
            room in 1..64_usize,
        ) {
            let mut expected = before.concat();
            expected.extend(instead_of(BARE.as_bytes()).unwrap());
            let mut pieces = before;
            pieces.push(BARE.into());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(through(&pieces, room)), expected);
        }
    }
}
