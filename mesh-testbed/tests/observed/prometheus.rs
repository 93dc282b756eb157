//! A real Prometheus in a namespace: a plain process with a directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use mesh_testbed::{NetNs, wait_until};
use serde_json::Value;

use crate::cluster::DEADLINE;

/// Where it answers questions, inside its namespace.
const ADDRESS: &str = "127.0.0.1:9090";

/// It ends with the value.
pub(crate) struct Prometheus<'a> {
    namespace: &'a NetNs,
    process: Child,
    log: PathBuf,
}

impl<'a> Prometheus<'a> {
    /// Starts it with this configuration, and waits until it answers. Its files are in `directory`.
    pub(crate) async fn start(namespace: &'a NetNs, directory: &Path, configuration: &str) -> Self {
        let (config, data, log) = (
            directory.join("prometheus.yml"),
            directory.join("data"),
            directory.join("prometheus.log"),
        );
        fs::write(&config, configuration).unwrap();
        let said = fs::File::create(&log).unwrap();
        let process = namespace
            .command("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("prometheus: {error}; Debian's package prometheus has it")
            });
        let prometheus = Self {
            namespace,
            process,
            log,
        };
        wait_until("Prometheus", DEADLINE, async || {
            prometheus.query("vector(1)")
        })
        .await
        .unwrap();
        prometheus
    }

    /// The series that an expression gives now; an error, if it is none, or nobody answers.
    pub(crate) fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let mut command = self.namespace.command("promtool");
        command.args(["query", "-o", "json", "instant"]);
        command.arg(format!("http://{ADDRESS}")).arg(expression);
        let output = command.stdin(Stdio::null()).output().unwrap();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{expression}: {}", said.trim()));
        }
        match serde_json::from_slice(&output.stdout) {
            Ok(Value::Array(series)) => Ok(series),
            other => Err(format!("{expression}: {other:?}")),
        }
    }

    /// Waits until an expression gives series of which this holds.
    pub(crate) async fn wait(
        &self,
        expression: &str,
        holds: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let seen = wait_until(expression, DEADLINE, async || {
            match self.query(expression) {
                Ok(series) if holds(&series) => Ok(series),
                other => Err(format!("{other:?}")),
            }
        });
        let seen = seen.await;
        seen.unwrap_or_else(|error| panic!("{error}\n{}", self.last_words()))
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        // It is a child of ours, and not waited for yet.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The value of a series of an answer.
pub(crate) fn number(series: &Value) -> f64 {
    let value = series["value"][1].as_str();
    value.and_then(|text| text.parse().ok()).unwrap_or(f64::NAN)
}
