//! A new authority in the place of one whose key is lost (`--new-authority`).
//!
//! Every node has to join again, so it is done only where the key is nowhere: not in the file, and not at another control
//! plane that serves on the same database. The file that there was is kept under another name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mesh_credentials::authority::Authority;
use mesh_credentials::authority_file;
use mesh_credentials::name::MeshId;
use mesh_credentials::secret_file::SecretFileError;
use time::OffsetDateTime;
use tracing::warn;

use super::audit::Doer;
use super::authorities::AuthoritiesError;
use crate::access::mandate::Mandate;
use crate::registry::{Registry, unix_seconds};
use crate::replica::Others;
use crate::store::AuthorityState;

/// Names that are tried for the file that there was.
const MOST_NAMES: u32 = 100;

impl Registry {
    /// Makes an authority in the place of one whose key is lost. No node has a certificate that holds afterwards: each has
    /// to join again, and is the node that it was if it shows the key that it registered with. Who has no credentials is
    /// let in no more than before.
    ///
    /// # Errors
    ///
    /// [`AuthoritiesError`]; nothing has changed then.
    pub async fn replace_lost_authority(&self, file: &Path) -> Result<(), AuthoritiesError> {
        self.authorities.have(file, authority_file::read(file)?);
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
        let kept = keep(file, now).map_err(|cause| SecretFileError::File {
            path: file.to_owned(),
            cause,
        })?;
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
        change.finish().await?;
        self.credentials.read_anew();
        self.read_credentials().await?;
        let kept = kept.as_deref().map(Path::display);
        warn!(authority = %trusted.key(), nodes, kept = kept.map(tracing::field::display),
            "a new certificate authority is in the place of the lost one. The certificates of these nodes hold no longer: they \
             keep the network as it is and hear of no change until they join again (quilt-mesh-control token create --uses N; \
             there, start the agent with --join, and leave its files as they are). Nobody is let in without credentials \
             meanwhile; join tokens from before are worth nothing, operators' hold");
        Ok(())
    }
}

/// Gives the file a second name, which says when, and stays when the first is given to another. `None`: there is none.
fn keep(file: &Path, now: i64) -> io::Result<Option<PathBuf>> {
    let moment = OffsetDateTime::from_unix_timestamp(now).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (date, time) = (moment.date(), moment.time());
    let stamp = format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    );
    let mut name = file.as_os_str().to_owned();
    name.push(format!(".{stamp}"));
    for number in 1..=MOST_NAMES {
        let mut kept = name.clone();
        if number > 1 {
            kept.push(format!("-{number}"));
        }
        // The same file, so that its mode and its owner are what they were.
        match fs::hard_link(file, &kept) {
            Ok(()) => return Ok(Some(kept.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_file_that_there_was_stays_under_a_name_that_says_when() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        assert_eq!(keep(&file, 1_800_000_000).unwrap(), None);
        mesh_credentials::secret_file::create(&file, "one").unwrap();
        let kept = keep(&file, 1_800_000_000).unwrap().unwrap();
        assert_eq!(kept, folder.path().join("ca.pem.20270115T080000Z"));
        let again = keep(&file, 1_800_000_000).unwrap().unwrap();
        assert_eq!(again, folder.path().join("ca.pem.20270115T080000Z-2"));
        mesh_credentials::secret_file::replace(&file, "two").unwrap();
        assert_eq!(fs::read_to_string(&kept).unwrap(), "one");
        let mode = fs::metadata(&kept).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
