//! A network and a container, as Docker keeps them, and what it does for them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use mesh_testbed::{Host, NetNs};
use serde_json::{Value, json};

use crate::{
    docker::{id, mac, port_binding},
    mesh::{ip, namespace},
};

const MAC: &str = "com.docker.network.endpoint.macaddress";
const PORTS: &str = "com.docker.network.portmap";

/// A network, as Docker keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) pool_id: String,
    pub(crate) pool: String,
    pub(crate) gateway: Ipv4Addr,
}

impl Network {
    pub(crate) fn creation(&self, options: &Value) -> Value {
        json!({
            "NetworkID": self.id,
            "Options": options,
            "IPv4Data": [{
                "AddressSpace": "quilt", "Pool": self.pool, "Gateway": format!("{}/24", self.gateway), "AuxAddresses": {},
            }],
            "IPv6Data": [],
        })
    }

    /// A container that is to be on it.
    pub(crate) async fn container(&self, label: &str) -> Container {
        Container {
            network: self.clone(),
            endpoint: id(),
            sandbox: format!("/var/run/docker/netns/{}", &id()[..12]),
            mac: mac(),
            wished: None,
            ports: Vec::new(),
            namespace: namespace(label).await,
            given: None,
            source: None,
            gateway: None,
            routes: Vec::new(),
        }
    }
}

/// A container on one network: an endpoint in a sandbox.
pub(crate) struct Container {
    pub(crate) network: Network,
    pub(crate) endpoint: String,
    pub(crate) sandbox: String,
    pub(crate) mac: String,
    pub(crate) wished: Option<Ipv4Addr>,
    /// Ports, as Docker says them.
    pub(crate) ports: Vec<Value>,
    pub(crate) namespace: NetNs,
    pub(crate) given: Option<Ipv4Net>,
    source: Option<String>,
    gateway: Option<Ipv4Addr>,
    routes: Vec<(Ipv4Net, Option<Ipv4Addr>)>,
}

/// What is done for a container, in Docker's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Address,
    Endpoint,
    Join,
    Publish,
    In,
    Revoke,
    Leave,
    Back,
    Delete,
    Release,
}

impl Step {
    pub(crate) const UP: [Self; 5] = [
        Self::Address,
        Self::Endpoint,
        Self::Join,
        Self::Publish,
        Self::In,
    ];
    pub(crate) const DOWN: [Self; 5] = [
        Self::Revoke,
        Self::Leave,
        Self::Back,
        Self::Delete,
        Self::Release,
    ];

    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::UP.into_iter().chain(Self::DOWN)
    }

    pub(crate) fn call(self) -> &'static str {
        match self {
            Self::Address => "IpamDriver.RequestAddress",
            Self::Endpoint => "NetworkDriver.CreateEndpoint",
            Self::Join => "NetworkDriver.Join",
            Self::Publish => "NetworkDriver.ProgramExternalConnectivity",
            Self::Revoke => "NetworkDriver.RevokeExternalConnectivity",
            Self::Leave => "NetworkDriver.Leave",
            Self::Delete => "NetworkDriver.DeleteEndpoint",
            Self::Release => "IpamDriver.ReleaseAddress",
            Self::In | Self::Back => panic!("Docker does that by itself"),
        }
    }

    /// The runtime's call that stands behind it, if one does.
    pub(crate) fn behind(self) -> Option<&'static str> {
        match self {
            Self::Address => Some("allocate"),
            Self::Join => Some("attach"),
            Self::Publish | Self::Revoke => Some("publish"),
            Self::Delete => Some("detach"),
            Self::Release => Some("release"),
            Self::Endpoint | Self::In | Self::Leave | Self::Back => None,
        }
    }
}

impl Container {
    pub(crate) fn publishing(mut self, host_port: u16, port: u16) -> Self {
        self.ports.push(port_binding(host_port, port));
        self
    }

    /// The address that it was given.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.given.unwrap().addr()
    }

    /// By what its lease is known.
    pub(crate) fn holder(&self) -> String {
        self.mac.replace(':', "")
    }

    fn address_request(&self) -> Value {
        json!({
            "PoolID": self.network.pool_id,
            "Address": self.wished.map_or_else(String::new, |it| it.to_string()),
            "Options": { MAC: self.mac },
        })
    }

    /// What the driver is sent in a step.
    pub(crate) fn request(&self, step: Step) -> Value {
        let (network, endpoint) = (&self.network.id, &self.endpoint);
        let mut request = json!({ "NetworkID": network, "EndpointID": endpoint });
        match step {
            Step::Address => return self.address_request(),
            Step::Release => {
                return json!({ "PoolID": self.network.pool_id, "Address": self.address() });
            }
            Step::Endpoint => {
                request["Interface"] = json!({
                    "Address": self.given.unwrap(), "AddressIPv6": "", "MacAddress": self.mac,
                });
                request["Options"] =
                    json!({ PORTS: self.ports, "com.docker.network.endpoint.exposedports": [] });
            }
            Step::Join => {
                request["SandboxKey"] = json!(self.sandbox);
                request["Options"] = json!({ PORTS: self.ports });
            }
            Step::Publish => request["Options"] = json!({ PORTS: self.ports }),
            _ => {}
        }
        request
    }

    pub(crate) fn read(&mut self, step: Step, answer: &Value) {
        match step {
            Step::Endpoint => {
                // "driver modified interface address"
                for name in ["Address", "AddressIPv6", "MacAddress"] {
                    let value = answer["Interface"][name].as_str().unwrap_or_default();
                    assert_eq!(value, "", "{answer}");
                }
            }
            Step::Join => {
                let name = &answer["InterfaceName"];
                assert_eq!(name["DstPrefix"], "eth", "{answer}");
                self.source = Some(name["SrcName"].as_str().unwrap().to_owned());
                self.gateway = Some(answer["Gateway"].as_str().unwrap().parse().unwrap());
                let routes = answer["StaticRoutes"].as_array().unwrap();
                let route = |it: &Value| {
                    let to = it["Destination"].as_str().unwrap().parse().unwrap();
                    let next = it["NextHop"].as_str().unwrap_or_default();
                    (to, (it["RouteType"] == 0).then(|| next.parse().unwrap()))
                };
                self.routes = routes.iter().map(route).collect();
            }
            _ => {}
        }
    }

    /// What libnetwork does once the container's namespace is there (`AddInterface`, osl/interface_linux.go).
    pub(crate) fn take(&self, host: &Host) {
        let source = self.source.as_ref().unwrap();
        let inside = self.namespace.name();
        ip(host.netns(), &format!("link set {source} netns {inside}"));
        let inside = |words: &str| drop(ip(&self.namespace, words));
        inside(&format!("link set {source} down"));
        inside(&format!("link set {source} name eth0"));
        inside(&format!("link set eth0 address {}", self.mac));
        inside(&format!("address add {} dev eth0", self.given.unwrap()));
        inside("link set eth0 up");
        for (to, next) in &self.routes {
            match next {
                Some(next) => inside(&format!("route add {to} via {next}")),
                None => inside(&format!("route add {to} dev eth0 scope link")),
            }
        }
        inside(&format!("route add default via {}", self.gateway.unwrap()));
    }

    /// What libnetwork does when a container leaves (`RemoveInterface`).
    pub(crate) fn hand_back(&self, host: &Host) {
        let source = self.source.as_ref().unwrap();
        ip(&self.namespace, "link set eth0 down");
        ip(&self.namespace, &format!("link set eth0 name {source}"));
        let outside = host.netns().name();
        ip(
            &self.namespace,
            &format!("link set {source} netns {outside}"),
        );
    }
}
