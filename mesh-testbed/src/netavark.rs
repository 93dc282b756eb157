//! Podman and netavark, reduced to what they do with a plugin: `create`, `setup`, `teardown` and `info`, each with JSON on
//! standard input and output.

mod container;
mod error;

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{entrance::Entrance, host::Host};

pub use container::NetavarkContainer;
pub use error::NetavarkError;

/// The longest a plugin may take: none of those that are tried waits for as long.
const DEADLINE: Duration = Duration::from_secs(60);

/// Podman's ids are hexadecimal digits of so many bytes.
const NETWORK_ID: &str = "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9";

/// Podman with netavark on a host, whose only driver is one plugin. It remembers nothing, and removes nothing when it is dropped.
#[derive(Debug, Clone)]
pub struct Netavark {
    namespace: Entrance,
    plugin: PathBuf,
}

/// What `setup` has to answer: without one of these fields netavark fails.
#[derive(Deserialize)]
#[allow(dead_code, reason = "it is only seen whether they are there")]
struct Status {
    dns_search_domains: Option<Vec<String>>,
    dns_server_ips: Option<Vec<std::net::IpAddr>>,
    interfaces: Option<std::collections::HashMap<String, StatusInterface>>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "it is only seen whether they are there")]
struct StatusInterface {
    mac_address: String,
    subnets: Option<Vec<StatusAddress>>,
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "it is only seen whether they are there")]
struct StatusAddress {
    gateway: Option<std::net::IpAddr>,
    ipnet: IpNet,
}

#[derive(Deserialize)]
struct Said {
    error: String,
}

impl Netavark {
    /// On a host, with the plugin in this file.
    pub fn on(host: &Host, plugin: impl Into<PathBuf>) -> Self {
        Self {
            namespace: host.netns().entrance(),
            plugin: plugin.into(),
        }
    }

    /// What Podman hands to `create` for `podman network create --driver quilt NAME` and these options.
    pub fn wish(name: &str, options: Value) -> Value {
        json!({
            "name": name,
            "id": NETWORK_ID,
            "driver": "quilt",
            "created": "0001-01-01T00:00:00Z",
            "ipv6_enabled": false,
            "internal": false,
            "dns_enabled": true,
            "options": options,
            "ipam_options": {},
        })
    }

    /// Makes a network, as Podman keeps it.
    ///
    /// # Errors
    ///
    /// [`NetavarkError`], also when the plugin changes what Podman says that it must not.
    pub async fn create(&self, wish: &Value) -> Result<Value, NetavarkError> {
        let network = self.exec(&["create"], wish.to_string().as_bytes()).await?;
        for field in ["name", "id", "driver"] {
            if network[field] != wish[field] {
                return Err(self.broken(format!("create changed the network's {field}: {network}")));
            }
        }
        Ok(network)
    }

    /// Puts a container in its network, and returns what it has got.
    ///
    /// # Errors
    ///
    /// [`NetavarkError`], also when the answer is not as netavark reads it.
    pub async fn setup(&self, container: &NetavarkContainer) -> Result<Value, NetavarkError> {
        let input = container.input().to_string();
        let path = container.netns().display().to_string();
        let status = self.exec(&["setup", &path], input.as_bytes()).await?;
        match Status::deserialize(&status) {
            Ok(_) => Ok(status),
            Err(error) => Err(self.broken(format!("setup answers {status}: {error}"))),
        }
    }

    /// Takes a container out of its network.
    ///
    /// # Errors
    ///
    /// [`NetavarkError`].
    pub async fn teardown(&self, container: &NetavarkContainer) -> Result<(), NetavarkError> {
        let input = container.input().to_string();
        let path = container.netns().display().to_string();
        let said = self.exec(&["teardown", &path], input.as_bytes()).await?;
        match said.is_null() {
            true => Ok(()),
            false => Err(self.broken(format!("teardown answers {said}"))),
        }
    }

    /// What the plugin says of itself.
    ///
    /// # Errors
    ///
    /// [`NetavarkError`].
    pub async fn info(&self) -> Result<Value, NetavarkError> {
        self.exec(&["info"], b"").await
    }

    /// Runs the plugin with these arguments and this input in the caller's environment (which loses its Quilt Mesh variables),
    /// and returns the object that it answers; null if it is silent.
    ///
    /// # Errors
    ///
    /// [`NetavarkError`].
    pub async fn exec(&self, arguments: &[&str], input: &[u8]) -> Result<Value, NetavarkError> {
        let mut command = self.namespace.command(&self.plugin);
        for (name, _) in env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"QUILT_MESH_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let run = run(Command::from(command), input);
        let output = match tokio::time::timeout(DEADLINE, run).await {
            Ok(output) => output.map_err(|reason| NetavarkError::Run {
                path: self.plugin.clone(),
                reason,
            })?,
            Err(_) => return Err(NetavarkError::Late { waited: DEADLINE }),
        };
        self.read(arguments, &output)
    }

    /// What the plugin said: an object, or nothing, and when it failed why.
    fn read(&self, arguments: &[&str], output: &Output) -> Result<Value, NetavarkError> {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let broken = |reason: String| {
            self.broken(format!(
                "{arguments:?} {reason}\n  stdout: {stdout}\n  stderr: {stderr}"
            ))
        };
        if output.status.success() {
            return match output.stdout.trim_ascii().is_empty() {
                true => Ok(Value::Null),
                false => serde_json::from_slice(&output.stdout)
                    .map_err(|error| broken(format!("answers what is not JSON: {error}"))),
            };
        }
        let said = match (output.status.code(), serde_json::from_slice(&output.stdout)) {
            (Some(_), Ok(Said { error })) => error,
            (code, said) => {
                let said = said.err();
                return Err(broken(format!(
                    "ended with {code:?} and said no reason: {said:?}"
                )));
            }
        };
        Err(NetavarkError::Failed { error: said })
    }

    fn broken(&self, reason: String) -> NetavarkError {
        NetavarkError::Broken {
            plugin: self.plugin.clone(),
            reason,
        }
    }

    /// The plugin's file.
    pub fn plugin(&self) -> &Path {
        &self.plugin
    }
}

async fn run(mut command: Command, input: &[u8]) -> io::Result<Output> {
    let mut child = command.kill_on_drop(true).spawn()?;
    let mut stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin.take() {
            // A plugin need not read all that it is given.
            let _ = stdin.write_all(input).await;
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    output
}
