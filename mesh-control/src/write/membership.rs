//! Registering.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use mesh_rest::admitted::Admitted;
use mesh_rest::heartbeat_token::HeartbeatToken;
use mesh_rest::node_id::NodeId;
use mesh_rest::registration::Registration;
use mesh_rest::security::Stage;
use mesh_rest::status::Status;
use mesh_rest::timing;
use tracing::{info, warn};

use super::command::Command;
use super::subnet_claim::SubnetClaim;
use crate::access::mandate::Mandate;
use crate::cluster::identity::{self, Claim, Claimant, Clash, Verdict};
use crate::cluster::node::random_id;
use crate::cluster::subnet_plan::SubnetIndex;
use crate::cluster::succession::Standing;
use crate::registry::{ChangeError, Holder, Registry, Sign, hold_off, nonce, unix_seconds};
use crate::store::{Change, NewState, RememberedLease, StoreError};

/// How long a node that is to be leased a subnet anew waits here for the moment at which it may be.
const LONGEST_HOLD_WAITED: Duration = Duration::from_millis(2500);

impl Registry {
    /// Registers a node, or recognises it (see [`crate::cluster::identity`]); `by_certificate` is the node that its
    /// certificate is for, `mandate` by what it was let in. When it returns, the lease is on the disk.
    /// Returns as well the token to come with next (see [`crate::cluster::succession`]).
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing has changed then.
    pub async fn register(
        &self,
        registration: Registration,
        token: Option<HeartbeatToken>,
        by_certificate: Option<NodeId>,
        mandate: &Mandate,
    ) -> Result<(Admitted, HeartbeatToken), ChangeError> {
        let node_timeout = self.copy.memory().liveness.timeout();
        let longest = timing::longest_heartbeat_interval(node_timeout);
        if let Some(given) = registration
            .heartbeat_interval()
            .filter(|given| *given > longest)
        {
            return Err(ChangeError::BeatsTooSeldom {
                given,
                longest,
                node_timeout,
            });
        }
        let since = Instant::now();
        let let_in = loop {
            let arrival = Arrival {
                registration: registration.clone(),
                token,
                by_certificate: by_certificate.clone(),
            };
            match self
                .ask(|ask| Command::Register(Box::new(ask)), arrival, mandate)
                .await
            {
                // As long as an agent waits for an answer.
                Err(ChangeError::Held(rest)) if since.elapsed() + rest <= LONGEST_HOLD_WAITED => {
                    tokio::time::sleep(rest).await;
                }
                asked => break asked?,
            }
        };
        let next = let_in
            .next
            .unwrap_or_else(|| hand_out(self, &let_in.node_id));
        let overlay = self.store.overlay();
        let admitted = Admitted {
            node_id: let_in.node_id,
            subnet: let_in.subnet.to_string(),
            vxlan_port: Some(overlay.vxlan_port.into()),
            vni: Some(overlay.vni.into()),
            node_timeout_ms: Some(milliseconds(node_timeout)),
            heartbeat_interval_ms: Some(milliseconds(timing::heartbeat_interval(node_timeout))),
        };
        Ok((admitted, next))
    }
}

/// Hands out the token that is answered to a registration, which is not what a question has to be answered with that
/// waits with the same token.
fn hand_out(registry: &Registry, node_id: &NodeId) -> HeartbeatToken {
    let liveness = &mut registry.copy.memory().liveness;
    liveness.hand_out(node_id, None, nonce(), Instant::now())
}

/// Who registers.
pub(crate) struct Arrival {
    registration: Registration,
    token: Option<HeartbeatToken>,
    by_certificate: Option<NodeId>,
}

/// A node that was let in.
pub(crate) struct LetIn {
    pub(super) node_id: NodeId,
    pub(super) subnet: Ipv4Net,
    /// The token to come with next, unless the node is new.
    next: Option<HeartbeatToken>,
    returning: bool,
    /// It came with another key than the node had, or with none.
    has_another_key: bool,
    changed: bool,
    displaced: Option<Claimant>,
    subnet_claim: Option<SubnetClaim>,
    unix_seconds: i64,
    index: SubnetIndex,
}

