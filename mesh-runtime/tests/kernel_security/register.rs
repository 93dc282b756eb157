//! A container that is registered: the runtime makes its interface.

use std::{net::Ipv4Addr, process::Command};

use hyper_util::rt::TokioIo;
use mesh_proto::mesh::{
    AllocateAddressRequest, AttachEndpointRequest, InsideContainer, Owner,
    mesh_dataplane_client::MeshDataplaneClient,
};
use mesh_testbed::{Container, Entrance, Host, NetNs, wait_until};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::{frames::Mac, inside::ip, pair::SOON};

/// Its address, of those that the containers of these tests do not get.
pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 42, 1, 50);
/// Its MAC address, which follows from that.
pub(crate) const MAC: Mac = [0x02, 0x53, 10, 42, 1, 50];

pub(crate) fn printed(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// How a container is registered.
#[derive(Clone, Copy, Default)]
pub(crate) struct Registration {
    /// Nothing is done inside: its interface is down, and has no address.
    pub(crate) bare: bool,
    /// Its engine moves its interface into it, and nobody else.
    pub(crate) moved: bool,
    /// What the attacker does before, if it is there already. The address is leased then, and has no
    /// interface yet.
    pub(crate) first: Option<fn(&Container)>,
}

pub(crate) struct Registered {
    netns: NetNs,
    /// The host, where the interface lies until it is moved.
    host: Option<Entrance>,
    inside: InsideContainer,
}

/// The calls of a host's runtime on its Unix socket.
async fn runtime(host: &Host) -> MeshDataplaneClient<Channel> {
    let socket = host.runtime_socket();
    let connect = move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    };
    // The name is for the protocol's header; nobody looks it up.
    let endpoint = Endpoint::from_static("http://runtime");
    let channel = endpoint.connect_with_connector(service_fn(connect)).await;
    MeshDataplaneClient::new(channel.unwrap())
}

fn owner() -> Owner {
    Owner {
        engine: "test".to_owned(),
        network: "quilt".to_owned(),
        container: "registered".to_owned(),
        interface: "eth0".to_owned(),
    }
}

/// Leases the address that the container is to have.
pub(crate) async fn lease(host: &Host) {
    let request = AllocateAddressRequest {
        owner: Some(owner()),
        address: ADDRESS.to_string(),
        ..Default::default()
    };
    let answer = runtime(host).await.allocate_address(request).await;
    let answer = answer.unwrap().into_inner();
    assert!(answer.success, "{}", answer.error);
}

impl Registration {
    pub(crate) async fn make(&self, host: &Host) -> Registered {
        let netns = NetNs::new("registered").await.unwrap();
        let request = AttachEndpointRequest {
            owner: Some(owner()),
            network_namespace: match self.moved {
                true => String::new(),
                false => netns.path().display().to_string(),
            },
            moved_by_engine: self.moved,
            address: ADDRESS.to_string(),
            default_route: true,
            ..Default::default()
        };
        let answer = runtime(host).await.attach_endpoint(request).await;
        let answer = answer.unwrap().into_inner();
        assert!(answer.success, "{}", answer.error);
        let inside = answer.inside.unwrap();
        assert_eq!(inside.mac, printed(MAC));
        let registered = Registered {
            netns,
            host: self.moved.then(|| host.netns().entrance()),
            inside,
        };
        if !self.bare {
            registered.bring_up();
        }
        registered
    }
}

impl Registered {
    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Does inside what whoever registers it has to do.
    pub(crate) fn bring_up(&self) {
        let InsideContainer {
            mut interface,
            address,
            gateway,
            ..
        } = self.inside.clone();
        if let Some(host) = &self.host {
            let path = self.netns.path();
            let mut command = Command::new("ip");
            command.args(["link", "set", &interface, "netns"]).arg(path);
            let output = host.run(|| command.output()).unwrap().unwrap();
            assert!(output.status.success(), "{output:?}");
            ip(&self.netns, &format!("link set {interface} name eth0"));
            interface = "eth0".to_owned();
        }
        ip(
            &self.netns,
            &format!("address add {address} dev {interface}"),
        );
        ip(&self.netns, &format!("link set {interface} up"));
        ip(&self.netns, &format!("route replace default via {gateway}"));
    }
}

/// Waits until the runtime has seen that a container has [`ADDRESS`].
pub(crate) async fn known(host: &Host, container: &Container) {
    let port = container.host_interface();
    wait_until("the first holder", SOON, || async {
        let status = host.status().await.map_err(|error| error.to_string())?;
        let mut endpoints = status.endpoints.iter();
        let known = endpoints.any(|it| it.address == ADDRESS.to_string() && it.interface == port);
        known.then_some(()).ok_or(format!("{:?}", status.endpoints))
    })
    .await
    .unwrap();
}
