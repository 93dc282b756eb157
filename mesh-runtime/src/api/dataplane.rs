//! `mesh.MeshDataplane`: the whole peer set in one call, and a view of the data plane.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ipnet::Ipv4Net;
use mesh_ipam::Ipam;
use mesh_layout::LAYOUT_VERSION;
use mesh_proto::mesh::{
    AllocateAddressRequest, AllocateAddressResponse, AttachEndpointRequest, AttachEndpointResponse,
    CheckPeersRequest, CheckPeersResponse, DetachEndpointRequest, DetachEndpointResponse, Endpoint,
    FastPathStatus, GetCapabilitiesRequest, GetCapabilitiesResponse, GetStatusRequest,
    GetStatusResponse, ListAddressesRequest, ListAddressesResponse, ListPeersRequest,
    ListPeersResponse, PeerProbe, PeerStatus, ProbePeersRequest, ProbePeersResponse,
    PublishPortsRequest, PublishPortsResponse, RejectedPeer, ReleaseAddressRequest,
    ReleaseAddressResponse, SyncPeersRequest, SyncPeersResponse, TrafficCounters,
    fast_path_status::State, mesh_dataplane_server::MeshDataplane,
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, transport::server::UdsConnectInfo};

use super::{
    ask::ask,
    capabilities, check,
    command::{self, Command, Commands, EndpointView, FastPathView, PeerShown},
    tcp_address::TcpAddress,
};
use crate::{
    ebpf::FastPathReport,
    probe::{self, ProbeRequest},
    wanted::{endpoint_request::EndpointRequest, peer::Peer, registry::Registry},
};

/// Probes at a time: each holds two sockets and asks up to thousands of peers.
const PROBES_AT_A_TIME: usize = 4;

/// Checks of all peers at a time.
const CHECKS_AT_A_TIME: usize = 1;

/// The data plane of this node.
#[derive(Clone, Debug)]
pub struct DataplaneService {
    commands: Commands,
    /// Or why its calls are refused here.
    registry: Result<Registry, Status>,
    /// Of which everybody may know how full it is.
    pool: Option<Ipam>,
    probes: Arc<Semaphore>,
    checks: Arc<Semaphore>,
    tcp_address: TcpAddress,
}

impl DataplaneService {
    pub(crate) fn new(
        commands: Commands,
        registry: Result<Registry, Status>,
        pool: Option<Ipam>,
        tcp_address: TcpAddress,
    ) -> Self {
        Self {
            commands,
            registry,
            pool,
            tcp_address,
            probes: Arc::new(Semaphore::new(PROBES_AT_A_TIME)),
            checks: Arc::new(Semaphore::new(CHECKS_AT_A_TIME)),
        }
    }

    fn registry(&self) -> Result<&Registry, Status> {
        self.registry.as_ref().map_err(Status::clone)
    }
}

/// The process that calls, where the kernel says so: on the Unix socket, if it is one of our process namespace.
fn caller<T>(request: &Request<T>) -> Option<i32> {
    let info = request.extensions().get::<UdsConnectInfo>()?;
    info.peer_cred?.pid().filter(|&pid| pid > 0)
}

#[tonic::async_trait]
impl MeshDataplane for DataplaneService {
    async fn sync_peers(
        &self,
        request: Request<SyncPeersRequest>,
    ) -> Result<Response<SyncPeersResponse>, Status> {
        let SyncPeersRequest {
            generation,
            host_address,
            peers,
            node_settings,
        } = request.into_inner();
        let sync = command::Sync {
            generation,
            host_address,
            peers,
            node_settings,
        };
        let answer = ask(&self.commands, |reply| Command::SyncPeers { sync, reply }).await?;
        let rejected = answer
            .rejected
            .into_iter()
            .map(|(peer, reason)| RejectedPeer {
                peer: Some(peer),
                reason,
            })
            .collect();
        let (success, error, counts) = match answer.outcome {
            Ok(counts) => (true, String::new(), counts),
            Err(refusal) => (false, refusal.to_string(), command::SyncCounts::default()),
        };
        Ok(Response::new(SyncPeersResponse {
            success,
            error,
            generation: answer.generation,
            added: counts.added,
            changed: counts.changed,
            removed: counts.removed,
            unchanged: counts.unchanged,
            rejected,
        }))
    }

