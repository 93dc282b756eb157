//! Why nothing came of what was asked.

use std::{io, path::PathBuf, time::Duration};

use mesh_rest::{client::CallError, problem::ProblemDocument, problem_kind::Kind};

/// Why nothing came of what was asked, in words for the operator.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The control plane does not do it.
    #[error("{}{}", .0.why, .0.advice())]
    Refused(Refusal),
    /// There is no admin socket.
    #[error(
        "there is no {}: does quilt-mesh-control serve on this host? The socket is in its --state-dir, or beside its --db-path", .0.display()
    )]
    NoSocket(PathBuf),
    /// There is one, and it cannot be used.
    #[error(
        "cannot reach the control plane at {}: it is for root and for the user that it runs as ({reason})", .path.display()
    )]
    ClosedSocket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// The connection ended before there was an answer.
    #[error("the connection to the control plane ended: {0}")]
    Ended(String),
    /// No answer in the time that it was waited for.
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
    /// An answer that is none of this interface.
    #[error("what {path} answers is unknown: {reason}")]
    Unknown {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A call over REST came to nothing.
    #[error("{error}{}", advice_of_call(.error))]
    Call {
        /// Why.
        error: CallError,
    },
}

impl From<CallError> for AdminError {
    fn from(error: CallError) -> Self {
        Self::Call { error }
    }
}

impl AdminError {
    /// The kind of problem that the control plane named.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Refused(refusal) => refusal.kind,
            Self::Call { error } => error.kind(),
            _ => None,
        }
    }
}

/// That the control plane does not do something.
#[derive(Debug)]
pub struct Refusal {
    /// What kind of problem that is.
    kind: Option<Kind>,
    /// What it says.
    why: String,
    /// Whether it was asked over REST, by somebody with a token.
    over_rest: bool,
}

impl Refusal {
    /// What an answer with this status says of a path.
    pub(crate) fn read(path: &str, status: u16, answer: &[u8], over_rest: bool) -> Self {
        let problem: Option<ProblemDocument> = serde_json::from_slice(answer).ok();
        let kind = problem.as_ref().and_then(ProblemDocument::kind);
        let detail = problem.map(|problem| problem.detail);
        // It may come from anywhere, and goes to a terminal.
        let detail = detail.map(|detail| detail.replace(char::is_control, " "));
        Self {
            kind,
            why: detail
                .filter(|detail| !detail.is_empty())
                .unwrap_or_else(|| format!("{path} answered {status}")),
            over_rest,
        }
    }

    /// What to do where the control plane cannot know how it was asked.
    fn advice(&self) -> &'static str {
        match self.kind {
            Some(Kind::Unauthorized) if self.over_rest => {
                "; give the token of an operator who was not revoked (--control-token-file), or ask on the control plane's own \
                 host over its admin socket"
            }
            Some(Kind::Forbidden) if self.over_rest => {
                "; give the token of an operator who may change things (quilt-mesh-control operator create NAME --role operate), \
                 or ask on the control plane's own host over its admin socket"
            }
            _ => "",
        }
    }
}

fn advice_of_call(error: &CallError) -> &'static str {
    match error {
        CallError::Tls { stranger: true, .. } => {
            "; --control-ca FILE names the authorities of the mesh (quilt-mesh-control ca show --pem prints them)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: Kind, over_rest: bool) -> String {
        let answer = serde_json::to_vec(&ProblemDocument::new(kind, "no\u{1b}[2J")).unwrap();
        AdminError::Refused(Refusal::read("/api/tokens", 403, &answer, over_rest)).to_string()
    }

    #[test]
    fn a_refusal_is_shown_with_what_to_do_and_without_orders_to_a_terminal() {
        assert!(said(Kind::Forbidden, true).contains("--role operate"));
        assert!(said(Kind::Unauthorized, true).contains("--control-token-file"));
        assert_eq!(said(Kind::Forbidden, false), "no [2J");
        let nothing = Refusal::read("/api/tokens", 502, b"<html>", true);
        assert_eq!(
            AdminError::Refused(nothing).to_string(),
            "/api/tokens answered 502"
        );
    }
}
