//! The calls that change the wanted state.

use std::time::SystemTime;

use ipnet::Ipv4Net;

use super::{Reconciler, waiting::Waiting};
use crate::{
    api::command::{Command, Refusal, Sync, SyncAnswer, SyncCounts},
    diff::change::Change,
    observed::{
        NeighbourState,
        dirty::{Dirty, Parts},
    },
    probe_endpoint,
    problem::Problem,
    wanted::{
        interface::check_via,
        node_settings::NodeSettings,
        peer::{self, CheckedPeers},
    },
};

impl Reconciler {
    /// Carries out one command. A caller that has gone away meanwhile is no error.
    pub(super) async fn handle(&mut self, command: Command) {
        match command {
            Command::ConfigureSubnet { subnet, reply } => {
                let _ = reply.send(self.configure_subnet(&subnet).await);
            }
            Command::InjectRoute {
                destination,
                via,
                reply,
            } => {
                let _ = reply.send(self.inject_route(&destination, &via).await);
            }
            Command::RemoveRoute { destination, reply } => {
                let _ = reply.send(self.remove_route(&destination).await);
            }
            Command::SyncPeers { sync, reply } => {
                let answer = self.sync_peers(&sync).await;
                self.answer_sync(reply, answer);
            }
            Command::AttachEndpoint { request, reply } => {
                let _ = reply.send(self.attach_endpoint(&request).await);
            }
            Command::DetachEndpoint {
                interface,
                address,
                reply,
            } => {
                let _ = reply.send(self.detach_endpoint(&interface, &address).await);
            }
            Command::Ground { reply } => {
                let _ = reply.send(self.ground());
            }
            Command::MakeEndpoint {
                lease,
                namespace,
                reply,
            } => self.make_endpoint(&lease, namespace.as_ref(), reply).await,
            Command::RaiseEndpoint { link, reply } => {
                let _ = reply.send(self.raise_endpoint(&link).await);
            }
            Command::UnmakeEndpoint { link, reply } => {
                let _ = reply.send(self.unmake_endpoint(&link).await);
            }
            Command::Shown { reply } => {
                let _ = reply.send(self.shown());
            }
            Command::ListPeers { reply } => {
                self.answer(Waiting::for_peers(reply)).await;
            }
            Command::ListRoutes { reply } => {
                self.look().await;
                let _ = reply.send(self.list_routes());
            }
            Command::GetStatus { reply } => {
                self.answer(Waiting::for_status(reply)).await;
            }
            Command::Measure { reply } => {
                let _ = reply.send(Box::new(self.measured()));
            }
            Command::Health { reply } => {
                let _ = reply.send(self.health());
            }
            Command::WatchHealth { reply } => {
                let _ = reply.send(self.account.health());
            }
            Command::StartProbe { subnets, reply } => {
                let _ = reply.send(self.start_probe(subnets));
            }
            Command::CheckFirewall { reply } => self.check_firewall(reply),
            Command::Forget { subnet, reply } => {
                let _ = reply.send(self.forget(&subnet).await);
            }
            Command::Trace { question, reply } => self.trace(question, reply),
            Command::Monitor { look, reply } => {
                let _ = reply.send(self.begin_monitor(&look));
            }
            Command::LastSeen { peers, reply } => {
                let _ = reply.send(self.last_seen(&peers));
            }
            Command::PathGround { target, reply } => {
                let _ = reply.send(self.path_ground(&target));
            }
            Command::FastCounts { peer, reply } => {
                let _ = reply.send(self.fast_counts(peer));
            }
        }
    }

    async fn configure_subnet(&mut self, subnet: &str) -> Result<(), Refusal> {
        let cluster = self.settings.cluster;
        let subnet = cluster.parse_subnet(subnet).map_err(Refusal::because)?;
        match self.wanted.subnet {
            Some(current) if current == subnet => {}
            current => {
                if let Some(current) = current {
                    self.read(Dirty::default())
                        .await
                        .map_err(Refusal::because)?;
                    let uses = self.uses_of(current);
                    if !uses.is_empty() {
                        return Err(Refusal::new(format!(
                            "the subnet cannot become {subnet}: addresses of {current} are in \
                             use ({}); stop the containers first",
                            uses.join(", ")
                        )));
                    }
                }
                self.registered.serve(subnet).await?;
                tracing::info!(name: "subnet-configured", %subnet, "subnet configured");
                self.wanted.set_subnet(subnet);
                self.state_writer.changed(self.wanted.generation);
            }
        }
        self.round(Dirty::default()).await;
        self.device_problem().map_or(Ok(()), Err)
    }

    /// What uses addresses of a subnet on this node.
    fn uses_of(&self, subnet: Ipv4Net) -> Vec<String> {
        let Some(bridge) = self.observed.link_named(&self.settings.bridge) else {
            return Vec::new();
        };
        let ports = self
            .observed
            .ports_of(bridge.index)
            .filter(|port| !probe_endpoint::is_ours(port))
            .map(|port| format!("{} is a port of {}", port.name, bridge.name));
        let neighbours = self
            .observed
            .neighbours
            .iter()
            .filter(|neighbour| {
                neighbour.link == bridge.index
                    && neighbour.state != NeighbourState::Unusable
                    && subnet.contains(&neighbour.address)
                    && !self.is_probe_endpoint(neighbour.address)
            })
            .map(|neighbour| format!("{} answers on {}", neighbour.address, bridge.name));
        ports.chain(neighbours).collect()
    }

