//! What is said of the membership: each thing once, until it is another.

use mesh_credentials::control_plane_check::clock as shown;
use mesh_problems::{
    Problem,
    catalog::agent::{
        CANNOT_JOIN, CERTIFICATE_ENDS_SOON, CERTIFICATE_EXPIRED, CERTIFICATE_NOT_KEPT,
        CERTIFICATE_NOT_RENEWED, CERTIFICATE_REFUSED, CERTIFICATE_UNUSABLE, JOIN_TOKEN_REFUSED,
    },
};
use mesh_rest::problem_kind::Kind;
use tracing::{debug, error, info, warn};

use super::{Cause, MembershipError, schedule::Left};
use crate::{credentials::Credentials, problems::Problems, reasons::Reasons};

/// What is over once this host has a certificate that is taken.
const OF_MEMBERSHIP: [&mesh_problems::Kind; 6] = [
    &CANNOT_JOIN,
    &JOIN_TOKEN_REFUSED,
    &CERTIFICATE_REFUSED,
    &CERTIFICATE_NOT_RENEWED,
    &CERTIFICATE_ENDS_SOON,
    &CERTIFICATE_EXPIRED,
];

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MembershipLog {
    joining: Reasons<()>,
    renewing: Reasons<Left>,
    refused: Reasons<()>,
    saving: Reasons<()>,
    problems: Problems,
}

impl MembershipLog {
    pub(super) fn new(problems: Problems) -> Self {
        Self {
            problems,
            ..Self::default()
        }
    }

    pub(super) fn joined(&mut self, joined: &Credentials) {
        self.well();
        info!(name: "joined-mesh",
            node_id = joined.node_id, mesh = %joined.trust.mesh(), expires = shown(joined.presented.not_after),
            "joined the mesh"
        );
    }

    pub(super) fn renewed(&mut self, renewed: &Credentials, cause: &Cause) {
        self.well();
        info!(name: "certificate-renewed",
            node_id = renewed.node_id,
            expires = shown(renewed.presented.not_after),
            %cause,
            "the certificate was renewed"
        );
    }

    /// The host has a certificate, which is not known not to be taken.
    pub(super) fn well(&mut self) {
        let saving = std::mem::take(&mut self.saving);
        let problems = std::mem::take(&mut self.problems);
        for kind in OF_MEMBERSHIP {
            problems.clear(kind);
        }
        *self = Self {
            saving,
            problems,
            ..Self::default()
        };
    }

    /// The certificate can be shown to the control plane, or cannot.
    pub(super) fn shown(&self, shown: Result<(), &MembershipError>) {
        match shown {
            Ok(()) => self.problems.clear(&CERTIFICATE_UNUSABLE),
            Err(error) => {
                error!(name: "certificate-cannot-shown",
                    code = CERTIFICATE_UNUSABLE.code, %error,
                    "the certificate cannot be shown; restart the agent"
                );
                let observed = error.to_string();
                self.problems.raise(&CERTIFICATE_UNUSABLE, observed);
            }
        }
    }

    /// The agent starts with a certificate that has expired.
    pub(super) fn expired(&self, kept: &Credentials, now: i64) {
        warn!(name: "node-certificate-expired",
            code = CERTIFICATE_EXPIRED.code,
            node_id = kept.node_id,
            expired = shown(kept.presented.not_after),
            now = shown(now),
            "this node's certificate has expired; it is made anew before anything else"
        );
        let observed = format!("it expired {}", shown(kept.presented.not_after));
        self.problems.raise(&CERTIFICATE_EXPIRED, observed);
    }

    pub(super) fn not_joined(&mut self, error: &MembershipError, hostname: &str) {
        if !self.joining.note((), &error.to_string()) {
            return;
        }
        match error.kind() {
            Some(Kind::TokenRefused) => {
                error!(name: "control-plane-not-take-join",
                    code = JOIN_TOKEN_REFUSED.code, %error, hostname,
                    "the control plane does not take the join token; make another there (quilt-mesh-control token create) and \
                     start the agent with it"
                );
                self.problems.raise(&JOIN_TOKEN_REFUSED, error.to_string());
                self.problems.clear(&CANNOT_JOIN);
            }
            _ => {
                warn!(name: "cannot-join", code = CANNOT_JOIN.code, %error, "cannot join; trying again until it succeeds");
                self.problems.raise(&CANNOT_JOIN, error.to_string());
                self.problems.clear(&JOIN_TOKEN_REFUSED);
            }
        }
    }

