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
    retry,
};

/// While a join token is refused: time between two looks whether there is another, and between two questions with the
/// same one.
const LOOK_FOR_TOKEN: Duration = Duration::from_secs(5);
const SAME_TOKEN: Duration = Duration::from_secs(300);

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
                Ok(joined) => {
                    self.take_over(&joined).await;
                    self.log.joined(&joined);
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
        self.use_from_now_on(&kept);
        info!(
            node_id = kept.node_id,
            "another certificate was put into the state directory; it is used"
        );
        Some(kept)
    }

    /// Asks once, and each replica at most once. With an error comes the token that it was asked with.
    async fn try_to_join(&self) -> Result<Credentials, (Option<JoinToken>, MembershipError)> {
        let token = match &self.membership.token {
            None => Err(TokenError::None),
            Some(source) => source.read(),
        };
        let token = token.map_err(|error| (None, error.into()))?;
        let joined = self.join_by(&token).await;
        joined.map_err(|error| (Some(token), error))
    }

    async fn join_by(&self, token: &JoinToken) -> Result<Credentials, MembershipError> {
        let Membership { key, node_key, .. } = &self.membership;
        let tls = self.membership.tls(KnownBy::Key(token.authority), None)?;
        let join = Join {
            token: token.to_string(),
            request: key.request()?,
            node_key: node_key.clone(),
        };
        let answer = self.control_plane.join(tls, &join).await?;
        let expected = Expected::Joining(token.authority);
        Ok(Credentials::answered(Arc::clone(key), &answer, expected)?)
    }

    /// With a token, if there is one that was not refused yet.
    pub(super) async fn join_again(
        &mut self,
        refused: &mut Option<JoinToken>,
    ) -> Option<Credentials> {
        let token = self.membership.token.as_ref()?.read().ok()?;
        if refused.as_ref() == Some(&token) {
            return None;
        }
        match self.join_by(&token).await {
            Ok(joined) => {
                self.take_over(&joined).await;
                self.log.joined(&joined);
                Some(joined)
            }
            Err(error) => {
                self.log.not_joined(&error, &self.membership.hostname);
                if error.kind() == Some(Kind::TokenRefused) {
                    *refused = Some(token);
                }
                None
            }
        }
    }
}
