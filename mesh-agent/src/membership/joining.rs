//! How the host joins: for the first time, and when its certificate is not taken any more.

use std::{sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use mesh_credentials::{control_plane_check::KnownBy, join_token::JoinToken};
use mesh_rest::{join::Join, problem_kind::Kind};
use tokio::time::{Instant, sleep};
use tracing::info;

use super::{Member, Membership, MembershipError, TokenError, TokenSource};
use crate::{
    credentials::{Credentials, Expected},
    excerpt::Excerpt,
    retry,
};

/// While a join token is refused: time between two looks whether there is another, and between two questions with the
/// same one.
const LOOK_FOR_TOKEN: Duration = Duration::from_secs(5);
const SAME_TOKEN: Duration = Duration::from_secs(300);

/// What came of joining again.
#[derive(Debug)]
pub(super) enum Again {
    /// The host has joined.
    Joined(Box<Credentials>),
    /// It is not let in so, until an operator does something.
    Refused,
    /// Nobody could be asked.
    NotNow,
}

impl Member {
    /// Joins, however long it takes.
    pub(super) async fn join(&mut self) -> Credentials {
        let mut pauses = retry::until_registered().build();
        loop {
            if let Some(credentials) = self.joined_meanwhile(None) {
                return credentials;
            }
            let asked = Instant::now();
            let (token, error) = match self.try_to_join().await {
                Ok((token, joined)) => {
                    self.joined(token, &joined).await;
                    return joined;
                }
                Err(failed) => failed,
            };
            self.log.not_joined(&error, &self.membership.hostname);
            if error.kind() == Some(Kind::TokenRefused) {
                self.another_token(token.as_ref(), asked).await;
            } else {
                let pause = pauses.next().unwrap_or(retry::LONGEST_REGISTER_PAUSE);
                sleep(error.pause(pause)).await;
            }
        }
    }

    /// Waits until there is another token than one that was refused, or for as long as it takes to try that again.
    async fn another_token(&self, refused: Option<&JoinToken>, asked: Instant) {
        let again = asked + retry::next_round(SAME_TOKEN);
        while Instant::now() < again && !self.membership.files.have_certificate() {
            sleep(LOOK_FOR_TOKEN).await;
            let token = self.membership.token.as_ref().map(TokenSource::read);
            if let Some(Ok(token)) = token
                && Some(&token) != refused
            {
                return;
            }
        }
    }

    /// What another agent on the same state directory, or an operator, put there.
    pub(super) fn joined_meanwhile(&mut self, but: Option<&Credentials>) -> Option<Credentials> {
        let kept = self.membership.files.read().ok()?.credentials.ok()??;
        if but.is_some_and(|but| but.certificate == kept.certificate) {
            return None;
        }
        self.membership.key = Arc::clone(&kept.key);
        self.log.well();
        self.use_from_now_on(&kept);
        info!(name: "another-certificate-put-into-state",
            node_id = kept.node_id,
            "another certificate was put into the state directory; it is used"
        );
        Some(kept)
    }

    /// Asks once, and each replica at most once. With an error comes the token that it was asked with.
    async fn try_to_join(
        &self,
    ) -> Result<(JoinToken, Credentials), (Option<JoinToken>, MembershipError)> {
        let token = match &self.membership.token {
            None => Err(TokenError::None),
            Some(source) => source.read(),
        };
        let token = token.map_err(|error| (None, error.into()))?;
        match self.join_by(&token, None).await {
            Ok(joined) => Ok((token, joined)),
            Err(error) => Err((Some(token), error)),
        }
    }

    /// Takes over what a token led to.
    async fn joined(&mut self, token: JoinToken, joined: &Credentials) {
        self.take_over(joined).await;
        self.log.joined(joined);
        self.joined_with = Some(token);
        self.refused_token = None;
    }

    /// A host that is a node of a mesh joins that one only: `before` is what it has of it.
    async fn join_by(
        &self,
        token: &JoinToken,
        before: Option<&Credentials>,
    ) -> Result<Credentials, MembershipError> {
        let Membership { key, node_key, .. } = &self.membership;
        let tls = self.membership.tls(KnownBy::Key(token.authority), None)?;
        if let Some(before) = before
            && !before.may_come_from(token.authority)
        {
            // Before the token is shown.
            let theirs = self.control_plane.mesh_id(tls.clone()).await?;
            self.same_mesh(before, token, &theirs)?;
        }
        let join = Join {
            token: token.to_string(),
            request: key.request()?,
            node_key: node_key.clone(),
        };
        let answer = self.control_plane.join(tls, &join).await?;
        let expected = Expected::Joining(token.authority);
        let joined = Credentials::answered(Arc::clone(key), &answer, expected)?;
        if let Some(before) = before {
            self.same_mesh(before, token, joined.trust.mesh().as_str())?;
        }
        Ok(joined)
    }

    fn same_mesh(
        &self,
        before: &Credentials,
        token: &JoinToken,
        theirs: &str,
    ) -> Result<(), MembershipError> {
        let ours = before.trust.mesh().as_str();
        if ours == theirs {
            return Ok(());
        }
        Err(MembershipError::OtherMesh {
            authority: token.authority.short(),
            theirs: Excerpt(theirs).to_string(),
            ours: ours.to_owned(),
            node_id: before.node_id.clone(),
            directory: self.membership.files.directory().to_owned(),
        })
    }

    /// The token, if there is one that was not refused yet.
    pub(super) fn token(&self) -> Option<JoinToken> {
        let token = self.membership.token.as_ref()?.read().ok()?;
        (self.refused_token.as_ref() != Some(&token)).then_some(token)
    }

    /// The same, if it is none by which this agent joined: somebody gave it for what is to come.
    pub(super) fn new_token(&self) -> Option<JoinToken> {
        let joined_with = self.joined_with.as_ref();
        self.token().filter(|token| joined_with != Some(token))
    }

    /// The same, if it names an authority that is not known here, and may be the one that the control plane has now.
    pub(super) fn token_of_other_authority(&self, current: &Credentials) -> Option<JoinToken> {
        if self.membership.own_authorities.is_some() {
            // By those the control plane is known, and by no token.
            return None;
        }
        let token = self.token()?;
        (!current.may_come_from(token.authority)).then_some(token)
    }

    /// Joins with a token where the certificate led to nothing.
    ///
    /// # Errors
    /// [`MembershipError::OtherMesh`] alone: no attempt more is of use.
    pub(super) async fn join_again(
        &mut self,
        current: &Credentials,
        token: JoinToken,
    ) -> Result<Again, MembershipError> {
        let error = match self.join_by(&token, Some(current)).await {
            Ok(joined) => {
                self.joined(token, &joined).await;
                return Ok(Again::Joined(Box::new(joined)));
            }
            Err(error @ MembershipError::OtherMesh { .. }) => return Err(error),
            Err(error) => error,
        };
        self.log.not_joined(&error, &self.membership.hostname);
        if error.kind() == Some(Kind::TokenRefused) {
            self.refused_token = Some(token);
        }
        Ok(match error.is_silence() {
            true => Again::NotNow,
            false => Again::Refused,
        })
    }
}
