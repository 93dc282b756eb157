//! What this project adds to the three calls.

use std::collections::BTreeSet;

use mesh_proto::mesh::{
    self, AttachEndpointRequest, AttachEndpointResponse, CheckPeersRequest, CheckPeersResponse,
    DetachEndpointRequest, DetachEndpointResponse, GetCapabilitiesRequest, GetCapabilitiesResponse,
    GetStatusRequest, GetStatusResponse, ListPeersRequest, ListPeersResponse, PathResult,
    PathSubject, PeerProbe, PeerStatus, ProbePeersRequest, ProbePeersResponse, RejectedPeer,
    SyncPeersRequest, SyncPeersResponse, TrafficCounters, mesh_dataplane_server::MeshDataplane,
};
use tonic::{Request, Response, Status};

use super::{Call, Service};

#[tonic::async_trait]
impl MeshDataplane for Service {
    async fn sync_peers(
        &self,
        request: Request<SyncPeersRequest>,
    ) -> Result<Response<SyncPeersResponse>, Status> {
        let request = request.into_inner();
        let pair = |p: &mesh::Peer| (p.subnet.clone(), p.host_address.clone());
        self.record(Call::Sync {
            generation: request.generation,
            host_address: request.host_address,
            peers: request.peers.iter().map(pair).collect(),
            suspects: request
                .peers
                .iter()
                .filter(|peer| peer.suspect)
                .map(|peer| peer.subnet.clone())
                .collect(),
        })
        .await;
        let mut state = self.0.lock().unwrap();
        if state.refuse_sync {
            return Ok(Response::new(SyncPeersResponse {
                error: "no room".to_owned(),
                ..SyncPeersResponse::default()
            }));
        }
        if request.generation < state.generation {
            return Ok(Response::new(SyncPeersResponse {
                success: false,
                error: "generation is too low".to_owned(),
                generation: state.generation,
                ..SyncPeersResponse::default()
            }));
        }
        let (rejected, taken): (Vec<_>, Vec<_>) = request
            .peers
            .into_iter()
            .partition(|peer| state.reject_peers.contains(&peer.subnet));
        state.entries.clone_from(&taken);
        state.settings = request.node_settings;
        let taken: BTreeSet<String> = taken.into_iter().map(|peer| peer.subnet).collect();
        let nothing: Vec<_> = state.routes.difference(&taken).cloned().collect();
        for destination in nothing {
            let violation = format!("peer of {destination} went before its route");
            state.violations.push(violation);
        }
        let added = taken.difference(&state.peers).count();
        let removed = state.peers.difference(&taken).count();
        state.generation = request.generation;
        // The routes to the peers come with them.
        state.routes = taken.union(&state.injected).cloned().collect();
        state.peers = taken;
        Ok(Response::new(SyncPeersResponse {
            success: true,
            generation: request.generation,
            added: u32::try_from(added).unwrap(),
            removed: u32::try_from(removed).unwrap(),
            rejected: rejected
                .into_iter()
                .map(|peer| RejectedPeer {
                    peer: Some(peer),
                    reason: "outside the cluster CIDR".to_owned(),
                })
                .collect(),
            ..SyncPeersResponse::default()
        }))
    }

    async fn list_peers(
        &self,
        _: Request<ListPeersRequest>,
    ) -> Result<Response<ListPeersResponse>, Status> {
        self.hang_if_told().await;
        let state = self.0.lock().unwrap();
        let counters = TrafficCounters {
            tx_packets: 1,
            tx_bytes: 2,
            rx_packets: 3,
            rx_bytes: 4,
        };
        let status = |peer: &mesh::Peer| PeerStatus {
            peer: Some(peer.clone()),
            fast_path: Some(counters),
            ..PeerStatus::default()
        };
        Ok(Response::new(ListPeersResponse {
            generation: state.generation,
            peers: state.entries.iter().map(status).collect(),
        }))
    }

    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.hang_if_told().await;
        let state = self.0.lock().unwrap();
        Ok(Response::new(GetStatusResponse {
            version: "0.0.0-fake".to_owned(),
            subnet: state.subnet.clone(),
            generation: state.generation,
            overlay_mtu: state.overlay_mtu,
            ..GetStatusResponse::default()
        }))
    }

    async fn get_capabilities(
        &self,
        _: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<GetCapabilitiesResponse>, Status> {
        self.hang_if_told().await;
        let state = self.0.lock().unwrap();
        let Some(capabilities) = state.capabilities.clone() else {
            return Err(Status::unimplemented("an older runtime"));
        };
        Ok(Response::new(GetCapabilitiesResponse {
            version: "0.0.0-fake".to_owned(),
            capabilities,
            ..GetCapabilitiesResponse::default()
        }))
    }

    async fn check_peers(
        &self,
        _: Request<CheckPeersRequest>,
    ) -> Result<Response<CheckPeersResponse>, Status> {
        self.hang_if_told().await;
        let mut state = self.0.lock().unwrap();
        state.checks += 1;
        let way = |peer: &mesh::Peer| PathResult {
            subject: Some(PathSubject {
                subnet: peer.subnet.clone(),
                ..PathSubject::default()
            }),
            ok: true,
            ..PathResult::default()
        };
        Ok(Response::new(CheckPeersResponse {
            results: state.entries.iter().map(way).collect(),
            left_out: 0,
        }))
    }

    async fn probe_peers(
        &self,
        request: Request<ProbePeersRequest>,
    ) -> Result<Response<ProbePeersResponse>, Status> {
        self.hang_if_told().await;
        let mut state = self.0.lock().unwrap();
        if !state.serves_probe {
            return Err(Status::unimplemented("an older runtime"));
        }
        state.probes += 1;
        if state.fail_probes {
            return Err(Status::internal("the fake cannot probe"));
        }
        let probe = |subnet: String| PeerProbe {
            alive: state.alive.contains(&subnet),
            error: match state.peers.contains(&subnet) {
                true => String::new(),
                false => "no such peer".to_owned(),
            },
            subnet,
            last_packet_age_ms: None,
        };
        let peers = request.into_inner().subnets.into_iter().map(probe);
        Ok(Response::new(ProbePeersResponse {
            peers: peers.collect(),
        }))
    }

    async fn attach_endpoint(
        &self,
        _: Request<AttachEndpointRequest>,
    ) -> Result<Response<AttachEndpointResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn detach_endpoint(
        &self,
        _: Request<DetachEndpointRequest>,
    ) -> Result<Response<DetachEndpointResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn allocate_address(
        &self,
        _: Request<mesh::AllocateAddressRequest>,
    ) -> Result<Response<mesh::AllocateAddressResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn publish_ports(
        &self,
        _: Request<mesh::PublishPortsRequest>,
    ) -> Result<Response<mesh::PublishPortsResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn release_address(
        &self,
        _: Request<mesh::ReleaseAddressRequest>,
    ) -> Result<Response<mesh::ReleaseAddressResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }

    async fn list_addresses(
        &self,
        _: Request<mesh::ListAddressesRequest>,
    ) -> Result<Response<mesh::ListAddressesResponse>, Status> {
        Err(Status::unimplemented("the agent does not ask for it"))
    }
}
