//! Who asks, as handlers need it. Whether they may was decided before.

use axum::extract::Request;
use mesh_credentials::key_digest::KeyDigest;
use mesh_rest::node_id::NodeId;

use crate::credentials::audit::Doer;

/// Goes with every request that was admitted.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    /// For the audit.
    pub(crate) doer: Doer,
    /// The node that the certificate is for, if there is one that holds.
    pub(crate) node: Option<NodeId>,
    /// The key of that certificate.
    pub(crate) key: Option<KeyDigest>,
}

impl Asker {
    /// Of a request.
    pub(super) fn of(request: &Request) -> Self {
        let asker = request.extensions().get::<Self>().cloned();
        asker.unwrap_or_else(|| Self {
            doer: Doer {
                who: "nobody".to_owned(),
                source: String::new(),
            },
            node: None,
            key: None,
        })
    }
}
