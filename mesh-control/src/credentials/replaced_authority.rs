//! A new authority in the place of one whose key is lost (`--new-authority`).
//!
//! Every node has to join again, so it is done only where the key is nowhere: not in the file, and not at another control
//! plane that serves on the same database. The file that there was is kept under another name.

use std::path::Path;

use mesh_credentials::authority::Authority;
use mesh_credentials::authority_file::{self, AuthorityFileError};
use mesh_credentials::name::MeshId;
use mesh_credentials::secret_file::SecretFileError;
use tracing::warn;

use super::audit::Doer;
use super::authorities::AuthoritiesError;
use super::key_file;
use crate::access::mandate::Mandate;
use crate::registry::{Registry, unix_seconds};
use crate::replica::Others;
use crate::store::AuthorityState;

impl Registry {
    /// Makes an authority in the place of one whose key is lost. No node has a certificate that holds afterwards: each has
    /// to join again, and is the node that it was if it shows the key that it registered with. Who has no credentials is
    /// let in no more than before.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`]; nothing has changed then.
    pub async fn replace_lost_authority(&self, file: &Path) -> Result<(), AuthoritiesError> {
        let not_kept = |cause| SecretFileError::File {
            path: file.to_owned(),
            cause,
        };
        let found = match authority_file::read(file) {
            Err(AuthorityFileError::NoKey { .. }) => {
                if self.credentials.signs().is_none() {
                    key_file::set_aside(file, unix_seconds()).map_err(not_kept)?;
                }
                Vec::new()
            }
            found => found?,
        };
        self.authorities.have(file, found);
        let signs = match self.credentials.signs() {
            Some(signs) if self.authorities.find(signs).is_none() => signs,
            _ => {
                warn!(
                    "--new-authority has no effect: the key of the certificate authority is not lost"
                );
                return self.open_authorities(file).await;
            }
        };
        match self.others_that_sign().await? {
            Others::None => {}
            Others::Sign => return Err(AuthoritiesError::NotLost { signs }),
            Others::Silent(count) => return Err(AuthoritiesError::OthersRun(count)),
        }
        let trust = self.credentials.trust();
        let mesh = trust.map_or_else(MeshId::make, |trust| trust.mesh().clone());
        let now = unix_seconds();
        let authority = Authority::make(mesh, now)?;
        let trusted = authority.trusted().clone();
        let kept = key_file::keep(file, now).map_err(not_kept)?;
        authority_file::replace(file, &[authority])?;
        self.authorities.have(file, authority_file::read(file)?);
        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        change.remove_authorities().await?;
        let state = AuthorityState::Signs;
        change.add_authority(&trusted, state, now).await?;
        let nodes = change.forget_nodes().await?;
        let doer = Doer {
            who: "admin".to_owned(),
            source: "--new-authority".to_owned(),
            mandate: Mandate::own(),
        };
        let subject = format!("authority {}", trusted.key());
        change
            .keep_audit(&doer.did("replace lost authority", &subject))
            .await?;
        self.finish_credentials(change).await?;
        let kept = kept.as_deref().map(Path::display);
        warn!(authority = %trusted.key(), nodes, kept = kept.map(tracing::field::display),
            "a new certificate authority is in the place of the lost one. The certificates of these nodes hold no longer: they \
             keep the network as it is and hear of no change until they join again (quilt-mesh-control token create --uses N; \
             there, start the agent with --join, and leave its files as they are). Nobody is let in without credentials \
             meanwhile; join tokens from before are worth nothing, operators' hold");
        Ok(())
    }
}
