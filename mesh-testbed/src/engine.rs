//! Real container engines on a host, whose containers hang on the host's bridge.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ipnet::Ipv4Net;
use serde::Deserialize;

use crate::{
    deadline::Deadline,
    entrance::Entrance,
    error::{Error, Result},
    host::{BRIDGE, Host},
    process::{last_lines, output},
};

mod control_group;
mod docker;
mod image;
mod namespaces;
mod network;
mod podman;

use control_group::ControlGroup;
use namespaces::{INSIDE, Namespaces};
pub use network::EngineNetwork;
pub use podman::cni_plugins;

const NETWORK: &str = "quilt";
const IMAGE: &str = "localhost/busybox:latest";

/// The system's folders, for programs that engines start.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Engines take well below a second for whatever is asked of them here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container engine on a host, with one network: the host's `quilt0`. Nothing but that network
/// is shared with anybody: configuration, images, state and locks are its own, and gone with it.
///
/// Dropping it kills its containers and removes everything, and so does the end of the test's
/// process, whatever ends it. It must be dropped before its host.
#[derive(Debug)]
pub struct Engine {
    client: Client,
    namespaces: Namespaces,
    control_group: ControlGroup,
}

/// The program that is asked for everything.
#[derive(Debug)]
struct Client {
    program: &'static str,
    environment: Vec<(&'static str, OsString)>,
    /// How a container is removed at once.
    remove: &'static [&'static str],
}

/// How a container is made.
#[derive(Debug, Clone, Default)]
pub struct EngineContainerOptions {
    /// Its address; `None` leaves the choice to the network's address management.
    pub address: Option<Ipv4Addr>,
    /// The MAC address of its `eth0`; `None` leaves the choice to the engine.
    pub mac: Option<String>,
    /// A port of the host by which the engine publishes it, and the container's.
    pub publish: Option<(u16, u16)>,
}

/// A container that runs, as its engine describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineContainer {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The MAC address of its `eth0`.
    pub mac: String,
    /// The file that stands for its network namespace, inside the engine's mount namespace.
    sandbox: PathBuf,
}

impl Engine {
    /// Podman with its CNI back end, on a host that has a bridge with an address.
    ///
    /// # Errors
    ///
    /// [`Error::EngineMissing`], which says what to install; [`Error::PodmanUnfit`];
    /// [`Error::NoInterface`] when the host has no bridge with an address yet; what Podman said.
    pub async fn podman(host: &Host) -> Result<Self> {
        Self::podman_with(host, EngineNetwork::default()).await
    }

    /// As [`podman`](Self::podman), with another network.
    ///
    /// # Errors
    ///
    /// Those of [`podman`](Self::podman).
    pub async fn podman_with(host: &Host, network: EngineNetwork) -> Result<Self> {
        let installation = podman::Installation::find()?;
        let client = Client {
            program: "podman",
            environment: podman::ENVIRONMENT
                .map(|(name, value)| (name, value.into()))
                .to_vec(),
            remove: &["rm", "--force", "--time", "0"],
        };
        let configure = |dir: &Path, bridge| installation.configure(dir, bridge, network);
        let (engine, _) = Self::create(host, client, configure).await?;
        engine.import()?;
        Ok(engine)
    }

    /// Docker with a daemon of its own, on a host that has a bridge with an address.
    ///
    /// # Errors
    ///
    /// [`Error::EngineMissing`], which says what to install; [`Error::NoInterface`] when the host
    /// has no bridge with an address yet; what Docker said.
    pub async fn docker(host: &Host) -> Result<Self> {
        Self::docker_with(host, EngineNetwork::default()).await
    }

    /// As [`docker`](Self::docker), with another network.
    ///
    /// # Errors
    ///
    /// Those of [`docker`](Self::docker).
    pub async fn docker_with(host: &Host, network: EngineNetwork) -> Result<Self> {
        let installation = docker::Installation::find()?;
        let client = Client {
            program: "docker",
            environment: vec![
                ("PATH", installation.path()),
                ("LD_LIBRARY_PATH", installation.libraries()),
            ],
            remove: &["rm", "--force"],
        };
        let configure = |dir: &Path, _| docker::configure(dir);
        let (engine, bridge) = Self::create(host, client, configure).await?;
        let mut daemon = engine.inside("sh");
        let line =
            format!("dockerd --config-file {INSIDE}/daemon.json >{INSIDE}/dockerd.log 2>&1 &");
        daemon.args(["-c", &line]);
        output(daemon)?;
        let deadline = Deadline::after(PATIENCE);
        while let Err(error) = engine.run(&["version"]) {
            if deadline.pause().await.is_err() {
                let log = last_lines(&engine_dir(host, "docker").join("dockerd.log"), 15);
                return Err(deadline.missed("an answer of dockerd", format!("{error}\n{log}")));
            }
        }
        engine.import()?;
        let network = docker::network(bridge, network);
        engine.run(&network.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(engine)
    }

    /// "podman" or "docker".
    pub fn name(&self) -> &'static str {
        self.client.program
    }

