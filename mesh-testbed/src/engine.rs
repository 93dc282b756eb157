//! Real container engines on a host, whose containers hang on the host's bridge.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use ipnet::Ipv4Net;

use crate::{
    deadline::Deadline,
    error::{Error, Result},
    host::{BRIDGE, Host},
    process::{last_lines, output},
};

mod container;
mod containerd;
mod control_group;
mod distribution;
mod docker;
mod image;
mod namespaces;
mod network;
mod podman;
mod quilt_cni;
mod quilt_docker;
mod settings;

pub use container::{EngineContainer, EngineContainerOptions};
use control_group::ControlGroup;
pub use distribution::Distribution;
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
    /// What is [`INSIDE`] its namespaces, as it is seen from outside.
    dir: PathBuf,
    namespaces: Arc<Namespaces>,
    control_group: Arc<ControlGroup>,
}

/// The program that is asked for everything.
#[derive(Debug)]
struct Client {
    program: &'static str,
    environment: Vec<(&'static str, OsString)>,
    language: Language,
}

/// How the program is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    /// As Docker's, with the words that remove a container at once.
    Docker(&'static [&'static str]),
    /// As containerd's `ctr`.
    Ctr,
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
            environment: podman::environment(),
            language: podman::LANGUAGE,
        };
        let configure = |dir: &Path, bridge| installation.configure(dir, bridge, network);
        let (engine, _) = Self::create(host, client, None, configure).await?;
        engine.import()?;
        Ok(engine)
    }

    /// Podman with its CNI back end on a network of `quilt-cni`, on a host whose runtime runs. The runtime moves into
    /// the engine's namespaces, where plugins and runtime mean the same by a path or a process id; it ends with them.
    ///
    /// # Errors
    ///
    /// Those of [`podman`](Self::podman), a missing `quilt-cni`, and what the runtime says.
    pub async fn podman_over_quilt_cni(host: &Host) -> Result<Self> {
        let installation = podman::Installation::find()?;
        let client = Client {
            program: "podman",
            environment: podman::environment(),
            language: podman::LANGUAGE,
        };
        let plugin = quilt_cni::Installation::find()?;
        let configure = |dir: &Path, _| {
            plugin.configure(dir)?;
            installation.configure_over(dir, Path::new(quilt_cni::PLUGIN_DIR))
        };
        let (engine, _) = Self::create(host, client, None, configure).await?;
        host.move_runtime(engine.namespaces.doors()).await?;
        engine.add_quilt_network(NETWORK)?;
        engine.import()?;
        Ok(engine)
    }

    /// containerd with its client `ctr`, on a network of `quilt-cni`, on a host whose runtime runs. The runtime
    /// moves as for [`podman_over_quilt_cni`](Self::podman_over_quilt_cni). `ctr` takes no options of a container's network.
    ///
    /// # Errors
    ///
    /// [`Error::EngineMissing`], which says what to install; a missing `quilt-cni`, and what the runtime or containerd says.
    pub async fn containerd(host: &Host) -> Result<Self> {
        let installation = docker::Installation::find_containerd()?;
        let client = Client {
            program: containerd::CLIENT,
            environment: vec![("PATH", installation.path())],
            language: Language::Ctr,
        };
        let plugin = quilt_cni::Installation::find()?;
        let configure = |dir: &Path, _| {
            plugin.configure(dir)?;
            containerd::configure(dir)
        };
        let (engine, _) = Self::create(host, client, None, configure).await?;
        host.move_runtime(engine.namespaces.doors()).await?;
        engine.add_quilt_network(NETWORK)?;
        engine.start_daemon().await?;
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
            program: docker::CLIENT,
            environment: vec![
                ("PATH", installation.path()),
                ("LD_LIBRARY_PATH", installation.libraries()),
            ],
            language: docker::LANGUAGE,
        };
        let configure = |dir: &Path, _| docker::configure(dir);
        let (engine, bridge) = Self::create(host, client, None, configure).await?;
        engine.start_daemon().await?;
        engine.import()?;
        let network = docker::network(bridge, network, &[]);
        engine.run(&network.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(engine)
    }

    /// "podman", "docker" or "ctr".
    pub fn name(&self) -> &'static str {
        self.client.program
    }

    async fn create(
        host: &Host,
        client: Client,
        root: Option<&Path>,
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
            namespaces: Arc::new(Namespaces::create(host, &dir, root, PATIENCE).await?),
            dir,
            control_group: Arc::new(control_group),
        };
        Ok((engine, bridge))
    }

    /// Another engine in the same namespaces, with the same root file system.
    fn beside(&self, client: Client) -> Self {
        Self {
            client,
            dir: self.dir.clone(),
            namespaces: Arc::clone(&self.namespaces),
            control_group: Arc::clone(&self.control_group),
        }
    }

    async fn start_daemon(&self) -> Result<()> {
        let name = match self.client.language {
            Language::Docker(_) => docker::DAEMON,
            Language::Ctr => containerd::DAEMON,
        };
        let mut daemon = self.inside("sh");
        let client = self.client.program;
        let line = format!(
            "{} >>{INSIDE}/{client}.log 2>&1 & echo $! >{INSIDE}/{client}.pid",
            name.join(" ")
        );
        daemon.args(["-c", &line]);
        output(daemon)?;
        let deadline = Deadline::after(PATIENCE);
        while let Err(error) = self.run(&["version"]) {
            if deadline.pause().await.is_err() {
                let log = self.dir.join(format!("{client}.log"));
                let what = format!("an answer of {}", name[0]);
                return Err(deadline.missed(what, format!("{error}\n{}", last_lines(&log, 15))));
            }
        }
        Ok(())
    }

    /// Ends the engine's daemon with SIGTERM and starts it again, as an upgrade of its package does. Its containers stay.
    ///
    /// # Errors
    ///
    /// When it does not end, and those of its start.
    pub async fn restart_daemon(&self) -> Result<()> {
        // Nobody inside waits for it: it stays, without a program.
        self.shell(&format!(
            "daemon=$(cat {INSIDE}/{}.pid); kill $daemon; \
             while readlink /proc/$daemon/exe >/dev/null; do sleep 0.05; done",
            self.client.program
        ))?;
        self.start_daemon().await
    }

    /// What leases call it.
    fn writer(&self) -> &'static str {
        match self.client.language {
            Language::Docker(_) => self.client.program,
            Language::Ctr => "containerd",
        }
    }

    /// Gives an engine over `quilt-cni` another network of it, and returns what the operator is told.
    ///
    /// # Errors
    ///
    /// What `quilt-cni install` said.
    pub fn add_quilt_network(&self, name: &str) -> Result<String> {
        let mut install = self.inside(quilt_cni::PLUGIN);
        install.args(quilt_cni::install(self.writer(), name));
        output(install)
    }

    /// What a restart of the host does to an engine over `quilt-cni`: everything that runs inside ends at once, containers,
    /// engine and runtime, and /run is gone with it; then runtime and engine start, in another boot. Links of the host and
    /// pinned programs stay, as they would not.
    ///
    /// # Errors
    ///
    /// Those of the engine's start.
    pub async fn restart_host(&mut self, host: &Host) -> Result<()> {
        namespaces::choose_boot_id(&self.dir)
            .map_err(|error| Error::system("write", self.dir.display().to_string(), error))?;
        let namespaces = Arc::get_mut(&mut self.namespaces).ok_or_else(|| Error::Invalid {
            value: self.client.program.into(),
            rule: "an engine beside which there are others does not begin anew alone".into(),
        })?;
        namespaces.begin_anew(host, PATIENCE).await?;
        host.move_runtime(self.namespaces.doors()).await?;
        host.wait_ready(PATIENCE).await?;
        match self.client.language {
            Language::Docker(_) if self.client.program == "docker" => {
                self.start_docker_again().await
            }
            Language::Docker(_) => Ok(()),
            Language::Ctr => self.start_daemon().await,
        }
    }

    fn import(&self) -> Result<()> {
        self.import_for("default")
    }

    /// Imports the image into one of containerd's namespaces, of which others know nothing.
    fn import_for(&self, namespace: &str) -> Result<()> {
        let mut import = self.inside("sh");
        import.env("CONTAINERD_NAMESPACE", namespace);
        let script = match self.client.language {
            Language::Docker(_) => r#"tar -C "$1" -c . | "$2" import - "$3""#,
            Language::Ctr => containerd::IMPORT,
        };
        import.args(["-c", script, "import"]).args([
            &format!("{INSIDE}/image"),
            self.client.program,
            IMAGE,
        ]);
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

    /// Runs `meshctl` where an operator of the host would, beside the engine, and returns what it printed.
    ///
    /// # Errors
    ///
    /// A missing binary, or what it said.
    pub fn meshctl(&self, args: &[&str]) -> Result<String> {
        let program = crate::binaries::find("meshctl")?;
        let mut command = self.inside(&program.display().to_string());
        command.args(args);
        output(command)
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
