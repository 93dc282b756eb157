//! The socket task: tells whoever asks on this host how the agent fares.
//!
//! The socket is for every user: what it tells is no secret ([`crate::status`]). What changes something there, that the node
//! leaves or joins again, is for root and the agent's own user, as the kernel names who connects (`SO_PEERCRED`). So that
//! nobody keeps others from asking, connections are bounded in number, by user and in time.

use std::{
    collections::HashMap,
    fmt, io,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use mesh_problems::catalog::agent::NO_AGENT_SOCKET;
use mesh_proto::mesh::{
    AgentStatus, AgentStatusRequest, JoinAgainRequest, JoinAgainResponse, LeaveRequest,
    LeaveResponse,
    mesh_agent_server::{MeshAgent, MeshAgentServer},
};
use mesh_socket::{OpenTo, Socket};
use nix::unistd::geteuid;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::Connected},
};
use tracing::{debug, info};

use crate::{
    departure::{Refusal, Wish, Wishes},
    status::StatusSources,
};

/// Where the agent serves unless it is told otherwise.
pub(crate) const DEFAULT: &str = "/run/quilt-mesh-agent/agent.sock";

/// Connections at a time, and those of one user among them.
const CONNECTIONS: usize = 32;
const OF_ONE_USER: usize = 8;

/// The longest that a connection stands. Who asks for longer connects anew.
const LONGEST_CONNECTION: Duration = Duration::from_secs(30);

/// Calls at a time on one connection, and the longest that one may take.
const CALLS_PER_CONNECTION: usize = 4;
const CALL_DEADLINE: Duration = Duration::from_secs(12);

/// Calls that may wait on one connection, those under way among them.
const STREAMS: u32 = 8;

/// A question is empty, and a caller that sends much more than that is none.
const LARGEST_QUESTION: usize = 1024;

/// How long callers may take to get their last answer when the agent ends.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How long nothing is accepted where the system has no descriptor left.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the agent serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentSocket {
    /// Nowhere.
    Off,
    /// On a Unix socket with this path.
    At(PathBuf),
}

impl fmt::Display for AgentSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(path) => path.display().fmt(f),
        }
    }
}

/// Serves until `stop`. Where there can be no socket that is found wrong, and nothing else comes of it.
pub async fn run(
    socket: AgentSocket,
    wishes: Wishes,
    sources: StatusSources,
    stop: CancellationToken,
) {
    let AgentSocket::At(path) = socket else {
        return stop.cancelled().await;
    };
    let (bound, listener) = match Socket::bind(&path, OpenTo::Everyone) {
        Ok(bound) => bound,
        Err(error) => {
            info!(name: "no-socket-agent-could-asked",
                code = NO_AGENT_SOCKET.code, %error,
                "no socket on which this agent could be asked; it goes on without"
            );
            sources.problems.raise(&NO_AGENT_SOCKET, error.to_string());
            return stop.cancelled().await;
        }
    };
    let (accepted, callers) = mpsc::channel(1);
    let server = Server::builder()
        .timeout(CALL_DEADLINE)
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .max_concurrent_streams(STREAMS)
        .add_service(
            MeshAgentServer::new(Service {
                sources: sources.clone(),
                wishes,
            })
            .max_decoding_message_size(LARGEST_QUESTION),
        )
        .serve_with_incoming_shutdown(ReceiverStream::new(callers), stop.clone().cancelled_owned());
    tokio::pin!(server);
    tokio::select! {
        // What was answered gets out; whoever keeps the connection for more is not waited for.
        () = stop.cancelled() => drop(timeout(LAST_ANSWERS, &mut server).await),
        () = accept(&listener, &accepted) => {}
        ended = &mut server => {
            let error = ended.err().map(|error| error.to_string());
            let observed = error.unwrap_or_else(|| "the server ended".to_owned());
            info!(name: "agent-cannot-asked-socket-any",
                code = NO_AGENT_SOCKET.code, error = observed,
                "this agent cannot be asked on its socket any more; it goes on without"
            );
            sources.problems.raise(&NO_AGENT_SOCKET, observed);
            drop((bound, listener));
            stop.cancelled().await;
        }
    }
}

/// Hands callers on for as long as somebody takes them.
async fn accept(listener: &UnixListener, accepted: &mpsc::Sender<io::Result<Caller>>) {
    let places = Places::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(name: "cannot-accept-caller", %error, "cannot accept a caller");
                sleep(PAUSE).await;
                continue;
            }
        };
        // Who has no user cannot be told apart from others without.
        let user = stream.peer_cred().ok().map(|caller| caller.uid());
        // One too many finds its connection closed.
        let Some(place) = places.take(user) else {
            debug!(name: "too-many-callers", user, "too many callers");
            continue;
        };
        if accepted
            .send(Ok(Caller::new(stream, user, place)))
            .await
            .is_err()
        {
            // The server has ended, which is said where it is waited for.
            return std::future::pending().await;
        }
    }
}

