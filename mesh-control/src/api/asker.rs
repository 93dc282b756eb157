//! Who asks, as handlers need it. Whether they may was decided before, and is decided again when time has passed.

use std::sync::Arc;

use axum::extract::Request;
use mesh_rest::node_id::NodeId;
use mesh_rest::problem_kind::Kind;

use super::problem::Problem;
use crate::access::caller::Caller;
use crate::access::mandate::Mandate;
use crate::access::origin::{Certificate, Origin};
use crate::access::{Access, Asked};
use crate::credentials::audit::Doer;

/// Goes with every request that was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// For the audit.
    pub(crate) doer: Doer,
    /// The node that the certificate is for, if there is one that holds.
    pub(crate) node: Option<NodeId>,
    /// That certificate.
    pub(crate) certificate: Option<Certificate>,
}

impl Asker {
    /// Who asks, as it was judged.
    pub(crate) fn new(
        caller: &Caller,
        access: Arc<Access>,
        origin: Arc<Origin>,
        asked: Asked,
    ) -> Self {
        let source = match origin.peer {
            Some(peer) => peer.ip().to_canonical().to_string(),
            None => "admin socket".to_owned(),
        };
        let node = match caller {
            Caller::Node(node_id) | Caller::Renewing(node_id) => Some(node_id.clone()),
            _ => None,
        };
        let certificate = origin.certificate.as_ref();
        let certificate = certificate.filter(|_| node.is_some()).cloned();
        Self {
            doer: Doer {
                who: caller.to_string(),
                source,
                mandate: Mandate::new(access, origin, asked),
            },
            node,
            certificate,
        }
    }

    /// What to answer where a handler finds that a credential is not valid: it costs its source, as everywhere.
    pub(super) fn refuse(&self, what: &str, problem: Problem) -> Problem {
        refuse(&self.doer, what, problem)
    }

    /// Of a request.
    pub(crate) fn of(request: &Request) -> Self {
        let asker = request.extensions().get::<Self>().cloned();
        asker.unwrap_or_else(|| Self {
            doer: Doer {
                who: "nobody".to_owned(),
                source: String::new(),
                mandate: Mandate::own(),
            },
            node: None,
            certificate: None,
        })
    }
}

/// Judges again whether this may be asked: time has passed since the head was read.
///
/// # Errors
///
/// What to answer instead.
pub(crate) fn judge_again(doer: &Doer) -> Result<(), Problem> {
    match doer.mandate.judge() {
        Ok(_) => Ok(()),
        // It is no failure to have to register.
        Err(refused) if refused.kind == Kind::UnknownNode => Err(refused.into()),
        Err(refused) => {
            let what = doer.mandate.what();
            Err(refuse(doer, &what, refused.into()))
        }
    }
}

fn refuse(doer: &Doer, what: &str, problem: Problem) -> Problem {
    match doer.mandate.judged_by() {
        Some((access, origin)) => {
            // What comes after it differs each time.
            let call = what.split_once(':').map_or(what, |(call, _)| call);
            access.refuse(origin, &doer.who, (call, what), problem)
        }
        None => problem,
    }
}
