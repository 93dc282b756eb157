//! Running a plugin: the execution protocol of the specification.

use std::{
    env, io,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::error::{CniError, CniFailure};
use crate::entrance::Entrance;

/// The longest a plugin may take: none of those that are tried waits for as long.
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct Plugins {
    namespace: Entrance,
    dirs: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    cni_version: String,
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

impl Plugins {
    pub(super) fn new(namespace: Entrance, dirs: impl Iterator<Item = PathBuf>) -> Self {
        Self {
            namespace,
            dirs: dirs.collect(),
        }
    }

    /// CNI_PATH.
    pub(super) fn path(&self) -> String {
        let dirs = self.dirs.iter().map(|dir| dir.display().to_string());
        dirs.collect::<Vec<_>>().join(":")
    }

    fn find(&self, plugin: &str) -> Result<PathBuf, CniError> {
        let mut paths = self.dirs.iter().map(|dir| dir.join(plugin));
        let found = match plugin.is_empty() || plugin.contains('/') {
            true => None,
            false => paths.find(|path| path.is_file()),
        };
        found.ok_or_else(|| CniError::NotFound {
            plugin: plugin.to_owned(),
            searched: self.dirs.clone(),
        })
    }

    pub(super) async fn exec(
        &self,
        plugin: &str,
        variables: &[(&str, &str)],
        input: &[u8],
    ) -> Result<Value, CniError> {
        let path = self.find(plugin)?;
        let mut command = self.namespace.command(&path);
        for (name, _) in env::vars_os() {
            let bytes = name.as_encoded_bytes();
            if bytes.starts_with(b"CNI_") || bytes.starts_with(b"QUILT_MESH_") {
                command.env_remove(name);
            }
        }
        command
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let run = run(Command::from(command), input);
        let output = match tokio::time::timeout(DEADLINE, run).await {
            Ok(output) => output.map_err(|reason| CniError::Run { path, reason })?,
            Err(_) => {
                return Err(CniError::Late {
                    plugin: plugin.to_owned(),
                    waited: DEADLINE,
                });
            }
        };
        let named = variables.iter().find(|(name, _)| *name == "CNI_COMMAND");
        read(plugin, named.map_or("", |(_, command)| command), &output)
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

/// What a plugin said: an object, or nothing, and when it failed why.
fn read(plugin: &str, command: &str, output: &Output) -> Result<Value, CniError> {
    let broken = |reason: String| CniError::Broken {
        plugin: plugin.to_owned(),
        reason: format!("{command} {reason}"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    let silent = output.stdout.trim_ascii().is_empty();
    if output.status.success() {
        return match silent {
            true => Ok(Value::Null),
            false => serde_json::from_slice(&output.stdout)
                .map_err(|error| broken(format!("answers what is not JSON: {error}"))),
        };
    }
    match serde_json::from_slice::<Said>(&output.stdout) {
        Ok(said) => Err(CniError::Failed(Box::new(CniFailure {
            plugin: plugin.to_owned(),
            command: command.to_owned(),
            code: said.code,
            msg: said.msg,
            details: said.details,
            cni_version: said.cni_version,
        }))),
        Err(error) => Err(broken(format!(
            "ended with {} and said no reason: {error}",
            output.status
        ))),
    }
}
