//! `quilt-docker`, beside the Docker that it serves.

use std::path::Path;

use super::{Client, Distribution, Engine, INSIDE, NETWORK, PATIENCE, docker};
use crate::{
    binaries,
    deadline::Deadline,
    error::{Error, Result},
    host::Host,
    process::{last_lines, output},
};

/// What the driver leaves its process id in, below the engine's directory.
const PROCESS: &str = "driver.pid";

/// Where Docker finds the driver.
const SOCKET: &str = "/run/docker/plugins/quilt.sock";

/// How docs/CONTAINER_ENGINES.md tells operators to make a network, the same on every node, for one whose containers may have
/// addresses of their choice.
const CREATE: [&str; 9] = [
    "network",
    "create",
    "--driver",
    "quilt",
    "--ipam-driver",
    "quilt",
    "--subnet",
    "10.42.0.0/16",
    NETWORK,
];

impl Engine {
    /// Docker with a daemon of its own on a network of `quilt-docker`, on a host whose runtime runs. The runtime moves into the
    /// engine's namespaces, and ends with them.
    ///
    /// # Errors
    ///
    /// Those of [`docker`](Self::docker), a missing `quilt-docker`, and what runtime, driver or Docker says.
    pub async fn docker_over_quilt_docker(host: &Host) -> Result<Self> {
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
        let (engine, _) = Self::create(host, client, None, configure).await?;
        engine.put_on_the_mesh(host).await?;
        Ok(engine)
    }

    /// What an operator does once to have a Docker that was made on the mesh.
    pub(super) async fn put_on_the_mesh(&self, host: &Host) -> Result<()> {
        host.move_runtime(self.namespaces.doors()).await?;
        self.serve_docker().await
    }

    async fn serve_docker(&self) -> Result<()> {
        self.start_driver().await?;
        self.start_daemon().await?;
        self.import()?;
        self.run(&CREATE).map(drop)
    }

    /// As [`docker_over_quilt_docker`](Self::docker_over_quilt_docker), of another distribution.
    ///
    /// # Errors
    ///
    /// A missing `quilt-docker`, and what runtime, driver or Docker says.
    pub async fn docker_over_quilt_docker_of(
        distribution: &Distribution,
        host: &Host,
    ) -> Result<Self> {
        let client = Client {
            program: docker::CLIENT,
            environment: Vec::new(),
            language: docker::LANGUAGE,
        };
        let root = Some(distribution.root());
        let configure = |dir: &Path, _| docker::configure(dir);
        let (engine, _) = Self::create(host, client, root, configure).await?;
        engine.put_on_the_mesh(host).await?;
        Ok(engine)
    }

    /// The Docker of the same distribution, on a network of `quilt-docker`, beside an engine of another distribution.
    ///
    /// # Errors
    ///
    /// Those of [`docker_over_quilt_docker_of`](Self::docker_over_quilt_docker_of).
    pub async fn docker_beside(&self) -> Result<Self> {
        let engine = self.beside(Client {
            program: docker::CLIENT,
            environment: Vec::new(),
            language: docker::LANGUAGE,
        });
        docker::configure(&engine.dir)
            .map_err(|error| Error::system("write", engine.dir.display().to_string(), error))?;
        engine.serve_docker().await?;
        Ok(engine)
    }

    /// Starts the driver, and waits until Docker can call it.
    ///
    /// # Errors
    ///
    /// When it does not serve.
    pub async fn start_driver(&self) -> Result<()> {
        let program = binaries::find("quilt-docker")?;
        let mut driver = self.inside("sh");
        // With no more rights than its unit leaves it.
        let line = r#"setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$1" serve --look-every 1 \
            >>"$2/driver.log" 2>&1 & echo $! >"$2/$3""#;
        driver.args(["-c", line, "driver"]);
        driver.args([&program.display().to_string(), INSIDE, PROCESS]);
        output(driver)?;
        let deadline = Deadline::after(PATIENCE);
        let socket = self.namespaces.seen_from_outside(Path::new(SOCKET));
        while let Err(error) = std::os::unix::net::UnixStream::connect(&socket) {
            if deadline.pause().await.is_err() {
                return Err(deadline.missed(
                    "a socket of quilt-docker",
                    format!("{error}\n{}", self.driver_log()),
                ));
            }
        }
        Ok(())
    }

    /// Kills the driver, as the kernel does where memory is short.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn kill_driver(&self) -> Result<()> {
        // Nobody inside waits for it: it stays, without a program.
        self.shell(&format!(
            "driver=$(cat {INSIDE}/{PROCESS}); kill -9 $driver; \
             while readlink /proc/$driver/exe >/dev/null; do sleep 0.02; done"
        ))
        .map(drop)
    }

    /// The last lines that the driver wrote.
    pub fn driver_log(&self) -> String {
        last_lines(&self.dir.join("driver.log"), 40)
    }

    /// Starts anew what serves Docker's containers once their host has.
    pub(super) async fn start_docker_again(&self) -> Result<()> {
        let driver = self.dir.join(PROCESS);
        if driver
            .try_exists()
            .map_err(|error| Error::system("look for", driver.display().to_string(), error))?
        {
            self.start_driver().await?;
        }
        self.start_daemon().await
    }
}
