//! A kept HTTP/1.1 connection: just what the control plane's answers need.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use mesh_rest::heartbeat_token::HEADER as TOKEN;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Longer than any answer may take: a feed's wait, and a queue of registrations before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long an agent waits for a TLS connection, as `quilt-mesh-agent` does.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(5);

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

/// Where the control plane is, and how it is spoken to: plain, or as this client of TLS.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    pub(crate) address: SocketAddr,
    /// This host's address, where it is not to be the usual one.
    pub(crate) from: Option<Ipv4Addr>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// Plain.
impl From<SocketAddr> for Way {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            from: None,
            tls: None,
        }
    }
}

impl Way {
    /// The same from an address of loopback's for each host: the control plane tells its clients apart by it.
    pub(crate) fn of_host(self, number: u32) -> Self {
        let first = Ipv4Addr::new(127, 1, 0, 0).to_bits();
        Self {
            from: Some(Ipv4Addr::from_bits(first + number + 1)),
            ..self
        }
    }
}

/// What carries the bytes.
trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + fmt::Debug> Carrier for T {}

/// A TCP connection to the control plane.
pub(crate) async fn connect(way: &Way) -> anyhow::Result<TcpStream> {
    let socket = match way.address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if let Some(from) = way.from {
        socket.bind((from, 0).into())?;
    }
    let stream = timeout(PATIENCE, socket.connect(way.address))
        .await
        .context("no connection in time")?
        .context("cannot connect")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Box<dyn Carrier>,
    /// By which an agent shows that it goes on as its node: sent with each request, and replaced by what is answered.
    pub(crate) token: Option<String>,
    /// Grows for an answer and is given back, so that thousands of connections stay small.
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(way: impl Into<Way>) -> anyhow::Result<Self> {
        let way = way.into();
        Self::over(connect(&way).await?, &way).await
    }

    /// Goes on from a TCP connection.
    pub(crate) async fn over(stream: TcpStream, way: &Way) -> anyhow::Result<Self> {
        let stream: Box<dyn Carrier> = match &way.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = ServerName::from(way.address.ip());
                let handshake = TlsConnector::from(Arc::clone(tls)).connect(name, stream);
                let shaken = timeout(HANDSHAKE_PATIENCE, handshake).await;
                Box::new(shaken.context("no TLS handshake in time")?.context("TLS")?)
            }
        };
        Ok(Self {
            stream,
            token: None,
            buffer: Vec::new(),
        })
    }

    /// To the admin socket.
    pub(crate) async fn open_admin(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.with_context(|| format!("cannot connect to {}", socket.display()))?;
        Ok(Self {
            stream: Box::new(stream),
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
            self.stream.flush().await?;
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
