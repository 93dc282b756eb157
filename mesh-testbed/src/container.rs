//! Containers, as far as the network knows: a namespace with one interface whose other end
//! is enslaved to the host's bridge.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    sync::{Arc, Mutex, atomic::Ordering},
};

use ipnet::Ipv4Net;
use mesh_client::{
    Client,
    mesh::{AttachEndpointRequest, Owner},
};

use crate::{
    control_plane::lock,
    entrance::Entrance,
    error::{Error, Result},
    host::{BRIDGE, Host},
    link::{Links, VethPair},
    netns::NetNs,
};

/// The MTU of containers: a 1500-byte underlay less 50 bytes of VXLAN.
pub const CONTAINER_MTU: u32 = 1450;

/// How a container is connected.
#[derive(Debug, Clone)]
pub struct ContainerOptions {
    /// Its address, which no container of this host has now; `None` takes the lowest one of
    /// the bridge's subnet that none ever had, from .2 upwards.
    pub address: Option<Ipv4Addr>,
    /// The bridge its host side is enslaved to.
    pub bridge: String,
    /// The MTU of both ends, in bytes.
    pub mtu: u32,
}

impl Default for ContainerOptions {
    fn default() -> Self {
        Self {
            address: None,
            bridge: BRIDGE.into(),
            mtu: CONTAINER_MTU,
        }
    }
}

/// A container. Dropping it removes its namespace and with it both ends of its interface.
#[derive(Debug)]
pub struct Container {
    name: String,
    namespace: NetNs,
    address: Ipv4Net,
    host_interface: String,
    host: Entrance,
    addresses_in_use: Arc<Mutex<BTreeSet<Ipv4Addr>>>,
}

impl Drop for Container {
    fn drop(&mut self) {
        lock(&self.addresses_in_use).remove(&self.address.addr());
    }
}

impl Container {
    /// "host1-c1", "host1-c2", ….
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace, where its traffic starts; the interface inside is `eth0`.
    pub fn netns(&self) -> &NetNs {
        &self.namespace
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        self.address.addr()
    }

    /// The interface on its host.
    pub fn host_interface(&self) -> &str {
        &self.host_interface
    }

    /// The namespace of its host.
    pub fn host_netns(&self) -> &Entrance {
        &self.host
    }
}

impl Host {
    /// Adds a container with default options and the next address.
    ///
    /// # Errors
    ///
    /// As [`add_container_with`](Self::add_container_with).
    pub async fn add_container(&self) -> Result<Container> {
        self.add_container_with(&ContainerOptions::default()).await
    }

    /// Adds a container: namespace, `eth0` with an address of the bridge's subnet, default
    /// route through the bridge's address.
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`] when the host has no such bridge with an address, and
    /// [`Error::Invalid`] for an address outside its subnet.
    pub async fn add_container_with(&self, options: &ContainerOptions) -> Result<Container> {
        let bridge = self.bridge_address(&options.bridge).await?;
        let address = self.claim_address(bridge, options.address)?;
        let number = self.containers.fetch_add(1, Ordering::Relaxed) + 1;
        let host_netns = self.netns();
        let namespace = NetNs::create(
            &format!("{}-c{number}", host_netns.name()),
            host_netns.registration(),
        )
        .await?;
        let container = Container {
            name: format!("{}-c{number}", self.name()),
            namespace,
            address,
            host_interface: format!("veth{number}"),
            host: host_netns.entrance(),
            addresses_in_use: Arc::clone(&self.addresses_in_use),
        };
        lock(&self.addresses_in_use).insert(address.addr());
        let host_links = Links::of(host_netns)?;
        host_links
            .add_veth(&VethPair {
                name: &container.host_interface,
                peer: "eth0",
                peer_namespace: &container.namespace,
                mtu: options.mtu,
            })
            .await?;
        host_links
            .enslave(&container.host_interface, &options.bridge)
            .await?;
        let links = Links::of(&container.namespace)?;
        links.add_address("eth0", address).await?;
        links.add_route(Ipv4Net::default(), bridge.addr()).await?;
        Ok(container)
    }

    /// Adds a container whose interface and address the host's runtime gives it, as an engine would ask
    /// for them.
    ///
    /// # Errors
    ///
    /// [`Error::Attach`] with the runtime's reason.
    pub async fn attach_container(&self) -> Result<Container> {
        let number = self.containers.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("{}-c{number}", self.name());
        let host_netns = self.netns();
        let namespace = NetNs::create(
            &format!("{}-c{number}", host_netns.name()),
            host_netns.registration(),
        )
        .await?;
        let failed = |reason: String| Error::Attach {
            container: name.clone(),
            reason,
        };
        let request = AttachEndpointRequest {
            owner: Some(Owner {
                engine: "testbed".into(),
                network: "quilt".into(),
                container: name.clone(),
                interface: "eth0".into(),
            }),
            network_namespace: namespace.path().display().to_string(),
            default_route: true,
            ..Default::default()
        };
        let mut client = Client::connect(&self.runtime_socket())
            .await
            .map_err(|error| failed(error.to_string()))?;
        let attached = client
            .attach(request)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let address: Ipv4Net = attached.inside.address.parse().map_err(|_| {
            failed(format!(
                "{:?} is not an address with its prefix length",
                attached.inside.address
            ))
        })?;
        lock(&self.addresses_in_use).insert(address.addr());
        Ok(Container {
            name,
            namespace,
            address,
            host_interface: attached.endpoint.interface,
            host: host_netns.entrance(),
            addresses_in_use: Arc::clone(&self.addresses_in_use),
        })
    }

    fn claim_address(&self, bridge: Ipv4Net, wanted: Option<Ipv4Addr>) -> Result<Ipv4Net> {
        let mut claimed = lock(&self.container_addresses);
        let in_use = lock(&self.addresses_in_use);
        let free = |address: &Ipv4Addr| *address != bridge.addr() && !in_use.contains(address);
        let address = match wanted {
            Some(address) => {
                Some(address).filter(|address| bridge.contains(address) && free(address))
            }
            None => bridge
                .hosts()
                .find(|address| free(address) && !claimed.contains(address)),
        };
        let address = address.ok_or_else(|| Error::Invalid {
            value: match wanted {
                Some(address) => address.to_string(),
                None => "the next container address".into(),
            },
            rule: format!(
                "{} has no such free address in {}",
                self.name(),
                bridge.trunc()
            ),
        })?;
        claimed.insert(address);
        Ipv4Net::new(address, bridge.prefix_len()).map_err(|error| Error::Invalid {
            value: bridge.to_string(),
            rule: error.to_string(),
        })
    }
}
