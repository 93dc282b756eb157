//! A new authority in the place of one whose key is lost (`--new-authority`).
//!
//! Every node has to join again, so it is done only where the key is nowhere: not in the file, and not at another control
//! plane that serves on the same database. The file that there was is kept under another name.

use std::io;
use std::path::Path;

use mesh_credentials::authority::Authority;
use mesh_credentials::authority_file::{self, AuthorityFileError, FiledAuthority};
use mesh_credentials::key_digest::KeyDigest;
use mesh_credentials::name::MeshId;
use mesh_credentials::secret_file::SecretFileError;
use mesh_credentials::trust::Trusted;
use tracing::warn;

use super::audit::Doer;
use super::authorities_error::AuthoritiesError;
use super::key_file;
use super::memory::signer;
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
        self.take_up_unfinished(file)?;
        if let Some(before) = self.signer_of_before()
            && let Some(newer) = signer(&before.before)
        {
            return Err(AuthoritiesError::Newer {
                file: file.to_owned(),
                newer: newer.trusted.key(),
                signs: before.in_database,
            });
        }
        let signs = match self.credentials.signs() {
            Some(signs) if self.authorities.find(signs).is_none() => signs,
            _ => {
                warn!(name: "new-authority-no-effect",
                    "--new-authority has no effect: the key of the certificate authority is not lost"
                );
                return self.open_authorities(file).await;
            }
        };
        match self.others_that_sign().await? {
            Others::None => {}
            Others::Sign => return Err(AuthoritiesError::NotLost { signs }),
            Others::Silent(count) | Others::Ask(count) => {
                return Err(AuthoritiesError::OthersRun(count));
            }
        }
        let trust = self.credentials.trust();
        let mesh = trust.map_or_else(MeshId::make, |trust| trust.mesh().clone());
        let now = unix_seconds();
        let authority = Authority::make(mesh, now)?;
        let trusted = authority.trusted().clone();
        // Before it is trusted, or it might be so without a key; and beside what there is, until it is.
        let new = key_file::unfinished(file);
        let filed = FiledAuthority::new(authority, AuthorityState::Signs);
        authority_file::replace(&new, &[filed])?;
        let replaced = self.replace_in_database(signs, &trusted, now).await;
        self.credentials.read_anew();
        let read = self.read_credentials().await;
        // Made within one second, the new one may look like one from before the lost one.
        self.credentials.take_those_of_the_database();
        if replaced.is_err() && read.is_ok() && self.credentials.signs() != Some(trusted.key()) {
            // It never was. Where that cannot be told, the next start looks at it.
            remove(&new);
        }
        let nodes = replaced?;
        read?;
        let kept = key_file::keep(file, now).map_err(not_kept)?;
        std::fs::rename(&new, file).map_err(not_kept)?;
        self.authorities.have(file, authority_file::read(file)?);
        let kept = kept.as_deref().map(Path::display);
        warn!(name: "new-certificate-authority-place-lost", authority = %trusted.key(), nodes, kept = kept.map(tracing::field::display),
            "a new certificate authority is in the place of the lost one. The certificates of these nodes hold no longer: they \
             keep the network as it is and hear of no change until they join again (quilt-mesh-control token create --uses N; \
             there, start the agent with --join, and leave its files as they are). Nobody is let in without credentials \
             meanwhile; join tokens from before are worth nothing, operators' hold");
        Ok(())
    }

    /// Trusts it in the place of the `lost` one, unless another control plane has put one there. How many nodes have to join
    /// again.
    async fn replace_in_database(
        &self,
        lost: KeyDigest,
        trusted: &Trusted,
        now: i64,
    ) -> Result<u64, AuthoritiesError> {
        let _turn = self.turn.lock().await;
        let mut change = self.store.begin_credentials().await?;
        let stored = change.authorities().await?;
        let signs = signer(&stored).map(|it| it.trusted.key());
        if signs != Some(lost) {
            change.roll_back().await?;
            return Err(AuthoritiesError::NotLost {
                signs: signs.unwrap_or(lost),
            });
        }
        change.remove_authorities().await?;
        let state = AuthorityState::Signs;
        change.add_authority(trusted, state, now).await?;
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
        Ok(nodes)
    }

    /// Takes up the file that a replacement left which ended before its last step: if it holds the authority that signs.
    pub(super) fn take_up_unfinished(&self, file: &Path) -> Result<(), AuthoritiesError> {
        let new = key_file::unfinished(file);
        let left = authority_file::read(&new).unwrap_or_default();
        let Some(signs) = self.credentials.signs() else {
            return Ok(());
        };
        let is_it = left.iter().any(|it| it.trusted().key() == signs);
        if !is_it || self.authorities.find(signs).is_some() {
            return Ok(());
        }
        let failed = |cause| SecretFileError::File {
            path: file.to_owned(),
            cause,
        };
        key_file::keep(file, unix_seconds()).map_err(failed)?;
        std::fs::rename(&new, file).map_err(failed)?;
        self.authorities.have(file, left);
        warn!(name: "replacement-certificate-authority-ended-before", authority = %signs, "a replacement of the certificate authority had ended before its last step, which is done now");
        Ok(())
    }
}

fn remove(file: &Path) {
    if let Err(error) = std::fs::remove_file(file)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(name: "cannot-remove-file-authority-not", %error, file = %file.display(), "cannot remove the file of an authority that is not used");
    }
}
