//! The control plane, for commands about all nodes.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use mesh_credentials::{
    control_plane_check::{ControlPlaneCheck, KnownBy},
    secret_file, tls,
    trust::Trust,
};
use mesh_rest::client::{Client, Connections};
use reqwest::Url;

/// How long a connection may take, and a call.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const CALL_DEADLINE: Duration = Duration::from_secs(10);

const USER_AGENT: &str = concat!("meshctl/", env!("CARGO_PKG_VERSION"));

/// Where the control plane is, and by what it lets an operator in.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ControlPlane {
    /// URL of the control plane; several times for its replicas.
    #[arg(
        long,
        env = "QUILT_MESH_CONTROL",
        value_name = "URL",
        value_delimiter = ','
    )]
    control: Vec<Url>,
    /// The authorities that sign its certificate, in PEM: the mesh's (as `GET /api/ca` tells them), or one's own.
    #[arg(
        long,
        env = "QUILT_MESH_CONTROL_CA",
        value_name = "FILE",
        requires = "control"
    )]
    control_ca: Option<PathBuf>,
    /// The operator's token; only its owner may be able to read the file.
    #[arg(
        long,
        env = "QUILT_MESH_CONTROL_TOKEN_FILE",
        value_name = "FILE",
        requires = "control"
    )]
    control_token_file: Option<PathBuf>,
    /// On its own host, its admin socket, in the place of all that.
    #[arg(
        long,
        env = "QUILT_MESH_CONTROL_SOCKET",
        value_name = "PATH",
        conflicts_with = "control"
    )]
    control_socket: Option<PathBuf>,
}

impl ControlPlane {
    /// A client of each replica; at least one.
    ///
    /// # Errors
    ///
    /// In words for who gave the options.
    pub(crate) fn clients(&self) -> anyhow::Result<Vec<Client>> {
        if let Some(path) = &self.control_socket {
            let connections = Connections::over_socket(CONNECT_DEADLINE, USER_AGENT, path)?;
            let base = Url::parse("http://localhost/")?;
            return Ok(vec![Client::new(connections, base, CALL_DEADLINE)]);
        }
        ensure!(
            !self.control.is_empty(),
            "which control plane? give --control with --control-token-file, or --control-socket on its own host"
        );
        let token = self.token()?;
        let tls = self.control_ca.as_deref().map(tls_with).transpose()?;
        let connections = match &tls {
            Some(tls) => Connections::over_tls(CONNECT_DEADLINE, USER_AGENT, tls.clone()),
            None => Connections::new(CONNECT_DEADLINE, USER_AGENT),
        }
        .context("cannot set up the HTTP client")?;
        self.control
            .iter()
            .map(|base| {
                match base.scheme() {
                    "https" => ensure!(
                        tls.is_some(),
                        "{base}: by whom is it known? --control-ca names the authorities"
                    ),
                    "http" => {}
                    other => bail!("{base}: {other} is neither http nor https"),
                }
                let client = Client::new(connections.clone(), base.clone(), CALL_DEADLINE);
                Ok(match &token {
                    Some(token) => client.bearing(token),
                    None => client,
                })
            })
            .collect()
    }

    fn token(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.control_token_file else {
            return Ok(None);
        };
        let text = secret_file::read(path)?;
        let text = text.with_context(|| format!("there is no {}", path.display()))?;
        let token = text.trim();
        ensure!(!token.is_empty(), "{} is empty", path.display());
        Ok(Some(token.to_owned()))
    }
}

/// Knows the control plane by the mesh's authorities, by whatever name it is called, or by other ones, by its name.
fn tls_with(path: &Path) -> anyhow::Result<rustls::ClientConfig> {
    let text = fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let config = match Trust::from_pem(&text) {
        Ok(trust) => tls::client(
            Arc::new(ControlPlaneCheck::new(KnownBy::Trust(trust))),
            None,
        ),
        Err(_) => tls::client_of_own_authority(&text, None),
    };
    config.with_context(|| format!("{} names no authorities", path.display()))
}