    pub(super) fn not_renewed(&mut self, error: &MembershipError, left: Left, of: &Credentials) {
        // What changes from one attempt to the next is no news while as much is left as before.
        let reason = match left {
            Left::Plenty => error.to_string(),
            Left::Third | Left::Day | Left::Nothing => String::new(),
        };
        if !self.renewing.note(left, &reason) {
            debug!(name: "certificate-not-renewed-yet", %error, "the certificate is not renewed yet");
            return;
        }
        let expires = shown(of.presented.not_after);
        let is_clock = error.kind() == Some(Kind::Clock);
        let found = match left {
            Left::Plenty if !is_clock => None,
            Left::Plenty | Left::Third => Some(&CERTIFICATE_NOT_RENEWED),
            Left::Day => Some(&CERTIFICATE_ENDS_SOON),
            Left::Nothing => Some(&CERTIFICATE_EXPIRED),
        };
        for kind in [
            &CERTIFICATE_NOT_RENEWED,
            &CERTIFICATE_ENDS_SOON,
            &CERTIFICATE_EXPIRED,
        ] {
            if Some(kind) == found {
                let observed = format!("it expires {expires}: {error}");
                self.problems.raise(kind, observed);
            } else {
                self.problems.clear(kind);
            }
        }
        let code = found.map(|kind| kind.code);
        match left {
            Left::Plenty if !is_clock => {
                info!(name: "cannot-renew-certificate-yet", %error, expires, "cannot renew the certificate yet; trying again")
            }
            Left::Plenty | Left::Third => {
                warn!(name: "cannot-renew-certificate", code, %error, expires, "cannot renew the certificate; trying again until it succeeds");
            }
            Left::Day => error!(name: "cannot-renew-certificate-expires-within",
                code, %error, expires,
                "cannot renew the certificate, which expires within a day; trying again until it succeeds"
            ),
            Left::Nothing => error!(name: "cannot-renew-certificate-expired",
                code, %error, expires,
                "cannot renew the certificate, which has expired: the control plane takes nothing else from this node; trying \
                 again until it succeeds"
            ),
        }
    }

    pub(super) fn refused(&mut self, error: &MembershipError, hostname: &str) {
        if !self.refused.note((), &error.to_string()) {
            return;
        }
        let problem = Problem::new(&CERTIFICATE_REFUSED, error.to_string());
        self.problems.raise_problem(problem.remedied_by(format!(
            "make a token for it there (quilt-mesh-control token create --node {hostname}) and start this agent with --join TOKEN"
        )));
        error!(name: "control-plane-not-take-node",
            code = CERTIFICATE_REFUSED.code, %error,
            "the control plane does not take this node's certificate; the data plane stays as it is. To let the node in \
             again, make a token for it there (quilt-mesh-control token create --node {hostname}) and start this agent with \
             --join TOKEN"
        );
    }

    pub(super) fn saved(&mut self, saved: Result<&(), &String>) {
        match saved {
            Ok(&()) => {
                if self.saving.resolve(&()) {
                    info!(name: "certificate-kept-again", "the certificate is kept again");
                }
                self.problems.clear(&CERTIFICATE_NOT_KEPT);
            }
            Err(error) => {
                if self.saving.note((), error) {
                    error!(name: "certificate-cannot-kept",
                        code = CERTIFICATE_NOT_KEPT.code,
                        error,
                        "the certificate cannot be kept: until it is, an agent that starts again goes on with what was kept \
                         before, or has to join again; trying again until it is"
                    );
                    self.problems.raise(&CERTIFICATE_NOT_KEPT, error);
                }
            }
        }
    }
}
