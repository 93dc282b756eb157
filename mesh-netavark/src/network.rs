//! The network, as Podman and netavark describe it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use mesh_client::DEFAULT_SOCKET;
use mesh_ipam::Owner;
use serde::Deserialize;
use serde_json::Value;

use crate::{ENGINE, short};

/// What a network may be told beyond its name.
pub(crate) const OPTIONS: [&str; 3] = [MTU, NO_DEFAULT_ROUTE, SOCKET];
const MTU: &str = "mtu";
const NO_DEFAULT_ROUTE: &str = "no_default_route";
const SOCKET: &str = "socket";

/// The longest path of a socket, in bytes: what the kernel has room for, less the terminating zero (unix(7)).
const LONGEST_SOCKET: usize = 107;

/// The smallest MTU that IPv4 can do with (RFC 791).
const SMALLEST_MTU: u32 = 576;

/// A network. Fields that are not named here mean nothing to us.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Network {
    pub(crate) name: String,
    /// What `podman network create --opt` sets.
    #[serde(default)]
    options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) subnets: Option<Vec<Subnet>>,
    #[serde(default)]
    pub(crate) routes: Option<Vec<Value>>,
    #[serde(default)]
    pub(crate) network_dns_servers: Option<Vec<Value>>,
    #[serde(default)]
    pub(crate) network_interface: Option<String>,
    #[serde(default)]
    pub(crate) ipam_options: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) internal: bool,
    #[serde(default)]
    pub(crate) ipv6_enabled: bool,
}

/// A subnet that is wished, or was given.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Subnet {
    pub(crate) subnet: String,
    #[serde(default)]
    pub(crate) gateway: Option<String>,
    #[serde(default)]
    pub(crate) lease_range: Option<Value>,
}

impl Network {
    /// Whether it can be a network of ours by its name and its options.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        // With a container and an interface that obey the rules.
        Owner::new(ENGINE, &self.name, "c", "eth0")?;
        for name in self.options.iter().flatten().map(|(name, _)| name) {
            if name == "isolate" {
                bail!(
                    "option isolate: there is one mesh, and containers of all its networks reach each other, whatever they are \
                     called"
                );
            }
            if !OPTIONS.contains(&name.as_str()) {
                bail!(
                    "option {:?} is not known (known: {})",
                    short(name),
                    OPTIONS.join(", ")
                );
            }
        }
        self.mtu()?;
        self.has_no_default_route()?;
        self.socket().map(drop)
    }

    /// In bytes; 0 for the overlay's.
    pub(crate) fn mtu(&self) -> anyhow::Result<u32> {
        let Some(text) = self.option(MTU) else {
            return Ok(0);
        };
        let mtu = text.parse().ok();
        mtu.filter(|it| *it == 0 || *it >= SMALLEST_MTU)
            .with_context(|| {
                format!(
                    "option mtu={}: it is a number of bytes, {SMALLEST_MTU} or more; without it containers have the overlay's",
                    short(text)
                )
            })
    }

    /// Whether containers reach the cluster alone.
    pub(crate) fn has_no_default_route(&self) -> anyhow::Result<bool> {
        match self.option(NO_DEFAULT_ROUTE) {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(other) => bail!(
                "option no_default_route={}: it is true or false",
                short(other)
            ),
        }
    }

    /// The runtime's.
    pub(crate) fn socket(&self) -> anyhow::Result<PathBuf> {
        let socket = Path::new(self.option(SOCKET).unwrap_or(DEFAULT_SOCKET));
        if !socket.is_absolute() {
            let given = short(&socket.to_string_lossy());
            bail!("option socket={given} is not an absolute path");
        }
        let len = socket.as_os_str().len();
        if len > LONGEST_SOCKET {
            bail!(
                "option socket={}… has {len} bytes, and the path of a socket {LONGEST_SOCKET} at most",
                short(&socket.to_string_lossy())
            );
        }
        Ok(socket.to_owned())
    }

    /// Takes the runtime's usual socket where the one that is named cannot be any.
    pub(crate) fn forget_what_is_no_socket(&mut self) {
        if self.socket().is_err()
            && let Some(options) = &mut self.options
        {
            options.remove(SOCKET);
        }
    }

    fn option(&self, name: &str) -> Option<&str> {
        Some(self.options.as_ref()?.get(name)?.as_str())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn network(options: Value) -> Network {
        serde_json::from_value(json!({ "name": "mesh", "options": options })).unwrap()
    }

    #[test]
    fn a_network_needs_no_options_and_those_that_there_are_mean_something() {
        let plain = network(Value::Null);
        plain.check().unwrap();
        assert_eq!(plain.socket().unwrap(), Path::new(DEFAULT_SOCKET));
        assert_eq!(
            (plain.mtu().unwrap(), plain.has_no_default_route().unwrap()),
            (0, false)
        );
        let all = network(
            json!({ "mtu": "1400", "no_default_route": "true", "socket": "/run/mine.sock" }),
        );
        all.check().unwrap();
        assert_eq!(all.socket().unwrap(), Path::new("/run/mine.sock"));
        assert_eq!(
            (all.mtu().unwrap(), all.has_no_default_route().unwrap()),
            (1400, true)
        );
    }

    #[test]
    fn what_an_option_cannot_be_is_refused_by_its_name() {
        for (name, value) in [
            ("isolate", "true"),
            ("vlan", "7"),
            ("mtu", "575"),
            ("mtu", "many"),
            ("no_default_route", "yes"),
            ("socket", "runtime.sock"),
            ("socket", &"s".repeat(5000)),
            ("socket", &format!("/{}", "s".repeat(LONGEST_SOCKET))),
        ] {
            let refused = network(json!({ name: value })).check().unwrap_err();
            let refused = refused.to_string();
            assert!(refused.contains(name) && refused.len() < 150, "{refused}");
        }
        let longest = format!("/{}", "s".repeat(LONGEST_SOCKET - 1));
        network(json!({ "socket": longest })).check().unwrap();
        let mut bad = network(Value::Null);
        bad.name = "a b".to_owned();
        assert!(bad.check().unwrap_err().to_string().contains("a b"));
    }
}
