//! What netavark tells a plugin of one container.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::netns::NetNs;

/// One interface of one container in one network, `eth0` unless told otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct NetavarkContainer {
    id: String,
    name: String,
    netns: PathBuf,
    network: Value,
    options: Value,
    ports: Value,
}

impl NetavarkContainer {
    /// A container of this name, with an id that follows from it, in a network that `create` made.
    pub fn new(name: &str, netns: &NetNs, network: &Value) -> Self {
        Self::by_path(name, netns.path(), network)
    }

    /// The same with the path of its namespace.
    pub fn by_path(name: &str, netns: impl Into<PathBuf>, network: &Value) -> Self {
        let digits: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
        let id = format!("{digits:0<64}");
        Self {
            options: json!({ "interface_name": "eth0", "aliases": [&id[..12]] }),
            id,
            name: name.to_owned(),
            netns: netns.into(),
            network: network.clone(),
            ports: Value::Null,
        }
    }

    /// Sets one of the network's options for this container, such as `static_ips`.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options[name] = value.into();
        self
    }

    /// Publishes a port of the host by which the container's is reached.
    #[must_use]
    pub fn publish(mut self, host_port: u16, container_port: u16, protocol: &str) -> Self {
        let mapping = json!({ "host_ip": "", "host_port": host_port, "container_port": container_port,
                              "protocol": protocol, "range": 1 });
        match &mut self.ports {
            Value::Array(ports) => ports.push(mapping),
            ports => *ports = json!([mapping]),
        }
        self
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Path of its network namespace.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// What the plugin reads.
    pub fn input(&self) -> Value {
        json!({
            "container_id": self.id,
            "container_name": self.name,
            "port_mappings": self.ports,
            "network": self.network,
            "network_options": self.options,
        })
    }
}