    async fn list_peers(
        &self,
        _request: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, Status> {
        let list = ask(&self.commands, |reply| Command::ListPeers { reply }).await?;
        Ok(Response::new(ListPeersResponse {
            generation: list.generation,
            peers: list
                .peers
                .into_iter()
                .map(|(subnet, (peer, shown))| peer_status(subnet, &peer, shown))
                .collect(),
        }))
    }

    async fn get_status(
        &self,
        _request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        let status = ask(&self.commands, |reply| Command::GetStatus { reply }).await?;
        let (drops, passes) = match &status.fast_path {
            FastPathView::Active(report)
            | FastPathView::Off(Some(report))
            | FastPathView::Waiting {
                report: Some(report),
                ..
            } => (names(&report.drops), names(&report.passes)),
            _ => Default::default(),
        };
        let usage = self.pool.as_ref().map(Ipam::usage);
        // One of them is the node's own, for probes.
        let has_own = status.probe_endpoint.is_some();
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            subnet: text(status.subnet),
            host_address: text(status.host_address),
            underlay_interface: status.underlay_interface,
            overlay_mtu: status.overlay_mtu,
            generation: status.generation,
            peers: count(status.peers),
            routes: count(status.routes),
            fast_path: Some(fast_path_status(status.fast_path)),
            endpoints: status.endpoints.into_iter().map(endpoint).collect(),
            drops,
            passes,
            findings: status.findings.into_iter().map(Into::into).collect(),
            suspect_peers: count(status.suspect_peers),
            vxlan_port: status.node_settings.vxlan_port.into(),
            vni: status.node_settings.vni,
            grpc_address: self.tcp_address.get(),
            leased_addresses: usage.map_or(0, |usage| usage.leased),
            address_capacity: usage
                .map_or(0, |usage| usage.capacity.saturating_sub(has_own.into())),
            probe_endpoint: text(status.probe_endpoint),
        }))
    }

    async fn get_capabilities(
        &self,
        _request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        let status = ask(&self.commands, |reply| Command::GetStatus { reply }).await?;
        Ok(Response::new(GetCapabilitiesResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: capabilities::NAMES.map(str::to_owned).to_vec(),
            layout_version: LAYOUT_VERSION,
            kernel_release: capabilities::kernel_release()?,
            fast_path_modes: capabilities::fast_path_modes(&status.fast_path)
                .iter()
                .map(|&mode| mode.to_owned())
                .collect(),
        }))
    }

    async fn probe_peers(
        &self,
        request: Request<ProbePeersRequest>,
    ) -> Result<Response<ProbePeersResponse>, Status> {
        let ProbePeersRequest {
            subnets,
            recent_ms,
            timeout_ms,
        } = request.into_inner();
        let timeout = match Duration::from_millis(timeout_ms.into()) {
            Duration::ZERO => probe::DEFAULT_TIMEOUT,
            timeout if timeout <= probe::MAX_TIMEOUT => timeout,
            _ => {
                return Err(Status::invalid_argument(format!(
                    "timeout_ms {timeout_ms} is too long: at most {}",
                    probe::MAX_TIMEOUT.as_millis()
                )));
            }
        };
        let _permit = self.probes.try_acquire().map_err(|_| {
            Status::resource_exhausted(format!(
                "{PROBES_AT_A_TIME} probes are under way: try again when one has ended"
            ))
        })?;
        let request = ProbeRequest {
            subnets,
            recent: Duration::from_millis(recent_ms.into()),
            timeout,
        };
        let findings = probe::probe(&self.commands, request).await?;
        let peers = findings
            .into_iter()
            .map(|finding| PeerProbe {
                subnet: finding.subnet,
                alive: finding.alive,
                last_packet_age_ms: finding
                    .age
                    .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                error: finding.error,
            })
            .collect();
        Ok(Response::new(ProbePeersResponse { peers }))
    }

    async fn check_peers(
        &self,
        request: Request<CheckPeersRequest>,
    ) -> Result<Response<CheckPeersResponse>, Status> {
        let terms = check::terms(request.get_ref())?;
        let _permit = self.checks.try_acquire().map_err(|_| {
            Status::resource_exhausted("a check is under way: try again when it has ended")
        })?;
        Ok(Response::new(check::check(&self.commands, terms).await?))
    }

    async fn attach_endpoint(
        &self,
        request: Request<AttachEndpointRequest>,
    ) -> Result<Response<AttachEndpointResponse>, Status> {
        let caller = caller(&request);
        let request = request.into_inner();
        if request.owner.is_some()
            || !request.network_namespace.is_empty()
            || request.moved_by_engine
        {
            return self.registry()?.attach_endpoint(request, caller).await;
        }
        if request.mtu != 0
            || request.default_route
            || !request.ports.is_empty()
            || !request.names.is_empty()
            || !request.labels.is_empty()
        {
            return Ok(Response::new(AttachEndpointResponse {
                error: "mtu, default_route, ports, names and labels are of containers with an owner: without one \
                        the interface is made already, and nothing is kept with it"
                    .to_owned(),
                ..AttachEndpointResponse::default()
            }));
        }
        let request = EndpointRequest {
            interface: request.interface,
            address: request.address,
            mac: request.mac,
        };
        let command = |reply| Command::AttachEndpoint { request, reply };
        let mut answer = AttachEndpointResponse::default();
        match ask(&self.commands, command).await? {
            Ok(view) => {
                answer.success = true;
                answer.endpoint = Some(endpoint(view));
            }
            Err(refusal) => answer.error = refusal.to_string(),
        }
        Ok(Response::new(answer))
    }

    async fn detach_endpoint(
        &self,
        request: Request<DetachEndpointRequest>,
    ) -> Result<Response<DetachEndpointResponse>, Status> {
        let DetachEndpointRequest {
            interface,
            address,
            owner,
            only_if_leaked,
        } = request.into_inner();
        if let Some(owner) = owner {
            let registry = self.registry()?;
            return registry.detach_endpoint(owner, only_if_leaked).await;
        }
        let outcome = ask(&self.commands, |reply| Command::DetachEndpoint {
            interface,
            address,
            reply,
        })
        .await?;
        Ok(Response::new(DetachEndpointResponse {
            success: outcome.is_ok(),
            error: text(outcome.err()),
            try_again: false,
        }))
    }

    async fn publish_ports(
        &self,
        request: Request<PublishPortsRequest>,
    ) -> Result<Response<PublishPortsResponse>, Status> {
        self.registry()?.publish_ports(request.into_inner()).await
    }

    async fn allocate_address(
        &self,
        request: Request<AllocateAddressRequest>,
    ) -> Result<Response<AllocateAddressResponse>, Status> {
        self.registry()?
            .allocate_address(request.into_inner())
            .await
    }

    async fn release_address(
        &self,
        request: Request<ReleaseAddressRequest>,
    ) -> Result<Response<ReleaseAddressResponse>, Status> {
        self.registry()?.release_address(request.into_inner()).await
    }

    async fn list_addresses(
        &self,
        request: Request<ListAddressesRequest>,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        self.registry()?.list_addresses(request.into_inner()).await
    }
}

