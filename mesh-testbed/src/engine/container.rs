//! Containers of an engine: made, described, entered, removed.

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use super::{Engine, IMAGE, Language, NETWORK, containerd, settings};
use crate::{
    entrance::Entrance,
    error::{Error, Result},
    process::output,
};

/// How a container is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineContainerOptions {
    /// Its address; `None` leaves the choice to the network's address management.
    pub address: Option<Ipv4Addr>,
    /// The MAC address of its `eth0`; `None` leaves the choice to the engine.
    pub mac: Option<String>,
    /// A port of the host by which the engine publishes it, and the container's.
    pub publish: Option<(u16, u16)>,
    /// Names that it has in the network besides its own.
    pub aliases: Vec<String>,
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
    pub(super) sandbox: PathBuf,
}

impl Engine {
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
        for alias in &options.aliases {
            args.extend(["--network-alias", alias]);
        }
        match self.client.language {
            Language::Docker(_) => self.run_detached(name, &args)?,
            Language::Ctr if *options == EngineContainerOptions::default() => {
                let group = format!("{}/{name}", self.control_group.path());
                self.run(&containerd::start(&group, name))?
            }
            Language::Ctr => {
                return Err(Error::Invalid {
                    value: format!("{options:?}"),
                    rule: "ctr takes no options of a container's network".into(),
                });
            }
        };
        self.container(name)
    }

    /// A container that runs, as its engine describes it now.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn container(&self, name: &str) -> Result<EngineContainer> {
        let (described, container) = match self.client.language {
            Language::Docker(_) => {
                let settings = ["inspect", "--format", "{{json .NetworkSettings}}", name];
                let settings = self.run(&settings)?;
                let container = settings::read_settings(name, &settings);
                (settings, container)
            }
            Language::Ctr => {
                let file = self.namespaces.seen_from_outside(&containerd::result(name));
                let result = fs::read_to_string(&file)
                    .map_err(|error| Error::system("read", file.display().to_string(), error))?;
                let container = containerd::read_result(name, &result);
                (result, container)
            }
        };
        container.ok_or_else(|| Error::Invalid {
            value: described,
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

    /// Starts a container that does nothing but be there, by one command of the engine's with these options, such as another
    /// network. Returns what the engine printed.
    ///
    /// # Errors
    ///
    /// What the engine said.
    pub fn run_detached(&self, name: &str, options: &[&str]) -> Result<String> {
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
        let name: &str = &container.name;
        match self.client.language {
            Language::Docker(remove) => self.run(&[remove, &[name]].concat()).map(drop),
            Language::Ctr => {
                self.run(&["tasks", "delete", "--force", name])?;
                self.run(&["containers", "delete", name]).map(drop)
            }
        }
    }

    /// Runs a program in a container to its end and returns what it printed.
    ///
    /// # Errors
    ///
    /// What the engine said, or the program.
    pub fn exec(&self, container: &EngineContainer, args: &[&str]) -> Result<String> {
        let name: &str = &container.name;
        match self.client.language {
            Language::Docker(_) => self.run(&[&["exec", name], args].concat()),
            Language::Ctr => {
                let id = containerd::exec_id();
                self.run(&[&["tasks", "exec", "--exec-id", &id, name], args].concat())
            }
        }
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

    /// Takes the name of a container's network namespace away, as who tidies up /run does: the engine cannot find it any more.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn lose_namespace(&self, container: &EngineContainer) -> Result<()> {
        let mut command = self.inside("sh");
        command
            .args(["-c", r#"umount "$1" && rm "$1""#, "lose"])
            .arg(&container.sandbox);
        output(command).map(drop)
    }
}
