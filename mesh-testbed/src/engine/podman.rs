//! Podman with its CNI back end, as Debian 12 packages it.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use ipnet::Ipv4Net;

use super::{Language, find_program, namespaces::INSIDE, network::EngineNetwork};
use crate::{
    error::{Error, Result},
    process::output,
};

/// The network that puts containers on the bridge: what docs/CONTAINER_ENGINES.md tells operators
/// to write, for the first node's subnet.
const CONFLIST: &str = include_str!("quilt.conflist");
const CONFLIST_SUBNET: &str = "10.42.1.0/24";
const CONFLIST_GATEWAY: &str = "10.42.1.1";

/// Debian's place for plugins, Fedora's, and that of whoever takes them from upstream.
const PLUGIN_DIRS: [&str; 3] = ["/usr/lib/cni", "/usr/libexec/cni", "/opt/cni/bin"];

/// Those that the network's configuration names.
const PLUGINS: [&str; 3] = ["bridge", "host-local", "portmap"];

/// How it is spoken to.
pub(super) const LANGUAGE: Language = Language::Docker(&["rm", "--force", "--time", "0"]);

/// Where its configuration is.
pub(super) fn environment() -> Vec<(&'static str, OsString)> {
    vec![
        ("CONTAINERS_CONF", "/mnt/containers.conf".into()),
        ("CONTAINERS_STORAGE_CONF", "/mnt/storage.conf".into()),
    ]
}

/// What is installed.
#[derive(Debug)]
pub(super) struct Installation {
    plugins: PathBuf,
}

impl Installation {
    pub(super) fn find() -> Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        for program in ["podman", "runc"] {
            if find_program(program, &path).is_none() {
                return Err(missing(program));
            }
        }
        let plugins = cni_plugins()?;
        let mut command = Command::new("podman");
        command.arg("--version");
        let version = output(command)?;
        match major(&version) {
            Some(4) => Ok(Self { plugins }),
            _ => Err(Error::PodmanUnfit {
                version: version.trim().into(),
            }),
        }
    }

    /// Writes its configuration and a network of the plugin `bridge`.
    pub(super) fn configure(
        &self,
        dir: &Path,
        bridge: Ipv4Net,
        network: EngineNetwork,
    ) -> io::Result<()> {
        let networks = dir.join("networks");
        fs::create_dir_all(&networks)?;
        fs::write(networks.join("quilt.conflist"), conflist(bridge, network))?;
        self.configure_over(dir, &self.plugins)
    }

    /// What containers.conf(5) and containers-storage.conf(5) say, in words that hold wherever a
    /// test may run: Podman's own limits need `CAP_SYS_RESOURCE`, crun refuses hybrid control
    /// groups, and overlayfs does not stack on itself.
    pub(super) fn configure_over(&self, dir: &Path, plugins: &Path) -> io::Result<()> {
        let plugins = plugins.display();
        let network = format!(
            r#"network_backend = "cni"
network_config_dir = "{INSIDE}/networks"
cni_plugin_dirs = ["{plugins}"]"#
        );
        write_settings(dir, &network)
    }
}

/// Writes the configuration of a Podman that looks for networks and plugins where it does by itself.
pub(super) fn configure_with_netavark(dir: &Path) -> io::Result<()> {
    write_settings(dir, r#"network_backend = "netavark""#)
}

fn write_settings(dir: &Path, network: &str) -> io::Result<()> {
    fs::write(dir.join("storage.conf"), STORAGE_CONF)?;
    let containers_conf = format!(
        r#"[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"

[network]
{network}

[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
"#
    );
    fs::write(dir.join("containers.conf"), containers_conf)
}

const STORAGE_CONF: &str = r#"[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
"#;

/// The directory with the CNI plugins.
///
/// # Errors
///
/// [`Error::EngineMissing`], which says what to install.
pub fn cni_plugins() -> Result<PathBuf> {
    PLUGIN_DIRS
        .iter()
        .map(Path::new)
        .find(|dir| PLUGINS.iter().all(|plugin| dir.join(plugin).is_file()))
        .map(Path::to_owned)
        .ok_or_else(|| missing("CNI plugins (bridge, host-local, portmap)"))
}

fn missing(what: &'static str) -> Error {
    Error::EngineMissing { what }
}

fn major(version: &str) -> Option<u32> {
    let number = version.trim().rsplit(' ').next()?;
    number.split('.').next()?.parse().ok()
}

/// The network as an operator writes it, for a bridge with this address.
fn conflist(bridge: Ipv4Net, network: EngineNetwork) -> String {
    let gateway = format!("\"gateway\": \"{CONFLIST_GATEWAY}\"");
    let part = match network.range(bridge) {
        Some((first, last)) => {
            format!("{gateway}, \"rangeStart\": \"{first}\", \"rangeEnd\": \"{last}\"")
        }
        None => gateway.clone(),
    };
    let masquerade = format!("\"ipMasq\": {}", network.masquerade);
    CONFLIST
        .replace("\"ipMasq\": false", &masquerade)
        .replace(&gateway, &part)
        .replace(CONFLIST_SUBNET, &bridge.trunc().to_string())
        .replace(CONFLIST_GATEWAY, &bridge.addr().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_of_another_host_has_that_hosts_subnet_and_gateway() {
        let other = conflist("10.42.17.1/24".parse().unwrap(), EngineNetwork::default());
        let expected = r#""ranges": [[{ "subnet": "10.42.17.0/24", "gateway": "10.42.17.1" }]],"#;
        assert!(other.contains(expected), "{other}");
        serde_json::from_str::<serde_json::Value>(&other).unwrap();
    }

    #[test]
    fn a_network_that_masquerades_in_a_part_of_the_subnet_says_so() {
        let network = EngineNetwork {
            masquerade: true,
            part: Some("10.42.17.128/25".parse().unwrap()),
            ..EngineNetwork::default()
        };
        let written = conflist("10.42.17.1/24".parse().unwrap(), network);
        let written: serde_json::Value = serde_json::from_str(&written).unwrap();
        let bridge = &written["plugins"][0];
        assert_eq!(bridge["ipMasq"], true);
        let range = &bridge["ipam"]["ranges"][0][0];
        assert_eq!(range["rangeStart"], "10.42.17.128");
        assert_eq!(range["rangeEnd"], "10.42.17.254");
    }

    #[test]
    fn operators_read_the_network_that_the_tests_use() {
        let page = include_str!("../../../docs/CONTAINER_ENGINES.md");
        assert!(page.contains(CONFLIST), "the page says something else");
        let part = EngineNetwork {
            part: Some("10.42.1.128/25".parse().unwrap()),
            ..EngineNetwork::default()
        };
        let conflist = conflist("10.42.1.1/24".parse().unwrap(), part);
        let ranges = conflist.lines().find(|line| line.contains("rangeEnd"));
        assert!(page.contains(ranges.unwrap().trim()), "{conflist}");
    }

    #[test]
    fn the_major_version_is_read_from_what_podman_says_of_itself() {
        assert_eq!(major("podman version 4.3.1\n"), Some(4));
        assert_eq!(major("podman version 5.4.2\n"), Some(5));
        assert_eq!(major(""), None);
    }
}
