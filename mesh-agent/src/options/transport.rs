//! How the control plane is known, and this node to it.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, ensure};
use clap::Args;
use mesh_credentials::{control_plane_check::KnownBy, tls};
use mesh_problems::catalog::agent::CERTIFICATE_NOT_SHOWN;
use reqwest::Url;
use rustls::ClientConfig;
use tracing::{info, warn};

use crate::{
    control_plane::Standing,
    credentials::{
        files::{CredentialFileError, CredentialFiles},
        own::OwnIdentity,
    },
    membership::{Membership, TokenError, TokenSource},
    problems::Problems,
};

/// How the control plane is known, and this node to it.
#[derive(Debug, Clone, Default, Args)]
pub struct TransportOptions {
    /// Join the mesh with this token, which "quilt-mesh-control token create" prints
    ///
    /// The token says by which key the control plane is known, and lets this host have a certificate, which is
    /// kept in the state directory and renewed before it expires. With a certificate the token is not used any more, and may
    /// stay where it is given; it is used again when the control plane does not take the certificate, or is known by nobody
    /// whom this host trusts: then the token says by whom, if the mesh is the same. Others on this host see a command line:
    /// see --join-file.
    #[arg(
        long,
        value_name = "TOKEN",
        env = "QUILT_MESH_JOIN",
        hide_env_values = true,
        conflicts_with_all = ["join_file", "tls_cert"]
    )]
    pub join: Option<Unshown>,

    /// The same, with the token in a file
    ///
    /// It is read again while the token in it is refused, and may be gone once the host has joined.
    #[arg(
        long,
        value_name = "FILE",
        env = "QUILT_MESH_JOIN_FILE",
        conflicts_with = "tls_cert"
    )]
    pub join_file: Option<PathBuf>,

    /// Authorities, in PEM, by which to know a control plane with a certificate of one's own (its --tls-cert)
    ///
    /// It is checked by the name or address in --control-plane. Otherwise it is known by the mesh's own authorities, by whatever
    /// name it is called.
    #[arg(long, value_name = "FILE", env = "QUILT_MESH_TLS_CA")]
    pub tls_ca: Option<PathBuf>,

    /// A certificate of one's own for this node, in PEM, in the place of one that joining gives it; read again, with its key,
    /// when it is replaced
    #[arg(
        long,
        value_name = "FILE",
        env = "QUILT_MESH_TLS_CERT",
        requires_all = ["tls_key", "tls_ca"]
    )]
    pub tls_cert: Option<PathBuf>,

    /// Its private key, in PEM; only its owner may be able to read the file
    #[arg(
        long,
        value_name = "FILE",
        env = "QUILT_MESH_TLS_KEY",
        requires = "tls_cert"
    )]
    pub tls_key: Option<PathBuf>,
}

/// Text that is not shown, neither in errors nor where things are printed for debugging.
#[derive(Clone)]
pub struct Unshown(String);

impl From<String> for Unshown {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Unshown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

/// What the options come to.
#[derive(Debug)]
pub(super) struct Transport {
    /// How TLS is spoken; none: not at all, or not before the host has joined.
    pub(super) tls: Option<ClientConfig>,
    pub(super) standing: Standing,
    /// The beginning of a membership, without what other options say.
    pub(super) membership: Option<Membership>,
    /// A certificate that the operator keeps.
    pub(super) own_certificate: Option<Arc<OwnIdentity>>,
}

impl TransportOptions {
    /// Sees to it that there is what is needed, and says what is not as it should be there.
    ///
    /// # Errors
    /// In words, with what to do.
    pub(super) fn transport(
        self,
        urls: &[Url],
        state: &Path,
        problems: &Problems,
    ) -> anyhow::Result<Transport> {
        let encrypted = urls.iter().filter(|url| url.scheme() == "https").count();
        ensure!(
            encrypted == 0 || encrypted == urls.len(),
            "--control-plane: the replicas are either all called by https:// or all by http://"
        );
        let files = CredentialFiles::in_directory(state);
        if encrypted == 0 {
            return self.plain(&files, problems);
        }
        let own_authorities = self.tls_ca.as_deref().map(|ca| pem("--tls-ca", ca));
        let own_authorities = own_authorities.transpose()?;
        if let (Some(roots), Some(certificate), Some(key)) =
            (&own_authorities, &self.tls_cert, &self.tls_key)
        {
            let identity = OwnIdentity::open(certificate.clone(), key.clone(), problems.clone())?;
            return own(roots, Some(Arc::new(identity)));
        }
        let given = self.given();
        if given.is_none() && !files.have_certificate() {
            return match &own_authorities {
                Some(roots) => own(roots, None),
                None => Err(anyhow!(
                    "https:// needs something to know the control plane by: --join TOKEN (quilt-mesh-control token create \
                     prints one), or --tls-ca; {} holds no certificate from an earlier join",
                    files.directory().display()
                )),
            };
        }
        let membership = member(files, given.transpose(), own_authorities)?;
        Ok(Transport {
            tls: match &membership.credentials {
                Some(known) => {
                    let trust = KnownBy::Trust(known.trust.clone());
                    Some(membership.tls(trust, Some(known)).context("TLS")?)
                }
                None => None,
            },
            standing: Standing::Waiting,
            membership: Some(membership),
            own_certificate: None,
        })
    }

