//! What an engine asks to be attached: one interface of one container.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::CniError;
use crate::netns::NetNs;

/// One interface of one container, `eth0` unless told otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CniAttachment {
    container: String,
    netns: PathBuf,
    interface: String,
    args: Vec<(String, String)>,
    config_args: Value,
    capabilities: Map<String, Value>,
}

impl CniAttachment {
    /// The interface of a container with this id and namespace.
    pub fn new(container: &str, netns: &NetNs) -> Self {
        Self::by_path(container, netns.path())
    }

    /// The same with the path of the namespace; an empty one stands for a namespace that is gone, where DEL gets none.
    pub fn by_path(container: &str, netns: impl Into<PathBuf>) -> Self {
        Self {
            container: container.to_owned(),
            netns: netns.into(),
            interface: "eth0".to_owned(),
            args: Vec::new(),
            config_args: Value::Null,
            capabilities: Map::new(),
        }
    }

    /// What GC and STATUS are about.
    pub(super) fn nobody() -> Self {
        Self {
            interface: String::new(),
            ..Self::by_path("", "")
        }
    }

    /// Names the interface inside the container.
    #[must_use]
    pub fn named(mut self, interface: &str) -> Self {
        self.interface = interface.to_owned();
        self
    }

    /// Adds one of the CNI_ARGS.
    #[must_use]
    pub fn arg(mut self, key: &str, value: &str) -> Self {
        self.args.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Sets the key `args` of what each plugin is told, e.g. `{"cni": {"ips": ["10.42.1.9"]}}`.
    #[must_use]
    pub fn config_args(mut self, args: Value) -> Self {
        self.config_args = args;
        self
    }

    /// Adds what a plugin is told if it declares the capability: `runtimeConfig`.
    #[must_use]
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities.insert(name.to_owned(), value);
        self
    }

    /// The container's id.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The name of the interface inside the container.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// CNI_NETNS.
    pub(super) fn netns(&self) -> String {
        self.netns.display().to_string()
    }

    /// CNI_ARGS.
    pub(super) fn args(&self) -> String {
        let args = self.args.iter();
        let args: Vec<String> = args.map(|(key, value)| format!("{key}={value}")).collect();
        args.join(";")
    }

    /// The key `args`, if it is set.
    pub(super) fn args_of_config(&self) -> Option<&Value> {
        Some(&self.config_args).filter(|args| !args.is_null())
    }

    pub(super) fn capabilities(&self) -> &Map<String, Value> {
        &self.capabilities
    }

    /// What libcni checks before it runs a plugin.
    pub(super) fn check(&self) -> Result<(), CniError> {
        check_identifier("container id", &self.container)?;
        let name = &self.interface;
        let bad = name.is_empty()
            || name.len() > 15
            || matches!(name.as_str(), "." | "..")
            || name.contains(|it: char| it == '/' || it == ':' || it.is_whitespace());
        match bad {
            false => Ok(()),
            true => Err(CniError::List(format!(
                "{name:?} is not the name of an interface"
            ))),
        }
    }
}

/// Containers and networks are named like this.
pub(super) fn check_identifier(what: &str, value: &str) -> Result<(), CniError> {
    let first = value.starts_with(|it: char| it.is_ascii_alphanumeric());
    let rest = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '-');
    match first && value.chars().all(rest) {
        true => Ok(()),
        false => Err(CniError::List(format!("{value:?} is not a {what}"))),
    }
}
