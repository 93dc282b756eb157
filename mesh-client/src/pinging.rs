//! Asking a node along its ways to others.

use std::{path::Path, time::Duration};

use mesh_proto::mesh::{
    PathResult, PingEvent, PingRequest, ProbePathRequest, mesh_inspect_client::MeshInspectClient,
    ping_event::Event,
};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    ClientError,
    client::{channel, runtime},
};

/// The longest until a ping begins.
const BEGIN: Duration = Duration::from_secs(20);

/// The longest that a call for many ways takes: the runtime's own deadline, and some time to answer.
const LOOK: Duration = Duration::from_secs(75);

/// The longest between two events beyond the time that the caller has said: the last look along the way takes a few
/// seconds.
const BEYOND: Duration = Duration::from_secs(30);

/// The longest result of a call for all of 65,534 peers.
const ANSWER_LIMIT: usize = 128 << 20;

/// Asks the runtime of this host along its ways to others.
#[derive(Clone, Debug)]
pub struct Pinger {
    runtime: MeshInspectClient<Channel>,
}

impl Pinger {
    /// Connects to the runtime's socket.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`], with what to do.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let channel = channel(socket, runtime().timeout(LOOK)).await?;
        Ok(Self {
            runtime: MeshInspectClient::new(channel).max_decoding_message_size(ANSWER_LIMIT),
        })
    }

    /// Asks a peer or an address several times.
    ///
    /// # Errors
    ///
    /// [`ClientError::Refused`] if nobody is meant or something is out of bounds; [`ClientError::NotYet`] if as many as may
    /// are under way; what else goes wrong.
    pub async fn ping(&mut self, request: PingRequest) -> Result<Pings, ClientError> {
        let between = request.interval_ms.max(request.timeout_ms);
        let patience = Duration::from_millis(between.into()) + BEYOND;
        let call = tokio::time::timeout(BEGIN, self.runtime.ping(request));
        let answer = call.await.map_err(|_| ClientError::Silent(BEGIN))?;
        Ok(Pings {
            events: answer.map_err(said)?.into_inner(),
            patience,
        })
    }

    /// Asks peers and addresses once by every way.
    ///
    /// # Errors
    ///
    /// As [`ping`](Self::ping), but that of each target that is not known its result says so.
    pub async fn probe_path(
        &mut self,
        request: ProbePathRequest,
    ) -> Result<Vec<PathResult>, ClientError> {
        let answer = self.runtime.probe_path(request).await;
        Ok(answer.map_err(said)?.into_inner().results)
    }
}

/// What comes of a ping, as it comes. Dropping it ends the ping.
#[derive(Debug)]
pub struct Pings {
    events: Streaming<PingEvent>,
    patience: Duration,
}

impl Pings {
    /// Waits for the next event; `None` after the last.
    ///
    /// # Errors
    ///
    /// The runtime ends, or is silent for longer than a question can take.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        let next = tokio::time::timeout(self.patience, self.events.message());
        let event = next.await.map_err(|_| ClientError::Silent(self.patience))?;
        match event.map_err(said)? {
            None => Ok(None),
            // One of a later version is none that anybody here waits for.
            Some(PingEvent { event: None }) => Err(ClientError::Incomplete("event")),
            Some(PingEvent { event }) => Ok(event),
        }
    }
}

fn said(status: Status) -> ClientError {
    match status.code() {
        Code::NotFound | Code::InvalidArgument => ClientError::Refused(status.message().to_owned()),
        Code::ResourceExhausted => ClientError::NotYet(status.message().to_owned()),
        Code::Unimplemented => ClientError::Refused(
            "this quilt-runtime cannot ping: it is of an earlier version, upgrade it".to_owned(),
        ),
        _ => status.into(),
    }
}
