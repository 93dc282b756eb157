//! Where the runtime is, and what is shown to it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::values::{self, RuntimeUrl};
use crate::runtime_place::{Found, RuntimePlace, RuntimeTls, TlsPlace};

/// The options about the runtime's place.
#[derive(Debug, Clone, Args)]
pub struct RuntimeOptions {
    /// URL of the container runtime's gRPC interface on this node: unix:/PATH, http:// or https://
    ///
    /// Default: unix:/run/quilt-mesh/runtime.sock, or http://127.0.0.1:50051 while there is no such
    /// socket, nobody serves it, or this process may not call there: that takes root, or the group of the
    /// runtime's --socket-group. The port is called only if root, or this process' own user, listens there.
    /// What is given here is called and nothing else. https:// needs the three options that follow.
    #[arg(
        long,
        value_name = "URL",
        env = "QUILT_MESH_QUILT_RUNTIME",
        value_parser = values::runtime_url
    )]
    pub quilt_runtime: Option<RuntimeUrl>,

    /// Certificate that is shown to the runtime at https://, in PEM; signed by a CA of its --tls-ca
    ///
    /// The three files are read for each connection.
    #[arg(long, value_name = "FILE", env = "QUILT_MESH_RUNTIME_TLS_CERT")]
    pub runtime_tls_cert: Option<PathBuf>,

    /// Key of --runtime-tls-cert, in PEM; only its owner may be able to read the file
    #[arg(long, value_name = "FILE", env = "QUILT_MESH_RUNTIME_TLS_KEY")]
    pub runtime_tls_key: Option<PathBuf>,

    /// CA that has signed the runtime's certificate, in PEM; there may be several in the file
    #[arg(long, value_name = "FILE", env = "QUILT_MESH_RUNTIME_TLS_CA")]
    pub runtime_tls_ca: Option<PathBuf>,
}

impl RuntimeOptions {
    /// Where the runtime is.
    ///
    /// # Errors
    /// Options that do not go together, or files that are of no use.
    pub fn place(self) -> anyhow::Result<RuntimePlace> {
        let files = [
            self.runtime_tls_cert,
            self.runtime_tls_key,
            self.runtime_tls_ca,
        ];
        let (authority, name) = match self.quilt_runtime {
            Some(RuntimeUrl::Https { authority, name }) => (authority, name),
            _ if files.iter().any(Option::is_some) => {
                bail!("--runtime-tls-… are for --quilt-runtime https://…")
            }
            None => return Ok(RuntimePlace::Found(Found::default())),
            Some(RuntimeUrl::Http(authority)) => return Ok(RuntimePlace::Tcp(authority)),
            Some(RuntimeUrl::Unix(path)) => return Ok(RuntimePlace::Unix(path)),
        };
        let [Some(certificate), Some(key), Some(authorities)] = files else {
            bail!(
                "--quilt-runtime https://… needs --runtime-tls-cert, --runtime-tls-key and --runtime-tls-ca: the runtime \
                 asks for a certificate"
            );
        };
        let files = RuntimeTls {
            certificate,
            key,
            authorities,
        };
        files.load().context("cannot speak TLS with the runtime")?;
        Ok(RuntimePlace::Tls(TlsPlace::new(authority, name, files)))
    }
}
