//! The result of ADD: what a container has got, as it is printed, and as engines bring it back.

use mesh_client::{Attached, mesh::InsideContainer};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    failure::{Code, Failure},
    network::Network,
};

/// The bridge of the runtime, for who reads the result. Nothing depends on it.
const BRIDGE: &str = "quilt0";

/// What ADD prints: what plugins before had got, and ours after it.
pub(crate) fn result(network: &Network, sandbox: &str, attached: &Attached) -> Value {
    let (version, inside) = (network.version, &attached.inside);
    let mut result = match &network.previous {
        Some(Value::Object(previous)) => previous.clone(),
        _ => Map::new(),
    };
    result.insert("cniVersion".to_owned(), version.text().into());
    let interfaces = list(&mut result, "interfaces");
    interfaces.push(json!({ "name": BRIDGE }));
    interfaces.push(json!({ "name": attached.endpoint.interface }));
    let mut own = json!({ "name": inside.interface, "mac": inside.mac, "sandbox": sandbox });
    if version.has_mtu() {
        own["mtu"] = inside.mtu.into();
    }
    let index = interfaces.len();
    interfaces.push(own);
    let mut ip = json!({
        "address": inside.address,
        "gateway": inside.gateway,
        "interface": index,
    });
    if version.has_families() {
        ip["version"] = "4".into();
    }
    list(&mut result, "ips").push(ip);
    let routes = routes(inside);
    list(&mut result, "routes").extend(routes);
    if let Some(dns) = &network.dns {
        result.insert("dns".to_owned(), dns.clone());
    }
    Value::Object(result)
}

fn routes(inside: &InsideContainer) -> impl Iterator<Item = Value> {
    let routes = inside.routes.iter();
    routes.map(|destination| json!({ "dst": destination, "gw": inside.gateway }))
}

fn list<'a>(result: &'a mut Map<String, Value>, name: &str) -> &'a mut Vec<Value> {
    let list = result
        .entry(name)
        .or_insert_with(|| Value::Array(Vec::new()));
    if !list.is_array() {
        *list = Value::Array(Vec::new());
    }
    match list {
        Value::Array(list) => list,
        _ => unreachable!("it was made one above"),
    }
}

/// What CHECK is told that ADD, and the plugins after it, had made.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Expected {
    #[serde(default)]
    pub(crate) interfaces: Vec<ExpectedInterface>,
    #[serde(default)]
    pub(crate) ips: Vec<ExpectedAddress>,
    #[serde(default)]
    pub(crate) routes: Vec<ExpectedRoute>,
}

/// An interface of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ExpectedInterface {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) mac: String,
    #[serde(default)]
    pub(crate) sandbox: String,
}

/// An address of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ExpectedAddress {
    pub(crate) address: String,
    /// Its place among the interfaces.
    pub(crate) interface: Option<usize>,
}

/// A route of a result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ExpectedRoute {
    pub(crate) dst: String,
    pub(crate) gw: Option<String>,
}

impl Expected {
    /// From the configuration.
    pub(crate) fn read(network: &Network) -> Result<Self, Failure> {
        let previous = network.previous.as_ref().ok_or_else(|| {
            Failure::new(
                Code::Config,
                "prevResult is missing: CHECK compares with what ADD made",
            )
        })?;
        Self::deserialize(previous).map_err(|error| {
            Failure::new(Code::Decode, format!("prevResult cannot be read: {error}"))
        })
    }

    /// The container's interface of this name, and the addresses on it.
    pub(crate) fn of(&self, name: &str) -> Option<(&ExpectedInterface, Vec<&str>)> {
        let inside = |it: &&ExpectedInterface| it.name == name && !it.sandbox.is_empty();
        let interface = self.interfaces.iter().find(inside)?;
        let is_here = |it: &&ExpectedAddress| {
            let place = it.interface.and_then(|place| self.interfaces.get(place));
            place == Some(interface)
        };
        let addresses = self.ips.iter().filter(is_here);
        Some((interface, addresses.map(|it| it.address.as_str()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use mesh_client::mesh::Endpoint;

    use super::*;
    use crate::version::Version;

    fn attached() -> Attached {
        Attached {
            endpoint: Endpoint {
                interface: "qm0123456789ab".to_owned(),
                ..Endpoint::default()
            },
            inside: InsideContainer {
                interface: "eth0".to_owned(),
                address: "10.42.1.2/24".to_owned(),
                gateway: "10.42.1.1".to_owned(),
                routes: vec!["0.0.0.0/0".to_owned()],
                mtu: 1450,
                mac: "02:53:0a:2a:01:02".to_owned(),
            },
            new: true,
        }
    }

    fn network(version: Version, previous: Option<Value>) -> Network {
        let config = json!({ "name": "quilt", "engine": "podman", "prevResult": previous,
                             "dns": { "nameservers": ["192.0.2.53"] } });
        Network::read(config.to_string().as_bytes(), version).unwrap()
    }

    #[test]
    fn a_result_is_what_its_version_says() {
        let of = |version| result(&network(version, None), "/run/netns/web", &attached());
        let latest = of(Version::V1_1_0);
        let interface = json!({ "name": "eth0", "mac": "02:53:0a:2a:01:02",
                                "sandbox": "/run/netns/web", "mtu": 1450 });
        assert_eq!(latest["cniVersion"], "1.1.0");
        assert_eq!(latest["interfaces"][2], interface);
        let ip = json!({ "address": "10.42.1.2/24", "gateway": "10.42.1.1", "interface": 2 });
        assert_eq!(latest["ips"], json!([ip]));
        assert_eq!(
            latest["routes"],
            json!([{ "dst": "0.0.0.0/0", "gw": "10.42.1.1" }])
        );
        assert_eq!(latest["dns"]["nameservers"][0], "192.0.2.53");
        let old = of(Version::V0_3_1);
        assert_eq!(old["ips"][0]["version"], "4");
        assert!(old["interfaces"][2].get("mtu").is_none());
    }

    #[test]
    fn what_plugins_before_made_stays_in_front() {
        let before = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "net1", "sandbox": "/run/netns/web" }],
            "ips": [{ "address": "192.0.2.9/24", "interface": 0 }],
            "dns": { "domain": "example" },
        });
        let result = result(
            &network(Version::V1_0_0, Some(before)),
            "/run/netns/web",
            &attached(),
        );
        assert_eq!(result["interfaces"][0]["name"], "net1");
        assert_eq!(result["ips"][0]["address"], "192.0.2.9/24");
        assert_eq!(result["ips"][1]["interface"], 3);
        let expected: Expected = serde_json::from_value(result).unwrap();
        let (interface, addresses) = expected.of("eth0").unwrap();
        assert_eq!(interface.mac, "02:53:0a:2a:01:02");
        assert_eq!(addresses, ["10.42.1.2/24"]);
        assert_eq!(expected.of("net1").unwrap().1, ["192.0.2.9/24"]);
        assert!(expected.of("quilt0").is_none());
    }
}
