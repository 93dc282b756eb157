//! The configuration of the network, as it comes on standard input.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use mesh_client::DEFAULT_SOCKET;
use mesh_ipam::Owner;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    failure::{Code, Failure},
    version::{Version, shown},
};

/// A network of ours, and what an engine wants of it for one container.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) version: Version,
    pub(crate) name: String,
    /// Who writes leases: those of one engine are never another's to free.
    pub(crate) engine: String,
    pub(crate) socket: PathBuf,
    /// `None`: the overlay's.
    pub(crate) mtu: Option<u32>,
    /// `None`: where the container has no default route yet.
    pub(crate) default_route: Option<bool>,
    /// Told as it is.
    pub(crate) dns: Option<Value>,
    /// The addresses that are wished, as they are written.
    ips: Vec<String>,
    pub(crate) mac: Option<String>,
    /// Names of the container in this network.
    pub(crate) aliases: Vec<String>,
    pub(crate) labels: BTreeMap<String, String>,
    /// The result of the plugin before, or of ADD.
    pub(crate) previous: Option<Value>,
    /// For GC alone: what is there.
    pub(crate) valid: Option<Vec<ValidAttachment>>,
}

/// A container's interface that is there, as far as the engine knows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct ValidAttachment {
    #[serde(rename = "containerID")]
    pub(crate) container: String,
    #[serde(rename = "ifname")]
    pub(crate) interface: String,
}

/// As it is written. Fields that are not named here are other plugins', or the engine's own.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    name: Option<String>,
    engine: Option<String>,
    socket: Option<PathBuf>,
    mtu: Option<u32>,
    default_route: Option<bool>,
    dns: Option<Value>,
    ipam: Option<Value>,
    #[serde(default)]
    runtime_config: Option<RuntimeConfig>,
    #[serde(default)]
    args: Option<Arguments>,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid: Option<Vec<ValidAttachment>>,
}

#[derive(Debug, Default, Deserialize)]
struct RuntimeConfig {
    ips: Option<Vec<String>>,
    mac: Option<String>,
    aliases: Option<Aliases>,
}

/// A list, or with Podman one for each network.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Aliases {
    Here(Vec<String>),
    Each(BTreeMap<String, Vec<String>>),
}

#[derive(Debug, Default, Deserialize)]
struct Arguments {
    cni: Option<CniArguments>,
}

#[derive(Debug, Default, Deserialize)]
struct CniArguments {
    ips: Option<Vec<String>>,
    mac: Option<String>,
    labels: Option<Vec<Label>>,
}

#[derive(Debug, Deserialize)]
struct Label {
    key: String,
    value: String,
}

impl Network {
    /// Reads what tells whose it is, and passes over all else: no container is kept from going by what it wished for, or by a
    /// mistake that somebody made in the file since it came.
    pub(crate) fn read_names(input: &[u8], version: Version) -> Result<Self, Failure> {
        let mut named: Map<String, Value> = serde_json::from_slice(input).map_err(|error| {
            Failure::new(
                Code::Decode,
                format!("the configuration on standard input cannot be read: {error}"),
            )
        })?;
        named.retain(|name, _| ["name", "engine", "socket"].contains(&name.as_str()));
        Self::read(Value::Object(named).to_string().as_bytes(), version)
    }

    /// Reads and checks it.
    pub(crate) fn read(input: &[u8], version: Version) -> Result<Self, Failure> {
        let mut input = serde_json::Deserializer::from_slice(input);
        let written: Written = serde_path_to_error::deserialize(&mut input).map_err(|error| {
            Failure::new(
                Code::Decode,
                format!("the configuration on standard input cannot be read: {error}"),
            )
        })?;
        let config = |message: String| Failure::new(Code::Config, message);
        if let Some(ipam) = written
            .ipam
            .filter(|it| *it != Value::Object(Default::default()))
        {
            return Err(Failure::new(
                Code::UnsupportedField,
                format!(
                    "ipam is {}: leave it out, the runtime leases addresses for all engines of this host",
                    shown(&ipam)
                ),
            ));
        }
        let name = written.name.ok_or_else(|| {
            config("the network has no name: write \"name\": \"quilt\"".to_owned())
        })?;
        let engine = written.engine.ok_or_else(|| {
            config(
                "\"engine\" is missing beside \"type\": \"quilt-cni\": name the engine that reads this file, such \
                 as \"podman\"; it frees what was leased under that name alone"
                    .to_owned(),
            )
        })?;
        // With a container and an interface that obey the rules.
        Owner::new(&engine, &name, "c", "eth0").map_err(|error| config(error.to_string()))?;
        let socket = written.socket.unwrap_or_else(|| DEFAULT_SOCKET.into());
        if !socket.is_absolute() {
            return Err(config(format!(
                "socket {} is not an absolute path",
                socket.display()
            )));
        }
        let wanted = written.runtime_config.unwrap_or_default();
        let given = written.args.and_then(|it| it.cni).unwrap_or_default();
        let aliases = match wanted.aliases {
            Some(Aliases::Here(aliases)) => aliases,
            Some(Aliases::Each(mut each)) => each.remove(&name).unwrap_or_default(),
            None => Vec::new(),
        };
        let labels = given.labels.unwrap_or_default().into_iter();
        Ok(Self {
            version,
            ips: wanted.ips.or(given.ips).unwrap_or_default(),
            mac: wanted.mac.or(given.mac).filter(|mac| !mac.is_empty()),
            aliases,
            labels: labels.map(|label| (label.key, label.value)).collect(),
            name,
            engine,
            socket,
            mtu: written.mtu.filter(|&mtu| mtu != 0),
            default_route: written.default_route,
            dns: written.dns,
            previous: written.prev_result,
            valid: written.valid,
        })
    }

