//! The runtime behind its socket. Docker waits for every answer, so none takes long.

use std::{
    io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use mesh_client::{
    Client, ClientError, HandedOver,
    mesh::{
        AddressLease, AllocateAddressRequest, AttachEndpointRequest, ListAddressesRequest,
        ListAddressesResponse, Owner as OwnerMessage, PublishedPort,
    },
};
use mesh_ipam::Owner;

/// How long who starts a container waits for a runtime that is being started, or whose node has not joined yet. Docker starts
/// containers again when the host does, and tries each once.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest a runtime that is there is waited for.
const ANSWER: Duration = Duration::from_secs(5);

/// How long nobody waits for a runtime that has just been waited for in vain, but who starts a container. Docker ends containers, and
/// asks for those that it has when it starts, one call after the other.
const REST: Duration = Duration::from_secs(10);

/// The runtime of this host.
#[derive(Debug)]
pub(crate) struct Runtime {
    socket: PathBuf,
    /// When it was waited for in vain, if it has not answered since.
    silent: Mutex<Option<Instant>>,
}

/// What a runtime that is not there, or does not answer, is asked again later.
pub(crate) fn is_absent(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. }
        | ClientError::Silent(_)
        | ClientError::NotYet(_)
        | ClientError::Failed(_) => true,
        ClientError::Refused(_) | ClientError::Incomplete(_) | ClientError::Inside(_) => false,
    }
}

/// Whether a call that failed may have done something, or may still do it.
pub(crate) fn may_have_begun(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Silent(_) | ClientError::Failed(_) | ClientError::Incomplete(_)
    )
}

/// Whether the same call may succeed in a moment.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::NotYet(_) => true,
        ClientError::Connect { reason, .. } => matches!(
            reason.kind(),
            // The last: more are waiting to connect than the kernel keeps.
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
        ),
        _ => false,
    }
}

impl Runtime {
    pub(crate) fn behind(socket: PathBuf) -> Self {
        Self {
            socket,
            silent: Mutex::default(),
        }
    }

    /// What this node leases addresses of, with the leases of Docker's; `now`: of a runtime that is there.
    pub(crate) async fn addresses(&self, now: bool) -> Result<ListAddressesResponse, ClientError> {
        let request = docker_leases();
        let patience = if now { Duration::ZERO } else { PATIENCE };
        self.ask(patience, async |mut client| {
            let listed = client.addresses(request.clone()).await?;
            match listed.subnet.is_empty() {
                false => Ok(listed),
                true => Err(ClientError::NotYet(
                    "this node has no subnet yet: start its agent, or see in the agent's log why it cannot join".to_owned(),
                )),
            }
        })
        .await
    }

    /// Whether it is there, for who has time to find that out.
    pub(crate) async fn is_there(&self) -> Result<(), ClientError> {
        let request = docker_leases();
        let list = async |mut client: Client| client.addresses(request.clone()).await;
        self.ask_anyway(Duration::ZERO, list).await.map(drop)
    }

    /// The lease of an address, if it is one of Docker's; of a runtime that is there.
    pub(crate) async fn lease_of(
        &self,
        address: Ipv4Addr,
    ) -> Result<Option<AddressLease>, ClientError> {
        let listed = self.addresses(true).await?;
        let text = address.to_string();
        let mut leases = listed.leases.into_iter();
        Ok(leases.find(|it| it.address == text))
    }

    /// Leases an address; `now`: of a runtime that is there.
    pub(crate) async fn allocate(
        &self,
        owner: &Owner,
        address: Option<Ipv4Addr>,
        now: bool,
    ) -> Result<AddressLease, ClientError> {
        let request = AllocateAddressRequest {
            owner: Some(message(owner)),
            address: address.map_or_else(String::new, |it| it.to_string()),
            outlives_boot: true,
            ..AllocateAddressRequest::default()
        };
        let patience = if now { Duration::ZERO } else { PATIENCE };
        let allocate = async |mut client: Client| client.allocate(request.clone()).await;
        let answer = self.ask(patience, allocate).await?;
        answer.lease.ok_or(ClientError::Incomplete("lease"))
    }