pub(super) async fn register(
    arrival: &Arrival,
    mandate: &Mandate,
    registry: &Registry,
    change: &mut Change,
) -> Result<Result<LetIn, ChangeError>, StoreError> {
    let (token, by_certificate) = (&arrival.token, arrival.by_certificate.as_ref());
    let mut registration = Cow::Borrowed(&arrival.registration);
    let mut claim = Claim::from(&arrival.registration);
    claim.node_id = by_certificate.map(NodeId::as_str);
    claim.from = mandate.from();
    let claimants = change.claimants(&claim).await?;
    if by_certificate.is_some()
        && let Some(key) = claim.node_key
        && claimants.iter().any(|other| {
            Some(&other.node_id) != by_certificate && other.node_key.as_deref() == Some(key)
        })
    {
        // Who shows a certificate needs no key, and this one is another node's.
        registration.to_mut().node_key = None;
    }
    let registration = &*registration;
    let (node, displaced) = match identity::decide(&claim, &claimants) {
        Verdict::Admit { node, displaces } => (node, displaces),
        Verdict::Refuse { holder, clash } => {
            let holder = Holder::from(holder);
            return Ok(Err(match clash {
                Clash::AddressUnproven => ChangeError::AddressKept {
                    holder,
                    from: claim.from,
                },
                Clash::Key | Clash::Address => ChangeError::InUse { clash, holder },
            }));
        }
    };
    if let Err(refused) = check_credentials(&claim, node, displaced, registry) {
        return Ok(Err(refused));
    }
    let is_there = by_certificate.is_some() && claim.from == Some(claim.host_ip);
    let stays = node.is_some_and(|node| node.host_ip == claim.host_ip && node.holds_address);
    if !is_there
        && !stays
        && let Some(holder) = change.remembered_at(&claim).await?
    {
        return Ok(Err(ChangeError::AddressRemembered {
            address: claim.host_ip,
            subnet: registry.subnet(holder.subnet)?,
            holder,
        }));
    }
    let mut next = None;
    if let Some(node) = node {
        let moved = node.host_ip != registration.host_ip || node.hostname != registration.hostname;
        let liveness = &mut registry.copy.memory().liveness;
        let node_id = &node.node_id;
        let now = Instant::now();
        match liveness.standing(node_id.as_str(), *token, moved, now) {
            Standing::Outdated if node.up => {
                let copy_at = Some(registration.host_ip);
                return Ok(Err(hold_off(
                    liveness,
                    node_id,
                    Some(Holder::from(node)),
                    copy_at,
                )));
            }
            Standing::Moved if node.up => liveness.displace(node_id, *token, now),
            Standing::Outdated | Standing::Moved | Standing::Node => {}
        }
        // Now, and not when it is stored: of two with one token the second has to find it used. And whoever shows meanwhile
        // that it was there all the time takes the place from what is handed out here.
        liveness.use_token(node_id, *token);
        next = Some(liveness.hand_out(node_id, None, nonce(), now));
    }
    let held = match node {
        Some(node) => change.subnet_of(&node.node_id).await?,
        None => None,
    };
    let subnet_claim = match registration.subnet {
        Some(claimed) => SubnetClaim::examine(claimed, &claim, held, registry, change).await?,
        None => None,
    };
    let remembered = match held {
        Some(_) => None,
        None => change.remembered_of(&claim).await?,
    };
    let index = match (held, &subnet_claim) {
        (Some(index), _) => index,
        (None, Some(SubnetClaim::Free(index))) => *index,
        (None, _) => match remembered {
            Some(index) => index,
            None => match new_subnet(registry, change).await? {
                Ok(index) => index,
                Err(refused) => return Ok(Err(refused)),
            },
        },
    };
    // All is decided; from here on it is written.
    if let Some(displaced) = displaced {
        change.displace(&displaced.node_id).await?;
    }
    let node_id = match (node, by_certificate) {
        (Some(node), _) => node.node_id.clone(),
        (None, Some(node_id)) => node_id.clone(),
        (None, None) => random_id(),
    };
    let unix_seconds = unix_seconds();
    let new = NewState {
        node_id: &node_id,
        registration,
        unix_seconds,
    };
    let mut changed = match node {
        Some(_) => change.renew(new).await?,
        None => {
            if by_certificate.is_some() {
                // It may have been removed, and was the same node then.
                change.forget_removal(&node_id).await?;
            }
            change.add(new).await?;
            true
        }
    };
    if held.is_none() {
        change.forget_remembered_of(&claim).await?;
        change.lease(&node_id, index, unix_seconds).await?;
        if !changed {
            change.mark_changed(&node_id).await?;
            changed = true;
        }
    }
    if node.is_some() && changed {
        let tokens = registry.copy.memory().liveness.succession_text(&node_id);
        // With the change, by which the other replicas learn that the node is elsewhere: from then on they know as well
        // which of two that were there is the node.
        change.write_succession(&node_id, tokens.as_deref()).await?;
    }
    Ok(Ok(LetIn {
        subnet: registry.subnet(index)?,
        node_id,
        next,
        returning: node.is_some(),
        has_another_key: node
            .is_some_and(|it| it.node_key.is_some() && it.node_key != registration.node_key),
        changed,
        displaced: displaced.cloned(),
        subnet_claim,
        unix_seconds,
        index,
    }))
}

