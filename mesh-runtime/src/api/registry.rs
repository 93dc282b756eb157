//! The registry's calls: from messages and back.

use std::{collections::HashMap, net::Ipv4Addr};

use mesh_ipam::{Lease, Lifetime, NamedLabels, Owner, Protocol, Published, gateway};
use mesh_proto::mesh::{
    self, AddressLease, AllocateAddressRequest, AllocateAddressResponse, AttachEndpointRequest,
    AttachEndpointResponse, DetachEndpointResponse, InsideContainer, ListAddressesRequest,
    ListAddressesResponse, PublishPortsRequest, PublishPortsResponse, PublishedPort,
    ReleaseAddressRequest, ReleaseAddressResponse,
};
use tonic::{Response, Status};

use super::command::Refusal;
use crate::{
    diff::change::DisplayMac,
    wanted::{
        attachment::{Attachment, Inside},
        endpoint_request::parse_mac,
        registry::{Allocation, CallError, Registry, sweep::bound_to},
    },
};

/// What a refusal is in a message: gRPC errors mean that the call itself failed.
fn settle<T>(outcome: Result<T, CallError>) -> Result<Result<T, Refusal>, Status> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(CallError::Refused(refusal)) => Ok(Err(refusal)),
        Err(CallError::Failed(status)) => Err(status),
    }
}

impl Registry {
    pub(crate) async fn attach_endpoint(
        &self,
        request: AttachEndpointRequest,
        caller: Option<i32>,
    ) -> Result<Response<AttachEndpointResponse>, Status> {
        let outcome = async { self.attach(attachment(request, caller)?).await };
        let mut answer = AttachEndpointResponse::default();
        match settle(outcome.await)? {
            Ok(attached) => {
                answer.success = true;
                answer.endpoint = endpoint(&attached.lease);
                answer.inside = Some(inside_container(&attached.inside));
                answer.new = attached.new;
            }
            Err(refusal) => {
                answer.try_again = refusal.for_now;
                answer.error = refusal.to_string();
            }
        }
        Ok(Response::new(answer))
    }

    pub(crate) async fn detach_endpoint(
        &self,
        of: mesh::Owner,
        only_if_leaked: bool,
    ) -> Result<Response<DetachEndpointResponse>, Status> {
        let outcome = async { self.detach(&owner(Some(of))?, only_if_leaked).await };
        let mut answer = DetachEndpointResponse::default();
        match settle(outcome.await)? {
            Ok(()) => answer.success = true,
            Err(refusal) => {
                answer.try_again = refusal.for_now;
                answer.error = refusal.to_string();
            }
        }
        Ok(Response::new(answer))
    }

    pub(crate) async fn publish_ports(
        &self,
        request: PublishPortsRequest,
    ) -> Result<Response<PublishPortsResponse>, Status> {
        let outcome = async {
            let ports = all_published(&request.ports)?;
            self.publish(&owner(request.owner)?, ports).await
        };
        let mut answer = PublishPortsResponse::default();
        match settle(outcome.await)? {
            Ok(()) => answer.success = true,
            Err(refusal) => {
                answer.try_again = refusal.for_now;
                answer.error = refusal.to_string();
            }
        }
        Ok(Response::new(answer))
    }

    pub(crate) async fn allocate_address(
        &self,
        request: AllocateAddressRequest,
    ) -> Result<Response<AllocateAddressResponse>, Status> {
        let outcome = async { self.allocate(allocation(request)?).await };
        let mut answer = AllocateAddressResponse::default();
        match settle(outcome.await)? {
            Ok(lease) => {
                answer.success = true;
                answer.lease = Some(address_lease(&lease, ""));
            }
            Err(refusal) => {
                answer.try_again = refusal.for_now;
                answer.error = refusal.to_string();
            }
        }
        if let Some(subnet) = self.ipam().usage().subnet {
            answer.subnet = subnet.to_string();
            answer.gateway = gateway(subnet).to_string();
        }
        Ok(Response::new(answer))
    }

    pub(crate) async fn release_address(
        &self,
        request: ReleaseAddressRequest,
    ) -> Result<Response<ReleaseAddressResponse>, Status> {
        let outcome = async {
            let address = address(&request.address)?;
            self.release(&owner(request.owner)?, address).await
        };
        let outcome = settle(outcome.await)?;
        Ok(Response::new(ReleaseAddressResponse {
            success: outcome.is_ok(),
            error: outcome.err().map_or_else(String::new, |it| it.to_string()),
        }))
    }

    pub(crate) async fn list_addresses(
        &self,
        request: ListAddressesRequest,
    ) -> Result<Response<ListAddressesResponse>, Status> {
        let (leaks, shown) = self.leaks_and_shown().await?;
        let usage = self.ipam().usage();
        let fits = |wanted: &str, part: &str| wanted.is_empty() || wanted == part;
        let mut leases = self.ipam().leases();
        leases.retain(|lease| {
            fits(&request.engine, lease.owner.engine())
                && fits(&request.network, lease.owner.network())
        });
        let listed = leases.iter().map(|lease| {
            let leaked = leaks.get(&lease.owner).map(|(_, leak)| leak.reason());
            address_lease(lease, leaked.unwrap_or_default())
        });
        let text = |value: Option<String>| value.unwrap_or_default();
        Ok(Response::new(ListAddressesResponse {
            subnet: text(usage.subnet.map(|subnet| subnet.to_string())),
            gateway: text(usage.subnet.map(|subnet| gateway(subnet).to_string())),
            capacity: usage
                .capacity
                .saturating_sub(shown.probe_address.is_some().into()),
            leased: usage.leased,
            leases: listed.collect(),
            cluster: self.cluster().to_string(),
            probe_address: text(shown.probe_address.map(|address| address.to_string())),
            drained_since: self.ipam().drained(),
        }))
    }
}

