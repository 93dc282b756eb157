//! Where the runtime is, and how a connection to it is opened.

use std::{
    fmt, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

mod found;
mod listener;
mod tls;

pub use found::Found;
pub use tls::{RuntimeTls, RuntimeTlsError, TlsPlace};

/// Where the runtime serves.
#[derive(Debug, Clone)]
pub enum RuntimePlace {
    /// Nobody said where: at its own socket, or else on loopback.
    Found(Found),
    /// Host and port.
    Tcp(String),
    /// Host and port, with TLS.
    Tls(TlsPlace),
    /// The path of its Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for RuntimePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(found) => found.fmt(f),
            Self::Tcp(authority) => f.write_str(authority),
            Self::Tls(place) => place.fmt(f),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A connection that stands.
pub(crate) struct Opened {
    pub(crate) stream: Box<dyn Stream>,
    /// Under which name its server is spoken to.
    pub(crate) name: String,
    pub(crate) way: Way,
}

/// How a connection was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As it was said.
    Given,
    /// By the socket that was found.
    FoundSocket,
    /// Over loopback, for want of a socket.
    FoundPort,
}

/// A connection of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Opened {
    fn new(stream: impl Stream + 'static, name: &str) -> Self {
        Self {
            stream: Box::new(stream),
            name: name.to_owned(),
            way: Way::Given,
        }
    }
}

impl RuntimePlace {
    pub(crate) async fn open(&self) -> io::Result<Opened> {
        match self {
            Self::Found(found) => found.open().await,
            Self::Tcp(authority) => Ok(Opened::new(tcp(authority).await?, authority)),
            Self::Tls(place) => {
                let stream = place.secure(tcp(place.authority()).await?).await?;
                Ok(Opened::new(stream, place.authority()))
            }
            Self::Unix(path) => Ok(Opened::new(unix(path).await?, SOCKETS_NAME)),
        }
    }

    /// By what the runtime is reached, as a URL; nothing while one that is to be found was not yet.
    #[must_use]
    pub fn reached_by(&self) -> Option<String> {
        match self {
            Self::Found(found) => found.reached_by(),
            Self::Tcp(authority) => Some(format!("http://{authority}")),
            Self::Tls(place) => Some(place.to_string()),
            Self::Unix(path) => Some(format!("unix:{}", path.display())),
        }
    }

    /// Why the runtime was reached otherwise than by its socket although that is there, if it was.
    #[must_use]
    pub fn closed_socket(&self) -> Option<String> {
        match self {
            Self::Found(found) => found.closed_socket(),
            Self::Tcp(_) | Self::Tls(_) | Self::Unix(_) => None,
        }
    }

    /// Whether there is another place than that of such a connection, at which this agent is not served. It is gone to from
    /// now on.
    pub(crate) fn give_up(&self, way: Way) -> bool {
        match (self, way) {
            (Self::Found(found), Way::FoundSocket) => {
                found.shun_socket();
                true
            }
            _ => false,
        }
    }

    /// Whether another connection is to take the place of such a one by now.
    pub(crate) async fn has_better_than(&self, way: Way) -> bool {
        match self {
            Self::Found(found) => found.has_better_than(way).await,
            _ => false,
        }
    }
}

/// The name of whoever serves a socket. Nobody looks it up.
const SOCKETS_NAME: &str = "runtime";

async fn tcp(authority: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Connects to a socket that root serves, or the user whose file it is: the node's peers are told there, and what is
/// heard there is believed.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path).await?;
    let server = stream.peer_cred()?.uid();
    let owner = std::fs::symlink_metadata(path)?.uid();
    if server == 0 || server == owner {
        return Ok(stream);
    }
    Err(io::Error::other(format!(
        "user {server} serves the socket, which is user {owner}'s: not taken for the runtime"
    )))
}
