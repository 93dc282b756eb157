//! How one authority takes the place of another, so that nobody is shut out: the next is trusted before it signs, and the last
//! until nothing that it signed is in use.

use mesh_credentials::authority::Authority;
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
        if change.authorities().await?.len() > 1 {
            change.roll_back().await?;
            let why = "one authority is taking the place of another already; see quilt-mesh-control ca show";
            return Err(CredentialError::NotNow(why.to_owned()));
        }
        let now = unix_seconds();
        let next = Authority::make(mesh, now)?;
        let trusted = next.trusted().clone();
        // First, or the key might be lost of what is trusted.
        self.authorities
            .add(vec![next])
            .map_err(|error| CredentialError::NoAuthority(error.to_string()))?;
        let state = AuthorityState::Next;
        change.add_authority(&trusted, state, now).await?;
        let subject = format!("authority {}", trusted.key());
        change
            .keep_audit(&doer.did("prepare rotation", &subject))
            .await?;
        change.finish().await?;
        self.read_credentials().await?;
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
        let next = in_state(&mut change, AuthorityState::Next).await?;
        let next = next.ok_or_else(|| {
            CredentialError::NotNow("there is none that signs next; prepare one first".to_owned())
        })?;
        if self.authorities.find(next).is_none() {
            return Err(CredentialError::NoAuthority(format!(
                "its file lacks the key of the next authority {next}; see quilt-mesh-control ca import"
            )));
        }
        let late = change.nodes_without_word_of(next).await?;
        if !late.is_empty() && !force {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(format!(
                "{} that are up do not trust the next authority yet, which takes them up to four heartbeats: {}",
                nodes(late.len()),
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
        change.finish().await?;
        self.read_credentials().await?;
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
        let last = in_state(&mut change, AuthorityState::Last).await?;
        let last = last.ok_or_else(|| {
            CredentialError::NotNow("no authority was replaced by another".to_owned())
        })?;
        let now = unix_seconds();
        let late = change.nodes_of_issuer(last, now).await?;
        if !late.is_empty() && !force {
            change.roll_back().await?;
            return Err(CredentialError::NotNow(format!(
                "{} still have certificates of the last authority, and would be shut out: {}. Those that are up renew \
                 theirs within four heartbeats; one that is off has to come back first, or to join again by a token",
                nodes(late.len()),
                named(&late)
            )));
        }
        change.end_authorities(AuthorityState::Last, now).await?;
        let subject = format!("authority {last}");
        change
            .keep_audit(&doer.did("finish rotation", &subject))
            .await?;
        change.finish().await?;
        // Which drops its key, here as at every other replica.
        self.read_credentials().await?;
        Ok(())
    }
}

async fn in_state(
    change: &mut CredentialChange,
    wanted: AuthorityState,
) -> Result<Option<KeyDigest>, CredentialError> {
    let authorities = change.authorities().await?;
    let found = authorities.iter().find(|it| it.state == wanted);
    Ok(found.map(|it| it.trusted.key()))
}

fn nodes(count: usize) -> String {
    match count {
        1 => "1 node".to_owned(),
        _ => format!("{count} nodes"),
    }
}

fn named(names: &[String]) -> String {
    let shown = names[..names.len().min(MOST_NAMED)].join(", ");
    match names.len() > MOST_NAMED {
        true => format!("{shown}, …"),
        false => shown,
    }
}
