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

/// Goes with every request that was admitted, and has all of who asks.
#[derive(Debug, Clone)]
pub(crate) struct WhoAsks {
    caller: Caller,
    origin: Arc<Origin>,
    mandate: Mandate,
}

impl WhoAsks {
    /// Who asks, as it was judged, and by what.
    pub(crate) fn new(
        caller: Caller,
        access: Arc<Access>,
        origin: Arc<Origin>,
        asked: Asked,
    ) -> Self {
        Self {
            caller,
            mandate: Mandate::new(access, Arc::clone(&origin), asked),
            origin,
        }
    }

    /// For the audit.
    fn doer(&self) -> Doer {
        let source = match self.origin.peer {
            Some(peer) => peer.ip().to_canonical().to_string(),
            None => "admin socket".to_owned(),
        };
        Doer {
            who: self.caller.to_string(),
            source,
            mandate: self.mandate.clone(),
        }
    }

    /// Judges again whether this may be asked: time has passed since the head was read.
    ///
    /// # Errors
    ///
    /// What to answer instead.
    pub(crate) fn judge_again(&self) -> Result<(), Problem> {
        match self.mandate.judge() {
            Ok(_) => Ok(()),
            // It is no failure to have to register.
            Err(refused) if refused.kind == Kind::UnknownNode => Err(refused.into()),
            Err(refused) => Err(refuse(&self.doer(), &self.mandate.what(), refused.into())),
        }
    }
}

/// Who asks, as a handler needs it whose call is for the audit.
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
    /// What to answer where a handler finds that a credential is not valid: it costs its source, as everywhere.
    pub(super) fn refuse(&self, what: &str, problem: Problem) -> Problem {
        refuse(&self.doer, what, problem)
    }

    /// Of a request.
    pub(crate) fn of(request: &Request) -> Self {
        let Some(who_asks) = request.extensions().get::<WhoAsks>() else {
            return Self {
                doer: Doer {
                    who: "nobody".to_owned(),
                    source: String::new(),
                    mandate: Mandate::own(),
                },
                node: None,
                certificate: None,
            };
        };
        let node = match &who_asks.caller {
            Caller::Node(node_id) | Caller::Renewing(node_id) => Some(node_id.clone()),
            _ => None,
        };
        let certificate = who_asks.origin.certificate.as_ref();
        let certificate = certificate.filter(|_| node.is_some()).cloned();
        Self {
            doer: who_asks.doer(),
            node,
            certificate,
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