/// How many connections each user has.
#[derive(Debug, Clone, Default)]
struct Places(Arc<Mutex<HashMap<Option<u32>, usize>>>);

impl Places {
    /// One for another connection of this user, if there is one.
    fn take(&self, user: Option<u32>) -> Option<Place> {
        let mut taken = self.lock();
        let all: usize = taken.values().sum();
        let of_user = taken.entry(user).or_default();
        // Others cannot keep root and this agent's own user from telling it something.
        let is_theirs = User(user).may_change();
        if *of_user >= OF_ONE_USER || all >= CONNECTIONS && !is_theirs {
            if *of_user == 0 {
                taken.remove(&user);
            }
            return None;
        }
        *of_user += 1;
        Some(Place {
            places: self.clone(),
            user,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<u32>, usize>> {
        // Nobody panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place. Dropping it gives it back.
#[derive(Debug)]
struct Place {
    places: Places,
    user: Option<u32>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(of_user) = taken.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

/// A connection, which ends by itself.
#[derive(Debug)]
struct Caller {
    stream: UnixStream,
    end: Pin<Box<Sleep>>,
    user: User,
    _place: Place,
}

/// Who is on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct User(Option<u32>);

impl User {
    /// Whether it may change what this host is.
    fn may_change(self) -> bool {
        self.0
            .is_some_and(|user| user == 0 || user == geteuid().as_raw())
    }
}

impl Caller {
    fn new(stream: UnixStream, user: Option<u32>, place: Place) -> Self {
        Self {
            stream,
            user: User(user),
            end: Box::pin(sleep_until(Instant::now() + LONGEST_CONNECTION)),
            _place: place,
        }
    }

    fn over(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Connected for Caller {
    type ConnectInfo = User;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.user
    }
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.over(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.over(context)?;
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
        Poll::Ready(Ok(()))
    }
}

#[derive(Debug, Clone)]
struct Service {
    sources: StatusSources,
    wishes: Wishes,
}

/// Lets those in who may change what this host is.
fn judge<T>(request: &Request<T>) -> Result<(), Status> {
    let user = request.extensions().get::<User>();
    match user.is_some_and(|user| user.may_change()) {
        true => Ok(()),
        false => Err(Status::permission_denied(
            "only root, and the user that the agent runs as, have this host leave its mesh or join again",
        )),
    }
}

impl Service {
    /// Has a wish fulfilled.
    async fn wish<T>(
        &self,
        wish: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> Wish,
    ) -> Result<T, Status> {
        let (answer, answered) = oneshot::channel();
        let ending = || Status::unavailable("the agent is ending: ask again when it has started");
        self.wishes.send(wish(answer)).await.map_err(|_| ending())?;
        let answered = answered.await.map_err(|_| ending())?;
        answered.map_err(|refusal| Status::failed_precondition(refusal.to_string()))
    }
}

#[tonic::async_trait]
impl MeshAgent for Service {
    async fn get_status(
        &self,
        _: Request<AgentStatusRequest>,
    ) -> Result<Response<AgentStatus>, Status> {
        Ok(Response::new(self.sources.status()))
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        judge(&request)?;
        let left = self.wish(Wish::Leave).await?;
        Ok(Response::new(LeaveResponse {
            node_id: left.node_id,
            subnet: left.subnet,
            left_before: left.before,
        }))
    }

    async fn join_again(
        &self,
        request: Request<JoinAgainRequest>,
    ) -> Result<Response<JoinAgainResponse>, Status> {
        judge(&request)?;
        self.wish(Wish::JoinAgain).await?;
        Ok(Response::new(JoinAgainResponse {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_agents_own_user_may_change_what_the_host_is_and_nobody_else() {
        let own = geteuid().as_raw();
        assert!(User(Some(0)).may_change() && User(Some(own)).may_change());
        assert!(!User(Some(own + 1)).may_change() && !User(None).may_change());
        assert!(judge(&Request::new(())).is_err());
    }

    #[test]
    fn no_user_keeps_the_others_from_asking_and_a_place_is_given_back() {
        let places = Places::default();
        let of = |user| {
            let taken: Vec<_> = std::iter::from_fn(|| places.take(user)).take(100).collect();
            taken
        };
        let greedy = of(Some(1));
        assert_eq!(greedy.len(), OF_ONE_USER);
        let others: Vec<_> = (2..20).flat_map(|user| of(Some(user))).collect();
        assert_eq!(greedy.len() + others.len(), CONNECTIONS);
        assert!(places.take(Some(20)).is_none());
        // Who may tell the agent something is not kept from that.
        assert!(places.take(Some(0)).is_some());
        drop(greedy);
        assert!(places.take(None).is_some());
        drop(others);
        assert!(places.lock().is_empty());
    }
}