    async fn inject_route(&mut self, destination: &str, via: &str) -> Result<(), Refusal> {
        check_via(via, &self.settings.overlay).map_err(Refusal::because)?;
        let own = self.subnet_before("InjectRoute")?;
        let destination = self
            .settings
            .cluster
            .parse_destination(destination, own)
            .map_err(Refusal::because)?;
        let new = self.wanted.inject(destination);
        if new {
            self.state_writer.changed(self.wanted.generation);
        }
        self.round(Dirty::default()).await;
        let Some(problem) = self.route_problem(destination).cloned() else {
            if new && !self.wanted.peers.contains_key(&destination) {
                tracing::info!(name: "route-injected", %destination, "route injected");
            }
            return Ok(());
        };
        // What passes by itself is tried again; a route of somebody else stays.
        if new && matches!(problem, Problem::ForeignRoute { .. }) {
            self.wanted.take_back(destination);
            self.state_writer.changed(self.wanted.generation);
            self.unplanned = true;
        }
        Err(Refusal::because(problem))
    }

    async fn remove_route(&mut self, destination: &str) -> Result<(), Refusal> {
        let cluster = self.settings.cluster;
        let destination = match self.wanted.subnet {
            Some(own) => cluster.parse_destination(destination, own),
            None => cluster.parse_subnet(destination),
        }
        .map_err(Refusal::because)?;
        if self.wanted.remove(destination) {
            self.state_writer.changed(self.wanted.generation);
            tracing::info!(name: "route-removed", %destination, "route removed");
        }
        self.round(Dirty::default()).await;
        let failed = |problem: &&Problem| {
            matches!(
                problem,
                Problem::ChangeFailed { change: Change::RemoveRoute { destination: other, .. }, .. }
                    if *other == destination
            )
        };
        let failure = self.problems.iter().find(failed);
        failure.map_or(Ok(()), |problem| Err(Refusal::because(problem)))
    }

    async fn sync_peers(&mut self, sync: &Sync) -> SyncAnswer {
        let checked = match self.check_sync(sync) {
            Ok(checked) => checked,
            Err(refusal) => {
                return SyncAnswer {
                    outcome: Err(refusal),
                    generation: self.wanted.generation,
                    rejected: Vec::new(),
                };
            }
        };
        let mut rejected: Vec<_> = checked
            .refused
            .iter()
            .filter_map(|(index, error)| Some((sync.peers.get(*index)?.clone(), error.to_string())))
            .collect();
        let news = *self.wanted.peers != checked.peers;
        let changes = self.wanted.sync_peers(sync.generation, checked.peers);
        if news {
            self.state_writer.changed(sync.generation);
        }
        self.state_writer.generation(sync.generation);
        self.account.last_sync = Some(SystemTime::now());
        // What the kernel's notifications have not outdated is not read again: an agent syncs
        // every few seconds, mostly without news, and everything is compared as often anyway.
        self.round(Dirty::default()).await;
        let mut counts = SyncCounts {
            removed: count(changes.removed.len()),
            ..SyncCounts::default()
        };
        for (set, total) in [
            (&changes.added, &mut counts.added),
            (&changes.changed, &mut counts.changed),
            (&changes.unchanged, &mut counts.unchanged),
        ] {
            for &subnet in set {
                match self.peer_problem(subnet) {
                    None => *total += 1,
                    Some(problem) => {
                        let text = subnet.to_string();
                        let named = sync.peers.iter().find(|peer| peer.subnet == text);
                        rejected.extend(named.map(|peer| (peer.clone(), problem.to_string())));
                    }
                }
            }
        }
        if counts.added + counts.changed + counts.removed > 0 || !rejected.is_empty() {
            tracing::info!(name: "peers-synced",
                generation = sync.generation,
                added = counts.added,
                changed = counts.changed,
                removed = counts.removed,
                unchanged = counts.unchanged,
                rejected = rejected.len(),
                "peers synced"
            );
        }
        SyncAnswer {
            outcome: self.device_problem().map_or(Ok(counts), Err),
            generation: self.wanted.generation,
            rejected,
        }
    }

    /// Checks a sync as a whole and takes over the settings and the host address it tells.
    fn check_sync(&mut self, sync: &Sync) -> Result<CheckedPeers, Refusal> {
        let own = self.subnet_before("SyncPeers")?;
        let cluster = self.settings.cluster;
        let told =
            peer::parse_address(&sync.host_address, cluster.cidr).map_err(Refusal::because)?;
        self.wanted
            .check_generation(sync.generation)
            .map_err(Refusal::because)?;
        let settings = NodeSettings::read(sync.node_settings.as_ref()).map_err(Refusal::because)?;
        if self.wanted.node_settings != settings {
            tracing::info!(name: "other-settings",
                vxlan_port = settings.vxlan_port,
                vni = settings.vni,
                "other settings"
            );
            self.wanted.node_settings = settings;
            // A policy rule may lead another port another way, and nothing in the kernel has changed yet.
            self.outdated.parts |= Parts::NEXT_HOPS;
            self.state_writer.changed(self.wanted.generation);
        }
        // The operator's word stands above the agent's.
        let address = self.options.host_address.unwrap_or(told);
        if self.wanted.host_address != Some(address) {
            self.wanted.host_address = Some(address);
            self.state_writer.changed(self.wanted.generation);
        }
        Ok(peer::check_peers(&sync.peers, &cluster, own, address))
    }

    /// The node's subnet, without which a call makes no sense.
    pub(super) fn subnet_before(&self, call: &str) -> Result<Ipv4Net, Refusal> {
        self.wanted.subnet.ok_or_else(|| {
            Refusal::new(format!(
                "{call} needs this node's subnet: call ConfigureNodeSubnet first"
            ))
        })
    }
}

/// A number of peers, of which there are at most 65,536.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
