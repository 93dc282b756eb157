//! A network of Docker's, as it is created. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ipam_driver::{ADDRESS_SPACE, short};

/// What `docker network create` says with `--opt`.
const GENERIC: &str = "com.docker.network.generic";

/// The MTU of a network's containers, as for Docker's own drivers.
const MTU: &str = "com.docker.network.driver.mtu";

const IPV6: &str = "com.docker.network.enable_ipv6";
const INTERNAL: &str = "com.docker.network.internal";

/// What is kept of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// In bytes; the overlay's if none was named.
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
}

/// Where a network's addresses come from, as Docker has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct IpamData {
    address_space: String,
    pool: String,
}

/// Why there is no such network. Each names the option and the rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(
        "the pool {0:?} is of another IPAM driver, whose addresses others of the mesh may have as well: create the network with \
         --ipam-driver quilt too"
    )]
    OtherIpam(String),
    #[error("IPv4Data names no pool: create the network with --ipam-driver quilt too")]
    NoPool,
    #[error("the mesh is of IPv4: leave --ipv6 out")]
    Ipv6,
    #[error(
        "--internal keeps nobody in here: containers of the mesh reach the outside by their node, whatever their network is called"
    )]
    Internal,
    #[error("-o {MTU}={0}: it is a number of bytes, such as 1400")]
    Mtu(String),
    #[error("-o {0}: there is no such option of the driver quilt; {MTU} is one")]
    Option(String),
}

impl Network {
    /// The network that is asked for.
    pub(crate) fn read(
        options: &Map<String, Value>,
        ipv4: &[IpamData],
        ipv6: &[IpamData],
    ) -> Result<Self, NetworkError> {
        let is_set = |name: &str| options.get(name).is_some_and(is_true);
        if !ipv6.is_empty() || is_set(IPV6) {
            return Err(NetworkError::Ipv6);
        }
        if is_set(INTERNAL) {
            return Err(NetworkError::Internal);
        }
        let others = ipv4.iter().find(|it| it.address_space != ADDRESS_SPACE);
        if let Some(other) = others {
            return Err(NetworkError::OtherIpam(short(&other.pool)));
        }
        if ipv4.is_empty() {
            return Err(NetworkError::NoPool);
        }
        let mut network = Self::default();
        let Some(Value::Object(chosen)) = options.get(GENERIC) else {
            return Ok(network);
        };
        for (name, value) in chosen {
            match name.as_str() {
                MTU => {
                    let text = value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned);
                    let mtu = text.parse().map_err(|_| NetworkError::Mtu(short(&text)))?;
                    network.mtu = Some(mtu);
                }
                other => return Err(NetworkError::Option(short(other))),
            }
        }
        Ok(network)
    }
}

/// Docker writes some of them as texts.
fn is_true(value: &Value) -> bool {
    value
        .as_bool()
        .unwrap_or_else(|| value.as_str() == Some("true"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(options: &Value, space: &str) -> Result<Network, NetworkError> {
        let ipv4: Vec<IpamData> = serde_json::from_value(
            json!([{ "AddressSpace": space, "Pool": "172.20.0.0/16", "Gateway": "172.20.0.1/16" }]),
        )
        .unwrap();
        Network::read(options.as_object().unwrap(), &ipv4, &[])
    }

    #[test]
    fn a_network_has_the_mtu_that_is_asked_for() {
        let plain = json!({ IPV6: false, GENERIC: {} });
        assert_eq!(read(&plain, ADDRESS_SPACE), Ok(Network { mtu: None }));
        let smaller = json!({ GENERIC: { MTU: "1400" } });
        assert_eq!(
            read(&smaller, ADDRESS_SPACE),
            Ok(Network { mtu: Some(1400) })
        );
    }

    #[test]
    fn what_a_network_cannot_be_is_refused_by_name() {
        for (options, words) in [
            (json!({ IPV6: true }), "--ipv6"),
            (json!({ INTERNAL: true }), "--internal"),
            (json!({ INTERNAL: "true" }), "--internal"),
            (json!({ GENERIC: { MTU: "big" } }), "big"),
            (
                json!({ GENERIC: { "com.docker.network.bridge.name": "br0" } }),
                "bridge.name",
            ),
        ] {
            let refused = read(&options, ADDRESS_SPACE).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        let refused = read(&json!({}), "LocalDefault").unwrap_err().to_string();
        assert!(refused.contains("172.20.0.0/16") && refused.contains("--ipam-driver quilt"));
    }
}