    async fn create(
        host: &Host,
        client: Client,
        configure: impl FnOnce(&Path, Ipv4Net) -> std::io::Result<()>,
    ) -> Result<(Self, Ipv4Net)> {
        let bridge = host.bridge_address(BRIDGE).await?;
        let dir = engine_dir(host, client.program);
        write_root(&dir.join("image"))?;
        configure(&dir, bridge)
            .map_err(|error| Error::system("write", dir.display().to_string(), error))?;
        let netns = host.netns();
        let control_group = ControlGroup::new(netns.name(), netns.registration())?;
        let engine = Self {
            client,
            namespaces: Namespaces::create(host, &dir, PATIENCE).await?,
            control_group,
        };
        Ok((engine, bridge))
    }

    fn import(&self) -> Result<()> {
        let mut import = self.inside("sh");
        import
            .args([
                "-c",
                "tar -C \"$1\" -c . | \"$2\" import - \"$3\"",
                "import",
            ])
            .args([&format!("{INSIDE}/image"), self.client.program, IMAGE]);
        output(import).map(drop)
    }

    /// Runs the engine's command to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = self.inside(self.client.program);
        command.args(args);
        output(command)
    }

    /// Starts a container that does nothing but be there. Programs run in it with
    /// [`exec`](Self::exec).
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn start(&self, name: &str, options: &EngineContainerOptions) -> Result<EngineContainer> {
        let mut args = vec!["--network", NETWORK];
        let address = options.address.map(|address| address.to_string());
        if let Some(address) = &address {
            args.extend(["--ip", address]);
        }
        if let Some(mac) = &options.mac {
            args.extend(["--mac-address", mac]);
        }
        let publish = options
            .publish
            .map(|(host, container)| format!("{host}:{container}"));
        if let Some(publish) = &publish {
            args.extend(["--publish", publish]);
        }
        self.run_detached(name, &args)?;
        let settings = self.run(&["inspect", "--format", "{{json .NetworkSettings}}", name])?;
        read_settings(name, &settings).ok_or_else(|| Error::Invalid {
            value: settings,
            rule: format!("the description of {name} names its address in {NETWORK}"),
        })
    }

    /// Starts a container that has no network yet, and returns the file that stands for its network
    /// namespace, as it is seen outside the engine's namespaces.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn start_without_network(&self, name: &str) -> Result<PathBuf> {
        self.run_detached(name, &["--network", "none"])?;
        let pid = self.run(&["inspect", "--format", "{{.State.Pid}}", name])?;
        let file = format!("/proc/{}/ns/net", pid.trim());
        Ok(self.namespaces.seen_from_outside(Path::new(&file)))
    }

    fn run_detached(&self, name: &str, options: &[&str]) -> Result<String> {
        let parent = self.control_group.path();
        let common = ["run", "--detach", "--name", name, "--cap-add", "NET_RAW"];
        let grouped = ["--cgroup-parent", &parent];
        let what = [IMAGE, "sleep", "1000000"];
        self.run(&[&common[..], &grouped, options, &what].concat())
    }

    /// Kills a container and removes it.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn remove(&self, container: EngineContainer) -> Result<()> {
        self.run(&[self.client.remove, &[&container.name]].concat())
            .map(drop)
    }

    /// Runs a program in a container to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// What the engine said, or the program.
    pub fn exec(&self, container: &EngineContainer, args: &[&str]) -> Result<String> {
        self.run(&[&["exec", &container.name], args].concat())
    }

    /// A way into the container's network namespace, which lives at least as long as this value.
    ///
    /// # Errors
    ///
    /// When it is not there any more.
    pub fn entrance(&self, container: &EngineContainer) -> Result<Entrance> {
        let path = self.namespaces.seen_from_outside(&container.sandbox);
        let file = File::open(&path)
            .map_err(|error| Error::system("open", path.display().to_string(), error))?;
        Ok(Entrance::new(&container.name, file.into()))
    }

    /// A command in the engine's namespaces, without the caller's settings.
    fn inside(&self, program: &str) -> Command {
        let mut command = self.namespaces.command(program, PATIENCE);
        command
            .env_clear()
            .envs([("PATH", PATH), ("HOME", "/run")])
            .envs(
                self.client
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            );
        command
    }
}

fn engine_dir(host: &Host, program: &str) -> PathBuf {
    host.dir().join(program)
}

/// Writes a root directory for containers: this machine's busybox, as `sh`, `sleep`, `ping`, `ip` and `nc`.
///
/// # Errors
///
/// [`Error::EngineMissing`] where there is no busybox, or what the file system says.
pub fn write_root(dir: &Path) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let busybox = find_program("busybox", &path);
    let busybox = busybox.ok_or(Error::EngineMissing { what: "busybox" })?;
    image::write(dir, &busybox)
        .map_err(|error| Error::system("write", dir.display().to_string(), error))
}

/// Where a program is. The system's folders count although a user's PATH often leaves them out.
fn find_program(program: &str, path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path)
        .chain(env::split_paths(PATH))
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

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

fn read_settings(name: &str, settings: &str) -> Option<EngineContainer> {
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
