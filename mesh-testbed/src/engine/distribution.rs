//! Other distributions, whose engines run on a host of ours.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{
    Client, Engine, Language, containerd, docker, engine_dir, network::EngineNetwork, podman,
};
use crate::{
    binaries,
    error::{Error, Result},
    host::{BRIDGE, Host},
    process::output,
};

/// Where `cargo xtask test --engines` makes root file systems, below the target directory.
const MADE: &str = "distributions";

/// The environment variable that names one of them.
const VARIABLE: &str = "QUILT_MESH_DISTRIBUTION";

/// The root file system of another distribution, which `cargo xtask test --engines` has made. Nobody writes to it.
#[derive(Debug, Clone)]
pub struct Distribution {
    root: PathBuf,
}

impl Distribution {
    /// That which `QUILT_MESH_DISTRIBUTION` names, a suite of Debian's such as `forky`. It was made beside the running executable.
    ///
    /// # Errors
    ///
    /// [`Error::DistributionMissing`], which says how it is made.
    pub fn chosen() -> Result<Self> {
        let suite = env::var_os(VARIABLE).unwrap_or_default();
        let executable = env::current_exe()
            .map_err(|error| Error::system("find", "the running executable", error))?;
        let mut roots = executable
            .ancestors()
            .map(|dir| dir.join(MADE).join(&suite).join("root"));
        match roots.find(|root| !suite.is_empty() && root.is_dir()) {
            Some(root) => Ok(Self { root }),
            None => Err(Error::DistributionMissing {
                suite: suite.to_string_lossy().into_owned(),
            }),
        }
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The directory with its CNI plugins. They are linked statically, and so run outside as well.
    pub fn cni_plugins(&self) -> PathBuf {
        self.root.join("usr/lib/cni")
    }
}

impl Engine {
    /// The containerd of another distribution, version 1.7 or newer, with `ctr` and for Kubernetes, on a host whose runtime runs.
    /// Everything inside has that distribution's root file system. It has no network yet:
    /// [`install_quilt_cni`](Self::install_quilt_cni) makes one.
    ///
    /// # Errors
    ///
    /// What the runtime or containerd says.
    pub async fn containerd_of(distribution: &Distribution, host: &Host) -> Result<Self> {
        let client = Client {
            program: containerd::CLIENT,
            environment: Vec::new(),
            language: Language::Ctr,
        };
        let root = Some(distribution.root());
        let (engine, _) = Self::create(host, client, root, |_, _| Ok(())).await?;
        // Debian 13's Podman brings one, which containerd would take before ours.
        engine.shell("rm -f /etc/cni/net.d/87-podman-bridge.conflist")?;
        let dump = engine.shell("containerd config dump")?;
        let settings = engine.dir.join(containerd::SETTINGS);
        fs::write(&settings, containerd::for_kubernetes(&dump))
            .map_err(|error| Error::system("write", settings.display().to_string(), error))?;
        host.move_runtime(engine.namespaces.doors()).await?;
        engine.start_daemon().await?;
        engine.import()?;
        engine.import_for(containerd::KUBERNETES)?;
        Ok(engine)
    }

    /// The containerd of the same distribution, with `ctr`, beside an engine of another distribution. It has no network yet, as with
    /// [`containerd_of`](Self::containerd_of).
    ///
    /// # Errors
    ///
    /// What containerd says.
    pub async fn containerd_beside(&self) -> Result<Self> {
        let engine = self.beside(Client {
            program: containerd::CLIENT,
            environment: Vec::new(),
            language: Language::Ctr,
        });
        // Debian 13's Podman brings one, which containerd would take before ours.
        engine.shell("rm -f /etc/cni/net.d/87-podman-bridge.conflist")?;
        containerd::configure(&engine.dir)
            .map_err(|error| Error::system("write", engine.dir.display().to_string(), error))?;
        engine.start_daemon().await?;
        engine.import()?;
        Ok(engine)
    }