fn peer_status(subnet: Ipv4Net, peer: &Peer, shown: PeerShown) -> PeerStatus {
    let stats = shown.counters.stats;
    PeerStatus {
        peer: Some(peer.to_message(subnet)),
        fast_path: Some(TrafficCounters {
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
        }),
        kernel_path: Some(TrafficCounters {
            tx_packets: stats.kernel_tx_packets,
            tx_bytes: stats.kernel_tx_bytes,
            rx_packets: stats.kernel_rx_packets,
            rx_bytes: stats.kernel_rx_bytes,
        }),
        dropped_packets: stats.drops,
        last_packet_age_ms: shown.counters.last_packet_age_ms,
        kernel_path_ready: shown.kernel_path_ready,
        fast_path_ready: shown.fast_path_ready,
    }
}

fn endpoint(view: EndpointView) -> Endpoint {
    Endpoint {
        address: view.address.to_string(),
        mac: view.mac,
        interface: view.interface,
        kernel_path: match view.shaped {
            true => SHAPED.to_owned(),
            false => String::new(),
        },
    }
}

/// Why the packets of a container take the kernel path.
const SHAPED: &str = "somebody shapes or polices them with tc, which the fast path leads past";

fn fast_path_status(view: FastPathView) -> FastPathStatus {
    let (state, reason, report) = match view {
        FastPathView::Off(report) => (
            State::Off,
            "switched off by --fast-path off; the programs guard".to_owned(),
            report,
        ),
        FastPathView::Unavailable(reason) => (State::Unavailable, reason, None),
        FastPathView::Waiting { reason, report } => (State::Waiting, reason, report),
        FastPathView::Active(report) => (State::Active, String::new(), Some(report)),
    };
    let mut status = FastPathStatus {
        state: state.into(),
        reason,
        ..FastPathStatus::default()
    };
    if let Some(report) = report {
        let FastPathReport {
            attach_mode,
            attachments,
            pin_directory,
            ..
        } = *report;
        status.attach_mode = attach_mode.to_owned();
        status.attachments = attachments;
        status.pin_directory = pin_directory.display().to_string();
    }
    status
}

fn names(counts: &std::collections::BTreeMap<&'static str, u64>) -> HashMap<String, u64> {
    counts
        .iter()
        .map(|(&name, &count)| (name.to_owned(), count))
        .collect()
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
