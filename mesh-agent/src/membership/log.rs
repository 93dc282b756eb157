//! What is said of the membership: each thing once, until it is another.

use mesh_credentials::control_plane_check::clock as shown;
use mesh_rest::problem_kind::Kind;
use tracing::{debug, error, info, warn};

use super::{Cause, MembershipError, schedule::Left};
use crate::{credentials::Credentials, reasons::Reasons};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MembershipLog {
    joining: Reasons<()>,
    renewing: Reasons<Left>,
    refused: Reasons<()>,
    saving: Reasons<()>,
}

impl MembershipLog {
    pub(super) fn joined(&mut self, joined: &Credentials) {
        self.well();
        info!(
            node_id = joined.node_id, mesh = %joined.trust.mesh(), expires = shown(joined.presented.not_after),
            "joined the mesh"
        );
    }

    pub(super) fn renewed(&mut self, renewed: &Credentials, cause: &Cause) {
        self.well();
        info!(
            node_id = renewed.node_id,
            expires = shown(renewed.presented.not_after),
            %cause,
            "the certificate was renewed"
        );
    }

    fn well(&mut self) {
        let saving = std::mem::take(&mut self.saving);
        *self = Self {
            saving,
            ..Self::default()
        };
    }

    pub(super) fn not_joined(&mut self, error: &MembershipError, hostname: &str) {
        if !self.joining.note((), &error.to_string()) {
            return;
        }
        match error.kind() {
            Some(Kind::TokenRefused) => error!(
                %error, hostname,
                "the control plane does not take the join token; make another there (quilt-mesh-control token create) and start \
                 the agent with it"
            ),
            _ => warn!(%error, "cannot join; trying again until it succeeds"),
        }
    }

    pub(super) fn not_renewed(&mut self, error: &MembershipError, left: Left, of: &Credentials) {
        // What changes from one attempt to the next is no news while as much is left as before.
        let reason = match left {
            Left::Plenty => error.to_string(),
            Left::Third | Left::Day | Left::Nothing => String::new(),
        };
        if !self.renewing.note(left, &reason) {
            debug!(%error, "the certificate is not renewed yet");
            return;
        }
        let expires = shown(of.presented.not_after);
        let is_clock = error.kind() == Some(Kind::Clock);
        match left {
            Left::Plenty if !is_clock => {
                info!(%error, expires, "cannot renew the certificate yet; trying again")
            }
            Left::Plenty | Left::Third => {
                warn!(%error, expires, "cannot renew the certificate; trying again until it succeeds");
            }
            Left::Day => error!(
                %error, expires,
                "cannot renew the certificate, which expires within a day; trying again until it succeeds"
            ),
            Left::Nothing => error!(
                %error, expires,
                "cannot renew the certificate, which has expired: the control plane takes nothing else from this node; trying \
                 again until it succeeds"
            ),
        }
    }

    pub(super) fn refused(&mut self, error: &MembershipError, hostname: &str) {
        if !self.refused.note((), &error.to_string()) {
            return;
        }
        error!(
            %error,
            "the control plane does not take this node's certificate; the data plane stays as it is. To let the node in \
             again, make a token for it there (quilt-mesh-control token create --node {hostname}) and start this agent with \
             --join TOKEN"
        );
    }

    pub(super) fn saved(&mut self, saved: Result<&(), &String>) {
        match saved {
            Ok(&()) => {
                if self.saving.resolve(&()) {
                    info!("the certificate is kept again");
                }
            }
            Err(error) => {
                if self.saving.note((), error) {
                    error!(
                        error,
                        "the certificate cannot be kept: until it is, an agent that starts again goes on with what was kept \
                         before, or has to join again; trying again until it is"
                    );
                }
            }
        }
    }
}
