//! By which way the control plane is asked.

use std::path::PathBuf;

use hyper::Method;
use mesh_rest::client::Client;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    admin_socket::AdminSocket,
    error::{AdminError, Refusal},
    rest::{Rest, RestError},
};

/// A way to the control plane. What it answers is the same by both; by the second it does no more than an operator may.
#[derive(Debug)]
pub enum Door {
    /// The admin socket of one on this host: who may open that may do everything.
    Socket(AdminSocket),
    /// REST, with an operator's token.
    Rest(Rest),
}

/// What is answered to a request: HTTP status and body.
pub(crate) type Answer = (u16, Vec<u8>);

impl Door {
    /// The admin socket with this path.
    #[must_use]
    pub fn at(admin_socket: PathBuf) -> Self {
        Self::Socket(AdminSocket::at(admin_socket))
    }

    /// Whether there is somebody who listens; of a control plane elsewhere that shows when it is asked.
    #[must_use]
    pub fn is_there(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.is_there(),
            Self::Rest(_) => true,
        }
    }

    /// Whether everything may be asked, and not only what an operator may.
    #[must_use]
    pub fn is_admins(&self) -> bool {
        matches!(self, Self::Socket(_))
    }

    /// A client of each replica, for calls that are made of each: at least one.
    ///
    /// # Errors
    ///
    /// [`RestError::Client`].
    pub fn clients(&self) -> Result<Vec<Client>, RestError> {
        match self {
            Self::Socket(socket) => Ok(vec![socket.client()?]),
            Self::Rest(rest) => Ok(rest.clients()),
        }
    }

    /// What a path answers.
    ///
    /// # Errors
    ///
    /// [`AdminError`]; so for every method here.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        read(path, &self.ask(Method::GET, path, None).await?)
    }

    /// What it answers to this.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AdminError> {
        let body = json(path, body)?;
        read(path, &self.ask(Method::POST, path, Some(body)).await?)
    }

    /// Asks for it to be done.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn post_json(&self, path: &str, body: &impl Serialize) -> Result<(), AdminError> {
        let body = json(path, body)?;
        self.ask(Method::POST, path, Some(body)).await.map(drop)
    }

    /// Asks for it to be done.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn post_nothing(&self, path: &str) -> Result<(), AdminError> {
        self.ask(Method::POST, path, None).await.map(drop)
    }

    /// What it answers to nothing.
    ///
    /// # Errors
    ///
    /// See [`Self::get`].
    pub async fn ask_for<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        read(path, &self.ask(Method::POST, path, None).await?)
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<Vec<u8>, AdminError> {
        let ((status, answer), over_rest) = match self {
            Self::Socket(socket) => (socket.ask(method, path, body).await?, false),
            Self::Rest(rest) => (rest.ask(method, path, body).await?, true),
        };
        match (200..300).contains(&status) {
            true => Ok(answer),
            false => Err(AdminError::Refused(Refusal::read(
                path, status, &answer, over_rest,
            ))),
        }
    }
}

fn json(path: &str, body: &impl Serialize) -> Result<String, AdminError> {
    serde_json::to_string(body).map_err(|error| unknown(path, &error))
}

fn read<T: DeserializeOwned>(path: &str, answer: &[u8]) -> Result<T, AdminError> {
    serde_json::from_slice(answer).map_err(|error| unknown(path, &error))
}

fn unknown(path: &str, error: &serde_json::Error) -> AdminError {
    AdminError::Unknown {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
