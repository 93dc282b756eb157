//! Which door a command line asks for.

use std::{
    io,
    path::{Path, PathBuf},
};

use clap::Args;
use reqwest::Url;

use crate::{
    admin_socket::{AdminSocket, DEFAULT_ADMIN_SOCKET},
    door::Door,
    rest::{Rest, RestError, control_url},
};

/// Where an agent keeps the authorities of the mesh, unless it is told otherwise (its `--state-dir`).
const AUTHORITIES_OF_THE_AGENT: &str = "/var/lib/quilt-mesh-agent/ca.pem";

/// How the control plane is asked: over its admin socket where it serves on this host, or over REST.
#[derive(Debug, Clone, Default, Args)]
pub struct DoorOptions {
    /// Base URL of the control plane, such as https://192.0.2.10:8080, one for each replica; those of this host's agent if
    /// there is none.
    #[arg(
        long,
        visible_alias = "control-plane",
        env = "QUILT_MESH_CONTROL_PLANE",
        value_name = "URL",
        value_delimiter = ',',
        value_parser = |text: &str| control_url(text).map_err(|error| error.to_string()),
        global = true
    )]
    pub control: Vec<Url>,

    /// The mesh's authorities in PEM, by which the control plane is known (or those of its own certificate); those of this
    /// host's agent if there is none.
    #[arg(
        long,
        env = "QUILT_MESH_CONTROL_CA",
        value_name = "FILE",
        global = true
    )]
    pub control_ca: Option<PathBuf>,

    /// A file with an operator's token, which nobody but its owner may read.
    #[arg(
        long,
        env = "QUILT_MESH_CONTROL_TOKEN_FILE",
        value_name = "FILE",
        global = true
    )]
    pub control_token_file: Option<PathBuf>,

    /// The admin socket of a control plane on this host, in the place of REST and a token.
    #[arg(
        long,
        env = "QUILT_MESH_CONTROL_SOCKET",
        value_name = "PATH",
        help = format!("The admin socket of a control plane on this host, in the place of REST and a token [default: {DEFAULT_ADMIN_SOCKET}]"),
        global = true
    )]
    pub control_socket: Option<PathBuf>,
}

impl DoorOptions {
    /// The admin socket if one is named, or nothing else is and there is one; else REST. `known` is who the agent of this
    /// host says the control plane is, and is asked where nothing else does.
    ///
    /// # Errors
    ///
    /// [`RestError`], with what to give.
    pub async fn open(&self, known: impl AsyncFnOnce() -> Vec<Url>) -> Result<Door, RestError> {
        if let Some(socket) = self.socket() {
            return Ok(Door::Socket(AdminSocket::at(socket)));
        }
        let token = self.control_token_file.as_deref();
        let urls = match (self.control.is_empty(), token) {
            (true, Some(_)) => return Err(RestError::NobodyNamed),
            (true, None) => known().await,
            (false, _) => self.control.clone(),
        };
        let authorities = self.control_ca.clone().or_else(authorities_of_the_agent);
        Rest::open(urls, authorities.as_deref(), token).map(Door::Rest)
    }

    fn socket(&self) -> Option<PathBuf> {
        if let Some(socket) = &self.control_socket {
            return Some(socket.clone());
        }
        let rest = self.control_token_file.is_some() || !self.control.is_empty();
        let default = Path::new(DEFAULT_ADMIN_SOCKET);
        // Also one that this user may not open: it is told so.
        let is_there = match std::fs::symlink_metadata(default) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        };
        (!rest && is_there).then(|| default.to_owned())
    }
}

fn authorities_of_the_agent() -> Option<PathBuf> {
    let path = PathBuf::from(AUTHORITIES_OF_THE_AGENT);
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        door: DoorOptions,
    }

    fn door(words: &[&str]) -> DoorOptions {
        Line::parse_from([&["x"], words].concat()).door
    }

    #[tokio::test]
    async fn a_socket_that_is_named_is_used_and_a_url_is_the_agents_if_none_is_given() {
        Line::command().debug_assert();
        let nobody = async || -> Vec<Url> { panic!("the agent was asked") };
        let named = door(&["--control-socket", "/run/x.sock"])
            .open(nobody)
            .await;
        assert!(named.unwrap().is_admins());
        let given = door(&["--control", "http://127.0.0.1:1,http://127.0.0.1:2"]);
        assert_eq!(given.control.len(), 2);
        assert!(!given.open(nobody).await.unwrap().is_admins());
        let agents = DoorOptions {
            control_token_file: Some("/nonexistent/token".into()),
            ..DoorOptions::default()
        };
        let error = agents.open(nobody).await.unwrap_err();
        assert!(matches!(error, RestError::NobodyNamed), "{error}");
    }
}
