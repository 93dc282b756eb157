//! What Podman and Docker say of a container's network.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{EngineContainer, NETWORK};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    sandbox_key: PathBuf,
    networks: BTreeMap<String, Attachment>,
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "IPAddress")]
    address: String,
    #[serde(rename = "MacAddress")]
    mac: String,
}

/// The container of this name, from its `.NetworkSettings`.
pub(super) fn read_settings(name: &str, settings: &str) -> Option<EngineContainer> {
    let settings: NetworkSettings = serde_json::from_str(settings).ok()?;
    let attachment = settings.networks.get(NETWORK)?;
    // A symlink, which from outside would lead to our own /run.
    let sandbox = match settings.sandbox_key.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => settings.sandbox_key,
    };
    Some(EngineContainer {
        name: name.into(),
        address: attachment.address.parse().ok()?,
        mac: attachment.mac.clone(),
        sandbox,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_container_is_what_its_engine_says_of_its_network() {
        let settings = r#"{"SandboxKey":"/var/run/docker/netns/1","Networks":{"quilt":{
            "IPAddress":"10.42.1.9","IPPrefixLen":24,"MacAddress":"02:00:00:00:00:09"}}}"#;
        let container = read_settings("web", settings).unwrap();
        assert_eq!(container.address, Ipv4Addr::new(10, 42, 1, 9));
        assert_eq!(container.mac, "02:00:00:00:00:09");
        assert_eq!(container.sandbox, Path::new("/run/docker/netns/1"));
        let none = r#"{"SandboxKey":"","Networks":{}}"#;
        assert_eq!(read_settings("web", none), None);
    }
}
