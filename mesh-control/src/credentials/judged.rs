//! What is stored of credentials, as requests are judged by it.

use mesh_credentials::certificate::Presented;
use mesh_credentials::key_digest::KeyDigest;
use mesh_rest::security::Stage;
use tokio::sync::watch;

use super::audit::Doer;
use super::reading::MOST_READINGS;
use super::refusal::CredentialError;
use crate::access::credentials::{Credentials, NodeCredential, OperatorCredential, Refusal};
use crate::access::mandate::Mandate;
use crate::registry::Registry;
use crate::store::{AuthorityState, CredentialChange, CredentialsBefore, StoreError};

impl Registry {
    /// Starts a change of credentials that somebody asks for, and judges again whether they may: by what the database has of
    /// credentials, which nobody changes until this ends.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotAnyMore`]; [`CredentialError::Store`].
    pub(crate) async fn begin_credentials(
        &self,
        mandate: &Mandate,
    ) -> Result<CredentialChange, CredentialError> {
        let mut change = self.store.begin_credentials().await?;
        self.know_credentials(change.credentials_before()).await?;
        if let Err(refused) = mandate.judge() {
            change.roll_back().await?;
            return Err(CredentialError::NotAnyMore(refused));
        }
        Ok(change)
    }

    /// Whether somebody may still ask for something of which nothing is stored: by what the database has of credentials.
    ///
    /// # Errors
    ///
    /// See [`Self::begin_credentials`].
    pub(crate) async fn may_still(&self, mandate: &Mandate) -> Result<(), CredentialError> {
        let change = self.begin_credentials(mandate).await?;
        Ok(change.roll_back().await?)
    }

    /// Reads what is not known of credentials when a change begins: another replica may have changed some a moment ago.
    /// Whoever holds the lock of a change knows afterwards what holds until that ends.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub(crate) async fn know_credentials(
        &self,
        mut before: CredentialsBefore<'_>,
    ) -> Result<(), StoreError> {
        for _ in 0..MOST_READINGS {
            let known = self.credentials.known();
            if known.revision == before.revision() {
                return Ok(());
            }
            let Some(changes) = before.since(known.revision).await? else {
                return Ok(());
            };
            if self.take_in_credentials(known, changes).is_ok() {
                return Ok(());
            }
        }
        Err(StoreError::OtherHistory)
    }
}

impl Credentials for Registry {
    fn stage(&self) -> Stage {
        self.credentials.stage()
    }

    fn has_credentials(&self) -> bool {
        self.credentials.any()
    }

    fn node(&self, node_id: &str) -> Option<NodeCredential> {
        let state = self.credentials.state();
        let known = state.nodes.get(node_id)?;
        Some(NodeCredential {
            key: known.key,
            revoked: known.revoked,
        })
    }

    fn node_called(&self, name: KeyDigest) -> Option<String> {
        self.credentials.node_called(name)
    }

    fn trusts(&self, certificate: &Presented) -> bool {
        // Every authority has a name of its own, with the digest of its key, and signs itself.
        let state = self.credentials.state();
        let mut authorities = state.authorities.iter();
        authorities.any(|it| it.trusted.presented.issuer == certificate.issuer)
    }

    fn signs(&self, certificate: &Presented) -> bool {
        let state = self.credentials.state();
        let mut authorities = state.authorities.iter();
        let signs = authorities.find(|it| it.state == AuthorityState::Signs);
        signs.is_some_and(|it| it.trusted.presented.issuer == certificate.issuer)
    }

    fn operator(&self, id: &str) -> Option<OperatorCredential> {
        let state = self.credentials.state();
        let known = state.operators.get(id)?;
        Some(OperatorCredential {
            digest: known.secret,
            role: known.role,
            name: known.name.clone(),
            revoked: known.revoked_at.is_some(),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.credentials.narrowings()
    }

    fn refused(&self, refusal: &Refusal) {
        let doer = Doer {
            who: refusal.who.clone(),
            source: refusal.source.to_string(),
            mandate: Mandate::own(),
        };
        let mut entry = doer.tried("refused", &refusal.what, &refusal.why);
        entry.times = i64::try_from(refusal.times).unwrap_or(i64::MAX);
        self.note(entry);
    }
}
