//! The port on which metrics are served, and who gets through.

use std::{io, net::SocketAddr, sync::Arc};

use mesh_problems::{Problem, catalog::metrics::METRICS_PORT_TAKEN};
use tokio::net::TcpListener;

use crate::{
    tls::{Certificate, TlsError},
    token::{TokenError, TokenFile},
};

/// Why metrics cannot be served as the options say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// Anybody could read them.
    #[error(
        "--metrics-addr {0} is beyond loopback, where whoever reaches it could read who talks to whom, and how much: give \
         --metrics-tls-cert, --metrics-tls-key and --metrics-token-file, or serve metrics on 127.0.0.1, or nowhere \
         (--metrics-addr off)"
    )]
    BeyondLoopback(SocketAddr),
    /// Certificate or key.
    #[error("{0}")]
    Tls(String),
    /// The token.
    #[error("{0}")]
    Token(String),
    /// The kernel has something against the address.
    #[error("cannot serve metrics on {address} (see --metrics-addr): {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl From<TlsError> for DoorError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error.to_string())
    }
}

impl From<TokenError> for DoorError {
    fn from(error: TokenError) -> Self {
        Self::Token(error.to_string())
    }
}

/// A port on which metrics may be served: one that is not open to everybody.
#[derive(Debug)]
pub struct Door {
    address: SocketAddr,
    pub(crate) certificate: Option<Certificate>,
    pub(crate) token: Option<TokenFile>,
}

/// What became of opening it.
#[derive(Debug)]
pub enum Opened {
    /// It is open, there.
    At(Arc<Door>, TcpListener),
    /// Somebody else has the port, which keeps no daemon from its work.
    Taken(Problem),
}

impl Door {
    pub(crate) fn new(
        address: SocketAddr,
        certificate: Option<Certificate>,
        token: Option<TokenFile>,
    ) -> Self {
        Self {
            address,
            certificate,
            token,
        }
    }

    /// Where it is to be.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens it, and says in the log where, or who is in the way.
    ///
    /// # Errors
    ///
    /// [`DoorError::Listen`], but for a port that is taken.
    pub async fn open(self) -> Result<Opened, DoorError> {
        let address = self.address;
        match TcpListener::bind(address).await {
            Ok(listener) => {
                // A free port was chosen, perhaps.
                let at = listener.local_addr().unwrap_or(address);
                let tls = self.certificate.is_some();
                tracing::info!(name: "serving-metrics", address = %at, tls, "serving metrics");
                Ok(Opened::At(Arc::new(self), listener))
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let problem = Problem::new(
                    &METRICS_PORT_TAKEN,
                    format!("{address} is taken by another process"),
                );
                tracing::warn!(name: "problem", "{problem}");
                Ok(Opened::Taken(problem))
            }
            Err(cause) => Err(DoorError::Listen { address, cause }),
        }
    }

    /// Whether a page of any site could reach it by the browser of somebody on this host: over plain HTTP.
    pub(crate) fn looks_at_names(&self) -> bool {
        self.certificate.is_none()
    }
}