    /// Gives an address back.
    pub(crate) async fn release(&self, owner: &Owner) -> Result<(), ClientError> {
        let release = async |mut client: Client| client.release(message(owner)).await;
        self.ask(Duration::ZERO, release).await
    }

    /// Makes a container's interface, which Docker moves.
    pub(crate) async fn attach(
        &self,
        owner: &Owner,
        mut request: AttachEndpointRequest,
    ) -> Result<HandedOver, ClientError> {
        request.owner = Some(message(owner));
        let attach = async |mut client: Client| client.attach_moved(request.clone()).await;
        self.ask(PATIENCE, attach).await
    }

    /// Takes a container off the mesh.
    pub(crate) async fn detach(&self, owner: &Owner) -> Result<(), ClientError> {
        let detach = async |mut client: Client| client.detach(message(owner)).await;
        self.ask(Duration::ZERO, detach).await
    }

    /// The same, unless it is in use.
    pub(crate) async fn detach_if_leaked(&self, owner: &Owner) -> Result<(), ClientError> {
        let detach = async |mut client: Client| client.detach_if_leaked(message(owner)).await;
        self.ask(Duration::ZERO, detach).await
    }

    /// Makes these the ports by which a container is reached.
    pub(crate) async fn publish(
        &self,
        owner: &Owner,
        ports: &[PublishedPort],
    ) -> Result<(), ClientError> {
        let publish =
            async |mut client: Client| client.publish(message(owner), ports.to_vec()).await;
        self.ask(
            if ports.is_empty() {
                Duration::ZERO
            } else {
                PATIENCE
            },
            publish,
        )
        .await
    }

    /// Asks, and for so long goes on asking while the same call may succeed in a moment.
    async fn ask<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        patience: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, ClientError> {
        match patience.is_zero() && self.is_silent() {
            true => Err(ClientError::Silent(ANSWER)),
            false => self.ask_anyway(patience, call).await,
        }
    }

    /// The same although it was waited for in vain a moment ago.
    async fn ask_anyway<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        patience: Duration,
        call: impl Fn(Client) -> F,
    ) -> Result<T, ClientError> {
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(Duration::from_millis(20))
            .with_max_delay(Duration::from_millis(500))
            .without_max_times()
            .with_total_delay(Some(patience))
            .with_jitter()
            .build();
        let asked = async {
            loop {
                let done = match Client::connect(&self.socket).await {
                    Ok(client) => call(client).await,
                    Err(error) => Err(error),
                };
                let error = match done {
                    Err(error) if passes(&error) => error,
                    done => return done,
                };
                match pauses.next() {
                    Some(pause) if !patience.is_zero() => tokio::time::sleep(pause).await,
                    _ => return Err(error),
                }
            }
        };
        let deadline = patience + ANSWER;
        let in_time = tokio::time::timeout(deadline, asked).await;
        let silent = in_time.is_err().then(Instant::now);
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = silent;
        in_time.unwrap_or(Err(ClientError::Silent(deadline)))
    }

    /// Whether it was waited for in vain a moment ago.
    fn is_silent(&self) -> bool {
        let silent = *self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.is_some_and(|since| since.elapsed() < REST)
    }
}

/// A request for the leases of Docker's.
fn docker_leases() -> ListAddressesRequest {
    ListAddressesRequest {
        engine: crate::ENGINE.to_owned(),
        network: crate::NETWORK.to_owned(),
    }
}

fn message(owner: &Owner) -> OwnerMessage {
    OwnerMessage {
        engine: owner.engine().to_owned(),
        network: owner.network().to_owned(),
        container: owner.container().to_owned(),
        interface: owner.interface().to_owned(),
    }
}
