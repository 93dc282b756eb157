//! A container that is attached by a call, as `meshctl attach` does it.

use std::{fs::File, net::Ipv4Addr, path::Path};

use ipnet::Ipv4Net;
use mesh_client::{
    Client, ClientError,
    mesh::{AttachEndpointRequest, Owner, PublishedPort},
};
use mesh_testbed::{Entrance, Host};

pub(crate) struct Attached {
    inside: Entrance,
    address: Ipv4Addr,
    owner: Owner,
}

impl Attached {
    /// Attaches what is behind the file, published by a port of the host that leads to one of its own.
    pub(crate) async fn on(host: &Host, namespace: &Path, publish: Option<(u16, u16)>) -> Self {
        let request = request(namespace, "", publish);
        let owner = request.owner.clone().unwrap();
        let mut runtime = Client::connect(&host.runtime_socket()).await.unwrap();
        let attached = runtime.attach(request).await.unwrap();
        let address: Ipv4Net = attached.inside.address.parse().unwrap();
        let file = File::open(namespace).unwrap();
        Self {
            inside: Entrance::new(&owner.container, file.into()),
            address: address.addr(),
            owner,
        }
    }

    /// What is said to a wish for an address.
    pub(crate) async fn refusal(host: &Host, namespace: &Path, wish: Ipv4Addr) -> ClientError {
        let request = request(namespace, &wish.to_string(), None);
        let mut runtime = Client::connect(&host.runtime_socket()).await.unwrap();
        runtime.attach(request).await.unwrap_err()
    }

    pub(crate) async fn detach(self, host: &Host) {
        let mut runtime = Client::connect(&host.runtime_socket()).await.unwrap();
        runtime.detach(self.owner).await.unwrap();
    }

    pub(crate) fn inside(&self) -> &Entrance {
        &self.inside
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }
}

fn request(namespace: &Path, address: &str, publish: Option<(u16, u16)>) -> AttachEndpointRequest {
    let port = |(host, container): (u16, u16)| PublishedPort {
        protocol: "tcp".to_owned(),
        host_address: String::new(),
        host_port: host.into(),
        container_port: container.into(),
        count: 1,
    };
    // Each namespace is one container.
    let container = namespace.to_str().unwrap().replace('/', ".");
    AttachEndpointRequest {
        owner: Some(Owner {
            engine: "test".to_owned(),
            network: "quilt".to_owned(),
            container: format!("c{container}"),
            interface: "eth0".to_owned(),
        }),
        network_namespace: namespace.display().to_string(),
        address: address.to_owned(),
        default_route: true,
        ports: publish.map(port).into_iter().collect(),
        ..Default::default()
    }
}
