//! containerd, with a daemon of its own on the host, spoken to by `ctr`.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use ipnet::IpNet;
use serde::Deserialize;

use super::{EngineContainer, IMAGE, NETWORK};

/// The client.
pub(super) const CLIENT: &str = "ctr";

/// What starts the daemon.
pub(super) const DAEMON: &[&str] = &["containerd", "--config", "/mnt/containerd.toml"];

/// Its settings, in the engine's directory.
pub(super) const SETTINGS: &str = "containerd.toml";

/// Where it keeps what belongs to Kubernetes.
pub(super) const KUBERNETES: &str = "k8s.io";

/// Makes an image of a directory as `docker save` writes them, and imports it. It takes the directory, the client and the
/// image's name.
pub(super) const IMPORT: &str = r#"set -e
client=$2 image=$3
cd "$1/.."
tar -C image -c . >layer.tar
set -- $(sha256sum layer.tar)
machine=$(uname -m)
case $machine in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; esac
cat >config.json <<END
{ "os": "linux", "architecture": "$machine",
  "config": { "Env": ["PATH=/bin"], "Cmd": ["sleep", "1000000"] },
  "rootfs": { "type": "layers", "diff_ids": ["sha256:$1"] } }
END
cat >manifest.json <<END
[{ "Config": "config.json", "RepoTags": ["$image"], "Layers": ["layer.tar"] }]
END
# From version 2 on the daemon does it otherwise, with its own snapshotter alone.
local=
if "$client" images import --help | grep -q -e --local; then
    local=--local
fi
tar -c manifest.json config.json layer.tar | "$client" images import $local --snapshotter native -
"#;

/// Nothing for Kubernetes. Where files and sockets are is containerd's own choice.
pub(super) fn configure(dir: &Path) -> io::Result<()> {
    let settings = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
    fs::write(dir.join(SETTINGS), settings)
}

/// As for Kubernetes, with the image of the tests for sandboxes. `dump` is what the distribution's own settings come to: where
/// its plugins are is left as it is. That the kernel is not to kill a sandbox cannot be had without `CAP_SYS_RESOURCE`.
pub(super) fn for_kubernetes(dump: &str) -> String {
    let mut lines = dump.lines().skip_while(|line| !line.ends_with(".cni]"));
    // The head of a section, and what is in it.
    let head = lines.next();
    let plugins = lines.take_while(|line| !line.trim_start().starts_with('['));
    let plugins = plugins.filter(|line| line.trim_start().starts_with("bin_dir"));
    let plugins: Vec<&str> = head.into_iter().chain(plugins).collect();
    let plugins = plugins.join("\n");
    match dump.lines().any(|line| line == "version = 3") {
        true => format!(
            "version = 3\n\
             [plugins.'io.containerd.cri.v1.images']\n\
             snapshotter = 'native'\n\
             [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
             sandbox = '{IMAGE}'\n\
             [plugins.'io.containerd.cri.v1.runtime']\n\
             restrict_oom_score_adj = true\n\
             {plugins}\n"
        ),
        // Before containerd 2.
        false => format!(
            "version = 2\n\
             [plugins.'io.containerd.grpc.v1.cri']\n\
             sandbox_image = '{IMAGE}'\n\
             restrict_oom_score_adj = true\n\
             [plugins.'io.containerd.grpc.v1.cri'.containerd]\n\
             snapshotter = 'native'\n\
             {plugins}\n"
        ),
    }
}

/// The arguments that start a container which does nothing but be there. (overlayfs does not stack on itself.)
pub(super) fn start<'a>(control_group: &'a str, name: &'a str) -> [&'a str; 12] {
    [
        "run",
        "--detach",
        "--cni",
        "--null-io",
        "--snapshotter",
        "native",
        "--cgroup",
        control_group,
        IMAGE,
        name,
        "sleep",
        "1000000",
    ]
}

/// A name for one run of a program in a container.
pub(super) fn exec_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("exec-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Where libcni keeps what the plugins said of a container, which `ctr` does not show.
pub(super) fn result(name: &str) -> PathBuf {
    format!("/var/lib/cni/results/{NETWORK}-default-{name}-eth0").into()
}

#[derive(Deserialize)]
struct Cached {
    result: Added,
}

#[derive(Deserialize)]
struct Added {
    interfaces: Vec<Interface>,
    ips: Vec<Address>,
}

#[derive(Deserialize)]
struct Interface {
    /// Of the host's, plugins need not say it.
    mac: Option<String>,
    sandbox: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Address {
    interface: usize,
    address: IpNet,
}

/// The container of this name, from what the plugins said of it.
pub(super) fn read_result(name: &str, cached: &str) -> Option<EngineContainer> {
    let cached: Cached = serde_json::from_str(cached).ok()?;
    let added = cached.result;
    let (interface, address) = added.ips.iter().find_map(|it| {
        let IpAddr::V4(address) = it.address.addr() else {
            return None;
        };
        Some((added.interfaces.get(it.interface)?, address))
    })?;
    Some(EngineContainer {
        name: name.into(),
        address,
        mac: interface.mac.clone()?,
        sandbox: interface.sandbox.clone()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_distribution_has_its_plugins_is_left_as_it_is() {
        let dump = "version = 3\n  [plugins.'io.containerd.cri.v1.runtime'.cni]\n    bin_dir = ''\n    \
             bin_dirs = ['/usr/lib/cni']\n    conf_dir = '/etc/cni/net.d'\n  [plugins.'x']\n    bin_dir = '/x'\n";
        let settings = for_kubernetes(dump);
        let of_plugins = "  [plugins.'io.containerd.cri.v1.runtime'.cni]\n    bin_dir = ''\n    \
             bin_dirs = ['/usr/lib/cni']\n";
        assert!(settings.starts_with("version = 3\n"), "{settings}");
        assert!(settings.ends_with(of_plugins), "{settings}");
        let settings = for_kubernetes("version = 2\n");
        assert!(settings.starts_with("version = 2\n"), "{settings}");
    }

    #[test]
    fn a_container_is_what_the_plugins_said_of_it() {
        let cached = r#"{"kind":"cniCacheV1","containerId":"default-web","result":{"cniVersion":"1.0.0",
            "interfaces":[{"name":"quilt0"},
                {"name":"eth0","mac":"02:00:00:00:00:09","sandbox":"/proc/17/ns/net"}],
            "ips":[{"interface":1,"address":"10.42.1.9/24","gateway":"10.42.1.1"}]}}"#;
        let container = read_result("web", cached).unwrap();
        assert_eq!(container.address.to_string(), "10.42.1.9");
        assert_eq!(container.mac, "02:00:00:00:00:09");
        assert_eq!(container.sandbox, Path::new("/proc/17/ns/net"));
        assert_eq!(read_result("web", "{}"), None);
    }
}
