//! Connections, byte for byte.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_credentials::control_plane_check::{ControlPlaneCheck, KnownBy};
use mesh_credentials::tls;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::server::{NodeIdentity, Server};

/// How long anything may take. Only a failing test waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The last part of the type of a problem.
    pub(crate) fn kind(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        let kind = body["type"].as_str().unwrap_or_default();
        kind.rsplit(':').next().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut values = lines.filter(|(other, _)| other.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value)
    }
}

/// A connection that is read answer by answer.
pub(crate) struct Connection<S> {
    pub(crate) stream: S,
    read: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub(crate) async fn send(&mut self, request: &str) -> io::Result<()> {
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await
    }

    pub(crate) async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await.unwrap();
        self.answer().await.unwrap()
    }

    /// The next answer; an error: the connection ended before.
    pub(crate) async fn answer(&mut self) -> io::Result<Answer> {
        timeout(PATIENCE, self.next_answer())
            .await
            .expect("an answer in time")
    }

    async fn next_answer(&mut self) -> io::Result<Answer> {
        let end = loop {
            match self.read.windows(4).position(|it| it == b"\r\n\r\n") {
                Some(end) => break end,
                None => self.read_more().await?,
            }
        };
        let head = String::from_utf8(self.read.drain(..end + 4).collect()).unwrap();
        let mut answer = Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: String::new(),
        };
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().unwrap();
            while self.read.len() < length {
                self.read_more().await?;
            }
            answer.body = String::from_utf8_lossy(&self.read[..length]).into_owned();
            self.read.drain(..length);
        }
        Ok(answer)
    }

    /// The next answer, to a request for the head alone.
    pub(crate) async fn answer_head(&mut self) -> io::Result<Answer> {
        let mut all = String::new();
        let read = self.stream.read_to_string(&mut all);
        timeout(PATIENCE, read).await.expect("an end in time")?;
        Ok(Answer {
            status: all.split(' ').nth(1).unwrap().parse().unwrap(),
            head: all,
            body: String::new(),
        })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Whether nothing more comes.
    pub(crate) async fn is_over(&mut self) -> bool {
        let mut rest = [0];
        let read = timeout(PATIENCE, self.stream.read(&mut rest)).await;
        matches!(read.expect("an end in time"), Ok(0) | Err(_))
    }
}

pub(super) async fn plain(server: &Server) -> Connection<TcpStream> {
    Connection::new(TcpStream::connect(server.address).await.unwrap())
}

pub(crate) async fn plain_at(address: SocketAddr) -> Connection<TcpStream> {
    Connection::new(TcpStream::connect(address).await.unwrap())
}

/// A connection over TLS, shown this certificate. An error: the handshake failed on this side.
pub(super) async fn try_tls(
    server: &Server,
    identity: Option<(&str, &str)>,
) -> io::Result<Connection<TlsStream<TcpStream>>> {
    let check = ControlPlaneCheck::new(KnownBy::Trust(server.trust()));
    let config = tls::client(Arc::new(check), identity).map_err(io::Error::other)?;
    let stream = TcpStream::connect(server.address).await?;
    let name = server.address.ip().into();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream);
    Ok(Connection::new(timeout(PATIENCE, stream).await??))
}

pub(super) async fn tls(
    server: &Server,
    identity: Option<&NodeIdentity>,
) -> Connection<TlsStream<TcpStream>> {
    try_tls(server, identity.map(NodeIdentity::pem))
        .await
        .unwrap()
}

/// A request without a body.
pub(crate) fn request(method: &str, path: &str, headers: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

/// One with a body of JSON.
pub(crate) fn with_json(method: &str, path: &str, headers: &str, json: &Value) -> String {
    let json = json.to_string();
    let length = json.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{json}"
    )
}