    /// The runtime's socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The one address that is wished. For ADD alone: no container is kept from going by what it wished for.
    pub(crate) fn wished(&self) -> Result<Option<Ipv4Addr>, Failure> {
        let mut wished: Vec<Ipv4Addr> = Vec::new();
        for text in &self.ips {
            let address = address(text)?;
            // Podman names one twice when it reloads a container's network.
            if !wished.contains(&address) {
                wished.push(address);
            }
        }
        match wished[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            _ => Err(Failure::new(
                Code::Config,
                format!(
                    "{} addresses are wished ({}): a container has one on the mesh: ask for one",
                    wished.len(),
                    wished
                        .iter()
                        .take(4)
                        .map(Ipv4Addr::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            )),
        }
    }
}

/// An IPv4 address, with a prefix length or without: that is the node's subnet's.
pub(crate) fn address(text: &str) -> Result<Ipv4Addr, Failure> {
    let (address, length) = text.split_once('/').unwrap_or((text, "24"));
    match (address.parse(), length.parse::<u8>()) {
        (Ok(address), Ok(0..=32)) => Ok(address),
        _ => Err(Failure::new(
            Code::Config,
            format!(
                "the address {:?} is wished, which is not of IPv4, such as 10.42.1.9",
                short(text)
            ),
        )),
    }
}

fn short(text: &str) -> String {
    text.chars().take(48).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: Value) -> Result<Network, Failure> {
        let mut config = json!({ "name": "quilt", "type": "quilt-cni", "engine": "podman" });
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
        Network::read(config.to_string().as_bytes(), Version::V1_1_0)
    }

    fn code(more: Value) -> Code {
        read(more).unwrap_err().code
    }

    #[test]
    fn a_network_says_whose_it_is_and_all_else_has_a_default() {
        let network = read(json!({})).unwrap();
        assert_eq!(network.socket(), Path::new(DEFAULT_SOCKET));
        assert_eq!((network.mtu, network.default_route), (None, None));
        assert_eq!(code(json!({ "engine": null })), Code::Config);
        assert_eq!(code(json!({ "name": null })), Code::Config);
        assert_eq!(code(json!({ "engine": "a b" })), Code::Config);
        assert_eq!(code(json!({ "engine": 7 })), Code::Decode);
        assert_eq!(code(json!({ "socket": "runtime.sock" })), Code::Config);
        let refused = read(json!({ "ipam": { "type": "host-local" } })).unwrap_err();
        assert_eq!(refused.code, Code::UnsupportedField);
        assert!(refused.to_string().contains("ipam") && refused.to_string().contains("host-local"));
        assert!(read(json!({ "ipam": {}, "bridge": "x", "capabilities": {} })).is_ok());
    }

    #[test]
    fn an_address_is_wished_with_a_prefix_length_or_without_and_only_one() {
        let wished = |ips: Value| {
            read(json!({ "runtimeConfig": { "ips": ips } })).and_then(|it| it.wished())
        };
        let address = Some(Ipv4Addr::new(10, 42, 1, 9));
        assert_eq!(wished(json!([])).unwrap(), None);
        assert_eq!(wished(json!(["10.42.1.9/24"])).unwrap(), address);
        assert_eq!(wished(json!(["10.42.1.9"])).unwrap(), address);
        let twice = json!(["10.42.1.9", "10.42.1.9/24"]);
        assert_eq!(wished(twice).unwrap(), address);
        let args = read(json!({ "args": { "cni": { "ips": ["10.42.1.9"] } } })).unwrap();
        assert_eq!(args.wished().unwrap(), address);
        for bad in [
            json!(["fd00::1/64"]),
            json!(["x"]),
            json!(["10.42.1.8", "10.42.1.9"]),
        ] {
            // What DEL reads as well.
            assert!(read(json!({ "runtimeConfig": { "ips": bad } })).is_ok());
            assert_eq!(wished(bad).unwrap_err().code, Code::Config);
        }
        assert_eq!(wished(json!("10.42.1.9")).unwrap_err().code, Code::Decode);
    }

    #[test]
    fn who_takes_a_container_off_reads_no_more_than_whose_it_is() {
        let config = json!({ "name": "quilt", "engine": "podman", "ipam": 7, "mtu": "many",
                             "runtimeConfig": [], "socket": "/run/mine.sock" });
        let config = config.to_string();
        assert!(Network::read(config.as_bytes(), Version::V1_0_0).is_err());
        let network = Network::read_names(config.as_bytes(), Version::V1_0_0).unwrap();
        assert_eq!(network.socket(), Path::new("/run/mine.sock"));
        let nobodys = br#"{"name":"quilt"}"#;
        let refused = Network::read_names(nobodys, Version::V1_0_0).unwrap_err();
        assert_eq!(refused.code, Code::Config);
    }

    #[test]
    fn names_are_a_list_or_one_for_each_network() {
        let aliases = |aliases: Value| {
            let network = read(json!({ "runtimeConfig": { "aliases": aliases } }));
            network.unwrap().aliases
        };
        assert_eq!(aliases(json!(["web", "www"])), ["web", "www"]);
        assert_eq!(
            aliases(json!({ "quilt": ["web"], "other": ["db"] })),
            ["web"]
        );
        assert!(aliases(json!({})).is_empty());
    }
}
