//! Docker, with a daemon of its own on the host.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use ipnet::Ipv4Net;

use super::{Language, find_program, network::EngineNetwork};
use crate::{
    error::{Error, Result},
    host::BRIDGE,
};

/// Where `cargo xtask setup` unpacks Debian's packages, below the target directory.
const UNPACKED: &str = "docker";

const PROGRAMS: [&str; 4] = ["dockerd", "docker", "containerd", "containerd-shim-runc-v2"];

/// Those that do without Docker, and come along with it.
const CONTAINERD: [&str; 4] = ["ctr", "containerd", "containerd-shim-runc-v2", "runc"];

/// The client.
pub(super) const CLIENT: &str = "docker";

/// How it is spoken to.
pub(super) const LANGUAGE: Language = Language::Docker(&["rm", "--force"]);

/// What starts the daemon.
pub(super) const DAEMON: &[&str] = &["dockerd", "--config-file", "/mnt/daemon.json"];

/// Its settings, in the engine's directory.
const SETTINGS: &str = "daemon.json";

/// What is installed, or unpacked.
#[derive(Debug)]
pub(super) struct Installation {
    root: Option<PathBuf>,
}

impl Installation {
    /// What was unpacked beside the running executable, else what is in PATH.
    pub(super) fn find() -> Result<Self> {
        Self::with(&PROGRAMS)
    }

    /// As [`find`](Self::find), of containerd alone.
    pub(super) fn find_containerd() -> Result<Self> {
        Self::with(&CONTAINERD)
    }

    fn with(programs: &[&'static str]) -> Result<Self> {
        let executable = env::current_exe()
            .map_err(|error| Error::system("find", "the running executable", error))?;
        let unpacked = executable
            .ancestors()
            .map(|dir| dir.join(UNPACKED))
            .find(|root| root.join("usr/sbin/dockerd").is_file());
        let installation = Self { root: unpacked };
        let path = installation.path();
        match programs.iter().find(|it| find_program(it, &path).is_none()) {
            Some(what) => Err(Error::EngineMissing { what }),
            None => Ok(installation),
        }
    }

    /// Where its programs and those that they start are.
    pub(super) fn path(&self) -> OsString {
        let mut path = OsString::new();
        for dir in self
            .root
            .iter()
            .flat_map(|root| ["usr/bin", "usr/sbin"].map(|it| root.join(it)))
        {
            path.push(dir);
            path.push(":");
        }
        path.push(super::PATH);
        path
    }

    /// Where its libraries are besides the system's.
    pub(super) fn libraries(&self) -> OsString {
        let machine = format!("{}-linux-gnu", env::consts::ARCH);
        let dirs = self.root.iter().flat_map(|root| {
            ["lib", "usr/lib"].map(|dir| root.join(dir).join(&machine).into_os_string())
        });
        dirs.collect::<Vec<_>>().join(OsStr::new(":"))
    }
}

/// Nothing but the network of a mesh; otherwise what holds wherever a test may run.
pub(super) fn configure(dir: &Path) -> io::Result<()> {
    let limit = |name: &str| serde_json::json!({ "Name": name, "Soft": 1024, "Hard": 1024 });
    let settings = serde_json::json!({
        "bridge": "none",
        "storage-driver": "vfs",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "default-ulimits": { "nofile": limit("nofile"), "nproc": limit("nproc") },
    });
    fs::write(dir.join(SETTINGS), settings.to_string())
}

/// Changes one of the daemon's settings.
pub(super) fn set(dir: &Path, name: &str, value: serde_json::Value) -> io::Result<()> {
    let file = dir.join(SETTINGS);
    let mut settings: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
    settings[name] = value;
    fs::write(file, settings.to_string())
}

/// The arguments by which docs/CONTAINER_ENGINES.md tells operators to make the network, for a
/// bridge with this address, with options of the driver `bridge` besides.
pub(super) fn network(bridge: Ipv4Net, network: EngineNetwork, options: &[&str]) -> Vec<String> {
    let part = network
        .part
        .map_or_else(String::new, |part| format!("--ip-range {part} "));
    let masquerade = match network.masquerade {
        // Docker's own choice.
        true => "",
        false => "-o com.docker.network.bridge.enable_ip_masquerade=false ",
    };
    let protected = match network.protected {
        true => "",
        // Versions before 28 do not know it, and take no notice.
        false => "-o com.docker.network.bridge.gateway_mode_ipv4=nat-unprotected ",
    };
    let options: String = options.iter().map(|it| format!("-o {it} ")).collect();
    let line = format!(
        "network create -d bridge --subnet {} --gateway {} {part}-o com.docker.network.bridge.name={BRIDGE} \
         {masquerade}-o com.docker.network.driver.mtu=1450 {protected}{options}quilt",
        bridge.trunc(),
        bridge.addr(),
    );
    line.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_read_the_commands_that_the_tests_use() {
        let page = include_str!("../../../docs/CONTAINER_ENGINES.md");
        let part = Some("10.42.1.128/25".parse().unwrap());
        for part in [None, part] {
            let bridge = "10.42.1.1/24".parse().unwrap();
            let it = EngineNetwork {
                part,
                ..EngineNetwork::default()
            };
            let command = network(bridge, it, &[]).join(" ");
            assert!(page.contains(&format!("# docker {command}\n")), "{command}");
        }
    }
}
