//! What this host is to the control plane, by its credentials.

use std::sync::{Arc, PoisonError};

use rustls::ClientConfig;
use tokio::sync::watch;

use super::{ControlPlane, connections};
use crate::heard::Heard;

/// What this host is to the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It has nothing that it could show as a node yet.
    Waiting,
    /// It may ask as a node: as the one of its certificate, if it has one.
    Admitted(
        /// The id of that node.
        Option<Arc<str>>,
    ),
    /// Its certificate was refused.
    Refused,
}

impl ControlPlane {
    /// What its answers say beside their bodies.
    #[must_use]
    pub fn heard(&self) -> watch::Receiver<Heard> {
        self.shared.ears.subscribe()
    }

    /// Changes each time that this host's credentials were not taken.
    #[must_use]
    pub fn doubts(&self) -> watch::Receiver<()> {
        self.shared.doubts.subscribe()
    }

    /// Changes each time that who was there was signed by nobody who is trusted here.
    #[must_use]
    pub fn strangers(&self) -> watch::Receiver<()> {
        self.shared.strangers.subscribe()
    }

    /// Lets this host ask as the node `node_id`, on new connections, which show its certificate and check by `tls`. A
    /// question that waits is asked again on them; other calls that are under way end as they are.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn admit(&self, tls: ClientConfig, node_id: &str) -> Result<(), reqwest::Error> {
        let connections = connections(self.shared.connect_deadline, Some(tls.clone()))?;
        let ours = self.shared.tls.lock();
        *ours.unwrap_or_else(PoisonError::into_inner) = Some(tls);
        let current = &self.shared.current;
        current.send_modify(|current| current.connections = connections);
        let admitted = Standing::Admitted(Some(node_id.into()));
        self.shared.standing.send_replace(admitted);
        Ok(())
    }

    /// Nothing more is asked as a node until the next [`Self::admit`].
    pub fn refused(&self) {
        self.shared.standing.send_if_modified(|standing| {
            let news = *standing != Standing::Refused;
            *standing = Standing::Refused;
            news
        });
    }

    /// Whether this host may ask as a node.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        matches!(*self.shared.standing.borrow(), Standing::Admitted(_))
    }

    /// Whether this host has nothing yet that it could show.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        *self.shared.standing.borrow() == Standing::Waiting
    }

    /// Waits until this host may ask as a node.
    pub async fn admitted(&self) {
        let mut standing = self.shared.standing.subscribe();
        // An error means that all senders are gone, and `self` has one.
        let _never = standing
            .wait_for(|standing| matches!(standing, Standing::Admitted(_)))
            .await;
    }

    /// The node of this host's certificate.
    pub(super) fn node_of_certificate(&self) -> Option<Arc<str>> {
        match &*self.shared.standing.borrow() {
            Standing::Admitted(node_id) => node_id.clone(),
            Standing::Waiting | Standing::Refused => None,
        }
    }
}
