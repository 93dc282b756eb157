//! `meshctl` as a person runs it, and what it prints as it comes.

#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use mesh_testbed::{Host, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::SOON;

/// The program, which lies where the runtime does.
pub(crate) fn program() -> PathBuf {
    let runtime = PathBuf::from(env!("CARGO_BIN_EXE_quilt-runtime"));
    let program = runtime.with_file_name("meshctl");
    assert!(
        program.is_file(),
        "{} is not there: cargo build -p mesh-ctl",
        program.display()
    );
    program
}

/// A command of `meshctl` about a host, in its network namespace.
pub(crate) fn meshctl(host: &Host, words: &str) -> Command {
    let mut command = host.netns().command(program());
    command
        .arg("--socket")
        .arg(host.runtime_socket())
        .args(words.split_whitespace());
    command
}

/// What it comes to.
pub(crate) fn output(host: &Host, words: &str) -> Output {
    meshctl(host, words).output().unwrap()
}

/// One that runs, and what it has printed so far.
pub(crate) struct Running {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    pub(crate) fn start(host: &Host, words: &str) -> Self {
        let mut child = meshctl(host, words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, into) = (child.stdout.take().unwrap(), Arc::clone(&lines));
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                into.lock().unwrap().push(line);
            }
        });
        Self { child, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The JSON objects so far.
    pub(crate) fn documents(&self) -> Vec<serde_json::Value> {
        let lines = self.lines().into_iter();
        lines
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }

    /// Waits until one of the objects has all of these fields.
    pub(crate) async fn wait_for(&self, fields: serde_json::Value) -> serde_json::Value {
        wait_until(&format!("an event with {fields}"), SOON, || async {
            let documents = self.documents();
            let fits = |document: &serde_json::Value| has(document, &fields);
            match documents.iter().find(|document| fits(document)) {
                Some(found) => Ok(found.clone()),
                None => Err(format!("{documents:#?}")),
            }
        })
        .await
        .unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends it a signal, and returns its exit code and what it said on standard error.
    pub(crate) async fn end_by(mut self, signal: Option<Signal>) -> (Option<i32>, String) {
        if let Some(signal) = signal {
            let pid = i32::try_from(self.child.id()).unwrap();
            kill(Pid::from_raw(pid), signal).unwrap();
        }
        let child = Mutex::new(&mut self.child);
        let status = wait_until("the end of meshctl", SOON, || async {
            match child.lock().unwrap().try_wait().unwrap() {
                Some(status) => Ok(status),
                None => Err("it runs".to_owned()),
            }
        })
        .await
        .unwrap();
        let mut said = String::new();
        let mut errors = self.child.stderr.take().unwrap();
        errors.read_to_string(&mut said).unwrap();
        (status.code(), said)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is no trouble.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a document has all of these fields.
pub(crate) fn has(document: &serde_json::Value, fields: &serde_json::Value) -> bool {
    let fields = fields.as_object().unwrap();
    fields.iter().all(|(name, value)| document[name] == *value)
}
