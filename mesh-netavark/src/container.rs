//! One interface of one container, as netavark describes it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use mesh_ipam::Owner;
use mesh_plugin::Interface;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ENGINE, network::Network, port::PortMapping, read, short};

/// What `setup` is told.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Container {
    container_id: String,
    #[serde(default)]
    container_name: String,
    #[serde(default)]
    pub(crate) port_mappings: Option<Vec<PortMapping>>,
    pub(crate) network: Network,
    network_options: Options,
}

/// What is wished of the interface.
#[derive(Clone, Debug, Deserialize)]
struct Options {
    interface_name: String,
    #[serde(default)]
    aliases: Option<Vec<String>>,
    #[serde(default)]
    static_ips: Option<Vec<String>>,
    #[serde(default)]
    static_mac: Option<String>,
    /// Of `podman run --network mesh:NAME=VALUE`, from netavark 1.15 on.
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
}

impl Container {
    /// Reads and checks what it is.
    pub(crate) fn read(input: &[u8]) -> anyhow::Result<Self> {
        let container: Self = read(input)?;
        container.network.check()?;
        if let Some((name, _)) = container.network_options.options.iter().flatten().next() {
            bail!(
                "option {:?} of the container is not known: options are of the network",
                short(name)
            );
        }
        Ok(container)
    }

    /// Reads what tells whose it is, and passes over all else: no container is kept from going by what it wished for, or by
    /// what became of its network's file.
    pub(crate) fn read_names(input: &[u8]) -> anyhow::Result<Self> {
        let all: Value = read(input)?;
        let named = json!({
            "container_id": all["container_id"],
            "network": {
                "name": all["network"]["name"],
                "options": match all["network"]["options"]["socket"].as_str() {
                    Some(socket) => json!({ "socket": socket }),
                    None => Value::Null,
                },
            },
            "network_options": { "interface_name": all["network_options"]["interface_name"] },
        });
        let mut container: Self = read(named.to_string().as_bytes())?;
        container.network.forget_what_is_no_socket();
        Ok(container)
    }

    /// What the call is about.
    pub(crate) fn interface(&self, namespace: PathBuf) -> anyhow::Result<Interface> {
        let owner = Owner::new(
            ENGINE,
            &self.network.name,
            &self.container_id,
            &self.network_options.interface_name,
        );
        Ok(Interface {
            socket: self.network.socket()?,
            owner: owner?,
            namespace,
        })
    }

    /// The one address that is wished.
    pub(crate) fn wished(&self) -> anyhow::Result<Option<Ipv4Addr>> {
        let mut wished: Vec<Ipv4Addr> = Vec::new();
        for text in self.network_options.static_ips.iter().flatten() {
            let address: IpAddr = text.parse().with_context(|| {
                format!("the address {:?} is wished, which is none", short(text))
            })?;
            match address {
                IpAddr::V4(address) if wished.contains(&address) => {}
                IpAddr::V4(address) => wished.push(address),
                IpAddr::V6(address) => bail!(
                    "the address {address} is wished, and containers of the mesh have addresses of IPv4 alone"
                ),
            }
        }
        match wished[..] {
            [] => Ok(None),
            [one] => Ok(Some(one)),
            [one, another, ..] => bail!(
                "{} addresses are wished ({one}, {another}…): an interface of the mesh has one",
                wished.len()
            ),
        }
    }

    /// The MAC address that is wished; empty for any.
    pub(crate) fn mac(&self) -> String {
        self.network_options.static_mac.clone().unwrap_or_default()
    }

    /// By what it is known, its name first.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        let aliases = self.network_options.aliases.iter().flatten();
        let name = Some(&self.container_name).filter(|it| !it.is_empty());
        name.into_iter().chain(aliases)
    }
}

#[cfg(test)]
mod tests {
    use mesh_client::DEFAULT_SOCKET;

    use super::*;

    fn container(options: Value) -> Value {
        let mut all = json!({ "container_id": "0a1b", "container_name": "web", "network": { "name": "mesh" },
                              "network_options": { "interface_name": "eth0" } });
        if let (Some(all), Value::Object(options)) =
            (all["network_options"].as_object_mut(), options)
        {
            all.extend(options);
        }
        all
    }

    fn of(options: Value) -> anyhow::Result<Container> {
        Container::read(container(options).to_string().as_bytes())
    }

    #[test]
    fn one_address_of_ipv4_is_wished_or_none() {
        let wished = |ips: Value| of(json!({ "static_ips": ips })).and_then(|it| it.wished());
        assert_eq!(wished(Value::Null).unwrap(), None);
        let one = Some(Ipv4Addr::new(10, 42, 1, 9));
        assert_eq!(wished(json!(["10.42.1.9", "10.42.1.9"])).unwrap(), one);
        for bad in ["fd00::9", "10.42.1", "web"] {
            let refused = wished(json!([bad])).unwrap_err().to_string();
            assert!(refused.contains(bad), "{refused}");
        }
        let two = wished(json!(["10.42.1.9", "10.42.1.8"])).unwrap_err();
        assert!(two.to_string().contains("2 addresses"), "{two}");
    }

    #[test]
    fn who_takes_a_container_off_reads_no_more_than_whose_it_is() {
        let mut spoiled = container(json!({ "static_ips": 7, "aliases": "web" }));
        spoiled["network"]["options"] = json!({ "socket": "/run/mine.sock", "later": [] });
        spoiled["network"]["subnets"] = json!("all");
        let spoiled = spoiled.to_string();
        assert!(Container::read(spoiled.as_bytes()).is_err());
        let names = Container::read_names(spoiled.as_bytes()).unwrap();
        let interface = names.interface(PathBuf::new()).unwrap();
        assert_eq!(interface.owner.to_string(), "podman/mesh/0a1b/eth0");
        assert_eq!(interface.socket, PathBuf::from("/run/mine.sock"));
        for socket in ["run/mine.sock", "", &"s".repeat(5000)] {
            let mut spoiled = container(Value::Null);
            spoiled["network"]["options"] = json!({ "socket": socket });
            let names = Container::read_names(spoiled.to_string().as_bytes()).unwrap();
            let interface = names.interface(PathBuf::new()).unwrap();
            assert_eq!(interface.socket, PathBuf::from(DEFAULT_SOCKET), "{socket}");
        }
        let refused = Container::read_names(b"{}").unwrap_err().to_string();
        assert!(refused.contains("container_id"), "{refused}");
    }

    #[test]
    fn a_container_is_known_by_its_name_and_its_aliases() {
        let names = of(json!({ "aliases": ["shop", "0a1b"] })).unwrap();
        assert_eq!(names.names().collect::<Vec<_>>(), ["web", "shop", "0a1b"]);
    }
}
