//! Who asks, as handlers need it. Whether they may was decided before.

use std::sync::Arc;

use axum::extract::Request;
use mesh_rest::node_id::NodeId;

use super::problem::Problem;
use crate::access::Access;
use crate::access::caller::Caller;
use crate::access::origin::{Certificate, Origin};
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
    /// By what it was judged, and where it is.
    pub(crate) judged: Option<(Arc<Access>, Arc<Origin>)>,
}

impl Asker {
    /// Who asks, as it was judged.
    pub(crate) fn new(caller: &Caller, access: Arc<Access>, origin: Arc<Origin>) -> Self {
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
            },
            node,
            certificate,
            judged: Some((access, origin)),
        }
    }

    /// What to answer where a handler finds that a credential is not valid: it costs its source, as everywhere.
    pub(super) fn refuse(&self, what: &str, problem: Problem) -> Problem {
        match &self.judged {
            Some((access, origin)) => access.refuse(origin, &self.doer.who, what, problem),
            None => problem,
        }
    }

    /// Of a request.
    pub(super) fn of(request: &Request) -> Self {
        let asker = request.extensions().get::<Self>().cloned();
        asker.unwrap_or_else(|| Self {
            doer: Doer {
                who: "nobody".to_owned(),
                source: String::new(),
            },
            node: None,
            certificate: None,
            judged: None,
        })
    }
}