fn refused(error: impl std::fmt::Display) -> CallError {
    CallError::Refused(Refusal::because(error))
}

fn owner(of: Option<mesh::Owner>) -> Result<Owner, CallError> {
    let of = of.ok_or_else(|| {
        refused("owner is missing: name engine, network, container and interface")
    })?;
    Owner::new(&of.engine, &of.network, &of.container, &of.interface).map_err(refused)
}

fn address(text: &str) -> Result<Option<Ipv4Addr>, CallError> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown: String = text.chars().take(64).collect();
    text.parse().map(Some).map_err(|_| {
        refused(format!(
            "address {shown:?} is not an IPv4 address, such as 10.42.1.2"
        ))
    })
}

fn named(names: Vec<String>, labels: HashMap<String, String>) -> Result<NamedLabels, CallError> {
    let labels = labels.into_iter().collect();
    let named = NamedLabels { names, labels };
    named.check().map_err(refused)?;
    Ok(named)
}

fn allocation(request: AllocateAddressRequest) -> Result<Allocation, CallError> {
    let namespace = request.network_namespace;
    Ok(Allocation {
        owner: owner(request.owner)?,
        wished: address(&request.address)?,
        namespace: (!namespace.is_empty()).then_some(namespace),
        outlives_boot: request.outlives_boot,
        named: named(request.names, request.labels)?,
    })
}

fn attachment(
    request: AttachEndpointRequest,
    caller: Option<i32>,
) -> Result<Attachment, CallError> {
    if !request.interface.is_empty() {
        return Err(refused(
            "interface is given along with an owner or a namespace: the runtime names what it makes; \
             inside the container the interface has the owner's",
        ));
    }
    let namespace = match (request.moved_by_engine, request.network_namespace) {
        (false, path) => Some(path),
        (true, path) if path.is_empty() => None,
        (true, path) => {
            let shown: String = path.chars().take(64).collect();
            return Err(refused(format!(
                "network_namespace {shown:?} is given along with moved_by_engine: the engine moves the interface into a \
                 namespace of its own, so leave it empty"
            )));
        }
    };
    let mac = match request.mac.as_str() {
        "" => None,
        text => Some(parse_mac(text).map_err(refused)?),
    };
    let published = all_published(&request.ports)?;
    Ok(Attachment {
        owner: owner(request.owner)?,
        namespace,
        caller,
        wished: address(&request.address)?,
        mac,
        mtu: (request.mtu != 0).then_some(request.mtu),
        default_route: request.default_route,
        published,
        ports_held: request.ports_held,
        named: named(request.names, request.labels)?,
    })
}

fn all_published(ports: &[PublishedPort]) -> Result<Vec<Published>, CallError> {
    let all: Vec<Published> = ports.iter().map(published).collect::<Result<_, _>>()?;
    Published::check_all(&all).map_err(refused)?;
    Ok(all)
}

fn published(port: &PublishedPort) -> Result<Published, CallError> {
    let number = |what: &str, value: u32| {
        let number = u16::try_from(value).ok();
        number.ok_or_else(|| refused(format!("ports: {what} {value} is above 65535")))
    };
    let host_port = number("host_port", port.host_port)?;
    Ok(Published {
        protocol: match port.protocol.as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => {
                let shown: String = other.chars().take(16).collect();
                return Err(refused(format!(
                    "ports: protocol {shown:?} is neither tcp nor udp"
                )));
            }
        },
        host_address: address(&port.host_address)?,
        host_port,
        container_port: match port.container_port {
            0 => host_port,
            other => number("container_port", other)?,
        },
        count: match port.count {
            0 => 1,
            other => number("count", other)?,
        },
    })
}

fn endpoint(lease: &Lease) -> Option<mesh::Endpoint> {
    let endpoint = lease.endpoint.as_ref()?;
    Some(mesh::Endpoint {
        address: lease.address.to_string(),
        mac: DisplayMac(endpoint.mac).to_string(),
        interface: endpoint.link.clone(),
        ..Default::default()
    })
}

fn inside_container(inside: &Inside) -> InsideContainer {
    InsideContainer {
        interface: inside.interface.clone(),
        address: inside.address.to_string(),
        gateway: inside.gateway.to_string(),
        routes: inside.routes.iter().map(ToString::to_string).collect(),
        mtu: inside.mtu,
        mac: DisplayMac(inside.mac).to_string(),
    }
}

fn address_lease(lease: &Lease, leaked: &str) -> AddressLease {
    let ports = lease.endpoint.iter().flat_map(|it| &it.published);
    AddressLease {
        address: lease.address.to_string(),
        owner: Some(mesh::Owner {
            engine: lease.owner.engine().to_owned(),
            network: lease.owner.network().to_owned(),
            container: lease.owner.container().to_owned(),
            interface: lease.owner.interface().to_owned(),
        }),
        names: lease.named.names.clone(),
        labels: lease.named.labels.clone().into_iter().collect(),
        network_namespace: bound_to(lease)
            .map_or_else(String::new, |it| it.path.display().to_string()),
        outlives_boot: lease.lifetime == Lifetime::Released,
        since: lease.since,
        endpoint: endpoint(lease),
        ports: ports
            .map(|range| PublishedPort {
                protocol: range.protocol.to_string(),
                host_address: range
                    .host_address
                    .map_or_else(String::new, |address| address.to_string()),
                host_port: range.host_port.into(),
                container_port: range.container_port.into(),
                count: range.count.into(),
            })
            .collect(),
        leaked: leaked.to_owned(),
    }
}