/// Whether the claim shows the credentials that it needs (rule 6 of [`crate::cluster::identity`]).
fn check_credentials(
    claim: &Claim<'_>,
    node: Option<&Claimant>,
    displaced: Option<&Claimant>,
    registry: &Registry,
) -> Result<(), ChangeError> {
    let state = registry.credentials.state();
    if let Some(node_id) = claim.node_id {
        let credential = state.nodes.get(node_id);
        let only = credential.and_then(|credential| credential.only_hostname.as_deref());
        return match only {
            Some(only) if only != claim.hostname => Err(ChangeError::OtherName {
                only: only.to_owned(),
                given: claim.hostname.to_owned(),
            }),
            _ => Ok(()),
        };
    }
    let theirs = [node, displaced].into_iter().flatten();
    for other in theirs {
        if state.nodes.contains_key(other.node_id.as_str()) {
            return Err(ChangeError::NeedsCertificate(Some(Holder::from(other))));
        }
    }
    if node.is_none() && state.stage == Stage::Moving {
        return Err(ChangeError::NeedsCertificate(None));
    }
    Ok(())
}

/// A subnet for a node that has none and is not known to hold one.
async fn new_subnet(
    registry: &Registry,
    change: &mut Change,
) -> Result<Result<SubnetIndex, ChangeError>, StoreError> {
    let replica = registry.replica.as_ref();
    let starting = replica.and_then(|replica| replica.hold(change.server()));
    if let Some(rest) = change.hold().await?.max(starting) {
        return Ok(Err(ChangeError::Held(rest)));
    }
    match change.next_subnet(&registry.plan).await? {
        Some(index) => Ok(Ok(index)),
        None => Ok(Err(exhausted(registry, change).await?)),
    }
}

pub(super) fn registered(
    Arrival { registration, .. }: &Arrival,
    let_in: &LetIn,
    registry: &Registry,
    revision: i64,
) {
    let LetIn {
        node_id, subnet, ..
    } = let_in;
    if let (Some(claim), Some(claimed)) = (&let_in.subnet_claim, registration.subnet) {
        claim.tell(claimed, let_in, &registration.hostname);
    }
    if !let_in.changed {
        registry.beat(
            &mut registry.copy.memory().liveness,
            node_id,
            Sign::Heartbeat(None),
        );
        return;
    }
    {
        let mut memory = registry.copy.memory();
        if registry.replica.is_some() {
            let lease = RememberedLease {
                node_id: node_id.clone(),
                node_key: registration.node_key.clone(),
                hostname: registration.hostname.clone(),
                host_ip: registration.host_ip,
                subnet: let_in.index,
                has_credentials: false,
            };
            memory.leased(revision, lease);
        }
        let liveness = &mut memory.liveness;
        if let Some(displaced) = &let_in.displaced {
            liveness.forget(&displaced.node_id);
        }
        let now = Instant::now();
        liveness.watch(node_id.clone(), Status::Up, let_in.unix_seconds, now);
    }
    let returning = let_in.returning;
    info!(name: "node-registered", %node_id, hostname = registration.hostname, host_ip = %registration.host_ip, %subnet, returning, revision,
            "node registered");
    if let_in.has_another_key {
        warn!(name: "host-came-node-name-address", %node_id, hostname = registration.hostname, host_ip = %registration.host_ip,
            "a host came with this node's name and address and another key, and is the node now: its agent lost its state, \
             or the host is another one");
    }
    if let Some(displaced) = &let_in.displaced {
        warn!(name: "node-down-lost-address-another", node_id = %displaced.node_id, hostname = displaced.hostname,
                host_ip = %displaced.host_ip, taken_by = %node_id,
                "a node that is down lost its address to another; it keeps its subnet and has to register again");
    }
}

/// At least one.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

async fn exhausted(registry: &Registry, change: &mut Change) -> Result<ChangeError, StoreError> {
    let reserved = change.reservations().await?;
    Ok(ChangeError::SubnetsExhausted {
        cluster: registry.plan.cluster(),
        subnets: registry.plan.count(),
        reserved: reserved.iter().map(|reserved| reserved.range.count()).sum(),
        held_by_down_nodes: change.held().await?.by_down_nodes,
    })
}