    fn plain(&self, files: &CredentialFiles, problems: &Problems) -> anyhow::Result<Transport> {
        ensure!(
            self.given().is_none(),
            "a host joins over TLS; write https:// in --control-plane"
        );
        ensure!(
            self.tls_ca.is_none(),
            "--tls-ca is for https://; write that in --control-plane"
        );
        if files.have_certificate() {
            let directory = files.directory().display();
            warn!(name: "node-certificate-not-shown-over",
                code = CERTIFICATE_NOT_SHOWN.code, %directory,
                "this node has a certificate, which is not shown over http://; write https:// in --control-plane"
            );
            problems.raise(&CERTIFICATE_NOT_SHOWN, format!("it is in {directory}"));
        }
        Ok(Transport {
            tls: None,
            standing: Standing::Admitted(None),
            membership: None,
            own_certificate: None,
        })
    }

    /// Where a token is to be had, if there is said to be one.
    fn given(&self) -> Option<Result<TokenSource, TokenError>> {
        // An empty variable is how a unit file says that there is none.
        let join = self.join.as_ref().filter(|join| !join.0.trim().is_empty());
        if let Some(Unshown(token)) = join {
            let token = token.parse().map(TokenSource::Given);
            return Some(token.map_err(TokenError::Given));
        }
        let file = self.join_file.clone().map(TokenSource::File);
        file.map(Ok)
    }
}

fn own(roots: &str, identity: Option<Arc<OwnIdentity>>) -> anyhow::Result<Transport> {
    let mut tls = tls::client_of_own_authority(roots, None).context("--tls-ca")?;
    if let Some(identity) = &identity {
        tls.client_auth_cert_resolver = Arc::clone(identity) as _;
    }
    Ok(Transport {
        tls: Some(tls),
        standing: Standing::Admitted(None),
        membership: None,
        own_certificate: identity,
    })
}

fn pem(option: &str, path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("{option}: cannot read {}", path.display()))
}

/// Whether a token that cannot be read matters depends on whether it is needed.
fn member(
    files: CredentialFiles,
    token: Result<Option<TokenSource>, TokenError>,
    own_authorities: Option<String>,
) -> anyhow::Result<Membership> {
    let kept = files.read()?;
    let credentials = match (kept.credentials, &token) {
        (Ok(credentials), _) => credentials,
        (Err(unusable), Ok(Some(_))) => {
            warn!(name: "host-joins-again", %unusable, "the host joins again, with the join token");
            None
        }
        (Err(unusable), _) => return Err(CredentialFileError::from(unusable).into()),
    };
    let (key, token) = match &credentials {
        Some(credentials) => {
            // One that is of no use is not needed.
            let token = token.unwrap_or(None);
            (credentials.key.clone(), token)
        }
        None => {
            let token = token?;
            if let Some(source) = &token {
                source.read()?;
            }
            (files.key()?, token)
        }
    };
    match &credentials {
        Some(known) => {
            info!(name: "host-joined-before", node_id = known.node_id, mesh = %known.trust.mesh(), "this host has joined before");
        }
        None => info!(name: "host-joins",
            by = token.as_ref().map(tracing::field::debug),
            "this host joins"
        ),
    }
    Ok(Membership {
        files,
        key,
        credentials,
        token,
        own_authorities,
        node_key: None,
        hostname: String::new(),
        heartbeat_interval: None,
    })
}
