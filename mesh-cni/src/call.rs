//! What is called: the variables that an engine sets for its plugins.

use std::{collections::BTreeMap, env, path::PathBuf};

use mesh_ipam::Owner;
use mesh_plugin::Interface;

use crate::{
    failure::{Code, Failure},
    network::Network,
    version::Version,
};

/// The longest name of an interface: `IFNAMSIZ` (16) less the terminating zero.
const MAX_INTERFACE: usize = 15;

/// What a plugin can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Command {
    /// The command of this process.
    pub(crate) fn read() -> Result<Self, Failure> {
        let text = variable("CNI_COMMAND")?.unwrap_or_default();
        Ok(match text.as_str() {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            other => {
                let other: String = other.chars().take(32).collect();
                return Err(Failure::new(
                    Code::Environment,
                    format!(
                        "CNI_COMMAND {other:?} is none of ADD, DEL, CHECK, GC, STATUS and VERSION"
                    ),
                ));
            }
        })
    }

    /// Refuses what a version of the specification does not know yet.
    pub(crate) fn check_version(self, version: Version) -> Result<(), Failure> {
        let (name, first) = match self {
            Self::Check => ("CHECK", Version::V0_4_0),
            Self::Gc => ("GC", Version::V1_1_0),
            Self::Status => ("STATUS", Version::V1_1_0),
            Self::Add | Self::Del | Self::Version => return Ok(()),
        };
        if version >= first {
            return Ok(());
        }
        let (first, version) = (first.text(), version.text());
        Err(Failure::new(
            Code::Version,
            format!(
                "{name} is there from version {first} on, and the configuration is of {version}"
            ),
        ))
    }

    /// What has to be set for it.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }
}

/// Of which container, and with what besides. For GC and STATUS all of it is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    pub(crate) container: String,
    /// As the engine wrote it.
    pub(crate) namespace: String,
    pub(crate) interface: String,
    pub(crate) arguments: BTreeMap<String, String>,
}

impl Call {
    /// From the environment.
    pub(crate) fn read(command: Command, network: &Network) -> Result<Self, Failure> {
        let mut missing = Vec::new();
        for &name in command.needs() {
            if variable(name)?.is_none_or(|value| value.is_empty()) {
                missing.push(name);
            }
        }
        if !missing.is_empty() {
            let missing = missing.join(", ");
            return Err(Failure::new(
                Code::Environment,
                format!("the engine has to set {missing}"),
            ));
        }
        let read = |name| variable(name).map(Option::unwrap_or_default);
        let call = Self {
            container: read("CNI_CONTAINERID")?,
            namespace: read("CNI_NETNS")?,
            interface: read("CNI_IFNAME")?,
            arguments: match command {
                // No container is kept from going by what it came with.
                Command::Del => BTreeMap::new(),
                _ => arguments(&read("CNI_ARGS")?)?,
            },
        };
        if !command.needs().is_empty() {
            call.owner(network)?;
        }
        Ok(call)
    }

    /// Whose address and interface it is about.
    pub(crate) fn owner(&self, network: &Network) -> Result<Owner, Failure> {
        if self.interface.len() > MAX_INTERFACE {
            return Err(Failure::new(
                Code::Environment,
                format!(
                    "CNI_IFNAME has {} bytes, an interface's name at most {MAX_INTERFACE}",
                    self.interface.len()
                ),
            ));
        }
        let owner = Owner::new(
            &network.engine,
            &network.name,
            &self.container,
            &self.interface,
        );
        owner.map_err(|error| {
            Failure::new(
                Code::Environment,
                format!("CNI_CONTAINERID or CNI_IFNAME: {error}"),
            )
        })
    }

    /// What it is about.
    pub(crate) fn interface(&self, network: &Network) -> Result<Interface, Failure> {
        Ok(Interface {
            socket: network.socket().to_owned(),
            owner: self.owner(network)?,
            namespace: self.path(),
        })
    }

    /// The container's network namespace.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(&self.namespace)
    }
}

/// A variable; `None` if it is not set.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::new(
            Code::Environment,
            format!("{name} is not UTF-8"),
        )),
    }
}

/// `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
fn arguments(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => {
            let pair: String = pair.chars().take(64).collect();
            Err(Failure::new(
                Code::Environment,
                format!("CNI_ARGS: {pair:?} is not KEY=VALUE, which semicolons separate"),
            ))
        }
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_pairs_between_semicolons() {
        let read = arguments("IgnoreUnknown=1;K8S_POD_NAME=web;EMPTY=;;A=b=c").unwrap();
        let expected = [
            ("A", "b=c"),
            ("EMPTY", ""),
            ("IgnoreUnknown", "1"),
            ("K8S_POD_NAME", "web"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(read, BTreeMap::from(expected));
        assert!(arguments("").unwrap().is_empty());
        for bad in ["web", "=web", "A=1;web"] {
            assert_eq!(arguments(bad).unwrap_err().code, Code::Environment);
        }
    }

    #[test]
    fn a_command_is_there_from_its_version_on() {
        assert!(Command::Check.check_version(Version::V0_3_1).is_err());
        assert!(Command::Check.check_version(Version::V0_4_0).is_ok());
        for command in [Command::Gc, Command::Status] {
            assert!(command.check_version(Version::V1_0_0).is_err());
            assert!(command.check_version(Version::V1_1_0).is_ok());
        }
        assert!(Command::Add.check_version(Version::V0_3_0).is_ok());
    }
}
