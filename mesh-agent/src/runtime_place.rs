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
    /// Whether a better one is to be looked for.
    pub(crate) makeshift: bool,
}

/// A connection of any kind.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Opened {
    fn new(stream: impl Stream + 'static, name: &str) -> Self {
        Self {
            stream: Box::new(stream),
            name: name.to_owned(),
            makeshift: false,
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

    /// Whether there is another place, where an agent may be served if it is not at this one; it is gone to from now on.
    pub(crate) fn give_up(&self) -> bool {
        match self {
            Self::Found(found) => {
                found.shun_socket();
                true
            }
            _ => false,
        }
    }

    /// Whether a connection that is makeshift has a better one beside it by now.
    pub(crate) async fn has_better(&self) -> bool {
        match self {
            Self::Found(found) => found.has_socket().await,
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
