//! How one authority takes the place of another, so that nobody is shut out: the next is trusted before it signs, and the last
//! until nothing that it signed is in use.

use mesh_credentials::authority::Authority;
use mesh_credentials::authority_file::FiledAuthority;
use mesh_credentials::key_digest::KeyDigest;

use super::audit::Doer;
use super::refusal::CredentialError;
use crate::registry::{Registry, unix_seconds};
use crate::store::{AuthorityState, CredentialChange};

/// Nodes that a refusal names.
const MOST_NAMED: usize = 10;

impl Registry {
    /// Makes the authority that signs next, and has it trusted.
    ///
    /// # Errors
    ///
    /// [`CredentialError`]; nothing has changed then.
    pub async fn prepare_rotation(&self, doer: &Doer) -> Result<KeyDigest, CredentialError> {
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        let mesh = self.signer_in(&mut change).await?.mesh().clone();
        let under_way = Under::way(&mut change).await?;
        if !matches!(under_way, Under::Nothing) {
            change.roll_back().await?;
            return Err(under_way.out_of_turn());
        }
        let now = unix_seconds();
        let next = Authority::make(mesh, now)?;
        let trusted = next.trusted().clone();
        // First, or the key might be lost of what is trusted.
        self.authorities
            .add(vec![FiledAuthority::new(next, AuthorityState::Next)])
            .map_err(|error| CredentialError::NoAuthority(error.to_string()))?;
        let state = AuthorityState::Next;
        change.add_authority(&trusted, state, now).await?;
        let subject = format!("authority {}", trusted.key());
        change
            .keep_audit(&doer.did("prepare rotation", &subject))
            .await?;
        self.finish_credentials(change).await?;
        Ok(trusted.key())
    }

    /// Has the next authority sign in the place of the present one.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotNow`], also while nodes that are up do not trust it yet, unless forced.
    pub async fn activate_rotation(
        &self,
        force: bool,
        doer: &Doer,
    ) -> Result<KeyDigest, CredentialError> {
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        let next = match Under::way(&mut change).await? {
            Under::Prepared { next } => next,
            other => {
                change.roll_back().await?;
                return Err(other.out_of_turn());
            }
        };
        if self.authorities.find(next).is_none() {
            return Err(CredentialError::NoAuthority(format!(
                "its file lacks the key of the next authority {next}; see quilt-mesh-control ca import"
            )));
        }
        let late = change.nodes_without_word_of(next).await?;
        if !late.is_empty() && !force {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(format!(
                "{} not trust the next authority yet, which takes up to four heartbeats: {}",
                match late.len() {
                    1 => "1 node that is up does".to_owned(),
                    count => format!("{count} nodes that are up do"),
                },
                named(&late)
            )));
        }
        change
            .move_authorities(AuthorityState::Signs, AuthorityState::Last)
            .await?;
        change
            .move_authorities(AuthorityState::Next, AuthorityState::Signs)
            .await?;
        let subject = format!("authority {next}");
        change
            .keep_audit(&doer.did("activate rotation", &subject))
            .await?;
        self.finish_credentials(change).await?;
        Ok(next)
    }

    /// Trusts the last authority no longer.
    ///
    /// # Errors
    ///
    /// [`CredentialError::NotNow`], also while certificates that it signed are in use, unless forced.
    pub async fn finish_rotation(&self, force: bool, doer: &Doer) -> Result<(), CredentialError> {
        let _turn = self.turn.lock().await;
        let mut change = self.begin_credentials(&doer.mandate).await?;
        let last = match Under::way(&mut change).await? {
            Under::Activated { last, .. } => last,
            other => {
                change.roll_back().await?;
                return Err(other.out_of_turn());
            }
        };
        let now = unix_seconds();
        let late = change.nodes_of_issuer(last, now).await?;
        if !late.is_empty() && !force {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(format!(
                "{} of the last authority, and would be shut out: {}. Those that are up renew theirs within four heartbeats. \
                 One that is off comes back first, or else (--force) by a token as the node that it was: \
                 quilt-mesh-control token create, and its agent's --join",
                match late.len() {
                    1 => "1 node still has a certificate".to_owned(),
                    count => format!("{count} nodes still have certificates"),
                },
                named(&late)
            )));
        }
        change.end_authorities(AuthorityState::Last, now).await?;
        let subject = format!("authority {last}");
        change
            .keep_audit(&doer.did("finish rotation", &subject))
            .await?;
        // Which drops its key, here as at every other replica.
        self.finish_credentials(change).await?;
        Ok(())
    }
}

/// How far a rotation is.
enum Under {
    /// None is under way.
    Nothing,
    /// One authority is trusted that does not sign yet.
    Prepared { next: KeyDigest },
    /// It signs, and the one before is still trusted.
    Activated { signs: KeyDigest, last: KeyDigest },
}

impl Under {
    async fn way(change: &mut CredentialChange) -> Result<Self, CredentialError> {
        let authorities = change.authorities().await?;
        let in_state = |wanted| {
            let found = authorities.iter().find(|it| it.state == wanted);
            found.map(|it| it.trusted.key())
        };
        let (next, last) = (
            in_state(AuthorityState::Next),
            in_state(AuthorityState::Last),
        );
        Ok(match (next, last, in_state(AuthorityState::Signs)) {
            (Some(next), _, _) => Self::Prepared { next },
            (None, Some(last), Some(signs)) => Self::Activated { signs, last },
            // One of which none signs never was.
            _ => Self::Nothing,
        })
    }

    /// What is said to whoever wants another step than the next.
    fn out_of_turn(&self) -> CredentialError {
        CredentialError::NotNow(match self {
            Self::Nothing => {
                "no rotation is under way; one begins with quilt-mesh-control ca rotate prepare"
                    .to_owned()
            }
            Self::Prepared { next } => format!(
                "a rotation is under way already: the next authority, {next}, is trusted and does not sign yet; what comes next is \
                 quilt-mesh-control ca rotate activate"
            ),
            Self::Activated { signs, .. } => format!(
                "a rotation is under way already: the authority {signs} signs already, and the one before is still trusted; what comes \
                 next is quilt-mesh-control ca rotate finish"
            ),
        })
    }
}

fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(MOST_NAMED)].join(", ");
    match names.len() > MOST_NAMED {
        true => format!("{shown}, …"),
        false => shown,
    }
}