    /// The Podman of another distribution, version 5 or newer with netavark, on a host whose runtime runs. Everything inside has
    /// that distribution's root file system. It has no network of ours yet: [`install_quilt_netavark`](Self::install_quilt_netavark),
    /// and `podman network create`.
    ///
    /// # Errors
    ///
    /// What the runtime or Podman says.
    pub async fn podman_of(distribution: &Distribution, host: &Host) -> Result<Self> {
        let client = Client {
            program: "podman",
            environment: podman::environment(),
            language: podman::LANGUAGE,
        };
        let root = Some(distribution.root());
        let configure = |dir: &Path, _| podman::configure_with_netavark(dir);
        let (engine, _) = Self::create(host, client, root, configure).await?;
        host.move_runtime(engine.namespaces.doors()).await?;
        engine.import()?;
        Ok(engine)
    }

    /// The Docker of another distribution, version 26 or newer, with a daemon of its own, on a host whose bridge has an address.
    /// Everything inside has that distribution's root file system. Where a runtime runs, it moves into the engine's namespaces; one
    /// that starts later does so there. There is no network of ours yet:
    /// [`create_bridge_network`](Self::create_bridge_network) makes one.
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`] when the host has no bridge with an address yet; what the runtime or Docker says.
    pub async fn docker_of(distribution: &Distribution, host: &Host) -> Result<Self> {
        let client = Client {
            program: docker::CLIENT,
            environment: Vec::new(),
            language: docker::LANGUAGE,
        };
        let root = Some(distribution.root());
        let configure = |dir: &Path, _| docker::configure(dir);
        let (engine, _) = Self::create(host, client, root, configure).await?;
        host.move_runtime(engine.namespaces.doors()).await?;
        engine.start_daemon().await?;
        engine.import()?;
        Ok(engine)
    }

    /// Makes a network of Docker's driver `bridge` on the host's bridge, by the command that docs/CONTAINER_ENGINES.md tells operators,
    /// with options of that driver besides (`name=value`).
    ///
    /// # Errors
    ///
    /// [`Error::NoInterface`] when the host has no bridge with an address; what Docker says.
    pub async fn create_bridge_network(
        &self,
        host: &Host,
        network: EngineNetwork,
        options: &[&str],
    ) -> Result<()> {
        let bridge = host.bridge_address(BRIDGE).await?;
        let command = docker::network(bridge, network, options);
        self.run(&command.iter().map(String::as_str).collect::<Vec<_>>())
            .map(drop)
    }

    /// Changes one of the settings of Docker's daemon, which holds once it starts anew.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn set_daemon_option(
        &self,
        host: &Host,
        name: &str,
        value: impl Into<serde_json::Value>,
    ) -> Result<()> {
        let dir = engine_dir(host, docker::CLIENT);
        docker::set(&dir, name, value.into())
            .map_err(|error| Error::system("write", dir.display().to_string(), error))
    }

    /// Installs `quilt-netavark` by the command that docs/CONTAINER_ENGINES.md tells operators, and returns what they are told.
    ///
    /// # Errors
    ///
    /// A missing `quilt-netavark`, or what it said.
    pub fn install_quilt_netavark(&self) -> Result<String> {
        let program = binaries::find("quilt-netavark")?;
        let mut install = self.inside(&program.display().to_string());
        install.arg("install");
        output(install)
    }

    /// Installs `quilt-cni` for the engine by the command that docs/CONTAINER_ENGINES.md tells operators, and returns what they are
    /// told.
    ///
    /// # Errors
    ///
    /// A missing `quilt-cni`, or what it said.
    pub fn install_quilt_cni(&self) -> Result<String> {
        let program = binaries::find("quilt-cni")?;
        let mut install = self.inside(&program.display().to_string());
        install.args(["install", "--engine", self.writer()]);
        output(install)
    }

    /// Runs a script of the operator's beside the engine and returns what it printed.
    ///
    /// # Errors
    ///
    /// What the script said.
    pub fn shell(&self, script: &str) -> Result<String> {
        let mut command = self.inside("sh");
        command.args(["-euc", script]);
        output(command)
    }

    /// A path inside the engine's mount namespace, as it is seen from outside.
    pub fn seen_from_outside(&self, path: impl AsRef<Path>) -> PathBuf {
        self.namespaces.seen_from_outside(path.as_ref())
    }

    /// The control group that everything of the engine's is to be in, as engines take it.
    pub fn control_group(&self) -> String {
        self.control_group.path()
    }
}
