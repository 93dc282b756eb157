//! A kept HTTP/1.1 connection: just what the control plane's answers need.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use mesh_rest::heartbeat_token::HEADER as TOKEN;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longer than any answer may take: a feed's wait, and a queue of registrations before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The largest answer is the whole list: about 250 bytes for a node.
const LONGEST_HEAD: usize = 16 * 1024;

/// Of a body that is thrown away so much is kept.
const GLIMPSE: usize = 256;

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The body, if the request succeeded.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        let text = || String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        ensure!(self.status == 200, "answered {}: {}", self.status, text());
        serde_json::from_slice(&self.body).with_context(|| format!("unexpected body: {}", text()))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    /// By which an agent shows that it goes on as its node: sent with each request, and replaced by what is answered.
    pub(crate) token: Option<String>,
    /// Grows for an answer and is given back, so that thousands of connections stay small.
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address))
            .await
            .context("no connection in time")?
            .context("cannot connect")?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            token: None,
            buffer: Vec::new(),
        })
    }

    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n"),
            "",
            usize::MAX,
        )
        .await
    }

    /// The same for an answer of megabytes: of its body only the beginning is kept.
    pub(crate) async fn glimpse(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.send(
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n"),
            "",
            GLIMPSE,
        )
        .await
    }

    pub(crate) async fn post(&mut self, path: &str, json: &str) -> anyhow::Result<Answer> {
        let length = json.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n"
        );
        self.send(head, json, usize::MAX).await
    }

    /// `head` is without the token and the empty line. Of the answer's body `most` bytes are kept.
    async fn send(&mut self, mut head: String, body: &str, most: usize) -> anyhow::Result<Answer> {
        if let Some(token) = &self.token {
            head.push_str(&format!("{TOKEN}: {token}\r\n"));
        }
        head.push_str("\r\n");
        head.push_str(body);
        let exchange = async {
            self.stream.write_all(head.as_bytes()).await?;
            self.read(most).await
        };
        timeout(PATIENCE, exchange)
            .await
            .context("no answer in time")?
    }

    async fn read(&mut self, most: usize) -> anyhow::Result<Answer> {
        loop {
            if let Some(head) = Head::read(&self.buffer)? {
                self.buffer.drain(..head.length);
                if head.token.is_some() {
                    self.token = head.token;
                }
                let (mut body, mut left) = (Vec::new(), head.body);
                loop {
                    let here = left.min(self.buffer.len());
                    let kept = here.min(most.saturating_sub(body.len()));
                    body.extend_from_slice(&self.buffer[..kept]);
                    self.buffer.drain(..here);
                    left -= here;
                    if left == 0 {
                        break;
                    }
                    self.read_more(left).await?;
                }
                // Thousands of connections stay small.
                self.buffer.shrink_to(0);
                return Ok(Answer {
                    status: head.status,
                    body,
                });
            }
            ensure!(self.buffer.len() < LONGEST_HEAD, "an answer without a head");
            self.read_more(0).await?;
        }
    }

    async fn read_more(&mut self, wanted: usize) -> anyhow::Result<()> {
        self.buffer.reserve(wanted.clamp(2048, 64 * 1024));
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => bail!("the control plane closed the connection"),
            _ => Ok(()),
        }
    }
}

/// What of an answer's head matters.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Bytes of the head.
    length: usize,
    /// Bytes of the body.
    body: usize,
    /// What to come with next.
    token: Option<String>,
}

impl Head {
    /// `None` if it is not complete yet.
    fn read(buffer: &[u8]) -> anyhow::Result<Option<Self>> {
        let Some(length) = buffer.windows(4).position(|it| it == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = str::from_utf8(&buffer[..length]).context("a head that is no text")?;
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| {
                line.strip_prefix("HTTP/1.1 ")?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .with_context(|| format!("no status in {text:?}"))?;
        let (mut body, mut token) = (None, None);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case(TOKEN) {
                token = Some(value.trim().to_owned());
            }
        }
        Ok(Some(Self {
            status,
            length: length + 4,
            body: body.with_context(|| format!("no length in {text:?}"))?,
            token,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_tells_status_and_length() {
        let head = b"HTTP/1.1 503 Service Unavailable\r\nDate: x\r\nContent-Length: 12\r\n\r\n{\"a";
        let read = Head::read(head).unwrap().unwrap();
        assert_eq!((read.status, read.body), (503, 12));
        assert_eq!(&head[read.length..], b"{\"a");
        assert_eq!(Head::read(&head[..30]).unwrap(), None);
        assert!(Head::read(b"SSH-2.0\r\n\r\n").is_err());
    }
}
