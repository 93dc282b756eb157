//! What a host needs to be a member of a mesh.

use std::{sync::Arc, time::Duration};

use mesh_credentials::{
    control_plane_check::{ControlPlaneCheck, KnownBy},
    node_key_pair::NodeKeyPair,
    tls,
};
use rustls::{ClientConfig, client::Resumption};

use super::TokenSource;
use crate::credentials::{Credentials, files::CredentialFiles};

/// How this host is a member of a mesh, and becomes one.
#[derive(Debug, Clone)]
pub struct Membership {
    /// Where its credentials are kept.
    pub files: CredentialFiles,
    /// Its key.
    pub key: Arc<NodeKeyPair>,
    /// What it has already.
    pub credentials: Option<Credentials>,
    /// What lets it join.
    pub token: Option<TokenSource>,
    /// The authorities, in PEM, by which a control plane is known that has a certificate of one's own.
    pub own_authorities: Option<String>,
    /// The node key that the host registers with.
    pub node_key: Option<String>,
    /// The node's name, for the words that say what to do.
    pub hostname: String,
    /// Time between two heartbeats, if the operator gave one.
    pub heartbeat_interval: Option<Duration>,
}

impl Membership {
    /// How TLS is spoken with these credentials, or without any by whoever has a join token for that authority.
    ///
    /// # Errors
    /// If certificate and key do not belong together, or the operator's authorities cannot be read.
    pub fn tls(
        &self,
        known_by: KnownBy,
        shown: Option<&Credentials>,
    ) -> Result<ClientConfig, rustls::Error> {
        let key = shown.map(|credentials| credentials.key.pem());
        let identity = shown.map(|credentials| credentials.certificate.as_str());
        let identity = identity.zip(key.as_deref());
        let mut config = match &self.own_authorities {
            Some(roots) => tls::client_of_own_authority(roots, identity)?,
            None => tls::client(Arc::new(ControlPlaneCheck::new(known_by)), identity)?,
        };
        // Each connection is checked by what is known then, and shows what there is then.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    pub(super) fn tls_of(&self, credentials: &Credentials) -> Result<ClientConfig, rustls::Error> {
        self.tls(KnownBy::Trust(credentials.trust.clone()), Some(credentials))
    }
}
