//! How replicas are asked, one after another.

use std::{sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use mesh_rest::{
    client::{CallError, Client, Connections},
    join::{Join, Joined, Renew},
};
use rustls::ClientConfig;
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{ControlPlane, ControlPlaneError};
use crate::retry;

impl ControlPlane {
    /// Lets this host join. Each replica is asked once, over connections of its own, which check by `tls`.
    ///
    /// # Errors
    /// If every replica fails, or one refuses.
    pub async fn join(&self, tls: ClientConfig, join: &Join) -> Result<Joined, ControlPlaneError> {
        let call = |replica: Client| async move { Ok(replica.join(join).await?) };
        self.ask_over(tls, self.shared.bases.len(), call).await
    }

    /// The id of the mesh whose control plane this is, over connections of its own, which check by `tls`.
    ///
    /// # Errors
    /// If every replica fails.
    pub async fn mesh_id(&self, tls: ClientConfig) -> Result<String, ControlPlaneError> {
        let call = |replica: Client| async move { Ok(replica.authorities().await?.mesh_id) };
        self.ask_over(tls, self.shared.bases.len(), call).await
    }

    /// Has the certificate made anew that `tls` shows, over connections of its own: those that stand are not disturbed.
    ///
    /// # Errors
    /// If every attempt fails, or is refused.
    pub async fn renew(
        &self,
        tls: ClientConfig,
        renew: &Renew,
    ) -> Result<Joined, ControlPlaneError> {
        let call = |replica: Client| async move { Ok(replica.renew(renew).await?) };
        self.ask_over(tls, self.attempts(), call).await
    }

    async fn ask_over<T, F>(
        &self,
        tls: ClientConfig,
        attempts: usize,
        call: impl Fn(Client) -> F,
    ) -> Result<T, ControlPlaneError>
    where
        F: Future<Output = Result<T, ControlPlaneError>>,
    {
        let connections = connections(self.shared.connect_deadline, Some(tls));
        let connections = connections.map_err(|error| CallError::Unreachable {
            call: "set up the HTTP client".to_owned(),
            reason: error.to_string(),
        })?;
        let call = |replica: Client| call(replica.over(connections.clone()));
        self.ask(attempts, call).await
    }

    /// At least every replica once, and one that is alone a few times.
    pub(super) fn attempts(&self) -> usize {
        self.shared.bases.len().max(1 + retry::RETRIES_PER_ROUND)
    }

    fn replica(&self, index: usize) -> Client {
        let connections = self.shared.current.borrow().connections.clone();
        let base = self.shared.bases[index % self.shared.bases.len()].clone();
        let token = Arc::clone(&self.shared.token);
        let ears = Arc::clone(&self.shared.ears);
        Client::new(connections, base, self.shared.deadline)
            .showing(token)
            .noticing(ears)
    }

    /// Asks as [`Self::ask`] does, if this host is a node to the control plane.
    pub(super) async fn ask_as_node<T, F>(
        &self,
        attempts: usize,
        call: impl Fn(Client) -> F,
    ) -> Result<T, ControlPlaneError>
    where
        F: Future<Output = Result<T, ControlPlaneError>>,
    {
        if !self.is_admitted() {
            self.lock_contact().connected = false;
            return Err(ControlPlaneError::NotAdmitted);
        }
        let answer = self.ask(attempts, call).await;
        if answer
            .as_ref()
            .is_err_and(ControlPlaneError::is_of_credentials)
        {
            self.shared.doubts.send_replace(());
        }
        if answer
            .as_ref()
            .is_err_and(ControlPlaneError::is_of_a_stranger)
        {
            self.shared.strangers.send_replace(());
        }
        answer
    }

    /// Asks one replica after another, from the one that answered last. Whoever answers,
    /// be it with a refusal, is asked first from then on.
    pub(super) async fn ask<T, F>(
        &self,
        attempts: usize,
        call: impl Fn(Client) -> F,
    ) -> Result<T, ControlPlaneError>
    where
        F: Future<Output = Result<T, ControlPlaneError>>,
    {
        let several = self.shared.bases.len() > 1;
        let mut pauses = retry::times(attempts.saturating_sub(1)).build();
        let first = self.shared.current.borrow().index;
        let mut index = first;
        let mut reason = None;
        loop {
            let result = call(self.replica(index)).await;
            {
                let mut contact = self.lock_contact();
                contact.connected = result.is_ok();
                if !result.as_ref().is_err_and(ControlPlaneError::is_silence) {
                    contact.heard = Some(Instant::now());
                }
            }
            if index == 0 && result.as_ref().is_err_and(ControlPlaneError::is_silence) {
                self.shared.unreachable.send_replace(());
            }
            match result {
                Err(error) if error.is_transient() || several && error.is_of_this_replica() => {
                    let Some(pause) = pauses.next() else {
                        return Err(error);
                    };
                    reason.get_or_insert(error);
                    // Jittered, or all nodes would be at the next replica in one moment.
                    sleep(pause).await;
                    index = (index + 1) % self.shared.bases.len();
                }
                result => {
                    if let Some(reason) = reason {
                        self.move_to(first, index, &reason);
                    }
                    return result;
                }
            }
        }
    }

    fn move_to(&self, from: usize, to: usize, reason: &ControlPlaneError) {
        let moved = self.shared.current.send_if_modified(|current| {
            // Another task may have moved in the meantime: its choice answered as well.
            let moves = current.index == from && from != to;
            if moves {
                current.index = to;
            }
            moves
        });
        if moved {
            warn!(name: "replica-failed",
                from = %self.shared.bases[from], to = %self.shared.bases[to], %reason,
                "control plane replica failed; using the next"
            );
        }
    }
}

pub(super) fn connections(
    connect_deadline: Duration,
    tls: Option<ClientConfig>,
) -> Result<Connections, reqwest::Error> {
    let user_agent = concat!("quilt-mesh-agent/", env!("CARGO_PKG_VERSION"));
    match tls {
        Some(tls) => Connections::over_tls(connect_deadline, user_agent, tls),
        None => Connections::new(connect_deadline, user_agent),
    }
}
